"""What stands beside a failure, who is told, and when a run must stop."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guerdon import policy as policy_module
from guerdon.errors import Blame, BudgetExceeded, CircuitOpen, ConfigError, ScoringFailed
from guerdon.injection import Call
from guerdon.outcome import Abstention, Failure, Outcome, Score
from guerdon.outcomes import Outcomes
from guerdon.policy import (
    NO_RETRY,
    REMEMBERED_STEPS,
    Assign,
    Breaker,
    Budget,
    Ledger,
    Policy,
    Retry,
    settle,
    worst_end,
)
from guerdon.sample import Sample

BLAMES = ("candidate", "scorer", "infrastructure", "data")


def lost(blame: str, message: str = "oops", sample: str | None = None) -> Failure:
    return Failure(
        kind="raised",  # type: ignore[arg-type]
        message=message,
        blame=blame,  # type: ignore[arg-type]
        reward="r",
        sample=sample,
    )


def settled(policy: Policy, *outcomes: Outcome, worst: float | None = 0.0) -> Outcomes:
    return settle(policy, outcomes, [Sample() for _ in outcomes], worst)


# -- policies -------------------------------------------------------------------------------------


def test_the_default_raises_on_all_but_the_candidate() -> None:
    assert dict(Policy().on) == {
        "candidate": "assign",
        "scorer": "raise",
        "infrastructure": "raise",
        "data": "raise",
    }
    assert Policy().abstention == "mask"


@pytest.mark.parametrize("blame", ["data", Blame.DATA])
def test_blames_that_are_not_named_keep_the_default(blame: Any) -> None:
    policy = Policy(on={blame: "mask"})
    assert (policy.on["data"], policy.on["scorer"]) == ("mask", "raise")
    assert settled(policy, lost("data")).mask.tolist() == [False]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Policy(on={"date": "mask"}), "did you mean 'data'"),
        (lambda: Policy(on={"data": "masc"}), "did you mean 'mask'"),  # type: ignore[dict-item]
        (lambda: Policy(on={"data": 0.0}), "no action"),  # type: ignore[dict-item]
        (lambda: Policy(on={"data": None}), "no action"),  # type: ignore[dict-item]
        (lambda: Policy(abstention="zero"), "no action"),  # type: ignore[arg-type]
        (lambda: Assign(math.nan), "finite"),
        (lambda: Assign(math.inf), "finite"),
        (lambda: Retry(attempts=0), "attempts"),
        (lambda: Retry(first_delay=-1.0), "delays"),
        (lambda: Retry(longest_delay=-1.0), "delays"),
        (lambda: Retry(jitter=1.5), "jitter"),
        (lambda: Retry(jitter=-0.5), "jitter"),
        (lambda: Budget(share=1.5), "share"),
        (lambda: Budget(share=-0.1), "share"),
        (lambda: Budget(share=math.nan), "share"),
        (lambda: Breaker(share=0.0), "share"),
        (lambda: Breaker(window=0), "window"),
    ],
)
def test_an_impossible_policy_is_refused(make: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        make()


# -- settling -------------------------------------------------------------------------------------


@pytest.mark.parametrize("blame", BLAMES)
@pytest.mark.parametrize("action", ["raise", "mask", "drop_group", "assign", Assign(-3.0)])
def test_every_action_for_every_blame(blame: str, action: Any) -> None:
    policy = Policy(on={blame: action})
    if action == "raise":
        with pytest.raises(ScoringFailed, match="oops") as caught:
            settled(policy, Score(value=1.0), lost(blame))
        assert len(caught.value.outcomes) == 2
        return
    outcomes = settled(policy, Score(value=1.0), lost(blame), worst=-1.0)
    assigned = {"assign": -1.0}.get(action if isinstance(action, str) else "")
    if isinstance(action, Assign):
        assigned = action.value
    assert outcomes.values[0] == 1.0
    assert math.isnan(outcomes.values[1])
    assert outcomes.mask.tolist() == [True, False]
    assert outcomes.assigned.mask.tolist() == [False, assigned is not None]
    assert outcomes.rewards.mask.tolist() == [True, assigned is not None]
    if assigned is not None:
        assert outcomes.rewards.values[1] == assigned
    assert outcomes.dropped.tolist() == [False, action == "drop_group"]
    assert isinstance(outcomes[1], Failure)


@pytest.mark.parametrize("action", ["raise", "mask", "drop_group", "assign", Assign(0.5)])
def test_every_action_for_an_abstention(action: Any) -> None:
    policy = Policy(abstention=action)
    if action == "raise":
        with pytest.raises(ScoringFailed, match="1 samples have no score"):
            settled(policy, Abstention())
        return
    outcomes = settled(policy, Abstention())
    expected = {"assign": 0.0}.get(action) if isinstance(action, str) else 0.5
    assert outcomes.assigned.mask.tolist() == [expected is not None]
    assert outcomes.dropped.tolist() == [action == "drop_group"]


@pytest.mark.parametrize(
    ("value_range", "higher", "worst"),
    [
        ((0.0, 1.0), True, 0.0),
        ((0.0, 1.0), False, 1.0),
        ((-2.0, 1.0), True, -2.0),
        ((0.0, math.inf), True, 0.0),
        ((0.0, math.inf), False, None),
        ((-math.inf, 0.0), True, None),
        ((-math.inf, 0.0), False, 0.0),
        ((-math.inf, math.inf), True, None),
        ((-math.inf, math.inf), False, None),
    ],
)
def test_the_worst_end_depends_on_the_direction(
    value_range: Any, higher: bool, worst: float | None
) -> None:
    assert worst_end(value_range, higher) == worst
    outcomes = settled(Policy(), lost("candidate"), worst=worst)
    assert outcomes.assigned.mask.tolist() == [worst is not None]
    assert outcomes.rewards.mask.tolist() == [worst is not None]


def test_a_dropped_group_takes_its_scores_along() -> None:
    samples = [
        Sample(group_id="a"),
        Sample(group_id="a"),
        Sample(group_id="b"),
        Sample(),
        Sample(),
        Sample(group_id=""),
    ]
    outcomes = settle(
        Policy(on={"data": "drop_group"}),
        [
            Score(value=1.0),
            lost("data"),
            Score(value=2.0),
            lost("data"),
            Score(value=3.0),
            Score(value=4.0),
        ],
        samples,
        None,
    )
    assert outcomes.dropped.tolist() == [True, True, False, True, False, False]
    assert outcomes.rewards.mask.tolist() == [False, False, True, False, True, True]
    assert outcomes.values[0] == 1.0


def test_what_is_raised_names_the_first_in_full_and_the_rest_by_name() -> None:
    outcomes = [lost("scorer", f"message {i}", f"s{i}") for i in range(40)]
    samples = [Sample(sample_id=f"s{i}") for i in range(40)]
    with pytest.raises(ScoringFailed) as caught:
        settle(Policy(), outcomes, samples, 0.0)
    text = str(caught.value)
    assert text.startswith("40 of 40 samples failed:")
    for i in range(3):
        assert f"'s{i}': r: raised (scorer): message {i}" in text
    assert "message 3" not in text
    assert "'s3' (r: raised)" in text
    assert "and 17 more" in text
    assert list(caught.value.outcomes) == outcomes


def test_two_failures_of_one_id_are_both_named() -> None:
    samples = [Sample(sample_id="s"), Sample(sample_id="s")]
    with pytest.raises(ScoringFailed, match="2 of 2 samples failed"):
        settle(Policy(), [lost("data", sample="s"), lost("data", sample="s")], samples, 0.0)


def test_only_what_raises_is_in_the_message() -> None:
    with pytest.raises(ScoringFailed) as caught:
        settled(Policy(on={"data": "mask"}), lost("data", "quiet"), lost("scorer", "loud"))
    assert "1 of 2 samples failed" in str(caught.value)
    assert "quiet" not in str(caught.value)


@given(
    st.lists(st.sampled_from([*BLAMES, "score", "abstention"]), max_size=20),
    st.dictionaries(
        st.sampled_from(BLAMES), st.sampled_from(["mask", "drop_group", "assign"]), min_size=4
    ),
)
def test_settling_never_changes_an_outcome_nor_makes_a_number_of_a_failure(
    kinds: list[str], actions: dict[str, Any]
) -> None:
    outcomes: list[Outcome] = [
        Score(value=0.5) if k == "score" else Abstention() if k == "abstention" else lost(k)
        for k in kinds
    ]
    result = settled(Policy(on=actions), *outcomes, worst=-1.0)
    assert list(result) == outcomes
    assert result.mask.tolist() == [kind == "score" for kind in kinds]
    for kind, assigned in zip(kinds, result.assigned.mask.tolist(), strict=True):
        assert assigned == (actions.get(kind) == "assign")


# -- retries --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tries", "delay"), [(1, 0.5), (2, 1.0), (3, 2.0), (7, 30.0), (50, 30.0), (100_000, 30.0)]
)
def test_the_wait_doubles_up_to_its_bound(tries: int, delay: float) -> None:
    assert Retry(jitter=0.0).delay(tries) == delay


@pytest.mark.parametrize(("chance", "share"), [(0.0, 1.0), (0.5, 0.75), (1.0, 0.5)])
def test_jitter_shortens_the_wait(
    monkeypatch: pytest.MonkeyPatch, chance: float, share: float
) -> None:
    monkeypatch.setattr(policy_module.random, "random", lambda: chance)
    assert Retry(first_delay=4.0, jitter=0.5).delay(1) == 4.0 * share


def test_no_retry_is_one_try() -> None:
    assert NO_RETRY.attempts == 1


# -- budget and breaker ---------------------------------------------------------------------------


class Book:
    """A ledger that is told shares of failures."""

    def __init__(self, **settings: Any) -> None:
        self.ledger = Ledger()
        self.policy = Policy(**settings)

    def note(
        self,
        failed: int,
        total: int,
        *,
        step: int = 1,
        split: str = "train",
        name: str = "r",
        blame: str = "scorer",
        policy: Policy | None = None,
    ) -> None:
        outcomes: list[Outcome] = [lost(blame)] * failed
        outcomes += [Score(value=1.0)] * (total - failed)
        self.ledger.record(
            policy or self.policy,
            Call(step=step, split=split),
            {name: [outcomes]},
            Outcomes(outcomes),
        )


@pytest.mark.parametrize(
    ("share", "failed", "total", "over"),
    [
        (0.1, 1, 10, False),
        (0.1, 2, 10, True),
        (0.0, 0, 10, False),
        (0.0, 1, 1000, True),
        (1.0, 10, 10, False),
        (0.29, 29, 100, False),
        (0.29, 30, 100, True),
        (0.07, 7, 100, False),
        (0.5, 0, 0, False),
    ],
)
def test_the_budget_is_a_share_of_the_samples_of_a_step(
    share: float, failed: int, total: int, over: bool
) -> None:
    book = Book(budget=Budget(share=share))
    if over:
        with pytest.raises(BudgetExceeded, match=f"{failed} of {total} samples") as caught:
            book.note(failed, total)
        assert len(caught.value.outcomes) == total
        assert "'r'" in str(caught.value)
        assert "oops" in str(caught.value)
    else:
        book.note(failed, total)


def test_the_budget_counts_a_step_together_and_each_reward_split_and_step_apart() -> None:
    book = Book(budget=Budget(share=0.5, minimum=10))
    book.note(4, 4)
    book.note(3, 3, step=2)
    book.note(3, 3, split="validation")
    book.note(3, 3, name="other")
    book.note(0, 4)
    with pytest.raises(BudgetExceeded, match="6 of 10"):
        book.note(2, 2)
    book.note(1, 10, step=3)


def test_before_the_minimum_the_budget_is_not_looked_at() -> None:
    book = Book(budget=Budget(share=0.1, minimum=100))
    book.note(99, 99)
    with pytest.raises(BudgetExceeded):
        book.note(0, 1)


def test_what_a_candidate_caused_counts_for_nothing() -> None:
    book = Book(budget=Budget(share=0.0), breaker=Breaker(share=0.1, window=5))
    book.note(100, 100, blame="candidate")
    for blame in BLAMES[1:]:
        with pytest.raises(BudgetExceeded):
            Book(budget=Budget(share=0.0)).note(1, 1, blame=blame)


def test_old_steps_are_forgotten() -> None:
    book = Book(budget=Budget(share=0.5))
    for step in range(10 * REMEMBERED_STEPS):
        book.note(0, 10, step=step)
    assert len(book.ledger._steps) == REMEMBERED_STEPS


def test_the_breaker_opens_when_its_window_is_full_and_stays_open() -> None:
    book = Book(breaker=Breaker(share=0.5, window=10))
    book.note(9, 9)
    book.ledger.check()
    with pytest.raises(CircuitOpen, match=r"'r' failed on 10 of its last 10") as caught:
        book.note(1, 1)
    assert "oops" in str(caught.value)
    assert "reset_breaker()" in str(caught.value)
    with pytest.raises(CircuitOpen):
        book.ledger.check()
    with pytest.raises(CircuitOpen):
        book.note(0, 100)
    book.ledger.reset()
    book.ledger.check()
    book.note(4, 10)
    book.note(0, 1)


def test_the_breaker_looks_at_the_last_samples_only() -> None:
    book = Book(breaker=Breaker(share=0.5, window=10))
    book.note(4, 10)
    for _ in range(20):
        book.note(1, 5)
    with pytest.raises(CircuitOpen):
        book.note(5, 5)


@pytest.mark.parametrize(
    ("share", "window", "failed"), [(0.07, 100, 7), (1.0, 3, 3), (0.29, 100, 29)]
)
def test_the_share_of_the_breaker_is_reached_exactly(
    share: float, window: int, failed: int
) -> None:
    with pytest.raises(CircuitOpen):
        Book(breaker=Breaker(share=share, window=window)).note(failed, window)
    Book(breaker=Breaker(share=share, window=window)).note(failed - 1, window)


def test_breakers_of_two_policies_have_windows_of_their_own() -> None:
    train = Policy(breaker=Breaker(share=1.0, window=100))
    validation = Policy(breaker=Breaker(share=1.0, window=5))
    book = Book()
    book.note(90, 90, policy=train)
    with pytest.raises(CircuitOpen):
        book.note(5, 5, policy=validation, split="validation")


def test_each_reward_has_a_breaker_of_its_own() -> None:
    book = Book(breaker=Breaker(share=0.5, window=10))
    book.note(5, 9, name="a")
    book.note(5, 9, name="b")
    book.ledger.check()


def test_without_budget_and_breaker_nothing_is_kept() -> None:
    book = Book()
    book.note(10, 10)
    assert not book.ledger._steps
    assert not book.ledger._recent
