"""A Python interpreter in the sandbox that keeps its variables between calls."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Any

import msgspec

from guerdon.errors import ConfigError, Unavailable
from guerdon.resources.inside.channel import Malformed
from guerdon.resources.lease import Released
from guerdon.resources.resource import Resource
from guerdon.resources.sandbox import Limits
from guerdon.resources.sandbox.limits import MIB
from guerdon.resources.sandbox.probe import EngineName
from guerdon.resources.sandbox.status import Status
from guerdon.resources.sandboxes import sandbox_of
from guerdon.resources.session import Ended, Session
from guerdon.resources.spec import Spec

MODULES = ("channel", "python")

OUTPUT_BYTES = 256 * 1024
"""Most output of one call, of each of the two streams."""


class Execution(msgspec.Struct, frozen=True, kw_only=True):
    """What one piece of code gave. It is what the code made its interpreter say: evidence of
    nothing. Tests belong into `code_python`, where the grader runs elsewhere.

    Attributes:
        status: `ok` also where the code raised; else how it ended the interpreter.
        stdout: what it printed, at most 256 KiB.
        stderr: likewise.
        value: `repr` of its last expression; None where that is no expression, or None.
        error: the traceback of what it raised, or how it ended the interpreter; empty without.
        exception: name of the type that it raised; empty without.
        fresh: whether the interpreter was new, as code before it had ended the last one.
        cut: whether output was left out.
    """

    status: Status
    stdout: str = ""
    stderr: str = ""
    value: str | None = None
    error: str = ""
    exception: str = ""
    fresh: bool = False
    cut: bool = False

    @property
    def ok(self) -> bool:
        """Whether the code ran to its end without an exception."""
        return self.status is Status.OK and not self.error


class PythonSession(Resource):
    """A persistent interpreter; made from `PythonSpec`.

    Example:
        >>> from guerdon.resources import Context, PythonSpec
        >>> with Context() as context:
        ...     python = context.acquire_resource_sync(PythonSpec())
        ...     _ = python.run("def twice(x): return 2 * x")
        ...     python.run("twice(21)").value
        '42'
    """

    def __init__(self, spec: PythonSpec) -> None:
        self._spec = spec
        self._session: Session | None = None
        self._clean = True
        self._lock = threading.Lock()

    def start(self) -> None:
        """Start the interpreter and run the spec's setup."""
        spec = self._spec
        limits = Limits(
            wall_seconds=spec.lifetime_seconds,
            cpu_seconds=spec.cpu_seconds,
            memory_bytes=spec.memory_mib * MIB,
        )
        session = Session(sandbox_of(spec.engine), limits, MODULES)
        session.start()
        self._session, self._clean = session, True
        if spec.setup:
            done = self._ask(session, spec.setup, spec.setup_seconds)
            if not done.ok:
                session.close()  # whoever asks next runs it again
                raise ConfigError(f"{spec}: its setup fails: {done.error.strip()}")
            self._clean = True

    def reset(self) -> bool:
        """A new interpreter, unless nothing ran in this one."""
        if not self._clean:
            self.stop()
            self.start()
        return True

    def check(self) -> bool:
        """Whether it lives; one that code has ended starts again with the next call."""
        session = self._session
        return session is not None and (session.ended or session.alive)

    def interrupt(self) -> None:
        """End it where somebody still waits for an answer; it starts again with its reset."""
        session = self._session
        if session is not None:
            session.interrupt()

    def stop(self) -> None:
        """End it."""
        if self._session is not None:
            self._session.close()
            self._session = None

    def run(self, code: str, seconds: float = 10.0) -> Execution:
        """Run code in the interpreter; blocks. Calls of several threads run one after another.

        Code that takes longer than `seconds` ends the interpreter; the next call gets a fresh one
        without the variables, and says so.

        Raises:
            Unavailable: the sandbox failed.
            ValueError: `seconds` are none.
        """
        with self._lock:
            fresh = self._session is not None and self._session.ended
            if fresh:
                self.keep(self.start)
            if self._session is None:
                raise Unavailable("the interpreter was released and cannot be used any more")
            return msgspec.structs.replace(self._ask(self._session, code, seconds), fresh=fresh)

    async def run_async(self, code: str, seconds: float = 10.0) -> Execution:
        """As `run`, without blocking the event loop; cancelling it ends the interpreter."""
        try:
            return await asyncio.to_thread(self.run, code, seconds)
        except asyncio.CancelledError:
            with contextlib.suppress(Released):  # then its pool does it
                self.interrupt()
            raise

    def _ask(self, session: Session, code: str, seconds: float) -> Execution:
        self._clean = False
        try:
            said = session.ask({"code": code, "limit": OUTPUT_BYTES}, seconds)
        except Malformed as error:
            told = f"the code was not sent: {error}"
            return Execution(status=Status.OK, error=told, exception="Malformed")
        except Ended as ended:
            return Execution(status=ended.status, error=str(ended))
        return Execution(
            status=Status.OK,
            stdout=_text(said, "stdout"),
            stderr=_text(said, "stderr"),
            value=_text(said, "value") if said.get("value") is not None else None,
            error=_text(said, "error"),
            exception=_text(said, "kind"),
            cut=bool(said.get("cut")),
        )


def _text(said: dict[str, Any], key: str) -> str:
    value = said.get(key)
    return value if isinstance(value, str) else ""


class PythonSpec(Spec[PythonSession], frozen=True, kw_only=True):
    """A persistent Python interpreter in the sandbox.

    Attributes:
        setup: trusted code that runs first in every new interpreter.
        setup_seconds: how long it may take.
        memory_mib: memory of the interpreter and what it starts.
        cpu_seconds: processor time of its whole life.
        lifetime_seconds: after this time it is ended.
        engine: see `guerdon.resources.sandbox.Sandbox`.
    """

    setup: str = ""
    setup_seconds: float = 30.0
    memory_mib: int = 512
    cpu_seconds: int = 600
    lifetime_seconds: float = 3600.0
    engine: EngineName = "auto"

    def make(self) -> PythonSession:
        """The interpreter, not started yet."""
        return PythonSession(self)
