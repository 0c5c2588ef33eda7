"""OpenRLHF's own executor calls a `reward_func` file (OpenRLHF 0.11.2, in its own environment).

The other dialect of the same option, a server's URL, is held by `test_scalar_dialect_contracts.py`.
"""

import math
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
    folder = tmp_path_factory.mktemp("openrlhf")
    return interpreter.drive("openrlhf", folder, None, parity_server)


def expected(name):
    if name == "tiny_model":
        return [rewards.tiny_model.call_sync(responses=[row.response])[0] for row in cases.ROWS]
    return [cases.REWARDS[name](row) for row in cases.ROWS]


@pytest.mark.parametrize("place", ["", " pool", " remote"])
@pytest.mark.parametrize("name", cases.REWARDS)
def test_the_executor_gets_bare_numbers(seen, name, place):
    assert [row["reward"] for row in seen[name + place]] == expected(name)
    assert [row["scores"] for row in seen[name + place]] == expected(name)


def test_each_rollout_logs_the_same_keys(seen):
    """OpenRLHF refuses a batch in which the lengths of two keys differ."""
    for row, found in zip(cases.ROWS, seen["composite"], strict=True):
        tidy = math.nan if row.judge == "down" else float(row.response == row.response.strip())
        flags = {"guerdon_failed": 0.0, "guerdon_assigned": 0.0}
        logs = {"correct": row.rule, "tidy": tidy, **flags}
        assert found["extra_logs"] == pytest.approx(logs, nan_ok=True)


def test_groups_are_filtered_by_a_component(seen):
    assert [row["scores"] for row in seen["scores"]] == [row.rule for row in cases.ROWS]
    assert [row["reward"] for row in seen["scores"]] == expected("composite")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_failure_gets_past_the_executor(seen, fault):
    whole, found, other = seen[f"{fault} raises"]
    assert whole["reward"] == other["reward"] == 1.0
    assert found.startswith("StopTraining: ScoringFailed: ")
    if fault == "abstention":
        assert "name one with neutral=" in found
    else:
        kind, blame = cases.FAULTS[fault]
        assert f"faulty: {kind} ({blame})" in found


@pytest.mark.parametrize("fault", FAULTS)
def test_the_neutral_number_is_flagged(seen, fault):
    rows = seen[f"{fault} neutral"]
    assert [row["reward"] for row in rows] == [1.0, 0.125, 1.0]
    failed = float(fault != "abstention")
    flags = {"guerdon_failed": failed, "guerdon_assigned": 1.0}
    assert rows[1]["extra_logs"] == flags
