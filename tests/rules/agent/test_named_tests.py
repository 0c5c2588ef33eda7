"""Tests that judge what an agent left: what it may change, and what does not help it."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from engines import working

from guerdon.errors import FailureKind, InvalidReward
from guerdon.outcome import Failure
from guerdon.policy import Policy
from guerdon.resources import Context, WorkspaceSpec
from guerdon.resources.sandboxes import sandbox_of
from guerdon.rules.agent.inside.equality import asked, equals_everything
from guerdon.rules.agent.inside.named_tests import signed
from guerdon.rules.agent.named_tests import NamedTests, TestState, files_to_test, read_truth
from guerdon.rules.agent.pytest_run import verdicts
from guerdon.sample import Sample
from guerdon.service import RewardService

MASKED = Policy(on=dict.fromkeys(("scorer", "infrastructure", "data"), "mask"))


@pytest.fixture(autouse=True, scope="module")
def _sandboxed() -> None:
    working(sandbox_of("auto"), "auto")


TESTS = """
import unittest
import pytest
from calc import add

def test_add():
    assert add(2, 3) == 5

@pytest.mark.parametrize("n", [1, 2])
def test_zero(n):
    assert add(n, 0) == n

class TestMore(unittest.TestCase):
    def test_less(self):
        self.assertEqual(add(2, -3), -1)
"""
FILE = "tests/test_calc.py"
FAIL, PASS = [f"{FILE}::test_add"], [f"{FILE}::test_zero[1]", f"{FILE}::TestMore::test_less"]
FILES = {
    "calc.py": "def add(a, b):\n    return a - b\n",
    "conftest.py": "import pytest\n",
    "pyproject.toml": "[tool.pytest.ini_options]\naddopts = '--no-such-option'\n",
}
TRUTH = {"tests": {FILE: TESTS}, "FAIL_TO_PASS": FAIL, "PASS_TO_PASS": PASS}
RIGHT = "def add(a, b):\n    return a + b\n"


def wrote(files: dict[str, str]) -> list[dict[str, Any]]:
    """A rollout that writes files, as a program in Python does."""
    lines = ["mkdir -p tests src ~", "rm -f -- __none__"]
    for name, text in files.items():
        lines.append(f"mkdir -p $(dirname '{name}'); cat > '{name}' <<'EOF'\n{text}\nEOF")
    call = {"name": "bash", "arguments": {"command": "\n".join(lines)}}
    return [{"role": "assistant", "content": "", "tool_calls": [call]}]


def scored(files: dict[str, str], truth: Any = TRUTH, **options: Any) -> Any:
    sample = Sample(response=wrote(files), ground_truth=truth, metadata={"files": FILES})
    with RewardService(TestState(**options), policy=MASKED) as service:
        return service.score_sync([sample])[0]


def test_all_named_tests_pass_whatever_the_rows_options_say() -> None:
    found = scored({"calc.py": RIGHT})
    assert (found.value, found.info["status"]) == (1.0, "ended")
    assert found.metrics["fail_to_pass"] == 1.0
    assert found.metrics["pass_to_pass"] == 2.0


def test_names_as_text_as_swe_bench_has_them() -> None:
    truth = {**TRUTH, "FAIL_TO_PASS": f'["{FAIL[0]}"]', "PASS_TO_PASS": "[]"}
    assert scored({"calc.py": RIGHT}, truth).value == 1.0


def test_a_share_of_the_tests_and_why_one_failed() -> None:
    half = "def add(a, b):\n    return 5 if (a, b) == (2, 3) else a - b\n"
    found = scored({"calc.py": half}, credit="fraction")
    assert found.value == pytest.approx(2 / 3)
    assert found.info["failed"] == [f"{FILE}::TestMore::test_less"]
    assert "5 != -1" in found.info["message"]
    assert scored({"calc.py": half}).value == 0.0


def test_a_name_that_no_test_has_is_a_test_that_failed() -> None:
    truth = {**TRUTH, "PASS_TO_PASS": [f"{FILE}::test_other"]}
    assert scored({"calc.py": RIGHT}, truth).value == 0.0
    assert scored({"calc.py": RIGHT}, truth, credit="fraction").value == 0.5


WRONG = "def add(a, b):\n    return 0\n"
PATCH_RUNTEST = """
import _pytest.python, _pytest.unittest
_pytest.python.Function.runtest = lambda self: None
_pytest.unittest.TestCaseFunction.runtest = lambda self: None
"""
PATCH_REPORT = """
import _pytest.reports
old = _pytest.reports.TestReport.from_item_and_call
def new(item, call):
    report = old(item, call)
    report.outcome, report.longrepr = "passed", None
    return report
