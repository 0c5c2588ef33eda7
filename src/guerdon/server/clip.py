"""Size and number of frames of an encoded video, read from its index without decoding it.

MP4 and its kin (ISO/IEC 14496-12) say both in the boxes of each track. Of other containers only the
bytes are limited.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from guerdon.errors import BadInput

MOST_BOXES = 10_000
"""Boxes of one file that are looked at."""

CONTAINERS = frozenset({b"moov", b"trak", b"mdia", b"minf", b"stbl"})
BRANDED = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
"""How the first box of such a file is called."""


class Clip(NamedTuple):
    """What an encoded video claims to be."""

    width: int
    height: int
    frames: int


def clip_of(data: bytes) -> Clip | None:
    """What an encoded video claims to be; None for a container that is not known here.

    Raises:
        BadInput: its index is damaged.
    """
    if data[4:8] not in BRANDED:
        return None
    width = height = frames = 0
    try:
        for track in _Boxes(data).tracks():
            if track.width and track.height:
                width, height = max(width, track.width), max(height, track.height)
                frames = max(frames, track.frames)
    except struct.error:
        raise BadInput("a video is cut short in its index") from None
    return Clip(width, height, frames)


class _Boxes:
    """Walks over the boxes of a file."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._left = MOST_BOXES

    def tracks(self) -> Iterator[Clip]:
        """What each track claims."""
        for kind, start, end in self._inside(0, len(self._data)):
            if kind == b"moov":
                for inner, first, last in self._inside(start, end):
                    if inner == b"trak":
                        yield self._track(first, last)

    def _inside(self, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
        """Kind, start and end of the content of each box."""
        while start + 8 <= end:
            self._left -= 1
            if self._left < 0:
                raise BadInput(f"a video has more than {MOST_BOXES} boxes in its index")
            size, kind = struct.unpack_from(">I4s", self._data, start)
            head = 8
            if size == 1:
                size, head = struct.unpack_from(">Q", self._data, start + 8)[0], 16
            elif size == 0:
                size = end - start
            if size < head or start + size > end:
                raise BadInput("a video has a box that is longer than what holds it")
            yield kind, start + head, start + size
            start += size

    def _track(self, start: int, end: int) -> Clip:
        width = height = frames = 0
        todo = [(start, end)]
        while todo:
            for kind, first, last in self._inside(*todo.pop()):
                if kind in CONTAINERS:
                    todo.append((first, last))
                elif kind == b"tkhd":  # ends with the size, in 16.16 fixed point
                    width, height = struct.unpack_from(">II", self._data, last - 8)
                elif kind in (b"stsz", b"stz2"):
                    frames = struct.unpack_from(">I", self._data, first + 8)[0]
        return Clip(width >> 16, height >> 16, frames)
