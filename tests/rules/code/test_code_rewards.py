"""The rewards for programs: what each kind of program earns, with the engine of this machine."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from programs import ADD, SHORT, SUMS, fenced, python, stdio

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


@pytest.mark.parametrize(
    ("test", "message"),
    [
        ("import no_such_package\nassert f(1) == 1", "no_such_package"),
        ("def check(candidate):\n    import no_such\n    assert candidate(1)", "no_such"),
        ("assert f(1) == 1\nfrom math import no_such", "no_such"),
        ("LIMIT = undefined.x\nassert f(1) == LIMIT", None),
        ("def g(): pass\nLIMIT = g.x\nassert f(1) == LIMIT", "has no attribute 'x'"),
        ("x = 1\nassert x == 2\nassert f(1) == 1", "AssertionError"),
        ("def g(): pass\nassert f(1) == 1\nassert g.x", None),
        ("assert eval(f('2')) == 2", "uses eval"),
        ("assert list(map(eval, f('2'))) == 2", "uses eval"),
        ("import pickle\nassert pickle.loads(f('2')) == 2", "pickle.loads"),
        ("from subprocess import run\nassert run(f('2'))", "subprocess.run"),
        ("import importlib\nassert importlib.import_module(f('2'))", "import_module"),
        ("from unittest.mock import patch\nwith patch('os.getpid'):\n    assert f(1)", "patch"),
        ("def test_f(capsys):\n    assert f(1) == 1", "capsys"),
        ("import asyncio\nassert asyncio.run(f(1)) == 1", "asyncio.run"),
        ("def test_f(number):\n    assert f(number) == 1", "without pytest"),
        ("import sys\nsys.stdout = None\nassert f(1) == 1", "sys.stdout"),
        ("import io, contextlib\nwith contextlib.redirect_stdout(io.StringIO()) as out:\n"
         "    f(1)\nassert out.getvalue() == '1'", "redirect_stdout"),
        ("from unittest import mock\nwith mock.patch.object(f, 'x'):\n    assert f(1)", "patch"),
        ("import unittest.mock\nwith unittest.mock.patch('os.getpid'):\n    assert f(1)", "patch"),
        ("open('a', 'w').write('1')\nassert f('a') == 1", "uses open"),
        ("import tempfile\nassert f(tempfile.mkdtemp()) == 1", "tempfile.mkdtemp"),
        ("from pathlib import Path\nPath('a').write_text('1')\nassert f('a') == 1", "write_text"),
        ("import os\nos.environ['A'] = '1'\nassert f('A') == 1", "os.environ"),
        ("import random\nrandom.seed(1)\nassert f(1) == 1", "random.seed"),
    ],
)  # fmt: skip
def test_tests_that_do_not_run_are_bad_input(test: str, message: str | None) -> None:
    """Only what no program could change is the data's fault."""
    code, truth = "def f(x): return x", {"test": test, "entry_point": "f"}
    if message is None:
        assert python(code, truth)["score"] == 0.0
    else:
        with pytest.raises(BadInput, match=message):
            python(code, truth)


FAULTS = {
    "a slice": "assert f(3)[:2] == [1]",
    "a view": "assert g(f(3).items()) == 1",
    "keys": "assert g(f(3).keys() - {1}) == 1",
    "an iterator": "assert g(iter(f(3))) == 1",
    "a method": "assert g(f(3).append) == 1",
    "a type": "assert g(type(f(3))) == 1",
    "a key function": "assert f(3).sort(key=lambda item: item) == 1",
    "a module": "import math\nassert f(3).use(math) == 1",
    "an exception": "try:\n    f(3)\n    raise ValueError\nexcept Exception as error:\n"
    "    assert g(error) == 1",
    "a context": "with f(3) as it:\n    assert g(it) == 1",
    "a file": "import io\nassert g(io.StringIO(str(f(3)))) == 1",
    "a frame": "import sys\nassert f(3) == g(sys._getframe())",
}
RETURNED = (
    "object()", "lambda *a: a", "{'a': 1}", "[1, [2]]", "'math'", "iter([1])", "__import__('os')",
    "__import__('sys')._getframe()", "1 / 0", "slice(1)", "range(10 ** 9)", "[object()]", "type",
)  # fmt: skip


