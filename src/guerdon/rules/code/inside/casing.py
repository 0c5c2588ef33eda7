"""Runs one program on one standard input after another and reports what it printed.

Runs in the candidate's sandbox. It knows inputs only, never an expected output: whatever the
program does to it, it can do no more than report wrong output. A program in Python is compiled once
and forked for each case; others are compiled by their own compiler and started for each case.
"""

from __future__ import annotations

import atexit
import gc
import io
import os
import sys

from guerdon.rules.code.inside.usual import add_ends, lend
from guerdon.rules.code.inside.values import encode, job, own_output, send

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing `typing` would take longer than starting Python
    from collections.abc import Callable
    from types import CodeType
    from typing import Any

STDIN, STDOUT, STDERR = ".stdin", ".stdout", ".stderr"
COMPILED, PROGRAM = "compiled", "program"
LAST_WORDS = 2000
SIGKILL = 9


class Cases:
    """The runs of one program.

    Args:
        work: `inputs` are the standard inputs; `source` is a program in Python, or None where
            `compile` (may be empty) and `run` are commands; `usual` says whether it gets the usual
            names; `limit` is the most that is reported of
            each output.
        reports: descriptor that the reports go to.
    """

    def __init__(self, work: dict[str, Any], reports: int) -> None:
        self._work = work
        self._reports = reports

    def run(self) -> CodeType | None:
        """Run all cases; in a child that was forked for one, returns what it has to execute."""
        code: Any = None
        if self._work["source"] is not None:
            try:
                code = compile(self._work["source"], "<solution>", "exec", dont_inherit=True)
            except BaseException as error:
                self._report("broken", type(error).__name__ + ": " + str(error)[:500])
                return None
        elif self._work["compile"] and not self._compile():
            return None
        if code is not None and self._work["usual"]:
            lend(code, {})  # imports once what each case will take
        gc.freeze()  # what is there before the program must not be copied for each case
        self._report("loaded")
        for case, text in enumerate(self._work["inputs"]):
            self._report("begin", case)
            with open(STDIN, "wb") as file:
                file.write(text)
            pid = os.fork()
            if pid == 0:
                self._redirect()
                if code is not None:
                    return code
                _become(self._work["run"])
            self._report("ended", case, _wait(pid), self._output(STDOUT), self._words())
        self._report("done", len(self._work["inputs"]))
        return None

    def _report(self, *parts: Any) -> None:
        send(self._reports, encode(parts))

    def _compile(self) -> bool:
        open(STDIN, "wb").close()
        pid = os.fork()
        if pid == 0:
            self._redirect()
            _become(self._work["compile"])
        if _wait(pid) == 0:
            _copy(COMPILED, PROGRAM)
            return True
        self._report("broken", self._words())
        return False

    def _redirect(self) -> None:
        """In the child: files as standard streams, and nothing else of its parent."""
        os.setpgid(0, 0)
        for name in (STDOUT, STDERR):
            _forget(name)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        streams = (
            os.open(STDIN, os.O_RDONLY),
            os.open(STDOUT, flags, 0o600),
            os.open(STDERR, flags, 0o600),
        )
        for place, descriptor in enumerate(streams):
            os.dup2(descriptor, place)
        os.closerange(3, 256)

    def _output(self, name: str) -> bytes:
        """What was printed; one byte too many where it was more than is reported."""
        try:
            with open(name, "rb") as file:
                return file.read(self._work["limit"] + 1)
        except OSError:
            return b""

    def _words(self) -> str:
        try:
            with open(STDERR, "rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - LAST_WORDS))
                return file.read(LAST_WORDS).decode("utf-8", "replace").strip()
        except OSError:
            return ""


def _copy(source: str, target: str) -> None:
    """An executable copy; where files cannot be made executable later, the linker's is none."""
    with open(source, "rb") as file:
        data = file.read()
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o755)
    with open(descriptor, "wb") as file:
        file.write(data)


def _forget(name: str) -> None:
    try:  # noqa: SIM105 - contextlib takes long to import
        os.unlink(name)
    except OSError:
        pass


def _become(argv: list[str]) -> None:
    try:
        os.execv(argv[0], argv)
    finally:
        os._exit(127)


def _wait(pid: int) -> int:
    """The exit code of a child, 128 + n after signal n; what it left running is killed."""
    _, status = os.waitpid(pid, 0)
    try:  # noqa: SIM105
        os.killpg(pid, SIGKILL)
    except OSError:
        pass
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


def _writer(descriptor: int, errors: str) -> io.TextIOWrapper:
    raw = io.FileIO(descriptor, "w", closefd=False)
    return io.TextIOWrapper(io.BufferedWriter(raw), "utf-8", errors, line_buffering=descriptor == 2)


def become_main(code: CodeType, usual: bool) -> None:
    """Execute a program as the main module of this process, and end as the interpreter would.

    It leaves out only what frees memory, which takes longer than most programs run.
    """
    sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0)), "utf-8", "surrogateescape")
    sys.stdout = _writer(1, "surrogateescape")
    sys.stderr = _writer(2, "backslashreplace")
    sys.argv = ["solution.py"]
    module = type(sys)("__main__")
    sys.modules["__main__"] = module
    if usual:
        lend(code, module.__dict__)
    add_ends()
    status = _status(lambda: exec(code, module.__dict__))
    threading = sys.modules.get("threading")
    if threading is not None:
        _status(threading._shutdown)
    _status(atexit._run_exitfuncs)  # pyright: ignore[reportPrivateUsage]
    ended = _status(lambda: [stream.flush() for stream in (sys.stdout, sys.stderr)])
    os._exit(status or ended)


def _status(run: Callable[[], object]) -> int:
    """The exit code of something that is run."""
    try:
        run()
    except SystemExit as error:
        if error.code is None or isinstance(error.code, int):
            return (error.code or 0) & 0xFF
        os.write(2, str(error.code).encode("utf-8", "backslashreplace"))
        return 1
    except BaseException:
        sys.excepthook(*sys.exc_info())  # pyright: ignore[reportArgumentType]
        return 1
    return 0


def main() -> None:
    """Run the cases of the job; each forked child leaves here and becomes the program."""
    reports = own_output()
    work = job()
    sys.path.extend(work["packages"])
    code = Cases(work, reports).run()
    if code is not None:
        become_main(code, work["usual"])


if __name__ == "__main__":
    main()
