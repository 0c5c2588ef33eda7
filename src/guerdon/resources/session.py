"""A program that lives in a sandbox and answers one question after another.

Between questions nothing of it is trusted and nothing is awaited; during one the limits are
enforced as for any sandboxed program. A question that takes too long ends the program.
"""

from __future__ import annotations

import contextlib
import math
import select
import socket
import threading
import time
from typing import Any, NoReturn

from guerdon.errors import GuerdonError, Unavailable
from guerdon.resources.inside.channel import (
    CHANNEL,
    MAX_BYTES,
    PREFIX,
    Malformed,
    decode,
    encode,
)
from guerdon.resources.sandbox import Command, Limits, Result, Running, Sandbox
from guerdon.resources.sandbox.bundle import START, compiled
from guerdon.resources.sandbox.status import Status

INSIDE = "guerdon.resources.inside"

SLICE_SECONDS = 0.05
"""How often the limits are looked at while an answer is waited for."""

START_SECONDS = 30.0
"""How long the program may take to be ready."""


class Ended(GuerdonError):
    """The program ended instead of answering.

    Args:
        result: how.
    """

    def __init__(self, result: Result) -> None:
        super().__init__(f"the session ended: {result.detail or 'by itself, with exit code 0'}")
        self.result = result

    @property
    def status(self) -> Status:
        """How; ending by itself with exit code 0 is no answer either."""
        return Status.NONZERO if self.result.status is Status.OK else self.result.status


class Session:
    """One program; use `start` and `close` on one thread, `ask` on any.

    Args:
        sandbox: where it runs.
        limits: of all its life.
        modules: of `guerdon.resources.inside`; the last one is the program.
    """

    def __init__(self, sandbox: Sandbox, limits: Limits, modules: tuple[str, ...]) -> None:
        self._sandbox = sandbox
        self._limits = limits
        self._modules = tuple(f"{INSIDE}.{name}" for name in modules)
        self._lock = threading.Lock()
        self._running: Running | None = None
        self._channel: socket.socket | None = None
        self._data = bytearray()

    @property
    def alive(self) -> bool:
        """Whether it can be asked; enforces the limits."""
        with self._lock:
            return self._running is not None and self._running.tick()

    @property
    def ended(self) -> bool:
        """Whether it cannot be asked any more, and `start` makes it live again."""
        return self._running is None

    def start(self) -> None:
        """Start the program and wait until it is ready.

        Raises:
            Unavailable: it does not start.
        """
        near, far = socket.socketpair()
        interpreter = self._sandbox.interpreter
        command = Command(
            argv=(*interpreter.argv, "-c", START),
            stdin=compiled(interpreter, *self._modules),
            environment={CHANNEL: str(far.fileno())},
            descriptors=(far.fileno(),),
            capture=False,
        )
        with far:
            try:
                running = self._sandbox.start(command, self._limits)
            except OSError as error:
                near.close()
                raise Unavailable(f"the sandbox failed: {error}") from error
        near.setblocking(False)
        self._running, self._channel = running, near
        self._data.clear()
        try:
            with self._lock:
                self._answer(time.monotonic(), START_SECONDS)
        except Ended as ended:
            ended.result.check()
            raise Unavailable(f"the sandboxed program does not start: {ended}") from None

    def ask(self, question: dict[str, Any], seconds: float) -> dict[str, Any]:
        """The answer to a question.

        Raises:
            ValueError: no time, or a question that is too long.
            Ended: the program ended, or was ended because it took too long or used too much.
            Unavailable: the sandbox failed.
            BaseException: what a signal raised here, such as `KeyboardInterrupt`; the program is
                ended, as its late answer would be taken for that to the next question.
        """
        if not 0 < seconds < math.inf:
            raise ValueError(f"seconds must be above 0 and finite, got {seconds}")
        data = encode(question)
        with self._lock:
            if self._running is None:
                raise Unavailable("the session is closed")
            began = time.monotonic()
            try:
                self._send(data, began, seconds)
                return self._answer(began, seconds)
            except BaseException:
                self._end()
                raise

    def close(self) -> None:
        """End the program."""
        with self._lock:
            self._end()

    def interrupt(self) -> None:
        """Let a question that another thread waits for end, and the program with it."""
        channel = self._channel
        if channel is not None:
            with contextlib.suppress(OSError):
                channel.shutdown(socket.SHUT_RDWR)

    def _send(self, data: bytes, began: float, seconds: float) -> None:
        view = memoryview(data)
        while view:
            self._wait(began, seconds, select.POLLOUT)
            try:
                view = view[self._open.send(view) :]
            except BlockingIOError:
                continue
            except OSError:
                self._lost()

    def _answer(self, began: float, seconds: float) -> dict[str, Any]:
        while True:
            size = int.from_bytes(self._data[:PREFIX], "big")
            if len(self._data) >= PREFIX and size > MAX_BYTES:
                self._fail("it wrote no message")
            if len(self._data) >= PREFIX + size and len(self._data) >= PREFIX:
                body = bytes(self._data[PREFIX : PREFIX + size])
                del self._data[: PREFIX + size]
                return self._decoded(body)
            self._wait(began, seconds, select.POLLIN)
            try:
                chunk = self._open.recv(1 << 20)
            except BlockingIOError:
                continue
            except OSError:
                chunk = b""
            if not chunk:
                self._lost()
            self._data += chunk

    def _decoded(self, body: bytes) -> dict[str, Any]:
        try:
            return decode(body)
        except Malformed as error:
            self._fail(f"it wrote no message: {error}")

    @property
    def _open(self) -> socket.socket:
        assert self._channel is not None
        return self._channel

    def _wait(self, began: float, seconds: float, event: int) -> None:
        """Wait until the channel is ready; enforce all limits meanwhile."""
        assert self._running is not None
        poll = select.poll()
        poll.register(self._open.fileno(), event)
        allowed = seconds
        while not poll.poll(SLICE_SECONDS * 1000):
            if not self._running.tick():
                self._lost()
            if time.monotonic() - began > allowed:
                told = f"took longer than {seconds:g} s"
                more = self._running.overdue(began, seconds, told)
                if more is None:
                    self._lost()
                allowed = (more or 0.0) - began

    def _fail(self, told: str) -> NoReturn:
        """End a program that does not keep to the form, which only its own code can cause."""
        assert self._running is not None
        self._running.kill(Status.NONZERO, told)
        self._lost()

    def _lost(self) -> NoReturn:
        """Say how the program ended.

        Raises:
            Ended: always.
            Unavailable: the sandbox failed.
        """
        assert self._running is not None
        self._running.wait(time.monotonic() + SLICE_SECONDS)
        if self._running.tick():
            self._running.kill(Status.NONZERO, "it closed its channel")
        result = self._running.finish()
        self._end()
        raise Ended(result.check())

    def _end(self) -> None:
        running, self._running = self._running, None
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()
        if running is not None:
            running.__exit__()
