"""The first engine: bubblewrap with namespaces of its own, under an unprivileged user."""

from __future__ import annotations

import contextlib
import os
from functools import cached_property
from pathlib import Path, PurePosixPath

from guerdon.resources.sandbox.command import Command
from guerdon.resources.sandbox.engine import (
    ENTRY_BYTES,
    KERNEL_MEMORY,
    NOBODY,
    SEVERAL_PROCESSES,
    Plan,
    environment,
)
from guerdon.resources.sandbox.files import Blobs
from guerdon.resources.sandbox.limits import MIB, Limits
from guerdon.resources.sandbox.seccomp import build_filter
from guerdon.resources.sandbox.tree import descendants

FOLDER = "/tmp"

SHARED_MEMORY_BYTES = 8 * MIB
"""Size of /dev/shm."""

ETC = ("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives")
"""All of /etc that programs need: the loader's cache, and the links of compilers."""

ROOT_FOLDERS = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")


class Bubblewrap:
    """Runs programs in new user, mount, process, network, IPC and host name namespaces.

    Args:
        bwrap: the program bubblewrap.
        prlimit: the program prlimit, as the sandbox sees it.
        setpriv: the program setpriv; needed as root, because limits of processes do not hold for
            root.
        proc: whether a process file system can be mounted; some containers forbid it.
    """

    name = "bubblewrap"
    guarantees = (
        "runs as nobody, or as an unprivileged user in a user namespace without capabilities",
        "sees /usr and the loader's cache read-only, and one private folder of bounded size",
        "sees no process and no network of the host, and shares no memory with it",
        "has no environment but PATH, HOME, TMPDIR and LANG",
        "system calls that attack a kernel end it",
        "memory, processes, processor time, files and output are bounded",
        "the kernel ends its whole process tree with it, and with this process",
    )
    weaknesses = (
        "the kernel is shared with the host, and what /proc says of it and of the hardware is seen",
        KERNEL_MEMORY,
        SEVERAL_PROCESSES,
    )
    kills_tree = True

    def __init__(self, bwrap: str, prlimit: str, setpriv: str | None, *, proc: bool = True) -> None:
        self._bwrap = bwrap
        self._prlimit = prlimit
        self._setpriv = setpriv
        self._proc = proc

    def plan(self, command: Command, limits: Limits, blobs: Blobs, status: int) -> Plan:
        """See `Engine.plan`."""
        seccomp = blobs.add(build_filter(own_namespaces=True))
        argv = [
            *self._become_nobody,
            self._bwrap,
            *self._namespaces,
            "--json-status-fd",
            str(status),
            "--seccomp",
            str(seccomp),
            *_environment(command),
            *self._root,
            *_private(limits),
            *_readable(command),
            *_files(command, blobs),
            "--remount-ro",
            "/",
            "--chdir",
            FOLDER,
            "--",
            self._prlimit,
            *limits.arguments,
            "--",
            *command.argv,
        ]
        descriptors = (status, *blobs.descriptors, *command.descriptors)
        return Plan(tuple(argv), descriptors, _entries, _nothing)

    @cached_property
    def _become_nobody(self) -> list[str]:
        if os.geteuid() != 0 or self._setpriv is None:
            return []
        ids = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        return [self._setpriv, *ids, "--no-new-privs"]

    @cached_property
    def _namespaces(self) -> list[str]:
        return [
            "--unshare-user",
            "--unshare-pid",
            "--unshare-net",
            "--unshare-ipc",
            "--unshare-uts",
            "--unshare-cgroup-try",
            "--hostname",
            "sandbox",
            "--die-with-parent",
            "--new-session",
            "--cap-drop",
            "ALL",
        ]

    @cached_property
    def _root(self) -> list[str]:
        """A root of its own: nothing of the host but programs and libraries, read-only."""
        root = ["--ro-bind", "/usr", "/usr"]
        for name in ROOT_FOLDERS:
            path = Path("/", name)
            if path.is_symlink():
                root += ["--symlink", os.readlink(path), str(path)]
            elif path.is_dir():
                root += ["--ro-bind", str(path), str(path)]
        for path in ETC:
            root += ["--ro-bind-try", path, path]
        return root + (["--proc", "/proc", "--remount-ro", "/proc"] if self._proc else [])


def _environment(command: Command) -> list[str]:
    arguments = ["--clearenv"]
    for key, value in environment(command, FOLDER).items():
        arguments += ["--setenv", key, value]
    return arguments


def _readable(command: Command) -> list[str]:
    arguments: list[str] = []
    for path in command.readable:
        if not path.startswith("/usr/"):
            arguments += ["--ro-bind", path, path]
    return arguments


def _private(limits: Limits) -> list[str]:
    """Devices that cannot be added to, and a folder of bounded size."""
    return [
        "--dev",
        "/dev",
        # It gives zeros without end, too, but cannot be mapped: see `seccomp.build_filter`.
        "--dev-bind",
        "/dev/full",
        "/dev/zero",
        "--size",
        str(SHARED_MEMORY_BYTES),
        "--tmpfs",
        "/dev/shm",
        "--remount-ro",
        "/dev",
        "--size",
        str(limits.disk_bytes),
        "--tmpfs",
        FOLDER,
    ]


def _files(command: Command, blobs: Blobs) -> list[str]:
    arguments: list[str] = []
    for name, data in command.files.items():
        path = str(PurePosixPath(FOLDER, name))
        arguments += ["--perms", "0755", "--file", str(blobs.add(data)), path]
    return arguments


def _entries(pid: int) -> int:
    """What the files of a sandbox count as; the kernel bounds their bytes, but not how many."""
    found = [_entries_of(f"/proc/{member}/root") for member in descendants(pid)]
    return max(found, default=0)


def _entries_of(root: str) -> int:
    total = 0
    for folder in (FOLDER, "/dev/shm"):
        # One that has just started still sees the host's folders.
        with contextlib.suppress(OSError):
            if os.stat(root + folder).st_dev != _device(folder):
                found = os.statvfs(root + folder)
                total += (found.f_files - found.f_ffree) * ENTRY_BYTES
    return total


def _device(folder: str) -> int | None:
    """Of a folder of the host, which need not be there."""
    with contextlib.suppress(OSError):
        return os.stat(folder).st_dev
    return None


def _nothing() -> None:
    """The kernel has removed everything."""