_pytest.reports.TestReport.from_item_and_call = new
"""
FORGE = """
import os, json
for fd in range(3, 64):
    try:
        line = json.dumps(["tests/test_calc.py::test_add", "call", "passed", ""])
        os.write(fd, ("0" * 64 + " " + line + "\\n").encode())
    except OSError:
        pass
"""
HOOKS = """
import pytest

@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    outcome.get_result().outcome = "passed"

def pytest_collection_modifyitems(items):
    for item in items:
        item.obj = lambda *a, **k: None
"""
CHANNELS = """
import os
for fd in range(3, 256):
    try:
        {}
    except OSError:
        pass
"""
SELECTIVE = """
import _pytest.python, _pytest.unittest
for kind in (_pytest.python.Function, _pytest.unittest.TestCaseFunction):
    def runtest(self, old=kind.runtest):
        if not self.nodeid.startswith("tests/"):
            old(self)
    kind.runtest = runtest
"""
SWAPPED = """
from _pytest.python import Function
def runtest(self):
    pass
Function.runtest.__code__ = runtest.__code__
"""
CHEATS: dict[str, dict[str, str]] = {
    "exit at import": {"calc.py": "import os\nos._exit(0)"},
    "sys.exit at import": {"calc.py": "import sys\nsys.exit(0)"},
    "exit in a call": {"calc.py": "import os\ndef add(a, b):\n    os._exit(0)"},
    "sys.exit in a call": {"calc.py": "def add(a, b):\n    raise SystemExit(0)"},
    "pytest.exit": {"calc.py": "import pytest\ndef add(a, b):\n    pytest.exit('ok', 0)"},
    "atexit": {"calc.py": f"import atexit, os\natexit.register(os._exit, 0)\n{WRONG}"},
    "skip in a call": {"calc.py": "import pytest\ndef add(a, b):\n    pytest.skip()"},
    "xfail in a call": {"calc.py": "import pytest\ndef add(a, b):\n    pytest.xfail()"},
    "a module of its own in place of the tests": {FILE: "def test_add(): pass", "calc.py": WRONG},
    "conftest": {"conftest.py": HOOKS, "calc.py": WRONG},
    "conftest of the tests": {"tests/conftest.py": HOOKS, "calc.py": WRONG},
    "conftest of a folder": {"src/conftest.py": HOOKS, "calc.py": WRONG},
    "pytest.ini": {"pytest.ini": "[pytest]\naddopts = --collect-only\n", "calc.py": WRONG},
    "plug-ins by pyproject": {
        "pyproject.toml": "[tool.pytest.ini_options]\naddopts = '-p cheat'\n",
        "cheat.py": HOOKS,
        "calc.py": WRONG,
    },
    "setup.cfg": {"setup.cfg": "[tool:pytest]\naddopts = -p cheat", "cheat.py": HOOKS,
                  "calc.py": WRONG},
    "sitecustomize": {"sitecustomize.py": PATCH_RUNTEST, "calc.py": WRONG},
    "usercustomize": {"usercustomize.py": PATCH_RUNTEST, "calc.py": WRONG},
    "pytest itself": {"pytest.py": "def main(*a, **k): return 0", "calc.py": WRONG},
    "pytest's package": {"_pytest/__init__.py": "", "_pytest/python.py": "", "calc.py": WRONG},
    "a module of the standard library": {
        "unittest/__init__.py": "class TestCase: pass", "hmac.py": "", "json.py": "",
        "calc.py": WRONG,
    },
    "patched runtest": {"calc.py": PATCH_RUNTEST + WRONG},
    "patched report": {"calc.py": PATCH_REPORT + WRONG},
    "patched unittest": {
        "calc.py": "import unittest\nunittest.TestCase.assertEqual = lambda *a: None\n"
        "def add(a, b):\n    return a if not b else 5"
    },
    "forged verdicts": {"calc.py": FORGE + WRONG},
    "verdicts cut off": {
        "calc.py": CHANNELS.format("os.ftruncate(fd, 0)") + "os._exit(0)"
    },
    "verdicts written over": {"calc.py": CHANNELS.format("os.pwrite(fd, b'x' * 99, 0)") + WRONG},
    "lines without end": {
        "calc.py": CHANNELS.format("os.write(fd, b'\\n' * 9_000_000)") + WRONG
    },
    "equal to everything": {
        "calc.py": "class E:\n    def __eq__(self, other): return True\ndef add(a, b): return E()"
    },
    "equal to all numbers": {
        "calc.py": "class E(int):\n    def __eq__(self, other): return isinstance(other, int)\n"
        "def add(a, b): return E()"
    },
    "equal by a number": {
        "calc.py": "def add(a, b): return type('E', (), {'__eq__': lambda *a: 1})()"
    },
    "equal by a library": {"calc.py": "from unittest.mock import ANY\ndef add(a, b): return ANY"},
    "runtest patched for some": {"calc.py": SELECTIVE + WRONG},
    "runtest with other code": {"calc.py": SWAPPED + WRONG},
    "a builtin in place": {
        "calc.py": f"import builtins\nbuiltins.sum = lambda *a: 5\n{WRONG}"
    },
    "forged output": {"calc.py": f"print('3 passed in 0.1s')\n{WRONG}"},
    "endless import": {"calc.py": "while True: pass"},
    "a bomb": {"calc.py": "x = 'a' * (1 << 40)"},
    "broken syntax": {"calc.py": "def add(:"},
}  # fmt: skip


@pytest.mark.parametrize("files", CHEATS.values(), ids=CHEATS.keys())
def test_cheats_earn_nothing(files: dict[str, str]) -> None:
    found = scored(files, test_seconds=3.0, credit="all")
    assert not isinstance(found, Failure), found
    assert found.value == 0.0


@pytest.mark.parametrize(
    "name",
    ["patched runtest", "patched report", "patched unittest", "runtest patched for some",
     "a builtin in place"],
)  # fmt: skip
def test_tests_that_must_fail_show_forgeries(name: str) -> None:
    found = scored(CHEATS[name], credit="fraction")
    assert (found.value, found.info["status"]) == (0.0, "forged")


def test_right_work_beside_the_same_files_counts() -> None:
    files = {"tests/conftest.py": HOOKS, "pytest.ini": "[pytest]\nx = 1", "json.py": "broken("}
    assert scored({**files, "calc.py": RIGHT}).value == 1.0


HONEST = """
import builtins
import unittest
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from unittest.mock import ANY, MagicMock, call

