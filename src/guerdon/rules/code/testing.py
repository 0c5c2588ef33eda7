"""Runs the tests of a function against a program: two sandboxes, joined by one socket.

The program is in one of them and knows no test. The tests are in the other, which the program
cannot reach but by what it returns. This process only reads the verdicts of the second.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Generator
from typing import Any

from msgspec.structs import replace

from guerdon.errors import BadInput, Unavailable
from guerdon.resources.sandbox import Command, Limits, Result, Running
from guerdon.resources.sandbox.bundle import START, compiled
from guerdon.resources.sandbox.status import Status
from guerdon.rules.code.budget import Budget
from guerdon.rules.code.frames import Clock, Frames
from guerdon.rules.code.function_tests import ALIASES, FunctionTests
from guerdon.rules.code.inside.values import JOB_BYTES, Unsendable, encode
from guerdon.rules.code.verdict import Verdict, failed

INSIDE = "guerdon.rules.code.inside"
SHARED = (f"{INSIDE}.values", f"{INSIDE}.usual", f"{INSIDE}.peer")
ANSWERING = (*SHARED, f"{INSIDE}.answering")
TESTING = (*SHARED, f"{INSIDE}.copies", f"{INSIDE}.testing")

SLICE_SECONDS = 0.05
"""How often the limits of the program are looked at while the tests are waited for."""

END_SECONDS = 1.0
"""How long a program that has closed its channel may take to end."""


def start_inside(
    budget: Budget,
    modules: tuple[str, ...],
    work: dict[str, Any],
    limits: Limits,
    channel: int = -1,
    *,
    reports: bool = True,
) -> Running:
    """Start modules of `inside` as one program.

    Args:
        budget: names the sandbox.
        modules: the last one is the program.
        work: its job; `files` are put into its folder.
        limits: of the sandbox.
        channel: descriptor that it inherits; -1 for none.
        reports: whether it reports on its standard output.

    Raises:
        Unavailable: it cannot be started.
        BadInput: the job is too large.
    """
    sandbox = budget.sandbox
    interpreter = sandbox.interpreter
    files: dict[str, bytes] = work.pop("files", {})
    try:
        whole = {**work, "channel": channel, "packages": list(budget.packages)}
        job = encode(whole, most=JOB_BYTES)
    except Unsendable as error:
        raise BadInput(f"the cases are too large, let only the first count: {error}") from None
    # What reads the job holds it, and its parts, beside what the program may use.
    limits = replace(limits, memory_bytes=limits.memory_bytes + 3 * len(job))
    command = Command(
        argv=(*interpreter.argv, "-c", START),
        stdin=compiled(interpreter, *modules) + job,
        files=files,
        readable=budget.packages,
        descriptors=() if channel < 0 else (channel,),
        capture=reports,
    )
    try:
        return sandbox.start(command, limits)
    except OSError as error:
        raise Unavailable(f"the sandbox failed: {error}") from error


def channel() -> tuple[socket.socket, socket.socket]:
    """Both ends of a socket between the tests and the program.

    Raises:
        Unavailable: this process has no descriptor left.
    """
    try:
        return socket.socketpair()
    except OSError as error:
        raise Unavailable(f"the sandbox failed: {error}") from error


@contextlib.contextmanager
def answering(
    budget: Budget,
    code: str,
    preamble: str,
    given: tuple[str, ...],
    drop: tuple[str, ...],
    end: socket.socket,
) -> Generator[Running]:
    """The sandbox that holds the program; closes this process's copy of its end of the channel."""
    work = {
        "code": code,
        "preamble": preamble,
        "given": list(given),
        "drop": list(drop),
        "usual": budget.usual_imports,
    }
    with end:
        limits = budget.limits()
        running = start_inside(budget, ANSWERING, work, limits, end.fileno(), reports=False)
    with running:
        yield running


