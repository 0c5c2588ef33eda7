"""SkyRL-gym's own registry makes our environment (skyrl-gym 0.4.0, in its own environment)."""

from pathlib import Path

import pytest

from guerdon.registry import load_file

PARITY = Path(__file__).with_name("parity")
cases = load_file(str(PARITY / "cases.py"))
rewards = load_file(str(PARITY / "rewards.py"))
interpreter = load_file(str(PARITY / "interpreter.py"))

FAULTS = [*cases.FAULTS, "abstention"]


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    return interpreter.drive("skyrl", tmp_path_factory.mktemp("skyrl"))


def expected(name):
    if name == "tiny_model":
        return [rewards.tiny_model.call_sync(responses=[row.response])[0] for row in cases.ROWS]
    return [cases.REWARDS[name](row) for row in cases.ROWS]


@pytest.mark.parametrize("place", ["", " pool"])
@pytest.mark.parametrize("name", cases.REWARDS)
def test_the_step_gives_the_value_and_ends(seen, name, place):
    rows = seen[name + place]
    assert [row["reward"] for row in rows] == expected(name)
    assert all(row["done"] and row["observations"] == [] for row in rows)


def test_components_are_averaged_by_skyrl(seen):
    tidy = [float(r.response == r.response.strip()) for r in cases.ROWS if r.judge == "up"]
    assert seen["averaged"]["component/correct"] == pytest.approx(0.5)
    assert seen["composite"][4]["metrics"].get("component/tidy") is None
    assert len(tidy) == sum("component/tidy" in row["metrics"] for row in seen["composite"])


@pytest.mark.parametrize("fault", FAULTS)
def test_a_failure_raises_in_its_own_step(seen, fault):
    whole, found, other = seen[f"{fault} raises"]
    assert whole["reward"] == other["reward"] == 1.0
    assert found.startswith("ScoringFailed")
    if fault != "abstention":
        kind, blame = cases.FAULTS[fault]
        assert f"faulty: {kind} ({blame})" in found


@pytest.mark.parametrize("fault", FAULTS)
def test_the_neutral_number_is_flagged(seen, fault):
    rows = seen[f"{fault} neutral"]
    assert [row["reward"] for row in rows] == [1.0, 0.125, 1.0]
    failed = float(fault != "abstention")
    assert rows[1]["metrics"] == {"guerdon_failed": failed, "guerdon_assigned": 1.0}


def test_a_configuration_that_cannot_work(seen):
    assert "the environment has no reward" in seen["no reward"]
    assert "did you mean 'neutral'" in seen["typo"]
