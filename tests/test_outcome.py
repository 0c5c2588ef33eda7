"""What a reward returns becomes exactly one of a score, an abstention and a failure."""

import copy
import math
import pickle
import sys
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from decimal import Decimal
from enum import IntEnum
from fractions import Fraction
from types import MappingProxyType
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guerdon.errors import BadInput, Blame, FailureKind, NonFinite, RewardFailure
from guerdon.outcome import (
    EMPTY,
    UNBOUNDED,
    Abstention,
    Failure,
    Score,
    Span,
    as_number,
    check_range,
    failure,
    failure_from,
    seal,
)

UNIT = (0.0, 1.0)


class Grade(IntEnum):
    FAIR = 1


class TorchLike:
    """A 0-d tensor as far as anybody outside torch can see."""

    def __init__(self, value: object, shape: tuple[int, ...] = ()) -> None:
        self.shape = shape
        self._value = value

    def item(self) -> object:
        return self._value


class Row(Mapping[str, Any]):
    """A mapping that is no dict."""

    def __init__(self, **items: Any) -> None:
        self._items = items

    def __getitem__(self, key: str) -> Any:
        return self._items[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)


class NoRepr:
    def __repr__(self) -> str:
        raise SystemExit("not even this")


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (0.25, 0.25),
        (1, 1.0),
        (True, 1.0),
        (False, 0.0),
        (-0.0, -0.0),
        (Grade.FAIR, 1.0),
        (np.float64(0.5), 0.5),
        (np.float32(0.5), 0.5),
        (np.float16(0.5), 0.5),
        (np.int8(1), 1.0),
        (np.uint64(1), 1.0),
        (np.bool_(True), 1.0),
        (np.array(0.5), 0.5),
        (TorchLike(0.5), 0.5),
        (TorchLike(True), 1.0),
        (sys.float_info.max, sys.float_info.max),
        (5e-324, 5e-324),
        (2**1000, float(2**1000)),
        ({"score": 0.5}, 0.5),
        ({"score": np.float32(0.5)}, 0.5),
        ({"score": True}, 1.0),
        (OrderedDict(score=0.5), 0.5),
        (MappingProxyType({"score": 0.5}), 0.5),
        (Row(score=0.5), 0.5),
        (Score(value=0.5), 0.5),
        (Score(value=1), 1.0),
        (Score(value=True), 1.0),
        (Score(value=np.float64(0.5)), 0.5),
        (Score(value=np.float32(0.5)), 0.5),
    ],
    ids=lambda value: type(value).__name__,
)
def test_numbers_become_scores_of_plain_floats(raw: object, value: float) -> None:
    sealed = seal(raw)
    assert isinstance(sealed, Score)
    assert type(sealed.value) is float
    assert math.copysign(1.0, sealed.value) == math.copysign(1.0, value)
    assert sealed.value == value


@pytest.mark.parametrize("raw", [None, {"score": None}, Abstention(reason="no units")])
def test_none_is_an_abstention(raw: object) -> None:
    assert isinstance(seal(raw), Abstention)


