"""Values that travel between the sandboxes."""

from __future__ import annotations

import contextlib
import math
import sys
from collections import Counter, OrderedDict, deque, namedtuple
from datetime import UTC, date, datetime, timedelta, timezone
from datetime import time as day_time
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guerdon.rules.code.inside import values as values_module
from guerdon.rules.code.inside.values import (
    FEW_BITS,
    FEW_KEYS,
    MAX_BYTES,
    MAX_DEPTH,
    OWNED,
    Malformed,
    Named,
    Unsendable,
    decode,
    encode,
)

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.complex_numbers(allow_nan=False),
    st.text(st.characters()),
    st.binary(),
    st.decimals(allow_nan=False),
    st.fractions(),
)
hashable = st.one_of(scalars, st.tuples(scalars, scalars), st.frozensets(st.integers()))
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner),
        st.lists(inner).map(tuple),
        st.dictionaries(hashable, inner),
        st.sets(hashable),
    ),
)


@given(values)
def test_a_value_arrives_as_it_was(value: Any) -> None:
    arrived = decode(encode(value))
    assert arrived == value
    assert type(arrived) is type(value)
    assert repr(arrived) == repr(value) or isinstance(value, set | frozenset | dict | list | tuple)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_value_or_malformed(data: bytes) -> None:
    with contextlib.suppress(Malformed):
        decode(data)


@given(values, st.data())
def test_damaged_bytes_are_a_value_or_malformed(value: Any, data: st.DataObject) -> None:
    good = bytearray(encode(value))
    place = data.draw(st.integers(0, len(good) - 1))
    good[place] = data.draw(st.integers(0, 255))
    with contextlib.suppress(Malformed):
        decode(bytes(good))


Point = namedtuple("Point", "x y")


class Sneaky(int):
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = int.__hash__


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Counter("aab"), {"a": 2, "b": 1}),
        (OrderedDict(a=1), {"a": 1}),
        (Sneaky(3), 3),
        (range(1, 9, 2), range(1, 9, 2)),
        (bytearray(b"x"), bytearray(b"x")),
        (float("inf"), float("inf")),
        ("\ud800\0", "\ud800\0"),
        (Decimal("1.0"), Decimal("1.0")),
        (Fraction(1, 3), Fraction(1, 3)),
    ],
)
def test_subclasses_arrive_as_their_base(value: Any, plain: Any) -> None:
    arrived = decode(encode(value))
    assert type(arrived) is type(plain)
    assert arrived == plain


def test_a_large_number() -> None:
    assert decode(encode(-(10**5000))) == -(10**5000)


def test_nan_and_signed_zero() -> None:
    assert math.isnan(decode(encode(float("nan"))))
    assert math.copysign(1, decode(encode(-0.0))) == -1


@pytest.mark.parametrize("value", [object(), lambda: 0, [object()], int, iter([])])
def test_objects_are_refused_or_numbered(value: Any) -> None:
    with pytest.raises(Unsendable):
        encode(value)
    kept: list[Any] = []

    def remember(thing: Any) -> tuple[bytes, int]:
        kept.append(thing)
        return OWNED, len(kept) - 1

    data = encode(value, remember)
    with pytest.raises(Malformed):
        decode(data)
    assert decode(data, lambda tag, number: kept[number]) == value or isinstance(value, list)


def test_named_tuples_keep_their_names() -> None:
    arrived = decode(encode([Point(1, "a")]))[0]
    assert arrived == (1, "a")
    assert (arrived.x, arrived.y) == (1, "a")
    assert decode(encode(arrived)).y == "a"
    with pytest.raises(AttributeError):
        arrived.z  # noqa: B018
    with pytest.raises(AttributeError):
        Named((1,)).x  # noqa: B018


VIEWED = {1: "a", (2, 3): None}


@pytest.mark.parametrize(
    "value",
    [
        slice(1, None, -1),
        date(2024, 2, 29),
        datetime(2024, 2, 29, 1, 2, 3, 4),
        datetime(2024, 2, 29, 1, tzinfo=timezone(timedelta(hours=-3, minutes=-30)), fold=1),
        day_time(1, 2, 3, 4),
        day_time(1, tzinfo=UTC),
        timedelta(-1, 2, 3),
        deque([1, [2]], 5),
        deque(),
        VIEWED.keys(),
        VIEWED.items(),
        {}.items(),
    ],
)
def test_more_kinds_of_values(value: Any) -> None:
    arrived = decode(encode([value]))[0]
    assert arrived == value
    assert type(arrived) is type(value)
    assert getattr(arrived, "maxlen", None) == getattr(value, "maxlen", None)


