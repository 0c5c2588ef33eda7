"""OpenRLHF: `reward_func`, in the file that `--reward.remote_url` names.

    # reward.py
    from guerdon.trainers.openrlhf import reward_func_for
    reward_func = reward_func_for("gsm8k")

OpenRLHF logs every `Exception` of the function and goes on: without a reward, or with that of its
own reward model. So a sample without a score raises `StopTraining`, which is none and reaches the
driver. Contract: OpenRLHF 0.11.2, `openrlhf/utils/agent.py`, `SingleTurnAgentExecutor`. For a
server behind the same option see `docs/dialects/openrlhf.md`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

from guerdon.errors import ConfigError, InvalidSample, nearest
from guerdon.outcome import EMPTY, Failure, Score
from guerdon.remote.query import END_TOKENS, after_prompt, without_end
from guerdon.sample import Sample
from guerdon.trainers.component import Columns, reported
from guerdon.trainers.micro_batch import Settled
from guerdon.trainers.plan import RewardLike
from guerdon.trainers.scalar import ScalarFunction, ScalarSettings, settings_of
from guerdon.trainers.versions import Versions

ASSIGNED = "guerdon_assigned"
FAILED = "guerdon_failed"
SCORES = "scores"

OWN_LOGS = frozenset(
    {"reward", "score", "response_length", "total_length", "response_clip_ratio", "truncated"}
)
"""Keys of a rollout's `info` that OpenRLHF fills itself, and `extra_logs` would replace
(`openrlhf/trainer/ppo_utils/samples_generator.py`)."""


class StopTraining(BaseException):
    """There is no score, and nobody named a number for that: the run must end.

    No `Exception`, because OpenRLHF's executor swallows those. Ray carries it to the driver.
    """


class Settings(ScalarSettings, frozen=True, kw_only=True):
    """What `reward_func_for` can be told, beside `ScalarSettings`.

    Attributes:
        response: `after_prompt` scores what follows the prompt in the query, and refuses a query
            that does not begin with its prompt (or with the rest of one that was cut from the
            left); `query` scores the whole query.
        end_tokens: special tokens that are taken off the end of a response.
        label_columns: the label of a row is a mapping of columns of the dataset: its
            `ground_truth`, its `data_source`, and metadata.
        metrics: names of those in `extra_logs`; by default all that the reward has reported so
            far. Name them where it reports some only now and then: OpenRLHF refuses a batch whose
            rollouts have different keys.
        scores: component or metric that goes out as `scores`, by which OpenRLHF filters groups (in
            0 to 1); by default the metric `scores` where a score carries one, else the value. A
            metric of a composition is in `metrics`, too.
    """

    response: Literal["after_prompt", "query"] = "after_prompt"
    end_tokens: tuple[str, ...] = END_TOKENS
    label_columns: bool = False
    metrics: Sequence[str] | None = None
    scores: str | None = None


def reward_func_for(reward: RewardLike, **settings: Any) -> RewardFunc:
    """A `reward_func` for a file that OpenRLHF loads by its path.

    Args:
        reward: a reward object or function, a reference, a configuration, or a `RewardService`.
        settings: see `Settings`.

    Raises:
        ConfigError: an unknown setting, or a reward that cannot work here.

    Example:
        >>> from guerdon.reward import reward
        >>> @reward(value_range=(0.0, 1.0), auto_register=False)
        ... def exact(response: str, ground_truth: str) -> bool:
        ...     return response == ground_truth
        >>> reward_func_for(exact)(["2+2?4</s>"], ["2+2?"], ["4"])["rewards"]
        1.0
    """
    return RewardFunc(reward, settings_of(Settings, settings, "reward_func_for"))


class RewardFunc(ScalarFunction[Settings]):
    """What OpenRLHF calls; see `reward_func_for`."""

    trainer = "OpenRLHF"
    versions = Versions("openrlhf", least="0.11.2", tested="0.11.2")

    def __init__(self, reward: RewardLike, settings: Settings) -> None:
        super().__init__(reward, settings)
        if settings.response not in ("after_prompt", "query"):
            raise ConfigError(f"response is 'after_prompt' or 'query', got {settings.response!r}")
        self._logged = Columns(self.components, settings.metrics)
        known = (*self.components, *(settings.metrics or ()))
        # What a plain reward reports beside its value is known from its scores only.
        if settings.scores is not None and settings.scores not in known and self.components:
            raise ConfigError(
                f"scores: reward '{self.reward.name}' has no component {settings.scores!r}"
                f"{nearest(settings.scores, known)} (components: {', '.join(self.components)}); "
                "a metric of it must be in metrics=[...], too"
            )

    def __call__(
        self,
        queries: Sequence[str],
        prompts: Sequence[str | None],
        labels: Sequence[Any],
        **_: Any,
    ) -> dict[str, Any]:
        """Score responses; OpenRLHF hands over one at a time, in a thread.

        Args:
            queries: prompt and response as one decoded text, special tokens included.
            prompts: as the dataset has them.
            labels: ground truths.

        Returns:
            `rewards`; `scores`, by which groups are filtered; `extra_logs`: each component and each
            metric (see `Settings`), NaN where there is none, `guerdon_failed` and
            `guerdon_assigned` (0.0 or 1.0). One that has the name of a log of OpenRLHF's own is
            `guerdon/NAME`. Bare numbers for one query, as a list would end up one dimension deeper
            than the place where it is added.

        Raises:
            StopTraining: there is no score and no `neutral`, or too many failed.
        """
        try:
            if not len(queries) == len(prompts) == len(labels):
                raise InvalidSample(
                    f"{len(queries)} queries, {len(prompts)} prompts and {len(labels)} labels"
                )
            rows = zip(queries, prompts, labels, strict=True)
            samples = [self._sample(*row) for row in rows]
            if len(samples) == 1:  # together with those of other threads
                scored = [self.score_one_sync(samples[0])]
            else:
                scored = self.score_many_sync(samples)
            written = [self._written(one) for one in scored]
        except Exception as error:
            raise StopTraining(f"{type(error).__name__}: {error}") from error
        if len(written) == 1:
            return written[0]
        logs = [one["extra_logs"] for one in written]
        keys = dict.fromkeys(key for log in logs for key in log)
        return {
            "rewards": [one["rewards"] for one in written],
            "scores": [one["scores"] for one in written],
            "extra_logs": {key: [log.get(key, math.nan) for log in logs] for key in keys},
        }

    def _sample(self, query: str, prompt: str | None, label: Any) -> Sample:
        response: str | None = query
        if prompt is not None and self.settings.response == "after_prompt":
            response = after_prompt(prompt, query)
            if response is None:
                raise InvalidSample(
                    "a query does not begin with its prompt; to score all of it as the response, "
                    "say response='query'"
                )
        columns = self._columns(label) if self.settings.label_columns else {"ground_truth": label}
        source = columns.pop("data_source", None)
        return Sample(
            prompt=prompt,
            response=without_end(response, self.settings.end_tokens),
            ground_truth=columns.pop("ground_truth", None),
            data_source=source,
            metadata=columns or EMPTY,
            sample_id=self.sample_id(),
        )

    def _columns(self, label: Any) -> dict[str, Any]:
        if not isinstance(label, Mapping):
            raise InvalidSample(
                f"a label is a {type(label).__name__}, and label_columns=True says that it is a "
                "mapping of columns"
            )
        return {str(key): item for key, item in cast("Mapping[Any, Any]", label).items()}

    def _written(self, settled: Settled) -> dict[str, Any]:
        outcome, number = settled.outcome, settled.number
        row = self._logged.row(outcome)
        logs = {f"guerdon/{key}" if key in OWN_LOGS else key: row[key] for key in row}
        logs[FAILED] = float(isinstance(outcome, Failure))
        logs[ASSIGNED] = float(settled.assigned)
        return {"rewards": number, "scores": self._score(settled), "extra_logs": logs}

    def _score(self, settled: Settled) -> float | None:
        """What groups are filtered by."""
        outcome, number, assigned = settled
        # An assigned number has no components and stands for all of them.
        if assigned or not isinstance(outcome, Score):
            return number
        named = self.settings.scores
        if named is None:
            measured = outcome.metrics.get(SCORES)
            return number if measured is None else measured
        found = reported(outcome)
        if found.get(named) is None:
            known = ", ".join(found) or "none"
            raise ConfigError(
                f"scores: a score of '{self.__name__}' has no component or metric {named!r}"
                f"{nearest(named, found)} (it has: {known})"
            )
        return found[named]
