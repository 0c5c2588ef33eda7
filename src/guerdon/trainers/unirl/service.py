"""UniRL's `RewardService`: scores a track of rollouts and attaches its rewards.

Source of the contract: `unirl/reward/service.py` of UniRL 0.1.0, which scores a request and its
track, and of later versions, which score the last part of a sample. It differs in what it lets
through: a NaN, a missing reward, or a number of another length than the track stops the step here.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from guerdon.errors import ConfigError, MissingExtra, ScoringFailed, nearest
from guerdon.trainers.no_score import LARGEST_SINGLE
from guerdon.trainers.unirl.request import KINDS, RewardRequest, modality
from guerdon.truncation import MODES

SHOWN = 3
"""Failures that a message quotes, as UniRL's."""


class StepStopped(ScoringFailed, RuntimeError):
    """Samples have no reward: a `RuntimeError`, as UniRL's service raises."""


class RewardService:
    """Scores one track at a time with one backend, UniRL's or ours.

    Args:
        backend: has `preferred_input_kind` and `compute_rewards(request)`.
        truncated_reward: what texts that reached the limit of tokens earn: `zero` (at most 0; a
            negative reward is not raised to it), `keep`, or `soft` (a penalty that grows over the
            last `overlong_buffer_len` tokens).
        overlong_buffer_len: tokens before the limit over which `soft` falls.
        overlong_penalty_factor: what `soft` takes away at the limit.

    Raises:
        ConfigError: an unknown mode, or a buffer that is none.
    """

    def __init__(
        self,
        backend: Any,
        truncated_reward: str = "zero",
        overlong_buffer_len: int = 4096,
        overlong_penalty_factor: float = 1.0,
    ) -> None:
        if truncated_reward not in MODES:
            hint = nearest(truncated_reward, MODES)
            raise ConfigError(
                f"truncated_reward is zero, keep or soft, got {truncated_reward!r}{hint}"
            )
        if not overlong_buffer_len > 0:
            raise ConfigError(f"overlong_buffer_len is above 0, got {overlong_buffer_len}")
        self.backend = backend
        self.truncated_reward = truncated_reward
        self.overlong_buffer_len = overlong_buffer_len
        self.overlong_penalty_factor = overlong_penalty_factor

    @property
    def preferred_input_kind(self) -> str:
        """What the backend scores.

        Raises:
            ConfigError: it does not say.
        """
        kind = str(getattr(self.backend, "preferred_input_kind", "")).strip().lower()
        if kind not in KINDS:
            raise ConfigError(f"the backend's preferred_input_kind is {kind!r}, not one of {KINDS}")
        return kind

    def score_and_attach(self, sample: Any = None, *, req: Any = None, track: Any = None) -> Any:
        """A copy with `rewards` and `component_rewards`, float32 [samples]; the input stays.

        Args:
            sample: of later versions of UniRL: its `Sample`, whose last part is scored.
            req: of UniRL 0.1.0: its `RolloutReq`: `primitives`, `metadata`, `sampling_params`.
            track: its `RolloutTrack`: `sample_ids`, `group_ids`, `decoded`, `segment`.

        Returns:
            The sample, or the track.

        Raises:
            StepStopped: samples have no reward: how many and the first three.
            RuntimeError: it has rewards already, the request does not fit the track, or a backend
                of UniRL gave no reward to a sample.
            ValueError: the metadata does not fit, or there is nothing of the backend's kind.
        """
        if sample is None:
            return self._scored(track, _of_track(req, track, self.preferred_input_kind), _ar(req))
        part = sample.parts[-1]
        request = _of_sample(sample, self.preferred_input_kind)
        scored = self._scored(part, request, part.sampling_params)
        return sample.with_parts([*sample.parts[:-1], scored])

    def _scored(self, made: Any, request: RewardRequest, ar: Any) -> Any:
        ids = request.sample_ids or []
        response = self.compute_rewards(request)
        numbers = _checked(response, len(ids))
        scored = copy.copy(made)
        scored.rewards = _tensor(self._shaped(numbers, ar, getattr(made, "segment", None)))
        scored.component_rewards = {
            str(name): _tensor(np.asarray(_of_length(values, len(ids), str(name)), np.float64))
            for name, values in dict(response.component_rewards or {}).items()
        }
        return scored

    def is_available(self) -> bool:
        """Whether the backend can score."""
        return self.backend.is_available()

    def offload(self) -> None:
        """Free the backend's device."""
        self.backend.offload()

    def onload(self) -> None:
        """Take it again."""
        self.backend.onload()

    def dispose(self) -> None:
        """End the backend."""
        self.backend.dispose()

    def shutdown(self) -> None:
        """As `dispose`; later versions of UniRL call it when a worker ends."""
        self.dispose()

    def compute_rewards(self, request: RewardRequest) -> Any:
        """What the backend gives for a request, unchecked."""
        return self.backend.compute_rewards(request)

    def _shaped(self, rewards: NDArray[np.float64], ar: Any, segment: Any) -> NDArray[np.float64]:
        limit = getattr(ar, "max_new_tokens", None)
        lengths = getattr(segment, "lengths", None)
        if self.truncated_reward == "keep" or limit is None or lengths is None:
            return rewards
        if self.preferred_input_kind != "text" or getattr(ar, "emits_fixed_length", False):
            return rewards  # pictures made of tokens have the length that they must have
        tokens = np.asarray([int(length) for length in lengths])
        if len(tokens) != len(rewards):
            raise ValueError(f"{len(tokens)} lengths for {len(rewards)} rewards of a text track")
        if self.truncated_reward == "zero":
            return np.where(tokens >= int(limit), np.minimum(rewards, 0.0), rewards)
        over = tokens - (int(limit) - self.overlong_buffer_len)
        penalty = -over / self.overlong_buffer_len * self.overlong_penalty_factor
        return rewards + np.minimum(penalty, 0.0)


