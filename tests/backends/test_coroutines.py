"""Async rewards: on loops of their own, bounded, cancelled in time, and never a hang."""

import asyncio
import contextlib
import gc
import logging
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from guerdon.backends import coroutines
from guerdon.backends.backend import Calls, Limits, Results
from guerdon.backends.coroutines import Coroutines
from guerdon.outcome import Failure, Score
from guerdon.reward import BaseReward, FunctionReward

LONG = 1000.0
"""A deadline that no real second of a test reaches."""
PATIENCE = 30.0
"""How long a test waits for what must come."""


def made(function: Callable[..., Any], **settings: Any) -> FunctionReward:
    return FunctionReward(function, **settings)


@pytest.fixture(name="runner")
def _runner() -> Iterator[Coroutines]:
    runner = Coroutines()
    yield runner
    runner.close()


class Clock:
    """A clock that jumps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ahead = 0.0
        real = coroutines.time.monotonic
        perf = coroutines.time.perf_counter

        class Time:
            monotonic = staticmethod(lambda: real() + self.ahead)
            perf_counter = staticmethod(perf)

        monkeypatch.setattr(coroutines, "time", Time)
        monkeypatch.setattr(coroutines._Loop, "_patience", lambda *_: 0.005)


@pytest.fixture(name="clock")
def _clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


class Background:
    """A run in a thread."""

    def __init__(
        self, runner: Coroutines, reward: BaseReward, calls: Calls, limits: Limits | None = None
    ) -> None:
        self.results: Results | None = None
        self.limits = limits or Limits()
        self._thread = threading.Thread(
            target=lambda: self._keep(runner.run(reward, calls, self.limits)), daemon=True
        )
        self._thread.start()

    def _keep(self, results: Results) -> None:
        self.results = results

    def kinds(self) -> list[Any]:
        self._thread.join(PATIENCE)
        assert self.results is not None, "the run never ended"
        return kinds(self.results)


def kinds(results: Results) -> list[Any]:
    assert len(results.sealed) == len(results.elapsed)
    return [
        str(s.kind) if isinstance(s, Failure) else getattr(s, "value", s) for s in results.sealed
    ]


def calls(*values: Any) -> Calls:
    return Calls([{"x": value} for value in values])


def test_results_keep_the_order_of_the_calls(runner: Coroutines) -> None:
    async def reverse(x: int) -> float:
        for _ in range(10 - x):
            await asyncio.sleep(0)
        return float(x)

    assert kinds(runner.run(made(reverse), calls(*range(10)), Limits())) == [*map(float, range(10))]


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (ValueError("v"), "raised"),
        (SystemExit(3), "raised"),
        (KeyboardInterrupt(), "raised"),
        (GeneratorExit(), "raised"),
        (asyncio.CancelledError(), "raised"),
        (StopIteration(), "raised"),
        (TimeoutError("judge"), "unavailable"),
        (ConnectionError("judge"), "unavailable"),
        (MemoryError(), "crashed"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_one_call_raises_costs_its_neighbours_nothing(
    runner: Coroutines, raised: BaseException, kind: str
) -> None:
    async def sometimes(x: int) -> float:
        await asyncio.sleep(0)
        if x == 1:
            raise raised
        return float(x)

    reward = made(sometimes, deadline=LONG)
    for _ in range(2):  # the loop lives on
        assert kinds(runner.run(reward, calls(0, 1, 2), Limits())) == [0.0, kind, 2.0]


def test_a_task_of_a_reward_that_exits_ends_only_itself(runner: Coroutines) -> None:
    async def starts(x: int) -> float:
        async def leave() -> None:
            raise SystemExit(3)

        task = asyncio.ensure_future(leave())
        await asyncio.wait({task})
        return 1.0 if isinstance(task.exception(), SystemExit) else 0.0

    assert kinds(runner.run(made(starts), calls(0, 1), Limits())) == [1.0, 1.0]


def test_a_callback_that_exits_does_not_end_the_loop(runner: Coroutines) -> None:
    def leave() -> None:
        raise KeyboardInterrupt

    async def starts(x: int) -> float:
        asyncio.get_running_loop().call_soon(leave)
        await asyncio.sleep(0)
        return 1.0

    assert kinds(runner.run(made(starts), calls(0, 1), Limits())) == [1.0, 1.0]


def test_a_call_that_awaits_too_long_is_a_timeout_of_the_scorer(runner: Coroutines) -> None:
    async def forever(x: int) -> float:
        await asyncio.Event().wait()
        return 0.0

    results = runner.run(made(forever, deadline=0.01), calls(0, 1), Limits())
    assert kinds(results) == ["timeout", "timeout"]
    lost = results.sealed[0]
    assert isinstance(lost, Failure)
    assert str(lost.blame) == "scorer"
    assert not lost.retryable


def test_a_call_that_swallows_its_cancellation_is_left_behind(runner: Coroutines) -> None:
    ended = threading.Event()

    async def stubborn(x: int) -> float:
        for _ in range(3):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if ended.is_set():
                    break
        return 0.0

    reward = made(stubborn, deadline=0.01, concurrency=1)
    assert kinds(runner.run(reward, calls(0, 1, 2), Limits())) == ["timeout"] * 3
    ended.set()


class Blocker:
    """Blocks a loop until it is let go."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.release = threading.Event()

    def block(self) -> None:
        self._clock.ahead += 10 * LONG
        assert self.release.wait(PATIENCE)


