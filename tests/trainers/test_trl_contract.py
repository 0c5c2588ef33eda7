"""TRL's own trainers call our functions (TRL 1.16.0, in its own environment)."""

import math
import statistics
from pathlib import Path

import pytest

from guerdon.registry import load_file

PARITY = Path(__file__).with_name("parity")
cases = load_file(str(PARITY / "cases.py"))
rewards = load_file(str(PARITY / "rewards.py"))
interpreter = load_file(str(PARITY / "interpreter.py"))
adapter = load_file(str(PARITY / "trl_adapter.py"))

GROUP = 4
SINGLE = 1e-6
"""Relative: TRL keeps rewards as float32."""


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    return interpreter.drive("trl", tmp_path_factory.mktemp("trl"))


@pytest.mark.parametrize("name", cases.REWARDS)
def test_the_call_site_gets_the_value(seen, name):
    found = seen["call_site"][name]
    values = [
        cases.REWARDS[name](row)
        if cases.REWARDS[name]
        else rewards.tiny_model.call_sync(responses=[row.response])[0]
        for row in cases.ROWS
    ]
    assert found["rewards"] == pytest.approx(values, rel=SINGLE)
    rows = adapter.seen_in(found["name"], found["rewards"], dict(found["columns"]))
    assert {row.kind for row in rows} == {"score"}
    if name == "composite":
        assert [row.components["tidy"] is None for row in rows] == [
            row.judge == "down" for row in cases.ROWS
        ]


@pytest.mark.parametrize("fault", ["crashed", "raised", "non_finite", "bad_input", "abstention"])
def test_a_masked_row_is_none(seen, fault):
    found = seen["call_site"][f"{fault} masked"]
    assert found["rewards"] == [1.0, None, 1.0]
    kind, blame = cases.FAULTS.get(fault, ("", ""))
    text = "abstention" if fault == "abstention" else f"failure: {kind} ({blame})"
    assert found["columns"] == {"faulty/outcome": ["score", text, "score"]}


@pytest.mark.parametrize("fault", ["crashed", "raised", "non_finite", "bad_input"])
def test_a_failure_raises_by_default(seen, fault):
    assert f"faulty: {cases.FAULTS[fault][0]}" in seen["call_site"][f"{fault} raises"]


@pytest.mark.parametrize("run", ["grpo", "grpo_chat", "rloo"])
def test_two_steps_of_training(seen, run):
    found = seen[run]
    assert found["names"] == ["correct_and_tidy", "lottery"]
    assert [call["step"] for call in found["calls"]] == [0, 1]
    for call in found["calls"]:
        assert len(call["completions"]) == 2 * GROUP
        for text, judge, number, row in zip(
            call["completions"], call["judges"], call["numbers"], call["rewards"], strict=True
        ):
            tidy = float(text == text.strip())
            assert row[0] == (0.0 if judge == "down" else 0.25 * tidy)
            if number % 3 == 2:
                assert row[1] is None
            else:
                assert row[1] == pytest.approx((len(text) + call["step"]) % 7 / 7, rel=SINGLE)


@pytest.mark.parametrize("run", ["grpo", "grpo_chat", "rloo"])
def test_metrics_and_columns(seen, run):
    found = seen[run]
    for entry, call in zip(found["log"], found["calls"], strict=True):
        mean = statistics.fmean(row[0] for row in call["rewards"])
        assert entry["rewards/correct_and_tidy/mean"] == pytest.approx(mean, rel=SINGLE)
        assert entry["correct_and_tidy/failed"] == entry["correct_and_tidy/assigned"] == 0.0
        assert entry["correct_and_tidy/correct"] == 0.0
        masked = statistics.fmean(row[1] is None for row in call["rewards"])
        assert entry["lottery/masked"] == pytest.approx(masked)
    assert set(found["extra"]) == {
        "correct_and_tidy/outcome",
        "correct_and_tidy/correct",
        "correct_and_tidy/tidy",
        "lottery/outcome",
    }
    assert {len(column) for column in found["extra"].values()} == {found["rows"]}


@pytest.mark.parametrize("run", ["grpo_masked", "rloo_masked"])
def test_masked_rows_leave_the_baseline(seen, run):
    lost = 0
    for call in seen[run]["calls"]:
        numbers = [row[0] for row in call["rewards"]]
        assert [number is None for number in numbers] == [
            len(text) % 2 == 0 for text in call["completions"]
        ]
        lost += numbers.count(None)
        for number, advantage in zip(numbers, call["advantages"], strict=True):
            assert math.isfinite(advantage)
            assert number is not None or advantage == 0.0
        for start in range(0, 2 * GROUP, GROUP):
            check_baseline(run, call, slice(start, start + GROUP))
    assert 0 < lost < 4 * GROUP


def check_baseline(run, call, group):
    """The baseline of a group is made of its scored rows alone."""
    numbers, advantages = [row[0] for row in call["rewards"]][group], call["advantages"][group]
    scored = [number for number in numbers if number is not None]
    if len(scored) < 2:
        assert advantages == [0.0] * GROUP
        return
    for number, advantage in zip(numbers, advantages, strict=True):
        if number is None:
            continue
        if run == "grpo_masked":
            spread = statistics.stdev(scored) + 1e-4
            baseline = statistics.fmean(scored)
        else:  # leave one out; the tolerance covers the KL term
            spread = 1.0
            baseline = (sum(scored) - number) / (len(scored) - 1)
        assert advantage == pytest.approx((number - baseline) / spread, abs=1e-3)


def test_masking_beside_other_functions_is_refused(seen):
    assert seen["refused"].startswith("ConfigError")
    assert "count the missing one as 0" in seen["refused"]


def test_trl_tells_coroutine_functions_from_plain_ones(seen):
    assert seen["forms"] == {
        f"{kind} {step}": ["correct_and_tidy", kind == "async"]
        for kind in ("async", "sync")
        for step in ("made", "copied")
    }


def test_evaluation_has_its_own_groups_and_policy(seen):
    found = seen["evaluation"]
    assert found["groups"] == [[list("00001111"), "train"], [list("00112233"), "eval"]]
    train, evaluated = found["train"], found["eval"]
    assert train["some/masked"] == train["some/failed"] > 0 == train["some/assigned"]
    assert evaluated["eval_some/assigned"] == evaluated["eval_some/failed"] > 0
    assert evaluated["eval_some/masked"] == 0


def test_the_weights_of_the_trainer(seen):
    """What does not apply (None) is left out of TRL's weighted sum; both functions are ours."""
    for entry, call in zip(seen["weighted"]["log"], seen["weighted"]["calls"], strict=True):
        sums = [2.0 * (first or 0.0) + 0.5 * second for first, second in call["rewards"]]
        assert entry["reward"] == pytest.approx(statistics.fmean(sums), rel=1e-5)


def test_a_run_that_goes_on_goes_on_at_its_step(seen):
    assert seen["resumed"] == [[0.0], [0.0, 1.0]]


def test_environments_reach_the_reward_one_by_one(seen):
    assert seen["environments"] == [float(row) for row in range(len(cases.ROWS))]


def test_async_grpo_scores_a_group_with_functions_out_of_a_pickle(seen):
    rows = cases.ROWS[:4]
    assert seen["async_grpo"]["names"] == ["correct_and_tidy", "letters"]
    composite, letters = seen["async_grpo"]["rewards"]
    assert composite == [cases.REWARDS["composite"](row) for row in rows]
    assert letters == [float(len(row.response)) for row in rows]
