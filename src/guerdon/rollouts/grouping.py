"""Rows brought together by group on disk, for rewards that compare the members of a group.

Members may lie anywhere in the input. Rows wait in a temporary SQLite database, which SQLite
keeps in memory while it is small, spills to a file of the temporary folder (`SQLITE_TMPDIR`,
`TMPDIR`) and deletes with the process, however that ends.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator

from guerdon.rollouts.misuse import StorageFailed
from guerdon.rollouts.record import Record, unpack

CACHE_KIB = 64 << 10


class Group:
    """The members of one group, which are read one by one."""

    def __init__(self, database: sqlite3.Connection, key: bytes) -> None:
        self._database = database
        self._key = key

    def rows(self) -> list[int]:
        """Positions of the members in the input, in order."""
        found = self._database.execute(
            "SELECT row FROM rows WHERE key = ? ORDER BY row", (self._key,)
        )
        return [row for (row,) in found]

    def members(self) -> Iterator[tuple[str, str, Record]]:
        """Digests, problems and rows of the members, in the order of the input."""
        found = self._database.execute(
            "SELECT digest, problem, row, place, form, packed FROM rows WHERE key = ? ORDER BY row",
            (self._key,),
        )
        for digest, problem, *member in found:
            yield digest, problem.decode("utf-8", "surrogatepass"), unpack(*member)


class GroupStore:
    """Holds rows until all members of their groups have been read.

    Example:
        >>> from guerdon.rollouts.record import record_from
        >>> store = GroupStore()
        >>> rows = [record_from(row, f"line {row + 1}", b"{}") for row in range(3)]
        >>> store.add((group, "", "", row) for group, row in zip(["g", None, "g"], rows))
        >>> [group.rows() for group in store.groups()]
        [[0, 2], [1]]
    """

    def __init__(self) -> None:
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        for pragma in (
            "journal_mode = OFF",
            "synchronous = OFF",
            "temp_store = FILE",
            f"cache_size = -{CACHE_KIB}",
        ):
            self._database.execute(f"PRAGMA {pragma}")
        self._database.execute(
            "CREATE TABLE rows (row INTEGER PRIMARY KEY, key BLOB, place TEXT,"
            " digest TEXT, problem BLOB, form INTEGER, packed BLOB)"
        )

    def add(self, rows: Iterable[tuple[str | None, str, str, Record]]) -> None:
        """Keep rows with the ids of their groups, their digests and what is wrong with them.

        A row without a group is a group of its own.
        """
        packed = [
            (
                record.row,
                _key(group, record.row),
                record.place,
                digest,
                problem.encode("utf-8", "surrogatepass"),
                *record.pack(),
            )
            for group, digest, problem, record in rows
        ]
        try:
            self._database.execute("BEGIN")
            self._database.executemany("INSERT INTO rows VALUES (?, ?, ?, ?, ?, ?, ?)", packed)
            self._database.execute("COMMIT")
        except sqlite3.Error as error:
            raise StorageFailed(
                f"grouping rows needs room for the input in the temporary folder: {error}\n"
                "set TMPDIR to a folder with more"
            ) from None

    def groups(self) -> Iterator[Group]:
        """The groups, by their first rows."""
        self._database.execute("CREATE INDEX by_key ON rows (key, row)")
        firsts = self._database.execute(
            "SELECT key FROM (SELECT key, MIN(row) AS first FROM rows GROUP BY key) ORDER BY first"
        )
        for (key,) in firsts:
            yield Group(self._database, key)

    def close(self) -> None:
        """Delete everything."""
        self._database.close()


def _key(group: str | None, row: int) -> bytes:
    if group is None:
        return b"r%d" % row
    return b"g" + group.encode("utf-8", "surrogatepass")
