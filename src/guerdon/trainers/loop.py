"""A reward inside a training loop: on the device while it scores, and gone when it has scored.

scorer = LoopScorer(reward)
for step in range(steps):
    samples = rollout()                                    # engine on the device
    outcomes = scorer.score_then_offload(samples, step=step)  # reward models, one by one
    update(samples, outcomes.rewards)                      # trainer on the device
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, Self

from guerdon.errors import ConfigError
from guerdon.models.base import ModelReward, Residency
from guerdon.models.lock import DeviceLock
from guerdon.models.sharing import TakingTurns
from guerdon.models.tensors import column_of, score_tokens
from guerdon.models.text import TextModelReward
from guerdon.outcomes import Outcomes
from guerdon.policy import Policy
from guerdon.reward import BaseReward
from guerdon.service import Entry, RewardService
from guerdon.tokens import compute_reward
from guerdon.trainers.ranks import Ranks
from guerdon.trainers.shards import ShardScorer
from guerdon.truncation import Truncation


class LoopScorer:
    """Scores between rollout and update, on the same device as both.

    Each model of the reward takes the lock of its device, which no other process holds then, puts
    its weights there, scores, and takes them off again. When a call returns or raises, no model is
    on a device.

    Args:
        reward: the root, or a reference, as for `RewardService`; a model alone or a composition.
        policy: what becomes of failures.
        truncation: what responses that ran out of tokens earn.
        lock: in place of the locks of the models' own devices.
        lock_timeout: seconds that a model waits for its device; after that its samples fail as
            `unavailable`. None waits.
        pool: options of the pool for sync rewards with a deadline.
        ranks: the processes of the training run, where there are several: each scores its shard,
            and groups whose members are on several ranks are scored by one of them where the
            reward compares them or a policy drops groups.

    Example:
        >>> import tempfile
        >>> from guerdon import Sample
        >>> from guerdon.models.scalar import ScalarRewardModel
        >>> from guerdon.models.tiny import make_tiny
        >>> reward = ScalarRewardModel(str(make_tiny(tempfile.mkdtemp())), device="cpu")
        >>> lock = DeviceLock("cpu", folder=tempfile.mkdtemp())
        >>> with LoopScorer(reward, lock=lock) as scorer:
        ...     outcomes = scorer.score_then_offload([Sample(prompt="2 + 2?", response="4")])
        >>> outcomes.mask.tolist(), scorer.residencies["scalar_reward_model"].state
        ([True], 'host')
    """

    def __init__(
        self,
        reward: BaseReward | str,
        *,
        policy: Policy | Mapping[str, Policy] | None = None,
        truncation: Truncation | None = None,
        lock: DeviceLock | None = None,
        lock_timeout: float | None = None,
        pool: Mapping[str, Any] | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        self._turns = TakingTurns(lock=lock, lock_timeout=lock_timeout, pool=pool)
        self.service = RewardService(
            reward, backend=self._turns, policy=policy, truncation=truncation
        )
        """The service underneath, for everything that it can do beside."""
        self._ranks = ranks

    @property
    def residencies(self) -> Mapping[str, Residency]:
        """Where the weights of each model are: what its last turn left on the device, and how long
        the move took. By component, `outer/inner` in nested compositions; a model alone has the
        name of its reward."""
        root = self.service.reward
        return {path or root.name: model.residency for path, model in _models(root, "")}

    def score_then_offload(
        self,
        samples: Iterable[Entry],
        *,
        step: int | None = None,
        split: str = "train",
        run_id: str | None = None,
        timeout: float | None = None,
        **keywords: Any,
    ) -> Outcomes:
        """Score a batch and free the device.

        Arguments, result and errors are those of `RewardService.score`, and with several ranks also
        the errors of `ShardScorer`. With a timeout the outcomes are settled when it passes, but the
        call returns only when the device is free.
        """

        def score(entries: Iterable[Entry]) -> Outcomes:
            try:
                return self.service.score_sync(
                    entries, step=step, split=split, run_id=run_id, timeout=timeout, **keywords
                )
            finally:
                self._turns.wait_until_idle()

        if self._ranks is None:
            return score(samples)
        return ShardScorer(self.service, self._ranks, score)(list(samples))

    def compute_reward(
        self, data: Any, *, key: str = "reward", on_missing: Literal["raise", "mask"] = "raise"
    ) -> Any:
        """Score a tokenized batch and free the device; see `guerdon.tokens.compute_reward`.

        The model reads the token ids as they are, so the policy must have its tokenizer.

        Raises:
            ConfigError: the reward is no single model that reads text.
            BadInput: rows without a score, with `on_missing="raise"`.
            Unavailable: the device did not become free in time.
        """
        reward = self.service.reward
        if not isinstance(reward, TextModelReward):
            raise ConfigError(
                f"compute_reward reads token ids with one model; '{reward.name}' is none: use "
                "score_then_offload"
            )
        with self._turns.turn(reward):
            return compute_reward(
                data,
                lambda sequences: column_of(score_tokens(reward, sequences)),
                key=key,
                on_missing=on_missing,
            )

    def close(self) -> None:
        """Stop threads and workers; the models keep their weights in host memory."""
        self.service.close()
        self._turns.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _models(reward: BaseReward, path: str) -> Iterable[tuple[str, ModelReward]]:
    if isinstance(reward, ModelReward):
        yield path, reward
    for name, child in reward.children.items():
        yield from _models(child, f"{path}/{name}" if path else name)
