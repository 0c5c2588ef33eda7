"""The kinds of resources: what they do, what strangers do in them, and that nothing survives."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from engines import working

from guerdon.errors import BadInput, ConfigError, Unavailable
from guerdon.resources import (
    Context,
    FolderSpec,
    Pool,
    PythonSpec,
    Released,
    Resources,
    ServerSpec,
    SqliteSpec,
    WorkspaceSpec,
    folder,
)
from guerdon.resources.sandbox import Status
from guerdon.resources.sandboxes import sandbox_of

LONG = 20.0


def until(condition: Callable[[], Any]) -> None:
    pause = threading.Event()
    for _ in range(int(LONG / 0.002)):
        if condition():
            return
        pause.wait(0.002)
    raise AssertionError("it did not happen")


@pytest.fixture
def context() -> Iterator[Context]:
    """A context over resources that end with the test, and leave no process."""
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    with Resources() as resources, Context("test", resources=resources) as made:
        yield made
    after = {child.pid for child in psutil.Process().children(recursive=True)}
    assert after <= before


@pytest.fixture(params=["bubblewrap", "landlock"])
def engine(request: pytest.FixtureRequest) -> Any:
    """The name of an engine; skipped with its reason where it is not installed."""
    working(sandbox_of(request.param), request.param)
    return request.param


# Interpreters.

EACH_DESCRIPTOR = "import os\nfor n in range(3, 4096):\n    try: {}\n    except OSError: pass"


@pytest.fixture
def python(context: Context, engine: Any) -> Any:
    return context.acquire_resource_sync(PythonSpec(engine=engine, memory_mib=256))


def test_variables_stay(python: Any) -> None:
    assert python.run("x = 20").value is None
    assert python.run("x += 1; x * 2").value == "42"


def test_agentfly_functions_see_each_other_and_imports(python: Any) -> None:
    code = "import math\ndef f(n): return n * f(n - 1) if n else 1\ndef g(): return math.pi"
    assert python.run(code).ok
    assert python.run("f(5), round(g(), 2)").value == "(120, 3.14)"


@pytest.mark.parametrize(
    ("code", "exception"),
    [
        ("raise ValueError('no')", "ValueError"),
        ("assert False", "AssertionError"),
        ("undefined", "NameError"),
        ("def f(:", "SyntaxError"),
        ("x = '\0'", "ValueError"),
        ("import sys; sys.exit(0)", "SystemExit"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("x = bytearray(10**10)", "MemoryError"),
        ("def f(): f()\nf()", "RecursionError"),
        ("class E(Exception):\n    __str__ = None\nraise E", "E"),
    ],
)
def test_agentfly_an_error_is_told_and_the_variables_stay(
    python: Any, code: str, exception: str
) -> None:
    python.run("kept = 1")
    done = python.run(code)
    found = "ValueError" if exception == "SyntaxError" and "\0" in code else exception
    assert (done.status, done.ok) == (Status.OK, False)
    assert done.exception in (found, "SyntaxError")
    assert done.error
    assert python.run("kept").value == "1"


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("while True: pass", Status.TIMEOUT),
        ("import time; time.sleep(60)", Status.TIMEOUT),
        ("class R:\n    def __repr__(self):\n        while True: pass\nR()", Status.TIMEOUT),
        ("import os; os._exit(0)", Status.NONZERO),
        ("import os; os.abort()", Status.SIGNALLED),
        (EACH_DESCRIPTOR.format("os.close(n)"), None),
        (EACH_DESCRIPTOR.format("os.write(n, b'x' * 99)"), None),
    ],
)  # fmt: skip
def test_code_that_ends_the_interpreter(python: Any, code: str, status: Status | None) -> None:
    python.run("kept = 1")
    done = python.run(code, seconds=0.5)
    assert not done.ok
    assert status is None or done.status is status
    after = python.run("'kept' in globals()")
    assert (after.value, after.fresh) == ("False", True)
    assert python.run("1").fresh is False


def test_endless_output_is_cut(python: Any) -> None:
    done = python.run("print('x' * 10**6)\nimport sys\nprint('e', file=sys.stderr)")
    assert (done.ok, done.cut, done.stderr) == (True, True, "e\n")
    assert len(done.stdout) == 256 * 1024
    assert python.run("print(1)").stdout == "1\n"


def test_what_a_child_writes_is_seen(python: Any) -> None:
    done = python.run("import subprocess; subprocess.run(['echo', 'hi']).returncode")
    assert (done.stdout, done.value) == ("hi\n", "0")


def test_agentfly_nothing_of_the_host_is_there(
    python: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s3cret")
    done = python.run(f"import os; print(dict(os.environ)); open({str(secret)!r}).read()")
    assert done.exception in ("FileNotFoundError", "PermissionError")
    assert "GUERDON" not in done.stdout
    assert python.run("import socket; socket.create_connection(('127.0.0.1', 22))").exception


def test_setup_runs_first_and_again_after_an_end(context: Context, engine: Any) -> None:
    spec = PythonSpec(setup="base = 40", engine=engine)
    python = context.acquire_resource_sync(spec)
    assert python.run("base + 2").value == "42"
    python.run("import os; os._exit(1)")
    assert python.run("base").value == "40"


def test_code_that_ends_a_shared_interpreter_takes_it_from_nobody(context: Context) -> None:
    python = context.acquire_resource_sync(PythonSpec(), scope="global")
    python.run("import os; os._exit(1)")
    assert python.check()
    assert python.run("1").fresh


def test_a_setup_that_fails_is_told(context: Context) -> None:
    with pytest.raises(ConfigError, match="ZeroDivisionError"):
        context.acquire_resource_sync(PythonSpec(setup="1 / 0"))


def test_reset_forgets_everything(context: Context) -> None:
    python = context.acquire_resource_sync(PythonSpec())
    python.run("import builtins; builtins.len = lambda x: 7; secret = 1")
    assert python.reset()
    assert python.run("len(''), 'secret' in globals()").value == "(0, False)"


async def test_the_async_form(context: Context) -> None:
    python = await context.acquire_resource(PythonSpec())
    assert (await python.run_async("6 * 7")).value == "42"


def test_a_session_outlives_the_thread_that_acquired_it(context: Context, engine: Any) -> None:
    found: list[Any] = []
    spec = PythonSpec(engine=engine)
    thread = threading.Thread(target=lambda: found.append(context.acquire_resource_sync(spec)))
    thread.start()
    thread.join()
    assert found[0].run("1").value == "1"


def test_one_that_was_given_back_says_so() -> None:
    with Resources() as resources, Context(resources=resources) as context:
        python = context.acquire_resource_sync(PythonSpec())
    with pytest.raises(Released, match="released"):
        python.run("1")


# Databases.

DUMP = "create table t(n, s); insert into t values (1, 'a'), (2, 'b');"


@pytest.fixture
def database(context: Context) -> Any:
    return context.acquire_resource_sync(SqliteSpec(dump=DUMP, memory_mib=256))


def test_statements_and_the_state_that_they_leave(database: Any) -> None:
    assert database.query("select s from t where n = ?", [2]).rows == (("b",),)
    assert database.query("update t set s = ? where n = 1", [b"\0\xff"]).changed == 1
    assert database.state() == {"t": ((1, b"\0\xff"), (2, "b"))}
    assert database.reset()
    assert database.state() == {"t": ((1, "a"), (2, "b"))}


def test_the_order_of_rows_is_no_state(database: Any) -> None:
    before = database.state()
    assert database.script("delete from t; insert into t values (2, 'b'), (1, 'a');") == ""
    assert database.state() == before


def test_what_is_not_committed_is_no_state(database: Any) -> None:
    before = database.state()
    assert database.query("begin").error == ""
    assert database.query("delete from t").changed == 2
    assert database.state() == before


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("selec 1", "syntax error"),
        ("select * from nowhere", "no such table"),
        ("select 1; select 2", "one statement"),
        ("select load_extension('x')", "not authorized"),
        ("select zeroblob(2000000000)", ""),
        ("select '\0'", ""),
        ("with recursive c(x) as (select 1 union all select x + 1 from c) select count(*) from c",
         "interrupted"),
    ],
)  # fmt: skip
def test_statements_that_fail_harm_nothing(database: Any, sql: str, told: str) -> None:
    found = database.query(sql, seconds=0.5)
    assert told in found.error
    assert found.error or found.rows
    assert not found.lost
    assert database.state() == {"t": ((1, "a"), (2, "b"))}


def test_files_of_the_host_cannot_be_reached(database: Any, tmp_path: Path) -> None:
    path = tmp_path / "planted.db"
    database.query(f"attach '{path}' as other")
    database.query("create table other.x(n)")
    assert not path.exists()
    assert (
        database.query("attach '/etc/passwd' as p").error
        or database.query("select * from p.sqlite_master").error
    )


def test_rows_are_limited(database: Any) -> None:
    many = (
        "with recursive c(x) as (select 1 union all select x + 1 from c limit 50) select x from c"
    )
    found = database.query(many, rows=10)
    assert (len(found.rows), found.cut) == (10, True)


MOST = "guerdon.resources.inside.channel.MAX_BYTES"
SMALL = 1 << 20
"""Longest message that this process sends in a test; the sandboxed side keeps its own limit."""

ENDLESS = (
    "insert into t with recursive c(x) as (select 1 union all select x from c) select x from c"
)


@pytest.mark.parametrize(
    ("dump", "told"),
    [
        ("create tabel t", "syntax error"),
        ("begin; create table t(n);", "its COMMIT is missing"),
        ("select load_extension('/tmp/x.so')", "not authorized"),
        ("attach '/etc/passwd' as p; create table p.t(n)", "not a database|readonly|unable to"),
        ("create table t(n); pragma recursive_triggers = on; create trigger g after insert on t "
         "begin insert into t values (new.n + 1); end; insert into t values (1)", "recursion"),
        ("create table t(n); " + ENDLESS, "interrupted"),
        (f"select '{'x' * SMALL}'", f"the most is {SMALL}"),
    ],
)  # fmt: skip
def test_a_dump_that_cannot_be_loaded(
    context: Context, monkeypatch: pytest.MonkeyPatch, dump: str, told: str
) -> None:
    monkeypatch.setattr("guerdon.resources.database.LOAD_SECONDS", 0.5)
    monkeypatch.setattr(MOST, SMALL)
    with pytest.raises(BadInput, match=f"the dump cannot be loaded: .*({told})"):
        context.acquire_resource_sync(SqliteSpec(dump=dump))


@pytest.mark.parametrize(
    "sql",
    [
        "attach 'left.db' as o; create table o.secret(n)",
        "create table main.secret(n); vacuum into 'left.db'",
        "pragma hard_heap_limit = 100000",
    ],
)
def test_what_a_rollout_did_beside_the_database_ends_with_it(sql: str) -> None:
    spec = SqliteSpec(dump=DUMP, pool=Pool(max=1))
    with Resources() as resources:
        with Context("first", resources=resources) as context:
            assert context.acquire_resource_sync(spec).script(sql) == ""
        with Context("second", resources=resources) as context:
            database = context.acquire_resource_sync(spec)
            assert database.script("attach 'left.db' as o") == ""
            assert "no such table" in database.query("select * from o.secret").error
            assert database.query("select length(zeroblob(1000000))").rows == ((1000000,),)


def test_statements_and_answers_that_are_too_long(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = context.acquire_resource_sync(SqliteSpec(dump=DUMP, memory_mib=2048))
    with monkeypatch.context() as patch:
        patch.setattr(MOST, SMALL)
        assert f"the most is {SMALL}" in database.query(f"select '{'x' * SMALL}'").error
    assert "too long" in database.query("select hex(zeroblob(34000000))", seconds=LONG).error
    assert database.query("select count(*) from t").rows == ((2,),)


@pytest.mark.parametrize("seconds", [0, -1.0, float("nan"), float("inf")])
def test_times_that_are_none(context: Context, seconds: float) -> None:
    python = context.acquire_resource_sync(PythonSpec())
    workspace = context.acquire_resource_sync(WorkspaceSpec())
    with pytest.raises(ValueError, match="above 0 and finite"):
        python.run("1", seconds)
    with pytest.raises(ValueError, match="wall_seconds must be"):
        workspace.run(("true",), seconds=seconds)
    assert python.run("1").value == "1"


# Workspaces.


@pytest.fixture
def workspace(context: Context, engine: Any) -> Any:
    files = {"a.txt": b"one\n", "deep/er/b": b"\0\xff"}
    return context.acquire_resource_sync(WorkspaceSpec(files=files, engine=engine))


def test_commands_see_and_leave_files(workspace: Any) -> None:
    done = workspace.run(("sh", "-c", "cat a.txt - > c; rm -r deep; mkdir empty; echo out"), b"in")
    assert (done.status, done.stdout) == (Status.OK, b"out\n")
    assert workspace.files() == {"a.txt": b"one\n", "c": b"one\nin"}
    script = "printf '#!/bin/sh\\necho ran\\n' > s; install -m 755 s run || true; ls"
    assert workspace.run(("sh", "-c", script)).exit_code == 0
    workspace.write("größe.txt", b"x")
    assert "größe.txt" in workspace.run(("ls",)).text
    assert workspace.reset()
    assert workspace.files() == {"a.txt": b"one\n", "deep/er/b": b"\0\xff"}


@pytest.mark.parametrize(
    ("script", "status"),
    [
        ("exit 3", Status.NONZERO),
        ("kill -9 $$", Status.SIGNALLED),
        ("kill -9 -1; sleep 0.1", None),
        ("rm a.txt; sleep 60", Status.TIMEOUT),
        ("rm a.txt; yes", Status.OUTPUT),
        ("rm a.txt; head -c 80000000 /dev/zero > big", None),
        ("ln -s /etc/passwd link; ln -s . loop; mkfifo pipe", None),
        ("sleep 60 &", Status.OK),
    ],
)
def test_commands_that_misbehave(workspace: Any, script: str, status: Status | None) -> None:
    done = workspace.run(("sh", "-c", script), seconds=1.0)
    assert (
        status is None
        or done.status is status
        or (status is Status.SIGNALLED and workspace._spec.engine == "landlock")
    )
    assert set(workspace.files()) <= {"a.txt", "deep/er/b", "big"}
    assert "a.txt" in workspace.files() or "big" in workspace.files()
    assert workspace.run(("cat", "deep/er/b")).stdout == b"\0\xff"


async def test_a_cancelled_command_does_not_reach_the_next_rollout() -> None:
    spec = WorkspaceSpec(pool=Pool(max=1))
    with Resources() as resources:
        async with Context("first", resources=resources) as context:
            workspace = await context.acquire_resource(spec)
            task = asyncio.create_task(workspace.run_async(("sh", "-c", "sleep 0.5; echo > late")))
            await asyncio.sleep(0.1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        async with Context("second", resources=resources) as context:
            assert (await context.acquire_resource(spec)).files() == {}


def test_a_command_that_is_ended_changes_nothing(workspace: Any) -> None:
    workspace.run(("sh", "-c", "rm a.txt; sleep 60"), seconds=0.5)
    assert "a.txt" in workspace.files()


@pytest.mark.parametrize("name", ["../x", "/x", "", "a\0b", "x" * 300])
def test_names_that_leave_the_folder(workspace: Any, name: str) -> None:
    with pytest.raises(ValueError, match="file name"):
        workspace.write(name, b"")
    with pytest.raises(ConfigError, match="file name"):
        WorkspaceSpec(files={name: b""})


def test_a_program_that_is_not_there(workspace: Any) -> None:
    done = workspace.run(("no-such-program",))
    assert (done.status, done.exit_code) == (Status.NONZERO, 127)


# Folders.


def test_a_folder_is_emptied_and_removed(context: Context, tmp_path: Path) -> None:
    folder = context.acquire_resource_sync(FolderSpec(parent=str(tmp_path)))
    folder.file("x").write_text("1")
    first = folder.path
    assert folder.reset()
    assert not first.exists()
    assert list(folder.path.iterdir()) == []
    with pytest.raises(ValueError, match="leaves its folder"):
        folder.file("../x")
    context.end_resource(folder)
    until(lambda: list(tmp_path.iterdir()) == [])


def test_folders_of_processes_that_ended_here_are_removed_and_no_others(
    context: Context, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import os; from guerdon.resources import folder; "
         "print(folder._self()); os._exit(0)"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    place, pid, started = done.split("-")
    kept = [
        f"otherboot-{pid}-{started}-x",  # of another machine, or a container
        f"{place}-{os.getpid()}-{folder._started(os.getpid())}-x",
        f"{place}-{pid}--x",
        f"-{pid}-{started}-x",
        "x",
        "",
    ]
    for owner in (f"{done}-x", f"{place}-{os.getpid()}-1-x", *kept):
        (tmp_path / f"guerdon-folder-{owner}").mkdir()
    (tmp_path / f"other-{done}").mkdir()
    made = context.acquire_resource_sync(FolderSpec(parent=str(tmp_path))).path
    left = {f"guerdon-folder-{owner}" for owner in kept} | {f"other-{done}", made.name}
    assert {path.name for path in tmp_path.iterdir()} == left


# Servers.

SERVER = """
import http.server, os, subprocess, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()
        self.wfile.write(str(os.getpid()).encode())
    log_message = lambda *a: None
