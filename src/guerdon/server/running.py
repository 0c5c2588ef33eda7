"""Running a server: in the foreground until a signal, or in a thread for tests and notebooks."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any, Self

import uvicorn

from guerdon.server.application import Application
from guerdon.server.configuration import ServerConfig
from guerdon.server.connection import connection_with
from guerdon.server.garbage import Garbage
from guerdon.server.journal import LOG

KEEP_ALIVE_SECONDS = 75.0
"""How long an idle connection stays open: longer than clients keep theirs, so that a client does
not send into a connection that is just being closed."""
LAST_WORD_SECONDS = 5.0
"""After the drain, how long replies may take to be sent."""
START_SECONDS = 60.0


class Server(uvicorn.Server):
    """A uvicorn server that ends without losing a request.

    Args:
        config: checked; `config.check_reach()` must have passed.
        bound: called once, when it listens.
        owns_process: whether the process does nothing else, so that it may say when garbage is
            collected.

    Attributes:
        refusal: why it ended by itself: a reward that can never score, such as a model whose
            device is absent. Empty otherwise.
    """

    def __init__(
        self,
        config: ServerConfig,
        bound: Callable[[], None] | None = None,
        *,
        owns_process: bool = False,
    ) -> None:
        self._bound = bound
        self.refusal = ""
        self.application = Application(config, self._give_up)
        self._garbage = Garbage(self.application.bytes_in_flight) if owns_process else None
        self._drain_seconds = config.serve.drain_seconds
        settings: dict[str, Any] = {
            "host": config.serve.host,
            "port": config.serve.port,
            "loop": "uvloop",
            "http": connection_with(config.serve.limits),
            "ws": "none",
            "lifespan": "on",
            "log_config": None,
            "access_log": False,
            "server_header": False,
            "proxy_headers": False,
            "timeout_keep_alive": KEEP_ALIVE_SECONDS,
            "timeout_graceful_shutdown": config.serve.drain_seconds + LAST_WORD_SECONDS,
        }
        if config.serve.tls is not None:
            settings["ssl_certfile"] = config.serve.tls.cert
            settings["ssl_keyfile"] = config.serve.tls.key
        super().__init__(uvicorn.Config(self.application, **settings))

    def _give_up(self, reason: str) -> None:
        """End: a server that can only answer failures is worse than none."""
        LOG.error("%s; the server ends", reason)
        self.refusal = self.refusal or reason
        self.should_exit = True

    @property
    def port(self) -> int:
        """The port that is bound."""
        return int(self.servers[0].sockets[0].getsockname()[1])

    @property
    def scheme(self) -> str:
        """How its addresses begin."""
        return "https" if self.config.is_ssl else "http"

    async def startup(self, sockets: Any = None) -> None:
        """Bind and say where."""
        await super().startup(sockets)
        if self.started:
            if self._garbage is not None:
                self._garbage.start()
            LOG.info("listening on %s://%s:%d", self.scheme, self.config.host, self.port)
            if self._bound is not None:
                self._bound()

    async def shutdown(self, sockets: Any = None) -> None:
        """Take no more requests, let those that are there end, answer the rest, and stop."""
        self.application.drain()
        LOG.info("draining: %d requests are open", self.application.orders.open)
        loop = asyncio.get_running_loop()
        timer = loop.call_later(self._drain_seconds, self.application.orders.end)
        try:
            await super().shutdown(sockets)
        finally:
            timer.cancel()
            if self._garbage is not None:
                self._garbage.stop()
            # uvicorn would raise the signal once more; a drain that worked is no failure.
            self._captured_signals.clear()


class RunningServer:
    """A server in a thread of this process.

    Args:
        config: what it serves; port 0 takes a free one.

    Example:
        >>> from guerdon.server import load
        >>> config = load({"rewards": {"gsm8k": "gsm8k"}, "serve": {"port": 0}})
        >>> with RunningServer(config) as server:  # doctest: +SKIP
        ...     print(server.url)
    """

    def __init__(self, config: ServerConfig) -> None:
        config.check_reach()
        self._failed = False
        self._bound = threading.Event()
        self.server = Server(config, self._bound.set)
        self._thread = threading.Thread(target=self._run, name="guerdon-server", daemon=True)

    @property
    def url(self) -> str:
        """Where it is."""
        return f"{self.server.scheme}://127.0.0.1:{self.server.port}"

    def _run(self) -> None:
        try:
            self.server.config.load()
            factory = self.server.config.get_loop_factory()
            with asyncio.Runner(loop_factory=factory) as runner:
                runner.run(self.server.serve())
        except (Exception, SystemExit):
            LOG.exception("the server failed")
            self._failed = True
        finally:
            self._bound.set()

    def start(self) -> Self:
        """Start it, and wait until it listens.

        Raises:
            RuntimeError: it could not start; the log says why.
        """
        self._thread.start()
        self._bound.wait(START_SECONDS)
        if self._failed or not self.server.started:
            raise RuntimeError("the server did not start: see its log")
        return self

    def stop(self) -> None:
        """Drain and end it, and wait until it has ended."""
        self.server.should_exit = True
        self._thread.join()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
