"""Running children: several at once, over all samples or some of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, TypeVar, cast

from msgspec.structs import replace

from guerdon.backends.threads import THREADS
from guerdon.compose.child import Member
from guerdon.errors import Blame, FailureKind
from guerdon.outcome import Abstention, Failure, Outcome, Score, failure
from guerdon.reward import BaseReward, Evaluator
from guerdon.sample import Sample

T = TypeVar("T")

LARGE_BATCH = 4096
"""Samples from which a pass over them is too long for the caller's event loop."""


async def together(works: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of all coroutines, run concurrently, in their order.

    When one raises, or the caller is cancelled, the others are cancelled and waited for.

    Raises:
        BaseException: the first that any of them raised.
    """
    if len(works) == 1:
        return [await works[0]]
    error: BaseException | None = None
    tasks: list[asyncio.Task[T]] = []
    try:
        async with asyncio.TaskGroup() as group:
            tasks.extend(group.create_task(work) for work in works)
    except BaseExceptionGroup as raised:
        error = raised.exceptions[0]
    if error is not None:
        raise error
    return [task.result() for task in tasks]


async def off_loop(samples: Sequence[object], work: Callable[[], T]) -> T:
    """Run work over all samples, on a thread where it would stall the caller's event loop."""
    if len(samples) < LARGE_BATCH:
        return work()
    return await asyncio.wrap_future(THREADS.submit(work))


async def columns(
    members: Sequence[Member], samples: Sequence[Sample], evaluator: Evaluator
) -> list[list[Outcome]]:
    """The outcomes of each member for all samples; a reward used under two names runs once."""
    firsts: dict[int, Member] = {}
    for member in members:
        firsts.setdefault(id(member.reward), member)
    found = await together([_evaluate(m, samples, evaluator) for m in firsts.values()])
    by_reward = dict(zip(firsts, found, strict=True))
    return [by_reward[id(member.reward)] for member in members]


async def some(
    member: Member, positions: Sequence[int], samples: Sequence[Sample], evaluator: Evaluator
) -> list[Outcome]:
    """The outcomes of one member for some of the samples, in the order of the positions.

    A member that scores whole groups sees whole groups: all samples of every group from which at
    least one is asked for.
    """
    if len(positions) == len(samples):
        return await _evaluate(member, samples, evaluator)
    if not positions:
        return []
    if member.reward.scope != "group":
        return await _evaluate(member, [samples[i] for i in positions], evaluator)
    whole = _whole_groups(samples, positions)
    outcomes = await _evaluate(member, [samples[i] for i in whole], evaluator)
    by_position = dict(zip(whole, outcomes, strict=True))
    return [by_position[i] for i in positions]


def scope_of(rewards: Iterable[BaseReward]) -> str:
    """The scope of a composition: `group` where any child needs whole groups, then `batch`."""
    scopes = {reward.scope for reward in rewards}
    return next((scope for scope in ("group", "batch") if scope in scopes), "sample")


def _whole_groups(samples: Sequence[Sample], positions: Sequence[int]) -> list[int]:
    wanted = {samples[i].group_id for i in positions} - {None}
    asked = set(positions)
    return [i for i, s in enumerate(samples) if i in asked or s.group_id in wanted]


async def _evaluate(
    member: Member, samples: Sequence[Sample], evaluator: Evaluator
) -> list[Outcome]:
    if not samples:
        return []
    reward = member.reward
    outcomes = await reward.evaluate(samples, evaluator)
    if len(outcomes) != len(samples):
        found = f"gave {len(outcomes)} outcomes for {len(samples)} samples"
        return [_broken(reward, sample, found) for sample in samples]
    if type(reward).evaluate is BaseReward.evaluate:
        return outcomes
    # A reward with an `evaluate` of its own may return anything.
    return [
        o if isinstance(cast("object", o), Score | Abstention | Failure) else _stray(reward, s, o)
        for s, o in zip(samples, outcomes, strict=True)
    ]


def _stray(reward: BaseReward, sample: Sample, outcome: object) -> Failure:
    return _broken(reward, sample, f"gave {type(outcome).__name__}, which is no outcome")


def _broken(reward: BaseReward, sample: Sample, message: str) -> Failure:
    lost = failure(FailureKind.BAD_OUTPUT, message, Blame.SCORER)
    return replace(
        lost, reward=reward.name, fingerprint=reward.fingerprint, sample=sample.sample_id
    )
