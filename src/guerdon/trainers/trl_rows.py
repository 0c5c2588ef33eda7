"""The rows of a TRL batch as samples, and the groups that they are in.

Contract: TRL 1.16, `trl/trainer/grpo_trainer.py` and `rloo_trainer.py`, `_calculate_rewards`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from guerdon.errors import ConfigError, InvalidSample, nearest
from guerdon.outcome import EMPTY
from guerdon.sample import Sample, Unusable
from guerdon.service import Entry
from guerdon.trainers.messages import parsed
from guerdon.trainers.scalar import TRUTHS

COLUMN_FIELDS = (
    "ground_truth",
    "data_source",
    "sample_id",
    "group_id",
    "finish_reason",
    "policy_version",
)
"""Fields of a sample that a dataset column may fill. Prompts, completions and token ids come from
the trainer; media columns of a TRL dataset belong to the prompt and stay metadata."""

TAKEN = ("prompt", "response")

ENVIRONMENTS = "environments"
"""What TRL calls the environments of the rows; one of them is the `environment` of its sample."""


class Rows:
    """Which dataset column fills which field, and the samples that follow.

    Args:
        named: sample field to column, as the user says.
        columns: of the dataset.
    """

    def __init__(self, named: Mapping[str, str], columns: Mapping[str, Sequence[Any]]) -> None:
        for key in TAKEN:
            if key in columns:
                raise ConfigError(
                    f"the dataset has a column {key!r}, which is what the trainer gives the "
                    "reward: rename the column"
                )
        fields = _fields(named, columns)
        self._fields = {field: columns[column] for field, column in fields.items()}
        used = fields.values()
        self._rest = {
            "environment" if key == ENVIRONMENTS else key: column
            for key, column in columns.items()
            if key not in used
        }

    def samples(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        completion_ids: Sequence[Sequence[int]] | None,
        groups: Sequence[str],
    ) -> list[Entry]:
        """One sample per row; `Unusable`, with the reason, for a row that makes none."""
        seen: dict[str, int] = {}
        samples: list[Entry] = []
        for row, (prompt, completion, group) in enumerate(
            zip(prompts, completions, groups, strict=True)
        ):
            fields = {field: column[row] for field, column in self._fields.items()}
            fields.setdefault("group_id", group)
            if fields.get("sample_id") is not None:
                fields["sample_id"] = _generation(fields["sample_id"], seen)
            fields["metadata"] = {key: column[row] for key, column in self._rest.items()} or EMPTY
            if completion_ids is not None:
                fields["response_token_ids"] = completion_ids[row]
            try:
                if isinstance(prompt, InvalidSample):
                    raise prompt
                samples.append(Sample(prompt=prompt, response=parsed(completion), **fields))
            except InvalidSample as error:
                group = fields["group_id"] if isinstance(fields["group_id"], str) else None
                samples.append(Unusable(problem=f"row {row}: {error}", group_id=group))
        return samples


def _generation(prompt_id: object, seen: dict[str, int]) -> str:
    """A dataset's id names the prompt; each of its generations needs one of its own."""
    text = str(prompt_id)
    seen[text] = seen.get(text, -1) + 1
    return f"{text}#{seen[text]}"


def _fields(named: Mapping[str, str], columns: Iterable[str]) -> dict[str, str]:
    """Field to column: what the user names, else the field's own name, else its one synonym."""
    there = set(columns)
    for field, column in named.items():
        if column not in there:
            hint = nearest(column, there)
            raise ConfigError(f"columns: the dataset has no column {column!r} ({field}){hint}")
    fields = dict(named)
    for field in COLUMN_FIELDS:
        if field in there:
            fields.setdefault(field, field)
    synonyms = [name for name in TRUTHS if name in there]
    # Two of them (a worked solution and its answer) are for the user to tell apart.
    if "ground_truth" not in fields and len(synonyms) == 1:
        fields["ground_truth"] = synonyms[0]
    return fields


def repeated(prompts: Sequence[Any]) -> list[bool]:
    """Whether each row has the prompt of the row before it."""
    return [
        row > 0 and (prompt is prompts[row - 1] or prompt == prompts[row - 1])
        for row, prompt in enumerate(prompts)
    ]


def groups_of_size(rows: int, size: int, rank: int) -> list[str]:
    """A name for the group of each row: `size` rows each, as TRL's own baseline takes them.

    Prompts are not looked at: an environment may add something of its own to each of a group. TRL
    deals out the rows of all groups in the order of the processes, equally many to each.
    """
    return [str((rank * rows + row) // size) for row in range(rows)]


def check_size(same: Sequence[bool], size: int, rank: int, processes: int) -> None:
    """Refuse a size that a user named, where the batch says something else.

    Args:
        same: see `repeated`.
        size: of the groups.
        rank: of this process.
        processes: each with as many rows.

    Raises:
        ConfigError: groups of that size do not fit.
    """
    rows = len(same) * processes
    if rows % size:
        batch = "a batch has" if processes == 1 else f"{processes} processes have"
        raise ConfigError(f"num_generations is {size}, but {batch} {rows} rows")
    first = rank * len(same)
    for row in range(1, len(same)):
        if not same[row] and (first + row) % size:
            raise ConfigError(
                f"num_generations is {size}, but row {row} of a batch has another prompt than the "
                "row before it"
            )


def shared_prompts(prompts: Sequence[Any], same: Sequence[bool]) -> list[Any]:
    """Prompts with messages that repeat parsed once, or what is wrong with them."""
    shared: list[Any] = []
    for prompt, repeats in zip(prompts, same, strict=True):
        if repeats:
            shared.append(shared[-1])
            continue
        try:
            shared.append(parsed(prompt))
        except InvalidSample as error:
            shared.append(InvalidSample(f"prompt: {error}"))
    return shared
