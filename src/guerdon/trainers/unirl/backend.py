"""A reward as one of UniRL's backends: a failure is a sample without success, never a number."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from guerdon.errors import ConfigError, nearest
from guerdon.outcome import EMPTY, Failure, Outcome, Score
from guerdon.outcomes import Outcomes
from guerdon.policy import Policy, worst_end
from guerdon.remote.needs import Needs
from guerdon.reward import BaseReward
from guerdon.service import RewardService
from guerdon.trainers.component import component_names
from guerdon.trainers.no_score import FAILURE_SHARE, NoScore, check_single
from guerdon.trainers.plan import RewardLike, is_configuration, plan
from guerdon.trainers.scalar import (
    ScalarSettings,
    kind_of,
    settings_of,
    text_of,
    without_nodes,
)
from guerdon.trainers.unirl.request import KINDS, PROMPT_SOURCES, RewardResponse, samples_of

logger = logging.getLogger("guerdon.trainers")

FAILED = "guerdon_failed"
ASSIGNED = "guerdon_assigned"
"""Components of every response: UniRL logs the mean of each, so the share of such samples."""

PROMPTS = ("prompt", "prompt_messages")
"""Fields of a sample that hold the prompt."""

MASKED = Policy(on={"scorer": "mask", "infrastructure": "mask", "data": "mask"})
"""Failures stay without a number; the trainer's service then stops the step, naming them."""


