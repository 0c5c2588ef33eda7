"""The rewards for programs: what each kind of program earns, with the engine of this machine."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from guerdon import registry
from guerdon.backends.pool import PoolBackend
from guerdon.checking import check
from guerdon.errors import BadInput, Blame, FailureKind, InvalidReward, Unavailable
from guerdon.outcome import Failure, Score
from guerdon.policy import Policy, Retry
from guerdon.resources.sandbox import Result, Running, Sandbox, Status
from guerdon.resources.sandbox.waiting import Waiting
from guerdon.rules.code import python_reward
from guerdon.rules.code.form_reward import CodeLint, CodeSyntax
from guerdon.rules.code.python_reward import CodePython
from guerdon.rules.code.stdio_reward import CodeStdio
from guerdon.sample import Sample
from guerdon.service import RewardService

pytestmark = pytest.mark.usefixtures("any_sandbox")

SHORT = {"case_seconds": 1.0, "program_seconds": 2.0}


def fenced(code: str, tag: str = "python") -> str:
    return f"```{tag}\n{code}\n```"


def python(code: str, truth: Any, **options: Any) -> dict[str, Any]:
    return CodePython(**{**SHORT, **options}).call_sync(response=fenced(code), ground_truth=truth)


def stdio(code: str, truth: Any, language: Any = "python", **options: Any) -> dict[str, Any]:
    reward = CodeStdio(language=language, **options)
    return reward.call_sync(response=fenced(code, language), ground_truth=truth)


# -- function tests --------------------------------------------------------------------------

THREE = "assert f(1) == 1\nassert f(2) == 4\nassert f(3) == 9"


@pytest.mark.parametrize(
    ("code", "passed", "status"),
    [
        ("def f(x): return x * x", 3, "passed"),
        ("def f(x): return x", 1, "wrong"),
        ("def f(x): return {1: 1, 2: 4}[x]", 2, "wrong"),
        ("def f(x): raise ValueError", 0, "wrong"),
        ("def f(x):\n    while x == 2: pass\n    return x * x", 1, "timeout"),
        ("def f(x):\n    import os\n    if x == 3: os._exit(0)\n    return x * x", 2, "wrong"),
        ("def g(x): return x", 0, None),
        ("def f(x): return x *", 0, "broken"),
        ("raise ValueError", 0, "broken"),
        ("while True: pass", 0, "timeout"),
        ("def f(x): return bytearray(10**10)", 0, "wrong"),
        ("import ctypes\ndef f(x): ctypes.string_at(0)", 0, "signalled"),
        ("import ctypes\ndef f(x): ctypes.CDLL(None).ptrace(0, 0, 0, 0)", 0, "forbidden"),
        ("from typing import List\ndef f(x: int) -> List[int]: return x * x", 3, "passed"),
        ("from dataclasses import dataclass\n@dataclass\nclass A:\n    x: int\n"
         "def f(x): return A(x).x ** 2", 3, "passed"),
        ("f = lambda x: x * x\nif __name__ == '__main__': f = None", 3, "passed"),
        ("import sys\nsys.setrecursionlimit(10**6)\ndef f(x): return 0 if x > 0 and g(0) else 0\n"
         "def g(n): return g(n + 1)", 0, None),
    ],
)  # fmt: skip
@pytest.mark.parametrize("compared", ["here", "in a sandbox"])
def test_partial_credit_of_functions(
    code: str, passed: int, status: str | None, compared: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if compared == "in a sandbox":
        monkeypatch.setattr(python_reward, "literal_calls", lambda tests: None)
    result = python(code, THREE, credit="fraction")
    assert result["score"] == pytest.approx(passed / 3), result
    assert status is None or result["info"]["status"] == status, result
    assert python(code, THREE)["score"] == float(passed == 3)
    assert python(code, THREE, first=1)["score"] == float(passed >= 1)


def test_mbpp_rows() -> None:
    row = {
        "test_list": ["assert area(Point(1, 2)) == 2", "assert isinstance(area(Point(2, 2)), int)"],
        "test_setup_code": "LIMIT = 3",
    }
    code = "class Point:\n    def __init__(self, x, y): self.x, self.y = x, y\n"
    assert python(code + "def area(p): return p.x * p.y", row)["score"] == 1.0
    assert python(code + "def area(p): return p.x + p.y", row)["score"] == 0.0


def test_objects_iterators_and_methods() -> None:
    truth = (
        "stack = Stack()\nstack.push(3)\nassert stack.pop() == 3\nassert len(stack) == 0\n"
        "assert list(numbers(3)) == [0, 1, 2]\nassert str(stack) == 'empty'\n"
        "assert Stack() != Stack()"
    )
    code = (
        "class Stack:\n    def __init__(self): self.x = []\n"
        "    def push(self, v): self.x.append(v)\n"
        "    def pop(self): return self.x.pop()\n    def __len__(self): return len(self.x)\n"
        "    def __str__(self): return 'empty'\ndef numbers(n): yield from range(n)"
    )
    assert python(code, truth)["score"] == 1.0
    assert python(code.replace("range(n)", "range(n + 1)"), truth)["score"] == 0.0


def test_expected_exceptions() -> None:
    truth = "try:\n    f(-1)\n    assert False\nexcept ValueError:\n    assert f(1) == 1"
    code = "def f(x):\n    if x < 0: raise ValueError('negative')\n    return x"
    assert python(code, truth)["score"] == 1.0
    assert python("def f(x): return x", truth)["score"] == 0.0


def test_arguments_changed_in_place() -> None:
    truth = "x = [3, [1], {2: []}]\nf(x)\nassert x == [[1], {2: [5]}]"
    code = "def f(x):\n    x[2][2].append(5)\n    del x[0]"
    assert python(code, truth)["score"] == 0.0
    assert python(code, truth, in_place=True)["score"] == 1.0


def test_tests_that_do_not_run_are_bad_input() -> None:
    code = "def f(x): return x"
    for truth, message in (
        ({"test": "import no_such_package\nassert f(1) == 1"}, "no_such_package"),
        ({"test": "def check(candidate):\n    import no_such\n    assert candidate(1)",
          "entry_point": "f"}, "no_such"),
        ({"test": "assert f(lambda x: x) == 1"}, "function"),
        ({"test": "def g(): pass\nLIMIT = g.x\nassert f(1) == LIMIT"}, None),
    ):  # fmt: skip
        if message is None:
            assert python(code, truth)["score"] == 0.0
        else:
            with pytest.raises(BadInput, match=message):
                python(code, truth)


def test_completions_go_on_where_the_prompt_ends() -> None:
    row = {
        "test": "def check(candidate):\n    assert candidate(2) == 4",
        "entry_point": "twice",
        "prompt": "import math\n\ndef twice(x):\n    '''Doubles.'''\n",
    }
    reward = CodePython(no_fence="continue", **SHORT)
    assert reward.call_sync(response="    return math.floor(2 * x)", **row)["score"] == 1.0
    assert reward.call_sync(response="    return x", **row)["score"] == 0.0
    program = CodePython(**SHORT).call_sync(
        response=fenced("def twice(x): return math.floor(2 * x)"), **row
    )
    assert program["score"] == 1.0  # the prompt's imports are there


def test_packages(tmp_path: Path) -> None:
    for folder in [tmp_path, *tmp_path.parents][:-2]:
        if folder.stat().st_uid == os.geteuid():
            folder.chmod(0o755)
    (tmp_path / "helpful.py").write_text("def square(x): return x * x\n")
    (tmp_path / "helpful.py").chmod(0o644)
    code, truth = "from helpful import square as f", THREE
    assert python(code, truth)["score"] == 0.0
    assert python(code, truth, packages=[str(tmp_path)])["score"] == 1.0
    tested = {"test": "import helpful\nassert f(3) == helpful.square(3)"}
    assert python("def f(x): return 9", tested, packages=[str(tmp_path)])["score"] == 1.0
    program = "import helpful\nprint(helpful.square(int(input())))"
    cases = {"inputs": ["3"], "outputs": ["9"]}
    assert stdio(program, cases, packages=[str(tmp_path)])["score"] == 1.0


def test_deeply_nested_tests() -> None:
    with pytest.raises(BadInput):
        python("def f(x): return x", "assert f(" + "-" * 5000 + "1) == 1")


@pytest.mark.parametrize("behind", ["", "\ndef ENTRY(*a, **k): return None\n"])
def test_humaneval_is_judged_alike_here_and_in_a_sandbox(
    shared_data: Path, behind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = (shared_data / "humaneval.jsonl").read_text(encoding="utf-8").splitlines()
    samples: list[Sample] = []
    for row in map(json.loads, lines[::5]):
        name = row["entry_point"]
        code = row["prompt"] + row["canonical_solution"] + behind.replace("ENTRY", name)
        columns = {"test": row["test"], "entry_point": name}
        samples.append(Sample(prompt=row["prompt"], response=fenced(code), metadata=columns))
    with RewardService(CodePython(credit="fraction")) as service:
        here = service.score_sync(samples).values.tolist()
        monkeypatch.setattr(python_reward, "literal_calls", lambda tests: None)
        assert service.score_sync(samples).values.tolist() == here
    if not behind:
        assert here == [1.0] * len(samples)
    else:
        assert max(here) < 1.0


# -- standard input and output -----------------------------------------------------------------

ADD = {"inputs": ["1 2\n", "3 4\n", "5 6\n"], "outputs": ["3\n", "7\n", "11\n"]}

SUMS = {
    "python": "a, b = map(int, input().split())\nprint(a + b)",
    "javascript": (
        "const [a, b] = require('fs').readFileSync(0, 'utf8').split(' ').map(Number);\n"
        "console.log(a + b);"
    ),
    "cpp": (
        "#include <iostream>\nint main() { int a, b; std::cin >> a >> b; "
        "std::cout << a + b << std::endl; }"
    ),
    "bash": "read a b\necho $((a + b))",
}
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


# -- options, failures, service ------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"credit": "some"},
        {"fence": "middle"},
        {"no_fence": "guess"},
        {"first": 0},
        {"case_seconds": 0},
        {"program_seconds": float("nan")},
        {"memory_mib": -1},
        {"packages": ["relative"]},
    ],
)
def test_unusable_options(options: Any) -> None:
    with pytest.raises(InvalidReward, match=next(iter(options))):
        CodePython(**options)


def test_an_engine_of_another_name_is_refused() -> None:
    with pytest.raises(ValueError, match="bubblewrap"):
        CodePython(engine="bubblewarp").call_sync(response="x = 1", ground_truth="assert x")  # type: ignore[arg-type]


def test_a_failed_sandbox_is_a_failure_and_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(self: Sandbox, *_: Any) -> Running:
        raise FileNotFoundError(2, "No such file", "/usr/bin/bwrap")

    monkeypatch.setattr(Sandbox, "start", gone)
    policy = Policy(on={"infrastructure": "mask"}, retry=Retry(attempts=1))
    with RewardService(CodeStdio(), policy=policy) as service:
        sample = Sample(response=fenced(SUMS["python"]), ground_truth=ADD)
        (outcome,) = service.score_sync([sample]).failures.values()
    assert isinstance(outcome, Failure)
    assert (outcome.kind, outcome.blame) == (FailureKind.UNAVAILABLE, Blame.INFRASTRUCTURE)
    assert outcome.retryable
    assert "sandbox" in outcome.message


def test_a_starved_machine_is_a_failure_and_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Waiting, "since", lambda self, moment: time.monotonic() - moment)
    with pytest.raises(Unavailable, match="the machine is too busy"):
        stdio("while True: pass", ADD, case_seconds=0.1)


def test_values_are_the_same_inline_and_in_the_pool() -> None:
    truth = {"inputs": ["1"], "outputs": ["2"]}
    samples = [
        Sample(response=fenced(f"print({i % 3})"), ground_truth=truth, sample_id=str(i))
        for i in range(9)
    ]
    with RewardService(CodeStdio()) as inline:
        first = inline.score_sync(samples).values.tolist()
    with RewardService(CodeStdio(), backend=PoolBackend(workers=2)) as pooled:
        assert pooled.score_sync(samples).values.tolist() == first == [0.0, 0.0, 1.0] * 3


def test_equal_programs_run_once(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[int] = []
    start = Sandbox.start

    def counted(self: Sandbox, *arguments: Any) -> Running:
        runs.append(1)
        return start(self, *arguments)

    monkeypatch.setattr(Sandbox, "start", counted)
    truth = {"inputs": ["1"], "outputs": ["1"]}
    with RewardService(CodeStdio()) as service:
        group = [Sample(response=fenced("print(1)"), ground_truth=truth) for _ in range(8)]
        assert service.score_sync(group).values.tolist() == [1.0] * 8
    assert len(runs) == 1


@pytest.mark.parametrize("name", ["code_python", "code_stdio", "code_syntax", "code_lint"])
def test_registered_and_checked(name: str) -> None:
    reward = registry.resolve(name)
    (report,) = check(reward)
    assert report.passed, [case for case in report.cases if case.verdict != "pass"]
    assert "toolchain" in reward.fingerprint_extra()


def test_syntax_does_not_run_the_program() -> None:
    code = "open('/tmp/ran', 'w')\nraise SystemExit(1)"
    assert CodeSyntax().call_sync(response=fenced(code))["score"] == 1.0


def test_lint() -> None:
    result = CodeLint().call_sync(response=fenced("import os\nx = 1\ny = 2\nz = 3"))
    assert result["score"] == 0.75
    assert result["info"]["findings"] == ["1: unused-import"]
    assert CodeLint(weight=9).call_sync(response=fenced("import os\nx = 1"))["score"] == 0.0
    assert CodeLint().call_sync(response=fenced("(" * 5000))["score"] == 0.0
    with pytest.raises(InvalidReward, match="weight"):
        CodeLint(weight=-1)


def test_program_that_takes_the_reader_down() -> None:
    deep = "x = " + "-" * 1_000_000 + "1"
    for reward in (CodeLint(), CodeSyntax()):
        assert reward.call_sync(response=fenced(deep))["score"] == 0.0


def test_result_types() -> None:
    result = stdio(SUMS["python"], ADD)
    assert set(result) == {"score", "metrics", "info"}
    assert isinstance(Result(status=Status.OK).check(), Result)
    with RewardService(CodeStdio()) as service:
        sample = Sample(response=fenced(SUMS["python"]), ground_truth=ADD)
        (score,) = service.score_sync([sample])
    assert isinstance(score, Score)
    assert score.metrics == {"passed": 3.0, "cases": 3.0}


@pytest.mark.parametrize("language", ["bash", "cpp", "javascript", "python"])
def test_half_a_character_in_a_program_is_its_own_fault(language: str) -> None:
    """A lone surrogate cannot be written as text; the tool of the language judges the bytes."""
    response = fenced("x = 1 # \ud800", language)
    truth = {"inputs": ["1\n"], "outputs": ["other\n"]}
    for reward in (CodeStdio(language=language, **SHORT), CodeSyntax(language=language)):
        with RewardService(reward, policy=Policy(retry=Retry(attempts=1))) as service:
            (outcome,) = service.score_sync([Sample(response=response, ground_truth=truth)])
        assert isinstance(outcome, Score)
        assert outcome.value == 0.0 or isinstance(reward, CodeSyntax)


@pytest.mark.parametrize("test", ["assert f(1) == 2", "assert f(1) < 2", "assert f(1) in [1, 2]"])
@pytest.mark.parametrize("value", ["sNaN", "NaN"])
def test_a_value_that_refuses_to_be_compared_is_wrong(test: str, value: str) -> None:
    code = f"from decimal import Decimal\n\ndef f(x):\n    return Decimal('{value}')"
    assert python(code, test, **SHORT)["score"] == 0.0