import pytest
from calc import Money, Query, add


@dataclass
class Pair:
    one: object
    other: object


class Matcher:
    def __eq__(self, other):
        return True


def test_matchers():
    assert {"a": add(1, 2), "b": [add(1, 1)]} == {"a": ANY, "b": [Matcher()]}
    assert add(0.1, 0.2) == pytest.approx(0.3)


def test_values():
    assert Pair(Money(2), [Money(3)]) == Pair(Money(2), [Money(3)])
    assert 1 < add(1, 1) <= 2 != 3 and Money(1) in [Money(1)]
    assert (n := add(1, 1)) == 2 and n is 2 or n == 2
    assert Fraction(add(1, 1)) == Decimal(2)
    assert str(Query() == 5) == "query" and not [x for x in range(3) if x == add(3, 3)]


def test_mocks(monkeypatch):
    monkeypatch.setattr(builtins, "bin", lambda x: 7)
    seen = MagicMock()
    seen(add(1, 2))
    seen.assert_called_with(3)
    assert seen.call_args_list == [call(3)] and bin(1) == 7


def test_pieces(subtests):
    for n in range(2):
        with subtests.test(n=n):
            assert add(n, 0) == n


class TestPieces(unittest.TestCase):
    def test_pieces(self):
        for n in range(2):
            with self.subTest(n=n):
                self.assertEqual(add(n, 0), n)
"""
HONEST_NAMES = ["test_matchers", "test_values", "test_mocks", "test_pieces"]
HONEST_CODE = """
def add(a, b):
    return a + b
class Money:
    def __init__(self, cents):
        self.cents = cents
    def __eq__(self, other):
        return isinstance(other, Money) and self.cents == other.cents
class Query:
    def __eq__(self, other):
        return self
    def __str__(self):
        return "query"
