"""verl's `BasePPORewardModel`, for forks that still have it: tensors in, a tensor out.

    RewardModel({"reward": "scalar_reward_model", "options": {"model": "/models/rm"}})

Contract: verl before 4ef45d093, `verl/workers/reward_model/base.py`. The class is not derived from
verl's, which later versions do not have; forks look for its methods only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from guerdon import registry
from guerdon.errors import ConfigError, nearest
from guerdon.trainers.loop import LoopScorer
from guerdon.trainers.scalar import without_nodes

KEYS = ("reward", "options", "lock_timeout")


class RewardModel:
    """A reward model between rollout and update, on the device only while it scores.

    Args:
        config: a mapping with `reward` (a reference to a reward model that reads text), its
            `options`, and `lock_timeout`: seconds to wait for the device.
        model_config: as verl gives it; not used, the reward knows its checkpoint.
        device_mesh: likewise.

    Raises:
        ConfigError: an unknown key, or no reward.

    Example:
        >>> RewardModel({"rewrad": "x"})
        Traceback (most recent call last):
        guerdon.errors.ConfigError: reward model: no key 'rewrad' (did you mean 'reward'?)
    """

    def __init__(self, config: Any, model_config: Any = None, device_mesh: Any = None) -> None:
        given = dict(cast("Mapping[str, Any]", config))
        for key in given:
            if key not in KEYS:
                raise ConfigError(f"reward model: no key {key!r}{nearest(key, KEYS)}")
        if "reward" not in given:
            raise ConfigError("reward model: name one under 'reward'")
        reward = given["reward"]
        options = without_nodes(given.get("options") or {})
        if isinstance(reward, str):
            reward = registry.resolve(reward, **options)
        self._scorer = LoopScorer(reward, lock_timeout=given.get("lock_timeout"))
        self.config = config
        self.model_config = model_config
        self.device_mesh = device_mesh

    def compute_reward(self, data: Any) -> Any:
        """`reward`, float32 (batch, sequence), not 0 only at the last attended token of a row.

        Args:
            data: a `DataProto` or a mapping with `input_ids`, `attention_mask`, `position_ids`.

        Raises:
            BadInput: rows without a token or a score.
        """
        return self._scorer.compute_reward(data)

    def compute_rm_score(self, data: Any) -> Any:
        """`rm_scores`, float32 (batch, response): the same, cut to the response.

        Raises:
            BadInput: as `compute_reward`, or the batch has no `responses`.
        """
        batch: Any = getattr(data, "batch", data)
        if "responses" not in set(batch.keys()):
            raise ConfigError("compute_rm_score needs 'responses' in the batch")
        width = batch["responses"].shape[1]
        found = self._scorer.compute_reward(data, key="rm_scores")
        table: Any = getattr(found, "batch", found)
        length = table["rm_scores"].shape[1]
        table["rm_scores"] = table["rm_scores"][:, length - width :]
        return found

    def close(self) -> None:
        """Stop threads and workers."""
        self._scorer.close()

    def __enter__(self) -> RewardModel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
