"""Copies of the tests' objects, which a program is given in their place.

A program must not change what the tests compare with later. What it hands back unchanged is the
object of the tests itself, so that `f(x) is x` means what it says.
"""

from __future__ import annotations

import copy
import sys

from guerdon.rules.code.inside.usual import RECURSION

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing `typing` would take longer than starting Python
    from typing import Any

PLAIN = (type(None), bool, int, float, complex, str, bytes)

FORM = 4
"""Protocol of `__reduce_ex__`, the first that takes all objects apart."""


class Stale(Exception):
    """The objects are not as their copies any more: copies begin anew, and so must the message."""


class Copies:
    """Copies that belong together: what is one object for the tests is one for the program.

    A copy stands for its original as long as the program has changed none of them.
    """

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._memo: dict[int, Any] = {}
        self._pairs: dict[int, tuple[Any, Any]] = {}
        self._lent: dict[int, tuple[Any, Any]] = {}
        self._touched = False
        self._new = True

    def begin_message(self) -> None:
        """The tests may have changed their objects since the last message."""
        self._new = not self._memo

    def lend(self, thing: Any) -> Any:
        """A copy that is as the object is now: the one that the program has already, if it is.

        What cannot be copied is lent itself.

        Raises:
            Stale: it is another already; once for each message.
        """
        made = self._copy(thing)
        if made is thing:
            return thing
        if not self._new and not self._same([(thing, made)]):
            self._begin()
            raise Stale
        self._lent[id(made)] = (thing, made)
        return made

    def touch(self) -> None:
        """The program did something that may have changed a copy."""
        self._touched = True

    def original(self, thing: Any) -> Any:
        """The tests' object that a copy was made of; a copy itself where any has been changed."""
        pair = self._pairs.get(id(thing))
        if pair is None:
            return thing
        if self._touched:
            if not self._same([*self._lent.values()]):
                return thing
            self._touched = False
        return pair[0]

    def _copy(self, thing: Any) -> Any:
        """A copy of an object and what belongs to it, such as a long linked list."""
        limit = sys.getrecursionlimit()
        sys.setrecursionlimit(RECURSION)
        kept: list[Any] = self._memo.get(id(self._memo), [])
        known = len(kept)
        try:
            return copy.deepcopy(thing, self._memo)
        except TypeError:
            return thing
        finally:
            sys.setrecursionlimit(limit)
            kept = self._memo.get(id(self._memo), [])
            for old in kept[known:]:
                made = self._memo[id(old)]
                self._pairs[id(made)] = (old, made)

    def _same(self, todo: list[tuple[Any, Any]]) -> bool:
        """Whether copies are, with all that belongs to them, as their originals are."""
        seen: set[int] = set()
        while todo:
            one, other = todo.pop()
            if one is other or id(one) in seen:
                continue
            if type(one) is not type(other):
                return False
            if type(one) in PLAIN:
                if one != other:
                    return False
                continue
            pair = self._pairs.get(id(other))
            if pair is None or pair[0] is not one:
                return False
            seen.add(id(one))
            parts = _parts(one), _parts(other)
            if len(parts[0]) != len(parts[1]):
                return False
            todo += zip(*parts, strict=True)
        return True


def _parts(thing: Any) -> list[Any]:
    """What an object is made of, in order."""
    kind: type = thing.__class__
    if kind in (list, tuple):
        return [*thing]
    if kind in (set, frozenset):
        return sorted(thing, key=hash)
    if kind is dict:
        return [part for pair in thing.items() for part in pair]
    made, given, *rest = thing.__reduce_ex__(FORM)
    parts: tuple[Any, ...] = (*rest, None, None, None)
    state, items, pairs = parts[:3]
    found = [made, *given, *(items or ())]
    for pair in pairs or ():
        found += pair
    for held in _halves(state):
        found += _parts(held) if type(held) is dict else [held]
    return found


def _halves(state: Any) -> Any:
    """The attributes of an object, and those in slots."""
    return state if state.__class__ is tuple else (state,)
