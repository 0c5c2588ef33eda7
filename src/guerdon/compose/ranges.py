"""Interval arithmetic: the range of a composition from the ranges of its children.

The ends are computed with the operations that give the values. Each of them is monotone, rounding
included, so a value never leaves the range of its composition by more than rounding noise.

Values are finite, only ends can be infinite; so 0 times an infinite end is 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product

from guerdon.outcome import INFINITY, Range


def total(numbers: Sequence[float]) -> float:
    """The correctly rounded sum, in any order of the numbers; NaN or an infinity on overflow.

    Example:
        >>> total([0.1] * 10), total([1e308, 1e308])
        (1.0, inf)
    """
    try:
        return math.fsum(numbers)
    except (OverflowError, ValueError):
        return sum(numbers)


def scaled(interval: Range, factor: float) -> Range:
    """Every value times a factor.

    Example:
        >>> scaled((0.0, math.inf), -2.0), scaled((0.0, math.inf), 0.0)
        ((-inf, 0.0), (0.0, 0.0))
    """
    low, high = _times(interval[0], factor), _times(interval[1], factor)
    return (low, high) if factor >= 0 else (high, low)


def shifted(interval: Range, offset: float) -> Range:
    """Every value plus an offset."""
    return interval[0] + offset, interval[1] + offset


def multiplied(first: Range, second: Range) -> Range:
    """Every product of a value of each.

    Example:
        >>> multiplied((-1.0, 2.0), (-3.0, math.inf))
        (-inf, inf)
    """
    corners = [_times(a, b) for a, b in product(first, second)]
    return min(corners), max(corners)


def summed(intervals: Sequence[Range]) -> Range:
    """Every sum of a value of each."""
    return total([low for low, _ in intervals]), total([high for _, high in intervals])


def hull(intervals: Sequence[Range]) -> Range:
    """The smallest interval around all of them.

    Example:
        >>> hull([(0.0, 1.0), (-2.0, -1.0)])
        (-2.0, 1.0)
    """
    return min(low for low, _ in intervals), max(high for _, high in intervals)


def clamped(interval: Range, low: float, high: float) -> Range:
    """Every value moved into [low, high]."""
    return clamp(interval[0], low, high), clamp(interval[1], low, high)


def clamp(value: float, low: float, high: float) -> float:
    """The value, or the end that it lies beyond.

    Example:
        >>> clamp(2.0, 0.0, 1.0)
        1.0
    """
    return min(max(value, low), high)


def outside(interval: Range, inner: Range) -> Range | None:
    """The smallest interval around the values that do not lie in `inner`; None where all do.

    Example:
        >>> outside((0.0, 1.0), (0.0, 0.4)), outside((0.0, 1.0), (0.4, 0.6))
        ((0.4, 1.0), (0.0, 1.0))
    """
    low, high = interval
    covers_low = inner[0] <= low <= inner[1]
    covers_high = inner[0] <= high <= inner[1]
    if covers_low and covers_high:
        return None
    return (inner[1] if covers_low else low), (inner[0] if covers_high else high)


def weighted(
    intervals: Sequence[Range],
    weights: Sequence[float],
    optional: Sequence[bool],
    *,
    normalise: bool,
) -> Range:
    """Every weighted sum, whichever of the optional children are missing.

    Args:
        intervals: of the children.
        weights: of the children.
        optional: whether the rest is scaled up when this child is missing.
        normalise: divide by the sum of the absolute weights.

    Example:
        >>> weighted([(0.0, 1.0), (-1.0, 0.0)], [3.0, 1.0], [False, True], normalise=False)
        (-1.0, 4.0)
    """
    parts = [scaled(i, w) for i, w in zip(intervals, weights, strict=True)]
    mass = total([abs(w) for w in weights])
    divisor = mass if normalise else 1.0
    complete = summed(parts)
    found = [(complete[0] / divisor, complete[1] / divisor)]
    if any(free and w != 0 for free, w in zip(optional, weights, strict=True)):
        means = _subset_means(parts, [abs(w) for w in weights], optional)
        found.append(scaled(means, mass / divisor))
    return hull(found)


def _subset_means(
    parts: Sequence[Range], masses: Sequence[float], optional: Sequence[bool]
) -> Range:
    """The range of the weighted mean over all children that must be there and any of the others."""
    low = _smallest_mean([low for low, _ in parts], masses, optional)
    high = -_smallest_mean([-high for _, high in parts], masses, optional)
    return low, high


def _smallest_mean(
    parts: Sequence[float], masses: Sequence[float], optional: Sequence[bool]
) -> float:
    """Take optional parts in order of their own mean for as long as they lower the mean."""
    rows = [row for row in zip(parts, masses, optional, strict=True) if row[1] > 0]
    required = [(part, mass) for part, mass, free in rows if not free]
    offered = sorted((part / mass, part, mass) for part, mass, free in rows if free)
    amount, mass = total([p for p, _ in required]), total([m for _, m in required])
    for mean, part, weight in offered:
        if mass > 0 and mean >= amount / mass:
            break
        amount, mass = amount + part, mass + weight
    return amount / mass if mass > 0 else INFINITY


def _times(a: float, b: float) -> float:
    return 0.0 if a == 0 or b == 0 else a * b
