"""Which identifiers were seen before, with 8 bytes of memory each in the long run."""

from __future__ import annotations

from typing import Any

RECENT = 1 << 20
"""Identifiers that are held with their rows before they are packed."""
EARLIER = -1
"""Row of an identifier that was seen too long ago to know where."""


class Seen:
    """Remembers identifiers by their hashes (64 bits: two of ten million collide with p < 1e-5).

    Example:
        >>> seen = Seen()
        >>> seen.add("a", 0), seen.add("b", 1), seen.add("a", 2)
        (None, None, 0)
    """

    def __init__(self) -> None:
        self._recent: dict[int, int] = {}
        self._packed: list[Any] = []

    def add(self, identifier: str, row: int) -> int | None:
        """Note an identifier.

        Returns:
            The row that had it first, `EARLIER` where that is forgotten, or None where it is new.
        """
        key = hash(identifier)
        first = self._recent.get(key)
        if first is not None:
            return first
        if self._packed and self._was_packed(key):
            return EARLIER
        self._recent[key] = row
        if len(self._recent) >= RECENT:
            self._pack()
        return None

    def _was_packed(self, key: int) -> bool:
        for keys in self._packed:
            place = keys.searchsorted(key)
            if place < len(keys) and keys[place] == key:
                return True
        return False

    def _pack(self) -> None:
        """Sort the recent ones into an array; arrays of like size are merged, so few remain."""
        import numpy as np

        keys = np.sort(np.fromiter(self._recent, dtype=np.int64, count=len(self._recent)))
        self._recent = {}
        while self._packed and len(self._packed[-1]) <= 2 * len(keys):
            keys = np.sort(np.concatenate([self._packed.pop(), keys]), kind="stable")
        self._packed.append(keys)
