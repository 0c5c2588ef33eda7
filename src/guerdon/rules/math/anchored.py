r"""Finds an unboxed answer: a formula that follows the word "answer", as in "The answer is $5$."

The reference has three patterns for it, tried in this order; the last match of the first pattern
that matches anywhere is the answer:

1. "final answer", at most 100 characters, "is", a formula;
2. "answer:", at most 50 characters, a formula;
3. "answer", at most 50 characters, a formula.

A formula is what stands between `$$`, `\[ \]`, `$`, `\( \)` or ` [ ] `, or a fraction of two
numbers. Here the same is found with `str.find`, in time linear in the text. What the patterns do
in odd places (escaped delimiters, formulas joined by "and", a percent sign behind) is not repeated:
it is `Uncertain`, and the worker runs the patterns.

Source of the facts: `lazy_latex_regex` of math-verify 0.9.0.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

MAX_WORDS = 256
"""More occurrences of "answer" than this are left to the worker."""
MAX_CHARS = 1_000_000
"""So are longer texts."""

_BEFORE_FORMULA = 50
_BEFORE_IS = 100
_WORD = re.compile(r"(?i:answer)")
_FINAL = re.compile(r"(?i:final )")
_FINAL_IS = re.compile(r"(?i:final answer is)")
_UP_TO_HOPE = re.compile(r"\s{0,16}\.?\s?")
_IS = re.compile(r"\sis:?")
# Only where one of these stands can a formula begin.
_OPENING = re.compile(r"\$\$?|\\\[|\\\(|\s\[|-?\\frac\{")
_FRACTION = re.compile(r"-?\\frac\{-?\d+(?:[.,]\d+)?\}\{-?\d+(?:[.,]\d+)?\}")
_CONTINUES = re.compile(r"\s*(?:\\?%|[Pp]er|[Pp]ct|,?and|,?or|,)")
_LONG_BLANK = re.compile(r"\s{16}")


class Uncertain(Exception):
    """Only the reference's patterns can tell."""


class _Formula(NamedTuple):
    """A formula and where its closing delimiter ends."""

    content: str
    end: int


def words_of(text: str) -> list[int]:
    """Where each "answer" ends, in any case that a pattern without case accepts.

    Example:
        >>> words_of("The ANSWER is my answer"), words_of("we swear")
        ([10, 23], [])
    """
    if not text.isascii():
        # Case folding accepts more than the pattern does, and is much faster.
        folded = "answer" in text.casefold()
        return [found.end() for found in _WORD.finditer(text)] if folded else []
    lowered = text.lower()
    ends: list[int] = []
    at = lowered.find("answer")
    while at >= 0:
        ends.append(at + len("answer"))
        at = lowered.find("answer", at + 1)
    return ends


def find_anchored(text: str) -> str | None:
    r"""The formula that the reference takes from a text without a box, or None.

    Raises:
        Uncertain: the patterns may find something else.

    Example:
        >>> find_anchored(r"The final answer is \(x+1\).")
        'x+1'
        >>> find_anchored("The answer is 5.") is None
        True
    """
    words = words_of(text)
    if not words:
        return None
    if len(words) > MAX_WORDS or len(text) > MAX_CHARS:
        raise Uncertain
    search = _Search(text)
    found = search.last(words, search.final)
    search.check_hope(found)
    if found is None:
        found = search.last(words, search.colon)
    if found is None:
        found = search.last(words, search.plain)
    return None if found is None else found.content


