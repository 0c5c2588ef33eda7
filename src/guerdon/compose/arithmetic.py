"""Compositions that calculate with the numbers of all their children."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from operator import mul
from typing import TypeAlias

from guerdon.compose.child import ChildLike, Children, Member
from guerdon.compose.composition import Composition, by_name, check_directions
from guerdon.compose.curve import Curve, step_of, value_at
from guerdon.compose.gathering import columns, off_loop
from guerdon.compose.ranges import clamp, clamped, multiplied, scaled, shifted, total, weighted
from guerdon.compose.ranges import hull as hull_of
from guerdon.compose.row import combine
from guerdon.errors import InvalidReward
from guerdon.outcome import INFINITY, Outcome, Range
from guerdon.reward import Evaluator
from guerdon.sample import Sample

Operation: TypeAlias = Callable[[list[float]], float]
Without: TypeAlias = Callable[[list[float | None]], float | None]


class Calculation(Composition):
    """Base class: all children run at once, and one operation makes a number of theirs."""

    async def evaluate(self, samples: Sequence[Sample], evaluator: Evaluator) -> list[Outcome]:
        """Outcomes in the order of the samples."""
        if not samples:
            return []
        operation, without = self._operations(evaluator)
        found = await columns(self.members, samples, evaluator)
        return await off_loop(
            samples, lambda: combine(self.owner, found, samples, operation, without)
        )

    def _operations(self, evaluator: Evaluator) -> tuple[Operation, Without]:
        return self._operation, _nothing

    def _operation(self, numbers: list[float]) -> float:
        raise NotImplementedError


class WeightedSum(Calculation):
    r"""The sum of the children's values times their weights.

    The value is $\sum_i w_i x_i$, with `normalise` $\sum_i w_i x_i / \sum_i |w_i|$. It is rounded
    once, so the order of the children does not matter.

    Args:
        children: rewards, with weights of any sign; a weight may be a `Curve` over training steps.
        normalise: divide by the sum of the absolute weights: a weighted mean.
        default_step: the step to take the weights of where a call names none.
        name: of the composition.
        higher_is_better: direction of the composition.

    Raises:
        InvalidReward: all weights are zero and `normalise` is set; a child for which lower is
            better has a positive weight; an unusable child.

    Example:
        >>> from guerdon.compose import Child
        >>> from guerdon.reward import reward
        >>> @reward(value_range=(0.0, 1.0), auto_register=False)
        ... def correct(response: str, ground_truth: str) -> bool:
        ...     return response == ground_truth
        >>> @reward(value_range=(0.0, 1.0), auto_register=False)
        ... def tidy(response: str) -> bool:
        ...     return response == response.strip()
        >>> both = WeightedSum([Child(correct, 0.8), Child(tidy, 0.2)])
        >>> both.call_sync(prediction="5", answer="4").value, both.value_range
        (0.2, (0.0, 1.0))
    """

    weighted = True
    renormalises = True

    def __init__(
        self,
        children: Children,
        *,
        normalise: bool = False,
        default_step: int | None = None,
        name: str | None = None,
        higher_is_better: bool = True,
    ) -> None:
        members = self._read(children, name)
        self._normalise = normalise
        self._default_step = default_step
        self._scheduled = any(isinstance(member.weight, Curve) for member in members)
        owner = self._called(name)
        if normalise:
            _check_divisor(members, owner)
        rising = [m for m in members if any(m_weight > 0 for m_weight in _weights_of(m))]
        check_directions(owner, rising, higher_is_better)
        self._compose(
            members,
            name=name,
            value_range=_weighted_range(members, normalise),
            higher_is_better=higher_is_better,
            children=by_name(members),
        )

    def _operations(self, evaluator: Evaluator) -> tuple[Operation, Without]:
        step = step_of(self.name, evaluator.call, self._default_step) if self._scheduled else 0
        weights = [value_at(member.weight, step) for member in self.members]
        mass = total(list(map(abs, weights)))
        divisor = mass if self._normalise else 1.0

        def operation(numbers: list[float]) -> float:
            try:
                return math.fsum(map(mul, weights, numbers)) / divisor
            except (OverflowError, ValueError):
                return total(list(map(mul, weights, numbers))) / divisor

        def without(numbers: list[float | None]) -> float | None:
            rest = [(w, x) for w, x in zip(weights, numbers, strict=True) if x is not None]
            left = total([abs(w) for w, _ in rest])
            if left == 0:
                return None
            return total([w * x for w, x in rest]) / left * (mass / divisor)

        return operation, without


class Product(Calculation):
    """The product of the children's values.

    Args:
        children: rewards.
        name: of the composition.
        higher_is_better: direction of the composition.

    Example:
        >>> from guerdon.reward import reward
        >>> @reward(value_range=(0.0, 10.0), auto_register=False)
        ... def quality(level: float) -> float:
        ...     return level
        >>> Product({"first": quality, "second": quality}).call_sync(level=3.0).value
        9.0
    """

    def __init__(
        self, children: Children, *, name: str | None = None, higher_is_better: bool = True
    ) -> None:
        members = self._read(children, name)
        check_directions(self._called(name), members, higher_is_better)
        interval: Range = (1.0, 1.0)
        for member in members:
            interval = multiplied(interval, member.interval)
        self._compose(
            members,
            name=name,
            value_range=interval,
            higher_is_better=higher_is_better,
            children=by_name(members),
        )

    def _operation(self, numbers: list[float]) -> float:
        return math.prod(numbers)


class _Extreme(Calculation):
    """One of the children's values: each end of the range is that of the ends of the children."""

    def __init__(
        self, children: Children, *, name: str | None = None, higher_is_better: bool = True
    ) -> None:
        members = self._read(children, name)
        check_directions(self._called(name), members, higher_is_better)
        lows, highs = zip(*(member.interval for member in members), strict=True)
        self._compose(
            members,
            name=name,
            value_range=(self._operation(list(lows)), self._operation(list(highs))),
            higher_is_better=higher_is_better,
            children=by_name(members),
        )


