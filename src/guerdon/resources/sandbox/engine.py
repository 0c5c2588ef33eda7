"""What confines a program: the two engines share this form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from guerdon.resources.sandbox.command import Command
from guerdon.resources.sandbox.files import Blobs
from guerdon.resources.sandbox.limits import Limits

SEARCH_PATH = "/usr/local/bin:/usr/bin:/bin"

NOBODY = 65534
"""The user that owns nothing (`nobody`, and the kernel's overflow user)."""


SEVERAL_PROCESSES = "without cgroups, memory beyond one process is found by looking every 50 ms"
KERNEL_MEMORY = "memory that the kernel holds for pipes, sockets and mappings is not counted"
"""What no engine keeps."""

ENTRY_BYTES = 4096
"""What each file and folder counts as, however small: the kernel keeps memory for it."""

UNMEASURED = 1 << 62
"""The size of a folder that cannot be looked into."""


class Plan(msgspec.Struct, frozen=True):
    """How one confined program is started, watched and cleaned up after.

    Attributes:
        argv: what to start; it reports on the status descriptor, one JSON object per line:
            `{"child-pid": n}`, and `{"exit-code": n}` once the program was really started.
        descriptors: what it inherits.
        disk_bytes: measures what the private folders hold beyond what the kernel bounds; gets the
            root of the tree of processes.
        release: removes what the run left on the host.
    """

    argv: tuple[str, ...]
    descriptors: tuple[int, ...]
    disk_bytes: Callable[[int], int]
    release: Callable[[], None]


class Engine(Protocol):
    """A way to confine a program."""

    @property
    def name(self) -> str:
        """What it is called."""
        ...

    @property
    def guarantees(self) -> tuple[str, ...]:
        """What holds for every program that it runs, in words."""
        ...

    @property
    def weaknesses(self) -> tuple[str, ...]:
        """What it does not keep, in words."""
        ...

    @property
    def kills_tree(self) -> bool:
        """Whether the end of what is started ends all its descendants by itself."""
        ...

    def plan(self, command: Command, limits: Limits, blobs: Blobs, status: int) -> Plan:
        """How to start a command.

        Args:
            command: what to run.
            limits: what it may use.
            blobs: receives what travels in memory.
            status: the descriptor to report on.

        Raises:
            OSError: the host lacks space, memory or descriptors.
        """
        ...


def environment(command: Command, folder: str) -> dict[str, str]:
    """All that a sandboxed program has in its environment."""
    return {
        "PATH": SEARCH_PATH,
        "HOME": folder,
        "TMPDIR": folder,
        "LANG": "C.UTF-8",
        **command.environment,
    }
