"""What the outcomes of all children for one sample make together.

The order in which outcomes decide is fixed. A failure beats an abstention, and that beats a score.
Among failures `candidate` comes first, then `data`, `scorer`, `infrastructure`; then the order of
the children. So what the others would have given changes nothing: a candidate's fault costs the
same during an outage, and a fault that stays is not reported as one that may pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias, TypeGuard, TypeVar, cast

import msgspec
from msgspec.structs import replace

from guerdon.compose.child import SEPARATOR, Member, Value
from guerdon.errors import Blame, FailureKind
from guerdon.outcome import (
    EMPTY,
    INFINITY,
    Abstention,
    Failure,
    Outcome,
    Range,
    Score,
    Span,
    check_range,
    failure,
)
from guerdon.sample import Sample

T = TypeVar("T")

BLAME_ORDER = (Blame.CANDIDATE, Blame.DATA, Blame.SCORER, Blame.INFRASTRUCTURE)
"""Which failure stands for several."""

Missed: TypeAlias = Abstention | Failure
Row: TypeAlias = Sequence[Outcome]
"""The outcomes of all children for one sample, in the order of the children."""


class Owner(msgspec.Struct, frozen=True):
    """What a row needs to know about its composition."""

    name: str
    fingerprint: str
    value_range: Range
    members: tuple[Member, ...]


def stand_in(member: Member, outcome: Outcome) -> float | None:
    """The number that a child contributes: its score, or its stand-in value; None without one."""
    if type(outcome) is Score:
        return outcome.value
    return member.missing.value if isinstance(member.missing, Value) else None


def settle(owner: Owner, row: Row, sample: Sample) -> list[float | None] | Missed:
    """The children's numbers, or what the missing ones make of the whole.

    Returns:
        One number per child, None for those whose absence renormalises; or the abstention or
        failure of the composition.
    """
    numbers: list[float | None] = []
    blocked = False
    for member, outcome in zip(owner.members, row, strict=True):
        number = stand_in(member, outcome)
        numbers.append(number)
        if number is None and blocks(member, outcome):
            blocked = True
    return verdict(owner, row, sample) if blocked else numbers


def blocks(member: Member, outcome: Outcome) -> bool:
    """Whether this outcome leaves the composition without a score."""
    if type(outcome) is Score or isinstance(member.missing, Value):
        return False
    return member.missing != "renormalise" or _by_candidate(outcome)


def verdict(owner: Owner, row: Iterable[Outcome | None], sample: Sample) -> Missed:
    """The abstention or failure of a composition of which at least one child blocks.

    Args:
        owner: the composition.
        row: outcomes of the children; None for one that did not run.
        sample: what was scored.
    """
    pairs = [(m, o) for m, o in zip(owner.members, row, strict=True) if o is not None]
    absent = {m.name: o for m, o in pairs if not isinstance(o, Score)}
    elapsed = sum(o.elapsed for _, o in pairs)
    failed = [(m, o) for m, o in pairs if isinstance(o, Failure) and fails(m, o)]
    if failed:
        return _failure(owner, failed, absent, sample, elapsed)
    blocking = [(m, o) for m, o in pairs if not isinstance(o, Score) and blocks(m, o)]
    return Abstention(
        reason="; ".join(f"{m.name}: {_why(o)}" for m, o in blocking),
        absent=absent,
        reward=owner.name,
        fingerprint=owner.fingerprint,
        sample=sample.sample_id,
        elapsed=elapsed,
    )


def assemble(
    owner: Owner,
    row: Row,
    sample: Sample,
    value: float,
    *,
    chosen: int | None = None,
    renormalised: bool = False,
    metrics: Mapping[str, float | None] = EMPTY,
) -> Score | Failure:
    """The score of a composition, with everything that its children said under their names.

    Args:
        owner: the composition.
        row: outcomes of all children; those that did not run have an abstention that says so.
        sample: what was scored.
        value: of the composition; one that is not finite or out of range makes a failure.
        chosen: the child whose value this is, where it is one child's: its spans are handed on.
        renormalised: whether the rest was scaled up.
        metrics: of the composition itself.
    """
    details = _Details(metrics)
    elapsed = 0.0
    spans: tuple[Span, ...] = ()
    for place, (member, outcome) in enumerate(zip(owner.members, row, strict=True)):
        elapsed += outcome.elapsed
        if type(outcome) is Score:
            details.add(member.name, outcome)
            if place == chosen:
                spans = outcome.spans
            elif outcome.spans:
                details.info[f"{member.name}:spans"] = outcome.spans
            renormalised = renormalised or outcome.renormalised
        else:
            details.miss(member.name, cast("Missed", outcome))
    if not -INFINITY < value < INFINITY:
        lost = failure(FailureKind.NON_FINITE, f"the children make {value}", Blame.SCORER)
        return stamp(owner, lost, sample, elapsed)
    score = Score(
        value=value,
        components=details.components,
        absent=details.absent or EMPTY,
        spans=spans,
        metrics=details.metrics or EMPTY,
        info=details.info or EMPTY,
        renormalised=renormalised,
        reward=owner.name,
        fingerprint=owner.fingerprint,
        sample=sample.sample_id,
        elapsed=elapsed,
    )
    checked = check_range(score, owner.value_range)
    return score if checked is score else stamp(owner, cast("Failure", checked), sample, elapsed)


def combine(
    owner: Owner,
    columns: Sequence[Sequence[Outcome]],
    samples: Sequence[Sample],
    operation: Callable[[list[float]], float],
    without: Callable[[list[float | None]], float | None],
) -> list[Outcome]:
    """The outcomes of a composition that calculates with the numbers of all its children.

    Args:
        owner: the composition.
        columns: outcomes of each child, in the order of the samples.
        samples: what was scored.
        operation: the value from all numbers.
        without: the value where some are None because their absence renormalises; None where the
            rest is nothing.
    """
    name, fingerprint = owner.name, owner.fingerprint
    low, high = owner.value_range
    names = [member.name for member in owner.members]
    outcomes: list[Outcome] = []
    append = outcomes.append
    for sample, *row in zip(samples, *columns, strict=True):
        numbers: list[float] = []
        elapsed = 0.0
        for outcome in row:
            if not plain(outcome):
                break
            numbers.append(outcome.value)
            elapsed += outcome.elapsed
        else:
            value = operation(numbers)
            if low <= value <= high and -INFINITY < value < INFINITY:
                append(
                    Score(
                        value=value,
                        components=dict(zip(names, numbers, strict=True)),
                        reward=name,
                        fingerprint=fingerprint,
                        sample=sample.sample_id,
                        elapsed=elapsed,
                    )
                )
                continue
        append(_combine_one(owner, row, sample, operation, without))
    return outcomes


def _combine_one(
    owner: Owner,
    row: Row,
    sample: Sample,
    operation: Callable[[list[float]], float],
    without: Callable[[list[float | None]], float | None],
) -> Outcome:
    numbers = settle(owner, row, sample)
    if not isinstance(numbers, list):
        return numbers
    present = [number for number in numbers if number is not None]
    if len(present) == len(numbers):
        return assemble(owner, row, sample, operation(present))
    value = without(numbers)
    if value is None:
        return _nothing_left(owner, row, sample)
    lacking = [m for m, n in zip(owner.members, numbers, strict=True) if n is None]
    return assemble(owner, row, sample, value, renormalised=any(m.weight != 0 for m in lacking))


def _nothing_left(owner: Owner, row: Row, sample: Sample) -> Missed:
    """Every child that counts is missing: there is no rest to scale up, so all of them fail."""
    strict = [
        replace(m, missing="fail") if m.missing == "renormalise" else m for m in owner.members
    ]
    return verdict(replace(owner, members=tuple(strict)), row, sample)


class _Details:
    """Collects what the children said, under names that cannot collide.

    A child's name holds no separator, so the first one in a key ends the child's name.
    """

    def __init__(self, metrics: Mapping[str, float | None]) -> None:
        self.components: dict[str, float | None] = {}
        self.absent: dict[str, Missed] = {}
        self.metrics: dict[str, float | None] = {} if metrics is EMPTY else dict(metrics)
        self.info: dict[str, Any] = {}

    def add(self, name: str, score: Score) -> None:
        self.components[name] = score.value
        if score.components is not EMPTY:
            _take(self.components, name, score.components)
        if score.metrics is not EMPTY:
            _take(self.metrics, name, score.metrics)
        if score.info is not EMPTY:
            _take(self.info, name, score.info)
        if score.absent is not EMPTY:
            _take(self.absent, name, score.absent)

    def miss(self, name: str, outcome: Missed) -> None:
        self.components[name] = None
        self.absent[name] = outcome


def _take(target: dict[str, T], name: str, items: Mapping[str, T]) -> None:
    prefix = name + SEPARATOR
    for key, item in items.items():
        target[prefix + key] = item


def stamp(owner: Owner, lost: Failure, sample: Sample, elapsed: float = 0.0) -> Failure:
    """A failure as the composition's own, of this sample."""
    return replace(
        lost,
        reward=owner.name,
        fingerprint=owner.fingerprint,
        sample=sample.sample_id,
        elapsed=elapsed,
    )


