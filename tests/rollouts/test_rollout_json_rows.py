"""Rows of JSON files, cut out without decoding them."""

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guerdon.rollouts import json_rows
from guerdon.rollouts.decoding import Unreadable, decode_row
from guerdon.rollouts.json_rows import find_form, raw_rows
from guerdon.rollouts.reader import Reader
from guerdon.rollouts.source import Source


class Trickle(io.RawIOBase):
    """Gives few bytes at a time, so that every boundary is met."""

    def __init__(self, data, step):
        self._data = io.BytesIO(data)
        self._step = step

    def readable(self):
        return True

    def readinto(self, buffer):
        piece = self._data.read(min(self._step, len(buffer)))
        buffer[: len(piece)] = piece
        return len(piece)


def rows_of(data, suffix="", step=1 << 16):
    stream = io.BufferedReader(Trickle(data, step), max(step, 1))
    source = Source("data", suffix, "json", stream, None, None, lambda: 0, lambda: 0)
    return list(raw_rows(source))


def decoded(rows):
    assert not any(row.problem for row in rows), rows
    return [decode_row(row.raw) for row in rows]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
row_lists = st.lists(st.dictionaries(st.text(), values, max_size=3), min_size=1, max_size=5)


@given(rows=row_lists, step=st.integers(1, 40), ascii_only=st.booleans(), indent=st.booleans())
def test_an_array_gives_its_elements(rows, step, ascii_only, indent):
    text = json.dumps(rows, ensure_ascii=ascii_only, indent=2 if indent else None)
    head = json_rows.HEAD
    json_rows.HEAD = 7
    try:
        found = decoded(rows_of(text.encode("utf-8", "surrogatepass"), step=step))
    finally:
        json_rows.HEAD = head
    assert found == rows


@given(rows=row_lists, step=st.integers(1, 40), ascii_only=st.booleans())
def test_lines_give_their_objects(rows, step, ascii_only):
    text = "".join(json.dumps(row, ensure_ascii=ascii_only) + "\r\n" for row in rows)
    found = rows_of(text.encode("utf-8", "surrogatepass"), ".jsonl", step)
    assert decoded(found) == rows
    assert [row.line for row in found] == list(range(1, len(rows) + 1))


@given(data=st.binary(max_size=200), step=st.integers(1, 30), opening=st.sampled_from(b"[{x"))
def test_any_bytes_end(data, step, opening):
    """Whatever the file holds, reading it ends and no byte makes two rows."""
    rows = rows_of(bytes([opening]) + data, step=step)
    assert sum(len(row.raw) for row in rows) <= len(data) + 1


FORMS = {
    "lines": (b'{"a": 1}\n{"a": 2}\n', [1, 2]),
    "lines without a last line end": (b'{"a": 1}\n{"a": 2}', [1, 2]),
    "blank lines": (b'\n\n{"a": 1}\n \n{"a": 2}\n\n', [1, 2]),
    "one line": (b'{"a": 1}', [1]),
    "byte order mark": (b'\xef\xbb\xbf{"a": 1}\n{"a": 2}', [1, 2]),
    "byte order mark, array": (b'\xef\xbb\xbf[{"a": 1}]', [1]),
    "array": (b'[{"a": 1}, {"a": 2}]', [1, 2]),
    "array over lines": (b'[\n  {\n "a": 1\n},\n {"a": 2}\n]\n', [1, 2]),
    "trailing comma": (b'[{"a": 1},]', [1]),
    "object with a list": (b'{"meta": {"x": [1]}, "data": [{"a": 1}, {"a": 2}], "n": 2}', [1, 2]),
    "the list's name is free": (b'{"n": 1, "my rows": [ {"a": 1} ]}', [1]),
    "indented object with a list": (b'{\n "n": 1,\n "data": [\n {"a": 1}\n ]\n}', [1]),
    "concatenated, indented": (b'{\n "a": 1\n}\n{\n "a": 2\n}\n', [1, 2]),
    "indented, with messages": (b'{\n "messages": [{"role": "user"}],\n "a": 1\n}', [1]),
    "one line, with messages": (b'{"messages": [{"role": "user"}], "a": 1}', [1]),
    "lines that hold lists of objects": (b'{"data": [{}], "a": 1}\n{"data": [{}], "a": 2}', [1, 2]),
}


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("step", [1, 3, 1 << 16])
def test_forms(name, step):
    data, expected = FORMS[name]
    assert [row["a"] for row in decoded(rows_of(data, step=step))] == expected


