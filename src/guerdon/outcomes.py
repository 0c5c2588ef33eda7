"""The column view of a scored batch: numbers with masks, failures by sample."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, overload

import numpy as np

from guerdon.errors import ScoringFailed
from guerdon.outcome import Abstention, Failure, Outcome, Score

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHOWN_FAILURES = 3
"""How many failures an error message quotes in full."""

NAMED_SAMPLES = 20
"""How many further samples an error message names."""


class Column(NamedTuple):
    """One number per sample, and whether there is one.

    Attributes:
        values: float64 [n]; NaN where `mask` is False, so that a missing number cannot be used
            unnoticed.
        mask: bool [n]; True where `values` holds a number.
    """

    values: NDArray[np.float64]
    mask: NDArray[np.bool_]


class Outcomes(Sequence[Outcome]):
    """The outcomes of a batch, in the order of its samples.

    Args:
        outcomes: one per sample.
        sample_ids: ids of the samples, for `failures`; positions where a sample has none.
        assigned: numbers that a policy put beside failures or abstentions, by position.
        dropped: positions that a policy took out of training, scores included.

    Example:
        >>> batch = Outcomes([Score(value=1.0), Abstention()])
        >>> batch.values.tolist(), batch.mask.tolist()
        ([1.0, nan], [True, False])
    """

    def __init__(
        self,
        outcomes: Sequence[Outcome],
        *,
        sample_ids: Sequence[str | None] | None = None,
        assigned: Mapping[int, float] | None = None,
        dropped: Sequence[int] = (),
    ) -> None:
        if sample_ids is not None and len(sample_ids) != len(outcomes):
            raise ValueError(f"{len(sample_ids)} sample ids for {len(outcomes)} outcomes")
        self._outcomes = tuple(outcomes)
        self._sample_ids = sample_ids
        self._assigned = dict(assigned or {})
        self._dropped = tuple(dropped)
        for position in self._assigned:
            if isinstance(self._outcomes[position], Score):
                raise ValueError(f"position {position} has a score: nothing may be assigned to it")

    @overload
    def __getitem__(self, index: int) -> Outcome: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Outcome]: ...
    def __getitem__(self, index: int | slice) -> Outcome | Sequence[Outcome]:
        return self._outcomes[index]

    def __len__(self) -> int:
        return len(self._outcomes)

    def __iter__(self) -> Iterator[Outcome]:
        return iter(self._outcomes)

    def __repr__(self) -> str:
        scores = int(self.mask.sum())
        failures = sum(isinstance(o, Failure) for o in self._outcomes)
        return (
            f"Outcomes({len(self)} samples: {scores} scores, {failures} failures, "
            f"{len(self) - scores - failures} abstentions, {len(self._assigned)} assigned)"
        )

    @cached_property
    def _column(self) -> Column:
        values = np.fromiter(
            (o.value if type(o) is Score else np.nan for o in self._outcomes),
            dtype=np.float64,
            count=len(self._outcomes),
        )
        return Column(values, ~np.isnan(values))

    @property
    def values(self) -> NDArray[np.float64]:
        """Scores, float64 [n]; NaN where there is none. Assigned numbers are not among them."""
        return self._column.values

    @property
    def mask(self) -> NDArray[np.bool_]:
        """bool [n]: True where the outcome is a score."""
        return self._column.mask

    @cached_property
    def assigned(self) -> Column:
        """Numbers that the policy put beside a failure or an abstention, never measured ones."""
        values = np.full(len(self), np.nan)
        mask = np.zeros(len(self), dtype=np.bool_)
        for position, value in self._assigned.items():
            values[position] = value
            mask[position] = True
        return Column(values, mask)

    @cached_property
    def dropped(self) -> NDArray[np.bool_]:
        """bool [n]: True where the policy took the sample out of training (`drop_group`)."""
        mask = np.zeros(len(self), dtype=np.bool_)
        mask[list(self._dropped)] = True
        return mask

    @cached_property
    def rewards(self) -> Column:
        """What a trainer may use: scores and assigned numbers, without dropped samples."""
        mask = (self.mask | self.assigned.mask) & ~self.dropped
        values = np.where(self.mask, self.values, self.assigned.values)
        return Column(np.where(mask, values, np.nan), mask)

    @cached_property
    def components(self) -> dict[str, Column]:
        """Each component as a column with its own mask, in order of first appearance."""
        names = {
            name: None for o in self._outcomes if isinstance(o, Score) for name in o.components
        }
        return {name: self._component(name) for name in names}

    def _component(self, name: str) -> Column:
        values = np.full(len(self), np.nan)
        for position, outcome in enumerate(self._outcomes):
            if isinstance(outcome, Score):
                value = outcome.components.get(name)
                values[position] = np.nan if value is None else value
        return Column(values, ~np.isnan(values))

    @cached_property
    def failures(self) -> dict[str | int, Failure]:
        """Failures by `sample_id`; by position where the sample has none or repeats one."""
        return {self._keys[i]: o for i, o in enumerate(self._outcomes) if isinstance(o, Failure)}

    @cached_property
    def abstentions(self) -> dict[str | int, Abstention]:
        """Abstentions by `sample_id`; by position where the sample has none or repeats one."""
        return {self._keys[i]: o for i, o in enumerate(self._outcomes) if isinstance(o, Abstention)}

    @property
    def unassigned_failures(self) -> list[int]:
        """Positions of failures beside which the policy put no number."""
        return [
            i
            for i, o in enumerate(self._outcomes)
            if isinstance(o, Failure) and i not in self._assigned
        ]

    def key(self, position: int) -> str | int:
        """What names a sample in `failures` and messages: its id, or its position."""
        return self._keys[position]

    def raise_for_failures(self) -> None:
        """Raise if any sample failed, whatever a policy assigned.

        Raises:
            ScoringFailed: naming the reward, the sample, the kind and the blame of each.
        """
        if self.failures:
            raise ScoringFailed(describe_failures(self.failures, len(self)), self)

    @cached_property
    def _keys(self) -> list[str | int]:
        """What names each sample: the first entry with an id has it."""
        taken: set[str] = set()
        keys: list[str | int] = []
        for position, sample_id in enumerate(self._sample_ids or [None] * len(self)):
            if sample_id is None or sample_id in taken:
                keys.append(position)
            else:
                taken.add(sample_id)
                keys.append(sample_id)
        return keys


def describe_failures(failures: Mapping[str | int, Failure], total: int) -> str:
    """A message that quotes the first failures in full and names the samples of the rest.

    Args:
        failures: by sample id or position.
        total: size of the batch.

    Example:
        >>> from guerdon.errors import Blame, FailureKind
        >>> lost = Failure(kind=FailureKind.RAISED, message="oops", blame=Blame.SCORER, reward="r")
        >>> print(describe_failures({"s1": lost}, 4))
        1 of 4 samples failed:
          's1': r: raised (scorer): oops
    """
    lines = [f"{len(failures)} of {total} samples failed:"]
    items = list(failures.items())
    for key, lost in items[:SHOWN_FAILURES]:
        lines.append(f"  {key!r}: {lost.reward}: {lost.kind} ({lost.blame}): {lost.message}")
    rest = items[SHOWN_FAILURES:]
    if rest:
        named = [f"{key!r} ({lost.reward}: {lost.kind})" for key, lost in rest[:NAMED_SAMPLES]]
        more = f" and {len(rest) - NAMED_SAMPLES} more" if len(rest) > NAMED_SAMPLES else ""
        lines.append(f"  also {', '.join(named)}{more}")
    return "\n".join(lines)
