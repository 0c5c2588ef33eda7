"""What a sandboxed program may use."""

from __future__ import annotations

import math
import resource
from collections.abc import Callable
from typing import Literal, TypeAlias, get_args

import msgspec
from msgspec.structs import replace

MemoryBy: TypeAlias = Literal["address_space", "data"]

MIB = 1 << 20

MOST_SECONDS = 30 * 24 * 3600
MOST_BYTES = 1 << 50
MOST_PROCESSES = 1 << 22
"""PID_MAX_LIMIT of linux/threads.h."""

OWN_PROCESSES = 2
"""Processes of bubblewrap that count against the program's limit."""

HARD_SECONDS = 1
"""How long after its first warning a program that used its processor time is killed."""

CORE_BYTES = 1
"""No core file fits, and with this limit the kernel starts no program of the host that takes cores;
with 0 it does (core(5), fs/coredump.c)."""

RANGES = {
    # the least that starts a program, and the most that is no mistake and fits the kernel's numbers
    "wall_seconds": (0.001, MOST_SECONDS),
    "cpu_seconds": (1, MOST_SECONDS),
    "memory_bytes": (MIB, MOST_BYTES),
    "processes": (1, MOST_PROCESSES),
    "file_bytes": (1, MOST_BYTES),
    "disk_bytes": (1, MOST_BYTES),
    "open_files": (8, 1 << 20),
    "output_bytes": (1, 1 << 40),
}


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of one run.

    Attributes:
        wall_seconds: after this time the whole process tree is killed.
        cpu_seconds: processor time of each process; None is the wall time, rounded up.
        memory_bytes: memory of all processes together.
        memory_by: what the kernel counts for each process: `address_space` is strict; `data`
            leaves out what is only reserved, for runtimes such as Node that reserve gigabytes.
        processes: processes and threads at one time.
        file_bytes: size of one file.
        disk_bytes: size of the private folder, all files together.
        open_files: open files of each process.
        output_bytes: what is kept of each of standard output and standard error; a program that
            writes more is ended.

    Raises:
        ValueError: a limit that is no number, or outside `RANGES`.

    Example:
        >>> Limits(wall_seconds=2.5).processor_seconds
        3
        >>> Limits(wall_seconds=0)
        Traceback (most recent call last):
        ValueError: wall_seconds must be a number from 0.001 to 2592000, got 0
    """

    wall_seconds: float = 10.0
    cpu_seconds: int | None = None
    memory_bytes: int = 1024 * MIB
    memory_by: MemoryBy = "address_space"
    processes: int = 64
    file_bytes: int = 64 * MIB
    disk_bytes: int = 64 * MIB
    open_files: int = 256
    output_bytes: int = MIB

    def __post_init__(self) -> None:
        for name, (least, most) in RANGES.items():
            value: object = getattr(self, name)
            if name == "cpu_seconds" and value is None:
                continue
            whole = name != "wall_seconds"
            if (
                isinstance(value, bool)
                or not isinstance(value, int if whole else (int, float))
                or not least <= value <= most
            ):
                number = "a whole number" if whole else "a number"
                raise ValueError(f"{name} must be {number} from {least} to {most}, got {value!r}")
        if self.memory_by not in get_args(MemoryBy):
            known = " or ".join(map(repr, get_args(MemoryBy)))
            raise ValueError(f"memory_by must be {known}, got {self.memory_by!r}")

    def within(self, limits: Callable[[int], tuple[int, int]] = resource.getrlimit) -> Limits:
        """These limits, lowered to what this process may give: nobody may raise a hard limit.

        Args:
            limits: gives the soft and the hard limit of this process, as `resource.getrlimit`.
        """
        memory = resource.RLIMIT_AS if self.memory_by == "address_space" else resource.RLIMIT_DATA
        lowered: dict[str, int] = {}
        for name, number, room in (
            ("memory_bytes", memory, 0),
            ("processor_seconds", resource.RLIMIT_CPU, HARD_SECONDS),
            ("processes", resource.RLIMIT_NPROC, OWN_PROCESSES),
            ("file_bytes", resource.RLIMIT_FSIZE, 0),
            ("open_files", resource.RLIMIT_NOFILE, 0),
        ):
            hard = limits(number)[1]
            if hard != resource.RLIM_INFINITY and getattr(self, name) + room > hard:
                lowered[name] = max(1, hard - room)
        if "processor_seconds" in lowered:
            lowered["cpu_seconds"] = lowered.pop("processor_seconds")
        return replace(self, **lowered) if lowered else self

    @property
    def processor_seconds(self) -> int:
        """Whole seconds of processor time of each process, as the kernel counts them."""
        return self.cpu_seconds or math.ceil(self.wall_seconds)

    @property
    def arguments(self) -> list[str]:
        """The limits as options of `prlimit` (util-linux), with what bubblewrap itself needs."""
        memory = "as" if self.memory_by == "address_space" else "data"
        cpu = self.processor_seconds
        return [
            f"--{memory}={self.memory_bytes}",
            f"--cpu={cpu}:{cpu + HARD_SECONDS}",
            f"--nproc={self.processes + OWN_PROCESSES}",
            f"--fsize={self.file_bytes}",
            f"--nofile={self.open_files}",
            f"--core={CORE_BYTES}",
        ]
