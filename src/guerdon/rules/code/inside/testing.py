"""Runs the tests of a dataset against a program in another sandbox, and reports case by case.

The tests call stand-ins; a call travels to the program's process as plain values, and what it
returns comes back as plain values, so every comparison happens here, on objects of built-in types.
"""

from __future__ import annotations

import builtins
import importlib
import operator
import sys

from guerdon.rules.code.inside.copies import Copies, Stale
from guerdon.rules.code.inside.peer import (
    NEVER_RAISED,
    TESTS,
    Peer,
    ProgramError,
    Remote,
    checked,
    exception_class,
    is_class_of,
    raised,
    said,
)
from guerdon.rules.code.inside.usual import names_in
from guerdon.rules.code.inside.values import (
    KNOWN,
    LENT,
    Malformed,
    Unsendable,
    decode,
    encode,
    job,
    own_output,
    receive,
    send,
)

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing `typing` would take longer than starting Python
    from collections.abc import Callable
    from types import CodeType
    from typing import Any

CONTAINERS = (list, tuple, dict, set, bytearray)


HIDDEN = ("_", "f_", "gi_", "cr_", "ag_", "tb_", "co_")
"""Beginnings of attributes that lead from an object of the tests into their interpreter."""

COMMON = frozenset(sys.stdlib_module_names)
"""Modules that both sides have."""

SHOWN = 200
"""Characters of a case that are told where it fails."""

VALUE = encode(("value", None))[:-1]
"""How an answer begins that is a value."""


class Channel(Peer):
    """Asks the program's process, and lets it use the objects that the tests gave it.

    Args:
        descriptor: the socket to it.
        in_place: whether changes of arguments come back.
    """

    def __init__(self, descriptor: int, in_place: bool) -> None:
        super().__init__(descriptor, LENT)
        self._in_place = in_place
        self._copies = Copies()
        self._asking = False
        self._answered = False
        self.asked = 0

    def ask(self, *request: Any) -> Any:
        """As `Peer.ask`; what is too large is, here, what the program made so."""
        self._asking = not self._in_place
        self.asked += 1
        self._copies.begin_message()
        try:
            try:
                return super().ask(*request)
            except Stale:
                return super().ask(*request)
        except Unsendable as error:
            raise ProgramError(str(error)) from None

    def fetch(self, name: str) -> Any:
        """What the program calls so; for a class of exceptions, one that tests can catch.

        It is no class of the program's, so it catches nothing but what the program raises.
        """
        thing = self.ask("get", name)
        base = exception_class(self.ask("exception", thing)) if isinstance(thing, Remote) else None
        if base is None or issubclass(base, NEVER_RAISED):
            return thing
        self.exceptions[name] = type(name, (base,), {"__init__": _keep, "__str__": _first})
        return self.exceptions[name]

    def equal(self, one: Remote, other: Remote) -> bool:
        """What the program says of two objects of its own."""
        return checked(self.ask("operator", one, "eq", other), bool)

    def contains(self, thing: Remote, item: Any) -> bool:
        """Looks at the items; the program is not asked about one that the tests may expect."""
        return any(part is item or part == item for part in thing)

    def hash_of(self, thing: Remote) -> int:
        """As the program has it."""
        return checked(self.ask("hash", thing), int)

    def call(self, target: Any, args: Any, kwargs: Any) -> Any:
        """As `Peer.call`; arguments that the program changed change here, too, where asked for."""
        answer = self.ask("call", target, args, kwargs, self._in_place)
        if not self._in_place:
            return answer
        value, changed = answer
        for old, new in zip(args, changed, strict=False):
            update(old, new)
        return value

    def remember(self, thing: Any) -> tuple[bytes, Any]:
        """A name for what the program can import, else a number; objects of a call as copies."""
        name = _known(thing)
        if name:
            return KNOWN, name
        if self._asking and _is_of_tests(thing):
            thing = self._copies.lend(thing)
        return super().remember(thing)

    def next(self) -> Any:
        """As `Peer.next`; copies that come back in an answer are the objects of the tests."""
        data = receive(self._descriptor)
        self._answered = data.startswith(VALUE)
        return decode(data, self.resolve)

    def resolve(self, tag: bytes, number: Any) -> Any:
        """As `Peer.resolve`; a program cannot name anything."""
        if tag == KNOWN:
            raise Malformed("the program named a module")
        thing = super().resolve(tag, number)
        return self._copies.original(thing) if self._answered and tag == LENT else thing

    def answer(self, request: Any) -> bytes:
        """Let the program use an object that it was given, as far as that cannot lead further."""
        try:
            what, thing, *rest = request
            if not self.owns(thing):
                raise TypeError("no object of the tests")
            if what in CHANGING:
                self._copies.touch()
            value = PERMITTED[what](thing, *rest)
            self._asking = False
            return encode(("value", value), self.remember)
        except BaseException as error:
            return raised(error)


