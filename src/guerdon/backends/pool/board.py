"""The page that a worker shares with the pool: what it is doing, and results not yet sent.

The worker writes the call in hand before it starts it, and each result before it goes on. When the
worker is killed the pool reads here which call was running and which results were finished, so
nothing that was done is done again.
"""

from __future__ import annotations

import mmap
import os
import struct
import tempfile
from typing import NamedTuple

HEADER = struct.Struct("<qqqqq")
"""Chunk, call (IDLE between calls), start in monotonic ns, CPU ns at the start, bytes written."""
LIMIT = struct.Struct("<q")
LIMIT_AT = HEADER.size
AREA_AT = 64
AREA_BYTES = 1 << 16
SIZE = AREA_AT + AREA_BYTES
IDLE = -1
NO_LIMIT = (1 << 62) - 1


class Now(NamedTuple):
    """What a worker is doing.

    Attributes:
        chunk: number of the chunk.
        call: index within the chunk, or `IDLE`.
        started_ns: `time.monotonic_ns()` when the call began.
        cpu_ns: `time.process_time_ns()` of the worker at that moment.
        written: bytes of results in the area that are not sent yet.
    """

    chunk: int
    call: int
    started_ns: int
    cpu_ns: int
    written: int


class Board:
    """One worker's page; the pool creates it, the worker opens it by descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._map = mmap.mmap(descriptor, SIZE)

    @classmethod
    def create(cls) -> Board:
        """A fresh page in anonymous memory."""
        descriptor = _anonymous_file()
        os.ftruncate(descriptor, SIZE)
        board = cls(descriptor)
        board.clear()
        return board

    @property
    def descriptor(self) -> int:
        """What the worker inherits."""
        return self._descriptor

    def close(self) -> None:
        """Unmap the page and close the descriptor."""
        self._map.close()
        os.close(self._descriptor)

    def clear(self) -> None:
        """As before the first call."""
        HEADER.pack_into(self._map, 0, 0, IDLE, 0, 0, 0)
        LIMIT.pack_into(self._map, LIMIT_AT, NO_LIMIT)

    def read(self) -> Now:
        """What the worker is doing now."""
        return Now(*HEADER.unpack_from(self._map, 0))

    def publish(self, chunk: int, call: int, started_ns: int, cpu_ns: int, written: int) -> None:
        """Say which call begins, or with `IDLE` that none runs."""
        HEADER.pack_into(self._map, 0, chunk, call, started_ns, cpu_ns, written)

    @property
    def limit(self) -> int:
        """The worker must not begin calls of this number or above (chunk-wide counter)."""
        return LIMIT.unpack_from(self._map, LIMIT_AT)[0]

    @limit.setter
    def limit(self, value: int) -> None:
        LIMIT.pack_into(self._map, LIMIT_AT, value)

    def write(self, offset: int, data: bytes) -> None:
        """Put results into the area."""
        self._map[AREA_AT + offset : AREA_AT + offset + len(data)] = data

    def written(self) -> bytes:
        """The results in the area that are not sent yet."""
        return self._map[AREA_AT : AREA_AT + self.read().written]


def _anonymous_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("guerdon-board")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def copy_to_file(parts: list[bytes | memoryview]) -> int:
    """Bytes in an anonymous file, for a reader that gets its descriptor."""
    descriptor = _anonymous_file()
    for part in parts:
        view = memoryview(part).cast("B")
        while view:
            view = view[os.write(descriptor, view) :]
    return descriptor
