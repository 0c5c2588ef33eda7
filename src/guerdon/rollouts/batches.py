"""Batches of samples from the rows of an input: in order, or whole groups together.

Rows that cannot be scored travel along as items with a problem, so that each gets its output row.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Protocol, TypeAlias

import msgspec

from guerdon.fingerprint import digest
from guerdon.rollouts.grouping import GroupStore
from guerdon.rollouts.layout import Layout, recognise
from guerdon.rollouts.misuse import Misuse
from guerdon.rollouts.outcome_row import Item
from guerdon.rollouts.reader import Reader
from guerdon.rollouts.record import Record
from guerdon.rollouts.row_sample import BadRow, RowSample
from guerdon.rollouts.seen import EARLIER, Seen

Batch: TypeAlias = list[Item]

PEEKED_ROWS = 256
"""Rows from which the layout of a file is recognised."""
PEEKED_BYTES = 64 << 20
BATCH_BYTES = 16 << 20
"""A batch ends here even when it has few samples, so that long responses cannot fill the memory."""


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """What the user wants of an input.

    Attributes:
        mapping: field to column; see `parse_mapping`.
        limit: rows that are read; None reads all.
        keep_input: whether output rows hold the whole input row.
        salt: what else decides the scores, such as the step; it goes into the digests.
    """

    mapping: dict[str, str] = {}
    limit: int | None = None
    keep_input: bool = False
    salt: str = ""


class Done(Protocol):
    """Knows the rows that an earlier run has written."""

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


class Batches:
    """Reads an input and makes batches.

    Args:
        reader: of the input.
        choice: what the user wants.
        on_read: told how many rows wait for the other members of their groups.

    Raises:
        Misuse: the input cannot be understood; see `recognise`.
    """

    def __init__(
        self, reader: Reader, choice: Choice, on_read: Callable[[int], object] | None = None
    ) -> None:
        self.reader = reader
        self._on_read = on_read
        self._choice = choice
        self._records = iter(reader)
        self._peeked = self._peek()
        self.layout: Layout = recognise(reader.name, self._peeked, choice.mapping)
        self._make = RowSample(self.layout)
        self._seen = Seen()
        self._key = _digest_key(self.layout, choice.salt)
        self.rows_read = 0
        self._bytes_read = 0
        self.all_read = False

    def sources(self) -> list[str]:
        """Data sources of the first rows."""
        column = self.layout.columns.get("data_source", "")
        found = [record.data.get(column) for record in self._peeked if record.data is not None]
        return sorted({source for source in found if isinstance(source, str)})

    def total(self) -> float | None:
        """How many rows there are, exactly or by what was read of the bytes; None if unknown."""
        limit = self._choice.limit
        if self.all_read:
            return self.rows_read
        known: float | None = self.reader.total
        if known is None:
            read = self.reader.fraction(self._bytes_read)
            known = self.rows_read / read if read else None
        return known if limit is None else min(limit, known or limit)

    def in_order(self, done: Done, batch_size: int) -> Iterator[Batch]:
        """Batches in the order of the input, without the rows that are done.

        Args:
            done: rows of an earlier run.
            batch_size: rows of one batch, or fewer where they are large.

        Raises:
            Misuse: a row that is done differs from the input.
        """
        batch: Batch = []
        size = 0
        for record in self._input(done):
            item, is_done = self._item(record, done)
            if is_done:
                continue
            batch.append(item)
            size += item.size
            if len(batch) >= batch_size or size >= BATCH_BYTES:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch

    def by_group(self, done: Done, batch_size: int) -> Iterator[Batch]:
        """Batches of whole groups, wherever their members lie, unusable ones included; first the
        unusable rows that name no group.

        A group of which an earlier run has written only a part comes again as a whole.

        Args:
            done: rows of an earlier run.
            batch_size: rows from which a batch is full.
        """
        store = GroupStore()
        try:
            yield from self._collect(store, done, batch_size)
            yield from self._groups(store, done, batch_size)
        finally:
            store.close()

    def _collect(self, store: GroupStore, done: Done, batch_size: int) -> Iterator[Batch]:
        unusable: Batch = []
        held: list[tuple[str | None, str, str, Record]] = []
        size = 0
        for record in self._input(done):
            item, is_done = self._item(record, done)
            if item.sample is None and item.group_id is None:
                unusable.extend([] if is_done else [item])
            else:
                held.append((item.group_id, item.digest, item.problem, record))
            size += item.size
            if len(unusable) >= batch_size:
                yield unusable
                unusable = []
            if size >= BATCH_BYTES or len(held) >= batch_size:
                store.add(held)
                held, size = [], 0
                if self._on_read is not None:
                    self._on_read(self.rows_read)
        store.add(held)
        if unusable:
            yield unusable

    def _groups(self, store: GroupStore, done: Done, batch_size: int) -> Iterator[Batch]:
        batch: Batch = []
        size = 0
        for group in store.groups():
            if all(map(done.has, group.rows())):
                continue
            for digest_, problem, record in group.members():
                item = self._describe(record, digest_)
                if problem:
                    item.sample, item.problem = None, problem
                batch.append(item)
                size += item.size
            if len(batch) >= batch_size or size >= BATCH_BYTES:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch

    def _peek(self) -> list[Record]:
        peeked: list[Record] = []
        size = 0
        for record in itertools.islice(self._records, PEEKED_ROWS):
            peeked.append(record)
            size += len(record.raw)
            if size >= PEEKED_BYTES:
                break
        return peeked

    def _input(self, done: Done) -> Iterator[Record]:
        records = itertools.chain(self._peeked, self._records)
        self._peeked = []
        limit = self._choice.limit
        for record in itertools.islice(records, limit):
            self.rows_read += 1
            self._bytes_read += len(record.raw)
            yield record
        self.all_read = True
        if limit is None and done.last_row >= self.rows_read:
            raise Misuse(
                f"{self.reader.name} has {self.rows_read:,} rows, but row {done.last_row:,} is "
                "scored already: the input has changed"
            )

    def _item(self, record: Record, done: Done) -> tuple[Item, bool]:
        """The item of a row, and whether it is done."""
        found = record.digest(self._key)
        is_done = done.has(record.row)
        if is_done and done.digest(record.row) != found:
            raise Misuse(
                f"{self.reader.name}, {record.place}: this row differs from the one that was "
                "scored: the input, --map, --step or --split has changed"
            )
        item = self._describe(record, found)
        if item.sample_id is not None:
            first = self._seen.add(item.sample_id, record.row)
            if first is not None:
                item.sample = None
                item.problem = item.problem or self._repeated(item.sample_id, first)
        return item, is_done

    def _describe(self, record: Record, found: str) -> Item:
        item = Item(row=record.row, place=record.place, digest=found, size=len(record.raw))
        if record.data is None:
            item.problem = record.problem
            return item
        if self._choice.keep_input:
            item.content = record.data
        try:
            sample = self._make(record.data)
        except BadRow as error:
            item.problem = str(error)
            item.sample_id, item.group_id = self._make.ids(record.data)
            return item
        item.sample = sample
        item.sample_id = sample.sample_id
        item.group_id = sample.group_id
        item.size = item.size or sum(len(v) for v in record.data.values() if isinstance(v, str))
        return item

    def _repeated(self, sample_id: str, first: int) -> str:
        column = self.layout.columns["sample_id"]
        where = "an earlier row" if first == EARLIER else f"row {first}"
        return (
            f"the {column} {sample_id!r} is also that of {where}: ids must be unique "
            "(--map sample_id= ignores them)"
        )


def _digest_key(layout: Layout, salt: str) -> bytes:
    """What stands for everything besides a row's bytes that decides how it is scored."""
    parts = {
        "columns": dict(layout.columns),
        "conversation": layout.conversation,
        "by_prompt": layout.group_by_prompt,
        "salt": salt,
    }
    return digest(parts).encode()
