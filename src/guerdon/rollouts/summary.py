"""The running summary of scored rows: one pass, and 16 bytes of memory per grouped score."""

from __future__ import annotations

import heapq
import math
from array import array
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

SLOWEST = 5
"""Rows that are named as the slowest."""
EXAMPLES = 5
"""Failures of one kind and blame that are quoted."""
LONGEST_MESSAGE = 300


class Stats(msgspec.Struct, frozen=True):
    """What is known about some numbers.

    Attributes:
        count: how many.
        mean: None without numbers, as everything below.
        std: population standard deviation.
        min: the smallest.
        max: the largest.
    """

    count: int
    mean: float | None = None
    std: float | None = None
    min: float | None = None
    max: float | None = None


class Moments:
    """Mean and deviation of numbers that come one by one.

    The recurrence is that of B. P. Welford, Technometrics 4 (1962), 419.

    Example:
        >>> moments = Moments()
        >>> for number in (1.0, 2.0, 3.0):
        ...     moments.add(number)
        >>> moments.stats().mean
        2.0
    """

    __slots__ = ("_count", "_high", "_low", "_mean", "_squares")

    def __init__(self) -> None:
        self._count = 0
        self._mean = 0.0
        self._squares = 0.0
        self._low = math.inf
        self._high = -math.inf

    def add(self, number: float) -> None:
        """Take one number in."""
        self._count += 1
        difference = number - self._mean
        self._mean += difference / self._count
        self._squares += difference * (number - self._mean)
        if number < self._low:
            self._low = number
        if number > self._high:
            self._high = number

    def stats(self) -> Stats:
        """What is known so far."""
        if not self._count:
            return Stats(0)
        # The sum of squares cannot be negative but for rounding.
        std = math.sqrt(max(0.0, self._squares) / self._count)
        return Stats(self._count, self._mean, std, self._low, self._high)


class Example(msgspec.Struct, frozen=True):
    """One failed row.

    Attributes:
        row: its position.
        sample_id: as far as it has one.
        message: what was wrong.
    """

    row: int
    sample_id: str | None
    message: str


class FailureCount(msgspec.Struct):
    """Failures of one kind and blame.

    Attributes:
        kind: failure kind.
        blame: who caused them.
        count: how many.
        examples: the first of them with different messages.
    """

    kind: str
    blame: str
    count: int
    examples: list[Example]


class Groups(msgspec.Struct, frozen=True):
    """How many groups can teach anything.

    Attributes:
        count: groups with at least one score.
        compared: groups with at least two.
        zero_variance: of those, groups whose scores are all equal.
        zero_variance_share: of those, the share; None without any.
    """

    count: int
    compared: int
    zero_variance: int
    zero_variance_share: float | None


class Slow(NamedTuple):
    """A slow row."""

    elapsed_s: float
    row: int
    sample_id: str | None


class Report(msgspec.Struct, frozen=True):
    """The summary of a run.

    Attributes:
        rows: written rows.
        scores: of them, with a score.
        abstentions: of them, to which the reward does not apply.
        failures: of them, without a value.
        assigned: failures and abstentions beside which the policy put a number.
        dropped: rows that the policy took out of training.
        reward: the scores; assigned numbers are not among them.
        components: by name.
        rewards: by reward name, where rows were scored by several.
        groups: None where no row names a group.
        failed: failures by kind and blame, most frequent first.
        slowest: rows that took longest.
    """

    rows: int
    scores: int
    abstentions: int
    failures: int
    assigned: int
    dropped: int
    reward: Stats
    components: dict[str, Stats]
    rewards: dict[str, Stats]
    groups: Groups | None
    failed: list[FailureCount]
    slowest: list[Slow]


class Summary:
    """Takes output rows in, in any order."""

    def __init__(self) -> None:
        self.rows = 0
        self.failures = 0
        self.unassigned_failures = 0
        """Failures beside which the policy put no number."""
        self._abstentions = 0
        self._assigned = 0
        self._dropped = 0
        self._reward = Moments()
        self._components: dict[str, Moments] = {}
        self._rewards: dict[str, Moments] = {}
        self._failed: dict[tuple[str, str], FailureCount] = {}
        self._slowest: list[tuple[float, int, str | None]] = []
        self._groups = array("q")
        self._values = array("d")

    def add(self, row: Mapping[str, Any]) -> None:
        """Take one output row in; see `outcome_row`."""
        self.rows += 1
        value: float | None = row["reward"]
        moments = self._rewards.get(row["reward_name"])
        if moments is None:
            moments = self._rewards[row["reward_name"]] = Moments()
        if value is not None:
            self._add_score(value, row)
            moments.add(value)
        elif row["failure"] is not None:
            self._add_failure(row)
        else:
            self._abstentions += 1
        self._assigned += row["assigned"] is not None
        self._dropped += bool(row.get("dropped"))
        slow = (row["elapsed_s"], -row["row"], row["sample_id"])
        if len(self._slowest) < SLOWEST:
            heapq.heappush(self._slowest, slow)
        elif slow[0] > self._slowest[0][0]:
            heapq.heapreplace(self._slowest, slow)

    def report(self) -> Report:
        """The summary so far."""
        several = len(self._rewards) > 1
        slowest = sorted(self._slowest, key=lambda slow: (-slow[0], -slow[1]))
        return Report(
            rows=self.rows,
            scores=self.rows - self.failures - self._abstentions,
            abstentions=self._abstentions,
            failures=self.failures,
            assigned=self._assigned,
            dropped=self._dropped,
            reward=self._reward.stats(),
            components={name: m.stats() for name, m in self._components.items()},
            rewards={name: m.stats() for name, m in self._rewards.items()} if several else {},
            groups=self._count_groups(),
            failed=sorted(self._failed.values(), key=lambda failed: -failed.count),
            slowest=[Slow(elapsed, -row, sample_id) for elapsed, row, sample_id in slowest],
        )

    def _add_score(self, value: float, row: Mapping[str, Any]) -> None:
        self._reward.add(value)
        for name, part in row["components"].items():
            if part is not None:
                moments = self._components.get(name)
                if moments is None:
                    moments = self._components[name] = Moments()
                moments.add(part)
        if row["group_id"] is not None:
            self._groups.append(hash(row["group_id"]))
            self._values.append(value)

    def _add_failure(self, row: Mapping[str, Any]) -> None:
        lost = row["failure"]
        self.failures += 1
        self.unassigned_failures += row["assigned"] is None
        key = (lost["kind"], lost["blame"])
        count = self._failed.get(key)
        if count is None:
            count = self._failed[key] = FailureCount(*key, 0, [])
        count.count += 1
        if len(count.examples) >= EXAMPLES:
            return
        message = lost["message"]
        if len(message) > LONGEST_MESSAGE:
            message = f"{message[:LONGEST_MESSAGE]}..."
        if all(example.message != message for example in count.examples):
            count.examples.append(Example(row["row"], row["sample_id"], message))

    def _count_groups(self) -> Groups | None:
        if not self._groups:
            return None
        import numpy as np

        keys = np.frombuffer(self._groups, dtype=np.int64)
        order = np.argsort(keys, kind="stable")
        values = np.frombuffer(self._values, dtype=np.float64)[order]
        starts = np.flatnonzero(np.diff(keys[order], prepend=~keys[order[0]]))
        sizes = np.diff(starts, append=len(values))
        spread = np.maximum.reduceat(values, starts) - np.minimum.reduceat(values, starts)
        compared = int((sizes > 1).sum())
        equal = int(((sizes > 1) & (spread == 0.0)).sum())
        return Groups(len(starts), compared, equal, equal / compared if compared else None)
