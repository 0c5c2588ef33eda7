"""An SQLite database in the sandbox, made from a dump: where an agent's statements may run."""

from __future__ import annotations

import asyncio
import base64
import binascii
import threading
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, cast

import msgspec

from guerdon.errors import BadInput, Unavailable
from guerdon.resources.inside.channel import Malformed
from guerdon.resources.resource import Resource
from guerdon.resources.sandbox import Limits
from guerdon.resources.sandbox.limits import MIB
from guerdon.resources.sandbox.probe import EngineName
from guerdon.resources.sandboxes import sandbox_of
from guerdon.resources.session import Ended, Session
from guerdon.resources.spec import Spec

MODULES = ("channel", "database")

LOAD_SECONDS = 60.0
"""How long a dump may take to load, and a state to be read."""

GRACE_SECONDS = 5.0
"""How long after its time a statement may take to notice that it is over."""

STATE_ROWS = 100_000
"""Rows of one table beyond which a state cannot be compared."""

Cell: TypeAlias = int | float | str | bytes | None
State: TypeAlias = Mapping[str, tuple[tuple[Cell, ...], ...]]
"""Rows by table, sorted, so that their order does not matter."""


class Rows(msgspec.Struct, frozen=True, kw_only=True):
    """What a statement gave; one that failed gave neither rows nor a number of changed ones.

    Attributes:
        columns: names.
        read: the rows, as `rows` gives them; none after an error.
        affected: rows that it changed, as `changed` gives them.
        error: what was wrong with it; empty without.
        cut: whether there were more rows.
        lost: whether the statement ended the database, which begins again from its dump.
    """

    columns: tuple[str, ...] = ()
    read: tuple[tuple[Cell, ...], ...] = ()
    affected: int = 0
    error: str = ""
    cut: bool = False
    lost: bool = False

    @property
    def rows(self) -> tuple[tuple[Cell, ...], ...]:
        """At most as many as were asked for.

        Raises:
            ValueError: the statement failed.
        """
        self._check("rows")
        return self.read

    @property
    def changed(self) -> int:
        """How many rows it changed.

        Raises:
            ValueError: the statement failed.
        """
        self._check("changed")
        return self.affected

    def _check(self, what: str) -> None:
        if self.error:
            raise ValueError(f"the statement failed, look at .error before .{what}: {self.error}")


