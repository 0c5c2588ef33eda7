"""The tests of a Python function, as datasets give them, cut into cases.

Nothing of a dataset runs here: its source is parsed, and its statements become the steps that run
in a sandbox of their own. Every top-level statement that holds an assertion is one case, so that a
program that ends early leaves cases without a verdict.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Mapping, Sequence
from typing import Any, cast

import msgspec

from guerdon.errors import BadInput
from guerdon.rules.code.entry import entry_of
from guerdon.rules.code.statements import (
    given_of,
    imports_in,
    is_case,
    is_idle,
    names_loaded,
    outside_functions,
    parsed,
    parts_of,
    refuse_seeds,
)

ALIASES = {"np": "numpy", "pd": "pandas"}
"""Usual short names of packages."""

DEFINITIONS = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)

CHECK = "check"
"""The function that HumanEval's tests define: `check(candidate)`."""


class FunctionTests(msgspec.Struct, frozen=True):
    """Tests of one function.

    Attributes:
        setup: sources that run before the program is loaded.
        steps: sources in order, and whether each is a case.
        entry: the function under test; empty where the cases name it themselves.
        alias: what the cases call it beside its name.
        preamble: source that runs before the program, in its process.
        modules: names that the cases use as modules without importing them.
        imports: import statements of the cases, which must work.
        wanted: names that the set-up may need of the program.
        imported: names that the tests import from the program, which it must have.
        given: statements of the set-up that the program may use.
    """

    setup: tuple[str, ...]
    steps: tuple[tuple[str, bool], ...]
    entry: str = ""
    alias: str = ""
    preamble: str = ""
    modules: tuple[str, ...] = ()
    imports: tuple[str, ...] = ()
    wanted: tuple[str, ...] = ()
    imported: tuple[str, ...] = ()
    given: tuple[str, ...] = ()

    @property
    def cases(self) -> int:
        """How many cases there are."""
        return sum(is_case for _, is_case in self.steps)

    def first(self, count: int | None) -> FunctionTests:
        """The same with the first cases only."""
        if count is None or count >= self.cases:
            return self
        kept: list[tuple[str, bool]] = []
        for step in self.steps:
            kept.append(step)
            count -= step[1]
            if count == 0:
                break
        return msgspec.structs.replace(self, steps=tuple(kept))


def read_function_tests(
    test: object, test_list: object, entry: object, setup: Sequence[str], prompt: str | None
) -> FunctionTests:
    """The tests in the columns of a row.

    Args:
        test: source with `check(candidate)`, or with assertions at its top level.
        test_list: a list of sources, each one case, as MBPP has it.
        entry: name of the function under test, or None.
        setup: sources to run first.
        prompt: source that the program continues or repeats; None where it is no source.

    Raises:
        BadInput: there are no tests, they are no Python, or they check nothing.

    Example:
        >>> tests = read_function_tests("assert f(1) == 2\\nassert f(2) == 3", None, None, (), None)
        >>> tests.cases
        2
    """
    tests = _read(test, test_list, entry, setup, prompt)
    return msgspec.structs.replace(tests, given=given_of(setup))


def _read(
    test: object, test_list: object, entry: object, setup: Sequence[str], prompt: str | None
) -> FunctionTests:
    """The tests, without what the program may use of the set-up."""
    name = entry if isinstance(entry, str) else ""
    preamble = _preamble(prompt) if prompt else ""
    if isinstance(test_list, list | tuple) and test_list:
        steps = tuple(map(_listed_case, cast("Sequence[object]", test_list)))
        return _tests(preamble, setup, steps, name)
    if not isinstance(test, str) or not test.strip():
        raise BadInput(
            "the row has no tests: it needs 'test', 'test_list' or a ground truth (of APPS and "
            "TACO: --map ground_truth=input_output; programs that read input are for code_stdio)"
        )
    tree = parsed(test, "the tests are")
    check = _check_function(tree)
    if check is None:
        return _at_top_level(tree, preamble, setup, name)
    if not name:
        raise BadInput("the tests define check(candidate), and the row names no entry_point")
    inner, alias = _body(check)
    rest = [s for s in parts_of(tree.body).body if s is not check and not _calls_check(s)]
    if not any(map(is_case, inner)):
        called = ((f"{CHECK}({name})", True),)
        return _tests(preamble, (*setup, _source([*rest, check])), called, name)
    steps = tuple((ast.unparse(s), is_case(s)) for s in inner if not is_idle(s))
    return _tests(preamble, (*setup, _source(rest)), steps, name, alias)


