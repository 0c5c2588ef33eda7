"""The exact path: what can be said of a gold answer and a response without the slow path."""

from __future__ import annotations

from typing import NamedTuple

from guerdon.rules.math.decide import decide
from guerdon.rules.math.extraction import is_plain_gold
from guerdon.rules.math.memo import MAX_KEY_CHARS, Memo
from guerdon.rules.math.normal import normal_answer, normal_gold
from guerdon.rules.math.packages import fast_path_holds
from guerdon.rules.math.syntax import never_readable, read
from guerdon.rules.math.terms import Term

GOLDS = 4096
"""How many gold answers a process remembers."""
VERDICTS = 65_536
"""How many verdicts a process remembers."""


class Gold(NamedTuple):
    """A gold answer that the fast path can read.

    Attributes:
        text: normalised.
        term: what it means.
    """

    text: str
    term: Term


_UNREADABLE = Gold("", None)  # pyright: ignore[reportArgumentType]
_GOLDS: Memo[str, Gold] = Memo(GOLDS)
_VERDICTS: Memo[tuple[str, str], bool] = Memo(VERDICTS)


def clear() -> None:
    """Forget every gold and verdict."""
    _GOLDS.clear()
    _VERDICTS.clear()


def read_gold(gold: str) -> Gold | None:
    """The gold answer, or None where only the slow path can read it."""
    known = _GOLDS.get(gold)
    if known is None:
        known = _read_gold(gold) or _UNREADABLE
        if len(gold) <= MAX_KEY_CHARS:
            _GOLDS.put(gold, known)
    return None if known is _UNREADABLE else known


def _read_gold(gold: str) -> Gold | None:
    if not fast_path_holds() or not is_plain_gold(gold):
        return None
    text = normal_gold(gold)
    term = None if text is None else read(text)
    return None if text is None or term is None else Gold(text, term)


def exact_verdict(gold: str, answer: str) -> bool | None:
    r"""The verdict on an extracted answer, or None where it is not certain.

    Bounded by `MAX_CHARS`: longer texts are None at once.

    Example:
        >>> exact_verdict(r"\frac{1}{2}", "0.5"), exact_verdict(r"\frac{1}{2}", "2")
        (True, False)
    """
    known = _VERDICTS.get((gold, answer))
    if known is not None:
        return known
    readable = read_gold(gold)
    text = normal_answer(answer) if readable is not None else None
    if readable is None or text is None:
        return None
    verdict = normal_verdict(readable, text)
    if verdict is not None:
        remember(gold, answer, verdict)
    return verdict


def normal_verdict(gold: Gold, text: str) -> bool | None:
    """The verdict on a normalised answer, or None where it is not certain."""
    stripped = text.strip()
    if stripped and stripped == gold.text.strip():
        return True  # the reference compares the texts as well, whatever they mean
    term = read(text)
    if term is not None:
        return decide(gold.term, term)
    return False if never_readable(text) else None


def known_verdict(gold: str, answer: str) -> bool | None:
    """The remembered verdict, if any."""
    return _VERDICTS.get((gold, answer))


def remember(gold: str, answer: str, verdict: bool) -> None:
    """Remember a verdict, whoever found it."""
    if len(gold) + len(answer) <= MAX_KEY_CHARS:
        _VERDICTS.put((gold, answer), verdict)
