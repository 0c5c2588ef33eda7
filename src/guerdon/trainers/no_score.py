"""Trainers that want a number for every sample: what they get where there is none.

In this order: another try within a time budget, then the number that the user named (flagged, and
inside a failure budget), else an exception. Never a number that nobody named.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec
from msgspec.structs import replace

from guerdon.errors import ConfigError, ScoringFailed
from guerdon.outcome import Failure, Outcome
from guerdon.outcomes import Outcomes, describe_failures
from guerdon.policy import Action, Assign, Breaker, Budget, Policy, Retry

RETRY_WITHIN = 60.0
"""Seconds for all tries of a leaf together, unless the user says otherwise."""

MOST_TRIES = 1000
"""Far more than fit into a time budget: the time decides."""

FAILURE_SHARE = 0.1
"""Share of the samples that may get the neutral number, unless the user says otherwise."""

FIRST_LOOK = 20
"""Samples of one process before which the share is not looked at."""

RECENT = 200
"""Samples over which the share must hold as well, so that a long good run hides no outage."""


LARGEST_SINGLE = 3.4028234663852886e38
"""The largest finite float32: trainers keep rewards as such, and make an infinity of more."""


class NoScore(msgspec.Struct, frozen=True):
    """What stands in for a score that is not there.

    Attributes:
        neutral: the number; None raises instead. It stands for failures and for abstentions.
        retry_within: seconds for all tries of a leaf together; None leaves a configuration's own
            retry as it is, and is 60 s where there is none.
        failure_share: in [0, 1]; with more failures than that (those that a candidate caused do
            not count) the neutral number is refused and the run stops.

    Example:
        >>> NoScore(neutral=0.0).policy(None, worst=0.0).on["infrastructure"]
        Assign(value=0.0)
        >>> NoScore().policy(Policy(on={"data": "mask"}), worst=0.0).on["data"]
        'raise'
    """

    neutral: float | None = None
    retry_within: float | None = None
    failure_share: float = FAILURE_SHARE

    def __post_init__(self) -> None:
        if self.neutral is not None and not math.isfinite(self.neutral):
            raise ConfigError(f"neutral must be a finite number, got {self.neutral}")
        if self.retry_within is not None and not self.retry_within >= 0:
            raise ConfigError(f"retry_within is seconds from 0 on, got {self.retry_within}")

    def policies(
        self, base: Policy | Mapping[str, Policy] | None, worst: float | None
    ) -> Policy | dict[str, Policy]:
        """`policy` for each split that has one of its own."""
        if base is None or isinstance(base, Policy):
            return self.policy(base, worst)
        return {split: self.policy(policy, worst) for split, policy in base.items()}

    def policy(self, base: Policy | None, worst: float | None) -> Policy:
        """A policy under which every sample has a number, or the call raises.

        Args:
            base: what a configuration says; its `assign` actions, retry, budget and breaker hold.
            worst: the finite worst end of the root's range, which `assign` gives; None without.
        """
        known = base or Policy()
        on = {blame: self._action(action, worst) for blame, action in known.on.items()}
        changed = replace(
            known,
            on=on,
            abstention=self._action(known.abstention, worst),
            retry=self._retry(known.retry if base is not None else None),
        )
        if self.neutral is None:
            return changed
        return replace(
            changed,
            budget=known.budget or Budget(self.failure_share, minimum=FIRST_LOOK),
            breaker=known.breaker or self._breaker(),
        )

    def _action(self, action: Action, worst: float | None) -> Action:
        if isinstance(action, Assign) or (action == "assign" and worst is not None):
            return action
        return "raise" if self.neutral is None else Assign(self.neutral)

    def _retry(self, given: Retry | None) -> Retry:
        if self.retry_within is None:
            return given or Retry(attempts=MOST_TRIES, within=RETRY_WITHIN)
        return replace(given or Retry(), attempts=MOST_TRIES, within=self.retry_within)

    def _breaker(self) -> Breaker | None:
        # A breaker opens at its share, a budget above it; at 1 nothing is ever too much.
        if self.failure_share >= 1:
            return None
        return Breaker(math.nextafter(self.failure_share, 1.0), window=RECENT)


def refusal(outcome: Outcome, trainer: str) -> ScoringFailed:
    """The exception for a sample that has no number in a trainer that needs one.

    Args:
        outcome: of the sample.
        trainer: its name, for the message.
    """
    alone = Outcomes([outcome], sample_ids=[outcome.sample])
    if isinstance(outcome, Failure):
        key = 0 if outcome.sample is None else outcome.sample
        return ScoringFailed(describe_failures({key: outcome}, 1), alone)
    reason = getattr(outcome, "reason", "the policy took it out of training")
    return ScoringFailed(
        f"{outcome.reward or 'the reward'} gives no score to sample {outcome.sample!r} ({reason}), "
        f"and {trainer} wants a number for every sample: name one with neutral=",
        alone,
    )


def check_single(number: float, outcome: Outcome) -> None:
    """Refuse a number that would be an infinity in the trainer's tensor.

    Raises:
        ScoringFailed: naming the reward and the sample.
    """
    if abs(number) > LARGEST_SINGLE:
        raise ScoringFailed(
            f"{outcome.reward} gives {number} to sample {outcome.sample!r}, which is more than the "
            "trainer's float32 holds",
            Outcomes([outcome], sample_ids=[outcome.sample]),
        )
