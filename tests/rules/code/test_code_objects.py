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
