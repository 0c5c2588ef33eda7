"""What is written for one row: its ids, what scoring it gave, and which reward gave it."""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from guerdon.outcome import EMPTY, Abstention, Failure, Outcome, Score

OutcomeRow: TypeAlias = dict[str, Any]

ELAPSED_DIGITS = 7
"""Decimal places of a second."""


class Item(msgspec.Struct):
    """One row on its way: what it is, and what identifies it.

    Attributes:
        row: position in the input, from 0.
        place: in the file, for messages.
        digest: says which row this is; see `Record.digest`.
        sample: what is scored; None where the row describes no sample.
        problem: why it describes none, or "".
        sample_id: as far as the row names one.
        group_id: as far as the row names one.
        content: the whole row, where it is to be kept.
        size: bytes, roughly.
    """

    row: int
    place: str
    digest: str
    sample: Any = None
    problem: str = ""
    sample_id: str | None = None
    group_id: str | None = None
    content: dict[str, Any] | None = None
    size: int = 0


def outcome_row(
    item: Item,
    outcome: Outcome,
    *,
    reward: str,
    fingerprint: str,
    assigned: float | None = None,
    dropped: bool = False,
) -> OutcomeRow:
    """The output row of one input row.

    Args:
        item: what was scored.
        outcome: what that gave.
        reward: name of the root reward.
        fingerprint: of the root reward.
        assigned: the number that the policy put beside a failure or an abstention.
        dropped: whether the policy took the sample out of training.

    Returns:
        `row`, `sample_id`, `group_id`, `reward` (number or None), `outcome`, `components`,
        `metrics`, `info`, `failure`, `assigned`, `elapsed_s`, `reward_name`, `fingerprint`,
        `input_digest`; and, only where there are any, `reason` (of an abstention), `absent`,
        `spans`, `renormalised`, `dropped`, `input`.
    """
    score = outcome if type(outcome) is Score else None
    row: OutcomeRow = {
        "row": item.row,
        "sample_id": item.sample_id,
        "group_id": item.group_id,
        "reward": None if score is None else score.value,
        "outcome": _kind(outcome),
        "components": _copy(score.components) if score else {},
        "metrics": _copy(score.metrics) if score else {},
        "info": _copy(score.info) if score else {},
        "failure": _failure(outcome) if type(outcome) is Failure else None,
        "assigned": assigned,
        "elapsed_s": round(outcome.elapsed, ELAPSED_DIGITS),
        "reward_name": reward,
        "fingerprint": fingerprint,
        "input_digest": item.digest,
    }
    if type(outcome) is Abstention:
        row["reason"] = outcome.reason
    if outcome.absent is not EMPTY and outcome.absent:
        row["absent"] = {name: _absent(lost) for name, lost in outcome.absent.items()}
    if score is not None and score.spans:
        row["spans"] = [msgspec.structs.asdict(span) for span in score.spans]
    if score is not None and score.renormalised:
        row["renormalised"] = True
    if dropped:
        row["dropped"] = True
    if item.content is not None:
        row["input"] = item.content
    return row


def _kind(outcome: Outcome) -> str:
    if isinstance(outcome, Score):
        return "score"
    return "failure" if isinstance(outcome, Failure) else "abstention"


def _copy(mapping: Any) -> dict[str, Any]:
    return {} if mapping is EMPTY else dict(mapping)


def _failure(lost: Failure) -> dict[str, Any]:
    return {
        "kind": str(lost.kind),
        "blame": str(lost.blame),
        "message": lost.message,
        "retryable": lost.retryable,
    }


def _absent(lost: Abstention | Failure) -> dict[str, Any]:
    if isinstance(lost, Failure):
        return {"outcome": "failure", **_failure(lost)}
    return {"outcome": "abstention", "reason": lost.reason}
