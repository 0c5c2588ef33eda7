"""TRL: reward functions for `GRPOTrainer` and `RLOOTrainer`.

    GRPOTrainer(..., reward_funcs=[reward_function("gsm8k")])

TRL takes None for "no score": such a row leaves the group's baseline and gets the advantage 0. A
row without a number is None as a whole, whichever component it lacks; components are reported, not
returned, because TRL would add up those that are there. For the same reason a failure is not masked
beside other reward functions. Contract: TRL 1.16,
`trl/trainer/grpo_trainer.py` and `rloo_trainer.py`, `_calculate_rewards`.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any, ClassVar, Literal, TypeAlias, overload
from weakref import WeakSet

import msgspec
import numpy as np

from guerdon.errors import ConfigError, InvalidSample, ScoringFailed, nearest
from guerdon.injection import SYNONYMS
from guerdon.outcome import EMPTY, Abstention, Failure, Outcome, Score
from guerdon.outcomes import Outcomes
from guerdon.policy import Policy
from guerdon.sample import Sample, Unusable
from guerdon.service import RewardService
from guerdon.trainers.component import component_names
from guerdon.trainers.messages import parsed
from guerdon.trainers.no_score import LARGEST_SINGLE, check_single
from guerdon.trainers.plan import RewardLike, plan
from guerdon.trainers.ranks import Ranks
from guerdon.trainers.shards import ShardScorer
from guerdon.trainers.trl_trainer import Trainer, behind
from guerdon.trainers.versions import Versions

VERSIONS = Versions("trl", least="1.0.0", tested="1.16.0", needs="log_extra and log_metric")

Numbers: TypeAlias = list[float | None]
LogExtra: TypeAlias = Callable[[str, list[Any]], None]
LogMetric: TypeAlias = Callable[[str, float], None]

COLUMN_FIELDS = (
    "ground_truth",
    "data_source",
    "sample_id",
    "group_id",
    "finish_reason",
    "policy_version",
)
"""Fields of a sample that a dataset column may fill. Prompts, completions and token ids come from
the trainer; media columns of a TRL dataset belong to the prompt and stay metadata."""

TRUTHS = tuple(name for name, field in SYNONYMS.items() if field == "ground_truth")
"""Columns that are the ground truth where only one of them is there."""

TAKEN = ("prompt", "response")

MASKING = ("mask", "drop_group")

TRAIN, EVAL = "train", "eval"
"""Splits; evaluation is under the policy of training where it has none of its own."""

ENVIRONMENTS = "environments"
"""What TRL calls the environments of the rows; one of them is the `environment` of its sample."""

AMONG_OTHERS = (
    "the trainer has other reward functions as well: TRL would add up theirs and count the missing "
    "one as 0. Make one composition of all of them (guerdon.compose), or let the policy raise or "
    "assign"
)


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How a reward function behaves; see `reward_function`."""

    name: str | None = None
    num_generations: int | None = None
    columns: Mapping[str, str] = EMPTY
    components: bool = True
    options: Mapping[str, Any] = EMPTY
    backend: Any = None
    policy: Policy | Mapping[str, Policy] | None = None
    split: str | None = None
    timeout: float | None = None


@overload
def reward_function(
    reward: RewardLike, *, sync: Literal[False] = False, **settings: Any
) -> AsyncRewardFunction: ...
@overload
def reward_function(
    reward: RewardLike, *, sync: Literal[True], **settings: Any
) -> SyncRewardFunction: ...
def reward_function(
    reward: RewardLike, *, sync: bool = False, **settings: Any
) -> AsyncRewardFunction | SyncRewardFunction:
    """A reward as TRL takes it in `reward_funcs`.

    Args:
        reward: a reward object or function, a reference, a configuration, or a `RewardService`.
            Everything but a service can be pickled, as TRL's async GRPO needs.
        sync: a plain function. By default it is a coroutine function: TRL awaits all of those
            together, and its main thread stays free.
        settings: `name`: for TRL's metrics, by default the reward's. `num_generations`: size of
            the groups, where the trainer does not tell it (async GRPO, older versions); by default
            equal prompts in a row are one. `columns`: sample field to
            dataset column, such as `{"ground_truth": "final_answer"}`. `components`: whether
            components are logged. `options` of the reward; `backend`, `policy` and `timeout` of
            the service; `split`, by default "train", and "eval" while the trainer evaluates.

    Raises:
        ConfigError: an unknown setting, one that a service has decided already, or a version of
            TRL that cannot work.

    Example:
        >>> import asyncio
        >>> from guerdon.reward import reward
        >>> @reward(value_range=(0.0, 1.0), auto_register=False)
        ... def exact(response: str, ground_truth: str) -> bool:
        ...     return response == ground_truth
        >>> function = reward_function(exact, policy=Policy(on={"data": "mask"}))
        >>> asyncio.run(function(prompts=["2+2?", "?"], completions=["4", "5"], answer=["4", None]))
        [1.0, None]
    """
    known = Settings.__struct_fields__
    for key in settings:
        if key not in known:
            raise ConfigError(f"reward_function has no setting {key!r}{nearest(key, known)}")
    VERSIONS.check()
    kind = SyncRewardFunction if sync else AsyncRewardFunction
    return kind(reward, Settings(**settings))


