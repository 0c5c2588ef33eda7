"""The page that a worker shares with the pool: what it is doing, and results not yet sent.

The worker writes the call in hand before it starts it, and each result before it goes on. When the
worker is killed the pool reads here which call was running and which results were finished, so
nothing that was done is done again.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from typing import NamedTuple

CHUNK, CALL, STARTED, CPU, WRITTEN, LIMIT = range(6)
"""Fields of the head, 8 aligned bytes each, so that each is read and written as a whole."""
HEAD_FIELDS = 8
AREA_AT = HEAD_FIELDS * 8
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
        self._bytes = memoryview(self._map)
        self._head = self._bytes[:AREA_AT].cast("q")

    @classmethod
    def create(cls) -> Board:
        """A fresh page in anonymous memory."""
        descriptor = _anonymous_file()
        os.ftruncate(descriptor, SIZE)
        board = cls(descriptor)
        board._head[CALL] = IDLE
        board.limit = NO_LIMIT
        return board

    @property
    def descriptor(self) -> int:
        """What the worker inherits."""
        return self._descriptor

    def close(self) -> None:
        """Unmap the page and close the descriptor."""
        self._head.release()
        self._bytes.release()
        self._map.close()
        os.close(self._descriptor)

    def read(self) -> Now:
        """What the worker is doing now. A reader may come between two writes: see `begin`."""
        head = self._head
        return Now(head[CHUNK], head[CALL], head[STARTED], head[CPU], head[WRITTEN])

    def begin(self, chunk: int, call: int, started_ns: int, cpu_ns: int) -> None:
        """In the worker: a call begins. Its index is written last, after what belongs to it."""
        head = self._head
        head[CHUNK] = chunk
        head[STARTED] = started_ns
        head[CPU] = cpu_ns
        head[CALL] = call

    def end(self, written: int) -> None:
        """In the worker: the call has ended, and so many bytes of results wait in the area."""
        head = self._head
        head[WRITTEN] = written
        head[CALL] = IDLE

    @property
    def limit(self) -> int:
        """The worker must not begin calls of this index or above."""
        return self._head[LIMIT]

    @limit.setter
    def limit(self, value: int) -> None:
        self._head[LIMIT] = value

    def write(self, offset: int, data: bytes) -> None:
        """Put results into the area."""
        self._bytes[AREA_AT + offset : AREA_AT + offset + len(data)] = data

    def written(self) -> bytes:
        """The results in the area that are not sent yet."""
        return bytes(self._bytes[AREA_AT : AREA_AT + self._head[WRITTEN]])


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