def plain(outcome: Outcome) -> TypeGuard[Score]:
    """Whether an outcome is a score that says nothing but its value."""
    return (
        type(outcome) is Score
        and outcome.components is EMPTY
        and outcome.metrics is EMPTY
        and outcome.info is EMPTY
        and outcome.absent is EMPTY
        and not outcome.spans
        and not outcome.renormalised
    )


def _why(missed: Missed) -> str:
    if isinstance(missed, Failure):
        return f"{missed.kind}: {missed.message}"
    return missed.reason or "abstained"


def _by_candidate(outcome: Outcome) -> bool:
    return isinstance(outcome, Failure) and outcome.blame is Blame.CANDIDATE


def fails(member: Member, lost: Outcome) -> bool:
    """Whether this outcome makes the composition fail."""
    return (
        isinstance(lost, Failure)
        and blocks(member, lost)
        and (member.missing == "fail" or _by_candidate(lost))
    )


def _failure(
    owner: Owner,
    failed: Sequence[tuple[Member, Failure]],
    absent: Mapping[str, Missed],
    sample: Sample,
    elapsed: float,
) -> Failure:
    member, first = min(failed, key=lambda pair: BLAME_ORDER.index(pair[1].blame))
    others = ", ".join(m.name for m, _ in failed if m is not member)
    return Failure(
        kind=first.kind,
        message=f"{member.name}: {first.message}" + (f" (also failed: {others})" if others else ""),
        blame=first.blame,
        retryable=all(lost.retryable for _, lost in failed),
        evidence=first.evidence,
        absent=absent,
        reward=owner.name,
        fingerprint=owner.fingerprint,
        sample=sample.sample_id,
        elapsed=elapsed,
    )
