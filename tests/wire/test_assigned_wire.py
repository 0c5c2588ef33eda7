"""What stands behind an assigned number, as plain data and as a header."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guerdon.errors import Blame, FailureKind
from guerdon.outcome import Abstention, Failure, Score, failure
from guerdon.wire.assigned import (
    HEADER,
    LONGEST,
    LONGEST_IN_HEADER,
    behind,
    described,
    from_header,
    header_of,
    restored,
)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=LONGEST_IN_HEADER)
failures = st.builds(
    failure, st.sampled_from(FailureKind), texts, st.sampled_from(Blame), evidence=texts
)
abstentions = st.builds(Abstention, reason=texts)


def meaning(outcome: Abstention | Failure) -> tuple[object, ...]:
    if isinstance(outcome, Abstention):
        return (outcome.reason,)
    return outcome.kind, outcome.blame, outcome.message, outcome.evidence


@given(failures | abstentions)
def test_both_ways(outcome: Abstention | Failure) -> None:
    found = restored(described(outcome))
    assert type(found) is type(outcome)
    assert meaning(found) == meaning(outcome)
    ((name, value),) = header_of(outcome)
    assert value.isascii()
    assert b"\n" not in value
    by_header = from_header({name.decode(): value.decode()})
    assert by_header is not None
    assert meaning(by_header) == meaning(outcome)


def test_a_header_stays_below_what_clients_take() -> None:
    long = "\U0001f600" * 10 * LONGEST
    with_evidence = failure(FailureKind.RAISED, long, Blame.CANDIDATE, evidence=long)
    for outcome in (with_evidence, Abstention(reason="\ud800" * 10 * LONGEST)):
        ((_, value),) = header_of(outcome)
        assert len(value) < 8190, "the limit of aiohttp"
    assert len(str(described(Abstention(reason=long))["reason"])) == LONGEST + 3


def test_a_score_needs_nothing() -> None:
    assert header_of(Score(value=1.0)) == ()
    assert behind([Score(value=1.0), Abstention(reason="no")]) == {
        "1": {"outcome": "abstention", "reason": "no"}
    }


@pytest.mark.parametrize(
    "found",
    [
        None, True, 1.0, "crashed", [], {}, {"outcome": "score", "value": 1.0},
        {"outcome": "failure"}, {"outcome": "failure", "kind": "x", "blame": "data", "message": ""},
    ],
)  # fmt: skip
def test_what_is_not_understood_is_no_number_either(found: object) -> None:
    outcome = restored(found)
    assert isinstance(outcome, Failure)
    assert (outcome.kind, outcome.blame) == (FailureKind.BAD_OUTPUT, Blame.SCORER)
    assert isinstance(from_header({HEADER: "{"}), Failure)
    assert isinstance(from_header({HEADER: "[" * 100_000}), Failure)
