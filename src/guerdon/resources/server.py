"""An HTTP server that a reward needs: a model, a judge, a simulator. Started, awaited, stopped."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from typing import ClassVar

import msgspec

from guerdon.errors import ConfigError, Unavailable
from guerdon.outcome import EMPTY
from guerdon.resources.endpoint import (
    FIRST_WAIT_SECONDS,
    LONGEST_WAIT_SECONDS,
    answers,
    check_start,
)
from guerdon.resources.last_words import LastWords
from guerdon.resources.resource import Resource
from guerdon.resources.sandbox.bundle import as_source
from guerdon.resources.spec import Spec

MODULES = ("guerdon.resources.sandbox.tree", "guerdon.resources.warden")

PORT = "{port}"

END_SECONDS = 5.0
"""How long the killed process tree may take to be gone, after the grace."""

PORTS = 5
"""Free ports that are tried, one after another, where other programs take them first."""

_owners: set[int] = set()
"""Descriptors that tell wardens that this process lives."""


def _disown() -> None:
    """In a forked child: it must not keep the parent's servers alive."""
    while _owners:
        os.close(_owners.pop())


os.register_at_fork(after_in_child=_disown)


class Server(Resource):
    """A running server; made from `ServerSpec`.

    Attributes:
        url: where it answers, without a path.
        port: of the loopback.
    """

    url: str = ""
    port: int = 0

    def __init__(self, spec: ServerSpec) -> None:
        self._spec = spec
        self._process: subprocess.Popen[bytes] | None = None
        self._owner: int | None = None
        self._words: LastWords | None = None
        self._interrupted = threading.Event()

    def start(self) -> None:
        """Start it and wait until it is ready.

        Raises:
            Unavailable: its port is taken, it ended, or was not ready in time; quotes its last
                words.
        """
        spec = self._spec
        ends = time.monotonic() + spec.start_seconds
        told = ""
        for _ in range(1 if spec.port else PORTS):
            self.port = _checked_port(spec) if spec.port else _free_port()
            self.url = f"http://127.0.0.1:{self.port}"
            process = self._spawn([part.replace(PORT, str(self.port)) for part in spec.argv])
            if self._await_ready(process, ends):
                return
            told = f"{spec} ended before it was ready{self._said()}"
            self.stop()
            if not self._lost_port():
                break
        raise Unavailable(told)

    def _lost_port(self) -> bool:
        """Whether another program took the port between its choice and its use."""
        return os.strerror(errno.EADDRINUSE).lower() in self.output.lower() or bool(
            _is_taken(self.port)
        )

    def _await_ready(self, process: subprocess.Popen[bytes], ends: float) -> bool:
        """Whether it got ready; otherwise it has ended.

        Raises:
            Unavailable: it was not ready in time.
        """
        spec = self._spec
        wait = FIRST_WAIT_SECONDS
        while not self.ready():
            if process.poll() is not None:
                return False
            if time.monotonic() >= ends:
                self.stop()
                raise Unavailable(
                    f"{spec} was not ready within {spec.start_seconds:g} s: GET "
                    f"{self.url}{spec.ready_path} gave no 2xx{self._said()}"
                )
            if self._interrupted.wait(wait):
                raise Unavailable(f"{spec} was stopped before it was ready")
            wait = min(2 * wait, LONGEST_WAIT_SECONDS)
        return process.poll() is None  # otherwise another server answers there

    def check(self) -> bool:
        """Whether it runs and says that it is ready."""
        return self._process is not None and self._process.poll() is None and self.ready()

    def reset(self) -> bool:
        """By default a server has no state that a rollout could leave behind."""
        return self._spec.stateless

    def interrupt(self) -> None:
        """Let a start end that nobody waits for any more."""
        self._interrupted.set()

    def stop(self) -> None:
        """End the whole process tree: asked first, killed after the spec's grace."""
        owner, self._owner = self._owner, None
        if owner is not None:
            _owners.discard(owner)
            os.close(owner)
        if self._process is not None:
            try:
                self._process.wait(self._spec.stop_seconds + END_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def ready(self) -> bool:
        """Whether `GET ready_path` gives a status of 200 to 299."""
        return answers(self.url + self._spec.ready_path)

    @property
    def output(self) -> str:
        """The end of what it wrote to its standard output and error."""
        return "" if self._words is None else self._words.text

    def _said(self) -> str:
        if self._words is not None:
            self._words.settle()
        said = self.output.strip()
        return f"; it said: {said}" if said else "; it said nothing"

    def _spawn(self, argv: list[str]) -> subprocess.Popen[bytes]:
        spec = self._spec
        if shutil.which(argv[0]) is None:
            raise ConfigError(f"{spec}: the program {argv[0]!r} is not there")
        theirs, self._owner = os.pipe()
        _owners.add(self._owner)
        said, says = os.pipe()
        self._words = LastWords(said)
        warden = [sys.executable, "-S", "-E", "-c", as_source(*MODULES)]
        try:
            self._process = subprocess.Popen(
                [*warden, str(theirs), str(spec.stop_seconds), *argv],
                stdin=subprocess.DEVNULL,
                stdout=says,
                stderr=subprocess.STDOUT,
                pass_fds=(theirs,),
                env={**os.environ, **spec.environment},
                cwd=spec.folder,
                start_new_session=True,
            )
            return self._process
        finally:
            os.close(theirs)
            os.close(says)


def _checked_port(spec: ServerSpec) -> int:
    """The spec's port, if nobody listens there: whoever does would be taken for the server."""
    why = _is_taken(spec.port)
    if why:
        raise Unavailable(
            f"{spec}: port {spec.port} cannot be had ({why}): another program, or another spec "
            "with this port, uses it; leave port at 0 to get a free one"
        )
    return spec.port


def _is_taken(port: int) -> str:
    """Why a port cannot be had; empty where it can."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            return error.strerror or type(error).__name__
    return ""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class ServerSpec(Spec[Server], frozen=True, kw_only=True):
    """A server that is started here. The program is the user's: it is not sandboxed.

    Attributes:
        argv: the program and its arguments; `{port}` stands for the port.
        ready_path: answers with a status of 200 to 299 when it is ready.
        port: fixed, or 0 for a free one each time; with a fixed one there is one server at a time,
            whatever `pool` says.
        environment: beside that of this process.
        folder: working folder.
        start_seconds: how long it may take to be ready, whatever `patience_seconds` says.
        stop_seconds: between asking it to end and killing it.
        stateless: whether one rollout leaves nothing behind for the next; if not, it is started
            anew for each.

    Raises:
        ConfigError: no program, one that cannot know its port, or times that cannot be.
    """

    secrets: ClassVar[tuple[str, ...]] = ("environment",)

    argv: tuple[str, ...]
    ready_path: str = "/health"
    port: int = 0
    environment: Mapping[str, str] = EMPTY
    folder: str | None = None
    start_seconds: float = 300.0
    stop_seconds: float = 5.0
    stateless: bool = True

    def __post_init__(self) -> None:
        if not self.argv:
            raise ConfigError("argv names no program")
        if not self.port and not any(PORT in part for part in self.argv):
            raise ConfigError("argv holds no {port}: put it there, or give a fixed port")
        if not self.ready_path.startswith("/"):
            raise ConfigError(f"ready_path is a path such as /health, got {self.ready_path!r}")
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"port is 0 to 65535, got {self.port}")
        if self.port:
            one = msgspec.structs.replace(self.pool, max=1, min=min(self.pool.min, 1))
            msgspec.structs.force_setattr(self, "pool", one)
        check_start(self, self.start_seconds)

    def make(self) -> Server:
        """The server, not started yet."""
        return Server(self)
