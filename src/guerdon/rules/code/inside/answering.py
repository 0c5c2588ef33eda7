"""Holds a candidate's program and answers calls of it; runs in the candidate's own sandbox.

It never sees a test or an expected value, only arguments. Whatever the program does to this
process, it can do no more than answer calls wrongly.
"""

from __future__ import annotations

import importlib
import operator
import sys

from guerdon.rules.code.inside.peer import (
    Gone,
    Peer,
    built_in_base,
    is_class_of,
    operate,
    raised,
    scale,
)
from guerdon.rules.code.inside.usual import add_ends, lend, names_in
from guerdon.rules.code.inside.values import KNOWN, OWNED, encode, job, send

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing `typing` would take longer than starting Python
    from collections.abc import Callable
    from typing import Any

MODULE = "solution"


class Answers(Peer):
    """The program's names and objects, and what is asked of them.

    Args:
        work: `preamble`, `given` and `code` are run in this order; `given` are statements of the
            tests' set-up; `drop` are names of the first two that the code has to define itself;
            `usual` says whether it gets the usual names; `packages` are folders to import from.
    """

    def __init__(self, work: dict[str, Any]) -> None:
        super().__init__(work["channel"], OWNED)
        self._work = work
        self._module: Any = type(sys)(MODULE)
        self._brought: dict[str, Any] = {}

    def prepare(self) -> None:
        """Run what is not the program's: a fault in it is one of the data."""
        sys.modules[MODULE] = self._module
        sys.path.extend(self._work["packages"])
        space = self._module.__dict__
        exec(compile(self._work["preamble"], "<preamble>", "exec", dont_inherit=True), space)
        for name in self._work["drop"]:
            space.pop(name, None)

    def load(self, names: list[str]) -> list[str]:
        """Run the program; returns which of the names it has."""
        space = self._module.__dict__
        code = compile(self._work["code"], "<solution>", "exec", dont_inherit=True)
        before = dict(space)
        self._give(names_in(code), space)
        if self._work["usual"]:
            lend(code, space)
        for name in self._work["drop"]:
            space.pop(name, None)
        self._brought = {name: space[name] for name in space.keys() - before}
        add_ends()
        exec(code, space)
        return [name for name in names if self._has(name)]

    def _give(self, mentioned: set[str], space: dict[str, Any]) -> None:
        """Run what the program may use of the set-up, unless it names nothing of it.

        The tests run it, too, so what does not run here waits for names of the program.
        """
        codes = [compile(s, "<setup>", "exec", dont_inherit=True) for s in self._work["given"]]
        if all(mentioned.isdisjoint(names_in(code)) for code in codes):
            return
        for code in codes:
            try:  # noqa: SIM105 - contextlib takes long to import
                exec(code, space)
            except Exception:
                pass

    def _has(self, name: str) -> bool:
        """Whether the program, and not what it was given, has a name."""
        space = self._module.__dict__
        if name in self._brought and space.get(name) is self._brought[name]:
            return False
        return name in space or hasattr(space.get("Solution"), name)

    def resolve(self, tag: bytes, number: Any) -> Any:
        """An object of this side, a stand-in, or what the tests named."""
        if tag != KNOWN:
            return super().resolve(tag, number)
        module, _, name = number.partition(":")
        found = importlib.import_module(module)
        return operator.attrgetter(name)(found) if name else found

    def named(self, name: str) -> Any:
        """A global of the program, or a method of its class Solution."""
        space: dict[str, Any] = self._module.__dict__
        return space[name] if name in space else getattr(space["Solution"](), name)

    def answer(self, request: Any) -> bytes:
        """Do what is asked; an exception is an answer, too."""
        try:
            return encode(("value", self._do(request)), self.remember)
        except Gone:
            raise
        except BaseException as error:
            return raised(error)

    def _do(self, request: Any) -> Any:
        what, target = request[0], request[1]
        if what == "prepare":
            return self.prepare()
        if what == "load":
            return self.load(target)
        thing: Any = self.named(target) if isinstance(target, str) and what in NAMED else target
        if what == "call":
            value = thing(*request[2], **request[3])
            return (value, request[2]) if request[4] else value
        if what == "get" and isinstance(thing, type(sys)):
            raise TypeError("a module is no part of a solution")
        return OPERATIONS[what](thing, *request[2:])


NAMED = ("call", "get")
"""What may be asked about a name."""


def _itself(thing: Any) -> Any:
    return thing


OPERATIONS: dict[str, Callable[..., Any]] = {
    "get": _itself,
    "attribute": getattr,
    "set": setattr,
    "iterate": iter,
    "next": next,
    "length": len,
    "item": operator.getitem,
    "set item": operator.setitem,
    "delete item": operator.delitem,
    "truth": bool,
    "hash": hash,
    "operator": operate,
    "scaled": scale,
    "is class of": is_class_of,
    "exception": built_in_base,
    "text": str,
    "form": repr,
}


def main() -> None:
    """Answer until nobody asks."""
    work = job()
    answers = Answers(work)
    while True:
        try:
            request = answers.next()
        except EOFError:
            return
        send(work["channel"], answers.answer(request))


if __name__ == "__main__":
    main()
