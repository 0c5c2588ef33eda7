"""What the tests of one program gave, and what that is worth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import msgspec

Credit: TypeAlias = Literal["all", "fraction"]
CREDITS = ("all", "fraction")

SHOWN = 500
"""Characters of a message that are kept."""


class Verdict(msgspec.Struct, frozen=True):
    """The cases of one program.

    Attributes:
        passed: for each case whether it passed; a case that was not reached did not.
        status: `passed`, or how the first failing case failed: `wrong`, a status of the sandbox
            such as `timeout`, or `broken` for a program that does not load or compile.
        message: what went wrong, for people.

    Example:
        >>> Verdict((True, False), "wrong", "case 1").value("fraction")
        0.5
    """

    passed: tuple[bool, ...]
    status: str
    message: str = ""

    def value(self, credit: Credit) -> float:
        """1 or 0 for `all`, the share of cases that passed for `fraction`."""
        if credit == "all":
            return float(all(self.passed))
        return sum(self.passed) / len(self.passed)

    def result(self, credit: Credit) -> dict[str, Any]:
        """What a reward returns: the value, how many cases passed, and why the others did not."""
        return {
            "score": self.value(credit),
            "metrics": {"passed": sum(self.passed), "cases": len(self.passed)},
            "info": {"status": self.status, "message": shown(self.message)},
        }


def shown(text: str) -> str:
    """The beginning of a text that a program may have made, so that any log and file takes it.

    Example:
        >>> shown("half \\ud800, NUL \\0")
        'half \\\\ud800, NUL \\\\x00'
    """
    cut = text[:SHOWN].encode(errors="backslashreplace").decode()
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in cut)[:SHOWN]


def failed(cases: int, passed: Sequence[bool], status: str, message: str) -> Verdict:
    """A verdict in which the cases that were not reached have failed.

    Example:
        >>> failed(3, [True], "timeout", "case 1 took longer than 5 s").passed
        (True, False, False)
    """
    return Verdict((*passed, *[False] * (cases - len(passed))), status, message)
