"""A server that speaks the protocol by hand, so that a test decides every byte that it says."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

import pytest
from aiohttp import web
from msgspec.structs import replace

from guerdon.outcome import Score
from guerdon.remote import RemoteReward
from guerdon.sample import Sample
from guerdon.wire.attachment import attach
from guerdon.wire.codec import decode_msgpack, encode_json, encode_msgpack
from guerdon.wire.frame import split_frame
from guerdon.wire.protocol import (
    FRAME_TYPE,
    JSON_TYPE,
    MSGPACK_TYPE,
    PROTOCOL,
    STATUS,
    VERSION_HEADER,
    ErrorBody,
    ErrorCode,
    ErrorReply,
    LimitsCard,
    Readiness,
    RewardCard,
    RewardReply,
    ScoreReply,
    ScoreRequest,
    ServerCard,
)

FINGERPRINT = "a" * 16

CARD = RewardCard(
    name="exact",
    reward="exact",
    fingerprint=FINGERPRINT,
    version="1",
    description="",
    value_range=(0.0, 1.0),
    higher_is_better=True,
    scope="sample",
    work="cpu",
    deadline=None,
    candidate_fault=(),
    needs=("response", "ground_truth"),
    components=(),
    options=(),
    whole_groups=False,
    partial_groups=False,
    state="ready",
)
LIMITS = LimitsCard(
    body_bytes=1 << 28,
    decompressed_bytes=1 << 28,
    envelope_bytes=1 << 26,
    samples=4096,
    rewards=32,
    outcomes=65_536,
    pixels=1 << 26,
    frames=1024,
    timeout_ms=60_000.0,
    group_timeout_ms=30_000.0,
)

Behaviour = Callable[["Asked"], Awaitable[web.StreamResponse | None]]


class Asked:
    """One request for scores, as the server got it."""

    def __init__(self, raw: web.Request, body: bytes) -> None:
        self.raw = raw
        self.body = body
        self.headers = raw.headers
        envelope, bulk = body, memoryview(b"")
        if raw.content_type == FRAME_TYPE:
            frame = split_frame(memoryview(body))
            envelope, bulk = bytes(frame.envelope), frame.bulk
        self.request = decode_msgpack(envelope, ScoreRequest)
        self.bulk = bulk

    def samples(self, open_shared: Any = None) -> list[Sample]:
        return attach(self.request.samples, self.request.attachments, self.bulk, open_shared)

    def outcomes(self) -> list[Score]:
        return [
            Score(
                value=float(sample.response == sample.ground_truth),
                reward="exact",
                fingerprint=FINGERPRINT,
                sample=sample.sample_id,
            )
            for sample in self.request.samples
        ]

    def reply(self, outcomes: Sequence[Any] | None = None, **changes: Any) -> ScoreReply:
        result = RewardReply(
            name=changes.pop("name", "exact"),
            fingerprint=changes.pop("fingerprint", FINGERPRINT),
            outcomes=list(self.outcomes() if outcomes is None else outcomes),
        )
        reply = ScoreReply(
            request_id=self.request.request_id or "",
            attempt=self.request.attempt,
            results=[result],
        )
        return replace(reply, **changes)


class FakeServer:
    """Hosts the reward `exact`; a test may replace what it answers."""

    def __init__(self) -> None:
        self.card = ServerCard(
            protocol=PROTOCOL, version="0", server_id="1", rewards=[CARD], limits=LIMITS
        )
        self.asked: list[Asked] = []
        self.ready = True
        self.handshakes = 0
        self.behaviour: Behaviour | None = None
        self.token: str | None = None
        self.version = str(PROTOCOL)
        self.cancelled = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._runner: web.AppRunner | None = None
        self.port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self._do(self._start())

    def stop(self) -> None:
        self._do(self._stop())

    def close(self) -> None:
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def answer(self, value: Any, status: int = 200, **headers: str) -> web.Response:
        return web.Response(
            body=encode_msgpack(value),
            status=status,
            headers={VERSION_HEADER: self.version, "content-type": MSGPACK_TYPE, **headers},
        )

    def refuse(self, code: ErrorCode, **fields: Any) -> web.Response:
        error = ErrorBody(code=code, message=f"it is {code}", **fields)
        return self.answer(ErrorReply(error), STATUS[code])

    def remote(self, **options: Any) -> RemoteReward:
        settings = {"retry": {"first_delay": 0.001, "jitter": 0.0}, **options}
        return RemoteReward(settings.pop("url", self.url), "exact", **settings)

    def _do(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _start(self) -> None:
        app = web.Application(client_max_size=1 << 30)
        app.router.add_post("/v1/score", self._score)
        app.router.add_get("/v1/rewards", self._rewards)
        app.router.add_get("/readyz", self._readyz)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def _stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def _json(self, value: Any, status: int = 200) -> web.Response:
        headers = {VERSION_HEADER: self.version, "content-type": JSON_TYPE}
        return web.Response(body=encode_json(value), status=status, headers=headers)

    async def _rewards(self, raw: web.Request) -> web.Response:
        self.handshakes += 1
        if self.token and raw.headers.get("authorization") != f"Bearer {self.token}":
            error = ErrorBody(code=ErrorCode.UNAUTHORIZED, message="no token")
            return self._json(ErrorReply(error), 401)
        return self._json(self.card)

    async def _readyz(self, raw: web.Request) -> web.Response:
        state = "ready" if self.ready else "failed"
        return self._json(Readiness(self.ready, {"exact": state}), 200 if self.ready else 503)

    async def _score(self, raw: web.Request) -> web.StreamResponse:
        try:
            asked = Asked(raw, await raw.read())
            self.asked.append(asked)
            found = None if self.behaviour is None else await self.behaviour(asked)
            return self.answer(asked.reply()) if found is None else found
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


@pytest.fixture
def server() -> Iterator[FakeServer]:
    made = FakeServer()
    yield made
    made.close()


@pytest.fixture
def other_server() -> Iterator[FakeServer]:
    made = FakeServer()
    yield made
    made.close()


@pytest.fixture
def batch() -> list[Sample]:
    return [
        Sample(response=str(i % 3), ground_truth="1", sample_id=f"s{i}", group_id=f"g{i // 4}")
        for i in range(12)
    ]
