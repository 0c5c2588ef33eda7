"""What a response that ran out of tokens earns, against the formula of DAPO as UniRL writes it."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guerdon.errors import ConfigError
from guerdon.outcome import Abstention, Failure, Score
from guerdon.sample import Sample
from guerdon.truncation import UNSHAPED, Truncation

LOST = Failure(kind="raised", message="m", blame="scorer")  # type: ignore[arg-type]
SIGNED = Score(value=1.0, reward="r", fingerprint="f", sample="s", elapsed=2.0, metrics={"m": 3.0})


def sample(tokens: int | None = None, finish: str | None = None) -> Sample:
    return Sample(
        response_token_ids=None if tokens is None else range(tokens), finish_reason=finish
    )


def value(rule: Truncation, raw: float, of: Sample) -> float:
    outcome = rule.apply(Score(value=raw), of)
    assert isinstance(outcome, Score)
    return outcome.value


@pytest.mark.parametrize("of", [sample(), sample(200), sample(5, "length")])
def test_keep_does_nothing(of: Sample) -> None:
    assert Truncation().apply(SIGNED, of) is SIGNED
    assert Truncation("keep", max_tokens=1).apply(SIGNED, of) is SIGNED


@pytest.mark.parametrize(
    ("tokens", "finish", "raw", "expected"),
    [
        (99, None, 1.0, 1.0),
        (100, None, 1.0, 0.0),
        (101, None, 1.0, 0.0),
        (100, None, -0.5, -0.5),
        (100, "stop", 1.0, 1.0),
        (99, "length", 1.0, 0.0),
        (None, "length", 1.0, 0.0),
        (None, "stop", 1.0, 1.0),
        (None, "tool_calls", 1.0, 1.0),
        (0, None, 1.0, 1.0),
    ],
)
def test_zero_gives_a_truncated_response_at_most_nothing(
    tokens: int | None, finish: str | None, raw: float, expected: float
) -> None:
    assert value(Truncation("zero", max_tokens=100), raw, sample(tokens, finish)) == expected


def unirl(raw: float, n: int, limit: int, buffer: int, factor: float) -> float:
    """UniRL's soft mode: r += min(-(len - (max - buffer)) / buffer * factor, 0)."""
    return raw + min(-(n - (limit - buffer)) / buffer * factor, 0.0)


@pytest.mark.parametrize(
    ("tokens", "penalty"),
    [(0, 0.0), (80, 0.0), (81, -0.05), (90, -0.5), (100, -1.0), (120, -2.0)],
)
def test_soft_falls_over_the_buffer(tokens: int, penalty: float) -> None:
    rule = Truncation("soft", max_tokens=100, buffer=20)
    assert value(rule, 0.25, sample(tokens)) == pytest.approx(0.25 + penalty)
    assert value(rule, 0.25, sample(tokens, "stop")) == pytest.approx(0.25 + penalty)


@given(
    st.floats(-10, 10),
    st.integers(0, 300),
    st.integers(1, 200),
    st.integers(1, 200),
    st.floats(0, 5),
)
def test_soft_is_the_formula(raw: float, n: int, limit: int, buffer: int, factor: float) -> None:
    rule = Truncation("soft", max_tokens=limit, buffer=buffer, factor=factor)
    assert value(rule, raw, sample(n)) == unirl(raw, n, limit, buffer, factor)


def test_what_was_shaped_says_so_and_keeps_the_rest() -> None:
    for rule in (Truncation("zero", max_tokens=10), Truncation("soft", max_tokens=10, buffer=5)):
        shaped = rule.apply(SIGNED, sample(10))
        assert isinstance(shaped, Score)
        assert shaped.metrics == {"m": 3.0, UNSHAPED: 1.0}
        assert (shaped.reward, shaped.fingerprint, shaped.sample, shaped.elapsed) == (
            "r",
            "f",
            "s",
            2.0,
        )
        assert rule.apply(SIGNED, sample(5)) is SIGNED


@pytest.mark.parametrize(
    ("rule", "of"),
    [
        (Truncation("soft", max_tokens=10, buffer=5), sample()),
        (Truncation("soft", max_tokens=10, buffer=5), sample(None, "stop")),
        (Truncation("zero", max_tokens=10), sample()),
        (Truncation("zero"), sample(5)),
    ],
)
def test_a_length_that_is_not_known_is_bad_input(rule: Truncation, of: Sample) -> None:
    lost = rule.apply(SIGNED, of)
    assert isinstance(lost, Failure)
    assert (str(lost.kind), str(lost.blame)) == ("bad_input", "data")
    assert (lost.reward, lost.fingerprint, lost.sample) == ("r", "f", "s")


@pytest.mark.parametrize("outcome", [LOST, Abstention()])
def test_what_is_no_score_is_left_alone(outcome: Any) -> None:
    rule = Truncation("soft", max_tokens=10, buffer=5)
    assert rule.apply(outcome, sample()) is outcome
    assert rule.apply(outcome, sample(100)) is outcome


@pytest.mark.parametrize(
    "settings",
    [
        {"mode": "hard"},
        {"mode": "soft"},
        {"mode": "soft", "max_tokens": 10, "buffer": 0},
        {"mode": "soft", "max_tokens": 10, "buffer": -1},
        {"factor": math.nan},
        {"factor": math.inf},
        {"factor": -1.0},
    ],
)
def test_an_impossible_rule_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="truncation"):
        Truncation(**settings)


@pytest.mark.parametrize(
    ("rule", "value_range", "interval"),
    [
        (Truncation(), (0.0, 1.0), (0.0, 1.0)),
        (Truncation("zero"), (0.0, 1.0), (0.0, 1.0)),
        (Truncation("zero"), (0.5, 1.0), (0.0, 1.0)),
        (Truncation("zero"), (-2.0, 1.0), (-2.0, 1.0)),
        (Truncation("soft", max_tokens=100, buffer=10, factor=0.5), (0.0, 1.0), (-0.5, 1.0)),
        (Truncation("soft", max_tokens=100, buffer=10), (-math.inf, 1.0), (-math.inf, 1.0)),
    ],
)
def test_the_range_of_what_is_left(
    rule: Truncation, value_range: tuple[float, float], interval: tuple[float, float]
) -> None:
    assert rule.interval(value_range) == interval
