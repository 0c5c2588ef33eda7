"""Compositions end to end, through the service that trainers use."""

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from guerdon.compose import (
    Cascade,
    Child,
    Clip,
    Conditional,
    Gate,
    GroupNormalise,
    Schedule,
    Value,
    WeightedSum,
    linear,
)
from guerdon.errors import (
    BadInput,
    Blame,
    ConfigError,
    FailureKind,
    GuerdonError,
    RewardFailure,
    ScoringFailed,
)
from guerdon.policy import Policy, Retry
from guerdon.reward import BaseReward, Evaluator, reward
from guerdon.rules.gsm8k import gsm8k
from guerdon.sample import Sample
from guerdon.service import RewardService

PATIENCE = 30.0
MASK = Policy(on={"data": "mask", "scorer": "mask", "infrastructure": "mask"})


@reward(value_range=(0.0, 1.0), auto_register=False)
def exact(response: str, ground_truth: str) -> bool:
    if ground_truth == "?":
        raise BadInput("the ground truth is unusable")
    return response == ground_truth


@reward(value_range=(-1.0, 0.0), auto_register=False)
async def brevity(response: str) -> float | None:
    if response == "loop":
        raise RewardFailure("looped", kind=FailureKind.TIMEOUT, blame=Blame.CANDIDATE)
    return None if not response else -len(response) / 100


@reward(scope="group", value_range=(0.0, 1.0), auto_register=False)
def shortest(samples: list[Sample]) -> list[float]:
    least = min(len(sample.response_text or "") for sample in samples)
    return [float(len(sample.response_text or "") == least) for sample in samples]


@reward(scope="batch", value_range=(0.0, 1.0), auto_register=False, batch_size=2)
async def share(responses: list[str]) -> list[float]:
    return [responses.count(text) / len(responses) for text in responses]


def batch() -> list[Sample]:
    rows = [("4", "4", "g"), ("44", "4", "g"), ("7", "?", "h"), ("loop", "4", "h"), ("", "4", "h")]
    return [
        Sample(response=r, ground_truth=t, group_id=g, sample_id=f"s{i}", data_source=f"{g}/{i}")
        for i, (r, t, g) in enumerate(rows)
    ]


def test_policies_settle_what_composition_kept() -> None:
    root = WeightedSum([exact, Child(brevity, 2.0)])
    with RewardService(root, policy=MASK) as service:
        outcomes = service.score_sync(batch())
    assert outcomes.mask.tolist() == [True, True, False, False, False]
    assert outcomes.values[:2] == pytest.approx([0.98, -0.04])
    assert str(outcomes.failures["s2"].blame) == "data"
    assert outcomes.failures["s2"].message == "exact: the ground truth is unusable"
    assert str(outcomes.failures["s3"].blame) == "candidate"
    assert list(outcomes.abstentions) == ["s4"]
    # The worst end of the root, by interval arithmetic: 0 + 2 * -1.
    assert outcomes.assigned.mask.tolist() == [False, False, False, True, False]
    assert outcomes.assigned.values[3] == -2.0
    assert outcomes.components["brevity"].mask.tolist() == [True, True, False, False, False]


def test_the_default_policy_names_child_and_sample() -> None:
    with (
        RewardService(WeightedSum([exact, brevity])) as service,
        pytest.raises(
            ScoringFailed, match=r"'s2': weighted_sum.*exact: the ground truth is unusable"
        ),
    ):
        service.score_sync(batch())


def test_stand_ins_are_columns_with_holes() -> None:
    root = WeightedSum([Child(exact, missing=Value(0.0)), Child(brevity, missing=Value(-1.0))])
    with RewardService(root) as service:
        outcomes = service.score_sync(batch())
    assert outcomes.mask.all()
    assert outcomes.values[2:] == pytest.approx([-0.01, -1.0, -1.0])
    assert outcomes.components["exact"].mask.tolist() == [True, True, False, True, True]
    assert outcomes.components["brevity"].mask.tolist() == [True, True, True, False, False]


def test_groups_and_batches() -> None:
    root = WeightedSum(
        {
            "relative": Clip(GroupNormalise(exact, std=None), low=-1.0, high=1.0),
            "shortest": Child(shortest, 10.0),
            "share": Child(share, 100.0),
        }
    )
    with RewardService(root, policy=MASK) as service:
        outcomes = service.score_sync(batch()[:2])
    assert outcomes.values.tolist() == [60.5, 49.5]