class Minimum(_Extreme):
    """The smallest of the children's values.

    Args:
        children: rewards.
        name: of the composition.
        higher_is_better: direction of the composition.

    Example:
        >>> from guerdon.reward import reward
        >>> @reward(value_range=(0.0, 10.0), auto_register=False)
        ... def words(response: str) -> int:
        ...     return len(response.split())
        >>> @reward(value_range=(0.0, 5.0), auto_register=False)
        ... def lines(response: str) -> int:
        ...     return len(response.splitlines())
        >>> least = Minimum([words, lines])
        >>> least.call_sync(response="two words").value, least.value_range
        (1.0, (0.0, 5.0))
    """

    def _operation(self, numbers: list[float]) -> float:
        return min(numbers)


class Maximum(_Extreme):
    """The largest of the children's values.

    Args:
        children: rewards.
        name: of the composition.
        higher_is_better: direction of the composition.

    Example:
        >>> from guerdon.reward import reward
        >>> @reward(value_range=(0.0, 1.0), auto_register=False)
        ... def exact(response: str, ground_truth: str) -> bool:
        ...     return response == ground_truth
        >>> @reward(value_range=(0.0, 1.0), auto_register=False)
        ... def contained(response: str, ground_truth: str) -> float:
        ...     return 0.5 * (ground_truth in response)
        >>> Maximum([exact, contained]).call_sync(prediction="It is 4.", answer="4").value
        0.5
    """

    def _operation(self, numbers: list[float]) -> float:
        return max(numbers)


