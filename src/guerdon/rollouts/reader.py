"""The rows of an input, whatever its form."""

from __future__ import annotations

from collections.abc import Iterator

from guerdon.rollouts.json_rows import raw_rows
from guerdon.rollouts.record import Record, record_from
from guerdon.rollouts.source import Source, open_source


class Reader:
    """Reads an input row by row, from front to end, once.

    Args:
        path: of a file (JSONL, JSON, Parquet; plain, gzip or zstd), or `-` for standard input.

    Raises:
        Misuse: the input cannot be read at all.
        MissingExtra: its form needs a package that is not installed.
    """

    def __init__(self, path: str) -> None:
        self._source: Source = open_source(path)
        self.name = self._source.name
        self.total: int | None = None
        """How many rows there are, where the file says so."""
        if self._source.kind == "parquet":
            from guerdon.rollouts.parquet_rows import ParquetRows

            rows = ParquetRows(self._source)
            self.total = rows.total
            self._records = rows.records()
        else:
            self._records = self._json_records()

    def __iter__(self) -> Iterator[Record]:
        return self._records

    def fraction(self, used: int) -> float | None:
        """Share of the input that rows of so many bytes are; None where it is unknown."""
        return self._source.fraction(used)

    def close(self) -> None:
        """Close the file."""
        self._source.close()

    def _json_records(self) -> Iterator[Record]:
        for row, (line, raw, problem) in enumerate(raw_rows(self._source)):
            yield record_from(row, f"line {line}", raw, problem)