@pytest.mark.parametrize("value", RETURNED)
def test_nothing_that_a_program_returns_is_the_fault_of_the_data(value: str) -> None:
    code = f"def f(x): return {value}\ndef g(x): return 0"
    # Both ways round: what ends the tests early hides what comes after it.
    for tests in (list(FAULTS.values()), list(FAULTS.values())[::-1]):
        result = python(code, {"test_list": tests}, credit="fraction")
        assert result["score"] == 0.0, result


VECTOR = """
class f:
    def __init__(self, x): self.x = x
    def __add__(self, other): return f(self.x + other.x)
    def __mul__(self, by): return f(self.x * by)
    __rmul__ = __mul__
    def __truediv__(self, by): return f(self.x / by)
    def __eq__(self, other): return isinstance(other, f) and self.x == other.x
    def __hash__(self): return hash(self.x)
    def __lt__(self, other): return self.x < other.x
    def __bool__(self): return self.x != 0
    def __iter__(self): return iter([self.x])
"""


@pytest.mark.parametrize(
    ("code", "test"),
    [
        ("def f(x): return list(range(x))", "assert f(9)[1:6:2] == [1, 3, 5]"),
        ("class f:\n    def __init__(self, x): self.x = 'abc'\n"
         "    def __getitem__(self, key): return self.x[key]", "assert f(3)[:2] == 'ab'"),
        ("def f(x): return {x: 1}\ndef g(v): return sorted(v)",
         "assert g(f(3).items()) == [(3, 1)]\nassert g(f(2).keys()) == [2]"),
        ("import datetime\ndef f(x): return datetime.date.fromisoformat(x)",
         "from datetime import date, timedelta\n"
         "assert f('2020-02-29') == date(2020, 2, 29)\nassert f('2020-02-29') + "
         "timedelta(1) == date(2020, 3, 1)"),
        ("from datetime import *\ndef f(x): return x + timedelta(hours=2)",
         "from datetime import datetime, timezone\n"
         "assert f(datetime(2020, 1, 1, 23, tzinfo=timezone.utc)).day == 2"),
        ("from decimal import Decimal\ndef f(x): return Decimal(x) / 2",
         "from decimal import Decimal\nassert f('1') == Decimal('0.5')"),
        ("from collections import *\ndef f(x): return deque(x, 3)",
         "from collections import deque\nassert f([1, 2, 3, 4]) == deque([2, 3, 4])"),
        ("from collections import *\ndef f(x): return Counter(x)",
         "from collections import Counter\nassert f('aab') == Counter(a=2, b=1)"),
        ("from collections import *\nP = namedtuple('P', 'x y')\ndef f(x): return P(x, 2)",
         "assert f(1) == (1, 2)\nassert f(1).y == 2 and f(3)[0] == 3"),
        ("from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\n    def "
         "twice(self): return 2 * self.x\ndef f(x): return P(x)",
         "assert f(1).x == 1\nassert f(2).twice() == 4\nassert isinstance(f(1), P)"),
        ("from enum import Enum\nclass C(Enum):\n    A = 1\n    B = 2\ndef f(x): return C(x)",
         "assert f(1) == C.A and f(2) is not C.A and f(2).value == 2 and f(1) in {C.A}"),
        ("def f(x):\n    yield from range(x)", "assert list(f(3)) == [0, 1, 2]\nassert 2 in f(4)"),
        ("import contextlib\n@contextlib.contextmanager\ndef f(x):\n    yield [x]",
         "with f(3) as x:\n    assert x == [3]"),
        ("def f(g, x): return g(g(x))",
         "assert f(lambda x: x + [1], []) == [1, 1]\nassert f(str.upper, 'a') == 'A'\n"
         "import operator\nassert f(operator.neg, 3) == 3\nseen = []\nf(seen.append, 1)\n"
         "assert seen == [1, None]"),
        ("def f(kind, x): return isinstance(x, kind)", "assert f(int, 3) and not f(str, 3)"),
        ("def f(n): return (x * x for x in n)", "assert sum(f(iter([1, 2]))) == 5"),
        ("def f(x): raise ValueError('no', x)",
         "try:\n    f(3)\n    assert False\nexcept ValueError as error:\n"
         "    assert error.args == ('no', 3)"),
        ("class E(KeyError):\n    def __str__(self): return 'mine'\ndef f(x): raise E(x)",
         "try:\n    f(3)\n    assert False\nexcept KeyError as error:\n"
         "    assert 'mine' in str(error)"),
        ("class E(Exception): pass\nclass D(E): pass\ndef f(x): raise (D if x else E)('no')",
         "for x in (0, 1):\n    try:\n        f(x)\n        assert False\n"
         "    except E as error:\n        assert str(error) == 'no'"),
        ("def f(x): raise ValueError('negative')",
         "try:\n    f(3)\n    assert False\nexcept ValueError as error:\n"
         "    assert str(error) == 'negative'"),
        ("def f(a, *, b=2, **k): return [a, b, k]", "assert f(1, c=3) == [1, 2, {'c': 3}]"),
        ("def f(x): return 1", "from unittest.mock import Mock\nm = Mock()\nassert f(m) == 1\n"
         "m.assert_not_called()"),
        (VECTOR, "assert f(1) + f(2) == f(3)\nassert 3 * f(1) == f(1) * 3 == f(3)\n"
         "assert f(6) / 2 == f(3)\nassert f(1) != f(2)\nassert f(1) < f(2)\n"
         "assert {f(1), f(1)} == {f(1)}\nassert sorted([f(3), f(1)]) == [f(1), f(3)]\n"
         "assert not f(0)\nassert f(1)\nassert 3 in f(3)\nassert 2 not in f(3)"),
        ("A = object()\ndef f(x): return A", "assert f(1) is A\nx = f(2)\nassert x is f(1)"),
        ("class f:\n    def __init__(self, x): self.x = [x]\n"
         "    def __setitem__(self, key, value): self.x.insert(key, value)\n"
         "    def __delitem__(self, key): del self.x[key]",
         "x = f(1)\nx[0] = 2\nassert x.x == [2, 1]\ndel x[1]\nassert x.x == [2]"),
        ("class f:\n    def __init__(self, x): self.x = x\n"
         "    def __bool__(self): return self.x > 1", "assert not f(1)\nassert f(2)"),
        ("def f(bag, x): return x in bag",
         "class Bag:\n    def __contains__(self, x): return x % 2 == 0\n"
         "assert f(Bag(), 2) and not f(Bag(), 3)"),
        ("def f(node):\n    n = 0\n    while node:\n        node, n = node.rest, n + 1\n"
         "    return n",
         "class L:\n    def __init__(self, *rest): self.rest = rest and L(*rest[1:])\n"
         "    def __bool__(self): return self.rest != ()\n"
         "assert f(L(1, 2)) == 2"),
        ("def f(m): return m.get(3).value",
         "from unittest.mock import Mock\nm = Mock()\nm.get.return_value.value = 5\n"
         "assert f(m) == 5\nm.get.assert_called_once_with(3)"),
    ],
)  # fmt: skip
def test_values_that_tests_use(code: str, test: str) -> None:
    assert python(code, {"test": test})["score"] == 1.0
    wrong = code + "\nf = lambda *a, **k: None"
    assert python(wrong, {"test": test})["score"] == 0.0


