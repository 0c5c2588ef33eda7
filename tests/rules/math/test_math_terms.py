"""The fast path's reader builds, node for node, what the reference's grammar builds."""

from __future__ import annotations

import random
from fractions import Fraction

import pytest
import sympy

from guerdon.rules.math import engine
from guerdon.rules.math.normal import normal_answer, normal_gold
from guerdon.rules.math.syntax import MAX_CHARS, never_readable, read
from guerdon.rules.math.terms import (
    Add,
    Call,
    Chain,
    Const,
    Dec,
    Exp,
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
    Tup,
)

X, Y = Sym("x"), Sym("y")
HALF = Rat(Fraction(1, 2))

READ = [
    ("007", Int(7)),
    ("-3", Int(-3)),
    ("- 3", Int(-3)),
    ("--3", Int(3)),
    ("1,234,567", Int(1234567)),
    ("-1,234.5", Dec(Fraction(-12345, 10), 1, "1234.5")),
    (".5", Dec(HALF.value, 1, ".5")),
    (
        "0.33333333333333333333",
        Dec(Fraction("0.33333333333333333333"), 20, "0.33333333333333333333"),
    ),
    (r"\frac{6}{4}", Rat(Fraction(3, 2))),
    (r"\frac{-6}{3}", Int(-2)),
    (r"-\frac{1}{2}", Rat(Fraction(-1, 2))),
    ("-6/4", Rat(Fraction(-3, 2))),
    (r"2\frac{1}{2}", Rat(Fraction(5, 2))),
    (r"-2\frac{1}{2}", Rat(Fraction(-5, 2))),
    ("2 3", Int(5)),  # the reference takes it for a mixed number
    ("2(3)", Int(5)),
    (r"15\%", Percent(Int(15))),
    ("12.5%", Percent(Dec(Fraction(25, 2), 1, "12.5"))),
    (r"90^\circ", Int(90)),
    ("x", X),
    ("X", X),
    ("x_1", Sym("x_1")),
    ("x_{12}", Sym("x_{12}")),
    (r"\theta", Sym("theta")),
    (r"\pi", Const("pi")),
    ("e", Const("e")),
    ("e^2", Exp(Int(2))),
    ("e^1", Const("e")),
    ("E", Sym("e")),
    (r"\text{New York}", Sym("newyork")),
    ("Tue", Mul((Sym("t"), Sym("u"), Const("e")))),
    ("dX", Sym("dX")),
    ("odd", Mul((Sym("o"), Sym("dd")))),
    ("1+2", Add((Int(1), Int(2)))),
    ("x-y", Add((X, Mul((Int(-1), Y))))),
    ("2x^2", Mul((Int(2), Pow(X, Int(2))))),
    ("-x^2", Mul((Int(-1), Pow(X, Int(2))))),
    ("x/y", Mul((X, Pow(Y, Int(-1))))),
    (r"\sqrt{2}", Pow(Int(2), HALF)),
    (r"\sqrt[3]{2}", Pow(Int(2), Rat(Fraction(1, 3)))),
    ("5!", Factorial(Int(5))),
    (r"\binom{5}{2}", Int(10)),
    (r"\log_{5} 6", Call("log", Int(6), Int(5))),
    (r"\log 6", Call("log", Int(6), Int(10))),
    (r"\ln 2x", Call("ln", Mul((Int(2), X)), Const("e"))),
    (r"\sin(x)y", Mul((Call("sin", X), Y))),
    (r"\sin^2 x", Pow(Call("sin", X), Int(2))),
    (r"\ln 2/3", Call("ln", Rat(Fraction(2, 3)), Const("e"))),
    ("x=5", Relation("=", X, Int(5))),
    (r"x \leq 5", Relation("<=", X, Int(5))),
    (r"1<x\le 2", Chain(Relation("<", Int(1), X), Relation("<=", X, Int(2)))),
    ("(1,2]", Span(Int(1), Int(2), True, False)),
    (r"(-\infty,2]", Span(Const("-oo"), Int(2), True, False)),
    (r"[2,\infty]", Span(Int(2), Const("oo"), False, True)),
    ("(2,1)", Tup((Int(2), Int(1)))),
    ("(1,1)", Tup((Int(1), Int(1)))),
    ("(1,2,3)", Tup((Int(1), Int(2), Int(3)))),
    ("[1,2,3]", Tup((Int(1), Int(2), Int(3)))),
    (r"\{2,1\}", Finite((Int(2), Int(1)))),
    (r"\{5\}", Finite((Int(5),))),
    ("1, 2", Finite((Int(1), Int(2)))),
    ("(5)", Int(5)),
    ("2+3i", Add((Int(2), Mul((Int(3), Sym("i")))))),
    ("2 + i", Add((Int(2), Sym("i", real=False)))),
    (
        r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}",
        Matrix(((Int(1), Int(2)), (Int(3), Int(4)))),
    ),
]

