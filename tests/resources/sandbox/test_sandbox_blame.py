"""A program cannot make its own fault look like one of the machine, and is not blamed for that."""

from __future__ import annotations

import contextlib
import os
import platform
import random
import select
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from guerdon.resources.sandbox import Command, Limits, Sandbox, Status, running, spawning, tree
from guerdon.resources.sandbox.engine import Plan
from guerdon.resources.sandbox.seccomp import NUMBERS
from guerdon.resources.sandbox.tree import Threads
from guerdon.resources.sandbox.waiting import Waiting

LIMITS = Limits(wall_seconds=0.6, memory_bytes=192 << 20, processes=24)

SLOW: dict[str, str] = {
    "forks children that burn and vanish with their time": """
        import os, signal
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        while True:
            try:
                if os.fork() == 0:
                    sum(range(1 << 18))
                    os._exit(0)
            except OSError:
                pass
        """,
    "its daemons burn in sessions of their own while it sleeps": """
        import os, signal, time
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        while True:
            try:
                if os.fork() == 0:
                    os.setsid()
                    if os.fork() == 0:
                        sum(range(1 << 18))
                    os._exit(0)
            except OSError:
                time.sleep(0.001)
        """,
    "its threads wait for each other": """
        import threading
        def burn():
            while True:
                pass
        threading.stack_size(65536)
        for _ in range(16):
            threading.Thread(target=burn, daemon=True).start()
        burn()
        """,
    "sleeps": "import time; time.sleep(1000)",
}
"""Each takes too long by its own fault, however busy the machine is."""

ALONE: dict[str, str] = {
    "starts programs for ever": """
        import os
        while True:
            os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)
        """,
    "sleeps in small steps": "import time\nwhile True: time.sleep(0.0001)",
    "gives its processor away": "import os\nwhile True: os.sched_yield()",
    "stops itself": """
        import os, signal
        while True:
            try:
                os.kill(0, signal.SIGSTOP)
            except OSError:
                pass
        """,
}
"""Each wants one processor: on a machine that is too busy nobody can tell whose fault it is."""


def test_memory_that_processes_share_counts_once(sandbox: Sandbox) -> None:
    source = """
    import os, time
    x = bytearray(os.urandom(1)) * (60 << 20)
    for _ in range(6):
        if os.fork() == 0:
            time.sleep(0.5)
            os._exit(0)
    for _ in range(6):
        os.wait()
    """
    result = sandbox.run(python(sandbox, source), replace(LIMITS, wall_seconds=60))
    assert result.status is Status.OK, result


def test_a_program_cannot_leave_its_pipes_open(sandbox: Sandbox) -> None:
    """In a ring of sockets, which the kernel frees when some other socket is closed."""
    source = """
    import os, socket, time
    first, second = socket.socketpair()
    socket.send_fds(second, [b"x"], [first.fileno(), 1, 2])
    second.close()
    time.sleep(0.2)
    os._exit(0)
    """
    result = sandbox.run(python(sandbox, source), replace(LIMITS, wall_seconds=60))
    if sandbox.engine.name == "landlock":
        assert "Permission denied" in result.detail, result
    else:
        assert result.status is Status.OK, result


def test_a_ring_of_sockets_is_freed() -> None:
    read, write = os.pipe()
    with open(read, "rb") as pipe:
        first, second = socket.socketpair()
        socket.send_fds(second, [b"x"], [first.fileno(), write])
        second.close()
        os.close(write)
        first.close()
        while not select.select([pipe], [], [], 0.01)[0]:
            running.free_sockets()
        assert pipe.read() == b""


@pytest.mark.parametrize("killed", [False, True])
def test_sockets_are_freed_while_a_pipe_is_open(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, killed: bool
) -> None:
    """Where the engine has ended, or was killed, and the program's output has not."""
    held: list[int] = []
    popen = spawning._popen  # pyright: ignore[reportPrivateUsage]

    def holding(plan: Plan, stdin: int, stdout: int, stderr: int) -> subprocess.Popen[bytes]:
        held.append(os.dup(stdout))
        return popen(plan, stdin, stdout, stderr)

    monkeypatch.setattr(spawning, "_popen", holding)
    monkeypatch.setattr(running, "free_sockets", lambda: held and os.close(held.pop()))
    argv = ("sleep", "1000") if killed else ("echo", "done")
    with sandbox.start(Command(argv=argv), Limits(wall_seconds=60)) as started:
        if killed:
            started.kill(Status.MEMORY, "enough")
        result = started.finish()
    assert result.status is (Status.MEMORY if killed else Status.OK), result
    assert not held