@pytest.fixture(name="blocker")
def _blocker(clock: Clock) -> Iterator[Blocker]:
    blocker = Blocker(clock)
    yield blocker
    blocker.release.set()


def direct(blocker: Blocker) -> Callable[..., Any]:
    async def reward(x: int) -> float:
        if x == 1:
            blocker.block()
        return float(x)

    return reward


def in_a_task(blocker: Blocker) -> Callable[..., Any]:
    async def part() -> None:
        async def deeper() -> None:
            blocker.block()

        await asyncio.gather(deeper(), asyncio.sleep(0))

    async def reward(x: int) -> float:
        if x == 1:
            await asyncio.gather(part())
        return float(x)

    return reward


@pytest.mark.parametrize("make", [direct, in_a_task])
@pytest.mark.parametrize("concurrency", [1, 3])
def test_a_call_that_blocks_its_loop_fails_alone(
    runner: Coroutines,
    blocker: Blocker,
    make: Callable[[Blocker], Callable[..., Any]],
    concurrency: int,
) -> None:
    reward = made(make(blocker), deadline=LONG, concurrency=concurrency)
    assert kinds(runner.run(reward, calls(0, 1, 2, 3), Limits())) == [0.0, "timeout", 2.0, 3.0]


def test_a_callback_that_blocks_costs_what_was_in_flight_and_ends(
    runner: Coroutines, blocker: Blocker
) -> None:
    async def reward(x: int) -> float:
        if x == 0:
            asyncio.get_running_loop().call_soon(blocker.block)
            await asyncio.Event().wait()
        return float(x)

    found = kinds(runner.run(made(reward, deadline=LONG, concurrency=1), calls(0, 1), Limits()))
    assert found == ["timeout", 1.0]


def test_another_run_of_the_reward_starts_again(runner: Coroutines, blocker: Blocker) -> None:
    waiting = threading.Event()
    go: list[asyncio.Event] = []

    async def reward(x: str) -> float:
        if x == "innocent" and not blocker.release.is_set() and not go:
            go.append(asyncio.Event())
            waiting.set()
            await go[0].wait()  # for ever, on the loop that is given up
        if x == "guilty":
            blocker.block()
        return 1.0

    shared = made(reward, deadline=LONG)
    innocent = Background(runner, shared, calls("innocent"))
    assert waiting.wait(PATIENCE)
    guilty = Background(runner, shared, calls("guilty"))
    assert guilty.kinds() == ["timeout"]
    assert innocent.kinds() == [1.0]


