"""Children run at once, stop together, and may be broken."""

import asyncio
import threading
from typing import Any

import pytest

from guerdon.compose import Conditional, Gate, Minimum, Product, WeightedSum
from guerdon.compose.arithmetic import Calculation
from guerdon.injection import Call
from guerdon.outcome import Abstention, Score
from guerdon.reward import BaseReward
from guerdon.sample import Sample


class Meeting(BaseReward):
    """Its evaluation ends only when all others of its meeting have begun."""

    auto_register = False

    def __init__(self, name: str, barrier: asyncio.Barrier) -> None:
        self.name = name
        self.barrier = barrier

    async def evaluate(self, samples: Any, evaluator: Any) -> Any:
        await self.barrier.wait()
        return [Score(value=1.0) for _ in samples]


class Stuck(BaseReward):
    """Waits for ever, and notes when it is stopped."""

    auto_register = False

    def __init__(self, name: str, started: asyncio.Event) -> None:
        self.name = name
        self.started = started
        self.cleaned_up = False

    async def evaluate(self, samples: Any, evaluator: Any) -> Any:
        self.started.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            self.cleaned_up = True


class Broken(BaseReward):
    """Does in `evaluate` what it is told."""

    auto_register = False

    def __init__(self, name: str, action: Any) -> None:
        self.name = name
        self.action = action

    async def evaluate(self, samples: Any, evaluator: Any) -> Any:
        return (
            await self.action(samples)
            if asyncio.iscoroutinefunction(self.action)
            else self.action(samples)
        )


class Nobody:
    call = Call()

    async def leaf(self, reward: Any, samples: Any) -> Any:
        raise AssertionError


ONE = [Sample(sample_id="0", data_source="a")]


async def test_children_run_at_once() -> None:
    barrier = asyncio.Barrier(3)
    children = [Meeting(name, barrier) for name in "abc"]
    gate = Gate(children[:2], children[2], threshold=0.0, closed=0.0)
    for made in (WeightedSum(children), gate):
        (score,) = await asyncio.wait_for(made.evaluate(ONE, Nobody()), 10)
        assert isinstance(score, Score)


async def test_cases_run_at_once() -> None:
    barrier = asyncio.Barrier(2)
    made = Conditional([Meeting("a", barrier), Meeting("b", barrier)], when={"a": "a", "b": "b"})
    batch = [*ONE, Sample(sample_id="1", data_source="b")]
    outcomes = await asyncio.wait_for(made.evaluate(batch, Nobody()), 10)
    assert [type(o) for o in outcomes] == [Score, Score]


async def test_cancellation_reaches_every_child() -> None:
    started = [asyncio.Event(), asyncio.Event()]
    inner = Stuck("inner", started[0])
    outer = Stuck("outer", started[1])
    task = asyncio.create_task(Minimum([outer, Product([inner])]).evaluate(ONE, Nobody()))
    for event in started:
        await event.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert inner.cleaned_up
    assert outer.cleaned_up


class Bug(Exception):
    pass


async def test_a_bug_in_one_child_stops_the_others_and_is_seen() -> None:
    stuck = Stuck("stuck", asyncio.Event())

    async def fail(_: Any) -> Any:
        await stuck.started.wait()
        raise Bug("in evaluate") from KeyError("cause")

    with pytest.raises(Bug, match="in evaluate") as caught:
        await Minimum([stuck, Broken("broken", fail)]).evaluate(ONE, Nobody())
    assert stuck.cleaned_up
    assert isinstance(caught.value.__cause__, KeyError)


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (lambda samples: [], "gave 0 outcomes for 1 samples"),
        (lambda samples: [Score(value=1.0)] * 2, "gave 2 outcomes for 1 samples"),
        (lambda samples: [1.0], "gave float, which is no outcome"),
        (lambda samples: [None], "gave NoneType, which is no outcome"),
    ],
)
async def test_what_is_no_outcome_is_a_failure(action: Any, message: str) -> None:
    for made in (
        Product([Broken("broken", action)]),
        Conditional([Broken("broken", action)], {"broken": "a"}),
    ):
        (lost,) = await made.evaluate(ONE, Nobody())
        assert str(lost.kind) == "bad_output"
        assert str(lost.blame) == "scorer"
        assert lost.message == f"broken: {message}"
        assert lost.sample == "0"


def test_no_samples(stage: Any) -> None:
    a, b = stage.reward("a"), stage.reward("b", value_range=(0, 1))
    for made in (
        WeightedSum([a, b]),
        Gate([a], b, threshold=1.0),
        Gate([a], b, threshold=1.0, sequential=True),
        Conditional([a], {"a": "x"}),
    ):
        result = stage.run(made, 0)
        assert result.outcomes == []
        assert result.asked == {}


class Where(Calculation):
    """Notes the threads on which it calculates."""

    def __init__(self, child: BaseReward) -> None:
        self.threads: set[int] = set()
        self._compose([self._read_one(child, None)], name=None, value_range=(0.0, 10_000.0))

    def _operation(self, numbers: list[float]) -> float:
        self.threads.add(threading.get_ident())
        return numbers[0]


@pytest.mark.parametrize(("count", "own_thread"), [(10, True), (10_000, False)])
def test_large_batches_leave_the_loop_free(stage: Any, count: int, own_thread: bool) -> None:
    values = [float(i) if i % 3 else None for i in range(count)]
    made = Where(stage.reward("a", *values))
    outcomes = stage.run(made, count).outcomes
    assert (made.threads == {threading.get_ident()}) is own_thread
    for i, outcome in enumerate(outcomes):
        assert outcome.sample == str(i)
        assert isinstance(outcome, Score if i % 3 else Abstention)
        assert i % 3 == 0 or outcome.value == i
