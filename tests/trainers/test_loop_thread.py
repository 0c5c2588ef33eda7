"""Sync calls of any thread are scored on one loop, together."""

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
import weakref

import pytest

from guerdon.errors import ScoringFailed, Unavailable
from guerdon.reward import BaseReward, reward
from guerdon.trainers.loop_thread import LoopThread
from guerdon.trainers.openrlhf import StopTraining, reward_func_for


@reward(name="exact", value_range=(0.0, 1.0), auto_register=False)
def exact(response, ground_truth):
    """Raises for one response."""
    if response == "bad":
        raise ValueError("a bug in the reward")
    return response == ground_truth


def call(function, response, truth="4"):
    return function([f"2+2?{response}"], ["2+2?"], [truth])["rewards"]


@pytest.fixture
def function():
    made = reward_func_for(exact, retry_within=0)
    yield made
    made.close()


def in_threads(work, count):
    """What each of several threads gives, or raises."""
    found = [None] * count

    def run(place):
        try:
            found[place] = work(place)
        except BaseException as error:
            found[place] = error

    threads = [threading.Thread(target=run, args=(place,)) for place in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return found


def test_each_thread_gets_the_value_of_its_own_sample(function):
    def score(place):
        return [call(function, str(place + i), str(place)) for i in range(20)]

    assert in_threads(score, 16) == [[1.0] + [0.0] * 19] * 16


def test_a_failure_of_one_thread_costs_the_others_nothing(function):
    found = in_threads(lambda place: call(function, "bad" if place == 3 else "4"), 8)
    failed = found.pop(3)
    assert isinstance(failed, StopTraining)
    assert isinstance(failed.__cause__, ScoringFailed)
    assert found == [1.0] * 7


class Sizes(BaseReward):
    """Waits in its first call until the others have gathered; says how many came together."""

    name = "sizes"
    scope = "batch"
    value_range = (0.0, 100.0)
    auto_register = False

    def __init__(self, first, gathered):
        self.first, self.gathered = first, gathered

    def call(self, *, responses):
        if "first" in responses:
            self.first.set()
            assert self.gathered.wait(60)
        return [float(len(responses))] * len(responses)


def test_calls_of_several_threads_are_one_batch(monkeypatch):
    from guerdon.trainers import micro_batch

    monkeypatch.setattr(micro_batch, "PATIENCE", 3600.0)  # they gather until the first is done
    first, gathered = threading.Event(), threading.Event()
    function = reward_func_for(Sizes(first, gathered))
    join, joined = micro_batch._Line.join, []

    def counted(self, sample):
        joined.append(sample)
        if len(joined) == 9:
            gathered.set()
        return join(self, sample)

    monkeypatch.setattr(micro_batch._Line, "join", counted)

    def score(place):
        if place:
            assert first.wait(60)
        return call(function, "more" if place else "first")

    assert in_threads(score, 9) == [1.0] + [8.0] * 8
    function.close()


def test_it_is_served_where_a_loop_runs_and_from_loop_after_loop(function):
    async def blocking():
        return call(function, "4")

    assert [asyncio.run(blocking()) for _ in range(3)] == [1.0] * 3
    assert call(function, "5") == 0.0


def test_a_reward_may_call_one_and_so_may_the_loop_itself(function):
    @reward(name="outer", value_range=(0.0, 1.0), auto_register=False)
    def outer(response, ground_truth):
        return call(function, response, ground_truth)

    nested = reward_func_for(outer)
    assert call(nested, "4") == 1.0
    nested.close()

    loop = LoopThread()

    async def inner():
        return 4

    async def on_the_loop():
        return loop.run(inner)

    assert loop.run(on_the_loop) == 4
    loop.stop()


def test_stopping_ends_the_thread_and_the_calls_that_wait():
    loop, waits, cancelled = LoopThread(), threading.Event(), []

    async def endless():
        waits.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    def stop(place):
        if place == 0:
            return loop.run(endless)
        assert waits.wait(60)
        return loop.stop()

    ended, _ = in_threads(stop, 2)
    assert isinstance(ended, Unavailable)
    assert "closed while it scored" in str(ended)
    assert cancelled == [True]
    assert not loop._thread.is_alive()
    with pytest.raises(Unavailable, match="is closed"):
        loop.run(endless)
    loop.stop()  # once more does nothing


def test_a_closed_function_starts_anew_and_leaves_no_thread(function):
    assert call(function, "4") == 1.0
    threads = [function._served.loop._thread]
    function.close()
    assert call(function, "4") == 1.0
    threads.append(function._served.loop._thread)
    function.close()
    assert [thread.is_alive() for thread in threads] == [False, False]


def test_a_function_that_nobody_holds_ends_its_loop():
    function = reward_func_for(exact)
    call(function, "4")
    thread, gone = function._served.loop._thread, weakref.ref(function)
    del function
    gc.collect()
    assert gone() is None
    thread.join(60)
    assert not thread.is_alive()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_parent_and_child_of_a_fork_both_go_on(function):
    assert call(function, "4") == 1.0
    child = os.fork()
    if child == 0:
        code = 1
        try:
            good = call(function, "4") == 1.0
            function.close()
            code = int(not good)
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert call(function, "4") == 1.0
    assert in_threads(lambda _: call(function, "4"), 4) == [1.0] * 4


def test_an_interrupt_ends_the_wait_and_the_work():
    cancelled = threading.Event()

    @reward(name="endless", value_range=(0.0, 1.0), auto_register=False)
    async def endless(response):
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    function = reward_func_for(endless)
    with pytest.raises(KeyboardInterrupt):
        call(function, "4")
    assert cancelled.wait(60)
    function.close()


LEAVING = """
from guerdon.reward import reward
from guerdon.trainers.openrlhf import reward_func_for
import asyncio, sys, threading

@reward(name="exact", value_range=(0.0, 1.0), auto_register=False)
async def exact(response):
    if response == "endless":
        started.set()
        await asyncio.Event().wait()
    return 1.0

started = threading.Event()
function = reward_func_for(exact)
assert function(["?4"], ["?"], [None])["rewards"] == 1.0
call = lambda: function(["?endless"], ["?"], [None])
if "waits" in sys.argv:
    def quiet():
        try:
            call()
        except BaseException:
            pass
    threading.Thread(target=quiet, daemon=True).start()
    assert started.wait(60)
print("left")
"""


@pytest.mark.parametrize("how", ["idle", "waits"])
def test_the_interpreter_exits_with_loops_that_nobody_closed(how):
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", LEAVING, how],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (0, "left\n"), done.stderr
    assert "Traceback" not in done.stderr
    assert "Warning" not in done.stderr, done.stderr


def test_connections_of_a_remote_reward_are_kept_between_calls(remote, monkeypatch):
    from guerdon.remote import client

    made, known = [], client.Client
    monkeypatch.setattr(client, "Client", lambda *given: made.append(known(*given)) or made[-1])
    function = reward_func_for(remote("rule"))
    responses = [call(function, "#### 4") for _ in range(3)]
    function.close()
    assert responses == [1.0] * 3
    assert len(made) == 1
