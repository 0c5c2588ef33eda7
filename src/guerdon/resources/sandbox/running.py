"""A confined program while it runs: its output, its limits, its end.

One thread drives it, blocking: the kernel bounds most of what a program may use, and this loop
bounds wall time, output and the memory of several processes together.
"""

from __future__ import annotations

import contextlib
import os
import random
import select
import signal
import socket
import subprocess
import time
from typing import cast

import msgspec

from guerdon.resources.sandbox import tree
from guerdon.resources.sandbox.engine import UNMEASURED, Engine, Plan
from guerdon.resources.sandbox.keeping import kept_files
from guerdon.resources.sandbox.limits import Limits
from guerdon.resources.sandbox.result import Result
from guerdon.resources.sandbox.status import Status
from guerdon.resources.sandbox.waiting import Waiting

CHUNK = 1 << 16
LOOK_SECONDS = 0.05
"""How often a process tree is looked at, on average: it cannot know when."""

END_SECONDS = 10.0
"""How long a killed tree may take to be gone before the sandbox counts as broken."""

STATUS_BYTES = 1 << 16
"""Most bytes of reports; the engine writes a few dozen."""

STARVED = 0.5
"""A program has had its time when for this share of it nobody but itself kept it from running."""

PATIENCE = 4
"""How many times its time a starved program gets before the machine counts as too busy."""

OUT_OF_MEMORY = (
    b"MemoryError",
    b"std::bad_alloc",
    b"JavaScript heap out of memory",
    b"Cannot allocate memory",
    b"cannot allocate memory",
    b"out of memory",
    b"Out of memory",
)
"""How runtimes say that the memory ended, in their last words."""

LAST_WORDS = 2000

SIGNAL_STATUS = {
    signal.SIGSYS: Status.FORBIDDEN,
    signal.SIGXCPU: Status.TIMEOUT,
    signal.SIGXFSZ: Status.OUTPUT,
}


class _Stream:
    """What came through one pipe, up to a limit."""

    def __init__(self, limit: int) -> None:
        self.data = bytearray()
        self.limit = limit
        self._room = limit

    def add(self, chunk: bytes) -> bool:
        """Keep what fits; returns whether all of it did."""
        fitting = chunk[: self._room]
        self.data += fitting
        self._room -= len(fitting)
        return len(fitting) == len(chunk)

    def take(self) -> bytes:
        """What came since the last time; it is not kept."""
        fresh = bytes(self.data)
        self.data.clear()
        return fresh


class Pipes(msgspec.Struct, frozen=True):
    """This process's ends of the pipes of a run.

    Attributes:
        stdout: standard output, or None where nothing is captured.
        stderr: standard error, likewise.
        status: the engine's reports.
        kept: files that were kept, or None.
    """

    stdout: int | None
    stderr: int | None
    status: int
    kept: int | None

    def close(self) -> None:
        """Close all of them."""
        for descriptor in (self.stdout, self.stderr, self.status, self.kept):
            if descriptor is not None:
                os.close(descriptor)


