"""Which columns of a file mean what: the layouts that trainers write, recognised by their columns.

A layout is recognised from the first rows. What the user maps wins over everything, then the
columns of a known layout, then columns of a usual name. A column that means nothing is metadata.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import msgspec

from guerdon.rollouts.decoding import Row
from guerdon.rollouts.mapping import ABSENT, METADATA_PREFIX, getter
from guerdon.rollouts.misuse import Misuse
from guerdon.rollouts.record import Record

MEDIA = ("images", "videos", "audios")
SHOWN_COLUMNS = 40


class Known(NamedTuple):
    """A layout that some program writes.

    Attributes:
        name: for people.
        needs: columns that show it; `a.b` is a column `a` of objects with a key `b`.
        columns: field to column.
        messages: columns that must hold lists of messages for it to be this layout.
    """

    name: str
    needs: tuple[str, ...]
    columns: Mapping[str, str]
    messages: tuple[str, ...] = ()


KNOWN = (
    # verl/utils/dataset/rl_dataset.py: the rows that its data preparation writes.
    Known(
        "verl",
        ("reward_model.ground_truth",),
        {"ground_truth": "reward_model.ground_truth", "group_id": "uid"},
    ),
    # verl, `trainer.rollout_data_dir` and `trainer.validation_data_dir`.
    Known(
        "verl rollout dump",
        ("input", "output", "gts"),
        {"prompt": "input", "response": "output", "ground_truth": "gts"},
    ),
    # AReaL, areal/infra/workflow_executor.py: `rollout.dump_to_file`.
    Known(
        "AReaL trajectory dump",
        ("prompt", "completion", "task_id", "tail_version"),
        {"response": "completion", "group_id": "task_id", "policy_version": "tail_version"},
    ),
    # AReaL, areal/api/reward_api.py: what a reward function is called with.
    Known("AReaL", ("prompt", "completions"), {"response": "completions"}),
    # AgentFly, agents/chain/chain_base.py: what a reward is called with.
    Known("AgentFly", ("final_response",), {"response": "final_response"}),
    # TRL, trl/trainer/grpo_trainer.py: conversational prompts and completions.
    Known(
        "TRL conversational",
        ("prompt", "completion"),
        {"response": "completion"},
        messages=("prompt", "completion"),
    ),
    Known("TRL", ("prompt", "completion"), {"response": "completion"}),
    Known("Guerdon", ("response", "ground_truth"), {}),
)

USUAL: Mapping[str, tuple[str, ...]] = {
    "response": (
        "response",
        "completion",
        "completions",
        "solution_str",
        "prediction",
        "final_response",
        "output",
        "generated_text",
        "generation",
        "model_output",
        "response_text",
        "responses",
    ),
    "ground_truth": (
        "ground_truth",
        "gts",
        "answer",
        "solution",
        "label",
        "target",
        "reference_answer",
        "gold",
    ),
    "prompt": ("prompt", "question", "problem", "raw_prompt", "input", "query", "instruction"),
    "data_source": ("data_source",),
    "sample_id": ("sample_id", "id", "rollout_id", "custom_id", "trajectory_id"),
    "group_id": (
        "group_id",
        "uid",
        "prompt_id",
        "problem_id",
        "question_id",
        "query_id",
        "task_id",
    ),
    "metadata": ("metadata",),
    "finish_reason": ("finish_reason",),
    "policy_version": ("policy_version",),
    "prompt_token_ids": ("prompt_token_ids", "prompt_ids"),
    "response_token_ids": ("response_token_ids", "completion_ids", "response_ids"),
    "response_mask": ("response_mask",),
}
"""Names that columns usually have, by field, the first that is there."""

CONVERSATION = "messages"
"""A column with a whole conversation in OpenAI's form; its last assistant message is the
response, and what is before it the prompt."""


class Layout(msgspec.Struct, frozen=True):
    """What the columns of a file mean.

    Attributes:
        name: for people.
        columns: field, or `metadata.NAME`, to column.
        required: fields that every row must have.
        conversation: column with a whole conversation, where the response is in one.
        group_by_prompt: whether rows with equal prompts are a group, for want of a column.
    """

    name: str
    columns: Mapping[str, str]
    required: frozenset[str]
    conversation: str = ""
    group_by_prompt: bool = False

    def describe(self) -> str:
        """The layout in one line.

        Example:
            >>> Layout("TRL", {"response": "completion"}, frozenset()).describe()
            'TRL layout: response=completion'
        """
        parts = [f"{field}={column}" for field, column in self.columns.items() if field != column]
        if self.conversation:
            parts.append(f"response=last assistant message of {self.conversation}")
        if self.group_by_prompt:
            parts.append("groups=rows with the same prompt")
        same = [field for field, column in self.columns.items() if field == column]
        return f"{self.name} layout: {', '.join([*same, *parts])}"


def recognise(name: str, records: Sequence[Record], mapping: Mapping[str, str]) -> Layout:
    """The layout of a file.

    Args:
        name: of the file, for messages.
        records: its first rows.
        mapping: what the user says; see `parse_mapping`.

    Raises:
        Misuse: no row can be read, a mapped column is in none of them, or nothing is a response.
    """
    rows = [record.data for record in records if record.data is not None]
    if not rows:
        raise Misuse(_nothing_readable(name, records))
    for field, column in mapping.items():
        if column and not _present(rows, column):
            raise Misuse(
                f"{name}: no row has the column {column!r} that --map {field}={column} names\n"
                f"columns: {_columns(rows)}"
            )
    found = next((known for known in KNOWN if _matches(known, rows)), None)
    columns = {field: column for field, column in mapping.items() if column}
    known: Mapping[str, str] = found.columns if found else {}
    columns.update({f: c for f, c in known.items() if f not in mapping and _present(rows, c)})
    conversation = _conversation(rows, columns, mapping)
    _add_usual(rows, columns, mapping, conversation)
    if "response" not in columns and not conversation:
        _add_media(rows, columns, mapping)
    if not conversation and not any(field in columns for field in ("response", *MEDIA)):
        raise Misuse(_no_response(name, rows, columns))
    _check_responses(name, rows, columns)
    label = found.name if found else "OpenAI messages" if conversation else "plain"
    has_prompt = "prompt" in columns or bool(conversation)
    by_prompt = has_prompt and "group_id" not in columns and "group_id" not in mapping
    required = {field for field, column in mapping.items() if column}
    required.update({"response"} & columns.keys())
    return Layout(label, columns, frozenset(required), conversation, by_prompt)


def _matches(known: Known, rows: Sequence[Row]) -> bool:
    return all(_present(rows, column) for column in known.needs) and all(
        _holds_messages(rows, column) for column in known.messages
    )


def _conversation(rows: Sequence[Row], columns: Mapping[str, str], given: Mapping[str, str]) -> str:
    if "response" in columns or "response" in given or not _holds_messages(rows, CONVERSATION):
        return ""
    usual = any(_present(rows, column) for column in USUAL["response"])
    return "" if usual else CONVERSATION


def _add_usual(
    rows: Sequence[Row], columns: dict[str, str], given: Mapping[str, str], conversation: str
) -> None:
    for field, names in USUAL.items():
        if field in given or field in columns:
            continue
        if conversation and field in ("response", "prompt"):
            continue
        taken = {*columns.values(), conversation}
        free = [column for column in names if column not in taken and _present(rows, column)]
        if field == "sample_id":
            free = [c for c in free if c == "sample_id" or _distinct(rows, c)]
        if free:
            columns[field] = free[0]


def _add_media(rows: Sequence[Row], columns: dict[str, str], given: Mapping[str, str]) -> None:
    """Media are the response only where no text is: beside a text they belong to the prompt."""
    for field in MEDIA:
        for column in (field, field.removesuffix("s")):
            if field not in columns and field not in given and _present(rows, column):
                columns[field] = column


def _present(rows: Iterable[Row], column: str) -> bool:
    get = getter(column)
    return any(get(row) not in (ABSENT, None) for row in rows)


def _distinct(rows: Sequence[Row], column: str) -> bool:
    """Whether a column names each row, not each prompt."""
    values = [row[column] for row in rows if row.get(column) is not None]
    return all(isinstance(v, str | int) for v in values) and len(set(values)) == len(values)


def _holds_messages(rows: Iterable[Row], column: str) -> bool:
    get = getter(column)
    for row in rows:
        value = get(row)
        if isinstance(value, list) and value:
            first = cast("list[Any]", value)[0]
            return isinstance(first, Mapping) and "role" in first
    return False


def _check_responses(name: str, rows: Sequence[Row], columns: Mapping[str, str]) -> None:
    column = columns.get("response")
    if column is None:
        return
    get = getter(column)
    values = [value for value in map(get, rows) if value not in (ABSENT, None)]
    if values and all(_is_list_of_text(value) for value in values):
        raise Misuse(
            f"{name}: the column {column!r} holds a list of texts per row\n"
            "write one row per response, or choose one, for example: "
            f"--map response={column}.0"
        )


def _is_list_of_text(value: object) -> bool:
    items = cast("list[object]", value) if isinstance(value, list) else []
    return bool(items) and all(isinstance(item, str) for item in items)


def _nothing_readable(name: str, records: Sequence[Record]) -> str:
    first = records[0] if records else None
    if first is None:
        return f"{name} holds no rows: there is nothing to score"
    return (
        f"{name}: none of the first {len(records)} rows can be read\n{first.place}: {first.problem}"
    )


def _no_response(name: str, rows: Sequence[Row], columns: Mapping[str, str]) -> str:
    likely = _longest_text(rows, set(columns.values()))
    return (
        f"{name}: no column is known to hold the response\n"
        f"columns: {_columns(rows)}\n"
        f"say which one does, for example: --map response={likely or 'COLUMN'}"
    )


def _longest_text(rows: Sequence[Row], taken: set[str]) -> str:
    """The column whose texts are the longest: most likely the response."""
    sizes: dict[str, int] = {}
    for row in rows:
        for column, value in row.items():
            if isinstance(value, str) and column not in taken:
                sizes[column] = sizes.get(column, 0) + len(value)
    return max(sizes, key=lambda column: sizes[column], default="")


def _columns(rows: Iterable[Row]) -> str:
    """Names of columns, and of those one level inside objects."""
    names: dict[str, None] = {}
    for row in rows:
        for column, value in row.items():
            if isinstance(value, Mapping) and value:
                names.update({f"{column}.{key}": None for key in cast("Mapping[str, Any]", value)})
            else:
                names[column] = None
    shown = list(names)[:SHOWN_COLUMNS]
    more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
    return ", ".join(shown) + more if names else "none"


def metadata_columns(layout: Layout) -> tuple[tuple[str, str], ...]:
    """Names and columns that the user put into the metadata."""
    return tuple(
        (field.removeprefix(METADATA_PREFIX), column)
        for field, column in layout.columns.items()
        if field.startswith(METADATA_PREFIX)
    )
