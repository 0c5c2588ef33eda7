"""A number that a Guerdon server assigns is no score for Guerdon's own clients of any dialect."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from server.protocols.scalar_clients import post

from guerdon.errors import Blame, FailureKind
from guerdon.outcome import Abstention, Failure, Score, failure
from guerdon.policy import NO_RETRY, Policy
from guerdon.remote.latent import RemoteLatent
from guerdon.remote.openrlhf import OpenRlhfReward
from guerdon.remote.pickled import RemotePickle
from guerdon.remote.pooling import PoolingReward
from guerdon.remote.slime import SlimeReward
from guerdon.remote.unirl import RemoteUniRL
from guerdon.reward import reward
from guerdon.sample import Media, Sample
from guerdon.service import RewardService
from guerdon.wire.assigned import LONGEST, LONGEST_IN_HEADER

pytest.importorskip("PIL")

WORDS = ("crashed/candidate", "timeout/candidate", "abstain/", "score/")
LONG = "\ud800" + "ü" * LONGEST
MASKED = Policy(retry=NO_RETRY, on=dict.fromkeys(("infrastructure", "scorer", "data"), "mask"))


@reward(auto_register=False, value_range=(-1.0, 1.0))
def faulty(sample: Sample) -> Any:
    """What the text says; of latents, what the number of the first says."""
    latents = sample.metadata.get("latents")
    text = WORDS[int(latents.flat[0])] if latents is not None else sample.prompt_text
    kind, _, blame = str(text).partition("/")
    if kind == "score":
        return 0.5
    if kind == "abstain":
        return Abstention(reason=LONG)
    return failure(FailureKind(kind), LONG, Blame(blame), evidence="it died")


def sample(place: int) -> Sample:
    metadata = {
        "latents": np.full((1, 2, 2), place, np.float32),
        "prompt_embeds": np.zeros((1, 2), np.float32),
        "pooled_prompt_embeds": np.zeros(2, np.float32),
    }
    return Sample(prompt=WORDS[place], response="x", metadata=metadata)


def picture(place: int) -> Sample:
    image = Media(
        kind="image", array=np.full((2, 2, 3), place, np.uint8), layout="HWC", value_range="uint8"
    )
    return Sample(prompt=WORDS[place], images=(image,))


def slime(url: str) -> Any:
    return SlimeReward(f"{url}/rm")


def slime_by_key(url: str) -> Any:
    return SlimeReward(f"{url}/rm", reward_key="score")


def openrlhf(url: str) -> Any:
    return OpenRlhfReward(url)


def openrlhf_one_by_one(url: str) -> Any:
    return OpenRlhfReward(url, batch_size=1)


def pairs(url: str) -> Any:
    return PoolingReward(url, api="score", form="pair")


def conversations(url: str) -> Any:
    return PoolingReward(url, api="classify", form="messages")


def unirl(url: str) -> Any:
    return RemoteUniRL(url, reward="faulty", metadata_keys=())


def pickled(url: str) -> Any:
    return RemotePickle(f"{url}/")


def latent(url: str) -> Any:
    return RemoteLatent(f"{url}/drm")


CLIENTS = [
    ({"name": "slime"}, slime, sample),
    ({"name": "slime", "reward_key": "score"}, slime_by_key, sample),
    ({"name": "openrlhf"}, openrlhf, sample),
    ({"name": "openrlhf"}, openrlhf_one_by_one, sample),
    ({"name": "vllm"}, pairs, sample),
    ({"name": "vllm"}, conversations, sample),
    ({"name": "unirl"}, unirl, sample),
    ({"name": "pickle"}, pickled, picture),
    ({"name": "latent"}, latent, sample),
]


@pytest.mark.parametrize(("dialect", "client", "made"), CLIENTS)
def test_what_stands_behind_a_number_arrives(
    serve: Any, dialect: dict[str, Any], client: Any, made: Any
) -> None:
    hosted = {"faulty": {"reward": faulty, "inline": True, "retry": {"attempts": 1}}}
    server = serve(hosted, dialects=[{**dialect, "abstention": 0.25}])
    remote = client(f"http://127.0.0.1:{server.port}")
    samples = [made(place) for place in range(len(WORDS))]
    with RewardService(remote, policy=MASKED) as service:
        crashed, late, abstained, scored = service.score_sync(samples)
    longest = LONGEST_IN_HEADER if dialect["name"] == "slime" else LONGEST
    told = "\\ud800" + "ü" * (longest - 1) + "..."
    assert isinstance(crashed, Failure)
    assert (crashed.kind, crashed.blame) == (FailureKind.CRASHED, Blame.CANDIDATE)
    assert (crashed.message, crashed.evidence) == (told, "it died")
    assert isinstance(late, Failure)
    assert (late.kind, late.message) == (FailureKind.TIMEOUT, told)
    assert isinstance(abstained, Abstention)
    assert abstained.reason == told
    assert isinstance(scored, Score)
    assert scored.value == 0.5


def test_scores_carry_none_of_it(serve: Any) -> None:
    hosted = {"faulty": {"reward": faulty, "inline": True}}
    server = serve(hosted, dialects=["slime", "openrlhf", "vllm"])
    asked = json.dumps({"prompt": "score/", "response": "x"}).encode()
    assert "x-guerdon-outcome" not in server.post(asked, path="/rm").headers
    for path, payload in (
        ("/get_reward", {"query": ["score/x"], "prompts": ["score/"]}),
        ("/score", {"text_1": "score/", "text_2": "x"}),
    ):
        status, text = post(server.port, path, payload)
        assert status == 200
        assert "guerdon_" not in text
