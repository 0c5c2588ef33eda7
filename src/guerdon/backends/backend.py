"""What a backend is: a place where the calls of one reward run.

`run` blocks; the service calls it from a thread of its own. It returns one result per sample
whatever happens, unless it has a bug: errors of a reward are results.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextvars import ContextVar
from typing import Protocol, TypeAlias

import msgspec

from guerdon.errors import Blame, FailureKind
from guerdon.injection import Arguments, Call
from guerdon.outcome import Abstention, Failure, Outcome, Range, failure, seal
from guerdon.reward import BaseReward

Sealed: TypeAlias = float | Outcome
"""An outcome, or the bare value of a score that is finite and within its reward's range."""


class Calls(msgspec.Struct, frozen=True):
    """Calls of one reward, with their arguments bound.

    Attributes:
        arguments: of each call.
        sizes: how many samples each call covers, in order; None where each covers one and its
            reward has the scope `sample`.
    """

    arguments: Sequence[Arguments]
    sizes: Sequence[int] | None = None

    @property
    def samples(self) -> int:
        """How many results the calls give together."""
        return len(self.arguments) if self.sizes is None else sum(self.sizes)

    def size(self, call: int) -> int:
        """How many samples one call covers."""
        return 1 if self.sizes is None else self.sizes[call]


class Results(msgspec.Struct):
    """What the calls gave, one entry per sample, in the order of the calls.

    Attributes:
        sealed: outcomes, or bare values of scores.
        elapsed: seconds of execution of each.
    """

    sealed: list[Sealed]
    elapsed: list[float]


LONGEST_SECONDS = 1e8
"""Longest timeout that counts, about three years: locks take no infinity."""


class Limits:
    """How long the caller waits, and whether it has gone.

    Args:
        expires_at: `time.monotonic()` at which the caller stops waiting; None never.

    Example:
        >>> limits = Limits.within(None)
        >>> limits.cancel()
        >>> limits.over
        True
    """

    def __init__(self, expires_at: float | None = None) -> None:
        self.expires_at = expires_at
        self._cancelled = threading.Event()
        self._callbacks: list[Callable[[], None]] = []
        self._lock = threading.Lock()

    @classmethod
    def within(cls, timeout: float | None) -> Limits:
        """Limits that end `timeout` seconds from now; None and an infinity never do."""
        if timeout is None or timeout > LONGEST_SECONDS:
            return cls()
        return cls(time.monotonic() + timeout)

    @property
    def cancelled(self) -> bool:
        """Whether the caller has gone away."""
        return self._cancelled.is_set()

    @property
    def remaining(self) -> float | None:
        """Seconds until the caller stops waiting, at least 0; None without a limit."""
        return None if self.expires_at is None else max(0.0, self.expires_at - time.monotonic())

    @property
    def over(self) -> bool:
        """Whether nobody waits any more."""
        return self.cancelled or self.remaining == 0.0

    def wait(self, seconds: float) -> bool:
        """Sleep, but not beyond the limits; returns whether somebody still waits."""
        remaining = self.remaining
        self._cancelled.wait(seconds if remaining is None else min(seconds, remaining))
        return not self.over

    def cancel(self) -> None:
        """Say that the caller has gone away."""
        with self._lock:
            self._cancelled.set()
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Call back on cancellation, at once where that has happened."""
        with self._lock:
            if not self._cancelled.is_set():
                self._callbacks.append(callback)
                return
        callback()

    def forget(self, callback: Callable[[], None]) -> None:
        """Drop a callback that is no longer needed."""
        with self._lock:
            if callback in self._callbacks:
                self._callbacks.remove(callback)

    def failure(self, state: str) -> Failure:
        """The failure of a sample that the limits cut off.

        Args:
            state: what the sample was doing, such as "waiting for a worker".
        """
        if self.cancelled:
            return failure(
                FailureKind.CANCELLED,
                f"the caller went away; the sample was {state}",
                Blame.INFRASTRUCTURE,
            )
        return failure(
            FailureKind.TIMEOUT,
            f"the caller's timeout passed; the sample was {state}",
            Blame.INFRASTRUCTURE,
        )


class Scoring(msgspec.Struct, frozen=True):
    """What a running call may ask about the batch that it belongs to.

    Attributes:
        call: where in the run the samples are scored.
        limits: how long the caller waits.
    """

    call: Call
    limits: Limits


_scoring: ContextVar[Scoring] = ContextVar("scoring")


@contextlib.contextmanager
def scoring(call: Call, limits: Limits) -> Generator[None]:
    """Let `current_scoring` know, in this context and in the async calls that start in it."""
    token = _scoring.set(Scoring(call, limits))
    try:
        yield
    finally:
        _scoring.reset(token)


def current_scoring() -> Scoring:
    """The batch that an async reward is called for; without limits outside of one.

    Example:
        >>> current_scoring().limits.remaining is None
        True
    """
    found = _scoring.get(None)
    return Scoring(Call(), Limits()) if found is None else found


CLOSED = failure(
    FailureKind.CANCELLED, "the backend was closed while the sample waited", Blame.INFRASTRUCTURE
)
"""What becomes of the samples of a backend that is closed under them."""


class Backend(Protocol):
    """A place where the calls of a reward run."""

    name: str

    def run(self, reward: BaseReward, calls: Calls, limits: Limits) -> Results:
        """One result per sample, in order; blocks until all are there or the limits end."""
        ...

    def close(self) -> None:
        """Release threads and processes; idempotent."""
        ...


def seal_many(raw: object, size: int, value_range: Range) -> list[Sealed]:
    """The results of one batch or group call: exactly one per sample.

    Anything but a sequence of `size` results is a `bad_output` failure of every sample of the call.

    Example:
        >>> [str(s.kind) for s in seal_many([1.0], 2, (0.0, 1.0))]
        ['bad_output', 'bad_output']
    """
    if isinstance(raw, Abstention | Failure):
        return [raw] * size
    items = _as_list(raw)
    if items is None:
        found = f"returned {type(raw).__name__}, not a list with one result per sample"
    elif len(items) != size:
        found = f"returned {len(items)} results for {size} samples"
    else:
        return [seal(item, value_range) for item in items]
    return [failure(FailureKind.BAD_OUTPUT, found, Blame.SCORER)] * size


def _as_list(raw: object) -> list[object] | None:
    """The results in a list, a tuple or a one-dimensional array or tensor."""
    if isinstance(raw, list | tuple):
        return list(raw)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    shape = getattr(raw, "shape", None)
    convert = getattr(raw, "tolist", None)
    if shape is not None and len(shape) == 1 and callable(convert):
        items = convert()
        return items if isinstance(items, list) else None  # pyright: ignore[reportUnknownVariableType]
    return None
