"""A body with bulk bytes: a small MessagePack envelope, then the bytes of all attachments.

| bytes | what |
|---|---|
| 0 to 4 | `GDN1` |
| 4 to 8 | length of the envelope, unsigned, little-endian |
| 8 to 16 | length of the bulk part, unsigned, little-endian |
| 16 to ... | the envelope: a `ScoreRequest` in MessagePack |
| ... | zeros up to a multiple of 64 |
| to the end | the bulk part |

The bytes of an array go from the sender's memory to the receiver's without being looked at, so they
cost what the network costs. The padding lets arrays lie aligned in the receiver's buffer.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from guerdon.errors import MalformedMessage

MAGIC = b"GDN1"
HEAD = struct.Struct("<4sIQ")
ALIGNMENT = 64


class Frame(NamedTuple):
    """A frame taken apart; both parts are views of the body."""

    envelope: memoryview
    bulk: memoryview


def frame_start(envelope: bytes, bulk_bytes: int) -> bytes:
    """Everything of a frame before its bulk part.

    Example:
        >>> start = frame_start(b"envelope", 3)
        >>> len(start), bytes(split_frame(memoryview(start + b"abc")).bulk)
        (64, b'abc')
    """
    end = HEAD.size + len(envelope)
    return HEAD.pack(MAGIC, len(envelope), bulk_bytes) + envelope + bytes(aligned(end) - end)


def split_frame(body: memoryview) -> Frame:
    """The parts of a frame.

    Raises:
        MalformedMessage: the body is no frame, or cut short.
    """
    if len(body) < HEAD.size:
        raise MalformedMessage(f"a frame begins with {HEAD.size} bytes, got {len(body)}")
    magic, envelope_bytes, bulk_bytes = HEAD.unpack_from(body)
    if magic != MAGIC:
        raise MalformedMessage(f"a frame begins with {MAGIC!r}, got {magic!r}")
    end = HEAD.size + envelope_bytes
    start = aligned(end)
    if len(body) != start + bulk_bytes:
        told = f"an envelope of {envelope_bytes} and a bulk part of {bulk_bytes} bytes"
        raise MalformedMessage(
            f"a frame with {told} has {start + bulk_bytes} bytes, got {len(body)}"
        )
    return Frame(body[HEAD.size : end], body[start:])


def aligned(offset: int) -> int:
    """The next multiple of `ALIGNMENT`.

    Example:
        >>> aligned(0), aligned(1), aligned(64)
        (0, 64, 64)
    """
    return -(-offset // ALIGNMENT) * ALIGNMENT
