"""The second engine: Landlock, seccomp and resource limits, for containers without namespaces."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from guerdon.resources.sandbox.bubblewrap import ETC, ROOT_FOLDERS
from guerdon.resources.sandbox.bundle import as_source
from guerdon.resources.sandbox.command import Command
from guerdon.resources.sandbox.engine import (
    ENTRY_BYTES,
    KERNEL_MEMORY,
    SEVERAL_PROCESSES,
    UNMEASURED,
    Plan,
    environment,
)
from guerdon.resources.sandbox.files import Blobs
from guerdon.resources.sandbox.limits import CORE_BYTES, HARD_SECONDS, Limits
from guerdon.resources.sandbox.seccomp import build_filter
from guerdon.resources.sandbox.tree import deleted_bytes

DEVICES = ("/dev/null", "/dev/full", "/dev/random", "/dev/urandom")
ZEROS = "/dev/zero"
"""Can be read only: who may write can share memory by it that counts for nobody."""

CREATE_RULESET = 444
"""landlock_create_ruleset(2), on all machines."""


def landlock_version() -> int:
    """The version of Landlock that the kernel has; 0 without it."""
    libc = ctypes.CDLL(None)
    return max(0, int(libc.syscall(CREATE_RULESET, None, 0, 1)))


class Landlock:
    """Runs programs in a folder of their own on the host, without namespaces and without root.

    As root each run gets a user of its own that owns nothing else.

    Args:
        confine: False leaves Landlock and seccomp away; only resource limits hold then.
    """

    name = "landlock"
    kills_tree = False

    def __init__(self, *, confine: bool = True) -> None:
        self._confine = confine
        if not confine:
            self.name = "unsafe-without-isolation"

    @property
    def guarantees(self) -> tuple[str, ...]:
        """See `Engine`."""
        bounded = "memory, processes, processor time, files and output are bounded"
        if not self._confine:
            return (bounded,)
        return (
            "reads programs and libraries only, and writes in one folder only",
            "has no socket but pairs of its own, no IPC with others, and signals no process",
            "has no environment but PATH, HOME, TMPDIR and LANG",
            "system calls that attack a kernel end it",
            bounded,
        )

    @property
    def weaknesses(self) -> tuple[str, ...]:
        """See `Engine`."""
        if not self._confine:
            return ("nothing keeps a program from reading, changing and sending what its user may",)
        found = [
            "the kernel is shared with the host, and so are its process numbers and its clock",
            "names, sizes and times of the host's files can be seen, but not their contents",
            "its folder lies on the host's disk, and its size is looked at every 50 ms",
            "what runs on is found and killed by looking, not by the kernel",
            KERNEL_MEMORY,
            SEVERAL_PROCESSES,
        ]
        if os.geteuid() != 0:
            found.append("its processes count against the limit of the user that runs this process")
        if landlock_version() < 3:
            found.append("this kernel lets it empty files that its user may write")
        return tuple(found)

    def plan(self, command: Command, limits: Limits, blobs: Blobs, status: int) -> Plan:
        """See `Engine.plan`."""
        folder = tempfile.mkdtemp(prefix="guerdon-sandbox-")
        try:
            _write_files(folder, command)
            job = self._job(command, limits, folder, status)
        except BaseException:
            _remove(folder)
            raise
        descriptor = blobs.add(json.dumps(job).encode())
        source = as_source("guerdon.resources.sandbox.tree", "guerdon.resources.sandbox.launcher")
        return Plan(
            argv=(sys.executable, "-I", "-S", "-B", "-c", source, str(descriptor)),
            descriptors=(status, descriptor, *command.descriptors),
            disk_bytes=lambda pid: _held(pid, folder, limits.disk_bytes),
            release=lambda: _remove(folder),
        )

    def _job(self, command: Command, limits: Limits, folder: str, status: int) -> dict[str, object]:
        roots = [f"/{name}" for name in ROOT_FOLDERS]
        return {
            "argv": list(command.argv),
            "environment": environment(command, folder),
            "folder": folder,
            "status": status,
            "parent": os.getpid(),
            "limits": _limits(limits),
            "processes": limits.processes,
            "confine": self._confine,
            "readable": ["/usr", *roots, *ETC, ZEROS, *command.readable],
            "devices": list(DEVICES),
            "filter": build_filter(own_namespaces=False).hex() if self._confine else "",
        }


def _limits(limits: Limits) -> dict[str, tuple[int, int]]:
    memory = "RLIMIT_AS" if limits.memory_by == "address_space" else "RLIMIT_DATA"
    cpu = limits.processor_seconds
    return {
        memory: (limits.memory_bytes, limits.memory_bytes),
        "RLIMIT_CPU": (cpu, cpu + HARD_SECONDS),
        "RLIMIT_FSIZE": (limits.file_bytes, limits.file_bytes),
        "RLIMIT_NOFILE": (limits.open_files, limits.open_files),
        "RLIMIT_CORE": (CORE_BYTES, CORE_BYTES),
    }


def _write_files(folder: str, command: Command) -> None:
    for name, data in command.files.items():
        path = Path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(0o755)


def _held(pid: int, folder: str, enough: int) -> int:
    """Bytes and entries below a folder, with what has lost its name, counted until it is enough."""
    size = _size(folder, enough)
    if size > enough:
        return size
    deleted = deleted_bytes(pid, folder)
    return UNMEASURED if deleted is None else size + deleted


def _size(folder: str, enough: int) -> int:
    """Bytes and entries below a folder; `UNMEASURED` where it cannot be looked into.

    A program could hide files in a folder whose path is too long, or which only it may list. It
    could also make folders faster than they are counted.
    """
    total = 0
    open_folders = [folder]
    while open_folders and total <= enough:
        try:
            with os.scandir(open_folders.pop()) as entries:
                for entry in entries:
                    found = entry.stat(follow_symlinks=False)
                    total += ENTRY_BYTES + found.st_blocks * 512 // max(1, found.st_nlink)
                    if entry.is_dir(follow_symlinks=False):
                        open_folders.append(entry.path)
        except FileNotFoundError:
            continue  # it has just been removed; what else is there is found at the next look
        except OSError:
            return UNMEASURED
    return total


def _remove(folder: str) -> None:
    """Remove what a program left, however deep or locked it is; links are not followed."""
    with contextlib.suppress(OSError, RecursionError):
        shutil.rmtree(folder)
        return
    for tool in (["chmod", "-R", "u+rwx"], ["rm", "-rf"]):
        subprocess.run([*tool, "--", folder], capture_output=True, check=False)
