"""Layouts recognised by their columns, and the samples made of their rows."""

import math

import pytest

from guerdon.rollouts.layout import recognise
from guerdon.rollouts.mapping import ABSENT, getter, parse_mapping
from guerdon.rollouts.misuse import Misuse
from guerdon.rollouts.record import Record
from guerdon.rollouts.row_sample import BadRow, RowSample
from guerdon.sample import Media, Message

USER = {"role": "user", "content": "2 + 2?"}
FOUR = {"role": "assistant", "content": "4"}
CALL = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"function": {"name": "add", "arguments": "{}"}}],
}


def layout_of(*rows, mapping=()):
    records = [Record(n, f"line {n + 1}", b"", row) for n, row in enumerate(rows)]
    return recognise("data.jsonl", records, parse_mapping(mapping))


def sample_of(row, mapping=()):
    return RowSample(layout_of(row, mapping=mapping))(row)


# name of the layout, a row of it, and what its sample must hold
LAYOUTS = {
    "verl": (
        {
            "data_source": "openai/gsm8k",
            "prompt": [USER],
            "ability": "math",
            "reward_model": {"style": "rule", "ground_truth": "4"},
            "extra_info": {"split": "train", "index": 3},
            "response": "4",
        },
        {"ground_truth": "4", "response_text": "4", "prompt_text": "2 + 2?"},
    ),
    "verl rollout dump": (
        {"input": "2 + 2?", "output": "4", "gts": "4", "score": 1.0, "step": 7},
        {"ground_truth": "4", "response_text": "4", "prompt_text": "2 + 2?"},
    ),
    "TRL conversational": (
        {"prompt": [USER], "completion": [FOUR], "answer": "4"},
        {"ground_truth": "4", "response_text": "4", "prompt_text": "2 + 2?"},
    ),
    "TRL": (
        {"prompt": "2 + 2?", "completion": "4", "solution": "4"},
        {"ground_truth": "4", "response_text": "4", "prompt_text": "2 + 2?"},
    ),
    "OpenAI messages": (
        {"messages": [USER, CALL, {"role": "tool", "content": "4"}, FOUR], "label": "4"},
        {"ground_truth": "4", "response_text": "4", "prompt_text": "2 + 2?"},
    ),
    "AReaL": (
        {
            "prompt": "2 + 2?",
            "completions": "4",
            "prompt_ids": [1, 2],
            "completion_ids": [3],
            "answer": "4",
        },
        {"ground_truth": "4", "response_text": "4", "response_token_ids": [3]},
    ),
    "AReaL trajectory dump": (
        {
            "task_id": 5,
            "sample_idx": 0,
            "head_version": 1,
            "tail_version": 2,
            "reward": 0.0,
            "prompt": "2 + 2?",
            "completion": "4",
        },
        {"response_text": "4", "group_id": "5", "policy_version": 2},
    ),
    "AgentFly": (
        {
            "question": "2 + 2?",
            "final_response": "4",
            "trajectory": [USER, FOUR],
            "answer": "4",
            "id": "t1",
            "group_id": "g1",
        },
        {"ground_truth": "4", "response_text": "4", "sample_id": "t1", "group_id": "g1"},
    ),
    "Guerdon": (
        {"prompt": "2 + 2?", "response": "4", "ground_truth": "4", "sample_id": "s"},
        {"ground_truth": "4", "response_text": "4", "sample_id": "s"},
    ),
    "plain": (
        {"problem": "2 + 2?", "model_output": "4", "target": "4"},
        {"ground_truth": "4", "response_text": "4", "prompt_text": "2 + 2?"},
    ),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts_are_recognised(name):
    row, expected = LAYOUTS[name]
    layout = layout_of(row)
    assert layout.name == name
    sample = RowSample(layout)(row)
    assert {field: getattr(sample, field) for field in expected} == expected


def test_unknown_columns_become_metadata():
    row, _ = LAYOUTS["verl"]
    metadata = sample_of(row).metadata
    assert metadata["ability"] == "math"
    assert metadata["extra_info"] == {"split": "train", "index": 3}
    assert metadata["index"] == 3
    assert "response" not in metadata


def test_a_metadata_column_is_opened():
    row = {"response": "4", "metadata": {"level": 3, "kind": "a"}, "kind": "b"}
    assert sample_of(row).metadata == {"level": 3, "kind": "b"}


def test_the_last_assistant_message_is_the_response_with_its_tool_calls():
    sample = sample_of({"messages": [USER, FOUR, USER, CALL, {"role": "tool", "content": "x"}]})
    assert sample.response == (Message.parse(CALL),)
    assert sample.prompt == tuple(map(Message.parse, [USER, FOUR, USER]))


def test_media_are_the_response_only_where_no_text_is():
    png = {"bytes": b"\x89PNG", "path": None}
    assert sample_of({"prompt": "a cat", "image": png}).images == (
        Media(kind="image", data=b"\x89PNG"),
    )
    beside_text = sample_of({"prompt": "what is it?", "images": [png], "response": "a cat"})
    assert beside_text.images == ()
    assert beside_text.metadata["images"] == [png]
    files = {"prompt": "p", "response": None, "images": ["a.png", "b.png"]}
    assert [media.path for media in sample_of(files).images] == ["a.png", "b.png"]


def test_rows_with_equal_prompts_are_a_group_where_no_column_says_so():
    rows = [{"prompt": p, "response": "x"} for p in ("a", "b", "a", [USER], [USER])]
    make = RowSample(layout_of(*rows))
    groups = [make(row).group_id for row in rows]
    assert groups[0] == groups[2] != groups[1]
    assert groups[3] == groups[4] not in groups[:3]
    assert layout_of(rows[0], mapping=["group_id="]).group_by_prompt is False


def test_a_column_id_is_the_sample_only_where_it_names_rows():
    by_row = layout_of(*({"id": n, "response": "x"} for n in range(3)))
    by_prompt = layout_of(*({"id": n // 2, "response": "x"} for n in range(4)))
    assert by_row.columns["sample_id"] == "id"
    assert "sample_id" not in by_prompt.columns


MAPPED = {
    "a column": (["response=text"], {"text": "4"}, "response_text", "4"),
    "over a usual name": (["response=b"], {"response": "a", "b": "4"}, "response_text", "4"),
    "a path": (
        ["response=choices.0.message.content"],
        {"choices": [{"message": {"content": "4"}}]},
        "response_text",
        "4",
    ),
    "from the end": (["response=turns.-1"], {"turns": ["a", "4"]}, "response_text", "4"),
    "a name with dots": (["response=a.b"], {"a.b": "4", "a": {"b": "no"}}, "response_text", "4"),
    "a synonym": (["completion=text"], {"text": "4"}, "response_text", "4"),
    "metadata": (["response=t", "metadata.n=m.k"], {"t": "x", "m": {"k": 4}}, "metadata", 4),
    "a number as an id": (["sample_id=n"], {"n": 4, "response": "x"}, "sample_id", "4"),
    "a whole float as an id": (["group_id=n"], {"n": 4.0, "response": "x"}, "group_id", "4"),
    "bytes": (["response=raw"], {"raw": b"4"}, "response_text", "4"),
}


@pytest.mark.parametrize("name", MAPPED)
def test_columns_can_be_mapped(name):
    mapping, row, field, expected = MAPPED[name]
    value = getattr(sample_of(row, mapping), field)
    assert (value["n"] if field == "metadata" else value) == expected


MISUSED = {
    "no equals sign": (["response"], "FIELD=COLUMN"),
    "no field": (["=x"], "FIELD=COLUMN"),
    "a wrong field": (["respones=x"], "did you mean 'response'"),
    "twice": (["response=x", "completion=y"], "mapped to 'x' already"),
    "no name of metadata": (["metadata.=x"], "no field"),
    "a missing column": (["response=nope"], "no row has the column 'nope'"),
}


@pytest.mark.parametrize("name", MISUSED)
def test_wrong_mappings_are_refused(name):
    mapping, message = MISUSED[name]
    with pytest.raises(Misuse, match=message):
        layout_of({"text": "4"}, mapping=mapping)


def test_without_a_response_the_columns_and_an_example_are_listed():
    with pytest.raises(Misuse) as refused:
        layout_of({"q": "2 + 2?", "text": "a much longer text", "meta": {"lang": "en", "n": 1}})
    message = str(refused.value)
    assert "columns: q, text, meta.lang, meta.n" in message
    assert "--map response=text" in message


def test_a_list_of_texts_per_row_is_refused():
    with pytest.raises(Misuse, match=r"--map response=responses\.0"):
        layout_of({"prompt": [USER], "responses": ["3", "4"]})
    assert sample_of({"responses": ["3", "4"]}, ["response=responses.1"]).response == "4"


def test_nothing_readable_quotes_the_first_row():
    with pytest.raises(Misuse, match="line 1: not JSON"):
        recognise("data.jsonl", [Record(0, "line 1", b"", None, "not JSON: oops")], {})
    with pytest.raises(Misuse, match="holds no rows"):
        recognise("data.json", [], {})


BAD_ROWS = {
    "no column": ({"x": 1}, [], r"no column 'response' \(columns: x\)"),
    "null": ({"response": None}, [], "'response' is null"),
    "a number": ({"response": 4}, [], "must be text or a list of messages"),
    "messages without roles": ({"response": [{"content": "4"}]}, [], "needs a dict with 'role'"),
    "NaN truth": ({"response": "4", "ground_truth": math.nan}, [], "'ground_truth' is nan"),
    "a nameless id": ({"response": "4", "sample_id": 1.5}, [], "names nothing"),
    "a nameless group": ({"response": "4", "group_id": True}, [], "names nothing"),
    "a data source that is no text": ({"response": "4", "data_source": 3}, [], "must be text"),
    "bytes that are no text": ({"response": b"\xff"}, [], "no UTF-8"),
    "no mapped column": ({"response": "4"}, ["ground_truth=gt"], "no column 'gt'"),
    "no mapped metadata": ({"response": "4"}, ["metadata.n=gt"], "no column 'gt'"),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_a_bad_row_says_what_is_wrong(name):
    row, mapping, message = BAD_ROWS[name]
    good = {
        "response": "4",
        "ground_truth": "4",
        "gt": "4",
        "sample_id": "s",
        "group_id": "g",
        "data_source": "d",
    }
    make = RowSample(layout_of(good, mapping=mapping))
    with pytest.raises(BadRow, match=message):
        make(row)


def test_a_bad_row_keeps_the_ids_it_has():
    make = RowSample(layout_of({"response": "4", "sample_id": "s", "group_id": 1}))
    assert make.ids({"sample_id": "t", "group_id": 1.5}) == ("t", None)


def test_a_conversation_without_an_assistant_is_bad():
    make = RowSample(layout_of({"messages": [USER, FOUR]}))
    with pytest.raises(BadRow, match="no message of an assistant"):
        make({"messages": [USER]})
    with pytest.raises(BadRow, match="no list of messages"):
        make({"messages": "x"})


@pytest.mark.parametrize(
    "path", ["a.b.c", "l.5", "l.-9", "l.x", "l." + "9" * 5000, "t.0", "a.", ".", ""]
)
def test_paths_that_lead_nowhere(path):
    assert getter(path)({"a": {"b": 1}, "l": [1], "t": "text"}) is ABSENT
