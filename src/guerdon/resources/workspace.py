"""A folder with files in which commands run, each in a sandbox of its own.

What a command leaves is carried to the next one by this process, as bytes. So nothing that it
started lives on, a command that is ended by a limit changes nothing, and both engines of the
sandbox give the same.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Mapping, Sequence

from guerdon.errors import ConfigError
from guerdon.outcome import EMPTY
from guerdon.resources.inside.parcel import END, HEADER, pack, unpack
from guerdon.resources.resource import Resource
from guerdon.resources.sandbox import Command, Limits, Result, Sandbox
from guerdon.resources.sandbox.bundle import START, compiled
from guerdon.resources.sandbox.files import Blobs, check_name
from guerdon.resources.sandbox.limits import MIB
from guerdon.resources.sandbox.probe import EngineName
from guerdon.resources.sandbox.sandbox import broken
from guerdon.resources.sandbox.status import Status
from guerdon.resources.sandboxes import sandbox_of
from guerdon.resources.spec import Spec

MODULES = ("guerdon.resources.inside.parcel", "guerdon.resources.inside.workspace")

LOOK_SECONDS = 0.1
"""How long a command that nobody waits for any more may go on."""

MOST_FILES = 10_000
"""More files than this are not carried from one command to the next."""


class Workspace(Resource):
    """Files, and commands that read and change them; made from `WorkspaceSpec`.

    Example:
        >>> from guerdon.resources import Context, WorkspaceSpec
        >>> with Context() as context:
        ...     workspace = context.acquire_resource_sync(WorkspaceSpec(files={"a.txt": b"1"}))
        ...     workspace.run(("sh", "-c", "cat a.txt a.txt > b.txt")).status.value
        ...     workspace.files()["b.txt"]
        'ok'
        b'11'
    """

    def __init__(self, spec: WorkspaceSpec) -> None:
        self._spec = spec
        self._lock = threading.Lock()
        self._interrupted = threading.Event()
        self._files: dict[str, tuple[bytes, bool]] = {}

    def start(self) -> None:
        """Put the spec's files there.

        Raises:
            Unavailable: no sandbox works here.
        """
        _ = sandbox_of(self._spec.engine).engine
        with self._lock:  # a command that nobody awaits any more ends first
            self._interrupted.clear()
            self._files = {name: (data, False) for name, data in self._spec.files.items()}

    def reset(self) -> bool:
        """The spec's files, and no others."""
        self.start()
        return True

    def interrupt(self) -> None:
        """End the command that runs; it changes nothing."""
        self._interrupted.set()

    def stop(self) -> None:
        """Forget the files."""
        self._files = {}

    def run(self, argv: Sequence[str], stdin: bytes = b"", seconds: float = 10.0) -> Result:
        """Run a command to its end; blocks. Commands of several threads run one after another.

        Args:
            argv: the program and its arguments. One that is not there ends with 127, as in a shell:
                what a workspace runs is the candidate's choice.
            stdin: its standard input.
            seconds: after which it is ended.

        Raises:
            Unavailable: the sandbox failed.
            ValueError: arguments that no program can get.
        """
        return self._run_until(threading.Event(), argv, stdin, seconds)

    async def run_async(
        self, argv: Sequence[str], stdin: bytes = b"", seconds: float = 10.0
    ) -> Result:
        """As `run`, without blocking the event loop; cancelling it ends the command."""
        cancelled = threading.Event()
        try:
            return await asyncio.to_thread(self._run_until, cancelled, argv, stdin, seconds)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    def files(self) -> dict[str, bytes]:
        """All files by name; links and empty folders are not kept."""
        with self._lock:
            return {name: data for name, (data, _) in self._files.items()}

    def write(self, name: str, data: bytes) -> None:
        """Put a file there, or replace it.

        Raises:
            ValueError: a name that leaves the folder, or a text where bytes are wanted.
        """
        with self._lock:
            self._files[check_name(name)] = (_checked(name, data), False)

    def _run_until(
        self, cancelled: threading.Event, argv: Sequence[str], stdin: bytes, seconds: float
    ) -> Result:
        if isinstance(argv, str):
            raise ValueError(f'argv is a text; write ("sh", "-c", {argv!r}) for a shell')
        with self._lock:
            ends = (cancelled, self._interrupted)
            result, left = self._run(ends, tuple(argv), stdin, seconds)
            if left is not None:
                self._files = left
            return result.check()

    def _run(
        self,
        ends: Sequence[threading.Event],
        argv: tuple[str, ...],
        stdin: bytes,
        seconds: float,
    ) -> tuple[Result, dict[str, tuple[bytes, bool]] | None]:
        """How the command ended, and the files; None where they stay as they were."""
        spec = self._spec
        sandbox = sandbox_of(spec.engine)
        interpreter = sandbox.interpreter
        disk = spec.disk_mib * MIB
        limits = Limits(
            wall_seconds=seconds,
            memory_bytes=spec.memory_mib * MIB,
            memory_by="data",
            disk_bytes=disk,
            file_bytes=disk + MIB,
        )
        room = disk + MOST_FILES * (HEADER + 256)
        taken = os.memfd_create("guerdon-taken", os.MFD_CLOEXEC)
        try:
            with Blobs() as blobs:
                packed = [(name, *kept) for name, kept in self._files.items()]
                given = blobs.add(pack(packed, room))
                program = blobs.add(compiled(interpreter, *MODULES))
                source = START.replace("open(0,", f"open({program},")
                inner = (str(given), str(taken), str(disk), *(argv or ("",)))
                command = Command(
                    argv=(*interpreter.argv, "-c", source, *inner),
                    stdin=stdin,
                    descriptors=(given, program, taken),
                )
                result = _result(sandbox, command, limits, ends)
            if result.status not in (Status.OK, Status.NONZERO, Status.SIGNALLED):
                return result, None
            return result, _left(os.pread(taken, room + 1, 0))
        finally:
            os.close(taken)


