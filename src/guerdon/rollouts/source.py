"""The bytes of an input: a file or standard input, decompressed, its kind known by its content.

File name suffixes are only hints. What is not seekable is read once, from front to end.
"""

from __future__ import annotations

import io
import os
import stat
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import msgspec

from guerdon.errors import MissingExtra
from guerdon.rollouts.misuse import Misuse

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

Kind: TypeAlias = Literal["json", "parquet"]

STDIN = "-"
GZIP_MAGIC = b"\x1f\x8b"
"""RFC 1952, section 2.3.1."""
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
"""RFC 8878, section 3.1.1, as it lies in the file."""
PARQUET_MAGIC = b"PAR1"
MAGIC_BYTES = 4
BLOCK = 1 << 20
"""Bytes of one read."""
COMPRESSED_BLOCK = 1 << 16
"""Bytes that are decompressed at once."""
_GZIP = 31
"""zlib's `wbits` for the largest window with a gzip header."""
FOREIGN = (".csv", ".tsv", ".arrow", ".feather", ".xlsx", ".pkl", ".pt", ".npz", ".safetensors")
"""Forms that are often tried and cannot be read."""
DAMAGED = (EOFError, OSError, zlib.error)
"""What reading a damaged or truncated stream raises."""


class Source(msgspec.Struct):
    """An open input.

    Attributes:
        name: for people.
        suffix: of the file, without a compression suffix; "" for standard input.
        kind: what the content is.
        stream: the decompressed bytes, from the start.
        path: of the file, where it lies there uncompressed and can be read from any place.
        size: bytes of the file as it lies on disk; None where that cannot be known.
        position: bytes of it that were read so far.
        delivered: bytes that those are when decompressed.
    """

    name: str
    suffix: str
    kind: Kind
    stream: io.BufferedReader
    path: str | None
    size: int | None
    position: Callable[[], int]
    delivered: Callable[[], int]

    def fraction(self, used: int) -> float | None:
        """Share of the input that some bytes of its content are; None where it is unknown.

        Args:
            used: bytes of the content. What was read ahead of them does not count.
        """
        if not self.size or not self.delivered():
            return None
        return min(1.0, used / self.delivered() * self.position() / self.size)

    def close(self) -> None:
        """Close the file."""
        self.stream.close()


def open_source(path: str) -> Source:
    """Open an input.

    Args:
        path: of a file, or `-` for standard input.

    Raises:
        Misuse: missing, unreadable, a directory, empty, or of a form that cannot be read.
        MissingExtra: zstd without the package that reads it.
    """
    name = "standard input" if path == STDIN else path
    try:
        raw = _open_raw(path)
    except FileNotFoundError:
        raise Misuse(f"no such file: {path}") from None
    except IsADirectoryError:
        raise Misuse(f"{path} is a directory: name one file in it") from None
    except OSError as error:
        raise Misuse(f"cannot read {path}: {error.strerror}") from None
    suffixes = [] if path == STDIN else [s.lower() for s in Path(path).suffixes]
    while suffixes and suffixes[-1] in (".gz", ".zst"):
        suffixes.pop()
    suffix = suffixes[-1] if suffixes else ""
    try:
        stream = _decompressed(_Counted(raw), name)
        head = stream.peek(MAGIC_BYTES)[:MAGIC_BYTES]
    except DAMAGED as error:
        raise Misuse(f"cannot read {name}: {describe_damage(error)}") from None
    if not head:
        raise Misuse(f"{name} is empty: there is nothing to score")
    if suffix in FOREIGN:
        raise Misuse(f"{name}: {suffix} files cannot be read; convert it to JSONL or Parquet")
    kind: Kind = "parquet" if head == PARQUET_MAGIC else "json"
    if kind == "json" and suffix == ".parquet":
        raise Misuse(f"{name} is no Parquet file: it does not start with PAR1")
    status = os.fstat(raw.fileno())
    size = status.st_size if stat.S_ISREG(status.st_mode) else None
    plain = path if size is not None and path != STDIN and not stream.compressed else None
    return Source(
        name,
        suffix,
        kind,
        stream,
        path=plain,
        size=size,
        position=lambda: stream.counted.count,
        delivered=lambda: stream.content.count,
    )


