"""Whose fault it is that a program was not tested: its own, the data's, or the machine's."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from guerdon.errors import BadInput, Unavailable
from guerdon.resources.sandbox import Running, Sandbox, tree
from guerdon.resources.sandbox.tree import Threads
from guerdon.resources.sandbox.waiting import Waiting
from guerdon.rules.code import testing
from guerdon.rules.code.frames import Clock
from guerdon.rules.code.python_reward import CodePython
from guerdon.rules.code.stdio_reward import CodeStdio

pytestmark = pytest.mark.usefixtures("any_sandbox")

SHORT = {"case_seconds": 1.0, "program_seconds": 2.0}
HOGS = 8
"""With so many others, who shares a processor with them gets a ninth of it."""


def scored(code: str, truth: Any, **options: Any) -> dict[str, Any]:
    reward = CodePython(**{**SHORT, **options})
    return reward.call_sync(response=f"```python\n{code}\n```", ground_truth=truth)


@contextlib.contextmanager
def crowd(processor: int) -> Iterator[None]:
    """Others that burn one processor, each in a session of its own."""
    source = f"import os\nos.sched_setaffinity(0, [{processor}])\nwhile True: pass"
    argv = [sys.executable, "-I", "-S", "-c", source]
    burning = [subprocess.Popen(argv, start_new_session=True) for _ in range(HOGS)]
    try:
        yield
    finally:
        for process in burning:
            process.kill()
            process.wait()


def starve(monkeypatch: pytest.MonkeyPatch, modules: tuple[str, ...], processor: int) -> None:
    """Let a sandbox with these modules run on one processor only."""
    start = testing.start_inside

    def pinned(budget: Any, started: tuple[str, ...], *rest: Any, **options: Any) -> Running:
        mine = os.sched_getaffinity(0)
        if started == modules:
            os.sched_setaffinity(0, [processor])
        try:
            return start(budget, started, *rest, **options)
        finally:
            os.sched_setaffinity(0, mine)

    monkeypatch.setattr(testing, "start_inside", pinned)


BUSY = "sum(i * i for i in range(4_000_000))"
"""Takes much less than half of the time that there is, and more of it where nine share."""


@pytest.mark.parametrize("modules", [testing.TESTING, testing.ANSWERING], ids=["tests", "program"])
def test_who_waits_for_a_processor_is_not_too_slow(
    modules: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An honest program never gets a 0 because others keep it, or its tests, from running."""
    processor = min(os.sched_getaffinity(0))
    starve(monkeypatch, modules, processor)
    code = f"def f(x):\n    {BUSY}\n    return x"
    test = f"def check(candidate):\n    assert candidate(1) + {BUSY} == 1 + {BUSY}"
    with crowd(processor), contextlib.suppress(Unavailable):
        result = scored(code, {"test": test, "entry_point": "f"}, case_seconds=2.0)
        assert result["score"] == 1.0, result


