"""Messages between the pool and a worker, over a Unix socket pair.

To the worker: pickles that this process made of plain data and of the user's own reward. From the
worker, which has read what the policy model wrote: typed MessagePack only, never a pickle.
"""

from __future__ import annotations

import mmap
import os
import pickle
import socket
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, cast

import msgspec

from guerdon.backends.backend import Sealed
from guerdon.backends.pool.board import copy_to_file
from guerdon.errors import Blame, FailureKind
from guerdon.injection import Arguments
from guerdon.outcome import Abstention, Failure, Score, failure

SHARED_BYTES = 1 << 20
"""Messages from this size on pass through shared memory instead of the socket."""

HEAD = struct.Struct("<BQ")
"""Kind of the message and length of its body."""

HELLO, LOAD, RUN, EXIT = range(4)
"""To the worker."""
READY, LOADED, RESULTS, DONE, UNREAD = range(10, 15)
"""From the worker."""
SHARED = 0x80
"""Set in the kind when the body is in a file whose descriptor comes with it."""

BUFFER_SIZES = struct.Struct("<Q")
CHUNK = struct.Struct("<q")
"""At the start of a message of results: the chunk that they are of."""
LENGTH = struct.Struct("<I")
"""Before each result: its length."""


class Hello(msgspec.Struct):
    """How a worker sets itself up.

    Attributes:
        path: `sys.path` of the pool's process.
        files: modules that were loaded from files, name to path.
        parent: process id of the pool; a worker whose parent is another one ends.
        memory_bytes: how much address space calls may take beyond what loading took.
    """

    path: list[str]
    files: dict[str, str]
    parent: int
    memory_bytes: int | None


class Loaded(msgspec.Struct, array_like=True):
    """Whether a reward was loaded.

    Attributes:
        number: of the reward.
        error: what went wrong, or empty.
    """

    number: int
    error: str


class Done(msgspec.Struct, array_like=True):
    """A chunk has ended.

    Attributes:
        chunk: its number.
        resident: bytes of memory that the worker holds.
    """

    chunk: int
    resident: int


WireResult: TypeAlias = float | Score | Abstention | Failure
Result: TypeAlias = tuple[int, float, WireResult | list[WireResult]]
"""Index of the call in its chunk, seconds, and the result or one result per sample; a failure may
stand for all samples of the call."""

INTEGER, TEXT = 1, 2
"""Extensions of MessagePack: an integer beyond 64 bits, and text with lone surrogates."""
SMALLEST, LARGEST_INTEGER = -(2**63), 2**64 - 1
DEEPEST_INFO = 100
"""Levels of nested information that are looked at one by one."""
UNENCODABLE = (TypeError, ValueError, OverflowError, RecursionError)


def _read_extension(code: int, data: memoryview) -> Any:
    if code == INTEGER:
        return int.from_bytes(data, "big", signed=True)
    if code == TEXT:
        return bytes(data).decode("utf-8", "surrogatepass")
    raise ValueError(f"there is no extension {code}")


_decode_result = msgspec.msgpack.Decoder(Result, ext_hook=_read_extension)
_decode_place = msgspec.msgpack.Decoder(tuple[int, float, msgspec.Raw])


class Run(msgspec.Struct):
    """A chunk of calls.

    Attributes:
        chunk: its number.
        reward: number of a reward that the worker has loaded.
        arguments: of each call.
        sizes: samples of each call, None for one each.
    """

    chunk: int
    reward: int
    arguments: Sequence[Arguments]
    sizes: Sequence[int] | None


