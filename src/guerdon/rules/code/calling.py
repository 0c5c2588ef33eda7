"""Calls a function of a program with arguments that are data, and compares what it returns here.

Arguments and values are plain values, so the tests need no process of their own.
"""

from __future__ import annotations

import contextlib
import operator
import select
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, cast

import msgspec

from guerdon.errors import BadInput
from guerdon.resources.sandbox import Running
from guerdon.resources.sandbox.status import Status
from guerdon.rules.code.budget import Budget
from guerdon.rules.code.checker import same_value
from guerdon.rules.code.frames import Clock
from guerdon.rules.code.inside.values import (
    MAX_BYTES,
    OWNED,
    Malformed,
    Unsendable,
    decode,
    encode,
)
from guerdon.rules.code.io_cases import Case, Cases
from guerdon.rules.code.testing import END_SECONDS, SLICE_SECONDS, answering, channel
from guerdon.rules.code.verdict import Verdict, failed

LONG = 100
"""Digits of a key that is no number."""


class Ended(Exception):
    """The program's process ended or sent what is no answer."""


class Owned(msgspec.Struct, frozen=True, eq=False):
    """Stands for an object that cannot leave the program's process; equal to no wanted value."""

    number: int


TRUTHS = (bool, operator.not_)
"""What decides by nothing but the truth of a value."""


class Call(msgspec.Struct, frozen=True):
    """One call and what decides whether its value is right.

    Attributes:
        arguments: positional.
        keywords: by name.
        is_right: whether a value is the wanted one; an exception of it means no.
    """

    arguments: Sequence[Any]
    keywords: Mapping[str, Any]
    is_right: Callable[[Any], bool]


def calls_of(cases: Cases, tolerance: float) -> list[Call]:
    """The calls of cases with a function.

    Args:
        cases: in JSON.
        tolerance: see `same_value`.
    """
    return [
        Call(
            list(map(_argument, msgspec.json.decode(case.given))),
            {},
            partial(_is_wanted, case, tolerance),
        )
        for case in cases.calls
    ]


def _argument(value: Any) -> Any:
    """An argument from JSON, which has made keys texts: whole numbers as keys are meant (APPS)."""
    if not isinstance(value, dict):
        return value
    pairs = cast("dict[str, Any]", value)
    if pairs and all(key.lstrip("-").isdecimal() and len(key) < LONG for key in pairs):
        with contextlib.suppress(ValueError):
            return {int(key): item for key, item in pairs.items()}
    return pairs


def _is_wanted(case: Case, tolerance: float, value: Any) -> bool:
    wanted: Any = msgspec.json.decode(case.wanted)
    if same_value(value, wanted, tolerance):
        return True
    # APPS wraps some values in a list of one.
    listed = cast("list[Any]", wanted if isinstance(wanted, list) else [])
    return len(listed) == 1 and same_value(value, listed[0], tolerance)


def run_calls(
    code: str,
    function: str,
    calls: Sequence[Call],
    budget: Budget,
    *,
    stop: bool,
    preamble: str = "",
    given: tuple[str, ...] = (),
) -> Verdict:
    """Call a function and look at what it returns.

    Args:
        code: the program, in Python.
        function: name of the function, which may be a method of a class `Solution`.
        calls: in order; each is a case.
        budget: what the program may use.
        stop: end at the first failure.
        preamble: source that runs before the program.
        given: statements of the set-up that the program may use.

    Raises:
        Unavailable: the sandbox failed.
        BadInput: the preamble does not run, or arguments are too large to travel.
    """
    near, far = channel()
    with near, answering(budget, code, preamble, given, (function,), far) as program:
        return _Calls(program, near, function, calls, budget).follow(stop)


