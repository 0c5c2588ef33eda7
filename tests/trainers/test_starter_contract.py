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
        assert seen["config"] == {"url": [f"{tmp_path}/run/reward.py"], "label": "ground_truth"}
    if trainer == "verl":
        assert seen["config"] == ["verl.trainer.main_ppo", "guerdon", 1]


def test_trl_trains_with_the_files(tmp_path):
    seen = interpreter.drive("trl", tmp_path, "starter_contract.py", "trl")
    assert [line.partition(":")[0] for line in seen["steps"]] == ["step 1", "step 2"]
    assert all("failed 0.000" in line for line in seen["steps"])
