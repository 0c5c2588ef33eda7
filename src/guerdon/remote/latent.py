"""VeRL-Omni's latent reward servers as a reward.

reward: {name: latent_remote, url: "http://10.0.0.2:8000/v1/score"}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Unpack, cast

import numpy as np

from guerdon.errors import BadInput, Blame, ConfigError, FailureKind
from guerdon.outcome import Score, as_number, failure
from guerdon.remote.address import Urls
from guerdon.remote.foreign import ForeignReward, Given, Talk
from guerdon.sample import Sample
from guerdon.wire.assigned import restored
from guerdon.wire.safetensors import write_tensors

if TYPE_CHECKING:
    from guerdon.remote.reply import Answer

VERSION = "1"
HEADERS: Mapping[str, str] = {
    "content-type": "application/octet-stream",
    "x-drm-protocol-version": VERSION,
}
LATENTS = ("latents_clean", "latents")
"""Keys of the metadata that hold the latent; VeRL-Omni's first."""
RANKS: Mapping[str, int] = {"latents": 4, "prompt_embeds": 3, "pooled_prompt_embeds": 2}
NOISE_LEVEL = 0.4
"""VeRL-Omni's default (`latent_http_scorer_client.py`)."""


class RemoteLatent(ForeignReward):
    """Scores latents with a server of VeRL-Omni's latent protocol, one sample per request.

    The metadata holds `latents_clean` (or `latents`), `prompt_embeds` and `pooled_prompt_embeds`
    as arrays of numpy or tensors of torch, with or without a first dimension of 1; their dtypes
    travel as they are. The value is `score_scale` times what the server gives plus `score_bias`.

    Args:
        url: of the server with its path, or several that score alike; see `ForeignReward`.
        noise_level: at which the server looks at the latent, in [0, 1].
        noise_seed: of the noise; None leaves it to the server.
        score_scale: factor.
        score_bias: added.
        **talk: how servers are asked, and what the reward declares; see `ForeignReward`.

    Raises:
        ConfigError: a setting that cannot work.

    Example:
        >>> RemoteLatent("http://127.0.0.1:8000/v1/score", noise_level=0.2)
        <reward latent_remote of http://127.0.0.1:8000/v1/score>
    """

    name = "latent_remote"

    def __init__(
        self,
        url: Urls,
        *,
        noise_level: float = NOISE_LEVEL,
        noise_seed: int | None = 0,
        score_scale: float = 1.0,
        score_bias: float = 0.0,
        **talk: Unpack[Talk],
    ) -> None:
        if not 0 <= noise_level <= 1:
            raise ConfigError(f"latent_remote: noise_level lies in [0, 1], got {noise_level}")
        self._noise: dict[str, Any] = {"u": np.array([noise_level], np.float32)}
        if noise_seed is not None:
            self._noise["seeds"] = np.array([noise_seed], np.int64)
        self._scale, self._bias = score_scale, score_bias
        super().__init__(url, batch_size=1, **talk)

    def path(self) -> str:
        """The URL has it."""
        return ""

    def headers(self) -> Mapping[str, str]:
        """What is sent beside a request."""
        return HEADERS

    def item(self, sample: Sample) -> Any:
        """The file of tensors."""
        metadata = sample.metadata
        latents = next((metadata[key] for key in LATENTS if key in metadata), None)
        given = {**metadata, "latents": latents}
        tensors = {name: _batched(name, given.get(name), rank) for name, rank in RANKS.items()}
        return write_tensors({**tensors, **self._noise})

    def request(self, items: Sequence[Any]) -> bytes:
        """The body that asks for an item."""
        return items[0]

    def read(self, answer: Answer, items: Sequence[Any]) -> list[Given]:
        """The one score."""
        from guerdon.remote.exchange import json_of
        from guerdon.remote.reply import bad_reply

        reply = json_of(answer)
        if not isinstance(reply, dict):
            raise bad_reply(answer.url, "it is no object")
        found = cast("dict[str, Any]", reply)
        version = found.get("protocol_version")
        if version != VERSION:
            shown = repr(version)[:50]
            raise bad_reply(answer.url, f"it speaks version {shown} of the protocol")
        scores = found.get("raw_scores")
        if not isinstance(scores, list) or len(cast("list[Any]", scores)) != 1:
            raise bad_reply(answer.url, "it has no list of one raw score")
        if (flags := found.get("assigned")) is not None:
            behind = cast("dict[str, Any]", flags).get("0") if isinstance(flags, dict) else flags
            return [restored(behind)]
        raw = cast("list[Any]", scores)[0]
        number = None if isinstance(raw, bool) else as_number(raw)
        if number is None:
            raise bad_reply(answer.url, f"its raw score is a {type(raw).__name__}")
        value = number * self._scale + self._bias
        if not np.isfinite(value):
            told = f"the raw score is {number}"
            return [failure(FailureKind.NON_FINITE, told, Blame.SCORER)]
        return [Score(value=value, metrics={"raw_score": number})]


def _batched(name: str, tensor: Any, rank: int) -> Any:
    """A tensor with a first dimension of 1.

    Raises:
        BadInput: it is missing, no array, or of another shape.
    """
    if tensor is None:
        where = " or ".join(LATENTS) if name == "latents" else name
        raise BadInput(f"the metadata has no {where}")
    shape: tuple[int, ...] = tuple(getattr(tensor, "shape", ()))
    if len(shape) == rank - 1:
        return tensor[None]
    if len(shape) != rank or list(shape[:1]) != [1]:
        raise BadInput(f"{name} has shape {shape}; one sample has {rank - 1} dimensions")
    return tensor
