"""VeRL-Omni: one awaited call per picture, by keywords; the text stands in `extra_info`."""

import asyncio
import math

import numpy as np

from guerdon.trainers.verl_omni import ComputeScore, Settings

from .adapter import NEUTRAL
from .verl_adapter import seen_in

MASKS = False
PROMPTS = False
"""The response is a picture: a model of conversations has nothing to read."""
PICTURE = np.zeros((8, 8, 3), np.uint8)


async def score(reward, rows, backend):
    return await _score(reward, rows, backend=backend, retry_within=0)


async def score_on(reward, rows, backend):
    settings = {"retry_within": 0, "neutral": NEUTRAL, "failure_share": 1.0}
    return await _score(reward, rows, backend=backend, **settings)


async def _score(reward, rows, **settings):
    compute_score = ComputeScore(reward, Settings(**settings))
    calls = [
        compute_score(
            data_source=row.data_source,
            solution_image=PICTURE,
            ground_truth=row.ground_truth,
            extra_info={
                "response": row.response,
                "prompt": row.prompt,
                "judge": row.judge,
                "fault": row.fault,
                "num_turns": None,
                "rollout_reward_scores": {},
            },
        )
        for row in rows
    ]
    found = await asyncio.gather(*calls, return_exceptions=True)
    compute_score.close()
    return [seen_in(_with_holes(row)) if isinstance(row, dict) else row for row in found]


def _with_holes(row):
    """NaN, which VeRL-Omni's columns have where there is no component, as None."""
    return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()}
