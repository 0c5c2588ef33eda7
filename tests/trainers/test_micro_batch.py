"""Samples of concurrent callers are scored together, and each gets what became of its own."""

import asyncio
import gc
import threading
import weakref

import pytest

from guerdon.errors import BadInput, BudgetExceeded, CircuitOpen, ScoringFailed
from guerdon.outcome import Failure, Score
from guerdon.policy import Assign, Breaker, Budget, Policy
from guerdon.reward import BaseReward, reward
from guerdon.sample import Sample
from guerdon.service import RewardService
from guerdon.trainers import micro_batch
from guerdon.trainers.micro_batch import LARGEST, MicroBatches


class Sizes(BaseReward):
    """Notes how many samples come together."""

    scope = "batch"
    auto_register = False

    def __init__(self):
        self.seen = []

    def call(self, *, responses: list[str]) -> list[float]:
        self.seen.append(len(responses))
        if "bad" in responses:
            raise BadInput("one is bad")
        return [float(text) for text in responses]


@reward(auto_register=False, value_range=(0.0, 1.0))
def strict(response: str) -> float:
    if response == "bad":
        raise BadInput("unusable")
    return float(response)


def samples(*texts):
    return [Sample(response=text) for text in texts]


async def test_calls_made_together_are_one_batch():
    sizes = Sizes()
    batches = MicroBatches(RewardService(sizes))
    found = await asyncio.gather(*[batches.score(s) for s in samples("1", "2", "3")])
    assert [one.number for one in found] == [1.0, 2.0, 3.0]
    assert sizes.seen == [3]


async def test_what_comes_while_a_batch_is_scored_is_the_next(monkeypatch):
    monkeypatch.setattr(micro_batch, "PATIENCE", 3600)  # only the end of the first sends it
    started, go = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()
    sizes = []

    @reward(scope="batch", auto_register=False)
    def slow(responses):
        sizes.append(len(responses))
        loop.call_soon_threadsafe(started.set)
        assert go.wait(30)
        return [float(text) for text in responses]

    batches = MicroBatches(RewardService(slow))
    first = asyncio.ensure_future(batches.score(Sample(response="1")))
    await started.wait()
    rest = [asyncio.ensure_future(batches.score(s)) for s in samples("2", "3", "4")]
    await asyncio.sleep(0)
    go.set()
    assert [one.number for one in await asyncio.gather(first, *rest)] == [1.0, 2.0, 3.0, 4.0]
    assert sizes == [1, 3]


async def test_a_sample_that_takes_long_holds_up_no_later_one():
    started, release = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    @reward(auto_register=False)
    def slow(response):
        if response == "1":
            loop.call_soon_threadsafe(started.set)
            assert release.wait(30)
        return float(response)

    batches = MicroBatches(RewardService(slow))
    stuck = asyncio.ensure_future(batches.score(Sample(response="1")))
    await started.wait()
    later = await batches.score(Sample(response="2"))
    assert later.number == 2.0
    assert not stuck.done()
    release.set()
    assert (await stuck).number == 1.0


async def test_a_batch_has_an_upper_size():
    sizes = Sizes()
    batches = MicroBatches(RewardService(sizes))
    many = samples(*map(str, range(LARGEST + 5)))
    found = await asyncio.gather(*[batches.score(s) for s in many])
    assert [one.number for one in found] == [float(i) for i in range(LARGEST + 5)]
    assert max(sizes.seen) == LARGEST
    assert sum(sizes.seen) == LARGEST + 5


async def test_one_failure_leaves_its_neighbours_alone():
    batches = MicroBatches(RewardService(strict))
    one, bad, zero = await asyncio.gather(*[batches.score(s) for s in samples("1", "bad", "0")])
    assert (one.number, zero.number) == (1.0, 0.0)
    assert isinstance(one.outcome, Score)
    assert isinstance(bad.outcome, Failure)
    assert (bad.number, bad.assigned) == (None, False)


async def test_an_assigned_number_is_flagged():
    policy = Policy(on={"data": Assign(0.25)})
    batches = MicroBatches(RewardService(strict, policy=policy))
    one, bad = await asyncio.gather(*[batches.score(s) for s in samples("1", "bad")])
    assert (one.number, one.assigned) == (1.0, False)
    assert (bad.number, bad.assigned) == (0.25, True)


async def test_the_failure_budget_stops_everybody():
    policy = Policy(on={"data": Assign(0.25)}, budget=Budget(0.1))
    batches = MicroBatches(RewardService(strict, policy=policy))
    found = await asyncio.gather(
        *[batches.score(s) for s in samples("1", "bad")], return_exceptions=True
    )
    assert [type(error) for error in found] == [BudgetExceeded] * 2


async def test_an_open_breaker_stops_everybody():
    policy = Policy(on={"data": Assign(0.25)}, breaker=Breaker(share=0.5, window=2))
    batches = MicroBatches(RewardService(strict, policy=policy))
    with pytest.raises(CircuitOpen):
        await asyncio.gather(*[batches.score(s) for s in samples("bad", "bad")])
    with pytest.raises(CircuitOpen):
        await batches.score(Sample(response="1"))


@pytest.mark.parametrize("in_flight", [False, True])
async def test_a_caller_that_goes_away_costs_the_others_nothing(in_flight):
    started, go = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    @reward(auto_register=False)
    def held(response):
        loop.call_soon_threadsafe(started.set)
        assert go.wait(30)
        return float(response)

    batches = MicroBatches(RewardService(held))
    gone = asyncio.ensure_future(batches.score(Sample(response="0")))
    stays = asyncio.ensure_future(batches.score(Sample(response="1")))
    await (started.wait() if in_flight else asyncio.sleep(0))
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    go.set()
    assert (await stays).number == 1.0


def test_one_loop_after_another():
    batches = MicroBatches(RewardService(strict))
    for _ in range(3):
        assert asyncio.run(batches.score(Sample(response="1"))).number == 1.0


def test_a_loop_that_has_ended_is_let_go():
    batches = MicroBatches(RewardService(strict))
    loops = []

    async def once():
        loops.append(weakref.ref(asyncio.get_running_loop()))
        return await batches.score(Sample(response="1"))

    for _ in range(4):
        asyncio.run(once())
    gc.collect()
    # The last one stays until there is another.
    assert [loop() is None for loop in loops] == [True, True, True, False]


def test_loops_in_several_threads():
    batches = MicroBatches(RewardService(strict))
    found = []

    async def many():
        return await asyncio.gather(*[batches.score(s) for s in samples(*["1", "0"] * 20)])

    threads = [threading.Thread(target=lambda: found.extend(asyncio.run(many()))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(one.number for one in found) == [0.0] * 80 + [1.0] * 80


async def test_a_batch_together_raises_for_nobody():
    batches = MicroBatches(RewardService(strict))
    found = await batches.score_batch(samples("1", "bad"))
    assert [one.number for one in found] == [1.0, None]
    with pytest.raises(ScoringFailed):
        await RewardService(strict).score(samples("1", "bad"))


async def test_a_batch_is_cancelled_when_all_its_callers_have_given_up():
    began, ended = asyncio.Event(), asyncio.Event()

    class Waiting:
        async def score(self, *_, **__):
            began.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

    batches = MicroBatches(Waiting())
    calls = [asyncio.ensure_future(batches.score(Sample(response="4"))) for _ in range(2)]
    await began.wait()
    calls[0].cancel()
    for _ in range(10):
        await asyncio.sleep(0)
    assert not ended.is_set()  # somebody still waits
    calls[1].cancel()
    await asyncio.wait_for(ended.wait(), 60)
    assert [call.cancelled() for call in calls] == [True, True]
