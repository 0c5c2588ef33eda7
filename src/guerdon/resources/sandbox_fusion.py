"""A SandboxFusion server somewhere else, as a place where programs run."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
import threading
import urllib.parse
from http import HTTPStatus
from typing import ClassVar

import msgspec

from guerdon.errors import BadInput, ConfigError, RewardFailure, Unavailable
from guerdon.resources.endpoint import check_url
from guerdon.resources.program import Program, Run
from guerdon.resources.resource import Resource
from guerdon.resources.sandbox_fusion_form import (
    PATH,
    RunCodeResponse,
    plain,
    request_of,
    run_of,
)
from guerdon.resources.spec import Backend, Spec

# Made here, before any thread: msgspec crashes where two of them prepare a type at the same time.
_decode = msgspec.json.Decoder(RunCodeResponse).decode

AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses after which another try may help."""

WAIT_SECONDS = 0.5
"""Before the second try; doubled before each further one."""

MOST_BYTES = 64 << 20
"""Longest reply that is read."""

SHOWN = 200
"""Characters of a reply that an error quotes."""


class SandboxFusion(Resource):
    """Runs programs on a server; made from `SandboxFusionSpec`, on the backend `remote`.

    A connection per program: the server's work takes much longer than connecting.
    """

    def __init__(self, spec: SandboxFusionSpec) -> None:
        self._spec = spec
        self._address = urllib.parse.urlsplit(spec.url)
        self._interrupted = threading.Event()
        self._asking: set[http.client.HTTPConnection] = set()

    def reset(self) -> bool:
        """Every program runs afresh: there is nothing to reset."""
        self._interrupted.clear()
        return True

    def interrupt(self) -> None:
        """Wait for no answer any more; the server is not told."""
        self._interrupted.set()
        for connection in list(self._asking):
            with contextlib.suppress(OSError, AttributeError):  # it has ended, or will see it
                connection.sock.shutdown(socket.SHUT_RDWR)

    def run(self, program: Program) -> Run:
        """Run a program; blocks.

        Raises:
            Unavailable: the server cannot be reached, refuses, or says that its sandbox failed.
            BadInput: the server says that the request is wrong.
        """
        spec = self._spec
        body = json.dumps(plain(request_of(program))).encode()
        patience = program.compile_seconds + program.run_seconds + spec.grace_seconds
        wait = WAIT_SECONDS
        for attempt in range(spec.attempts):
            try:
                return self._ask(body, patience)
            except RewardFailure as error:
                if not error.retryable or attempt + 1 == spec.attempts:
                    raise
                if self._interrupted.wait(wait):
                    raise
            wait *= 2
        raise AssertionError("attempts is at least 1")

    async def run_async(self, program: Program) -> Run:
        """As `run`, without blocking the event loop."""
        return await asyncio.to_thread(self.run, program)

    def _ask(self, body: bytes, patience: float) -> Run:
        address = self._address
        secure = address.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        connection = kind(address.hostname or "", address.port, timeout=patience)
        headers = {"content-type": "application/json", "accept": "application/json"}
        if self._spec.token is not None:
            headers["authorization"] = f"Bearer {self._spec.token}"
        self._asking.add(connection)
        try:
            connection.connect()
            if self._interrupted.is_set():
                raise ConnectionAbortedError("nobody waits for it any more")
            connection.request("POST", address.path.rstrip("/") + PATH, body, headers)
            answer = connection.getresponse()
            status, data = answer.status, answer.read(MOST_BYTES + 1)
        except (OSError, http.client.HTTPException) as error:
            why = f"{type(error).__name__}: {error}"
            raise Unavailable(f"SandboxFusion at {self._spec.url} gives no answer: {why}") from None
        finally:
            self._asking.discard(connection)
            connection.close()
        if status != HTTPStatus.OK:
            self._refused(status, data)
        return self._read(data)

    def _refused(self, status: int, data: bytes) -> None:
        said = data[:SHOWN].decode(errors="replace")
        told = f"SandboxFusion at {self._spec.url} answers {status}: {said}"
        if status in (HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY):
            raise BadInput(told)
        raise Unavailable(told, retryable=status in AGAIN)

    def _read(self, data: bytes) -> Run:
        """The run in a reply.

        Raises:
            Unavailable: its sandbox failed, or it is no reply of the form.
        """
        try:
            run = run_of(_decode(data))
        except (msgspec.DecodeError, RecursionError, BadInput) as error:
            said = data[:SHOWN].decode(errors="replace")
            raise Unavailable(
                f"SandboxFusion at {self._spec.url} answers in no form of run_code: {error}; it "
                f"said {said}",
                retryable=False,
            ) from None
        if run.message:
            raise Unavailable(f"the sandbox at {self._spec.url} failed: {run.message[:SHOWN]}")
        broken = next((p for p in (run.compiled, run.ran) if p and p.end == "broken"), None)
        if broken is not None:
            told = broken.stderr[:SHOWN]
            raise Unavailable(f"the sandbox at {self._spec.url} failed: {told}")
        return run


class SandboxFusionSpec(Spec[SandboxFusion], frozen=True, kw_only=True):
    """A SandboxFusion server, or one that speaks its dialect such as `guerdon serve`.

    Attributes:
        url: with a path prefix where there is one; `/run_code` is added.
        token: sent as `Authorization: Bearer`.
        attempts: tries for what may work at another time.
        grace_seconds: how much longer than the program's own times an answer may take.

    Raises:
        ConfigError: a URL that is none.
    """

    backends: ClassVar[tuple[Backend, ...]] = ("remote",)
    secrets: ClassVar[tuple[str, ...]] = ("token",)

    url: str
    token: str | None = None
    attempts: int = 3
    grace_seconds: float = 30.0

    def __post_init__(self) -> None:
        check_url(self.url)
        if urllib.parse.urlsplit(self.url).path.rstrip("/").endswith(PATH):
            raise ConfigError(f"url goes without {PATH}, which is added: {self.url!r}")
        if self.attempts < 1 or not self.grace_seconds > 0:
            raise ConfigError("attempts and grace_seconds must be above 0")

    def make(self) -> SandboxFusion:
        """The client."""
        return SandboxFusion(self)
