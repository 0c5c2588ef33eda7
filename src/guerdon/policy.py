"""What becomes of failures: retried, masked, assigned a number that is flagged, or raised.

A policy never changes an outcome. It decides what stands beside it, and when a run must stop.
"""

from __future__ import annotations

import math
import random
import threading
from collections import OrderedDict, deque
from collections.abc import Hashable, Mapping, Sequence
from itertools import chain
from typing import Literal, TypeAlias, cast

import msgspec
from msgspec.structs import force_setattr

from guerdon.errors import Blame, BudgetExceeded, CircuitOpen, ConfigError, ScoringFailed, nearest
from guerdon.injection import Call
from guerdon.outcome import Failure, Outcome, Range, Score
from guerdon.outcomes import Outcomes, describe_failures
from guerdon.sample import Sample

ACTIONS = ("raise", "mask", "drop_group", "assign")
BREAKER_EXAMPLES = 3
"""Failures that the message of an open breaker quotes."""
REMEMBERED_STEPS = 64
"""Steps whose failure budget is still counted; older ones are over."""


MOST_DOUBLINGS = 64
"""Of a delay: far beyond any longest delay, and no overflow."""


class Assign(msgspec.Struct, frozen=True):
    """Put this number beside the failure or abstention, flagged as assigned.

    Attributes:
        value: finite.
    """

    value: float

    def __post_init__(self) -> None:
        if not math.isfinite(self.value):
            raise ConfigError(f"an assigned value must be finite, got {self.value}")


Action: TypeAlias = Literal["raise", "mask", "drop_group", "assign"] | Assign
"""`raise` stops the step; `mask` leaves the sample without a number; `drop_group` takes its whole
group out of training; `assign` gives it the worst end of the root reward's range."""


class Retry(msgspec.Struct, frozen=True):
    """How often a leaf is tried again for samples whose failure is retryable.

    Attributes:
        attempts: tries in all, the first included.
        first_delay: seconds before the second try; each further one waits twice as long.
        longest_delay: seconds, upper bound of one wait.
        jitter: share of each wait that is random, so that callers do not come back together.
        within: seconds for all tries together; None has no bound.
    """

    attempts: int = 3
    first_delay: float = 0.5
    longest_delay: float = 30.0
    jitter: float = 0.5
    within: float | None = None

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.first_delay < 0 or self.longest_delay < 0:
            raise ConfigError("retry needs attempts >= 1 and delays >= 0")
        if not 0 <= self.jitter <= 1:
            raise ConfigError(f"retry: jitter must lie in [0, 1], got {self.jitter}")

    def delay(self, tries: int) -> float:
        """Seconds to wait after so many tries.

        Example:
            >>> Retry(first_delay=1.0, jitter=0.0).delay(3)
            4.0
        """
        doublings = min(tries - 1, MOST_DOUBLINGS)
        full = min(self.longest_delay, self.first_delay * 2.0**doublings)
        return full * (1.0 - self.jitter * random.random())


NO_RETRY = Retry(attempts=1)


class Budget(msgspec.Struct, frozen=True):
    """How large a share of the samples of one reward may fail in one step.

    Failures that a candidate caused do not count.

    Attributes:
        share: in [0, 1].
        minimum: the share is not looked at before so many samples of the step were scored.
    """

    share: float
    minimum: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ConfigError(f"budget: share must lie in [0, 1], got {self.share}")


class Breaker(msgspec.Struct, frozen=True):
    """When to stop a run because a reward has stopped working.

    Failures that a candidate caused do not count.

    Attributes:
        share: of the last `window` samples of one reward that may fail.
        window: samples.
    """

    share: float = 0.5
    window: int = 200

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1 or self.window < 1:
            raise ConfigError("breaker needs 0 < share <= 1 and window >= 1")


def _default_actions() -> dict[str, Action]:
    return {"candidate": "assign", "scorer": "raise", "infrastructure": "raise", "data": "raise"}


