"""AgentFly: one awaited call per rollout, by keywords, as its chain makes it."""

import asyncio
import math

from guerdon.trainers.agentfly import register

from .adapter import NEUTRAL
from .flags import Flags

MASKS = False


async def score(reward, rows, backend):
    return await _score(reward, rows, backend=backend, retry_within=0)


async def score_on(reward, rows, backend):
    settings = {"retry_within": 0, "neutral": NEUTRAL, "failure_share": 1.0}
    return await _score(reward, rows, backend=backend, **settings)


async def _score(reward, rows, **settings):
    rewards = {}
    function = register(reward, into=rewards.__setitem__, **settings)
    (called,) = rewards.values()
    with Flags() as flags:
        calls = [_call(called, row, place, flags) for place, row in enumerate(rows)]
        found = await asyncio.gather(*calls, return_exceptions=True)
    function.close()
    return found


async def _call(called, row, place, flags):
    said = {"role": "assistant", "content": [{"type": "text", "text": row.response}]}
    trajectory = [{"role": "user", "content": row.prompt}, {**said, "tool_calls": []}]
    found = await called(
        final_response=row.response,
        trajectory=trajectory,
        id=f"rollout-{place}",
        chain_id=f"rollout-{place}",
        group_id=row.prompt,
        group_idx=0,
        chain_idx=place,
        finish_reason="no_tool_calls",
        context=None,
        answer=row.ground_truth,
        data_source=row.data_source,
        judge=row.judge,
        fault=row.fault,
    )
    values = {name: found[name] for name in called.components}
    components = {name: None if math.isnan(value) else value for name, value in values.items()}
    seen = flags.seen(found["reward"], components)
    assert found["guerdon_assigned"] == seen.assigned
    assert found["guerdon_failed"] == (seen.kind == "failure")
    return seen
