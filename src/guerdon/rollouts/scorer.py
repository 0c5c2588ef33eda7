"""Scoring batches of rows with a reward, a configuration, or the reward that each row's data
source is routed to; failures never stop a run before its rows are written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import msgspec

from guerdon import registry
from guerdon.errors import Blame, FailureKind, ScoringFailed, UnknownReward
from guerdon.fingerprint import digest
from guerdon.outcome import Outcome, failure
from guerdon.outcomes import Outcomes
from guerdon.policy import Action, Policy, settle
from guerdon.reward import BaseReward
from guerdon.rollouts.misuse import Misuse
from guerdon.rollouts.outcome_row import Item, OutcomeRow, outcome_row
from guerdon.sample import Sample, Unusable
from guerdon.service import RewardService

AUTO = "auto"
CONFIG_SUFFIXES = (".yaml", ".yml")
BLAMES = ("scorer", "infrastructure", "data")
"""Blames whose failures `--on-failure` is about; a candidate's fault is the policy's business."""


class Conditions(msgspec.Struct, frozen=True, kw_only=True):
    """How to score.

    Attributes:
        on_failure: "raise", "mask", or None for what the configuration says.
        workers: processes, and calls in flight of an async reward; None leaves it to the reward.
        split: see `RewardService.score`.
        step: see `RewardService.score`.
        timeout: seconds to wait for one batch.
    """

    on_failure: str | None = None
    workers: int | None = None
    split: str = "train"
    step: int | None = None
    timeout: float | None = None


class Stopped(ScoringFailed):
    """A failure budget is used up; `rows` are the last ones to be written."""

    def __init__(self, message: str, outcomes: Outcomes, rows: list[OutcomeRow]) -> None:
        super().__init__(message, outcomes)
        self.rows = rows


class Scorer(Protocol):
    """Scores batches of rows."""

    name: str
    whole_groups: bool
    """Whether the members of a group must come in one batch."""
    waits: bool
    """Whether it waits for something else than this process, so that more batches may be open."""

    @property
    def fingerprint(self) -> str:
        """Of the reward."""
        ...

    def accepts(self, name: str, fingerprint: str) -> bool:
        """Whether a row that was scored by a reward of this name may come from this scorer."""
        ...

    def raises(self, blame: str | None) -> bool:
        """Whether failures with this blame, or abstentions for None, are an error of the run."""
        ...

    async def score(self, batch: Sequence[Item]) -> list[OutcomeRow]:
        """The output rows of a batch, in its order.

        Raises:
            Stopped: a failure budget is used up.
            CircuitOpen: the breaker has stopped the run.
        """
        ...

    def close(self) -> None:
        """End workers."""
        ...


class RewardScorer:
    """Scores with one service.

    Args:
        service: of the reward; its policy must not raise.
        policy: what the service does, and what the user asked for.
        conditions: how to score.
    """

    def __init__(
        self, service: RewardService, policy: tuple[Policy, Policy], conditions: Conditions
    ) -> None:
        reward = service.reward
        self.name = reward.name
        self.fingerprint = reward.fingerprint
        self._lenient, self._asked = policy
        drops = "drop_group" in (*self._asked.on.values(), self._asked.abstention)
        self.whole_groups = drops or any(node.scope == "group" for node in nodes(reward))
        self.waits = any(node.is_async or node.deadline is not None for node in leaves(reward))
        self._service = service
        self._conditions = conditions

    def accepts(self, name: str, fingerprint: str) -> bool:
        """Whether it is this reward."""
        return name == self.name and fingerprint == self.fingerprint

    def raises(self, blame: str | None) -> bool:
        """Whether the policy that was asked for raises."""
        action = self._asked.abstention if blame is None else self._asked.on[blame]
        return action == "raise"

    async def score(self, batch: Sequence[Item]) -> list[OutcomeRow]:
        """See `Scorer.score`."""
        samples = [unusable(item) if item.sample is None else item.sample for item in batch]
        stopped: ScoringFailed | None = None
        try:
            outcomes = await self._service.score(
                samples,
                step=self._conditions.step,
                split=self._conditions.split,
                timeout=self._conditions.timeout,
            )
        except ScoringFailed as error:
            stopped = error
            known = [Sample(sample_id=item.sample_id, group_id=item.group_id) for item in batch]
            outcomes = settle(self._lenient, error.outcomes, known, self._service.worst_end)
        rows = self._rows(batch, outcomes)
        if stopped is not None:
            raise Stopped(str(stopped), outcomes, rows)
        return rows

    def close(self) -> None:
        """End workers."""
        self._service.close()

    def _rows(self, batch: Sequence[Item], outcomes: Outcomes) -> list[OutcomeRow]:
        assigned, dropped = outcomes.assigned, outcomes.dropped
        values = assigned.values.tolist() if assigned.mask.any() else None
        given = assigned.mask.tolist()
        rows: list[OutcomeRow] = []
        for position, (item, outcome) in enumerate(zip(batch, outcomes, strict=True)):
            value = values[position] if values is not None and given[position] else None
            rows.append(self._row(item, outcome, value, bool(dropped[position])))
        return rows

    def _row(
        self, item: Item, outcome: Outcome, assigned: float | None = None, dropped: bool = False
    ) -> OutcomeRow:
        return outcome_row(
            item,
            outcome,
            reward=self.name,
            fingerprint=self.fingerprint,
            assigned=assigned,
            dropped=dropped,
        )


class RoutedScorer:
    """Scores each row with the reward that its data source is routed to.

    Args:
        sources: data sources that are known to occur.
        conditions: how to score.
    """

    name = AUTO

    def __init__(self, sources: Sequence[str], conditions: Conditions) -> None:
        self._conditions = conditions
        self._scorers: dict[str, RewardScorer] = {}
        self._unrouted: dict[str, str] = {}
        self._started = False
        self.whole_groups = False
        self.waits = True
        self.fingerprint = digest({"routes": registry.routes()})
        if not sources:
            raise Misuse(
                "--reward auto chooses by data_source, which the first rows do not have\n"
                "name the reward, or the column: --map data_source=COLUMN"
            )
        found = [self._scorer(source) for source in sources]
        if not any(found):
            known = ", ".join(registry.routes()) or "none"
            raise Misuse(
                f"{next(iter(self._unrouted.values()))} (routes: {known})\n"
                "name the reward with --reward, or write routes into a YAML configuration"
            )
        self.whole_groups = any(scorer.whole_groups for scorer in found if scorer)
        self._started = True

    def accepts(self, name: str, fingerprint: str) -> bool:
        """Whether it is not known to be another version of one of its rewards."""
        known = {scorer.name: scorer.fingerprint for scorer in self._scorers.values()}
        return {**known, self.name: self.fingerprint}.get(name, fingerprint) == fingerprint

    def raises(self, blame: str | None) -> bool:
        """As `--on-failure` says."""
        return blame in BLAMES and self._conditions.on_failure != "mask"

    async def score(self, batch: Sequence[Item]) -> list[OutcomeRow]:
        """See `Scorer.score`."""
        parts: dict[int, tuple[RewardScorer, list[Item]]] = {}
        rows: dict[int, OutcomeRow] = {}
        chosen = [self._for(item) for item in batch]
        of_group: dict[str | None, RewardScorer] = {
            item.group_id: scorer
            for item, scorer in zip(batch, chosen, strict=True)
            if scorer is not None and item.group_id is not None
        }
        for item, own in zip(batch, chosen, strict=True):
            # A row that cannot be read goes to where its group is scored, which is not whole then.
            scorer = own or (of_group.get(item.group_id) if item.sample is None else None)
            if scorer is None:
                rows[item.row] = self._lost(item)
            else:
                parts.setdefault(id(scorer), (scorer, []))[1].append(item)
        for scorer, items in parts.values():
            for row in await scorer.score(items):
                rows[row["row"]] = row
        return [rows[item.row] for item in batch]

    def close(self) -> None:
        """End workers."""
        for scorer in self._scorers.values():
            scorer.close()

    def _for(self, item: Item) -> RewardScorer | None:
        if item.sample is None:
            return None
        source = item.sample.data_source
        if source is None:
            item.problem = "the row has no data_source, by which --reward auto chooses the reward"
            return None
        scorer = self._scorer(source)
        item.problem = item.problem or self._unrouted.get(source, "")
        return scorer

    def _lost(self, item: Item) -> OutcomeRow:
        lost = failure(FailureKind.BAD_INPUT, unusable(item).problem, Blame.DATA)
        return outcome_row(item, lost, reward=self.name, fingerprint=self.fingerprint)

    def _scorer(self, source: str) -> RewardScorer | None:
        if source in self._unrouted:
            return None
        try:
            reference = registry.reference_for(source)
        except UnknownReward as error:
            self._unrouted[source] = str(error)
            return None
        scorer = self._scorers.get(reference)
        if scorer is None:
            scorer = _reward_scorer(registry.resolve(reference), Policy(), self._conditions)
            if self._started and scorer.whole_groups and not self.whole_groups:
                raise Misuse(
                    f"data source {source!r}, which the first rows do not have, is scored by "
                    f"'{scorer.name}', which needs whole groups: use a configuration with routes"
                )
            self._scorers[reference] = scorer
        return scorer


def open_scorer(reference: str, sources: Sequence[str], conditions: Conditions) -> Scorer:
    """What scores with a reward.

    Args:
        reference: a name, `pkg.mod:name`, `file.py:name`, a YAML file, or `auto`.
        sources: data sources of the first rows, for `auto`.
        conditions: how to score.

    Raises:
        GuerdonError: nothing answers to the reference, or the configuration is wrong.
    """
    if reference == AUTO:
        return RoutedScorer(sources, conditions)
    if not reference.endswith(CONFIG_SUFFIXES):
        return _reward_scorer(_named(reference), Policy(), conditions)
    if not Path(reference).is_file():
        raise Misuse(f"no such file: {reference}")
    from guerdon.config import load

    config = load(reference)
    return _reward_scorer(
        config.reward,
        config.policy,
        conditions,
        backend=config.backend.choice,
        truncation=config.truncation,
    )


def _named(reference: str) -> BaseReward:
    try:
        return registry.resolve(reference)
    except UnknownReward as error:
        if ":" in reference:
            raise
        raise Misuse(f"{error}\n'guerdon rewards' lists the names") from None


def nodes(reward: BaseReward) -> Iterator[BaseReward]:
    """A reward and everything it is composed of."""
    yield reward
    for child in reward.children.values():
        yield from nodes(child)


def leaves(reward: BaseReward) -> Iterator[BaseReward]:
    """What a reward is composed of at last."""
    return (node for node in nodes(reward) if not node.children)


def unusable(item: Item) -> Unusable:
    """What stands for a row that cannot be scored."""
    return Unusable(
        problem=f"{item.place}: {item.problem}",
        sample_id=item.sample_id,
        group_id=item.group_id,
    )


def _reward_scorer(
    reward: BaseReward,
    policy: Policy | Mapping[str, Policy],
    conditions: Conditions,
    *,
    backend: Any = None,
    truncation: Any = None,
) -> RewardScorer:
    asked = _asked(policy, conditions)
    lenient = _lenient(asked)
    if conditions.workers is not None:
        backend = _with_workers(backend, conditions.workers)
        if not reward.children and (reward.is_async or reward.work == "io"):
            reward = reward.configure(concurrency=conditions.workers)
    service = RewardService(reward, backend=backend, policy=lenient, truncation=truncation)
    return RewardScorer(service, (lenient, asked), conditions)


def _asked(policy: Policy | Mapping[str, Policy], conditions: Conditions) -> Policy:
    """The policy of the split, changed as `--on-failure` says."""
    if isinstance(policy, Mapping):
        found = policy.get(conditions.split) or policy.get("*")
        if found is None:
            known = ", ".join(policy)
            raise Misuse(
                f"the configuration has no policy for --split {conditions.split} ({known})"
            )
        policy = found
    if conditions.on_failure is None:
        return policy
    action = cast("Action", conditions.on_failure)
    accepts = action == "mask" and policy.abstention == "raise"
    return msgspec.structs.replace(
        policy,
        on={**policy.on, **dict.fromkeys(BLAMES, action)},
        abstention="mask" if accepts else policy.abstention,
    )


def _lenient(policy: Policy) -> Policy:
    """The policy with `mask` for `raise`: all rows are scored and written first."""
    on: dict[str, Action] = {
        blame: "mask" if action == "raise" else action for blame, action in policy.on.items()
    }
    abstention: Action = "mask" if policy.abstention == "raise" else policy.abstention
    return msgspec.structs.replace(policy, on=on, abstention=abstention)


def _with_workers(backend: Any, workers: int) -> Any:
    if backend is None:
        return {"auto": {"workers": workers}}
    if isinstance(backend, Mapping):
        options = cast("Mapping[str, Mapping[str, Any]]", backend)
        return {
            name: {**chosen, "workers": workers} if name != "inline" else chosen
            for name, chosen in options.items()
        }
    return backend
