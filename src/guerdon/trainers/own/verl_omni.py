"""Functions written as VeRL-Omni's `compute_score` (0.2.0rc1, `visual` and `multi` managers)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from guerdon.errors import BadInput
from guerdon.media import frames_of, pixels_of
from guerdon.sample import Media
from guerdon.trainers.own.verl import ScoreFunction

RUNTIME = ("reward_router_address", "reward_model_tokenizer", "model_name", "sampling_params")
"""What VeRL-Omni adds where it runs a reward model."""

PLACEMENT = "device"
"""A field of `reward_functions` that VeRL-Omni's reward loop reads, too."""


class VerlOmniFunction(ScoreFunction):
    """`compute_score(data_source, solution_image, ground_truth, extra_info, **kwargs)`.

    It is called by keywords, of which it gets those that it names, with a uint8 tensor: (C, H, W)
    for an image, (T, C, H, W) for a video. It returns a number, or a dict with `score`.

    Args:
        function: `pkg.mod:name` or `path/to/file.py:name`.
        keywords: as further fields of `reward_functions`.

    Raises:
        InvalidReward: an object whose `__call__` is async, which VeRL-Omni does not await, or a
            keyword that the function does not take, which VeRL-Omni drops.
    """

    trainer = "VeRL-Omni"
    given = frozenset({"data_source", "solution_image", "ground_truth", "extra_info"})

    def _check_keywords(self, function: str) -> None:
        if self.wanted is not None and PLACEMENT not in self.wanted:
            self.keywords.pop(PLACEMENT, None)
        super()._check_keywords(function)

    def arguments(
        self,
        *,
        images: Sequence[Media] | None = None,
        videos: Sequence[Media] | None = None,
        ground_truth: Any = None,
        data_source: str = "",
        metadata: Mapping[str, Any] | None = None,
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """What VeRL-Omni's managers give for a sample.

        Raises:
            BadInput: the sample has no image or video, or more than one.
        """
        extra = dict(metadata or {})
        runtime = {key: extra.pop(key) for key in RUNTIME if key in extra}
        extra.setdefault("num_turns", None)
        extra.setdefault("rollout_reward_scores", {})
        row = {
            "data_source": data_source,
            "solution_image": _tensor([*(images or ()), *(videos or ())]),
            "ground_truth": ground_truth,
            "extra_info": extra,
            **runtime,
        }
        return (), {key: row[key] for key in row if self.wanted is None or key in self.wanted}


def _tensor(media: Sequence[Media]) -> Any:
    if len(media) != 1:
        raise BadInput(f"VeRL-Omni scores one image or video, and the sample has {len(media)}")
    try:
        import torch
    except ImportError:
        from guerdon.errors import MissingExtra

        raise MissingExtra("torch", "models", "a tensor for VeRL-Omni's functions") from None
    (one,) = media
    is_video = one.kind == "video"
    pixels = frames_of(one).pixels if is_video else pixels_of(one)
    moved = pixels.transpose(0, 3, 1, 2) if is_video else pixels.transpose(2, 0, 1)
    return cast("Any", torch).from_numpy(moved.copy())
