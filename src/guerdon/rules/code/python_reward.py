"""The reward `code_python`: a Python function passes the tests of its row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import msgspec

from guerdon.errors import BadInput
from guerdon.resources.sandbox.probe import EngineName
from guerdon.reward import Ready
from guerdon.rules.code.budget import Budget
from guerdon.rules.code.calling import Call, calls_of, run_calls
from guerdon.rules.code.code_reward import CodeReward, check_first, no_program
from guerdon.rules.code.extraction import NO_FENCE, WHICH, NoFence, Which, program_in
from guerdon.rules.code.fixtures import PYTHON_FIXTURES
from guerdon.rules.code.function_tests import FunctionTests, as_mapping, read_function_tests
from guerdon.rules.code.io_cases import ASSERTIONS, Cases, read_cases
from guerdon.rules.code.language import LANGUAGES
from guerdon.rules.code.literal_tests import literal_calls
from guerdon.rules.code.testing import run_function_tests
from guerdon.rules.code.verdict import CREDITS, Credit
from guerdon.rules.option import one_of


class Work(msgspec.Struct, frozen=True):
    """What travels to where the program is run: tests to run, or calls to compare."""

    tests: FunctionTests | None = None
    cases: Cases | None = None


# Made here, before any thread: msgspec crashes where two of them prepare a type at the same time.
_decode_work = msgspec.json.Decoder(Work).decode


class CodePython(CodeReward):
    """1 if the Python program in the response passes its tests, else 0; or the share of them.

    The program runs in one sandbox and the tests in another; tests that are only calls with
    literals are compared in this process. What passes between them are arguments and return values,
    as plain values: the program never sees an expected value, and no comparison happens where it
    could be tampered with. A program that is wrong, raises, loops,
    takes too much memory or does what only an attack does fails its case. Tests that do not run by
    themselves fail as `bad_input`; a sandbox that fails is `unavailable`.

    The tests are taken from the row's columns, or from a ground truth that holds them:
    `test` and `entry_point` (HumanEval), `test_list` with `test_setup_code` or `test_imports`
    (MBPP), `assert_case` (verl's SandboxFusion), a ground truth that is a list of assertions or a
    source with assertions, functions `test_...` or classes of them, or `inputs`, `outputs` and
    `fn_name` (APPS). A prompt that is Python source is run before program and tests.

    Args:
        credit: `all` gives 1 if every case passes; `fraction` gives the share of cases.
        first: only this many cases count, from the first; None is all.
        fence: which of several code blocks is the program: `last`, `first` or `joined`.
        no_fence: what a response without a code block is: `whole` (all of it is the program),
            `refuse` (no program), `continue` (it goes on where the prompt ends).
        in_place: whether tests see what the program changes in its arguments. Off, a program cannot
            change a list that the tests still use.
        tolerance: for `fn_name` cases: how far a float may be off.
        case_seconds: a case that takes longer ends the program.
        program_seconds: time of all cases together.
        memory_mib: memory of the program.
        packages: folders from which program and tests may import, beyond the standard library.
        usual_imports: whether a Python program may use what it does not import, as far as APPS and
            those after it bring it: `List`, `deque`, `math`, `sqrt`, deep recursion.
        engine: see `guerdon.resources.sandbox.Sandbox`.

    Raises:
        BadInput: the row has no tests, or they cannot be run.
        Unavailable: the sandbox failed, or there is none here.

    Example:
        >>> code_python = CodePython()
        >>> code_python.call_sync(
        ...     response="```python\\ndef twice(x):\\n    return 2 * x\\n```",
        ...     ground_truth="assert twice(2) == 4",
        ... )["score"]
        1.0
    """

    name = "code_python"
    auto_register = True
    fixtures = PYTHON_FIXTURES
    language = LANGUAGES["python"]

    def __init__(
        self,
        *,
        credit: Credit = "all",
        first: int | None = None,
        fence: Which = "last",
        no_fence: NoFence = "whole",
        in_place: bool = False,
        tolerance: float = 1e-6,
        case_seconds: float = 5.0,
        program_seconds: float = 30.0,
        memory_mib: int = 512,
        packages: Sequence[str] = (),
        usual_imports: bool = True,
        engine: EngineName = "auto",
    ) -> None:
        one_of("credit", credit, CREDITS)
        one_of("fence", fence, WHICH)
        one_of("no_fence", no_fence, NO_FENCE)
        check_first(first)
        self._credit: Credit = credit
        self._first = first
        self._fence: Which = fence
        self._no_fence: NoFence = no_fence
        self._in_place = in_place
        self._tolerance = tolerance
        self.engine = engine
        self._budget = Budget(
            case_seconds=case_seconds,
            program_seconds=program_seconds,
            memory_mib=memory_mib,
            packages=tuple(packages),
            usual_imports=usual_imports,
            engine=engine,
        )

    def prepare(
        self,
        response: str,
        ground_truth: Any = None,
        test: Any = None,
        test_list: Any = None,
        entry_point: Any = None,
        test_setup_code: Any = None,
        test_imports: Any = None,
        prompt: str | None = None,
    ) -> Ready | dict[str, Any]:
        """Find the program and cut the tests into cases; nothing runs here."""
        columns = {
            "test": test,
            "test_list": test_list,
            "entry_point": entry_point,
            "test_setup_code": test_setup_code,
            "test_imports": test_imports,
        }
        work = read_work(ground_truth, columns, prompt, self._first)
        code = program_in(response, self.language.tags, self._fence, self._no_fence)
        if code is None:
            return no_program()
        if self._no_fence == "continue" and "```" not in response:
            code = f"{prompt or ''}{code}"
        return {"code": code, "work": msgspec.json.encode(work)}

    def call(self, *, code: str, work: bytes) -> dict[str, Any]:
        """Run the program against its tests."""
        todo = _decode_work(work)
        stop = self._credit == "all"
        if todo.cases is not None:
            calls = calls_of(todo.cases, self._tolerance)
            return self._compared(code, todo.cases.function, calls)
        tests = cast("FunctionTests", todo.tests)
        literal = literal_calls(tests)
        if literal is not None:
            return self._compared(code, *literal, tests.preamble, tests.given)
        verdict = run_function_tests(code, tests, self._budget, stop=stop, in_place=self._in_place)
        return verdict.result(self._credit)

    def _compared(
        self,
        code: str,
        function: str,
        calls: Sequence[Call],
        preamble: str = "",
        given: tuple[str, ...] = (),
    ) -> dict[str, Any]:
        """What tests give that need no process of their own."""
        stop = self._credit == "all"
        budget = self._budget
        verdict = run_calls(
            code, function, calls, budget, stop=stop, preamble=preamble, given=given
        )
        return verdict.result(self._credit)


def read_work(
    ground_truth: object, columns: Mapping[str, Any], prompt: str | None, first: int | None
) -> Work:
    """What has to be run for a row.

    Raises:
        BadInput: it has no tests.
    """
    held = as_mapping(ground_truth)
    if held.get("fn_name"):
        return Work(cases=read_cases(ground_truth).first(first))
    row = {key: value for key, value in {**columns, **held}.items() if value is not None}
    test, test_list = row.get("test"), row.get("test_list", row.get(ASSERTIONS))
    if not held and test is None and test_list is None:
        if isinstance(ground_truth, str):
            test = ground_truth
        elif isinstance(ground_truth, list | tuple):
            test_list = cast("Sequence[object]", ground_truth)
    setup = [*_sources(row.get("test_imports")), *_sources(row.get("test_setup_code"))]
    source = row.get("prompt", prompt)
    prompt_source = source if isinstance(source, str) else None
    try:
        tests = read_function_tests(test, test_list, row.get("entry_point"), setup, prompt_source)
    except RecursionError:
        raise BadInput("the tests are nested too deeply to be read") from None
    return Work(tests=tests.first(first))


def _sources(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, list | tuple):
        items = cast("Sequence[object]", value)
        return [item for item in items if isinstance(item, str)]
    return []
