"""What a program finds when it looks around: each protection has a test that fails without it."""

from __future__ import annotations

import json
import os
import resource
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from guerdon.resources.sandbox import Command, Limits, Result, Sandbox, Status, tree

LIMITS = Limits(
    wall_seconds=21,
    cpu_seconds=17,
    memory_bytes=300 << 20,
    processes=19,
    file_bytes=3 << 20,
    disk_bytes=7 << 20,
    open_files=77,
)

LOOK_AROUND = """
import json, os, resource, stat
facts = {
    "uid": os.getresuid(), "gid": os.getresgid(), "groups": os.getgroups(),
    "node": os.uname().nodename, "sid": os.getsid(0), "umask": os.umask(0),
    "limits": {name: resource.getrlimit(getattr(resource, name)) for name in dir(resource)
               if name.startswith("RLIMIT_")},
    "pids": [], "sizes": {}, "descriptors": {},
}
for name in ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup"):
    try:
        facts[name] = os.readlink(f"/proc/self/ns/{name}")
    except OSError:
        pass
for key, path in (("status", "/proc/self/status"), ("mounts", "/proc/self/mounts"),
                  ("interfaces", "/proc/net/dev")):
    try:
        facts[key] = open(path).read()
    except OSError:
        pass
try:
    facts["pids"] = [name for name in os.listdir("/proc") if name.isdigit()]
except OSError:
    pass
for path in (".", "/dev/shm"):
    try:
        found = os.statvfs(path)
        facts["sizes"][path] = found.f_blocks * found.f_frsize
    except OSError:
        pass
print(json.dumps(facts))
"""


def python(sandbox: Sandbox, source: str, **fields: Any) -> Command:
    """A Python program."""
    return Command(argv=(*sandbox.interpreter.argv, "-c", textwrap.dedent(source)), **fields)


@pytest.fixture(scope="session")
def facts(sandbox: Sandbox) -> dict[str, Any]:
    """What a program of an engine sees of itself."""
    result = sandbox.run(python(sandbox, LOOK_AROUND), LIMITS)
    assert result.status is Status.OK, result
    return json.loads(result.text)


@pytest.fixture
def bubblewrap(sandbox: Sandbox) -> None:
    """Only for the engine with namespaces of its own."""
    if sandbox.engine.name != "bubblewrap":
        pytest.skip("is about namespaces")


def test_user(facts: dict[str, Any], sandbox: Sandbox) -> None:
    assert len({*facts["uid"], *facts["gid"]}) == 1
    assert facts["uid"][0] != 0
    if os.geteuid() == 0:
        assert facts["groups"] in ([], [65534])
        assert facts["uid"][0] == 65534 or facts["uid"][0] >= 1_000_000_000
    if sandbox.engine.name == "bubblewrap":
        fields = dict(line.split(":", 1) for line in facts["status"].splitlines())
        for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert int(fields[name], 16) == 0, name
        assert fields["NoNewPrivs"].strip() == "1"
        assert fields["Seccomp"].strip() == "2"


GROUPS = """
import os, sys
os.setgroups([4, 27])
from guerdon.resources.sandbox import Command, Sandbox
result = Sandbox(sys.argv[1]).run(Command(argv=("id", "-G")))
print(result.text, result.detail)
"""


def test_groups_of_this_process_are_given_up(sandbox: Sandbox) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root has any to give")
    argv = [sys.executable, "-c", GROUPS, sandbox.engine.name]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    (group,) = done.stdout.split()
    assert int(group) >= 65534


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("RLIMIT_AS", (300 << 20, 300 << 20)),
        ("RLIMIT_CPU", (17, 18)),
        ("RLIMIT_FSIZE", (3 << 20, 3 << 20)),
        ("RLIMIT_NOFILE", (77, 77)),
        ("RLIMIT_CORE", (1, 1)),
    ],
)
def test_limit(facts: dict[str, Any], name: str, wanted: tuple[int, int]) -> None:
    assert tuple(facts["limits"][name]) == wanted


def test_limit_of_processes(facts: dict[str, Any]) -> None:
    soft, hard = facts["limits"]["RLIMIT_NPROC"]
    assert soft == hard
    if os.geteuid() == 0:
        assert 19 <= soft <= 21


