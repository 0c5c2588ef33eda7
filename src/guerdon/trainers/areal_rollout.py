"""AReaL: rewards of a reward model, inside the training loop, on the trainer's own device.

    scorer = RolloutScorer(reward, tokenizer=tokenizer)
    with PPOTrainer(config, ...) as trainer:
        scorer.install(trainer)
        trainer.train(...)

A reward model is too heavy for a workflow. Here it takes the device between rollout and update:
onload, score, write into `rewards`, offload. AReaL has no hook for it, so the scoring follows the
rollout's last call of a step. Contract: AReaL 1.0.4, `areal/trainer/rl_trainer.py`, `train`.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from functools import wraps
from typing import Any, Literal, Self, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from guerdon import registry
from guerdon.errors import ConfigError
from guerdon.outcomes import Outcomes
from guerdon.policy import Policy, worst_end
from guerdon.reward import BaseReward
from guerdon.sample import Sample
from guerdon.tokens.array import on_host
from guerdon.trainers.loop import LoopScorer
from guerdon.trainers.no_score import NoScore, check_single, refusal

Trajectory: TypeAlias = MutableMapping[str, Any]
"""One group: tensors of shape (n, sequence), and `rewards` of shape (n,)."""

Mode: TypeAlias = Literal["replace", "add"]

TENSORS = ("input_ids", "attention_mask", "loss_mask", "rewards")

Numbers: TypeAlias = NDArray[np.float64]


class RolloutScorer:
    """Scores rollouts between generation and update, with the model on the device only then.

    Args:
        reward: a model, or a composition of models and rules of the text, or a reference.
        tokenizer: the policy's; anything with `decode(ids, skip_special_tokens=...)`. None gives
            the token ids to the reward, which must be one text model with the same tokenizer.
        mode: `replace` writes the score over the workflow's reward; `add` adds it.
        weight: of the score.
        neutral: the number for a sample without a score; by default the step stops.
        policy: what else becomes of failures.
        loop: further options of `LoopScorer`: `lock`, `lock_timeout`, `pool`, `ranks`.

    Example:
        >>> import tempfile
        >>> from guerdon.models.lock import DeviceLock
        >>> from guerdon.models.scalar import ScalarRewardModel
        >>> from guerdon.models.tiny import make_tiny
        >>> reward = ScalarRewardModel(str(make_tiny(tempfile.mkdtemp())), device="cpu")
        >>> group = {
        ...     "input_ids": np.array([[5, 6, 7], [5, 8, 0]]),
        ...     "attention_mask": np.array([[1, 1, 1], [1, 1, 0]]),
        ...     "loss_mask": np.array([[0, 1, 1], [0, 1, 0]]),
        ...     "rewards": np.zeros(2, np.float32),
        ... }
        >>> with RolloutScorer(reward, lock=DeviceLock("cpu", folder=tempfile.mkdtemp())) as scorer:
        ...     _ = scorer([group])
        >>> bool((group["rewards"] != 0).all())
        True
    """

    def __init__(
        self,
        reward: BaseReward | str,
        *,
        tokenizer: Any = None,
        mode: Mode = "replace",
        weight: float = 1.0,
        neutral: float | None = None,
        policy: Policy | None = None,
        **loop: Any,
    ) -> None:
        if mode not in ("replace", "add"):
            raise ConfigError(f"mode is 'replace' or 'add', got {mode!r}")
        if tokenizer is None and neutral is not None:
            raise ConfigError("token ids that have no score raise: neutral needs tokenizer=")
        self._tokenizer = tokenizer
        self._mode: Mode = mode
        self._weight = weight
        root = registry.resolve(reward) if isinstance(reward, str) else reward
        worst = worst_end(root.value_range, root.higher_is_better)
        settled = NoScore(neutral=neutral).policy(policy, worst)
        self._scorer = LoopScorer(root, policy=settled, **loop)

    def __call__(
        self, rollout_batch: Sequence[Trajectory], *, step: int | None = None
    ) -> Sequence[Trajectory]:
        """Score a batch and write its rewards.

        Args:
            rollout_batch: what `actor.prepare_batch` gives.
            step: of training, for schedules.

        Raises:
            ScoringFailed: a sample has no number; no reward of the batch is written then.
            ConfigError: a group lacks a tensor, or has a row without a response.
        """
        score = self._from_tokens if self._tokenizer is None else self._from_text
        here = _here(rollout_batch)
        columns = zip(here, score(here, step), strict=True)
        rewards = [self._combined(_tensor(group, "rewards"), values) for group, values in columns]
        for group, values in zip(rollout_batch, rewards, strict=True):
            group["rewards"] = values
        return rollout_batch

    def install(self, trainer: Any) -> None:
        """Score each step's rollout in a `PPOTrainer`, before its engines see it.

        Where the trainer offloads the rollout engine, that is when it has left the device and no
        other engine has come; else it is when the rollout is done.

        Raises:
            ConfigError: it is no trainer of that shape.
        """
        actor = getattr(trainer, "actor", None)
        prepare: Any = getattr(actor, "prepare_batch", None)
        offload: Any = getattr(trainer, "_offload_rollout", None)
        shared: Any = getattr(trainer, "_should_offload_rollout", None)
        if prepare is None or offload is None or shared is None:
            raise ConfigError(
                f"a {type(trainer).__name__} has not the rollout of a PPOTrainer of AReaL 1.0.4 "
                "(actor.prepare_batch, _offload_rollout)"
            )
        waiting: list[Sequence[Trajectory]] = []

        @wraps(prepare)
        def then_wait(*arguments: Any, **keywords: Any) -> Any:
            batch = prepare(*arguments, **keywords)
            waiting[:] = [batch]
            if not shared:
                score()
            return batch

        @wraps(offload)
        def then_score(*arguments: Any, **keywords: Any) -> Any:
            done = offload(*arguments, **keywords)
            score()
            return done

        def score() -> None:
            while waiting:
                self(waiting.pop(), step=cast("Any", actor).get_version())

        cast("Any", actor).prepare_batch = then_wait
        trainer._offload_rollout = then_score

    def close(self) -> None:
        """Stop threads and workers."""
        self._scorer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _from_text(self, groups: Sequence[Trajectory], step: int | None) -> list[Numbers]:
        samples = [
            sample
            for number, group in enumerate(groups)
            for sample in self._samples(group, f"{number}")
        ]
        if not samples:
            return []
        outcomes = self._scorer.score_then_offload(samples, step=step)
        return _split(_numbers(outcomes), [len(group["input_ids"]) for group in groups])

    def _samples(self, group: Trajectory, group_id: str) -> list[Sample]:
        ids = on_host(_tensor(group, "input_ids")).tolist()
        attended = on_host(_tensor(group, "attention_mask"))
        written = on_host(_tensor(group, "loss_mask"))
        samples: list[Sample] = []
        for row in range(len(ids)):
            there = np.flatnonzero(attended[row])
            own = np.flatnonzero(written[row])
            if not len(own):
                raise ConfigError(f"row {row} of group {group_id} has no token of the policy")
            tokens = [int(ids[row][place]) for place in there.tolist()]
            start = int((there < own[0]).sum())
            samples.append(
                Sample(
                    prompt=self._decoded(tokens[:start]),
                    response=self._decoded(tokens[start:]),
                    group_id=group_id,
                    sample_id=f"{group_id}#{row}",
                    prompt_token_ids=tokens[:start],
                    response_token_ids=tokens[start:],
                )
            )
        return samples

    def _decoded(self, tokens: list[int]) -> str:
        decode = cast("Any", self._tokenizer).decode
        return cast("str", decode(tokens, skip_special_tokens=True))

    def _from_tokens(self, groups: Sequence[Trajectory], _: int | None) -> list[Numbers]:
        return [self._of_group(group) for group in groups]

    def _of_group(self, group: Trajectory) -> Numbers:
        mask = on_host(_tensor(group, "attention_mask")) != 0
        data = {
            "input_ids": on_host(_tensor(group, "input_ids")),
            "attention_mask": mask.astype(np.int64),
            "position_ids": np.maximum(np.cumsum(mask, axis=-1) - 1, 0),
        }
        # One number per row, at its last token; the other places hold 0.
        placed = self._scorer.compute_reward(data)["reward"]
        return np.asarray(placed, dtype=np.float64).sum(axis=-1)

    def _combined(self, rewards: Any, values: Numbers) -> Any:
        if tuple(rewards.shape) != values.shape:
            raise ConfigError(f"rewards of shape {tuple(rewards.shape)} for {len(values)} rows")
        scaled = values * self._weight
        new = rewards.new_tensor(scaled.tolist()) if hasattr(rewards, "new_tensor") else scaled
        return rewards + new if self._mode == "add" else new


def _here(groups: Sequence[Trajectory]) -> list[dict[str, Any]]:
    """The tensors of the groups. With a single controller, AReaL has handles of tensors that lie in
    other processes: all of them are fetched at once."""
    wanted = [{key: group[key] for key in TENSORS if key in group} for group in groups]
    kinds = {cast("Any", type(value)) for group in wanted for value in group.values()}
    remote = next((kind for kind in kinds if hasattr(kind, "localize")), None)
    return wanted if remote is None else remote.localize(wanted)


def _tensor(group: Mapping[str, Any], key: str) -> Any:
    if key not in group:
        raise ConfigError(f"a group of the rollout has no {key!r} (it has {', '.join(group)})")
    return group[key]


def _numbers(outcomes: Outcomes) -> Numbers:
    rewards = outcomes.rewards
    for position, outcome in enumerate(outcomes):
        if not rewards.mask[position]:
            raise refusal(outcome, "AReaL")
        check_single(float(rewards.values[position]), outcome)
    return rewards.values


def _split(values: Numbers, sizes: Sequence[int]) -> list[Numbers]:
    return np.split(values, np.cumsum(sizes)[:-1])
