"""What scoring one sample gives: exactly one of `Score`, `Abstention`, `Failure`.

The types cannot hold a non-finite value, so a failure cannot hide in a number. `seal` is the one
gate from what a reward returned to one of the three. This module imports no numpy: the pool's
workers start with it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from operator import index
from types import CoroutineType
from typing import Any, Literal, TypeAlias, cast

import msgspec
from msgspec.structs import force_setattr, replace

from guerdon.errors import RETRYABLE_KINDS, Blame, FailureKind, NonFinite, RewardFailure

INFINITY = math.inf
LARGEST = 1.7976931348623157e308
"""The largest finite double: what bounds a value where its range does not."""
RANGE_SLACK = 1e-6
"""How far outside its declared range a value may lie, relative to the range's larger end: floating
point noise (a cosine of 1.0000001), never a wrong formula."""

Range: TypeAlias = tuple[float, float]
"""The closed interval of values that a reward can give; an end may be infinite."""

OUT_OF_MEMORY = "out of memory"
"""How the message of a `MemoryError` begins; any other crash is what the reward itself reports."""

NOT_AWAITED = "'coroutine' object"
"""What Python says where a coroutine is used as if it were its result."""
AWAIT_IT = (
    "it was not awaited: define the reward with 'async def' and await it, or use the sync form, "
    "such as context.acquire_resource_sync"
)

UNBOUNDED: Range = (-INFINITY, INFINITY)
SPAN_UNITS = ("token", "char", "turn")
"""What the ends of a span count."""
RESERVED_KEYS = frozenset({"score", "components", "spans", "metrics", "info"})
"""Keys of a dict result with a meaning of their own; other numbers are metrics, the rest info."""


class _EmptyMapping(Mapping[str, Any]):
    """The shared, immutable default of every mapping field."""

    __slots__ = ()

    def __getitem__(self, key: str) -> Any:
        raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        return False

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0

    def __repr__(self) -> str:
        return "{}"

    def __reduce__(self) -> str:
        return "EMPTY"


EMPTY = _EmptyMapping()


class Span(msgspec.Struct, frozen=True):
    """A value for a part of the response.

    Attributes:
        unit: what `start` and `end` count: response tokens, response characters, or turns.
        start: first position, 0-based.
        end: one past the last position, at least `start`.
        value: finite.

    Example:
        >>> Span("turn", 0, 1, 0.5).value
        0.5
    """

    unit: Literal["token", "char", "turn"]
    start: int
    end: int
    value: float

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.end:
            raise ValueError(f"a span needs 0 <= start <= end, got [{self.start}, {self.end})")
        if not math.isfinite(self.value):
            raise NonFinite(f"the value of a span must be finite, got {self.value}")


class _Outcome(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    gc=False,
    tag_field="outcome",
):
    """What every outcome carries."""

    reward: str = ""
    """Name of the reward that gave it."""
    fingerprint: str = ""
    """Fingerprint of that reward: code, configuration and model revision."""
    sample: str | None = None
    """`sample_id` of the sample."""
    elapsed: float = 0.0
    """Seconds of execution, queueing not counted; the mean of its chunk where samples are scored
    in one pass."""


class Score(
    _Outcome,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    gc=False,
    tag_field="outcome",
    tag="score",
):
    """A finite value.

    Attributes:
        value: the reward.
        components: value of each child of a composition; None where the child gave no score.
        absent: why, for each child that gave none.
        spans: values for parts of the response.
        metrics: numbers to log beside the value; None where one was not finite.
        info: anything else worth keeping.
        renormalised: children were missing and the rest was scaled up; comparable within a group
            only if every sample lacks the same children.

    Example:
        >>> Score(value=float("nan"))
        Traceback (most recent call last):
        guerdon.errors.NonFinite: the value of a score must be finite, got nan
    """

    value: float
    components: Mapping[str, float | None] = EMPTY
    absent: Mapping[str, Abstention | Failure] = EMPTY
    spans: tuple[Span, ...] = ()
    metrics: Mapping[str, float | None] = EMPTY
    info: Mapping[str, Any] = EMPTY
    renormalised: bool = False

    def __post_init__(self) -> None:
        if not -INFINITY < self.value < INFINITY:
            raise NonFinite(f"the value of a score must be finite, got {self.value}")


class Abstention(
    _Outcome,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    gc=False,
    tag_field="outcome",
    tag="abstention",
):
    """The reward does not apply to this sample; not an error.

    Attributes:
        reason: why, for people.
        absent: for a composition, what its missing children gave.
    """

    reason: str = ""
    absent: Mapping[str, Abstention | Failure] = EMPTY


class Failure(
    _Outcome,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    gc=False,
    tag_field="outcome",
    tag="failure",
):
    """No value could be had.

    Attributes:
        kind: what went wrong.
        message: what was wrong, where, and what to do.
        blame: who caused it; `candidate` only with evidence.
        retryable: whether another try may give a value.
        evidence: for a candidate's fault, what shows it.
        absent: for a composition, what its missing children gave.
    """

    kind: FailureKind
    message: str
    blame: Blame
    retryable: bool = False
    evidence: str = ""
    absent: Mapping[str, Abstention | Failure] = EMPTY

    def __str__(self) -> str:
        where = f" of sample {self.sample!r}" if self.sample is not None else ""
        return f"{self.reward or 'reward'}{where}: {self.kind} ({self.blame}): {self.message}"

    def __post_init__(self) -> None:
        # What a reward wrote as text becomes the kind and the blame that policies look up.
        if type(self.kind) is not FailureKind:
            force_setattr(self, "kind", FailureKind(self.kind))
        if type(self.blame) is not Blame:
            force_setattr(self, "blame", Blame(self.blame))


Outcome: TypeAlias = Score | Abstention | Failure


def failure(
    kind: FailureKind,
    message: str,
    blame: Blame,
    *,
    retryable: bool | None = None,
    evidence: str = "",
    elapsed: float = 0.0,
) -> Failure:
    """A `Failure` that is retryable when its kind is, unless told otherwise.

    Example:
        >>> failure(FailureKind.OVERLOADED, "queue full", Blame.INFRASTRUCTURE).retryable
        True
    """
    return Failure(
        kind=kind,
        message=message,
        blame=blame,
        retryable=kind in RETRYABLE_KINDS if retryable is None else retryable,
        evidence=evidence,
        elapsed=elapsed,
    )


def failure_from(error: BaseException) -> Failure:
    """The failure that an exception raised by a reward stands for.

    A `RewardFailure` says itself what it is. Network errors and time-outs of what a reward calls
    are `unavailable` and retryable; running out of memory is `crashed`; all else is `raised`, a
    fault of the scorer.

    Example:
        >>> failure_from(ConnectionResetError("judge gone")).kind
        <FailureKind.UNAVAILABLE: 'unavailable'>
    """
    if isinstance(error, RewardFailure):
        message = _message(error)
        return failure(error.kind, message, error.blame, retryable=error.retryable)
    message = _describe(error)
    if isinstance(error, ConnectionError | TimeoutError):
        return failure(FailureKind.UNAVAILABLE, message, Blame.INFRASTRUCTURE)
    if isinstance(error, MemoryError):
        return failure(FailureKind.CRASHED, f"{OUT_OF_MEMORY}: {message}", Blame.SCORER)
    if NOT_AWAITED in message and isinstance(error, AttributeError | TypeError):
        message = f"{message} ({AWAIT_IT})"
    return failure(FailureKind.RAISED, message, Blame.SCORER)


def seal(raw: object, value_range: Range = UNBOUNDED) -> Outcome:
    """Turn what a reward returned into an outcome, or into the failure that it is.

    Args:
        raw: a number, bool, numpy or torch scalar, None (abstain), a mapping with `score`, or an
            outcome.
        value_range: the reward's declared range; a value outside it is `bad_output`.

    Returns:
        A `Score` with a finite value within the range, an `Abstention`, or a `Failure` of kind
        `non_finite` or `bad_output`.

    Example:
        >>> seal(True).value, type(seal(None)).__name__, str(seal("good").kind)
        (1.0, 'Abstention', 'bad_output')
    """
    kind = type(raw)
    if kind is float or kind is int or kind is bool:
        return _seal_number(cast("float", raw), value_range)
    if raw is None:
        return Abstention(reason="the reward returned None")
    if kind is Score:
        return _seal_score(cast("Score", raw), value_range)
    if kind is Abstention or kind is Failure:
        return _seal_missed(cast("Abstention | Failure", raw))
    if isinstance(raw, Mapping):
        return _seal_mapping(cast("Mapping[object, object]", raw), value_range)
    if kind is CoroutineType:
        cast("CoroutineType[Any, Any, Any]", raw).close()
        return _bad_output("returned a coroutine: define the reward with 'async def'")
    number = as_number(raw)
    if number is None:
        return _bad_output(f"returned {_type_name(raw)}: {_shorten(raw)}")
    return _seal_number(number, value_range)


def check_range(score: Score, value_range: Range) -> Outcome:
    """The score itself, or a `bad_output` failure when it lies outside the range.

    Example:
        >>> check_range(Score(value=2.0), (0.0, 1.0)).message
        'the value 2.0 lies outside the declared range [0.0, 1.0]'
    """
    low, high = value_range
    if low <= score.value <= high:
        return score
    slack = RANGE_SLACK * max((abs(end) for end in value_range if math.isfinite(end)), default=0.0)
    if low - slack <= score.value <= high + slack:
        return score
    return _bad_output(f"the value {score.value} lies outside the declared range [{low}, {high}]")


def as_number(raw: object) -> float | None:
    """The float in a Python number, a numpy or torch scalar or a one-element 0-d array, or None.

    Anything with a `shape` other than `()` is no scalar.

    Example:
        >>> as_number(3), as_number("3"), as_number([3])
        (3.0, None, None)
    """
    if isinstance(raw, bool | int | float):
        return _float(raw)
    if getattr(raw, "shape", None) != () or not hasattr(raw, "item"):
        return None
    item: object = cast("Any", raw).item()
    return _float(item) if isinstance(item, bool | int | float) else None


def _seal_number(number: float, value_range: Range) -> Outcome:
    value = _float(number)
    if not -INFINITY < value < INFINITY:
        return failure(FailureKind.NON_FINITE, f"returned {value}", Blame.SCORER)
    score = Score(value=value)
    low, high = value_range
    if low <= value <= high:
        return score
    return check_range(score, value_range)


def _seal_score(score: Score, value_range: Range) -> Outcome:
    """A score that a reward built: nothing has checked the types of its fields yet."""
    if _has_plain_numbers(score) and _has_plain_details(score):
        return check_range(score, value_range)
    value = score.value
    number = as_number(value)
    if number is None:
        return _bad_output(f"the value of the score is {_type_name(value)}: {_shorten(value)}")
    try:
        _check_fields(score)
        plain = replace(
            score,
            value=number,
            components=_components(score.components) or EMPTY,
            absent=_absent(score.absent) or EMPTY,
            spans=_spans(score.spans),
            metrics=_numbers(score.metrics, "metrics") or EMPTY,
            info=_mapping(score.info, "info") or EMPTY,
        )
    except (TypeError, ValueError) as error:
        return _unusable(error)
    return check_range(plain, value_range)


def _has_plain_numbers(score: Score) -> bool:
    return type(score.value) is float and _are_plain(score.components) and _are_plain(score.metrics)


def _has_plain_details(score: Score) -> bool:
    return (
        (score.absent is EMPTY or _are_plain_missed(score.absent))
        and not score.spans
        and (score.info is EMPTY or _has_text_keys(score.info))
        and type(score.renormalised) is bool
        and _is_stamp(score)
    )


def _are_plain_missed(absent: object) -> bool:
    """Whether no missing child needs a new form."""
    if type(absent) is not dict:
        return False
    for name, lost in cast("dict[object, object]", absent).items():
        if type(name) is not str or not _is_plain_missed(lost):
            return False
    return True


def _is_plain_missed(lost: object) -> bool:
    if type(lost) is Abstention:
        plain = type(lost.reason) is str
    elif type(lost) is Failure:
        plain = (
            type(lost.message) is str
            and type(lost.evidence) is str
            and type(lost.retryable) is bool
        )
    else:
        return False
    return plain and _is_stamp(lost) and (lost.absent is EMPTY or _are_plain_missed(lost.absent))


def _is_stamp(outcome: _Outcome) -> bool:
    sample = outcome.sample
    return (
        type(outcome.reward) is str
        and type(outcome.fingerprint) is str
        and (sample is None or type(sample) is str)
        and type(outcome.elapsed) is float
    )


def _seal_missed(missed: Abstention | Failure) -> Outcome:
    if _is_plain_missed(missed):
        return missed
    try:
        _check_fields(missed)
        return replace(missed, absent=_absent(missed.absent) or EMPTY)
    except (TypeError, ValueError) as error:
        return _unusable(error)


def _check_fields(outcome: Outcome) -> None:
    """Refuse a field of another type than declared: no process could send it to another one.

    Raises:
        TypeError: naming the field.
    """
    for field in outcome.__struct_fields__:
        wanted = _FIELD_TYPES.get(field)
        value = getattr(outcome, field)
        if wanted is not None and not isinstance(value, wanted):
            kind = type(outcome).__name__.lower()
            raise TypeError(f"the field '{field}' of the {kind} is {_type_name(value)}")


_FIELD_TYPES: Mapping[str, tuple[type, ...]] = {
    "reward": (str,),
    "fingerprint": (str,),
    "sample": (str, type(None)),
    "elapsed": (float, int),
    "renormalised": (bool,),
    "reason": (str,),
    "message": (str,),
    "retryable": (bool,),
    "evidence": (str,),
}
"""Fields of outcomes that take one value and have no form to be brought into."""


def _seal_mapping(raw: Mapping[object, object], value_range: Range) -> Outcome:
    if "score" not in raw:
        keys = _clip(", ".join(sorted(map(_shorten, raw))), 200) or "none"
        return _bad_output(f"returned a dict without the key 'score' (keys: {keys})")
    if raw["score"] is None:
        return Abstention(reason="the reward returned a score of None")
    number = as_number(raw["score"])
    if number is None:
        return _bad_output(f"'score' is {_type_name(raw['score'])}: {_shorten(raw['score'])}")
    sealed = _seal_number(number, value_range)
    if not isinstance(sealed, Score):
        return sealed
    try:
        return _with_details(sealed.value, raw)
    except (TypeError, ValueError) as error:
        return _unusable(error)


def _with_details(value: float, raw: Mapping[object, object]) -> Score:
    metrics: dict[str, float | None] = {}
    info: dict[str, Any] = {}
    for key, item in raw.items():
        if key in RESERVED_KEYS:
            continue
        number = as_number(item)
        if number is None:
            info[str(key)] = item
        else:
            metrics[str(key)] = _finite_or_none(number)
    metrics.update(_numbers(raw.get("metrics"), "metrics"))
    info.update(_mapping(raw.get("info"), "info"))
    return Score(
        value=value,
        components=_components(raw.get("components")) or EMPTY,
        spans=_spans(raw.get("spans")),
        metrics=metrics or EMPTY,
        info=info or EMPTY,
    )


def _mapping(raw: object, key: str) -> dict[str, Any]:
    if raw is None:
        return {}
    if not isinstance(raw, Mapping):
        raise TypeError(f"'{key}' must be a dict, got {_type_name(raw)}")
    return {str(name): item for name, item in cast("Mapping[object, Any]", raw).items()}


def _are_plain(numbers: Mapping[str, object]) -> bool:
    """Whether there are only finite floats and None, so that nothing needs a new form."""
    if numbers is EMPTY:
        return True
    if type(numbers) is not dict:
        return False
    for name, number in cast("dict[object, object]", numbers).items():
        if type(name) is not str:
            return False
        if number is not None and not (type(number) is float and math.isfinite(number)):
            return False
    return True


def _has_text_keys(mapping: object) -> bool:
    return type(mapping) is dict and all(
        type(key) is str for key in cast("dict[object, object]", mapping)
    )


def _absent(raw: object) -> dict[str, Abstention | Failure]:
    absent: dict[str, Abstention | Failure] = {}
    for name, item in _mapping(raw, "absent").items():
        if not isinstance(item, Abstention | Failure):
            raise TypeError(f"'absent' holds {name!r}, which is {_type_name(item)}, no outcome")
        _check_fields(item)
        nested = item.absent
        absent[name] = item if nested is EMPTY else replace(item, absent=_absent(nested) or EMPTY)
    return absent


def _components(raw: object) -> dict[str, float | None]:
    """Components count as values: one that is not finite fails the sample."""
    components = _as_numbers(raw, "components")
    for name, number in components.items():
        if number is not None and not math.isfinite(number):
            raise NonFinite(f"the component {name!r} is {number}")
    return components


def _numbers(raw: object, key: str) -> dict[str, float | None]:
    """Numbers to log: one that is not finite is None."""
    numbers = _as_numbers(raw, key)
    return {name: None if n is None else _finite_or_none(n) for name, n in numbers.items()}


def _as_numbers(raw: object, key: str) -> dict[str, float | None]:
    numbers: dict[str, float | None] = {}
    for name, item in _mapping(raw, key).items():
        number = as_number(item)
        if number is None and item is not None:
            raise TypeError(f"'{key}' holds {name!r}, which is {_type_name(item)}, not a number")
        numbers[name] = number
    return numbers


def _spans(raw: object) -> tuple[Span, ...]:
    if raw is None:
        return ()
    if not isinstance(raw, list | tuple):
        raise TypeError(f"'spans' must be a list of Span, got {_type_name(raw)}")
    spans = cast("list[object] | tuple[object, ...]", raw)
    return tuple(map(_span, spans))


def _span(raw: object) -> Span:
    if not isinstance(raw, Span):
        raise TypeError(f"'spans' holds {_type_name(raw)}, not a Span")
    if raw.unit not in SPAN_UNITS:
        known = ", ".join(SPAN_UNITS)
        raise ValueError(f"'spans' holds the unit {_shorten(raw.unit)}, none of {known}")
    if type(raw.start) is int and type(raw.end) is int and type(raw.value) is float:
        return raw
    value = as_number(raw.value)
    if value is None:
        raise TypeError(f"'spans' holds a value that is {_type_name(raw.value)}, not a number")
    return Span(raw.unit, index(raw.start), index(raw.end), value)


def _finite_or_none(number: float) -> float | None:
    return number if math.isfinite(number) else None


def _float(number: float) -> float:
    try:
        return float(number)
    except OverflowError:
        return INFINITY if number > 0 else -INFINITY


def _bad_output(message: str) -> Failure:
    return failure(FailureKind.BAD_OUTPUT, message, Blame.SCORER)


def _unusable(error: Exception) -> Failure:
    if isinstance(error, NonFinite):
        return failure_from(error)
    return _bad_output(_describe(error))


def _describe(error: BaseException) -> str:
    text = _message(error)
    name = type(error).__name__
    return f"{name}: {text}" if text else name


def _message(error: BaseException) -> str:
    try:
        text = _clip(str(error))
    except BaseException as broken:
        return f"<its str() raised {_type_name(broken)}>"
    # What a response quotes must not break the log that quotes the message.
    return text.encode(errors="backslashreplace").decode()


def _type_name(value: object) -> str:
    return type(value).__name__


def _shorten(value: object) -> str:
    try:
        return _clip(repr(value), 200)
    except BaseException as broken:
        return f"<its repr() raised {_type_name(broken)}>"


def _clip(text: str, limit: int = 2000) -> str:
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text)} characters)"
