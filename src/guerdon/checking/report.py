"""What the check of a reward showed."""

from __future__ import annotations

import enum
from collections.abc import Mapping

import msgspec

from guerdon.declaration import Work
from guerdon.outcome import EMPTY, Range


class Verdict(enum.StrEnum):
    """What a case showed."""

    PASS = "pass"
    FAIL = "fail"
    NOT_RUN = "not run"


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a report.

    Attributes:
        case: says what was tried.
        kind: of the fixture, or "probe".
        expected: what should have come out, in words.
        got: what came out, in a few words.
        verdict: whether they agree.
        detail: what a failure said.
    """

    case: str
    kind: str
    expected: str
    got: str
    verdict: Verdict
    detail: str = ""


class RewardReport(msgspec.Struct, frozen=True, kw_only=True):
    """What the check of one reward showed.

    Attributes:
        path: where it is in the composition, such as `total/accuracy`.
        reward: its name.
        fingerprint: of code, configuration and model revision.
        value_range: declared.
        deadline: seconds for one sample, or None.
        work: io, cpu or gpu.
        options: that differ from the defaults.
        cases: in order.
        notes: what the reader should know: no fixtures, no range.
        needs: what is missing here, with the line that installs it.
    """

    path: str
    reward: str
    fingerprint: str
    value_range: Range
    deadline: float | None
    work: Work
    options: Mapping[str, str] = EMPTY
    cases: tuple[Case, ...] = ()
    notes: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every case passed, and nothing was missing."""
        return not self.needs and all(case.verdict is not Verdict.FAIL for case in self.cases)
