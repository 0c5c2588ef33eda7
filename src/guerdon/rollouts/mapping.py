"""Which column gives which field of a sample, as the user says it: `response=completion`.

A column is named by its name, or by a dotted path into nested columns; a number in a path counts
the items of a list, from 0 or from the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias, cast

from guerdon.errors import nearest
from guerdon.injection import SYNONYMS
from guerdon.rollouts.misuse import Misuse

FIELDS = (
    "prompt",
    "response",
    "ground_truth",
    "data_source",
    "sample_id",
    "group_id",
    "images",
    "videos",
    "audios",
    "metadata",
    "finish_reason",
    "policy_version",
    "prompt_token_ids",
    "response_token_ids",
    "response_mask",
)
"""Fields of a sample that a column can give."""

METADATA_PREFIX = "metadata."
ABSENT: Any = object()
"""What a path gives where a row has nothing there."""

Getter: TypeAlias = Callable[[Mapping[str, Any]], Any]


def parse_mapping(arguments: Iterable[str]) -> dict[str, str]:
    """The mapping that `--map` arguments describe: sample field to column; "" for no column.

    Raises:
        Misuse: no `=`, an unknown field, or a field that is mapped twice.

    Example:
        >>> parse_mapping(["response=choices.0.text", "completion_ids=ids", "metadata.level=hard"])
        {'response': 'choices.0.text', 'response_token_ids': 'ids', 'metadata.level': 'hard'}
    """
    mapping: dict[str, str] = {}
    for argument in arguments:
        name, separator, column = (part.strip() for part in argument.partition("="))
        if not separator or not name:
            raise Misuse(f"--map {argument}: write FIELD=COLUMN, such as response=completion")
        field = SYNONYMS.get(name, name).removesuffix("_messages")
        if field not in FIELDS and not _is_metadata(field):
            hint = nearest(name, (*FIELDS, *SYNONYMS))
            raise Misuse(
                f"--map {argument}: a sample has no field {name!r}{hint}\n"
                f"fields: {', '.join(FIELDS)}; metadata.NAME for anything else"
            )
        if field in mapping:
            raise Misuse(f"--map {argument}: {field} is mapped to {mapping[field]!r} already")
        mapping[field] = column
    return mapping


def _is_metadata(field: str) -> bool:
    return field.startswith(METADATA_PREFIX) and len(field) > len(METADATA_PREFIX)


def getter(path: str) -> Getter:
    """What reads a column or a dotted path from a row, or gives `ABSENT`.

    Example:
        >>> row = {"a.b": 1, "choices": [{"text": "x"}]}
        >>> getter("a.b")(row), getter("choices.-1.text")(row), getter("a.c")(row) is ABSENT
        (1, 'x', True)
    """
    parts = path.split(".")
    if len(parts) == 1:
        return lambda row: row.get(path, ABSENT)

    def nested(row: Mapping[str, Any]) -> Any:
        if path in row:
            return row[path]
        value: Any = row
        for part in parts:
            value = _step(value, part)
            if value is ABSENT:
                return ABSENT
        return value

    return nested


def _step(value: Any, part: str) -> Any:
    if isinstance(value, Mapping):
        return cast("Mapping[str, Any]", value).get(part, ABSENT)
    if isinstance(value, list) and part.removeprefix("-").isdecimal() and part.isascii():
        items = cast("list[Any]", value)
        # The length of the number is bounded: `int` refuses very long ones.
        index = int(part) if len(part) < 10 else len(items)
        return items[index] if -len(items) <= index < len(items) else ABSENT
    return ABSENT
