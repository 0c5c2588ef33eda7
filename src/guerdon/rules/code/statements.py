"""Statements of tests: which are cases, which cannot be run, and which must not be.

Nothing runs here: sources are parsed.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from guerdon.errors import BadInput

SOLUTION = ("solution", "main")
"""What datasets call the module of the program: `from solution import f`."""

RUNNERS = frozenset({"eval", "exec", "compile", "__import__", "sympify", "parse_expr"})
"""Functions that run a text. In the tests' process it would run beside the verdict."""

RUNNING_ATTRIBUTES = frozenset(
    {
        *((module, name) for module in ("pickle", "marshal", "dill") for name in ("load", "loads")),
        *(("subprocess", n) for n in ("run", "Popen", "call", "check_call", "check_output")),
        *(("os", name) for name in ("system", "popen")),
        *(("builtins", name) for name in RUNNERS),
        ("importlib", "import_module"),
        ("runpy", "run_path"),
        ("runpy", "run_module"),
        ("sympy", "sympify"),
    }
)

ONE_PROCESS = frozenset({"patch", "monkeypatch", "redirect_stdout", "redirect_stderr", "capsys"})
"""What changes the process of the tests and is meant for the program, which runs in another."""

STREAMS = ("stdin", "stdout", "stderr")

FILES = frozenset({"tempfile", "shutil", "pyfakefs"})
"""Modules that make files, which only the process of the tests would see."""

WRITING = frozenset({"write_text", "write_bytes", "redirect_stdout", "redirect_stderr"})
"""Attributes that do so, or change where that process prints."""

RANDOM = ("random", "np.random", "numpy.random")

MOCKS = ("mock", "unittest.mock")


class Parts(NamedTuple):
    """The statements of tests.

    Attributes:
        body: without those that take names from the program's module.
        steps: cases of test functions and classes, which come after the body.
        wanted: names that are taken from the program.
    """

    body: list[ast.stmt]
    steps: list[str]
    wanted: tuple[str, ...]


def parsed(source: str, what: str) -> ast.Module:
    """The syntax tree of a source.

    Raises:
        BadInput: it is no Python, or does what tests must not do.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise BadInput(f"{what} no Python: {error}") from None
    refuse(tree)
    return tree


def refuse(tree: ast.AST) -> None:
    """Refuse tests that run texts, and tests that cannot reach the program as they mean to.

    Raises:
        BadInput: naming what they use, and the line.

    Example:
        >>> refuse(ast.parse("assert ast.literal_eval(f(2)) == 4"))
    """
    literal = {id(name) for node in ast.walk(tree) for name in _runs_literals(node)}
    for node in ast.walk(tree):
        if id(node) in literal:
            continue
        where = f"line {getattr(node, 'lineno', '?')} of the tests"
        name = _runner(node)
        if name:
            raise BadInput(
                f"{where} uses {name}, which runs text beside the verdict, also text of the "
                "program: compare values, or read text with ast.literal_eval or json.loads"
            )
        name = _reaches_out(node)
        if name:
            raise BadInput(
                f"{where} uses {name}, which does not reach the program: it runs in another process"
            )


def refuse_seeds(sources: Sequence[str]) -> None:
    """Refuse tests that seed random numbers and draw none: they mean the program's.

    Raises:
        BadInput: naming the function.

    Example:
        >>> refuse_seeds(["import random", "random.seed(1)", "assert f(random.random())"])
    """
    used: dict[str, set[str]] = {}
    for source in sources:
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name | ast.Attribute):
                owner = ast.unparse(node.value)
                if owner in RANDOM:
                    used.setdefault(owner, set()).add(node.attr)
    for module, names in used.items():
        if names == {"seed"}:
            raise BadInput(f"the tests use {module}.seed, which does not reach the program")


def _runs_literals(node: ast.AST) -> list[ast.expr]:
    """The function of a call that runs texts which stand in the tests."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.keywords:
        return []
    known = all(isinstance(argument, ast.Constant) for argument in node.args)
    return [node.func] if known and node.func.id in RUNNERS else []


def _runner(node: ast.AST) -> str:
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in RUNNERS:
        return node.id
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        pair = (node.value.id, node.attr)
        return ".".join(pair) if pair in RUNNING_ATTRIBUTES else ""
    if isinstance(node, ast.ImportFrom):
        for alias in node.names:
            if (node.module, alias.name) in RUNNING_ATTRIBUTES:
                return f"{node.module}.{alias.name}"
    return ""


def _reaches_out(node: ast.AST) -> str:
    if isinstance(node, ast.AsyncFunctionDef | ast.Await):
        return "coroutines"
    if isinstance(node, ast.Name) and node.id in ONE_PROCESS and isinstance(node.ctx, ast.Load):
        return node.id
    if isinstance(node, ast.arg) and node.arg in ONE_PROCESS:
        return node.arg
    if isinstance(node, ast.Name) and node.id == "open" and isinstance(node.ctx, ast.Load):
        return "open"
    if isinstance(node, ast.Attribute) and node.attr in WRITING:
        return node.attr
    if isinstance(node, ast.Attribute) and node.attr == "patch":
        return "mock.patch" if ast.unparse(node.value) in MOCKS else ""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        owner = node.value.id
        if owner == "asyncio" and node.attr in ("run", "get_event_loop", "new_event_loop"):
            return f"asyncio.{node.attr}"
        if owner in FILES or (owner == "os" and node.attr in ("environ", "putenv")):
            return f"{owner}.{node.attr}"
        if owner == "sys" and node.attr in STREAMS and isinstance(node.ctx, ast.Store):
            return f"sys.{node.attr}"
    return ""