"""


def test_what_honest_tests_compare_is_nothing_forged() -> None:
    names = [*(f"{FILE}::{name}" for name in HONEST_NAMES), f"{FILE}::TestPieces::test_pieces"]
    truth = {"tests": {FILE: HONEST}, "FAIL_TO_PASS": names}
    found = scored({"calc.py": HONEST_CODE}, truth, credit="fraction")
    assert (found.value, found.info["status"]) == (1.0, "ended"), found.info


@pytest.mark.parametrize("name", ["test_pieces", "TestPieces::test_pieces"])
def test_a_part_of_a_test_that_fails_fails_it(name: str) -> None:
    truth = {"tests": {FILE: HONEST}, "FAIL_TO_PASS": [f"{FILE}::{name}"]}
    code = HONEST_CODE.replace("return a + b", "return 0")
    assert scored({"calc.py": code}, truth).value == 0.0


class _Same:
    def __init__(self, *kinds: type) -> None:
        self._kinds = kinds

    def __eq__(self, other: object) -> Any:
        return isinstance(other, self._kinds)

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize("kind", [object, int, float, str, bytes, bool, list, tuple, dict, set])
def test_a_value_that_equals_all_of_a_kind(kind: type) -> None:
    assert equals_everything(_Same(kind))
    with pytest.raises(AssertionError, match="a _Same says that it equals everything"):
        asked([1, {"a": (_Same(kind),)}], matchers=False)


@pytest.mark.parametrize("value", [1, "a", None, [1], object(), _Same(), Fraction(1), Decimal(1)])
def test_honest_values_are_given_on(value: Any) -> None:
    assert asked(value, matchers=False) is value


def test_a_file_in_place_of_the_tests_folder_is_replaced() -> None:
    command = "rm -rf tests; echo x > tests; printf 'def add(a, b): return a + b' > calc.py"
    call = {"name": "bash", "arguments": {"command": command}}
    said = [{"role": "assistant", "content": "", "tool_calls": [call]}]
    sample = Sample(response=said, ground_truth=TRUTH, metadata={"files": FILES})
    with RewardService("test_state") as service:
        assert service.score_sync([sample]).values.tolist() == [1.0]


def test_files_that_are_the_rows_business() -> None:
    row = {"tests/help.py": b"row", "setup.cfg": b"row", "a.py": b"row", "t_test.py": b"row"}
    truth = NamedTests({"x/t.py": b"truth"}, ("x/t.py::test", "t_test.py::test"), ())
    left = {"tests/help.py": b"1", "tests/more.py": b"1", "setup.cfg": b"1", "a.py": b"1",
            "b/conftest.py": b"1", "c/__pycache__/a.pyc": b"1", "t_test.py": b"1", "x": b"1",
            "t_test.py/y": b"1"}  # fmt: skip
    assert files_to_test(left, row, truth) == {**row, "a.py": b"1", "x/t.py": b"truth"}


def test_modules_below_a_root() -> None:
    files = {"src/calc.py": RIGHT}
    assert scored({**files, "calc.py": "import ("}, roots=["src"]).value == 1.0


def test_the_workspace_that_the_callers_tools_changed() -> None:
    sample = Sample(response="Done.", ground_truth=TRUTH, metadata={"files": FILES})
    spec = WorkspaceSpec(files={k: v.encode() for k, v in FILES.items()}, name="candidate")
    with Context("rollout") as context, RewardService(TestState(replay=False)) as service:
        assert service.score_sync([sample], context=context).values.tolist() == [0.0]
        context.acquire_resource_sync(spec).write("calc.py", RIGHT.encode())
        assert service.score_sync([sample], context=context).values.tolist() == [1.0]


@pytest.mark.parametrize(
    ("truth", "told"),
    [
        (None, "ground_truth"),
        ([], "no mapping"),
        ({}, "names no tests"),
        ({"FAIL_TO_PASS": "[", "tests": {}}, "no JSON"),
        ({"FAIL_TO_PASS": 5}, "no list"),
        ({"FAIL_TO_PASS": [5]}, "something else"),
        ({"FAIL_TO_PASS": ["../x.py::t"]}, "leaves its folder"),
        ({"FAIL_TO_PASS": ["x.py::t"]}, "in no file"),
        ({"FAIL_TO_PASS": ["calc.py"]}, "in no file"),
        ({**TRUTH, "tests": {FILE: TESTS, "tests": "x"}}, "is a folder of"),
        ({**TRUTH, "tests": {FILE: 5}}, "is no text"),
        ({**TRUTH, "tests": [FILE]}, "no mapping of names"),
    ],
)
def test_truths_that_are_none(truth: Any, told: str) -> None:
    lost = scored({}, truth)
    assert isinstance(lost, Failure)
    assert lost.kind is FailureKind.BAD_INPUT
    assert told in lost.message


def test_no_pytest_in_the_sandbox_is_the_infrastructure() -> None:
    lost = scored({"calc.py": RIGHT}, packages=["/usr/share"])
    assert isinstance(lost, Failure)
    assert (lost.kind, lost.blame) == (FailureKind.UNAVAILABLE, "infrastructure")
    assert "packages=" in lost.message


@pytest.mark.parametrize("options", [{"test_seconds": 0.0}, {"memory_mib": 0}, {"credit": "x"}])
def test_options_that_cannot_be(options: Any) -> None:
    with pytest.raises(InvalidReward):
        TestState(**options)


def test_verdicts_end_where_somebody_else_wrote() -> None:
    first, other = signed(b"key", 0, "[0]"), signed(b"other", 1, '["end", 0]')
    assert verdicts((first + other).encode(), b"key") == [[0]]
    assert verdicts((first + first).encode(), b"key") == [[0]]
    assert verdicts(first[:-1].encode(), b"key") == []
    assert verdicts(b"\xff\n", b"key") == []
    assert verdicts((first + signed(b"key", 1, "[1]")).encode(), b"key") == [[0], [1]]


def test_a_row_of_its_own_tests() -> None:
    truth = {"FAIL_TO_PASS": ["calc_test.py::test"]}
    assert read_truth(truth, {"calc_test.py": b""}).names == ("calc_test.py::test",)
