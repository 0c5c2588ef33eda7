"""What travels through a server: the samples of one request for one reward, and pieces of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec
from msgspec.structs import replace

from guerdon.errors import Blame, FailureKind
from guerdon.outcome import EMPTY, Failure, Outcome, failure
from guerdon.reward import BaseReward
from guerdon.sample import Sample
from guerdon.server.record import RewardRecord


class Context(msgspec.Struct, frozen=True):
    """Where in a run the samples are scored; only samples of one context are batched together.

    Attributes:
        step: training step.
        split: such as "train".
        run_id: names the run.
        keywords: for every reward that has a parameter of that name.
        digest: tells keywords apart.
    """

    step: int | None = None
    split: str = "train"
    run_id: str | None = None
    keywords: Mapping[str, Any] = EMPTY
    digest: bytes = b""

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal for equal contexts."""
        return (self.step, self.split, self.run_id, self.digest)


class Owner(Protocol):
    """The hosted reward that a parcel is for."""

    @property
    def reward(self) -> BaseReward:
        """The reward."""
        ...

    @property
    def record(self) -> RewardRecord:
        """What is known about its recent work."""
        ...


class Parcel:
    """The samples of one request for one reward, and what came of each.

    Args:
        owner: the hosted reward; it records how long the parcel took.
        fingerprint: of the reward, for failures.
        samples: in the order of the request.
        context: where in the run they are scored.
        expires_at: `time.monotonic()` at which the caller stops waiting.
        now: that clock; the event loop's own has a resolution of milliseconds.
        finished: called once, when every sample has an outcome.
    """

    def __init__(
        self,
        owner: Owner,
        fingerprint: str,
        samples: Sequence[Sample],
        context: Context,
        expires_at: float,
        now: float,
        finished: Callable[[Parcel], None],
    ) -> None:
        self.fingerprint = fingerprint
        self.samples = samples
        self.context = context
        self.expires_at = expires_at
        self.arrived_at = now
        self.begun_at: float | None = None
        self.queued = 0.0
        self.outcomes: list[Outcome | None] = [None] * len(samples)
        self.left = len(samples)
        self.finished_at = now
        self._owner = owner
        self._finished = finished

    @property
    def closed(self) -> bool:
        """Whether nothing of it needs to be scored any more."""
        return self.left == 0

    def begin(self, now: float) -> None:
        """Some of its samples begin to be scored."""
        if self.begun_at is None:
            self.begun_at = now
        self.queued = max(self.queued, now - self.arrived_at)

    def settle(self, position: int, outcome: Outcome) -> None:
        """Note the outcome of a sample; the first one stays."""
        if self.outcomes[position] is not None:
            return
        self.outcomes[position] = outcome
        self.left -= 1
        if self.left == 0:
            self.finished_at = time.monotonic()
            seconds = self.finished_at - self.arrived_at
            self._owner.record.parcel_done(self.outcomes, seconds)
            self._finished(self)

    def fail(self, position: int, lost: Failure) -> None:
        """Give a sample a failure, stamped with the reward."""
        if self.outcomes[position] is None:
            self.settle(position, self._stamped(position, lost))

    def close(self, lost: Failure) -> None:
        """Give every sample that has no outcome yet this failure."""
        for position, outcome in enumerate(self.outcomes):
            if outcome is None:
                self.fail(position, lost)

    def _stamped(self, position: int, lost: Failure) -> Failure:
        return replace(
            lost,
            reward=self._owner.reward.name,
            fingerprint=self.fingerprint,
            sample=self.samples[position].sample_id,
        )


class Place(NamedTuple):
    """One sample of a parcel."""

    parcel: Parcel
    position: int

    @property
    def sample(self) -> Sample:
        """The sample."""
        return self.parcel.samples[self.position]

    @property
    def open(self) -> bool:
        """Whether somebody waits for it."""
        return self.parcel.outcomes[self.position] is None


class Unit(NamedTuple):
    """What is scored together or not at all: one sample, or a group.

    Attributes:
        places: for each sample, everybody who waits for it; the first has the sample.
        cost: in tokens and pixels.
        tries: how often a replica was lost with it.
        group: key of a group whose members came in several requests.
    """

    places: list[list[Place]]
    cost: tuple[int, int] = (0, 0)
    tries: int = 0
    group: Hashable = None

    @property
    def samples(self) -> list[Sample]:
        """The samples."""
        return [waiting[0].sample for waiting in self.places]

    @property
    def open(self) -> bool:
        """Whether somebody waits for any of it."""
        return any(place.open for waiting in self.places for place in waiting)

    @property
    def context(self) -> Context:
        """Where in the run it is scored."""
        return self.places[0][0].parcel.context


TOO_LATE = failure(
    FailureKind.TIMEOUT,
    "the caller's timeout passed before the sample was scored",
    Blame.INFRASTRUCTURE,
)
CALLER_GONE = failure(
    FailureKind.CANCELLED, "the caller went away before the sample was scored", Blame.INFRASTRUCTURE
)
ENDING = failure(
    FailureKind.UNAVAILABLE,
    "the server ended before the sample was scored: send it to another one",
    Blame.INFRASTRUCTURE,
)
