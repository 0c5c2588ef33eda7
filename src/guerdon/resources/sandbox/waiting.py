"""How long a program waited for a processor that others had, as it cannot forge it.

What a tree of processes used cannot be counted from outside: a child whose parent ignores its end
vanishes with its time, and no kernel tells an unprivileged reader about it. So this looks at the
tree at moments that the program does not know, and believes in waiting only while the whole tree
wanted no more than one processor: then nobody but the machine can have made it wait. A program
whose own processes and threads crowd the machine is seen to do so at these moments, as a process
that burns a processor is alive while it does.
"""

from __future__ import annotations

from bisect import bisect_right

from guerdon.resources.sandbox import tree

HISTORY = 4096
"""Most changes that are remembered, the latest; several minutes of them."""


class Waiting:
    """Adds up the waiting of one tree of processes.

    Args:
        pid: the root of the tree.
        began: `time.monotonic()` when it started.
    """

    def __init__(self, pid: int, began: float) -> None:
        self._pids = [pid]
        self._waited: dict[int, float] | None = {}
        self._alone_since = began
        self._times = [began]
        self._totals = [0.0]

    def join(self, pid: int) -> None:
        """Look at another tree, too, from now on, and at both as if they were one.

        Args:
            pid: its root.
        """
        self._pids.append(pid)

    def look(self, now: float) -> None:
        """Look at the trees.

        Args:
            now: `time.monotonic()`.
        """
        found = [tree.threads(pid) for pid in self._pids]
        before = self._waited
        self._waited = {thread: waited for part in found for thread, waited in part.waited.items()}
        if sum(part.wanting for part in found) > 1:
            self._waited, self._alone_since = None, now
        elif before is not None:
            fresh = sum(_longest(part.waited, before) for part in found)
            self._add(min(fresh, now - self._alone_since), now)

    def _add(self, seconds: float, now: float) -> None:
        if seconds > 0:
            self._times.append(now)
            self._totals.append(self._totals[-1] + seconds)
            del self._times[:-HISTORY], self._totals[:-HISTORY]

    def since(self, moment: float) -> float:
        """Seconds of waiting that were seen after a moment.

        Args:
            moment: as `time.monotonic()` gave it.
        """
        return self._totals[-1] - self._totals[max(0, bisect_right(self._times, moment) - 1)]


def _longest(waited: dict[int, float], before: dict[int, float]) -> float:
    """The longest waiting of one thread since the look before."""
    # One that was not known then was born since, so all its waiting is new.
    return max((time - before.get(thread, 0.0) for thread, time in waited.items()), default=0.0)