REFUSED = [
    "f(x)", "n(x^2)", "x(2)", r"\pi(x)", "|x|", "x^2^3", "x^T", "2dx", "d x", r"d\alpha", "2E5",
    "true", "trace", "I", "x'", "0,123", r"\frac{1}{0}", "{5}", "[5)", "(1,2]x", "x=1=1",
    "1<x>2", "3<x<2", "x=1,y=2", "(2,1]", "[3,3]", "x!!", r"\pm 5", r"(1,2)\cup(3,4)", "a;b",
    r"\text{pi}", r"\gamma", r"e^{0.5}", "x_1_2", "", "2..5", r"\foo", "~x",
    "x^e", r"\sin^{-1} x", r"\begin{vmatrix} 1 \end{vmatrix}", r"\lim_{x \to 0} x", "5.", "1=",
    r"\begin{pmatrix} 1 & 2 \\ 3 \end{pmatrix}", "((((((((((((((((((1))))))))))))))))))",
]  # fmt: skip


@pytest.mark.parametrize(("latex", "term"), READ)
def test_reads_and_agrees_with_the_grammar(latex, term, rebuilt):
    found = read(latex)
    assert found == term
    assert _srepr(engine._formula(latex)[0]) == _srepr(rebuilt.rebuild(found))


@pytest.mark.parametrize("latex", REFUSED)
def test_refuses_what_is_ambiguous_or_unknown(latex):
    assert read(latex) is None


def test_refuses_what_is_long():
    assert read("1" * MAX_CHARS) == Int(int("1" * MAX_CHARS))
    assert read("1" * (MAX_CHARS + 1)) is None


def test_every_generated_text_is_read_as_by_the_grammar(generated, rebuilt, guard, scale):
    rng = random.Random(20260822)
    read_texts = 0
    for _ in range(400 * scale):
        for text, normal in zip(generated.pair(rng), (normal_gold, normal_answer), strict=True):
            latex = normal(text)
            term = read(latex) if latex else None
            if term is None:
                continue
            read_texts += 1
            values = guard(lambda latex=latex: engine._formula(latex))
            assert values, (text, latex)
            assert _srepr(values[0]) == _srepr(rebuilt.rebuild(term)), (text, latex)
    assert read_texts > 300 * scale


@pytest.mark.parametrize("end", [*".+-*/^_=<>([{,:;", r"\.", r"\(", r"\{"])
def test_never_readable_is_never_read(end):
    for head in ("5", "x^2", r"\frac{1}{2}", "(1,2)", "x=1=2", r"\text{a}"):
        assert never_readable(head + end)
        assert engine._formula(head + end) == ()


@pytest.mark.parametrize(
    "text", [r"8\sqrt 3", r"\sqrt3", r"\frac12", r"\frac 1 2", r"\sqrt{2}+\frac1{2}", r"x=\sqrt 2"]
)
def test_roots_and_fractions_without_braces_are_never_read(text):
    assert never_readable(text)
    assert engine._formula(text) == ()


@pytest.mark.parametrize(
    "text",
    [
        r"\text{\sqrt 3}",
        r"a=\sqrt 2=3",
        r"\sqrt{3}",
        "5",
        r"5\,",
        r"5\;",
        "x!",
        "(1)",
        r"\{1\}",
        "5%",
    ],
)
def test_other_texts_may_be_readable(text):
    assert not never_readable(text)
    assert engine._formula(text)


def _srepr(value):
    # The reference builds mutable matrices; their print is the same for equal entries.
    return sympy.srepr(value)