def test_group_rewards_behind_a_cascade_see_whole_groups() -> None:
    root = Cascade([exact, shortest], undecided=(0.0, 0.0))
    with RewardService(root, policy=MASK) as service:
        outcomes = service.score_sync(batch()[:2])
    # Only "44" is undecided; beside "4" it is not the shortest.
    assert outcomes.values.tolist() == [1.0, 0.0]


def test_steps_reach_schedules_from_any_thread() -> None:
    fading = WeightedSum([Child(exact, linear(1.0, 0.0, 0, 10))], name="fading")
    root = Schedule([exact, fading], phases={0: "exact", 5: "fading"})
    with RewardService(root) as service:
        values = [service.score_sync(batch()[:1], step=step).values[0] for step in (4, 5, 10)]
    assert values == [1.0, 0.5, 0.0]


def test_a_schedule_without_a_step_scores_nothing() -> None:
    root = Schedule([exact], phases={0: "exact"})
    with (
        RewardService(root) as service,
        pytest.raises(GuerdonError, match="depends on the training step"),
    ):
        service.score_sync(batch()[:1])


def test_leaves_are_retried_not_compositions() -> None:
    tries: dict[str, int] = {}

    @reward(value_range=(0.0, 1.0), auto_register=False)
    async def flaky(sample_id: str) -> float:
        tries[sample_id] = tries.get(sample_id, 0) + 1
        if tries[sample_id] == 1:
            raise ConnectionError("gone")
        return 1.0

    policy = Policy(retry=Retry(attempts=2, first_delay=0.0))
    with RewardService(Gate([flaky], exact, threshold=1.0), policy=policy) as service:
        outcomes = service.score_sync(batch()[:2])
    assert outcomes.values.tolist() == [1.0, 0.0]
    assert tries == {"s0": 2, "s1": 2}


def test_real_rollouts_by_data_source(shared_data: Any) -> None:
    import json

    path = next(shared_data.rglob("gsm8k_rollouts.jsonl"))
    rows = [json.loads(line) for line in path.read_text().splitlines()[:200]]
    samples = [
        Sample(
            response=row["response"],
            ground_truth=row["ground_truth"],
            sample_id=str(i),
            data_source="openai/gsm8k" if i % 2 else "other",
        )
        for i, row in enumerate(rows)
    ]
    routed = Conditional({"math": gsm8k, "rest": exact}, {"math": "*gsm8k"}, otherwise="rest")
    with RewardService(routed) as service, RewardService(gsm8k) as alone:
        outcomes = service.score_sync(samples)
        expected = alone.score_sync(samples)
    for i, outcome in enumerate(outcomes):
        if i % 2:
            assert outcome.value == expected[i].value
            assert outcome.components == {"math": outcome.value, "rest": None}


def test_service_and_direct_call_agree() -> None:
    root = Cascade({"rule": exact, "mix": WeightedSum([exact, brevity])}, undecided=(0.0, 0.0))
    samples = batch()
    with RewardService(root, policy=MASK) as service:
        outcomes = service.score_sync(samples)
    direct = root.call_sync(samples=samples)
    for ours, theirs in zip(outcomes, direct, strict=True):
        assert type(ours) is type(theirs)
        assert getattr(ours, "value", None) == getattr(theirs, "value", None)
        assert ours.fingerprint == theirs.fingerprint


def test_an_error_of_one_child_frees_what_the_others_hold() -> None:
    begun, freed = threading.Event(), threading.Event()

    @reward(auto_register=False)
    async def endless(response: str) -> float:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            freed.set()
        return 1.0

    class Misused(BaseReward):
        auto_register = False

        def call(self, response: str) -> float:
            return 1.0

        async def evaluate(self, samples: Sequence[Sample], evaluator: Evaluator) -> Any:
            assert await asyncio.to_thread(begun.wait, PATIENCE)
            raise ConfigError("set up in a way that cannot work")

    with RewardService(WeightedSum([endless, Misused()])) as service:
        with pytest.raises(ConfigError, match="cannot work"):
            service.score_sync([Sample(response="x")])
        assert freed.wait(PATIENCE)
