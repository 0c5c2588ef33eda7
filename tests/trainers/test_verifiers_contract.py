"""verifiers' own `Task.score` calls our functions (verifiers 0.4.0, in its own environment)."""

from pathlib import Path

import pytest

from guerdon.registry import load_file

PARITY = Path(__file__).with_name("parity")
cases = load_file(str(PARITY / "cases.py"))
rewards = load_file(str(PARITY / "rewards.py"))
interpreter = load_file(str(PARITY / "interpreter.py"))

FAULTS = [*cases.FAULTS, "abstention"]


@pytest.fixture(scope="module")
def seen(tmp_path_factory, parity_server):
    folder = tmp_path_factory.mktemp("verifiers")
    return interpreter.drive("verifiers", folder, None, parity_server)


def expected(name):
    if name == "tiny_model":
        return [rewards.tiny_model.call_sync(responses=[row.response])[0] for row in cases.ROWS]
    return [cases.REWARDS[name](row) for row in cases.ROWS]


@pytest.mark.parametrize("place", ["", " pool", " remote"])
@pytest.mark.parametrize("name", cases.REWARDS)
def test_the_trace_gets_the_value_and_its_weight(seen, name, place):
    found = [row["reward"] for row in seen[name + place]]
    assert found == [[value, 0.5] for value in expected(name)]


def test_components_are_metrics_of_the_trace(seen):
    for row, found in zip(cases.ROWS, seen["composite"], strict=True):
        metrics = {
            "correct_and_tidy/correct": row.rule,
            "correct_and_tidy/tidy": float(row.response == row.response.strip()),
            "correct_and_tidy/failed": 0.0,
            "correct_and_tidy/assigned": 0.0,
        }
        if row.judge == "down":
            del metrics["correct_and_tidy/tidy"]
        assert found["metrics"] == metrics


@pytest.mark.parametrize("fault", FAULTS)
def test_a_failure_is_an_error_of_the_trace(seen, fault):
    whole, found, other = seen[f"{fault} raises"]
    assert whole["reward"] == other["reward"] == [1.0, 0.5]
    assert found["reward"] is None
    told = "name one with neutral="
    if fault != "abstention":
        kind, blame = cases.FAULTS[fault]
        told = f"faulty: {kind} ({blame})"
    assert told in found["error"]


@pytest.mark.parametrize("fault", FAULTS)
def test_the_neutral_number_is_flagged(seen, fault):
    rows = seen[f"{fault} neutral"]
    assert [row["reward"][0] for row in rows] == [1.0, 0.125, 1.0]
    flags = {"faulty/failed": float(fault != "abstention"), "faulty/assigned": 1.0}
    assert rows[1]["metrics"] == flags


def test_turns_with_tools_are_messages(seen):
    assert seen["turns"]["error"] is None
    assert seen["turns"]["reward"][0] == 1.0
    assert "no message of the model" in seen["nothing said"]["error"]
