"""What a child without a score does, for every operator, policy and kind of outcome."""

import itertools
from typing import Any

import pytest

from guerdon.compose import (
    Affine,
    Cascade,
    Child,
    Clip,
    Conditional,
    Gate,
    GroupNormalise,
    Maximum,
    Minimum,
    Product,
    Schedule,
    Value,
    WeightedSum,
)
from guerdon.errors import InvalidReward
from guerdon.outcome import Abstention, Failure, Score

STAND_IN = 0.25
SIBLING = 0.5
RANGE = (0.0, 1.0)

MISSED = [
    None,
    "timeout/candidate",
    "bad_input/data",
    "raised/scorer",
    "unavailable/infrastructure",
]

# Each operator with the child in question beside a sibling that scores 0.5, and the value that it
# gives for the child's number.
OPERATORS: dict[str, tuple[Any, Any]] = {
    "sum": (lambda c, s: WeightedSum([c, Child(s, 2.0)]), lambda x: x + 2 * SIBLING),
    "mean": (
        lambda c, s: WeightedSum([c, Child(s, 3.0)], normalise=True),
        lambda x: (x + 3 * SIBLING) / 4,
    ),
    "product": (lambda c, s: Product([c, s]), lambda x: x * SIBLING),
    "minimum": (lambda c, s: Minimum([c, s]), lambda x: min(x, SIBLING)),
    "maximum": (lambda c, s: Maximum([c, s]), lambda x: max(x, SIBLING)),
    "clip": (lambda c, s: Clip(c, low=0.3), lambda x: max(x, 0.3)),
    "affine": (lambda c, s: Affine(c, scale=-2.0, offset=1.0), lambda x: 1 - 2 * x),
    "gate": (lambda c, s: Gate([c], s, threshold=0.2), lambda x: SIBLING if x >= 0.2 else 0.0),
    "gated": (lambda c, s: Gate([s], c, threshold=0.2), lambda x: x),
    "sequential gate": (
        lambda c, s: Gate([c], s, threshold=0.2, sequential=True),
        lambda x: SIBLING if x >= 0.2 else 0.0,
    ),
    "sequentially gated": (lambda c, s: Gate([s], c, threshold=0.2, sequential=True), lambda x: x),
    "last stage": (lambda c, s: Cascade([s, c], undecided=(0.5, 0.5)), lambda x: x),
    "case": (
        lambda c, s: Conditional([c, s], when={"child": "here", "sibling": "elsewhere"}),
        lambda x: x,
    ),
    "phase": (lambda c, s: Schedule([c, s], phases={0: "child", 100: "sibling"}), lambda x: x),
}


def made(stage: Any, operator: str, raw: Any, missing: Any) -> Any:
    child = stage.reward("child", raw, value_range=RANGE)
    sibling = stage.reward("sibling", SIBLING, value_range=RANGE)
    return OPERATORS[operator][0](Child(child, missing=missing), sibling)


def scored(stage: Any, operator: str, raw: Any, missing: Any) -> Any:
    return stage.one(made(stage, operator, raw, missing), step=0, data_source="here")


@pytest.mark.parametrize("missing", ["fail", "abstain", Value(STAND_IN)])
@pytest.mark.parametrize("operator", OPERATORS)
def test_a_score_is_calculated_with(stage: Any, operator: str, missing: Any) -> None:
    score = scored(stage, operator, 0.75, missing)
    assert isinstance(score, Score)
    assert score.value == pytest.approx(OPERATORS[operator][1](0.75))
    assert score.components["child"] == 0.75
    assert "child" not in score.absent
    assert not score.renormalised


@pytest.mark.parametrize("raw", MISSED)
@pytest.mark.parametrize("operator", OPERATORS)
def test_fail_keeps_what_it_was(stage: Any, operator: str, raw: Any) -> None:
    result = scored(stage, operator, raw, "fail")
    assert not isinstance(result, Score)
    assert_blocked(stage, result, raw)


@pytest.mark.parametrize("raw", MISSED)
@pytest.mark.parametrize("operator", OPERATORS)
def test_abstain_covers_all_but_the_candidates_fault(stage: Any, operator: str, raw: Any) -> None:
    result = scored(stage, operator, raw, "abstain")
    if raw == "timeout/candidate":
        assert_blocked(stage, result, raw)
    else:
        assert isinstance(result, Abstention)
        assert result.absent["child"] == stage.outcome(raw)


@pytest.mark.parametrize("raw", MISSED)
@pytest.mark.parametrize("operator", OPERATORS)
def test_a_stand_in_is_used_and_never_hidden(stage: Any, operator: str, raw: Any) -> None:
    score = scored(stage, operator, raw, Value(STAND_IN))
    assert isinstance(score, Score)
    assert score.value == pytest.approx(OPERATORS[operator][1](STAND_IN))
    assert score.components["child"] is None
    assert score.absent["child"] == stage.outcome(raw)
    assert not score.renormalised


