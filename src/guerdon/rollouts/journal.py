"""The output of a run that has not ended: rows appended to a file, from which a run can go on.

The file is `OUT.partial`, JSON lines whatever the form of `OUT`. Every line says which input row
it belongs to (`row`, `input_digest`) and which reward gave it (`fingerprint`), so the file needs no
header and any whole lines of it can be trusted, in any order. A process that is killed can only
tear the last line; a torn line is cut off when the run goes on.
"""

from __future__ import annotations

import fcntl
import os
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from guerdon.rollouts.decoding import Unreadable, decode_row
from guerdon.rollouts.misuse import Misuse, StorageFailed
from guerdon.rollouts.outcome_row import OutcomeRow

PARTIAL = ".partial"
NOWHERE = -1
"""Offset of a row that is not in the file."""


def journal_path(out: Path) -> Path:
    """Where the rows of an unfinished run lie."""
    return out.with_name(out.name + PARTIAL)


class Journal:
    """Appends rows to a file and knows which ones it has.

    Args:
        path: of the file; its folder must exist.

    Raises:
        Misuse: it cannot be opened, or another process writes it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offsets = array("q")
        self._digests = array("Q")
        self._count = 0
        self._in_order = True
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise Misuse(f"cannot write {path}: {error.strerror}") from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._file)
            raise Misuse(f"{path} is being written by another process") from None
        self._end = os.fstat(self._file).st_size

    def __len__(self) -> int:
        return self._count

    @property
    def size(self) -> int:
        """Bytes that the file holds."""
        return self._end

    @property
    def is_open(self) -> bool:
        """Whether the file can still be written."""
        return self._file >= 0

    @property
    def is_orderly(self) -> bool:
        """Whether the file is exactly its rows, each once, in the order of the input."""
        return self._in_order

    @property
    def last_row(self) -> int:
        """The largest position of a row that is held; -1 without rows."""
        return len(self._offsets) - 1

    def has(self, row: int) -> bool:
        """Whether a row of the input is done."""
        return row < len(self._offsets) and self._offsets[row] != NOWHERE

    def digest(self, row: int) -> str:
        """The `input_digest` of a row that is done."""
        return f"{self._digests[row]:016x}"

    def load(self) -> Iterator[OutcomeRow]:
        """The rows that the file holds already; what is torn at its end is cut off.

        Lines that are no rows are passed over, and so is a second line for one row.
        """
        good = 0
        offset = 0
        with open(self.path, "rb") as lines:
            for line in lines:
                row = parse_row(line) if line.endswith(b"\n") else None
                if row is not None and not self.has(row["row"]):
                    self._in_order = self._in_order and offset == good
                    self._note(row, offset)
                    good = offset + len(line)
                    yield row
                offset += len(line)
        os.ftruncate(self._file, good)
        self._end = good

    def clear(self) -> None:
        """Forget every row."""
        os.ftruncate(self._file, 0)
        self._end = 0

    def append(self, rows: Iterable[OutcomeRow], lines: Iterable[bytes]) -> None:
        """Write rows and their lines at once.

        Raises:
            StorageFailed: the disk is full or broken; the file still ends with a whole line.
        """
        payload = bytearray()
        starts: list[int] = []
        for line in lines:
            starts.append(self._end + len(payload))
            payload += line
        self._write(memoryview(payload))
        for row, start in zip(rows, starts, strict=True):
            self._note(row, start)
        self._end += len(payload)

    def lines(self) -> Iterator[bytes]:
        """The lines of all rows, in the order of the input."""
        with open(self.path, "rb") as file:
            for offset in self._offsets:
                if offset != NOWHERE:
                    file.seek(offset)
                    yield file.readline()

    def sync(self) -> None:
        """Have everything on the disk."""
        try:
            os.fsync(self._file)
        except OSError as error:
            raise StorageFailed(f"{self.path}: {error.strerror}") from None

    def close(self) -> None:
        """Close the file; it stays."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def remove(self) -> None:
        """Delete the file."""
        self.path.unlink(missing_ok=True)
        self.close()

    def _write(self, payload: memoryview) -> None:
        done = 0
        try:
            while done < len(payload):
                done += os.pwrite(self._file, payload[done:], self._end + done)
        except OSError as error:
            os.ftruncate(self._file, self._end)
            raise StorageFailed(
                f"cannot write {self.path}: {error.strerror}\n"
                f"it holds {self._count:,} rows: make room, then --resume"
            ) from None

    def _note(self, row: OutcomeRow, offset: int) -> None:
        position: int = row["row"]
        if position >= len(self._offsets):
            missing = position + 1 - len(self._offsets)
            self._offsets.extend([NOWHERE] * missing)
            self._digests.extend([0] * missing)
        else:
            self._in_order = False  # a later row came before
        self._offsets[position] = offset
        self._digests[position] = int(row["input_digest"], 16)
        self._count += 1


def parse_row(line: bytes) -> OutcomeRow | None:
    """The output row that a line holds, or None where it is none."""
    try:
        row = decode_row(line)
    except Unreadable:
        return None
    return row if is_outcome_row(row) else None


def is_outcome_row(row: dict[str, Any]) -> bool:
    """Whether a row is one that `guerdon score` writes."""
    position = row.get("row")
    try:
        digest = len(row["input_digest"]) == 16 and int(row["input_digest"], 16) >= 0
    except (KeyError, TypeError, ValueError):
        return False
    return (
        digest
        and isinstance(position, int)
        and not isinstance(position, bool)
        and position >= 0
        and isinstance(row.get("fingerprint"), str)
        and isinstance(row.get("reward_name"), str)
        and row.get("outcome") in ("score", "abstention", "failure")
        and isinstance(row.get("components"), dict)
        and {"reward", "failure", "assigned", "elapsed_s", "sample_id", "group_id"} <= row.keys()
    )
