"""What a LaTeX answer means, as small immutable trees that need no SymPy.

A tree mirrors, node for node, the SymPy object that the reference builds from the same text: which
arithmetic the reference has already done (fractions of integers, signs of numbers, mixed numbers)
is done here too, and the rest is left as it stands. The test suite rebuilds the SymPy object from
the tree and compares it with the reference's.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Literal, TypeAlias

import msgspec


class Int(msgspec.Struct, frozen=True, gc=False):
    """An integer."""

    value: int


class Rat(msgspec.Struct, frozen=True, gc=False):
    """A fraction in lowest terms that is no integer."""

    value: Fraction


class Dec(msgspec.Struct, frozen=True, gc=False):
    """A decimal number; the reference makes a float of it and compares it to 6 decimals.

    Attributes:
        value: its exact value as written.
        places: digits after the point.
        text: the digits without sign.
    """

    value: Fraction
    places: int
    text: str


Number: TypeAlias = Int | Rat | Dec


class Percent(msgspec.Struct, frozen=True):
    """A number with a percent sign."""

    number: Int | Dec


class Sym(msgspec.Struct, frozen=True, gc=False):
    """A variable, or a word: the reference makes one symbol of a text.

    Attributes:
        name: in lower case, with its index.
        real: False for every symbol of an answer with a lone `i`, which the reference takes for
            complex numbers. Such a symbol is another variable, but names are compared without it.
    """

    name: str
    real: bool = True


class Const(msgspec.Struct, frozen=True, gc=False):
    """Pi, Euler's number, or an infinity."""

    name: Literal["pi", "e", "oo", "-oo"]


class Add(msgspec.Struct, frozen=True):
    """A sum, flattened but not evaluated."""

    args: tuple[Expr, ...]


class Mul(msgspec.Struct, frozen=True):
    """A product, flattened but not evaluated."""

    args: tuple[Expr, ...]


class Pow(msgspec.Struct, frozen=True):
    """A power; a root has the exponent 1/n, a quotient is a product with the exponent -1."""

    base: Expr
    exponent: Expr


class Exp(msgspec.Struct, frozen=True):
    """Euler's number to a power other than 0 and 1."""

    exponent: Expr


class Factorial(msgspec.Struct, frozen=True):
    """A factorial."""

    argument: Expr


class Call(msgspec.Struct, frozen=True):
    """A known function of one argument.

    Attributes:
        name: as in LaTeX, without backslash.
        argument: what it is applied to.
        base: of a logarithm.
    """

    name: str
    argument: Expr
    base: Expr | None = None


Expr: TypeAlias = Int | Rat | Dec | Percent | Sym | Const | Add | Mul | Pow | Exp | Factorial | Call

Operator: TypeAlias = Literal["=", "<", "<=", ">", ">="]


class Relation(msgspec.Struct, frozen=True):
    """An equation or an inequality."""

    operator: Operator
    left: Expr
    right: Expr


class Chain(msgspec.Struct, frozen=True):
    """Two inequalities of one direction around a variable, such as `1 < x <= 2`."""

    first: Relation
    second: Relation


class Span(msgspec.Struct, frozen=True):
    """A non-empty interval, more than a point."""

    left: Expr
    right: Expr
    left_open: bool
    right_open: bool


class Tup(msgspec.Struct, frozen=True):
    """An ordered tuple of two or more."""

    items: tuple[Term, ...]


class Finite(msgspec.Struct, frozen=True):
    """A finite set, in the order in which it is written."""

    items: tuple[Term, ...]


class Matrix(msgspec.Struct, frozen=True):
    """A matrix; every row has the same length."""

    rows: tuple[tuple[Expr, ...], ...]


Term: TypeAlias = Expr | Relation | Chain | Span | Tup | Finite | Matrix

NUMBERS = (Int, Rat, Dec)
EXPRESSIONS = (Int, Rat, Dec, Percent, Sym, Const, Add, Mul, Pow, Exp, Factorial, Call)


def rational(value: Fraction) -> Int | Rat:
    """The number node of an exact value."""
    return Int(value.numerator) if value.denominator == 1 else Rat(value)
