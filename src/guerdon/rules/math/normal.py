"""Normalised LaTeX of golds and answers, made by the reference's own normaliser."""

from __future__ import annotations

from functools import cache
from typing import Any

from guerdon.rules.math.packages import normalisation_module
from guerdon.rules.math.syntax import MAX_CHARS


@cache
def _settings() -> tuple[Any, Any, Any]:
    module = normalisation_module()
    # As in `LatexExtractionConfig()` of math-verify 0.9.0, without the search for boxes.
    gold = module.NormalizationConfig(
        basic_latex=True,
        units=True,
        malformed_operators=True,
        nits=True,
        boxed="none",
        equations=False,
    )
    # As in TRL's `accuracy_reward`, without the search for boxes.
    answer = module.NormalizationConfig(units=True, boxed="none")
    return module.normalize_latex, gold, answer


def normal_gold(text: str) -> str | None:
    r"""The normalised gold answer; None where it is too long for a normaliser that backtracks.

    Example:
        >>> normal_gold(r"\dfrac12 \text{ cm}")
        '\\frac{1}{2}'
    """
    if len(text) > MAX_CHARS:
        return None
    if text.isdigit() and text.isascii():
        return text  # no rule applies to plain digits
    normalise, config, _ = _settings()
    return normalise(text, config)


def normal_answer(text: str) -> str | None:
    r"""The normalised content of a box; None where it is too long.

    Example:
        >>> normal_answer(r"\dfrac{1}{2} \text{ cm}")
        '\\frac{1}{2}'
    """
    if len(text) > MAX_CHARS:
        return None
    if text.isdigit() and text.isascii():
        return text
    normalise, _, config = _settings()
    return normalise(text, config)
