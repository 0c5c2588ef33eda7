"""The reward `program_runs`: the program in the response runs to its end."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import msgspec

from guerdon.errors import BadInput
from guerdon.resources.program import Program, Run
from guerdon.resources.sandbox.probe import EngineName
from guerdon.resources.sandbox_fusion import SandboxFusionSpec
from guerdon.resources.sandbox_fusion_form import RunCodeRequest, plain, program_of, response_of
from guerdon.resources.sandboxes import sandbox_of
from guerdon.reward import BaseReward
from guerdon.rules.agent.running import NAMES, Machine
from guerdon.rules.case import case
from guerdon.rules.code.code_reward import CORES
from guerdon.rules.code.extraction import NO_FENCE, NoFence, program_in
from guerdon.rules.code.language import LANGUAGES
from guerdon.rules.option import one_of

# Made here, before any thread: msgspec crashes where two of them prepare a type at the same time.
_decode = msgspec.json.Decoder(RunCodeRequest).decode
_ = msgspec.convert({"code": "", "language": ""}, RunCodeRequest)

RUN_CODE = "run_code"
"""Metadata key of a request of SandboxFusion, and where its reply stands in `info`."""

SHOWN = 500
"""Characters of output that are kept in `info`."""


def _python(code: str) -> str:
    return f"```python\n{code}\n```"


_FIXTURES = (
    case("full", "it runs", 1.0, response=_python("print(6 * 7)")),
    case(
        "full",
        "recursion and an import of the top level",
        1.0,
        response=_python(
            "import math\ndef f(n):\n    return math.prod([n, f(n - 1)]) if n else 1\nf(5)"
        ),
    ),
    case("zero", "it raises", 0.0, response=_python("raise ValueError")),
    case("zero", "an assertion fails", 0.0, response=_python("assert 1 == 2")),
    case("zero", "an unknown name", 0.0, response=_python("undefined")),
    case("zero", "empty", 0.0, response=""),
    case("malformed", "no syntax", 0.0, response=_python("def f(:")),
    case("malformed", "odd characters", 0.0, response=_python("x = '\0\ud800'")),
    case(
        "malformed",
        "a request that is none",
        "bad_input",
        response="",
        metadata={RUN_CODE: "{"},
    ),
    case("deterministic", "a set in its order", 1.0, response=_python("print({'a', 'b'})")),
    case("metamorphic", "noise around", 1.0, response=f"So:\n{_python('x = 1')}\nThat is all."),
    case("metamorphic", "whitespace", 1.0, response="\n\n" + _python("\n\nx = 1\n\n") + "\n"),
    case("metamorphic", "equivalent form: another fence", 1.0, response="~~~py\nx = 1\n~~~"),
    case(
        "metamorphic",
        "every option: the last block counts",
        0.0,
        response=_python("x = 1") + "\n" + _python("1 / 0"),
    ),
    case("metamorphic", "injected: exit early with a code", 0.0, response=_python("exit(3)")),
)


class ProgramRuns(BaseReward):
    """1 if the program in the response runs to its end with exit code 0, else 0.

    It runs in the sandbox of this machine, or on a SandboxFusion server. What it prints is in
    `info`; to score what it prints, use `code_stdio`. A program that raises, loops, takes too much
    or does not compile earns 0; a sandbox that fails is `unavailable` and no score. The dialect
    `sandbox_fusion` of the server asks this reward.

    Args:
        language: `python`, `nodejs`, `cpp` or `bash`; a server at `url` may know more.
        no_fence: what a response without a code block is: `whole` (all of it) or `refuse`.
        run_seconds: for the program.
        compile_seconds: for the compiler.
        memory_mib: for the program.
        max_seconds: most time of a phase that a request may ask for.
        max_memory_mib: most memory that a request may ask for, and what one has that asks for none.
        output_mib: most output; a program that prints more is ended.
        packages: folders from which Python programs may import, beyond the standard library.
        engine: see `guerdon.resources.sandbox.Sandbox`.
        url: of a SandboxFusion server that runs the programs instead.
        token: for that server.

    Metadata keys: `stdin`, text for the program; `run_code`, a request of SandboxFusion as JSON
    text, which then is the program instead of the response.

    Raises:
        BadInput: a request that is wrong, or asks for more than it may.
        Unavailable: the sandbox failed, or there is none here.

    Example:
        >>> ProgramRuns().call_sync(response="print(6 * 7)")["info"]["stdout"]
        '42\\n'
    """

    name = "program_runs"
    value_range = (0.0, 1.0)
    work = "io"
    concurrency = CORES
    fixtures = _FIXTURES

    def __init__(
        self,
        *,
        language: str = "python",
        no_fence: NoFence = "whole",
        run_seconds: float = 10.0,
        compile_seconds: float = 10.0,
        memory_mib: int = 1024,
        max_seconds: float = 60.0,
        max_memory_mib: int = 4096,
        output_mib: float = 1.0,
        packages: Sequence[str] = (),
        engine: EngineName = "auto",
        url: str | None = None,
        token: str | None = None,
    ) -> None:
        if url is None:
            one_of("language", language, NAMES)
        one_of("no_fence", no_fence, NO_FENCE[:2])
        self._language = language
        self._no_fence: NoFence = no_fence
        self._times = (compile_seconds, run_seconds)
        self._memory_mib = memory_mib
        self._most = (max_seconds, max_memory_mib, output_mib)
        self._packages = tuple(packages)
        self._engine: EngineName = engine
        self._server = None if url is None else SandboxFusionSpec(url=url, token=token)

    def warm(self) -> None:
        """Find out which sandbox works here."""
        if self._server is None:
            _ = sandbox_of(self._engine).engine

    def call(
        self, response: str, stdin: str | None = None, run_code: str | None = None
    ) -> dict[str, Any]:
        """Run the program."""
        program = self._asked(run_code) if run_code is not None else self._found(response, stdin)
        if program is None:
            info = {"status": "no_program", "message": "the response holds no program"}
            return {"score": 0.0, "info": info}
        run = self._runner(program)
        if run_code is not None:
            info = {"status": run.status, RUN_CODE: plain(response_of(run))}
        else:
            last = run.ran or run.compiled
            info = {
                "status": run.status,
                "stdout": last.stdout[:SHOWN] if last else "",
                "stderr": last.stderr[-SHOWN:] if last else "",
            }
        return {"score": float(run.ok), "info": info}

    def _asked(self, run_code: str) -> Program:
        try:
            return program_of(_request(run_code))
        except (ValueError, RecursionError) as error:
            raise BadInput(f"run_code is no request of SandboxFusion: {error}") from None

    def _found(self, response: str, stdin: str | None) -> Program | None:
        name = NAMES.get(self._language)
        tags = LANGUAGES[name].tags if name is not None else (self._language.lower(),)
        code = program_in(response, tags, no_fence=self._no_fence)
        if code is None:
            return None
        compile_seconds, run_seconds = self._times
        return Program(
            code=code,
            language=self._language,
            stdin=stdin or "",
            compile_seconds=compile_seconds,
            run_seconds=run_seconds,
            memory_mib=self._memory_mib,
        )

    @cached_property
    def _runner(self) -> Callable[[Program], Run]:
        if self._server is not None:
            return self._server.make().run
        return Machine(sandbox_of(self._engine), self._packages, *self._most).run

    def __getstate__(self) -> dict[str, Any]:
        """All but what belongs to this process."""
        return {key: value for key, value in self.__dict__.items() if key != "_runner"}


def _request(run_code: str) -> RunCodeRequest:
    """The request in JSON text; msgspec takes no lone surrogates, which code may hold."""
    try:
        return _decode(run_code.encode("utf-8", "surrogatepass"))
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        return msgspec.convert(json.loads(run_code), RunCodeRequest)