def test_values_of_a_dict() -> None:
    assert list(decode(encode(VIEWED.values()))) == ["a", None]


@pytest.mark.parametrize("kind", ["int8", "float32", "complex128", "bool", "U3"])
@pytest.mark.parametrize("shape", [(4,), (2, 2), (1, 4, 1), (0, 3)])
def test_arrays(kind: str, shape: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    array = numpy.ones(shape, kind)
    arrived = decode(encode(array))
    assert arrived.dtype == array.dtype
    assert arrived.shape == shape
    assert arrived.tolist() == array.tolist()
    data = encode(array)
    monkeypatch.delitem(sys.modules, "numpy")
    assert decode(data) == array.tolist()


def test_arrays_of_objects_arrive_as_lists() -> None:
    assert decode(encode(numpy.array([1, "a"], dtype=object))) == [1, "a"]


def test_depth_and_size_have_a_limit() -> None:
    deep: list[Any] = []
    for _ in range(MAX_DEPTH + 1):
        deep = [deep]
    with pytest.raises(Unsendable, match="nested"):
        encode(deep)
    with pytest.raises(Malformed, match="nested"):
        decode(b"l\x01\0\0\0" * (MAX_DEPTH + 2) + b"n")
    with pytest.raises(Unsendable, match="bytes"):
        encode("x" * (17 << 20))
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises(Unsendable):
        encode(circle)


def number(value: int) -> bytes:
    return encode(value)


def parts(*items: bytes) -> bytes:
    return b"u" + len(items).to_bytes(4, "little") + b"".join(items)


def many(tag: bytes, item: bytes) -> bytes:
    """As many items as a message of a hundredth of the largest holds."""
    count = MAX_BYTES // 100 // len(item)
    return tag + count.to_bytes(4, "little") + item * count


HUGE = number(3 ** (1 << 20))
"""Dividing numbers of this size takes seconds, and of the largest that fit hours."""

ONE_HASH = [number(i * (2**61 - 1)) for i in range(1, FEW_KEYS + 3)]
OTHERS = [number(i) for i in range(10 * FEW_KEYS)]


@pytest.mark.parametrize(
    "data",
    [
        b"F" + parts(HUGE, number(2 ** (1 << 20) + 1)),
        b"r" + parts(number(0), HUGE, number(2 ** (1 << 19) + 1)),
        b"P" + parts(HUGE, HUGE, HUGE),
        b"S" + len(ONE_HASH + OTHERS).to_bytes(4, "little") + b"".join(ONE_HASH + OTHERS),
        b"V" + parts(number(0), b"l"
                     + len(ONE_HASH + OTHERS).to_bytes(4, "little") + b"".join(ONE_HASH + OTHERS)),
        many(b"l", b"S\0\0\0\0"),
        many(b"l", b"Q" + parts(b"l\0\0\0\0", b"n")),
        b"A" + encode(("<U100000000", (1000,), ["a"] * 1000)),
        b"A" + encode(("<c32", (1,), [1.0] * 9)),
        b"A" + encode(("<f8", (-1, 2), [])),
    ],
    ids=["fraction", "range", "span", "set", "view", "sets", "deques", "texts", "shape", "sign"],
)  # fmt: skip
def test_a_message_cannot_keep_its_reader_busy_or_fill_its_memory(
    data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reader of a program's answers is the process that scores."""
    monkeypatch.setattr(values_module, "ROOM", values_module.ROOM // 100)
    with pytest.raises(Malformed):
        decode(data)


def test_what_is_large_and_honest_arrives() -> None:
    for value in (
        {2**k: k for k in range(4000)},
        Fraction(1, 2 ** (FEW_BITS - 1)),
        range(-(10**100), 10**100, 10**50),
        [[i] for i in range(30_000)],
    ):
        assert decode(encode(value)) == value