def _keep(self: Any, *args: Any) -> None:
    self.args = args


def _first(self: Any) -> str:
    return str(self.args[0]) if len(self.args) == 1 else str(self.args) if self.args else ""


def _is_of_tests(thing: Any) -> bool:
    return type(thing).__module__ == TESTS


def _known(thing: Any) -> str:
    """What the program can import itself: a module, or a function or class of a common one."""
    if isinstance(thing, type(sys)):
        return thing.__name__ + ":"
    module, name = getattr(thing, "__module__", None), getattr(thing, "__qualname__", None)
    if type(module) is not str or type(name) is not str or isinstance(thing, Remote):
        return ""
    if module not in COMMON or isinstance(getattr(thing, "__self__", None), CONTAINERS):
        return ""
    try:
        found = operator.attrgetter(name)(importlib.import_module(module))
    except (ImportError, AttributeError):
        return ""
    return f"{module}:{name}" if found is thing else ""


def _call(thing: Any, args: Any, kwargs: Any, _: Any = None) -> Any:
    return thing(*args, **kwargs)


def _attribute(thing: Any, name: Any) -> Any:
    if type(name) is not str or name.startswith(HIDDEN) or isinstance(thing, (type, type(_call))):
        raise AttributeError(name)
    return getattr(thing, name)


def _set(thing: Any, name: Any, value: Any) -> None:
    if type(name) is not str or name.startswith("_") or not _is_of_tests(thing):
        raise AttributeError(name)
    setattr(thing, name, value)


PERMITTED: dict[str, Callable[..., Any]] = {
    "call": _call,
    "attribute": _attribute,
    "set": _set,
    "iterate": iter,
    "next": next,
    "length": len,
    "item": operator.getitem,
    "contains": operator.contains,
    "truth": bool,
    "is class of": is_class_of,
    "text": str,
    "form": repr,
}
"""What a program may do with an object that the tests gave it."""

CHANGING = ("call", "set")
"""What of it may change the object."""


def update(old: Any, new: Any) -> None:
    """Give a list, dict, set or bytearray the contents that the program's copy has now."""
    if old.__class__ is not new.__class__:
        return
    kind = old.__class__
    if kind in (list, tuple) and len(old) == len(new):
        for place, item in enumerate(new):
            if type(old[place]) is type(item) and type(item) in CONTAINERS:
                update(old[place], item)
            elif kind is list:
                old[place] = item
    elif kind in (list, bytearray):
        old[:] = new
    elif kind in (dict, set):
        old.clear()
        old.update(new)


