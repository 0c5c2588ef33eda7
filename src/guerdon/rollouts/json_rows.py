"""The rows of JSON Lines, of a JSON array, or of a JSON object that holds a list of rows.

Rows are cut out of the stream as bytes without being decoded, in linear time and with the memory
of one row, so that one broken row does not cost the others.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from io import BufferedReader
from typing import Literal, NamedTuple, TypeAlias

from guerdon.rollouts.decoding import Unreadable, decode_value
from guerdon.rollouts.source import BLOCK, DAMAGED, Source, describe_damage

LARGEST_ROW = 1 << 29
"""Bytes; a row above this is reported and skipped, so that a file without line ends cannot fill
the memory."""
HEAD = 4 << 20
"""Bytes from the start of a file within which its form must show."""
LINES_THAT_SHOW = 64 << 10
"""Bytes within which two whole lines show that a file has one row per line."""
_TURNS = frozenset({"messages", "prompt", "completion", "response", "conversations", "trajectory"})
CONVERSATION_KEYS = _TURNS | {"tools", "images", "videos"}
"""Keys whose list of objects is part of a row, never the list of rows."""

Form: TypeAlias = Literal["lines", "array", "objects"]

_OUTSIDE = re.compile(rb'["\[\]{},]')
_NESTED = re.compile(rb'["\[\]{}]')
_TEXT = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
"""The rest of a text up to its quote, or up to the end of what was read; it cannot backtrack."""
_BLANK = b" \t\r\n"
_FIRST = re.compile(rb"[^ \t\r\n]")
_NEXT_ELEMENT = re.compile(rb"[^ \t\r\n,]")
_LIST_OF_OBJECTS = re.compile(rb"[ \t\r\n]*:[ \t\r\n]*\[[ \t\r\n]*\{")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class RawRow(NamedTuple):
    """One row as it lies in the file.

    Attributes:
        line: line of the file on which it starts, from 1.
        raw: its bytes.
        problem: why it cannot be had, or "".
    """

    line: int
    raw: bytes
    problem: str = ""


def raw_rows(source: Source) -> Iterator[RawRow]:
    """The rows of an input, in order; damage to the stream is the last row's problem."""
    head = _read_head(source.stream)
    form, start = find_form(head, source.suffix)
    if form == "lines":
        return _lines(_Joined(head, source.stream))
    return _elements(_Window(source.stream, head, start), form)


def _read_head(stream: BufferedReader) -> bytes:
    head = bytearray()
    try:
        while len(head) < HEAD and not _is_clear(head) and (piece := stream.read1(BLOCK)):
            head += piece
    except DAMAGED:
        pass  # the next read raises it again, after the rows before it
    return bytes(head)


def _is_clear(head: bytearray) -> bool:
    """Whether the form shows already: a pipe may be slow to give more."""
    if head.lstrip(_BLANK + _BYTE_ORDER_MARK).startswith(b"["):
        return True
    lines = bytes(head[:LINES_THAT_SHOW]).split(b"\n", 2)
    return len(lines) > 2 and all(line.startswith(b"{") and _is_whole(line) for line in lines[:2])


def find_form(head: bytes, suffix: str = "") -> tuple[Form, int]:
    """How rows lie in a file, and where the first one can start.

    Args:
        head: the first bytes of the file.
        suffix: of its name, such as `.jsonl`.

    Example:
        >>> find_form(b'{"a": 1}'), find_form(b' [{"a": 1}]'), find_form(b'{"data": [{"a": 1}]}')
        (('lines', 0), ('array', 2), ('array', 10))
    """
    first = _FIRST.search(head, len(_BYTE_ORDER_MARK) if head.startswith(_BYTE_ORDER_MARK) else 0)
    if first is None or first.group() not in b"[{":
        return "lines", 0
    if first.group() == b"[":
        return "array", first.end()
    if suffix in (".jsonl", ".ndjson"):
        return "lines", 0
    end = head.find(b"\n", first.start())
    following = _FIRST.search(head, end) if end >= 0 else None
    if following is not None and following.group() == b"{":
        return "lines", 0
    start = _list_of_rows(head, first.end())
    if start is not None:
        return "array", start
    if end < 0 or following is None or _is_whole(head[:end]):
        return "lines", 0
    return "objects", first.start()


def _is_whole(line: bytes) -> bool:
    try:
        decode_value(line)
    except Unreadable:
        return False
    return True


def _list_of_rows(head: bytes, start: int) -> int | None:
    """Where the elements of the first list of objects under a top-level key begin."""
    depth = 1
    position = start
    while token := _OUTSIDE.search(head, position):
        position = token.end()
        character = token.group()
        if character == b'"':
            end = _string_end(head, position)
            if end is None:
                return None
            found = _LIST_OF_OBJECTS.match(head, end) if depth == 1 else None
            name = head[position : end - 1].decode("utf-8", "replace")
            if found and name not in CONVERSATION_KEYS:
                return found.end() - 1
            position = end
        elif character in b"[{":
            depth += 1
        elif character in b"]}":
            depth -= 1
            if depth == 0:
                return None
    return None