class RewardFunction:
    """What the sync and the async form have in common.

    Args:
        reward: see `reward_function`.
        settings: see `reward_function`.
    """

    def __init__(self, reward: RewardLike, settings: Settings) -> None:
        self._named = reward
        self._settings = settings
        self._served: RewardService | None = None
        self._ranks: Ranks | None = None
        self._lock = threading.Lock()
        _check(settings)
        if isinstance(reward, RewardService):
            if settings.options or settings.backend is not None or settings.policy is not None:
                raise ConfigError("a RewardService has its own options, backend and policy")
            root = reward.reward
        else:
            self._plan = plan(reward, options=settings.options, backend=settings.backend)
            root = self._plan.reward
        self._components = component_names(root) if settings.components else ()
        self.__name__ = settings.name or root.name
        self.__qualname__ = self.__name__

    @property
    def service(self) -> RewardService:
        """The service behind it; in each process one of its own, made when it is first needed."""
        if isinstance(self._named, RewardService):
            return self._named
        with self._lock:
            if self._served is None:
                policy = self._settings.policy
                planned = self._plan
                if policy is not None:
                    planned = msgspec.structs.replace(planned, policy=policy)
                self._served = planned.build()
                _served.add(self)
            return self._served

    def close(self) -> None:
        """Stop the service, unless it was given."""
        with self._lock:
            served, self._served = self._served, None
        if served is not None:
            served.close()

    def forget(self) -> None:
        """Drop the service without stopping it, in a forked child that has only its shell."""
        self._lock = threading.Lock()
        self._served = self._ranks = None

    def __reduce__(self) -> Any:
        """By what it was made of.

        Raises:
            TypeError: it was made of a `RewardService`.
        """
        if isinstance(self._named, RewardService):
            raise TypeError(
                f"the reward function '{self.__name__}' was made of a RewardService, which lives "
                "in one process: make it of the reward, or of a configuration"
            )
        return type(self), (self._named, self._settings)

    def __repr__(self) -> str:
        return f"<TRL reward function {self.__name__}>"

    def _samples(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        completion_ids: Sequence[Sequence[int]] | None,
        columns: Mapping[str, Sequence[Any]],
        trainer: Trainer,
    ) -> list[Sample | Unusable]:
        rows = len(prompts)
        known = {"completions": completions, **columns}
        if completion_ids is not None:
            known["completion_ids"] = completion_ids
        for key, column in known.items():
            if len(column) != rows:
                raise ConfigError(f"{key!r} has {len(column)} entries for {rows} prompts")
        groups = self._groups(prompts, trainer)
        return _Rows(self._settings.columns, columns).samples(
            _shared(prompts, groups), completions, completion_ids, groups
        )

    def _groups(self, prompts: Sequence[Any], trainer: Trainer) -> list[str]:
        """Groups of the trainer's own size, else of the user's.

        Raises:
            ConfigError: the user's does not fit, or is not the trainer's while it trains.
        """
        rank = 0 if self._ranks is None else self._ranks.rank
        named, known = self._settings.num_generations, trainer.num_generations
        if None not in (named, known) and named != known and not trainer.evaluates:
            raise ConfigError(
                f"reward function '{self.__name__}': num_generations is {named}, but the trainer's "
                f"is {known}"
            )
        try:
            return _groups(prompts, known or named, rank, trainer.processes)
        except ConfigError:
            if named is not None:
                raise
            return _groups(prompts, None, rank, trainer.processes)

    def _split(self, trainer: Trainer) -> str:
        if self._settings.split is not None or not trainer.evaluates:
            return self._settings.split or TRAIN
        policy = self._policy()
        named = not isinstance(policy, Mapping) or EVAL in policy or "*" in policy
        return EVAL if named else TRAIN

    def _scorer(self, trainer: Trainer, trainer_state: Any) -> Callable[[list[Any]], Outcomes]:
        """Scores a batch on this process, or together with the others where there are several.

        The processes agree on what to raise: one that raised alone would leave the others waiting
        in TRL's gather.
        """
        arguments = self._arguments(trainer, trainer_state)

        def score(samples: list[Any]) -> Outcomes:
            return self._checked(self.service.score_sync(samples, **arguments), trainer)

        if self._ranks is None:
            return score
        reward, policies = self.service.reward, self._policies()
        drops = any("drop_group" in (*p.on.values(), p.abstention) for p in policies)
        whole_groups = drops or reward.scope == "group"
        return ShardScorer(reward, score, self._ranks, whole_groups=whole_groups)

    def _arguments(self, trainer: Trainer, trainer_state: Any) -> dict[str, Any]:
        return {
            "step": getattr(trainer_state, "global_step", None),
            "split": self._split(trainer),
            "timeout": self._settings.timeout,
        }

    def _called_by(self, log_metric: LogMetric | None) -> Trainer:
        """The trainer of a call, checked.

        Raises:
            ConfigError: failures are masked, and it adds other reward functions' values. This is
                said at the first call, not at the first failure. Or two of them have one name.
        """
        trainer = behind(log_metric)
        if trainer.names.count(self.__name__) > 1:
            raise ConfigError(
                f"the trainer has two reward functions called '{self.__name__}', whose columns and "
                "metrics would be one: give one of them another name="
            )
        if trainer.processes > 1 and self._ranks is None:
            # Of its own: async functions of one trainer send at the same time.
            self._ranks = Ranks.apart()
        policy = self._policy()
        if isinstance(policy, Mapping):
            policy = policy.get(self._split(trainer)) or policy.get("*")
        if policy is not None and trainer.others:
            masking = [blame for blame, action in policy.on.items() if action in MASKING]
            if masking:
                raise ConfigError(
                    f"reward function '{self.__name__}': the policy masks failures "
                    f"({', '.join(masking)}), but {AMONG_OTHERS}"
                )
        return trainer

    def _policy(self) -> Policy | Mapping[str, Policy] | None:
        if self._settings.policy is not None or isinstance(self._named, RewardService):
            return self._settings.policy
        return self._plan.policy

    def _policies(self) -> Iterable[Policy]:
        policy = self._policy()
        if policy is None:
            return ()
        return policy.values() if isinstance(policy, Mapping) else (policy,)

    def _checked(self, outcomes: Outcomes, trainer: Trainer) -> Outcomes:
        """Outcomes that TRL can be told.

        Raises:
            ScoringFailed: TRL would count a missing number as 0, or make an infinity of one.
        """
        self._refuse_partial_none(outcomes, trainer)
        rewards = outcomes.rewards
        for position in np.flatnonzero(np.abs(rewards.values) > LARGEST_SINGLE).tolist():
            try:
                check_single(rewards.values[position], outcomes[position])
            except ScoringFailed as error:
                raise ScoringFailed(str(error), outcomes) from None
        return outcomes

    def _refuse_partial_none(self, outcomes: Outcomes, trainer: Trainer) -> None:
        lost = [
            position
            for position in np.flatnonzero(~outcomes.rewards.mask).tolist()
            if not isinstance(outcomes[position], Abstention) or outcomes.dropped[position]
        ]
        if lost and trainer.others:
            raise ScoringFailed(
                f"reward function '{self.__name__}' has no number for row {lost[0]} "
                f"({_brief(outcomes[lost[0]], False, bool(outcomes.dropped[lost[0]]))}), but "
                f"{AMONG_OTHERS}",
                outcomes,
            )

    def _numbers(
        self,
        outcomes: Outcomes,
        log_extra: LogExtra | None,
        log_metric: LogMetric | None,
    ) -> Numbers:
        rewards = outcomes.rewards
        if log_extra is not None:
            self._log_columns(outcomes, log_extra)
        if log_metric is not None:
            self._log_metrics(outcomes, log_metric)
        return [
            number if there else None
            for number, there in zip(rewards.values.tolist(), rewards.mask.tolist(), strict=True)
        ]

    def _log_columns(self, outcomes: Outcomes, log_extra: LogExtra) -> None:
        """The same columns at every call: TRL's table of completions needs equal lengths."""
        name = self.__name__
        assigned = outcomes.assigned.mask.tolist()
        dropped = outcomes.dropped.tolist()
        log_extra(
            f"{name}/outcome",
            [_brief(o, a, d) for o, a, d in zip(outcomes, assigned, dropped, strict=True)],
        )
        for component in self._components:
            log_extra(
                f"{name}/{component}",
                [o.components.get(component) if type(o) is Score else None for o in outcomes],
            )

    def _log_metrics(self, outcomes: Outcomes, log_metric: LogMetric) -> None:
        """Shares of what is no score, and means over the scores that have the number."""
        name, rows = self.__name__, len(outcomes)
        numbers = outcomes.rewards.mask
        log_metric(f"{name}/failed", len(outcomes.failures) / rows)
        log_metric(f"{name}/assigned", float(outcomes.assigned.mask.mean()))
        log_metric(f"{name}/masked", 1.0 - float(numbers.mean()))
        for component in self._components:
            column = outcomes.components.get(component)
            if column is not None and column.mask.any():
                log_metric(f"{name}/{component}", float(column.values[column.mask].mean()))