def _at_top_level(
    tree: ast.Module, preamble: str, setup: Sequence[str], name: str
) -> FunctionTests:
    """Tests that stand at the top level, or in functions and classes for tests."""
    parts = parts_of(tree.body)
    setup_part, body = _split(parts.body)
    steps = [(ast.unparse(s), is_case(s)) for s in body if not is_idle(s)]
    steps += [(step, True) for step in parts.steps]
    if not any(case for _, case in steps):
        raise BadInput("the tests hold no assertion, so they check nothing")
    return _tests(preamble, (*setup, _source(setup_part)), tuple(steps), name, wanted=parts.wanted)


def _tests(
    preamble: str,
    setup: Sequence[str],
    steps: tuple[tuple[str, bool], ...],
    name: str,
    alias: str = "",
    wanted: tuple[str, ...] = (),
) -> FunctionTests:
    own = [source for source in setup if source.strip()]
    for source in own:
        parsed(source, "the set-up is")
    first = tuple(source for source in (preamble, *own) if source.strip())
    sources = [source for source, _ in steps]
    refuse_seeds([*own, *sources])
    needed = tuple(sorted({*wanted, *names_loaded(own)}))
    modules, imports = _modules(steps), imports_in(sources)
    entry = name or ("" if wanted else entry_of(sources, own, preamble, modules))
    return FunctionTests(
        first, steps, entry, alias, preamble, modules, imports, needed, tuple(set(wanted) - {"*"})
    )


def _modules(steps: Sequence[tuple[str, bool]]) -> tuple[str, ...]:
    """Names that are only used as in `math.sqrt` and are modules: a program must not bring them."""
    nodes = [node for source, _ in steps for node in ast.walk(ast.parse(source))]
    owners = {
        node.value.id
        for node in nodes
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }
    called = {
        node.func.id
        for node in nodes
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    known = sys.stdlib_module_names | set(ALIASES)
    return tuple(sorted((owners - called) & known))


def _preamble(prompt: str) -> str:
    """The prompt, where it is Python source by itself, as in HumanEval; else nothing."""
    try:
        body = ast.parse(prompt).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ""
    # A prompt of plain words may be Python, too.
    return prompt if any(isinstance(statement, DEFINITIONS) for statement in body) else ""


def _listed_case(item: object) -> tuple[str, bool]:
    if not isinstance(item, str):
        raise BadInput(f"the list of tests holds a {type(item).__name__}, not a text")
    tree = parsed(item, "a test is")
    if not any(map(is_case, tree.body)):
        raise BadInput(f"the test {item[:80]!r} holds no assertion")
    return item, True


def _check_function(tree: ast.Module) -> ast.FunctionDef | None:
    for statement in tree.body:
        if isinstance(statement, ast.FunctionDef) and statement.name == CHECK:
            return statement
    return None


def _body(check: ast.FunctionDef) -> tuple[list[ast.stmt], str]:
    """The statements of check and the name of its parameter; nothing where they cannot be taken
    out of the function."""
    bound = (ast.Return, ast.Yield, ast.YieldFrom, ast.Nonlocal, ast.Global)
    own = [node for statement in check.body for node in outside_functions(statement)]
    if len(check.args.args) != 1 or any(isinstance(node, bound) for node in own):
        return [], ""
    return check.body, check.args.args[0].arg


def _calls_check(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Call)
        and isinstance(statement.value.func, ast.Name)
        and statement.value.func.id == CHECK
    )


def _split(body: list[ast.stmt]) -> tuple[list[ast.stmt], list[ast.stmt]]:
    """Imports and definitions at the start, and what follows."""
    for place, statement in enumerate(body):
        if not isinstance(statement, DEFINITIONS) and not is_idle(statement):
            return body[:place], body[place:]
    return body, []


def _source(statements: Sequence[ast.stmt]) -> str:
    return "\n".join(map(ast.unparse, statements))


def as_mapping(value: object) -> Mapping[str, Any]:
    """A mapping, also one in JSON text; empty where it is none.

    Example:
        >>> as_mapping('{"test": "assert f()"}')["test"]
        'assert f()'
    """
    if isinstance(value, Mapping):
        return cast("Mapping[str, Any]", value)
    if isinstance(value, str) and value.lstrip()[:1] == "{":
        try:
            return msgspec.json.decode(value, type=dict[str, Any])
        except msgspec.MsgspecError:
            return {}
    return {}
