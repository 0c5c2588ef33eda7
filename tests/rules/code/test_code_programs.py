"""Programs on standard input and output, in every language, with the engine of this machine."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest
from programs import ADD, SHORT, SUMS, fenced, python, stdio

from guerdon.errors import BadInput, Unavailable
from guerdon.rules.code import testing
from guerdon.rules.code.form_reward import CodeLint, CodeSyntax

pytestmark = pytest.mark.usefixtures("any_sandbox")

BROKEN = {
    "python": "a, b = map(int, input().split())\nprint(a +",
    "javascript": "const [a, b] = ;",
    "cpp": "int main() { return x; }",
    "bash": "if then",
}
TOOLS = {"python": "sh", "javascript": "node", "cpp": "g++", "bash": "bash"}


def need(language: str) -> None:
    if shutil.which(TOOLS[language]) is None:
        pytest.skip(f"{TOOLS[language]} is not installed")


@pytest.mark.parametrize("language", SUMS)
def test_languages(language: str) -> None:
    need(language)
    code = SUMS[language]
    assert stdio(code, ADD, language)["score"] == 1.0
    assert stdio(code.replace("a + b", "a - b"), ADD, language)["score"] == 0.0
    broken = stdio(BROKEN[language], ADD, language)
    assert broken["score"] == 0.0


@pytest.mark.parametrize("language", SUMS)
def test_syntax_of_languages(language: Any) -> None:
    need(language)
    reward = CodeSyntax(language=language)
    assert reward.call_sync(response=fenced(SUMS[language], language))["score"] == 1.0
    result = reward.call_sync(response=fenced(BROKEN[language], language))
    assert result["score"] == 0.0
    assert result["info"]["message"]


@pytest.mark.parametrize(
    ("code", "passed", "status"),
    [
        (SUMS["python"], 3, "passed"),
        ("a, b = map(int, input().split())\nprint(a + b if a < 5 else 0)", 2, "wrong"),
        ("a, b = map(int, input().split())\nprint(a + b)\nif a > 1: 1 / 0", 1, "nonzero"),
        ("a, b = map(int, input().split())\nwhile a == 3: pass\nprint(a + b)", 1, "timeout"),
        ("import sys\na, b = map(int, sys.stdin)\n", 0, "nonzero"),
        ("print(3)", 1, "wrong"),
        ("import sys\nprint(3)\nsys.exit(1)", 0, "nonzero"),
        ("import sys\nprint(sum(map(int, sys.stdin.buffer.read().split())))\nsys.exit()", 3,
         "passed"),
        ("import threading\nthreading.Thread(target=lambda: print("
         "sum(map(int, input().split())))).start()", 3, "passed"),
        ("import atexit\natexit.register(lambda: print(sum(map(int, input().split()))))", 3,
         "passed"),
        ("print(sum(map(int, open(0).read().split())))", 3, "passed"),
        ("x = [0] * 10**10", 0, "memory"),
        ("import os\nos.abort()", 0, "signalled"),
        ("import sys\nsys.stdout.write('x' * 10**8)", 0, None),
        ("import ctypes\nctypes.CDLL(None).ptrace(0, 0, 0, 0)", 0, "forbidden"),
        ("\0", 0, "broken"),
    ],
)  # fmt: skip
def test_partial_credit_of_programs(code: str, passed: int, status: str | None) -> None:
    result = stdio(code, ADD, credit="fraction", **SHORT)
    assert result["score"] == pytest.approx(passed / 3), result
    assert status is None or result["info"]["status"] == status, result
    assert result["metrics"] == {"passed": passed, "cases": 3}
    assert stdio(code, ADD, **SHORT)["score"] == float(passed == 3)


def test_a_loop_costs_one_deadline() -> None:
    many = {"inputs": ["1"] * 50, "outputs": ["1"] * 50}
    result = stdio("while True: pass", many, credit="fraction", case_seconds=0.5)
    assert result["info"]["message"] == "case 0 took longer than 0.5 s"
    assert result["score"] == 0.0


def test_all_cases_together_have_a_limit() -> None:
    many = {"inputs": ["1"] * 50, "outputs": [""] * 50}
    code = "import time\ntime.sleep(0.2)"
    result = stdio(code, many, credit="fraction", case_seconds=30, program_seconds=1)
    assert "all cases together took longer than 1 s" in result["info"]["message"]
    assert 0.0 < result["score"] < 1.0


def test_cases_of_many_megabytes(monkeypatch: pytest.MonkeyPatch) -> None:
    many = {"inputs": ["7" * (6 << 20)] * 3, "outputs": [str(6 << 20)] * 3}
    assert stdio("print(len(input()))", many)["score"] == 1.0
    monkeypatch.setattr(testing, "JOB_BYTES", 17 << 20)
    with pytest.raises(BadInput, match="too large"):
        stdio("print(1)", many)


@pytest.mark.parametrize("language", ["python", "javascript", "cpp", "bash"])
def test_programs_too_long_to_be_read_for_their_form(language: Any) -> None:
    code = fenced("# no end\n" * (8 << 20), language)
    rewards = [CodeSyntax(language=language), *([CodeLint()] if language == "python" else [])]
    for reward in rewards:
        result = reward.call_sync(response=code)
        assert (result["score"], result["info"]["status"]) == (0.0, "too_long")
        assert "1048576" in result["info"]["message"]


def test_usual_names_and_ends_of_programs() -> None:
    code = "print(sum(map(int, input().split())))\nexit()"
    assert stdio(code, ADD)["score"] == 1.0
    code = "def f(x: List[int]) -> int: return deque(x).pop() + gcd(4, 6)"
    truth = {"fn_name": "f", "inputs": [[[1, 2]]], "outputs": [4]}
    assert stdio(code, truth)["score"] == 1.0
    assert stdio(code, truth, usual_imports=False)["score"] == 0.0
    assert python(code, "assert f([1, 2]) == 4")["score"] == 1.0
    assert python(code, "assert f([1, 2]) == 4", usual_imports=False)["score"] == 0.0
    assert python(code, truth)["score"] == 1.0
    assert python("print(gcd)", "assert gcd(4, 6) == 2")["info"]["status"] == "broken"
    own = "gcd = lambda a, b: 5\ndef f(x): return gcd(4, 6)"
    assert python(own, "assert f(1) == 5", usual_imports=True)["score"] == 1.0


def test_verls_assertions() -> None:
    truth = {"assert_case": ["assert f(1) == 1", "assert f(2) == 4"]}
    assert python("def f(x): return x * x", json.dumps(truth))["score"] == 1.0
    assert python("def f(x): return x", truth, credit="fraction")["score"] == 0.5


def test_calls_of_a_function() -> None:
    truth = {"fn_name": "f", "inputs": [[1, 2], [3, 4]], "outputs": [[1, 2], [3, 4]]}
    assert stdio("def f(a, b): return a, b", truth)["score"] == 1.0
    method = "class Solution:\n    def f(self, a, b): return [a, b]"
    assert stdio(method, truth)["score"] == 1.0
    half = stdio("def f(a, b): return [1, b]", truth, credit="fraction")
    assert half["score"] == 0.5
    assert stdio("def g(): pass", truth)["info"]["status"] == "broken"
    with pytest.raises(BadInput, match="only Python"):
        stdio("x", truth, "bash")


def test_output_that_is_no_text() -> None:
    code = "import os\nos.write(1, b'\\xff\\x00')"
    assert stdio(code, {"inputs": [""], "outputs": ["x"]})["score"] == 0.0


def test_language_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("guerdon.rules.code.language.SEARCH_PATH", "/nowhere")
    with pytest.raises(Unavailable, match="node, which is not in /nowhere"):
        stdio("x", ADD, "javascript")
