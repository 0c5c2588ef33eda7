"""SandboxFusion's published form of `POST /run_code`, read and written on both sides.

Source: bytedance/SandboxFusion, `sandbox/server/sandbox_api.py` and `sandbox/runners/types.py`
(2026-07): names of fields, their defaults, and how the status of a reply follows from its phases;
`sandbox/runners/base.py`: what a limit of -1 means.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

import msgspec

from guerdon.errors import BadInput
from guerdon.resources.program import End, Phase, Program, Run

PATH = "/run_code"

LANGUAGES = (
    "python", "cpp", "nodejs", "go", "go_test", "java", "php", "csharp", "bash", "typescript",
    "sql", "rust", "cuda", "lua", "R", "perl", "D_ut", "ruby", "scala", "julia", "pytest", "junit",
    "kotlin_script", "jest", "verilog", "python_gpu", "lean", "swift", "racket",
)  # fmt: skip
"""All that the form knows; a server need not offer each."""

SUCCESS, FAILED, BROKEN = "Success", "Failed", "SandboxError"
NO_LIMIT = -1
"""`memory_limit_MB` of a request that sets no limit of its own; the server's holds. It is the
default. Upstream takes any number up to 0 so; others than this one are refused here."""

ENDS: Mapping[str, End] = {
    "Finished": "finished",
    "TimeLimitExceeded": "too_slow",
    "Error": "broken",
}
_NAMES = {end: name for name, end in ENDS.items()}


class RunCodeRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """The body of a request; unknown fields are ignored, as there."""

    code: str
    language: str
    compile_timeout: float = 10
    run_timeout: float = 10
    memory_limit_MB: int | float = NO_LIMIT
    stdin: str | None = None
    files: dict[str, str | None] = {}
    fetch_files: list[str] = []
    args: list[str] = []


class CommandRunResult(msgspec.Struct, frozen=True):
    """One phase."""

    status: str
    execution_time: float | None = None
    return_code: int | None = None
    stdout: str | None = None
    stderr: str | None = None


class RunCodeResponse(msgspec.Struct, frozen=True):
    """The body of a reply."""

    status: str
    message: str = ""
    compile_result: CommandRunResult | None = None
    run_result: CommandRunResult | None = None
    executor_pod_name: str | None = None
    files: dict[str, str] = {}


def request_of(program: Program) -> RunCodeRequest:
    """The request that asks for a program."""
    return RunCodeRequest(
        code=program.code,
        language=program.language,
        compile_timeout=program.compile_seconds,
        run_timeout=program.run_seconds,
        memory_limit_MB=NO_LIMIT if program.memory_mib is None else program.memory_mib,
        stdin=program.stdin or None,
        files={name: _encoded(data) for name, data in program.files.items()},
        fetch_files=list(program.fetch),
    )


def program_of(request: RunCodeRequest) -> Program:
    """The program that a request asks for.

    Raises:
        BadInput: what is wrong with it.
    """
    if request.args:
        raise BadInput("args are for pytest, which is not offered here")
    return Program(
        code=request.code,
        language=request.language,
        stdin=request.stdin or "",
        files={
            name: _decoded(name, data) for name, data in request.files.items() if data is not None
        },
        fetch=tuple(request.fetch_files),
        compile_seconds=request.compile_timeout,
        run_seconds=request.run_timeout,
        memory_mib=_memory(request.memory_limit_MB),
    )


def _memory(asked: float) -> int | None:
    if asked == NO_LIMIT:
        return None
    if not asked >= 1 or asked != int(asked):
        raise BadInput(
            f"memory_limit_MB is a whole number above 0, or {NO_LIMIT} for no limit of the "
            f"request's own, got {asked:g}"
        )
    return int(asked)


def response_of(run: Run) -> RunCodeResponse:
    """The reply for a run."""
    return RunCodeResponse(
        status=_status(run),
        message=run.message,
        compile_result=_result(run.compiled),
        run_result=_result(run.ran),
        files={name: _encoded(data) for name, data in run.files.items()},
    )


def run_of(response: RunCodeResponse) -> Run:
    """The run that a reply tells of.

    Raises:
        BadInput: a reply that is none of the form; the caller says whose.
    """
    message = response.message
    if response.status not in (SUCCESS, FAILED):
        message = message or f"the status is {response.status!r}"
    run = Run(
        compiled=_phase(response.compile_result),
        ran=_phase(response.run_result),
        files={name: _decoded(name, data) for name, data in response.files.items()},
        message=message if response.status not in (SUCCESS, FAILED) else "",
    )
    if not run.message and run.compiled is None and run.ran is None:
        raise BadInput("it tells neither of compiling nor of running")
    if _status(run) != BROKEN:
        _check(run, response.status)
    return run


def _status(run: Run) -> str:
    """The status that follows from the phases."""
    phases = _phases(run)
    if run.message or any(phase.end == "broken" for phase in phases):
        return BROKEN
    return SUCCESS if all(phase.ok for phase in phases) else FAILED


def _check(run: Run, status: str) -> None:
    """Refuse a reply from which no result follows.

    Raises:
        BadInput: its phases contradict the status, or one another.
    """
    if _status(run) != status:
        raise BadInput(f"it says {status}, and its phases say {_status(run)}")
    if run.ran is None and run.compiled is not None and run.compiled.ok:
        raise BadInput("it compiled a program and says nothing of running it")
    if any(phase.end == "finished" and phase.exit_code is None for phase in _phases(run)):
        raise BadInput("a phase that ended by itself has no exit code")


def _phases(run: Run) -> list[Phase]:
    return [phase for phase in (run.compiled, run.ran) if phase is not None]


def _result(phase: Phase | None) -> CommandRunResult | None:
    if phase is None:
        return None
    return CommandRunResult(
        status=_NAMES[phase.end],
        execution_time=phase.seconds,
        return_code=phase.exit_code,
        stdout=phase.stdout,
        stderr=phase.stderr,
    )


def _phase(result: CommandRunResult | None) -> Phase | None:
    if result is None:
        return None
    if result.status not in ENDS:
        raise BadInput(f"a phase has the status {result.status!r}")
    return Phase(
        end=ENDS[result.status],
        exit_code=result.return_code,
        stdout=result.stdout or "",
        stderr=result.stderr or "",
        seconds=result.execution_time or 0.0,
    )


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _decoded(name: str, data: str) -> bytes:
    try:
        return base64.b64decode("".join(data.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadInput(f"file {name!r:.100} is no base64: {error}") from None


def plain(value: Any) -> Any:
    """A struct of the form as plain data."""
    return msgspec.to_builtins(value)