def parts_of(body: Sequence[ast.stmt]) -> Parts:
    """Take apart what stands at the top level of tests.

    A function `test_...` without parameters is a case, and so is a method `test...` of a subclass
    of `unittest.TestCase` or of a class `Test...`.

    Raises:
        BadInput: a test function has parameters or decorators, which only pytest knows how to fill.
    """
    kept: list[ast.stmt] = []
    steps: list[str] = []
    wanted: list[str] = []
    for statement in body:
        if isinstance(statement, ast.ImportFrom) and statement.module in SOLUTION:
            for alias in statement.names:
                wanted.append(alias.name)
                if alias.asname:
                    kept += ast.parse(f"{alias.asname} = {alias.name}").body
        else:
            kept.append(statement)
            steps += _calls(statement)
    return Parts(kept, steps, tuple(wanted))


def _calls(statement: ast.stmt) -> Iterator[str]:
    """The cases that a definition stands for, as statements."""
    if isinstance(statement, ast.FunctionDef) and statement.name.startswith("test"):
        _check_parameters(statement, 0)
        if any(map(_asserts, ast.walk(statement))):
            yield f"{statement.name}()"
    elif isinstance(statement, ast.ClassDef):
        unit = any(ast.unparse(base).endswith("TestCase") for base in statement.bases)
        if not unit and not statement.name.startswith("Test"):
            return
        for method in statement.body:
            if isinstance(method, ast.FunctionDef) and method.name.startswith("test"):
                _check_parameters(method, 1)
                if unit:
                    case = f"{statement.name}({method.name!r})"
                    yield f"__import__('unittest').TestSuite([{case}]).debug()"
                else:
                    yield f"{statement.name}().{method.name}()"


def _check_parameters(function: ast.FunctionDef, own: int) -> None:
    required = len(function.args.args) - len(function.args.defaults)
    if required > own or function.decorator_list:
        raise BadInput(
            f"{function.name} has parameters or decorators: tests are run without pytest, so write "
            "the cases out"
        )


def _asserts(node: ast.AST) -> bool:
    """An assertion, or a call such as `self.assertEqual` or `pytest.raises`."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return node.func.attr.startswith("assert") or node.func.attr == "raises"
    return _checks(node)


def _checks(node: ast.AST) -> bool:
    """Whether a node is an assertion that can fail, such as `assert False` behind a call, or raises
    the error of one."""
    if isinstance(node, ast.Raise):
        kind = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
        return isinstance(kind, ast.Name) and kind.id == "AssertionError"
    if not isinstance(node, ast.Assert):
        return False
    return not isinstance(node.test, ast.Constant) or not node.test.value


def is_case(statement: ast.stmt) -> bool:
    """Whether a statement holds an assertion outside of functions."""
    return any(map(_checks, outside_functions(statement)))


def is_idle(statement: ast.stmt) -> bool:
    """Whether a statement does nothing: a text, `pass`, `assert True`."""
    if isinstance(statement, ast.Pass):
        return True
    if isinstance(statement, ast.Expr):
        return isinstance(statement.value, ast.Constant)
    if isinstance(statement, ast.Assert) and isinstance(statement.test, ast.Constant):
        return bool(statement.test.value)
    return False


def outside_functions(node: ast.AST) -> list[ast.AST]:
    """A node and all below it that run with it."""
    found = [node]
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
        for child in ast.iter_child_nodes(node):
            found += outside_functions(child)
    return found


def imports_in(sources: Sequence[str]) -> tuple[str, ...]:
    """The import statements of tests, save those that they try only."""
    found: dict[str, None] = {}
    for source in sources:
        todo: list[ast.AST] = [ast.parse(source)]
        while todo:
            node = todo.pop()
            if isinstance(node, ast.Import | ast.ImportFrom):
                found[ast.unparse(node)] = None
            elif not isinstance(node, ast.Try):
                todo += ast.iter_child_nodes(node)
    return tuple(found)


def names_loaded(sources: Sequence[str]) -> set[str]:
    """All names that sources read."""
    return {
        node.id
        for source in sources
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    }


def given_of(setup: Sequence[str]) -> tuple[str, ...]:
    """What a program may use of the set-up: imports, classes, and what these refer to.

    No other function and no other value: a reference solution or an expected value is none of the
    program's business.

    Example:
        >>> given_of(["MOST = 3\\nclass Node:\\n    most = MOST", "wanted = 7"])
        ('MOST = 3', 'class Node:\\n    most = MOST')
    """
    body = [statement for source in setup for statement in ast.parse(source).body]
    kinds = (ast.ClassDef, ast.Import, ast.ImportFrom)
    kept = {place for place, statement in enumerate(body) if isinstance(statement, kinds)}
    todo = list(kept)
    while todo:
        needed = names_loaded([ast.unparse(body[todo.pop()])])
        for place, statement in enumerate(body):
            if place not in kept and not needed.isdisjoint(_defined(statement)):
                kept.add(place)
                todo.append(place)
    return tuple(ast.unparse(body[place]) for place in sorted(kept))


def _defined(statement: ast.stmt) -> list[str]:
    """The names that a function or a plain assignment gives a meaning."""
    if isinstance(statement, ast.FunctionDef):
        return [statement.name]
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]
