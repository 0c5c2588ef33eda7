"""Blocks of shared memory that carry media to a server on the same host.

A block is a file in memory that is written, used for one request, and then used again, because new
memory costs a page fault for every 4 KiB. A request that ends without a reply may still be read
by the server, so its block is removed and never written again. Blocks that a killed client left
behind are removed by the next one: an owner holds a lock on its files, which ends with it.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import secrets
import threading
import weakref
from collections.abc import Sequence

from guerdon.wire.frame import aligned
from guerdon.wire.protocol import SharedMemory

PREFIX = "guerdon-block-"
SIZES = 1 << 20
"""The size of a block is a multiple of this."""
KEPT_BYTES = 1 << 30
"""How much memory the blocks that are not in use may hold."""
MOST_PROBE_BYTES = 4096


class Block:
    """A file in memory, mapped for writing.

    Attributes:
        path: of the file.
        size: in bytes.
    """

    def __init__(self, directory: str, size: int) -> None:
        self.size = size
        self._descriptor, self.path = create_file(directory, size)
        self._map = mmap.mmap(self._descriptor, size)
        self._view = memoryview(self._map)

    def write(self, parts: Sequence[memoryview]) -> list[int]:
        """Lay parts one after another; returns where each begins."""
        import numpy as np

        offsets: list[int] = []
        end = 0
        target = np.frombuffer(self._view, np.uint8)
        for part in parts:
            start = aligned(end)
            end = start + part.nbytes
            # numpy copies without holding Python's one lock for long: it is a plain memcpy.
            target[start:end] = np.frombuffer(part, np.uint8)
            offsets.append(start)
        return offsets

    def remove(self) -> None:
        """Remove the file; what has mapped it keeps the memory for as long."""
        with contextlib.suppress(OSError):
            os.unlink(self.path)
        with contextlib.suppress(OSError):
            os.close(self._descriptor)
        with contextlib.suppress(BufferError):
            self._view.release()
            self._map.close()


def create_file(directory: str, size: int) -> tuple[int, str]:
    """A new file in memory with a lock that ends with this process: its descriptor and path.

    Raises:
        OSError: there is no such directory, or no room.
    """
    path = os.path.join(directory, f"{PREFIX}{os.getpid()}-{secrets.token_hex(8)}")
    flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # All of it now: a full memory is an error here, and would be a SIGBUS on writing.
        os.posix_fallocate(descriptor, 0, size)
    except BaseException:
        os.close(descriptor)
        os.unlink(path)
        raise
    return descriptor, path


class Blocks:
    """The blocks of one client in one directory; safe to use from any thread.

    Args:
        directory: where the server allows them.
        kept_bytes: how much memory the blocks that are not in use may hold.
    """

    def __init__(self, directory: str, kept_bytes: int = KEPT_BYTES) -> None:
        self.directory = directory
        self._kept_bytes = kept_bytes
        self._lock = threading.Lock()
        self._free: list[Block] = []
        self._used: set[Block] = set()
        self._finalize = weakref.finalize(self, _remove_all, self._free, self._used, os.getpid())
        _swept(directory)

    def take(self, size: int) -> Block | None:
        """A block of at least `size` bytes, the last used one first; None where memory is full."""
        with self._lock:
            fitting = [block for block in self._free if size <= block.size <= max(4 * size, SIZES)]
            block = fitting[-1] if fitting else None
            if block is not None:
                self._free.remove(block)
        if block is None:
            try:
                block = Block(self.directory, -(-max(size, 1) // SIZES) * SIZES)
            except OSError:
                return None
        with self._lock:
            self._used.add(block)
        return block

    def give_back(self, block: Block, *, answered: bool) -> None:
        """Say that a block is no longer needed.

        Args:
            block: that was taken.
            answered: whether the server has replied, so that it reads the block no more.
        """
        with self._lock:
            self._used.discard(block)
            held = sum(free.size for free in self._free)
            keep = answered and held + block.size <= self._kept_bytes
            if keep:
                self._free.append(block)
        if not keep:
            block.remove()

    def close(self) -> None:
        """Remove all blocks; idempotent."""
        self._finalize()


def _remove_all(free: list[Block], used: set[Block], owner: int) -> None:
    if os.getpid() != owner:  # a forked child has the objects but not the files
        return
    for block in [*free, *used]:
        block.remove()
    free.clear()
    used.clear()


def shares_memory(offer: SharedMemory | None) -> str | None:
    """The directory in which this process can lay blocks for a server, or None.

    The server has put a random text into a file of its memory: who reads it there is on its host,
    and in its mount namespace.
    """
    if offer is None or not offer.directories or offer.user != os.geteuid():
        return None
    try:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(offer.probe, flags)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        try:
            content = file.read(MOST_PROBE_BYTES)
        except OSError:
            return None
    directory = offer.directories[0]
    same = content == offer.content.encode() and os.access(directory, os.W_OK | os.X_OK)
    return directory if same else None


_known: set[str] = set()
_known_lock = threading.Lock()


def _swept(directory: str) -> None:
    """Remove, once per process, the blocks whose owner has ended."""
    with _known_lock:
        if directory in _known:
            return
        _known.add(directory)
    with contextlib.suppress(OSError), os.scandir(directory) as entries:
        stale = [e.path for e in entries if e.name.startswith(PREFIX)]
        for path in stale:
            _remove_stale(path)


def _remove_stale(path: str) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(path)
    except OSError:  # its owner lives, or it belongs to somebody else
        pass
    finally:
        os.close(descriptor)
