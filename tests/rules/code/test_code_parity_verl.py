"""The verdicts of `code_stdio` beside those of verl's own `prime_code`, on honest programs.

Set GUERDON_VERL_PYTHON to the interpreter of `scripts/trainer-venv verl`.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from guerdon.rules.code.stdio_reward import CodeStdio

pytestmark = pytest.mark.usefixtures("any_sandbox")

SCORE = """
import json, sys
sys.path.insert(0, sys.argv[1])
from prime_code import compute_score
for line in sys.stdin:
    completion, truth = json.loads(line)
    sys.stderr.write(str(float(compute_score(completion, truth, continuous=True)[0])) + "\\n")
"""

ADD = {"inputs": ["1 2\n", "3 4\n"], "outputs": ["3\n", "7\n"]}
HALVES = {"inputs": ["1\n", "3\n"], "outputs": ["0.5\n", "1.5\n"]}
LINES = {"inputs": ["2\n", "3\n"], "outputs": ["0\n1\n", "0\n1\n2"]}
LISTED = {"inputs": [["1", "2"]], "outputs": [["3"]]}
SUMS = {"fn_name": "total", "inputs": ["1\n2", "3\n4"], "outputs": ["3", "7"]}
PAIRS = {"fn_name": "pair", "inputs": ["1\n2"], "outputs": ["[1, 2]"]}
WRAPPED = {"fn_name": "twice", "inputs": ["3"], "outputs": ["[6]"]}
TRUTHS = {"fn_name": "even", "inputs": ["3", "4"], "outputs": ["false", "true"]}
TEXTS = {"fn_name": "greet", "inputs": ['"you"'], "outputs": ['"hi you"']}
KEYS = {"fn_name": "keys", "inputs": ['{"1": 2, "3": 4}'], "outputs": ["[1, 3]"]}

HONEST: dict[str, tuple[str, Any]] = {
    "prints": ("a, b = map(int, input().split())\nprint(a + b)", ADD),
    "reads all": ("import sys\nprint(sum(map(int, sys.stdin.read().split())))", ADD),
    "reads a line": ("import sys\nprint(sum(map(int, sys.stdin.readline().split())))", ADD),
    "has a main": (
        "def main():\n    print(sum(map(int, input().split())))\n\n"
        "if __name__ == '__main__':\n    main()",
        ADD,
    ),
    "imports nothing": ("print(reduce(add, map(int, input().split())))", ADD),
    "imports no module": ("print(sum(map(int, sys.stdin.readline().split())))", ADD),
    "ends with spaces": ("print(sum(map(int, input().split())), '')", ADD),
    "wrong by one": ("print(sum(map(int, input().split())) + 1)", ADD),
    "right once": ("a, b = map(int, input().split())\nprint(a * b + 1)", ADD),
    "raises": ("1 / 0", ADD),
    "no syntax": ("print(", ADD),
    "exits": ("import sys\nprint(sum(map(int, input().split())))\nsys.exit()", ADD),
    "a decimal number": ("print(int(input()) / 2)", HALVES),
    "a whole number as a decimal one": ("print(float(sum(map(int, input().split()))))", ADD),
    "close": ("print(int(input()) / 2 + 1e-9)", HALVES),
    "not close": ("print(int(input()) / 2 + 0.01)", HALVES),
    "lines": ("for i in range(int(input())):\n    print(i)", LINES),
    "lists of lines": ("print(int(input()) + int(input()))", LISTED),
    "deep": (
        "def depth(n):\n    return n and 1 + depth(n - 1)\n"
        "a, b = map(int, input().split())\nprint(a + b + depth(5000) - 5000)",
        ADD,
    ),
    "a function": ("def total(a, b):\n    return a + b", SUMS),
    "a method": ("class Solution:\n    def total(self, a: int, b: int) -> int: return a + b", SUMS),
    "annotations": (
        "class Solution:\n    def pair(self, a: int, b: Optional[int]) -> List[int]:\n"
        "        return list(deque([a, b]))",
        PAIRS,
    ),
    "a tuple": ("def pair(a, b): return a, b", PAIRS),
    "a wrong function": ("def total(a, b):\n    return a - b", SUMS),
    "no function": ("def plus(a, b):\n    return a + b", SUMS),
    "a value in a list": ("def twice(x): return 2 * x", WRAPPED),
    "a bool": ("def even(x): return x % 2 == 0", TRUTHS),
    "an int for a bool": ("def even(x): return 1 - x % 2", TRUTHS),
    "a text": ("def greet(x): return 'hi ' + x", TEXTS),
    "another text": ("def greet(x): return 'Hi ' + x", TEXTS),
    "whole numbers as keys": ("def keys(d): return sorted(d)", KEYS),
}


@pytest.fixture(scope="module")
def theirs() -> list[float]:
    """What verl gives to each program."""
    python = os.environ.get("GUERDON_VERL_PYTHON")
    if not python:
        pytest.skip("set GUERDON_VERL_PYTHON to the interpreter of `scripts/trainer-venv verl`")
    found = subprocess.run(
        [python, "-c", "import importlib.util as u; print(u.find_spec('verl').origin)"],
        capture_output=True,
        text=True,
        check=True,
    )
    folder = Path(found.stdout.strip()).parent / "utils" / "reward_score"
    rows = [json.dumps([fenced(code), truth]) for code, truth in HONEST.values()]
    done = subprocess.run(
        [python, "-c", SCORE, str(folder)],
        input="\n".join(rows),
        capture_output=True,
        text=True,
        check=True,
    )
    return [float(line) for line in done.stderr.splitlines() if line in ("0.0", "0.5", "1.0")]


def fenced(code: str) -> str:
    return f"So:\n```python\n{code}\n```\n"


def ours(code: str, truth: Any) -> float:
    reward = CodeStdio(credit="fraction", first=10, case_seconds=10.0)
    value: float = reward.call_sync(response=fenced(code), ground_truth=truth)["score"]
    return value


def test_the_verdicts_are_verls(theirs: list[float]) -> None:
    assert len(theirs) == len(HONEST)
    theirs[list(HONEST).index("lists of lines")] = 1.0  # verl raises on inputs that are lists
    own = [ours(code, json.dumps(truth)) for code, truth in HONEST.values()]
    assert dict(zip(HONEST, own, strict=True)) == dict(zip(HONEST, theirs, strict=True))


WRONG = ("wrong by one", "raises", "no syntax", "not close", "a wrong function", "no function",
         "another text")  # fmt: skip


@pytest.mark.parametrize("name", HONEST)
def test_honest_programs(name: str) -> None:
    """The same verdicts, where verl is not installed."""
    wanted = 0.0 if name in WRONG else 0.5 if name == "right once" else 1.0
    assert ours(*HONEST[name]) == wanted
