"""Contexts and pools: who gets what, for how long, and what is told when nothing is left.

The tests named `agentfly` hold what was measured to go wrong in AgentFly's resource engine
(specs/agentfly.md 4.2 and 4.3).
"""

from __future__ import annotations

import asyncio
import copy
import enum
import logging
import pickle
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from guerdon.errors import ConfigError, Unavailable, UnportableData
from guerdon.outcome import EMPTY
from guerdon.resources import Batch, Context, Pool, Resource, Resources, Spec

LONG = 20.0
"""Seconds after which something that must happen counts as not happening."""

SOON = 0.05


class Game(Resource):
    """Counts what happens to it."""

    made: list[Game]

    def __init__(self, spec: GameSpec) -> None:
        self.spec = spec
        self.level = spec.level
        self.events: list[str] = []
        self.healthy = True
        self.gate = threading.Event()
        self.number = len(MADE)
        MADE.append(self)

    def start(self) -> None:
        self.events.append("start")
        if self.spec.fails:
            raise OSError("no display")
        if self.spec.hangs == "start":
            assert self.gate.wait(LONG)

    def reset(self) -> bool:
        self.events.append("reset")
        if self.spec.hangs == "reset":
            assert self.gate.wait(LONG)
        if self.spec.reset == "raises":
            raise OSError("stuck")
        self.level = self.spec.level
        return self.spec.reset == "works"

    def check(self) -> bool:
        self.events.append("check")
        return self.healthy

    def stop(self) -> None:
        self.events.append("stop")


class GameSpec(Spec[Game], frozen=True, kw_only=True):
    level: int = 1
    options: Mapping[str, Any] = EMPTY
    fails: bool = False
    hangs: str = ""
    reset: str = "works"

    def make(self) -> Game:
        return Game(self)


MADE: list[Game] = []
ONE = Pool(max=1)


