"""verl's numbers: against recorded ones always, against verl itself where it is installed.

Set GUERDON_VERL_PYTHON to an interpreter that has verl 0.9.1 and mathruler 0.1.0.
"""

import json
import os
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from guerdon.rules.compat import geo3k, prime, rlla, verl

HERE = Path(__file__).parent
RECORDER = HERE / "record_verl.py"
RECORDED = HERE / "recorded_verl.jsonl"


def _rlla(response: str, truth: str, extra: dict[str, str]) -> dict[str, float]:
    family = "llama" if "llama" in extra["experiment_name"] else "qwen"
    turn = rlla.last_turn(response, family)
    form, right = rlla.format_score(turn, truth), rlla.correctness(turn, truth)
    return {"score": form + right, "format_reward": form, "accuracy_reward": right}


def _dapo(response: str, truth: str, strict: bool = False) -> dict[str, Any]:
    right, read = verl.dapo_verdict(response, truth, strict)
    return {"score": 1.0 if right else -1.0, "acc": right, "pred": read}


def _search(response: str, truth: dict[str, Any], substring: bool = False) -> float:
    target = truth["target"]
    golds = [target] if isinstance(target, str) else target
    return verl.search_r1_score(response, golds, substring)


OURS: dict[str, Callable[..., Any]] = {
    "gsm8k_strict": lambda s, g: verl.gsm8k_score(s, g, "strict"),
    "gsm8k_flexible": lambda s, g: verl.gsm8k_score(s, g, "flexible"),
    "math_reward": verl.hendrycks_score,
    "math_dapo": _dapo,
    "math_dapo_strict": lambda s, g: _dapo(s, g, strict=True),
    "search_r1": _search,
    "search_r1_substring": lambda s, g: _search(s, g, substring=True),
    "rlla": _rlla,
    "geo3k": geo3k.score,
    "prime_math": lambda s, g: prime.is_right(prime.stated_answer(s), g),
}


def differences(lines: Iterable[str]) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """The calls on which we differ, and how many calls there were per rule."""
    wrong: list[dict[str, Any]] = []
    seen: dict[str, int] = {}
    for line in lines:
        row = json.loads(line)
        seen[row["rule"]] = seen.get(row["rule"], 0) + 1
        ours = OURS[row["rule"]](*row["arguments"])
        if ours != row["result"]:
            wrong.append({**row, "ours": ours})
    return wrong, seen


def test_recorded_numbers_of_verl() -> None:
    wrong, seen = differences(RECORDED.read_text().splitlines())
    assert wrong == []
    assert seen.keys() == OURS.keys()
    assert min(seen.values()) >= 100


def test_the_record_holds_right_and_wrong_answers_of_every_rule() -> None:
    rows = [json.loads(line) for line in RECORDED.read_text().splitlines()]
    for rule in OURS:
        results = [row["result"] for row in rows if row["rule"] == rule]
        values = [r["score"] if isinstance(r, dict) else float(r) for r in results]
        assert min(values) < max(values), rule
        assert sum(v == max(values) for v in values) >= len(values) // 20, rule


@pytest.mark.skipif(
    "GUERDON_VERL_PYTHON" not in os.environ,
    reason="GUERDON_VERL_PYTHON does not name an interpreter with verl 0.9.1",
)
@pytest.mark.parametrize("seed", [101, 102])
def test_verl_itself(seed: int, tmp_path: Path) -> None:
    command = [os.environ["GUERDON_VERL_PYTHON"], str(RECORDER)]
    command += ["--count", "1500", "--slow", "150", "--seed", str(seed)]
    # verl's import looks at the current folder, so it runs in an empty one.
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
    wrong, seen = differences(done.stdout.splitlines())
    assert wrong == []
    assert seen["prime_math"] == 150
