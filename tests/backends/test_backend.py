"""Calls, limits, and the results of calls that cover several samples."""

import math
import threading
from typing import Any

import numpy as np
import pytest

from guerdon.backends.backend import CLOSED, Calls, Limits, seal_many
from guerdon.outcome import UNBOUNDED, Abstention, Failure, Score

LOST = Failure(kind="crashed", message="m", blame="candidate")  # type: ignore[arg-type]
PATIENCE = 30.0


class TensorLike:
    """A one-dimensional tensor as far as anybody outside torch can see."""

    def __init__(self, values: list[float], shape: tuple[int, ...] | None = None) -> None:
        self.shape = (len(values),) if shape is None else shape
        self._values = values

    def tolist(self) -> list[float]:
        return self._values


def found(raw: object, size: int, value_range: tuple[float, float] = UNBOUNDED) -> list[Any]:
    return [
        str(s.kind) if isinstance(s, Failure) else s.value if isinstance(s, Score) else None
        for s in seal_many(raw, size, value_range)
    ]


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ([0.5, 1], [0.5, 1.0]),
        ((0.5, True), [0.5, 1.0]),
        (np.array([0.5, 1.0]), [0.5, 1.0]),
        (np.array([1, 0], dtype=bool), [1.0, 0.0]),
        (np.array([0.5, None], dtype=object), [0.5, None]),
        (TensorLike([0.5, 1.0]), [0.5, 1.0]),
        ([None, {"score": 0.5}], [None, 0.5]),
        ([Score(value=0.5), LOST], [0.5, "crashed"]),
        ([0.5, "x"], [0.5, "bad_output"]),
        ([math.nan, 0.5], ["non_finite", 0.5]),
        (np.array([math.nan, 0.5]), ["non_finite", 0.5]),
        ([0.5, [1.0]], [0.5, "bad_output"]),
        ([0.5, 2.0], [0.5, "bad_output"]),
        (Abstention(), [None, None]),
        (LOST, ["crashed", "crashed"]),
    ],
)
def test_one_result_per_sample(raw: object, expected: list[Any]) -> None:
    assert found(raw, 2, (0.0, 1.0)) == expected


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        ([], "0 results for 2 samples"),
        ([1.0], "1 results for 2 samples"),
        ([1.0] * 3, "3 results for 2 samples"),
        (np.zeros(3), "3 results for 2 samples"),
        (None, "NoneType"),
        (1.0, "float"),
        (np.float64(1), "float64"),
        ("ab", "str"),
        (b"ab", "bytes"),
        ({"a": 1.0, "b": 2.0}, "dict"),
        ({1.0, 2.0}, "set"),
        (iter([1.0, 2.0]), "list_iterator"),
        ((x for x in (1.0, 2.0)), "generator"),
        (np.zeros((2, 1)), "ndarray"),
        (np.array(1.0), "ndarray"),
        (TensorLike([1.0, 2.0], (1, 2)), "TensorLike"),
        (Score(value=1.0), "Score"),
    ],
)
def test_anything_but_one_result_per_sample_fails_all_of_them(raw: object, says: str) -> None:
    sealed = seal_many(raw, 2, UNBOUNDED)
    assert len(sealed) == 2
    for lost in sealed:
        assert isinstance(lost, Failure)
        assert (str(lost.kind), str(lost.blame)) == ("bad_output", "scorer")
        assert says in lost.message


def test_calls_count_their_samples() -> None:
    assert Calls([{}, {}, {}]).samples == 3
    assert Calls([{}, {}], [2, 3]).samples == 5
    assert [Calls([{}, {}], [2, 3]).size(i) for i in range(2)] == [2, 3]
    assert Calls([{}]).size(0) == 1


@pytest.mark.parametrize("timeout", [None, math.inf, 1e300])
def test_limits_without_an_end(timeout: float | None) -> None:
    limits = Limits.within(timeout)
    assert limits.remaining is None
    assert not limits.over
    assert limits.wait(0.0)


@pytest.mark.parametrize("seconds", [0.0, -1.0, -math.inf])
def test_limits_that_have_ended(seconds: float) -> None:
    limits = Limits.within(seconds)
    assert limits.remaining == 0.0
    assert limits.over
    assert not limits.wait(1000.0)
    lost = limits.failure("queued")
    assert (str(lost.kind), str(lost.blame)) == ("timeout", "infrastructure")
    assert "queued" in lost.message


def test_a_wait_ends_with_the_caller() -> None:
    limits = Limits()
    waiting = threading.Thread(target=limits.wait, args=(1000.0,), daemon=True)
    waiting.start()
    limits.cancel()
    waiting.join(PATIENCE)
    assert not waiting.is_alive()
    assert limits.over
    lost = limits.failure("running")
    assert (str(lost.kind), str(lost.blame)) == ("cancelled", "infrastructure")


def test_callbacks_are_called_once_and_at_once_when_it_is_too_late() -> None:
    limits = Limits()
    heard: list[str] = []

    def kept() -> None:
        heard.append("kept")

    def forgotten() -> None:
        heard.append("forgotten")

    limits.on_cancel(kept)
    limits.on_cancel(forgotten)
    limits.forget(forgotten)
    limits.forget(forgotten)
    limits.cancel()
    limits.cancel()
    assert heard == ["kept"]
    limits.on_cancel(lambda: heard.append("late"))
    assert heard == ["kept", "late"]


def test_a_callback_may_use_the_limits() -> None:
    limits = Limits()
    heard: list[bool] = []
    limits.on_cancel(lambda: heard.append(limits.over))
    limits.on_cancel(lambda: limits.forget(print))
    limits.cancel()
    assert heard == [True]


def test_a_closed_backend_is_no_fault_of_the_reward() -> None:
    assert (str(CLOSED.kind), str(CLOSED.blame)) == ("cancelled", "infrastructure")
