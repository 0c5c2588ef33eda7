"""A bounded memo: the most recently used entries stay."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

MAX_KEY_CHARS = 512
"""Longer texts are not remembered, so that a memo's size is bounded in bytes too."""


class Memo(Generic[K, V]):
    """A dictionary that drops its oldest entries; safe to use from several threads.

    Args:
        size: how many entries stay at most.

    Example:
        >>> memo: Memo[str, int] = Memo(2)
        >>> for key in "abc":
        ...     memo.put(key, ord(key))
        >>> memo.get("a"), memo.get("c"), len(memo)
        (None, 99, 2)
    """

    def __init__(self, size: int) -> None:
        self._size = size
        # Two generations instead of a linked list: reading is one dictionary lookup, and single
        # dictionary operations are atomic. An entry lives for at least half of `size` insertions.
        self._young: dict[K, V] = {}
        self._old: dict[K, V] = {}

    def get(self, key: K) -> V | None:
        """The value, or None."""
        found = self._young.get(key)
        if found is None:
            found = self._old.get(key)
            if found is not None:
                self.put(key, found)
        return found

    def put(self, key: K, value: V) -> None:
        """Remember a value that is not None."""
        young = self._young
        if len(young) >= max(1, self._size // 2):
            self._old = young
            self._young = young = {}
        young[key] = value

    def clear(self) -> None:
        """Forget everything."""
        self._young, self._old = {}, {}

    def __len__(self) -> int:
        return len(self._young.keys() | self._old.keys())