def _of_track(req: Any, track: Any, kind: str) -> RewardRequest:
    _check_unscored(track)
    if track.decoded is None:
        raise ValueError(f"the backend scores {kind}, and the track has nothing decoded")
    ids, group_ids = list(track.sample_ids), list(track.group_ids)
    primitives, metadata = _expanded(req, len(ids))
    sound = getattr(track, "decoded_audio", None)
    return RewardRequest(
        primitives=primitives,
        generated={kind: track.decoded} | ({} if sound is None else {"audio": sound}),
        metadata=_told(_aligned(metadata, group_ids)),
        prompt_ids=ids,
        sample_ids=ids,
        group_ids=group_ids,
        audio_sample_rate=getattr(track, "audio_sample_rate", None),
    )


def _of_sample(sample: Any, kind: str) -> RewardRequest:
    """What is to be scored of a `Sample`: its last part, after the turns that led to it.

    Raises:
        ValueError: the part has nothing of the backend's kind.
    """
    part = sample.parts[-1]
    _check_unscored(part)
    generated = dict(part.primitives)
    if kind not in generated:
        raise ValueError(
            f"the backend scores {kind}, and the last part has {sorted(generated) or 'nothing'}"
        )
    ids = list(part.sample_ids)
    turns = [(turn.role, turn.content) for turn in sample.turns()]
    texts = [content for _, content in turns if modality(content) == "text"]
    images = [c for role, c in turns if role == "user" and modality(c) == "image"]
    sound = getattr(part, "primitive_metadata", {}).get("audio", {})
    return RewardRequest(
        primitives={modality(content): content for _, content in turns},
        generated=generated,
        metadata=_told(sample.root_metadata(-1)),
        prompt_ids=ids,
        sample_ids=ids,
        group_ids=list(part.group_ids),
        original_prompt=texts[0] if texts else None,
        image_references=images,
        audio_sample_rate=sound.get("sample_rate"),
    )


def _check_unscored(made: Any) -> None:
    if made.rewards is not None:
        raise RuntimeError("there are rewards already: score each track once")


def _told(metadata: list[Any]) -> list[Any] | None:
    """Metadata, or None where no sample has any."""
    return metadata if any(row is not None for row in metadata) else None


def _ar(req: Any) -> Any:
    return _params(req).get("ar")


def _params(req: Any) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", getattr(req, "sampling_params", None) or {})


def _expanded(req: Any, samples: int) -> tuple[dict[str, Any], list[Any]]:
    """Primitives and metadata with one entry per sample: N prompts of M samples each.

    Raises:
        RuntimeError: another multiple than the sampling says.
    """
    primitives = {key: value for key, value in req.primitives.items() if value is not None}
    metadata = list(req.metadata or [])
    size = next((len(value) for value in primitives.values()), samples)
    if size == samples:
        return primitives, metadata
    said = math.prod(int(getattr(one, "samples_per_prompt", 1)) for one in _params(req).values())
    if not size or samples % size or samples // size != said:
        raise RuntimeError(
            f"{size} prompts and a track of {samples} samples, where the sampling makes {said} of "
            "each prompt"
        )
    if len(metadata) == size:
        metadata = [row for row in metadata for _ in range(said)]
    return {key: value.repeat_interleave(said) for key, value in primitives.items()}, metadata


def _aligned(metadata: Sequence[Any], group_ids: Sequence[str]) -> list[Any]:
    """Metadata per sample: as it is, or by prompt.

    Raises:
        ValueError: it is neither one entry per sample nor one per prompt.
    """
    if not metadata:
        return [None] * len(group_ids)
    if len(metadata) == len(group_ids):
        return list(metadata)
    prompts = list(dict.fromkeys(group_ids))
    if len(metadata) != len(prompts):
        raise ValueError(
            f"{len(metadata)} metadata entries for {len(group_ids)} samples of {len(prompts)} "
            "prompts"
        )
    by_prompt = dict(zip(prompts, metadata, strict=True))
    return [by_prompt[group] for group in group_ids]


def _checked(response: Any, samples: int) -> NDArray[np.float64]:
    """The numbers of a response in which every sample has one.

    Raises:
        StepStopped: one has not, in a response of Guerdon's.
        RuntimeError: one has not, or there are more or fewer of them.
    """
    rewards = _of_length(response.rewards, samples, "rewards")
    successes = _of_length(response.successes, samples, "successes")
    errors = _of_length(response.errors or [None] * samples, samples, "errors")
    numbers = [float(value) if isinstance(value, Real) else math.nan for value in rewards]
    failed = [
        (i, errors[i] or f"the backend gave {rewards[i]!r}")
        for i in range(samples)
        if not successes[i] or not abs(numbers[i]) <= LARGEST_SINGLE
    ]
    if failed:
        told = (
            f"{len(failed)} of {samples} samples have no reward; the first ones: {failed[:SHOWN]}"
        )
        outcomes = getattr(response, "outcomes", None)
        raise RuntimeError(told) if outcomes is None else StepStopped(told, outcomes)
    return np.asarray(numbers, np.float64)


def _of_length(values: Any, samples: int, name: str) -> list[Any]:
    found: list[Any] = values.tolist() if hasattr(values, "tolist") else list(values or ())
    if len(found) != samples:
        raise RuntimeError(f"the backend gave {len(found)} {name} for {samples} samples")
    return found


def _tensor(values: NDArray[np.float64]) -> Any:
    try:
        import torch
    except ImportError:
        raise MissingExtra("torch", "models", "a reward tensor for UniRL") from None
    return torch.tensor(values.tolist(), dtype=torch.float32)
