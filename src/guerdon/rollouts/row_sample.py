"""From a row to the sample that it describes."""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import msgspec

from guerdon.errors import InvalidSample
from guerdon.outcome import EMPTY
from guerdon.rollouts.decoding import Row
from guerdon.rollouts.layout import MEDIA, Layout, metadata_columns
from guerdon.rollouts.mapping import ABSENT, METADATA_PREFIX, getter
from guerdon.sample import Media, Sample

GROUP_DIGEST_BYTES = 6
SHOWN_COLUMNS = 20
TEXTS = ("prompt", "response")
IDS = ("sample_id", "group_id")
NESTED_METADATA = ("extra_info",)
"""Columns of objects whose keys are also metadata of their own, for rewards that name them."""


class BadRow(ValueError):
    """The row describes no sample; the message names the column."""


class RowSample:
    """Makes samples of the rows of one layout.

    Args:
        layout: of the file.

    Example:
        >>> layout = Layout("plain", {"response": "text"}, frozenset({"response"}))
        >>> make = RowSample(layout)
        >>> make({"text": "4", "level": 3}).metadata
        {'level': 3}
        >>> make({"level": 3})
        Traceback (most recent call last):
        guerdon.rollouts.row_sample.BadRow: the row has no column 'text' (columns: level)
    """

    def __init__(self, layout: Layout) -> None:
        fields = {f: c for f, c in layout.columns.items() if not f.startswith(METADATA_PREFIX)}
        self._layout = layout
        self._metadata_column = fields.pop("metadata", None)
        self._plan = [
            (field, column, getter(column), field in layout.required, _coercion(field))
            for field, column in fields.items()
        ]
        self._extra = [(name, column, getter(column)) for name, column in metadata_columns(layout)]
        self._used = frozenset([*fields.values(), layout.conversation])

    def __call__(self, row: Row) -> Sample:
        """The sample of a row.

        Raises:
            BadRow: a required column is missing, or a value cannot be what it is mapped to.
        """
        fields: dict[str, Any] = {}
        for field, column, get, required, coerce in self._plan:
            value = get(row)
            if value is None or value is ABSENT:
                if required:
                    raise BadRow(_lacking(row, column, value))
                continue
            if coerce is not None:
                value = coerce(value, column)
            elif type(value) is float and not math.isfinite(value):
                raise BadRow(f"the column {column!r} is {value}")
            fields[field] = value
        if self._layout.conversation:
            fields.update(_split(row.get(self._layout.conversation), self._layout.conversation))
        if self._layout.group_by_prompt and fields.get("prompt"):
            fields["group_id"] = _prompt_group(fields["prompt"])
        fields["metadata"] = self._metadata(row) or EMPTY
        try:
            return Sample(**fields)
        except (InvalidSample, msgspec.ValidationError) as error:
            raise BadRow(str(error)) from None

    def ids(self, row: Row) -> tuple[str | None, str | None]:
        """Sample and group id of a row, as far as it names them."""
        found: dict[str, str] = {}
        for field, column, get, _, _ in self._plan:
            value = get(row)
            if value is None or value is ABSENT:
                continue
            with contextlib.suppress(BadRow):
                if field in IDS:
                    found[field] = _identifier(value, column)
                elif field == "prompt" and value and self._layout.group_by_prompt:
                    found["group_id"] = _prompt_group(_text(value, column))
        return found.get("sample_id"), found.get("group_id")

    def _metadata(self, row: Row) -> dict[str, Any]:
        used = self._used
        metadata = {column: value for column, value in row.items() if column not in used}
        own = self._metadata_column
        if own is not None and isinstance(row.get(own), Mapping):
            metadata = {**row[own], **metadata}
            metadata.pop(own, None)
        for column in NESTED_METADATA:
            if isinstance(row.get(column), Mapping):
                metadata = {**row[column], **metadata}
        for name, column, get in self._extra:
            value = get(row)
            if value is ABSENT:
                raise BadRow(_lacking(row, column, value))
            metadata[name] = value
        return metadata


def _lacking(row: Row, column: str, value: object) -> str:
    if value is None:
        return f"the column {column!r} is null"
    names = list(row)[:SHOWN_COLUMNS]
    more = ", ..." if len(row) > len(names) else ""
    return f"the row has no column {column!r} (columns: {', '.join(names) or 'none'}{more})"


def _coercion(field: str) -> Callable[[Any, str], Any] | None:
    if field in TEXTS:
        return _text
    if field in IDS:
        return _identifier
    if field in MEDIA:
        return _media
    return _source if field == "data_source" else None


def _text(value: Any, column: str) -> Any:
    if type(value) is not bytes:
        return value
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        raise BadRow(f"the column {column!r} holds bytes that are no UTF-8 text") from None


def _identifier(value: Any, column: str) -> str:
    if type(value) is str:
        return value
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, list | dict):
        return _digest(repr(cast("object", value)).encode("utf-8", "surrogatepass"))
    raise BadRow(f"the column {column!r} holds {value!r}, which names nothing")


def _source(value: Any, column: str) -> str:
    if not isinstance(value, str):
        raise BadRow(f"the column {column!r} must be text, not {type(value).__name__}")
    return value


def _media(value: Any, column: str) -> list[Any]:
    items = cast("list[Any]", value) if isinstance(value, list) else [value]
    kind: Any = column.removesuffix("s")
    return [_encoded(item, kind) for item in items]


def _encoded(item: Any, kind: Any) -> Any:
    """Media in the form of Hugging Face data sets: `{"bytes": ..., "path": ...}`."""
    held: Mapping[str, Any] = cast("Any", item) if isinstance(item, Mapping) else {}
    if "bytes" not in held and "path" not in held:
        return cast("Any", item)
    data = held.get("bytes")
    return Media(kind=kind, data=data) if data else Media(kind=kind, path=held.get("path"))


def _split(messages: Any, column: str) -> dict[str, Any]:
    """A conversation as prompt and response: the last assistant message, and what is before it."""
    if not isinstance(messages, list):
        raise BadRow(f"the column {column!r} holds no list of messages")
    turns = cast("list[Any]", messages)
    for position in range(len(turns) - 1, -1, -1):
        turn = turns[position]
        if isinstance(turn, Mapping) and cast("Mapping[str, Any]", turn).get("role") == "assistant":
            return {"prompt": turns[:position], "response": turns[position : position + 1]}
    raise BadRow(f"the column {column!r} holds no message of an assistant")


def _prompt_group(prompt: str | Sequence[Any]) -> str:
    if isinstance(prompt, str):
        return "prompt-" + _digest(prompt.encode("utf-8", "surrogatepass"))
    return "prompt-" + _digest(repr(prompt).encode("utf-8", "surrogatepass"))


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=GROUP_DIGEST_BYTES).hexdigest()