def _string_end(data: bytes, position: int) -> int | None:
    """One past the closing quote of a text whose content starts at a position."""
    text = _TEXT.match(data, position)
    end = text.end() if text else len(data)
    return end + 1 if data[end : end + 1] == b'"' else None


class _Joined:
    """Lines of a head that was already read and of the stream after it."""

    def __init__(self, head: bytes, stream: BufferedReader) -> None:
        self._head = head
        self._at = 3 if head.startswith(_BYTE_ORDER_MARK) else 0
        self._stream = stream

    def readline(self) -> bytes:
        """The next line or at most `LARGEST_ROW + 1` bytes of it; b"" at the end."""
        if self._at < len(self._head):
            end = self._head.find(b"\n", self._at)
            if end >= 0:
                line = self._head[self._at : end + 1]
                self._at = end + 1
                return line
            line = self._head[self._at :]
            self._at = len(self._head)
            return line + self._stream.readline(LARGEST_ROW)
        return self._stream.readline(LARGEST_ROW + 1)


def _lines(stream: _Joined) -> Iterator[RawRow]:
    number = 0
    line = b""
    while True:
        number += 1
        try:
            line = stream.readline()
            if len(line) > LARGEST_ROW:
                while line and not line.endswith(b"\n"):
                    line = stream.readline()
                yield RawRow(number, b"", _too_large())
                continue
        except DAMAGED as error:
            yield RawRow(number, b"", describe_damage(error))
            return
        if not line:
            return
        if not line.isspace():
            yield RawRow(number, line)


class _Window:
    """The part of a stream in which the current row lies."""

    def __init__(self, stream: BufferedReader, head: bytes, start: int) -> None:
        self._stream = stream
        self.data = bytearray(head)
        self.line = 1
        self.at = 0
        self.drop(start)

    def more(self) -> bool:
        """Read on; False at the end of the stream."""
        piece = self._stream.read1(BLOCK)
        self.data += piece
        return bool(piece)

    def drop(self, size: int) -> None:
        """Forget the first bytes."""
        self.line += self.data.count(b"\n", 0, size)
        del self.data[:size]
        self.at = max(0, self.at - size)


def _elements(window: _Window, form: Form) -> Iterator[RawRow]:
    closing = b"]" if form == "array" else b""
    while True:
        line = window.line
        try:
            if not _seek_element(window):
                if closing:
                    yield RawRow(window.line, b"", "the list has no end: the file is truncated")
                return
            line = window.line
            if closing and window.data.startswith(closing):
                return
            size, whole = _element_size(window, form)
        except DAMAGED as error:
            yield RawRow(line, b"", describe_damage(error))
            return
        if size < 0:
            yield RawRow(line, b"", _too_large())
            continue
        raw = bytes(window.data[:size]).rstrip(_BLANK)
        window.drop(size)
        if not whole:
            yield RawRow(line, raw, "the row has no end: the file is truncated")
            return
        yield RawRow(line, raw)


def _seek_element(window: _Window) -> bool:
    """Move the window to the start of the next element or to the end of the list."""
    while True:
        found = _NEXT_ELEMENT.search(window.data)
        if found is not None:
            start = found.start()
            del found  # it holds the buffer, which then could not be changed
            window.drop(start)
            return True
        window.drop(len(window.data))
        if not window.more():
            return False


def _element_size(window: _Window, form: Form) -> tuple[int, bool]:
    """Bytes of the element at the start of the window, and whether it is whole.

    The size is -1 where the element was larger than `LARGEST_ROW`; then it is gone.
    """
    depth = 0
    inside = False
    skipped = False
    window.at = 0
    while True:
        pattern = _NESTED if depth else _OUTSIDE
        token = (_TEXT.match if inside else pattern.search)(window.data, window.at)
        window.at = token.end() if token else len(window.data)
        character = (
            token.group() if token and not inside else window.data[window.at : window.at + 1]
        )
        del token  # it holds the buffer, which then could not be changed
        if inside and character == b'"':
            inside = False
            window.at += 1
        elif inside or not character:
            if len(window.data) > LARGEST_ROW:
                window.drop(window.at)
                skipped = True
            if not window.more():
                return len(window.data), False
        elif character == b'"':
            inside = True
        elif character in (b"[", b"{"):
            depth += 1
        elif character in (b"]", b"}") and depth:
            depth -= 1
            if depth == 0 and form == "objects":
                break
        elif character in (b"]", b"}") and form == "objects":
            break
        elif character in (b"]", b","):
            window.at -= 1
            break
    if skipped:
        window.drop(window.at)
        return -1, True
    return window.at, True


def _too_large() -> str:
    return f"the row is larger than {LARGEST_ROW >> 20} MiB"
