"""The reward `database_state`: the agent leaves a database in the wanted state."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Unpack, cast

import msgspec

from guerdon.errors import BadInput
from guerdon.resources import Context, Database, SqliteSpec
from guerdon.rules.agent.replay import FinalState, Replaying, Sent, Spoilt
from guerdon.rules.case import case
from guerdon.sample import Message

CHECK_SECONDS = 30.0
"""For a query of the truth, which the reward's user wrote."""

CANDIDATE, REFERENCE = "candidate", "reference"
"""Names of the two databases; a caller's tools acquire `SqliteSpec(dump=..., name="candidate")`."""


class Check(msgspec.Struct, frozen=True):
    """A query of the final state and the rows that it must give, in any order."""

    sql: str
    rows: tuple[tuple[Any, ...], ...]


def _called(*queries: str) -> list[dict[str, Any]]:
    calls = [{"name": "sql", "arguments": {"query": query}} for query in queries]
    return [{"role": "assistant", "content": "", "tool_calls": calls}]


_DUMP = "create table seats(n, taken); insert into seats values (1, 0), (2, 0);"
_ROW: dict[str, Any] = {"metadata": {"dump": _DUMP}}
_GOLD = "update seats set taken = 1 where n = 2"
_CHECKS = {"checks": [{"sql": "select n from seats where taken", "rows": [[2]]}]}
_FIXTURES = (
    case("full", "the wanted state", 1.0, response=_called(_GOLD), ground_truth=_GOLD, **_ROW),
    case("full", "checks", 1.0, response=_called(_GOLD), ground_truth=_CHECKS, **_ROW),
    case("zero", "nothing done", 0.0, response="Done!", ground_truth=_GOLD, **_ROW),
    case("zero", "empty", 0.0, response="", ground_truth=_GOLD, **_ROW),
    case(
        "zero",
        "too much done",
        0.0,
        response=_called("update seats set taken = 1"),
        ground_truth=_GOLD,
        **_ROW,
    ),
    case(
        "zero", "not committed", 0.0, response=_called("begin", _GOLD), ground_truth=_GOLD, **_ROW
    ),
    case("malformed", "no dump", "bad_input", response="", ground_truth=_GOLD),
    case("malformed", "no truth", "bad_input", response="", **_ROW),
    case("malformed", "truth fails", "bad_input", response="", ground_truth="selec", **_ROW),
    case(
        "malformed", "odd characters", 0.0, response=_called("\0\ud800"), ground_truth=_GOLD, **_ROW
    ),
    case(
        "deterministic",
        "an error on the way",
        1.0,
        response=_called("selec", _GOLD),
        ground_truth=_GOLD,
        **_ROW,
    ),
    case(
        "metamorphic",
        "equivalent form: another way to the same state",
        1.0,
        response=_called("delete from seats where n = 2", "insert into seats values (2, 1)"),
        ground_truth=_GOLD,
        **_ROW,
    ),
    case(
        "metamorphic",
        "injected: said instead of done",
        0.0,
        response=f"I ran: {_GOLD}",
        ground_truth=_GOLD,
        **_ROW,
    ),
)


