"""verl's own managers, loop and metrics call our functions (verl 0.9.1, in its own environment)."""

from pathlib import Path

import pytest

from guerdon.registry import load_file

PARITY = Path(__file__).with_name("parity")
cases = load_file(str(PARITY / "cases.py"))
rewards = load_file(str(PARITY / "rewards.py"))
interpreter = load_file(str(PARITY / "interpreter.py"))
adapter = load_file(str(PARITY / "verl_adapter.py"))

FIXED = ["score", "acc", "guerdon_outcome", "guerdon_failure", "guerdon_assigned"]
COMPONENTS = ["component/correct", "component/tidy"]


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    return interpreter.drive("verl", tmp_path_factory.mktemp("verl"))


def expected(name):
    if name == "tiny_model":
        return [rewards.tiny_model.call_sync(responses=[row.response])[0] for row in cases.ROWS]
    return [cases.REWARDS[name](row) for row in cases.ROWS]


@pytest.mark.parametrize("manager", ["naive", "dapo", "gdpo", "rate_limited"])
@pytest.mark.parametrize("name", cases.REWARDS)
def test_every_manager_gets_the_value(seen, manager, name):
    rows = seen["in_process"][f"{manager} {name}"]
    assert [row["reward_score"] for row in rows] == expected(name)
    keys = FIXED + (COMPONENTS if name == "composite" else [])
    assert all(list(row["reward_extra_info"]) == keys for row in rows)


def test_scores_are_placed_by_verl(seen):
    assert seen["in_process"]["assembled"] == expected("composite")


def test_validation_metrics_leave_missing_components_out(seen):
    metrics = seen["in_process"]["validation"]["openai/gsm8k"]
    tidy = [float(r.response == r.response.strip()) for r in cases.ROWS if r.judge == "up"]
    assert metrics["acc"]["mean@4"] == pytest.approx(sum(expected("composite")) / len(cases.ROWS))
    assert metrics["component/correct"]["mean@4"] == pytest.approx(0.5)
    # verl averages within each prompt first, and leaves None out: the two groups differ in size.
    assert metrics["component/tidy"]["mean@4"] == pytest.approx(sum(tidy[:4]) / 4)
    assert metrics["component/tidy"]["mean@2"] == pytest.approx(sum(tidy[4:]) / 2)
    assert "guerdon_outcome" not in metrics
    assert metrics["guerdon_assigned"]["mean@4"] == 0.0


@pytest.mark.parametrize("fault", ["crashed", "raised", "non_finite", "bad_input", "abstention"])
def test_failures_raise_for_their_own_row(seen, fault):
    whole, found, other = seen["failing"][f"{fault} raises"]
    assert whole["reward_score"] == other["reward_score"] == 1.0
    assert isinstance(found, str)
    assert found.startswith("ScoringFailed")
    assert ("neutral=" if fault == "abstention" else cases.FAULTS[fault][0]) in found


@pytest.mark.parametrize("fault", ["crashed", "raised", "non_finite", "bad_input", "abstention"])
def test_the_neutral_number_is_flagged(seen, fault):
    rows = seen["failing"][f"{fault} neutral"]
    infos = [row["reward_extra_info"] for row in rows]
    assert [list(info) for info in infos] == [FIXED] * 3
    assert [row["reward_score"] for row in rows] == [1.0, 0.125, 1.0]
    assert [info["guerdon_assigned"] for info in infos] == [0.0, 1.0, 0.0]
    found = adapter.seen_in(infos[1])
    if fault == "abstention":
        assert (found.kind, found.text) == ("abstention", "")
    else:
        kind, blame = cases.FAULTS[fault]
        assert (found.kind, found.text) == ("failure", f"{kind} ({blame})")


@pytest.mark.parametrize("way", ["page", "auto"])
def test_the_lines_of_the_page(seen, way):
    rows = seen["command_line"][way]
    assert [row["reward_score"] for row in rows] == expected("rule")
    assert list(rows[0]["reward_extra_info"]) == FIXED


def test_settings_on_the_command_line(seen):
    rows = seen["command_line"]["settings"]
    assert [row["reward_score"] for row in rows] == expected("rule")
    keys = [key for key in FIXED if key != "acc"]
    assert list(rows[0]["reward_extra_info"]) == [*keys, "component/correct"]


def test_a_file_of_the_users_own(seen):
    rows = seen["other_ways"]["file"]
    exact = [float(row.response.split()[-1:] == [row.ground_truth]) for row in cases.ROWS]
    assert [row["reward_score"] for row in rows] == exact
    assert "acc" not in rows[0]["reward_extra_info"]


def test_positional_calls_of_main_eval(seen):
    assert seen["other_ways"]["positional"] == expected("rule")


def test_a_misspelt_setting_is_an_error(seen):
    assert "no setting 'rewrad' (did you mean 'reward'?)" in seen["other_ways"]["typo"]


@pytest.mark.parametrize("way", ["composite", "remote"])
def test_the_reward_loop_on_ray(seen, way):
    found = seen["ray"][way]
    assert found["scores"] == found["extra"]["score"] == expected("composite")[:-1]
    assert list(found["extra"]) == FIXED + COMPONENTS
    assert found["extra"]["component/tidy"][4:6] == [None, None]


def test_a_failure_stops_the_step_on_ray(seen):
    assert "faulty: raised (scorer): ValueError: a bug in the reward" in seen["ray"]["raised"]
