"""What a response that ran out of tokens earns."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec
from msgspec.structs import replace

from guerdon.errors import Blame, ConfigError, FailureKind
from guerdon.outcome import Failure, Outcome, Range, Score, failure
from guerdon.sample import Sample

TruncationMode: TypeAlias = Literal["zero", "keep", "soft"]
MODES = ("zero", "keep", "soft")
UNSHAPED = "unshaped"
"""Metric that keeps the value from before the truncation rule."""


class Truncation(msgspec.Struct, frozen=True):
    """A rule for responses that reach the token limit.

    With n response tokens and the limit M: `keep` does nothing; `zero` gives a truncated response
    at most 0; `soft` adds `min(-(n - (M - buffer)) / buffer * factor, 0)`, which falls from 0 at
    `M - buffer` to `-factor` at M (UniRL `unirl/reward/service.py`; DAPO, arXiv 2503.14476, 3.4).
    Unlike UniRL's, `zero` neither raises a negative score nor zeroes a response whose
    `finish_reason` says that it ended by itself. Components keep their own values.

    Attributes:
        mode: zero, keep or soft.
        max_tokens: the limit M.
        buffer: tokens before the limit over which `soft` falls.
        factor: what `soft` takes away at the limit.

    Example:
        >>> rule = Truncation("soft", max_tokens=100, buffer=20)
        >>> rule.apply(Score(value=1.0), Sample(response_token_ids=range(90))).value
        0.5
    """

    mode: TruncationMode = "keep"
    max_tokens: int | None = None
    buffer: int = 4096
    factor: float = 1.0

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ConfigError(f"truncation: mode must be one of {', '.join(MODES)}")
        if self.mode == "soft" and (self.max_tokens is None or not self.buffer > 0):
            raise ConfigError("truncation: soft needs max_tokens and a buffer above 0")
        if not 0 <= self.factor < float("inf"):
            raise ConfigError(f"truncation: factor must be finite and >= 0, got {self.factor}")

    def apply(self, outcome: Outcome, sample: Sample) -> Outcome:
        """The outcome that the rule leaves; a length that is not known is a `bad_input` failure."""
        if self.mode == "keep" or not isinstance(outcome, Score):
            return outcome
        tokens = None if sample.response_token_ids is None else len(sample.response_token_ids)
        if self.mode == "soft":
            return self._soften(outcome, tokens) if tokens is not None else _unknown(outcome)
        truncated = self._is_truncated(sample, tokens)
        if truncated is None:
            return _unknown(outcome)
        return _shape(outcome, min(outcome.value, 0.0)) if truncated else outcome

    def interval(self, value_range: Range) -> Range:
        """The range of what the rule leaves of a reward's values, up to the limit of tokens.

        Example:
            >>> Truncation("soft", max_tokens=100, buffer=20).interval((0.0, 1.0))
            (-1.0, 1.0)
        """
        low, high = value_range
        if self.mode == "soft":
            return low - self.factor, high
        return (min(low, 0.0), high) if self.mode == "zero" else value_range

    def _soften(self, score: Score, tokens: int) -> Score:
        start = (self.max_tokens or 0) - self.buffer
        penalty = min(-(tokens - start) / self.buffer * self.factor, 0.0)
        return _shape(score, score.value + penalty) if penalty else score

    def _is_truncated(self, sample: Sample, tokens: int | None) -> bool | None:
        if sample.finish_reason is not None:
            return sample.finish_reason == "length"
        if tokens is None or self.max_tokens is None:
            return None
        return tokens >= self.max_tokens


def _shape(score: Score, value: float) -> Score:
    return replace(score, value=value, metrics={**score.metrics, UNSHAPED: score.value})


def _unknown(score: Score) -> Failure:
    lost = failure(
        FailureKind.BAD_INPUT,
        "the truncation rule needs response_token_ids (or, for mode zero, finish_reason)",
        Blame.DATA,
    )
    return replace(
        lost,
        reward=score.reward,
        fingerprint=score.fingerprint,
        sample=score.sample,
        elapsed=score.elapsed,
    )
