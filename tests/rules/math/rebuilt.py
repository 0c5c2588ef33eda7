"""Builds the SymPy object of a term with the constructor calls of the reference's converter.

Loaded by `conftest.py` through its path: the tests folder is no package.
"""

from __future__ import annotations

import sympy
from latex2sympy2_extended.logic import And
from latex2sympy2_extended.sets import FiniteSet

from guerdon.rules.math import terms as t

RELATIONS = {
    "=": sympy.Eq,
    "<": sympy.StrictLessThan,
    "<=": sympy.LessThan,
    ">": sympy.StrictGreaterThan,
    ">=": sympy.GreaterThan,
}
CONSTANTS = {"pi": sympy.pi, "e": sympy.E, "oo": sympy.oo, "-oo": -sympy.oo}


def number(term):
    if isinstance(term, t.Int):
        return sympy.Number(str(term.value))
    if isinstance(term, t.Rat):
        return sympy.Rational(term.value.numerator, term.value.denominator)
    value = sympy.Number(term.text)
    return -value if term.value < 0 else value


def call(term):
    argument = rebuild(term.argument)
    if term.base is not None:
        return sympy.log(argument, rebuild(term.base), evaluate=False)
    name = term.name.replace("arc", "a", 1) if term.name.startswith("arc") else term.name
    return getattr(sympy, name)(argument, evaluate=False)


def rebuild(term):
    """The SymPy object that the reference should make."""
    if isinstance(term, t.Int | t.Rat | t.Dec):
        return number(term)
    if isinstance(term, t.Percent):
        hundredth = sympy.UnevaluatedExpr(sympy.Rational(1, 100))
        return sympy.Mul(number(term.number), hundredth, evaluate=False)
    if isinstance(term, t.Sym):
        return sympy.Symbol(term.name, real=term.real)
    if isinstance(term, t.Const):
        return CONSTANTS[term.name]
    if isinstance(term, t.Add):
        return sympy.Add(*map(rebuild, term.args), evaluate=False)
    if isinstance(term, t.Mul):
        return sympy.Mul(*map(rebuild, term.args), evaluate=False)
    if isinstance(term, t.Pow):
        return sympy.Pow(rebuild(term.base), rebuild(term.exponent), evaluate=False)
    if isinstance(term, t.Exp):
        return sympy.exp(rebuild(term.exponent))
    if isinstance(term, t.Factorial):
        return sympy.factorial(rebuild(term.argument), evaluate=False)
    if isinstance(term, t.Call):
        return call(term)
    return collected(term)


def collected(term):
    if isinstance(term, t.Relation):
        make = RELATIONS[term.operator]
        return make(rebuild(term.left), rebuild(term.right), evaluate=False)
    if isinstance(term, t.Chain):
        return And(rebuild(term.first), rebuild(term.second))
    if isinstance(term, t.Span):
        return sympy.Interval(
            rebuild(term.left), rebuild(term.right), term.left_open, term.right_open
        )
    if isinstance(term, t.Tup):
        return sympy.Tuple(*map(rebuild, term.items))
    if isinstance(term, t.Finite):
        return FiniteSet(*map(rebuild, term.items))
    assert isinstance(term, t.Matrix)
    return sympy.Matrix([list(map(rebuild, row)) for row in term.rows])