def test_a_line_file_is_never_taken_for_an_object_with_a_list():
    data = b'{"data": [{"a": 1}]}\n'
    assert find_form(data, ".jsonl") == ("lines", 0)
    assert find_form(data)[0] == "array"


BROKEN = {
    "a bad element": (b'[{"a": 1}, oops, {"a": 2}]', [1, None, 2], ""),
    "a stray bracket": (b'[{"a": 1}, }, {"a": 2}]', [1, None, 2], ""),
    "no end of the list": (b'[{"a": 1},', [1, None], "truncated"),
    "no end of a row": (b'[{"a": 1}, {"a": ', [1, None], "truncated"),
    "no end of a text": (b'[{"a": 1}, {"a": "x\\', [1, None], "truncated"),
    "a bad line": (b'{"a": 1}\n{"a": \n{"a": 2}\n', [1, None, 2], ""),
    "a bad first line": (b'{"a": \n{"a": 2}\n', [None, 2], ""),
    "a torn last line": (b'{"a": 1}\n{"a": 2', [1, None], ""),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("step", [1, 1 << 16])
def test_a_broken_row_costs_only_itself(name, step):
    data, expected, problem = BROKEN[name]
    found = []
    for row in rows_of(data, step=step):
        try:
            found.append(None if row.problem else decode_row(row.raw)["a"])
        except Unreadable:
            found.append(None)
    assert found == expected
    assert problem in rows_of(data, step=step)[-1].problem


def test_rows_above_the_limit_are_reported_and_skipped(monkeypatch):
    monkeypatch.setattr(json_rows, "LARGEST_ROW", 100)
    monkeypatch.setattr(json_rows, "HEAD", 10)
    long = b'{"a": "' + b"x" * 1000 + b'"}'
    lines = rows_of(b'{"a": 1}\n' + long + b'\n{"a": 2}\n', ".jsonl", 16)
    array = rows_of(b'[{"a": 1}, ' + long + b', {"a": 2}]', step=16)
    for rows in (lines, array):
        assert [row.problem for row in rows] == ["", "the row is larger than 0 MiB", ""]
    assert [row.line for row in lines] == [1, 2, 3]


@pytest.mark.parametrize("data", [b'{"a": 1}\n{"a": 2}\n', b'[{"a": 1}, {"a": 2}, '])
def test_a_slow_pipe_gives_its_rows_at_once(data):
    class Slow(Trickle):
        def readinto(self, buffer):
            count = super().readinto(buffer)
            assert count, "waited for more"
            return count

    stream = io.BufferedReader(Slow(data, 1 << 16), 1 << 16)
    source = Source("-", "", "json", stream, None, None, lambda: 0, lambda: 0)
    rows = raw_rows(source)
    assert [decode_row(next(rows).raw)["a"] for _ in range(2)] == [1, 2]


def test_lines_are_counted_in_arrays():
    rows = rows_of(b'[\n {"a": 1},\n {\n"a": 2},\n {"a": 3}]', step=4)
    assert [row.line for row in rows] == [2, 3, 5]


def test_reading_is_linear_on_adversarial_rows(tmp_path):
    """10 MB of quotes, backslashes and brackets: a quadratic scan would not end."""
    hostile = "".join('\\"{[]},' for _ in range(10_000_000 // 7))
    path = tmp_path / "data.json"
    path.write_text(json.dumps([{"a": hostile}, {"a": 2}]))
    rows = list(Reader(str(path)))
    assert [row.data["a"] for row in rows if row.data] == [hostile, 2]