class AsyncRewardFunction(RewardFunction):
    """A coroutine function to TRL, old versions included.

    `inspect.iscoroutinefunction` looks at functions only: an object whose `__call__` is async
    passes as one if it has the attributes of a function. Without that TRL before 1.16 would take
    the coroutine for the list of rewards.
    """

    __defaults__: ClassVar[None] = None
    __kwdefaults__: ClassVar[None] = None

    def __init__(self, reward: RewardLike, settings: Settings) -> None:
        super().__init__(reward, settings)
        self.__code__ = type(self).__call__.__code__
        self.__signature__ = inspect.signature(self.__call__)

    async def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        completion_ids: Sequence[Sequence[int]] | None = None,
        *,
        trainer_state: Any = None,
        log_extra: LogExtra | None = None,
        log_metric: LogMetric | None = None,
        **columns: Sequence[Any],
    ) -> Numbers:
        """Score one batch: one entry per row, in order; None where there is no number.

        Args:
            prompts: texts, or lists of messages.
            completions: texts, or lists of messages.
            completion_ids: the policy's tokens of each completion.
            trainer_state: its `global_step` is the step.
            log_extra: gets a column per component, and one that says what each row is.
            log_metric: gets the mean of each component and the shares of failed, assigned and
                masked rows.
            columns: of the dataset, one entry per row.

        Raises:
            ScoringFailed: what the policy does not mask or assign.
        """
        if not prompts:
            return []
        trainer = self._called_by(log_metric)
        samples = self._samples(prompts, completions, completion_ids, columns, trainer)
        if self._ranks is None:
            arguments = self._arguments(trainer, trainer_state)
            outcomes = self._checked(await self.service.score(samples, **arguments), trainer)
        else:
            outcomes = await asyncio.to_thread(self._scorer(trainer, trainer_state), samples)
        return self._numbers(outcomes, log_extra, log_metric)