class Tests:
    """The cases of one program.

    Args:
        work: `setup` are sources to run first, the first of them the prompt if `prompt`; `imports`
            are statements that must succeed; `modules` are names of modules that the tests take for
            granted; `steps` are pairs of a source and whether it is a case; `wanted` are names that
            the set-up may need of the program, `imported` those that it must have; `entry` is the
            function under test and `alias` what the tests call it; `stop` ends the tests at the
            first failure.
        reports: descriptor that the verdicts go to.
    """

    def __init__(self, work: dict[str, Any], reports: int) -> None:
        self._work = work
        self._reports = reports
        self._channel = Channel(work["channel"], work["in_place"])
        self._space: dict[str, Any] = {"__name__": TESTS}
        self._of_program: set[str] = set()

    def run(self) -> None:
        """Run everything and report."""
        steps = self._prepare()
        if steps is None or not self._load(steps):
            return
        case = 0
        alone = self._of_program.isdisjoint(self._work["wanted"])
        asked = self._channel.asked
        for code, is_case, source in steps:
            if is_case:
                self._report("begin", case)
            message, error = self._step(code)
            if message and is_case:
                message = f"case {case}, {source}: {message.removesuffix(': ')}"
            # As long as the program had no part in it, a failure is the data's.
            alone = alone and self._of_program.isdisjoint(names_in(code))
            alone = alone and self._channel.asked == asked
            if message and alone and not isinstance(error, NameError):
                self._report("unusable", message)
                return
            if is_case:
                self._report("failed" if message else "passed", case, message)
                case += 1
            if message and (self._work["stop"] or not is_case or self._channel.gone):
                self._report("stopped", case, message)
                return
        self._report("done", case)

    def _report(self, *parts: Any) -> None:
        send(self._reports, encode(parts))

    def _prepare(self) -> Any:
        """Compile the steps and run the set-up; None after a report where that fails.

        No program is there yet, so what fails here is the data's fault.
        """
        sys.path.extend(self._work["packages"])
        module = type(sys)(TESTS)
        module.__dict__.update(self._space)
        self._space = module.__dict__
        sys.modules[TESTS] = module
        try:
            late = self._set_up()
            for source in self._work["imports"]:
                exec(compile(source, "<imports>", "exec", dont_inherit=True), {})
            for name, module in self._work["modules"].items():
                if name not in self._space:
                    self._space[name] = importlib.import_module(module)
            return [
                (compile(source, "<tests>", "exec", dont_inherit=True), is_case, source[:SHOWN])
                for source, is_case in (*late, *self._work["steps"])
            ]
        except BaseException as error:
            self._report("unusable", said(error))
            return None

    def _set_up(self) -> list[tuple[str, bool]]:
        """Run the set-up; returns, as steps, what has to wait for names of the program."""
        sources = self._work["setup"]
        for place, source in enumerate(sources):
            try:
                exec(compile(source, "<setup>", "exec", dont_inherit=True), self._space)
            except NameError:
                if self._work["prompt"] and place == 0:
                    raise
                return [(late, False) for late in sources[place:]]
        return []

    def _load(self, steps: Any) -> bool:
        """Load the program and give the tests the names that they need of it."""
        wanted: set[str] = set(self._work["wanted"])
        for code, *_ in steps:
            wanted |= names_in(code)
        entry, alias = self._work["entry"], self._work["alias"]
        try:
            self._channel.ask("prepare", None)
        except BaseException as error:
            self._report("unusable", said(error))
            return False
        self._report("ready")
        # A program must not replace what the tests bring themselves, nor a built-in function.
        needed = {n for n in wanted if n not in self._space and not hasattr(builtins, n)}
        needed.discard(alias)
        needed.update(self._work["imported"], filter(None, [entry]))
        try:
            has: list[str] = self._channel.ask("load", sorted(needed))
            assert isinstance(has, list)
        except BaseException as error:
            self._report("broken", said(error))
            return False
        self._of_program = {*has, entry, alias}
        missing = {*self._work["imported"], *filter(None, [entry])}.difference(has)
        if missing:
            self._report("broken", f"the program does not define {min(missing)}")
            return False
        try:
            for name in needed.intersection(has):
                self._space[name] = self._channel.fetch(name)
        except BaseException as error:
            self._report("broken", said(error))
            return False
        if alias and entry:
            self._space[alias] = self._space[entry]
        self._report("loaded")
        return True

    def _step(self, code: CodeType) -> tuple[str, BaseException | None]:
        """Run one step; returns what went wrong, or nothing."""
        try:
            exec(code, self._space)
        except BaseException as error:
            return said(error), error
        return self._channel.gone, None  # a test may have swallowed what told it


def main() -> None:
    """Run the tests of the job."""
    reports = own_output()
    Tests(job(), reports).run()


if __name__ == "__main__":
    main()
