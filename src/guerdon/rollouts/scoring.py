"""A run: batches are read, scored and written at the same time, in order."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from guerdon.evaluation import on_thread
from guerdon.rollouts.batches import Batch
from guerdon.rollouts.outcome_row import OutcomeRow
from guerdon.rollouts.scorer import Scorer, Stopped

OPEN_BATCHES = 2
"""Batches that are being scored at once by a reward that keeps this process busy."""
OPEN_BATCHES_WAITING = 8
"""The same for a reward that waits for others: one slow sample then does not idle the workers."""
BATCH_ROWS = 256
"""Rows that are scored at once."""
BATCH_ROWS_WAITING = 64
"""The same for a reward that waits for others: a crash costs the open batches."""


def batch_rows(scorer: Scorer) -> int:
    """How many rows to score at once where the user does not say."""
    return BATCH_ROWS_WAITING if scorer.waits else BATCH_ROWS


async def run(
    batches: Iterator[Batch], scorer: Scorer, write: Callable[[Sequence[OutcomeRow]], None]
) -> None:
    """Score all batches.

    The next batch is read while earlier ones are scored. When the run is cut short, everything
    that was scored is written first.

    Args:
        batches: read on a thread.
        scorer: of the rows.
        write: takes the rows of one batch after another.

    Raises:
        Stopped: a failure budget is used up; the rows so far are written.
        CircuitOpen: the breaker has stopped the run; the rows so far are written.
    """
    most = OPEN_BATCHES_WAITING if scorer.waits else OPEN_BATCHES
    pending: deque[asyncio.Task[list[OutcomeRow]]] = deque()
    reading: asyncio.Task[Batch | None] | None = None
    ended = False
    try:
        while not ended or pending:
            if reading is None and not ended and len(pending) < most:
                reading = asyncio.create_task(on_thread(lambda: next(batches, None)))
            waiting = [task for task in (reading, pending[0] if pending else None) if task]
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if reading is not None and reading.done():
                batch = reading.result()
                reading = None
                if batch is None:
                    ended = True
                else:
                    pending.append(asyncio.create_task(scorer.score(batch)))
            while pending and pending[0].done():
                write(pending.popleft().result())
    except Stopped as error:
        write(error.rows)
        raise
    finally:
        await _drain(pending, write)


async def _drain(
    pending: deque[asyncio.Task[list[OutcomeRow]]],
    write: Callable[[Sequence[OutcomeRow]], None],
) -> None:
    """Cancel what is still being scored, and write what has been."""
    for task in pending:
        if task.done() and not task.cancelled() and task.exception() is None:
            with contextlib.suppress(OSError):
                write(task.result())
        task.cancel()
    if pending:
        await asyncio.wait(pending)