class Outgoing:
    """A message to a worker on its way: bytes, and a descriptor for a large body."""

    def __init__(self, kind: int, value: object) -> None:
        buffers: list[pickle.PickleBuffer] = []
        body = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
        views = [buffer.raw() for buffer in buffers]
        total = len(body) + sum(view.nbytes for view in views)
        self.descriptor: int | None = None
        if not views and total < SHARED_BYTES:
            self.data = memoryview(HEAD.pack(kind, len(body)) + body)
            return
        sizes = b"".join(BUFFER_SIZES.pack(size) for size in (len(body), *map(_size, views)))
        self.descriptor = copy_to_file([BUFFER_SIZES.pack(len(views)), sizes, body, *views])
        self.data = memoryview(HEAD.pack(kind | SHARED, 0))

    def send(self, connection: socket.socket) -> bool:
        """Send what the socket takes; True when all of it is sent."""
        try:
            if self.descriptor is not None:
                sent = socket.send_fds(connection, [self.data], [self.descriptor])
                self.close()
            else:
                sent = connection.send(self.data)
        except BlockingIOError:
            return False
        self.data = self.data[sent:]
        return not self.data

    def close(self) -> None:
        """Close the descriptor of a large body."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None


def unsendable(arguments: Arguments) -> str:
    """Why the arguments of a call cannot be sent, or "".

    Example:
        >>> unsendable({"response": "4"}), unsendable({"client": lambda: 1}) != ""
        ('', True)
    """
    try:
        pickle.dumps(arguments, protocol=5, buffer_callback=lambda _: None)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def _size(view: memoryview) -> int:
    return view.nbytes


class Incoming:
    """Splits the bytes of a worker into messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Kind and body of every message that is complete now."""
        self._buffer += data
        messages: list[tuple[int, bytes]] = []
        start = 0
        while len(self._buffer) - start >= HEAD.size:
            kind, length = HEAD.unpack_from(self._buffer, start)
            end = start + HEAD.size + length
            if len(self._buffer) < end:
                break
            messages.append((kind, bytes(self._buffer[start + HEAD.size : end])))
            start = end
        del self._buffer[:start]
        return messages


def receive(connection: socket.socket) -> tuple[int, Any]:
    """In a worker: the next message, unpickled; the sender is the process that started it.

    Raises:
        EOFError: the pool has gone.
        Unpicklable: the message has been read, but what it holds exists only in the sender.
    """
    data, descriptors, _, _ = socket.recv_fds(connection, HEAD.size, 1)
    while data and len(data) < HEAD.size:
        data += connection.recv(HEAD.size - len(data))
    if not data:
        raise EOFError
    kind, length = HEAD.unpack(data)
    if kind & SHARED:
        return kind & ~SHARED, _unpickled(lambda: _load_shared(descriptors[0]))
    body = bytearray(length)
    view = memoryview(body)
    while view:
        count = connection.recv_into(view)
        if not count:
            raise EOFError
        view = view[count:]
    return kind, _unpickled(lambda: pickle.loads(body))


class Unpicklable(Exception):
    """A message holds something that exists only in the process that sent it."""


def _unpickled(load: Callable[[], Any]) -> Any:
    try:
        return load()
    except Exception as error:
        raise Unpicklable(f"{type(error).__name__}: {error}") from error


def _load_shared(descriptor: int) -> Any:
    """A large message; its arrays stay in the shared pages, read only."""
    try:
        view = memoryview(mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ))
    finally:
        os.close(descriptor)
    count = BUFFER_SIZES.unpack_from(view, 0)[0]
    places = range(BUFFER_SIZES.size, BUFFER_SIZES.size * (count + 2), BUFFER_SIZES.size)
    sizes = [BUFFER_SIZES.unpack_from(view, place)[0] for place in places]
    start = BUFFER_SIZES.size * (count + 2)
    parts: list[memoryview] = []
    for size in sizes:
        parts.append(view[start : start + size])
        start += size
    return pickle.loads(parts[0], buffers=parts[1:])


def plain(value: Any) -> Any:
    """For information of a reward that MessagePack does not know: arrays as lists, else `repr`."""
    convert = getattr(value, "tolist", None)
    if callable(convert):
        return convert()
    if isinstance(value, Mapping):
        return dict(cast("Mapping[Any, Any]", value))
    return repr(value)


_encoder = msgspec.msgpack.Encoder(enc_hook=plain)


def encode_result(call: int, elapsed: float, sealed: Sealed | list[Sealed]) -> bytes:
    """In a worker: one result. What cannot be encoded loses its details, never its value."""
    try:
        return _encoder.encode((call, elapsed, sealed))
    except UNENCODABLE:
        many = [_portable(one) for one in sealed] if isinstance(sealed, list) else _portable(sealed)
        return _encoder.encode((call, elapsed, many))


def _portable(sealed: Sealed) -> Sealed:
    """With information whose parts MessagePack has no word for as extensions of it, or without."""
    try:
        wrapped = _wrapped(sealed)
        _encoder.encode(wrapped)
    except UNENCODABLE:
        return _without_details(sealed)
    return wrapped


def _wrapped(sealed: Sealed) -> Sealed:
    if not isinstance(sealed, Score):
        return _without_details(sealed)
    return msgspec.structs.replace(sealed, info=_extended(sealed.info, 0))


def _extended(value: Any, depth: int) -> Any:
    """Integers beyond 64 bits and text with lone surrogates as extensions, exactly."""
    if depth > DEEPEST_INFO:
        raise RecursionError
    if isinstance(value, Mapping):
        items = cast("Mapping[Any, Any]", value).items()
        return {_key(key): _extended(item, depth + 1) for key, item in items}
    if isinstance(value, list | tuple | set | frozenset):
        return [_extended(item, depth + 1) for item in cast("Sequence[Any]", value)]
    if type(value) is int and not SMALLEST <= value <= LARGEST_INTEGER:
        size = value.bit_length() // 8 + 1
        return msgspec.msgpack.Ext(INTEGER, value.to_bytes(size, "big", signed=True))
    if type(value) is str and not value.isascii():
        data = value.encode("utf-8", "surrogatepass")
        return msgspec.msgpack.Ext(TEXT, data) if _has_surrogates(value) else value
    return value


def _key(key: Any) -> Any:
    """A key of MessagePack, which takes no extension there: the digits of a large integer."""
    if isinstance(key, str):
        return _clean(key)
    large = type(key) is int and not SMALLEST <= key <= LARGEST_INTEGER
    return str(key) if large else key


def _has_surrogates(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _without_details(sealed: Sealed) -> Sealed:
    if isinstance(sealed, Score):
        return Score(
            value=sealed.value,
            components={_clean(name): value for name, value in sealed.components.items()},
            spans=sealed.spans,
            metrics={_clean(name): value for name, value in sealed.metrics.items()},
            info={"dropped": "the information that the reward added could not be encoded"},
            renormalised=sealed.renormalised,
        )
    if isinstance(sealed, Abstention):
        return Abstention(reason=_clean(sealed.reason))
    if isinstance(sealed, Failure):
        return Failure(
            kind=sealed.kind,
            message=_clean(sealed.message),
            blame=sealed.blame,
            retryable=sealed.retryable,
            evidence=_clean(sealed.evidence),
        )
    return sealed


def _clean(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def encode_message(kind: int, value: object) -> bytes:
    """In a worker: a message to the pool."""
    body = value if isinstance(value, bytes) else _encoder.encode(value)
    return HEAD.pack(kind, len(body)) + body


def decode_results(body: bytes) -> list[Result]:
    """Results that stand one after another; one that cannot be read is a failure of its call.

    Raises:
        msgspec.MsgspecError, struct.error: the bytes are no results at all.
    """
    results: list[Result] = []
    place = 0
    while place < len(body):
        (size,) = LENGTH.unpack_from(body, place)
        place += LENGTH.size
        results.append(_result(body[place : place + size]))
        place += size
    return results


def _result(record: bytes) -> Result:
    try:
        return _decode_result.decode(record)
    except (msgspec.MsgspecError, TypeError, ValueError, RecursionError) as error:
        call, elapsed, _ = _decode_place.decode(record)
        found = f"what the reward returned cannot be read: {error}"
        return call, elapsed, failure(FailureKind.BAD_OUTPUT, found, Blame.SCORER)
