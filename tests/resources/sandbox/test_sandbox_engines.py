"""Engines: found by trying, refused where they leak, and what happens when one breaks."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import re
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from engines import REQUIRED, working

from guerdon.errors import Unavailable
from guerdon.resources.sandbox import (
    Command,
    Limits,
    Sandbox,
    Status,
    landlock,
    launcher,
    probe,
    running,
    tree,
)
from guerdon.resources.sandbox.bubblewrap import Bubblewrap
from guerdon.resources.sandbox.engine import UNMEASURED
from guerdon.resources.sandbox.landlock import Landlock
from guerdon.resources.sandbox.probe import Leaky
from guerdon.resources.sandbox.running import exit_code
from guerdon.resources.sandbox.seccomp import ALLOW, KILL_PROCESS, NUMBERS, build_filter
from guerdon.resources.sandbox.spawning import spawn


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is known about this machine yet."""
    monkeypatch.setattr(probe, "_found", {})


@pytest.mark.usefixtures("forgetful")
def test_without_an_engine_nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "SEARCH_PATH", "/nowhere")
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(probe, "landlock_version", lambda: 0)
    with pytest.raises(Unavailable) as caught:
        Sandbox().run(Command(argv=("true",)))
    message = str(caught.value)
    assert "bwrap is not installed" in message
    assert "this kernel has none" in message
    assert "apt install bubblewrap" in message
    assert "unsafe-without-isolation" in message
    assert not caught.value.retryable


@pytest.mark.usefixtures("forgetful")
def test_without_bubblewrap_landlock_is_taken(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    if sandbox.engine.name != "landlock":
        pytest.skip("is about the other engine")
    monkeypatch.setattr(probe, "_found", {})
    monkeypatch.setattr(probe, "SEARCH_PATH", "/nowhere")
    monkeypatch.setenv("PATH", "/nowhere")
    assert Sandbox().engine.name == "landlock"


@pytest.mark.usefixtures("forgetful")
def test_an_engine_that_leaks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Open(Landlock):
        def __init__(self) -> None:
            super().__init__(confine=False)
            self.name = "leaky"

    monkeypatch.setattr(probe, "Landlock", Open)
    monkeypatch.setattr(probe, "landlock_version", lambda: 7)
    with pytest.raises(Leaky, match="it reads a file of the host"):
        _ = Sandbox("landlock").engine


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ("bwrap: Creating new namespace failed: ENOSPC", "sysctl user.max_user_namespaces"),
        ("bwrap: No permissions to create new namespace", "unprivileged_userns_clone"),
        ("bwrap: setting up uid map: Permission denied", "apparmor_restrict_unprivileged_userns"),
        ("bwrap: loopback: Failed RTM_NEWADDR", "apparmor_restrict_unprivileged_userns"),
        ("setpriv: setresuid failed: Invalid argument", "do not run as root in it"),
        ("there is no other user in this container than root", "more users than root"),
    ],
)
@pytest.mark.usefixtures("forgetful")
def test_what_to_do_where_nothing_works(
    monkeypatch: pytest.MonkeyPatch, said: str, advice: str
) -> None:
    """Once, however many interpreters were tried."""

    def fails(engine: object, interpreter: object) -> None:
        raise Unavailable(f"landlock: {said}")

    monkeypatch.setattr(probe, "_try", fails)
    monkeypatch.setattr(probe, "landlock_version", lambda: 7)
    with pytest.raises(Unavailable) as caught:
        _ = Sandbox("landlock").engine
    message = str(caught.value)
    assert message.startswith(f"no sandbox works here (landlock: {said} (with /")
    assert message.count(said) == message.count(advice) == 1
    assert "apt install" not in message
    assert message.endswith("unless you ask for the engine 'unsafe-without-isolation'")


