"""One worker process as the pool sees it: its socket, its page, its life and its death."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path

import guerdon
from guerdon.backends.pool.board import IDLE, Board, Now
from guerdon.backends.pool.frames import EXIT, HELLO, Hello, Incoming, Outgoing

KILL_SECONDS = 5.0
"""How long a killed process may take to disappear; the kernel may be writing its core."""

READ_BYTES = 1 << 18

THREAD_LIMITS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""Set to 1 in workers unless the user says otherwise: the pool is the parallelism."""


class WorkerProcess:
    """A running worker.

    Args:
        hello: how it sets itself up.
        environment: variables beside those of this process.

    Attributes:
        pid: of the process.
        ready: whether it has said that it is set up.
        loaded: numbers of the rewards that it has loaded.
        served: calls that it has finished.
        started_at: `time.monotonic()` of its start.
    """

    def __init__(self, hello: Hello, environment: Mapping[str, str]) -> None:
        self.board = Board.create()
        ours, theirs = socket.socketpair()
        try:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-P",
                    "-m",
                    "guerdon.backends.pool.worker",
                    str(theirs.fileno()),
                    str(self.board.descriptor),
                ],
                pass_fds=(theirs.fileno(), self.board.descriptor),
                stdin=subprocess.DEVNULL,
                env=_environment(environment),
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            self.board.close()
            raise
        finally:
            theirs.close()
        ours.setblocking(False)
        self.connection = ours
        self.pid = self._process.pid
        self.ready = False
        self.loaded: set[int] = set()
        self.served = 0
        self.started_at = time.monotonic()
        self._incoming = Incoming()
        self._outgoing: deque[Outgoing] = deque()
        self.send(HELLO, hello)

    def send(self, kind: int, value: object) -> None:
        """Queue a message; `flush` sends it as far as the socket takes it."""
        self._outgoing.append(Outgoing(kind, value))
        self.flush()

    @property
    def sending(self) -> bool:
        """Whether something waits to be sent."""
        return bool(self._outgoing)

    def flush(self) -> None:
        """Send what the socket takes; a dead worker is noticed when it is read from."""
        try:
            while self._outgoing and self._outgoing[0].send(self.connection):
                self._outgoing.popleft()
        except OSError:
            self._drop_outgoing()

    def receive(self) -> tuple[list[tuple[int, bytes]], bool]:
        """Messages that have arrived, and whether the worker is still there."""
        messages: list[tuple[int, bytes]] = []
        try:
            while data := self.connection.recv(READ_BYTES):
                messages += self._incoming.feed(data)
        except BlockingIOError:
            return messages, True
        except OSError:
            return messages, False
        return messages, False

    def now(self, since_ns: int) -> Now:
        """What it is doing; `IDLE` where two looks disagree, or where the call would have begun
        before the worker had its chunk: both mean that it is between two calls.

        Args:
            since_ns: `time.monotonic_ns()` when the chunk was sent.
        """
        first, second = self.board.read(), self.board.read()
        if second[:4] != first[:4] or second.started_ns < since_ns:
            return second._replace(call=IDLE)
        return second

    def cpu_seconds_since(self, now: Now) -> float | None:
        """Processor time that it has used since a call began; None where this cannot be read."""
        if sys.platform != "linux":
            return None
        clock = ~self.pid << 3 | 2  # the kernel's encoding of a process's CPU clock
        try:
            return (time.clock_gettime_ns(clock) - now.cpu_ns) / 1e9
        except OSError:
            return None

    def resident_bytes(self) -> int:
        """Memory that it holds; 0 where this cannot be read."""
        try:
            fields = Path(f"/proc/{self.pid}/statm").read_text().split()
        except OSError:
            return 0
        return int(fields[1]) * os.sysconf("SC_PAGESIZE")

    def kill(self) -> None:
        """Kill it and whatever it started, and wait until it is gone."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(KILL_SECONDS)

    def dismiss(self) -> None:
        """Ask it to end after what it does now."""
        self.send(EXIT, None)

    def reap(self, timeout: float) -> bool:
        """Wait for its end; returns whether it has come."""
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        return True

    def ending(self) -> str:
        """How it ended, for people."""
        code = self._process.poll()
        if code is None:
            return "still running"
        if code >= 0:
            return f"exit status {code}"
        try:
            return f"signal {signal.Signals(-code).name}"
        except ValueError:
            return f"signal {-code}"

    def close(self) -> None:
        """Release the socket and the page; the process must be gone."""
        self._drop_outgoing()
        self.connection.close()
        self.board.close()

    def _drop_outgoing(self) -> None:
        while self._outgoing:
            self._outgoing.popleft().close()


def _environment(own: Mapping[str, str]) -> dict[str, str]:
    """The worker's environment: ours, able to import this very Guerdon, with a fixed hash seed,
    and with its own variables.

    The seed makes anything that depends on the order of a set equal in every worker.
    """
    source = str(Path(guerdon.__file__).resolve().parent.parent)
    variables = {**os.environ, **own}
    path = os.pathsep.join(filter(None, [source, variables.get("PYTHONPATH", "")]))
    limits = dict.fromkeys(THREAD_LIMITS, "1")
    return {**limits, "PYTHONHASHSEED": "0", **variables, "PYTHONPATH": path}
