"""The reward `code_stdio`: a program prints what it should for every input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from guerdon.errors import BadInput, InvalidReward
from guerdon.resources.sandbox.probe import EngineName
from guerdon.reward import Ready
from guerdon.rules.code.budget import Budget
from guerdon.rules.code.calling import calls_of, run_calls
from guerdon.rules.code.casing import run_cases
from guerdon.rules.code.checker import CHECKERS, Checker
from guerdon.rules.code.code_reward import CodeReward, check_first, no_program
from guerdon.rules.code.extraction import NO_FENCE, WHICH, NoFence, Which, program_in
from guerdon.rules.code.fixtures import STDIO_FIXTURES
from guerdon.rules.code.io_cases import Cases, read_cases
from guerdon.rules.code.language import LANGUAGES, LanguageName
from guerdon.rules.code.verdict import CREDITS, Credit
from guerdon.rules.option import one_of

# Made here, before any thread: msgspec crashes where two of them prepare a type at the same time.
_decode_cases = msgspec.json.Decoder(Cases).decode


class CodeStdio(CodeReward):
    """1 if the program in the response prints what it should for every input, else 0; or a share.

    All cases of a program run in one sandbox that knows the inputs only; outputs are compared in
    this process. A program has to end with exit code 0. The ground truth holds the cases in a form
    that `read_cases` knows: of APPS, TACO and PRIME (`inputs`, `outputs`, and `fn_name` for a
    function in Python), of CodeContests (`input`, `output`, or its three columns of tests), or a
    list of mappings with `input` and `output` (LiveCodeBench, DeepCoder); each also as JSON text.

    Args:
        language: `python`, `javascript` (Node), `cpp` (g++, C++17) or `bash`.
        credit: `all` gives 1 if every case passes; `fraction` gives the share of cases.
        first: only this many cases count, from the first; None is all.
        checker: how outputs are compared: `tokens`, `lines` or `exact`; see `same_output`.
        tolerance: how far a number may be off, absolutely, or relatively above 1.
        fence: which of several code blocks is the program: `last`, `first` or `joined`.
        no_fence: what a response without a code block is: `whole` or `refuse`.
        case_seconds: a case that takes longer ends the program.
        program_seconds: time of all cases together, and of compiling.
        memory_mib: memory of the program.
        output_mib: most output of one case.
        packages: folders from which a Python program may import, beyond the standard library.
        usual_imports: whether a Python program may use what it does not import, as far as APPS and
            those after it bring it: `List`, `deque`, `math`, `sqrt`, deep recursion.
        engine: see `guerdon.resources.sandbox.Sandbox`.

    Raises:
        BadInput: the ground truth holds no cases.
        Unavailable: the sandbox failed, there is none here, or the language is not installed.

    Example:
        >>> code_stdio = CodeStdio(credit="fraction")
        >>> code_stdio.call_sync(
        ...     response="```python\\nprint(int(input()) + 1)\\n```",
        ...     ground_truth={"inputs": ["1", "2"], "outputs": ["2", "4"]},
        ... )["score"]
        0.5
    """

    name = "code_stdio"
    auto_register = True
    fixtures = STDIO_FIXTURES

    def __init__(
        self,
        *,
        language: LanguageName = "python",
        credit: Credit = "all",
        first: int | None = None,
        checker: Checker = "tokens",
        tolerance: float = 1e-6,
        fence: Which = "last",
        no_fence: NoFence = "whole",
        case_seconds: float = 5.0,
        program_seconds: float = 30.0,
        memory_mib: int = 512,
        output_mib: float = 4,
        packages: Sequence[str] = (),
        usual_imports: bool = True,
        engine: EngineName = "auto",
    ) -> None:
        one_of("language", language, LANGUAGES)
        one_of("credit", credit, CREDITS)
        one_of("checker", checker, CHECKERS)
        one_of("fence", fence, WHICH)
        one_of("no_fence", no_fence, NO_FENCE[:2])
        check_first(first)
        if not tolerance >= 0:
            raise InvalidReward(f"tolerance is {tolerance}, and must be 0 or more")
        self.language = LANGUAGES[language]
        self._credit: Credit = credit
        self._first = first
        self._checker: Checker = checker
        self._tolerance = tolerance
        self._fence: Which = fence
        self._no_fence: NoFence = no_fence
        self.engine = engine
        self._budget = Budget(
            case_seconds=case_seconds,
            program_seconds=program_seconds,
            memory_mib=memory_mib,
            output_mib=output_mib,
            packages=tuple(packages),
            usual_imports=usual_imports,
            engine=engine,
        )

    def prepare(self, response: str, ground_truth: Any) -> Ready | dict[str, Any]:
        """Find the program and read the cases; nothing runs here."""
        cases = read_cases(ground_truth).first(self._first)
        if cases.function and self.language.name != "python":
            raise BadInput(
                f"the cases call {cases.function}(), which only Python programs can have"
            )
        code = program_in(response, self.language.tags, self._fence, self._no_fence)
        if code is None:
            return no_program()
        return {"code": code, "cases": msgspec.json.encode(cases)}

    def call(self, *, code: str, cases: bytes) -> dict[str, Any]:
        """Run the program on every case."""
        todo = _decode_cases(cases)
        stop = self._credit == "all"
        if todo.function:
            calls = calls_of(todo, self._tolerance)
            verdict = run_calls(code, todo.function, calls, self._budget, stop=stop)
        else:
            verdict = run_cases(
                code,
                todo,
                self.language,
                self._budget,
                stop=stop,
                checker=self._checker,
                tolerance=self._tolerance,
            )
        return verdict.result(self._credit)