def run_function_tests(
    code: str, tests: FunctionTests, budget: Budget, *, stop: bool, in_place: bool
) -> Verdict:
    """Test a program.

    Args:
        code: the program, in Python.
        tests: what it must pass.
        budget: what it may use.
        stop: end at the first failure.
        in_place: whether changes that the program makes to arguments are seen by the tests.

    Raises:
        Unavailable: the sandbox failed, which says nothing about the program.
        BadInput: the tests do not run.
    """
    near, far = channel()
    work = {
        "setup": list(tests.setup),
        "steps": list(tests.steps),
        "entry": tests.entry,
        "alias": tests.alias,
        "imports": list(tests.imports),
        "wanted": list(tests.wanted),
        "imported": list(tests.imported),
        "prompt": bool(tests.preamble),
        "modules": {name: ALIASES.get(name, name) for name in tests.modules},
        "stop": stop,
        "in_place": in_place,
    }
    drop = (tests.entry,) if tests.entry else ()
    with near, answering(budget, code, tests.preamble, tests.given, drop, far) as program:
        with near:
            judge = start_inside(budget, TESTING, work, budget.limits(), near.fileno())
        with judge:
            return _Tests(program, judge, tests.cases, budget).follow()


class _Tests:
    """Follows the reports of the tests."""

    def __init__(self, program: Running, judge: Running, cases: int, budget: Budget) -> None:
        self._program = program
        self._judge = judge
        self._frames = Frames(judge)
        self._cases = cases
        self._passed: list[bool] = []
        self._message = ""
        self._clock = Clock(budget.case_seconds, budget.program_seconds)
        self._ready = False
        program.wait_with(judge)

    def follow(self) -> Verdict:
        while True:
            try:
                report = self._next()
            except TimeoutError:
                said = self._clock.stops(self._program, f"case {len(self._passed)}")
                if said and not self._ready:
                    raise self._unusable("their set-up took too long") from None
                if said:
                    return failed(self._cases, self._passed, str(Status.TIMEOUT), said)
                continue
            if report is None:
                return self._cut_off()
            kind, *rest = report
            if kind == "unusable":
                raise self._unusable(str(rest[0]))
            if kind == "broken":
                return self._end("broken", str(rest[0]))
            if kind == "loaded":
                self._clock.load()
            elif kind in ("ready", "begin"):
                self._ready = True
                self._clock.begin()
            elif kind in ("passed", "failed"):
                self._passed.append(kind == "passed")
                self._message = self._message or str(rest[1])
            elif kind == "stopped":
                return self._end("wrong", self._message or str(rest[1]))
            else:
                return self._done()

    def _next(self) -> tuple[Any, ...] | None:
        while True:
            self._program.tick()
            try:
                return self._frames.next(min(self._clock.until, time.monotonic() + SLICE_SECONDS))
            except TimeoutError:
                if time.monotonic() >= self._clock.until:
                    raise

    def _done(self) -> Verdict:
        if all(self._passed) and len(self._passed) == self._cases:
            return Verdict(tuple(self._passed), "passed")
        return self._end("wrong", self._message)

    def _end(self, status: str, message: str) -> Verdict:
        """The verdict after a failure: how the program ended may say more than the tests can."""
        ended = self._program.wait(time.monotonic() + (END_SECONDS if "ended" in message else 0.0))
        if ended:
            result = self._program.finish().check()
            status, message = _cause(result, status, message)
        return failed(self._cases, self._passed, status, message)

    def _unusable(self, message: str) -> BadInput:
        """The program had no part in what failed; where its sandbox failed, the data had none."""
        if not self._ready and self._program.wait(time.monotonic() + END_SECONDS):
            self._program.finish().check()
        return BadInput(f"the tests do not run: {message}")

    def _cut_off(self) -> Verdict:
        """The tests ended without a last word: what the program returned broke them."""
        result = self._judge.finish().check()
        self._program.tick()
        message = f"the tests ended early: {result.detail or result.status}"
        if not self._ready:
            raise self._unusable(message)
        return self._end("wrong", message)


def _cause(result: Result, status: str, message: str) -> tuple[str, str]:
    if result.status in (Status.OK, Status.NONZERO):
        return status, message
    return str(result.status), f"{message}: {result.detail}"