class _Calls:
    """Asks the program, case by case."""

    def __init__(
        self,
        program: Running,
        channel: socket.socket,
        function: str,
        calls: Sequence[Call],
        budget: Budget,
    ) -> None:
        self._program = program
        self._channel = channel
        self._function = function
        self._calls = calls
        self._clock = Clock(budget.case_seconds, budget.program_seconds)
        self._passed: list[bool] = []
        self._message = ""
        channel.setblocking(False)

    def follow(self, stop: bool) -> Verdict:
        try:
            self._prepare()
            self._clock.begin()
            reply = self._ask("load", [self._function])
            if reply[:2] != ("value", [self._function]):
                missing = f"the program does not define {self._function}"
                said = _text(reply) if reply[0] == "raised" else missing
                return self._failed("broken", said)
            self._clock.load()
            for call in self._calls:
                self._clock.begin()
                self._passed.append(self._passes(call))
                if stop and not self._passed[-1]:
                    break
        except TimeoutError as error:
            return self._failed(str(Status.TIMEOUT), str(error))
        except Ended as error:
            return self._ended(str(error))
        if all(self._passed):
            return Verdict(tuple(self._passed), "passed")
        return self._failed("wrong", self._message)

    def _prepare(self) -> None:
        """Run the prompt: nothing of the program has run yet, so this answer can be believed."""
        try:
            reply = self._ask("prepare", None)
            said = "" if reply[0] == "value" else _text(reply)
        except (TimeoutError, Ended) as error:
            if self._program.wait(time.monotonic() + END_SECONDS):
                self._program.finish().check()
            said = str(error).replace("case 0", "it")
        if said:
            raise BadInput(f"the prompt does not run: {said}")

    def _passes(self, call: Call) -> bool:
        reply = self._ask("call", self._function, call.arguments, call.keywords, False)
        if reply[0] == "value" and isinstance(reply[1], Owned) and call.is_right in TRUTHS:
            reply = self._ask("truth", reply[1])
        right = False
        if reply[0] == "value":
            # Values of built-in types can refuse a comparison, too: unlike types an order, and a
            # signalling Decimal any. That is the program's answer, and it is not the right one.
            with contextlib.suppress(TypeError, ValueError, ArithmeticError):
                right = call.is_right(reply[1])
        if not right and not self._message:
            why = "another value" if reply[0] == "value" else _text(reply)
            self._message = f"case {len(self._passed)}: {why}"
        return right

    def _ask(self, *request: Any) -> tuple[Any, ...]:
        """What the program answers.

        Raises:
            TimeoutError: nothing in time; the program has been ended.
            Ended: nothing at all, or something that is no answer.
            BadInput: the arguments are too large.
        """
        try:
            message = encode(request, _number)
        except Unsendable as error:
            raise BadInput(f"the arguments of case {len(self._passed)}: {error}") from None
        self._transfer(len(message).to_bytes(4, "little") + message)
        size = int.from_bytes(self._receive(4), "little")
        if size > MAX_BYTES:
            raise Ended(f"the program sent {size} bytes")
        try:
            reply = decode(self._receive(size), _unknown)
        except Malformed as error:
            raise Ended(f"the program sent no answer: {error}") from None
        answer = cast("tuple[Any, ...]", reply)
        if type(reply) is not tuple or len(answer) < 2:
            raise Ended("the program sent no answer")
        return answer

    def _transfer(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            self._wait(select.POLLOUT)
            try:
                view = view[self._channel.send(view) :]
            except BlockingIOError:
                continue
            except OSError as error:
                raise Ended("the program ended") from error

    def _receive(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            self._wait(select.POLLIN)
            try:
                chunk = self._channel.recv(size - len(data))
            except BlockingIOError:
                continue
            except OSError as error:
                raise Ended("the program ended") from error
            if not chunk:
                raise Ended("the program ended")
            data += chunk
        return bytes(data)

    def _wait(self, event: int) -> None:
        poll = select.poll()
        poll.register(self._channel, event)
        while True:
            self._program.tick()
            left = self._clock.until - time.monotonic()
            # Also where it is late: this thread may have waited longer than the program ran.
            if poll.poll(1000 * max(0.0, min(SLICE_SECONDS, left))):
                return
            if left <= 0:
                said = self._clock.stops(self._program, f"case {len(self._passed)}")
                if said:
                    raise TimeoutError(said)

    def _ended(self, message: str) -> Verdict:
        if self._program.wait(time.monotonic() + END_SECONDS):
            result = self._program.finish().check()
            if result.status not in (Status.OK, Status.NONZERO):
                return self._failed(str(result.status), f"{message}: {result.detail}")
        return self._failed("wrong", message)

    def _failed(self, status: str, message: str) -> Verdict:
        return failed(len(self._calls), self._passed, status, message)


def _unknown(tag: bytes, number: Any) -> Any:
    return Owned(number)


def _number(thing: Any) -> tuple[bytes, Any]:
    if isinstance(thing, Owned):
        return OWNED, thing.number
    raise Unsendable(f"a {type(thing).__name__} is no plain value")


def _text(reply: tuple[Any, ...]) -> str:
    """What an exception said."""
    return reply[3] if len(reply) > 3 and isinstance(reply[3], str) else "no text"
