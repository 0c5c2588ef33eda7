"""verl: `compute_score`, as `reward.custom_reward_function` names it.

    reward.custom_reward_function.path=pkg://guerdon.trainers.verl
    reward.custom_reward_function.name=compute_score
    +reward.custom_reward_function.reward_kwargs.reward=gsm8k

verl has no way to say that a sample has no score. So a failure is tried again within a time
budget, then gets the number that the user named with `neutral`, flagged, inside a failure budget;
without `neutral` the call raises. Every row has the same keys, because verl takes the keys of a
batch from its first row. Contract: verl 0.9.1, `verl/trainer/ppo/reward.py`,
`verl/experimental/reward_loop/`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Coroutine, Hashable, Mapping, Sequence
from typing import Any, TypeAlias, cast

import msgspec

from guerdon import registry
from guerdon.errors import ConfigError, InvalidSample
from guerdon.outcome import EMPTY, Score
from guerdon.remote.needs import Needs
from guerdon.sample import Sample, Unusable
from guerdon.service import Entry
from guerdon.trainers.messages import with_media
from guerdon.trainers.micro_batch import Settled
from guerdon.trainers.plan import RewardLike
from guerdon.trainers.scalar import (
    ScalarFunction,
    ScalarSettings,
    components_of,
    kind_of,
    plain,
    settings_of,
    text_of,
)
from guerdon.trainers.versions import Versions

VERSIONS = Versions("verl", least="0.8.0", tested="0.9.1", needs="section 'reward' in its config")

Row: TypeAlias = dict[str, float | str | None]
ComputeScore: TypeAlias = Callable[..., Coroutine[Any, Any, Row]]

AUTO = "auto"
"""As `reward`: the reward that is routed for the row's `data_source`."""

RUNTIME = ("reward_router_address", "reward_model_tokenizer")
"""Keywords that verl itself adds where it runs a reward model; rewards get them by name."""

COMPONENT = "component/"
OUTCOME = "guerdon_outcome"
FAILURE = "guerdon_failure"
ASSIGNED = "guerdon_assigned"

POOL_WORKERS = 2
"""Of a pool that nobody sized: verl starts 8 reward workers, and each of them has its own."""

OVERLONG = ("overlong_buffer_cfg", "max_resp_len")
"""Under the same name verl's manager `dapo` finds these."""


class Settings(ScalarSettings, frozen=True, kw_only=True):
    """What `reward_kwargs` can hold, beside `ScalarSettings`.

    Options may be nodes of OmegaConf. A backend that nobody named is a pool of 2 workers where the
    reward needs one.

    Attributes:
        reward: a name, `pkg.mod:name`, `/path/rewards.py:name`, a YAML file, or `auto`.
        acc: whether a row has `acc`, which validation and group filtering look for: the metric of
            that name where a score carries one, else the score, as verl's own scalar rewards do.
        components: names of components, or of metrics that scores carry, to report; by default the
            components that the reward declares. For `auto` they must be named, because every row
            needs the same keys.
    """

    reward: Any = AUTO
    acc: bool = True
    components: tuple[str, ...] | None = None


async def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: Any,
    extra_info: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Row:
    """Score one response; verl's naive, dapo, gdpo and rate_limited managers call it.

    Args:
        data_source: routes the reward under `auto`.
        solution_str: the decoded response.
        ground_truth: `reward_model.ground_truth` of the row.
        extra_info: of the row; its keys are metadata of the sample.
        settings: see `Settings`; verl fills them from `reward_kwargs`.

    Returns:
        `score`; `acc` (the metric of that name, else the same); `guerdon_outcome`: "score",
        "abstention" or "failure"; `guerdon_failure`: kind, blame and message, or "";
        `guerdon_assigned`: 1.0 where the score was assigned and not measured, else 0.0; and
        `component/NAME` for each component, None where it has no score.

    Raises:
        ScoringFailed: there is no score and no `neutral`, or too many failed.
        CircuitOpen: too many failed lately.
        ConfigError: an unknown setting.

    Example:
        >>> import asyncio
        >>> gsm8k = "guerdon.rules.gsm8k:gsm8k"
        >>> row = asyncio.run(compute_score("openai/gsm8k", "so #### 4", "4", reward=gsm8k))
        >>> row["score"], row["guerdon_outcome"]
        (1.0, 'score')
    """
    scorer = scorer_for(data_source, settings)
    sample = scorer.sample(data_source, solution_str, ground_truth, extra_info, settings)
    return scorer.row(await scorer.score_one(sample))


