"""Programs that take all they can: each gets its status in bounded time, and the next runs."""

from __future__ import annotations

import textwrap
import time

import pytest
from msgspec.structs import replace

from guerdon.resources.sandbox import Command, Limits, Sandbox, Status

LIMITS = Limits(
    wall_seconds=20,
    memory_bytes=192 << 20,
    processes=24,
    file_bytes=4 << 20,
    disk_bytes=8 << 20,
    output_bytes=1 << 20,
)
SHORT = replace(LIMITS, wall_seconds=0.4)
"""For programs that never end by themselves."""

BOUND_SECONDS = 60.0
"""Far above the limits: machines that run tests are busy. No loop ends by itself."""

PROGRAMS: dict[str, tuple[str, set[Status]]] = {
    "fork bomb": (
        """
        import os
        while True:
            try:
                os.fork()
            except OSError:
                pass
        """,
        {Status.TIMEOUT, Status.MEMORY},
    ),
    "memory bomb": (
        "x = []\nwhile True: x.append(bytearray(1 << 20))",
        {Status.MEMORY},
    ),
    "memory bomb of several processes": (
        """
        import os, time
        for _ in range(6):
            if os.fork() == 0:
                x = bytearray(os.urandom(1)) * (60 << 20)
                time.sleep(100)
        time.sleep(100)
        """,
        {Status.MEMORY},
    ),
    "disk filling": (
        """
        i = 0
        while True:
            i += 1
            with open(f"f{i}", "wb") as file:
                file.write(b"x" * (1 << 20))
        """,
        {Status.NONZERO, Status.OUTPUT},
    ),
    "one large file": (
        "f = open('f', 'wb')\nwhile True: f.write(b'x' * (1 << 20))",
        {Status.NONZERO, Status.OUTPUT},
    ),
    "endless output": ("while True: print('x' * 1000)", {Status.OUTPUT}),
    "endless errors": (
        "import sys\nwhile True: print('x' * 1000, file=sys.stderr)",
        {Status.OUTPUT},
    ),
    "zombie tree": (
        """
        import os, time
        for _ in range(200):
            try:
                if os.fork() == 0:
                    if os.fork() == 0:
                        os.setsid()
                        time.sleep(1000)
                    os._exit(0)
            except OSError:
                break
        os._exit(0)
        """,
        {Status.OK},
    ),
    "signals ignored": (
        """
        import signal
        for number in range(1, 64):
            try:
                signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError):
                pass
        while True:
            pass
        """,
        {Status.TIMEOUT},
    ),
    "10,000 threads": (
        """
        import threading, time
        threading.stack_size(32768)
        for _ in range(10_000):
            threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
        """,
        {Status.NONZERO, Status.MEMORY},
    ),
    "sleeps": ("import time; time.sleep(1000)", {Status.TIMEOUT}),
    "loops in C": ("sum(range(10**15))", {Status.TIMEOUT}),
    "never reads its input": ("while True: pass", {Status.TIMEOUT}),
    "10,000 files open": (
        "x = []\nfor i in range(10_000): x.append(open('/dev/null'))",
        {Status.NONZERO},
    ),
    "closes everything and loops": (
        "import os\nos.closerange(0, 256)\nwhile True: pass",
        {Status.TIMEOUT},
    ),
    "deep folders": (
        """
        import os
        while True:
            os.mkdir("d" * 200)
            os.chdir("d" * 200)
        """,
        {Status.NONZERO, Status.OUTPUT},
    ),
    "many empty files": (
        """
        import os
        i = 0
        while True:
            i += 1
            os.mknod(f"f{i}")
        """,
        {Status.NONZERO, Status.OUTPUT},
    ),
    "files in a folder whose path is too long to look into": (
        """
        import os
        for _ in range(30):
            os.mkdir("d" * 200)
            os.chdir("d" * 200)
        i = 0
        while True:
            i += 1
            with open(f"f{i}", "wb") as file:
                file.write(b"x" * (1 << 20))
        """,
        {Status.NONZERO, Status.OUTPUT},
    ),
    "files in a folder that only it may list": (
        """
        import os
        os.mkdir("locked", 0o300)
        i = 0
        while True:
            i += 1
            with open(f"locked/f{i}", "wb") as file:
                file.write(b"x" * (1 << 20))
        """,
        {Status.NONZERO, Status.OUTPUT},
    ),
    "files that it holds without a name": (
        """
        import os, time
        held = []
        for i in range(20):
            held.append(open("f", "wb"))
            os.unlink("f")
            held[-1].write(b"x" * (1 << 20))
            held[-1].flush()
        while True:
            time.sleep(1)
        """,
        {Status.NONZERO, Status.OUTPUT},
    ),
    "files that it maps without a name": (
        """
        import mmap, os, time
        held = []
        for i in range(20):
            with open("f", "w+b") as file:
                file.write(b"x" * (1 << 20))
                file.flush()
                held.append(mmap.mmap(file.fileno(), 1 << 20))
            os.unlink("f")
        while True:
            time.sleep(1)
        """,
        {Status.NONZERO, Status.OUTPUT},
    ),
    "a huge sparse file": (
        "f = open('f', 'wb')\nf.truncate(1 << 40)",
        {Status.NONZERO, Status.OUTPUT},
    ),
    "a huge file that is allocated": (
        "import os\nos.posix_fallocate(os.open('f', os.O_CREAT | os.O_RDWR), 0, 1 << 40)",
        {Status.NONZERO, Status.OUTPUT},
    ),
    "memory that stays when it is unmapped": (
        "import mmap\nmmap.mmap(-1, 1 << 20)",
        {Status.NONZERO},
    ),
    "memory that stays when it is unmapped, by a device": (
        "import mmap, os\nmmap.mmap(os.open('/dev/zero', os.O_RDWR), 1 << 20)",
        {Status.NONZERO},
    ),
    "memory bomb whose first threads have ended": (
        """
        import ctypes, os, threading, time
        EXIT = 60 if os.uname().machine == "x86_64" else 93
        def fill():
            time.sleep(0.2)
            x = bytearray(os.urandom(1)) * (60 << 20)
            time.sleep(1000)
        for _ in range(6):
            if os.fork() == 0:
                threading.Thread(target=fill).start()
                ctypes.CDLL(None).syscall(EXIT, 0)
        time.sleep(1000)
        """,
        {Status.MEMORY},
    ),
    "memory bomb with a name like a field of the kernel's": (
        """
        import ctypes, os, time
        ctypes.CDLL(None).prctl(15, b"\\x0bVmPTE: -999999", 0, 0, 0)
        for _ in range(6):
            if os.fork() == 0:
                x = bytearray(os.urandom(1)) * (60 << 20)
                time.sleep(1000)
        time.sleep(1000)
        """,
        {Status.MEMORY},
    ),
    "files whose holder's first thread has ended": (
        """
        import ctypes, os, threading, time
        EXIT = 60 if os.uname().machine == "x86_64" else 93
        def hold():
            time.sleep(0.2)
            try:
                for _ in range(20):
                    held = os.open("f", os.O_CREAT | os.O_RDWR)
                    os.unlink("f")
                    os.write(held, b"x" * (1 << 20))
            except OSError:
                os._exit(1)
            time.sleep(1000)
        threading.Thread(target=hold).start()
        ctypes.CDLL(None).syscall(EXIT, 0)
        """,
        {Status.NONZERO, Status.OUTPUT},
    ),
    "files under way in a socket": (
        """
        import os, socket, time
        kept = []
        for _ in range(20):
            kept.append(socket.socketpair())
            held = os.open("f", os.O_CREAT | os.O_RDWR)
            os.unlink("f")
            os.write(held, b"x" * (1 << 20))
            socket.send_fds(kept[-1][0], [b"x"], [held])
            os.close(held)
        time.sleep(1000)
        """,
        {Status.NONZERO, Status.OUTPUT},
    ),
    "a huge file that is allocated beyond its end": (
        """
        import ctypes, os, platform
        number = 285 if platform.machine() == "x86_64" else 47
        file = os.open("f", os.O_CREAT | os.O_RDWR)
        length = ctypes.c_long(1 << 40)
        done = ctypes.CDLL(None).syscall(number, file, 1, ctypes.c_long(0), length)
        raise SystemExit(-done)
        """,
        {Status.NONZERO, Status.OUTPUT},
    ),
    "folders that are made faster than they are counted": (
        """
        import os
        for _ in range(4):
            if os.fork() == 0:
                break
        i = 0
        while True:
            i += 1
            try:
                os.mkdir(f"{os.getpid()}-{i}")
            except OSError:
                pass
        """,
        {Status.OUTPUT},
    ),
    "more mappings than can be looked at": (
        """
        import ctypes, os, time
        libc = ctypes.CDLL(None)
        libc.mmap.restype = ctypes.c_void_p
        word = ctypes.c_size_t
        start = libc.mmap(None, word(100 << 20), 0, 0x22, -1, ctypes.c_long(0))
        for page in range(0, 100 << 20, 8192):
            libc.mprotect(ctypes.c_void_p(start + page), word(4096), 1)
        for _ in range(15):
            if os.fork() == 0:
                break
        time.sleep(1000)
        """,
        {Status.TIMEOUT, Status.OUTPUT},
    ),
    "files in shared memory": (
        """
        import time
        try:
            files = [open(f"/dev/shm/{i}", "wb") for i in range(100)]
            for file in files:
                file.write(b"x" * (4 << 20))
        except OSError:
            raise SystemExit(1)
        time.sleep(1000)
        """,
        {Status.NONZERO},
    ),
    "links to itself": (
        """
        import os
        os.symlink(".", "here")
        os.symlink("loop", "loop")
        os.link("here", "again")
        open("here/" * 39 + "loop")
        """,
        {Status.NONZERO},
    ),
    "NUL bytes": ("import sys; sys.stdout.write('a\\0b')", {Status.OK}),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_bad_program(sandbox: Sandbox, name: str) -> None:
    source, expected = PROGRAMS[name]
    argv = (*sandbox.interpreter.argv, "-c", textwrap.dedent(source))
    began = time.monotonic()
    limits = SHORT if Status.TIMEOUT in expected else LIMITS
    result = sandbox.run(Command(argv=argv, stdin=b"1\n" * 100_000), limits)
    assert result.status in expected, result
    assert result.wall_seconds < BOUND_SECONDS
    assert time.monotonic() - began < BOUND_SECONDS
    assert max(len(result.stdout), len(result.stderr)) <= LIMITS.output_bytes
    assert sandbox.run(Command(argv=("echo", "next"))).text == "next\n"


def test_files_that_change_while_they_are_brought_back(sandbox: Sandbox) -> None:
    """What comes back is bounded, and files that are none any more stay there."""
    source = """
    import os, sys
    names = ["a", "b", "c"]
    if os.fork() == 0:
        while True:
            for name in names:
                for change in (
                    lambda: open(name, "wb").write(b"x" * (1 << 20)),
                    lambda: os.truncate(name, 3 << 20),
                    lambda: os.unlink(name),
                    lambda: os.symlink("/etc/passwd", name),
                    lambda: os.unlink(name),
                    lambda: os.mkfifo(name),
                    lambda: os.unlink(name),
                ):
                    try:
                        change()
                    except OSError:
                        pass
    while not os.path.lexists("c"):
        pass
    """
    argv = (*sandbox.interpreter.argv, "-c", textwrap.dedent(source))
    result = sandbox.run(Command(argv=argv, keep=("a", "b", "c")), LIMITS)
    assert result.status in (Status.OK, Status.OUTPUT, Status.TIMEOUT), result
    assert sum(map(len, result.files.values())) <= LIMITS.disk_bytes
    assert set(b"".join(result.files.values())) <= set(b"x\0")


def test_many_large_files_that_are_brought_back(sandbox: Sandbox) -> None:
    names = tuple(f"f{i}" for i in range(20))
    source = """
    import os
    open("f0", "wb").write(b"x" * (1 << 20))
    for i in range(1, 20):
        os.link("f0", f"f{i}")
    """
    argv = (*sandbox.interpreter.argv, "-c", textwrap.dedent(source))
    result = sandbox.run(Command(argv=argv, keep=names), LIMITS)
    assert result.status is Status.OK, result
    assert result.files == dict.fromkeys(names[:8], b"x" * (1 << 20))  # whole ones only
