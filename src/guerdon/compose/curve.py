"""A number that depends on the training step."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any, TypeAlias, cast

import msgspec
from msgspec.structs import force_setattr

from guerdon.errors import ConfigError, InvalidReward
from guerdon.injection import Call
from guerdon.outcome import as_number


class Curve(msgspec.Struct, frozen=True):
    """A number over training steps; before the first and after the last point it is constant.

    Attributes:
        points: (step, value) in increasing order of the steps; values are finite.
        interpolate: straight lines between the points; otherwise each value holds until the next
            point.

    Example:
        >>> Curve(((0, 1.0), (100, 0.0))).at(25)
        0.75
        >>> Curve(((0, 1.0), (100, 0.0)), interpolate=False).at(99)
        1.0
    """

    points: tuple[tuple[int, float], ...]
    interpolate: bool = True

    def __post_init__(self) -> None:
        points = tuple((as_step(step), _finite(value)) for step, value in self.points)
        if not points:
            raise InvalidReward("a curve needs at least one point")
        steps = [step for step, _ in points]
        if any(later <= earlier for earlier, later in pairwise(steps)):
            raise InvalidReward(f"the steps of a curve must increase, got {steps}")
        force_setattr(self, "points", points)

    def at(self, step: float) -> float:
        """The value at a step."""
        after = bisect_right(self.points, step, key=lambda point: point[0])
        if after == 0:
            return self.points[0][1]
        start, first = self.points[after - 1]
        if after == len(self.points) or not self.interpolate:
            return first
        end, second = self.points[after]
        value = first + (second - first) * ((step - start) / (end - start))
        return min(max(value, min(first, second)), max(first, second))

    @property
    def constant(self) -> bool:
        """Whether the value never changes."""
        return all(value == self.points[0][1] for _, value in self.points)

    @property
    def turns(self) -> tuple[float, ...]:
        """Steps between which the curve is a straight line without a change of sign."""
        steps: list[float] = []
        for step, _ in self.points:
            # Steps are whole: the last one before a jump is where a held value ends.
            steps.extend((step - 1, step))
        if self.interpolate:
            steps.extend(self._crossings())
        return tuple(sorted(set(steps)))

    def _crossings(self) -> list[float]:
        pairs = pairwise(self.points)
        return [
            start + (end - start) * (first / (first - second))
            for (start, first), (end, second) in pairs
            if first * second < 0
        ]


Weight: TypeAlias = float | Curve
"""A number, or one that depends on the training step."""


def linear(start: float, end: float, first_step: int, last_step: int) -> Curve:
    """A straight line between two steps, constant outside.

    Example:
        >>> linear(0.0, 1.0, first_step=0, last_step=10).at(5)
        0.5
    """
    return Curve(((first_step, start), (last_step, end)))


def piecewise(points: Mapping[Any, float], interpolate: bool = False) -> Curve:
    """A curve through points: value by step, held until the next point unless interpolated.

    Args:
        points: value by step; the steps may be text, as keys of a configuration are.
        interpolate: straight lines between the points.

    Example:
        >>> piecewise({0: 1.0, 500: 0.1}).at(499)
        1.0
    """
    ordered = sorted((as_step(step), value) for step, value in points.items())
    return Curve(tuple(ordered), interpolate)


def as_weight(raw: object) -> Weight:
    """A weight from a number, a curve, or a mapping with the arguments of `linear` or `piecewise`.

    Raises:
        InvalidReward: anything else, or a number that is not finite.

    Example:
        >>> as_weight({"points": {"0": 1.0, "10": 0.0}, "interpolate": True}).at(5)
        0.5
    """
    if isinstance(raw, Curve):
        return raw
    if isinstance(raw, Mapping):
        mapping = cast("Mapping[str, Any]", raw)
        make = cast("Callable[..., Curve]", piecewise if "points" in mapping else linear)
        try:
            return make(**mapping)
        except TypeError as error:
            raise InvalidReward(f"no curve: {error}") from None
    return _finite(raw)


def value_at(weight: Weight, step: float) -> float:
    """The weight at a step; a number is the same at all of them."""
    return weight.at(step) if isinstance(weight, Curve) else weight


def step_of(owner: str, call: Call, default: int | None) -> int:
    """The training step of a call, or the default of a composition that depends on it.

    Raises:
        ConfigError: there is neither.
    """
    step = default if call.step is None else call.step
    if step is None:
        raise ConfigError(
            f"reward '{owner}' depends on the training step, and the call names none: give "
            "score(..., step=...), or the composition default_step="
        )
    return step


def as_step(raw: object) -> int:
    """A training step from a whole number, or from its text as keys of a configuration are."""
    if isinstance(raw, str) and raw.strip().isdecimal():
        return int(raw)
    if isinstance(raw, int) and not isinstance(raw, bool):
        return raw
    raise InvalidReward(f"a training step must be a whole number, got {raw!r}")


def _finite(raw: object) -> float:
    number = None if isinstance(raw, bool) else as_number(raw)
    if number is None or not math.isfinite(number):
        raise InvalidReward(f"a weight must be a finite number, got {raw!r}")
    return number