class Database(Resource):
    """A database in memory; made from `SqliteSpec`.

    Example:
        >>> from guerdon.resources import Context, SqliteSpec
        >>> spec = SqliteSpec(dump="create table t(n); insert into t values (1), (2);")
        >>> with Context() as context:
        ...     database = context.acquire_resource_sync(spec)
        ...     database.query("select sum(n) from t").rows
        ((3,),)
    """

    def __init__(self, spec: SqliteSpec) -> None:
        self._spec = spec
        self._session: Session | None = None
        self._clean = True
        self._lock = threading.Lock()

    def start(self) -> None:
        """Start the process and load the dump.

        Raises:
            BadInput: the dump cannot be loaded.
        """
        spec = self._spec
        limits = Limits(
            wall_seconds=spec.lifetime_seconds,
            cpu_seconds=spec.cpu_seconds,
            memory_bytes=spec.memory_mib * MIB,
        )
        session = Session(sandbox_of(spec.engine), limits, MODULES)
        session.start()
        self._session = session
        self._load(session)

    def reset(self) -> bool:
        """A new process with the dump, unless nothing was asked: a statement may have written files
        beside the database, and set what holds for all of its process."""
        if not self._clean or self._session is None or self._session.ended:
            self.stop()
            self.start()
        return True

    def check(self) -> bool:
        """Whether it lives; one that a statement has ended starts again with the next call."""
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

    def query(
        self, sql: str, values: Sequence[Cell] = (), *, seconds: float = 5.0, rows: int = 1000
    ) -> Rows:
        """Run one statement; what is wrong with it is told in `error`. Blocks.

        Args:
            sql: one statement, of anybody.
            values: for its placeholders.
            seconds: after which it is broken off.
            rows: most rows to read.

        Raises:
            Unavailable: the sandbox failed.
            ValueError: `seconds` are none.
        """
        given = [_sendable(value) for value in values]
        question = {"what": "query", "sql": sql, "values": given, "rows": rows}
        said = self._ask(question, seconds)
        if isinstance(said, Rows):
            return said
        return Rows(
            columns=tuple(map(str, said.get("columns", ()))),
            read=_rows(said.get("rows")),
            affected=int(said.get("changed", 0)),
            error=str(said.get("error", "")),
            cut=bool(said.get("cut")),
        )

    async def query_async(
        self, sql: str, values: Sequence[Cell] = (), *, seconds: float = 5.0, rows: int = 1000
    ) -> Rows:
        """As `query`, without blocking the event loop."""
        return await asyncio.to_thread(self.query, sql, values, seconds=seconds, rows=rows)

    def script(self, sql: str, *, seconds: float = 30.0) -> str:
        """Run several statements; returns what was wrong, nothing where all is well.

        Raises:
            Unavailable: the sandbox failed.
        """
        said = self._ask({"what": "script", "sql": sql}, seconds)
        return said.error if isinstance(said, Rows) else str(said.get("error", ""))

    def settle(self) -> str:
        """Keep only what is committed to the database itself, so that no open transaction, no
        temporary table that hides another and nothing attached is taken for its content.

        Returns:
            What was wrong; nothing where all is well.
        """
        said = self._ask({"what": "settle"}, LOAD_SECONDS)
        return said.error if isinstance(said, Rows) else str(said.get("error", ""))

    def state(self) -> State:
        """All tables with their rows, settled first.

        Raises:
            BadInput: it is broken, or a table is too large to be compared.
            Unavailable: the sandbox failed.
        """
        self.settle()
        said = self._ask({"what": "state", "rows": STATE_ROWS}, LOAD_SECONDS)
        if isinstance(said, Rows) or "error" in said:
            told = said.error if isinstance(said, Rows) else said["error"]
            raise BadInput(f"the state of the database cannot be read: {told}")
        tables = cast("dict[str, dict[str, Any]]", said.get("state", {}))
        for name, table in tables.items():
            if table.get("cut"):
                raise BadInput(f"table {name!r} has more than {STATE_ROWS} rows")
        return {
            name: tuple(sorted(_rows(table.get("rows")), key=_order))
            for name, table in tables.items()
        }

    def _load(self, session: Session) -> None:
        question = {"what": "load", "sql": self._spec.dump, "seconds": LOAD_SECONDS}
        try:
            wrong = session.ask(question, LOAD_SECONDS + GRACE_SECONDS).get("error")
        except (Malformed, Ended) as error:
            wrong = str(error)
        if wrong is not None:
            session.close()  # half of a dump is no database: whoever asks next loads it again
            raise BadInput(f"the dump cannot be loaded: {wrong}")
        self._clean = True

    def _ask(self, question: dict[str, Any], seconds: float) -> dict[str, Any] | Rows:
        with self._lock:
            if self._session is not None and self._session.ended:
                self.keep(self.start)
            if self._session is None:
                raise Unavailable("the database was released and cannot be used any more")
            self._clean = self._clean and question["what"] == "state"
            try:
                said = self._session.ask({**question, "seconds": seconds}, seconds + GRACE_SECONDS)
            except Malformed as error:
                return Rows(error=f"it was not sent: {error}")
            except Ended as ended:
                return Rows(error=str(ended), lost=True)
            return said


def _sendable(value: Cell) -> Any:
    return {"bytes": base64.b64encode(value).decode()} if isinstance(value, bytes) else value


def _rows(said: Any) -> tuple[tuple[Cell, ...], ...]:
    rows = cast("list[list[Any]]", said if isinstance(said, list) else [])
    return tuple(tuple(map(_cell, row)) for row in rows)


def _cell(said: Any) -> Cell:
    if isinstance(said, dict):
        try:
            return base64.b64decode(cast("dict[str, str]", said).get("bytes", ""))
        except (binascii.Error, TypeError, ValueError):
            return None
    return said


def _order(row: Sequence[Cell]) -> list[tuple[str, str]]:
    return [(type(cell).__name__, repr(cell)) for cell in row]


class SqliteSpec(Spec[Database], frozen=True, kw_only=True):
    """An SQLite database.

    Attributes:
        dump: SQL that makes it; of the data, not of the policy.
        memory_mib: memory of its process.
        cpu_seconds: processor time of its whole life.
        lifetime_seconds: after this time it is ended.
        engine: see `guerdon.resources.sandbox.Sandbox`.
    """

    dump: str
    memory_mib: int = 512
    cpu_seconds: int = 600
    lifetime_seconds: float = 3600.0
    engine: EngineName = "auto"

    def make(self) -> Database:
        """The database, not loaded yet."""
        return Database(self)
