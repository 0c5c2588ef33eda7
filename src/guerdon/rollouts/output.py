"""Where output rows go: a file that can be resumed and appears whole, or a stream."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from guerdon.rollouts.encoding import encode_line
from guerdon.rollouts.journal import Journal, journal_path, parse_row
from guerdon.rollouts.misuse import Misuse, StorageFailed
from guerdon.rollouts.outcome_row import OutcomeRow
from guerdon.rollouts.result_file import (
    NAMED_NUMBERS,
    Form,
    Names,
    check_extras,
    form_of,
    read_result,
    write_result,
)

STDOUT = "-"
ROWS_AT_ONCE = 512
"""Rows of a finished file that are taken over at once."""
MOST_NAMES = 1000
"""Names of components or metrics for which a Parquet file has fields; more become JSON text."""


class Output(Protocol):
    """Takes output rows; also the `Done` of an earlier run."""

    @property
    def last_row(self) -> int:
        """The largest position of a row that is done; -1 without rows."""
        ...

    def has(self, row: int) -> bool:
        """Whether a row is done."""
        ...

    def digest(self, row: int) -> str:
        """The digest of a row that is done."""
        ...

    def write(self, rows: Sequence[OutcomeRow]) -> None:
        """Write rows; rows that are done are passed over."""
        ...

    def finish(self) -> None:
        """Make the output whole."""
        ...

    def close(self) -> None:
        """Let go of it, whole or not."""
        ...


class StreamOutput:
    """Writes JSON lines to a stream, or nothing; it cannot be resumed.

    Args:
        write: takes the bytes of some lines; None drops them.
    """

    last_row = -1

    def __init__(self, write: Callable[[bytes], object] | None) -> None:
        self._write = write

    def has(self, row: int) -> bool:
        """No row was written before."""
        return False

    def digest(self, row: int) -> str:
        """No row was written before."""
        raise KeyError(row)

    def write(self, rows: Sequence[OutcomeRow]) -> None:
        """Write rows in the order they come."""
        if self._write is not None:
            self._write(b"".join(map(encode_line, rows)))

    def finish(self) -> None:
        """Nothing is left to do."""

    def close(self) -> None:
        """Nothing is left to do."""


class FileOutput:
    """Writes to `OUT.partial`, and at the end to `OUT` in the form its name asks for.

    Args:
        path: `OUT`.
        resume: go on with what an earlier run left, or with a finished `OUT`.
        overwrite: forget what an earlier run left.

    Raises:
        Misuse: the place cannot be written, or an earlier run left something and neither is said.
        MissingExtra: the form needs a package that is not installed.
    """

    def __init__(self, path: Path, *, resume: bool, overwrite: bool) -> None:
        self.path = path
        self.form: Form = form_of(path.name)
        check_extras(self.form)
        if path.is_dir():
            raise Misuse(f"-o {path} is a directory: name a file in it")
        if not path.parent.is_dir():
            raise Misuse(f"-o {path}: there is no folder {path.parent}")
        self._adopted = False
        self.journal = Journal(journal_path(path))
        try:
            self._earlier = self._start(resume, overwrite)
        except BaseException:
            self.journal.close()
            raise

    @property
    def last_row(self) -> int:
        """The largest position of a row that is done; -1 without rows."""
        return self.journal.last_row

    def has(self, row: int) -> bool:
        """Whether a row is done."""
        return self.journal.has(row)

    def digest(self, row: int) -> str:
        """The digest of a row that is done."""
        return self.journal.digest(row)

    def earlier_rows(self) -> Iterator[OutcomeRow]:
        """Rows of the earlier run, once; they must be taken before others are written."""
        return self._earlier

    def write(self, rows: Sequence[OutcomeRow]) -> None:
        """Append rows to the unfinished file; rows that are done are passed over."""
        new = [row for row in rows if not self.journal.has(row["row"])]
        self.journal.append(new, map(encode_line, new))
        self._adopted = self._adopted and not new

    def finish(self) -> None:
        """Write `OUT` as a whole, in the order of the input, and remove the unfinished file.

        Raises:
            StorageFailed: `OUT` cannot be written; the unfinished file stays.
        """
        if self.form == Form("jsonl") and self.journal.is_orderly:
            self.journal.sync()
            os.replace(self.journal.path, self.path)
            self.journal.close()
            return
        names: Names = {}
        if self.form.format == "parquet":
            names = _names(self.journal.lines())
        try:
            write_result(self.path, self.form, self.journal.lines(), names)
        except StorageFailed as error:
            raise StorageFailed(
                f"{error}\nall rows are kept in {self.journal.path}: make room, then --resume"
            ) from None
        self.journal.remove()

    def close(self) -> None:
        """Let go of the unfinished file; it is removed where `OUT` has all that it holds."""
        if self.journal.is_open and (self._adopted or not len(self.journal)):
            self.journal.remove()
        self.journal.close()

    def _start(self, resume: bool, overwrite: bool) -> Iterator[OutcomeRow]:
        left = self.journal.size
        if overwrite or not left:
            self.journal.clear()
            return self._adopt() if resume and self.path.exists() else iter(())
        if not resume:
            raise Misuse(
                f"{self.journal.path} holds rows of a run that was interrupted\n"
                "add --resume to go on with it, or --overwrite to start again"
            )
        return self.journal.load()

    def _adopt(self) -> Iterator[OutcomeRow]:
        """The rows of a finished `OUT`, which become those of the unfinished file."""
        batch: list[OutcomeRow] = []
        for row in read_result(self.path):
            batch.append(row)
            if len(batch) >= ROWS_AT_ONCE:
                self.write(batch)
                self._adopted = True
                yield from batch
                batch = []
        self.write(batch)
        self._adopted = True
        yield from batch


def open_file(out: str, data: str, *, resume: bool, overwrite: bool) -> FileOutput | None:
    """The output in a file, or None where the path is no regular file (`/dev/null`, a pipe).

    Raises:
        Misuse: see `FileOutput`; also where the output is the input.
    """
    path = Path(out).resolve()
    if data != "-" and path == Path(data).resolve():
        raise Misuse(f"-o {out} is the input: choose another file")
    if path.exists() and not stat.S_ISREG(path.stat().st_mode) and not path.is_dir():
        return None
    return FileOutput(path, resume=resume, overwrite=overwrite)


def _names(lines: Iterable[bytes]) -> Names:
    """All names of components and metrics, in order of first appearance; None for too many."""
    names: dict[str, dict[str, None]] = {column: {} for column in NAMED_NUMBERS}
    for line in lines:
        row = parse_row(line) or {}
        for column, found in names.items():
            for name in row.get(column, ()):
                if len(found) <= MOST_NAMES:
                    found.setdefault(name)
    return {
        column: list(found) if len(found) <= MOST_NAMES else None for column, found in names.items()
    }
