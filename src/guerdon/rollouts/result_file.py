"""The finished output: JSON Lines, JSON or Parquet, plain or compressed, written as a whole.

A file of its final name is always complete: it is written beside its place and moved there.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import os
from collections.abc import Generator, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, Literal, TypeAlias, cast

import msgspec

from guerdon.rollouts.decoding import decode_row, decode_value
from guerdon.rollouts.encoding import encode_value
from guerdon.rollouts.journal import is_outcome_row
from guerdon.rollouts.misuse import Misuse, StorageFailed
from guerdon.rollouts.outcome_row import OutcomeRow
from guerdon.rollouts.parquet_rows import import_pyarrow
from guerdon.rollouts.reader import Reader
from guerdon.rollouts.source import import_zstandard

Format: TypeAlias = Literal["jsonl", "json", "parquet"]
Compression: TypeAlias = Literal["", "gz", "zst"]

Names: TypeAlias = dict[str, list[str] | None]
"""For each of `NAMED_NUMBERS` the names that occur, or None where they are too many."""

FORMATS: dict[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".parquet": "parquet",
}
ROWS_AT_ONCE = 4096
"""Rows of one row group of a Parquet file."""
UNFINISHED = ".tmp"
JSON_COLUMNS = ("info", "absent", "spans", "input")
"""Columns that a Parquet file holds as JSON text: their keys and types differ by row."""
NAMED_NUMBERS = ("components", "metrics")
"""Columns of numbers by name; in Parquet, structs with one field per name."""


class Form(msgspec.Struct, frozen=True):
    """How an output is written."""

    format: Format
    compression: Compression = ""


def form_of(path: str) -> Form:
    """The form that a file name asks for.

    Raises:
        Misuse: a suffix that is none of ours.

    Example:
        >>> form_of("scores.jsonl.gz")
        Form(format='jsonl', compression='gz')
    """
    name = Path(path)
    last = name.suffix.lower()
    compression = cast("Compression", last[1:] if last in (".gz", ".zst") else "")
    if compression:
        last = Path(name.stem).suffix.lower()
    if last not in FORMATS:
        known = ", ".join(FORMATS)
        raise Misuse(f"-o {path}: the name must end in one of {known} (and .gz or .zst after that)")
    return Form(FORMATS[last], compression)


def check_extras(form: Form) -> None:
    """Refuse a form whose packages are not installed, before anything is scored.

    Raises:
        MissingExtra: naming the extra.
    """
    if form.format == "parquet":
        import_pyarrow("writing Parquet")
    if form.compression == "zst":
        import_zstandard("writing .zst")


def write_result(path: Path, form: Form, lines: Iterable[bytes], names: Names) -> None:
    """Write an output file as a whole.

    Args:
        path: its final place.
        form: how.
        lines: JSON lines of its rows, in order; may be iterated once.
        names: for each of `NAMED_NUMBERS`, all names that occur.

    Raises:
        StorageFailed: the disk is full or broken; nothing of the file is left.
    """
    beside = path.with_name(path.name + UNFINISHED)
    try:
        with open(beside, "wb") as file:
            with _compressed(file, form.compression) as stream:
                _write(stream, form, lines, names)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError as error:
        raise StorageFailed(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        with contextlib.suppress(OSError):
            beside.unlink()


def read_result(path: Path) -> Iterator[OutcomeRow]:
    """The rows of an output file.

    Raises:
        Misuse: a row that `guerdon score` does not write.
    """
    reader = Reader(str(path))
    try:
        for record in reader:
            if record.data is None:
                continue  # a torn line: its row is scored again
            row = _restored(record.data)
            if not is_outcome_row(row):
                raise Misuse(f"{path}, {record.place}: not a row that `guerdon score` wrote")
            yield row
    finally:
        reader.close()


@contextmanager
def _compressed(file: IO[bytes], compression: Compression) -> Generator[IO[bytes]]:
    with ExitStack() as stack:
        if compression == "gz":
            # No name and time in the header: equal results are equal files.
            yield cast("IO[bytes]", stack.enter_context(gzip.GzipFile("", "wb", 6, file, mtime=0)))
        elif compression == "zst":
            zstandard = import_zstandard("writing .zst")
            yield stack.enter_context(zstandard.ZstdCompressor().stream_writer(file, closefd=False))
        else:
            yield stack.enter_context(_kept_open(file))


@contextmanager
def _kept_open(file: IO[bytes]) -> Generator[IO[bytes]]:
    yield file


def _write(stream: IO[bytes], form: Form, lines: Iterable[bytes], names: Names) -> None:
    if form.format == "parquet":
        _write_parquet(stream, lines, names)
    elif form.format == "json":
        separator = b"[\n"
        for line in lines:
            stream.write(separator + line.rstrip(b"\n"))
            separator = b",\n"
        stream.write(b"\n]\n" if separator == b",\n" else b"[]\n")
    else:
        for line in lines:
            stream.write(line)


def _write_parquet(stream: IO[bytes], lines: Iterable[bytes], names: Names) -> None:
    pyarrow, parquet = import_pyarrow("writing Parquet")
    schema = _schema(pyarrow, names)
    buffered = io.BufferedWriter(cast("io.RawIOBase", _Plain(stream)), 1 << 20)
    with parquet.ParquetWriter(buffered, schema, compression="zstd") as writer:
        rows: list[dict[str, Any]] = []
        for line in lines:
            rows.append(_flat(decode_row(line), names))
            if len(rows) >= ROWS_AT_ONCE:
                writer.write_table(pyarrow.Table.from_pylist(rows, schema=schema))
                rows = []
        writer.write_table(pyarrow.Table.from_pylist(rows, schema=schema))
    buffered.flush()


class _Plain(io.RawIOBase):
    """A write-only stream over another one, which stays open."""

    def __init__(self, below: IO[bytes]) -> None:
        self._below = below

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        self._below.write(data)
        return len(data)


def _schema(pyarrow: Any, names: Names) -> Any:
    text, number = pyarrow.string(), pyarrow.float64()
    failure = pyarrow.struct(
        [("kind", text), ("blame", text), ("message", text), ("retryable", pyarrow.bool_())]
    )

    def numbers(column: str) -> Any:
        found = names.get(column, [])
        if found is None:
            return text
        return pyarrow.struct([(name, number) for name in found]) if found else pyarrow.null()

    return pyarrow.schema(
        [
            ("row", pyarrow.int64()),
            ("sample_id", text),
            ("group_id", text),
            ("reward", number),
            ("outcome", text),
            ("components", numbers("components")),
            ("metrics", numbers("metrics")),
            ("info", text),
            ("failure", failure),
            ("assigned", number),
            ("elapsed_s", number),
            ("reward_name", text),
            ("fingerprint", text),
            ("input_digest", text),
            ("reason", text),
            ("absent", text),
            ("spans", text),
            ("renormalised", pyarrow.bool_()),
            ("dropped", pyarrow.bool_()),
            ("input", text),
        ]
    )


def _flat(row: OutcomeRow, names: Names) -> dict[str, Any]:
    """A row as the columns of a Parquet file."""
    flat = {key: _encodable(value) for key, value in row.items()}
    too_many = [column for column in NAMED_NUMBERS if names.get(column, []) is None]
    for column in (*JSON_COLUMNS, *too_many):
        if flat.get(column) not in (None, {}, []):
            flat[column] = encode_value(row[column]).decode()
        else:
            flat[column] = None
    for column in NAMED_NUMBERS:
        flat[column] = flat[column] or None
    return flat


def _encodable(value: Any) -> Any:
    """Text without lone surrogates, which Parquet cannot hold: they become `\\udxxx`."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        items = cast("dict[str, Any]", value).items()
        return {str(_encodable(key)): _encodable(item) for key, item in items}
    return value


def _restored(row: dict[str, Any]) -> OutcomeRow:
    """The row that `_flat` made columns of; rows of JSON are as they were."""
    restored = dict(row)
    for column in (*JSON_COLUMNS, *NAMED_NUMBERS):
        value = restored.get(column)
        if isinstance(value, str):
            restored[column] = decode_value(value.encode())
    for column in (*NAMED_NUMBERS, "info"):
        restored[column] = restored.get(column) or {}
    for column in ("reason", "absent", "spans", "renormalised", "dropped", "input"):
        if restored.get(column, 0) is None:
            del restored[column]
    return restored
