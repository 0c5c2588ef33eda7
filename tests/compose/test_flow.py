"""Gates and cascades: who runs, who decides, what the others are called."""

from typing import Any

import pytest

from guerdon.compose import Cascade, Child, Gate, GroupNormalise, Value
from guerdon.errors import InvalidReward
from guerdon.outcome import Abstention, Failure

UNIT = (0.0, 1.0)


class TestGate:
    """What passes, and what a closed gate gives."""

    @pytest.mark.parametrize("sequential", [False, True])
    def test_values(self, stage: Any, sequential: bool) -> None:
        gate = Gate(
            [stage.reward("a", 1.0, 0.0, 1.0, 0.5), stage.reward("b", 0.5, 1.0, 0.49, 0.5)],
            stage.reward("c", 0.9, 0.9, 0.9, 0.2, value_range=UNIT),
            threshold=0.5,
            sequential=sequential,
        )
        outcomes = stage.run(gate, 4).outcomes
        assert [o.value for o in outcomes] == [0.9, 0.0, 0.0, 0.2]
        assert [o.metrics["open"] for o in outcomes] == [1.0, 0.0, 0.0, 1.0]

    def test_sequential_runs_nothing_after_a_miss(self, stage: Any) -> None:
        gate = Gate(
            [stage.reward("a", 1.0, 0.0, 1.0), stage.reward("b", 1.0, "raised/scorer", 0.0)],
            stage.reward("c", 0.9, "raised/scorer", "raised/scorer", value_range=UNIT),
            threshold=1.0,
            sequential=True,
        )
        result = stage.run(gate, 3)
        assert result.asked == {"a": ["0", "1", "2"], "b": ["0", "2"], "c": ["0"]}
        missed = result.outcomes[1]
        assert missed.components == {"a": 0.0, "b": None, "c": None}
        assert missed.absent["b"] == Abstention(
            reason="not run: gate 'a' was not passed",
            reward="b",
            fingerprint=gate.children["b"].fingerprint,
        )
        assert result.outcomes[2].components == {"a": 1.0, "b": 0.0, "c": None}

    def test_parallel_needs_every_child(self, stage: Any) -> None:
        gate = Gate(
            [stage.reward("a", 0.0)],
            stage.reward("c", "raised/scorer", value_range=UNIT),
            threshold=1.0,
        )
        assert isinstance(stage.one(gate), Failure)

    def test_lower_is_better(self, stage: Any) -> None:
        seconds = stage.reward("seconds", 1.0, 2.0, 2.1, higher_is_better=False)
        gate = Gate([seconds], stage.reward("c", 1, 1, 1, value_range=UNIT), threshold=2.0)
        assert [o.value for o in stage.run(gate, 3).outcomes] == [1.0, 1.0, 0.0]

    def test_thresholds_by_name(self, stage: Any) -> None:
        guards = [stage.reward("a", 0.4), stage.reward("b", 0.8)]
        guarded = stage.reward("c", 1.0, value_range=UNIT)
        assert stage.one(Gate(guards, guarded, threshold={"a": 0.4, "b": 0.8})).value == 1.0
        assert stage.one(Gate(guards, guarded, threshold={"a": 0.4, "b": 0.9})).value == 0.0

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"threshold": {"a": 1.0, "bb": 1.0}}, "no gate is called 'bb'.*did you mean 'b'"),
            ({"threshold": {"a": 1.0}}, "no threshold for b"),
            ({"threshold": 1.0, "closed": float("inf")}, "closed must be finite"),
        ],
    )
    def test_refusals(self, stage: Any, options: Any, message: str) -> None:
        guards = [stage.reward("a"), stage.reward("b")]
        with pytest.raises(InvalidReward, match=message):
            Gate(guards, stage.reward("c", value_range=UNIT), **options)

    def test_a_closed_gate_never_pays_by_accident(self, stage: Any) -> None:
        signed = stage.reward("signed", -0.5, value_range=(-1.0, 1.0))
        assert stage.one(Gate([stage.reward("a", 0.0)], signed, threshold=1.0)).value == -1.0
        with pytest.raises(InvalidReward, match="no finite worst end: name closed="):
            Gate([stage.reward("a")], stage.reward("b"), threshold=1.0)


