"""Batches as trainers hold them: a mapping of columns, turned into samples and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import msgspec
import numpy as np

from guerdon.errors import InvalidSample
from guerdon.injection import FIELDS, SYNONYMS
from guerdon.outcomes import Outcomes
from guerdon.sample import Sample

REWARD_MASK = "reward_mask"
"""Column that is True where `rewards` holds a number."""

OUTCOMES = "outcomes"
"""Column that holds the outcomes behind the numbers."""

ATTACHED = ("rewards", "component_rewards", REWARD_MASK, OUTCOMES)
"""What `attach` adds for the trainer."""

_FIELDS = {name: name.removesuffix("_messages") for name in FIELDS}


class Batch(msgspec.Struct, frozen=True):
    """Samples, and their rewards once they are scored.

    Attributes:
        samples: what to score.
        rewards: float64 [n]; NaN where there is no number.
        component_rewards: one such column per component.
        outcomes: what is behind the numbers.
    """

    samples: tuple[Sample, ...]
    rewards: Any = None
    component_rewards: Mapping[str, Any] | None = None
    outcomes: Outcomes | None = None


def samples_of(batch: Batch | Mapping[str, Any]) -> list[Sample]:
    """The samples of a batch.

    Args:
        batch: a `Batch`, or a mapping of columns of equal length; sample fields and their
            synonyms are recognised by name, other columns become metadata.

    Raises:
        InvalidSample: rewards are there already, columns differ in length, or two columns mean
            the same field.

    Example:
        >>> samples_of({"completion": ["4"], "answer": ["4"], "level": [2]})[0].metadata["level"]
        2
    """
    if isinstance(batch, Batch):
        if batch.rewards is not None:
            raise InvalidSample("the batch has rewards already: score each batch once")
        return list(batch.samples)
    if not isinstance(cast("object", batch), Mapping):
        raise InvalidSample(f"a batch is a mapping of columns, got {type(batch).__name__}")
    present = [key for key in ATTACHED if batch.get(key) is not None]
    if present:
        raise InvalidSample(f"the batch has {present[0]!r} already: score each batch once")
    columns = {key: _rows(key, column) for key, column in batch.items() if column is not None}
    lengths = {key: len(column) for key, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise InvalidSample(f"the columns of the batch differ in length: {lengths}")
    fields = _fields_of(columns)
    rest = [key for key in columns if key not in fields.values()]
    count = next(iter(lengths.values()), 0)
    return [_row(columns, fields, rest, i) for i in range(count)]


def attach(batch: Batch | Mapping[str, Any], outcomes: Outcomes) -> Any:
    """A copy of the batch with what a trainer needs beside its samples.

    A mapping gains `rewards` (float64, NaN where there is no number), `reward_mask`,
    `component_rewards` (name to column) and `outcomes`.
    """
    rewards = outcomes.rewards
    components = {name: column.values for name, column in outcomes.components.items()}
    if isinstance(batch, Batch):
        return Batch(batch.samples, rewards.values, components, outcomes)
    return {
        **batch,
        "rewards": rewards.values,
        REWARD_MASK: rewards.mask,
        "component_rewards": components,
        OUTCOMES: outcomes,
    }


def _rows(key: str, column: Any) -> list[Any]:
    """The rows of a column by position, whatever the column is indexed by."""
    kind = cast("type[object]", type(column))
    if not issubclass(kind, str | bytes | Mapping):
        try:
            return list(column)
        except TypeError:  # a single value
            pass
    raise InvalidSample(f"the column {key!r} is a {kind.__name__}, not a list of rows")


def _fields_of(columns: Mapping[str, Any]) -> dict[str, str]:
    """Which column fills which field: an exact name before a synonym."""
    fields: dict[str, str] = {}
    for key in columns:
        if key in _FIELDS:
            field = _FIELDS[key]
            if field in fields:
                raise InvalidSample(f"columns {fields[field]!r} and {key!r} are both the {field}")
            fields[field] = key
    for key in columns:
        field = _FIELDS.get(SYNONYMS.get(key, ""))
        if field is None or key in _FIELDS or fields.get(field) in _FIELDS:
            continue
        if field in fields:
            raise InvalidSample(
                f"columns {fields[field]!r} and {key!r} are both the {field}: rename the one that "
                f"counts to {field!r}"
            )
        fields[field] = key
    return fields


def _row(
    columns: Mapping[str, Sequence[Any]], fields: Mapping[str, str], rest: Sequence[str], i: int
) -> Sample:
    values = {field: _plain(columns[key][i]) for field, key in fields.items()}
    metadata = {key: columns[key][i] for key in rest}
    own = values.pop("metadata", None)
    return Sample(**values, metadata={**(own or {}), **metadata})


def _plain(value: Any) -> Any:
    """A numpy scalar as the Python value that it is; anything else as it is."""
    return cast("Any", value).item() if isinstance(value, np.generic) else value
