"""Compositions that choose one child: by the kind of the sample, or by the training step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, cast

from guerdon.compose.child import Children, Member
from guerdon.compose.composition import Composition, by_name, check_directions
from guerdon.compose.condition import Condition, ConditionLike, Predicate, as_condition
from guerdon.compose.curve import as_step, step_of
from guerdon.compose.gathering import off_loop, some, together
from guerdon.compose.picking import Pick
from guerdon.compose.ranges import hull
from guerdon.compose.row import stamp
from guerdon.errors import Blame, FailureKind, InvalidReward, nearest
from guerdon.outcome import Abstention, Failure, Outcome, failure, failure_from
from guerdon.reward import Evaluator
from guerdon.sample import Sample

Route: TypeAlias = int | Failure | None
"""Place of the child for a sample, what went wrong in choosing it, or None: no case applies."""


class Conditional(Composition):
    """Each sample is scored by the first child whose condition holds.

    A sample for which no condition holds goes to `otherwise`, or is abstained from where there is
    no such child. Children that did not run have the component None, and `Score.absent` says so.

    Args:
        children: rewards on one scale.
        when: condition by name of the child, looked at in this order: data source patterns, a
            mapping with `data_source` and `metadata`, a `Condition`, or a function of the sample.
        otherwise: name of the child for all other samples.
        name: of the composition.
        higher_is_better: direction of the composition.

    Raises:
        InvalidReward: a child without a condition, or a condition without a child.

    Example:
        >>> from guerdon.reward import reward
        >>> @reward(value_range=(0.0, 1.0), auto_register=False)
        ... def exact(response: str, ground_truth: str) -> bool:
        ...     return response == ground_truth
        >>> @reward(value_range=(0.0, 1.0), auto_register=False)
        ... def polite(response: str) -> bool:
        ...     return "please" in response
        >>> mixed = Conditional([exact, polite], when={"exact": "math*"}, otherwise="polite")
        >>> mixed.call_sync(prediction="4", answer="4", data_source="math/easy").components
        {'exact': 1.0, 'polite': None}
    """

    def __init__(
        self,
        children: Children,
        when: Mapping[str, ConditionLike],
        *,
        otherwise: str | None = None,
        name: str | None = None,
        higher_is_better: bool = True,
    ) -> None:
        members = self._read(children, name)
        owner = self._called(name)
        check_directions(owner, members, higher_is_better)
        self._cases = _cases(members, when, otherwise, owner)
        self._otherwise = None if otherwise is None else _places(members)[otherwise]
        self._by_source = all(
            isinstance(condition, Condition) and not condition.metadata
            for _, condition in self._cases
        )
        self._compose(
            members,
            name=name,
            value_range=hull([member.interval for member in members]),
            higher_is_better=higher_is_better,
            children=by_name(members),
            when={members[place].name: condition for place, condition in self._cases},
        )

    def fingerprint_extra(self) -> Mapping[str, Any]:
        """The children, and the conditions in their order."""
        return {**super().fingerprint_extra(), "cases": list(self._cases)}

    async def evaluate(self, samples: Sequence[Sample], evaluator: Evaluator) -> list[Outcome]:
        """Outcomes in the order of the samples."""
        routes = await off_loop(samples, lambda: self._routes(samples))
        positions: dict[int, list[int]] = {}
        for i, route in enumerate(routes):
            if isinstance(route, int):
                positions.setdefault(route, []).append(i)
        found = await together(
            [some(self.members[p], chosen, samples, evaluator) for p, chosen in positions.items()]
        )
        return await off_loop(
            samples,
            lambda: self._outcomes(samples, routes, dict(zip(positions, found, strict=True))),
        )

    def _outcomes(
        self,
        samples: Sequence[Sample],
        routes: Sequence[Route],
        found: Mapping[int, Sequence[Outcome]],
    ) -> list[Outcome]:
        rest = {place: iter(outcomes) for place, outcomes in found.items()}
        owner = self.owner
        picks = {place: Pick(owner, place, self._reason(place)) for place in found}
        outcomes: list[Outcome] = []
        for sample, route in zip(samples, routes, strict=True):
            if isinstance(route, int):
                outcomes.append(picks[route].outcome(next(rest[route]), sample))
            elif route is None:
                outcomes.append(self._none_applies(sample))
            else:
                outcomes.append(stamp(owner, route, sample))
        return outcomes

    def _routes(self, samples: Sequence[Sample]) -> list[Route]:
        if not self._by_source:
            return [self._route(sample) for sample in samples]
        known: dict[str | None, Route] = {}
        for sample in samples:
            if sample.data_source not in known:
                known[sample.data_source] = self._route(sample)
        return [known[sample.data_source] for sample in samples]

    def _route(self, sample: Sample) -> Route:
        for place, condition in self._cases:
            try:
                if _holds(condition, sample):
                    return place
            except Exception as error:
                return self._cannot_choose(place, condition, error)
        return self._otherwise

    def _cannot_choose(
        self, place: int, condition: Condition | Predicate, error: Exception
    ) -> Failure:
        case = self.members[place].name
        if not isinstance(condition, Condition):
            return failure_from(error)
        message = f"the condition of '{case}' cannot be asked: {error}"
        return failure(FailureKind.BAD_INPUT, message, Blame.DATA)

    def _none_applies(self, sample: Sample) -> Abstention:
        return Abstention(
            reason=f"no case applies (data source {sample.data_source!r})",
            reward=self.name,
            fingerprint=self.fingerprint,
            sample=sample.sample_id,
        )

    def _reason(self, place: int) -> str:
        return f"the sample is a case of '{self.members[place].name}'"


class Schedule(Composition):
    """One child at a time, by training step.

    For weights that change with the step, see `Curve` and `WeightedSum`.

    Args:
        children: rewards on one scale.
        phases: the first step of each phase, and the name of the child that scores it; one phase
            starts at step 0.
        default_step: the step of a call that names none.
        name: of the composition.
        higher_is_better: direction of the composition.

    Raises:
        InvalidReward: no phase for step 0, a phase of an unknown child, a child without a phase.
        ConfigError: (when scoring) the call names no step and there is no `default_step`.

    Example:
        >>> from guerdon.reward import reward
        >>> @reward(value_range=(0.0, 1.0), auto_register=False)
        ... def easy(response: str, ground_truth: str) -> bool:
        ...     return ground_truth in response
        >>> @reward(value_range=(0.0, 1.0), auto_register=False)
        ... def hard(response: str, ground_truth: str) -> bool:
        ...     return response == ground_truth
        >>> course = Schedule([easy, hard], phases={0: "easy", 100: "hard"})
        >>> course.call_sync(prediction="= 4", answer="4", step=99).value
        1.0
        >>> course.call_sync(prediction="= 4", answer="4", step=100).value
        0.0
    """

    def __init__(
        self,
        children: Children,
        phases: Mapping[Any, str],
        *,
        default_step: int | None = None,
        name: str | None = None,
        higher_is_better: bool = True,
    ) -> None:
        members = self._read(children, name)
        owner = self._called(name)
        check_directions(owner, members, higher_is_better)
        starts = sorted((as_step(step), child) for step, child in phases.items())
        places = _places(members)
        for _, child in starts:
            _check_name(child, places, owner)
        _check_used(members, [child for _, child in starts], owner, "phase")
        if not starts or starts[0][0] > 0 or len(dict(starts)) != len(starts):
            raise InvalidReward(f"{owner}: each phase has its own first step, one of them 0")
        self._phases = [(step, places[child]) for step, child in starts]
        self._default_step = default_step
        self._compose(
            members,
            name=name,
            value_range=hull([member.interval for member in members]),
            higher_is_better=higher_is_better,
            children=by_name(members),
            phases=dict(starts),
        )

    async def evaluate(self, samples: Sequence[Sample], evaluator: Evaluator) -> list[Outcome]:
        """Outcomes in the order of the samples."""
        if not samples:
            return []
        step = step_of(self.name, evaluator.call, self._default_step)
        place = next(
            (p for start, p in reversed(self._phases) if start <= step), self._phases[0][1]
        )
        member = self.members[place]
        found = await some(member, range(len(samples)), samples, evaluator)
        pick = Pick(self.owner, place, f"step {step} is a phase of '{member.name}'")
        return await off_loop(
            samples, lambda: [pick.outcome(o, s) for o, s in zip(found, samples, strict=True)]
        )


def _cases(
    members: Sequence[Member],
    when: Mapping[str, ConditionLike],
    otherwise: str | None,
    owner: str,
) -> tuple[tuple[int, Condition | Predicate], ...]:
    places = _places(members)
    for child in (*when, *([] if otherwise is None else [otherwise])):
        _check_name(child, places, owner)
    if otherwise in when:
        raise InvalidReward(f"{owner}: '{otherwise}' is `otherwise` and has a condition as well")
    _check_used(members, [*when, cast("str", otherwise)], owner, "condition")
    try:
        return tuple((places[child], as_condition(raw)) for child, raw in when.items())
    except InvalidReward as error:
        raise InvalidReward(f"{owner}: {error}") from None


def _holds(condition: Condition | Predicate, sample: Sample) -> bool:
    return condition.holds(sample) if isinstance(condition, Condition) else bool(condition(sample))


def _places(members: Sequence[Member]) -> dict[str, int]:
    return {member.name: place for place, member in enumerate(members)}


def _check_name(child: str, places: Mapping[str, int], owner: str) -> None:
    if child not in places:
        raise InvalidReward(f"{owner}: no child is called {child!r}{nearest(str(child), places)}")


def _check_used(members: Sequence[Member], used: Sequence[str], owner: str, what: str) -> None:
    idle = [member.name for member in members if member.name not in used]
    if idle:
        raise InvalidReward(f"{owner}: no {what} for {', '.join(idle)}: it would never run")
