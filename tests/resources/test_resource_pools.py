"""Pools: who waits for what, what is kept, and their end.

The tests named `agentfly` hold what was measured to go wrong in AgentFly's resource engine
(specs/agentfly.md 4.2 and 4.3).
"""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from resources.games import (
    LONG,
    MADE,
    ONE,
    SOON,
    Clock,
    Game,
    GameSpec,
    acquire,
    acquire_async,
    states,
    until,
)

from guerdon.errors import ConfigError, Unavailable
from guerdon.resources import Context, Pool, Resources, ServerSpec

# Waiting.


def test_agentfly_acquiring_has_a_deadline_and_says_who_holds_what(
    resources: Resources, clock: Clock
) -> None:
    spec = GameSpec(pool=ONE, name="chess")
    with Context("first", resources=resources) as holder:
        acquire(holder, spec)
        clock.now += 12.5
        second = Context("second", resources=resources)
        with second, pytest.raises(Unavailable) as caught:
            acquire(second, spec, timeout=SOON)
    told = str(caught.value)
    assert "no Game 'chess' for rollout 'second' within 0.05 s" in told
    assert "1 of at most 1 exist: held by rollout 'first' for 12.5 s" in told
    assert caught.value.retryable
    with Context("third", resources=resources) as context:
        acquire(context, spec)  # who gave up takes nothing with it