def test_memory_by_data(sandbox: Sandbox) -> None:
    limits = Limits(wall_seconds=20, memory_bytes=300 << 20, memory_by="data")
    source = "import resource as r; print(r.getrlimit(r.RLIMIT_DATA), r.getrlimit(r.RLIMIT_AS)[0])"
    result = sandbox.run(python(sandbox, source), limits)
    assert result.text == f"{(300 << 20, 300 << 20)} {resource.getrlimit(resource.RLIMIT_AS)[1]}\n"


@pytest.mark.usefixtures("bubblewrap")
@pytest.mark.parametrize("name", ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"])
def test_namespace(facts: dict[str, Any], name: str) -> None:
    assert facts[name] != os.readlink(f"/proc/self/ns/{name}")


@pytest.mark.usefixtures("bubblewrap")
def test_nothing_of_the_host_is_there(facts: dict[str, Any]) -> None:
    assert facts["node"] == "sandbox"
    assert facts["sid"] != 0  # a session of its own, and not one of the host's
    assert len(facts["pids"]) <= 2
    assert [line.split(":")[0].strip() for line in facts["interfaces"].splitlines()[2:]] == ["lo"]
    assert facts["sizes"] == {".": 7 << 20, "/dev/shm": 8 << 20}


@pytest.mark.usefixtures("bubblewrap")
def test_only_its_own_folders_can_be_written(facts: dict[str, Any]) -> None:
    writable = {
        fields[1]
        for fields in map(str.split, facts["mounts"].splitlines())
        if "rw" in fields[3].split(",")
    }
    devices = {"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"}
    assert writable - devices <= {"/tmp", "/dev/shm", "/dev/pts"}


CONNECTIONS: dict[str, str] = {
    "a TCP listener on loopback": """
        made = socket.socket(socket.AF_INET)
        made.settimeout(5)
        made.connect(("127.0.0.1", PORT))
        """,
    "an abstract socket": "socket.socket(socket.AF_UNIX).connect(ABSTRACT)",
    "an abstract socket of datagrams": """
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b"x", ABSTRACT + "-d")
        """,
    "an abstract socket, by one of a pair": """
        socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)[0].sendto(b"x", ABSTRACT + "-d")
        """,
    "a socket in a folder": "socket.socket(socket.AF_UNIX).connect(PATH)",
    "a socket in a folder, by one of a pair": """
        socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)[0].sendto(b"x", PATH + "-d")
        """,
    "netlink": "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)",
    "raw packets": "socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)",
    "raw IP": "socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)",
    "IPv6": "socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)",
    "the host's machine": "socket.socket(socket.AF_VSOCK)",
    "Bluetooth": "socket.socket(31, socket.SOCK_RAW, 1)",
    "cryptography of the kernel": "socket.socket(38, socket.SOCK_SEQPACKET)",
}
"""What a program might talk to."""


@contextmanager
def listeners(folder: Path) -> Iterator[dict[str, Any]]:
    """Sockets of the host that anybody may talk to."""
    abstract = f"\0guerdon-{os.getpid()}"
    path = str(folder / "socket")
    with ExitStack() as stack:
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        for kind, end in ((socket.SOCK_STREAM, ""), (socket.SOCK_DGRAM, "-d")):
            for name in (abstract, path):
                made = stack.enter_context(socket.socket(socket.AF_UNIX, kind))
                made.bind(name + end)
                if kind == socket.SOCK_STREAM:
                    made.listen()
        for name in ("socket", "socket-d"):
            (folder / name).chmod(0o777)
        yield {"PORT": tcp.getsockname()[1], "ABSTRACT": abstract, "PATH": path}


def test_no_socket_reaches_the_host(sandbox: Sandbox, open_folder: Path) -> None:
    with listeners(open_folder) as known:
        for where in known.values():
            assert where
        result = sandbox.run(python(sandbox, attempts(known, CONNECTIONS, "import socket")))
    assert result.text == "tried\n", result


def test_the_host_can_reach_these_sockets(open_folder: Path) -> None:
    """So that the test above means something."""
    reachable = [name for name in CONNECTIONS if "socket" in name or "TCP" in name]
    source = "import socket"
    with listeners(open_folder) as known:
        program = attempts(known, {name: CONNECTIONS[name] for name in reachable}, source)
        done = subprocess.run(
            [sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True
        )
    assert done.stdout.split("\n") == [*reachable, "tried", ""]


def attempts(known: dict[str, Any], programs: dict[str, str], start: str) -> str:
    """One program that tries all and prints the names of those that worked, and `tried`."""
    lines = [start, *(f"{key} = {value!r}" for key, value in known.items())]
    for name, body in programs.items():
        inner = textwrap.indent(textwrap.dedent(body).strip(), "    ")
        lines += ["try:", inner, f"    print({name!r})", "except OSError:", "    pass"]
    return "\n".join([*lines, "print('tried')"])


HOST_FILES: dict[str, str] = {
    "reads": "open(FILE).read()",
    "reads by another name": "open('/proc/self/root' + FILE).read()",
    "reads by the folder of another": "open('/proc/%d/root%s' % (HOST, FILE)).read()",
    "reads by a hard link": "os.link(FILE, 'linked'); open('linked').read()",
    "reads by a symbolic link": "os.symlink(FILE, 'link'); open('link').read()",
    "appends": "open(FILE, 'a').write('x')",
    "truncates": "os.truncate(FILE, 0)",
    "truncates when it opens": "os.close(os.open(FILE, os.O_RDONLY | os.O_TRUNC))",
    "removes": "os.unlink(FILE)",
    "renames": "os.rename(FILE, FILE + '2')",
    "moves to its folder": "os.rename(FILE, 'stolen')",
    "makes a folder": "os.mkdir(FOLDER + '/new')",
    "makes a link": "os.symlink('/', FOLDER + '/new')",
    "makes a pipe": "os.mkfifo(FOLDER + '/new')",
    "lists": "os.listdir(FOLDER)",
    "changes permissions": "os.chmod(FILE, 0o600)",
    "changes times": "os.utime(FILE, (1, 1))",
    "changes the owner": "os.chown(FILE, os.getuid(), -1)",
    "marks": "os.setxattr(FILE, 'user.guerdon', b'x')",
    "runs": "os.execv(PROGRAM, ['program'])",
    "reads the memory of the host": "open('/proc/%d/mem' % HOST, 'rb').read(1)",
    "reads the environment of the host": "open('/proc/%d/environ' % HOST, 'rb').read(1)",
    "reads the descriptors of the host": "os.listdir('/proc/%d/fd' % HOST)",
    "follows the host's folder": "os.chdir('/proc/%d/cwd' % HOST)",
    "writes settings of the kernel": "open('/proc/sys/kernel/printk', 'w').write('1')",
    "presses a key of the kernel": "open('/proc/sysrq-trigger', 'w').write('h')",
    "writes to memory": "open('/dev/mem', 'rb').read(1)",
    "reads what the kernel said": "open('/dev/kmsg', 'rb').read(1)",
    "opens a disk": "os.mknod('disk', 0o60600, os.makedev(8, 0)); open('disk', 'rb').read(1)",
    "traces the kernel": "os.listdir('/sys/kernel')",
    "reads passwords": "open('/etc/passwd').read()",
    "leaves shared memory": "open('/dev/shm/guerdon-left', 'w').close() if HAS_SHM else missing()",
    "opens the terminal": "open('/dev/tty', 'w').write('x')",
}
"""What a program might do to files of the host that anybody may read, write and run."""


def test_files_of_the_host(sandbox: Sandbox, open_folder: Path) -> None:
    file = open_folder / "file"
    file.write_text("host")
    file.chmod(0o777)
    program = open_folder / "program"
    program.write_text("#!/bin/sh\necho it ran\n")
    program.chmod(0o777)
    before = file.stat()
    known = {
        "FILE": str(file),
        "FOLDER": str(open_folder),
        "PROGRAM": str(program),
        "HOST": os.getpid(),
        "HAS_SHM": sandbox.engine.name == "landlock",
    }
    start = "import os\ndef missing(): raise OSError"
    result = sandbox.run(python(sandbox, attempts(known, HOST_FILES, start)))
    seen = result.text.splitlines()
    if sandbox.engine.name == "landlock" and "follows the host's folder" in seen:
        assert os.geteuid() != 0  # only of a process of the same user, and nothing opens there
        seen.remove("follows the host's folder")
    assert seen == ["tried"], result
    assert sorted(os.listdir(open_folder)) == ["file", "program"]
    assert file.read_text() == "host"
    after = file.stat()
    assert (after.st_mode, after.st_uid) == (before.st_mode, before.st_uid)
    assert (after.st_mtime_ns, after.st_size) == (before.st_mtime_ns, before.st_size)
    assert not Path("/dev/shm/guerdon-left").exists()


def mark(name: str) -> str:
    """An argument that tells the processes of a test of this run from all others."""
    return f"100{len(name)}.{os.getpid()}"


def marked(argument: str) -> list[int]:
    """Processes of the host that have not ended and have an argument, or hold it in one."""
    found: list[int] = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            line = Path(f"/proc/{name}/cmdline").read_bytes()
        except OSError:
            continue
        if argument.encode() in line and int(name) != os.getpid():
            found.append(int(name))
    return found


def becomes(condition: Callable[[], bool]) -> bool:
    """Look until something is so; what was killed may take a moment to end."""
    give_up = time.monotonic() + 20
    while not condition():
        if time.monotonic() > give_up:
            return False
        time.sleep(0.01)
    return True


def gone(argument: str) -> bool:
    """Whether no process with an argument is left."""
    return becomes(lambda: not marked(argument))


def test_daemons_end_with_their_program(sandbox: Sandbox) -> None:
    """Also those that left their parent and their session, and close what they inherited."""
    argument = mark("daemon")
    source = f"""
    import os
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.closerange(0, 100)
            os.execv("/bin/sleep", ["sleep", "{argument}"])
        os._exit(0)
    os.wait()
    """
    assert sandbox.run(python(sandbox, source)).status is Status.OK
    assert gone(argument)


def test_a_chain_of_daemons_ends(sandbox: Sandbox) -> None:
    """Each leaves one more and ends at once, so that none lives when it is looked at."""
    argument = mark("chain of daemons")
    source = f"""
    import os
    if os.fork() == 0:
        os.setsid()
        os.closerange(0, 100)
        for _ in range(10**6):
            try:
                if os.fork():
                    os._exit(0)
            except OSError:
                pass
        os.execv("/bin/sleep", ["sleep", "{argument}"])
    """
    for _ in range(10):
        assert sandbox.run(python(sandbox, source)).status is Status.OK
    assert gone(argument)


def test_a_daemon_without_its_first_thread_ends(sandbox: Sandbox) -> None:
    """The kernel shows such a process as one that has ended."""
    name = f"guerdon-{os.getpid() % 10**6}"
    source = f"""
    import ctypes, os, threading, time
    libc = ctypes.CDLL(None)
    EXIT = 60 if os.uname().machine == "x86_64" else 93
    def run_on():
        libc.prctl(15, b"{name}", 0, 0, 0)
        os.write(9, b"x")
        os.closerange(0, 100)
        time.sleep(1000)
    begun, told = os.pipe()
    os.dup2(told, 9)
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            threading.Thread(target=run_on).start()
            libc.syscall(EXIT, 0)
        os._exit(0)
    os.read(begun, 1)
    """
    assert sandbox.run(python(sandbox, source)).status is Status.OK
    assert becomes(lambda: not threads_named(name))


def threads_named(name: str) -> list[str]:
    """Threads of the host that live and have a name."""
    found: list[str] = []
    for task in Path("/proc").glob("[0-9]*/task/[0-9]*"):
        with suppress(OSError):
            state = (task / "stat").read_text().rpartition(")")[2].split()[0]
            if (task / "comm").read_text().strip() == name and state not in "ZX":
                found.append(str(task))
    return found


@pytest.mark.parametrize(
    "looks",
    [
        # each look: who is there, who of them lives; the last is where the tree has ended
        [([], []), ([], [])],
        [([5], []), ([5, 6], []), ([5, 6, 7], [7]), ([5, 6, 7], []), ([5, 6, 7], [])],
        [([5], [5]), ([5], []), ([5, 6], [6]), ([5, 6], []), ([5, 6], [])],
    ],
)
def test_a_tree_has_ended_when_two_looks_agree(
    monkeypatch: pytest.MonkeyPatch, looks: list[tuple[list[int], list[int]]]
) -> None:
    alive: list[int] = []
    killed: list[int] = []
    given = iter(looks)

    def descendants(pid: int) -> list[int]:
        there, alive[:] = next(given)
        return there

    monkeypatch.setattr(tree, "descendants", descendants)
    monkeypatch.setattr(tree, "_lives", lambda pid: pid in alive)
    monkeypatch.setattr(os, "kill", lambda pid, number: killed.append(pid))
    tree.kill_descendants(1)
    assert next(given, None) is None
    assert set(killed) == {pid for _, living in looks for pid in living}


def test_standard_streams_can_be_opened_by_name(sandbox: Sandbox) -> None:
    result: Result = sandbox.run(Command(argv=("cat", "/dev/stdin"), stdin=b"given"))
    assert result.text == "given", result