class Running:
    """A program in a sandbox; made by `Sandbox.start`, and ended by `finish` or by a `with` block.

    Args:
        process: what was started.
        plan: how it was started.
        pipes: where its output arrives.
        engine: what confines it.
        limits: what it may use.
        keep: names of the files to bring back.
    """

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        plan: Plan,
        pipes: Pipes,
        engine: Engine,
        limits: Limits,
        keep: tuple[str, ...],
    ) -> None:
        self._process = process
        self._plan = plan
        self._pipes = pipes
        self._engine = engine
        self._limits = limits
        self._keep = keep
        self._began = time.monotonic()
        self._waiting = Waiting(process.pid, self._began)
        self._next_look = self._began + LOOK_SECONDS
        self._ends = self._began + limits.wall_seconds
        self._streams = {
            descriptor: _Stream(limit)
            for descriptor, limit in (
                (pipes.stdout, limits.output_bytes),
                (pipes.stderr, limits.output_bytes),
                (pipes.status, STATUS_BYTES),
                (pipes.kept, limits.disk_bytes + STATUS_BYTES),
            )
            if descriptor is not None
        }
        self._poll = select.poll()
        for descriptor in self._streams:
            os.set_blocking(descriptor, False)
            self._poll.register(descriptor, select.POLLIN)
        self._open = set(self._streams)
        self._killed: tuple[Status, str] | None = None
        self._result: Result | None = None

    @property
    def pid(self) -> int:
        """The process that was started on the host; everything of the run descends from it."""
        return self._process.pid

    def read(self, until: float) -> bytes:
        """The next bytes of standard output, which the result will not have; nothing at its end.

        Args:
            until: `time.monotonic()` after which to give up.

        Raises:
            TimeoutError: nothing came until then; the program still runs.
        """
        stream = self._streams[cast("int", self._pipes.stdout)]
        while not stream.data:
            if self._killed is not None or self._pipes.stdout not in self._open:
                return b""
            late = time.monotonic() >= until
            # Also where it is late: this thread may have waited longer than the program ran.
            self._step(until)
            if late and not stream.data and self._pipes.stdout in self._open:
                raise TimeoutError
        return stream.take()

    def wait(self, until: float | None = None) -> bool:
        """Wait until it has ended by itself or by a limit; returns whether it has."""
        while self._open and self._killed is None:
            if until is not None and time.monotonic() >= until:
                return False
            self._step(self._ends if until is None else until)
        return True

    def tick(self) -> bool:
        """Enforce the limits now, without waiting; returns whether it still runs."""
        if self._open and self._killed is None:
            self._step(time.monotonic())
        return bool(self._open) and self._killed is None

    def wait_with(self, other: Running) -> None:
        """Count the waiting of another sandbox for a processor as waiting of this one.

        For two that take turns, one of them trusted: where the machine keeps that one from running,
        this one has not had its time either. It counts while both together want one processor only,
        so that none can make the other wait.

        Args:
            other: the one that is waited for.
        """
        self._waiting.join(other.pid)

    def overdue(self, since: float, allowed: float, what: str) -> float | None:
        """End it because it is too slow, unless the machine is: then it gets more time.

        A program that ran, slept, or made itself wait for a processor had its time. Only waiting
        that it cannot have caused counts for it: see `Waiting`.

        Args:
            since: `time.monotonic()` when what is too slow began.
            allowed: seconds that it may take.
            what: says what took too long, such as "case 3 took longer than 5 s".

        Returns:
            `time.monotonic()` until which it may go on, or None where it was ended.
        """
        now = time.monotonic()
        self._waiting.look(now)
        waited = self._waiting.since(since)
        if now - since - waited >= STARVED * allowed:
            self.kill(Status.TIMEOUT, what)
        elif now < since + PATIENCE * allowed:
            return now + STARVED * allowed
        else:
            share = f"waited {waited:.1f} s of {now - since:.1f} s for a processor"
            self.kill(Status.SANDBOX_FAILED, f"{what}, but {share}: the machine is too busy")
        return None

    def kill(self, status: Status, detail: str) -> None:
        """End the process tree; the first reason counts."""
        if self._killed is None:
            self._killed = (status, detail)
            if self._process.returncode is None:
                tree.kill_tree(self._process.pid)

    def finish(self) -> Result:
        """Wait for the end, clean up, and say what came of it; may be called again."""
        if self._result is None:
            self.wait()
            self._result = self._close()
        return self._result

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        if self._result is None:
            self.kill(Status.TIMEOUT, "nobody waited for it")
            self._result = self._close()

    def _step(self, until: float) -> None:
        """Wait for output, the next look or the end of the time, and act on it."""
        now = time.monotonic()
        if now >= self._ends:
            allowed = self._limits.wall_seconds
            more = self.overdue(self._began, allowed, f"took longer than {allowed:g} s")
            if more is None:
                return
            self._ends = more
        if now >= self._next_look:
            self._look(now)
            self._next_look = time.monotonic() + random.uniform(0.5, 1.5) * LOOK_SECONDS
        wake = min(until, self._ends, self._next_look)
        for descriptor, _ in self._poll.poll(max(0.0, (wake - now) * 1000)):
            self._take(descriptor)

    def _take(self, descriptor: int) -> None:
        try:
            chunk = os.read(descriptor, CHUNK)
        except BlockingIOError:
            return
        if not chunk:
            self._poll.unregister(descriptor)
            self._open.discard(descriptor)
        elif not self._streams[descriptor].add(chunk):
            self.kill(Status.OUTPUT, f"wrote more than {self._streams[descriptor].limit} bytes")

    def _look(self, now: float) -> None:
        """End a tree that uses more than its limits, where the kernel looks at single processes."""
        self._waiting.look(now)
        if self._pipes.status not in self._open:
            free_sockets()
        used = tree.memory_bytes(self._process.pid, self._limits.memory_bytes)
        if used > self._limits.memory_bytes:
            self.kill(Status.MEMORY, f"its processes used {used >> 20} MiB of memory")
            return
        size = self._plan.disk_bytes(self._process.pid)
        if size >= UNMEASURED:
            why = "nested too deeply, locked, or mapped too often"
            self.kill(Status.OUTPUT, f"its folder cannot be measured: {why}")
        elif size > self._limits.disk_bytes:
            self.kill(Status.OUTPUT, f"its folder held {size >> 20} MiB, or too many files")

    def _close(self) -> Result:
        """The result; nothing of the run is left afterwards."""
        self._drain()
        gone = self._await_process()
        took = time.monotonic() - self._began
        self._pipes.close()
        self._plan.release()
        if not gone:
            detail = f"the process tree was still there {END_SECONDS} s after it was killed"
            return Result(status=Status.SANDBOX_FAILED, wall_seconds=took, detail=detail)
        stdout, stderr = self._bytes(self._pipes.stdout), self._bytes(self._pipes.stderr)
        status, exit_code, detail = self._verdict(stderr)
        files = kept_files(self._bytes(self._pipes.kept), self._keep)
        return Result(
            status=status,
            exit_code=exit_code,
            stdout=stdout,
            stderr=stderr,
            files=files,
            wall_seconds=took,
            detail=detail,
        )

    def _drain(self) -> None:
        """After a kill: read what the pipes still hold, until every writer is gone."""
        give_up = time.monotonic() + END_SECONDS
        while self._open and time.monotonic() < give_up:
            free_sockets()
            for descriptor, _ in self._poll.poll(100):
                self._take(descriptor)

    def _await_process(self) -> bool:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(END_SECONDS)
            return not self._open
        return False

    def _bytes(self, descriptor: int | None) -> bytes:
        return b"" if descriptor is None else bytes(self._streams[descriptor].data)

    def _verdict(self, stderr: bytes) -> tuple[Status, int | None, str]:
        code = exit_code(self._bytes(self._pipes.status))
        if self._killed is not None:
            return self._killed[0], None, self._killed[1]
        if code is None:
            said = stderr[-LAST_WORDS:].decode(errors="replace").strip()
            why = said or f"it ended with {self._process.returncode} before the program started"
            return Status.SANDBOX_FAILED, None, f"{self._engine.name}: {why}"
        status, detail = _ended(code, stderr[-LAST_WORDS:])
        return status, code, detail


