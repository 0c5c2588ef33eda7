"""Two processes that use each other's objects: the tests and the program, each in its sandbox.

Plain values travel; what is none stays where it is, and the other side holds a stand-in for it. A
side that waits for an answer may be asked something itself before it comes.
"""

from __future__ import annotations

import _thread
import builtins
import operator

from guerdon.rules.code.inside.values import LENT, OWNED, Malformed, decode, encode, receive, send

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing `typing` would take longer than starting Python
    from typing import Any

ANSWERS = ("value", "raised")

TESTS = "tests"
"""The module that the tests believe to be."""

OPERATORS = (
    *("add", "sub", "mul", "matmul", "truediv", "floordiv", "mod", "pow"),
    *("lshift", "rshift", "and_", "or_", "xor"),
    *("lt", "le", "gt", "ge"),
)
"""What two objects of the program may be asked for together."""

SCALED = ("mul", "truediv", "pow")
"""What one of them may be asked for with a number. Others, such as a difference, would tell the
program the value that the tests expect."""

NEVER_RAISED = (StopIteration, StopAsyncIteration, GeneratorExit)
"""Inside `all(map(...))` such an exception would end the tests early and quietly."""


class Gone(BaseException):
    """The other process ended, or sent what is no value."""


class ProgramError(Exception):
    """The other side raised something that has no built-in class here."""


class Stopped(RuntimeError):
    """The other side raised one of `NEVER_RAISED`."""


class Peer:
    """One end of the line.

    Args:
        descriptor: the socket to the other process.
        own: marks this side's objects.
    """

    def __init__(self, descriptor: int, own: bytes) -> None:
        self._descriptor = descriptor
        self._own = own
        self._objects: list[Any] = []
        self._stand_ins: dict[int, Remote] = {}
        self._numbers: dict[int, int] = {}
        self._lock = _thread.RLock()
        self.exceptions: dict[str, type[Exception]] = {}
        self.gone = ""

    def ask(self, *request: Any) -> Any:
        """What the other side answers; an exception of it is raised here.

        Raises:
            Unsendable: the request is too deep or too large.
            Gone: there is no other side any more.
        """
        if self.gone:
            raise Gone(self.gone)
        message = encode(request, self.remember)
        with self._lock:
            kind, *rest = self._exchange(message)
        if kind == "value":
            return rest[0]
        raise self._exception(*rest) if len(rest) == 4 else ProgramError("no exception")

    def _exchange(self, message: bytes) -> Any:
        try:
            send(self._descriptor, message)
            while True:
                reply = self.next()
                if reply.__class__ is not tuple or len(reply) < 2:
                    raise Malformed("no answer")
                if reply[0] in ANSWERS:
                    return reply
                send(self._descriptor, self.answer(reply))
        except (OSError, EOFError, Malformed, TypeError) as error:
            ended = isinstance(error, (OSError, EOFError))
            self.gone = "the program ended" if ended else str(error)
            raise Gone(self.gone) from None

    def _exception(self, names: Any, base: Any, text: Any, args: Any) -> Exception:
        """The exception that the other side raised, of a class that this side knows."""
        if names.__class__ is tuple:
            known = [self.exceptions[name] for name in names if name in self.exceptions]
            if known:
                return known[0](*args)
        return _built_in(base, text, args)

    def next(self) -> Any:
        """What comes next from the other side."""
        return decode(receive(self._descriptor), self.resolve)

    def answer(self, request: Any) -> bytes:
        """Do what the other side asks; never raises."""
        raise NotImplementedError

    def call(self, target: Any, args: Any, kwargs: Any) -> Any:
        """Call a function or an object of the other side."""
        return self.ask("call", target, args, kwargs, False)

    def remember(self, thing: Any) -> tuple[bytes, Any]:
        """Whose an object is that cannot travel, and its number."""
        if isinstance(thing, Remote):
            number: int = object.__getattribute__(thing, "_number")
            return (OWNED if self._own == LENT else LENT), number
        number = self._numbers.setdefault(id(thing), len(self._objects))
        if number == len(self._objects):
            self._objects.append(thing)
        return self._own, number

    def resolve(self, tag: bytes, number: Any) -> Any:
        """The object of a number, or a stand-in for one of the other side."""
        if tag == self._own:
            return self._objects[number]
        # One stand-in for each object, so that `is` means what it says.
        return self._stand_ins.setdefault(number, Remote(self, number))

    def equal(self, one: Remote, other: Remote) -> bool:
        """Whether two objects of the other side are equal: here, whether they are one."""
        return one is other

    def contains(self, thing: Remote, item: Any) -> bool:
        """Whether an object of the other side holds an item."""
        return checked(self.ask("contains", thing, item), bool)

    def hash_of(self, thing: Remote) -> int:
        """A number that is the same for equal ones."""
        return object.__hash__(thing)

    def owns(self, thing: Any) -> bool:
        """Whether the other side was given this object."""
        return id(thing) in self._numbers