@pytest.mark.parametrize(
    "raw",
    [
        math.nan,
        math.inf,
        -math.inf,
        np.float32("nan"),
        TorchLike(math.inf),
        10**400,
        -(10**400),
        {"score": math.nan},
        {"score": np.float64("inf")},
        {"score": 1.0, "components": {"a": math.nan}},
        Score(value=1.0, components={"a": math.inf}),
        Score(value=10**400),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_that_is_not_finite_is_a_failure_of_the_scorer(raw: object) -> None:
    sealed = seal(raw)
    assert isinstance(sealed, Failure)
    assert (sealed.kind, sealed.blame) == (FailureKind.NON_FINITE, Blame.SCORER)
    assert not sealed.retryable


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        ("1.0", "str"),
        ("", "str"),
        (b"1", "bytes"),
        ([1.0], "list"),
        ((1.0, 2.0), "tuple"),
        ([], "list"),
        ({}, "without the key 'score'"),
        ({"Score": 1.0}, "'Score'"),
        ({"score": "high"}, "'score' is str"),
        ({"score": [1.0]}, "'score' is list"),
        ({"score": {"score": 1.0}}, "'score' is dict"),
        ({"score": 1.0, "components": [1.0]}, "'components' must be a dict"),
        ({"score": 1.0, "components": {"a": "b"}}, "'a'"),
        ({"score": 1.0, "metrics": {"a": "b"}}, "'a'"),
        ({"score": 1.0, "spans": "all"}, "'spans' must be a list"),
        ({"score": 1.0, "spans": [(0, 1)]}, "holds tuple"),
        ({"score": 1.0, "info": "text"}, "'info' must be a dict"),
        (Score(value=1.0, components={"a": "b"}), "'a'"),  # type: ignore[dict-item]
        (Score(value=1.0, metrics={"a": []}), "'a'"),  # type: ignore[dict-item]
        (Score(value=1.0, info=["text"]), "'info' must be a dict"),  # type: ignore[arg-type]
        (Score(value=1.0, spans=((0, 1),)), "holds tuple"),  # type: ignore[arg-type]
        (Score(value=1.0, spans=(Span("word", 0, 1, 1.0),)), "'word'"),  # type: ignore[arg-type]
        (Score(value=1.0, spans=(Span("turn", 0.5, 1, 1.0),)), "float"),  # type: ignore[arg-type]
        (Score(value=1.0, absent={"a": 3}), "'a', which is int"),  # type: ignore[dict-item]
        (Score(value=1.0, absent={"a": Abstention(reason=3)}), "'reason'"),  # type: ignore[arg-type]
        (Score(value=1.0, renormalised="no"), "'renormalised'"),  # type: ignore[arg-type]
        (Score(value=1.0, elapsed="long"), "'elapsed'"),  # type: ignore[arg-type]
        (Score(value=1.0, reward=None), "'reward'"),  # type: ignore[arg-type]
        (Score(value=1.0, sample=7), "'sample'"),  # type: ignore[arg-type]
        (Abstention(reason=None), "'reason'"),  # type: ignore[arg-type]
        (Abstention(absent={"a": 1.0}), "'a', which is float"),  # type: ignore[dict-item]
        (Failure(kind="raised", message=5, blame="data"), "'message'"),  # type: ignore[arg-type]
        (Failure(kind="raised", message="m", blame="data", retryable=1), "'retryable'"),  # type: ignore[arg-type]
        (np.array([1.0]), "ndarray"),
        (np.array([[1.0]]), "ndarray"),
        (np.str_("1"), "str_"),
        (np.datetime64("2024-01-01"), "datetime64"),
        (1 + 2j, "complex"),
        (TorchLike(1.0, shape=(1,)), "TorchLike"),
        (TorchLike("1"), "TorchLike"),
        (Decimal("0.5"), "Decimal"),
        (Fraction(1, 2), "Fraction"),
        (object(), "object"),
        (float, "type"),
        (iter([1.0]), "iterator"),
        (NoRepr(), "its repr() raised SystemExit"),
    ],
    ids=lambda raw: type(raw).__name__,
)
def test_everything_else_is_bad_output_and_says_what_it_was(raw: object, says: str) -> None:
    sealed = seal(raw)
    assert isinstance(sealed, Failure)
    assert (sealed.kind, sealed.blame) == (FailureKind.BAD_OUTPUT, Blame.SCORER)
    assert says in sealed.message


@pytest.mark.filterwarnings("error")
def test_a_coroutine_is_closed_and_the_cure_is_named() -> None:
    async def forgotten() -> float:
        return 1.0

    sealed = seal(forgotten())
    assert isinstance(sealed, Failure)
    assert sealed.kind is FailureKind.BAD_OUTPUT
    assert "async def" in sealed.message


