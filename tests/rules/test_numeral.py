"""Canonical numbers: equal spellings exactly for equal values."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guerdon.rules.numeral import canonical, parse_number, ratio, stated_number

DECIMALS = st.decimals(allow_nan=False, allow_infinity=False, places=4).filter(
    lambda number: abs(number) < 10**12
)


def value(text: str) -> Fraction:
    return Fraction(text)


@given(DECIMALS, DECIMALS)
def test_two_spellings_are_equal_when_the_values_are(first: Decimal, second: Decimal) -> None:
    one, other = parse_number(f"{first:f}"), parse_number(f"{second:f}")
    assert one is not None
    assert other is not None
    assert (one == other) == (first == second)
    assert value(one) == Fraction(first)


@given(st.integers(-(10**6), 10**6), st.integers(-6, 6))
def test_exponents_shift_the_point(number: int, shift: int) -> None:
    text = canonical(number < 0, str(abs(number)), "", shift)
    assert value(text) == Fraction(number) * Fraction(10) ** shift
    assert parse_number(f"{number}e{shift}") == text


@given(st.integers(0, 10**6), st.integers(1, 10**4))
def test_fractions_end_as_decimals_or_stay_reduced(top: int, bottom: int) -> None:
    text = ratio(False, Fraction(top, bottom))
    assert value(text) == Fraction(top, bottom)
    assert parse_number(f"{top}/{bottom}") == text


@given(st.integers(0, 10**12))
def test_thousands_separators_change_nothing(number: int) -> None:
    for separator in (",", "\u00a0", "\u202f", "\u2009"):
        text = f"{number:,}".replace(",", separator)
        assert parse_number(text) == str(number)
        assert stated_number(f" {text} eggs") == str(number)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("18", "18"), ("-0", "0"), ("00", "0"), ("0.0", "0"), ("+5", "5"), ("5 %", "5"),
        ("$ 5", "5"),
        ("1e400", "1" + "0" * 400), ("1e401", None), ("1/0", None), ("", None), (".", None),
        ("-", None),
        ("5 eggs", None), ("1,23", None), ("1,2345", None), ("1 000", None), ("0x10", None),
        ("1_000", None),
        ("\u0665", None), ("5\n", "5"), ("--5", None), ("1" * 300, None), ("3 1/2", "3.5"),
        ("1/3", "1/3"),
    ],
)  # fmt: skip
def test_parse_number(text: str, number: str | None) -> None:
    assert parse_number(text) == number


@given(st.text(max_size=60))
def test_any_text_states_one_number_or_none(text: str) -> None:
    found = stated_number(text)
    assert found is None or value(found) is not None
    leading = stated_number(text, leading=True)
    assert leading is None or value(leading) is not None
