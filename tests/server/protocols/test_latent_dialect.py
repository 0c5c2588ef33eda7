"""VeRL-Omni's latent protocol, held by a client that was written from it."""

from __future__ import annotations

import asyncio
import json
import math
from typing import Any

import aiohttp
import numpy as np
import pytest

from guerdon.errors import Blame, ConfigError, FailureKind
from guerdon.outcome import failure
from guerdon.reward import reward
from guerdon.server import load
from guerdon.wire.safetensors import write_tensors

SEEN: list[dict[str, Any]] = []


@reward(auto_register=False)
def drm(
    latents: Any, prompt_embeds: Any, pooled_prompt_embeds: Any, u: float, seed: int = -1
) -> float:
    """The first latent, plus the noise level."""
    SEEN.append({"latents": latents, "prompt_embeds": prompt_embeds, "u": u, "seed": seed})
    return float(latents[0, 0, 0]) + u


@reward(auto_register=False, scope="batch", value_range=(-1.0, 1.0))
def fails(samples: list[Any]) -> list[Any]:
    """Fails with the kind and the blame that the seed numbers."""
    kinds, blames = list(FailureKind), list(Blame)
    return [
        failure(kinds[s.metadata["seed"] // 10], "it is so", blames[s.metadata["seed"] % 10])
        for s in samples
    ]


def tensors(value: float = 0.5, count: int = 1, **changes: Any) -> dict[str, Any]:
    found = {
        "latents": np.full((count, 16, 4, 4), value, np.float16),
        "prompt_embeds": np.zeros((count, 3, 5), np.float32),
        "pooled_prompt_embeds": np.zeros((count, 5), np.float32),
        "u": np.full(count, 0.25, np.float32),
        "seeds": np.full(count, 7, np.int64),
        **changes,
    }
    return {name: tensor for name, tensor in found.items() if tensor is not None}


class Lost(Exception):
    """What the trainer raises."""


async def ask(url: str, payload: bytes, version: str = "1") -> tuple[float, int]:
    """The score and the number of attempts; as `latent_http_scorer_client.py` does it, which tries
    everything three times."""
    headers = {"content-type": "application/octet-stream", "x-drm-protocol-version": version}
    last = ""
    async with aiohttp.ClientSession() as session:
        for attempt in range(3):
            async with session.post(url, data=payload, headers=headers) as response:
                if response.status != 200:
                    last = f"HTTP {response.status}: {await response.text()}"
                    continue
                result = await response.json()  # wants the content type of JSON
            if result.get("protocol_version") != "1":
                raise Lost("protocol mismatch")
            (raw,) = result["raw_scores"]
            if not math.isfinite(float(raw)):
                raise Lost("non-finite")
            return float(raw), attempt + 1
    raise Lost(last)


@pytest.fixture
def start(serve: Any, no_bug: Any) -> Any:
    def begin(one: Any, dialect: Any = "latent", **settings: Any) -> str:
        server = serve({"drm": {"reward": one, "inline": True}}, dialects=[dialect], **settings)
        return f"http://127.0.0.1:{server.port}"

    return begin


def test_a_latent_is_scored(start: Any) -> None:
    SEEN.clear()
    url = start(drm)
    assert asyncio.run(ask(f"{url}/drm", write_tensors(tensors()))) == (0.75, 1)
    (seen,) = SEEN
    assert seen["latents"].dtype == np.float16
    assert seen["latents"].shape == (16, 4, 4)
    assert seen["prompt_embeds"].shape == (3, 5)
    assert (seen["u"], seen["seed"]) == (0.25, 7)


def test_seeds_may_be_missing(start: Any) -> None:
    SEEN.clear()
    asyncio.run(ask(f"{start(drm)}/drm", write_tensors(tensors(seeds=None))))
    assert SEEN[0]["seed"] == -1


def test_latents_reach_a_worker_process(serve: Any, no_bug: Any) -> None:
    server = serve({"drm": {"reward": drm}}, dialects=["latent"])
    url = f"http://127.0.0.1:{server.port}/drm"
    assert asyncio.run(ask(url, write_tensors(tensors(0.125)))) == (0.375, 1)


@pytest.mark.neural
def test_the_bytes_of_the_real_writer(start: Any) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import save

    SEEN.clear()
    payload = save(
        {
            "latents": torch.full((1, 16, 4, 4), 0.5, dtype=torch.bfloat16),
            "prompt_embeds": torch.zeros(1, 3, 5, dtype=torch.bfloat16),
            "pooled_prompt_embeds": torch.zeros(1, 5, dtype=torch.bfloat16),
            "u": torch.tensor([0.4], dtype=torch.float32),
            "seeds": torch.tensor([0], dtype=torch.int64),
        }
    )
    score, _ = asyncio.run(ask(f"{start(drm)}/drm", payload))
    assert score == pytest.approx(0.9)
    assert SEEN[0]["latents"].dtype == np.float32


def test_a_batch_has_a_score_for_each(serve: Any, no_bug: Any) -> None:
    server = serve({"drm": {"reward": drm, "inline": True}}, dialects=["latent"])
    answer = server.post(
        write_tensors(tensors(count=3)),
        "application/octet-stream",
        "/drm",
        x_drm_protocol_version="1",
    )
    assert json.loads(answer.body) == {"protocol_version": "1", "raw_scores": [0.75] * 3}
    assert answer.headers["content-type"] == "application/json"


AGAIN = {"scorer": {"unavailable", "overloaded"}, "data": set[str]()}
AGAIN["infrastructure"] = {*AGAIN["scorer"], "timeout"}
"""Kinds for which another try may give a number, by blame."""


@pytest.mark.parametrize("blame", list(Blame))
def test_no_failure_of_a_latent_is_a_silent_number(serve: Any, no_bug: Any, blame: Blame) -> None:
    hosting = {"reward": fails, "inline": True, "retry": {"attempts": 1}}
    server = serve({"drm": hosting}, dialects=["latent"])
    url = f"http://127.0.0.1:{server.port}/drm"
    for number, kind in enumerate(FailureKind):
        payload = write_tensors(tensors(seeds=np.array([10 * number + list(Blame).index(blame)])))
        if blame is Blame.CANDIDATE:
            assert asyncio.run(ask(url, payload)) == (-1.0, 1)
            answer = server.post(payload, "x/y", "/drm", x_drm_protocol_version="1")
            behind = {"outcome": "failure", "kind": str(kind), "blame": "candidate"}
            assigned = json.loads(answer.body)["assigned"]
            assert assigned == {"0": {**behind, "message": "it is so"}}
            continue
        told = (
            rf"HTTP {503 if kind in AGAIN[blame] else 422}: .*{kind} \(blame: {blame}\): it is so"
        )
        with pytest.raises(Lost, match=told):
            asyncio.run(ask(url, payload))


BAD: dict[str, tuple[bytes, str]] = {
    "no tensors": (b"abc", "cut short"),
    "a tensor is missing": (write_tensors(tensors(latents=None)), "no tensor 'latents'"),
    "an unknown tensor": (write_tensors(tensors(weights=np.zeros(1))), "unknown tensor 'weights'"),
    "no batch": (write_tensors(tensors(latents=np.zeros((16, 4, 4), np.float32))), "latents has"),
    "integers": (write_tensors(tensors(latents=np.zeros((1, 16, 4, 4), np.int32))), "floats"),
    "seeds of floats": (write_tensors(tensors(seeds=np.zeros(1))), "integers"),
    "another count": (write_tensors(tensors(u=np.zeros(2, np.float32))), "as long as u (2)"),
    "u is no list": (write_tensors(tensors(u=np.full((), 0.5, np.float32))), "u has shape ()"),
    "u is NaN": (write_tensors(tensors(u=np.array([np.nan]))), "[0, 1], got nan"),
    "u is 2": (write_tensors(tensors(u=np.array([2.0]))), "[0, 1], got 2.0"),
    "cut short": (write_tensors(tensors())[:-1], "lies at"),
}


def test_bad_latents_are_refused(start: Any) -> None:
    url = f"{start(drm)}/drm"
    for case, (payload, told) in BAD.items():
        with pytest.raises(Lost) as caught:
            asyncio.run(ask(url, payload))
        assert "HTTP 400" in str(caught.value), case
        assert told in json.loads(str(caught.value).partition(": ")[2])["error"], case


def test_latents_that_are_not_finite_give_no_score(start: Any) -> None:
    with pytest.raises(Lost, match="non_finite"):
        asyncio.run(ask(f"{start(drm)}/drm", write_tensors(tensors(float("nan")))))


@pytest.mark.parametrize("version", ["2", "", "1.0"])
def test_another_version_is_refused(start: Any, version: str) -> None:
    with pytest.raises(Lost, match=r"HTTP 400: .*version '1' of the protocol"):
        asyncio.run(ask(f"{start(drm)}/drm", write_tensors(tensors()), version))


def test_health_tokens_and_methods(serve: Any, no_bug: Any) -> None:
    dialect = {"name": "latent", "path": "/v1/drm", "prefix": "/p", "reward": "drm"}
    hosted = {"drm": {"reward": drm, "inline": True}, "length": "length"}
    server = serve(hosted, dialects=[dialect], tokens={"trainer": "correct-horse"})
    host = f"any:correct-horse@127.0.0.1:{server.port}"
    score = asyncio.run(ask(f"http://{host}/p/v1/drm", write_tensors(tensors())))
    assert score == (0.75, 1)
    for _ in range(3000):
        health = server.get("/p/healthz?token=correct-horse")
        if health.status == 200:
            break
    assert json.loads(health.body) == {"status": "ok"}
    assert server.get("/p/healthz").status == 401
    assert server.send("GET", "/p/v1/drm").status == 405


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({"reward": "drms"}, "did you mean 'drm'?"),
        ({}, "its requests name no reward"),
        ({"path": "drm", "reward": "drm"}, "a path begins with a slash"),
        ({"path": "/v1/score", "reward": "drm"}, "belongs to the server itself"),
    ],
)
def test_the_configuration_of_latents_is_checked(entry: Any, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(
            {
                "rewards": {"drm": {"reward": drm, "inline": True}, "length": "length"},
                "dialects": [{"name": "latent", **entry}],
            },
            environment={},
        )
    assert told in str(caught.value)
