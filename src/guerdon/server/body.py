"""Receiving a body: into a buffer that is used again, and out of its compression.

New memory costs a page fault for every 4 KiB, which for large bodies is several times what copying
them costs (measured: `benchmarks/`), so large buffers are kept. A buffer is used again only when
nothing refers to it any more: Python refuses to resize a `bytearray` that has views.
"""

from __future__ import annotations

import asyncio
import contextlib
import zlib
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeAlias

from guerdon.errors import MissingExtra
from guerdon.server.refusal import Refused
from guerdon.wire.protocol import ErrorCode

Message: TypeAlias = Any
"""A message of ASGI: a mutable mapping."""
Receive: TypeAlias = Callable[[], Awaitable[Message]]

SMALL = 64 << 10
"""Bodies up to this size are not worth a kept buffer."""
SIZES = 1 << 20
"""Kept buffers have a multiple of this size."""
KEPT_BYTES = 512 << 20
"""How much memory the kept buffers that are not in use may hold."""
OUTPUT_STEP = 1 << 20
"""How much is decompressed at a time."""


class Gone(Exception):
    """The client went away."""


class Buffers:
    """Large buffers, used again."""

    def __init__(self, kept_bytes: int = KEPT_BYTES) -> None:
        self._kept_bytes = kept_bytes
        self._kept: list[bytearray] = []

    def take(self, size: int) -> bytearray:
        """A buffer of at least `size` bytes, whatever it holds; the smallest that nobody uses."""
        large_enough = (buffer for buffer in self._kept if len(buffer) >= size)
        for buffer in sorted(large_enough, key=len):
            if not _has_views(buffer):
                self._kept = [other for other in self._kept if other is not buffer]
                return buffer
        return bytearray(-(-size // SIZES) * SIZES)

    def give_back(self, buffer: bytearray) -> None:
        """Keep a buffer for later; a thread may still be about to let go of its last view."""
        self._kept.append(buffer)
        while sum(map(len, self._kept)) > self._kept_bytes:
            self._kept.pop(0)


def _has_views(buffer: bytearray) -> bool:
    try:
        last = buffer.pop()
    except BufferError:
        return True
    buffer.append(last)
    return False


class Body:
    """A body that has been received, or is being received.

    Attributes:
        view: the bytes.
    """

    def __init__(self, buffers: Buffers) -> None:
        self._buffers = buffers
        self._owned: list[bytearray] = []
        self.view: memoryview = memoryview(b"")

    def __len__(self) -> int:
        return len(self.view)

    def buffer(self, size: int) -> bytearray:
        """A kept buffer that lives as long as the body."""
        buffer = self._buffers.take(size)
        self._owned.append(buffer)
        return buffer

    def release(self) -> None:
        """Give the buffers back; nothing may read the view any more."""
        with contextlib.suppress(BufferError):  # an array still looks at it
            self.view.release()
        self.view = memoryview(b"")
        for buffer in self._owned:
            self._buffers.give_back(buffer)
        self._owned.clear()


async def receive_body(
    receive: Receive, body: Body, announced: int | None, most: int, pause: float
) -> None:
    """Receive the body of a request.

    Args:
        receive: of ASGI.
        body: what receives it.
        announced: `Content-Length`.
        most: bytes that a body may have.
        pause: seconds that may pass between two pieces.

    Raises:
        Refused: too large, or too slow.
        Gone: the client went away.
    """
    first = await _piece(receive, pause)
    chunk: bytes = first.get("body", b"")
    if not first.get("more_body", False):
        if len(chunk) > most:
            raise _too_large(len(chunk), most)
        body.view = memoryview(chunk)
        return
    filling = _Filling(body, max(announced or 0, len(chunk), SMALL), most)
    filling.add(chunk)
    while True:
        message = await _piece(receive, pause)
        filling.add(message.get("body", b""))
        if not message.get("more_body", False):
            break
    body.view = filling.view()


async def _piece(receive: Receive, pause: float) -> Message:
    try:
        async with asyncio.timeout(pause):
            message = await receive()
    except TimeoutError:
        raise Refused(
            ErrorCode.TOO_SLOW, f"no part of the body came for {pause:g} s; send it again"
        ) from None
    if message["type"] == "http.disconnect":
        raise Gone
    return message


class _Filling:
    """A buffer that is filled piece by piece, and grows where the size was not announced."""

    def __init__(self, body: Body, size: int, most: int) -> None:
        self._body = body
        self._most = most
        self._buffer = body.buffer(min(size, most))
        self._end = 0

    def add(self, chunk: bytes | memoryview) -> None:
        end = self._end + len(chunk)
        if end > self._most:
            raise _too_large(None, self._most)
        if end > len(self._buffer):
            larger = self._body.buffer(min(max(2 * len(self._buffer), end), self._most))
            larger[: self._end] = memoryview(self._buffer)[: self._end]
            self._buffer = larger
        # Through a view: assigning to a slice of the bytearray itself would first copy the chunk.
        with memoryview(self._buffer) as view:
            view[self._end : end] = chunk
        self._end = end

    def view(self) -> memoryview:
        return memoryview(self._buffer)[: self._end]


def _too_large(size: int | None, most: int) -> Refused:
    found = f"of {size} bytes " if size is not None else ""
    return Refused(
        ErrorCode.TOO_LARGE,
        f"the body {found}is larger than the {most} bytes that this server takes: send fewer "
        "samples at a time, or raise serve.limits.body_bytes",
    )


def check_announced(announced: int | None, most: int) -> None:
    """Refuse a body by its announced size, before it is received."""
    if announced is not None and announced > most:
        raise _too_large(announced, most)


def decompress(body: Body, encoding: str, most: int) -> None:
    """Replace a compressed body by its content.

    Raises:
        Refused: larger than `most`, damaged, or followed by something else.
    """
    source = body.view
    filling = _Filling(body, max(SMALL, 4 * len(source)), most)
    try:
        for piece in _DECOMPRESSORS[encoding](source):
            filling.add(piece)
    except Refused:
        raise _bomb(most) from None
    except ValueError as error:
        raise Refused(ErrorCode.MALFORMED, f"the body is no valid {encoding}: {error}") from None
    source.release()
    body.view = filling.view()


def _bomb(most: int) -> Refused:
    return Refused(
        ErrorCode.TOO_LARGE,
        f"the body decompresses to more than the {most} bytes that this server takes: send fewer "
        "samples at a time, or raise serve.limits.decompressed_bytes",
    )


def _gunzip(data: memoryview) -> Iterator[bytes]:
    engine = zlib.decompressobj(wbits=31)
    rest: bytes | memoryview = data
    try:
        while not engine.eof:
            piece = engine.decompress(rest, OUTPUT_STEP)
            rest = engine.unconsumed_tail
            if not piece and not rest:
                break
            yield piece
    except zlib.error as error:
        raise ValueError(str(error)) from None
    if not engine.eof:
        raise ValueError("it is cut short")
    if engine.unused_data:
        raise ValueError("something follows it")


def _unzstd(data: memoryview) -> Iterator[bytes]:
    try:
        import zstandard
    except ImportError:
        raise MissingExtra("zstandard", "serve", "reading zstd bodies") from None
    # A frame may ask for a window of gigabytes: what it may need is bounded before it is read.
    engine = zstandard.ZstdDecompressor(max_window_size=LARGEST_WINDOW)
    try:
        with engine.stream_reader(data, read_across_frames=False, closefd=False) as reader:
            while piece := reader.read(OUTPUT_STEP):
                yield piece
        _check_zstd_end(data)
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from None


LARGEST_WINDOW = 1 << 27
"""The largest window of zstd that `--long` of its command line makes by default."""


def _check_zstd_end(data: memoryview) -> None:
    """Walk over the blocks of the frame (RFC 8878, 3.1.1) to its end.

    `stream_reader` takes a frame that is cut short for one that ends.
    """
    import zstandard

    place = zstandard.frame_header_size(data)
    last = False
    while not last:
        head = int.from_bytes(data[place : place + 3], "little")
        if place + 3 > len(data):
            raise ValueError("it is cut short")
        last, kind, size = bool(head & 1), head >> 1 & 3, head >> 3
        place += 3 + (1 if kind == RUN_LENGTH_BLOCK else size)
    place += 4 if zstandard.get_frame_parameters(data).has_checksum else 0
    if place > len(data):
        raise ValueError("it is cut short")
    if place < len(data):
        raise ValueError("something follows it")


RUN_LENGTH_BLOCK = 1
"""A block that holds one byte, and how often it comes."""


_DECOMPRESSORS: dict[str, Callable[[memoryview], Iterator[bytes]]] = {
    "gzip": _gunzip,
    "zstd": _unzstd,
}
