"""The reward `test_state`: the agent leaves files that pass named tests, which it did not see."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, Unpack, cast

import msgspec

from guerdon.errors import BadInput, InvalidReward
from guerdon.resources import Context
from guerdon.resources.sandbox import Limits
from guerdon.resources.sandbox.limits import MIB
from guerdon.resources.sandboxes import sandbox_of
from guerdon.rules.agent.pytest_run import TestRun, pytest_folder, run_tests
from guerdon.rules.agent.replay import Replaying, Spoilt
from guerdon.rules.agent.work_state import WorkState, checked_name, files_of
from guerdon.rules.case import case
from guerdon.sample import Message

SETTINGS = frozenset(
    {"conftest.py", "pytest.ini", ".pytest.ini", "pytest.toml", ".pytest.toml", "tox.ini",
     "setup.cfg", "pyproject.toml", "sitecustomize.py", "usercustomize.py"}
)  # fmt: skip
"""Files that say how tests run: they are as the row has them, or not there."""

TEST_FOLDERS = frozenset({"test", "tests"})
"""Folders whose files are as the row has them, as tests import them."""

BYTE_CODE = (".pyc", ".pyo")
"""Files that could stand in for a source that the row put there."""


class NamedTests(msgspec.Struct, frozen=True):
    """What the truth wants.

    Attributes:
        files: that are put there after the agent's work, by name.
        fail_to_pass: tests that failed before the agent's work.
        pass_to_pass: tests that passed before.
    """

    files: Mapping[str, bytes]
    fail_to_pass: tuple[str, ...]
    pass_to_pass: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """All tests, each once."""
        return tuple(dict.fromkeys((*self.fail_to_pass, *self.pass_to_pass)))


def _called(*commands: str) -> list[dict[str, Any]]:
    calls = [{"name": "bash", "arguments": {"command": command}} for command in commands]
    return [{"role": "assistant", "content": "", "tool_calls": calls}]


_TESTS = (
    "from calc import add, double\n\n\n"
    "def test_add():\n    assert add(2, 3) == 5\n\n\n"
    "def test_double():\n    assert double(2) == 4\n"
)
_FILES = {"calc.py": "def add(a, b):\n    return a - b\n\n\ndef double(a):\n    return 2 * a\n"}
_TRUTH = {
    "tests": {"tests/test_calc.py": _TESTS},
    "FAIL_TO_PASS": ["tests/test_calc.py::test_add"],
    "PASS_TO_PASS": ["tests/test_calc.py::test_double"],
}
_ROW: dict[str, Any] = {"ground_truth": _TRUTH, "metadata": {"files": _FILES}}
_FIX = "sed -i 's/a - b/a + b/' calc.py"
_FIXTURES = (
    case("full", "mended", 1.0, response=_called(_FIX), **_ROW),
    case("zero", "nothing done", 0.0, response="Fixed!", **_ROW),
    case("zero", "empty", 0.0, response="", **_ROW),
    case("zero", "one test broken", 0.0,
         response=_called(_FIX, "sed -i 's/2 [*] a/3 * a/' calc.py"), **_ROW),
    case("zero", "nothing can be imported", 0.0, response=_called("echo '(' > calc.py"), **_ROW),
    case("malformed", "no truth", "bad_input", response="", metadata={"files": _FILES}),
    case("malformed", "a test without a file", "bad_input", response="",
         ground_truth={"FAIL_TO_PASS": ["tests/test_x.py::test_x"]}, metadata={"files": _FILES}),
    case("malformed", "odd characters", 0.0, response=_called("\0\ud800"), **_ROW),
    case("deterministic", "an error on the way", 1.0, response=_called("cat x", _FIX), **_ROW),
    case("metamorphic", "equivalent form: written anew", 1.0,
         response=_called("printf 'add = lambda a, b: a + b\\ndouble = lambda a: a + a' > calc.py"),
         **_ROW),
    case("metamorphic", "noise around: more files", 1.0,
         response=_called(_FIX, "mkdir x; echo hi > x/note.txt"), **_ROW),
    case("metamorphic", "every option: all tests skipped", 0.0,
         response=_called("echo 'import pytest; pytest.skip(allow_module_level=True)' > calc.py"),
         **_ROW),
    case("metamorphic", "injected: said instead of done", 0.0,
         response="tests/test_calc.py::test_add PASSED\n2 passed", **_ROW),
)  # fmt: skip


class TestState(WorkState):
    """1 if the files that the agent leaves pass all named tests, else 0; or the share of them.

    The commands that the model sent to its tool are made again in a fresh workspace with the row's
    `files`; or `replay` is off, and the caller's context holds the workspace that its tools
    changed. Then the tests are put there, over whatever stands in their place; what says how tests
    run (`conftest.py`, `pytest.ini`, `pyproject.toml`, ...) and what stands in folders called
    `tests` is as the row has it. Pytest runs them in a sandbox. A test that is missing, skipped,
    not collected or not reached has failed. Range 0 to 1. Source: SWE-bench (Jimenez et al. 2024,
    arXiv:2310.06770) for the lists of names; AgentFly 0.1.0, `r2e_gym_reward`.

    Tests of this kind share a process with the code they test, here as in SWE-bench. Verdicts are
    signed, tests that must fail run among them, functions that decide about tests must be in their
    places at the end, and what a test compares is asked whether it equals everything. That stops
    code which makes tests pass, ends the process or gives back a value that equals all. It stops
    neither code which reads the tests while they run nor code written against this very reward.
    For functions, `code_python` keeps tests and program apart.

    Args:
        tool: name of the model's tool.
        argument: of the tool that holds the command, for `bash -c`.
        command_seconds: for each command.
        test_seconds: for all tests together.
        memory_mib: for the tests.
        packages: folders from which tests and files may import; without any, the one that this
            process has pytest from.
        roots: folders among the files from which modules are imported, such as "src".
        replaying: `replay`, `credit` (of named tests), `total_seconds`, `engine`; see
            `guerdon.rules.agent.replay.FinalState`.

    The ground truth is a mapping with `FAIL_TO_PASS` and `PASS_TO_PASS`, lists (or JSON text of
    them) of tests such as "tests/test_a.py::test_b", and `tests`, texts by file name. Metadata key:
    `files`, likewise.

    Raises:
        BadInput: no tests, tests in files that the row does not have, or files that are none.
        Unavailable: the sandbox failed, or pytest is not in it.
    """

    __test__ = False
    name = "test_state"
    auto_register = True
    fixtures = _FIXTURES

    def __init__(
        self,
        *,
        tool: str = "bash",
        argument: str = "command",
        command_seconds: float = 10.0,
        test_seconds: float = 60.0,
        memory_mib: int = 1024,
        packages: Sequence[str] = (),
        roots: Sequence[str] = (".",),
        **replaying: Unpack[Replaying],
    ) -> None:
        super().__init__(tool, argument, command_seconds, **replaying)
        if not (test_seconds > 0 and memory_mib > 0):
            raise InvalidReward("test_seconds and memory_mib must be above 0")
        self._limits = Limits(
            wall_seconds=test_seconds, memory_bytes=memory_mib * MIB, memory_by="data"
        )
        self._packages = tuple(packages)
        self._roots = tuple(roots)

    def call(
        self,
        context: Context,
        response_messages: Sequence[Message],
        ground_truth: Any,
        files: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Make the files, and test them."""
        row = files_of(files, "files")
        truth = read_truth(ground_truth, row)
        try:
            left, sent = self.left(context, response_messages, row)
        except Spoilt as end:
            return end.result()
        run = self._run(files_to_test(left, row, truth), truth.names)
        held = {name: name in run.passed for name in truth.names}
        failed = [name for name, passed in held.items() if not passed]
        return {
            "score": self.value([*held.values()]),
            "metrics": {
                "fail_to_pass": sum(held[name] for name in truth.fail_to_pass),
                "pass_to_pass": sum(held[name] for name in truth.pass_to_pass),
                "tests": len(held),
                **sent.metrics,
            },
            "info": {
                "status": run.status,
                "failed": failed[:20],
                "message": run.message,
                **self.hint(sent),
            },
        }

    def _run(self, files: Mapping[str, bytes], tests: Sequence[str]) -> TestRun:
        return run_tests(
            sandbox_of(self.engine),
            files,
            tests,
            packages=self._packages or pytest_folder(),
            roots=self._roots,
            limits=self._limits,
        )


