"""verl's reward loop: our manager, one call per trajectory, all of them at once.

It reads a batch of the loop's form, here of arrays that pass for tensors and of tokens that are
bytes; what verl itself does with it is in the contract tests.
"""

import asyncio
from types import SimpleNamespace

import numpy as np

from guerdon.trainers.verl_manager import GuerdonRewardManager

from .adapter import NEUTRAL
from .verl_adapter import seen_in

MASKS = False


class Tensor(np.ndarray):
    """An array that is asked for as a tensor is."""

    def numpy(self, *, force=False):
        return np.asarray(self)


class Bytes:
    """A tokenizer whose tokens are the bytes of the text."""

    def decode(self, ids, skip_special_tokens=False):
        return bytes(list(ids)).decode("utf-8", "surrogatepass")


async def score(reward, rows, backend):
    return await _score(rows, reward=reward, backend=backend, retry_within=0)


async def score_on(reward, rows, backend):
    settings = {"retry_within": 0, "neutral": NEUTRAL, "failure_share": 1.0}
    return await _score(rows, reward=reward, backend=backend, **settings)


async def _score(rows, **reward_kwargs):
    config = SimpleNamespace(reward={"reward_kwargs": reward_kwargs})
    manager = GuerdonRewardManager(config, Bytes(), None)
    calls = [manager.run_single(_trajectory(row)) for row in rows]
    found = await asyncio.gather(*calls, return_exceptions=True)
    return [_seen(row) if isinstance(row, dict) else row for row in found]


def _seen(row):
    seen = seen_in(row["reward_extra_info"])
    assert row["reward_score"] == seen.number
    return seen


def _trajectory(row):
    """One output, right-padded, as the agent loop sends it."""
    ids = list(row.response.encode("utf-8", "surrogatepass"))
    columns = {
        "data_source": row.data_source,
        "reward_model": {"style": "rule", "ground_truth": row.ground_truth},
        "extra_info": {"judge": row.judge, "fault": row.fault},
        "raw_prompt": [{"role": "user", "content": row.prompt}],
        "uid": row.prompt,
        "prompt_len": 4,
        "response_len": len(ids),
    }
    return SimpleNamespace(
        batch={
            "responses": np.array([[*ids, 0, 0, 0]]).view(Tensor),
            "prompts": np.zeros((1, 4), int).view(Tensor),
        },
        non_tensor_batch={key: _column(value) for key, value in columns.items()},
    )


def _column(value):
    array = np.empty(1, dtype=object)
    array[0] = value
    return array