if "child" in sys.argv:
    child = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(999)"
    subprocess.Popen([sys.executable, "-c", child], start_new_session=True)
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def server_spec(*more: str, **options: Any) -> ServerSpec:
    argv = (sys.executable, "-c", SERVER, "{port}", *more)
    return ServerSpec(argv=argv, **{"stop_seconds": 0.3, **options})


def test_a_server_is_ready_when_it_is_handed_out(context: Context) -> None:
    server = context.acquire_resource_sync(server_spec(), scope="global")
    with urllib.request.urlopen(f"{server.url}/health", timeout=LONG) as answer:
        assert answer.status == 200
    assert server.check()


def test_agentfly_the_whole_process_tree_ends(context: Context) -> None:
    server = context.acquire_resource_sync(server_spec("child"))
    tree = [
        p for p in psutil.Process().children(recursive=True) if "time.sleep(999)" in p.cmdline()[-1]
    ]
    assert tree
    context.end_resource(server)
    _, alive = psutil.wait_procs(tree, LONG)
    assert alive == []


@pytest.mark.parametrize(
    ("argv", "options", "told"),
    [
        (("-c", "raise SystemExit('no {port} model')"), {}, "it said: no .* model"),
        (("-c", "import time; print('loading', flush=True); time.sleep(60) # {port}"),
         {"start_seconds": 0.7}, "not ready within 0.7 s.*it said: loading"),
    ],
)  # fmt: skip
def test_a_server_that_does_not_start(
    context: Context, argv: tuple[str, ...], options: dict[str, Any], told: str
) -> None:
    spec = ServerSpec(argv=(sys.executable, *argv), stop_seconds=0.1, **options)
    with pytest.raises(Unavailable, match=told):
        context.acquire_resource_sync(spec)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"argv": ()}, "no program"),
        ({"argv": ("x",)}, "{port}"),
        ({"argv": ("x", "{port}"), "ready_path": "health"}, "ready_path"),
    ],
)
def test_servers_that_cannot_be(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        ServerSpec(**options)


def test_a_program_of_a_server_that_is_not_there(context: Context) -> None:
    with pytest.raises(ConfigError, match="no-such-server"):
        context.acquire_resource_sync(ServerSpec(argv=("no-such-server", "{port}")))


# The end of the process.

OWNER = f"""
import os, sys, time
from guerdon.resources import *
context = Context("main")
context.acquire_resource_sync(PythonSpec())
context.acquire_resource_sync(FolderSpec(parent=sys.argv[1]))
context.acquire_resource_sync(
    ServerSpec(argv=(sys.executable, "-c", {SERVER!r}, "{{port}}", "child"), stop_seconds=0.3)
)
print("ready", flush=True)
how = sys.stdin.readline().strip()
if how == "exit":
    sys.exit(0)
if how == "raise":
    raise ValueError("the trainer is broken")
os._exit(0)
"""


class Owner:
    """A process that holds one resource of each kind."""

    def __init__(self, how: str, folder: Path) -> None:
        self.how = how
        self.folder = folder / how
        self.folder.mkdir()
        self.process = subprocess.Popen(
            [sys.executable, "-c", OWNER, str(self.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def end(self) -> list[psutil.Process]:
        """End it in its way; gives what it had started."""
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"
        tree = psutil.Process(self.process.pid).children(recursive=True)
        signals = {"kill -9": signal.SIGKILL, "SIGTERM": signal.SIGTERM}
        if self.how in signals:
            self.process.send_signal(signals[self.how])
        _, self.said = self.process.communicate(
            None if self.how in signals else f"{self.how}\n", timeout=LONG
        )
        return tree


def test_nothing_survives_the_process(tmp_path: Path) -> None:
    ways = ("exit", "raise", "os._exit", "kill -9", "SIGTERM")
    owners = [Owner(how, tmp_path) for how in ways]  # side by side, as starting takes long
    for owner in owners:
        tree = owner.end()
        assert len(tree) >= 4, owner.how
        _, alive = psutil.wait_procs(tree, LONG)
        assert alive == [], owner.how
        if owner.how in ("exit", "raise"):
            assert os.listdir(owner.folder) == []
            assert "still held at shutdown" in owner.said
            assert "held by rollout 'main'" in owner.said