class Policy(msgspec.Struct, frozen=True):
    """What to do about failures.

    Attributes:
        retry: tries at the leaf.
        on: action by blame; blames that are not named keep the default: `raise` for scorer,
            infrastructure and data, `assign` for candidate.
        abstention: action for a root abstention.
        budget: failures allowed per step and reward, whatever `on` says.
        breaker: when to stop the run.

    Example:
        >>> Policy(on={"data": "mask"}).on["scorer"]
        'raise'
        >>> Policy(on={"date": "mask"})
        Traceback (most recent call last):
        guerdon.errors.ConfigError: policy: no blame is called 'date' (did you mean 'data'?)
    """

    retry: Retry = Retry()
    on: Mapping[str, Action] = msgspec.field(default_factory=_default_actions)
    abstention: Action = "mask"
    budget: Budget | None = None
    breaker: Breaker | None = None

    def __post_init__(self) -> None:
        blames = [str(blame) for blame in Blame]
        for blame in self.on:
            if blame not in blames:
                raise ConfigError(f"policy: no blame is called {blame!r}{nearest(blame, blames)}")
        force_setattr(self, "on", {**_default_actions(), **self.on})
        for action in (*self.on.values(), self.abstention):
            if not isinstance(action, Assign) and action not in ACTIONS:
                hint = nearest(str(action), ACTIONS)
                raise ConfigError(f"policy: no action is called {action!r}{hint}")

    @property
    def drops_groups(self) -> bool:
        """Whether one sample can take its whole group out of training."""
        return "drop_group" in (*self.on.values(), self.abstention)


EVERY_SPLIT = "*"
"""Where policies are given by split: the one for splits that are not named."""


def by_split(policy: Policy | Mapping[str, Policy] | None) -> dict[str, Policy]:
    """The policy of each split, from one for all of them, one for each, or none.

    Raises:
        ConfigError: something is no policy.

    Example:
        >>> by_split(None) == {"*": Policy()}
        True
    """
    if policy is None or isinstance(policy, Policy):
        return {EVERY_SPLIT: policy or Policy()}
    for split, own in policy.items():
        if not isinstance(cast("object", own), Policy):
            raise ConfigError(f"the policy for split {split!r} is no Policy: {own!r}")
    return dict(policy)


def of_split(policies: Mapping[str, Policy], split: str) -> Policy:
    """The policy that holds for a split.

    Raises:
        ConfigError: there is none; naming those that there are.
    """
    policy = policies.get(split) or policies.get(EVERY_SPLIT)
    if policy is None:
        known = ", ".join(policies)
        raise ConfigError(f"no policy for split {split!r} (policies: {known})")
    return policy


def worst_end(value_range: Range, higher_is_better: bool) -> float | None:
    """The worst value of a reward, or None where its range has no finite worst end.

    Example:
        >>> worst_end((0.0, 1.0), True), worst_end((0.0, float("inf")), False)
        (0.0, None)
    """
    end = value_range[0] if higher_is_better else value_range[1]
    return end if math.isfinite(end) else None


def settle(
    policy: Policy, outcomes: Sequence[Outcome], samples: Sequence[Sample], worst: float | None
) -> Outcomes:
    """Put what the policy says beside the outcomes.

    Args:
        policy: for this split.
        outcomes: of the root, in the order of the samples.
        samples: what was scored.
        worst: what `assign` gives; None masks instead.

    Raises:
        ScoringFailed: a failure whose action is `raise`; it holds all outcomes.
    """
    assigned: dict[int, float] = {}
    dropped: set[int] = set()
    raised: list[int] = []
    groups: dict[str, list[int]] | None = None
    for position, outcome in enumerate(outcomes):
        if type(outcome) is Score:
            continue
        action = _action(policy, outcome)
        if isinstance(action, Assign):
            assigned[position] = action.value
        elif action == "assign" and worst is not None:
            assigned[position] = worst
        elif action == "raise":
            raised.append(position)
        elif action == "drop_group":
            groups = groups if groups is not None else _groups(samples)
            group_id = samples[position].group_id
            dropped.update([position] if group_id is None else groups[group_id])
    settled = Outcomes(
        outcomes,
        sample_ids=[sample.sample_id for sample in samples],
        assigned=assigned,
        dropped=sorted(dropped),
    )
    if raised:
        raise ScoringFailed(_raised_message(settled, raised), settled)
    return settled


def _action(policy: Policy, outcome: Outcome) -> Action:
    if isinstance(outcome, Failure):
        return policy.on[str(outcome.blame)]
    return policy.abstention


def _groups(samples: Sequence[Sample]) -> dict[str, list[int]]:
    groups: dict[str, list[int]] = {}
    for position, sample in enumerate(samples):
        if sample.group_id is not None:
            groups.setdefault(sample.group_id, []).append(position)
    return groups


