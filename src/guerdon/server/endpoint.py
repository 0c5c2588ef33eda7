"""`POST /v1/score`: a bare ASGI endpoint, because a framework's own reading of large bodies costs
several times what receiving them into a kept buffer costs."""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

import msgspec

from guerdon.outcome import Failure, Score
from guerdon.server.body import (
    Body,
    Buffers,
    Gone,
    Receive,
    check_announced,
    decompress,
    receive_body,
)
from guerdon.server.connection import SOURCE
from guerdon.server.credentials import Credentials
from guerdon.server.intake import DIRECT_BYTES, receive_directly
from guerdon.server.journal import log_request
from guerdon.server.negotiation import Form, Head, read_head, reply_form
from guerdon.server.orders import Order, Orders
from guerdon.server.reading import Reader, Reading
from guerdon.server.record import Metrics
from guerdon.server.refusal import Refused
from guerdon.server.settings import ServeSettings
from guerdon.wire.protocol import (
    PROTOCOL,
    REQUEST_ID_HEADER,
    SCORE_PATH,
    VERSION_HEADER,
    ErrorCode,
    ScoreReply,
)

Send: TypeAlias = Callable[[Any], Awaitable[None]]
Headers: TypeAlias = dict[bytes, bytes]

INLINE_BYTES = 64 << 10
"""Bodies up to this size are decoded on the event loop; larger ones on a thread."""
INLINE_OUTCOMES = 512
"""Replies with more outcomes are encoded on a thread."""
UNKNOWN_LENGTH = 8 << 20
"""What a body without a length counts for before it is there."""
BUSY_RETRY_SECONDS = 1.0


class Exchange:
    """One request and its reply, as the log will have it."""

    def __init__(self, request_id: str) -> None:
        self.request_id = request_id
        self.began = time.perf_counter()
        self.caller = ""
        self.code = ""
        self.bytes_in = 0
        self.read_ms = 0.0
        self.rewards: list[str] = []
        self.samples = 0
        self.outcomes: Counter[str] = Counter()

    @property
    def elapsed_ms(self) -> float:
        """Since the first byte."""
        return (time.perf_counter() - self.began) * 1000.0


class Reply(msgspec.Struct, frozen=True):
    """What is sent.

    Attributes:
        status: of HTTP.
        form: of the payload.
        payload: the body.
        headers: beside those that every reply has.
    """

    status: int
    form: Form
    payload: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()

    async def send(self, send: Send, request_id: str) -> None:
        """Send it."""
        headers = [
            (b"content-type", self.form.value.encode()),
            (b"content-length", str(len(self.payload)).encode()),
            *standard_headers(request_id),
            *self.headers,
        ]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.payload})