@pytest.mark.parametrize(
    ("value", "value_range", "inside"),
    [
        (0.0, UNIT, True),
        (1.0, UNIT, True),
        (-0.0, UNIT, True),
        (1.0000005, UNIT, True),
        (-0.0000005, UNIT, True),
        (1.00001, UNIT, False),
        (-0.00001, UNIT, False),
        (2.0, UNIT, False),
        (1e300, UNBOUNDED, True),
        (1e300, (0.0, math.inf), True),
        (-1e-9, (0.0, math.inf), False),
        (100.00005, (0.0, 100.0), True),
        (100.2, (0.0, 100.0), False),
        (0.0, (0.0, 0.0), True),
        (1e-12, (0.0, 0.0), False),
    ],
)
def test_a_value_outside_its_declared_range_is_bad_output(
    value: float, value_range: tuple[float, float], inside: bool
) -> None:
    for raw in (value, {"score": value}, Score(value=value), np.float64(value)):
        sealed = seal(raw, value_range)
        if inside:
            assert isinstance(sealed, Score)
            assert sealed.value == value
        else:
            assert isinstance(sealed, Failure)
            assert sealed.kind is FailureKind.BAD_OUTPUT
            assert str(value) in sealed.message
    assert isinstance(check_range(Score(value=value), value_range), Score) is inside


def test_the_rest_of_a_dict_is_metrics_and_info() -> None:
    span = Span("token", 0, 2, 0.5)
    sealed = seal(
        {
            "score": 0.5,
            "length": 12,
            "ratio": np.float32(0.25),
            "passed": True,
            "broken": math.nan,
            "extracted": "42",
            "steps": [1, 2],
            "nothing": None,
            "components": {"format": 1, "absent": None},
            "metrics": {"temperature": 0.7, "lost": math.inf},
            "info": {"verdict": "right"},
            "spans": [span],
            7: "seven",
        }
    )
    assert isinstance(sealed, Score)
    assert sealed.metrics == {
        "length": 12.0,
        "ratio": 0.25,
        "passed": 1.0,
        "broken": None,
        "temperature": 0.7,
        "lost": None,
    }
    assert sealed.info == {
        "extracted": "42",
        "steps": [1, 2],
        "nothing": None,
        "verdict": "right",
        "7": "seven",
    }
    assert sealed.components == {"format": 1.0, "absent": None}
    assert sealed.spans == (span,)


def test_a_dict_and_a_score_say_the_same_about_their_numbers() -> None:
    details = {"components": {"a": np.float32(0.5), "b": None}, "metrics": {"m": math.nan, "n": 1}}
    from_dict = seal({"score": 1, **details})
    from_score = seal(Score(value=1, **details))
    assert from_dict == from_score
    assert isinstance(from_score, Score)
    assert {type(value) for value in from_score.components.values()} == {float, type(None)}


def test_the_details_of_a_score_take_the_form_that_every_process_can_read() -> None:
    lost = Failure(kind="raised", message="m", blame="data")  # type: ignore[arg-type]
    sealed = seal(
        Score(
            value=1.0,
            components={1: 0.5},  # type: ignore[dict-item]
            metrics={2: 3},  # type: ignore[dict-item]
            info={3: "three", "deep": {4: 5}},  # type: ignore[dict-item]
            spans=[Span("turn", np.int64(0), np.int64(2), np.float32(0.5))],  # type: ignore[arg-type]
            absent={5: Abstention(absent={6: lost})},  # type: ignore[dict-item]
        )
    )
    assert isinstance(sealed, Score)
    assert (sealed.components, sealed.metrics) == ({"1": 0.5}, {"2": 3.0})
    assert sealed.info == {"3": "three", "deep": {4: 5}}
    (span,) = sealed.spans
    assert [type(part) for part in (span.start, span.end, span.value)] == [int, int, float]
    assert sealed.absent == {"5": Abstention(absent={"6": lost})}
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(sealed), type=Score) == sealed


