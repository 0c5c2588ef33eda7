"""What children said, under names that cannot collide."""

from typing import Any

import msgspec
import pytest

from guerdon.compose import Cascade, Child, Clip, Product, Value, WeightedSum
from guerdon.errors import InvalidReward
from guerdon.outcome import Abstention, Outcome, Score, Span

SPANS = (Span("turn", 0, 1, 0.5),)


def rich(**changes: Any) -> Score:
    fields: dict[str, Any] = {
        "value": 0.5,
        "metrics": {"length": 3.0},
        "info": {"answer": "4"},
        "spans": SPANS,
        "elapsed": 0.25,
        **changes,
    }
    return Score(**fields)


def test_children_speak_under_their_names(stage: Any) -> None:
    score = stage.one(Product({"a": stage.reward("x", rich()), "b": stage.reward("y", 2.0)}))
    assert score.value == 1.0
    assert score.components == {"a": 0.5, "b": 2.0}
    assert score.metrics == {"a/length": 3.0}
    assert score.info == {"a/answer": "4", "a:spans": SPANS}
    assert score.spans == ()
    assert score.elapsed == 0.25


def test_nested_names_are_paths(stage: Any) -> None:
    leaf = stage.reward("leaf", rich(components={"k": 1.0}))
    inner = WeightedSum({"x": leaf, "y": Child(stage.reward("none", None), missing=Value(0.0))})
    outer = Clip(Child(inner, name="in"), low=0.0)
    score = stage.one(outer)
    assert score.components == {"in": 0.5, "in/x": 0.5, "in/x/k": 1.0, "in/y": None}
    assert score.absent == {"in/y": stage.outcome(None)}
    assert score.metrics == {"in/x/length": 3.0}
    assert score.info == {"in/x/answer": "4", "in/x:spans": SPANS}


def test_hostile_names_of_leaves_do_not_collide(stage: Any) -> None:
    inner = WeightedSum({"b": stage.reward("b", 1.0)})
    first = stage.reward(
        "first", rich(components={"b": 7.0, "/b": 8.0, "": 9.0}, info={":spans": 1})
    )
    score = stage.one(Product({"a": first, "a:b": inner}))
    assert score.components == {
        "a": 0.5,
        "a/b": 7.0,
        "a//b": 8.0,
        "a/": 9.0,
        "a:b": 1.0,
        "a:b/b": 1.0,
    }
    assert score.info == {"a/:spans": 1, "a:spans": SPANS}


def test_a_value_that_is_handed_on_keeps_its_spans(stage: Any) -> None:
    judge = stage.reward("judge", rich())
    score = stage.one(Cascade([stage.reward("rule", None), judge]))
    assert score.spans == SPANS
    assert score.info == {"judge/answer": "4"}
    assert score.metrics == {"stage": 1.0, "judge/length": 3.0}


@pytest.mark.parametrize("name", ["", "a/b", "/"])
def test_unusable_names(stage: Any, name: str) -> None:
    with pytest.raises(InvalidReward, match="cannot be called"):
        Product({name: stage.reward("a")})
    with pytest.raises(InvalidReward, match="cannot be called"):
        Product([stage.reward(name)])


def test_duplicate_names(stage: Any) -> None:
    with pytest.raises(InvalidReward, match="two children are called 'a'"):
        Product([stage.reward("a"), stage.reward("a")])


def test_a_key_and_a_name_that_differ(stage: Any) -> None:
    with pytest.raises(InvalidReward, match="under 'key' calls itself 'other'"):
        Product({"key": Child(stage.reward("a"), name="other")})


def test_one_reward_under_two_names_runs_once(stage: Any) -> None:
    reward = stage.reward("same", 0.5, 2.0)
    result = stage.run(WeightedSum({"plus": Child(reward, 2.0), "minus": Child(reward, -1.0)}), 2)
    assert [o.value for o in result.outcomes] == [0.5, 2.0]
    assert result.outcomes[1].components == {"plus": 2.0, "minus": 2.0}
    assert result.asked == {"same": ["0", "1"]}


def test_outcomes_travel(stage: Any) -> None:
    inner = WeightedSum([stage.reward("a", rich()), stage.reward("b", "raised/scorer")])
    tolerant = WeightedSum(
        [Child(inner, missing=Value(0.25)), stage.reward("c", None, value_range=(0, 1))]
    )
    for reward in (inner, tolerant, Product([stage.reward("a", 1.0)])):
        outcome = stage.one(reward)
        for codec in (msgspec.json, msgspec.msgpack):
            assert codec.decode(codec.encode(outcome), type=Outcome) == outcome


def test_the_order_of_children_changes_no_sum(stage: Any) -> None:
    values = {"a": 0.1, "b": 1e16, "c": -1e16, "d": 0.7}
    children = {name: stage.reward(name, value) for name, value in values.items()}
    flipped = dict(reversed(children.items()))
    assert stage.one(WeightedSum(children)).value == stage.one(WeightedSum(flipped)).value
    assert stage.one(WeightedSum(children)).value == pytest.approx(0.8, rel=1e-15)


def test_nested_sums_are_sums(stage: Any) -> None:
    a, b, c = (
        stage.reward(name, value) for name, value in zip("abc", (0.1, 0.2, 0.4), strict=True)
    )
    flat = WeightedSum([a, Child(b, 2.0), Child(c, -3.0)])
    nested = WeightedSum([a, WeightedSum([Child(b, 2.0), Child(c, -3.0)])])
    assert stage.one(nested).value == pytest.approx(stage.one(flat).value)


def test_abstentions_keep_their_reason(stage: Any) -> None:
    lost = Abstention(reason="no number in the prompt")
    result = stage.one(Product({"units": stage.reward("u", lost), "b": stage.reward("b", 1.0)}))
    assert result.reason == "units: no number in the prompt"
