"""Objects of the tests that a program is given, and hands back."""

from __future__ import annotations

from typing import Any

import pytest

from guerdon.rules.code.python_reward import CodePython


def python(code: str, tests: str, **options: Any) -> dict[str, Any]:
    response = f"```python\n{code}\n```"
    return CodePython(**options).call_sync(response=response, ground_truth=tests)


A = """class A:
    def __init__(self, v=0):
        self.v, self.next = v, None
    def raise_it(self):
        self.v += 1
        return self.v
    def read(self):
        return self.v
x, y = A(2), A(1)
"""

RIGHT = {
    "itself": ("def f(n): return n", "assert f(x) is x and f(x) is not y"),
    "equal": ("def f(n): return n", "assert f(x) == x and f([y, x])[1] == x"),
    "sorted": (
        "def f(n): return sorted(n, key=lambda a: a.v)",
        "assert f([x, y]) == [y, x]\ny.v = 3\nassert f([x, y]) == [x, y]",
    ),
    "sorted by a key of the tests": (
        "def f(n, key): return sorted(n, key=key)",
        "assert f([x, y], lambda a: a.v) == [y, x]\nassert f([x, y], A.read) == [y, x]",
    ),
    "asked by its methods": (
        "def f(*many): return max(many, key=lambda a: a.read())",
        "assert f(x, y) is x",
    ),
    "behind another": (
        "def f(n):\n while n.next: n = n.next\n return n",
        "x.next = y\nassert f(x) is y and f(y) is y",
    ),
    "kept from call to call": (
        "class C:\n"
        " def __init__(self): self.kept = []\n"
        " def put(self, a): self.kept.append(a)\n"
        " def take(self, a): self.kept.remove(a)\n"
        " def top(self): return self.kept[-1]",
        "c = C()\nc.put(x)\nc.put(y)\nassert c.top() is y\nc.take(y)\nassert c.top() is x",
    ),
    "made anew in one message": (
        "def f(*many): return [a.v for a in many], many",
        "f(x, y)\ny.v = 7\nassert f(x, y) == ([2, 7], (x, y))",
    ),
    "reversed": (
        "def f(n):\n last = None\n while n: n.next, last, n = last, n, n.next\n return last",
        "x.next = y\nr = f(x)\n"
        "assert [r.v, r.next.v, r.next.next] == [1, 2, None]\nassert x.next is y",
    ),
}


@pytest.mark.parametrize("name", RIGHT)
def test_programs_hand_back_what_they_were_given(name: str) -> None:
    code, tests = RIGHT[name]
    result = python(code, A + tests)
    assert (result["score"], result["info"]["status"]) == (1.0, "passed")


WRONG = {
    "another": ("G = []\ndef f(n):\n G.append(n)\n return G[0]", "f(y)\nassert f(x) is x"),
    "changed": ("def f(n):\n n.v = 9\n return n", "assert f(x) is x"),
    "changed by a method": ("def f(n):\n n.raise_it()\n return n", "assert f(x) is x"),
    "changed beside it": ("def f(n):\n n.next.v = 9\n return n", "x.next = y\nassert f(x) is x"),
    "as it was when it came": (
        "G = []\ndef f(n):\n G.append(n)\n n.v += 1\n return G[0]",
        "f(x)\nx.v = 3\nassert f(y) is x",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_another_object_or_a_changed_one_is_not_the_original(name: str) -> None:
    code, tests = WRONG[name]
    assert python(code, A + tests)["score"] == 0.0


def test_changed_objects_are_themselves_where_changes_are_asked_for() -> None:
    code = "def f(n):\n n.v = 9\n return n"
    assert python(code, f"{A}assert f(x) is x and x.v == 9", in_place=True)["score"] == 1.0


LIST_NODE = """from dataclasses import dataclass

@dataclass
class ListNode:
    val: int = 0
    next: 'ListNode' = None

class Point:
    SCALE = scale()
    def __init__(self, x):
        self.x = x * self.SCALE
    def __eq__(self, other):
        return self.x == other.x

def linked(values):
    node = None
    for value in reversed(values):
        node = ListNode(value, node)
    return node

def reference(n):
    return n * 2
wanted = 14
"""
SET_UP = LIST_NODE.replace("@dataclass\n", "def scale(): return 2\n@dataclass\n")


def with_setup(code: str, *tests: str) -> dict[str, Any]:
    row = {"test_setup_code": SET_UP, "test_list": list(tests)}
    return CodePython().call_sync(response=f"```python\n{code}\n```", **row)


def test_a_program_may_use_the_classes_of_the_set_up() -> None:
    code = (
        "def f(head: Optional[ListNode]) -> ListNode:\n"
        "    start = last = ListNode()\n"
        "    while head:\n"
        "        last.next = ListNode(head.val + 1)\n"
        "        head, last = head.next, last.next\n"
        "    return start.next"
    )
    tests = ("r = f(linked([1, 2]))\nassert (r.val, r.next.val, r.next.next) == (2, 3, None)",)
    assert with_setup(code, *tests)["score"] == 1.0
    assert with_setup(code.replace("+ 1", "+ 2"), *tests)["score"] == 0.0


def test_objects_of_both_sides_are_equal_as_the_set_up_says() -> None:
    code = "def f(x): return Point(x)"
    assert with_setup(code, "assert f(3) == Point(3)", "assert Point(3) == f(3)")["score"] == 1.0
    assert with_setup(code, "assert f(3) == Point(4)")["score"] == 0.0
    liar = "class Point:\n def __init__(s, x): s.x = x\n def __eq__(s, o): return True\n"
    assert with_setup(liar + code, "assert f(3) == Point(4)")["score"] == 0.0


@pytest.mark.parametrize("body", ["reference(n)", "wanted", "linked([n]) and 14"])
def test_a_program_sees_no_other_function_or_value_of_the_set_up(body: str) -> None:
    found = with_setup(
        f"def f(n):\n    Point, ListNode\n    return {body}", "assert f(7) == wanted"
    )
    assert (found["score"], "NameError" in found["info"]["message"]) == (0.0, True)


def test_the_classes_of_the_set_up_are_not_the_programs_answer() -> None:
    row = {"test_setup_code": "class Node:\n    v = 1", "entry_point": "Node"}
    result = CodePython().call_sync(
        response="```python\nNode\n```", test_list=["assert Node.v == 1"], **row
    )
    assert result["score"] == 0.0


RAISING = """try:
    f(-1)
    raise AssertionError("negative")
except ValueError:
    pass"""


def test_a_failure_names_its_case() -> None:
    found = python("def f(n): return n", "assert f(1) == 1\nassert sorted(f([2, 1])) == [3]")
    assert found["info"]["message"] == "case 1, assert sorted(f([2, 1])) == [3]: AssertionError"
    assert python("def f(n): return n", RAISING)["info"]["message"].endswith("negative")
    assert python("def f(n): raise ValueError", RAISING)["score"] == 1.0
