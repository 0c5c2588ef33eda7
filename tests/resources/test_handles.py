"""What a reward kept of a resource is of no use once its context has given it back."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import inspect
import os
import pickle
import queue
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pytest

from guerdon.errors import ConfigError, FailureKind, Unavailable, UnportableData
from guerdon.policy import Policy
from guerdon.resources import (
    Batch,
    Context,
    Pool,
    Released,
    Resource,
    Resources,
    Spec,
)
from guerdon.reward import reward
from guerdon.sample import Sample
from guerdon.service import RewardService

LONG = 20.0
SOON = 0.05


class Base(Resource):
    def who(self) -> str:
        return f"base {self.name}"


class Toy(Base):
    """Uses what a class of a user may use."""

    kind = "toy"

    def __init__(self, spec: ToySpec) -> None:
        self.spec = spec
        self.name = "t"
        self.marks: list[str] = []
        self.__hidden = 7
        self.gate = threading.Event()
        self.entered: queue.SimpleQueue[str] = queue.SimpleQueue()
        TOYS.append(self)

    def reset(self) -> bool:
        self.marks.append(f"reset by {threading.current_thread().name}")
        if self.spec.reset == "raises":
            raise OSError("stuck")
        return self.spec.reset == "works"

    def stop(self) -> None:
        self.marks.append("stop")

    def interrupt(self) -> None:
        self.marks.append("interrupt")
        if self.spec.interruptible:
            self.gate.set()

    def mark(self, text: str) -> list[str]:
        self.marks.append(text)
        return self.marks

    def who(self) -> str:
        return f"{super().who()} {self.__hidden}"

    def fluent(self) -> Toy:
        return self

    def later(self) -> Callable[[], list[str]]:
        return lambda: self.mark("later")

    def blocked(self) -> str:
        self.entered.put("blocked")
        assert self.gate.wait(LONG)
        self.mark("came back")
        return "result"

    async def awaited(self, event: asyncio.Event) -> str:
        self.entered.put("awaited")
        await event.wait()
        return self.name

    def wrapped(self) -> Coroutine[Any, Any, list[str]]:
        return self.aside()

    async def aside(self) -> list[str]:
        return await asyncio.to_thread(self.mark, "aside")

    def broken(self) -> None:
        raise KeyError("own error")

    def numbers(self) -> Iterator[int]:
        for number in range(3):
            yield number + len(self.marks)

    @contextlib.contextmanager
    def open(self) -> Iterator[str]:
        self.mark("open")
        yield self.name
        self.mark("shut")

    @property
    def many(self) -> int:
        return len(self.marks)

    @cached_property
    def cached(self) -> list[str]:
        return ["cached"]

    @staticmethod
    def fixed() -> str:
        return "fixed"

    @classmethod
    def made_of(cls) -> str:
        return cls.__name__

    def __len__(self) -> int:
        return len(self.marks)

    def __getitem__(self, at: int) -> str:
        return self.marks[at]

    def __enter__(self) -> Toy:
        return self

    def __exit__(self, *_: object) -> None:
        self.mark("exit")


class ToySpec(Spec[Toy], frozen=True, kw_only=True):
    reset: str = "works"
    interruptible: bool = False
    pool: Pool = Pool(max=1)

    def make(self) -> Toy:
        return Toy(self)


TOYS: list[Toy] = []
KEPT: list[Toy] = []


@pytest.fixture
def resources() -> Iterator[Resources]:
    TOYS.clear()
    with Resources() as made:
        yield made
        for toy in TOYS:
            toy.gate.set()


@pytest.fixture
def kept(resources: Resources) -> Toy:
    """What a reward kept, after its rollout; another rollout has it now."""
    with Context("r1", resources=resources) as context:
        toy = context.acquire_resource_sync(ToySpec())
    other = Context("r2", resources=resources)
    other.acquire_resource_sync(ToySpec())
    return toy


def until(condition: Callable[[], Any]) -> None:
    pause = threading.Event()
    for _ in range(int(LONG / 0.002)):
        if condition():
            return
        pause.wait(0.002)
    raise AssertionError("it did not happen")


# While the lease lasts, a handle is the resource.


def test_a_handle_does_all_that_the_resource_does(resources: Resources) -> None:
    with Context("r", resources=resources) as context:
        toy = context.acquire_resource_sync(ToySpec())
        assert isinstance(toy, Toy)
        assert isinstance(toy, Resource)
        assert toy.__class__ is Toy
        assert repr(toy) == "<Toy: Toy of rollout 'r'>"
        assert toy.mark("a") == ["a"]
        assert (toy.kind, toy.name, toy.who(), toy.many) == ("toy", "t", "base t 7", 1)
        assert (toy.fixed(), toy.made_of(), toy.cached) == ("fixed", "Toy", ["cached"])
        assert (len(toy), toy[0], bool(toy), list(toy)) == (1, "a", True, ["a"])
        toy.name = "new"
        assert TOYS[0].name == "new"
        del toy.name
        with pytest.raises(AttributeError, match="name"):
            _ = toy.name
        with pytest.raises(AttributeError, match="nothing_such"):
            _ = toy.nothing_such  # type: ignore[attr-defined]
        toy.extra = 5  # type: ignore[attr-defined]
        assert TOYS[0].extra == 5  # type: ignore[attr-defined]
        assert list(toy.numbers()) == [1, 2, 3]
        TOYS[0].name = "t"
        with toy.open() as name, toy as entered:
            assert name == "t"
            assert entered is toy
        assert TOYS[0].marks == ["a", "open", "exit", "shut"]
        with pytest.raises(KeyError, match="own error"):
            toy.broken()
        assert {"mark", "who", "marks"} <= set(dir(toy))
        assert toy.mark.__doc__ == Toy.mark.__doc__
        assert list(inspect.signature(toy.mark).parameters) == ["text"]
        assert inspect.iscoroutinefunction(toy.aside)
        assert not inspect.iscoroutinefunction(toy.mark)


def test_handles_of_two_classes_know_their_own_methods(resources: Resources) -> None:
    @dataclass
    class Point(Resource):
        x: int

    class PointSpec(Spec[Point], frozen=True, kw_only=True):
        x: int = 1

        def make(self) -> Point:
            return Point(self.x)

    with Context(resources=resources) as one, Context(resources=resources) as two:
        points = [context.acquire_resource_sync(PointSpec()) for context in (one, two)]
        assert points[0] == points[1]
        assert not hasattr(points[0], "__len__")
        assert isinstance(points[0], Point)


class Slotted(Resource):
    __slots__ = ("left",)

    def __init__(self, left: int) -> None:
        self.left = left

    def __call__(self) -> int:
        self.left -= 1
        return self.left

    async def __aenter__(self) -> int:
        return self.left

    async def __aexit__(self, *_: object) -> None:
        self.left = -1


class SlottedSpec(Spec[Slotted], frozen=True, kw_only=True):
    def make(self) -> Slotted:
        return Slotted(3)


async def test_slots_calls_and_async_blocks(resources: Resources) -> None:
    async with Context("r", resources=resources) as context:
        slotted = await context.acquire_resource(SlottedSpec())
        assert slotted() == 2
        async with slotted as left:
            assert left == 2
        assert slotted.left == -1
    with pytest.raises(Released):
        slotted()
    with pytest.raises(Released):
        async with slotted:
            pass


def test_a_handle_belongs_to_its_process(resources: Resources) -> None:
    with Context("r", resources=resources) as context:
        toy = context.acquire_resource_sync(ToySpec())
        for travel in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(UnportableData, match="Toy"):
                travel(toy)


@pytest.mark.parametrize("name", ["start", "stop", "kept_by"])
def test_what_the_pool_calls_is_the_pools(resources: Resources, name: str) -> None:
    with Context("r", resources=resources) as context:
        toy = context.acquire_resource_sync(ToySpec())
        with pytest.raises(ConfigError, match=f"{name} of Toy of rollout 'r' is called by its"):
            getattr(toy, name)
        assert toy.check()


def test_a_reset_runs_on_the_thread_of_the_resource(resources: Resources) -> None:
    with Context("r", resources=resources) as context:
        toy = context.acquire_resource_sync(ToySpec())
        assert toy.reset()
        assert toy.marks == ["reset by guerdon-Toy"]


# After it, nothing is left.


@pytest.mark.parametrize(
    "use",
    [
        lambda toy: toy.mark("late"),
        lambda toy: toy.name,
        lambda toy: toy.many,
        lambda toy: toy.kind,
        lambda toy: toy.reset(),
        lambda toy: toy.check(),
        lambda toy: toy.stop(),
        lambda toy: setattr(toy, "name", "late"),
        lambda toy: delattr(toy, "name"),
        lambda toy: len(toy),
        lambda toy: toy[0],
        lambda toy: toy.__dict__,
        lambda toy: toy.__enter__(),
        lambda toy: asyncio.run(toy.aside()),
    ],
)
def test_every_use_after_the_release_says_what_and_whose(
    kept: Toy, use: Callable[[Toy], Any]
) -> None:
    with pytest.raises(Released, match=r"Toy of rollout 'r1' was released and cannot be used"):
        use(kept)
    assert "late" not in TOYS[0].marks
    assert TOYS[0].name == "t"
    assert repr(kept) == "<Toy: Toy of rollout 'r1', released>"
    assert isinstance(kept, Toy)


@pytest.mark.parametrize(
    "take",
    [
        lambda toy: toy.mark,
        lambda toy: toy.fluent().mark,
        lambda toy: toy.later(),
        lambda toy: toy.numbers().__next__,
        lambda toy: toy.open().__enter__,
    ],
)
def test_what_it_handed_on_ends_with_it(
    resources: Resources, take: Callable[[Toy], Callable[..., Any]]
) -> None:
    with Context("r1", resources=resources) as context:
        use = take(context.acquire_resource_sync(ToySpec()))
    with Context("r2", resources=resources) as context:
        context.acquire_resource_sync(ToySpec())
        with pytest.raises(Released, match="rollout 'r1'"):
            use(*["late"] if use.__name__ == "mark" else [])
        assert TOYS[0].marks == ["reset by guerdon-Toy"]


def test_a_thread_that_kept_it_is_told(kept: Toy) -> None:
    with ThreadPoolExecutor(1) as threads, pytest.raises(Released, match="rollout 'r1'"):
        threads.submit(lambda: kept.mark("late")).result(LONG)


async def test_a_task_that_kept_it_is_told(resources: Resources) -> None:
    released = asyncio.Event()

    async def straggler(toy: Toy) -> None:
        await released.wait()
        await toy.aside()

    async with Context("r1", resources=resources) as context:
        task = asyncio.create_task(straggler(await context.acquire_resource(ToySpec())))
        await asyncio.sleep(0)
    released.set()
    with pytest.raises(Released, match="rollout 'r1'"):
        await task


async def test_a_coroutine_that_was_not_awaited_in_time(resources: Resources) -> None:
    async with Context("r1", resources=resources) as context:
        toy = await context.acquire_resource(ToySpec())
        assert await toy.wrapped() == ["aside"]
        late = [toy.aside(), toy.wrapped()]
    for coroutine in late:
        with pytest.raises(Released, match="rollout 'r1'"):
            await coroutine


def test_it_is_the_fault_of_the_reward(resources: Resources) -> None:
    KEPT.clear()

    @reward(auto_register=False)
    def careless(context: Context, response: str) -> float:
        KEPT.append(context.acquire_resource_sync(ToySpec()))
        return float(KEPT[0].mark(response) is not None)

    policy = Policy(on=dict.fromkeys(("scorer", "infrastructure", "data"), "mask"))
    with RewardService(careless, policy=policy) as service:
        first, second = (service.score_sync([Sample(response=text)])[0] for text in "ab")
    assert first.value == 1.0
    assert (second.kind, second.blame) == (FailureKind.RAISED, "scorer")
    assert "was released" in second.message


@pytest.mark.parametrize("scope", ["global", "batch"])
def test_what_is_shared_lives_on_but_not_for_who_left(resources: Resources, scope: Any) -> None:
    with Batch("b") as batch:
        one = Context("r1", batch=batch, resources=resources)
        two = Context("r2", batch=batch, resources=resources)
        first = one.acquire_resource_sync(ToySpec(), scope=scope)
        second = two.acquire_resource_sync(ToySpec(), scope=scope)
        assert first.mark("one") is second.mark("two")
        one.close()
        with pytest.raises(Released, match="rollout 'r1'"):
            first.mark("late")
        assert second.mark("three") == ["one", "two", "three"]
        two.close()


def test_what_ended_with_the_process_says_so() -> None:
    with Resources() as resources:
        toy = Context("r", resources=resources).acquire_resource_sync(ToySpec())
    with pytest.raises(Unavailable, match="rollout 'r' was stopped with all resources"):
        toy.mark("late")


# Calls that are in it when it is released.


def test_a_call_in_flight_fails_and_the_next_rollout_waits_for_its_end(
    resources: Resources,
) -> None:
    with ThreadPoolExecutor(1) as threads:
        with Context("r1", resources=resources) as context:
            toy = context.acquire_resource_sync(ToySpec())
            call: Future[str] = threads.submit(toy.blocked)
            assert TOYS[0].entered.get(timeout=LONG) == "blocked"
        with Context("r2", resources=resources) as context:
            told = r"used by a call that outlives its rollout 'r1' for"
            with pytest.raises(Unavailable, match=told):
                context.acquire_resource_sync(ToySpec(), timeout=SOON)
            until(lambda: TOYS[0].marks == ["interrupt"])
            TOYS[0].gate.set()
            with pytest.raises(Released, match="rollout 'r1'"):
                call.result(LONG)
            assert context.acquire_resource_sync(ToySpec()).many == 3
    assert TOYS[0].marks[:3] == ["interrupt", "came back", "reset by guerdon-Toy"]
    assert len(TOYS) == 1


def test_a_call_that_can_be_interrupted_holds_nobody_up(resources: Resources) -> None:
    spec = ToySpec(interruptible=True)
    with ThreadPoolExecutor(1) as threads:
        with Context("r1", resources=resources) as context:
            call = threads.submit(context.acquire_resource_sync(spec).blocked)
            TOYS[0].entered.get(timeout=LONG)
        with pytest.raises(Released):
            call.result(LONG)
        with Context("r2", resources=resources) as context:
            context.acquire_resource_sync(spec, timeout=LONG)


def test_a_call_that_never_ends_holds_its_place_only_so_long() -> None:
    class Clock:
        now = 0.0

        def __call__(self) -> float:
            return self.now

    TOYS.clear()
    clock = Clock()
    spec = ToySpec(pool=Pool(max=1, patience_seconds=60))
    with ThreadPoolExecutor(1) as threads, Resources(clock) as resources:
        with Context("r1", resources=resources) as context:
            call = threads.submit(context.acquire_resource_sync(spec).blocked)
            TOYS[0].entered.get(timeout=LONG)
        clock.now += 61
        resources.tidy()
        with Context("r2", resources=resources) as context:
            context.acquire_resource_sync(spec)
            assert len(TOYS) == 2
        TOYS[0].gate.set()
        with pytest.raises(Released):
            call.result(LONG)
        until(lambda: TOYS[0].marks[-1] == "stop")
        assert not any("reset" in mark for mark in TOYS[0].marks)


async def test_a_coroutine_in_flight(resources: Resources) -> None:
    event = asyncio.Event()
    async with Context("r1", resources=resources) as context:
        task = asyncio.create_task((await context.acquire_resource(ToySpec())).awaited(event))
        while TOYS[0].entered.empty():  # noqa: ASYNC110 - another task of this loop
            await asyncio.sleep(0)
    async with Context("r2", resources=resources) as context:
        with pytest.raises(Unavailable, match="outlives its rollout 'r1'"):
            await context.acquire_resource(ToySpec(), timeout=SOON)
        event.set()
        with pytest.raises(Released, match="rollout 'r1'"):
            await task
        await context.acquire_resource(ToySpec())


async def test_a_cancelled_coroutine_leaves_the_resource(resources: Resources) -> None:
    async with Context("r1", resources=resources) as context:
        toy = await context.acquire_resource(ToySpec())
        task = asyncio.create_task(toy.awaited(asyncio.Event()))
        while TOYS[0].entered.empty():  # noqa: ASYNC110 - another task of this loop
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert toy.mark("a") == ["a"]
    async with Context("r2", resources=resources) as context:
        await context.acquire_resource(ToySpec(), timeout=LONG)


class Shared(Resource):
    """Notices when two rollouts are in it, or a reset beside a call."""

    def __init__(self) -> None:
        self.owner = ""
        self.calls = 0
        self.lock = threading.Lock()

    def reset(self) -> bool:
        if self.calls:
            WRONG.append(f"reset beside a call of {self.owner}")
        self.owner = ""
        return True

    def use(self, owner: str) -> None:
        with self.lock:
            self.calls += 1
            self.owner = self.owner or owner
        if self.owner != owner:
            WRONG.append(f"{owner} in the resource of {self.owner}")
        with self.lock:
            self.calls -= 1


class SharedSpec(Spec[Shared], frozen=True, kw_only=True):
    pool: Pool = Pool(max=2)

    def make(self) -> Shared:
        return Shared()


WRONG: list[str] = []


def test_stragglers_of_many_rollouts_reach_nobody(resources: Resources) -> None:
    WRONG.clear()
    ends: list[BaseException] = []

    def straggle(shared: Shared, owner: str) -> None:
        try:
            while True:
                shared.use(owner)
        except BaseException as error:
            ends.append(error)

    def rollouts(number: int) -> None:
        for turn in range(15):
            name = f"{number}.{turn}"
            with Context(name, resources=resources) as context:
                shared = context.acquire_resource_sync(SharedSpec(), timeout=LONG)
                for _ in range(2):
                    stragglers.submit(straggle, shared, name)
                shared.use(name)

    with ThreadPoolExecutor(8) as stragglers, ThreadPoolExecutor(4) as threads:
        for done in [threads.submit(rollouts, number) for number in range(4)]:
            done.result(LONG)
    assert WRONG == []
    assert len(ends) == 4 * 15 * 2
    assert {type(end) for end in ends} == {Released}


# Giving back and resetting before the end.


def test_a_resource_can_be_given_back_early(resources: Resources) -> None:
    with Context("r1", resources=resources) as one, Context("r2", resources=resources) as two:
        toy = one.acquire_resource_sync(ToySpec())
        assert one.is_spec_acquired(ToySpec())
        one.release_resource(toy)
        assert not one.is_spec_acquired(ToySpec())
        assert one.held == []
        assert two.acquire_resource_sync(ToySpec(), timeout=LONG).mark("b")
        with pytest.raises(Released, match="rollout 'r1'"):
            toy.mark("late")
        with pytest.raises(Released):
            one.release_resource(toy)
    assert len(TOYS) == 1


def test_a_resource_that_nobody_shall_get_again(resources: Resources) -> None:
    with Context("r1", resources=resources) as context:
        toy = context.acquire_resource_sync(ToySpec())
        context.end_resource(toy)
        with pytest.raises(Released):
            toy.mark("late")
        context.acquire_resource_sync(ToySpec())
    assert len(TOYS) == 2
    assert TOYS[0].marks == ["stop"]


def test_a_reset_in_the_middle_of_a_rollout(resources: Resources) -> None:
    with Context("r1", resources=resources) as context:
        toy = context.acquire_resource_sync(ToySpec())
        assert context.reset_resource_sync(toy) is toy
        assert toy.marks == ["reset by guerdon-Toy"]


@pytest.mark.parametrize("how", ["cannot", "raises"])
async def test_what_cannot_be_reset_is_replaced(resources: Resources, how: str) -> None:
    spec = ToySpec(reset=how)
    async with Context("r1", resources=resources) as context:
        toy = await context.acquire_resource(spec)
        other = await context.reset_resource(toy)
        assert other.mark("b") == ["b"]
        with pytest.raises(Released):
            toy.mark("late")
        third = context.reset_resource_sync(other)
        assert third.mark("c") == ["c"]
    assert len(TOYS) == 3


def test_what_is_shared_or_anothers_cannot_be_ended(resources: Resources) -> None:
    with Context("r1", resources=resources) as one, Context("r2", resources=resources) as two:
        shared = one.acquire_resource_sync(ToySpec(), scope="global")
        own = one.acquire_resource_sync(ToySpec(name="own"))
        for refused in (one.end_resource, one.reset_resource_sync):
            with pytest.raises(ConfigError, match="is shared by all of everybody"):
                refused(shared)
        for refused in (two.end_resource, two.reset_resource_sync, two.release_resource):
            with pytest.raises(ConfigError, match="was not acquired from <context of rollout 'r2'"):
                refused(own)
            with pytest.raises(ConfigError, match="this Toy was not acquired from a context"):
                refused(TOYS[0])
        one.release_resource(shared)
        assert two.acquire_resource_sync(ToySpec(), scope="global").mark("still there")


# Processes that are forked.


def test_a_forked_child_cannot_use_what_the_parent_has(resources: Resources) -> None:
    reader, writer = os.pipe()
    with Context("parent", resources=resources) as context:
        toy = context.acquire_resource_sync(ToySpec())
        child = os.fork()
        if child == 0:
            told = []
            for use in (
                lambda: toy.mark("child"),
                lambda: context.acquire_resource_sync(ToySpec(name="x")),
                lambda: Context("child", resources=resources).acquire_resource_sync(ToySpec()),
            ):
                try:
                    use()
                except Exception as error:
                    told.append(type(error).__name__)
            context.close()
            resources.close()
            os.write(writer, " ".join(told).encode())
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert os.read(reader, 1000) == b"Released Unavailable Unavailable"
        assert toy.mark("parent") == ["parent"]
    os.close(reader)
    os.close(writer)