class GuerdonBackend:
    """Shaped as `unirl.reward.base.RewardBackend`; it does not derive from it.

    Args:
        reward: a reward object or function, a reference, a configuration, or a service.
        input_kind: what is scored: image, video or text.
        model_name: for UniRL's log; by default the reward's name.
        options: of the reward.
        backend: where the reward's work runs, as for Guerdon's `RewardService`.
        neutral: the number for a sample without a score; by default the step stops.
        retry_within: seconds for all tries of a retryable failure.
        failure_share: of the samples that may get `neutral`.
        timeout: seconds that a shard is waited for.
        batch_size: not looked at: a reward batches as it can.
        base_device: not looked at: UniRL's recipes name it, and one of its roles gives it; the
            device of a model is its own option, `auto` unless said: the GPU of the worker.
        prompt_source: which prompt a reward gets where a model has rewritten it: that of the
            `generation`, or the `original` one. Versions of UniRL with one prompt give that.

    Raises:
        ConfigError: settings that cannot work.

    Example:
        >>> from types import SimpleNamespace
        >>> from guerdon.reward import reward
        >>> from guerdon.trainers.unirl import RewardRequest
        >>> @reward(value_range=(0.0, 1.0), auto_register=False)
        ... def exact(response: str, ground_truth: str) -> bool:
        ...     return response == ground_truth
        >>> backend = GuerdonBackend(exact, input_kind="text")
        >>> made = SimpleNamespace(texts=["4", "5"])
        >>> request = RewardRequest(generated={"text": made}, metadata=[{"answer": "4"}, None])
        >>> found = backend.compute_rewards(request)
        >>> found.rewards[0], found.successes, found.errors[1][:16]
        (1.0, [True, False], 'exact: bad_input')
    """

    def __init__(
        self,
        reward: RewardLike,
        *,
        input_kind: str = "image",
        model_name: str = "",
        options: Mapping[str, Any] = EMPTY,
        backend: Any = None,
        neutral: float | None = None,
        retry_within: float | None = None,
        failure_share: float = FAILURE_SHARE,
        timeout: float | None = None,
        batch_size: int = 8,
        base_device: str = "auto",
        prompt_source: str = PROMPT_SOURCES[0],
    ) -> None:
        if input_kind not in KINDS:
            hint = nearest(input_kind, KINDS)
            raise ConfigError(f"input_kind is image, video or text, got {input_kind!r}{hint}")
        if prompt_source not in PROMPT_SOURCES:
            hint = nearest(prompt_source, PROMPT_SOURCES)
            raise ConfigError(
                f"prompt_source is generation or original, got {prompt_source!r}{hint}"
            )
        self.input_kind = input_kind
        self.prompt_source = prompt_source
        self.batch_size = batch_size
        given = {
            "options": options,
            "backend": backend,
            "neutral": neutral,
            "retry_within": retry_within,
            "failure_share": failure_share,
            "timeout": timeout,
        }
        settings = settings_of(ScalarSettings, given, "GuerdonBackend")
        self.timeout = settings.timeout
        recipe = NoScore(settings.neutral, settings.retry_within, settings.failure_share)
        if isinstance(reward, RewardService):
            if recipe != NoScore() or options or backend is not None:
                raise ConfigError("a RewardService has its own policy, options and backend")
            self.service = reward
        else:
            self.service = _service(without_nodes(reward), settings, recipe)
        self._owned = not isinstance(reward, RewardService)
        self.model_name = model_name or self.service.reward.name
        self._components = component_names(self.service.reward)

    @property
    def preferred_input_kind(self) -> str:
        """Under which key UniRL puts what was generated."""
        return self.input_kind

    def get_model_name(self) -> str:
        """For UniRL's log."""
        return self.model_name

    def compute_rewards(self, request: Any) -> RewardResponse:
        """Score a shard.

        Args:
            request: UniRL's `RewardRequest`, or ours.

        Raises:
            InvalidSample: a request whose columns do not belong together.
            ScoringFailed: what the reward's own policy raises on.
        """
        started = time.perf_counter()
        samples = samples_of(request, self.input_kind, self.prompt_source)
        outcomes = self.service.score_sync(samples, timeout=self.timeout)
        response = self._response(outcomes)
        response.compute_time = time.perf_counter() - started
        return response

    def is_available(self) -> bool:
        """Whether it can score: it was made, so it can."""
        return True

    def covers_prompt_video(self) -> bool:
        """Whether a reward of videos reads their prompt; True for images and texts.

        Later versions of UniRL train on no reward of videos that does not, unless their service is
        told `require_prompt_video: false`.
        """
        if self.input_kind != "video":
            return True
        read = self.service.reward.parameters
        names = Needs.of(read.named, has_parts=read.accepts_any).names
        return names is None or not names.isdisjoint(PROMPTS)

    def offload(self) -> None:
        """Take the weights of the reward's models off their device."""
        for model in _models(self.service.reward):
            model.offload()

    def onload(self) -> None:
        """Put them there."""
        for model in _models(self.service.reward):
            model.onload()

    def dispose(self) -> None:
        """Stop the workers."""
        if self._owned:
            self.service.close()

    def _response(self, outcomes: Outcomes) -> RewardResponse:
        rewards, assigned = outcomes.rewards, outcomes.assigned.mask
        response = RewardResponse(
            component_rewards={name: [] for name in self._components}, outcomes=outcomes
        )
        for position, outcome in enumerate(outcomes):
            number = float(rewards.values[position])
            success = bool(rewards.mask[position])
            if success:
                check_single(number, outcome)
            response.rewards.append(number if success else math.nan)
            response.successes.append(success)
            reason = self._reason(outcome)
            if assigned[position]:
                logger.warning(
                    "UniRL: sample %r of reward '%s' has the assigned number %r: %s",
                    outcome.sample,
                    self.service.reward.name,
                    number,
                    reason,
                )
                reason = f"assigned {number!r}: {reason}"
            response.errors.append(reason)
            found = outcome.components if isinstance(outcome, Score) else EMPTY
            for name, column in response.component_rewards.items():
                value = found.get(name)
                column.append(math.nan if value is None else value)
        response.component_rewards[FAILED] = [float(isinstance(o, Failure)) for o in outcomes]
        response.component_rewards[ASSIGNED] = [float(flag) for flag in assigned]
        return response

    def _reason(self, outcome: Outcome) -> str | None:
        """Why a sample has no score, after the name of the reward; None for a score."""
        if isinstance(outcome, Score):
            return None
        text = text_of(outcome)
        if not isinstance(outcome, Failure):
            text = f"{kind_of(outcome)}: {outcome.reason}"
        return f"{outcome.reward or self.service.reward.name}: {text}"


def _service(reward: RewardLike, settings: ScalarSettings, recipe: NoScore) -> RewardService:
    made = plan(reward, options=settings.options, backend=settings.backend)
    base = made.policy if is_configuration(reward) else MASKED
    policy = base
    if recipe.neutral is not None or recipe.retry_within is not None:
        worst = worst_end(made.reward.value_range, made.reward.higher_is_better)
        policy = recipe.policies(base, worst) if recipe.neutral is not None else base
        if recipe.neutral is None and isinstance(base, Policy):
            retry = recipe.policy(base, worst).retry
            policy = msgspec.structs.replace(base, retry=retry)
    return msgspec.structs.replace(made, policy=policy).build()


def _models(reward: BaseReward) -> Iterable[Any]:
    """The models of a reward: what can be moved."""
    if hasattr(reward, "onload") and hasattr(reward, "offload"):
        yield reward
    for child in reward.children.values():
        yield from _models(child)