@pytest.mark.parametrize("operator", [name for name in OPERATORS if name not in ("sum", "mean")])
def test_only_sums_renormalise(stage: Any, operator: str) -> None:
    with pytest.raises(InvalidReward, match="only WeightedSum can renormalise"):
        made(stage, operator, 1.0, "renormalise")


@pytest.mark.parametrize("raw", MISSED)
@pytest.mark.parametrize(("operator", "expected"), [("sum", 3 * SIBLING), ("mean", SIBLING)])
def test_renormalised_scores_are_flagged(
    stage: Any, operator: str, expected: float, raw: Any
) -> None:
    result = scored(stage, operator, raw, "renormalise")
    if raw == "timeout/candidate":
        assert_blocked(stage, result, raw)
        return
    assert isinstance(result, Score)
    assert result.value == pytest.approx(expected)
    assert result.renormalised
    assert result.components["child"] is None
    assert result.absent["child"] == stage.outcome(raw)


def assert_blocked(stage: Any, result: Any, raw: Any) -> None:
    expected = stage.outcome(raw)
    assert type(result) is type(expected)
    assert result.absent["child"] == expected
    if isinstance(expected, Failure):
        assert isinstance(result, Failure)
        assert (result.kind, result.blame) == (expected.kind, expected.blame)
        assert (result.retryable, result.evidence) == (expected.retryable, expected.evidence)
        assert result.message == f"child: {expected.message}"
    else:
        assert result.reason == "child: does not apply"


def test_renormalised_with_negative_weights(stage: Any) -> None:
    children = [
        Child(stage.reward("a", 1.0), 3.0),
        Child(stage.reward("b", 0.5), -1.0),
        Child(stage.reward("c", None), 4.0, "renormalise"),
    ]
    # The weights that are there sum to 4 of 8 in absolute value.
    assert stage.one(WeightedSum(children)).value == pytest.approx((3.0 - 0.5) * 2)
    assert stage.one(WeightedSum(children, normalise=True)).value == pytest.approx(2.5 / 4)


@pytest.mark.parametrize("raw", MISSED)
def test_no_rest_to_renormalise_is_no_score(stage: Any, raw: Any) -> None:
    children = [
        Child(stage.reward("child", raw), 1.0, "renormalise"),
        Child(stage.reward("b", 1.0), 0.0),
    ]
    for normalise in (False, True):
        result = stage.one(WeightedSum(children, normalise=normalise))
        assert_blocked(stage, result, raw)


def test_a_missing_weight_of_zero_changes_nothing(stage: Any) -> None:
    children = [
        Child(stage.reward("a", 0.5), 2.0),
        Child(stage.reward("b", None), 0.0, "renormalise"),
    ]
    score = stage.one(WeightedSum(children))
    assert (score.value, score.renormalised, score.components["b"]) == (1.0, False, None)


@pytest.mark.parametrize("policy", ["fail", "abstain", "renormalise"])
def test_every_child_missing(stage: Any, policy: Any) -> None:
    children = [Child(stage.reward(name, None), missing=policy) for name in "ab"]
    result = stage.one(WeightedSum(children))
    assert isinstance(result, Abstention)
    assert list(result.absent) == ["a", "b"]


# In falling order of precedence.
PRECEDENCE = [
    "timeout/candidate",
    "bad_input/data",
    "raised/scorer",
    "unavailable/infrastructure",
    None,
]


@pytest.mark.parametrize("order", list(itertools.permutations(range(5), 3)))
def test_which_outcome_wins_does_not_depend_on_the_order_of_children(
    stage: Any, order: tuple[int, ...]
) -> None:
    raws = [PRECEDENCE[i] for i in order]
    children = {f"c{i}": stage.reward(f"r{i}", raw) for i, raw in enumerate(raws)}
    children["scored"] = stage.reward("scored", 1.0)
    result = stage.one(Minimum(children))
    winner = PRECEDENCE[min(order)]
    expected = stage.outcome(winner)
    assert type(result) is type(expected)
    assert len(result.absent) == 3
    if isinstance(expected, Failure):
        assert (result.kind, result.blame) == (expected.kind, expected.blame)
        assert result.message.startswith(f"c{raws.index(winner)}: ")


def test_the_first_of_equal_failures_wins(stage: Any) -> None:
    first, second = stage.reward("a", "raised/scorer"), stage.reward("b", "non_finite/scorer")
    for children in ([first, second], [second, first]):
        result = stage.one(Product(children))
        assert str(result.kind) == str(children[0].script[0].kind)
        assert f"also failed: {children[1].name}" in result.message


