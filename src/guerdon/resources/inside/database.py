"""An SQLite database in memory, made from a dump; statements of strangers run here."""

from __future__ import annotations

import base64
import sqlite3
import time

from guerdon.resources.inside.channel import Malformed, open_channel, receive, send

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

INSTRUCTIONS = 20_000
"""Instructions of SQLite's machine between two looks at the clock."""

STATE = "state"


class Database:
    """The database, and what is asked of it."""

    def __init__(self) -> None:
        self._connection = self._opened()
        self._ends = 0.0

    def _opened(self) -> sqlite3.Connection:
        connection = sqlite3.connect(":memory:", isolation_level=None)
        connection.text_factory = _text
        connection.set_progress_handler(self._too_late, INSTRUCTIONS)
        return connection

    def _too_late(self) -> int:
        return int(time.monotonic() > self._ends)

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Do what is asked; errors of statements are told."""
        self._ends = time.monotonic() + request["seconds"]
        try:
            if request["what"] == "load":
                self._connection.close()
                self._connection = self._opened()
                self._connection.executescript(request["sql"])
                if self._connection.in_transaction:
                    return {"error": "it leaves a transaction open: its COMMIT is missing"}
                return {}
            if request["what"] == "script":
                self._connection.executescript(request["sql"])
                return {}
            if request["what"] == "settle":
                self._settle()
                return {}
            if request["what"] == STATE:
                return {STATE: self._state(request["rows"])}
            return self._query(request["sql"], request["values"], request["rows"])
        except (sqlite3.Error, sqlite3.Warning, MemoryError, OverflowError, ValueError) as error:
            late = time.monotonic() > self._ends
            return {"error": f"{type(error).__name__}: {error}", "late": late}
        finally:
            if self._connection.in_transaction and request["what"] != "query":
                self._connection.rollback()

    def _query(self, sql: str, values: list[Any], most: int) -> dict[str, Any]:
        cursor = self._connection.execute(sql, [_arrived(value) for value in values])
        columns = [entry[0] for entry in cursor.description or ()]
        rows = [[_sendable(cell) for cell in row] for row in cursor.fetchmany(most + 1)]
        changed = max(cursor.rowcount, 0)
        cursor.close()
        return {
            "columns": columns,
            "rows": rows[:most],
            "cut": len(rows) > most,
            "changed": changed,
        }

    def _settle(self) -> None:
        """Keep what is committed to the database itself: no open transaction, no temporary tables
        that hide others, nothing attached, no settings."""
        if self._connection.in_transaction:
            self._connection.rollback()
        settled = self._opened()
        self._connection.backup(settled)
        self._connection.close()
        self._connection = settled

    def _state(self, most: int) -> dict[str, Any]:
        """Every table with its rows."""
        names = "select name from sqlite_master where type = 'table' and name not like 'sqlite_%'"
        tables: dict[str, Any] = {}
        for (name,) in self._connection.execute(names).fetchall():
            quoted = '"' + name.replace('"', '""') + '"'
            tables[name] = self._query(f"select * from {quoted}", [], most)
        return tables


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _sendable(cell: Any) -> Any:
    return {"bytes": base64.b64encode(cell).decode()} if isinstance(cell, bytes) else cell


def _arrived(value: Any) -> Any:
    return base64.b64decode(value["bytes"]) if isinstance(value, dict) else value  # pyright: ignore[reportUnknownArgumentType]


def main() -> None:
    """Serve the channel until it is closed."""
    channel = open_channel()
    database = Database()
    send(channel, {"ready": True})
    while (request := receive(channel)) is not None:
        try:
            send(channel, database.answer(request))
        except Malformed as error:
            send(channel, {"error": f"its answer is too long: {error}"})


if __name__ == "__main__":
    main()