def test_an_innocent_whose_loop_unblocks_and_is_given_up_starts_again(
    runner: Coroutines,
) -> None:
    started = threading.Event()
    tries: list[int] = []

    async def reward(x: int) -> float:
        tries.append(x)
        if len(tries) == 1:
            started.set()
            await asyncio.Event().wait()
        return 1.0

    shared = made(reward, deadline=LONG)
    run = Background(runner, shared, calls(0))
    assert started.wait(PATIENCE)
    runner._discard(shared, runner._loops[shared])
    assert run.kinds() == [1.0]


def test_closing_cancels_what_runs_and_later_runs_start_anew(runner: Coroutines) -> None:
    started = threading.Event()
    cancelled = threading.Event()

    async def waits(x: int) -> float:
        if started.is_set():
            return 1.0
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return 0.0

    reward = made(waits, concurrency=1)
    run = Background(runner, reward, calls(0, 1))
    assert started.wait(PATIENCE)
    runner.close()
    assert run.kinds() == ["cancelled", "cancelled"]
    assert cancelled.wait(PATIENCE)
    assert kinds(runner.run(reward, calls(0), Limits())) == [1.0]


def test_a_run_that_starts_on_a_loop_that_is_closing_ends(runner: Coroutines) -> None:
    async def quick(x: int) -> float:
        return 1.0

    reward = made(quick)
    runner.run(reward, calls(0), Limits())
    loop = runner._loops[reward]
    inside, go = threading.Event(), threading.Event()

    def hold() -> None:
        inside.set()
        assert go.wait(PATIENCE)

    loop._soon(hold)
    assert inside.wait(PATIENCE)
    loop.stop()
    run = Background(runner, reward, calls(0))
    while not run.limits._callbacks:  # until the run waits for its attempt
        threading.Event().wait(0.001)
    go.set()
    assert run.kinds() == ["cancelled"]
    loop._thread.join(PATIENCE)
    assert kinds(runner.run(reward, calls(0), Limits())) == ["cancelled"]  # a closed loop


def test_a_caller_that_leaves_gets_what_is_there(runner: Coroutines) -> None:
    started = threading.Event()
    cancelled = threading.Event()

    async def mixed(x: int) -> float:
        if x < 2:
            return float(x)
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return 0.0

    run = Background(runner, made(mixed, concurrency=1), calls(0, 1, 2, 3))
    assert started.wait(PATIENCE)
    run.limits.cancel()
    assert run.kinds() == [0.0, 1.0, "cancelled", "cancelled"]
    assert cancelled.wait(PATIENCE)


def test_a_caller_whose_timeout_passes_gets_what_is_there(runner: Coroutines) -> None:
    release = threading.Event()
    done = threading.Event()

    async def mixed(x: int) -> float:
        if x < 2:
            return float(x)
        done.set()
        await asyncio.Event().wait()
        return 0.0

    class Passing(Limits):
        """Over when the test says so."""

        @property
        def remaining(self) -> float:
            return 0.0 if release.is_set() else 0.01

    run = Background(runner, made(mixed, concurrency=1), calls(0, 1, 2, 3), Passing())
    assert done.wait(PATIENCE)
    release.set()
    assert run.kinds() == [0.0, 1.0, "timeout", "timeout"]


@pytest.mark.parametrize("bound", [1, 3])
def test_concurrency_bounds_all_runs_of_a_reward_together(runner: Coroutines, bound: int) -> None:
    inside: list[int] = []
    most: list[int] = []

    async def counted(x: int) -> float:
        inside.append(x)
        most.append(len(inside))
        for _ in range(3):
            await asyncio.sleep(0)
        inside.remove(x)
        return 1.0

    reward = made(counted, concurrency=bound)
    runs = [Background(runner, reward, calls(*range(20 * n, 20 * n + 20))) for n in range(4)]
    for run in runs:
        assert run.kinds() == [1.0] * 20
    assert max(most) == bound


