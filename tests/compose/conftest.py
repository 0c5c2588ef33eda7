"""Rewards that say what a test tells them, and an evaluator that notes who was asked for what."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pytest

from guerdon.errors import Blame, FailureKind
from guerdon.injection import Call
from guerdon.outcome import Abstention, Failure, Outcome, Score, failure
from guerdon.reward import BaseReward
from guerdon.sample import Sample


def outcome(raw: Any) -> Outcome:
    """A number is a score, None an abstention, "timeout/candidate" a failure; outcomes stay."""
    if isinstance(raw, Score | Abstention | Failure):
        return raw
    if raw is None:
        return Abstention(reason="does not apply")
    if isinstance(raw, str):
        kind, _, blame = raw.partition("/")
        return failure(FailureKind(kind), f"it was {kind}", Blame(blame), evidence="seen")
    return Score(value=float(raw))


class Scripted(BaseReward):
    """Gives sample "0" the first outcome of its script, sample "1" the second, and so on."""

    auto_register = False

    def __init__(self, name: str, script: Sequence[Any] = ()) -> None:
        self.name = name
        self.script = [outcome(raw) for raw in script]

    def call(self, *, response: str, ground_truth: str = "", level: int = 0) -> float:
        raise AssertionError("a scripted reward is only ever evaluated")


class Recorder:
    """An evaluator for scripted rewards."""

    def __init__(self, step: int | None = None) -> None:
        self.call = Call(step=step)
        self.asked: list[tuple[str, list[str]]] = []

    async def leaf(self, reward: BaseReward, samples: Sequence[Sample]) -> list[Outcome]:
        assert isinstance(reward, Scripted)
        self.asked.append((reward.name, [str(sample.sample_id) for sample in samples]))
        await asyncio.sleep(0)
        return [reward.script[int(str(sample.sample_id))] for sample in samples]


class Result(NamedTuple):
    outcomes: list[Outcome]
    asked: dict[str, list[str]]
    """Sample ids by name of the reward that was asked for them."""


class Stage:
    """What the tests build with."""

    @staticmethod
    def reward(name: str, *script: Any, **settings: Any) -> BaseReward:
        return Scripted(name, script).configure(**settings)

    @staticmethod
    def samples(count: int, **columns: Sequence[Any]) -> list[Sample]:
        return [
            Sample(sample_id=str(i), **{key: column[i] for key, column in columns.items()})
            for i in range(count)
        ]

    @staticmethod
    def run(
        reward: BaseReward, samples: int | Sequence[Sample] = 1, step: int | None = None
    ) -> Result:
        batch = Stage.samples(samples) if isinstance(samples, int) else samples
        recorder = Recorder(step)
        outcomes = asyncio.run(reward.evaluate(batch, recorder))
        asked: dict[str, list[str]] = {}
        for name, ids in recorder.asked:
            asked.setdefault(name, []).extend(ids)
        return Result(outcomes, asked)

    @staticmethod
    def one(reward: BaseReward, step: int | None = None, **fields: Any) -> Outcome:
        return Stage.run(reward, [Sample(sample_id="0", **fields)], step).outcomes[0]

    outcome = staticmethod(outcome)
    recorder: Callable[..., Recorder] = Recorder


@pytest.fixture(scope="session")
def stage() -> type[Stage]:
    return Stage
