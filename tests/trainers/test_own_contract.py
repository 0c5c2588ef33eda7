"""Reward functions that trainers ship load unchanged, each in its trainer's own environment."""

from pathlib import Path

import pytest

from guerdon.registry import load_file

interpreter = load_file(str(Path(__file__).with_name("parity") / "interpreter.py"))


@pytest.mark.parametrize(
    ("trainer", "functions"), [("verl", 7), ("trl", 2), ("areal", 3), ("openrlhf", 1)]
)
def test_they_give_what_they_give_to_their_trainer(trainer, functions, tmp_path):
    seen = interpreter.drive(trainer, tmp_path, "own_contract.py", trainer)
    assert len(seen) == functions
    for name, found in seen.items():
        assert found["ours"] == found["theirs"], (name, found["messages"])
        assert len(set(found["theirs"])) > 1, name