def test_two_rollouts_that_wait_for_each_other_end_at_the_deadline(resources: Resources) -> None:
    board, engine = GameSpec(pool=ONE, name="board"), GameSpec(pool=ONE, name="engine")
    both = threading.Barrier(2)
    told: list[str] = []

    def rollout(name: str, first: GameSpec, second: GameSpec) -> None:
        with Context(name, resources=resources) as context:
            context.acquire_resource_sync(first)
            both.wait(LONG)
            try:
                context.acquire_resource_sync(second, timeout=SOON)
            except Unavailable as error:
                told.append(str(error))
            both.wait(LONG)

    threads = [
        threading.Thread(target=rollout, args=("one", board, engine)),
        threading.Thread(target=rollout, args=("two", engine, board)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    one, two = sorted(told)
    assert "no Game 'board' for rollout 'two' within 0.05 s" in one
    assert "held by rollout 'one'" in one
    assert "no Game 'engine' for rollout 'one' within 0.05 s" in two
    assert "held by rollout 'two'" in two
    with Context("next", resources=resources) as context:
        for spec in (board, engine):
            context.acquire_resource_sync(spec, timeout=LONG)


@pytest.mark.parametrize("how", ["timeout", "cancelled"])
async def test_who_gave_up_is_in_nobodys_way(resources: Resources, how: str) -> None:
    spec = GameSpec(pool=ONE)
    patient = Context("patient", resources=resources)
    async with Context("holder", resources=resources) as holder:
        await holder.acquire_resource(spec)
        hasty = Context("hasty", resources=resources)
        if how == "timeout":
            with pytest.raises(Unavailable):
                await hasty.acquire_resource(spec, timeout=SOON)
        else:
            task = asyncio.create_task(hasty.acquire_resource(spec))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert resources.status()[0].waiting == 0
    async with patient, hasty:  # both are open, and only one of them wants it
        await patient.acquire_resource(spec, timeout=LONG)
        assert hasty.held == []


async def test_who_gives_up_takes_nothing_from_another_of_the_same_rollout(
    resources: Resources,
) -> None:
    spec = GameSpec(pool=ONE)
    async with Context("one", resources=resources) as one:
        async with Context("holder", resources=resources) as holder:
            await holder.acquire_resource(spec)
            task = asyncio.create_task(one.acquire_resource(spec))
            await asyncio.sleep(0)
            with pytest.raises(Unavailable):
                await one.acquire_resource(spec, timeout=SOON)
        assert await task is (await one.acquire_resource(spec))


def test_a_slow_start_is_waited_for_again_and_not_made_twice(resources: Resources) -> None:
    spec = GameSpec(hangs="start")
    first = Context("r1", resources=resources)
    with first, pytest.raises(Unavailable, match="starting for"):
        first.acquire_resource_sync(spec, timeout=SOON)
    with Context("r2", resources=resources) as context:
        request = context._ask(spec, "rollout", None).request
        MADE[0].gate.set()
        request.future.result(LONG)
    assert len(MADE) == 1


def test_event_loops_come_and_go(resources: Resources, caplog: pytest.LogCaptureFixture) -> None:
    spec = GameSpec(pool=ONE)
    holder = Context("holder", resources=resources)
    game = asyncio.run(holder.acquire_resource(spec))
    number = game.number
    waiter = Context("waiter", resources=resources)
    loop = asyncio.new_event_loop()
    task = loop.create_task(waiter.acquire_resource(spec))
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()  # nobody cancelled what waits on it
    assert asyncio.run(holder.acquire_resource(spec)) is game
    holder.close()
    assert asyncio.run(waiter.acquire_resource(spec, timeout=LONG)).number == number
    waiter.close()
    del task
    until(lambda: states(resources, spec) == ["idle"])
    assert "exception calling callback" not in caplog.text


async def test_the_async_form_has_it_too_and_leaves_the_loop_free(resources: Resources) -> None:
    spec = GameSpec(pool=ONE)
    async with Context("first", resources=resources) as holder:
        game = await acquire_async(holder, spec)
        waiting = Context("second", resources=resources)
        with pytest.raises(Unavailable, match="held by rollout 'first'"):
            await acquire_async(waiting, spec, timeout=SOON)
        task = asyncio.create_task(acquire_async(waiting, spec))
        await asyncio.sleep(0)
        assert not task.done()
    assert await task is game
    waiting.close()


def test_requests_are_served_in_their_order(resources: Resources) -> None:
    spec = GameSpec(pool=ONE)
    order: list[int] = []
    holder = Context("holder", resources=resources)
    acquire(holder, spec)
    pool = resources.pool(spec, "local")
    contexts = [Context(f"r{i}", resources=resources) for i in range(5)]
    requests = [context._ask(spec, "rollout", None).request for context in contexts]
    for number, request in enumerate(requests):
        request.future.add_done_callback(lambda _, n=number: (order.append(n), contexts[n].close()))
    holder.close()
    until(lambda: len(order) == 5)
    assert order == [0, 1, 2, 3, 4]
    assert len(MADE) == 1
    until(lambda: pool.states() == ["idle"])


def test_who_waited_longest_is_first_again_where_what_came_is_broken(resources: Resources) -> None:
    spec = GameSpec(pool=ONE)
    order: list[int] = []
    holder = Context("holder", resources=resources)
    acquire(holder, spec).healthy = False
    contexts = [Context(f"r{i}", resources=resources) for i in range(2)]
    requests = [context._ask(spec, "rollout", None).request for context in contexts]
    for number, request in enumerate(requests):
        request.future.add_done_callback(lambda _, n=number: (order.append(n), contexts[n].close()))
    holder.close()
    until(lambda: len(order) == 2)
    assert order == [0, 1]
    assert len(MADE) == 2


def test_many_threads_share_a_few(resources: Resources) -> None:
    spec = GameSpec(pool=Pool(max=3))
    used: list[int] = []
    most: list[int] = []
    lock = threading.Lock()

    def work(number: int) -> None:
        for turn in range(10):
            with Context(f"{number}.{turn}", resources=resources) as context:
                game = acquire(context, spec)
                with lock:
                    assert id(game) not in used
                    used.append(id(game))
                    most.append(len(used))
                with lock:
                    used.remove(id(game))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    assert len(most) == 120
    assert max(most) <= 3
    assert len(MADE) <= 3


# Pools.


def test_idle_ones_end_but_for_the_least(resources: Resources, clock: Clock) -> None:
    spec = GameSpec(pool=Pool(min=1, max=4, idle_seconds=100, check_seconds=1000))
    contexts = [Context(f"r{i}", resources=resources) for i in range(3)]
    for context in contexts:
        acquire(context, spec)
    for context in contexts:
        context.close()
    until(lambda: states(resources, spec) == ["idle"] * 3)
    clock.now += 99
    resources.tidy()
    assert states(resources, spec) == ["idle"] * 3
    clock.now += 2
    resources.tidy()
    until(lambda: states(resources, spec) == ["idle"])
    assert len(MADE) == 3  # the one that is left is one of them


def test_checks_are_no_use(resources: Resources, clock: Clock) -> None:
    spec = GameSpec(pool=Pool(idle_seconds=25, check_seconds=10, patience_seconds=5))
    with Context("r", resources=resources) as context:
        game = acquire(context, spec)
    until(lambda: states(resources, spec) == ["idle"])
    for checks in (1, 2):
        clock.now += 11
        resources.tidy()
        until(lambda n=checks: game.events.count("check") == n)
        resources.tidy()  # a check that began just now does not hang
        until(lambda: states(resources, spec) == ["idle"])
    clock.now += 4
    resources.tidy()
    until(lambda: states(resources, spec) == [])
    assert game.events == ["start", "reset", "check", "check", "stop"]


def test_the_least_are_kept_ready(resources: Resources) -> None:
    spec = GameSpec(pool=Pool(min=3, max=4))
    with Context("r", resources=resources) as context:
        acquire(context, spec)
        until(lambda: sorted(states(resources, spec)) == ["held", "idle", "idle"])


def test_idle_ones_are_checked(resources: Resources, clock: Clock) -> None:
    spec = GameSpec(pool=Pool(min=1, max=2, check_seconds=10))
    with Context("r", resources=resources) as context:
        game = acquire(context, spec)
    until(lambda: states(resources, spec) == ["idle"])
    clock.now += 11
    resources.tidy()
    until(lambda: game.events == ["start", "reset", "check"] and "idle" in states(resources, spec))
    game.healthy = False
    clock.now += 11
    resources.tidy()
    until(lambda: game.events[-1] == "stop" and len(states(resources, spec)) == 0)
    resources.tidy()
    until(lambda: states(resources, spec) == ["idle"])
    assert len(MADE) == 2


def test_what_everybody_shares_is_replaced_when_it_breaks(
    resources: Resources, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    spec = GameSpec(pool=Pool(max=1, check_seconds=10))
    with Context("r", resources=resources) as context:
        first = acquire(context, spec, scope="global")
        clock.now += 11
        resources.tidy()
        until(lambda: first.events == ["start", "check"])
        assert acquire(context, spec, scope="global") is first
        first.healthy = False
        clock.now += 11
        resources.tidy()
        until(lambda: first.events[-1] == "stop")
        second = acquire(context, spec, scope="global")
        assert second is not first
    assert "not healthy" in caplog.text


@pytest.mark.parametrize(
    "options", [{"min": 2, "max": 1}, {"max": 0}, {"min": -1}, {"idle_seconds": 0}]
)
def test_pools_that_cannot_be(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Pool(**options)


def test_pools_that_nobody_uses_are_forgotten(resources: Resources, clock: Clock) -> None:
    specs = [GameSpec(level=n, pool=Pool(idle_seconds=100)) for n in range(3)]
    used = Context("used", resources=resources)
    acquire(used, specs[0])
    for spec in specs[1:]:
        with Context("r", resources=resources) as context:
            acquire(context, spec)
    until(lambda: all(states(resources, spec) == ["idle"] for spec in specs[1:]))
    clock.now += 101
    resources.tidy()  # what lay idle is stopped
    until(lambda: sum(sum(s.states.values()) for s in resources.status()) == 1)
    clock.now += 101
    resources.tidy()
    assert [status.states for status in resources.status()] == [{"held": 1}]
    assert resources.held()[0].holder.name == "used"
    used.close()
    with Context("r", resources=resources) as context:
        assert acquire(context, specs[1]).level == 1


def test_a_start_that_may_take_long_does_not_hold_up_the_end(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    resources = Resources(clock)
    loading = ServerSpec(argv=("sleep", "600", "{port}"), start_seconds=900, stop_seconds=0.1)
    with Context("r", resources=resources) as context, pytest.raises(Unavailable, match="starting"):
        context.acquire_resource_sync(loading, timeout=SOON)
    resources.close(timeout=LONG)
    assert "did not stop" not in caplog.text
    assert resources.status()[0].states == {}


# The end.


def test_leaks_are_reported_at_the_end(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    MADE.clear()
    resources = Resources(clock)
    leaky = Context("leaky", resources=resources)
    game = acquire(leaky, GameSpec(name="chess"))
    acquire(leaky, GameSpec(), scope="global")
    clock.now += 3
    with caplog.at_level(logging.WARNING):
        leaked = resources.close()
    assert [str(held) for held in leaked] == ["Game 'chess', held by rollout 'leaky' for 3.0 s"]
    assert "still held at shutdown: Game 'chess'" in caplog.text
    assert game.events == ["start", "stop"]
    leaky.close()
    with pytest.raises(Unavailable, match="closed"):
        acquire(Context("late", resources=resources), GameSpec())


def test_the_end_wakes_who_waits(clock: Clock) -> None:
    MADE.clear()
    resources = Resources(clock)
    spec = GameSpec(pool=ONE)
    acquire(Context("holder", resources=resources), spec)
    waiter = Context("waiter", resources=resources)
    request = waiter._ask(spec, "rollout", None).request
    resources.close()
    with pytest.raises(Unavailable, match="closed"):
        request.future.result(LONG)


def test_the_end_waits_only_so_long(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    MADE.clear()
    resources = Resources(clock)
    context = Context("r", resources=resources)
    with pytest.raises(Unavailable):
        acquire(context, GameSpec(hangs="start"), timeout=SOON)
    resources.close(timeout=SOON)
    assert "did not stop within" in caplog.text
    MADE[0].gate.set()
    until(lambda: MADE[0].events == ["start", "stop"])


# Any order of events.


class Rollouts(RuleBasedStateMachine):
    """Contexts come and go, resources break and lie idle; one thread, so that nothing may wait."""

    def __init__(self) -> None:
        super().__init__()
        MADE.clear()
        self.clock = Clock()
        self.resources = Resources(self.clock)
        self.spec = GameSpec(pool=Pool(min=1, max=3, idle_seconds=50, check_seconds=20))
        self.open: list[Context] = []
        self.holds: dict[int, Game] = {}

    @rule()
    def enter(self) -> None:
        self.open.append(Context(f"r{len(self.open)}", resources=self.resources))

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, 20))
    def acquire(self, which: int) -> None:
        context = self.open[which % len(self.open)]
        free = len(self.holds) < 3 or id(context) in self.holds
        try:
            timeout = LONG if free else 0.001
            game = acquire(context, self.spec, timeout=timeout)
        except Unavailable:
            assert not free
            self.open.remove(context)  # its request waits: it would get what comes free
            context.close()
            return
        assert self.holds.setdefault(id(context), game) is game
        assert game.level == 1 or game.level == id(context)
        game.level = id(context)

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, 20))
    def leave(self, which: int) -> None:
        context = self.open.pop(which % len(self.open))
        self.holds.pop(id(context), None)
        context.close()

    @rule(which=st.integers(0, 20))
    def breaks(self, which: int) -> None:
        idle = [game for game in MADE if game not in self.holds.values()]
        if idle:
            idle[which % len(idle)].healthy = False

    @rule(seconds=st.sampled_from([1, 21, 60]))
    def time_passes(self, seconds: int) -> None:
        self.clock.now += seconds
        self.resources.tidy()

    @invariant()
    def at_most_three_and_nobody_shares(self) -> None:
        pool = self.resources.pool(self.spec, "local")
        assert len(pool.states()) <= 3
        assert len({id(game) for game in self.holds.values()}) == len(self.holds)
        assert len(pool.held()) == len(self.holds)

    def teardown(self) -> None:
        for context in self.open:
            context.close()
        assert self.resources.close() == []
        assert all(game.events[-1] == "stop" for game in MADE)


TestRollouts = Rollouts.TestCase
TestRollouts.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
