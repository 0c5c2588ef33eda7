"""No trainer at all: the service, called directly."""

from guerdon.outcome import Failure, Score
from guerdon.policy import NO_RETRY, Policy
from guerdon.sample import Sample
from guerdon.service import RewardService

from .adapter import Seen

MASKS = True
MASKED = Policy(retry=NO_RETRY, on={"scorer": "mask", "infrastructure": "mask", "data": "mask"})


async def score(reward, rows, backend):
    return await _score(reward, rows, backend, Policy(retry=NO_RETRY))


async def score_on(reward, rows, backend):
    return await _score(reward, rows, backend, MASKED)


async def _score(reward, rows, backend, policy):
    service = RewardService(reward, backend=backend, policy=policy)
    samples = [
        Sample(
            prompt=row.prompt,
            response=row.response,
            ground_truth=row.ground_truth,
            data_source=row.data_source,
            metadata={"judge": row.judge, "fault": row.fault},
        )
        for row in rows
    ]
    try:
        outcomes = await service.score(samples)
    except Exception as error:
        return [error] * len(rows)
    rewards, assigned = outcomes.rewards, outcomes.assigned.mask
    return [
        Seen(
            float(rewards.values[i]) if rewards.mask[i] else None,
            bool(assigned[i]),
            type(outcome).__name__.lower(),
            f"{outcome.kind} ({outcome.blame})" if isinstance(outcome, Failure) else "",
            dict(outcome.components) if isinstance(outcome, Score) else None,
        )
        for i, outcome in enumerate(outcomes)
    ]