LINKED = """class ListNode:
    def __init__(self, val=0, next=None):
        self.val = val
        self.next = next

def list_node(values):
    first = None
    for value in reversed(values):
        first = ListNode(value, first)
    return first

def is_same_list(a, b):
    while a and b:
        if a.val != b.val:
            return False
        a, b = a.next, b.next
    return not a and not b
"""


def test_objects_of_the_tests() -> None:
    """LeetCode's lists and trees: the prompt brings their classes."""
    row = {
        "prompt": LINKED,
        "entry_point": "turn",
        "test": "def check(candidate):\n"
        "    assert is_same_list(candidate(list_node([1, 2, 3])), list_node([3, 2, 1]))\n"
        "    assert candidate(None) is None\n"
        "    x = list_node([1, 2])\n"
        "    candidate(x)\n"
        "    assert is_same_list(x, list_node([1, 2]))",
    }
    code = (
        "class Solution:\n    def turn(self, node):\n        before = None\n"
        "        while node:\n            node.next, before, node = before, node, node.next\n"
        "        return before"
    )
    assert python(code, row)["score"] == 1.0
    fresh = code.replace("before = None", "before, node = None, list_node([3, 2, 1]) and node")
    assert python(fresh, row)["score"] == 1.0
    assert python(code.replace("return before", "return node"), row)["score"] == 0.0
    assert python(code, row, in_place=True)["score"] == 0.0