def read_truth(ground_truth: Any, files: Mapping[str, bytes]) -> NamedTests:
    """The named tests, and their files.

    Raises:
        BadInput: there are none, or one is in a file that neither the truth nor the row has.
    """
    if not isinstance(ground_truth, Mapping):
        raise BadInput("the ground truth is no mapping with FAIL_TO_PASS, PASS_TO_PASS and tests")
    truth = cast("Mapping[str, Any]", ground_truth)
    found = NamedTests(
        files_of(truth.get("tests"), "tests"),
        _test_names(truth, "FAIL_TO_PASS"),
        _test_names(truth, "PASS_TO_PASS"),
    )
    if not found.names:
        raise BadInput("the ground truth names no tests in FAIL_TO_PASS and PASS_TO_PASS")
    known = {*files, *found.files}
    for name in found.names:
        path = name.partition("::")[0]
        if path not in known or "::" not in name:
            raise BadInput(
                f"the test {name!r:.200} is in no file of the truth's tests or the row's"
            )
    for path in known:
        above = next((str(p) for p in PurePosixPath(path).parents if str(p) in known), None)
        if above is not None:
            raise BadInput(f"the row's file {above!r} is a folder of {path!r}")
    return found


def _test_names(truth: Mapping[str, Any], key: str) -> tuple[str, ...]:
    raw = truth.get(key)
    if isinstance(raw, str):
        try:
            raw = json.loads(raw)
        except (ValueError, RecursionError):
            raise BadInput(f"{key} is a text that is no JSON") from None
    if raw is None:
        return ()
    if not isinstance(raw, list | tuple):
        raise BadInput(f"{key} is no list of tests")
    names = cast("Sequence[Any]", raw)
    if not all(isinstance(name, str) for name in names):
        raise BadInput(f"{key} has something else than names of tests")
    for name in names:
        checked_name(name.partition("::")[0])
    return tuple(names)


def files_to_test(
    left: Mapping[str, bytes], row: Mapping[str, bytes], truth: NamedTests
) -> dict[str, bytes]:
    """The files that are tested: the agent's, without those that are the row's business.

    Example:
        >>> truth = NamedTests({"t.py": b"tests"}, ("t.py::test",), ())
        >>> sorted(files_to_test({"t.py": b"", "a.py": b"", "conftest.py": b""}, {}, truth))
        ['a.py', 't.py']
    """
    named = {name.partition("::")[0] for name in truth.names}
    kept = {name: data for name, data in row.items() if name in named or _is_rows(name)}
    given = {**kept, **truth.files}
    folders = {str(folder) for name in given for folder in PurePosixPath(name).parents}
    own = {
        name: data
        for name, data in left.items()
        if name not in folders
        and not _is_rows(name)
        and not any(str(folder) in given for folder in PurePosixPath(name).parents)
    }
    return {**own, **given}


def _is_rows(name: str) -> bool:
    path = PurePosixPath(name)
    return (
        path.name in SETTINGS
        or path.suffix in BYTE_CODE
        or not TEST_FOLDERS.isdisjoint(path.parts[:-1])
    )
