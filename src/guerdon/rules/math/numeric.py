"""Values of terms in floating point: to show that two answers differ, never that they are equal.

A value comes with the largest magnitude met on the way, so that cancellation cannot make rounding
look like a difference.
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Callable, Iterable

from guerdon.rules.math.terms import (
    Add,
    Call,
    Const,
    Dec,
    Exp,
    Expr,
    Factorial,
    Int,
    Mul,
    Percent,
    Pow,
    Rat,
    Sym,
)

RELATIVE = 1e-9
"""Differences below this, relative to the largest number met, may be rounding."""
FLOAT_TOLERANCE = 2e-5
"""Differences below this may vanish where the reference rounds to 6 decimals."""
MAX_MAGNITUDE = 1e150
MAX_FACTORIAL = 30

# Positive, pairwise unrelated, and away from the points where common functions are degenerate.
_POINTS = (
    (0.7390851332, 1.3247179572, 2.2360679775, 0.5671432904, 1.9021605831, 3.3598856662),
    (1.6066951524, 0.6434105463, 3.1622776602, 1.0986122887, 2.5849817596, 0.3819660113),
)


class Undefined(Exception):
    """The term has no value in floating point at this point."""


class _Evaluation:
    """One evaluation of one term."""

    def __init__(self, point: dict[str, float]) -> None:
        self.point = point
        self.largest = 1.0
        self.smallest = 1.0

    def value(self, term: Expr) -> complex:
        result = self._value(term)
        size = abs(result)
        if not size < MAX_MAGNITUDE:
            raise Undefined
        if size > self.largest:
            self.largest = size
        elif size < self.smallest:
            self.smallest = size
        return result

    def _value(self, term: Expr) -> complex:
        if isinstance(term, Int):
            return complex(term.value)
        if isinstance(term, Rat | Dec):
            return complex(float(term.value))
        if isinstance(term, Sym):
            return complex(self.point[key_of(term)])
        if isinstance(term, Add):
            return sum((self.value(arg) for arg in term.args), start=0j)
        if isinstance(term, Mul):
            result = 1 + 0j
            for arg in term.args:
                result *= self.value(arg)
            return result
        if isinstance(term, Pow):
            return self._power(self.value(term.base), self.value(term.exponent))
        return self._transcendental(term)

    def _transcendental(self, term: Percent | Const | Exp | Factorial | Call) -> complex:
        if isinstance(term, Percent):
            return complex(float(term.number.value / 100))
        if isinstance(term, Const):
            if term.name == "pi":
                return complex(math.pi)
            if term.name == "e":
                return complex(math.e)
            raise Undefined
        if isinstance(term, Exp):
            return cmath.exp(self.value(term.exponent))
        if isinstance(term, Factorial):
            argument = self.value(term.argument)
            whole = round(argument.real)
            if argument != whole or not 0 <= whole <= MAX_FACTORIAL:
                raise Undefined
            return complex(math.factorial(whole))
        argument = self.value(term.argument)
        if term.base is not None:
            return cmath.log(argument) / cmath.log(self.value(term.base))
        return _FUNCTIONS[term.name](argument)

    @staticmethod
    def _power(base: complex, exponent: complex) -> complex:
        if abs(base) < 1e-12 or abs(exponent) > 1000:
            raise Undefined
        if exponent.imag == 0 and exponent.real == int(exponent.real):
            return base ** int(exponent.real)
        return cmath.exp(exponent * cmath.log(base))


def _away_from_zero(value: complex) -> complex:
    if abs(value) < 1e-6:
        raise Undefined
    return value


_FUNCTIONS: dict[str, Callable[[complex], complex]] = {
    "exp": cmath.exp,
    "sin": cmath.sin,
    "cos": cmath.cos,
    "tan": lambda x: cmath.sin(x) / _away_from_zero(cmath.cos(x)),
    "csc": lambda x: 1 / _away_from_zero(cmath.sin(x)),
    "sec": lambda x: 1 / _away_from_zero(cmath.cos(x)),
    "cot": lambda x: cmath.cos(x) / _away_from_zero(cmath.sin(x)),
    "arcsin": cmath.asin,
    "arccos": cmath.acos,
    "arctan": cmath.atan,
    "sinh": cmath.sinh,
    "cosh": cmath.cosh,
    "tanh": cmath.tanh,
}


def key_of(symbol: Sym) -> str:
    """What tells a variable from another: its name, and whether it is real."""
    return symbol.name if symbol.real else f"{symbol.name}*"


def symbols(*terms: Expr) -> list[str]:
    """The keys of all variables, sorted."""
    found: set[str] = set()
    stack: list[Expr] = list(terms)
    while stack:
        term = stack.pop()
        if isinstance(term, Sym):
            found.add(key_of(term))
        elif isinstance(term, Add | Mul):
            stack.extend(term.args)
        elif isinstance(term, Pow):
            stack += (term.base, term.exponent)
        elif isinstance(term, Exp):
            stack.append(term.exponent)
        elif isinstance(term, Factorial):
            stack.append(term.argument)
        elif isinstance(term, Call):
            stack.append(term.argument)
            if term.base is not None:
                stack.append(term.base)
    return sorted(found)


def has_decimal(*terms: Expr) -> bool:
    """Whether a decimal number stands anywhere in the terms."""
    stack: list[Expr] = list(terms)
    while stack:
        term = stack.pop()
        if isinstance(term, Dec):
            return True
        if isinstance(term, Percent):
            stack.append(term.number)
        elif isinstance(term, Add | Mul):
            stack.extend(term.args)
        elif isinstance(term, Pow):
            stack += (term.base, term.exponent)
        elif isinstance(term, Exp):
            stack.append(term.exponent)
        elif isinstance(term, Factorial):
            stack.append(term.argument)
        elif isinstance(term, Call):
            stack.append(term.argument)
            if term.base is not None:
                stack.append(term.base)
    return False


def points(names: Iterable[str]) -> list[dict[str, float]]:
    """Values for the symbols, at two points; none for more than six symbols."""
    listed = list(names)
    if len(listed) > len(_POINTS[0]):
        return []
    if not listed:
        return [{}]
    return [dict(zip(listed, row, strict=False)) for row in _POINTS]


def value_at(term: Expr, point: dict[str, float]) -> tuple[complex, float]:
    """The value and the largest magnitude met.

    Raises:
        Undefined: the term has no value there, or one that floating point cannot hold.
    """
    evaluation = _Evaluation(point)
    try:
        return evaluation.value(term), evaluation.largest
    except (ArithmeticError, ValueError) as error:
        raise Undefined from error


def surely_differ(left: Expr, right: Expr) -> bool:
    """Whether the two have clearly different values somewhere.

    Example:
        >>> from guerdon.rules.math.terms import Const, Int
        >>> surely_differ(Const("pi"), Int(3)), surely_differ(Int(2), Int(2))
        (True, False)
    """
    floor = FLOAT_TOLERANCE if has_decimal(left, right) else RELATIVE
    for point in points(symbols(left, right)):
        try:
            a, a_size = value_at(left, point)
            b, b_size = value_at(right, point)
        except Undefined:
            continue
        if abs(a - b) > max(floor, RELATIVE * (a_size + b_size)):
            return True
    return False


def constant(term: Expr) -> float | None:
    """The value of a real constant, an infinity included; None where it is not certain."""
    if isinstance(term, Const) and term.name in ("oo", "-oo"):
        return math.inf if term.name == "oo" else -math.inf
    if symbols(term):
        return None
    try:
        value, size = value_at(term, {})
    except Undefined:
        return None
    return value.real if abs(value.imag) <= 1e-12 * size and size < 1e9 else None


def never_vanishes(term: Expr) -> bool:
    """Whether no part of a constant is near zero, where evaluation to some digits is unreliable."""
    evaluation = _Evaluation({})
    try:
        evaluation.value(term)
    except (Undefined, ArithmeticError, ValueError):
        return False
    return evaluation.smallest > 1e-6 and evaluation.largest < 1e9


def less(left: Expr, right: Expr) -> bool | None:
    """Whether one constant is clearly smaller or clearly larger than another, else None."""
    a, b = constant(left), constant(right)
    if a is None or b is None or a == b:
        return None
    return a < b if math.isinf(a) or math.isinf(b) or abs(a - b) > 1e-6 else None