LOWERING: dict[str, str] = {
    "nice": "os.nice(19)",
    "setpriority": "os.setpriority(os.PRIO_USER, 0, 19)",
    "SCHED_IDLE": "os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))",
    "SCHED_BATCH": "os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))",
    "affinity": "os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])",
    "ioprio": "call(libc.syscall(NUMBER['ioprio_set'], 1, 0, 3 << 13))",
    "sched_setattr": "call(libc.syscall(NUMBER['sched_setattr'], 0, ATTRIBUTES, 0))",
    "core scheduling": "call(libc.prctl(62, 1, 0, 0, 0))",
    "subreaper": "call(libc.prctl(36, 1, 0, 0, 0))",
    "death signal": "call(libc.prctl(1, 0, 0, 0, 0))",
    "autogroup": "open('/proc/self/autogroup', 'w').write('19')",
    "counters": "open('/proc/self/sched', 'w').write('0')",
    "memory killer": "open('/proc/self/oom_score_adj', 'w').write('1000')",
    "control group": "os.mkdir('/sys/fs/cgroup/own')",
}
"""Ways to get less of the processor than others, or to hide from what looks."""


@pytest.fixture
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A starved program gets no more time: what looks like one counts as one at once."""
    monkeypatch.setattr(running, "PATIENCE", 1)


def python(sandbox: Sandbox, source: str) -> Command:
    """A Python program."""
    return Command(argv=(*sandbox.interpreter.argv, "-c", textwrap.dedent(source)))


@pytest.mark.usefixtures("no_patience")
@pytest.mark.parametrize("name", SLOW)
def test_a_slow_program_is_no_victim(sandbox: Sandbox, name: str) -> None:
    result = sandbox.run(python(sandbox, SLOW[name]), LIMITS)
    assert result.status is Status.TIMEOUT, result


@pytest.mark.parametrize("name", ALONE)
def test_a_slow_program_has_its_time(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(running, "PATIENCE", 100)
    result = sandbox.run(python(sandbox, ALONE[name]), LIMITS)
    assert result.status is Status.TIMEOUT, result


def test_a_program_cannot_ask_for_less(sandbox: Sandbox) -> None:
    numbers = {name: NUMBERS[name][platform.machine() != "x86_64"] for name in NUMBERS}
    attempts = "".join(
        f"""
try:
    {attempt}
    print({name!r})
except OSError:
    pass
"""
        for name, attempt in LOWERING.items()
    )
    source = f"""
import ctypes, os, struct
NUMBER = {numbers!r}
ATTRIBUTES = struct.pack("=IIQiIQQQ", 48, 5, 0, 0, 0, 0, 0, 0)
libc = ctypes.CDLL(None, use_errno=True)
def call(result):
    if result != 0:
        raise OSError(ctypes.get_errno(), "refused")
{attempts}
print("tried")
"""
    result = sandbox.run(python(sandbox, source))
    assert result.text == "tried\n", result


@contextlib.contextmanager
def crowd(processor: int, size: int) -> Iterator[None]:
    """Others that burn one processor, each in a session of its own, as programs of others are."""
    source = f"import os\nos.sched_setaffinity(0, [{processor}])\nwhile True: pass"
    argv = [sys.executable, "-I", "-S", "-c", source]
    burning = [subprocess.Popen(argv, start_new_session=True) for _ in range(size)]
    try:
        yield
    finally:
        for process in burning:
            process.kill()
            process.wait()


def test_waiting_for_others_is_seen(sandbox: Sandbox) -> None:
    """The kernel's numbers mean what they are taken for; ends when they have shown it."""
    mine = os.sched_getaffinity(0)
    processor = min(mine)
    with crowd(processor, 6):
        os.sched_setaffinity(0, [processor])
        try:
            began = time.monotonic()
            victim = sandbox.start(python(sandbox, "while True: pass"), Limits(wall_seconds=60))
        finally:
            os.sched_setaffinity(0, mine)
        with victim:
            waiting = Waiting(victim.pid, began)
            while waiting.since(began) < 0.2 and victim.tick():
                time.sleep(0.01)
                waiting.look(time.monotonic())
            assert victim.tick()