class ScoreEndpoint:
    """Serves `POST /v1/score`.

    Args:
        serve: settings of the server.
        server_id: begins the ids that requests get.
        credentials: who may use the server.
        reader: decodes and checks.
        orders: scores.
        metrics: of the server.
    """

    def __init__(
        self,
        serve: ServeSettings,
        server_id: str,
        credentials: Credentials,
        reader: Reader,
        orders: Orders,
        metrics: Metrics,
    ) -> None:
        self._limits = serve.limits
        self._log_all = serve.log == "all"
        self._server_id = server_id
        self._credentials = credentials
        self._reader = reader
        self._orders = orders
        self._metrics = metrics
        self._buffers = Buffers()
        self._numbers = itertools.count(1)
        self._received = metrics.bytes.labels("in")
        self._sent = metrics.bytes.labels("out")
        self._by_status = functools.cache(functools.partial(metrics.requests.labels, SCORE_PATH))
        self.bytes_in_flight = 0

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Serve one request."""
        headers: Headers = dict(scope["headers"])
        exchange = Exchange(self.request_id(headers))
        reply: Reply | None = None
        self._metrics.in_flight.inc()
        try:
            reply = await self._serve(scope, headers, receive, exchange)
        except Refused as refused:
            reply = self._refusal(refused, headers, exchange)
        except Gone:
            exchange.code = "client_gone"
        except Exception as error:
            reply = self._failed(error, headers, exchange)
        finally:  # noted before it is sent: who has the reply finds it counted
            self._metrics.in_flight.dec()
            self._note(exchange, reply)
        if reply is not None:
            await reply.send(send, exchange.request_id)

    def request_id(self, headers: Mapping[bytes, bytes]) -> str:
        """The id that the request came with, or a new one."""
        given = headers.get(REQUEST_ID_HEADER.encode(), b"")
        if given and len(given) <= 200:
            return given.decode("latin-1")
        return f"{self._server_id}-{next(self._numbers)}"

    async def _serve(
        self, scope: Any, headers: Headers, receive: Receive, exchange: Exchange
    ) -> Reply:
        if scope["method"] != "POST":
            raise Refused(
                ErrorCode.METHOD_NOT_ALLOWED, f"send POST to {SCORE_PATH}", headers=_ALLOW
            )
        exchange.caller = self._credentials.caller(headers, scope["query_string"])
        if self._orders.draining:
            raise Refused(ErrorCode.DRAINING, "the server ends: ask another one", retry_after=1.0)
        head = read_head(headers)
        check_announced(head.length, self._limits.body_bytes)
        body = Body(self._buffers)
        reserved = self._reserve(UNKNOWN_LENGTH if head.length is None else head.length)
        try:
            await self._receive(scope, receive, body, head.length)
            exchange.bytes_in = len(body)
            self._received.inc(len(body))
            if head.encoding is not None:
                most = self._limits.decompressed_bytes
                await asyncio.to_thread(decompress, body, head.encoding, most)
                reserved += self._reserve(len(body))
            reading = await self._read(body, head)
            order = self._place(reading, exchange)
            exchange.read_ms = exchange.elapsed_ms
            del reading
            await self._wait(order, receive)
            reply = order.reply(exchange.read_ms, exchange.elapsed_ms)
            del order
            payload = await _encode(head.reply, reply)
            exchange.outcomes = _count(reply)
        finally:
            self.bytes_in_flight -= reserved
            body.release()
        return Reply(200, head.reply, payload)

    async def _receive(
        self, scope: Any, receive: Receive, body: Body, announced: int | None
    ) -> None:
        most, pause = self._limits.body_bytes, self._limits.body_seconds
        source = scope.get(SOURCE)
        if source is not None and announced is not None and announced >= DIRECT_BYTES:
            view = memoryview(body.buffer(announced))[:announced]
            if await receive_directly(source, scope, view, pause):
                body.view = view
                return
            view.release()
        await receive_body(receive, body, announced, most, pause)

    def _reserve(self, size: int) -> int:
        """Count a body before it is received, and what it decompresses to."""
        if self.bytes_in_flight + size > self._limits.bytes_in_flight:
            raise Refused(
                ErrorCode.OVERLOADED,
                f"{self.bytes_in_flight} bytes of requests are being received or scored, and "
                f"{size} more are too many (serve.limits.bytes_in_flight); come back later",
                retry_after=BUSY_RETRY_SECONDS,
            )
        self.bytes_in_flight += size
        return size

    async def _read(self, body: Body, head: Head) -> Reading:
        if len(body) <= INLINE_BYTES:
            return self._reader.read(body.view, head.form)
        return await asyncio.to_thread(self._reader.read, body.view, head.form)

    def _place(self, reading: Reading, exchange: Exchange) -> Order:
        request = reading.request
        if request.request_id is not None:
            exchange.request_id = request.request_id
        exchange.samples = len(request.samples)
        exchange.rewards = [call.name for call in request.calls]
        shared = sum(a.size for a in request.attachments if a.shared is not None)
        if shared:
            self._metrics.shared_bytes.inc(shared)
        return self._orders.place(reading, exchange.caller, exchange.request_id)

    async def _wait(self, order: Order, receive: Receive) -> None:
        """Wait until everything is scored, or the client is gone."""
        if order.done.done():
            return
        gone = asyncio.ensure_future(_until_gone(receive))
        try:
            await asyncio.wait((gone, order.done), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self._orders.leave(order)
            raise
        finally:
            gone.cancel()
        if not order.done.done():
            self._orders.leave(order)
            raise Gone

    def _refusal(
        self, refused: Refused, headers: Mapping[bytes, bytes], exchange: Exchange
    ) -> Reply:
        """Why a request is not served."""
        exchange.code = str(refused.code)
        self._metrics.refusals.labels(str(refused.code)).inc()
        more = list(refused.headers)
        if refused.retry_after is not None:
            seconds = str(max(1, math.ceil(refused.retry_after))).encode()
            more.append((b"retry-after", seconds))
        if refused.status in _CLOSING:
            more.append((b"connection", b"close"))
        form = _error_form(headers)
        payload = form.encode(refused.reply(exchange.request_id))
        return Reply(refused.status, form, payload, tuple(more))

    def _failed(
        self, error: Exception, headers: Mapping[bytes, bytes], exchange: Exchange
    ) -> Reply:
        logging.getLogger("guerdon.server").exception(
            "request %s failed", exchange.request_id, exc_info=error
        )
        message = (
            "the server has a bug; its log has the cause under the request id "
            f"{exchange.request_id!r}"
        )
        return self._refusal(Refused(ErrorCode.INTERNAL, message), headers, exchange)

    def _note(self, exchange: Exchange, reply: Reply | None) -> None:
        """Count and log what became of a request; 0 is the status where nobody waits for it."""
        status, bytes_out = (0, 0) if reply is None else (reply.status, len(reply.payload))
        self._sent.inc(bytes_out)
        self._by_status(str(status)).inc()
        self._metrics.request_seconds.observe(exchange.elapsed_ms / 1000.0)
        fine = status == 200 and not any(map(_is_failure, exchange.outcomes))
        if fine and not self._log_all:
            return
        level = logging.INFO if status < 500 else logging.ERROR
        log_request(
            level,
            exchange.code or "scored",
            request_id=exchange.request_id,
            caller=exchange.caller,
            status=status,
            rewards=exchange.rewards,
            samples=exchange.samples,
            outcomes=exchange.outcomes,
            bytes_in=exchange.bytes_in,
            bytes_out=bytes_out,
            read_ms=round(exchange.read_ms, 3),
            total_ms=round(exchange.elapsed_ms, 3),
        )


_ALLOW = ((b"allow", b"POST"),)
_CLOSING = frozenset({408, 500, 503})
"""Statuses after which the connection ends. After others the rest of a body is read and dropped: a
client that is still sending would not see the reply of a server that closes."""


def _is_failure(name: str) -> bool:
    return name not in ("score", "abstention")


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _encode(form: Form, reply: ScoreReply) -> bytes:
    outcomes = sum(len(result.outcomes) for result in reply.results)
    if outcomes <= INLINE_OUTCOMES:
        return form.encode(reply)
    return await asyncio.to_thread(form.encode, reply)


def _count(reply: ScoreReply) -> Counter[str]:
    """Outcomes by what the log calls them."""
    counts: Counter[str] = Counter()
    for result in reply.results:
        for outcome in result.outcomes:
            if type(outcome) is Score:
                counts["score"] += 1
            elif type(outcome) is Failure:
                counts[str(outcome.kind)] += 1
            else:
                counts["abstention"] += 1
    return counts


def _error_form(headers: Mapping[bytes, bytes]) -> Form:
    """How a refusal is written: as asked for, JSON in doubt."""
    try:
        return reply_form(headers.get(b"accept", b""))
    except Refused:
        return Form.JSON


def standard_headers(request_id: str) -> list[tuple[bytes, bytes]]:
    """What every reply has."""
    shown = "".join(c if " " <= c <= "~" else "?" for c in request_id)
    return [
        (REQUEST_ID_HEADER.encode(), shown.encode()),
        (VERSION_HEADER.encode(), str(PROTOCOL).encode()),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
    ]


def encode_plain(value: msgspec.Struct) -> bytes:
    """JSON of what the server says about itself."""
    return msgspec.json.encode(value)
