"""OpenRLHF: one query per call, each in a thread, as its executor makes them.

The columns of a row travel in its label.
"""

import asyncio
import math

from guerdon.trainers.openrlhf import StopTraining, reward_func_for

from .adapter import NEUTRAL
from .flags import Flags

MASKS = False


async def score(reward, rows, backend):
    return await _score(reward, rows, backend=backend, retry_within=0)


async def score_on(reward, rows, backend):
    settings = {"retry_within": 0, "neutral": NEUTRAL, "failure_share": 1.0}
    return await _score(reward, rows, backend=backend, **settings)


async def _score(reward, rows, **settings):
    function = reward_func_for(reward, label_columns=True, **settings)
    with Flags() as flags:
        calls = [asyncio.to_thread(_call, function, row, flags) for row in rows]
        found = await asyncio.gather(*calls)
    function.close()
    return found


def _call(function, row, flags):
    label = {
        "ground_truth": row.ground_truth,
        "data_source": row.data_source,
        "judge": row.judge,
        "fault": row.fault,
    }
    try:
        found = function([f"{row.prompt}{row.response}</s>"], [row.prompt], [label])
    except StopTraining as stop:
        return stop.__cause__
    logs = found["extra_logs"]
    parts = {name: logs[name] for name in function.components}
    parts = {name: None if math.isnan(value) else value for name, value in parts.items()}
    seen = flags.seen(found["rewards"], parts)
    assert logs["guerdon_assigned"] == seen.assigned
    assert logs["guerdon_failed"] == (seen.kind == "failure")
    return seen