class DatabaseState(FinalState):
    """1 if the final state of an SQLite database is the wanted one, else 0; or a share of checks.

    The statements that the model sent to its tool are made again on a fresh database from the row's
    `dump`, in the sandbox; or `replay` is off, and the caller's context holds the database that its
    tools changed. The wanted state is what a script of the truth leaves (all tables are compared,
    the order of rows is not), or checks: queries with the rows that they must give.

    Args:
        tool: name of the model's tool.
        argument: of the tool that holds the statement.
        statement_seconds: for each statement.
        replaying: `replay`, `credit` (of checks), `total_seconds`, `engine`; see
            `guerdon.rules.agent.replay.FinalState`.

    Metadata key: `dump`, SQL that makes the database.

    Raises:
        BadInput: no dump, or a truth that is neither SQL nor checks.
        Unavailable: the sandbox failed.

    Example:
        >>> from guerdon.resources import Context
        >>> call = {"name": "sql", "arguments": {"query": "insert into t values (1)"}}
        >>> with Context() as context:
        ...     DatabaseState().call_sync(
        ...         context=context,
        ...         response=[{"role": "assistant", "content": "", "tool_calls": [call]}],
        ...         dump="create table t(n)",
        ...         ground_truth="insert into t values (1)",
        ...     )["score"]
        1.0
    """

    name = "database_state"
    auto_register = True
    fixtures = _FIXTURES

    def __init__(
        self,
        *,
        tool: str = "sql",
        argument: str = "query",
        statement_seconds: float = 5.0,
        **replaying: Unpack[Replaying],
    ) -> None:
        super().__init__(tool, argument, statement_seconds, **replaying)

    def call(
        self,
        context: Context,
        response_messages: Sequence[Message],
        ground_truth: Any,
        dump: str,
    ) -> dict[str, Any]:
        """Make the state, and compare it."""
        wanted = read_truth(ground_truth)
        database = context.acquire_resource_sync(self._spec(dump, CANDIDATE))
        try:
            sent = self._make(database, response_messages) if self.replay else Sent()
            reference = context.acquire_resource_sync(self._spec(dump, REFERENCE))
            if isinstance(wanted, str):
                held = [self._reaches(database, reference, wanted)]
            elif database.settle():
                raise Spoilt("broken", "the model left a broken database")
            else:
                held = [self._holds(database, check, reference) for check in wanted]
        except Spoilt as end:
            return end.result()
        metrics = {"held": sum(held), "wanted": len(held), **sent.metrics}
        return {"score": self.value(held), "metrics": metrics, "info": self.hint(sent)}

    def _spec(self, dump: str, name: str) -> SqliteSpec:
        if not isinstance(dump, str) or not dump.strip():  # pyright: ignore[reportUnnecessaryIsInstance]
            raise BadInput("the row's dump is no SQL that makes a database")
        return SqliteSpec(dump=dump, name=name, engine=self.engine)

    def _make(self, database: Database, messages: Sequence[Message]) -> Sent:
        """Make the model's statements again; returns what was sent."""
        sent = self.sent(messages)
        for statement, seconds in self.timed(sent.texts):
            if database.query(statement, seconds=seconds).lost:
                raise Spoilt("lost", "a statement ended the database")
        return sent

    def _reaches(self, database: Database, reference: Database, script: str) -> bool:
        wrong = reference.script(script)
        if wrong:
            raise BadInput(f"the statements of the ground truth fail: {wrong}")
        goal = reference.state()
        try:
            return database.state() == goal
        except BadInput as error:  # what the model left cannot be read; the goal can
            raise Spoilt("broken", str(error)) from None

    def _holds(self, database: Database, check: Check, reference: Database) -> bool:
        found = database.query(check.sql, seconds=CHECK_SECONDS, rows=len(check.rows) + 1)
        if found.error:  # the check is wrong, or the model dropped or broke what it looks at
            known = reference.query(check.sql, seconds=CHECK_SECONDS, rows=1)
            if known.error:
                raise BadInput(f"the check {check.sql!r:.100} fails: {known.error}")
            return False
        return _in_one_order(found.rows) == _in_one_order(check.rows)


def _in_one_order(rows: Iterable[Sequence[Any]]) -> list[str]:
    """Rows whose order does not count; 1, 1.0 and true are one value, as they are to SQLite."""
    return sorted(repr([_number(value) for value in row]) for row in rows)


def _number(value: Any) -> Any:
    whole = isinstance(value, float) and value.is_integer()
    return int(value) if whole or isinstance(value, bool) else value


def read_truth(ground_truth: Any) -> str | list[Check]:
    """The script that makes the wanted state, or the checks.

    Raises:
        BadInput: it is neither.
    """
    if isinstance(ground_truth, str) and ground_truth.strip():
        return ground_truth
    if isinstance(ground_truth, Mapping):
        truth = cast("Mapping[str, Any]", ground_truth)
        if isinstance(truth.get("sql"), str):
            return cast("str", truth["sql"])
        checks = truth.get("checks")
        if isinstance(checks, list | tuple) and checks:
            return [_check(check) for check in cast("Sequence[Any]", checks)]
    raise BadInput('the ground truth is neither SQL nor {"checks": [{"sql": ..., "rows": [...]}]}')


def _check(raw: Any) -> Check:
    if not isinstance(raw, Mapping):
        raise BadInput(f"a check has sql and rows, got {raw!r:.100}")
    entry = cast("Mapping[str, Any]", raw)
    sql, rows = entry.get("sql"), entry.get("rows")
    if not isinstance(sql, str) or not isinstance(rows, list | tuple):
        raise BadInput(f"a check has sql and rows, got {raw!r:.100}")
    listed = cast("Sequence[Any]", rows)
    if not all(isinstance(row, list | tuple) for row in listed):
        raise BadInput(f"the rows of a check are lists, got {rows!r:.100}")
    return Check(sql, tuple(tuple(row) for row in listed))
