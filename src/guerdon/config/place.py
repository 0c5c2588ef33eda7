"""Where a value of a configuration stands, so that every complaint can say so."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias

import msgspec

from guerdon.errors import ConfigError, nearest

Key: TypeAlias = str | int
Lines: TypeAlias = Mapping[tuple[Key, ...], int]


class Place(msgspec.Struct, frozen=True):
    """A value's place: file, line and dotted path.

    Attributes:
        source: name of the file, or "" for a mapping made in Python.
        keys: path from the top.
        lines: line of each path, 1-based; empty for a mapping made in Python.

    Example:
        >>> str(Place("r.yaml", ("reward", "rewards", 0), {("reward",): 3}))
        'r.yaml:3: reward.rewards[0]'
    """

    source: str = ""
    keys: tuple[Key, ...] = ()
    lines: Lines = msgspec.field(default_factory=dict[tuple[Key, ...], int])

    def __str__(self) -> str:
        line = self.line
        where = f"{self.source}:{line}" if line and self.source else self.source
        return ": ".join(part for part in (where, dotted(self.keys)) if part)

    @property
    def line(self) -> int | None:
        """The line of the value, or of the nearest thing around it that has one."""
        for end in range(len(self.keys), -1, -1):
            found = self.lines.get(self.keys[:end])
            if found is not None:
                return found
        return None

    def child(self, *keys: Key) -> Place:
        """The place of what a mapping or list holds."""
        return Place(self.source, (*self.keys, *keys), self.lines)

    def error(self, message: str) -> ConfigError:
        """A complaint about this place."""
        where = str(self)
        return ConfigError(f"{where}: {message}" if where else message)

    def unknown(self, key: str, known: Iterable[str], what: str = "key") -> ConfigError:
        """A complaint about a key that nothing here has, with the nearest that something has."""
        allowed = list(known)
        hint = nearest(key, allowed) or f"; known: {', '.join(allowed) or 'none'}"
        return self.child(key).error(f"unknown {what} {key!r}{hint}")


def dotted(keys: Iterable[Key]) -> str:
    """A path as people write it.

    Example:
        >>> dotted(("a", 0, "b c"))
        "a[0]['b c']"
    """
    text = ""
    for key in keys:
        if isinstance(key, int):
            text += f"[{key}]"
        elif key.replace("_", "a").replace("-", "a").isalnum():
            text += f".{key}" if text else key
        else:
            text += f"[{key!r}]"
    return text
