"""A worker of the pool: `python -m guerdon.backends.pool.worker SOCKET BOARD`.

It is a process of its own, never a fork of the trainer, and never runs the trainer's `__main__`.
It ends with its parent, even inside C code.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Sequence

from guerdon import registry
from guerdon.backends.backend import Sealed
from guerdon.backends.inline import call_each, call_many
from guerdon.backends.pool import frames
from guerdon.backends.pool.board import AREA_BYTES, Board
from guerdon.errors import UnknownReward
from guerdon.injection import Arguments
from guerdon.reward import BaseReward

PR_SET_PDEATHSIG = 1
"""linux/prctl.h: the signal that the kernel sends when the parent dies."""

PAGE = resource.getpagesize()


class Worker:
    """Loads rewards, runs chunks, and writes down what it does before it does it."""

    def __init__(self, connection: socket.socket, board: Board) -> None:
        self._connection = connection
        self._board = board
        self._rewards: dict[int, BaseReward] = {}
        self._memory_bytes: int | None = None
        self._written = 0

    def serve(self) -> None:
        """Answer messages until the pool says goodbye or is gone."""
        while True:
            try:
                kind, message = frames.receive(self._connection)
            except frames.Unpicklable as error:
                self._send(frames.UNREAD, str(error))
                continue
            if kind == frames.HELLO:
                self._set_up(message)
            elif kind == frames.LOAD:
                self._load(*message)
            elif kind == frames.RUN:
                self._run(message)
            else:
                return

    def _send(self, kind: int, value: object) -> None:
        self._connection.sendall(frames.encode_message(kind, value))

    def _set_up(self, hello: frames.Hello) -> None:
        if os.getppid() != hello.parent:
            raise EOFError
        sys.path[:] = hello.path
        self._memory_bytes = hello.memory_bytes
        self._send(frames.READY, hello.parent)

    def _load(self, number: int, files: dict[str, str], pickled: bytes) -> None:
        import pickle

        broken: list[str] = []
        for path in files.values():
            try:
                registry.load_file(path)
            except UnknownReward as caught:
                broken.append(str(caught))  # it matters only if the reward needs this file
        error = ""
        try:
            self._rewards[number] = pickle.loads(pickled)
            self._rewards[number].warm()
            self._limit_memory(self._rewards[number])
        except BaseException as caught:
            error = "; ".join([f"{type(caught).__name__}: {caught}", *broken])
        self._send(frames.LOADED, frames.Loaded(number, error))

    def _limit_memory(self, reward: BaseReward) -> None:
        """Bound what calls may take beyond what loading took, unless a device maps memory too."""
        if self._memory_bytes is None or reward.work == "gpu":
            return
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        soft = address_space() + self._memory_bytes
        if hard != resource.RLIM_INFINITY:
            soft = min(soft, hard)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))

    def _run(self, run: frames.Run) -> None:
        reward = self._rewards[run.reward]
        board = self._board
        for call, arguments in enumerate(run.arguments):
            began = time.monotonic_ns()
            board.begin(run.chunk, call, began, time.process_time_ns())
            if call >= board.limit:
                break
            sealed = _perform(reward, arguments, run.sizes, call)
            elapsed = (time.monotonic_ns() - began) / 1e9
            self._keep(run.chunk, call, frames.encode_result(call, elapsed, sealed))
        self._flush(run.chunk)
        self._send(frames.DONE, frames.Done(run.chunk, resident_bytes()))

    def _keep(self, chunk: int, call: int, result: bytes) -> None:
        """Put a result where the pool finds it even if this process dies with the next call."""
        record = frames.LENGTH.pack(len(result)) + result
        if self._written + len(record) > AREA_BYTES:
            self._flush(chunk)
        if len(record) > AREA_BYTES:
            self._send(frames.RESULTS, frames.CHUNK.pack(chunk) + record)
            self._board.end(0)
            return
        self._board.write(self._written, record)
        self._written += len(record)
        self._board.end(self._written)

    def _flush(self, chunk: int) -> None:
        if self._written:
            self._send(frames.RESULTS, frames.CHUNK.pack(chunk) + self._board.written())
        self._written = 0
        self._board.end(0)


def _perform(
    reward: BaseReward, arguments: Arguments, sizes: Sequence[int] | None, call: int
) -> Sealed | list[Sealed]:
    if sizes is None:
        return call_each(reward, (arguments,))[0]
    return call_many(reward, arguments, sizes[call])


def resident_bytes() -> int:
    """Memory that this process holds now."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * PAGE
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def address_space() -> int:
    """Bytes of address space that this process has mapped."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[0]) * PAGE
    except OSError:
        return resident_bytes()


def die_with_parent() -> None:
    """Let the kernel kill this process when the pool's thread dies, whatever code runs here."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> None:
    """Serve the pool at the other end of the socket."""
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # What a reward prints must not mix with what the main program prints.
    os.dup2(2, 1)
    connection = socket.socket(fileno=int(sys.argv[1]))
    with contextlib.suppress(EOFError, ConnectionError):
        Worker(connection, Board(int(sys.argv[2]))).serve()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