def compute_score_sync(
    data_source: str,
    solution_str: str,
    ground_truth: Any,
    extra_info: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Row:
    """As `compute_score`, for what takes no coroutine: verl's `remote` manager."""
    scorer = scorer_for(data_source, settings)
    sample = scorer.sample(data_source, solution_str, ground_truth, extra_info, settings)
    return scorer.row(scorer.score_one_sync(sample))


def compute_number(
    data_source: str,
    solution_str: str,
    ground_truth: Any,
    extra_info: Mapping[str, Any] | None = None,
    **settings: Any,
) -> float:
    """As `compute_score_sync`, the score alone: for `verl.trainer.main_eval`, which averages it."""
    row = compute_score_sync(data_source, solution_str, ground_truth, extra_info, **settings)
    return cast("float", row["score"])


def compute_score_for(reward: RewardLike, **settings: Any) -> ComputeScore:
    """A `compute_score` with a reward of its own, for a file that verl loads by its path.

    Args:
        reward: a reward object or function, a reference, a configuration, or a `RewardService`.
            A service keeps its own policy, so `neutral` and the like are refused beside it.
        settings: see `Settings`; `reward_kwargs` win over them.

    Example:
        >>> import asyncio
        >>> from guerdon.reward import reward
        >>> @reward(value_range=(0.0, 1.0), auto_register=False)
        ... def exact(response: str, ground_truth: str) -> bool:
        ...     return response == ground_truth
        >>> compute_score = compute_score_for(exact, acc=False)
        >>> asyncio.run(compute_score("math", "4", "4"))["score"]
        1.0
    """
    given = {**settings, "reward": reward}
    settings_of(Settings, _checked(given), "reward_kwargs")

    async def compute_score(
        data_source: str,
        solution_str: str,
        ground_truth: Any,
        extra_info: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> Row:
        together = {**given, **settings} if settings else given
        scorer = scorer_for(data_source, together)
        sample = scorer.sample(data_source, solution_str, ground_truth, extra_info, settings)
        return scorer.row(await scorer.score_one(sample))

    return compute_score


def close() -> None:
    """Stop every service that this process has started for verl."""
    with _lock:
        scorers = list(_scorers.values())
        _scorers.clear()
    for scorer in scorers:
        scorer.close()


class Scorer(ScalarFunction[Settings]):
    """Samples in, rows out, for one set of settings.

    Args:
        reward: never `auto`.
        settings: see `Settings`; without `components` rows report those that the reward declares.
    """

    trainer = "verl"
    versions = VERSIONS
    pool_workers = POOL_WORKERS
    says_assigned = True

    def __init__(self, reward: RewardLike, settings: Settings) -> None:
        super().__init__(reward, settings)
        named = self.components if settings.components is None else settings.components
        self._columns = {f"{COMPONENT}{name}": name for name in named}
        read = self.reward.parameters
        has_parts = bool(self.reward.children) or read.accepts_any
        names = Needs.of(read.named, has_parts=has_parts).names
        self.reads_prompt_tokens = names is None or "prompt_token_ids" in names

    def sample(
        self,
        data_source: str,
        solution_str: str,
        ground_truth: Any,
        extra_info: Mapping[str, Any] | None,
        settings: Mapping[str, Any],
        **fields: Any,
    ) -> Entry:
        """The sample of one call; `Unusable`, with the reason, for a row that makes none.

        Args:
            data_source: as for `compute_score`; so are the next three.
            solution_str: the response.
            ground_truth: of the row.
            extra_info: of the row.
            settings: of which those in `RUNTIME` become metadata.
            fields: further fields of the sample, such as `prompt`.

        verl changes `extra_info` in place and shares it between the rollouts of a prompt, so it is
        copied at once. It gives no id to a row: a sample is called by its data source, its `index`
        where there is one, and a number of its own.
        """
        metadata: dict[str, Any] = {}
        if extra_info is not None:
            if not isinstance(cast("object", extra_info), Mapping):
                problem = f"extra_info is a {type(extra_info).__name__}, not a mapping"
                return self.unusable(problem, data_source)
            metadata = {str(key): plain(value) for key, value in extra_info.items()}
        for key in RUNTIME:
            if key in settings:
                metadata[key] = settings[key]
        name = self._name(data_source, metadata.get("index", ""))
        try:
            if "prompt" in fields:
                fields["prompt"] = with_media(fields["prompt"])
            return Sample(
                response=solution_str,
                ground_truth=plain(ground_truth),
                data_source=data_source,
                sample_id=name,
                metadata=metadata or EMPTY,
                **fields,
            )
        except InvalidSample as error:
            return Unusable(problem=str(error), sample_id=name)

    def unusable(self, problem: str, data_source: str) -> Unusable:
        """What stands in for a row that makes no sample."""
        return Unusable(problem=problem, sample_id=self._name(data_source, ""))

    def _name(self, data_source: str, index: object) -> str:
        return f"{data_source}[{index}]#{os.getpid()}.{next(self._ids)}"

    def row(self, settled: Settled) -> Row:
        """What verl gets for a scored sample."""
        outcome, number, assigned = settled
        row: Row = {"score": cast("float", number)}
        metrics = outcome.metrics if isinstance(outcome, Score) else EMPTY
        if self.settings.acc:
            measured = metrics.get("acc")  # None where the reward gave NaN
            row["acc"] = number if measured is None else measured
        row[OUTCOME] = kind_of(outcome)
        row[FAILURE] = text_of(outcome)
        row[ASSIGNED] = float(assigned)
        found = components_of(outcome)
        for key, name in self._columns.items():
            row[key] = found[name] if name in found else metrics.get(name)
        return row


_lock = threading.Lock()
_scorers: dict[Hashable, Scorer] = {}


def _forget() -> None:
    """A forked child has none of the threads and workers behind its parent's services."""
    global _lock
    _lock = threading.Lock()
    _scorers.clear()


os.register_at_fork(after_in_child=_forget)


def scorer_for(data_source: str, settings: Mapping[str, Any]) -> Scorer:
    """The scorer for these settings (see `Settings`), made once per process.

    Raises:
        ConfigError: an unknown setting, or a version of verl that cannot work.
    """
    key = _key(data_source, settings)
    scorer = _scorers.get(key)
    if scorer is None:
        with _lock:
            scorer = _scorers.get(key)
            if scorer is None:
                scorer = _scorers[key] = _make(data_source, settings)
    return scorer


def _key(data_source: str, settings: Mapping[str, Any]) -> Hashable:
    named = settings.get("reward", AUTO)
    route = data_source if isinstance(named, str) and named == AUTO else None
    items = tuple((key, _frozen(settings[key])) for key in settings if key not in RUNTIME)
    return (route, items)


def _frozen(value: Any) -> Hashable:
    """A hashable stand-in; an object counts as itself, and its scorer keeps it alive."""
    if isinstance(value, str | int | float | None):
        return (type(value), value)
    if isinstance(value, Mapping):
        items = cast("Mapping[Any, Any]", value).items()
        return ("mapping", tuple((str(key), _frozen(item)) for key, item in items))
    if isinstance(value, Sequence):
        return ("list", tuple(map(_frozen, cast("Sequence[Any]", value))))
    return ("object", id(value))


def _make(data_source: str, given: Mapping[str, Any]) -> Scorer:
    settings = settings_of(Settings, _checked(given), "reward_kwargs")
    reward = settings.reward
    if isinstance(reward, str) and reward == AUTO:
        # Each route has components of its own, and every row needs the same keys.
        settings = msgspec.structs.replace(settings, components=settings.components or ())
        reward = registry.reference_for(data_source)
    return Scorer(reward, settings)


def _checked(given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a call, without what verl adds to them.

    Raises:
        ConfigError: one that does not exist, or that cannot be what it should be.
    """
    found = {key: value for key, value in given.items() if key not in RUNTIME}
    for key in found:
        if key in OVERLONG:
            raise ConfigError(
                f"reward_kwargs: {key!r} is of verl's manager 'dapo'; here the penalty for long "
                "responses is the reward 'overlong' (options maximum and buffer), composed with "
                "others"
            )
    components = found.get("components")
    if components is not None:
        if isinstance(components, str) or not isinstance(components, Sequence):
            raise ConfigError(f"reward_kwargs: components is a list of names, got {components!r}")
        found["components"] = tuple(map(str, cast("Sequence[Any]", components)))
    if not isinstance(found.get("acc", True), bool):
        raise ConfigError(f"reward_kwargs: acc is true or false, got {found['acc']!r}")
    return found
