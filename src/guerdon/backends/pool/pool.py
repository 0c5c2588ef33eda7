"""Scoring in worker processes that can be killed.

A deadline here is real: what outlives it is killed with its process, and costs its neighbours
nothing. Nothing of the caller's process is forked, and nothing the policy wrote can reach back into
it: workers answer in typed MessagePack.
"""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections.abc import Callable, Mapping
from typing import cast

from guerdon.backends.backend import CLOSED, Calls, Limits, Results
from guerdon.backends.coroutines import Coroutines
from guerdon.backends.pool.dispatcher import Dispatcher, Settings
from guerdon.backends.pool.job import Job
from guerdon.errors import Blame, ConfigError, FailureKind, UnportableData
from guerdon.injection import Arguments
from guerdon.outcome import Failure, failure
from guerdon.reward import BaseReward
from guerdon.wire.portable import check_portable

MOST_WORKERS = 8
"""Workers of a pool that is not told how many, however many cores there are."""

MEMORY_BYTES = 4 << 30
RECYCLE_BYTES = 2 << 30
HANG_SECONDS = 600.0


class PoolBackend:
    """Runs sync rewards in warm worker processes; async rewards run as `inline` runs them.

    Args:
        workers: processes that work at the same time; by default one per core, at most 8.
        spares: further processes that stand ready to replace one that was killed.
        memory_bytes: address space that the calls of one worker may take beyond what loading the
            reward took; beyond it a call fails as `crashed`. None has no bound. Not for GPU work.
        recycle_bytes: a worker that holds more memory than this after a chunk is replaced.
        hang_after: seconds after which a call of GPU work (`work="gpu"`) is taken to hang, and its
            worker is replaced. A deadline, or a caller who goes away, ends the wait for such a call
            and not the call: loading a model again costs more than letting it finish.
        environment: environment variables of the workers, beside those of this process.

    Example:
        >>> from guerdon.reward import FunctionReward
        >>> pool = PoolBackend(workers=1, spares=0)
        >>> calls = Calls([{"x": "2"}, {"x": "two"}])
        >>> pool.run(FunctionReward(float), calls, Limits()).sealed  # doctest: +SKIP
        >>> pool.close()
    """

    name = "pool"

    def __init__(
        self,
        workers: int | None = None,
        *,
        spares: int = 1,
        memory_bytes: int | None = MEMORY_BYTES,
        recycle_bytes: int | None = RECYCLE_BYTES,
        hang_after: float = HANG_SECONDS,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        if workers is not None and workers < 1:
            raise ConfigError(f"pool: workers must be at least 1, got {workers}")
        if spares < 0:
            raise ConfigError(f"pool: spares must be at least 0, got {spares}")
        if not hang_after > 0:
            raise ConfigError(f"pool: hang_after must be positive, got {hang_after}")
        self._settings = Settings(
            workers or _cores(),
            spares,
            memory_bytes,
            recycle_bytes,
            hang_after,
            dict(environment or {}),
        )
        self._coroutines = Coroutines()
        self._lock = threading.Lock()
        self._dispatcher: Dispatcher | None = None
        self._owner = os.getpid()
        self._pickled: weakref.WeakKeyDictionary[BaseReward, bytes] = weakref.WeakKeyDictionary()
        _POOLS.add(self)

    @property
    def workers(self) -> int:
        """Processes that work at the same time."""
        return self._settings.workers

    def run(self, reward: BaseReward, calls: Calls, limits: Limits) -> Results:
        """See `Backend.run`. Arguments that cannot travel fail as `bad_input`, named."""
        if reward.is_async:
            return self._coroutines.run(reward, calls, limits)
        refused = {
            call: lost
            for call, arguments in enumerate(calls.arguments)
            if (lost := _unportable(arguments)) is not None
        }
        if refused:
            return self._run_portable(reward, calls, limits, refused)
        return self._run(reward, calls, limits)

    def warm(self) -> None:
        """Start the workers now, so that the first batch need not wait for them."""
        self._running().warm()

    def load(self, reward: BaseReward) -> Failure | None:
        """Let a worker load a reward, as before its first call, and wait for that.

        Returns:
            Why no worker can load it; None where one has, or where it needs none.
        """
        if reward.is_async:
            return None
        (sealed,) = self._run(reward, Calls([{}]), Limits(), only_loads=True).sealed
        return sealed if isinstance(sealed, Failure) else None

    def pids(self) -> list[int]:
        """Process ids of the workers."""
        dispatcher = self._dispatcher
        return [] if dispatcher is None else dispatcher.pids()

    def ready(self) -> int:
        """How many workers, spare ones included, are set up now."""
        dispatcher = self._dispatcher
        return 0 if dispatcher is None else dispatcher.ready()

    def lingering(self) -> int:
        """How many workers are busy with a call that nobody waits for any more."""
        dispatcher = self._dispatcher
        return 0 if dispatcher is None else dispatcher.lingering()

    def ended(self) -> dict[str, int]:
        """How many workers have `died` by themselves, were `killed` by the pool (late, unwanted,
        not starting), and were `replaced` while idle, since the pool was started."""
        dispatcher = self._dispatcher
        return {} if dispatcher is None else dispatcher.ended()

    def close(self) -> None:
        """End the workers; what runs is killed, what waits fails as `cancelled`."""
        self._coroutines.close()
        with self._lock:
            dispatcher, self._dispatcher = self._dispatcher, None
        if dispatcher is not None and self._owner == os.getpid():
            dispatcher.close()

    def _run(
        self, reward: BaseReward, calls: Calls, limits: Limits, *, only_loads: bool = False
    ) -> Results:
        try:
            pickled = self._pickle(reward)
        except Exception as error:
            found = f"the reward cannot travel to a worker process: {error}"
            lost = failure(FailureKind.RAISED, found, Blame.SCORER)
            return Results([lost] * calls.samples, [0.0] * calls.samples)
        job = Job(reward, calls, pickled, only_loads=only_loads)
        dispatcher = self._running()
        wake = job.finished.set
        limits.on_cancel(wake)
        dispatcher.submit(job)
        job.finished.wait(limits.remaining)
        limits.forget(wake)
        if not job.unfinished:
            return job.results(CLOSED)
        dispatcher.abandon(job)
        return job.results(limits.failure("queued or running in a worker"))

    def _run_portable(
        self, reward: BaseReward, calls: Calls, limits: Limits, refused: dict[int, Failure]
    ) -> Results:
        kept = [call for call in range(len(calls.arguments)) if call not in refused]
        sizes = None if calls.sizes is None else [calls.sizes[call] for call in kept]
        ran = self._run(reward, Calls([calls.arguments[call] for call in kept], sizes), limits)
        results = Results([], [])
        place = 0
        for call in range(len(calls.arguments)):
            size = calls.size(call)
            if call in refused:
                results.sealed.extend([refused[call]] * size)
                results.elapsed.extend([0.0] * size)
            else:
                results.sealed.extend(ran.sealed[place : place + size])
                results.elapsed.extend(ran.elapsed[place : place + size])
                place += size
        return results

    def _running(self) -> Dispatcher:
        with self._lock:
            if self._owner != os.getpid():
                self._dispatcher, self._owner = None, os.getpid()
            if self._dispatcher is None or not self._dispatcher.alive:
                self._dispatcher = Dispatcher(self._settings)
            return self._dispatcher

    def _pickle(self, reward: BaseReward) -> bytes:
        import cloudpickle

        with self._lock:
            pickled = self._pickled.get(reward)
            if pickled is None:
                dump = cast("Callable[[BaseReward], bytes]", cloudpickle.dumps)  # pyright: ignore[reportUnknownMemberType]
                pickled = self._pickled[reward] = dump(reward)
            return pickled


def _unportable(arguments: Arguments) -> Failure | None:
    try:
        check_portable(arguments, target="a worker process")
    except UnportableData as error:
        return failure(FailureKind.BAD_INPUT, str(error), Blame.DATA)
    return None


def _cores() -> int:
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:
        cores = os.cpu_count() or 1
    return max(1, min(MOST_WORKERS, cores))


_POOLS: weakref.WeakSet[PoolBackend] = weakref.WeakSet()


@atexit.register
def _close_pools() -> None:
    for pool in list(_POOLS):
        pool.close()