def free_sockets() -> None:
    """Let the kernel free sockets that nobody has and that only hold each other.

    A program can leave its pipes in a ring of them, and they would stay open when it is gone: the
    kernel looks for such rings when any socket of this family is closed.
    """
    with contextlib.suppress(OSError):
        for end in socket.socketpair():
            end.close()


def exit_code(reports: bytes) -> int | None:
    """The exit code in an engine's reports; None where the program never started or never ended.

    Example:
        >>> exit_code(b'{"child-pid": 7}\\n{"exit-code": 3}\\n')
        3
    """
    for line in reports.splitlines():
        with contextlib.suppress(msgspec.DecodeError):
            report = msgspec.json.decode(line, type=dict[str, int])
            if "exit-code" in report:
                return report["exit-code"]
    return None


def _ended(code: int, last_words: bytes) -> tuple[Status, str]:
    """What an exit code means, and says for people."""
    if code == 0:
        return Status.OK, ""
    lines = last_words.decode(errors="replace").strip().splitlines()
    said = f": {lines[-1]}" if lines else ""
    if code > 128 and code - 128 in set(signal.Signals):
        number = signal.Signals(code - 128)
        status = SIGNAL_STATUS.get(number, Status.SIGNALLED)
    else:
        number, status = None, Status.NONZERO
    if status in (Status.NONZERO, Status.SIGNALLED) and any(w in last_words for w in OUT_OF_MEMORY):
        status = Status.MEMORY
    ended = f"exit code {code}" if number is None else f"signal {number.name}"
    return status, f"ended with {ended}{said}"
