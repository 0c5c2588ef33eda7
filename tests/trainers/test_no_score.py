"""What stands in for a score in trainers that want a number for every sample."""

import math

import pytest

from guerdon.errors import ConfigError, ScoringFailed
from guerdon.outcome import Abstention, Failure, Score
from guerdon.policy import Assign, Budget, Policy, Retry
from guerdon.trainers.no_score import (
    FIRST_LOOK,
    LARGEST_SINGLE,
    MOST_TRIES,
    RETRY_WITHIN,
    NoScore,
    check_single,
    refusal,
)

BLAMES = ("candidate", "scorer", "infrastructure", "data")


@pytest.mark.parametrize(
    ("neutral", "base", "worst", "expected"),
    [
        # Without a neutral number nothing but an assignment or an exception is left.
        (None, {}, 0.0, ["assign", "raise", "raise", "raise"]),
        (None, {}, None, ["raise", "raise", "raise", "raise"]),
        (None, {"data": "mask", "scorer": "drop_group"}, 0.0, ["assign"] + ["raise"] * 3),
        (None, {"data": Assign(0.5)}, 0.0, ["assign", "raise", "raise", Assign(0.5)]),
        # With one, it takes every place that the user has not given a number.
        (0.1, {}, 0.0, ["assign", Assign(0.1), Assign(0.1), Assign(0.1)]),
        (0.1, {}, None, [Assign(0.1)] * 4),
        (0.1, {"data": "mask"}, 0.0, ["assign", Assign(0.1), Assign(0.1), Assign(0.1)]),
        (0.1, {"scorer": Assign(0.5)}, 0.0, ["assign", Assign(0.5), Assign(0.1), Assign(0.1)]),
    ],
)
def test_actions(neutral, base, worst, expected):
    policy = NoScore(neutral=neutral).policy(Policy(on=base), worst)
    assert [policy.on[blame] for blame in BLAMES] == expected


@pytest.mark.parametrize(
    ("neutral", "given", "expected"),
    [(None, "mask", "raise"), (0.1, "mask", Assign(0.1)), (0.1, Assign(0.7), Assign(0.7))],
)
def test_abstentions(neutral, given, expected):
    policy = NoScore(neutral=neutral).policy(Policy(abstention=given), 0.0)
    assert policy.abstention == expected


def test_a_neutral_number_comes_with_a_failure_budget():
    policy = NoScore(neutral=0.0, failure_share=0.2).policy(None, 0.0)
    assert policy.budget == Budget(0.2, minimum=FIRST_LOOK)
    assert policy.breaker is not None
    assert 0.2 < policy.breaker.share < 0.2001  # opens at its share, a budget above it
    plain = NoScore().policy(None, 0.0)
    assert (plain.budget, plain.breaker) == (None, None)
    own = Policy(budget=Budget(0.5))
    assert NoScore(neutral=0.0).policy(own, 0.0).budget == Budget(0.5)


def test_retries_have_a_time_budget():
    assert NoScore().policy(None, 0.0).retry == Retry(attempts=MOST_TRIES, within=RETRY_WITHIN)
    own = Retry(attempts=2)
    assert NoScore().policy(Policy(retry=own), 0.0).retry == own
    assert NoScore(retry_within=5.0).policy(Policy(retry=own), 0.0).retry.within == 5.0


def test_one_policy_per_split():
    split = NoScore(neutral=0.5).policies({"train": Policy(), "validation": Policy()}, 0.0)
    assert split["train"].on["data"] == split["validation"].on["data"] == Assign(0.5)


@pytest.mark.parametrize(
    "arguments",
    [{"neutral": math.nan}, {"neutral": math.inf}, {"retry_within": -1.0}],
)
def test_impossible_settings(arguments):
    with pytest.raises(ConfigError):
        NoScore(**arguments)


def test_the_refusal_names_reward_and_sample():
    lost = Failure(kind="raised", message="oops", blame="scorer", reward="r", sample="s1")
    assert "'s1': r: raised (scorer): oops" in str(refusal(lost, "verl"))
    idle = Abstention(reason="not mine", reward="r", sample="s1")
    assert str(refusal(idle, "verl")).startswith("r gives no score to sample 's1' (not mine)")
    assert refusal(idle, "verl").outcomes[0] is idle


def test_a_number_that_float32_does_not_hold_is_refused():
    score = Score(value=1e39, reward="r", sample="s1")
    with pytest.raises(ScoringFailed, match="float32"):
        check_single(1e39, score)
    check_single(-LARGEST_SINGLE, score)
