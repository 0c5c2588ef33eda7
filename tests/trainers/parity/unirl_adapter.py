"""UniRL: one call per shard; the samples of a text track, through our service and backend."""

import asyncio
import math
import re
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from guerdon.errors import ScoringFailed  # noqa: E402
from guerdon.trainers.unirl import GuerdonBackend, RewardService  # noqa: E402

from .adapter import NEUTRAL, Seen  # noqa: E402

MASKS = False
FLAGS = ("guerdon_failed", "guerdon_assigned")


class Recording(GuerdonBackend):
    """Keeps the response, in which numbers are not float32 yet."""

    def compute_rewards(self, request):
        self.response = super().compute_rewards(request)
        return self.response


class Texts:
    def __init__(self, texts):
        self.texts = texts

    def __len__(self):
        return len(self.texts)


async def score(reward, rows, backend):
    return await _score(reward, rows, backend=backend, retry_within=0)


async def score_on(reward, rows, backend):
    settings = {"retry_within": 0, "neutral": NEUTRAL, "failure_share": 1.0}
    return await _score(reward, rows, backend=backend, **settings)


async def _score(reward, rows, **settings):
    recording = Recording(reward, input_kind="text", **settings)
    ids = [f"p{i}/c0" for i in range(len(rows))]
    metadata = [
        {
            "answer": row.ground_truth,
            "data_source": row.data_source,
            "judge": row.judge,
            "fault": row.fault,
        }
        for row in rows
    ]
    req = SimpleNamespace(
        primitives={"text": Texts([row.prompt for row in rows])},
        metadata=metadata,
        sampling_params={},
    )
    track = SimpleNamespace(
        sample_ids=ids,
        group_ids=[row.prompt for row in rows],
        decoded=Texts([row.response for row in rows]),
        segment=None,
        rewards=None,
    )
    service = RewardService(recording)
    try:
        scored = await asyncio.to_thread(service.score_and_attach, req=req, track=track)
    except ScoringFailed as error:
        return [error] * len(rows)
    finally:
        service.dispose()
    response = recording.response
    assert scored.rewards.tolist() == torch.tensor(response.rewards).tolist()
    assert response.successes == [True] * len(rows)
    return [_seen(response, i) for i in range(len(rows))]


def _seen(response, i):
    found = {name: column[i] for name, column in response.component_rewards.items()}
    failed, assigned = (found.pop(name) == 1.0 for name in FLAGS)
    number, error = response.rewards[i], response.errors[i]
    if error is None:
        assert not failed
        assert not assigned
        holes = {k: None if math.isnan(value) else value for k, value in found.items()}
        return Seen(number, False, "score", "", holes)
    text = re.fullmatch(r"assigned [^ ]+: [^:]+: (.*)", error, re.DOTALL)[1]
    if not failed:
        assert text.startswith("abstention: ")
        return Seen(number, assigned, "abstention")
    return Seen(number, assigned, "failure", text.partition(":")[0])
