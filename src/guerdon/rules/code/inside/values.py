"""Plain values as bytes, between a process that nobody trusts and one that judges it.

Reading makes values of built-in types and nothing else: no code runs, whatever the bytes are. What
is no plain value travels as a number that only its owner can turn back into the object.
"""

from __future__ import annotations

import io
import os
import struct
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing `typing` would take longer than starting Python
    from collections.abc import Callable
    from typing import Any, TypeAlias

    Remember: TypeAlias = Callable[[Any], tuple[bytes, Any]] | None
    Resolve: TypeAlias = Callable[[bytes, Any], Any] | None

MAX_DEPTH = 150
"""Deeper values are refused, on both sides."""

FEW_KEYS = 256
"""So many keys may have one hash."""

FEW_BITS = 1 << 15
"""Longest integer in a fraction, a range or a date: they are divided, in quadratic time."""

MAX_BYTES = 16 << 20
"""Longest message."""

JOB_BYTES = 256 << 20
"""Longest job: a program and all its inputs, or all its tests."""

ROOM = 16 * MAX_BYTES
"""Memory that the containers of one message may take, and each of its arrays."""

EMPTY_BYTES = {b"l": 56, b"u": 40, b"S": 216, b"Z": 216, b"m": 64, b"Q": 624, b"N": 152, b"V": 72}
"""What an empty container takes (`sys.getsizeof`); a few bytes of a message make one."""

OWNED, LENT, KNOWN = b"o", b"x", b"g"
"""Before the number of an object of the program, one of the tests, and before the name of what both
sides can import."""

_EMPTY: dict[Any, Any] = {}
VIEWS: tuple[Any, ...] = (type(_EMPTY.keys()), type(_EMPTY.values()), type(_EMPTY.items()))

ARRAYS = frozenset("biufcUS")
"""Kinds of NumPy's arrays that travel as arrays: no objects, no records."""


class Unsendable(ValueError):
    """A value is no plain value, too deep or too large."""


class Oversized(Unsendable):
    """A plain value is too deep or too large; what a program returned may make it so."""


class Malformed(ValueError):
    """Bytes that no sender of ours wrote."""


class Named(tuple[Any, ...] if TYPE_CHECKING else tuple):
    """A named tuple that came from the other process."""

    _fields: tuple[str, ...] = ()

    def __getattr__(self, name: str) -> Any:
        """The item of that name."""
        if name in self._fields:
            return self[self._fields.index(name)]
        raise AttributeError(name)


class _Bytes(bytearray):
    """Bytes that know how many there may be."""

    most = MAX_BYTES


class _Message(bytes):
    """A message, and the memory that what is made of it may still take."""

    room = ROOM


def encode(value: Any, remember: Remember = None, most: int = MAX_BYTES) -> bytes:
    """A value as bytes.

    None, bool, int, float, complex, str, bytes, bytearray, list, tuple, set, frozenset, dict with
    its views, range, slice, deque, Decimal, Fraction, date, datetime, time and timedelta travel as
    they are, also inside each other; instances of their subclasses as the base type, named tuples
    as `Named`. Scalars of NumPy travel as numbers, arrays as arrays to where NumPy is imported and
    as lists elsewhere.

    Args:
        value: what to send.
        remember: says whose an object is that is no plain value, and gives it a number; without, it
            is refused.
        most: bytes that there may be.

    Raises:
        Unsendable: naming the type.
    """
    out = _Bytes()
    out.most = most
    try:
        _encode(value, out, remember, 0)
    except RecursionError:
        raise Oversized("a value is nested too deeply") from None
    return bytes(out)


def _sized(out: _Bytes, tag: bytes, data: bytes) -> None:
    out += tag
    out += len(data).to_bytes(4, "little")
    out += data
    if len(out) > out.most:
        raise Oversized(f"a value has more than {out.most} bytes")


