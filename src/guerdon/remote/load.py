"""Load on a service: closed loop (so many callers) and open loop (so many requests per second).

In the closed loop each caller sends when its last request was answered, so a slow server is asked
less. In the open loop requests are due at fixed times, whatever the server does, and the latency of
a request counts from when it was due: a stall delays, and shows in, all requests that were due
meanwhile ("coordinated omission" is not omitted).
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import msgspec

from guerdon.errors import MalformedMessage
from guerdon.outcome import Failure, Outcome, Score
from guerdon.remote.address import Address
from guerdon.remote.body import Body, Media
from guerdon.remote.endpoint import fetch_card, find_card
from guerdon.remote.reply import Answer, Refusal, bad_reply, refusal_of
from guerdon.remote.transport import Session
from guerdon.sample import Sample
from guerdon.wire.codec import decode_msgpack
from guerdon.wire.protocol import (
    MSGPACK_TYPE,
    PROTOCOL,
    SCORE_PATH,
    VERSION_HEADER,
    RewardCard,
    ScoreReply,
    ScoreRequest,
)

Mode = Literal["closed", "open"]

HEADERS: Mapping[str, str] = {VERSION_HEADER: str(PROTOCOL), "accept": MSGPACK_TYPE}
PERCENTILES = (50.0, 90.0, 99.0)
MOST_IN_FLIGHT = 4096
"""Requests in flight of an open loop; further ones are sent late, and their latency shows it."""
CONNECT_SECONDS = 10.0


class Step(msgspec.Struct, frozen=True):
    """One load.

    Attributes:
        mode: closed or open loop.
        load: callers of a closed loop, requests per second of an open one.
        seconds: how long requests are sent.
        requests: most requests, None without a bound.
    """

    mode: Mode
    load: float
    seconds: float
    requests: int | None = None


class Level(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one load.

    Attributes:
        mode: closed or open loop.
        load: callers, or requests per second asked for.
        requests: that were sent.
        samples: in the requests that were answered.
        seconds: from the first request to the last answer.
        requests_per_second: answered with outcomes.
        samples_per_second: in those.
        latency_ms: of answered requests: p50, p90, p99, max, mean; empty where none was.
        outcomes: samples by what came of them: score, abstention, or the kind of failure.
        errors: requests without outcomes, by the code of the refusal or the kind of failure.
    """

    mode: Mode
    load: float
    requests: int
    samples: int
    seconds: float
    requests_per_second: float
    samples_per_second: float
    latency_ms: Mapping[str, float]
    outcomes: Mapping[str, int]
    errors: Mapping[str, int]


class Loader:
    """Sends loads to one reward of one server; belongs to the running event loop.

    Args:
        address: of the server.
        card: of the reward.
        samples: of which each request has the same.
        timeout: seconds for one request.
    """

    def __init__(
        self, address: Address, card: RewardCard, samples: Sequence[Sample], timeout: float
    ) -> None:
        self._address = address
        self._samples = samples
        self._timeout = timeout
        self._session = Session(CONNECT_SECONDS)
        request = ScoreRequest(
            samples=list(samples), rewards=[card.name], timeout_ms=timeout * 1000, run_id="bench"
        )
        self._body = Body(request, Media(samples, None))

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def run(self, step: Step) -> Level:
        """Send one load, and wait for all answers."""
        tally = _Tally(len(self._samples))
        began = time.perf_counter()
        await (self._closed if step.mode == "closed" else self._open)(step, tally)
        return tally.level(step, time.perf_counter() - began)

    async def _closed(self, step: Step, tally: _Tally) -> None:
        end = time.perf_counter() + step.seconds

        async def caller() -> None:
            while time.perf_counter() < end and tally.may_send(step.requests):
                await self._once(tally, time.perf_counter())

        await asyncio.gather(*(caller() for _ in range(max(1, int(step.load)))))

    async def _open(self, step: Step, tally: _Tally) -> None:
        began = time.perf_counter()
        slots = asyncio.Semaphore(MOST_IN_FLIGHT)
        count = max(1, math.ceil(step.load * step.seconds))
        async with asyncio.TaskGroup() as group:
            for number in range(count):
                due = began + number / step.load
                wait = due - time.perf_counter()
                if wait > 0:
                    await asyncio.sleep(wait)
                if not tally.may_send(step.requests):
                    break
                await slots.acquire()
                task = group.create_task(self._once(tally, due))
                task.add_done_callback(lambda _: slots.release())

    async def _once(self, tally: _Tally, due: float) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                answer = await self._session.post(self._address, SCORE_PATH, HEADERS, self._body)
            outcomes = _outcomes(answer)
        except Refusal as refusal:
            tally.refused(refusal.code or str(refusal.failure.kind))
        except TimeoutError:
            tally.refused("timeout")
        else:
            tally.answered(outcomes, (time.perf_counter() - due) * 1000)