class SyncRewardFunction(RewardFunction):
    """A plain function to TRL; its arguments and results are those of the async form."""

    def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        completion_ids: Sequence[Sequence[int]] | None = None,
        *,
        trainer_state: Any = None,
        log_extra: LogExtra | None = None,
        log_metric: LogMetric | None = None,
        **columns: Sequence[Any],
    ) -> Numbers:
        """Score one batch; see `AsyncRewardFunction.__call__`."""
        if not prompts:
            return []
        trainer = self._called_by(log_metric)
        samples = self._samples(prompts, completions, completion_ids, columns, trainer)
        outcomes = self._scorer(trainer, trainer_state)(samples)
        return self._numbers(outcomes, log_extra, log_metric)


class _Rows:
    """Which dataset column fills which field, and the samples that follow.

    Args:
        named: sample field to column, as the user says.
        columns: of the dataset.
    """

    def __init__(self, named: Mapping[str, str], columns: Mapping[str, Sequence[Any]]) -> None:
        for key in TAKEN:
            if key in columns:
                raise ConfigError(
                    f"the dataset has a column {key!r}, which is what the trainer gives the "
                    "reward: rename the column"
                )
        fields = _fields(named, columns)
        self._fields = {field: columns[column] for field, column in fields.items()}
        used = fields.values()
        self._rest = {
            "environment" if key == ENVIRONMENTS else key: column
            for key, column in columns.items()
            if key not in used
        }

    def samples(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        completion_ids: Sequence[Sequence[int]] | None,
        groups: Sequence[str],
    ) -> list[Sample | Unusable]:
        """One sample per row; `Unusable`, with the reason, for a row that makes none."""
        seen: dict[str, int] = {}
        samples: list[Sample | Unusable] = []
        for row, (prompt, completion, group) in enumerate(
            zip(prompts, completions, groups, strict=True)
        ):
            fields = {field: column[row] for field, column in self._fields.items()}
            fields.setdefault("group_id", group)
            if fields.get("sample_id") is not None:
                fields["sample_id"] = _generation(fields["sample_id"], seen)
            fields["metadata"] = {key: column[row] for key, column in self._rest.items()} or EMPTY
            if completion_ids is not None:
                fields["response_token_ids"] = completion_ids[row]
            try:
                if isinstance(prompt, InvalidSample):
                    raise prompt
                samples.append(Sample(prompt=prompt, response=parsed(completion), **fields))
            except InvalidSample as error:
                group = fields["group_id"] if isinstance(fields["group_id"], str) else None
                samples.append(Unusable(problem=f"row {row}: {error}", group_id=group))
        return samples


