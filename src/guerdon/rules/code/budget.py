"""What one program may use while it is tested."""

from __future__ import annotations

import math
from functools import lru_cache

import msgspec

from guerdon.errors import InvalidReward
from guerdon.resources.sandbox import Limits, Sandbox
from guerdon.resources.sandbox.probe import EngineName

MIB = 1 << 20

GRACE_SECONDS = 5.0
"""For the sandbox's own start and end, beyond what the program may take."""


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of one program over all its cases.

    Attributes:
        case_seconds: a case that takes longer ends the program: a loop costs this once. Loading a
            Python program counts as a case.
        program_seconds: all cases together, and compiling.
        memory_mib: memory of the program.
        output_mib: most output of one case.
        processes: processes and threads of the program.
        packages: folders of the host from which Python programs and tests may import.
        usual_imports: whether a Python program gets the names that it does not import itself and
            that graders of contests bring: `inside/usual.py` lists them.
        engine: see `Sandbox`.

    Raises:
        InvalidReward: a limit that is not positive.
    """

    case_seconds: float = 5.0
    program_seconds: float = 30.0
    memory_mib: int = 512
    output_mib: float = 4
    processes: int = 32
    packages: tuple[str, ...] = ()
    usual_imports: bool = True
    engine: EngineName = "auto"

    def __post_init__(self) -> None:
        for name in ("case_seconds", "program_seconds", "memory_mib", "output_mib", "processes"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise InvalidReward(f"{name} must be above 0 and finite, got {value}")
        for path in self.packages:
            if not path.startswith("/"):
                raise InvalidReward(f"packages holds {path!r}, which is no absolute path")

    @property
    def sandbox(self) -> Sandbox:
        """The sandbox of this process; made when first used, never carried to another process."""
        return sandbox_of(self.engine)

    @property
    def output_bytes(self) -> int:
        """Most output of one case."""
        return int(self.output_mib * MIB)

    def limits(self, cases: int = 1, memory_by: str = "address_space") -> Limits:
        """Limits of a sandbox that runs all cases.

        Args:
            cases: how many outputs may come back.
            memory_by: see `Limits`.
        """
        seconds = 2 * self.program_seconds + GRACE_SECONDS
        return Limits(
            wall_seconds=seconds,
            cpu_seconds=math.ceil(seconds),
            memory_bytes=self.memory_mib * MIB,
            memory_by="data" if memory_by == "data" else "address_space",
            processes=self.processes,
            file_bytes=self.output_bytes + MIB,
            disk_bytes=4 * self.output_bytes + 64 * MIB,
            output_bytes=(self.output_bytes + MIB) * cases + MIB,
        )


@lru_cache(maxsize=4)
def sandbox_of(engine: EngineName) -> Sandbox:
    """One sandbox for each engine and process."""
    return Sandbox(engine)