def test_a_batch_call_has_the_deadline_of_all_its_samples(runner: Coroutines, clock: Clock) -> None:
    release = threading.Event()

    async def batch(x: list[int]) -> list[float]:
        clock.ahead += 3 * LONG  # blocks, within what its four samples may take together
        assert not release.wait(0.2)
        return [1.0] * len(x)

    reward = made(batch, scope="batch", deadline=LONG)
    results = runner.run(reward, Calls([{"x": [1, 2, 3, 4]}], [4]), Limits())
    assert kinds(results) == [1.0] * 4


@pytest.mark.parametrize(
    ("returns", "expected"),
    [
        ([1.0, 2.0], [1.0, 2.0]),
        ([1.0], ["bad_output"] * 2),
        ([1.0, "x"], [1.0, "bad_output"]),
        (None, ["bad_output"] * 2),
    ],
)
def test_a_batch_call_gives_one_result_per_sample(
    runner: Coroutines, returns: Any, expected: list[Any]
) -> None:
    async def batch(x: list[int]) -> Any:
        return returns

    results = runner.run(made(batch, scope="batch"), Calls([{"x": [1, 2]}], [2]), Limits())
    assert kinds(results) == expected


def test_an_async_callable_object_is_async(runner: Coroutines) -> None:
    class Judge:
        async def __call__(self, x: int) -> float:
            return 1.0

    assert kinds(runner.run(made(Judge()), calls(0), Limits())) == [1.0]


def test_no_calls_give_no_results(runner: Coroutines) -> None:
    async def never(x: int) -> float:
        raise AssertionError

    assert kinds(runner.run(made(never), calls(), Limits())) == []


def threads_named(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == name]


def test_the_thread_ends_with_close_with_the_reward_and_with_the_runner() -> None:
    async def quick(x: int) -> float:
        return 1.0

    def end_by(end: Callable[[dict[str, Any]], object]) -> None:
        name = f"loop-{end.__name__}"
        space: dict[str, Any] = {"runner": Coroutines(), "reward": made(quick, name=name)}
        space["runner"].run(space["reward"], calls(0), Limits())
        (thread,) = threads_named(f"guerdon-{name}")
        end(space)
        gc.collect()
        thread.join(PATIENCE)
        assert not thread.is_alive()

    def close(space: dict[str, Any]) -> None:
        space["runner"].close()

    def reward(space: dict[str, Any]) -> None:
        del space["reward"]

    def runner(space: dict[str, Any]) -> None:
        del space["runner"]

    for end in (close, reward, runner):
        end_by(end)


def test_a_runner_does_not_keep_its_rewards_alive(runner: Coroutines) -> None:
    async def quick(x: int) -> float:
        return 1.0

    reward = made(quick)
    gone = weakref.ref(reward)
    runner.run(reward, calls(0), Limits())
    del reward
    gc.collect()
    assert gone() is None


def test_nothing_is_logged_about_pending_tasks(
    runner: Coroutines, caplog: pytest.LogCaptureFixture
) -> None:
    started = threading.Event()

    async def waits(x: int) -> float:
        started.set()
        try:
            await asyncio.gather(asyncio.Event().wait(), asyncio.Event().wait())
        finally:
            await asyncio.sleep(0)
        return 0.0

    with caplog.at_level(logging.WARNING):
        run = Background(runner, made(waits), calls(*range(50)))
        assert started.wait(PATIENCE)
        (thread,) = threads_named("guerdon-waits")
        runner.close()
        run.kinds()
        thread.join(PATIENCE)
        gc.collect()
    assert caplog.records == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_gets_loops_of_its_own(runner: Coroutines) -> None:
    async def one(response: str) -> float:
        return 1.0

    reward = made(one)
    calls = Calls([{"response": "x"}])

    def works() -> bool:
        (outcome,) = runner.run(reward, calls, Limits.within(PATIENCE)).sealed
        return isinstance(outcome, Score) and outcome.value == 1.0

    assert works()
    child = os.fork()
    if child == 0:
        status = 1
        with contextlib.suppress(BaseException):
            status = int(not works())
            runner.close()
        os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert works()