def looked_at(
    monkeypatch: pytest.MonkeyPatch, looks: list[tuple[float, int, dict[int, float]]]
) -> Waiting:
    """What comes of some looks: the moment, how many want a processor, who waited how long."""
    waiting = Waiting(1, 0.0)
    for now, wanting, waited in looks:
        found = Threads(wanting, waited)
        monkeypatch.setattr(tree, "threads", lambda pid, found=found: found)
        waiting.look(now)
    return waiting


@pytest.mark.parametrize(
    ("looks", "waited"),
    [
        ([(1.0, 1, {7: 0.75}), (2.0, 1, {7: 1.5})], 1.5),
        ([(1.0, 0, {7: 0.0}), (2.0, 0, {7: 0.0})], 0.0),
        # who crowds the machine waits for itself, until two looks have found it alone
        ([(1.0, 2, {7: 0.75}), (2.0, 3, {7: 1.5})], 0.0),
        ([(1.0, 2, {7: 0.75}), (2.0, 1, {7: 1.5}), (3.0, 1, {7: 2.0})], 0.5),
        ([(1.0, 1, {7: 0.5}), (2.0, 2, {7: 1.5}), (3.0, 1, {7: 2.5})], 0.5),
        # one after another: each waited since it was born; never longer than there was time
        ([(1.0, 1, {7: 0.5}), (2.0, 1, {7: 0.5, 8: 0.75})], 1.25),
        ([(1.0, 1, {7: 5.0})], 1.0),
        ([(2.0, 2, {7: 1.0}), (3.0, 1, {7: 1.0}), (3.5, 1, {7: 5.0})], 1.5),
        # threads that wait at the same time count once
        ([(1.0, 1, {7: 0.5, 8: 0.75})], 0.75),
    ],
)
def test_what_counts_as_waiting(
    monkeypatch: pytest.MonkeyPatch,
    looks: list[tuple[float, int, dict[int, float]]],
    waited: float,
) -> None:
    assert looked_at(monkeypatch, looks).since(0.0) == waited


def test_waiting_in_a_window(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = [(float(n), 1, {7: n / 2}) for n in range(1, 10_000)]
    waiting = looked_at(monkeypatch, looks)
    assert waiting.since(9_000.5) == pytest.approx(999 / 2)
    assert waiting.since(9_000.0) == pytest.approx(999 / 2)
    assert waiting.since(10_000.0) == 0.0
    assert 0 < waiting.since(0.0) < 5_000  # what is long ago is forgotten


@pytest.mark.parametrize("share", [0.3, 0.5, 0.7, 0.9])
def test_crowding_the_machine_part_of_the_time_does_not_pay(
    monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    """A program that makes itself wait for a share of its time, and is alone in between."""
    chance = random.Random(1)
    waited = 0.0
    looks: list[tuple[float, int, dict[int, float]]] = []
    for n in range(1, 2001):
        waited += share
        looks.append((float(n), 9 if chance.random() < share else 1, {7: waited}))
    found = looked_at(monkeypatch, looks).since(0.0)
    assert found < (1 - running.STARVED) * 2000


@pytest.mark.parametrize(
    ("waited", "passed", "ended"),
    [
        (0.0, 1.0, Status.TIMEOUT),
        (0.4, 1.0, Status.TIMEOUT),
        (0.6, 1.0, None),
        (0.6, 1.5, Status.TIMEOUT),
        (3.0, 3.4, None),
        (3.4, 4.0, Status.TIMEOUT),
        (3.6, 4.0, Status.SANDBOX_FAILED),
    ],
)
def test_who_is_to_blame(
    sandbox: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
    waited: float,
    passed: float,
    ended: Status | None,
) -> None:
    """For a program that may take one second, by how long others kept it waiting."""
    looks: list[float] = []
    monkeypatch.setattr(Waiting, "look", lambda self, now: looks.append(now))
    monkeypatch.setattr(Waiting, "since", lambda self, moment: 1000 * waited)
    monkeypatch.setattr(running, "LOOK_SECONDS", 1000.0)
    with sandbox.start(Command(argv=("sleep", "1000")), Limits(wall_seconds=60)) as victim:
        since = time.monotonic() - 1000 * passed
        more = victim.overdue(since, 1000.0, "it took too long")
        assert looks  # what it waited since the last look counts, too
        assert (more is None) == (ended is not None)
        if ended is None:
            assert victim.tick()
            victim.kill(Status.TIMEOUT, "enough")
        else:
            result = victim.finish()
            assert result.status is ended
            assert ("too busy" in result.detail) == (ended is Status.SANDBOX_FAILED)
