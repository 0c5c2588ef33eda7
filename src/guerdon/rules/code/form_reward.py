"""Rewards for the form of a program: `code_syntax` and `code_lint`. The program is not run."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from guerdon.errors import InvalidReward
from guerdon.resources.sandbox import Command, Limits
from guerdon.resources.sandbox.probe import EngineName
from guerdon.reward import Ready
from guerdon.rules.code.budget import MIB, Budget
from guerdon.rules.code.code_reward import MOST_READ, CodeReward, no_program, too_long
from guerdon.rules.code.extraction import NO_FENCE, WHICH, NoFence, Which, program_in
from guerdon.rules.code.fixtures import LINT_FIXTURES, SYNTAX_FIXTURES
from guerdon.rules.code.frames import Frames
from guerdon.rules.code.language import LANGUAGES, LanguageName
from guerdon.rules.code.testing import INSIDE, start_inside
from guerdon.rules.code.verdict import shown
from guerdon.rules.option import one_of

LINTING = (f"{INSIDE}.values", f"{INSIDE}.linting")

FORM_SECONDS = 10.0
"""For reading one program; a compiler may take several on what a model writes."""

SHOWN_FINDINGS = 20

READ = "import sys; compile(open(sys.argv[1], encoding='utf-8').read(), 'solution.py', 'exec')"
"""Compiles a Python program without running it."""


def _found(code: str | None) -> Ready | dict[str, Any]:
    """The arguments of `call`, for a program that can be read."""
    if code is None:
        return no_program()
    return {"code": code} if len(code) <= MOST_READ else too_long(len(code))


class CodeSyntax(CodeReward):
    """1 if the program in the response is free of syntax errors, else 0.

    The language's own compiler or interpreter reads the program, inside the sandbox, and does not
    run it. A response without a program scores 0, and so does a program that the compiler does not
    finish reading, or of more than a million characters (`MOST_READ`).

    Args:
        language: `python`, `javascript`, `cpp` (types are checked, too) or `bash`.
        fence: which of several code blocks is the program: `last`, `first` or `joined`.
        no_fence: what a response without a code block is: `whole` or `refuse`.
        seconds: how long reading may take.
        memory_mib: memory for reading.
        engine: see `guerdon.resources.sandbox.Sandbox`.

    Raises:
        Unavailable: the sandbox failed, there is none here, or the language is not installed.

    Example:
        >>> CodeSyntax().call_sync(response="```python\\nif:\\n```")["score"]
        0.0
    """

    name = "code_syntax"
    auto_register = True
    fixtures = SYNTAX_FIXTURES

    def __init__(
        self,
        *,
        language: LanguageName = "python",
        fence: Which = "last",
        no_fence: NoFence = "refuse",
        seconds: float = FORM_SECONDS,
        memory_mib: int = 512,
        engine: EngineName = "auto",
    ) -> None:
        one_of("language", language, LANGUAGES)
        one_of("fence", fence, WHICH)
        one_of("no_fence", no_fence, NO_FENCE[:2])
        self.language = LANGUAGES[language]
        self._fence: Which = fence
        self._no_fence: NoFence = no_fence
        self.engine = engine
        self._budget = Budget(program_seconds=seconds, memory_mib=memory_mib, engine=engine)

    def prepare(self, response: str) -> Ready | dict[str, Any]:
        """Find the program."""
        return _found(program_in(response, self.language.tags, self._fence, self._no_fence))

    def call(self, *, code: str) -> dict[str, Any]:
        """Let the language read it."""
        language, sandbox = self.language, self._budget.sandbox
        if language.tool:
            argv = (language.tool_path(), *language.check)
        else:
            argv = (*sandbox.interpreter.argv, "-c", READ, language.file)
        limits = Limits(
            wall_seconds=self._budget.program_seconds,
            memory_bytes=(self._budget.memory_mib + language.tool_mib) * MIB,
            memory_by="data" if language.memory_by == "data" else "address_space",
        )
        program = code.encode("utf-8", "surrogatepass")
        result = sandbox.run(Command(argv=argv, files={language.file: program}), limits).check()
        status = str(result.status)
        return {
            "score": float(status == "ok"),
            "info": {"status": status, "message": shown(result.last_error)},
        }


class CodeLint(CodeReward):
    """How free of usual faults the Python program in the response is: 1 without any, down to 0.

    `max(0, 1 - weight * findings / statements)`: as in Pylint's default evaluation, faults count by
    statement. The rules are few and fixed, so that a value never depends on an installed linter:
    bare except, comparison with None, `is` with a literal, star import, f-string without values,
    repeated key, mutable default, shadowed built-in, more than 12 branches in a function,
    unreachable code, unused import, unused variable, undefined name, line above 100 characters. A
    program that cannot be parsed scores 0, and so does one of more than a million characters
    (`MOST_READ`). It is read inside the sandbox and not run.

    Args:
        weight: what one fault takes, in statements.
        fence: which of several code blocks is the program: `last`, `first` or `joined`.
        no_fence: what a response without a code block is: `whole` or `refuse`.
        engine: see `guerdon.resources.sandbox.Sandbox`.

    Raises:
        Unavailable: the sandbox failed, or there is none here.

    Example:
        >>> CodeLint(weight=1.0).call_sync(response="```python\\nimport os\\nx = 1\\n```")["score"]
        0.5
    """

    name = "code_lint"
    auto_register = True
    fixtures = LINT_FIXTURES
    language = LANGUAGES["python"]

    def __init__(
        self,
        *,
        weight: float = 1.0,
        fence: Which = "last",
        no_fence: NoFence = "refuse",
        engine: EngineName = "auto",
    ) -> None:
        one_of("fence", fence, WHICH)
        one_of("no_fence", no_fence, NO_FENCE[:2])
        if not 0 <= weight < float("inf"):
            raise InvalidReward(f"weight is {weight}, and must be 0 or more")
        self._weight = weight
        self._fence: Which = fence
        self._no_fence: NoFence = no_fence
        self.engine = engine
        self._budget = Budget(program_seconds=FORM_SECONDS, engine=engine)

    def prepare(self, response: str) -> Ready | dict[str, Any]:
        """Find the program."""
        return _found(program_in(response, self.language.tags, self._fence, self._no_fence))

    def call(self, *, code: str) -> dict[str, Any]:
        """Read it in the sandbox."""
        limits = replace(self._budget.limits(), wall_seconds=FORM_SECONDS)
        with start_inside(self._budget, LINTING, {"source": code}, limits) as reader:
            report = Frames(reader).next(float("inf"))  # the sandbox has its own limit
            if report is None:
                result = reader.finish().check()
                info = {"status": str(result.status), "message": shown(result.detail)}
                return {"score": 0.0, "info": info}
        if report[0] != "findings":
            return {"score": 0.0, "info": {"status": "broken", "message": shown(str(report[1]))}}
        statements, findings = report[1], report[2]
        if not statements:
            return {"score": 0.0, "info": {"status": "no_program", "message": "no statement"}}
        lines = [f"{line}: {rule}" for line, rule in findings[:SHOWN_FINDINGS]]
        return {
            "score": max(0.0, 1.0 - self._weight * len(findings) / statements),
            "metrics": {"findings": len(findings), "statements": statements},
            "info": {"status": "read", "findings": lines},
        }