def _encode(value: Any, out: _Bytes, remember: Remember, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise Oversized(f"a value is nested more than {MAX_DEPTH} deep")
    if value is None:
        out += b"n"
    elif isinstance(value, bool):
        out += b"t" if value else b"f"
    elif isinstance(value, int):
        size = int.bit_length(value) // 8 + 1
        _sized(out, b"i", int.to_bytes(value, size, "little", signed=True))
    elif isinstance(value, float):
        out += b"d" + struct.pack("<d", value)
    elif isinstance(value, str):
        _sized(out, b"s", str.encode(value, "utf-8", "surrogatepass"))
    elif isinstance(value, (list, tuple, set, frozenset)):
        _encode_items(value, out, remember, depth)
    elif isinstance(value, dict):
        pairs: list[tuple[Any, Any]] = [*_DICT.items(value)]
        out += b"m" + len(pairs).to_bytes(4, "little")
        for key, item in pairs:
            _encode(key, out, remember, depth + 1)
            _encode(item, out, remember, depth + 1)
    else:
        _encode_rare(value, out, remember, depth)


_DICT: Any = dict


def _encode_items(value: Any, out: _Bytes, remember: Remember, depth: int) -> None:
    kinds: Any = ((list, b"l"), (tuple, b"u"), (set, b"S"), (frozenset, b"Z"))
    for kind, tag in kinds:
        if isinstance(value, kind):
            items: list[Any] = [*kind.__iter__(value)]
            if kind is tuple and type(value) is not tuple:
                tag = _name_fields(value, len(items), out, remember, depth) or tag
            out += tag + len(items).to_bytes(4, "little")
            for item in items:
                _encode(item, out, remember, depth + 1)
            if len(out) > out.most:
                raise Oversized(f"a value has more than {out.most} bytes")
            return


def _encode_rare(value: Any, out: _Bytes, remember: Remember, depth: int) -> None:
    if isinstance(value, (bytes, bytearray)):
        _sized(out, b"b" if isinstance(value, bytes) else b"y", bytes(value))
    elif isinstance(value, complex):
        out += b"c" + struct.pack("<dd", value.real, value.imag)
    elif isinstance(value, range):
        out += b"r"
        _encode((value.start, value.stop, value.step), out, remember, depth + 1)
    elif type(value).__module__ == "decimal" and type(value).__name__ == "Decimal":
        _sized(out, b"D", str(value).encode())
    elif type(value).__module__ == "fractions" and type(value).__name__ == "Fraction":
        out += b"F"
        _encode((value.numerator, value.denominator), out, remember, depth + 1)
    elif isinstance(value, (slice, *VIEWS)):
        _encode_view(value, out, remember, depth)
    elif type(value).__module__.partition(".")[0] == "numpy" and hasattr(value, "tolist"):
        if hasattr(value, "dtype") and getattr(value, "shape", ()):
            out += b"A"
            parts = (str(value.dtype.str), tuple(value.shape), value.tolist())
            _encode(parts, out, remember, depth + 1)
        else:
            _encode(value.tolist(), out, remember, depth + 1)
    elif not _encode_dated(value, out, remember, depth):
        if remember is None:
            raise Unsendable(f"a value of the type {type(value).__name__} is no plain value")
        tag, which = remember(value)
        if tag == KNOWN:
            _sized(out, tag, which.encode())
        else:
            out += tag + which.to_bytes(8, "little")


def _name_fields(value: Any, size: int, out: _Bytes, remember: Remember, depth: int) -> bytes:
    """Write the names of a named tuple's items; nothing where it has none."""
    names: Any = getattr(value, "_fields", None)
    if not _is(names, tuple) or len(names) != size:
        return b""
    if not all(_is(name, str) for name in names):
        return b""
    out += b"N"
    _encode(names, out, remember, depth + 1)
    return b"u"


def _encode_view(value: Any, out: _Bytes, remember: Remember, depth: int) -> None:
    if value.__class__ is slice:
        out += b"L"
        _encode((value.start, value.stop, value.step), out, remember, depth + 1)
    else:
        kind = [isinstance(value, view) for view in VIEWS].index(True)
        out += b"V"
        _encode((kind, [*value]), out, remember, depth + 1)


def _encode_dated(value: Any, out: _Bytes, remember: Remember, depth: int) -> bool:
    """Write a date, a time or a deque, if it is one: their modules may not be imported."""
    dates, queues = sys.modules.get("datetime"), sys.modules.get("collections")
    if queues is not None and isinstance(value, queues.deque):
        tag, parts = b"Q", ([*value], value.maxlen)
    elif dates is None:
        return False
    elif isinstance(value, dates.timedelta):
        tag, parts = b"P", (value.days, value.seconds, value.microseconds)
    elif isinstance(value, dates.datetime):
        tag, parts = (
            b"T",
            (*value.timetuple()[:6], value.microsecond, value.utcoffset(), value.fold),
        )
    elif isinstance(value, dates.date):
        tag, parts = b"E", (value.year, value.month, value.day)
    elif isinstance(value, dates.time):
        clock = (value.hour, value.minute, value.second, value.microsecond)
        tag, parts = b"W", (*clock, value.utcoffset(), value.fold)
    else:
        return False
    out += tag
    _encode(parts, out, remember, depth + 1)
    return True


def decode(data: bytes, resolve: Resolve = None) -> Any:
    """The value in bytes.

    Args:
        data: what `encode` made, or anything else.
        resolve: turns a number back into an object; without, one is malformed.

    Raises:
        Malformed: no value, or something behind it.
    """
    message = _Message(data)
    message.room = max(ROOM, len(data))
    try:
        value, end = _decode(message, 0, resolve, 0)
    except Malformed:
        raise
    except (IndexError, ValueError, TypeError, ArithmeticError, struct.error, MemoryError) as error:
        raise Malformed(f"no value: {type(error).__name__}") from None
    if end != len(data):
        raise Malformed("something stands behind the value")
    return value


_CONSTANTS: dict[int, Any] = {ord("n"): None, ord("t"): True, ord("f"): False}
_TAKES = {ord(tag): size for tag, size in EMPTY_BYTES.items()}
_SEQUENCES: dict[int, Any] = {
    ord("l"): list,
    ord("u"): tuple,
    ord("S"): set,
    ord("Z"): frozenset,
}


def _decode(data: _Message, at: int, resolve: Resolve, depth: int) -> tuple[Any, int]:
    if depth > MAX_DEPTH:
        raise Malformed("nested too deeply")
    tag = data[at]
    at += 1
    if tag in _TAKES:
        data.room -= _TAKES[tag]
        if data.room < 0:
            raise Malformed("too many containers")
    if tag in _CONSTANTS:
        return _CONSTANTS[tag], at
    if tag == ord("d"):
        return struct.unpack_from("<d", data, at)[0], at + 8
    if tag == ord("c"):
        return complex(*struct.unpack_from("<dd", data, at)), at + 16
    if (tag == ord("o") or tag == ord("x")) and resolve is not None:
        return resolve(bytes((tag,)), _number(data, at, 8)), at + 8
    if tag in _COMPOSED:
        value, at = _decode(data, at, resolve, depth + 1)
        if tag == ord("N"):
            items, at = _decode(data, at, resolve, depth + 1)
            return _named(value, items), at
        if value.__class__ is not tuple:
            raise Malformed("no parts")
        return _COMPOSED[tag](*value), at
    size = _number(data, at, 4)
    at += 4
    if tag in _SEQUENCES:
        items: list[Any] = []
        for _ in range(size):
            item, at = _decode(data, at, resolve, depth + 1)
            items.append(item)
        if tag == ord("S") or tag == ord("Z"):
            _check_hashes(items)
        return _SEQUENCES[tag](items), at
    if tag == ord("m"):
        keys: list[Any] = []
        contents: list[Any] = []
        for _ in range(size):
            key, at = _decode(data, at, resolve, depth + 1)
            keys.append(key)
            content, at = _decode(data, at, resolve, depth + 1)
            contents.append(content)
        _check_hashes(keys)
        return dict(zip(keys, contents, strict=True)), at
    if at + size > len(data):
        raise Malformed("cut off")
    if tag == ord("g") and resolve is not None:
        return resolve(KNOWN, data[at : at + size].decode()), at + size
    return _decode_bytes(tag, data[at : at + size]), at + size


def _check_hashes(keys: list[Any]) -> None:
    """Refuse keys that were chosen to have one hash: a table of them takes quadratic time."""
    if len(keys) <= FEW_KEYS:
        return
    counts: dict[int, int] = {}
    for key in keys:
        code = hash(key)
        counts[code] = counts.get(code, 0) + 1
    if max(counts.values()) > FEW_KEYS:
        raise Malformed("the keys collide")


def _number(data: bytes, at: int, size: int) -> int:
    if at + size > len(data):
        raise Malformed("cut off")
    return int.from_bytes(data[at : at + size], "little")


def _decode_bytes(tag: int, data: bytes) -> Any:
    if tag == ord("s"):
        return data.decode("utf-8", "surrogatepass")
    if tag == ord("i"):
        return int.from_bytes(data, "little", signed=True)
    if tag == ord("b"):
        return data
    if tag == ord("y"):
        return bytearray(data)
    if tag == ord("D"):
        from decimal import Decimal

        return Decimal(data.decode("ascii"))
    raise Malformed("no such type")


def _is(value: Any, kind: Any) -> bool:
    return type(value) is kind


def _integers(*parts: Any) -> tuple[int, ...]:
    if not all(type(part) is int and part.bit_length() <= FEW_BITS for part in parts):
        raise Malformed("no integers, or too large ones")
    return parts


def _range(*parts: Any) -> range:
    return range(*_integers(*parts))


def _fraction(*parts: Any) -> Any:
    from fractions import Fraction

    return Fraction(*_integers(*parts))


def _view(kind: Any, items: Any) -> Any:
    """A view of a dict; that of values has numbers as keys behind it."""
    if not _is(kind, int) or not _is(items, list):
        raise Malformed("no view")
    if kind == 1:
        numbered: Any = dict(zip(range(len(items)), items, strict=True))
        return numbered.values()
    if kind == 2:
        keys: list[Any] = [key for key, _ in items]
        _check_hashes(keys)
        return dict(items).items()
    _check_hashes(items)
    return dict.fromkeys(items).keys()


def _named(names: Any, items: Any) -> Named:
    if not _is(names, tuple) or not _is(items, tuple) or len(names) != len(items):
        raise Malformed("no named tuple")
    if not all(_is(name, str) for name in names):
        raise Malformed("no names")
    made = Named(items)
    made._fields = names  # pyright: ignore[reportPrivateUsage]
    return made


def _array(kind: Any, shape: Any, items: Any) -> Any:
    """An array where NumPy is imported, else a list."""
    numpy: Any = sys.modules.get("numpy")
    if numpy is None or not _is(kind, str) or kind[1:2] not in ARRAYS or not _is(items, list):
        return items
    sizes, plan = _integers(*shape), numpy.dtype(kind)
    count = 1
    for size in sizes:
        count *= size
    # An array is as large as its type says, however little the message holds.
    if not 0 <= count * plan.itemsize <= ROOM or not _fits(items, sizes):
        raise Malformed("no array")
    return numpy.array(items, dtype=plan).reshape(sizes)


def _fits(items: Any, sizes: tuple[int, ...]) -> bool:
    """Whether nested lists have these lengths."""
    if not sizes:
        return not _is(items, list)
    if not _is(items, list) or len(items) != sizes[0]:
        return False
    return len(sizes) == 1 or all(_fits(item, sizes[1:]) for item in items)


def _queue(items: Any, most: Any) -> Any:
    from collections import deque

    return deque(items, most)


def _span(*parts: Any) -> Any:
    from datetime import timedelta

    return timedelta(*_integers(*parts))


def _zone(offset: Any) -> Any:
    from datetime import timezone

    return None if offset is None else timezone(offset)


def _moment(*parts: Any) -> Any:
    from datetime import datetime

    numbers: Any = _integers(*parts[:7])
    return datetime(*numbers, tzinfo=_zone(parts[7]), fold=parts[8])


def _day(*parts: Any) -> Any:
    from datetime import date

    return date(*_integers(*parts))


def _clock(*parts: Any) -> Any:
    from datetime import time

    numbers: Any = _integers(*parts[:4])
    return time(*numbers, tzinfo=_zone(parts[4]), fold=parts[5])


_COMPOSED: dict[int, Any] = {
    ord("r"): _range,
    ord("F"): _fraction,
    ord("L"): slice,
    ord("V"): _view,
    ord("N"): _named,
    ord("A"): _array,
    ord("Q"): _queue,
    ord("P"): _span,
    ord("T"): _moment,
    ord("E"): _day,
    ord("W"): _clock,
}
"""What is made of a tuple of parts, by tag."""


def send(descriptor: int, data: bytes) -> None:
    """Write one message: its length and its bytes.

    Raises:
        OSError: nobody reads any more.
    """
    view = memoryview(len(data).to_bytes(4, "little") + data)
    while view:
        view = view[os.write(descriptor, view) :]


def receive(descriptor: int) -> bytes:
    """Read one message.

    Raises:
        EOFError: the other side has gone.
        Malformed: it announces more than a message may have.
    """
    size = int.from_bytes(_exactly(descriptor, 4), "little")
    if size > MAX_BYTES:
        raise Malformed(f"a message of {size} bytes")
    return _exactly(descriptor, size)


def _exactly(descriptor: int, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        chunk = os.read(descriptor, size - len(data))
        if not chunk:
            raise EOFError
        data += chunk
    return bytes(data)


def job() -> Any:
    """The job of a program in the sandbox: what stands behind the program on standard input."""
    data = bytearray()
    while True:
        chunk = os.read(0, 1 << 20)
        if not chunk:
            return decode(bytes(data))
        data += chunk


def own_output() -> int:
    """Keep standard output for reports, and let what is printed go nowhere."""
    reports = os.dup(1)
    nowhere = os.open("/dev/null", os.O_RDWR)
    os.dup2(nowhere, 1)
    raw = io.FileIO(1, "w", closefd=False)
    sys.stdout = io.TextIOWrapper(io.BufferedWriter(raw), "utf-8", "replace")
    return reports