def _result(
    sandbox: Sandbox, command: Command, limits: Limits, ends: Sequence[threading.Event]
) -> Result:
    """How a command ended, by itself or because one of the events was set."""
    try:
        running = sandbox.start(command, limits)
    except OSError as error:
        return broken(error)
    with running:
        while not running.wait(time.monotonic() + LOOK_SECONDS):
            if any(event.is_set() for event in ends):
                running.kill(Status.TIMEOUT, "nobody waits for it any more")
        return running.finish()


def _left(data: bytes) -> dict[str, tuple[bytes, bool]] | None:
    """The files that a command left, under names that can be put there again; None where they are
    not whole."""
    if not data.endswith(END):  # the command ended what hands the files on
        return None
    files = unpack(data.removesuffix(END))
    kept: dict[str, tuple[bytes, bool]] = {}
    for name, content in files.items():
        try:
            kept[check_name(name)] = content
        except ValueError:  # a name of bytes that are no text
            continue
    return kept if len(kept) <= MOST_FILES else None


def _checked(name: str, data: bytes) -> bytes:
    if isinstance(data, str):
        raise ValueError(f"file {name!r} is a text where bytes are wanted: .encode() makes them")
    return data


class WorkspaceSpec(Spec[Workspace], frozen=True, kw_only=True):
    """A folder in which commands run, in the sandbox.

    Attributes:
        files: what it holds at first, by name.
        memory_mib: memory of one command with all that it starts.
        disk_mib: size of the folder.
        engine: see `guerdon.resources.sandbox.Sandbox`.

    Raises:
        ConfigError: a file name that leaves the folder, or a text where bytes are wanted.
    """

    files: Mapping[str, bytes] = EMPTY
    memory_mib: int = 512
    disk_mib: int = 64
    engine: EngineName = "auto"

    def __post_init__(self) -> None:
        for name, data in self.files.items():
            try:
                _checked(check_name(name), data)
            except ValueError as error:
                raise ConfigError(f"files: {error}") from None

    def make(self) -> Workspace:
        """The folder, without its files yet."""
        return Workspace(self)
