"""Polynomials with rational coefficients and square roots of integers, in exact arithmetic.

Two answers with the same normal form are equal, and two without roots that have different normal
forms are different. Sizes are bounded, so that `((x+1)^9)^9` costs nothing.
"""

from __future__ import annotations

from fractions import Fraction
from math import factorial, isqrt
from typing import TypeAlias

from guerdon.rules.math.numeric import has_decimal, key_of, symbols
from guerdon.rules.math.terms import (
    Add,
    Call,
    Const,
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

Monomial: TypeAlias = tuple[tuple[str, int], ...]
"""Symbols with their powers, sorted; a root of n is the symbol `√n` to the first power."""
Polynomial: TypeAlias = dict[Monomial, Fraction]
"""Coefficients by monomial, none of them zero."""

MAX_TERMS = 64
MAX_POWER = 12
MAX_BITS = 600
MAX_RADICAND = 10**6
MAX_PRODUCTS = 600
MAX_FACTORIAL = 30
_ROOT = "√"
_OPAQUE = "∎"
_ONE: Monomial = ()
_HALF = Fraction(1, 2)


class TooLarge(Exception):
    """The term is no polynomial of the kind, or outgrows the bounds."""


def polynomial(term: Expr, opaque: bool = False) -> Polynomial | None:
    r"""The normal form of a term, or None.

    Args:
        term: an expression.
        opaque: whether other constants, such as a logarithm of a number, stand for themselves.
            Equal normal forms then still mean equal values, different ones mean nothing.

    Example:
        >>> from guerdon.rules.math.syntax import read
        >>> polynomial(read(r"\sqrt{8}(x+1)")) == polynomial(read(r"2\sqrt{2}x + 2\sqrt{2}"))
        True
    """
    try:
        return _Expansion(opaque).normal(term)
    except TooLarge:
        return None


def rational_value(poly: Polynomial) -> Fraction | None:
    """The value of a polynomial that is a rational number, else None."""
    if not poly:
        return Fraction(0)
    return poly.get(_ONE) if len(poly) == 1 else None


def has_roots(poly: Polynomial) -> bool:
    """Whether a square root is left."""
    return any(name[0] == _ROOT for monomial in poly for name, _ in monomial)


def has_symbols(poly: Polynomial) -> bool:
    """Whether a variable is left."""
    return any(name[0] != _ROOT for monomial in poly for name, _ in monomial)


def negative(poly: Polynomial) -> Polynomial:
    """The polynomial times -1."""
    return {monomial: -value for monomial, value in poly.items()}


def plus(left: Polynomial, right: Polynomial) -> Polynomial:
    """The sum."""
    result = dict(left)
    for monomial, value in right.items():
        changed = result.get(monomial, 0) + value
        if changed:
            result[monomial] = changed
        else:
            del result[monomial]
    return result


class _Expansion:
    """One normal form in the making, with a budget of products of two monomials."""

    def __init__(self, opaque: bool) -> None:
        self._budget = MAX_PRODUCTS
        self._opaque = opaque

    def normal(self, term: Expr) -> Polynomial:
        if isinstance(term, Int | Rat):
            return {_ONE: Fraction(term.value)} if term.value else {}
        if isinstance(term, Sym):
            return {((key_of(term), 1),): Fraction(1)}
        if isinstance(term, Add):
            result: Polynomial = {}
            for arg in term.args:
                result = _bounded(plus(result, self.normal(arg)))
            return result
        if isinstance(term, Mul):
            result = {_ONE: Fraction(1)}
            for arg in term.args:
                result = self._times(result, self.normal(arg))
            return result
        if isinstance(term, Pow):
            return self._power(term)
        if isinstance(term, Factorial):
            return _factorial(term.argument)
        if isinstance(term, Percent) and isinstance(term.number, Int):
            return {_ONE: Fraction(term.number.value, 100)} if term.number.value else {}
        if self._opaque and isinstance(term, Const | Exp | Call) and _is_closed(term):
            return {((f"{_OPAQUE}{term}", 1),): Fraction(1)}
        raise TooLarge

    def _times(self, left: Polynomial, right: Polynomial) -> Polynomial:
        self._budget -= len(left) * len(right)
        if self._budget < 0:
            raise TooLarge
        result: Polynomial = {}
        for a, x in left.items():
            for b, y in right.items():
                monomial, factor = _merge(a, b)
                changed = result.get(monomial, 0) + x * y * factor
                if changed:
                    result[monomial] = changed
                else:
                    result.pop(monomial, None)
        return _bounded(result)

    def _power(self, term: Pow) -> Polynomial:
        base, exponent = self.normal(term.base), term.exponent
        if isinstance(exponent, Int):
            if exponent.value == -1:
                return {_ONE: 1 / _constant(base)}
            if not 1 <= exponent.value <= MAX_POWER:
                raise TooLarge
            result = base
            for _ in range(exponent.value - 1):
                result = self._times(result, base)
            return result
        if isinstance(exponent, Rat) and exponent.value == _HALF:
            return _root(_constant(base))
        raise TooLarge


def _is_closed(term: Const | Exp | Call) -> bool:
    """Whether a term is a finite constant without decimals, so that only its value matters."""
    if term in (Const("oo"), Const("-oo")):
        return False
    return not symbols(term) and not has_decimal(term)


def _factorial(argument: Expr) -> Polynomial:
    if not isinstance(argument, Int) or not 0 <= argument.value <= MAX_FACTORIAL:
        raise TooLarge
    return {_ONE: Fraction(factorial(argument.value))}


def _bounded(poly: Polynomial) -> Polynomial:
    if len(poly) > MAX_TERMS:
        raise TooLarge
    for value in poly.values():
        if value.numerator.bit_length() > MAX_BITS or value.denominator.bit_length() > MAX_BITS:
            raise TooLarge
    return poly


def _merge(a: Monomial, b: Monomial) -> tuple[Monomial, int]:
    """The product of two monomials and the number that comes out of their roots."""
    if not a:
        return b, 1
    if not b:
        return a, 1
    powers = dict(a)
    radicand = 0
    for name, power in b:
        if name[0] == _ROOT:
            radicand = int(name[1:])
        else:
            powers[name] = powers.get(name, 0) + power
            if powers[name] > MAX_POWER:
                raise TooLarge
    factor = 1
    if radicand:
        own = next((name for name in powers if name[0] == _ROOT), None)
        if own is not None:
            del powers[own]
            factor, radicand = _square_free(int(own[1:]) * radicand)
        if radicand != 1:
            powers[f"{_ROOT}{radicand}"] = 1
    return tuple(sorted(powers.items())), factor


def _square_free(number: int) -> tuple[int, int]:
    """The pair `(k, m)` with `number == k*k*m` and m free of squares."""
    if number > MAX_RADICAND:
        raise TooLarge
    outside, inside, rest, factor = 1, 1, number, 2
    while factor * factor * factor <= rest:
        while rest % (factor * factor) == 0:
            rest //= factor * factor
            outside *= factor
        if rest % factor == 0:
            rest //= factor
            inside *= factor
        factor += 1
    # What is left is 1, a prime, the square of a prime, or two different primes.
    root = isqrt(rest)
    return (outside * root, inside) if root * root == rest else (outside, inside * rest)


def _constant(poly: Polynomial) -> Fraction:
    value = rational_value(poly)
    if not value:
        raise TooLarge
    return value


def _root(value: Fraction) -> Polynomial:
    if value < 0:
        raise TooLarge
    outside, inside = _square_free(value.numerator * value.denominator)
    factor = Fraction(outside, value.denominator)
    return {_ONE if inside == 1 else ((f"{_ROOT}{inside}", 1),): factor}
