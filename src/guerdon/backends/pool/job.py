"""The calls of one `run`: which wait, which a worker has, and what came of the others."""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Sequence

import msgspec

from guerdon.backends.backend import Calls, Results, Sealed
from guerdon.backends.pool.frames import Result, WireResult
from guerdon.errors import Blame, FailureKind
from guerdon.outcome import LARGEST, Abstention, Failure, Score, check_range, failure
from guerdon.reward import BaseReward

_numbers = itertools.count(1)


class Chunk(msgspec.Struct, frozen=True):
    """Calls that one worker gets together.

    Attributes:
        number: unique in this process.
        job: whose calls they are.
        calls: their indices in the job, in the order of the chunk.
        alone: a call that may have killed a worker, by itself in a fresh one.
    """

    number: int
    job: Job
    calls: tuple[int, ...]
    alone: bool = False


class Job:
    """The calls of one `run`. Only the pool's thread touches it until `finished` is set.

    Args:
        reward: what is called.
        calls: the arguments.
        pickled: the reward as the workers load it.
        only_loads: whether its one call only stands for loading the reward, and is never made.

    Attributes:
        one_by_one: whether a worker gets only one call at a time.
    """

    def __init__(
        self, reward: BaseReward, calls: Calls, pickled: bytes, *, only_loads: bool = False
    ) -> None:
        self.reward = reward
        self.calls = calls
        self.pickled = pickled
        self._only_loads = only_loads
        self.finished = threading.Event()
        self.one_by_one = False
        self._waiting = deque(range(len(calls.arguments)))
        self._suspects: deque[int] = deque()
        self._tried_alone: set[int] = set()
        self._deaths: dict[int, int] = {}
        self._done: dict[int, tuple[list[Sealed], float]] = {}

    @property
    def waiting(self) -> int:
        """Calls that any worker may take."""
        return len(self._waiting)

    @property
    def has_suspect(self) -> bool:
        """Whether a call waits for a fresh worker of its own."""
        return bool(self._suspects)

    @property
    def unfinished(self) -> int:
        """Calls without a result."""
        return len(self.calls.arguments) - len(self._done)

    def take(self, most: int) -> Chunk:
        """The next calls for a worker."""
        count = min(1 if self.one_by_one else most, len(self._waiting))
        return Chunk(next(_numbers), self, tuple(self._waiting.popleft() for _ in range(count)))

    def take_suspect(self) -> Chunk:
        """A call that may have killed a worker, to run alone."""
        call = self._suspects.popleft()
        self._tried_alone.add(call)
        return Chunk(next(_numbers), self, (call,), alone=True)

    def is_done(self, call: int) -> bool:
        """Whether a call has a result."""
        return call in self._done

    def tried_alone(self, call: int) -> bool:
        """Whether a call has had a fresh worker of its own."""
        return call in self._tried_alone

    def suspect(self, call: int) -> None:
        """Let a call run again, alone."""
        self._suspects.append(call)

    def put_back(self, calls: Sequence[int]) -> None:
        """Let unfinished calls run again, before those that wait; suspects run alone."""
        self._waiting.extendleft(
            call
            for call in reversed(calls)
            if call not in self._done and call not in self._suspects
        )

    def count_death(self, call: int) -> int:
        """How many workers have died with a chunk that begins with this call, none in hand."""
        self._deaths[call] = self._deaths.get(call, 0) + 1
        return self._deaths[call]

    def deadline(self, call: int) -> float | None:
        """Seconds that a call may run: the reward's deadline for each of its samples."""
        deadline = self.reward.deadline
        return None if deadline is None else deadline * self.calls.size(call)

    def accept(self, call: int, result: Result) -> None:
        """Note what a worker sent."""
        _, elapsed, sealed = result
        size = self.calls.size(call)
        if isinstance(sealed, Failure):
            self.fail(call, sealed, elapsed / max(size, 1))
            return
        many = sealed if isinstance(sealed, list) else [sealed]
        if len(many) != size:
            found = f"a worker sent {len(many)} results for {size} samples"
            self.fail(call, failure(FailureKind.BAD_OUTPUT, found, Blame.INFRASTRUCTURE), elapsed)
            return
        self._finish(call, [self._verified(item) for item in many], elapsed / max(size, 1))

    def fail(self, call: int, lost: Failure, elapsed: float = 0.0) -> None:
        """Give every sample of a call this failure."""
        self._finish(call, [lost] * self.calls.size(call), elapsed)

    def fail_all(self, lost: Failure) -> None:
        """Give every sample without a result this failure."""
        for call in range(len(self.calls.arguments)):
            self.fail(call, lost)

    def end_load(self) -> bool:
        """A worker has loaded the reward: whether that was all that was wanted."""
        if self._only_loads:
            self._finish(0, [Abstention()], 0.0)
        return self._only_loads

    def abandon(self) -> None:
        """Give up what waits: nobody waits for it."""
        self._waiting.clear()
        self._suspects.clear()

    def results(self, lost: Failure) -> Results:
        """Results in order; `lost` for calls that have none."""
        results = Results([], [])
        for call in range(len(self.calls.arguments)):
            done = self._done.get(call)
            sealed, elapsed = done or ([lost] * self.calls.size(call), 0.0)
            results.sealed.extend(sealed)
            results.elapsed.extend(itertools.repeat(elapsed, len(sealed)))
        return results

    def _finish(self, call: int, sealed: list[Sealed], elapsed: float) -> None:
        self._done.setdefault(call, (sealed, elapsed))
        if not self.unfinished:
            self.finished.set()

    def _verified(self, sealed: WireResult) -> Sealed:
        """A worker has read what the policy wrote: its numbers are checked once more."""
        if isinstance(sealed, float):
            low, high = self.reward.value_range
            if not max(low, -LARGEST) <= sealed <= min(high, LARGEST):
                found = f"a worker sent {sealed}, outside the range of the reward"
                return failure(FailureKind.BAD_OUTPUT, found, Blame.INFRASTRUCTURE)
        elif isinstance(sealed, Score):
            return check_range(sealed, self.reward.value_range)
        return sealed