def test_setup_with_classes_of_the_program() -> None:
    """MBPP builds its trees of the program's own nodes."""
    row = {
        "test_setup_code": "root = Node(1)\nroot.left = Node(2)",
        "test_list": ["assert height(root) == 2", "assert height(root.left) == 1"],
    }
    code = (
        "class Node:\n    def __init__(self, x): self.x, self.left, self.right = x, None, None\n"
        "def height(n): return 0 if n is None else 1 + max(height(n.left), height(n.right))"
    )
    assert python(code, row)["score"] == 1.0
    assert python(code.replace("1 + max", "max"), row)["score"] == 0.0
    assert python("def height(n): return 2", row)["score"] == 0.0


@pytest.mark.parametrize(
    "test",
    [
        "from solution import f\n\ndef test_one():\n    assert f(1) == 1\n\n"
        "def test_two():\n    assert f(2) == 4",
        "from solution import f as square\nimport math\n\n"
        "def test_one():\n    assert square(1) == 1\n"
        "def test_two():\n    assert math.isclose(square(2), 4)",
        "import unittest\n\nclass TestF(unittest.TestCase):\n"
        "    def setUp(self):\n        self.x = 2\n"
        "    def test_one(self):\n        self.assertEqual(f(1), 1)\n"
        "    def test_two(self):\n        self.assertEqual(f(self.x), 4)\n\n"
        "if __name__ == '__main__':\n    unittest.main()",
        "class TestF:\n    def test_one(self):\n        assert f(1) == 1\n"
        "    def test_two(self):\n        assert f(2) == 4",
    ],
    ids=["functions", "renamed", "unittest", "class"],
)
def test_forms_of_test_suites(test: str) -> None:
    truth = {"test": test}
    assert python("def f(x): return x * x", truth)["metrics"] == {"passed": 2, "cases": 2}
    assert python("def f(x): return x", truth, credit="fraction")["score"] == 0.5
    assert python("def f(x): return 0", truth)["score"] == 0.0
    assert python("import os\nos._exit(0)", truth)["score"] == 0.0


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


@pytest.fixture
def package() -> Iterator[str]:
    """A folder with a module that anybody may read.

    Not below pytest's own: another pytest that starts closes that to all others.
    """
    with tempfile.TemporaryDirectory() as folder:
        module = Path(folder, "helpful.py")
        module.write_text("def square(x): return x * x\n")
        module.chmod(0o644)
        Path(folder).chmod(0o755)
        yield folder


def test_packages(package: str) -> None:
    code, truth = "from helpful import square as f", THREE
    assert python(code, truth)["score"] == 0.0
    assert python(code, truth, packages=[package])["score"] == 1.0
    tested = {"test": "import helpful\nassert f(3) == helpful.square(3)"}
    assert python("def f(x): return 9", tested, packages=[package])["score"] == 1.0
    program = "import helpful\nprint(helpful.square(int(input())))"
    cases = {"inputs": ["3"], "outputs": ["9"]}
    assert stdio(program, cases, packages=[package])["score"] == 1.0


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


