"""Samples that a trainer hands over one by one, scored in batches.

Some trainers call a reward once per sample, hundreds of calls at a time. Scored together they cost
a fraction, equal work is done once, and no call holds a thread. Nothing waits for a batch to fill:
while one is scored the next gathers, and no sample gathers for longer than `PATIENCE`.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from guerdon.errors import BudgetExceeded, ScoringFailed
from guerdon.outcome import Outcome
from guerdon.outcomes import Outcomes
from guerdon.remote.per_loop import PerLoop
from guerdon.service import Entry, RewardService

PATIENCE = 0.005
"""Seconds after which a sample is sent although earlier ones are still being scored: one that
takes long must not hold up the rest."""

LARGEST = 1024
"""Samples of one batch."""


class Settled(NamedTuple):
    """One scored sample.

    Attributes:
        outcome: what scoring it gave.
        number: the score, or what the policy assigned; None without either.
        assigned: whether the number was assigned, not measured.
    """

    outcome: Outcome
    number: float | None
    assigned: bool


class MicroBatches:
    """Scores single samples of concurrent callers together.

    Callers on one event loop are gathered; loops may come and go. A sample that fails costs its
    neighbours nothing: each caller gets what became of its own sample.

    Args:
        service: scores the batches.
        split: of all samples.
        timeout: seconds that a batch is waited for; None without limit.

    Example:
        >>> from guerdon import Sample, reward
        >>> @reward(value_range=(0.0, 1.0), auto_register=False)
        ... def exact(response: str, ground_truth: str) -> bool:
        ...     return response == ground_truth
        >>> batches = MicroBatches(RewardService(exact))
        >>> asyncio.run(batches.score(Sample(response="4", ground_truth="4"))).number
        1.0
    """

    def __init__(
        self, service: RewardService, *, split: str = "train", timeout: float | None = None
    ) -> None:
        self._service = service
        self._split = split
        self._timeout = timeout
        self._lines: PerLoop[_Line] = PerLoop()

    async def score(self, sample: Entry) -> Settled:
        """Score one sample.

        Raises:
            BudgetExceeded: more of the batch failed than the failure budget allows.
            CircuitOpen: the breaker has stopped the run.
        """
        return await self._lines.here(lambda _: _Line(self)).join(sample)

    async def score_batch(self, samples: list[Entry]) -> list[Settled]:
        """Score samples that are together already; raises as `score` does."""
        try:
            outcomes = await self._service.score(samples, split=self._split, timeout=self._timeout)
        except BudgetExceeded:
            raise
        except ScoringFailed as failed:
            outcomes = failed.outcomes  # each caller learns about its own sample
        return settled(outcomes)


class _Line:
    """The samples of one event loop that wait for the next batch."""

    def __init__(self, owner: MicroBatches) -> None:
        self._owner = owner
        self._waiting: list[tuple[Entry, asyncio.Future[Settled]]] = []
        self._running: set[asyncio.Task[None]] = set()
        self._next: asyncio.Handle | None = None

    def join(self, sample: Entry) -> asyncio.Future[Settled]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Settled] = loop.create_future()
        self._waiting.append((sample, future))
        if len(self._waiting) >= LARGEST:
            self._send()
        elif self._next is None and self._running:
            self._next = loop.call_later(PATIENCE, self._send)
        elif self._next is None:
            self._next = loop.call_soon(self._send)
        return future

    def _send(self) -> None:
        if self._next is not None:
            self._next.cancel()
            self._next = None
        waiting, self._waiting = self._waiting, []
        wanted = [(sample, future) for sample, future in waiting if not future.done()]
        if wanted:
            task = asyncio.get_running_loop().create_task(self._score(wanted))
            self._running.add(task)
            task.add_done_callback(self._ended)
            _cancel_without_callers(task, [future for _, future in wanted])

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if self._waiting:
            self._send()

    async def _score(self, wanted: list[tuple[Entry, asyncio.Future[Settled]]]) -> None:
        try:
            results = await self._owner.score_batch([sample for sample, _ in wanted])
        except asyncio.CancelledError:
            for _, future in wanted:
                future.cancel()
            raise
        except BaseException as error:
            for _, future in wanted:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), result in zip(wanted, results, strict=True):
            if not future.done():
                future.set_result(result)


def _cancel_without_callers(
    task: asyncio.Task[None], futures: list[asyncio.Future[Settled]]
) -> None:
    """Cancel a batch when all its callers have given up."""
    left = len(futures)

    def ended(future: asyncio.Future[Settled]) -> None:
        nonlocal left
        left -= future.cancelled()
        if not left:
            task.cancel()

    for future in futures:
        future.add_done_callback(ended)


def settled(outcomes: Outcomes) -> list[Settled]:
    """What became of each sample of a batch.

    Example:
        >>> from guerdon.outcome import Abstention
        >>> settled(Outcomes([Abstention()], assigned={0: 0.5}))[0][1:]
        (0.5, True)
    """
    numbers = outcomes.rewards
    return [
        Settled(outcome, number if there else None, there and assigned)
        for outcome, number, there, assigned in zip(
            outcomes,
            numbers.values.tolist(),
            numbers.mask.tolist(),
            outcomes.assigned.mask.tolist(),
            strict=True,
        )
    ]
