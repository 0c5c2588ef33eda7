"""The function under test, of tests that do not name it in a column of their own."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterable, Iterator, Sequence

from guerdon.errors import BadInput
from guerdon.rules.code.statements import names_loaded

BUILT_IN = frozenset(dir(builtins))


def entry_of(
    cases: Sequence[str], setup: Sequence[str], preamble: str, known: Iterable[str]
) -> str:
    """What the tests call that nobody but the program can mean; empty where no name needs care.

    A name that nobody defines is the program's anyway. Two kinds have a meaning without it, and
    tests of them would pass whatever the program is: the stub in a prompt, and a built-in function
    that the program is to define anew (MBPP has `sum`).

    Args:
        cases: sources of the tests.
        setup: sources that run before.
        preamble: the prompt, where it is source.
        known: names that need no program: modules.

    Raises:
        BadInput: the tests use nothing of the program.

    Example:
        >>> entry_of(["assert sum(10, 15) == 6"], [], "", ())
        'sum'
    """
    sources = [*setup, *cases]
    called = {name for source in sources for name in _called(ast.parse(source))}
    stubs = [name for name in _stubs(preamble) if name in called]
    if stubs:
        return stubs[-1]
    bound = {name for source in (preamble, *sources) for name in _bound(ast.parse(source))}
    if names_loaded(sources) - bound - BUILT_IN - set(known):
        return ""
    meant = (called & BUILT_IN) - bound
    if len(meant) > 1:
        meant = meant.intersection(*({*_called(ast.parse(case))} for case in cases))
    if len(meant) == 1:
        return meant.pop()
    raise BadInput("the tests use nothing of the program: name what they test in 'entry_point'")


def _called(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node.func.id


def _stubs(preamble: str) -> Iterator[str]:
    """Functions of a prompt that have no body yet."""
    for statement in ast.parse(preamble).body:
        if isinstance(statement, ast.FunctionDef) and all(map(_is_empty, statement.body)):
            yield statement.name


def _is_empty(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Expr):
        return isinstance(statement.value, ast.Constant)
    return isinstance(statement, ast.Pass | ast.Raise)


def _bound(tree: ast.AST) -> Iterator[str]:
    """Names that a source gives a meaning."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.ExceptHandler) and node.name:
            yield node.name
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from ((alias.asname or alias.name).partition(".")[0] for alias in node.names)
