"""A process and all its descendants: what they use, and their end.

Reads /proc. A process that ends meanwhile is simply not there.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import NamedTuple

KILL_ROUNDS = 200
"""How often a tree is killed until nothing of it is left; a fork bomb takes several rounds."""


MEMORY_FIELDS = ("RssAnon:", "RssShmem:", "VmSwap:", "VmPTE:", "HugetlbPages:")
"""What counts of /proc/PID/status."""

SHARES = ("Pss_Anon:", "Pss_Shmem:", "SwapPss:", "Shared_Hugetlb:", "Private_Hugetlb:")
"""What counts of /proc/PID/smaps_rollup: what processes share is divided among them."""

MOST_MAPPINGS = 1 << 17
"""More mappings than this, in a whole tree, take too long to look at."""


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def _fields(path: str, names: tuple[str, ...]) -> int:
    """Bytes of some fields together; other lines hold text of the program's choice."""
    return sum(
        int(line.split()[1]) * 1024 for line in _read(path).split("\n") if line.startswith(names)
    )


def descendants(pid: int) -> list[int]:
    """All descendants of a process, parents first."""
    found: list[int] = []
    open_pids = [pid]
    while open_pids:
        children = _children(open_pids.pop())
        found += children
        open_pids += children
    return found


def _children(pid: int) -> list[int]:
    children: list[int] = []
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):
                text = _read(f"/proc/{pid}/task/{task}/children")
                children += map(int, text.split())
    return children


def _tasks(pid: int) -> list[str]:
    """The folders of the threads of a process; its first one may have ended long before it."""
    with contextlib.suppress(OSError):
        return [f"/proc/{pid}/task/{task}" for task in os.listdir(f"/proc/{pid}/task")]
    return []


def memory_bytes(pid: int, enough: int) -> int:
    """Memory that a process and its descendants have written to, and its tables of pages.

    Args:
        pid: the root of the tree.
        enough: above this, what processes share counts once; that takes long to find out, so below
            it counts for each.
    """
    members = [pid, *descendants(pid)]
    used = sum(map(_memory, members))
    return used if used <= enough else sum(map(_share, members))


def _memory(pid: int) -> int:
    return _of_one_task(pid, "status", MEMORY_FIELDS)


def _share(pid: int) -> int:
    """As `_memory`, but its share of what several have; where the kernel tells it."""
    share = _of_one_task(pid, "smaps_rollup", SHARES)
    return share + _of_one_task(pid, "status", ("VmPTE:",)) if share else _memory(pid)


def _of_one_task(pid: int, file: str, names: tuple[str, ...]) -> int:
    """Some fields of a thread that lives: all have the same memory."""
    for task in _tasks(pid):
        with contextlib.suppress(OSError, ValueError, IndexError):
            if found := _fields(f"{task}/{file}", names):
                return found
    return 0


def deleted_bytes(pid: int, folder: str) -> int | None:
    """Bytes of files of a folder that have no name any more, but that descendants still hold.

    Args:
        pid: the root of the tree.
        folder: its absolute path.

    Returns:
        None where there are more mappings than can be looked at.
    """
    device = os.stat(folder).st_dev
    sizes: dict[int, int] = {}
    mappings = 0
    for member in descendants(pid):
        lines: list[str] = []
        for task in _tasks(member):  # each may have open files of its own
            with contextlib.suppress(OSError):
                for name in os.listdir(f"{task}/fd"):
                    with contextlib.suppress(OSError):
                        found = os.stat(f"{task}/fd/{name}")
                        if found.st_dev == device and found.st_nlink == 0:
                            sizes[found.st_ino] = found.st_blocks * 512
            with contextlib.suppress(OSError):
                lines = lines or _read(f"{task}/maps").split("\n")
        mappings += len(lines)
        if mappings > MOST_MAPPINGS:
            return None
        for line in lines:
            if line.endswith(" (deleted)") and f" {folder}/" in line:
                place, _, _, _, inode, *_ = line.split(maxsplit=5)
                first, last = (int(end, 16) for end in place.split("-"))
                sizes[int(inode)] = max(sizes.get(int(inode), 0), last - first)
    return sum(sizes.values())


class Threads(NamedTuple):
    """The threads of a process and its descendants at one moment.

    Attributes:
        wanting: how many run or wait for a processor.
        waited: seconds that each has waited for one in its life, by its number.
    """

    wanting: int
    waited: dict[int, float]


def threads(pid: int) -> Threads:
    """Look at all threads; one that vanishes meanwhile was running."""
    wanting = 0
    waited: dict[int, float] = {}
    for member in (pid, *descendants(pid)):
        try:
            tasks = os.listdir(f"/proc/{member}/task")
        except OSError:
            wanting += 1
            continue
        for task in tasks:
            folder = f"/proc/{member}/task/{task}"
            try:
                wanting += _state(folder) in "RX"
                waited[int(task)] = int(_read(f"{folder}/schedstat").split()[1]) / 1e9
            except (OSError, ValueError, IndexError):
                wanting += 1
    return Threads(wanting, waited)


def _state(folder: str) -> str:
    """The letter of a process or thread: R runs or waits for a processor, Z has ended."""
    return _read(f"{folder}/stat").rpartition(")")[2].split()[0]


def kill_tree(pid: int) -> None:
    """Kill a child of this process and all its descendants, until none is left.

    It is stopped first: bubblewrap that is killed while it starts can leave its first process
    behind, which has not asked yet to end with it.
    """
    with contextlib.suppress(OSError):
        os.kill(pid, signal.SIGSTOP)
        os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
    kill_descendants(pid)
    with contextlib.suppress(OSError):
        os.kill(pid, signal.SIGKILL)


def kill_descendants(pid: int) -> None:
    """Kill all descendants of a process that adopts its orphans, until none is left."""
    seen: list[int] | None = None
    for round_number in range(KILL_ROUNDS):
        before, seen = seen, descendants(pid)
        found = [member for member in seen if _lives(member)]
        # What ends while it is looked at can have left a child. Nobody takes the dead away, so such
        # a child makes the next list longer: only two equal lists of dead are the end.
        if not found and seen == before:
            return
        if found:
            seen = None
        # Stopped first: what is stopped cannot fork while the others are killed.
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for member in found:
                with contextlib.suppress(OSError):
                    os.kill(member, number)
        if round_number:
            time.sleep(0.002)


def _lives(pid: int) -> bool:
    """Whether a thread of it does: the first may end, and leave the others running."""
    for task in _tasks(pid):
        with contextlib.suppress(OSError, IndexError):
            if _state(task) not in "ZX":
                return True
    return False
