"""Values relative to the other samples of the same prompt."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, cast

import msgspec

from guerdon.compose.child import ChildLike, Member, Value
from guerdon.compose.composition import Composition
from guerdon.compose.gathering import columns, off_loop
from guerdon.compose.ranges import total
from guerdon.compose.row import Owner, assemble, stamp, verdict
from guerdon.errors import Blame, FailureKind, InvalidReward
from guerdon.outcome import UNBOUNDED, Abstention, Outcome, Range, Score, failure
from guerdon.reward import Evaluator
from guerdon.sample import Sample

Deviation: TypeAlias = Literal["sample", "population"]

EPSILON = 1e-6
"""Added to the standard deviation; as in verl's `compute_grpo_outcome_advantage`."""


class GroupNormalise(Composition):
    r"""A reward's value relative to its group: the samples of one prompt.

    The value is $(x - \mu) / (\sigma + \epsilon)$ over the members that have a score (GRPO,
    arXiv 2402.03300), or $x - \mu$ with `std=None` (Dr. GRPO, arXiv 2503.20783). A member without
    a score keeps its abstention or failure, and shifts neither $\mu$ nor $\sigma$. A group in
    which all scores are equal, or only one is there, gets exactly 0.

    A renormalised score counts only where all scored members of its group lack the same children;
    elsewhere that member is abstained from, because its value is on another scale.

    The range is unbounded with a standard deviation (name a worst end with `Clip`), else it is the
    width of the child's range either way. The metrics `group_mean`, `group_std` and `group_scored`
    are those of the sample's group.

    Args:
        reward: what is normalised; it sees whole groups, and so does this reward.
        std: "sample" divides the squares by n - 1, "population" by n; None only subtracts the mean.
        eps: added to the standard deviation, positive.
        name: of the composition.

    Raises:
        InvalidReward: an unusable option, or a child whose `missing` is a `Value`.

    Example:
        >>> from guerdon.reward import reward
        >>> @reward(value_range=(0.0, 4.0), auto_register=False)
        ... def size(response: str) -> int:
        ...     return len(response)
        >>> group = [Sample(response=text, group_id="g") for text in ("a", "abc")]
        >>> [o.value for o in GroupNormalise(size, std=None).call_sync(samples=group)]
        [-1.0, 1.0]
    """

    def __init__(
        self,
        reward: ChildLike,
        *,
        std: Deviation | None = "sample",
        eps: float = EPSILON,
        name: str | None = None,
    ) -> None:
        member = self._read_one(reward, name)
        owner = self._called(name)
        if std not in ("sample", "population", None):
            raise InvalidReward(f"{owner}: std is 'sample', 'population' or None, got {std!r}")
        if not 0 < eps < math.inf:
            raise InvalidReward(f"{owner}: eps must be positive, got {eps}")
        if isinstance(member.missing, Value):
            raise InvalidReward(
                f"{owner}: a stand-in value has no place among measured ones; give it to the "
                "parent instead: Child(GroupNormalise(...), missing=Value(0.0))"
            )
        self._std = std
        self._eps = float(eps)
        self._compose(
            [member],
            name=name,
            value_range=_range(member) if std is None else UNBOUNDED,
            higher_is_better=member.reward.higher_is_better,
            reward=member.child,
        )
        self.scope = "group"

    async def evaluate(self, samples: Sequence[Sample], evaluator: Evaluator) -> list[Outcome]:
        """Outcomes in the order of the samples."""
        (found,) = await columns(self.members, samples, evaluator)
        return await off_loop(samples, lambda: self._normalise(found, samples))

    def _normalise(self, found: Sequence[Outcome], samples: Sequence[Sample]) -> list[Outcome]:
        owner = self.owner
        outcomes: list[Outcome | None] = [None] * len(samples)
        groups: dict[str, list[int]] = {}
        for i, (outcome, sample) in enumerate(zip(found, samples, strict=True)):
            if type(outcome) is not Score:
                outcomes[i] = verdict(owner, [outcome], sample)
            elif sample.group_id is None:
                outcomes[i] = _no_group(owner, sample)
            else:
                groups.setdefault(sample.group_id, []).append(i)
        for positions in groups.values():
            scores = cast("list[Score]", [found[i] for i in positions])
            comparable = _comparable(scores)
            baseline = self._baseline(
                [s.value for s, fits in zip(scores, comparable, strict=True) if fits]
            )
            for i, score, fits in zip(positions, scores, comparable, strict=True):
                sample = samples[i]
                if fits:
                    outcomes[i] = self._relative(owner, score, baseline, sample)
                else:
                    outcomes[i] = _apart(owner, score, sample)
        return cast("list[Outcome]", outcomes)

    def _baseline(self, values: Sequence[float]) -> _Baseline:
        if not values:
            return _Baseline(0.0, 0.0, 0)
        if min(values) == max(values):
            return _Baseline(values[0], 0.0, len(values))
        mean = total(values) / len(values)
        if self._std is None:
            return _Baseline(mean, 0.0, len(values))
        squares = total([(value - mean) * (value - mean) for value in values])
        freedom = len(values) - (self._std == "sample")
        return _Baseline(mean, math.sqrt(squares / freedom), len(values))

    def _relative(self, owner: Owner, score: Score, baseline: _Baseline, sample: Sample) -> Outcome:
        value = score.value - baseline.mean
        if self._std is not None:
            value = value / (baseline.std + self._eps)
        # An overflowing baseline is no baseline: the value it gives may look like a number.
        usable = math.isfinite(baseline.mean) and math.isfinite(baseline.std)
        return assemble(
            owner, [score], sample, value if usable else math.nan, metrics=baseline.metrics
        )


class _Baseline(msgspec.Struct, frozen=True):
    """What the members of a group are compared with."""

    mean: float
    std: float
    scored: int

    @property
    def metrics(self) -> dict[str, Any]:
        def finite(number: float) -> float | None:
            return number if math.isfinite(number) else None

        return {
            "group_mean": finite(self.mean),
            "group_std": finite(self.std),
            "group_scored": float(self.scored),
        }


def _comparable(scores: Sequence[Score]) -> list[bool]:
    """Which scores are on one scale: all where all lack the same, else those not renormalised."""
    if not any(score.renormalised for score in scores):
        return [True] * len(scores)
    if len({frozenset(score.absent) for score in scores}) == 1:
        return [True] * len(scores)
    return [not score.renormalised for score in scores]


def _range(member: Member) -> Range:
    low, high = member.interval
    return low - high, high - low


def _no_group(owner: Owner, sample: Sample) -> Outcome:
    message = "values are relative to a group: the sample needs a group_id"
    return stamp(owner, failure(FailureKind.BAD_INPUT, message, Blame.DATA), sample)


def _apart(owner: Owner, score: Score, sample: Sample) -> Abstention:
    lacking = ", ".join(score.absent) or "a child"
    return Abstention(
        reason=f"renormalised without {lacking}: not comparable with the rest of its group",
        absent=score.absent,
        reward=owner.name,
        fingerprint=owner.fingerprint,
        sample=sample.sample_id,
        elapsed=score.elapsed,
    )
