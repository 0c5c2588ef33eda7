"""A case of a reward's self-check says how an outcome differs from the expected one."""

from typing import Any

import pytest

from guerdon.fixture import Fixture
from guerdon.outcome import Abstention, Failure, Outcome, Score
from guerdon.sample import Sample

LOST = Failure(kind="bad_input", message="no gold", blame="data")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("expect", "outcome", "mismatch"),
    [
        (1.0, Score(value=1.0), None),
        (1.0, Score(value=1.0 - 1e-10), None),
        (1.0, Score(value=1.0 - 1e-6), "expected 1.0, got 0.999999"),
        (0.0, Score(value=-0.0), None),
        (1, Score(value=1.0), None),
        (1.0, Abstention(), "expected 1.0, got abstention"),
        (1.0, LOST, "expected 1.0, got bad_input"),
        ("abstention", Abstention(), None),
        ("abstention", Score(value=0.0), "expected abstention, got 0.0"),
        ("abstention", LOST, "expected abstention, got bad_input"),
        ("bad_input", LOST, None),
        ("timeout", LOST, "expected timeout, got bad_input"),
        ("bad_input", Score(value=0.0), "expected bad_input, got 0.0"),
        (None, Score(value=0.3), None),
        (None, Abstention(), None),
        (None, LOST, "failed: reward: bad_input (data): no gold"),
    ],
)
def test_the_mismatch_is_said(expect: Any, outcome: Outcome, mismatch: str | None) -> None:
    case = Fixture(name="case", kind="full", sample=Sample(), expect=expect)
    assert case.mismatch(outcome) == mismatch
