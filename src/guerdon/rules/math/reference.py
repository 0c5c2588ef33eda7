"""The reference: what Math-Verify says when it is called as TRL's `accuracy_reward` calls it.

This module is the slow oracle that the fast path is tested against, and the definition of the
reward's value. The reference is, in words:

- math-verify 0.9.0 with latex2sympy2_extended 1.11.0 and the ANTLR runtime 4.13.2. The runtime
  selects the grammar and with it the verdict (the grammar of 4.9.3 drops percent signs).
- The gold answer is wrapped in dollar signs, as TRL's own example scripts do, and parsed first with
  Math-Verify's defaults: LaTeX before plain expressions, any match.
- The response is parsed for LaTeX only, boxed answers first, units removed, malformed operators
  left alone, nothing without an anchor (a box, "answer", "final answer is"), first match only.
- The two are compared with Math-Verify's defaults: 6 decimals for floats, 15 digits for constants,
  strict variables.
- No limit of time. Math-Verify's own limits are signal timers that work in one thread of a process
  only; here the deadline belongs to the pool that runs the reward.

Source: `trl/rewards/accuracy_rewards.py` of TRL 1.16.0. It abstains where the gold cannot be
parsed; Guerdon blames the data.
"""

from __future__ import annotations

from typing import Any

from guerdon.rules.math.packages import require

FLOAT_ROUNDING = 6
"""Decimals to which floats are compared: `math_verify.verify`, default."""
NUMERIC_PRECISION = 15
"""Digits to which constants are compared: `math_verify.verify`, default."""


def answer_config() -> Any:
    """How the reference extracts the answer from a response."""
    require()
    from latex2sympy2_extended import (  # pyright: ignore[reportMissingTypeStubs]
        NormalizationConfig,
    )
    from math_verify import LatexExtractionConfig  # pyright: ignore[reportMissingTypeStubs]

    return LatexExtractionConfig(
        normalization_config=NormalizationConfig(units=True),
        boxed_match_priority=0,
        try_extract_without_anchor=False,
    )


def parse_gold(gold: str) -> list[Any]:
    """What the reference makes of a gold answer; empty where it makes nothing.

    Returns:
        SymPy objects, then the normalised text.
    """
    require()
    from math_verify import parse  # pyright: ignore[reportMissingTypeStubs]

    parsed: list[Any] = parse(f"${gold}$", parsing_timeout=None)  # pyright: ignore
    return parsed


def parse_response(response: str) -> list[Any]:
    """What the reference makes of a response; empty where it finds no answer."""
    config = answer_config()
    from math_verify import parse  # pyright: ignore[reportMissingTypeStubs]

    parsed: list[Any] = parse(  # pyright: ignore
        response,
        extraction_config=[config],
        extraction_mode="first_match",
        parsing_timeout=None,  # pyright: ignore[reportArgumentType]
    )
    return parsed


def reference_verdict(gold: str, response: str) -> bool | None:
    r"""The verdict of the reference; it may run for ever on hostile input.

    Args:
        gold: the right answer, without dollar signs.
        response: the whole response.

    Returns:
        Whether the response is right, or None where the gold answer cannot be parsed.

    Example:
        >>> reference_verdict(r"\frac{1}{2}", r"so it is \boxed{0.5}")
        True
        >>> reference_verdict("", r"\boxed{1}") is None
        True
    """
    gold_parsed = parse_gold(gold)
    if not gold_parsed:
        return None
    from math_verify import verify  # pyright: ignore[reportMissingTypeStubs]

    return bool(verify(gold_parsed, parse_response(response), timeout_seconds=None))
