"""Calls that somebody breaks off: nothing of them reaches the next call or the next rollout."""

from __future__ import annotations

import asyncio
import select
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from engines import working

from guerdon.errors import BadInput
from guerdon.resources import (
    Context,
    Pool,
    Program,
    PythonSpec,
    Released,
    Resources,
    SandboxFusionSpec,
    Spec,
    SqliteSpec,
    WorkspaceSpec,
)
from guerdon.resources.sandboxes import sandbox_of
from guerdon.resources.session import Session

LONG = 20.0
HOUR = 3600.0
ONE = Pool(max=1)
ENDLESS = "with recursive c(x) as (select 1 union all select 1 from c) select count(*) from c"


@pytest.fixture(scope="module", autouse=True)
def _a_sandbox() -> None:
    working(sandbox_of("auto"), "auto")


@pytest.fixture
def context() -> Iterator[Context]:
    with Resources() as resources, Context("test", resources=resources) as made:
        yield made


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server that takes every question and answers none."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def until(condition: Callable[[], Any]) -> None:
    pause = threading.Event()
    for _ in range(int(LONG / 0.01)):
        if condition():
            return
        pause.wait(0.01)
    raise AssertionError("it did not happen")


# The rollout ends.

CALLS: dict[str, tuple[Spec[Any], Callable[[Any], Any], Callable[[Any], Any], Any]] = {
    "python": (
        PythonSpec(pool=ONE),
        lambda python: python.run("secret = 1\nwhile True: pass", HOUR / 2),
        lambda python: python.run("'secret' in globals()").value,
        "False",
    ),
    "database": (
        SqliteSpec(dump="create table t(n)", pool=ONE),
        lambda database: database.query(ENDLESS, seconds=HOUR / 2),
        lambda database: database.state(),
        {"t": ()},
    ),
    "workspace": (
        WorkspaceSpec(files={"a": b"1"}, pool=ONE),
        lambda workspace: workspace.run(("sh", "-c", "rm a; sleep 600"), seconds=HOUR / 2),
        lambda workspace: (
            workspace.files(),
            workspace.run(("sh", "-c", "sleep 0.3; cat a")).stdout,
        ),
        ({"a": b"1"}, b"1"),
    ),
}
"""Of each kind: a call without end, what the next rollout asks, and what it must find."""


@pytest.mark.parametrize("kind", CALLS)
def test_a_call_that_goes_on_is_interrupted(kind: str) -> None:
    spec, endless, ask, found = CALLS[kind]
    with Resources() as resources, ThreadPoolExecutor(1) as threads:
        with Context("r1", resources=resources) as context:
            call = threads.submit(endless, context.acquire_resource_sync(spec))
            until(call.running)
        with pytest.raises(Released, match="rollout 'r1'"):
            call.result(LONG)
        with Context("r2", resources=resources) as context:
            assert ask(context.acquire_resource_sync(spec, timeout=LONG)) == found


def test_an_answer_of_a_server_is_waited_for_no_more(silent: str) -> None:
    spec = SandboxFusionSpec(url=silent, grace_seconds=HOUR, pool=ONE)
    with Resources() as resources, ThreadPoolExecutor(1) as threads:
        with Context("r1", resources=resources) as context:
            fusion = context.acquire_resource_sync(spec)
            call = threads.submit(fusion.run, Program(code="x"))
            until(lambda: fusion._asking)
        with pytest.raises(Released, match="rollout 'r1'"):
            call.result(LONG)
        with Context("r2", resources=resources) as context:
            fusion = context.acquire_resource_sync(spec, timeout=LONG)
            assert not fusion._interrupted.is_set()


async def test_a_cancelled_command_ends_alone(context: Context) -> None:
    workspace = await context.acquire_resource(WorkspaceSpec(files={"a": b"1"}))
    endless = workspace.run_async(("sh", "-c", "rm a; sleep 600"), seconds=HOUR)
    task = asyncio.create_task(endless)
    while not workspace._lock.locked():  # noqa: ASYNC110 - it is taken on another thread
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await workspace.run_async(("cat", "a"))).stdout == b"1"


# The thread that asks is interrupted.


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], None]:
    """Makes a call during which Control-C is pressed, when the question has been sent."""

    def wait(self: Session, began: float, seconds: float, event: int) -> None:
        if event == select.POLLIN:
            raise KeyboardInterrupt
        true(self, began, seconds, event)

    true = Session._wait

    def call(ask: Callable[[], Any]) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Session, "_wait", wait)
            with pytest.raises(KeyboardInterrupt):
                ask()

    return call


def test_an_interpreters_late_answer_is_nobodys(context: Context, interrupted: Any) -> None:
    python = context.acquire_resource_sync(PythonSpec(setup="base = 40"))
    interrupted(lambda: python.run("'the first'"))
    done = python.run("base + 2")
    assert (done.value, done.fresh) == ("42", True)
    assert not python.run("1").fresh


def test_a_databases_late_answer_is_nobodys(context: Context, interrupted: Any) -> None:
    database = context.acquire_resource_sync(SqliteSpec(dump="create table t(n)"))
    interrupted(lambda: database.query("select 'the first'"))
    assert database.check()
    assert database.query("select 2").rows == ((2,),)
    assert database.state() == {"t": ()}


# What begins again fails half-way.


def failing_once(monkeypatch: pytest.MonkeyPatch, key: str, reply: dict[str, Any]) -> None:
    """The next question with a key gets another answer, as on a machine that is too slow."""
    true = Session.ask
    left = [reply]

    def ask(self: Session, question: dict[str, Any], seconds: float) -> dict[str, Any]:
        if key in (question.get("what"), question.get("code")) and left:
            return left.pop()
        return true(self, question, seconds)

    monkeypatch.setattr(Session, "ask", ask)


def test_half_of_a_dump_is_no_database(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    dump = "create table t(n); insert into t values (1)"
    database = context.acquire_resource_sync(SqliteSpec(dump=dump))
    database._session.close()  # type: ignore[union-attr]
    failing_once(monkeypatch, "load", {"error": "interrupted"})
    with pytest.raises(BadInput, match="the dump cannot be loaded: interrupted"):
        database.query("select count(*) from t")
    assert database.query("select count(*) from t").rows == ((1,),)


def test_half_of_a_setup_is_no_interpreter(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = context.acquire_resource_sync(PythonSpec(setup="base = 40"))
    python.run("import os; os._exit(1)")
    failing_once(monkeypatch, "base = 40", {"error": "too slow"})
    with pytest.raises(Exception, match="its setup fails: too slow"):
        python.run("base")
    assert python.run("base").value == "40"
