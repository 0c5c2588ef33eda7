"""Cases that a reward ships about itself: what must score fully, what must score nothing."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from guerdon.outcome import Abstention, Outcome, Score
from guerdon.sample import Sample

FixtureKind: TypeAlias = Literal["full", "zero", "malformed", "deterministic", "metamorphic"]

TOLERANCE = 1e-9
"""How far a fixture's value may be from the expected one."""


class Fixture(msgspec.Struct, frozen=True, kw_only=True):
    """One case of a reward's self-check.

    Attributes:
        name: says what the case shows.
        kind: `full` and `zero` are the ends of the range; `malformed` is input that must not
            break the reward; `deterministic` is scored several times; `metamorphic` is a change
            of another case that must not (or must) change the value.
        sample: what is scored.
        expect: the value, "abstention", a failure kind such as "bad_input", or None where any
            valid outcome will do.

    Example:
        >>> case = Fixture(name="right", kind="full", sample=Sample(response="4"), expect=1.0)
        >>> case.mismatch(Score(value=0.0))
        'expected 1.0, got 0.0'
    """

    name: str
    kind: FixtureKind
    sample: Sample
    expect: float | str | None = None

    def mismatch(self, outcome: Outcome) -> str | None:
        """How an outcome differs from the expected one, or None where it does not."""
        if isinstance(outcome, Score):
            found: float | str = outcome.value
        elif isinstance(outcome, Abstention):
            found = "abstention"
        else:
            found = str(outcome.kind)
        if self.expect is None:
            return None if isinstance(outcome, Score | Abstention) else f"failed: {outcome}"
        if isinstance(self.expect, str) or isinstance(found, str):
            same = found == self.expect
        else:
            same = abs(found - self.expect) <= TOLERANCE
        return None if same else f"expected {self.expect}, got {found}"
