"""Compositions in which some children decide whether others count, or even run."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, cast

from guerdon.compose.child import ChildLike, Children, Member
from guerdon.compose.composition import Composition, by_name, check_directions
from guerdon.compose.gathering import columns, off_loop, some
from guerdon.compose.picking import idle
from guerdon.compose.ranges import hull, outside
from guerdon.compose.row import Owner, assemble, fails, settle, stand_in, verdict
from guerdon.errors import InvalidReward, nearest
from guerdon.outcome import Abstention, Outcome, Range
from guerdon.reward import Evaluator
from guerdon.sample import Sample

OPEN: Mapping[str, float | None] = {"open": 1.0}
CLOSED: Mapping[str, float | None] = {"open": 0.0}
"""Metric of a gate: the mean over a batch is the share of samples that got through."""

Finish: TypeAlias = Callable[[list[Outcome | None]], Outcome]
"""Makes the outcome from a row that is as far as it needs to be."""


class Gate(Composition):
    """A reward that counts only where every gate is passed.

    A gate is passed by a value at least as good as its threshold: not below it, or not above it
    where lower is better. A sample that misses one gets `closed`. The direction is that of the
    reward.

    Without `sequential` everything runs at once, and a gate or reward that fails makes a failure.
    With it, gates run in order, a sample that misses one is finished, and what comes after does
    not run for it: those components are None, and `Score.absent` says "not run".

    Args:
        gates: rewards that decide.
        reward: what a sample that passes all gates gets.
        threshold: for all gates, or by name of the gate.
        closed: what a sample that misses a gate gets; by default the worst end of the reward's
            range.
        sequential: run the gates in order, and what follows only for samples that passed.
        name: of the composition.

    Raises:
        InvalidReward: a threshold is missing, or `closed` is and the range has no worst end.

    Example:
        >>> from guerdon.reward import reward
        >>> @reward(value_range=(0.0, 1.0), auto_register=False)
        ... def boxed(response: str) -> bool:
        ...     return "boxed" in response
        >>> @reward(value_range=(0.0, 1.0), auto_register=False)
        ... def exact(response: str, ground_truth: str) -> bool:
        ...     return ground_truth in response
        >>> strict = Gate([boxed], exact, threshold=1.0)
        >>> strict.call_sync(prediction="4", answer="4").value
        0.0
    """

    def __init__(
        self,
        gates: Children,
        reward: ChildLike,
        *,
        threshold: float | Mapping[str, float],
        closed: float | None = None,
        sequential: bool = False,
        name: str | None = None,
    ) -> None:
        guards = self._read(gates, name)
        guarded = self._read_one(reward, name)
        owner = self._called(name)
        self._thresholds = _thresholds(threshold, guards, owner)
        self._closed = _worst(guarded, owner) if closed is None else float(closed)
        self._sequential = sequential
        if not math.isfinite(self._closed):
            raise InvalidReward(f"{owner}: closed must be finite, got {closed}")
        self._compose(
            [*guards, guarded],
            name=name,
            value_range=hull([guarded.interval, (self._closed, self._closed)]),
            higher_is_better=guarded.reward.higher_is_better,
            gates=by_name(guards),
            reward=guarded.child,
        )

    async def evaluate(self, samples: Sequence[Sample], evaluator: Evaluator) -> list[Outcome]:
        """Outcomes in the order of the samples."""
        if not self._sequential:
            found = await columns(self.members, samples, evaluator)
            return await off_loop(samples, lambda: self._parallel(found, samples))
        stages = _Stages(self.owner, samples)
        for place, member in enumerate(self.members[:-1]):
            await stages.run(place, evaluator, self._after_gate(stages, place, member))
        await stages.run(len(self.members) - 1, evaluator, lambda i: self._after_all(stages, i))
        return stages.outcomes()

    def _parallel(
        self, found: Sequence[Sequence[Outcome]], samples: Sequence[Sample]
    ) -> list[Outcome]:
        owner = self.owner
        outcomes: list[Outcome] = []
        last = len(self.members) - 1
        for sample, *row in zip(samples, *found, strict=True):
            numbers = settle(owner, row, sample)
            if not isinstance(numbers, list):
                outcomes.append(numbers)
            elif all(map(self._passes, range(last), numbers)):
                value = cast("float", numbers[last])
                outcomes.append(assemble(owner, row, sample, value, chosen=last, metrics=OPEN))
            else:
                outcomes.append(assemble(owner, row, sample, self._closed, metrics=CLOSED))
        return outcomes

    def _after_gate(
        self, stages: _Stages, place: int, member: Member
    ) -> Callable[[int], Outcome | None]:
        reason = f"gate '{member.name}' was not passed"

        def decide(i: int) -> Outcome | None:
            number = stand_in(member, stages.at(i, place))
            if number is None:
                return stages.verdict(i)
            if self._passes(place, number):
                return None
            return stages.score(i, self._closed, reason=reason, metrics=CLOSED)

        return decide

    def _after_all(self, stages: _Stages, i: int) -> Outcome:
        last = len(self.members) - 1
        value = stand_in(self.members[last], stages.at(i, last))
        if value is None:
            return stages.verdict(i)
        return stages.score(i, value, chosen=last, metrics=OPEN)

    def _passes(self, place: int, number: float | None) -> bool:
        value, threshold = cast("float", number), self._thresholds[place]
        better = self.members[place].reward.higher_is_better
        return value >= threshold if better else value <= threshold


class Cascade(Composition):
    """Cheap rewards first; a dear one runs only where the ones before it are undecided.

    A stage is undecided for a sample where it abstains, or where its value lies in its undecided
    interval, ends included. The last stage decides whatever it says. A failing stage makes a
    failure unless its `missing` is "abstain" (then it counts as undecided) or a `Value`.

    Stages that did not run have the component None, and `Score.absent` says "not run". The metric
    `stage` is the number of the stage that decided, 0 for the first.

    Args:
        stages: rewards from cheap to dear, on one scale.
        undecided: the interval of values that decide nothing, for all stages but the last, or by
            name of the stage; None where only abstaining is undecided.
        name: of the composition.
        higher_is_better: direction of the composition.

    Raises:
        InvalidReward: fewer than two stages, or an interval that is none.

    Example:
        >>> from guerdon.reward import reward
        >>> @reward(value_range=(0.0, 1.0), auto_register=False)
        ... def rule(response: str, ground_truth: str) -> bool:
        ...     return response == ground_truth
        >>> @reward(value_range=(0.0, 1.0), auto_register=False)
        ... def judge(response: str, ground_truth: str) -> float:
        ...     return 0.7 if ground_truth in response else 0.1
        >>> both = Cascade([rule, judge], undecided=(0.0, 0.0))
        >>> both.call_sync(prediction="4", answer="4").components
        {'rule': 1.0, 'judge': None}
        >>> both.call_sync(prediction="four, 4", answer="4").components
        {'rule': 0.0, 'judge': 0.7}
    """

    def __init__(
        self,
        stages: Children,
        *,
        undecided: Sequence[float] | Mapping[str, Sequence[float]] | None = None,
        name: str | None = None,
        higher_is_better: bool = True,
    ) -> None:
        members = self._read(stages, name)
        owner = self._called(name)
        if len(members) < 2:
            raise InvalidReward(f"{owner} needs at least two stages")
        check_directions(owner, members, higher_is_better)
        self._undecided = _intervals(undecided, members[:-1], owner)
        deciding = [
            part
            for member, inner in zip(members[:-1], self._undecided, strict=True)
            if (part := _decided(member, inner)) is not None
        ]
        self._compose(
            members,
            name=name,
            value_range=hull([*deciding, members[-1].interval]),
            higher_is_better=higher_is_better,
            stages=by_name(members),
        )

    async def evaluate(self, samples: Sequence[Sample], evaluator: Evaluator) -> list[Outcome]:
        """Outcomes in the order of the samples."""
        stages = _Stages(self.owner, samples)
        for place in range(len(self.members)):
            await stages.run(place, evaluator, self._after(stages, place))
        return stages.outcomes()

    def _after(self, stages: _Stages, place: int) -> Callable[[int], Outcome | None]:
        member = self.members[place]
        last = place == len(self.members) - 1
        inner = None if last else self._undecided[place]
        reason = f"stage '{member.name}' decided"
        metrics: Mapping[str, float | None] = {"stage": float(place)}

        def decide(i: int) -> Outcome | None:
            outcome = stages.at(i, place)
            number = stand_in(member, outcome)
            if number is None:
                return stages.verdict(i) if last or fails(member, outcome) else None
            if inner is not None and inner[0] <= number <= inner[1]:
                return None
            return stages.score(i, number, chosen=place, reason=reason, metrics=metrics)

        return decide


class _Stages:
    """A batch on its way through children that run one after the other."""

    def __init__(self, owner: Owner, samples: Sequence[Sample]) -> None:
        self._owner = owner
        self._samples = samples
        self._rows: list[list[Outcome | None]] = [[None] * len(owner.members) for _ in samples]
        self._done: list[Outcome | None] = [None] * len(samples)
        self._open = list(range(len(samples)))
        self._idle: dict[tuple[int, str], Abstention] = {}

    async def run(
        self, place: int, evaluator: Evaluator, decide: Callable[[int], Outcome | None]
    ) -> None:
        """Run one child for the samples that are still open.

        Args:
            place: of the child.
            evaluator: what evaluates leaves.
            decide: the outcome for a sample, or None where it stays open.
        """
        member = self._owner.members[place]
        outcomes = await some(member, self._open, self._samples, evaluator)
        await off_loop(self._open, lambda: self._take(place, outcomes, decide))

    def at(self, i: int, place: int) -> Outcome:
        """What a child that ran gave a sample."""
        return cast("Outcome", self._rows[i][place])

    def verdict(self, i: int) -> Outcome:
        """The abstention or failure that the children that ran make."""
        return verdict(self._owner, self._rows[i], self._samples[i])

    def score(
        self,
        i: int,
        value: float,
        *,
        chosen: int | None = None,
        reason: str = "",
        metrics: Mapping[str, float | None],
    ) -> Outcome:
        """The score of a sample; `reason` is why further children did not run."""
        row = [
            self._not_run(place, reason) if outcome is None else outcome
            for place, outcome in enumerate(self._rows[i])
        ]
        sample = self._samples[i]
        return assemble(self._owner, row, sample, value, chosen=chosen, metrics=metrics)

    def outcomes(self) -> list[Outcome]:
        """One outcome per sample, after the last child."""
        return cast("list[Outcome]", self._done)

    def _take(
        self,
        place: int,
        outcomes: Sequence[Outcome],
        decide: Callable[[int], Outcome | None],
    ) -> None:
        still_open: list[int] = []
        for i, outcome in zip(self._open, outcomes, strict=True):
            self._rows[i][place] = outcome
            self._done[i] = decided = decide(i)
            if decided is None:
                still_open.append(i)
        self._open = still_open

    def _not_run(self, place: int, reason: str) -> Abstention:
        key = (place, reason)
        if key not in self._idle:
            self._idle[key] = idle(self._owner.members[place], reason)
        return self._idle[key]


def _worst(guarded: Member, owner: str) -> float:
    low, high = guarded.interval
    worst = low if guarded.reward.higher_is_better else high
    if not math.isfinite(worst):
        raise InvalidReward(
            f"{owner}: the range {guarded.interval} of '{guarded.name}' has no finite worst end: "
            "name closed="
        )
    return worst


def _thresholds(
    threshold: float | Mapping[str, float], guards: Sequence[Member], owner: str
) -> list[float]:
    if not isinstance(threshold, Mapping):
        return [float(threshold)] * len(guards)
    names = [member.name for member in guards]
    _check_names(threshold, names, owner, "gate")
    absent = [name for name in names if name not in threshold]
    if absent:
        raise InvalidReward(f"{owner}: no threshold for {', '.join(absent)}")
    return [float(threshold[name]) for name in names]


def _intervals(
    undecided: Sequence[float] | Mapping[str, Sequence[float]] | None,
    members: Sequence[Member],
    owner: str,
) -> list[Range | None]:
    if undecided is None:
        return [None] * len(members)
    if not isinstance(undecided, Mapping):
        return [_interval(undecided, owner)] * len(members)
    _check_names(undecided, [member.name for member in members], owner, "undecided stage")
    return [
        _interval(undecided[member.name], owner) if member.name in undecided else None
        for member in members
    ]


def _interval(raw: Sequence[float], owner: str) -> Range:
    ends = [float(end) for end in raw]
    if len(ends) != 2 or not ends[0] <= ends[1]:
        raise InvalidReward(f"{owner}: an undecided interval is [low, high], got {list(raw)}")
    return ends[0], ends[1]


def _decided(member: Member, inner: Range | None) -> Range | None:
    return member.interval if inner is None else outside(member.interval, inner)


def _check_names(given: Mapping[str, Any], known: Sequence[str], owner: str, what: str) -> None:
    for name in given:
        if name not in known:
            raise InvalidReward(f"{owner}: no {what} is called {name!r}{nearest(name, known)}")