class _Tally:
    """Counts what comes back."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._sent = 0
        self._latencies: list[float] = []
        self._outcomes: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()

    def may_send(self, most: int | None) -> bool:
        """Count a request that is about to be sent; False where the bound is reached."""
        if most is not None and self._sent >= most:
            return False
        self._sent += 1
        return True

    def answered(self, outcomes: Sequence[Outcome], latency_ms: float) -> None:
        """A request has outcomes."""
        self._latencies.append(latency_ms)
        self._outcomes.update(map(_kind, outcomes))
        if len(outcomes) != self._size:
            self._errors["wrong count"] += 1

    def refused(self, why: str) -> None:
        """A request has none."""
        self._errors[why] += 1

    def level(self, step: Step, seconds: float) -> Level:
        """What came of the load."""
        answered = len(self._latencies)
        return Level(
            mode=step.mode,
            load=step.load,
            requests=self._sent,
            samples=answered * self._size,
            seconds=seconds,
            requests_per_second=answered / seconds,
            samples_per_second=answered * self._size / seconds,
            latency_ms=summary(self._latencies),
            outcomes=dict(self._outcomes),
            errors=dict(self._errors),
        )


def summary(latencies: Sequence[float]) -> dict[str, float]:
    """Percentiles by nearest rank, so that each is a latency that occurred.

    Example:
        >>> summary([4.0, 1.0, 2.0, 3.0])
        {'p50': 2.0, 'p90': 4.0, 'p99': 4.0, 'max': 4.0, 'mean': 2.5}
    """
    if not latencies:
        return {}
    ordered = sorted(latencies)
    found = {
        f"p{share:g}": ordered[math.ceil(share / 100 * len(ordered)) - 1] for share in PERCENTILES
    }
    return {**found, "max": ordered[-1], "mean": sum(ordered) / len(ordered)}


async def measure(
    address: Address,
    reward: str | None,
    samples: Sequence[Sample],
    steps: Sequence[Step],
    *,
    warm_up: float,
    patience: float,
    finished: Callable[[Level], None] | None = None,
) -> tuple[RewardCard, list[Level]]:
    """Send loads one after another.

    Args:
        address: of the server.
        reward: of the server; None for its only one.
        samples: of each request.
        steps: the loads.
        warm_up: seconds of a closed loop of 2 callers that are not counted.
        patience: seconds for one request.
        finished: called after each load.

    Raises:
        Refusal: the server does not say what it hosts.
        ConfigError: it does not host the reward.
    """
    session = Session(CONNECT_SECONDS)
    try:
        server = await fetch_card(session, address, CONNECT_SECONDS)
    finally:
        await session.close()
    card = find_card(server, reward, address)
    loader = Loader(address, card, samples, patience)
    levels: list[Level] = []
    try:
        if warm_up > 0:
            await loader.run(Step("closed", 2, warm_up))
        for step in steps:
            level = await loader.run(step)
            levels.append(level)
            if finished is not None:
                finished(level)
    finally:
        await loader.close()
    return card, levels


def _outcomes(answer: Answer) -> Sequence[Outcome]:
    if answer.status != 200:
        raise refusal_of(answer)
    try:
        results = decode_msgpack(answer.body, ScoreReply).results
    except MalformedMessage as error:
        raise bad_reply(answer.url, str(error)) from None
    return [outcome for result in results for outcome in result.outcomes]


def _kind(outcome: Outcome) -> str:
    if isinstance(outcome, Score):
        return "score"
    return str(outcome.kind) if isinstance(outcome, Failure) else "abstention"