class Clip(Calculation):
    """A reward's value, moved to the nearest end where it lies outside [low, high].

    The direction is that of the reward.

    Args:
        reward: what is clipped.
        low: smallest value, None for no bound.
        high: largest value, None for no bound.
        name: of the composition.

    Raises:
        InvalidReward: no bound, or low above high.

    Example:
        >>> from guerdon.reward import reward
        >>> @reward(auto_register=False)
        ... def size(response: str) -> int:
        ...     return len(response)
        >>> clipped = Clip(size, low=1.0, high=3.0)
        >>> clipped.call_sync(response="abcdef").value, clipped.value_range
        (3.0, (1.0, 3.0))
    """

    def __init__(
        self,
        reward: ChildLike,
        *,
        low: float | None = None,
        high: float | None = None,
        name: str | None = None,
    ) -> None:
        member = self._read_one(reward, name)
        self._low = -INFINITY if low is None else float(low)
        self._high = INFINITY if high is None else float(high)
        if (low is None and high is None) or not self._low <= self._high:
            raise InvalidReward(f"{self._called(name)} needs low <= high, got {low} and {high}")
        self._compose(
            [member],
            name=name,
            value_range=clamped(member.interval, self._low, self._high),
            higher_is_better=member.reward.higher_is_better,
            reward=member.child,
        )

    def _operation(self, numbers: list[float]) -> float:
        return clamp(numbers[0], self._low, self._high)


class Affine(Calculation):
    """A reward's value times `scale` plus `offset`.

    The direction is that of the reward, turned round by a negative scale.

    Args:
        reward: what is transformed.
        scale: finite.
        offset: finite.
        name: of the composition.

    Example:
        >>> from guerdon.reward import reward
        >>> @reward(value_range=(0.0, 1.0), auto_register=False)
        ... def exact(response: str, ground_truth: str) -> bool:
        ...     return response == ground_truth
        >>> signed = Affine(exact, scale=2.0, offset=-1.0)
        >>> signed.call_sync(prediction="5", answer="4").value, signed.value_range
        (-1.0, (-1.0, 1.0))
    """

    def __init__(
        self,
        reward: ChildLike,
        *,
        scale: float = 1.0,
        offset: float = 0.0,
        name: str | None = None,
    ) -> None:
        member = self._read_one(reward, name)
        if not (math.isfinite(scale) and math.isfinite(offset)):
            raise InvalidReward(
                f"{self._called(name)} needs finite numbers, got {scale} and {offset}"
            )
        self._scale = float(scale)
        self._offset = float(offset)
        self._compose(
            [member],
            name=name,
            value_range=shifted(scaled(member.interval, self._scale), self._offset),
            higher_is_better=member.reward.higher_is_better == (scale >= 0),
            reward=member.child,
        )

    def _operation(self, numbers: list[float]) -> float:
        return numbers[0] * self._scale + self._offset


def _nothing(_: list[float | None]) -> None:
    return None


def _weights_of(member: Member) -> list[float]:
    weight = member.weight
    return [value for _, value in weight.points] if isinstance(weight, Curve) else [weight]


def _check_divisor(members: Sequence[Member], owner: str) -> None:
    """Refuse weights that may be zero all at once."""
    for member in members:
        values = _weights_of(member)
        if min(values) > 0 or max(values) < 0:
            return
    raise InvalidReward(
        f"{owner}: normalise divides by the sum of the absolute weights, which can be zero: at "
        "least one child needs a weight that never is"
    )


def _weighted_range(members: Sequence[Member], normalise: bool) -> Range:
    """The range of a weighted sum at every step.

    Between two neighbouring turns every weight is linear in the step and keeps its sign, so the
    sum is linear and its mean is a ratio of linear functions: the extremes lie at the turns.
    """
    curves = [member.weight for member in members if isinstance(member.weight, Curve)]
    steps = sorted({0.0, *(step for curve in curves for step in curve.turns)})
    intervals = [member.interval for member in members]
    optional = [member.missing == "renormalise" for member in members]
    moving = any(not curve.constant for curve in curves)
    found: list[Range] = []
    masses: list[float] = []
    means: list[Range] = []
    for step in steps:
        weights = [value_at(member.weight, step) for member in members]
        found.append(weighted(intervals, weights, optional, normalise=normalise))
        masses.append(total([abs(weight) for weight in weights]))
        means.extend(
            scaled(i, math.copysign(1.0, w))
            for i, w in zip(intervals, weights, strict=True)
            if w != 0
        )
    if moving and any(optional) and not normalise and means:
        # Scaled up, the sum is the moving mass times a mean: a curve that may bend in between.
        found.append(multiplied(hull_of(means), (min(masses), max(masses))))
    return hull_of(found)