@pytest.mark.parametrize(
    ("looks", "waited"),
    [
        # they take turns
        ([(1.0, (1, 0), (0.75, 0.0)), (2.0, (0, 1), (0.75, 0.5))], 1.25),
        # both at the same moment: each may have made the other wait
        ([(1.0, (1, 1), (0.75, 0.5)), (2.0, (1, 1), (1.5, 1.0))], 0.0),
        ([(1.0, (0, 2), (0.0, 0.75)), (2.0, (0, 2), (0.0, 1.5))], 0.0),
        # never longer than there was time
        ([(1.0, (0, 1), (0.75, 0.75))], 1.0),
    ],
)
def test_waiting_of_two_sandboxes(
    looks: list[Any], waited: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = Waiting(1, 0.0)
    waiting.join(2)
    for now, wanting, times in looks:
        found = {pid: Threads(wanting[pid - 1], {pid: times[pid - 1]}) for pid in (1, 2)}
        monkeypatch.setattr(tree, "threads", found.__getitem__)
        waiting.look(now)
    assert waiting.since(0.0) == waited


def test_a_program_that_crowds_the_machine_is_too_slow() -> None:
    """It must not be able to make its tests wait, and so hide that it is wrong."""
    code = """
import os, threading
def burn():
    while True: pass
for _ in range(12):
    if os.fork() == 0: burn()
def f(x):
    return [0] * 2_000_000
"""
    test = "def check(candidate):\n    for i in range(1000):\n        assert 1 not in candidate(i)"
    result = scored(code, {"test": test, "entry_point": "f"}, case_seconds=0.5)
    assert result["score"] == 0.0
    assert result["info"]["status"] in ("timeout", "wrong"), result


LITERAL = "def check(candidate):\n    assert candidate(1) == 1"
COMPUTED = "def check(candidate):\n    assert abs(candidate(1)) == 1"


@pytest.mark.parametrize("test", [LITERAL, COMPUTED], ids=["literal", "computed"])
@pytest.mark.parametrize(
    "prompt",
    ["import os\nwhile True: pass", "import os\nos._exit(0)", "import os\nos.kill(os.getpid(), 9)",
     "import no_such_module", "import os\nraise SystemExit", "import os\nx = [0] * 10**12"],
)  # fmt: skip
def test_a_prompt_that_does_not_run_is_the_fault_of_the_data(prompt: str, test: str) -> None:
    truth = {"prompt": prompt, "test": test, "entry_point": "f"}
    with pytest.raises(BadInput, match=r"do(es)? not run"):
        scored("def f(x): return x", truth, case_seconds=0.3, program_seconds=0.3)


@pytest.mark.parametrize(
    "setup", ["while True: pass", "import os\nos._exit(0)", "x = 'a' * 10**12", "raise SystemExit"]
)
def test_a_set_up_that_does_not_run_is_the_fault_of_the_data(setup: str) -> None:
    truth = {"test_setup_code": setup, "test_list": ["assert abs(f(1)) == 1"]}
    with pytest.raises(BadInput, match="the tests do not run"):
        scored("def f(x): return x", truth, case_seconds=0.3, program_seconds=0.3)


def test_a_sandbox_that_fails_while_the_prompt_runs_is_not_the_fault_of_the_data(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start = Sandbox.start

    def broken(self: Sandbox, command: Any, limits: Any = None) -> Running:
        running = start(self, command, limits)
        running.kill(testing.Status.SANDBOX_FAILED, "the disk is full")
        return running

    monkeypatch.setattr(Sandbox, "start", broken)
    for test in (LITERAL, COMPUTED):
        with pytest.raises(Unavailable, match="the disk is full"):
            scored("def f(x): return x", {"test": test, "entry_point": "f"})


def test_an_answer_that_is_there_counts_however_late_it_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Other threads of this process may keep it from reading for longer than a case may take."""
    begin = Clock.begin

    def blocked(self: Clock) -> None:
        begin(self)
        until = self.until
        while time.monotonic() < until:
            time.sleep(0.05)

    monkeypatch.setattr(Clock, "begin", blocked)
    literal, computed = ({"test": test, "entry_point": "f"} for test in (LITERAL, COMPUTED))
    options = {"case_seconds": 0.15, "program_seconds": 60.0}
    assert scored("def f(x): return x", computed, **options)["score"] == 1.0
    reward = CodeStdio(**options)
    cases = {"inputs": ["1", "2"], "outputs": ["1", "2"]}
    response = "```python\nprint(input())\n```"
    assert reward.call_sync(response=response, ground_truth=cases)["score"] == 1.0
    monkeypatch.setattr(Clock, "begin", begin)
    tick = Running.tick

    def slow(self: Running) -> bool:
        time.sleep(0.2)
        return tick(self)

    monkeypatch.setattr(Running, "tick", slow)
    assert scored("def f(x): return x", literal, **options)["score"] == 1.0