class _Search:
    """One text; remembers delimiters that do not occur again, so that no search is repeated."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._absent: dict[str, int] = {}
        self._line_end = -1

    def last(self, words: list[int], match: Callable[[int], _Formula | None]) -> _Formula | None:
        """The last of the matches at the words, none of which overlap."""
        found: _Formula | None = None
        for word in words:
            if found is not None and word - len("answer") < found.end:
                continue
            here = match(word)
            if here is not None:
                found = here
        return found

    def plain(self, word: int) -> _Formula | None:
        """The first formula that begins within 50 characters of a word."""
        for opening in _OPENING.finditer(self._text, word, word + _BEFORE_FORMULA + 8):
            if opening.start() > word + _BEFORE_FORMULA:
                break
            found = self._formula(opening.start())
            if found is not None:
                return found
        return None

    def colon(self, word: int) -> _Formula | None:
        """As `plain`, after a colon."""
        return self.plain(word + 1) if self._text.startswith(":", word) else None

    def final(self, word: int) -> _Formula | None:
        """A formula directly after "is", within 100 characters of "final answer"."""
        start = word - len("final answer")
        if start < 0 or _FINAL.match(self._text, start) is None:
            return None
        window = word + _BEFORE_IS + 8
        if _LONG_BLANK.search(self._text, word, window + 32):
            raise Uncertain
        for verb in _IS.finditer(self._text, word, window):
            at = verb.end()
            while at < len(self._text) and self._text[at].isspace():
                at += 1
                if at > verb.end() + 16:
                    raise Uncertain
            for begin in (at, at - 1):
                found = self._formula(begin) if begin >= verb.end() else None
                if found is not None:
                    # The last characters of the window are reached with blanks only.
                    if verb.start() > word + _BEFORE_IS:
                        raise Uncertain
                    return found
        return None

    def check_hope(self, found: _Formula | None) -> None:
        """Refuse a text where "final answer is ..., I hope" may name another formula.

        That pattern has priority over all others; it ends with the words "I hope".
        """
        text = self._text
        hope = text.find("I hope")
        if hope < 0 or _FINAL_IS.search(text) is None:
            return
        again = text.find("I hope", hope + 1)
        if again >= 0 or found is None or hope < found.end or hope - found.end > 24:
            raise Uncertain
        if _UP_TO_HOPE.fullmatch(text, found.end, hope) is None:
            raise Uncertain

    def _formula(self, at: int) -> _Formula | None:
        """The formula that begins exactly here."""
        text = self._text
        opening = _OPENING.match(text, at)
        if opening is None:
            return None
        kind = opening.group()
        if kind[0] in "$\\" and kind[-1] != "{" and at and text[at - 1] == "\\":
            return None
        if kind == "$" and at and text[at - 1].isdigit():
            return None
        found = self._closed(kind, opening.end(), at)
        if found is not None and _CONTINUES.match(text, found.end):
            raise Uncertain
        return found

    def _closed(self, kind: str, start: int, at: int) -> _Formula | None:
        if kind == "$$":
            return self._until("$$", start, len(self._text), "$")
        if kind == "\\[":
            return self._until("\\]", start, len(self._text), None)
        if kind == "$":
            return self._until("$", start, self._end_of_line(start), None)
        if kind == "\\(":
            return self._until("\\)", start, self._end_of_line(start), None)
        if kind[-1] == "[":
            return self._bracketed(start)
        fraction = _FRACTION.match(self._text, at)
        return None if fraction is None else _Formula(fraction.group(), fraction.end())

    def _until(self, closing: str, start: int, stop: int, stray: str | None) -> _Formula | None:
        end = self._find(closing, start, stop)
        if end < 0:
            if closing == "$$" and self._find("$", start, stop) >= 0:
                raise Uncertain  # the second of the two may open an inline formula
            return None
        if end == start or self._text[end - 1] == "\\":
            raise Uncertain
        if stray is not None and self._text.find(stray, start, end) >= 0:
            raise Uncertain
        return _Formula(self._text[start:end], end + len(closing))

    def _bracketed(self, start: int) -> _Formula | None:
        text = self._text
        stop = self._end_of_line(start)
        end = self._find("]", start, stop)
        if end < 0 or end == start or text.find("[", start, end) >= 0:
            return None
        if not text[end + 1 : end + 2].isspace():
            return None
        return _Formula(text[start:end], end + 2)

    def _find(self, needle: str, start: int, stop: int) -> int:
        """As `str.find`, without searching again what was searched in vain."""
        if self._absent.get(needle, len(self._text) + 1) <= start and stop <= len(self._text):
            return -1
        found = self._text.find(needle, start, stop)
        if found < 0 and stop == len(self._text):
            self._absent[needle] = start
        return found

    def _end_of_line(self, start: int) -> int:
        if self._line_end < start:
            found = self._text.find("\n", start)
            self._line_end = len(self._text) if found < 0 else found
        return self._line_end