@pytest.mark.parametrize("existing", [(7, 8), (8,), ()])
def test_a_user_for_each_run(
    open_folder: Path, monkeypatch: pytest.MonkeyPatch, existing: tuple[int, ...]
) -> None:
    """Containers have few users: the first that exists owns the folder and what is in it."""
    given: dict[str, tuple[int, int]] = {}

    def chown(path: str, user: int, group: int, *, follow_symlinks: bool = True) -> None:
        if user not in existing:
            raise OSError(errno.EINVAL, "Invalid argument")
        given[str(path)] = (user, group)

    monkeypatch.setattr(os, "chown", chown)
    (open_folder / "in").mkdir()
    (open_folder / "in" / "file").write_bytes(b"")
    if not existing:
        with pytest.raises(OSError, match="no other user in this container than root"):
            launcher.own(str(open_folder), (7, 8))
        return
    assert launcher.own(str(open_folder), (7, 8)) == existing[0]
    assert given == {
        str(path): (existing[0], existing[0]) for path in (open_folder, *open_folder.rglob("*"))
    }


def test_a_leaking_engine_fails_its_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(choice: str) -> None:
        raise Leaky("it reads a file of the host", retryable=False)

    monkeypatch.setattr("guerdon.resources.sandbox.sandbox.find", find)
    with pytest.raises(pytest.fail.Exception, match="it reads a file of the host"):
        working(Sandbox("landlock"), "landlock")


def test_an_engine_that_is_not_installed_skips_its_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(choice: str) -> None:
        raise Unavailable("the program bwrap is not installed", retryable=False)

    monkeypatch.setattr("guerdon.resources.sandbox.sandbox.find", find)
    monkeypatch.setenv(REQUIRED, "landlock")
    with pytest.raises(pytest.skip.Exception, match="is not installed"):
        working(Sandbox("bubblewrap"), "bubblewrap")
    monkeypatch.setenv(REQUIRED, "landlock, bubblewrap")
    for name in ("bubblewrap", "auto"):
        with pytest.raises(pytest.fail.Exception, match="is not installed"):
            working(Sandbox("bubblewrap"), name)
    monkeypatch.setenv(REQUIRED, "bublewrap")
    with pytest.raises(AssertionError, match="names no engine"):
        working(Sandbox("bubblewrap"), "bubblewrap")


def test_the_unsafe_engine_has_to_be_named() -> None:
    sandbox = Sandbox("unsafe-without-isolation", Limits(wall_seconds=20))
    assert sandbox.engine.name == "unsafe-without-isolation"
    assert "nothing keeps a program from" in sandbox.weaknesses[0]
    assert sandbox.run(Command(argv=("echo", "hi"))).text == "hi\n"
    looping = sandbox.run(Command(argv=("sleep", "100")), Limits(wall_seconds=0.2))
    assert looping.status is Status.TIMEOUT


def test_a_program_that_ends_its_group_does_not_end_what_started_it() -> None:
    sandbox = Sandbox("unsafe-without-isolation", Limits(wall_seconds=20))
    result = sandbox.run(Command(argv=("sh", "-c", "kill -9 0")))
    assert result.status is Status.SIGNALLED, result


def test_unknown_engine() -> None:
    with pytest.raises(ValueError, match="did you mean 'landlock'"):
        _ = Sandbox("landlok").engine  # type: ignore[arg-type]


def test_guarantees_and_weaknesses_are_listed(sandbox: Sandbox) -> None:
    assert len(sandbox.guarantees) >= 5
    assert any("kernel is shared" in line for line in sandbox.weaknesses)


def test_a_sandbox_binary_that_vanishes(open_folder: Path) -> None:
    found = [shutil.which(name) for name in ("bwrap", "prlimit", "setpriv")]
    if None in found:
        pytest.skip("bubblewrap, prlimit or setpriv is not installed")
    copy = open_folder / "bwrap"
    shutil.copy(str(found[0]), copy)
    engine = Bubblewrap(str(copy), str(found[1]), found[2])
    command = Command(argv=("/bin/echo", "hi"))
    with spawn(engine, command, Limits()) as running:
        first = running.finish()
    if first.status is Status.SANDBOX_FAILED:
        pytest.skip(first.detail)
    assert first.text == "hi\n"
    copy.unlink()
    try:
        with spawn(engine, command, Limits()) as running:
            result = running.finish()
    except FileNotFoundError:
        return
    assert result.status is Status.SANDBOX_FAILED
    assert "bwrap" in result.detail


