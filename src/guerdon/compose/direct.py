"""Calling a composition as a function: in this process, without service, policy or deadlines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from guerdon.errors import RewardFailure
from guerdon.injection import CALL_FIELDS, Call
from guerdon.outcome import Abstention, Failure, Outcome, Score
from guerdon.reward import BaseReward, sample_from
from guerdon.sample import Sample

if TYPE_CHECKING:
    from guerdon.backends.backend import Calls, Limits, Results
    from guerdon.evaluation import Evaluation


async def score_one(reward: BaseReward, keywords: Mapping[str, Any]) -> Score | Abstention:
    """The outcome for the one sample that keywords describe.

    Raises:
        RewardFailure: there is none; kind, blame and message are those of the failure.
    """
    given = {k: v for k, v in keywords.items() if k not in CALL_FIELDS}
    # What describes the sample travels in it; only options are for the children by name.
    named = {k: v for k, v in keywords.items() if k in CALL_FIELDS or k in _options(reward)}
    outcome = (await score_many(reward, [sample_from(given)], named))[0]
    if isinstance(outcome, Failure):
        raise RewardFailure(
            f"reward '{reward.name}': {outcome.message}",
            kind=outcome.kind,
            blame=outcome.blame,
            retryable=outcome.retryable,
        )
    return outcome


async def score_many(
    reward: BaseReward, samples: Sequence[Sample], keywords: Mapping[str, Any]
) -> list[Outcome]:
    """The outcomes for samples, failures included, in their order."""
    call = Call(
        step=keywords.get("step"),
        split=keywords.get("split", "train"),
        run_id=keywords.get("run_id"),
        keywords={k: v for k, v in keywords.items() if k not in CALL_FIELDS},
    )
    return await reward.evaluate(samples, _evaluation(call))


def _options(reward: BaseReward) -> set[str]:
    """The names of all options of the rewards below."""
    if not reward.children:
        return set(reward.parameters.options)
    return {name for child in reward.children.values() for name in _options(child)}


def _evaluation(call: Call) -> Evaluation:
    from guerdon.backends.backend import Limits
    from guerdon.evaluation import Evaluation
    from guerdon.policy import NO_RETRY

    backend = _backend()
    return Evaluation(lambda _: backend, NO_RETRY, call, Limits())


@cache
def _backend() -> _Unlimited:
    return _Unlimited()


class _Unlimited:
    """Runs everything in this process; the deadline of a sync reward is not kept."""

    name = "direct"

    def __init__(self) -> None:
        from guerdon.backends.inline import InlineBackend

        self._inline = InlineBackend()

    def run(self, reward: BaseReward, calls: Calls, limits: Limits) -> Results:
        if reward.deadline is not None and not reward.is_async:
            reward = reward.configure(deadline=None)
        return self._inline.run(reward, calls, limits)

    def close(self) -> None:
        self._inline.close()
