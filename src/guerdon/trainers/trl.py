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
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import accumulate
from typing import Any, ClassVar, Literal, TypeAlias, overload
from weakref import WeakSet

import msgspec
import numpy as np

from guerdon.errors import ConfigError, ScoringFailed, nearest
from guerdon.outcome import EMPTY, Abstention, Failure, Outcome, Score
from guerdon.outcomes import Outcomes
from guerdon.policy import EVERY_SPLIT, Policy, by_split, of_split
from guerdon.service import Entry, RewardService
from guerdon.trainers.component import component_names
from guerdon.trainers.no_score import LARGEST_SINGLE, check_single
from guerdon.trainers.plan import RewardLike, plan
from guerdon.trainers.ranks import Ranks
from guerdon.trainers.shards import ShardScorer
from guerdon.trainers.trl_rows import (
    COLUMN_FIELDS,
    Rows,
    check_size,
    groups_of_size,
    repeated,
    shared_prompts,
)
from guerdon.trainers.trl_trainer import Trainer, behind
from guerdon.trainers.versions import Versions

VERSIONS = Versions("trl", least="1.0.0", tested="1.16.0", needs="log_extra and log_metric")

Numbers: TypeAlias = list[float | None]
LogExtra: TypeAlias = Callable[[str, list[Any]], None]
LogMetric: TypeAlias = Callable[[str, float], None]

MASKING = ("mask", "drop_group")

