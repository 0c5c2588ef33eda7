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

from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

from guerdon.errors import ConfigError, InvalidSample
from guerdon.outcome import EMPTY, Failure
from guerdon.remote.query import END_TOKENS, after_prompt, without_end
from guerdon.sample import Sample
from guerdon.trainers.micro_batch import Settled
from guerdon.trainers.plan import RewardLike
from guerdon.trainers.scalar import ScalarFunction, ScalarSettings, components_of, settings_of
from guerdon.trainers.versions import Versions

ASSIGNED = "guerdon_assigned"
FAILED = "guerdon_failed"


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
        scores: component that goes out as `scores`, by which OpenRLHF filters groups (in 0 to 1);
            by default the value itself.
    """

    response: Literal["after_prompt", "query"] = "after_prompt"
    end_tokens: tuple[str, ...] = END_TOKENS
    label_columns: bool = False
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
    versions = Versions("openrlhf", least="0.11.2", tested="0.11.2", needs="tested reward_func")

    def __init__(self, reward: RewardLike, settings: Settings) -> None:
        super().__init__(reward, settings)
        if settings.response not in ("after_prompt", "query"):
            raise ConfigError(f"response is 'after_prompt' or 'query', got {settings.response!r}")
        if settings.scores is not None and settings.scores not in self.components:
            known = ", ".join(self.components) or "none"
            raise ConfigError(
                f"scores: reward '{self.reward.name}' has no component {settings.scores!r} "
                f"(components: {known})"
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
            `rewards`; `scores`, by which groups are filtered; `extra_logs`: each component that has
            a value, `guerdon_failed` and `guerdon_assigned` (0.0 or 1.0). Bare numbers for one
            query, as a list would end up one dimension deeper than the place where it is added.

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
        shared = [key for key in logs[0] if all(key in log for log in logs)] if logs else []
        return {
            "rewards": [one["rewards"] for one in written],
            "scores": [one["scores"] for one in written],
            "extra_logs": {key: [log[key] for log in logs] for key in shared},
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
        found = {
            name: value
            for name, value in components_of(settled.outcome).items()
            if value is not None
        }
        number, named = settled.number, self.settings.scores
        # An assigned number has no components and stands for all of them.
        score = number if named is None or settled.assigned else found.get(named)
        if score is None:
            raise ConfigError(f"scores: a score of '{self.__name__}' has no component {named!r}")
        failed = float(isinstance(settled.outcome, Failure))
        logs = {**found, FAILED: failed, ASSIGNED: float(settled.assigned)}
        return {"rewards": number, "scores": score, "extra_logs": logs}
