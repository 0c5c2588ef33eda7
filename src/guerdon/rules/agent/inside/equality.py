"""Makes tests fail on values that say they equal everything.

What a test compares, and what it gives to an assertion, is asked first whether it equals things
that it cannot equal all. Such a value can only come from somebody who wants to pass a test.
"""

from __future__ import annotations

import ast
import builtins
import dataclasses
import os
from itertools import islice
from types import BuiltinFunctionType, MethodDescriptorType, WrapperDescriptorType
from unittest import mock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

NAME = "@asked"
"""The builtin that asks; no program can have a name of this kind by accident."""

MOST_VALUES = 10_000
"""Values of one container that are looked at."""

PLAIN = (int, float, complex, bool, str, bytes, bytearray, range, type(None), type(...))
CODED = (BuiltinFunctionType, MethodDescriptorType, WrapperDescriptorType)
"""Kinds of `__eq__` that are no program's."""

CONTAINERS = ((list, "__iter__"), (tuple, "__iter__"), (dict, "values"))
"""How what they hold is had."""

TEST_FOLDERS = ("test", "tests")


class Nobody:
    """Equals nothing but itself."""


def unlike() -> list[tuple[object, ...]]:
    """Groups of which no honest value equals all."""
    word = os.urandom(8).hex()
    number = int.from_bytes(os.urandom(5), "big")
    return [
        (Nobody(), Nobody()),
        (0, 1, 2, 3, -1, 10, number),
        (0.5, 1.25, number + 0.5),
        ("", "a", word),
        (b"", b"a", word.encode()),
        (True, False),
        ([], [0], [word]),
        ((), (0,), (word,)),
        ({}, {0: 0}, {word: 0}),
        (set[int](), {0}, {word}),
    ]


def equals_everything(value: Any) -> bool:
    """Whether a value says that it equals all of a group.

    Example:
        >>> class Same:
        ...     def __eq__(self, other):
        ...         return isinstance(other, int)
        >>> equals_everything(Same()), equals_everything(5)
        (True, False)
    """
    if type(value) in PLAIN or isinstance(type(value).__eq__, CODED):
        return False
    return any(all(map(_Claims(value), group)) for group in unlike())


class _Claims:
    """Whether a value says yes, as a number or text and not as an object of its own."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __call__(self, other: object) -> bool:
        try:
            said: object = self._value == other
        except Exception:
            return False
        return type(said) in (bool, int, str) and bool(said)


def values(whole: Any) -> Iterator[Any]:
    """A value and what is in it, of lists, tuples, mappings and dataclasses."""
    waiting, seen = [whole], set[int]()
    for _ in range(MOST_VALUES):
        if not waiting:
            return
        value = waiting.pop()
        if type(value) in PLAIN or id(value) in seen:
            continue
        seen.add(id(value))
        yield value
        waiting += islice(_inside(value), MOST_VALUES)


def _inside(value: Any) -> Iterable[Any]:
    """What a container holds, whatever its class says about that."""
    for kind, method in CONTAINERS:
        if isinstance(value, kind):
            return getattr(kind, method)(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return list(getattr(value, "__dict__", {}).values())
    return ()


def asked(value: Any, matchers: bool) -> Any:
    """The value itself.

    Args:
        value: what a test compares.
        matchers: whether the test has matchers of its own, such as `mock.ANY`.

    Raises:
        AssertionError: it equals everything.
    """
    if type(value) not in PLAIN:
        for part in values(value):
            if matchers and (part is mock.ANY or _is_the_tests(part)):
                continue
            if equals_everything(part):
                raise AssertionError(f"a {type(part).__name__} says that it equals everything")
    return value


def _is_the_tests(value: Any) -> bool:
    """Whether the value's class is written in a folder of tests."""
    code = getattr(type(value).__eq__, "__code__", None)
    return code is not None and any(part in TEST_FOLDERS for part in code.co_filename.split("/"))


class Asking(ast.NodeTransformer):
    """Asks all that a test compares or gives to what is called `assert...`."""

    def __init__(self, matchers: bool) -> None:
        self._matchers = matchers

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        """Ask both sides."""
        self.generic_visit(node)
        node.left = self._ask(node.left)
        node.comparators = [self._ask(side) for side in node.comparators]
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """Ask the arguments of an assertion."""
        self.generic_visit(node)
        name = node.func.attr if isinstance(node.func, ast.Attribute) else None
        name = node.func.id if isinstance(node.func, ast.Name) else name
        if name is not None and name.startswith("assert"):
            node.args = [a if isinstance(a, ast.Starred) else self._ask(a) for a in node.args]
        return node

    def _ask(self, side: ast.expr) -> ast.expr:
        if isinstance(side, ast.Constant):
            return side
        ask, matchers = ast.Name(NAME, ast.Load()), ast.Constant(self._matchers)
        call = ast.Call(ask, [side, matchers], [])
        for node in (ask, matchers, call):
            ast.copy_location(node, side)
        return call


def has_matchers(tree: ast.AST) -> bool:
    """Whether a test writes of `ANY`, or of a class with an `__eq__` of its own."""
    names = {getattr(node, key, None) for node in ast.walk(tree) for key in ("id", "attr", "name")}
    return not names.isdisjoint({"ANY", "__eq__"})


def ask_everything(rewriting: Any) -> None:
    """Let every test that pytest reads ask what it compares.

    Args:
        rewriting: pytest's module `_pytest.assertion.rewrite`, whose `rewrite_asserts` gets the
            syntax tree of a file of tests and changes it in place.
    """
    rewrite = rewriting.rewrite_asserts

    def both(tree: Any, *args: Any, **kwargs: Any) -> None:
        matchers = has_matchers(tree)
        rewrite(tree, *args, **kwargs)
        Asking(matchers).visit(tree)

    setattr(builtins, NAME, asked)
    rewriting.rewrite_asserts = both