def _raised_message(outcomes: Outcomes, raised: Sequence[int]) -> str:
    failures: dict[str | int, Failure] = {}
    abstained: list[int] = []
    for position in raised:
        outcome = outcomes[position]
        if isinstance(outcome, Failure):
            failures[outcomes.key(position)] = outcome
        else:
            abstained.append(position)
    lines = [describe_failures(failures, len(outcomes))] if failures else []
    if abstained:
        lines.append(f"{len(abstained)} samples have no score (abstention), first: {abstained[0]}")
    return "\n".join(lines)


class Ledger:
    """What a service remembers about failures: budgets by step, and the breaker of each reward.

    Thread-safe; one per service.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._steps: OrderedDict[Hashable, dict[str, list[int]]] = OrderedDict()
        self._recent: dict[tuple[str, Breaker], deque[Failure | None]] = {}
        self._open: str | None = None

    def check(self) -> None:
        """Refuse to score while the breaker is open.

        Raises:
            CircuitOpen: with the reason.
        """
        if self._open is not None:
            raise CircuitOpen(self._open)

    def reset(self) -> None:
        """Close the breaker and forget what opened it."""
        with self._lock:
            self._open = None
            self._recent.clear()

    def record(
        self,
        policy: Policy,
        call: Call,
        leaves: Mapping[str, Sequence[Sequence[Outcome]]],
        settled: Outcomes,
    ) -> None:
        """Count the outcomes of every leaf against the budget and the breaker.

        Args:
            policy: for this split.
            call: where in the run the samples were scored.
            leaves: outcomes by reward name, a list for each time that the reward was evaluated.
            settled: the outcomes of the root, for the exception.

        Raises:
            BudgetExceeded: a reward has failed too often in this step.
            CircuitOpen: a reward has failed too often lately.
        """
        if policy.budget is None and policy.breaker is None:
            return
        flat = {name: list(chain.from_iterable(lists)) for name, lists in leaves.items()}
        step = (call.run_id, call.step, call.split)
        with self._lock:
            over = self._spend(policy.budget, step, flat) if policy.budget else None
            if policy.breaker is not None:
                self._open = self._watch(policy.breaker, flat) or self._open
        self.check()
        if over is not None:
            raise BudgetExceeded(over, settled)

    def _spend(
        self, budget: Budget, step: Hashable, leaves: Mapping[str, Sequence[Outcome]]
    ) -> str | None:
        counts = self._steps.setdefault(step, {})
        self._steps.move_to_end(step)
        while len(self._steps) > REMEMBERED_STEPS:
            self._steps.popitem(last=False)
        over = None
        for name, outcomes in leaves.items():
            count = counts.setdefault(name, [0, 0])
            count[0] += sum(_counts(outcome) for outcome in outcomes)
            count[1] += len(outcomes)
            failed, total = count
            if total >= max(budget.minimum, 1) and failed / total > budget.share:
                over = (
                    f"reward '{name}' failed on {failed} of {total} samples of this step, more "
                    f"than the budget of {budget.share:.1%}: {_first(outcomes)}"
                )
        return over

    def _watch(self, breaker: Breaker, leaves: Mapping[str, Sequence[Outcome]]) -> str | None:
        reason = None
        for name, outcomes in leaves.items():
            recent = self._recent.setdefault((name, breaker), deque(maxlen=breaker.window))
            recent.extend(o if isinstance(o, Failure) and _counts(o) else None for o in outcomes)
            failed = [lost for lost in recent if lost is not None]
            if len(recent) == breaker.window and len(failed) / breaker.window >= breaker.share:
                examples = "; ".join(map(str, failed[-BREAKER_EXAMPLES:]))
                reason = (
                    f"the circuit breaker is open: reward '{name}' failed on {len(failed)} of its "
                    f"last {breaker.window} samples. Last: {examples}. Repair it, then call "
                    "reset_breaker()"
                )
        return reason


def _counts(outcome: Outcome) -> bool:
    return isinstance(outcome, Failure) and outcome.blame is not Blame.CANDIDATE


def _first(outcomes: Sequence[Outcome]) -> str:
    return next((str(o) for o in outcomes if _counts(o)), "earlier in the step")
