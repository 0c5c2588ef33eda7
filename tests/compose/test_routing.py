"""Conditions, and compositions that choose one child."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guerdon.compose import Child, Condition, Conditional, Schedule, WeightedSum, linear, piecewise
from guerdon.compose.condition import as_condition
from guerdon.compose.curve import as_weight
from guerdon.errors import ConfigError, InvalidReward
from guerdon.outcome import Abstention, Failure
from guerdon.sample import Sample


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ("math/aime", True),
        ("math*", True),
        ("math", False),
        (["code*", "*aime"], True),
        ("mat[gh]/????", True),
        ({"data_source": "MATH*"}, False),
        ({"metadata": {"level": 5}}, True),
        ({"metadata": {"level": "5"}}, False),
        ({"metadata": {"level": [4, 5]}}, True),
        ({"metadata": {"level": {"in": [1, 2]}}}, False),
        ({"metadata": {"level": {"not_in": [1, 2]}}}, True),
        ({"metadata": {"level": {"min": 5, "max": 5}}}, True),
        ({"metadata": {"level": {"above": 5}}}, False),
        ({"metadata": {"level": {"below": 5.5, "not": 4}}}, True),
        ({"metadata": {"language": {"like": "py*"}}}, True),
        ({"metadata": {"language": {"like": ["c*", "rust"]}}}, False),
        ({"metadata": {"level": {"like": "5"}}}, False),
        ({"metadata": {"tags": {"contains": "algebra"}}}, True),
        ({"metadata": {"tags": {"equals": ["algebra", "easy"]}}}, True),
        ({"metadata": {"user.country": "de"}}, True),
        ({"metadata": {"user.city": "Bonn"}}, False),
        ({"metadata": {"user.country.code": 1}}, False),
        ({"metadata": {"dotted.key": 1}}, True),
        ({"metadata": {"level": {"present": True}}}, True),
        ({"metadata": {"level": {"present": False}}}, False),
        ({"metadata": {"lost": {"present": False}}}, True),
        ({"metadata": {"lost": {"present": True}}}, False),
        ({"metadata": {"lost": {"not": 3}}}, False),
        ({"metadata": {"lost": None}}, False),
        ({"metadata": {"nothing": None}}, True),
        ({"data_source": "math*", "metadata": {"level": 5, "language": "python"}}, True),
        ({"data_source": "code*", "metadata": {"level": 5}}, False),
        (Condition("math*"), True),
    ],
)
def test_conditions(condition: Any, holds: bool) -> None:
    sample = Sample(
        data_source="math/aime",
        metadata={
            "level": 5,
            "language": "python",
            "tags": ["algebra", "easy"],
            "user": {"country": "de"},
            "dotted.key": 1,
            "nothing": None,
        },
    )
    assert as_condition(condition).holds(sample) is holds  # type: ignore[union-attr]


def test_no_data_source_matches_no_pattern() -> None:
    assert not Condition("*").holds(Sample())


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({}, "needs a data_source or metadata"),
        ([], "needs a data_source or metadata"),
        ({"data_sources": "a"}, "did you mean 'data_source'"),
        ({"metadata": {"level": {"mim": 3}}}, "no test is called 'mim' .did you mean 'min'"),
        ({"metadata": {"level": {}}}, "no test is given"),
        ({"metadata": {"level": {"in": "abc"}}}, "'in' takes a list"),
        ([1], "data_source takes text"),
    ],
)
def test_conditions_that_are_none(stage: Any, raw: Any, message: str) -> None:
    with pytest.raises(InvalidReward, match=message):
        as_condition(raw)
    with pytest.raises(InvalidReward, match="Conditional 'conditional': "):
        Conditional([stage.reward("a")], when={"a": raw})


class TestConditional:
    """Which child scores a sample."""

    def test_the_first_case_wins(self, stage: Any) -> None:
        children = [
            stage.reward(name, *([value] * 4)) for name, value in zip("abc", range(3), strict=True)
        ]
        made = Conditional(
            children, when={"b": "math*", "a": ["math/easy", "code*"]}, otherwise="c"
        )
        batch = stage.samples(4, data_source=["math/easy", "code/1", "chat", None])
        result = stage.run(made, batch)
        assert [o.value for o in result.outcomes] == [1.0, 0.0, 2.0, 2.0]
        assert result.asked == {"b": ["0"], "a": ["1"], "c": ["2", "3"]}
        assert result.outcomes[0].components == {"a": None, "b": 1.0, "c": None}
        assert result.outcomes[0].absent["a"].reason == "not run: the sample is a case of 'b'"
        assert list(result.outcomes[0].absent) == ["a", "c"]

    def test_no_case_is_an_abstention(self, stage: Any) -> None:
        made = Conditional([stage.reward("a", 1.0)], when={"a": "math*"})
        result = stage.run(made, stage.samples(1, data_source=["code"]))
        assert result.outcomes[0] == Abstention(
            reason="no case applies (data source 'code')",
            reward="conditional",
            fingerprint=made.fingerprint,
            sample="0",
        )
        assert result.asked == {}

    def test_functions_of_the_sample(self, stage: Any) -> None:
        made = Conditional(
            [stage.reward("short", 1, 1), stage.reward("long", 2, 2)],
            when={"short": lambda sample: len(sample.response_text) < 3},
            otherwise="long",
        )
        batch = stage.samples(2, response=["ab", "abcd"])
        assert [o.value for o in stage.run(made, batch).outcomes] == [1.0, 2.0]

    def test_a_broken_condition_fails_its_sample_alone(self, stage: Any) -> None:
        tests = {"metadata": {"level": {"min": 3}}}
        made = Conditional([stage.reward("a", 1, 1, 1)], when={"a": tests})
        batch = stage.samples(3, metadata=[{"level": 3}, {"level": "high"}, {"level": 2}])
        scored, broken, other = stage.run(made, batch).outcomes
        assert scored.value == 1.0
        assert isinstance(other, Abstention)
        assert isinstance(broken, Failure)
        assert (str(broken.kind), str(broken.blame), broken.sample) == ("bad_input", "data", "1")
        assert "condition of 'a' cannot be asked" in broken.message

        made = Conditional([stage.reward("a", 1)], when={"a": lambda sample: sample.oops})
        broken = stage.one(made)
        assert (str(broken.kind), str(broken.blame)) == ("raised", "scorer")

    @pytest.mark.parametrize(
        ("when", "otherwise", "message"),
        [
            ({"a": "x"}, None, "no condition for b"),
            ({"a": "x", "b": "y", "c": "z"}, None, "no child is called 'c'"),
            ({"a": "x"}, "bb", "no child is called 'bb' .did you mean 'b'"),
            ({"a": "x", "b": "y"}, "b", "is `otherwise` and has a condition"),
        ],
    )
    def test_refusals(self, stage: Any, when: Any, otherwise: Any, message: str) -> None:
        with pytest.raises(InvalidReward, match=message):
            Conditional([stage.reward("a"), stage.reward("b")], when, otherwise=otherwise)


class TestCurves:
    """Numbers over training steps."""

    @pytest.mark.parametrize(
        ("curve", "values"),
        [
            (linear(1.0, 0.0, 10, 20), {0: 1.0, 10: 1.0, 15: 0.5, 20: 0.0, 99: 0.0}),
            (piecewise({10: 2.0, 20: 3.0}), {0: 2.0, 10: 2.0, 19: 2.0, 20: 3.0, 99: 3.0}),
            (
                piecewise({0: 0.0, 4: 2.0, 6: 0.0}, interpolate=True),
                {1: 0.5, 4: 2.0, 5: 1.0, 7: 0.0},
            ),
            (as_weight({"points": {"0": 1, "5": 2}}), {4: 1.0, 5: 2.0}),
            (
                as_weight({"start": 0, "end": 1, "first_step": 0, "last_step": 4}),
                {1: 0.25},
            ),
        ],
    )
    def test_values(self, curve: Any, values: dict[int, float]) -> None:
        assert {step: curve.at(step) for step in values} == values

    @given(
        points=st.dictionaries(st.integers(0, 50), st.floats(-10, 10), min_size=1, max_size=5),
        step=st.integers(0, 60),
    )
    def test_values_stay_between_their_points(self, points: Any, step: int) -> None:
        value = piecewise(points, interpolate=True).at(step)
        assert min(points.values()) <= value <= max(points.values())

    @pytest.mark.parametrize(
        "raw",
        [
            float("nan"),
            float("inf"),
            True,
            "1",
            None,
            {"points": {}},
            {"points": {0: float("nan")}},
            {"points": {0.5: 1.0}},
            {"start": 1.0},
            {"points": {0: 1.0}, "interpolated": True},
        ],
    )
    def test_no_weights(self, stage: Any, raw: Any) -> None:
        with pytest.raises(InvalidReward):
            Child(stage.reward("a"), weight=raw)

    def test_steps_must_increase(self) -> None:
        with pytest.raises(InvalidReward, match="must increase"):
            linear(0.0, 1.0, 5, 5)


class TestScheduledWeights:
    """Weighted sums over training steps."""

    def test_weights_of_the_step(self, stage: Any) -> None:
        children = [
            Child(stage.reward("early", 1.0), linear(1.0, 0.0, 0, 10)),
            Child(stage.reward("late", 3.0), linear(0.0, 1.0, 0, 10)),
        ]
        values = [stage.one(WeightedSum(children), step=step).value for step in (0, 5, 10, 11)]
        assert values == [1.0, 2.0, 3.0, 3.0]

    def test_mean(self, stage: Any) -> None:
        children = [
            Child(stage.reward("a", 1.0), 1.0),
            Child(stage.reward("b", 4.0), piecewise({0: 0.0, 10: 2.0})),
        ]
        made = WeightedSum(children, normalise=True)
        assert [stage.one(made, step=step).value for step in (9, 10)] == [1.0, 3.0]

    def test_normalise_refuses_weights_that_may_vanish_together(self, stage: Any) -> None:
        children = [
            Child(stage.reward("a"), linear(1.0, -1.0, 0, 10)),
            Child(stage.reward("b"), 0.0),
        ]
        with pytest.raises(InvalidReward, match="a weight that never is"):
            WeightedSum(children, normalise=True)
        with pytest.raises(InvalidReward, match="a weight that never is"):
            WeightedSum([Child(stage.reward("b"), 0.0)], normalise=True)


def made_schedules(stage: Any, **options: Any) -> list[Any]:
    return [
        Schedule(
            [stage.reward("a", 1.0), stage.reward("b", 2.0)],
            phases={"5": "b", "0": "a", "10": "a"},
            **options,
        ),
        WeightedSum([Child(stage.reward("a", 1.0), piecewise({0: 1, 5: 2, 10: 1}))], **options),
    ]


class TestSchedule:
    """One child at a time."""

    def test_phases(self, stage: Any) -> None:
        for made in made_schedules(stage):
            steps = (0, 4, 5, 9, 10, 1000)
            assert [stage.one(made, step=s).value for s in steps] == [1, 1, 2, 2, 1, 1]

    def test_only_the_active_child_runs(self, stage: Any) -> None:
        result = stage.run(made_schedules(stage)[0], 1, step=7)
        assert result.asked == {"b": ["0"]}
        assert result.outcomes[0].absent["a"].reason == "not run: step 7 is a phase of 'b'"

    def test_no_step(self, stage: Any) -> None:
        for made in made_schedules(stage):
            with pytest.raises(ConfigError, match=f"'{made.name}' depends on the training step"):
                stage.one(made)

    def test_default_step(self, stage: Any) -> None:
        for made in made_schedules(stage, default_step=6):
            assert stage.one(made).value == 2.0
            assert stage.one(made, step=0).value == 1.0

    def test_a_constant_weight_needs_no_step(self, stage: Any) -> None:
        assert stage.one(WeightedSum([stage.reward("a", 1.0)])).value == 1.0

    @pytest.mark.parametrize(
        ("phases", "message"),
        [
            ({}, "no phase for a, b"),
            ({0: "a"}, "no phase for b"),
            ({5: "a", 6: "b"}, "one of them 0"),
            ({0: "a", "0": "b"}, "its own first step"),
            ({0: "a", 5: "c"}, "no child is called 'c'"),
            ({0: "a", "soon": "b"}, "must be a whole number"),
        ],
    )
    def test_refusals(self, stage: Any, phases: Any, message: str) -> None:
        with pytest.raises(InvalidReward, match=message):
            Schedule([stage.reward("a"), stage.reward("b")], phases)
