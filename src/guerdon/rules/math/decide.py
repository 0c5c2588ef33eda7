"""Verdicts on two terms where the reference's verdict is certain without SymPy.

Every rule below follows one branch of `math_verify.grader.sympy_expr_eq` (0.9.0). A rule that says
True shows an equality that the reference finds by exact means, or by rounding far from a tie; a
rule that says False shows a difference that none of the reference's methods can bridge. Where
neither is certain the answer is None, and the slow path decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from itertools import pairwise
from math import sqrt

from guerdon.rules.math.numeric import constant, never_vanishes, surely_differ, symbols
from guerdon.rules.math.polynomial import (
    Polynomial,
    has_roots,
    has_symbols,
    negative,
    plus,
    polynomial,
    rational_value,
)
from guerdon.rules.math.terms import (
    EXPRESSIONS,
    NUMBERS,
    Add,
    Call,
    Chain,
    Const,
    Dec,
    Exp,
    Expr,
    Factorial,
    Finite,
    Int,
    Matrix,
    Mul,
    Percent,
    Pow,
    Rat,
    Relation,
    Span,
    Sym,
    Term,
    Tup,
)

_MICRO = Fraction(1, 10**6)
# How far from a tie a value must be for its rounding to 6 decimals to be certain in floats.
_TIE_MARGIN = Fraction(1, 10**9)
_CLEAR = Fraction(2, 10**5)
_ROUNDS_FROM, _ROUNDS_TO = Fraction(1, 1000), 10**4
_EXACT_TO = 10**8
_FLIPPED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}
_SORT_GAP = 1e-6
MAX_FLOAT_DIGITS = 15
"""Decimals with more digits are never called equal to another number here,"""
MAX_FLOAT_PLACES = 9
"""nor are those with more places."""


def decide(gold: Term, answer: Term) -> bool | None:
    r"""The reference's verdict on two terms, or None where it is not certain.

    Example:
        >>> from guerdon.rules.math.syntax import read
        >>> decide(read(r"\frac{3}{7}"), read("0.42857143"))
        True
        >>> decide(read("(1,2)"), read("(1,3)"))
        False
        >>> decide(read(r"\ln 4"), read(r"2\ln 2")) is None
        True
    """
    if gold == answer:
        return None if _breaks_equality(gold) else True
    gold, answer = _unwrapped(gold, answer)
    if isinstance(gold, Relation | Chain):
        return _with_relation(gold, answer)
    if isinstance(answer, Relation | Chain):
        return _against_relation(gold)
    if isinstance(gold, Span | Tup | Finite) or isinstance(answer, Span | Tup | Finite):
        return _collections(gold, answer)
    if isinstance(gold, Matrix) or isinstance(answer, Matrix):
        return _matrices(gold, answer)
    if isinstance(gold, Sym) or isinstance(answer, Sym):
        return _symbols(gold, answer)
    return _expressions(gold, answer)


def _breaks_equality(term: Term) -> bool:
    """Whether the reference fails on a term before it sees that it equals itself."""
    if isinstance(term, Finite | Tup):
        return not all(isinstance(item, EXPRESSIONS) for item in term.items)
    return False


# -- equations and inequalities ---------------------------------------------------------------


def _unwrapped(gold: Term, answer: Term) -> tuple[Term, Term]:
    """Right sides where only one of the two is an equation."""
    gold_equation = isinstance(gold, Relation) and gold.operator == "="
    answer_equation = isinstance(answer, Relation) and answer.operator == "="
    if isinstance(answer, Relation) and answer_equation and not gold_equation:
        return gold, answer.right
    assigned = isinstance(gold, Relation) and gold_equation and _only_symbols(gold.left)
    if isinstance(gold, Relation) and assigned and not answer_equation:
        return gold.right, answer
    return gold, answer


def _only_symbols(term: Expr) -> bool:
    """Whether an equation with this left side counts as an assignment."""
    if isinstance(term, Sym):
        return True
    if isinstance(term, Pow):
        if term.exponent == Int(-1):
            inner = term.base
            return isinstance(inner, Sym) or all(_only_symbols(part) for part in _parts(inner))
        return _only_symbols(term.base) and _only_symbols(term.exponent)
    parts = _parts(term)
    return bool(parts) and all(_only_symbols(part) for part in parts)


def _parts(term: Expr) -> tuple[Expr, ...]:
    if isinstance(term, Add | Mul):
        return term.args
    if isinstance(term, Pow):
        return (term.base, term.exponent)
    if isinstance(term, Exp):
        return (term.exponent,)
    if isinstance(term, Factorial):
        return (term.argument,)
    if isinstance(term, Call):
        return (term.argument,) if term.base is None else (term.argument, term.base)
    return ()


def _with_relation(gold: Relation | Chain, answer: Term) -> bool | None:
    if isinstance(answer, Relation | Chain):
        if isinstance(gold, Chain) and isinstance(answer, Chain):
            return _all(
                (_relations(gold.first, answer.first), _relations(gold.second, answer.second))
            )
        if isinstance(gold, Chain) or isinstance(answer, Chain):
            return False
        return _relations(gold, answer)
    if isinstance(answer, Span | Finite):
        span = _solution(gold)
        return None if span is None else _collections(span, answer)
    return None if isinstance(answer, Matrix) else False


def _against_relation(gold: Term) -> bool | None:
    """The verdict for an inequality where the gold answer is none."""
    return None if isinstance(gold, Finite | Matrix) else False


def _relations(gold: Relation, answer: Relation) -> bool | None:
    if gold == answer:
        return True
    if gold.operator == "=" and answer.operator == "=":
        return _equations(gold, answer)
    one, other = _bound(gold), _bound(answer)
    if one is not None and other is not None:
        return one == other
    return None


def _bound(relation: Relation) -> tuple[str, str, Fraction | int] | None:
    """An inequality between a symbol and an exact number, with the symbol on the left."""
    left, right, operator = relation.left, relation.right, relation.operator
    if operator == "=":
        return None
    if isinstance(right, Sym):
        left, right, operator = right, left, _FLIPPED[operator]
    if isinstance(left, Sym) and isinstance(right, Int | Rat):
        return left.name, operator, right.value
    return None


def _solution(gold: Relation | Chain) -> Span | None:
    """The interval that an inequality describes."""
    if isinstance(gold, Relation):
        bound = _bound(gold)
        if bound is None:
            return None
        end = gold.right if isinstance(gold.left, Sym) else gold.left
        is_open = len(bound[1]) == 1
        if bound[1][0] == "<":
            return Span(Const("-oo"), end, True, is_open)
        return Span(end, Const("oo"), is_open, True)
    first, second = gold.first, gold.second
    opens = (first.operator in "<>", second.operator in "<>")
    if first.operator[0] == "<":
        return Span(first.left, second.right, *opens)
    return Span(second.right, first.left, opens[1], opens[0])


def _equations(gold: Relation, answer: Relation) -> bool | None:
    named = isinstance(gold.left, Sym) and isinstance(answer.left, Sym)
    if named and isinstance(gold.right, Int | Rat) and isinstance(answer.right, Int | Rat):
        return gold.left == answer.left and gold.right == answer.right
    one, other = _residual(gold), _residual(answer)
    if one is None or other is None or has_roots(one) or has_roots(other):
        return None
    if one in (other, negative(other)):
        return True if len(one) > 1 else None
    return False if _misses(one, other) else None


def _residual(equation: Relation) -> Polynomial | None:
    left, right = polynomial(equation.left), polynomial(equation.right)
    return None if left is None or right is None else plus(left, negative(right))


def _misses(gold: Polynomial, answer: Polynomial) -> bool:
    """Whether a real solution of one equation clearly does not solve the other.

    The gold equation is solved for a variable of degree 1 or 2, at two values of the others. Then
    the reference's lists of solutions differ: the gold's is not empty, and solving is sound.
    """
    names = sorted({name for poly in (gold, answer) for monomial in poly for name, _ in monomial})
    for name in names:
        for start in (Fraction(2, 7), Fraction(5, 3)):
            point = {other: start + Fraction(index, 5) for index, other in enumerate(names)}
            for root in _real_roots(gold, name, point):
                terms = _terms_at(answer, {**point, name: root})
                if abs(sum(terms)) > 1e-6 * (1 + sum(map(abs, terms))):
                    return True
    return False


def _real_roots(poly: Polynomial, name: str, point: Mapping[str, float | Fraction]) -> list[float]:
    """The real solutions of a polynomial of degree 1 or 2 in a variable."""
    coefficients = [0.0, 0.0, 0.0]
    for monomial, value in poly.items():
        power = dict(monomial).get(name, 0)
        if power > 2:
            return []
        coefficients[power] += _terms_at({monomial: value}, {**point, name: 1})[0]
    c, b, a = coefficients
    if abs(a) < 1e-9:
        return [-c / b] if abs(b) > 1e-9 else []
    square = b * b - 4 * a * c
    if square < 1e-9:
        return []
    return [(-b + sqrt(square)) / (2 * a), (-b - sqrt(square)) / (2 * a)]


def _terms_at(poly: Polynomial, point: Mapping[str, float | Fraction]) -> list[float]:
    values: list[float] = []
    for monomial, value in poly.items():
        result = float(value)
        for name, power in monomial:
            result *= float(point[name]) ** power
        values.append(result)
    return values


# -- sets, tuples, intervals, matrices --------------------------------------------------------


def _all(verdicts: tuple[bool | None, ...]) -> bool | None:
    """The verdict for a sequence: False where one is False, None where one is unknown."""
    if False in verdicts:
        return False
    return None if None in verdicts else True


def _pairwise(gold: tuple[Term, ...], answer: tuple[Term, ...]) -> bool | None:
    if len(gold) != len(answer):
        return False
    return _all(tuple(decide(a, b) for a, b in zip(gold, answer, strict=True)))


def _collections(gold: Term, answer: Term) -> bool | None:
    if isinstance(gold, Matrix) or isinstance(answer, Matrix):
        return None
    if isinstance(gold, Span) and isinstance(answer, Span):
        if (gold.left_open, gold.right_open) != (answer.left_open, answer.right_open):
            return False
        return _pairwise((gold.left, gold.right), (answer.left, answer.right))
    if isinstance(gold, Span) or isinstance(answer, Span):
        return _span_and_other(gold, answer)
    if isinstance(gold, Tup) and isinstance(answer, Tup):
        return _pairwise(gold.items, answer.items)
    return _with_set(gold, answer)


def _span_and_other(gold: Term, answer: Term) -> bool | None:
    """An open interval is compared as a pair, any other equals no set of elements."""
    if isinstance(gold, Span):
        if not isinstance(answer, Tup | Finite) or not (gold.left_open and gold.right_open):
            return False
        gold = Tup((gold.left, gold.right))
    elif isinstance(answer, Span):
        if not isinstance(gold, Tup | Finite) or not (answer.left_open and answer.right_open):
            return False
        answer = Tup((answer.left, answer.right))
    if isinstance(gold, Tup) and isinstance(answer, Tup):
        return _pairwise(gold.items, answer.items)
    return _with_set(gold, answer)


def _with_set(gold: Term, answer: Term) -> bool | None:
    """At least one set; anything that is neither a set nor a tuple is a set of one."""
    gold_items = gold.items if isinstance(gold, Tup | Finite) else (gold,)
    answer_items = answer.items if isinstance(answer, Tup | Finite) else (answer,)
    if len(gold_items) == len(answer_items) == 1:
        return decide(gold_items[0], answer_items[0])
    ordered_gold = _sorted(gold_items) if not isinstance(gold, Tup) else gold_items
    ordered_answer = _sorted(answer_items)
    if ordered_gold is None or ordered_answer is None:
        return None
    if isinstance(gold, Tup):
        ordered_answer = answer_items
    return _pairwise(ordered_gold, ordered_answer)


def _sorted(items: tuple[Term, ...]) -> tuple[Term, ...] | None:
    """Items by value; None unless all are finite constants and clearly different."""
    valued: list[tuple[float, Term]] = []
    for item in items:
        if not isinstance(item, EXPRESSIONS) or isinstance(item, Percent):
            return None
        value = constant(item)
        if value is None or abs(value) > _EXACT_TO:
            return None
        valued.append((value, item))
    valued.sort(key=lambda pair: pair[0])
    for (before, _), (after, _) in pairwise(valued):
        if after - before < _SORT_GAP:
            return None
    return tuple(item for _, item in valued)


def _matrices(gold: Term, answer: Term) -> bool | None:
    if not isinstance(gold, Matrix) or not isinstance(answer, Matrix):
        return None if isinstance(gold, Sym) or isinstance(answer, Sym) else False
    if len(gold.rows) != len(answer.rows) or len(gold.rows[0]) != len(answer.rows[0]):
        return False
    pairs = [
        pair
        for row, other in zip(gold.rows, answer.rows, strict=True)
        for pair in zip(row, other, strict=True)
    ]
    return _all(tuple(_entries(a, b) for a, b in pairs))


def _entries(gold: Expr, answer: Expr) -> bool | None:
    if gold == answer and not symbols(gold):
        return True
    if isinstance(gold, NUMBERS) and isinstance(answer, NUMBERS):
        verdict = _numbers(gold, answer)
        # Entries are not subtracted one by one, which for floats would matter.
        return None if verdict and (isinstance(gold, Dec) or isinstance(answer, Dec)) else verdict
    return False if surely_differ(gold, answer) else None


# -- symbols and expressions ------------------------------------------------------------------


def _symbols(gold: Term, answer: Term) -> bool | None:
    """At least one symbol: names are compared, and nothing is computed."""
    if isinstance(gold, Sym) and isinstance(answer, Sym):
        return gold.name.lower() == answer.name.lower()
    symbol, other = (gold, answer) if isinstance(gold, Sym) else (answer, gold)
    assert isinstance(symbol, Sym)
    if isinstance(other, Const):
        # A symbol named e equals Euler's number; the constants print as `pi`, `E`, `oo`.
        return other.name == "e" if symbol.name == "e" else None
    if isinstance(other, Mul):
        letters = [_letter(arg) for arg in other.args]
        if None not in letters:
            return symbol.name == "".join(filter(None, letters)).lower()
    # Everything else prints with a digit or an operator, and a name has a letter and no operator.
    return None if symbol.name.isdigit() or not symbol.name.replace("_", "").isalnum() else False


def _letter(term: Expr) -> str | None:
    if isinstance(term, Sym):
        return term.name
    return "e" if term == Const("e") else None


def _expressions(gold: Term, answer: Term) -> bool | None:
    if not isinstance(gold, EXPRESSIONS) or not isinstance(answer, EXPRESSIONS):
        return None
    if isinstance(gold, Const) or isinstance(answer, Const):
        return _constants(gold, answer)
    if isinstance(gold, (*NUMBERS, Percent)) and isinstance(answer, (*NUMBERS, Percent)):
        return _numbers(gold, answer)
    one, other = polynomial(gold), polynomial(answer)
    if one is None or other is None:
        return _with_constants(gold, answer)
    return _polynomials(gold, answer, one, other)


def _with_constants(gold: Expr, answer: Expr) -> bool | None:
    """Expressions that are no polynomials."""
    if surely_differ(gold, answer):
        return False
    if symbols(gold, answer) or isinstance(gold, NUMBERS) or isinstance(answer, NUMBERS):
        return None
    one = polynomial(gold, opaque=True)
    if one is None or rational_value(one) is not None or one != polynomial(answer, opaque=True):
        return None
    # Equal constants that are no numbers: the reference evaluates their difference to 15 digits.
    return True if never_vanishes(gold) and never_vanishes(answer) else None


def _constants(gold: Expr, answer: Expr) -> bool | None:
    """At least one of pi, e and the infinities."""
    infinite = [isinstance(term, Const) and term.name in ("oo", "-oo") for term in (gold, answer)]
    if all(infinite):
        return gold == answer
    if any(infinite):
        other = answer if infinite[0] else gold
        return False if isinstance(other, NUMBERS) else None
    return False if surely_differ(gold, answer) else None


def _polynomials(gold: Expr, answer: Expr, one: Polynomial, other: Polynomial) -> bool | None:
    if one == other:
        if not has_roots(one):
            return True
        # A constant without a rational value: both sides are evaluated to 15 digits.
        if has_symbols(one) or rational_value(one) is not None:
            return None
        return True if never_vanishes(gold) and never_vanishes(answer) else None
    if has_roots(one) or has_roots(other):
        return False if surely_differ(gold, answer) else None
    difference = plus(one, negative(other))
    return False if max(map(abs, difference.values())) > _CLEAR else None


def _true_value(number: Int | Rat | Dec | Percent) -> Fraction:
    if isinstance(number, Percent):
        return Fraction(number.number.value) / 100
    return Fraction(number.value)


def _numbers(gold: Int | Rat | Dec | Percent, answer: Int | Rat | Dec | Percent) -> bool | None:
    a, b = _true_value(gold), _true_value(answer)
    a_core = gold.number if isinstance(gold, Percent) else gold
    b_core = answer.number if isinstance(answer, Percent) else answer
    if isinstance(a_core, Int) and isinstance(b_core, Int):
        # 9% and 9 are equal, and so are 900% and 9.
        return a_core.value == b_core.value or a == b
    if not isinstance(a_core, Dec) and not isinstance(b_core, Dec):
        return a == b
    exact = b if isinstance(a_core, Dec) else a
    one_float = isinstance(a_core, Dec) != isinstance(b_core, Dec)
    if one_float and exact.denominator == 1 and 0 < abs(a - b) <= _CLEAR:
        # The reference rounds an integer to an integer, which no float equals.
        return False if abs(a - b) > _TIE_MARGIN and max(abs(a), abs(b)) < _ROUNDS_TO else None
    return _rounded(a, b, _is_long(a_core) or _is_long(b_core))


def _is_long(number: Int | Rat | Dec) -> bool:
    """Whether a decimal has more digits than a double holds for sure."""
    if not isinstance(number, Dec):
        return False
    return len(number.text) - 1 > MAX_FLOAT_DIGITS or number.places > MAX_FLOAT_PLACES


def _rounded(a: Fraction, b: Fraction, long: bool) -> bool | None:
    """Two values, one of them a float, rounded to 6 decimals."""
    gap = abs(a - b)
    if max(abs(a), abs(b)) > _EXACT_TO:
        return None
    if gap > _CLEAR:
        return False
    if long:
        return None
    if not gap and (a * 10**6).denominator == 1:
        return True if a else None
    if min(abs(a), abs(b)) < _ROUNDS_FROM or max(abs(a), abs(b)) > _ROUNDS_TO:
        return None
    if _near_tie(a) or _near_tie(b):
        return None
    return round(a / _MICRO) == round(b / _MICRO)


def _near_tie(value: Fraction) -> bool:
    scaled = abs(value) / _MICRO
    return abs(scaled - int(scaled) - Fraction(1, 2)) < _TIE_MARGIN / _MICRO