def test_an_interpreter_that_vanishes(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which sets up the other engine."""
    if sandbox.engine.name != "landlock":
        pytest.skip("is about the other engine")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", "/nowhere/python")
        result = sandbox.run(Command(argv=("true",)))
    assert result.status is Status.SANDBOX_FAILED
    assert "/nowhere/python has gone" in result.detail
    assert sandbox.run(Command(argv=("true",))).status is Status.OK


def test_a_full_disk(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "mkdtemp", full)
        patch.setattr("os.memfd_create", full)
        result = sandbox.run(Command(argv=("true",), files={"a": b"b"}))
    assert result.status is Status.SANDBOX_FAILED
    assert "No space left" in result.detail
    assert sandbox.run(Command(argv=("true",))).status is Status.OK


def test_a_sandbox_that_is_killed_from_outside(sandbox: Sandbox) -> None:
    """As the kernel does when the host's memory ends: says nothing about the program."""
    with sandbox.start(Command(argv=("sh", "-c", "echo on; exec sleep 100"))) as running:
        assert running.read(time.monotonic() + 60) == b"on\n"
        if not sandbox.engine.kills_tree:
            tree.kill_descendants(running.pid)
        os.kill(running.pid, signal.SIGKILL)
        result = running.finish()
    if sandbox.engine.kills_tree:
        assert result.status is Status.SANDBOX_FAILED, result
    assert result.status is not Status.OK
    assert sandbox.run(Command(argv=("true",))).status is Status.OK


def test_no_descriptor_is_left(sandbox: Sandbox) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 3, hard))
    try:
        result = sandbox.run(Command(argv=("true",)))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert result.status is Status.SANDBOX_FAILED
    assert "Too many open files" in result.detail
    assert sandbox.run(Command(argv=("true",))).status is Status.OK