@pytest.mark.parametrize(
    ("raws", "retryable"),
    [
        (["unavailable/infrastructure", "overloaded/infrastructure"], True),
        (["unavailable/infrastructure", "crashed/infrastructure"], False),
        (["unavailable/infrastructure", "raised/scorer"], False),
        (["unavailable/infrastructure", None], True),
    ],
)
def test_retryable_only_if_all_failures_are(stage: Any, raws: list[Any], retryable: bool) -> None:
    children = [stage.reward(f"r{i}", raw) for i, raw in enumerate(raws)]
    assert stage.one(Minimum(children)).retryable is retryable


def test_a_failure_that_abstains_does_not_hide_one_that_fails(stage: Any) -> None:
    result = stage.one(
        Minimum(
            [
                Child(stage.reward("optional", "raised/scorer"), missing="abstain"),
                stage.reward("needed", "unavailable/infrastructure"),
            ]
        )
    )
    assert isinstance(result, Failure)
    assert str(result.blame) == "infrastructure"
    assert list(result.absent) == ["optional", "needed"]


def test_a_failure_passes_through_nested_compositions(stage: Any) -> None:
    inner = Product({"judge": stage.reward("judge", "unavailable/infrastructure")})
    outer = WeightedSum({"quality": inner, "other": stage.reward("other", 1.0)})
    result = stage.one(outer)
    assert isinstance(result, Failure)
    assert (str(result.kind), str(result.blame), result.retryable) == (
        "unavailable",
        "infrastructure",
        True,
    )
    assert result.message == "quality: judge: it was unavailable"
    assert result.absent["quality"].absent["judge"].message == "it was unavailable"


def test_renormalised_is_inherited(stage: Any) -> None:
    inner = WeightedSum(
        [stage.reward("a", 1.0), Child(stage.reward("b", None), missing="renormalise")],
        name="inner",
    )
    for outer in (Clip(inner, high=5.0), Minimum([inner])):
        score = stage.one(outer)
        assert score.renormalised
        assert score.absent["inner/b"] == stage.outcome(None)


class TestCascadeStages:
    """A cheap stage that gives nothing."""

    @pytest.mark.parametrize("missing", ["fail", "abstain"])
    def test_abstention_asks_the_next(self, stage: Any, missing: Any) -> None:
        cascade = Cascade(
            [Child(stage.reward("rule", None), missing=missing), stage.reward("judge", 0.7)]
        )
        score = stage.one(cascade)
        assert score.value == 0.7
        assert score.components == {"rule": None, "judge": 0.7}
        assert score.absent == {"rule": stage.outcome(None)}

    @pytest.mark.parametrize("raw", MISSED[1:])
    def test_failure_fails(self, stage: Any, raw: str) -> None:
        result = stage.run(Cascade([stage.reward("child", raw), stage.reward("judge", 0.7)]))
        assert_blocked(stage, result.outcomes[0], raw)
        assert "judge" not in result.asked

    @pytest.mark.parametrize("raw", MISSED[1:])
    def test_failure_that_abstains_asks_the_next(self, stage: Any, raw: str) -> None:
        cheap = Child(stage.reward("child", raw), missing="abstain")
        result = stage.one(Cascade([cheap, stage.reward("judge", 0.7)]))
        if raw == "timeout/candidate":
            assert_blocked(stage, result, raw)
        else:
            assert (result.value, result.absent["child"]) == (0.7, stage.outcome(raw))

    @pytest.mark.parametrize(("stand_in", "value"), [(0.0, 0.7), (0.9, 0.9)])
    def test_a_stand_in_decides_or_not(self, stage: Any, stand_in: float, value: float) -> None:
        cheap = Child(stage.reward("rule", None), missing=Value(stand_in))
        score = stage.one(Cascade([cheap, stage.reward("judge", 0.7)], undecided=(0.0, 0.5)))
        assert score.value == value
        assert score.components["rule"] is None

    def test_nobody_decides(self, stage: Any) -> None:
        result = stage.one(Cascade([stage.reward("rule", None), stage.reward("judge", None)]))
        assert isinstance(result, Abstention)
        assert list(result.absent) == ["rule", "judge"]


class TestGroup:
    """Members of a group without a score."""

    def test_value_is_refused(self, stage: Any) -> None:
        with pytest.raises(InvalidReward, match="no place among measured ones"):
            GroupNormalise(Child(stage.reward("a"), missing=Value(0.0)))

    @pytest.mark.parametrize("raw", MISSED)
    @pytest.mark.parametrize("missing", ["fail", "abstain"])
    def test_policies(self, stage: Any, raw: Any, missing: Any) -> None:
        group = GroupNormalise(
            Child(stage.reward("child", 1.0, raw, 3.0), missing=missing), std=None
        )
        batch = stage.samples(3, group_id=["g"] * 3)
        first, second, third = stage.run(group, batch).outcomes
        assert (first.value, third.value) == (-1.0, 1.0)
        if missing == "fail" or raw in (None, "timeout/candidate"):
            assert_blocked(stage, second, raw)
        else:
            assert isinstance(second, Abstention)
