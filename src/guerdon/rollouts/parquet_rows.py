"""The rows of a Parquet file, with the memory of one batch."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

import msgspec

from guerdon.errors import MissingExtra
from guerdon.rollouts.misuse import Misuse
from guerdon.rollouts.record import Record
from guerdon.rollouts.source import BLOCK, Source, describe_damage

ROWS_AT_ONCE = 512


class ParquetRows:
    """Reads a Parquet file; what is compressed or piped is first copied to a temporary file.

    Args:
        source: whose content is Parquet.

    Raises:
        Misuse: no valid Parquet.
        MissingExtra: pyarrow is not installed.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        pyarrow, parquet = import_pyarrow(f"reading {source.name}")
        self._errors = (pyarrow.ArrowException, OSError, ValueError)
        try:
            self._file: Any = parquet.ParquetFile(self._seekable())
        except self._errors as error:
            raise Misuse(f"{source.name} is no readable Parquet file: {error}") from None
        self.total: int = self._file.metadata.num_rows
        self.done = 0

    def records(self) -> Iterator[Record]:
        """The rows in order; a batch that cannot be read is tried row by row."""
        batches = self._file.iter_batches(batch_size=ROWS_AT_ONCE)
        while True:
            try:
                batch = next(batches, None)
            except self._errors as error:
                problem = f"the file is damaged from here on: {error}"
                yield Record(self.done, f"row {self.done + 1}", b"", None, problem)
                return
            if batch is None:
                return
            for position, row in enumerate(self._rows(batch)):
                yield self._record(self.done + position, row)
            self.done += batch.num_rows

    def _rows(self, batch: Any) -> list[Any]:
        try:
            return batch.to_pylist()
        except self._errors:
            return [self._one(batch.slice(position, 1)) for position in range(batch.num_rows)]

    def _one(self, row: Any) -> Any:
        try:
            return row.to_pylist()[0]
        except self._errors as error:
            return str(error)

    def _record(self, row: int, data: Any) -> Record:
        place = f"row {row + 1}"
        if isinstance(data, str):
            return Record(row, place, b"", None, data)
        return Record(row, place, b"", plain_row(data))

    def _seekable(self) -> Any:
        if self._source.path is not None:
            return self._source.path
        copy = tempfile.TemporaryFile(prefix="guerdon-")  # noqa: SIM115 - lives as long as the reader
        try:
            shutil.copyfileobj(self._source.stream, copy, BLOCK)
        except (EOFError, OSError) as error:
            raise Misuse(f"cannot read {self._source.name}: {describe_damage(error)}") from None
        copy.seek(0)
        return copy


def plain_row(row: Any) -> Any:
    """A row with what JSON has, and bytes: decimals, dates and times become text.

    So a reward gets the same, whether it runs here, in a worker, or on whole groups.

    Example:
        >>> from decimal import Decimal
        >>> plain_row({"answer": Decimal("2.50"), "image": b"png"})
        {'answer': '2.50', 'image': b'png'}
    """
    return msgspec.to_builtins(row, builtin_types=(bytes,), enc_hook=repr)


def import_pyarrow(purpose: str) -> tuple[Any, Any]:
    """pyarrow and its Parquet module.

    Raises:
        MissingExtra: they are not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MissingExtra("pyarrow", "parquet", purpose) from None
    return pyarrow, pyarrow.parquet