def test_a_run_before_the_first_look_reads_nothing_of_its_tree(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that short programs do not pay for looks."""

    def read(path: str) -> str:
        raise AssertionError(path)

    monkeypatch.setattr(running, "LOOK_SECONDS", 1000.0)
    monkeypatch.setattr(tree, "_read", read)
    assert sandbox.run(Command(argv=("true",), files={"a": b"b"})).status is Status.OK


def test_folders_are_counted_until_it_is_enough(
    open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(9):
        (open_folder / str(number)).mkdir()
    looked: list[str] = []
    scan = os.scandir

    def counted(path: str) -> Any:
        looked.append(path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", counted)
    found = landlock._size(str(open_folder), 1)  # pyright: ignore[reportPrivateUsage]
    assert found >= 9 * 4096
    assert looked == [str(open_folder)]


@pytest.mark.parametrize(
    ("version", "given"),
    [
        (1, [0x1FFF]),
        (2, [0x3FFF]),
        (3, [0x7FFF]),
        (4, [0x7FFF, 3]),
        (5, [0xFFFF, 3]),
        (6, [0xFFFF, 3, 3]),
        (9, [0xFFFF, 3, 3]),
    ],
)
def test_all_that_landlock_keeps_is_asked_for(
    open_folder: Path, monkeypatch: pytest.MonkeyPatch, version: int, given: list[int]
) -> None:
    """By what each version of the kernel's interface has (Documentation/userspace-api/landlock)."""
    asked: list[list[int]] = []
    allowed: list[int] = []

    class Kernel:
        def syscall(self, call: int, *arguments: Any) -> int:
            match call, arguments:
                case launcher.CREATE_RULESET, (None, 0, 1):
                    return version
                case launcher.CREATE_RULESET, (attributes, size, 0):
                    assert size.value == ctypes.sizeof(attributes._obj)
                    asked.append(list(attributes._obj))
                    return os.open("/dev/null", os.O_RDONLY)
                case launcher.ADD_RULE, (_, _, rule, _):
                    allowed.append(rule._obj.allowed)
                case _:
                    assert call == launcher.RESTRICT_SELF
            return 0

    monkeypatch.setattr(launcher, "_libc", Kernel())
    launcher.confine_files(["/usr", "/nowhere"], ["/dev/null"], str(open_folder))
    assert asked == [given]
    assert allowed == [1 | 4 | 8, 2 | 4, given[0]]


def test_a_folder_that_cannot_be_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox = working(Sandbox("landlock"), "landlock")
    monkeypatch.setattr(landlock, "_size", lambda folder, enough: UNMEASURED)
    result = sandbox.run(Command(argv=("sleep", "1000")), Limits(wall_seconds=60))
    assert result.status is Status.OUTPUT
    assert "cannot be measured" in result.detail


def test_more_mappings_than_can_be_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each could hold a file that has no name any more."""
    sandbox = working(Sandbox("landlock"), "landlock")
    monkeypatch.setattr(tree, "MOST_MAPPINGS", 1)
    result = sandbox.run(Command(argv=("sleep", "1000")), Limits(wall_seconds=60))
    assert result.status is Status.OUTPUT
    assert "cannot be measured" in result.detail


def test_nothing_is_left_behind(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    make = tempfile.mkdtemp

    def recorded(*arguments: Any, **keywords: Any) -> str:
        made.append(make(*arguments, **keywords))
        return made[-1]

    monkeypatch.setattr(tempfile, "mkdtemp", recorded)
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    for argv in (
        ("true",),
        ("sh", "-c", "umask 0477; mkdir a; umask 0; touch a/b; ln -s / c; exit 3"),
    ):
        sandbox.run(Command(argv=argv, files={"x/y": b"z"}, keep=("c",)))
    assert not [folder for folder in made if Path(folder).exists()]
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors


@pytest.mark.parametrize("reports", [b"", b"{}", b"x\n", b'{"child-pid": 3}\n', b"\xff\n[]"])
def test_reports_without_an_exit_code(reports: bytes) -> None:
    assert exit_code(reports) is None


def test_a_tree_that_is_gone() -> None:
    assert tree.descendants(2**22 + 1) == []
    assert tree.memory_bytes(2**22 + 1, 0) == 0
    assert tree.deleted_bytes(2**22 + 1, "/") == 0
    assert tree.threads(2**22 + 1) == (1, {})


def test_threads_that_vanish_while_they_are_looked_at_were_running(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "listdir", lambda path: ["1", "2"])
    assert tree.threads(2**22 + 1) == (2, {})


HEADERS = {
    0: ("/usr/include/x86_64-linux-gnu/asm/unistd_64.h", r"#define __NR_(\w+)\s+(\d+)"),
    1: ("/usr/include/asm-generic/unistd.h", r"#define __NR(?:3264)?_(\w+)\s+(\d+)"),
}


@pytest.mark.parametrize("column", HEADERS)
def test_numbers_of_system_calls(column: int) -> None:
    name, pattern = HEADERS[column]
    path = Path(name)
    if not path.exists():
        pytest.skip(f"{name} is not installed")
    known = dict(re.findall(pattern, path.read_text(encoding="utf-8")))
    for call, numbers in NUMBERS.items():
        if call in known:
            assert int(known[call]) == numbers[column], call


def test_the_filter_is_a_program_of_the_kernel() -> None:
    for machine in ("x86_64", "aarch64"):
        for own in (True, False):
            code = build_filter(own_namespaces=own, machine=machine)
            steps = list(struct.iter_unpack("=HBBI", code))
            assert steps[-1] == (0x06, 0, 0, ALLOW)
            assert steps[2] == (0x06, 0, 0, KILL_PROCESS)
            for place, (step, if_true, if_false, _) in enumerate(steps):
                assert step == 0x06 or place + 1 + max(if_true, if_false) < len(steps)
    with pytest.raises(Unavailable, match="no table"):
        build_filter(own_namespaces=True, machine="m68k")


def test_this_machine_has_a_table() -> None:
    if platform.machine() not in ("x86_64", "aarch64"):
        pytest.skip("no table for this machine")
    assert build_filter(own_namespaces=True)
