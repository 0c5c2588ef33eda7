"""Whether the output of a program is the wanted one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias, cast

Checker: TypeAlias = Literal["tokens", "lines", "exact"]
CHECKERS = ("tokens", "lines", "exact")

MAX_NUMBER_CHARS = 400
"""A longer token is no number: reading one takes quadratic time, and none is meant."""

DIGITS = frozenset("0123456789")


def same_output(got: str, wanted: str, checker: Checker, tolerance: float) -> bool:
    """Whether an output is the wanted one; linear in their lengths.

    Args:
        got: what the program printed.
        wanted: what it should print.
        checker: `tokens` compares words, and as numbers where one of them has a decimal point or an
            exponent: within the tolerance where the wanted one has, else exactly; `lines` compares
            lines without the spaces at their ends and without empty lines at the end; `exact`
            compares every character.
        tolerance: how far a number may be off, absolutely, or relatively above 1.

    Example:
        >>> same_output("0.3333333\\n", "0.33333333", "tokens", 1e-6)
        True
        >>> same_output("1 2", "1  3", "tokens", 1e-6)
        False
    """
    if checker == "exact":
        return got == wanted
    if checker == "lines":
        return _lines(got) == _lines(wanted)
    got_words, wanted_words = got.split(), wanted.split()
    if len(got_words) != len(wanted_words):
        return False
    return got_words == wanted_words or all(
        map(lambda g, w: g == w or _near(g, w, tolerance), got_words, wanted_words)
    )


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().split("\n")]


def _near(got: str, wanted: str, tolerance: float) -> bool:
    one, other = _number(wanted), _number(got)
    if one is None or other is None:
        return False
    if isinstance(one, float):
        return close(other, one, tolerance)
    return type(other) is float and other == float(one) and int(other) == one


def _number(word: str) -> float | int | None:
    """The number that a word is: a float where it has a decimal point or an exponent."""
    if len(word) > MAX_NUMBER_CHARS or DIGITS.isdisjoint(word) or "_" in word:
        return None
    try:
        number = float(word)
        if math.isfinite(number) and not any(sign in word for sign in ".eE"):
            return int(word)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def close(got: float, wanted: float, tolerance: float) -> bool:
    """Whether two numbers are close: by their difference, relative to the wanted one above 1."""
    return abs(float(got) - wanted) <= tolerance * max(1.0, abs(wanted))


def same_value(got: Any, wanted: Any, tolerance: float) -> bool:
    """Whether a value that a function returned is the wanted one, which came as JSON.

    Tuples count as lists, keys of dicts by their text, floats within the tolerance; True and 1 are
    equal, as in Python. Values of other types than JSON's are never equal.

    Example:
        >>> same_value((1, 2.0000000001), [1, 2.0], 1e-6)
        True
        >>> same_value({1}, [1], 1e-6)
        False
    """
    if wanted is None or isinstance(wanted, str):
        return type(got) is type(wanted) and got == wanted
    if isinstance(wanted, bool) or isinstance(got, bool):
        return isinstance(got, int | float) and got == wanted
    if isinstance(wanted, int | float):
        return _same_number(got, wanted, tolerance)
    if isinstance(wanted, list):
        if not isinstance(got, list | tuple):
            return False
        items, goal = cast("Sequence[Any]", got), cast("list[Any]", wanted)
        return len(items) == len(goal) and all(
            same_value(a, b, tolerance) for a, b in zip(items, goal, strict=True)
        )
    return isinstance(got, dict) and _same_mapping(
        cast("dict[Any, Any]", got), cast("Mapping[str, Any]", wanted), tolerance
    )


def _same_number(got: Any, wanted: float, tolerance: float) -> bool:
    if not isinstance(got, int | float):
        return False
    if isinstance(wanted, int) and isinstance(got, int):
        return got == wanted
    try:
        return got == wanted or close(float(got), float(wanted), tolerance)
    except OverflowError:
        return False


def _is_key(key: Any) -> bool:
    """Whether a key has a text; Python writes no longer integers."""
    return isinstance(key, str | float) or (isinstance(key, int) and key.bit_length() < 1000)


def _same_mapping(got: dict[Any, Any], wanted: Mapping[str, Any], tolerance: float) -> bool:
    if len(got) != len(wanted) or not all(map(_is_key, got)):
        return False
    by_text = {key if isinstance(key, str) else repr(key): value for key, value in got.items()}
    return by_text.keys() == wanted.keys() and all(
        same_value(by_text[key], wanted[key], tolerance) for key in wanted
    )