class Remote:
    """Stands for a function or an object in the other process.

    It is never equal to a plain value: what the program says about that does not count.
    """

    def __init__(self, peer: Peer, number: int) -> None:
        object.__setattr__(self, "_peer", peer)
        object.__setattr__(self, "_number", number)

    def _ask(self, what: str, *rest: Any) -> Any:
        return object.__getattribute__(self, "_peer").ask(what, self, *rest)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call it."""
        return object.__getattribute__(self, "_peer").call(self, args, kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Remote._ask(self, "attribute", name)

    def __setattr__(self, name: str, value: Any) -> None:
        Remote._ask(self, "set", name, value)

    def __iter__(self) -> Any:
        return Remote._ask(self, "iterate")

    def __next__(self) -> Any:
        try:
            return Remote._ask(self, "next")
        except Stopped:
            raise StopIteration from None

    def __len__(self) -> int:
        return checked(Remote._ask(self, "length"), int)

    def __getitem__(self, key: Any) -> Any:
        return Remote._ask(self, "item", key)

    def __setitem__(self, key: Any, value: Any) -> None:
        Remote._ask(self, "set item", key, value)

    def __delitem__(self, key: Any) -> None:
        Remote._ask(self, "delete item", key)

    def __contains__(self, item: Any) -> bool:
        return object.__getattribute__(self, "_peer").contains(self, item)

    def __enter__(self) -> Any:
        """Enter it as a context."""
        return Remote._ask(self, "attribute", "__enter__")()

    def __exit__(self, *_: object) -> None:
        Remote._ask(self, "attribute", "__exit__")(None, None, None)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Remote):
            # The tests' own objects say themselves what is equal to them.
            return NotImplemented if type(other).__module__ == TESTS else False
        return object.__getattribute__(self, "_peer").equal(self, other)

    def __hash__(self) -> int:
        return object.__getattribute__(self, "_peer").hash_of(self)

    def __str__(self) -> str:
        return checked(Remote._ask(self, "text"), str)

    def __repr__(self) -> str:
        return checked(Remote._ask(self, "form"), str)

    def __instancecheck__(self, thing: Any) -> bool:
        return checked(Remote._ask(self, "is class of", thing), bool)

    def __bool__(self) -> bool:
        return checked(Remote._ask(self, "truth"), bool)

    def __copy__(self) -> Any:
        return self

    def __deepcopy__(self, memo: Any) -> Any:
        return self


def _operator(name: str, reflected: bool) -> Any:
    def ask(self: Remote, other: Any) -> Any:
        if isinstance(other, Remote):
            return self._ask("operator", name, other)  # pyright: ignore[reportPrivateUsage]
        if name not in SCALED or type(other) not in (int, float):
            return NotImplemented
        found = self._ask("scaled", name, other, reflected)  # pyright: ignore[reportPrivateUsage]
        if not isinstance(found, Remote):
            raise TypeError(f"{name} with a number gave a {type(found).__name__}")
        return found

    return ask


for _name in OPERATORS:
    setattr(Remote, f"__{_name.rstrip('_')}__", _operator(_name, reflected=False))
for _name in SCALED:
    setattr(Remote, f"__r{_name}__", _operator(_name, reflected=True))


def operate(thing: Any, name: str, other: Any) -> Any:
    """The result of an operator between two objects."""
    return getattr(operator, name)(thing, other)


def scale(thing: Any, name: str, number: float, reflected: bool) -> Any:
    """The result of an operator between an object and a number, or a number and an object."""
    return getattr(operator, name)(*((number, thing) if reflected else (thing, number)))


def is_class_of(kind: Any, thing: Any) -> bool:
    """Whether an object is an instance of a class."""
    return isinstance(thing, kind)


def checked(value: Any, kind: type) -> Any:
    """A value that the other side must have given in this type.

    Raises:
        TypeError: it is of another.
    """
    if type(value) is not kind:
        raise TypeError(f"the program gave a {type(value).__name__}")
    return value


def _built_in(name: Any, text: Any, args: Any) -> Exception:
    """An exception of a built-in class."""
    kind = exception_class(name)
    if kind is None:
        return ProgramError(text)
    if issubclass(kind, NEVER_RAISED):
        return Stopped(text)
    try:
        return kind(*args)
    except TypeError:  # UnicodeDecodeError and the like want other arguments
        return ProgramError(text)


def exception_class(name: Any) -> type[Exception] | None:
    """The built-in class of exceptions of a name."""
    kind = getattr(builtins, name, None) if isinstance(name, str) else None
    return kind if isinstance(kind, type) and issubclass(kind, Exception) else None


def built_in_base(kind: Any) -> str:
    """The nearest built-in class of a class of exceptions; empty for anything else."""
    if not isinstance(kind, type) or not issubclass(kind, Exception):
        return ""
    for base in kind.__mro__:
        if base.__module__ == "builtins":
            return "" if base is kind else base.__name__
    return ""


def raised(error: BaseException) -> bytes:
    """An exception as an answer: the names of its own classes, the nearest built-in class, and what
    makes an equal one."""
    name = "Exception"
    own = [kind.__name__ for kind in type(error).__mro__ if kind.__module__ != "builtins"]
    args: tuple[Any, ...] = ()
    for kind in type(error).__mro__:
        if kind.__module__ == "builtins" and getattr(builtins, kind.__name__, None) is kind:
            name = kind.__name__
            try:
                text = str(error)
                args = tuple(error.args)
                if text != str(kind(*args)):
                    args = (text,)
            except BaseException:
                args = ()
            break
    try:
        return encode(("raised", tuple(own), name, said(error), args))
    except BaseException:
        return encode(("raised", (), name, said(error), (said(error),)))


def said(error: BaseException) -> str:
    """The class and the message of an exception, whatever its `__str__` does; never empty."""
    try:
        return f"{type(error).__name__}: {error}"[:500]
    except BaseException:
        return str.__str__(type(error).__name__)[:500]
