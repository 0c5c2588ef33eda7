"""One row of an input, readable or not, with its place and a digest of what it holds."""

from __future__ import annotations

import hashlib
from typing import cast

import msgspec

from guerdon.rollouts.decoding import Row, Unreadable, decode_row

DIGEST_BYTES = 8
BROKEN, JSON, MESSAGE_PACK = range(3)
"""How a packed record holds its row."""


class Record(msgspec.Struct):
    """One row.

    Attributes:
        row: position in the input, from 0; blank lines are no rows.
        place: where it lies, such as `line 12`.
        raw: its bytes where it is JSON, else empty.
        data: its columns; None where it cannot be read.
        problem: why it cannot be read, or "".
    """

    row: int
    place: str
    raw: bytes
    data: Row | None
    problem: str = ""

    def digest(self, key: bytes) -> str:
        """16 hexadecimal characters that say which row this is, and how it is read.

        Args:
            key: stands for everything else that decides what is scored; at most 64 bytes.
        """
        content = self.raw or self.pack()[1]
        return hashlib.blake2b(content, digest_size=DIGEST_BYTES, key=key).hexdigest()

    def pack(self) -> tuple[int, bytes]:
        """The row as bytes, and how they hold it."""
        if self.data is None:
            return BROKEN, self.problem.encode("utf-8", "surrogatepass")
        if self.raw:
            return JSON, self.raw
        return MESSAGE_PACK, msgspec.msgpack.encode(self.data, enc_hook=repr)


def record_from(row: int, place: str, raw: bytes, problem: str = "") -> Record:
    """The record of a row of JSON.

    Example:
        >>> record_from(0, "line 1", b'{"a": 1}').data, record_from(1, "line 2", b"[").data
        ({'a': 1}, None)
    """
    data: Row | None = None
    if not problem:
        try:
            data = decode_row(raw)
        except Unreadable as error:
            problem = str(error)
    return Record(row, place, raw, data, problem)


def unpack(row: int, place: str, form: int, packed: bytes) -> Record:
    """The record that `Record.pack` made bytes of."""
    if form == JSON:
        return record_from(row, place, packed)
    if form == MESSAGE_PACK:
        return Record(row, place, b"", cast("Row", msgspec.msgpack.decode(packed)))
    return Record(row, place, b"", None, packed.decode("utf-8", "surrogatepass"))
