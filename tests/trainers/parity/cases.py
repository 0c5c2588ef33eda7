"""What every trainer's adapter must do: samples with their values, and failures by kind.

To add a trainer, write `TRAINER_adapter.py` beside this file (see `adapter.py` for what it holds):
it is found by its name.
"""

from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent

ADAPTERS = tuple(sorted(path.stem.removesuffix("_adapter") for path in HERE.glob("*_adapter.py")))
"""All trainers, and `service`: no trainer at all."""

HOSTED = ("rule", "composite", "tiny_model", "faulty", "candidate_faulty")
"""Rewards that the parity tests also ask a server for."""


def reference(name: str) -> str:
    """A reward of `rewards.py`, as a configuration names it."""
    return f"{HERE / 'rewards.py'}:{name}"


class Row(NamedTuple):
    """One sample, and what the rule and the composite give for it."""

    name: str
    prompt: str
    response: str
    ground_truth: str
    rule: float
    composite: float
    judge: str = "up"
    fault: str = ""
    data_source: str = "openai/gsm8k"


ROWS = (
    # Two groups of four rows: prompts are equal within a group and differ between them.
    Row("right", "6*7?", "6*7 is 42\n#### 42", "42", 1.0, 1.0),
    Row("wrong", "6*7?", "6*7 is 41\n#### 41", "42", 0.0, 0.25),
    Row("untidy", "6*7?", "  #### 42 ", "42", 1.0, 0.75),
    Row("empty", "6*7?", "", "42", 0.0, 0.25),
    Row("judge down", "10,000/8?", "#### 1,250", "1250", 1.0, 1.0, judge="down"),
    Row("wrong, judge down", "10,000/8?", "#### 1", "1250", 0.0, 0.0, judge="down"),
    Row("unicode", "10,000/8?", "Résultat : 1 250 € 🙂\n#### 1250", "1250", 1.0, 1.0),
    Row("no answer", "10,000/8?", "I do not know.", "1250", 0.0, 0.25),
)

REWARDS = {
    "rule": lambda row: row.rule,
    "composite": lambda row: row.composite,
    "tiny_model": None,
}
"""References of rewards to what they give; None where a direct call says it."""

FAULTS = {
    # fault of the sample: (failure kind, blame)
    "timeout": ("timeout", "scorer"),
    "crashed": ("crashed", "scorer"),
    "raised": ("raised", "scorer"),
    "non_finite": ("non_finite", "scorer"),
    "bad_output": ("bad_output", "scorer"),
    "out_of_range": ("bad_output", "scorer"),
    "bad_input": ("bad_input", "data"),
    "unavailable": ("unavailable", "infrastructure"),
    "overloaded": ("overloaded", "infrastructure"),
    "cancelled": ("cancelled", "infrastructure"),
}

KILLING = ("timeout", "crashed")
"""Faults that cost a worker process."""


def told(fault: str) -> str:
    """The fault of the same kind that costs no worker: the reward says that it is so."""
    return f"told {fault}" if fault in KILLING else fault


CANDIDATE_FAULTS = ("timeout", "crashed")
"""Faults that `candidate_faulty` declares: what a candidate causes earns the worst end, flagged."""


def rows_with(fault: str) -> list[Row]:
    """Three rows of one group; the one in the middle has the fault."""
    whole = Row("whole", "p", "a", "a", 0.0, 0.0)
    return [whole, whole._replace(name="faulty", response="b", fault=fault), whole]