TRAIN, EVAL = "train", "eval"
"""Splits; evaluation is under the policy of training where it has none of its own."""

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
            root, self._policies = reward.reward, reward.policies
        else:
            planned = plan(reward, options=settings.options, backend=settings.backend)
            if settings.policy is not None:
                planned = msgspec.structs.replace(planned, policy=settings.policy)
            self._plan = planned
            root, self._policies = planned.reward, by_split(planned.policy)
        of_split(self._policies, settings.split or TRAIN)
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
                self._served = self._plan.build()
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
    ) -> list[Entry]:
        rows = len(prompts)
        known = {"completions": completions, **columns}
        if completion_ids is not None:
            known["completion_ids"] = completion_ids
        for key, column in known.items():
            if len(column) != rows:
                raise ConfigError(f"{key!r} has {len(column)} entries for {rows} prompts")
        same = repeated(prompts)
        return Rows(self._settings.columns, columns).samples(
            shared_prompts(prompts, same),
            completions,
            completion_ids,
            self._groups(same, trainer),
        )

    def _groups(self, same: Sequence[bool], trainer: Trainer) -> list[str]:
        """Groups of the trainer's own size where the batch has whole ones, else of the user's, else
        rows of one prompt.

        Raises:
            ConfigError: the user's size does not fit, or is not the trainer's while it trains.
        """
        named, known = self._settings.num_generations, trainer.num_generations
        if None not in (named, known) and named != known and not trainer.evaluates:
            raise ConfigError(
                f"reward function '{self.__name__}': num_generations is {named}, but the trainer's "
                f"is {known}"
            )
        rank = 0 if self._ranks is None else self._ranks.rank
        processes = trainer.processes
        if known is not None and len(same) * processes % known == 0:
            return groups_of_size(len(same), known, rank)
        if named is not None:
            check_size(same, named, rank, processes)
            return groups_of_size(len(same), named, rank)
        numbers = [number - 1 for number in accumulate(not repeats for repeats in same)]
        return [str(number) if processes == 1 else f"{rank}.{number}" for number in numbers]

    def _split(self, trainer: Trainer) -> str:
        if self._settings.split is not None or not trainer.evaluates:
            return self._settings.split or TRAIN
        return EVAL if EVAL in self._policies or EVERY_SPLIT in self._policies else TRAIN

    def _together(
        self,
        ranks: Ranks,
        batch: Callable[[], list[Entry]],
        arguments: Mapping[str, Any],
        trainer: Trainer,
    ) -> tuple[Outcomes, dict[str, float]]:
        """Score a batch together with the other processes; collective.

        The processes agree on what to raise: one that raised alone would leave the others waiting
        in TRL's gather.

        Returns:
            Outcomes of this process, and means of the components over all processes.
        """
        entries: list[Entry] = []
        problem: Exception | None = None
        try:
            entries = batch()
        except Exception as error:
            problem = error

        def score(samples: list[Entry]) -> Outcomes:
            if problem is not None:
                raise problem
            return self._checked(self.service.score_sync(samples, **arguments), trainer)

        outcomes = ShardScorer(self.service, ranks, score)(entries)
        return outcomes, self._means(ranks.add(self._sums(outcomes)))

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
        policy = of_split(self._policies, self._split(trainer))
        masking = [blame for blame, action in policy.on.items() if action in MASKING]
        if masking and trainer.others:
            raise ConfigError(
                f"reward function '{self.__name__}': the policy masks failures "
                f"({', '.join(masking)}), but {AMONG_OTHERS}"
            )
        return trainer

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
        means: Mapping[str, float],
        log_extra: LogExtra | None,
        log_metric: LogMetric | None,
    ) -> Numbers:
        rewards = outcomes.rewards
        if log_extra is not None:
            self._log_columns(outcomes, log_extra)
        if log_metric is not None:
            self._log_metrics(outcomes, means, log_metric)
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

    def _log_metrics(
        self, outcomes: Outcomes, means: Mapping[str, float], log_metric: LogMetric
    ) -> None:
        """Shares of what is no score, and means over the scores that have the number."""
        name, rows = self.__name__, len(outcomes)
        numbers = outcomes.rewards.mask
        log_metric(f"{name}/failed", len(outcomes.failures) / rows)
        log_metric(f"{name}/assigned", float(outcomes.assigned.mask.mean()))
        log_metric(f"{name}/masked", 1.0 - float(numbers.mean()))
        for component, mean in means.items():
            log_metric(f"{name}/{component}", mean)

    def _sums(self, outcomes: Outcomes) -> list[float]:
        """For each component the sum of its values, and how many there are."""
        found = outcomes.components
        sums: list[float] = []
        for component in self._components:
            column = found.get(component)
            if column is None:
                sums += [0.0, 0.0]
            else:
                sums += [float(column.values[column.mask].sum()), float(column.mask.sum())]
        return sums

    def _means(self, sums: Sequence[float]) -> dict[str, float]:
        """Means of the components that have a value.

        TRL waits for all processes to log the same metrics (before 1.14 for ever), so they are
        those of all processes.
        """
        parts = zip(self._components, sums[::2], sums[1::2], strict=True)
        return {component: total / count for component, total, count in parts if count}


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
        trainer = self._called_by(log_metric)
        if not prompts and self._ranks is None:
            return []
        batch = partial(self._samples, prompts, completions, completion_ids, columns, trainer)
        arguments = self._arguments(trainer, trainer_state)
        if self._ranks is None:
            outcomes = self._checked(await self.service.score(batch(), **arguments), trainer)
            means = self._means(self._sums(outcomes))
        else:
            outcomes, means = await asyncio.to_thread(
                self._together, self._ranks, batch, arguments, trainer
            )
        return self._numbers(outcomes, means, log_extra, log_metric)


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
        trainer = self._called_by(log_metric)
        if not prompts and self._ranks is None:
            return []
        batch = partial(self._samples, prompts, completions, completion_ids, columns, trainer)
        arguments = self._arguments(trainer, trainer_state)
        if self._ranks is None:
            outcomes = self._checked(self.service.score_sync(batch(), **arguments), trainer)
            means = self._means(self._sums(outcomes))
        else:
            outcomes, means = self._together(self._ranks, batch, arguments, trainer)
        return self._numbers(outcomes, means, log_extra, log_metric)


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