def test_outcomes_that_are_plain_already_are_handed_on_as_they_are() -> None:
    lost = Failure(kind=FailureKind.RAISED, message="m", blame=Blame.DATA, sample="s")
    gone = Abstention(reason="no units", absent={"a": lost})
    score = Score(value=1.0, components={"a": None}, absent={"a": lost, "b": gone}, info={"k": 1})
    for outcome in (lost, gone, score):
        assert seal(outcome) is outcome


def test_a_long_list_of_keys_or_a_long_value_does_not_make_a_long_message() -> None:
    for raw in ({f"key{i}": i for i in range(100_000)}, "x" * 10_000_000, {"score": "y" * 10**7}):
        sealed = seal(raw)
        assert isinstance(sealed, Failure)
        assert len(sealed.message) < 1000


class LoudError(Exception):
    def __init__(self, broken: BaseException) -> None:
        self.broken = broken

    def __str__(self) -> str:
        raise self.broken


@pytest.mark.parametrize(
    ("error", "kind", "blame", "retryable"),
    [
        (ValueError("v"), "raised", "scorer", False),
        (KeyboardInterrupt(), "raised", "scorer", False),
        (SystemExit(3), "raised", "scorer", False),
        (GeneratorExit(), "raised", "scorer", False),
        (StopIteration(1), "raised", "scorer", False),
        (RecursionError("deep"), "raised", "scorer", False),
        (MemoryError(), "crashed", "scorer", False),
        (TimeoutError("judge"), "unavailable", "infrastructure", True),
        (ConnectionResetError("judge"), "unavailable", "infrastructure", True),
        (OSError("disk"), "raised", "scorer", False),
        (BadInput("gold"), "bad_input", "data", False),
        (NonFinite("nan"), "non_finite", "scorer", False),
        (
            RewardFailure("loop", kind="timeout", blame="candidate", retryable=True),
            "timeout",
            "candidate",
            True,
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_an_exception_says_kind_and_blame(
    error: BaseException, kind: str, blame: str, retryable: bool
) -> None:
    lost = failure_from(error)
    assert (str(lost.kind), str(lost.blame), lost.retryable) == (kind, blame, retryable)
    if not isinstance(error, RewardFailure):
        assert type(error).__name__ in lost.message


def test_a_coroutine_that_nobody_awaited_is_explained() -> None:
    async def acquire_resource() -> str:
        return "a folder"

    coroutine: Any = acquire_resource()
    for use in (lambda: coroutine.path, lambda: coroutine["path"]):
        with pytest.raises((AttributeError, TypeError)) as caught:
            use()
        assert "such as context.acquire_resource_sync" in failure_from(caught.value).message
    coroutine.close()
    assert "acquire" not in failure_from(AttributeError("no 'coroutine'")).message


@pytest.mark.parametrize("broken", [ValueError(), SystemExit(), KeyboardInterrupt()])
def test_an_exception_whose_str_raises_is_still_one_failure(broken: BaseException) -> None:
    lost = failure_from(LoudError(broken))
    assert lost.kind is FailureKind.RAISED
    assert type(broken).__name__ in lost.message


def test_a_huge_message_is_clipped() -> None:
    for error in (ValueError("x" * 10**7), BadInput("y" * 10**7)):
        lost = failure_from(error)
        assert len(lost.message) < 3000
        assert "10000000 characters" in lost.message


def test_a_message_can_be_printed_whatever_it_quotes() -> None:
    for error in (ValueError("bad \ud800 text"), BadInput("bad \ud800 text")):
        lost = failure_from(error)
        assert "bad \\ud800 text" in lost.message
        lost.message.encode()


def test_a_failure_built_from_words_is_the_same_as_one_built_from_members() -> None:
    words = Failure(kind="timeout", message="m", blame="data")  # type: ignore[arg-type]
    assert words == Failure(kind=FailureKind.TIMEOUT, message="m", blame=Blame.DATA)
    assert words.kind is FailureKind.TIMEOUT
    assert words.blame is Blame.DATA


@pytest.mark.parametrize(("kind", "blame"), [("slow", "data"), ("timeout", "nobody")])
def test_a_failure_outside_the_vocabulary_cannot_be_built(kind: str, blame: str) -> None:
    with pytest.raises(ValueError, match="is not a valid"):
        Failure(kind=kind, message="m", blame=blame)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float64("nan")])
def test_no_outcome_type_can_hold_what_is_not_finite(value: float) -> None:
    with pytest.raises(NonFinite):
        Score(value=value)
    with pytest.raises(NonFinite):
        Span("token", 0, 1, value)


@pytest.mark.parametrize(("start", "end"), [(-1, 2), (3, 2), (-5, -1)])
def test_a_span_must_be_a_span(start: int, end: int) -> None:
    with pytest.raises(ValueError, match="start <= end"):
        Span("turn", start, end, 0.0)


def test_an_empty_span_is_allowed() -> None:
    assert Span("char", 3, 3, 1.0).end == 3


def test_outcomes_are_frozen() -> None:
    with pytest.raises(AttributeError):
        Score(value=1.0).value = 2.0  # type: ignore[misc]


def test_a_failure_reads_as_one_line() -> None:
    lost = Failure(
        kind=FailureKind.RAISED,
        message="oops",
        blame=Blame.SCORER,
        reward="gsm8k",
        sample="s1",
    )
    assert str(lost) == "gsm8k of sample 's1': raised (scorer): oops"


def test_retryable_follows_the_kind_unless_told() -> None:
    assert failure(FailureKind.UNAVAILABLE, "m", Blame.INFRASTRUCTURE).retryable
    assert not failure(FailureKind.UNAVAILABLE, "m", Blame.SCORER, retryable=False).retryable
    assert not failure(FailureKind.RAISED, "m", Blame.SCORER).retryable


def test_the_empty_mapping_is_one_object_for_ever() -> None:
    assert copy.deepcopy(EMPTY) is EMPTY
    assert copy.copy(EMPTY) is EMPTY
    assert pickle.loads(pickle.dumps(EMPTY)) is EMPTY
    assert dict(EMPTY) == {}
    assert EMPTY == {}
    assert "x" not in EMPTY
    with pytest.raises(KeyError):
        EMPTY["x"]
    twin = pickle.loads(pickle.dumps(Score(value=1.0)))
    assert twin.components is EMPTY


@pytest.mark.parametrize("raw", [True, 3, 3.5, np.int64(3), np.float32(1.5), TorchLike(2)])
def test_as_number_gives_a_plain_float(raw: object) -> None:
    assert type(as_number(raw)) is float


@given(
    st.one_of(
        st.floats(),
        st.integers(),
        st.booleans(),
        st.none(),
        st.text(),
        st.binary(),
        st.complex_numbers(),
        st.fractions(),
        st.decimals(),
        st.lists(st.floats()),
        st.dictionaries(
            st.sampled_from(["score", "components", "metrics", "info", "spans", "x"]),
            st.one_of(st.floats(), st.none(), st.text(), st.dictionaries(st.text(), st.floats())),
        ),
    ),
    st.sampled_from([UNIT, UNBOUNDED, (-1.0, 0.0), (0.0, math.inf)]),
)
def test_seal_is_total_and_never_lets_a_bad_number_through(
    raw: object, value_range: tuple[float, float]
) -> None:
    sealed = seal(raw, value_range)
    assert type(sealed) in (Score, Abstention, Failure)
    if isinstance(sealed, Score):
        assert math.isfinite(sealed.value)
        slack = 1e-6 * max((abs(e) for e in value_range if math.isfinite(e)), default=0.0)
        assert value_range[0] - slack <= sealed.value <= value_range[1] + slack
        numbers = [*sealed.components.values(), *sealed.metrics.values()]
        assert all(number is None or math.isfinite(number) for number in numbers)
    assert seal(sealed, value_range) == sealed
