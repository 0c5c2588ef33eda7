"""Contexts: what they hand out, for how long, and what is given back when things go wrong.

The tests named `agentfly` hold what was measured to go wrong in AgentFly's resource engine
(specs/agentfly.md 4.2 and 4.3).
"""

from __future__ import annotations

import asyncio
import pickle
import threading
from dataclasses import FrozenInstanceError, dataclass

import pytest
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

from guerdon.errors import ConfigError, Unavailable, UnportableData
from guerdon.resources import Batch, Context, Pool, Resource, Resources, Spec
from guerdon.resources.pool import ResourcePool
from guerdon.resources.slot import Request

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


def test_what_was_acquired_last_is_given_back_first(
    resources: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[int] = []
    true = ResourcePool.give_back

    def give_back(self: ResourcePool, request: Request, *, end: bool = False) -> None:
        order.append(self.spec.level)
        true(self, request, end=end)

    monkeypatch.setattr(ResourcePool, "give_back", give_back)
    with Context("r", resources=resources) as context:
        for level in (1, 2, 3):
            acquire(context, GameSpec(level=level))
    assert order == [3, 2, 1]


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


class OddSpec(Spec[Game], frozen=True, kw_only=True):
    """Can be made at first, and then not any more, as one whose file is removed."""

    wrong: str = "nothing"

    def make(self) -> Game:
        if len(MADE) == 1:
            if self.wrong == "raises":
                raise FileNotFoundError("model.bin")
            return None  # type: ignore[return-value]
        return Game(GameSpec(reset="cannot"))


@pytest.mark.parametrize(
    ("wrong", "told"),
    [("raises", "model.bin"), ("nothing", "OddSpec.make gave a NoneType, not a Resource")],
)
def test_what_cannot_be_made_is_told_to_who_waits(
    resources: Resources, wrong: str, told: str
) -> None:
    spec = OddSpec(wrong=wrong, pool=ONE)
    threads = threading.active_count()
    holder, waiter = Context("holder", resources=resources), Context("w", resources=resources)
    acquire(holder, spec)
    request = waiter._ask(spec, "rollout", None).request
    holder.close()
    with pytest.raises((FileNotFoundError, ConfigError), match=told):
        request.future.result(LONG)
    with pytest.raises((FileNotFoundError, ConfigError), match=told):
        acquire(waiter, spec)
    until(lambda: states(resources, spec) == [])
    until(lambda: threading.active_count() == threads)  # no thread for what was not made


@dataclass(frozen=True)
class Frozen(Resource):
    level: int = 4


class FrozenSpec(Spec[Frozen], frozen=True):
    def make(self) -> Frozen:
        return Frozen()


def test_a_resource_may_be_frozen(resources: Resources) -> None:
    with Context(resources=resources) as context:
        frozen = context.acquire_resource_sync(FrozenSpec())
        assert frozen.level == 4
        with pytest.raises(FrozenInstanceError):
            frozen.level = 5  # type: ignore[misc]


def test_a_lifecycle_of_coroutines_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"Odd\.start is a coroutine function"):

        class Odd(Resource):
            async def start(self) -> None: ...  # type: ignore[override]


def test_a_context_does_not_travel() -> None:
    with pytest.raises(UnportableData, match="another process"):
        pickle.dumps(Context("r"))
