"""Rows from bytes, and rows to bytes."""

import json
import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guerdon.rollouts.decoding import Unreadable, decode_row
from guerdon.rollouts.encoding import encode_line
from guerdon.sample import Sample

TAKEN = {
    "lone surrogate": (rb'{"a": "\ud800"}', "\ud800"),
    "lone surrogate as bytes": (b'{"a": "\xed\xa0\x80"}', "\ud800"),
    "surrogate pair": (rb'{"a": "\ud83d\ude00"}', "\U0001f600"),
    "large integer": (b'{"a": 123456789012345678901234567890}', 123456789012345678901234567890),
    "byte order mark": (b'\xef\xbb\xbf{"a": 1}', 1),
    "infinity": (b'{"a": -Infinity}', -math.inf),
    "number out of range": (b'{"a": 1e999}', math.inf),
    "nul": (rb'{"a": "\u0000"}', "\0"),
}


@pytest.mark.parametrize("name", TAKEN)
def test_what_real_files_hold_is_taken(name):
    raw, expected = TAKEN[name]
    assert decode_row(raw)["a"] == expected


def test_nan_is_taken():
    assert math.isnan(decode_row(b'{"a": NaN}')["a"])


REFUSED = {
    "torn": (b'{"a": 1', "not JSON"),
    "a list": (b"[1]", "a list"),
    "a text": (b'"x"', "a text"),
    "null": (b"null", "null"),
    "a truth value": (b"true", "true"),
    "a number": (b"7", "a number"),
    "no UTF-8": (b'{"a": "\xff"}', "0xff at position 7"),
    "a raw control character": (b'{"a": "x\ny"}', "control character"),
    "two rows": (b'{"a": 1} {"a": 2}', "Extra data"),
    "deep": (b'{"a": ' + b"[" * 200_000, "nested too deeply"),
    "a huge number": (b'{"a": ' + b"9" * 10_000 + b"}", "not usable JSON"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_row_says_why(name):
    raw, message = REFUSED[name]
    with pytest.raises(Unreadable, match=message) as refused:
        decode_row(raw)
    assert len(str(refused.value)) < 300


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
surrogates = st.text(st.characters(codec=None, categories=("Cs", "L")), max_size=5)


@given(st.dictionaries(st.text() | surrogates, json_values | surrogates, max_size=4))
def test_rows_survive_the_way_to_a_file_and_back(row):
    def finite(value):
        if isinstance(value, float) and not math.isfinite(value):
            return None
        if isinstance(value, dict):
            return {key: finite(item) for key, item in value.items()}
        return [finite(item) for item in value] if isinstance(value, list) else value

    line = encode_line(row)
    assert line.count(b"\n") == 1
    assert decode_row(line) == finite(row)
    json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


class Awkward:
    def __repr__(self):
        raise RuntimeError("no repr")


ODD = {
    "array": (np.arange(3), [0, 1, 2]),
    "scalar": (np.float32(0.5), 0.5),
    "set": ({1}, [1]),
    "tuple": ((1, 2), [1, 2]),
    "bytes": (b"ab", "YWI="),
    "tuple keys": ({(1, 2): "x"}, {"(1, 2)": "x"}),
    "struct": (Sample(response="x"), {"response": "x"}),
    "surrogate in a struct": (Sample(response="\ud800"), None),
    "object": (object(), None),
    "no repr": (Awkward(), "<Awkward whose repr() raised RuntimeError>"),
    "nan in a list": ([math.nan], [None]),
    "a large array": (np.zeros(5000), None),
}


@pytest.mark.parametrize("name", ODD)
def test_anything_can_be_written(name):
    value, expected = ODD[name]
    for row in ({"a": value}, {"a": value, "force the slow way": "\ud800"}):
        found = decode_row(encode_line(row))["a"]
        if expected is not None:
            assert found == expected


def test_deep_nesting_can_be_written():
    value = []
    for _ in range(100_000):
        value = [value]
    assert msgspec.json.decode(encode_line({"a": value}))
