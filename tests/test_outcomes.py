"""The column view: a number never stands where there is none."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guerdon.errors import ScoringFailed
from guerdon.outcome import Abstention, Failure, Outcome, Score
from guerdon.outcomes import NAMED_SAMPLES, SHOWN_FAILURES, Outcomes

LOST = Failure(kind="raised", message="oops", blame="scorer", reward="r")  # type: ignore[arg-type]
SCORE = Score(value=0.5)
NONE = Abstention()


def column(values: np.ndarray) -> list[float | None]:
    return [None if math.isnan(value) else value for value in values.tolist()]


def test_values_and_mask() -> None:
    outcomes = Outcomes([SCORE, LOST, NONE, Score(value=-0.0)])
    assert outcomes.values.dtype == np.float64
    assert outcomes.mask.dtype == np.bool_
    assert column(outcomes.values) == [0.5, None, None, 0.0]
    assert outcomes.mask.tolist() == [True, False, False, True]
    assert not outcomes.assigned.mask.any()
    assert not outcomes.dropped.any()


def test_no_samples_have_no_values() -> None:
    outcomes = Outcomes([])
    assert outcomes.values.shape == outcomes.mask.shape == outcomes.dropped.shape == (0,)
    assert outcomes.components == {}
    assert outcomes.failures == {}
    outcomes.raise_for_failures()


def test_it_is_a_sequence() -> None:
    outcomes = Outcomes([SCORE, LOST, NONE])
    assert len(outcomes) == 3
    assert list(outcomes) == [SCORE, LOST, NONE]
    assert outcomes[1] is LOST
    assert outcomes[-1] is NONE
    assert outcomes[1:] == (LOST, NONE)
    with pytest.raises(IndexError):
        outcomes[3]


def test_assigned_numbers_stand_apart() -> None:
    outcomes = Outcomes([SCORE, LOST, NONE, LOST], assigned={1: -1.0, 2: 0.0}, dropped=[0])
    assert column(outcomes.values) == [0.5, None, None, None]
    assert column(outcomes.assigned.values) == [None, -1.0, 0.0, None]
    assert outcomes.assigned.mask.tolist() == [False, True, True, False]
    assert column(outcomes.rewards.values) == [None, -1.0, 0.0, None]
    assert outcomes.rewards.mask.tolist() == [False, True, True, False]
    assert outcomes.dropped.tolist() == [True, False, False, False]
    assert outcomes.unassigned_failures == [3]


def test_nothing_is_assigned_to_a_score() -> None:
    with pytest.raises(ValueError, match="position 0 has a score"):
        Outcomes([SCORE], assigned={0: 1.0})


def test_ids_must_match() -> None:
    with pytest.raises(ValueError, match="2 sample ids for 1 outcomes"):
        Outcomes([SCORE], sample_ids=["a", "b"])


def test_components_are_columns_with_masks_of_their_own() -> None:
    outcomes = Outcomes(
        [
            Score(value=1.0, components={"a": 1.0, "b": None}),
            LOST,
            Score(value=2.0, components={"b": 2.0, "c": -0.0}),
            SCORE,
        ]
    )
    assert list(outcomes.components) == ["a", "b", "c"]
    assert column(outcomes.components["a"].values) == [1.0, None, None, None]
    assert column(outcomes.components["b"].values) == [None, None, 2.0, None]
    assert outcomes.components["b"].mask.tolist() == [False, False, True, False]
    assert outcomes.components["c"].mask.tolist() == [False, False, True, False]


def test_failures_and_abstentions_by_id_or_position() -> None:
    outcomes = Outcomes([LOST, LOST, NONE, NONE, SCORE], sample_ids=["a", None, "c", None, "e"])
    assert list(outcomes.failures) == ["a", 1]
    assert list(outcomes.abstentions) == ["c", 3]
    assert list(Outcomes([LOST, SCORE, LOST]).failures) == [0, 2]


def test_a_repeated_id_hides_no_failure() -> None:
    outcomes = Outcomes([LOST, SCORE, LOST], sample_ids=["a", "a", "a"])
    assert list(outcomes.failures) == ["a", 2]
    assert repr(outcomes) == "Outcomes(3 samples: 1 scores, 2 failures, 0 abstentions, 0 assigned)"
    with pytest.raises(ScoringFailed, match="2 of 3"):
        outcomes.raise_for_failures()


def test_raise_for_failures_raises_whatever_was_assigned() -> None:
    outcomes = Outcomes([SCORE, LOST], assigned={1: 0.0}, sample_ids=["a", "b"])
    with pytest.raises(ScoringFailed) as caught:
        outcomes.raise_for_failures()
    assert caught.value.outcomes is outcomes
    assert str(caught.value) == "1 of 2 samples failed:\n  'b': r: raised (scorer): oops"


def test_scores_and_abstentions_raise_nothing() -> None:
    Outcomes([SCORE, NONE]).raise_for_failures()


@pytest.mark.parametrize("count", [1, SHOWN_FAILURES, SHOWN_FAILURES + 1, 1000])
def test_the_message_stays_readable(count: int) -> None:
    with pytest.raises(ScoringFailed) as caught:
        Outcomes([LOST] * count).raise_for_failures()
    text = str(caught.value)
    assert text.startswith(f"{count} of {count} samples failed")
    assert text.count("oops") == min(count, SHOWN_FAILURES)
    hidden = count - SHOWN_FAILURES - NAMED_SAMPLES
    assert (f"and {hidden} more" in text) == (hidden > 0)
    assert len(text) < 2000


def test_the_columns_are_made_once() -> None:
    outcomes = Outcomes([SCORE, LOST])
    assert outcomes.values is outcomes.values
    assert outcomes.components is outcomes.components
    assert outcomes.rewards is outcomes.rewards


@given(
    st.lists(st.sampled_from([SCORE, LOST, NONE]), max_size=20),
    st.data(),
)
def test_a_reward_is_a_score_or_an_assigned_number_and_never_dropped(
    raw: list[Outcome], data: st.DataObject
) -> None:
    free = [i for i, outcome in enumerate(raw) if not isinstance(outcome, Score)]
    chosen = data.draw(st.sets(st.sampled_from(free))) if free else set()
    dropped = data.draw(st.sets(st.sampled_from(range(len(raw))))) if raw else set()
    outcomes = Outcomes(raw, assigned=dict.fromkeys(chosen, -2.0), dropped=sorted(dropped))
    for i, outcome in enumerate(raw):
        expected = 0.5 if isinstance(outcome, Score) else -2.0 if i in chosen else None
        expected = None if i in dropped else expected
        assert column(outcomes.rewards.values)[i] == expected
        assert outcomes.rewards.mask[i] == (expected is not None)
        assert outcomes.mask[i] == isinstance(outcome, Score)