@pytest.mark.parametrize(
    ("right", "truth"),
    [
        ("def sum(a, b): return 6", ["assert sum(10, 15) == 6"]),
        ("def pow(a, b): return a ** b", ["assert pow(2, 3) == 8", "assert abs(pow(2, 1)) == 2"]),
        ("def compile(x): return x", {"test": "def test_it():\n    assert compile('a') == 'a'"}),
        ("def f(x): return None",
         {"prompt": "import math\ndef g(x): return x\ndef f(x): pass",
          "test_list": ["assert g(f(1)) is None"]}),
        ("def f(x): return x",
         {"test": "from solution import f\n\ndef test_one():\n    assert f(1) == 1\n"
          "def test_two():\n    try:\n        f()\n        assert False\n"
          "    except Exception:\n        pass"}),
    ],
)  # fmt: skip
def test_what_is_tested_is_the_programs(right: str, truth: Any) -> None:
    """Tests of a built-in function, or of the prompt's stub, must not pass without the program."""
    assert python(right, truth)["score"] == 1.0
    assert python("x = 1", truth, credit="fraction")["score"] == 0.0
    wrong = right.partition("(")[0] + "(*a): return 'wrong'"
    assert python(wrong, truth)["score"] == 0.0


@pytest.mark.parametrize("test", ["assert len('ab') == max(1, 2)", "import math\nassert math.pi"])
def test_tests_of_nothing_are_bad_input(test: str) -> None:
    with pytest.raises(BadInput, match="use nothing of the program"):
        python("def f(x): return x", test)


@pytest.mark.parametrize(
    ("code", "test"),
    [
        ("def f(x): return x / 3",
         "import math\ndef check(candidate):\n    assert math.isclose(candidate(1), 1 / 3)"),
        ("def f(x): return sorted(x)",
         "import random\nrandom.seed(0)\ndef check(candidate):\n    for _ in range(5):\n"
         "        x = [random.random() for _ in range(5)]\n"
         "        assert candidate(x[:]) == sorted(x)"),
        ("import itertools\ndef f(x): return [list(p) for p in itertools.permutations(x)]",
         "import copy, itertools, re\ndef check(candidate):\n    a = [1, 2]\n"
         "    assert candidate(copy.deepcopy(a)) == [list(p) for p in itertools.permutations(a)]\n"
         "    assert re.compile('1').search(str(candidate(a)))"),
        ("class M:\n    def eval(self): return 3\nf = M", "m = f()\nassert m.eval() == 3"),
        ("def f(x): return x", "assert f(2) == eval('1 + 1')"),
        ("def f(x): return x",
         "import unittest\nclass TestCases(unittest.TestCase):\n    def setUp(self):\n"
         "        self.a = 1\n    def test_case_1(self):\n"
         "        self.assertEqual(f(self.a), 1)\n    def test_case_2(self):\n"
         "        with self.assertRaises(TypeError):\n            f()"),
        ("def f(x): return x",  # as EvalPlus has them
         "def is_floats(x):\n    return isinstance(x, float)\n"
         "def assertion(out, exp, atol):\n    exact_match = out == exp\n"
         "    if atol == 0 and is_floats(exp):\n        atol = 1e-6\n"
         "    assert exact_match or atol and abs(out - exp) <= atol\n"
         "def check(candidate):\n    inputs = [[1], [2.5]]\n    results = [1, 2.5]\n"
         "    for i, (inp, exp) in enumerate(zip(inputs, results)):\n"
         "        assertion(candidate(*inp), exp, 0)"),
    ],
)  # fmt: skip
def test_tests_as_they_are_published(code: str, test: str) -> None:
    assert python(code, {"test": test, "entry_point": "f"})["score"] == 1.0
    assert python("def f(*x): return 0", {"test": test, "entry_point": "f"})["score"] == 0.0
