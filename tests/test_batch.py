"""Columns of a trainer become samples, row by row, and get their rewards beside them."""

import math
from collections import UserDict
from typing import Any

import numpy as np
import pytest

from guerdon.batch import ATTACHED, Batch, attach, samples_of
from guerdon.errors import InvalidSample
from guerdon.outcome import EMPTY, Failure, Score
from guerdon.outcomes import Outcomes
from guerdon.sample import Message, Sample

LOST = Failure(kind="raised", message="m", blame="scorer")  # type: ignore[arg-type]


def test_fields_are_recognised_by_name_and_the_rest_is_metadata() -> None:
    samples = samples_of(
        {
            "prompt": ["p1", "p2"],
            "response": ["r1", "r2"],
            "ground_truth": [["a"], None],
            "sample_id": [1, 2],
            "group_id": np.array([7, 7]),
            "data_source": ["d", "d"],
            "response_token_ids": [[1, 2], [3]],
            "level": [3, None],
        }
    )
    assert samples == [
        Sample(
            prompt="p1",
            response="r1",
            ground_truth=["a"],
            sample_id="1",
            group_id="7",
            data_source="d",
            response_token_ids=[1, 2],
            metadata={"level": 3},
        ),
        Sample(
            prompt="p2",
            response="r2",
            sample_id="2",
            group_id="7",
            data_source="d",
            response_token_ids=[3],
            metadata={"level": None},
        ),
    ]


@pytest.mark.parametrize(
    ("column", "field"),
    [
        ("completion", "response"),
        ("solution_str", "response"),
        ("response_text", "response"),
        ("response_messages", "response"),
        ("trajectory", "response"),
        ("answer", "ground_truth"),
        ("label", "ground_truth"),
        ("question", "prompt"),
        ("prompt_messages", "prompt"),
    ],
)
def test_synonyms_are_recognised(column: str, field: str) -> None:
    (sample,) = samples_of({column: ["text"]})
    assert sample == Sample(**{field: "text"})
    assert sample.metadata == {}


def test_conversations_are_recognised() -> None:
    (sample,) = samples_of({"completion": [[{"role": "assistant", "content": "4"}]]})
    assert sample.response == (Message("assistant", "4"),)


def test_an_exact_name_wins_and_its_synonyms_are_metadata() -> None:
    (sample,) = samples_of({"answer": ["full text"], "ground_truth": ["4"], "label": [1]})
    assert sample.ground_truth == "4"
    assert sample.metadata == {"answer": "full text", "label": 1}


@pytest.mark.parametrize(
    "columns",
    [
        {"answer": ["1"], "solution": ["2"]},
        {"completion": ["a"], "prediction": ["b"]},
        {"prompt": ["a"], "prompt_messages": ["b"]},
        {"response": ["a"], "response_messages": ["b"]},
    ],
)
def test_two_columns_for_one_field_are_refused_by_name(columns: dict[str, Any]) -> None:
    with pytest.raises(InvalidSample) as caught:
        samples_of(columns)
    for name in columns:
        assert repr(name) in str(caught.value)


def test_metadata_columns_and_a_metadata_column_are_joined() -> None:
    (first, second) = samples_of({"extra_info": [{"a": 1}, None], "b": [2, 3]})
    assert first.metadata == {"a": 1, "b": 2}
    assert second.metadata == {"b": 3}


def test_columns_that_are_none_are_absent() -> None:
    (sample,) = samples_of({"response": ["a"], "ground_truth": None, "rewards": None})
    assert sample == Sample(response="a")


@pytest.mark.parametrize("batch", [{}, {"response": []}, {"response": np.array([])}])
def test_no_rows_are_no_samples(batch: dict[str, Any]) -> None:
    assert samples_of(batch) == []


class Series:
    """A column that is indexed by labels, as pandas' are, and iterates by position."""

    def __init__(self, items: list[Any], labels: list[int]) -> None:
        self._items = dict(zip(labels, items, strict=True))

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, label: int) -> Any:
        return self._items[label]

    def __iter__(self) -> Any:
        return iter(self._items.values())


def test_rows_are_taken_by_position() -> None:
    batch = {
        "response": Series(["a", "b", "c"], [2, 0, 1]),
        "answer": np.array(["1", "2", "3"]),
        "level": (x for x in (7, 8, 9)),
    }
    samples = samples_of(batch)
    assert [(s.response, s.ground_truth, s.metadata["level"]) for s in samples] == [
        ("a", "1", 7),
        ("b", "2", 8),
        ("c", "3", 9),
    ]


def test_numpy_scalars_of_fields_become_plain() -> None:
    (sample,) = samples_of(
        {"response": np.array(["a"]), "ground_truth": np.array([42]), "sample_id": np.array([1])}
    )
    assert type(sample.response) is str
    assert type(sample.ground_truth) is int
    assert sample.sample_id == "1"


@pytest.mark.parametrize(
    ("batch", "says"),
    [
        ({"response": ["a", "b"], "answer": ["1"]}, "'response': 2"),
        ({"response": ["a"], "step": 3}, "'step' is a int"),
        ({"response": ["a"], "source": "x"}, "'source' is a str"),
        ({"response": ["a"], "meta_info": {"x": 1}}, "'meta_info' is a dict"),
        ({"response": b"a"}, "'response' is a bytes"),
        ({"response": [5]}, "response must be text"),
        ([("response", ["a"])], "a batch is a mapping"),
        (None, "a batch is a mapping"),
        ("text", "a batch is a mapping"),
    ],
)
def test_what_is_no_batch_is_refused_by_name(batch: Any, says: str) -> None:
    with pytest.raises(InvalidSample, match=says):
        samples_of(batch)


@pytest.mark.parametrize("column", ATTACHED)
def test_a_batch_is_scored_once_and_no_column_is_overwritten(column: str) -> None:
    with pytest.raises(InvalidSample, match=f"'{column}' already: score each batch once"):
        samples_of({"response": ["a"], column: [1.0]})


OUTCOMES = Outcomes([Score(value=0.5, components={"a": 1.0}), LOST, LOST], assigned={2: -1.0})


@pytest.mark.parametrize("kind", [dict, UserDict])
def test_attaching_copies(kind: Any) -> None:
    batch = kind({"response": ["a", "b", "c"]})
    scored = attach(batch, OUTCOMES)
    assert list(batch) == ["response"]
    assert set(scored) == {"response", *ATTACHED}
    assert scored["response"] is batch["response"]
    assert scored["rewards"].dtype == np.float64
    assert [None if math.isnan(x) else x for x in scored["rewards"]] == [0.5, None, -1.0]
    assert scored["reward_mask"].tolist() == [True, False, True]
    assert scored["component_rewards"]["a"][0] == 1.0
    assert np.isnan(scored["component_rewards"]["a"][1:]).all()
    assert scored["outcomes"] is OUTCOMES


def test_a_batch_of_samples() -> None:
    batch = Batch((Sample(response="a"), Sample(response="b"), Sample(response="c")))
    samples = samples_of(batch)
    samples.clear()
    assert len(batch.samples) == 3
    scored = attach(batch, OUTCOMES)
    assert batch.rewards is None
    assert scored.samples is batch.samples
    assert scored.rewards[0] == 0.5
    assert scored.component_rewards is not None
    assert scored.outcomes is OUTCOMES
    with pytest.raises(InvalidSample, match="score each batch once"):
        samples_of(scored)


def test_samples_without_metadata_columns_cost_none() -> None:
    (sample,) = samples_of({"response": ["a"]})
    assert sample.metadata == EMPTY
