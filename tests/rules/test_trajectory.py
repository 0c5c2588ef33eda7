"""Rewards over turns and steps: aggregation, discount, spans, and what the tool said kept out."""

import math
from typing import Any

import pytest

from guerdon.errors import BadInput, InvalidReward
from guerdon.outcome import Score, Span
from guerdon.reward import BaseReward, reward
from guerdon.rules.trajectory import MAX_STEPS, Trajectory, masked_turns, returns, steps_of


@reward(auto_register=False, value_range=(-1.0, 2.0))
def worth(response: str) -> float | None:
    """The number in the text; None for a text of blanks."""
    return float(response) if response.strip() else None


def said(*texts: str) -> list[dict[str, Any]]:
    """Assistant turns with a tool's answer after each."""
    turns: list[dict[str, Any]] = []
    for text in texts:
        turns += [{"role": "assistant", "content": text}, {"role": "tool", "content": "99"}]
    return turns


def score(reward: BaseReward, **sample: Any) -> Score:
    found = reward.call_sync(**sample)
    assert isinstance(found, Score)
    return found


@pytest.mark.parametrize(
    ("aggregate", "discount", "value"),
    [
        ("last", 1.0, 2.0),
        ("last", 0.5, 0.5),
        ("first", 0.5, 1.0),
        ("sum", 1.0, 2.0),
        ("sum", 0.5, 1.0 - 0.5 + 0.5),
        ("mean", 1.0, 2.0 / 3),
        ("mean", 0.5, 1.0 / 1.75),
        ("max", 0.5, 2.0),
    ],
)
def test_aggregation_with_discount(aggregate: Any, discount: float, value: float) -> None:
    rule = Trajectory(worth, aggregate=aggregate, discount=discount)
    assert score(rule, response=said("1", "-1", "2")).value == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize(
    ("aggregate", "discount", "spans", "values"),
    [
        ("sum", 0.5, "value", [1.0, -1.0, 2.0]),
        ("sum", 0.5, "return", [1.0, 0.0, 2.0]),
        ("last", 0.5, "return", [0.5, 1.0, 2.0]),
        ("last", 0.5, "value", [0.0, 0.0, 2.0]),
        ("mean", 1.0, "none", []),
    ],
)
def test_each_turn_has_a_span(
    aggregate: Any, discount: float, spans: Any, values: list[float]
) -> None:
    rule = Trajectory(worth, aggregate=aggregate, discount=discount, spans=spans)
    found = score(rule, response=said("1", "-1", "2"))
    assert found.spans == tuple(Span("turn", i, i + 1, v) for i, v in enumerate(values))
    assert found.metrics["turns"] == 3.0


def test_only_the_last_turn_is_scored_where_only_it_counts() -> None:
    found = score(Trajectory(worth), response=said("not a number", "2"))
    assert (found.value, found.spans) == (2.0, (Span("turn", 1, 2, 2.0),))


def test_a_turn_without_value_has_no_part_in_the_mean() -> None:
    found = score(Trajectory(worth, aggregate="mean"), response=said("1", " ", "2"))
    assert found.value == 1.5
    assert [span.start for span in found.spans] == [0, 2]


def test_an_abstaining_last_turn_makes_an_abstention() -> None:
    for options in ({}, {"discount": 0.5}):
        assert Trajectory(worth, **options).call_sync(response=said("1", " ")) is None


def test_a_failing_turn_fails_the_trajectory() -> None:
    with pytest.raises(ValueError, match="could not convert"):
        Trajectory(worth, aggregate="sum").call_sync(response=said("1", "x"))
    with pytest.raises(BadInput, match="not one number"):
        Trajectory("gsm8k").call_sync(response=said("A: 1"), ground_truth="x")


def test_every_turn_can_have_its_own_truth() -> None:
    rule = Trajectory("exact_match", aggregate="mean")
    answers = {"response": said("a", "b"), "ground_truth": "a"}
    assert score(rule, **answers).value == 0.5
    assert score(rule, **answers, turn_truths=["a", "b"]).value == 1.0
    with pytest.raises(BadInput, match="1 turn_truths for 2"):
        rule.call_sync(**answers, turn_truths=["a"])


def test_masked_tokens_are_kept_out_and_spans_count_tokens() -> None:
    text, offsets = "1<t>99</t>2", [(0, 1), (1, 4), (4, 6), (6, 10), (10, 11)]
    sample = {
        "response": text,
        "response_mask": [1, 0, 0, 0, 1],
        "response_token_ids": [7, 8, 9, 8, 6],
        "response_offsets": offsets,
    }
    found = score(Trajectory(worth, aggregate="sum"), **sample)
    assert found.value == 3.0
    assert found.spans == (Span("token", 0, 1, 1.0), Span("token", 4, 5, 2.0))
    joined = score(Trajectory("exact_match", aggregate="joined"), **sample, ground_truth="1\n2")
    assert joined.value == 1.0


def test_turn_tokens_reach_the_rule() -> None:
    rule = Trajectory("overlong", {"maximum": 4, "buffer": 2}, aggregate="sum")
    found = score(
        rule,
        response="abcdefg",
        response_mask=[1, 1, 1, 0, 1],
        response_token_ids=[1, 2, 3, 4, 5],
        response_offsets=[(0, 1), (1, 2), (2, 3), (3, 5), (5, 7)],
    )
    assert found.value == -0.5


@pytest.mark.parametrize(
    "offsets", [[(0, 1)], [(0, 1), (1, 99)], [(0, 1), (-1, 1)], [(0, 1), (1,)]]
)
def test_offsets_that_do_not_fit_are_the_datas_fault(offsets: Any) -> None:
    with pytest.raises(BadInput):
        masked_turns("ab", [1, 0], offsets)


def test_an_empty_mask_leaves_an_empty_turn() -> None:
    found = score(
        Trajectory("gsm8k"),
        response="A: 18",
        response_mask=[0],
        response_offsets=[(0, 5)],
        ground_truth="18",
    )
    assert found.value == 0.0


def test_steps_have_character_spans() -> None:
    text = "1\n\n2\n \n\n-1\n"
    found = score(Trajectory(worth, aggregate="sum", split="paragraph"), response=text)
    assert found.value == 2.0
    assert [text[span.start : span.end].strip() for span in found.spans] == ["1", "2", "-1"]
    assert {span.unit for span in found.spans} == {"char"}
    with pytest.raises(BadInput, match="one text"):
        Trajectory(worth, split="line").call_sync(response=said("1"))


def test_steps_are_bounded_and_lose_no_text() -> None:
    steps = steps_of("a\n" * 10_000, "line")
    assert len(steps) == MAX_STEPS
    assert steps[-1].end == 20_000


def test_ranges() -> None:
    assert Trajectory(worth).value_range == (-1.0, 2.0)
    assert Trajectory(worth, aggregate="sum").value_range == (-math.inf, math.inf)
    assert Trajectory("gsm8k", aggregate="sum").value_range == (0.0, math.inf)
    assert Trajectory("math_verify").deadline == 5.0


@pytest.mark.parametrize(
    "options",
    [{"aggregate": "median"}, {"discount": 1.5}, {"split": "word"}, {"spans": "all"}],
    ids=str,
)
def test_impossible_options(options: Any) -> None:
    with pytest.raises(InvalidReward):
        Trajectory("gsm8k", **options)


def test_returns_are_areals_discounted_rewards() -> None:
    assert returns([1.0, 2.0, 3.0], 0.9) == pytest.approx([1 + 0.9 * (2 + 2.7), 2 + 2.7, 3.0])
    assert returns([], 0.9) == []
