"""VeRL-Omni's protocol for rewards that read latents: safetensors in, JSON out.

    dialects: [{name: latent, path: /drm, reward: drm}]

The reward finds in the sample's metadata `latents` (C, h, w), `prompt_embeds` (L, D),
`pooled_prompt_embeds` (D,), the noise level `u` and, where the request has one, the integer `seed`.
Arrays keep their dtype; bfloat16, which numpy lacks, arrives as the equal float32. VeRL-Omni sends
one sample at a time; a request may hold more of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from guerdon.errors import MalformedMessage
from guerdon.outcome import Outcome
from guerdon.sample import Sample
from guerdon.server.protocols.dialect import (
    Dialect,
    DialectSettings,
    PageRoute,
    Query,
    Rewards,
    ScoreRoute,
    Standing,
    checked_path,
    join,
)
from guerdon.server.protocols.json_body import json_reply
from guerdon.server.protocols.number import Numbers, message_of, status_of
from guerdon.server.protocols.scalar import maximised
from guerdon.server.refusal import Refused
from guerdon.server.speech import Headers, Reply
from guerdon.wire.assigned import behind
from guerdon.wire.protocol import ErrorCode, ScoreReply, ScoreRequest
from guerdon.wire.safetensors import read_tensors

VERSION = "1"
VERSION_HEADER = b"x-drm-protocol-version"
RANKS: Mapping[str, int] = {"u": 1, "latents": 4, "prompt_embeds": 3, "pooled_prompt_embeds": 2}
"""Tensors of a request and their dimensions, the first of which counts the samples."""
SEEDS = "seeds"
SERVING = ("ready", "degraded")


class LatentSettings(DialectSettings, frozen=True, kw_only=True):
    """What can be set.

    Attributes:
        timeout_seconds: of the scoring of one request; the client gives up after 120 s.
        path: where it is; the client takes any URL.
        reward: that it serves; the only one by default.
    """

    timeout_seconds: float = 110.0
    path: str = "/drm"
    reward: str | None = None


class Latent(Dialect):
    """The dialect; see the module."""

    name = "latent"
    Settings = LatentSettings

    def __init__(self, settings: LatentSettings, rewards: Rewards) -> None:
        super().__init__(settings, rewards)
        self._reward = maximised(settings.reward, rewards)
        path = join(settings.prefix, checked_path(settings.path))
        health = join(settings.prefix, "/healthz")
        self.routes = (
            Scoring(path, self._reward, settings, rewards),
            PageRoute(health, self._health, "Whether latents can be scored"),
        )

    def _health(self, standing: Standing) -> Reply:
        state = standing.states[self._reward]
        fine = state in SERVING and not standing.draining
        return json_reply({"status": "ok" if fine else state}, 200 if fine else 503)


class Scoring(ScoreRoute):
    """`POST` of latents.

    Args:
        path: with the prefix.
        reward: that it serves.
        settings: of the dialect.
        rewards: the hosted rewards.
    """

    summary = "Score latents"
    bulky = True

    def __init__(self, path: str, reward: str, settings: LatentSettings, rewards: Rewards) -> None:
        super().__init__(path)
        self._reward = reward
        self._numbers = Numbers(settings, rewards)

    def read(self, body: memoryview, headers: Headers) -> Query:
        """The samples of a file of tensors."""
        version = headers.get(VERSION_HEADER, b"").strip().decode("latin-1")
        if version != VERSION:
            raise Refused(
                ErrorCode.UNSUPPORTED_PROTOCOL,
                f"this server speaks version {VERSION!r} of the protocol, and the header "
                f"{VERSION_HEADER.decode()} says {version[:50]!r}",
            )
        samples = _samples(read_tensors(body))
        request = ScoreRequest(samples=samples, rewards=[self._reward])

        def write(replies: Sequence[ScoreReply]) -> Reply:
            return self._write(replies[0].results[0].outcomes)

        return Query([request], write)

    def refuse(self, refused: Refused) -> Reply:
        """The client shows the body of what is not a 200."""
        return _error(refused.message, refused.status)

    def _write(self, outcomes: Sequence[Outcome]) -> Reply:
        numbers, lost = self._numbers.of_all(self._reward, outcomes)
        if lost:
            return _error(message_of(lost, len(outcomes)), status_of(lost.values()))
        content: dict[str, Any] = {
            "protocol_version": VERSION,
            "raw_scores": [number.value for number in numbers],
        }
        flags = behind(outcomes)
        if flags:
            content["assigned"] = flags
        return json_reply(content, assigned=len(flags))


def _error(message: str, status: int) -> Reply:
    return json_reply({"protocol_version": VERSION, "error": message}, status)


def _samples(tensors: Mapping[str, Any]) -> list[Sample]:
    unknown = [name for name in tensors if name not in (*RANKS, SEEDS)]
    missing = [name for name in RANKS if name not in tensors]
    if unknown or missing:
        told = f"no tensor {missing[0]!r}" if missing else f"an unknown tensor {unknown[0][:100]!r}"
        raise MalformedMessage(f"there is {told}; there are {', '.join(RANKS)}, maybe {SEEDS}")
    count = len(tensors["u"]) if tensors["u"].ndim else 0
    for name, rank in RANKS.items():
        _check(name, tensors[name], rank, "f", count)
    seeds = tensors.get(SEEDS)
    if seeds is not None:
        _check(SEEDS, seeds, 1, "iu", count)
    for level in tensors["u"]:
        if not 0 <= level <= 1:
            raise MalformedMessage(f"the noise level u lies in [0, 1], got {level}")
    return [
        Sample(
            metadata={
                **{name: tensors[name][i] for name in RANKS if name != "u"},
                "u": float(tensors["u"][i]),
                **({"seed": int(seeds[i])} if seeds is not None else {}),
            }
        )
        for i in range(count)
    ]


def _check(name: str, tensor: Any, rank: int, kinds: str, count: int) -> None:
    if tensor.ndim != rank or tensor.dtype.kind not in kinds or len(tensor) != count:
        what = "floats" if kinds == "f" else "integers"
        raise MalformedMessage(
            f"{name} has shape {tuple(tensor.shape)} and dtype {tensor.dtype}: {rank} dimensions "
            f"of {what} are needed, the first as long as u ({count})"
        )