class TestCascade:
    """Which stage decides."""

    def test_dear_stages_run_only_where_needed(self, stage: Any) -> None:
        cascade = Cascade(
            [
                stage.reward("rule", 1.0, 0.0, None, 0.4),
                stage.reward("model", "raised/scorer", 0.9, 0.5, 0.1),
                stage.reward("judge", None, None, 0.3, None),
            ],
            undecided={"rule": [0.0, 0.4], "model": [0.5, 0.5]},
        )
        result = stage.run(cascade, 4)
        assert [o.value for o in result.outcomes] == [1.0, 0.9, 0.3, 0.1]
        assert [o.metrics["stage"] for o in result.outcomes] == [0.0, 1.0, 2.0, 1.0]
        assert result.asked == {"rule": list("0123"), "model": list("123"), "judge": ["2"]}
        assert result.outcomes[2].components == {"rule": None, "model": 0.5, "judge": 0.3}
        assert result.outcomes[0].absent["judge"].reason == "not run: stage 'rule' decided"

    def test_ends_are_undecided(self, stage: Any) -> None:
        rule = stage.reward("rule", 0.2, 0.8, 0.19, 0.81)
        cascade = Cascade([rule, stage.reward("judge", 5, 5, 5, 5)], undecided=(0.2, 0.8))
        assert [o.value for o in stage.run(cascade, 4).outcomes] == [5.0, 5.0, 0.19, 0.81]

    def test_nobody_is_asked_when_all_is_decided(self, stage: Any) -> None:
        result = stage.run(Cascade([stage.reward("rule", 1.0, 1.0), stage.reward("judge")]), 2)
        assert result.asked == {"rule": ["0", "1"]}

    @pytest.mark.parametrize(
        ("count", "undecided", "message"),
        [
            (1, None, "at least two stages"),
            (2, [1.0, 0.0], r"an undecided interval is \[low, high\]"),
            (2, [1.0], r"an undecided interval is \[low, high\]"),
            (2, {"r1": [0.0, 1.0]}, "no undecided stage is called 'r1'"),
        ],
    )
    def test_refusals(self, stage: Any, count: int, undecided: Any, message: str) -> None:
        with pytest.raises(InvalidReward, match=message):
            Cascade([stage.reward(f"r{i}") for i in range(count)], undecided=undecided)


class TestWholeGroups:
    """A child that scores groups sees all members, however few samples need it."""

    def test_in_a_cascade(self, stage: Any) -> None:
        pairwise = stage.reward("pairwise", *range(6), scope="group")
        rule = stage.reward("rule", None, 1.0, 1.0, 1.0, 1.0, None)
        batch = stage.samples(6, group_id=["g", "g", "h", "h", None, None])
        cascade = Cascade([rule, pairwise])
        result = stage.run(cascade, batch)
        assert result.asked["pairwise"] == ["0", "1", "5"]
        assert [o.value for o in result.outcomes] == [0.0, 1.0, 1.0, 1.0, 1.0, 5.0]
        assert result.outcomes[1].components["pairwise"] is None
        assert cascade.scope == "group"

    def test_through_compositions(self, stage: Any) -> None:
        relative = GroupNormalise(stage.reward("r", 0.0, 4.0), std=None)
        gate = Gate(
            [stage.reward("a", 1, 0)], relative, threshold=1.0, closed=-9.0, sequential=True
        )
        batch = stage.samples(2, group_id=["g", "g"])
        result = stage.run(gate, batch)
        assert [o.value for o in result.outcomes] == [-2.0, -9.0]
        assert result.asked["r"] == ["0", "1"]

    def test_batch_rewards_see_what_needs_them(self, stage: Any) -> None:
        ranked = stage.reward("ranked", 0, 1, 2, scope="batch")
        result = stage.run(Cascade([stage.reward("rule", 1.0, None, None), ranked]), 3)
        assert result.asked["ranked"] == ["1", "2"]


def test_a_stand_in_opens_or_closes_a_gate(stage: Any) -> None:
    guarded = stage.reward("c", 0.7, value_range=UNIT)
    for stand_in, value in ((1.0, 0.7), (0.0, 0.0)):
        guard = Child(stage.reward("a", None), missing=Value(stand_in))
        for sequential in (False, True):
            gate = Gate([guard], guarded, threshold=1.0, sequential=sequential)
            assert stage.one(gate).value == value