def describe_damage(error: BaseException) -> str:
    """What is wrong with a stream, in words.

    Example:
        >>> describe_damage(EOFError("Compressed file ended before the end-of-stream marker"))
        'the compressed data ends early: the file is truncated'
    """
    if isinstance(error, EOFError):
        return "the compressed data ends early: the file is truncated"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"the compressed data is damaged ({error})"


def _open_raw(path: str) -> io.FileIO:
    if path == STDIN:
        # A file object of its own: a thread that is still reading at exit then holds no lock of
        # `sys.stdin`.
        return io.FileIO(os.dup(0), "rb")
    return io.FileIO(path, "rb")


class _Counted(io.RawIOBase):
    """Raw bytes of a file, counted, with a look at the first ones."""

    def __init__(self, raw: io.FileIO) -> None:
        self._raw = raw
        self._head = b""
        self.count = 0
        while len(self._head) < MAGIC_BYTES:
            piece = raw.read(MAGIC_BYTES - len(self._head))
            if not piece:
                break
            self._head += piece
        self.magic = self._head

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        if self._head:
            taken = min(len(self._head), len(view))
            view[:taken] = self._head[:taken]
            self._head = self._head[taken:]
        else:
            taken = self._raw.readinto(view) or 0
        self.count += taken
        return taken

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Stream(io.BufferedReader):
    """A buffered reader that knows the raw bytes below the decompression."""

    def __init__(self, raw: _Counted | _Decompressed, counted: _Counted) -> None:
        super().__init__(raw, BLOCK)
        self.counted = counted
        self.content = raw
        self.compressed = raw is not counted


def _decompressed(counted: _Counted, name: str) -> _Stream:
    if counted.magic.startswith(GZIP_MAGIC):
        return _Stream(_Decompressed(counted, lambda: zlib.decompressobj(wbits=_GZIP)), counted)
    if counted.magic == ZSTD_MAGIC:
        zstandard = import_zstandard(f"reading {name}")
        return _Stream(
            _Decompressed(counted, lambda: zstandard.ZstdDecompressor().decompressobj()), counted
        )
    return _Stream(counted, counted)


class _Decompressed(io.RawIOBase):
    """The content of gzip members or zstd frames, one after another.

    Everything before damage is delivered; then every further read raises. (`gzip.GzipFile` loses
    what it had, and `zstandard`'s reader takes a truncated file for a whole one.)
    """

    def __init__(self, below: _Counted, new_frame: Callable[[], Any]) -> None:
        self._below = below
        self._new_frame = new_frame
        self._frame: Any = None
        self._ready = memoryview(b"")
        self._rest = b""
        self._damage: Exception | None = None
        self.count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        while not self._ready:
            if self._damage is not None:
                raise self._damage
            try:
                if not self._fill():
                    return 0
            except Exception as error:
                self._damage = error if isinstance(error, DAMAGED) else OSError(str(error))
        taken = min(len(self._ready), len(view))
        view[:taken] = self._ready[:taken]
        self._ready = self._ready[taken:]
        self.count += taken
        return taken

    def _fill(self) -> bool:
        """Decompress some more; False at the end."""
        piece = self._rest or self._below.read(COMPRESSED_BLOCK) or b""
        self._rest = b""
        if not piece:
            if self._frame is not None:
                raise EOFError
            return False
        if self._frame is None:
            piece = piece.lstrip(b"\0")  # padding after a gzip member
            if not piece:
                return True
            self._frame = self._new_frame()
        self._ready = memoryview(self._frame.decompress(piece))
        if self._frame.eof:
            self._rest = self._frame.unused_data
            self._frame = None
        return True

    def close(self) -> None:
        self._below.close()
        super().close()


def import_zstandard(purpose: str) -> Any:
    """The zstandard package.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import zstandard
    except ImportError:
        raise MissingExtra("zstandard", "zstd", purpose) from None
    return zstandard
