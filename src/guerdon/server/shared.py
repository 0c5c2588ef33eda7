"""Shared blocks: bytes that a client on this host has laid into a file in memory.

The client owns the files; this server opens them read-only, checks them each time, and removes
none. A file must lie below an allowed directory, without links on the way, be a regular file of the
server's own user, and be long enough. Who could shorten a mapped file, which would end this
process, is thus a user who could end it anyway.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import secrets
import stat
from collections.abc import Sequence

from guerdon.errors import MalformedMessage
from guerdon.wire.protocol import SharedBlock, SharedMemory

PROBE_PREFIX = "guerdon-probe-"


class SharedFiles:
    """Opens shared blocks.

    Args:
        directories: below which blocks may lie; none turns shared memory off.
    """

    def __init__(self, directories: Sequence[str]) -> None:
        self._roots = [os.path.realpath(path) for path in directories if os.path.isdir(path)]
        self._probe: SharedMemory | None = None

    @property
    def card(self) -> SharedMemory | None:
        """What clients are told; None where shared memory is off."""
        return self._probe

    def start(self) -> None:
        """Write the file by which clients see that they are on this host."""
        if not self._roots or self._probe is not None:
            return
        content = secrets.token_hex(16)
        path = os.path.join(self._roots[0], f"{PROBE_PREFIX}{os.getpid()}-{secrets.token_hex(4)}")
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW
        try:
            descriptor = os.open(path, flags, 0o600)
        except OSError:  # a read-only directory: no client could use it either
            self._roots = []
            return
        with os.fdopen(descriptor, "w") as file:
            file.write(content)
        self._probe = SharedMemory(
            directories=tuple(self._roots), probe=path, content=content, user=os.geteuid()
        )

    def stop(self) -> None:
        """Remove that file."""
        if self._probe is not None:
            with contextlib.suppress(OSError):
                os.unlink(self._probe.probe)
            self._probe = None

    def open(self, block: SharedBlock, size: int) -> memoryview:
        """The bytes of a block, read-only.

        Raises:
            MalformedMessage: the block is not where, whose or what it must be.
        """
        if not self._roots:
            raise MalformedMessage("this server takes no shared memory: send the bytes in a frame")
        path = os.path.abspath(block.file)
        if path != block.file or not path.isprintable() or not self._allows(path):
            allowed = ", ".join(self._roots)
            raise MalformedMessage(f"shared block {block.file!r} does not lie below {allowed}")
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise MalformedMessage(f"shared block {path!r}: {error.strerror}") from None
        try:
            _check(descriptor, path, block.offset + size)
            return _map(descriptor, block.offset, size)
        except OSError as error:
            raise MalformedMessage(f"shared block {path!r}: {error.strerror}") from None
        finally:
            os.close(descriptor)

    def _allows(self, path: str) -> bool:
        folder = os.path.realpath(os.path.dirname(path))
        if folder != os.path.dirname(path):
            return False
        return any(folder == root or folder.startswith(f"{root}{os.sep}") for root in self._roots)


def _check(descriptor: int, path: str, end: int) -> None:
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        raise MalformedMessage(f"shared block {path!r} is no regular file")
    if found.st_uid != os.geteuid():
        raise MalformedMessage(f"shared block {path!r} belongs to another user than the server")
    if found.st_size < end:
        raise MalformedMessage(f"shared block {path!r} has {found.st_size} bytes, not {end}")


def _map(descriptor: int, offset: int, size: int) -> memoryview:
    if size == 0:
        return memoryview(b"")
    start = offset - offset % mmap.ALLOCATIONGRANULARITY
    mapped = mmap.mmap(descriptor, offset + size - start, access=mmap.ACCESS_READ, offset=start)
    return memoryview(mapped)[offset - start :]
