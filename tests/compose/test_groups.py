"""Values relative to the group."""

import random
import statistics
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guerdon.compose import Child, GroupNormalise, WeightedSum
from guerdon.errors import InvalidReward
from guerdon.outcome import Abstention, Failure, Score


def normalised(stage: Any, values: list[Any], groups: list[Any], **options: Any) -> list[Any]:
    reward = GroupNormalise(stage.reward("r", *values), **options)
    batch = stage.samples(len(values), group_id=groups)
    return stage.run(reward, batch).outcomes


def reference(values: list[float], std: str | None, eps: float) -> Any:
    array = np.array(values)
    centred = array - array.mean()
    if std is None:
        return centred
    freedom = 1 if std == "sample" else 0
    return centred / (array.std(ddof=freedom) + eps)


@settings(deadline=None)
@given(
    values=st.lists(st.integers(-1000, 1000).map(lambda n: n / 8), min_size=2, max_size=12),
    std=st.sampled_from(["sample", "population", None]),
)
def test_against_numpy(stage: Any, values: list[float], std: Any) -> None:
    outcomes = normalised(stage, values, ["g"] * len(values), std=std, eps=1e-4)
    expected = reference(values, std, 1e-4)
    assert [o.value for o in outcomes] == pytest.approx(expected, abs=1e-9)
    assert outcomes[0].metrics["group_mean"] == pytest.approx(statistics.fmean(values))


def test_the_default_is_the_sample_deviation_of_verl(stage: Any) -> None:
    outcomes = normalised(stage, [1.0, 0.0, 0.0, 0.0], ["g"] * 4)
    # torch.std([1, 0, 0, 0]) = 0.5, mean = 0.25, epsilon = 1e-6.
    assert outcomes[0].value == pytest.approx(0.75 / 0.500001, rel=1e-12)


@pytest.mark.parametrize("std", ["sample", "population", None])
@pytest.mark.parametrize("missed", [None, "raised/scorer", "timeout/candidate"])
def test_missing_members_shift_nothing(stage: Any, std: Any, missed: Any) -> None:
    values, groups = [1.0, 0.0, 5.0, 2.0, 9.0], ["g", "g", "h", "g", "h"]
    whole = normalised(stage, values, groups, std=std)
    holed = normalised(
        stage,
        [1.0, missed, 0.0, 5.0, missed, 2.0, 9.0],
        ["g", "g", "g", "h", "h", "g", "h"],
        std=std,
    )
    kept = [outcome for outcome in holed if isinstance(outcome, Score)]
    assert [o.value for o in kept] == [o.value for o in whole]
    assert [o.metrics for o in kept] == [o.metrics for o in whole]
    assert not any(isinstance(holed[i], Score) for i in (1, 4))


@pytest.mark.parametrize("std", ["sample", "population", None])
@pytest.mark.parametrize("values", [[0.1] * 7, [3.0], [0.1, None], [1e-320, 1e-320]])
def test_no_difference_is_exactly_zero(stage: Any, std: Any, values: list[Any]) -> None:
    outcomes = normalised(stage, values, ["g"] * len(values), std=std)
    assert [o.value for o in outcomes if isinstance(o, Score)] == [0.0] * sum(
        value is not None for value in values
    )


def test_the_order_of_members_changes_nothing(stage: Any) -> None:
    values = [0.1, 0.7, 1e9, -3.3, 0.2, 1e-9]
    expected = {
        v: o.value for v, o in zip(values, normalised(stage, values, ["g"] * 6), strict=True)
    }
    for seed in range(20):
        shuffled = random.Random(seed).sample(values, 6)
        outcomes = normalised(stage, shuffled, ["g"] * 6)
        assert [o.value for o in outcomes] == [expected[value] for value in shuffled]


def test_a_sample_without_a_group_fails_alone(stage: Any) -> None:
    first, second, third = normalised(stage, [1.0, 2.0, 3.0], ["g", None, "g"], std=None)
    assert isinstance(second, Failure)
    assert (str(second.kind), str(second.blame), second.sample) == ("bad_input", "data", "1")
    assert (first.value, third.value) == (-1.0, 1.0)


@pytest.mark.parametrize("std", ["sample", "population", None])
def test_an_overflow_is_a_failure_of_its_group(stage: Any, std: Any) -> None:
    outcomes = normalised(stage, [1.7e308, 1.6e308, 1.0, 2.0], ["g", "g", "h", "h"], std=std)
    assert [str(o.kind) for o in outcomes[:2]] == ["non_finite"] * 2
    assert all(isinstance(o, Score) for o in outcomes[2:])


class TestRenormalisedMembers:
    """Scores on different scales are not compared."""

    def group(self, stage: Any, judged: list[Any]) -> list[Any]:
        count = len(judged)
        mixed = WeightedSum(
            [
                stage.reward("rule", *([1.0, 0.0, 1.0, 0.0][:count])),
                Child(stage.reward("judge", *judged), missing="renormalise"),
            ],
            name="mixed",
        )
        batch = stage.samples(count, group_id=["g"] * count)
        return stage.run(GroupNormalise(mixed, std=None), batch).outcomes

    def test_a_lone_one_is_left_out(self, stage: Any) -> None:
        outcomes = self.group(stage, [1.0, 1.0, None, 0.0])
        assert [o.value for o in outcomes if isinstance(o, Score)] == [1.0, 0.0, -1.0]
        left_out = outcomes[2]
        assert isinstance(left_out, Abstention)
        assert left_out.reason.startswith("renormalised without judge")
        assert left_out.absent == {"judge": stage.outcome(None)}

    def test_all_lacking_the_same_are_comparable(self, stage: Any) -> None:
        outcomes = self.group(stage, [None, "raised/scorer"])
        assert [o.value for o in outcomes] == [1.0, -1.0]
        assert all(o.renormalised for o in outcomes)


@pytest.mark.parametrize(
    "options", [{"std": "standard"}, {"eps": 0.0}, {"eps": -1.0}, {"eps": float("inf")}]
)
def test_refusals(stage: Any, options: Any) -> None:
    with pytest.raises(InvalidReward):
        GroupNormalise(stage.reward("a"), **options)


def test_components_are_normalised_apart_before_they_are_summed(stage: Any) -> None:
    """GDPO (arXiv 2601.05242): the scale of one component does not drown another."""
    made = WeightedSum(
        {
            "large": GroupNormalise(stage.reward("large", 100.0, 200.0)),
            "small": Child(GroupNormalise(stage.reward("small", 0.2, 0.1)), 1.0),
        }
    )
    outcomes = stage.run(made, stage.samples(2, group_id=["g", "g"])).outcomes
    assert [o.value for o in outcomes] == pytest.approx([0.0, 0.0], abs=1e-4)
    assert outcomes[0].components["large/large"] == 100.0
