"""What a program gets and what comes back of it, with each engine."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from guerdon.errors import Unavailable
from guerdon.resources.sandbox import Command, Limits, Result, Sandbox, Status
from guerdon.resources.sandbox.keeping import kept_files
from guerdon.resources.sandbox.sandbox import broken


def python(sandbox: Sandbox, source: str, **fields: object) -> Command:
    """A Python program."""
    argv = (*sandbox.interpreter.argv, "-c", textwrap.dedent(source))
    return Command(argv=argv, **fields)  # type: ignore[arg-type]


def test_output_and_exit_code(sandbox: Sandbox) -> None:
    source = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"
    result = sandbox.run(python(sandbox, source))
    assert (result.status, result.exit_code) == (Status.NONZERO, 3)
    assert (result.stdout, result.stderr) == (b"out\n", b"err\n")
    assert result.status.fault == "program"
    assert "exit code 3: err" in result.detail


def test_stdin_argv_files_in_and_out(sandbox: Sandbox) -> None:
    source = """
    import sys
    text = sys.stdin.read() + sys.argv[1] + open("in/größe.txt").read()
    open("out.bin", "w").write(text)
    """
    command = Command(
        argv=(*sandbox.interpreter.argv, "-c", textwrap.dedent(source), "b"),
        stdin=b"a",
        files={"in/größe.txt": b"c"},
        keep=("out.bin", "absent"),
    )
    result = sandbox.run(command)
    assert result.status is Status.OK, result
    assert result.files == {"out.bin": b"abc"}


def test_large_stdin_that_nobody_reads(sandbox: Sandbox) -> None:
    assert sandbox.run(Command(argv=("true",), stdin=b"x" * (8 << 20))).status is Status.OK


def test_environment_is_empty(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    result = sandbox.run(Command(argv=("env",), environment={"OWN": "1"}))
    names = {line.partition("=")[0] for line in result.text.splitlines()}
    assert names - {"PWD", "SHLVL", "_"} <= {"PATH", "HOME", "TMPDIR", "LANG", "OWN"}
    assert "OWN" in names


def test_runs_share_nothing(sandbox: Sandbox) -> None:
    assert sandbox.run(Command(argv=("sh", "-c", "echo 1 > left"))).status is Status.OK
    assert sandbox.run(Command(argv=("sh", "-c", "test ! -e left"))).status is Status.OK


@pytest.mark.parametrize("keep", [(), ("left",)])
def test_the_end_is_that_of_the_program(sandbox: Sandbox, keep: tuple[str, ...]) -> None:
    """Also where another program brings its files back."""
    start = "import ctypes, os\nos.write(os.open('left', os.O_CREAT | os.O_WRONLY), b'x')\n"
    for end, status in (
        ("ctypes.string_at(0)", Status.SIGNALLED),
        ("os._exit(3)", Status.NONZERO),
        ("os._exit(0)", Status.OK),
    ):
        result = sandbox.run(python(sandbox, start + end, keep=keep))
        assert result.status is status, result
        assert result.files == dict.fromkeys(keep, b"x")


@pytest.mark.parametrize(
    ("sent", "files"),
    [
        (b"", {}),
        (bytes(12), {"a": b""}),
        (bytes([1, 0, 0, 0, 2]) + bytes(7) + b"xy" + bytes(12), {"b": b"xy", "a": b""}),
        (bytes([0, 0, 0, 0, 3]) + bytes(7) + b"xy", {}),
        (bytes([0, 0, 0, 0, 1]) + bytes(6), {}),
        (bytes([2, 0, 0, 0, 1]) + bytes(7) + b"x" + bytes(12), {}),
        (b"\xff" * 99, {}),
    ],
)
def test_what_is_brought_back_is_read_as_data_of_a_stranger(
    sent: bytes, files: dict[str, bytes]
) -> None:
    assert kept_files(sent, ["a", "b"]) == files


def test_links_are_not_brought_back(sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("hunter2")
    source = f"""
    import os
    os.symlink({str(tmp_path / "secret")!r}, "link")
    os.symlink("/usr", "folder")
    os.symlink("real", "inside")
    os.mkfifo("pipe")
    os.mkdir("directory")
    open("real", "w").write("mine")
    """
    keep = ("link", "folder/bin/env", "inside", "pipe", "directory", "real")
    result = sandbox.run(python(sandbox, source, keep=keep))
    assert result.status is Status.OK, result
    assert result.files == {"real": b"mine"}


def test_no_other_descriptor_is_open(sandbox: Sandbox) -> None:
    """Above all not the one on which the engine reports."""
    source = """
    import os
    for number in range(256):
        try:
            os.fstat(number)
            print(number)
        except OSError:
            pass
    """
    result = sandbox.run(python(sandbox, source, files={"a": b"b"}, keep=("a",)))
    assert result.text.split() == ["0", "1", "2"], result


def test_readable_folders(sandbox: Sandbox, open_folder: Path) -> None:
    (open_folder / "data.txt").write_text("data")
    (open_folder / "data.txt").chmod(0o666)
    path = str(open_folder / "data.txt")
    command = Command(
        argv=("sh", "-c", f"cat {path}; echo x > {path}"), readable=(str(open_folder),)
    )
    result = sandbox.run(command)
    assert result.stdout == b"data", result
    assert result.status is Status.NONZERO
    assert (open_folder / "data.txt").read_text() == "data"


def test_devices(sandbox: Sandbox) -> None:
    source = "head -c 3 /dev/zero; head -c 0 /dev/urandom; echo x > /dev/null; cat /dev/null"
    result = sandbox.run(Command(argv=("sh", "-c", source)))
    assert (result.stdout, result.stderr) == (bytes(3), b""), result


def test_signals_are_named(sandbox: Sandbox) -> None:
    result = sandbox.run(python(sandbox, "import ctypes; ctypes.string_at(0)"))
    assert result.status is Status.SIGNALLED
    assert "SIGSEGV" in result.detail


def test_program_that_is_not_installed(sandbox: Sandbox) -> None:
    with pytest.raises(Unavailable, match="'nothing-of-that-name' is not installed"):
        sandbox.run(Command(argv=("nothing-of-that-name",)))


def test_program_in_a_file(sandbox: Sandbox) -> None:
    files = {"run.sh": b"#!/bin/sh\necho hi\n"}
    assert sandbox.run(Command(argv=("./run.sh",), files=files)).text == "hi\n"


async def test_async_run(sandbox: Sandbox) -> None:
    commands = [Command(argv=("echo", str(i))) for i in range(6)]
    results = await asyncio.gather(*(sandbox.run_async(command) for command in commands))
    assert [r.text for r in results] == [f"{i}\n" for i in range(6)]


async def test_cancelled_run_is_killed(sandbox: Sandbox, tmp_path: Path) -> None:
    seconds = own("1000")
    task = asyncio.create_task(sandbox.run_async(Command(argv=("sleep", seconds))))
    await asyncio.sleep(0.2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not sleeping(seconds)


def own(seconds: str) -> str:
    """A time that no other run of these tests, on the same machine, sleeps."""
    return f"{seconds}.{os.getpid()}"


def sleeping(seconds: str) -> list[int]:
    """Processes of the host that are `sleep seconds`."""
    wanted = f"sleep\0{seconds}\0".encode()
    return [pid for pid, line in command_lines() if line.rpartition(b"/")[2] == wanted]


def command_lines() -> list[tuple[int, bytes]]:
    """All processes of the host with their command lines."""
    found: list[tuple[int, bytes]] = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            found.append((int(name), Path(f"/proc/{name}/cmdline").read_bytes()))
    return found


def test_abandoned_run_is_killed(sandbox: Sandbox) -> None:
    seconds = own("1001")
    for pause in range(40):
        with sandbox.start(Command(argv=("sleep", seconds))) as running:
            running.wait(time.monotonic() + pause / 4000)  # at every stage of its start
        assert not bubblewraps(seconds)
        assert not sleeping(seconds)


def bubblewraps(seconds: str) -> list[int]:
    """Processes of the host that run or start `sleep seconds` in a sandbox."""
    return [pid for pid, line in command_lines() if line.endswith(f"sleep\0{seconds}\0".encode())]


def test_the_tree_dies_with_its_parent(sandbox: Sandbox, open_folder: Path) -> None:
    seconds = own("1002")
    source = f"""
    import sys
    from guerdon.resources.sandbox import Command, Sandbox
    sandbox = Sandbox({sandbox.engine.name!r})
    command = Command(argv=("sh", "-c", "setsid sleep {seconds} & sleep {seconds} & echo on; wait"))
    running = sandbox.start(command)
    running.read(1e18)
    print("started", flush=True)
    running.wait()
    """
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(source)],
        stdout=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(open_folder)},
    )
    assert parent.stdout is not None
    assert parent.stdout.readline() == b"started\n"
    assert becomes(lambda: len(sleeping(seconds)) == 2)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert becomes(lambda: not sleeping(seconds))
    assert becomes(lambda: not bubblewraps(seconds))
    assert becomes(lambda: not os.listdir(open_folder))


def becomes(condition: Callable[[], bool]) -> bool:
    """Look until something is so; gives up after a time in which it surely would be."""
    give_up = time.monotonic() + 30
    while not condition():
        if time.monotonic() > give_up:
            return False
        time.sleep(0.01)
    return True


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"argv": ()}, "no program"),
        ({"argv": ("a\0b",)}, "NUL byte"),
        ({"argv": ("a", "\ud800")}, "no Unicode"),
        ({"argv": ("a", "x" * 200_000)}, "use a file"),
        ({"argv": ("a",), "files": {"../x": b""}}, "leaves its folder"),
        ({"argv": ("a",), "files": {"/etc/x": b""}}, "leaves its folder"),
        ({"argv": ("a",), "files": {"a\0": b""}}, "NUL byte"),
        ({"argv": ("a",), "files": {"": b""}}, "is empty"),
        ({"argv": ("a",), "files": {"a": b"", "a/b": b""}}, "is a folder of"),
        ({"argv": ("a",), "files": {"x" * 300: b""}}, "too long"),
        ({"argv": ("a",), "files": {"\ud800": b""}}, "no Unicode"),
        ({"argv": ("a",), "keep": ("x/../../y",)}, "leaves its folder"),
        ({"argv": ("a",), "environment": {"A=B": "x"}}, "no name"),
        ({"argv": ("a",), "readable": ("data",)}, "no absolute path"),
        ({"argv": ("a",), "readable": ("/tmp/",)}, "would hide"),
        ({"argv": ("a",), "readable": ("/",)}, "would hide"),
        ({"argv": ("a",), "files": {str(i): b"" for i in range(500)}}, "500 files"),
    ],
)
def test_unusable_commands_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Command(**fields)  # type: ignore[arg-type]


NUMBERS = [name for name in Limits.__struct_fields__ if name != "memory_by"]


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize(
    "value", [0, -1, float("nan"), float("inf"), -float("inf"), 1e300, 1 << 70, True, "9", b"9"]
)
def test_unusable_limits_are_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"^{name} must be a (whole )?number from .* to .*, got "):
        Limits(**{name: value})


@pytest.mark.parametrize("name", [name for name in NUMBERS if name != "wall_seconds"])
def test_whole_numbers(name: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name} must be a whole number"):
        Limits(**{name: 1e6})  # type: ignore[arg-type]


def test_other_unusable_limits() -> None:
    with pytest.raises(ValueError, match="memory_by must be 'address_space' or 'data', got 'rss'"):
        Limits(memory_by="rss")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"memory_bytes must be .* from 1048576 .*, got 512"):
        Limits(memory_bytes=512)
    assert Limits(cpu_seconds=None).processor_seconds == 10


def test_limits_are_lowered_to_those_of_this_process() -> None:
    """Else the program could not be started, which would look like its own end."""
    hard = {
        resource.RLIMIT_AS: 9 << 20,
        resource.RLIMIT_CPU: 5,
        resource.RLIMIT_NPROC: 50,
        resource.RLIMIT_FSIZE: 7 << 20,
        resource.RLIMIT_NOFILE: 64,
    }
    lowered = Limits().within(lambda number: (1, hard[number]))
    assert lowered == Limits(
        memory_bytes=9 << 20, cpu_seconds=4, processes=48, file_bytes=7 << 20, open_files=64
    )
    for most in (resource.RLIM_INFINITY, 1 << 60):
        assert Limits().within(lambda number, most=most: (1, most)) == Limits()


HARD_LIMITS = """
import resource, sys
for name in ("NOFILE", "FSIZE", "CPU", "AS"):
    number = getattr(resource, "RLIMIT_" + name)
    most = {"NOFILE": 100, "FSIZE": 1 << 20, "CPU": 60, "AS": 3 << 30}[name]
    resource.setrlimit(number, (most, most))
from guerdon.resources.sandbox import Command, Limits, Sandbox
limits = Limits(wall_seconds=90, memory_bytes=4 << 30, open_files=1000, processes=1000)
result = Sandbox(sys.argv[1]).run(Command(argv=("echo", "ran")), limits)
print(result.status, result.text, result.detail)
"""


def test_a_process_with_low_limits_runs_programs(sandbox: Sandbox) -> None:
    argv = [sys.executable, "-c", HARD_LIMITS, sandbox.engine.name]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["ok", "ran"], done


def test_a_sandbox_failure_is_no_result_of_the_program() -> None:
    result = broken(FileNotFoundError(2, "No such file", "/usr/bin/bwrap"))
    assert result.status.fault == "sandbox"
    with pytest.raises(Unavailable, match="bwrap has gone"):
        result.check()
    assert Result(status=Status.TIMEOUT).check().status.fault == "program"
