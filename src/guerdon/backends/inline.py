"""Scoring in this process: sync rewards on a thread, async rewards on an event loop of their own.

A thread cannot be stopped, so a sync reward with a deadline is refused here: it belongs in a pool
of killable workers.
"""

from __future__ import annotations

import itertools
import threading
import time
import weakref
from collections.abc import Callable, Sequence

from guerdon.backends.backend import Calls, Limits, Results, Sealed, seal_many
from guerdon.backends.coroutines import Coroutines
from guerdon.backends.threads import THREADS
from guerdon.errors import InvalidReward
from guerdon.injection import Arguments
from guerdon.lending import opening
from guerdon.outcome import LARGEST, Failure, failure_from, seal
from guerdon.reward import BaseReward

CHUNK = 256
"""Calls between two looks at the clock and at the caller."""

IO_THREADS = 16
"""Calls in flight of a sync reward that declares `work="io"`, unless it sets `concurrency`."""


class InlineBackend:
    """Runs rewards in this process.

    Example:
        >>> from guerdon.reward import reward
        >>> @reward(auto_register=False)
        ... def empty(response: str) -> bool:
        ...     return not response
        >>> calls = Calls([{"response": ""}, {"response": "c"}])
        >>> InlineBackend().run(empty, calls, Limits()).sealed
        [1.0, 0.0]
    """

    name = "inline"

    def __init__(self) -> None:
        self._coroutines = Coroutines()
        self._warming = _Warming()

    def run(self, reward: BaseReward, calls: Calls, limits: Limits) -> Results:
        """See `Backend.run`.

        Raises:
            InvalidReward: a sync reward with a deadline, which only a pool can keep.
            Exception: whatever `reward.warm` raises, such as `ConfigError` for an absent device.
        """
        if reward.is_async:
            return self._coroutines.run(reward, calls, limits)
        if reward.deadline is not None:
            raise InvalidReward(
                f"reward '{reward.name}' is sync and has a deadline of {reward.deadline} s: a "
                "thread cannot be stopped, so run it in a pool, make it async, or drop the deadline"
            )
        progress = _Progress(reward, calls, limits, self._warming)
        threads = (reward.concurrency or IO_THREADS) if reward.work == "io" else 1
        if threads == 1 and limits.expires_at is None:
            progress.work()
        else:
            progress.work_in(min(threads, len(calls.arguments)))
        return progress.results()

    def load(self, reward: BaseReward) -> Failure | None:
        """Warm a reward, as before its first call.

        Returns:
            Why it cannot be; None where it is warm, or where it is async.
        """
        if reward.is_async:
            return None
        try:
            self._warming(reward)
        except Exception as error:
            return failure_from(error)
        return None

    def close(self) -> None:
        """Stop the event loops."""
        self._coroutines.close()


class _Warming:
    """Warms each reward once; while one warms, only its own calls wait."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._locks: weakref.WeakKeyDictionary[BaseReward, threading.Lock] = (
            weakref.WeakKeyDictionary()
        )
        self._warm: weakref.WeakSet[BaseReward] = weakref.WeakSet()

    def __call__(self, reward: BaseReward) -> None:
        if reward in self._warm:
            return
        with self._lock:
            lock = self._locks.setdefault(reward, threading.Lock())
        with lock:
            if reward not in self._warm:
                reward.warm()
                self._warm.add(reward)


class _Progress:
    """The calls of one run, taken by one or several threads in order.

    A thread that hangs keeps only what it has taken: the others go on, and when the limits end
    everything that is finished counts.
    """

    def __init__(
        self,
        reward: BaseReward,
        calls: Calls,
        limits: Limits,
        warm: Callable[[BaseReward], None],
    ) -> None:
        self._reward = reward
        self._warm = warm
        self._error: Exception | None = None
        self._calls = calls
        self._limits = limits
        self._step = 1 if reward.work == "io" or calls.sizes is not None else CHUNK
        self._starts = iter(range(0, len(calls.arguments), self._step))
        self._lock = threading.Lock()
        self._done: dict[int, tuple[list[Sealed], float]] = {}
        self._begun: dict[int, list[Sealed]] = {}

    def work(self) -> None:
        """Take and run calls until none is left or nobody waits."""
        try:
            self._warm(self._reward)
        except Exception as error:
            self._error = error
            return
        while not self._limits.over:
            with self._lock:
                start = next(self._starts, None)
            if start is None:
                return
            began = time.perf_counter()
            sealed = self._run(start)
            self._done[start] = (sealed, (time.perf_counter() - began) / max(len(sealed), 1))

    def work_in(self, threads: int) -> None:
        """`work` in several threads; returns when all are done or nobody waits."""
        finished = threading.Event()
        self._limits.on_cancel(finished.set)
        running = [THREADS.submit(self.work) for _ in range(threads)]
        left = itertools.count(len(running) - 1, -1)
        for future in running:
            future.add_done_callback(lambda _: finished.set() if next(left) == 0 else None)
        if running:
            finished.wait(self._limits.remaining)
        self._limits.forget(finished.set)

    def results(self) -> Results:
        """Results in order; what is not finished was cut off by the limits.

        Raises:
            Exception: what kept the reward from making any call.
        """
        if self._error is not None:
            raise self._error
        results = Results([], [])
        for start in range(0, len(self._calls.arguments), self._step):
            done = self._done.get(start) or (self._cut_off(start), 0.0)
            results.sealed.extend(done[0])
            results.elapsed.extend(itertools.repeat(done[1], len(done[0])))
        return results

    def _cut_off(self, start: int) -> list[Sealed]:
        """What is there of calls that are not finished, and failures for the rest."""
        calls = range(start, min(start + self._step, len(self._calls.arguments)))
        size = sum(self._calls.size(call) for call in calls)
        sealed = list(self._begun.get(start, ()))
        return sealed + [self._limits.failure("queued or running")] * (size - len(sealed))

    def _run(self, start: int) -> list[Sealed]:
        arguments = self._calls.arguments
        if self._calls.sizes is not None:
            return call_many(self._reward, arguments[start], self._calls.sizes[start])
        sealed = self._begun[start] = []
        return call_each(self._reward, arguments[start : start + self._step], sealed)


def call_each(
    reward: BaseReward, arguments: Sequence[Arguments], sealed: list[Sealed] | None = None
) -> list[Sealed]:
    """Make one call per sample; an error of one call is the failure of its sample.

    Args:
        reward: a sync reward.
        arguments: of each call.
        sealed: receives the results one by one, so that what is finished can be seen meanwhile.
    """
    call = opening(reward.call) if reward.parameters.borrows else reward.call
    value_range = reward.value_range
    low, high = max(value_range[0], -LARGEST), min(value_range[1], LARGEST)
    sealed = [] if sealed is None else sealed
    append = sealed.append
    for keywords in arguments:
        try:
            raw = call(**keywords)
            if type(raw) is bool:
                raw = 1.0 if raw else 0.0
            append(raw if type(raw) is float and low <= raw <= high else seal(raw, value_range))
        except BaseException as error:
            append(failure_from(error))
    return sealed


def call_many(reward: BaseReward, arguments: Arguments, size: int) -> list[Sealed]:
    """Make one batch or group call; an error of the call is the failure of all its samples."""
    try:
        return seal_many(opening(reward.call)(**arguments), size, reward.value_range)
    except BaseException as error:
        return [failure_from(error)] * size
