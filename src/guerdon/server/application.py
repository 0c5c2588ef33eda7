"""The ASGI application of a server: everything that hangs together, and what it says of itself."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any, cast

import msgspec
from prometheus_client import generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from guerdon.server.admission import Admission
from guerdon.server.body import Receive
from guerdon.server.configuration import ServerConfig
from guerdon.server.credentials import Credentials
from guerdon.server.endpoint import Endpoint, encode_plain
from guerdon.server.flight import Flight
from guerdon.server.hosted import Hosted
from guerdon.server.journal import LOG
from guerdon.server.native import Native
from guerdon.server.negotiation import Form, reply_form
from guerdon.server.openapi import docs_page, openapi
from guerdon.server.orders import Orders
from guerdon.server.page import ASSETS, PAGE, page_reply
from guerdon.server.protocols.catalogue import routes_of
from guerdon.server.protocols.dialect import PageRoute, Standing
from guerdon.server.protocols.spoken import Spoken
from guerdon.server.reading import Reader
from guerdon.server.record import Metrics
from guerdon.server.refusal import Refused
from guerdon.server.shared import SharedFiles
from guerdon.server.speech import Send, Speech, standard_headers
from guerdon.server.status import ServerStatus, reward_status
from guerdon.wire.protocol import (
    PROTOCOL,
    REWARDS_PATH,
    SCORE_PATH,
    ErrorCode,
    LimitsCard,
    Readiness,
    ServerCard,
)

PROMETHEUS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
GETS = ("GET", "HEAD")
SERVING = ("ready", "degraded")
"""States of a reward in which it scores."""


class Application:
    """The ASGI application.

    Args:
        config: what is hosted, and how it is reached.
        give_up: called with the reason where a reward can never score.

    Attributes:
        rewards: the hosted rewards by name.
        orders: the requests.
        server_id: unique for each start.
    """

    def __init__(
        self, config: ServerConfig, give_up: Callable[[str], None] = lambda _: None
    ) -> None:
        self.server_id = secrets.token_hex(4)
        self._serve = config.serve
        self._metrics = Metrics()
        self._credentials = Credentials(config.serve.tokens)
        self._flight = Flight(config.serve.limits)
        self._shared = SharedFiles(config.serve.shared_memory, self._flight)
        self.rewards = {
            name: Hosted(name, host, self._metrics, give_up)
            for name, host in config.rewards.items()
        }
        limits = config.serve.limits
        self.orders = Orders(self.rewards, limits)
        admission = Admission(limits, config.serve.media_roots)
        reader = Reader(limits, admission, self._shared)
        self._dialects = config.dialects
        self._speeches: dict[str, Speech] = {SCORE_PATH: Native(reader)}
        for dialect in config.dialects:
            for route in routes_of([dialect])[0]:
                timeout = dialect.settings.timeout_seconds
                self._speeches[route.path] = Spoken(route, timeout, reader, limits)
        self._endpoint = Endpoint(
            config.serve,
            self.server_id,
            self._credentials,
            self.orders,
            self._metrics,
            self._flight,
        )
        self._started_at = time.time()
        self._pages = self._make_pages()

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Serve one connection, as ASGI defines it."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            speech = self._speeches.get(scope["path"])
            if speech is None or (scope["method"] in GETS and scope["path"] in self._page_paths):
                await self._pages(scope, receive, send)
            else:
                await self._endpoint.serve(speech, scope, receive, send)

    # Life.

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                try:
                    self.start()
                except Exception as error:
                    LOG.exception("the server could not start")
                    await send({"type": "lifespan.startup.failed", "message": str(error)})
                    return
                await send({"type": "lifespan.startup.complete"})
            else:
                await self.stop()
                await send({"type": "lifespan.shutdown.complete"})
                return

    def start(self) -> None:
        """Start the workers; requests may come at once and wait for them."""
        self._shared.start()
        for dialect in self._dialects:
            if dialect.warning:
                LOG.warning("dialect %s: %s", dialect.name, dialect.warning)
        for hosted in self.rewards.values():
            hosted.start()

    def drain(self) -> None:
        """Refuse new requests; those that are there go on."""
        self.orders.drain()
        for hosted in self.rewards.values():
            hosted.drain()

    async def stop(self) -> None:
        """Answer what is left with failures, and end the workers."""
        self.drain()
        self.orders.end()
        await asyncio.gather(*(hosted.stop() for hosted in self.rewards.values()))
        self._shared.stop()

    # Pages.

    def _make_pages(self) -> Starlette:
        pages: list[tuple[str, Callable[[Request], Response]]] = [
            ("/", self._front_page),
            (REWARDS_PATH, self._rewards_page),
            ("/livez", self._live_page),
            ("/readyz", self._ready_page),
            ("/metrics", self._metrics_page),
            ("/status.json", self._status_page),
            ("/openapi.json", self._openapi_page),
            ("/docs", self._docs_page),
            *((path, self._asset) for path in ASSETS),
            *((page.path, self._foreign_page(page)) for page in routes_of(self._dialects)[1]),
        ]
        self._page_paths = frozenset(path for path, _ in pages)
        routes = [Route(path, _endpoint(page), methods=["GET"]) for path, page in pages]
        handlers: dict[Any, Any] = {
            Refused: self._refused,
            HTTPException: self._http_error,
            Exception: self._bug,
        }
        return Starlette(routes=routes, exception_handlers=handlers)

    def _caller(self, request: Request) -> str:
        headers = dict(cast("list[tuple[bytes, bytes]]", request.scope["headers"]))
        return self._credentials.caller(headers, request.scope["query_string"])

    def _front_page(self, request: Request) -> Response:
        self._caller(request)
        return self._file(request, PAGE)

    def _asset(self, request: Request) -> Response:
        return self._file(request, ASSETS[request.scope["path"]])

    def _file(self, request: Request, name: str) -> Response:
        headers = _standard(self._endpoint.request_id(dict(request.scope["headers"])))
        return page_reply(name, headers)

    def _rewards_page(self, request: Request) -> Response:
        self._caller(request)
        return self._reply(request, self.card())

    def _live_page(self, _: Request) -> Response:
        return Response(b'{"live":true}', media_type="application/json")

    def _ready_page(self, request: Request) -> Response:
        states = {name: hosted.state for name, hosted in self.rewards.items()}
        ready = all(state in SERVING for state in states.values()) and not self.orders.draining
        try:
            self._caller(request)
        except Refused:  # probes have no token, and need no names
            states = {}
        return self._reply(request, Readiness(ready, states), 200 if ready else 503)

    def _metrics_page(self, request: Request) -> Response:
        self._caller(request)
        self._gauge()
        return Response(generate_latest(self._metrics.registry), media_type=PROMETHEUS_TYPE)

    def _status_page(self, request: Request) -> Response:
        self._caller(request)
        return Response(encode_plain(self.status()), media_type="application/json")

    def _openapi_page(self, request: Request) -> Response:
        self._caller(request)
        return Response(openapi(self._dialects), media_type="application/json")

    def _docs_page(self, request: Request) -> Response:
        self._caller(request)
        return Response(docs_page(self._dialects), media_type="text/html")

    def _foreign_page(self, page: PageRoute) -> Callable[[Request], Response]:
        """A page of a dialect."""

        def answer(request: Request) -> Response:
            self._caller(request)
            reply = page.reply(self._standing())
            headers = _standard(self._endpoint.request_id(dict(request.scope["headers"])))
            return Response(reply.payload, reply.status, headers, media_type=reply.content_type)

        return answer

    def _standing(self) -> Standing:
        rewards = self.rewards.items()
        return Standing(
            states={name: hosted.state for name, hosted in rewards},
            replicas={name: hosted.replica_states for name, hosted in rewards},
            draining=self.orders.draining,
        )

    def _reply(self, request: Request, value: msgspec.Struct, status: int = 200) -> Response:
        form = reply_form(request.headers.get("accept", "").encode("latin-1"), Form.JSON)
        headers = _standard(self._endpoint.request_id(dict(request.scope["headers"])))
        return Response(form.encode(value), status, headers, media_type=form.value)

    # Errors of pages.

    def _refused(self, request: Request, refused: Exception) -> Response:
        refused = cast("Refused", refused)
        request_id = self._endpoint.request_id(dict(request.scope["headers"]))
        self._metrics.refusals.labels(str(refused.code)).inc()
        more = {name.decode(): value.decode() for name, value in refused.headers}
        headers = {**_standard(request_id), **more}
        content = encode_plain(refused.reply(request_id))
        return Response(content, refused.status, headers, media_type="application/json")

    def _http_error(self, request: Request, error: Exception) -> Response:
        found = cast("HTTPException", error)
        if found.status_code == 405:
            allowed = (found.headers or {}).get("Allow", "GET")
            refused = Refused(
                ErrorCode.METHOD_NOT_ALLOWED,
                f"{request.url.path} takes {allowed}",
                headers=((b"allow", allowed.encode()),),
            )
        else:
            refused = Refused(
                ErrorCode.NOT_FOUND,
                f"there is nothing at {request.url.path}: see /docs for what there is",
            )
        return self._refused(request, refused)

    def _bug(self, request: Request, error: Exception) -> Response:
        request_id = self._endpoint.request_id(dict(request.scope["headers"]))
        logging.getLogger("guerdon.server").error(
            "request %s for %s failed", request_id, request.url.path, exc_info=error
        )
        message = f"the server has a bug; its log has the cause under {request_id!r}"
        return self._refused(request, Refused(ErrorCode.INTERNAL, message))

    # What the server says of itself.

    def bytes_in_flight(self) -> int:
        """What the requests hold together."""
        return self._flight.bytes

    def card(self) -> ServerCard:
        """What it hosts."""
        limits = self._serve.limits
        return ServerCard(
            protocol=PROTOCOL,
            version=_version(),
            server_id=self.server_id,
            rewards=[hosted.card() for hosted in self.rewards.values()],
            limits=LimitsCard(
                body_bytes=limits.body_bytes,
                decompressed_bytes=limits.decompressed_bytes,
                envelope_bytes=limits.envelope_bytes,
                samples=limits.samples,
                rewards=limits.rewards,
                outcomes=limits.outcomes,
                pixels=limits.pixels,
                frames=limits.frames,
                timeout_ms=limits.timeout_seconds * 1000.0,
                group_timeout_ms=limits.group_timeout_seconds * 1000.0,
            ),
            shared_memory=self._shared.card,
        )

    def status(self) -> ServerStatus:
        """What it does and did."""
        return ServerStatus(
            server_id=self.server_id,
            version=_version(),
            protocol=PROTOCOL,
            time=time.time(),
            uptime_seconds=time.time() - self._started_at,
            draining=self.orders.draining,
            requests_open=self.orders.open,
            bytes_in_flight=self.bytes_in_flight(),
            rewards=[reward_status(hosted) for hosted in self.rewards.values()],
        )

    def _gauge(self) -> None:
        """Set the gauges, whose values are looked up only when somebody asks."""
        metrics = self._metrics
        for name, hosted in self.rewards.items():
            metrics.queue_depth.labels(name).set(hosted.queue.depth)
            metrics.group_waiting.labels(name).set(hosted.groups.waiting)
            metrics.ready.labels(name).set(hosted.state in SERVING)
            pools = [replica.pool for replica in hosted.replicas if replica.pool is not None]
            metrics.workers_ready.labels(name).set(sum(pool.ready() for pool in pools))
            for how in ("died", "killed", "replaced"):
                ended = sum(pool.ended().get(how, 0) for pool in pools)
                metrics.worker_ends.labels(name, how).set(ended)


def _endpoint(page: Callable[[Request], Response]) -> Callable[[Request], Awaitable[Response]]:
    """A page as Starlette calls it on the event loop: a plain function would go to a thread."""

    async def endpoint(request: Request) -> Response:
        return page(request)

    return endpoint


def _standard(request_id: str) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in standard_headers(request_id)}


def _version() -> str:
    try:
        return version("guerdon")
    except PackageNotFoundError:  # a source tree that was never installed
        return "0"
