"""`guerdon init trainer NAME`: each trainer's own code takes the files, in its own environment."""

from pathlib import Path

import pytest

from guerdon.registry import load_file

interpreter = load_file(str(Path(__file__).with_name("parity") / "interpreter.py"))

RIGHT_AND_WRONG = pytest.approx([1.0, 0.1])
"""Right and brief; brief alone."""


@pytest.mark.parametrize("trainer", ["areal", "openrlhf", "skyrl", "verifiers", "verl"])
def test_the_trainer_takes_the_files(trainer, tmp_path):
    seen = interpreter.drive(trainer, tmp_path, "starter_contract.py", trainer)
    assert seen["rewards"] == RIGHT_AND_WRONG
    if trainer == "areal":
        assert seen["by path"] == RIGHT_AND_WRONG
    if trainer == "openrlhf":  # its own parser and its own checks of the command line
        url = f"{tmp_path}/a (run)'s/reward.py"
        assert seen["config"] == {"url": [url], "label": "ground_truth"}
    if trainer == "verl":
        assert seen["config"] == ["verl.trainer.main_ppo", "guerdon", 1]


def test_trl_trains_with_the_files(tmp_path):
    seen = interpreter.drive("trl", tmp_path, "starter_contract.py", "trl")
    first, *steps = seen["tiny"]
    assert first == "on the CPU, completions of at most 16 tokens"
    assert [line.partition(":")[0] for line in steps] == ["step 1", "step 2"]
    assert all("failed 0.000" in line for line in steps)
    assert seen["given"][0].endswith("completions of at most 8 tokens")
    # Whether there is an accelerator matters to a model that was named, not to the tiny one.
    assert seen["chosen"] == {
        "None True": [True, 16],
        "None False": [True, 16],
        "some/model True": [False, 256],
        "some/model False": [True, 256],
    }
    assert seen["masked"][1] == "step 1: reward -, correct -, digits -, failed 1.000"