def _generation(prompt_id: object, seen: dict[str, int]) -> str:
    """A dataset's id names the prompt; each of its generations needs one of its own."""
    text = str(prompt_id)
    seen[text] = seen.get(text, -1) + 1
    return f"{text}#{seen[text]}"


def _fields(named: Mapping[str, str], columns: Iterable[str]) -> dict[str, str]:
    """Field to column: what the user names, else the field's own name, else its one synonym."""
    there = set(columns)
    for field, column in named.items():
        if column not in there:
            hint = nearest(column, there)
            raise ConfigError(f"columns: the dataset has no column {column!r} ({field}){hint}")
    fields = dict(named)
    for field in COLUMN_FIELDS:
        if field in there:
            fields.setdefault(field, field)
    synonyms = [name for name in TRUTHS if name in there]
    # Two of them (a worked solution and its answer) are for the user to tell apart.
    if "ground_truth" not in fields and len(synonyms) == 1:
        fields["ground_truth"] = synonyms[0]
    return fields


def _groups(prompts: Sequence[Any], size: int | None, rank: int, processes: int) -> list[str]:
    """A name for the group of each row: `size` rows each, or equal prompts in a row.

    TRL deals out the rows of all groups in the order of the processes, equally many to each.

    Raises:
        ConfigError: groups of that size do not fit.
    """
    rows = len(prompts)
    starts = [
        row == 0 or (prompt is not prompts[row - 1] and prompt != prompts[row - 1])
        for row, prompt in enumerate(prompts)
    ]
    if size is None:
        numbers = [number - 1 for number in accumulate(starts)]
        return [str(number) if processes == 1 else f"{rank}.{number}" for number in numbers]
    if rows * processes % size:
        batch = "a batch has" if processes == 1 else f"{processes} processes have"
        raise ConfigError(f"num_generations is {size}, but {batch} {rows * processes} rows")
    first = rank * rows
    for row in range(1, rows):
        if starts[row] and (first + row) % size:
            raise ConfigError(
                f"num_generations is {size}, but row {row} of a batch has another prompt than the "
                "row before it"
            )
    return [str((first + row) // size) for row in range(rows)]


def _shared(prompts: Sequence[Any], groups: Sequence[str]) -> list[Any]:
    """Prompts with the messages of each group parsed once, or what is wrong with them."""
    shared: list[Any] = []
    for row, (prompt, group) in enumerate(zip(prompts, groups, strict=True)):
        if row > 0 and group == groups[row - 1]:
            shared.append(shared[-1])
            continue
        try:
            shared.append(parsed(prompt))
        except InvalidSample as error:
            shared.append(InvalidSample(f"prompt: {error}"))
    return shared


def _brief(outcome: Outcome, assigned: bool, dropped: bool) -> str:
    if isinstance(outcome, Failure):
        text = f"failure: {outcome.kind} ({outcome.blame})"
    else:
        text = "abstention" if isinstance(outcome, Abstention) else "score"
    return f"{text}, dropped" if dropped else f"{text}, assigned" if assigned else text


def _check(settings: Settings) -> None:
    size = settings.num_generations
    if size is not None and size < 1:
        raise ConfigError(f"num_generations must be at least 1, got {size}")
    for field in settings.columns:
        if field not in COLUMN_FIELDS:
            hint = nearest(field, COLUMN_FIELDS)
            raise ConfigError(
                f"columns: {field!r} is no field that a column can fill{hint} "
                f"(fields: {', '.join(COLUMN_FIELDS)})"
            )


_served: WeakSet[RewardFunction] = WeakSet()


def _forget_all() -> None:
    for function in _served:
        function.forget()
    _served.clear()


os.register_at_fork(after_in_child=_forget_all)
