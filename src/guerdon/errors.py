"""Failure kinds, blame, and every exception that Guerdon raises.

One vocabulary for the library, the wire and the adapters. A reward may raise a `RewardFailure` to
say what went wrong and who is to blame; anything else that it raises is a fault of the scorer.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from guerdon.outcomes import Outcomes


class FailureKind(enum.StrEnum):
    """What went wrong. Add a kind only together with a test."""

    TIMEOUT = "timeout"
    """The deadline of the sample, or the caller's timeout, passed."""
    CRASHED = "crashed"
    """The process that scored the sample died or ran out of memory."""
    RAISED = "raised"
    """The reward raised an exception."""
    NON_FINITE = "non_finite"
    """The reward gave NaN or an infinity."""
    BAD_OUTPUT = "bad_output"
    """The reward returned something that is no score: a wrong type, count or range."""
    BAD_INPUT = "bad_input"
    """The sample lacks what the reward needs, or holds something unusable."""
    UNAVAILABLE = "unavailable"
    """Something that the reward depends on could not be reached."""
    OVERLOADED = "overloaded"
    """A queue was full or a rate limit was hit."""
    CANCELLED = "cancelled"
    """The caller went away before the sample was scored."""


class Blame(enum.StrEnum):
    """Who caused a failure. `candidate` always needs evidence."""

    CANDIDATE = "candidate"
    """What the policy model wrote made scoring impossible."""
    SCORER = "scorer"
    """The reward itself is at fault."""
    INFRASTRUCTURE = "infrastructure"
    """A process, network, device or limit outside the reward."""
    DATA = "data"
    """The row of the dataset is unusable."""


RETRYABLE_KINDS: frozenset[FailureKind] = frozenset(
    {FailureKind.UNAVAILABLE, FailureKind.OVERLOADED}
)
"""Kinds for which another try may give a value, unless a failure says otherwise."""


class GuerdonError(Exception):
    """Base class of every exception that Guerdon raises on purpose.

    They can be pickled, so that they pass from a remote process to its caller.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.args, self.__dict__)


def _restore(kind: type[Exception], args: tuple[Any, ...], state: dict[str, Any]) -> Exception:
    """An exception as it was, without its constructor, whose arguments are not its `args`."""
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(state)
    return error


class RewardFailure(GuerdonError):
    """Raised inside a reward: no value can be had, for a reason that the reward knows.

    Args:
        message: what was wrong, where, and what to do.
        kind: the failure kind.
        blame: who caused it.
        retryable: whether another try may help; by default as the kind says.

    Example:
        >>> raise RewardFailure("the tests looped", kind=FailureKind.TIMEOUT, blame=Blame.CANDIDATE)
        Traceback (most recent call last):
        guerdon.errors.RewardFailure: the tests looped
    """

    def __init__(
        self,
        message: str,
        *,
        kind: FailureKind | str,
        blame: Blame | str,
        retryable: bool | None = None,
    ) -> None:
        super().__init__(message)
        self.kind = FailureKind(kind)
        self.blame = Blame(blame)
        self.retryable = self.kind in RETRYABLE_KINDS if retryable is None else retryable


class BadInput(RewardFailure):
    """The sample cannot be scored because of the data, for example an unusable ground truth."""

    def __init__(self, message: str) -> None:
        super().__init__(message, kind=FailureKind.BAD_INPUT, blame=Blame.DATA)


class NonFinite(RewardFailure, ValueError):
    """A value is NaN or an infinity; nothing that Guerdon hands over may be."""

    def __init__(self, message: str) -> None:
        super().__init__(message, kind=FailureKind.NON_FINITE, blame=Blame.SCORER)


class Unavailable(RewardFailure):
    """Something that the reward needs could not be reached; another try may help."""

    def __init__(self, message: str, *, retryable: bool = True) -> None:
        super().__init__(
            message,
            kind=FailureKind.UNAVAILABLE,
            blame=Blame.INFRASTRUCTURE,
            retryable=retryable,
        )


class MissingExtra(GuerdonError, ImportError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package '{package}', which is not installed: "
            f"pip install '.[{extra}]' in the clone, or 'guerdon[{extra}]' where an index has it"
        )
        self.package = package
        self.extra = extra


class InvalidReward(GuerdonError, TypeError):
    """A reward is declared in a way that cannot work."""


class InvalidSample(GuerdonError, ValueError):
    """A sample holds contradictory or ambiguous data."""


class UnknownReward(GuerdonError, LookupError):
    """No reward answers to a name or a path."""


class NameCollision(GuerdonError, ValueError):
    """Two different rewards claim one name."""


class ConfigError(GuerdonError, ValueError):
    """A configuration is wrong; the message names the key and the place."""


class UnportableData(GuerdonError, TypeError):
    """Data that only lives in this process would have to travel.

    Args:
        path: where it is, such as `metadata['client']`.
        type_name: what it is.
    """

    def __init__(self, path: str, type_name: str, *, target: str) -> None:
        super().__init__(
            f"{path} is a {type_name} and cannot travel to {target}: use plain data "
            "(None, bool, int, float, str, bytes, list, tuple, dict), or score in process"
        )
        self.path = path
        self.type_name = type_name


class MalformedMessage(GuerdonError, ValueError):
    """Bytes from outside are no message of the expected type; says where and why."""


class ScoringFailed(GuerdonError):
    """Samples failed and the policy says that failures stop the step.

    Attributes:
        outcomes: everything that was scored, the failures included.
    """

    def __init__(self, message: str, outcomes: Outcomes) -> None:
        super().__init__(message)
        self.outcomes = outcomes


class BudgetExceeded(ScoringFailed):
    """More samples failed in one step than the failure budget allows."""


class CircuitOpen(GuerdonError):
    """The circuit breaker has stopped the run; the message says why."""


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint such as ` (did you mean 'deadline'?)`, or nothing when no known word is close.

    Example:
        >>> nearest("dedline", ["deadline", "name"])
        " (did you mean 'deadline'?)"
    """
    import difflib

    close = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
