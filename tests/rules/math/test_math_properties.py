"""Properties that hold for any answer, and against the reference for any small one."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from guerdon.rules.math import verify
from guerdon.rules.math.decide import decide
from guerdon.rules.math.extraction import Extraction, extract
from guerdon.rules.math.normal import normal_answer
from guerdon.rules.math.numeric import surely_differ
from guerdon.rules.math.polynomial import polynomial
from guerdon.rules.math.reference import reference_verdict
from guerdon.rules.math.syntax import read
from guerdon.rules.math.terms import Add, Int, Mul, Pow, Sym
from guerdon.rules.math.verdict import exact_verdict

SLOW = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
QUICK = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

integers = st.integers(-(10**6), 10**6)
numbers = st.one_of(
    integers.map(str),
    st.builds(r"\frac{{{}}}{{{}}}".format, st.integers(-99, 99), st.integers(1, 99)),
    st.builds("{}.{:04d}".format, st.integers(-999, 999), st.integers(0, 9999)),
    st.builds(r"{}\%".format, st.integers(0, 300)),
    st.builds(r"{}\sqrt{{{}}}".format, st.integers(1, 9), st.integers(2, 50)),
)
letters = st.sampled_from("0123456789xyedi+-*/^_(){}[],.=<>!% \\").map(str)
soup = st.lists(
    st.one_of(letters, st.sampled_from([r"\frac", r"\sqrt", r"\text{a}", r"\pi", r"\le", r"\{"])),
    max_size=12,
).map("".join)

expressions = st.recursive(
    st.one_of(st.integers(-9, 9).map(Int), st.sampled_from("xyz").map(Sym)),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(Add),
        st.tuples(inner, inner).map(Mul),
        st.builds(Pow, inner, st.integers(1, 3).map(Int)),
    ),
    max_leaves=6,
)


@given(numbers, numbers)
@SLOW
def test_numbers_against_the_reference(gold, answer):
    found = exact_verdict(gold, answer)
    if found is not None:
        assert found == reference_verdict(gold, rf"\boxed{{{answer}}}")


@given(st.fractions(max_denominator=500), st.integers(0, 9))
@SLOW
def test_roundings_against_the_reference(value, places):
    assume(value.denominator > 1)
    gold = rf"\frac{{{value.numerator}}}{{{value.denominator}}}"
    answer = f"{float(value):.{places}f}"
    found = exact_verdict(gold, answer)
    if found is not None:
        assert found == reference_verdict(gold, rf"\boxed{{{answer}}}")


@given(
    st.one_of(st.integers(-999, 999).map(str), st.decimals(-999, 999, places=3).map(str)),
    st.integers(-40, 40),
    st.integers(5, 8),
)
@SLOW
def test_near_misses_against_the_reference(gold, steps, places):
    """Values a few units of the last places apart, around the 6 decimals of the rounding."""
    answer = f"{Decimal(gold) + Decimal(steps).scaleb(-places):f}"
    for one, other in ((gold, answer), (answer, gold)):
        found = exact_verdict(one, other)
        if found is not None:
            assert found == reference_verdict(one, rf"\boxed{{{other}}}"), (one, other)


@given(soup, soup)
@SLOW
def test_symbol_soup_against_the_reference(gold, answer):
    # Towers and factorials run for ever in the reference; the poison tests have them.
    assume(not ("!" in gold + answer or (gold + answer).count("^") > 1))
    found = exact_verdict(gold, answer)
    response = rf"\boxed{{{answer}}}"
    if found is not None and extract(response) == answer.strip():
        assert found == reference_verdict(gold, response)


@given(numbers)
@QUICK
def test_every_number_equals_itself(text):
    assert verify(text, rf"\boxed{{{text}}}")


@given(integers, integers)
@QUICK
def test_integers_are_compared_by_value(a, b):
    assert verify(str(a), rf"$\boxed{{{b}}}$") == (a == b)


@given(st.lists(integers, min_size=2, max_size=6, unique=True), st.randoms(use_true_random=False))
@QUICK
def test_sets_have_no_order_and_tuples_have_one(items, rng):
    shuffled = items.copy()
    rng.shuffle(shuffled)
    first, second = (", ".join(map(str, part)) for part in (items, shuffled))
    assert exact_verdict(rf"\{{{first}\}}", rf"\{{{second}\}}") is True
    if len(items) > 2:
        assert exact_verdict(f"({first})", f"({second})") is (items == shuffled)


@given(expressions, expressions)
@QUICK
def test_normal_forms_and_values_never_contradict(left, right):
    one, other = polynomial(left), polynomial(right)
    if one is not None and one == other:
        assert not surely_differ(left, right)
        # A lone symbol is compared by its name, so that x+0 is no x to the reference.
        named = isinstance(left, Sym) or isinstance(right, Sym)
        assert named or decide(left, right) is not False


@given(expressions)
@QUICK
def test_polynomials_are_rings(term):
    normal = polynomial(term)
    assume(normal is not None)
    assert polynomial(Add((term, Int(0)))) == normal
    assert polynomial(Mul((term, Int(1)))) == normal
    assert polynomial(Add((term, Mul((Int(-1), term))))) == {}
    double = polynomial(Mul((Int(2), term)))
    assert double == {key: 2 * Fraction(value) for key, value in normal.items()}


@given(st.text(max_size=200))
@QUICK
def test_any_text_is_survived(text):
    extract(text)
    exact_verdict("5", text)
    normal = normal_answer(text)
    if normal is not None:
        read(normal)


@given(soup)
@QUICK
def test_any_soup_is_survived(text):
    exact_verdict(text, text)
    exact_verdict("x+1", text)


@given(st.text(alphabet="ab {}$\\[]().,\n%", max_size=60), integers, st.text("ab .\n", max_size=20))
@QUICK
def test_text_before_the_last_box_changes_nothing_where_it_is_certain(before, number, after):
    found = extract(rf"{before}\boxed{{{number}}}{after}")
    assert found in (str(number), Extraction.UNCERTAIN)
