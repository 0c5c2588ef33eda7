"""Runs one program in the sandbox of this machine, and compiles it first where needed."""

from __future__ import annotations

from collections.abc import Mapping

from guerdon.errors import BadInput
from guerdon.resources.program import Phase, Program, Run
from guerdon.resources.sandbox import Command, Limits, Result, Sandbox, Status
from guerdon.resources.sandbox.limits import MIB
from guerdon.resources.sandbox.sandbox import broken
from guerdon.rules.code.language import LANGUAGES, Language

NAMES: Mapping[str, str] = {
    "python": "python",
    "nodejs": "javascript",
    "cpp": "cpp",
    "bash": "bash",
}
"""Languages that are offered here, by SandboxFusion's names."""

BINARY = "program"
"""What a compiled program is called where it runs."""


MOST_CODE = 16 * MIB
"""Bytes of a program that is run; a longer one fails, as it would where it did not fit."""

MOST_FILES = 32 * MIB
"""Bytes of the files beside it; both and what it writes share the sandbox's folder."""


class Machine:
    """Runs programs here.

    Args:
        sandbox: where.
        packages: folders from which Python programs may import.
        max_seconds: longest time of one phase that may be asked for.
        max_memory_mib: most memory that may be asked for; a program that asks for none has it.
        output_mib: most output of a phase.
    """

    def __init__(
        self,
        sandbox: Sandbox,
        packages: tuple[str, ...],
        max_seconds: float,
        max_memory_mib: int,
        output_mib: float,
    ) -> None:
        self._sandbox = sandbox
        self._packages = packages
        self._max_seconds = max_seconds
        self._max_memory_mib = max_memory_mib
        self._output_bytes = int(output_mib * MIB)

    def run(self, program: Program) -> Run:
        """Run a program; blocks.

        Raises:
            BadInput: the language is not offered, or more is asked for than may be used.
            Unavailable: the sandbox failed, or the language is not installed.
        """
        name = NAMES.get(program.language)
        if name is None:
            raise BadInput(
                f"programs in {program.language!r:.100} are not run here, only in "
                f"{', '.join(NAMES)}"
            )
        self._check(program)
        language = LANGUAGES[name]
        code = program.code.encode("utf-8", "surrogatepass")
        if len(code) > MOST_CODE:
            told = f"a program of {len(code)} bytes, the most is {MOST_CODE}"
            return Run(ran=Phase(end="finished", exit_code=1, stderr=told))
        files = {**program.files, language.file: code}
        compiled = None
        if language.compile:
            limits = self._limits(program, program.compile_seconds, language)
            argv = (language.tool_path(), *language.compile)
            made = language.compile[language.compile.index("-o") + 1]
            done = self._run(Command(argv=argv, files=files, keep=(made,)), limits)
            compiled = _phase(done)
            if not compiled.ok:
                return Run(compiled=compiled)
            if made not in done.files:
                absent = Phase(end="finished", exit_code=127, stderr="the compiler made no program")
                return Run(compiled=compiled, ran=absent)
            files = {**files, BINARY: done.files[made]}
        command = Command(
            argv=self._argv(language),
            stdin=program.stdin.encode("utf-8", "surrogatepass"),
            files=files,
            keep=program.fetch,
            readable=self._packages if name == "python" else (),
            environment=self._environment(name),
        )
        done = self._run(command, self._limits(program, program.run_seconds, language))
        return Run(compiled=compiled, ran=_phase(done), files=done.files)

    def _check(self, program: Program) -> None:
        longest = max(program.compile_seconds, program.run_seconds)
        if longest > self._max_seconds:
            raise BadInput(f"{longest:g} s were asked for, the most is {self._max_seconds:g}")
        if program.memory_mib is not None and program.memory_mib > self._max_memory_mib:
            raise BadInput(
                f"{program.memory_mib} MiB were asked for, the most is {self._max_memory_mib}"
            )
        size = sum(map(len, program.files.values()))
        if size > MOST_FILES:
            raise BadInput(f"files of {size} bytes, the most is {MOST_FILES}")

    def _run(self, command: Command, limits: Limits) -> Result:
        try:
            return self._sandbox.run(command, limits).check()
        except OSError as error:
            return broken(error).check()

    def _argv(self, language: Language) -> tuple[str, ...]:
        if language.name == "python":
            return (*self._sandbox.interpreter.argv, language.file)
        return (language.tool_path(), *language.run) if language.run else (f"./{BINARY}",)

    def _environment(self, name: str) -> dict[str, str]:
        """Python finds the files beside the program, as it does in a folder of one's own."""
        if name != "python":
            return {}
        return {"PYTHONSAFEPATH": "", "PYTHONPATH": ":".join(self._packages)}

    def _limits(self, program: Program, seconds: float, language: Language) -> Limits:
        memory = self._max_memory_mib if program.memory_mib is None else program.memory_mib
        try:
            return Limits(
                wall_seconds=seconds,
                memory_bytes=(memory + language.tool_mib) * MIB,
                memory_by="data" if language.memory_by == "data" else "address_space",
                output_bytes=self._output_bytes,
            )
        except ValueError as error:
            raise BadInput(f"what was asked for is no limit: {error}") from None


def _phase(result: Result) -> Phase:
    """How a run ended; what ended it beside its time counts as a signal."""
    code = result.exit_code
    if code is not None and code > 128:
        code = 128 - code
    elif code is None and result.status is not Status.TIMEOUT:
        code = -9
    stderr = result.stderr.decode(errors="replace")
    if result.status.fault == "program" and result.exit_code is None:
        stderr += f"\n{result.detail}" if stderr else result.detail
    return Phase(
        end="too_slow" if result.status is Status.TIMEOUT else "finished",
        exit_code=None if result.status is Status.TIMEOUT else code,
        stdout=result.text,
        stderr=stderr,
        seconds=result.wall_seconds,
    )
