r"""Math-Verify as other systems call it: what they extract from either side, and in which order.

Sources: verl 0.9.1, `reward_score/math_verify.py`; UniRL 0.1.0, `reward/local/mathverify.py`;
AReaL 1.0.4, `reward/__init__.py` and `workflow/{openai,anthropic,langchain}/math_agent.py`. TRL's
is the reference itself, see `guerdon.rules.math.reference`.

Their limits of time are left out: the deadline belongs to the pool. Errors inside are "wrong", as
there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from itertools import product
from typing import Any, NamedTuple

from guerdon.errors import GuerdonError
from guerdon.rules.math.packages import require

AREAL_PRECISION = 6
"""Decimals to which AReaL's worker compares: `MathVerifyWorker.precision`."""


class _Library(NamedTuple):
    """Math-Verify's two functions, without their timers, and its extractors."""

    parse: Callable[..., list[Any]]
    same: Callable[..., bool]
    latex: Any
    number: Any


@cache
def _library() -> _Library:
    require()
    import math_verify
    from math_verify import grader, parser  # pyright: ignore[reportMissingTypeStubs]

    library: Any = math_verify
    # Its advice to limit the time oneself: the pool does.
    grader.TIMEOUT_WARNING_SHOWN = parser.TIMEOUT_WARNING_SHOWN = True

    def parse(text: str, *extractors: Any) -> list[Any]:
        chosen = {"extraction_config": extractors} if extractors else {}
        return library.parse(text, parsing_timeout=None, **chosen)

    def same(gold: Any, answer: Any, **settings: int) -> bool:
        return bool(library.verify(gold, answer, timeout_seconds=None, **settings))

    latex, number = library.LatexExtractionConfig(), library.ExprExtractionConfig()
    return _Library(parse, same, latex, number)


def _verl(gold: str, response: str) -> bool:
    library = _library()
    golds = library.parse(f"\\boxed{{{gold}}}", library.latex)
    answers = library.parse(response, library.number, library.latex)
    # Every reading of one side with every reading of the other, the texts among them.
    return any(library.same(wanted, given) for given, wanted in product(answers, golds))


def _unirl(gold: str, response: str) -> bool:
    library = _library()
    return library.same(library.parse(f"\\boxed{{{gold.strip()}}}"), library.parse(response))


def _areal(gold: str, response: str) -> bool:
    library = _library()
    answers = library.parse(response, library.number, library.latex)
    golds = library.parse(gold, library.number, library.latex)
    if not golds or not answers:
        return False
    return library.same(golds, answers, float_rounding=AREAL_PRECISION)


def _areal_agent(gold: str, response: str) -> bool:
    library = _library()
    # The response stands where Math-Verify expects the gold answer.
    return library.same(library.parse(response), library.parse(gold))


CALLERS: Mapping[str, Callable[[str, str], bool]] = {
    "verl": _verl,
    "unirl": _unirl,
    "areal": _areal,
    "areal_agent": _areal_agent,
}
"""The systems whose way of calling Math-Verify is known here."""


def verdict(system: str, gold: str, response: str) -> bool:
    r"""What a system's own call of Math-Verify says; takes any time.

    Args:
        system: a key of `CALLERS`.
        gold: the right answer, without dollar signs or box.
        response: the whole response.

    Raises:
        MissingExtra: math-verify is not installed.

    >>> verdict("verl", "60", "The result is 60."), verdict("unirl", "0.5", r"$\frac{1}{2}$")
    (True, True)
    >>> verdict("areal_agent", "2x+8", r"\boxed{y=2x+8}")
    False
    """
    _library()  # what cannot be imported is no answer's fault
    try:
        return CALLERS[system](gold, response)
    except (MemoryError, ImportError, GuerdonError):
        raise  # neither how much there is nor what is installed decides about the answer
    except Exception:
        return False
