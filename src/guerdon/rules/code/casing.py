"""Runs a program on standard input and output, all its cases in one sandbox.

The sandbox gets inputs only. Outputs are compared here, so a program that tampers with what runs it
can do no more than print something else.
"""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from guerdon.resources.sandbox import Running
from guerdon.resources.sandbox.running import SIGNAL_STATUS
from guerdon.resources.sandbox.status import Status
from guerdon.rules.code.budget import MIB, Budget
from guerdon.rules.code.checker import Checker, same_output
from guerdon.rules.code.frames import Clock, Frames
from guerdon.rules.code.inside.values import MAX_BYTES
from guerdon.rules.code.io_cases import Case, Cases
from guerdon.rules.code.language import Language
from guerdon.rules.code.testing import INSIDE, start_inside
from guerdon.rules.code.verdict import Verdict, failed

CASING = (f"{INSIDE}.values", f"{INSIDE}.usual", f"{INSIDE}.casing")

FRAME_ROOM = 8192
"""What a report has beside the output that it carries."""


def run_cases(
    code: str,
    cases: Cases,
    language: Language,
    budget: Budget,
    *,
    stop: bool,
    checker: Checker,
    tolerance: float,
) -> Verdict:
    """Run a program on every case and compare what it prints.

    Args:
        code: the program.
        cases: on standard input and output.
        language: of the program.
        budget: what it may use.
        stop: end at the first failure.
        checker: see `same_output`.
        tolerance: see `same_output`.

    Raises:
        Unavailable: the sandbox failed, or the language is not installed.
    """
    limit = min(budget.output_bytes, MAX_BYTES - FRAME_ROOM)
    work: dict[str, Any] = {
        "inputs": [case.given.encode("utf-8", "surrogateescape") for case in cases.streams],
        "limit": limit,
        "usual": budget.usual_imports,
        "source": code if language.name == "python" else None,
        "compile": [],
        "run": ["./program"],
        "files": {},
    }
    if language.name != "python":
        tool = language.tool_path()
        work["compile"] = [tool, *language.compile] if language.compile else []
        work["run"] = [tool, *language.run] if language.run else ["./program"]
        work["files"] = {language.file: code.encode("utf-8", "surrogatepass")}
    limits = budget.limits(len(cases), language.memory_by)
    largest = max(map(len, work["inputs"]))  # each is a file while its case runs
    limits = replace(
        limits,
        memory_bytes=limits.memory_bytes + language.tool_mib * MIB,
        file_bytes=max(limits.file_bytes, largest),
        disk_bytes=limits.disk_bytes + largest,
    )
    with start_inside(budget, CASING, work, limits) as running:
        return _Runs(running, cases.streams, budget, limit, checker, tolerance).follow(stop)


class _Runs:
    """Follows the reports about the cases and compares outputs."""

    def __init__(
        self,
        running: Running,
        cases: tuple[Case, ...],
        budget: Budget,
        limit: int,
        checker: Checker,
        tolerance: float,
    ) -> None:
        self._running = running
        self._frames = Frames(running)
        self._cases = cases
        self._limit = limit
        self._checker: Checker = checker
        self._tolerance = tolerance
        self._clock = Clock(budget.case_seconds, budget.program_seconds)
        self._passed: list[bool] = []
        self._first: tuple[str, str] | None = None
        self._loaded = False
        self._begun = 0

    def follow(self, stop: bool) -> Verdict:
        while len(self._passed) < len(self._cases):
            try:
                report = self._frames.next(self._clock.until)
            except TimeoutError:
                said = self._clock.stops(self._running, f"case {len(self._passed)}")
                if said:
                    return self._failed(str(Status.TIMEOUT), said)
                continue
            if report is None:
                return self._cut_off()
            # The program can tamper with what reports: nothing of a report is trusted to be right.
            match report:
                case ("broken", str() as why) if not self._loaded:
                    return self._failed("broken", why)
                case ("loaded",) if not self._loaded:
                    self._loaded = True
                    self._clock.load()
                case ("begin", int() as case) if self._loaded and case == self._begun:
                    self._begun += 1
                    self._clock.begin()
                case ("ended", int(), int() as code, bytes() as output, str() as words) if (
                    self._begun == len(self._passed) + 1 and 0 <= code < 256
                ):
                    self._take(code, output, words)
                    if stop and not self._passed[-1]:
                        break
                case _:
                    return self._failed("broken", "the program tampered with what runs it")
        if self._first is None:
            return Verdict(tuple(self._passed), "passed")
        return self._failed(*self._first)

    def _take(self, code: int, output: bytes, words: str) -> None:
        """Judge one case by what was reported about it."""
        case = len(self._passed)
        status, why = "", ""
        if code != 0:
            status, why = _ended(code, words)
        elif len(output) > self._limit:
            status, why = str(Status.OUTPUT), f"it printed more than {self._limit} bytes"
        else:
            text = output.decode("utf-8", "surrogateescape")
            if not same_output(text, self._cases[case].wanted, self._checker, self._tolerance):
                status, why = "wrong", "another output"
        self._passed.append(not status)
        if status and self._first is None:
            self._first = (status, f"case {case}: {why}")

    def _cut_off(self) -> Verdict:
        result = self._running.finish().check()
        status = "broken" if result.status in (Status.OK, Status.NONZERO) else str(result.status)
        return self._failed(status, result.detail or "the program ended what runs it")

    def _failed(self, status: str, message: str) -> Verdict:
        return failed(len(self._cases), self._passed, status, message)


def _ended(code: int, words: str) -> tuple[str, str]:
    last = words.strip().splitlines()[-1:] or [""]
    if code > 128:
        for number, status in SIGNAL_STATUS.items():
            if code == 128 + number:
                return str(status), f"signal {number.name}"
        return str(Status.SIGNALLED), f"signal {code - 128}: {last[0]}"
    status = Status.MEMORY if "MemoryError" in last[0] or "bad_alloc" in words else Status.NONZERO
    return str(status), f"exit code {code}: {last[0]}"