class Clock:
    """Time that a test sets."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def resources(clock: Clock) -> Iterator[Resources]:
    MADE.clear()
    with Resources(clock) as made:
        yield made
        for game in MADE:
            game.gate.set()


def until(condition: Any) -> None:
    """Wait for something that another thread does; how long decides nothing."""
    pause = threading.Event()
    for _ in range(int(LONG / 0.002)):
        if condition():
            return
        pause.wait(0.002)
    raise AssertionError("it did not happen")


def acquire(context: Context, spec: Spec[Game], **options: Any) -> Game:
    """The game behind the handle, which the test may look at when the rollout has ended."""
    return MADE[context.acquire_resource_sync(spec, **options).number]


async def acquire_async(context: Context, spec: Spec[Game], **options: Any) -> Game:
    return MADE[(await context.acquire_resource(spec, **options)).number]


def states(resources: Resources, spec: Spec[Any]) -> list[str]:
    return resources.pool(spec, "local").states()


# What is the same resource.


def test_agentfly_two_specs_in_one_rollout_are_two_resources(resources: Resources) -> None:
    with Context("r", resources=resources) as context:
        one = acquire(context, GameSpec(level=1))
        two = acquire(context, GameSpec(level=2))
        assert (one.level, two.level) == (1, 2)
        assert [game.number for game in context.held] == [one.number, two.number]


def test_agentfly_init_arguments_are_part_of_the_identity(resources: Resources) -> None:
    with Context("r1", resources=resources) as context:
        acquire(context, GameSpec())
    with Context("r2", resources=resources) as context:
        assert acquire(context, GameSpec(level=99)).level == 99


def test_agentfly_rollout_and_global_are_two_resources_and_both_end(resources: Resources) -> None:
    spec = GameSpec(reset="cannot")
    with Context("r", resources=resources) as context:
        own = acquire(context, spec)
        shared = acquire(context, spec, scope="global")
        assert own is not shared
    until(lambda: own.events[-1] == "stop")
    assert "stop" not in shared.events
    resources.close()
    assert shared.events[-1] == "stop"


def test_the_same_spec_is_the_same_resource_within_a_rollout(resources: Resources) -> None:
    with Context("r", resources=resources) as context:
        one = acquire(context, GameSpec(options={"a": [1, 2], "b": 2}))
        assert acquire(context, GameSpec(options={"b": 2, "a": [1, 2]})) is one
        assert acquire(context, GameSpec(name="second")) is not one
    other = Context("s", resources=resources)
    with other as context, Context("t", resources=resources) as third:
        spec = GameSpec(options={"a": 1})
        assert acquire(context, spec) is not acquire(third, spec)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1}, {"a": 1.0}),
        ({"a": 1}, {"a": True}),
        ({"a": "1"}, {"a": 1}),
        ({"a": b"1"}, {"a": "1"}),
        ({"a": None}, {}),
        ({"a": []}, {"a": {}}),
    ],
)
def test_specs_that_only_look_alike_are_different(one: Any, other: Any) -> None:
    assert GameSpec(options=one).key != GameSpec(options=other).key


def test_a_subclass_with_the_same_fields_is_another_kind() -> None:
    class Other(GameSpec, frozen=True):
        pass

    assert Other().key != GameSpec().key


def test_a_spec_of_something_live_is_refused(resources: Resources) -> None:
    spec = GameSpec(options={"client": object()})
    with (
        Context(resources=resources) as c,
        pytest.raises(ConfigError, match=r"options\['client'\]"),
    ):
        acquire(c, spec)


def test_a_spec_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        GameSpec().level = 2  # type: ignore[misc]


class Size(msgspec.Struct, frozen=True):
    width: int = 1
    tags: tuple[Any, ...] = ()


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"path": Path("/a/b")}, {"path": Path("/a/c")}),
        ({"path": Path("/a")}, {"path": "/a"}),
        ({"env": {"HOME": "/a", "X": ""}}, {"env": {"HOME": "/a"}}),
        ({"deep": [{"a": [1, {"b": 2}]}]}, {"deep": [{"a": [1, {"b": 3}]}]}),
        ({"size": Size(tags=({"a": 1},))}, {"size": Size(tags=({"a": 2},))}),
        ({"colour": Colour.RED}, {"colour": Colour.BLUE}),
        ({"set": {1, 2}}, {"set": {1, 2, 3}}),
        ({1: "a"}, {"1": "a"}),
    ],
)
def test_the_content_of_a_spec_is_its_identity(
    resources: Resources, one: dict[Any, Any], other: dict[Any, Any]
) -> None:
    again = copy.deepcopy(one)
    assert GameSpec(options=one) == GameSpec(options=again)
    assert hash(GameSpec(options=one)) == hash(GameSpec(options=again))
    assert GameSpec(options=one) != GameSpec(options=other)
    with Context(resources=resources) as context:
        first = context.acquire_resource_sync(GameSpec(options=one))
        assert context.acquire_resource_sync(GameSpec(options=again)) is first
        assert context.acquire_resource_sync(GameSpec(options=other)) is not first
        assert first.spec.options == one


def test_what_is_live_in_a_nested_struct_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"options\['size'\]\.tags is a object"):
        _ = GameSpec(options={"size": Size(tags=(object(),))}).key


def test_a_mapping_that_is_changed_later_makes_another_spec(resources: Resources) -> None:
    options = {"level": [1]}
    spec = GameSpec(options=options)
    with Context("r1", resources=resources) as one, Context("r2", resources=resources) as two:
        assert one.acquire_resource_sync(spec).spec.options == {"level": [1]}
        options["level"].append(2)
        assert two.acquire_resource_sync(spec).spec.options == {"level": [1, 2]}
        plain = GameSpec(options={"level": [1]})
        assert two.acquire_resource_sync(plain).spec.options == {"level": [1]}
    assert len(resources.status()) == 2


# How long it is held.


def test_agentfly_what_comes_back_is_reset_before_the_next_rollout(resources: Resources) -> None:
    spec = GameSpec(pool=ONE)
    with Context("r1", resources=resources) as context:
        first = acquire(context, spec)
        first.level = 77
    with Context("r2", resources=resources) as context:
        second = acquire(context, spec)
        assert second is first
        assert second.level == 1
    until(lambda: first.events.count("reset") == 2)
    assert first.events[:3] == ["start", "reset", "check"]


@pytest.mark.parametrize("reset", ["cannot", "raises"])
def test_what_cannot_be_reset_is_not_used_again(resources: Resources, reset: str) -> None:
    spec = GameSpec(pool=ONE, reset=reset)
    with Context("r1", resources=resources) as context:
        first = acquire(context, spec)
    with Context("r2", resources=resources) as context:
        assert acquire(context, spec) is not first
    assert first.events == ["start", "reset", "stop"]


def test_global_is_shared_by_live_rollouts_and_outlives_them(resources: Resources) -> None:
    spec = GameSpec()
    with Context("r1", resources=resources) as one, Context("r2", resources=resources) as two:
        game = acquire(one, spec, scope="global")
        assert acquire(two, spec, scope="global") is game
        assert one.held == []
    with Context("r3", resources=resources) as three:
        assert acquire(three, spec, scope="global") is game
    assert game.events == ["start"]


def test_batch_is_shared_until_the_batch_and_its_rollouts_have_ended(resources: Resources) -> None:
    batch = Batch("b1")
    one = Context("r1", batch=batch, resources=resources)
    game = acquire(one, GameSpec(), scope="batch")
    with Context("r2", batch=batch, resources=resources) as two:
        assert acquire(two, GameSpec(), scope="batch") is game
        batch.end()
    assert game.events == ["start"]
    one.close()
    until(lambda: game.events == ["start", "reset"])
    with pytest.raises(Unavailable, match="batch 'b1' has ended"):
        Context("r3", batch=batch, resources=resources)


def test_scopes_and_backends_that_do_not_exist(resources: Resources) -> None:
    with Context("r", resources=resources) as context:
        for options, told in (
            ({"scope": "batch"}, "belongs to no batch"),
            ({"scope": "forever"}, "rollout, batch, global"),
            ({"backend": "remote"}, "lives on the backend 'local', not on 'remote'"),
            ({"backend": "ray"}, "local, remote, got 'ray' .planned, but not there yet"),
            ({"backend": "aws"}, "local, remote, got 'aws'$"),
        ):
            with pytest.raises(ConfigError, match=told):
                acquire(context, GameSpec(), **options)
        with pytest.raises(ConfigError, match="got a str"):
            acquire(context, "GameSpec")  # type: ignore[arg-type]


def test_a_closed_context_gives_nothing(resources: Resources) -> None:
    context = Context("r", resources=resources)
    context.close()
    context.close()
    with pytest.raises(Unavailable, match="rollout 'r' has ended"):
        acquire(context, GameSpec())


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


# What goes wrong.


def test_agentfly_an_exception_gives_everything_back(resources: Resources) -> None:
    spec = GameSpec(pool=ONE)

    def broken_reward() -> None:
        with Context("r1", resources=resources) as context:
            acquire(context, spec)
            raise ValueError("broken reward")

    with pytest.raises(ValueError, match="broken reward"):
        broken_reward()
    with Context("r2", resources=resources) as context:
        acquire(context, spec, timeout=LONG)


async def test_a_cancelled_rollout_gives_everything_back(resources: Resources) -> None:
    spec = GameSpec(pool=ONE)
    holding = asyncio.Event()

    async def rollout(name: str) -> None:
        async with Context(name, resources=resources) as context:
            await acquire_async(context, spec)
            holding.set()
            await asyncio.Event().wait()

    holder = asyncio.create_task(rollout("holder"))
    await holding.wait()
    waiter = asyncio.create_task(rollout("waiter"))
    await asyncio.sleep(0)
    for task in (waiter, holder):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    async with Context("next", resources=resources) as context:
        await acquire_async(context, spec, timeout=LONG)
    assert len(MADE) == 1


def test_a_start_that_fails_is_told_and_holds_no_place(resources: Resources) -> None:
    spec = GameSpec(pool=ONE, fails=True)
    with Context("r", resources=resources) as context:
        for tries in (1, 2):
            with pytest.raises(Unavailable, match="Game does not start: no display"):
                acquire(context, spec)
            assert len(MADE) == tries
    until(lambda: all(game.events == ["start", "stop"] for game in MADE))
    until(lambda: states(resources, spec) == [])


def test_a_start_that_hangs_is_said_and_given_up(resources: Resources, clock: Clock) -> None:
    spec = GameSpec(pool=Pool(max=1, patience_seconds=60), hangs="start")
    with Context("r", resources=resources) as context:
        with pytest.raises(Unavailable, match=r"1 of at most 1 exist: starting for 0\.0 s"):
            acquire(context, spec, timeout=SOON)
        clock.now += 61
        resources.tidy()
        assert states(resources, spec) == []
        with pytest.raises(Unavailable, match="starting for"):
            acquire(context, spec, timeout=SOON)
    for game in MADE:
        game.gate.set()
    until(lambda: MADE[0].events == ["start", "stop"])
    until(lambda: states(resources, spec) == ["idle"])


def test_a_reset_that_hangs_holds_the_place_only_so_long(
    resources: Resources, clock: Clock
) -> None:
    spec = GameSpec(pool=Pool(max=1, patience_seconds=60), hangs="reset")
    with Context("r1", resources=resources) as context:
        acquire(context, spec)
    with Context("r2", resources=resources) as context:
        with pytest.raises(Unavailable, match="resetting for"):
            acquire(context, spec, timeout=SOON)
        clock.now += 61
        resources.tidy()
        assert acquire(context, spec) is MADE[1]


def test_what_is_not_healthy_is_replaced(resources: Resources) -> None:
    spec = GameSpec(pool=ONE)
    with Context("r1", resources=resources) as context:
        first = acquire(context, spec)
    first.healthy = False
    with Context("r2", resources=resources) as context:
        assert acquire(context, spec) is not first
    assert first.events[-1] == "stop"


def test_a_lifecycle_of_coroutines_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"Odd\.start is a coroutine function"):

        class Odd(Resource):
            async def start(self) -> None: ...  # type: ignore[override]


def test_a_context_does_not_travel() -> None:
    with pytest.raises(UnportableData, match="another process"):
        pickle.dumps(Context("r"))


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
