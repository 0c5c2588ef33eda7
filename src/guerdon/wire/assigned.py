"""What stands behind an assigned number, in protocols that have a place for numbers only.

A dialect that answers a failure or an abstention with a number says beside it what it was. Clients
of others read the number; Guerdon's own read this, so that a failure stays a failure.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from guerdon.errors import Blame, FailureKind
from guerdon.outcome import Abstention, Failure, Score, failure
from guerdon.wire.typed import ready

ASSIGNED = "guerdon_assigned"
"""Field that is true, or 1, beside an assigned number."""
OUTCOME = "guerdon_outcome"
"""Field beside an assigned number that holds what it stands for."""
HEADER = "x-guerdon-outcome"
"""Header with the same in JSON, of replies that are a bare number."""
LONGEST = 1000
"""Characters of a text that travel in a body."""
LONGEST_IN_HEADER = 250
"""Characters of a text that travel in a header, two of which must stay below 8 KiB as escapes."""


class _Failed(msgspec.Struct, frozen=True, tag_field="outcome", tag="failure"):
    kind: FailureKind
    blame: Blame
    message: str
    evidence: str = ""


class _Abstained(msgspec.Struct, frozen=True, tag_field="outcome", tag="abstention"):
    reason: str = ""


_BEHIND: Any = _Failed | _Abstained


def described(outcome: Abstention | Failure, longest: int = LONGEST) -> dict[str, Any]:
    """A failure or an abstention as plain data, its texts cut.

    Example:
        >>> described(Abstention(reason="no boxes"))
        {'outcome': 'abstention', 'reason': 'no boxes'}
    """
    if isinstance(outcome, Abstention):
        return {"outcome": "abstention", "reason": _portable(outcome.reason, longest)}
    found = {
        "outcome": "failure",
        "kind": str(outcome.kind),
        "blame": str(outcome.blame),
        "message": _portable(outcome.message, longest),
    }
    return (
        {**found, "evidence": _portable(outcome.evidence, longest)} if outcome.evidence else found
    )


def behind(outcomes: Sequence[Abstention | Failure | Score]) -> dict[str, dict[str, Any]]:
    """What is no score, by its position as text.

    Example:
        >>> list(behind([Score(value=1.0), Abstention()]))
        ['1']
    """
    return {
        str(position): described(outcome)
        for position, outcome in enumerate(outcomes)
        if not isinstance(outcome, Score)
    }


def restored(found: Any) -> Abstention | Failure:
    """What a number stands for, from the data beside it.

    Args:
        found: from anywhere; what is not as `described` writes it is a failure that says so.

    Example:
        >>> restored({"outcome": "abstention", "reason": "no boxes"}).reason
        'no boxes'
        >>> restored(None).blame
        <Blame.SCORER: 'scorer'>
    """
    try:
        read: _Failed | _Abstained = msgspec.convert(found, ready(_BEHIND))
    except msgspec.ValidationError:
        told = "the server assigned a number to the sample, and does not say for what"
        return failure(FailureKind.BAD_OUTPUT, told, Blame.SCORER)
    if isinstance(read, _Abstained):
        return Abstention(reason=read.reason)
    return failure(read.kind, read.message, read.blame, evidence=read.evidence)


def header_of(outcome: Abstention | Failure | Score) -> tuple[tuple[bytes, bytes], ...]:
    """The header of a reply that is a bare number; none for a score."""
    if isinstance(outcome, Score):
        return ()
    return ((HEADER.encode(), json.dumps(described(outcome, LONGEST_IN_HEADER)).encode()),)


def from_header(headers: Mapping[str, str]) -> Abstention | Failure | None:
    """What the bare number of a reply stands for; None where it is a score.

    Args:
        headers: by name in lower case.

    Example:
        >>> from_header({"content-type": "application/json"}) is None
        True
    """
    text = headers.get(HEADER)
    if text is None:
        return None
    try:
        return restored(json.loads(text))
    except (ValueError, RecursionError):
        return restored(None)


def _portable(text: str, longest: int) -> str:
    """The beginning of a text, without halves of surrogate pairs."""
    cut = text if len(text) <= longest else f"{text[:longest]}..."
    return cut.encode(errors="backslashreplace").decode()
