r"""Finds the answer in a response without scanning it with the reference's patterns.

The reference tries seven patterns over the whole text, some of them quadratic. Nearly every
response ends with one `\boxed{...}`, and for those the outcome of all seven is certain from a few
`str.find`. What makes it certain:

- The pattern for a bare box runs from the first `\boxed{` to the last `}` and takes the last box
  in that stretch. The patterns for boxes inside `$...$`, `\(...\)`, `\[...\]`, `$$...$$` and
  ` [...] ` take the boxes inside. With one box both give its content, whichever match ends last,
  unless a delimiter inside of the box cuts it (refused below), or a percent sign follows the
  closing delimiter (refused).
- An earlier box is ignored if it ends 70 characters or more before the last one, if no
  environment can hold both, and if no "and", "or" or comma joins the environments of the two.
- "final answer is ... I hope" can win only if it ends after the box.
- A text without `\boxed{` and without the word "answer" holds no answer; for a text with it, see
  `guerdon.rules.math.anchored`.

Everything else is `Extraction.UNCERTAIN`, and the worker runs the patterns themselves.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterable
from functools import partial

from guerdon.errors import InvalidReward, nearest
from guerdon.rules.answer_place import last_boxed, last_tag, statements
from guerdon.rules.math.anchored import Uncertain, find_anchored


class Extraction(enum.Enum):
    """Outcomes of an extraction that are no text."""

    NOTHING = "nothing"
    """The reference extracts nothing."""
    UNCERTAIN = "uncertain"
    """Only the reference's patterns can tell."""


_BOX = "\\boxed{"
_JOIN_DISTANCE = 70
"""From this distance on the reference does not join two boxes (`extract_boxed_content`)."""

MAX_BOX = 20_000
"""A box with more characters is left to the worker."""

_BRACE = re.compile(r"[{}]")
# A delimiter that could end an environment inside of the box: a dollar sign that is not escaped,
# or one before another; a bracket that closes.
_CUTS = re.compile(r"(?<!\\)\$|\$\$|\\[)\]]|\]\s")
_PERCENT_AFTER = re.compile(r"[$)\]]\s*(?:\\?%|[Pp]er|[Pp]ct)")
# The end of an environment, a word or comma that joins, and the start of the next environment.
_JOINED = re.compile(
    r"(?:\$|\\[)\]]|\])\s*(?:(?:\\?%|[Pp]ercent(?:age)?|[Pp]ct)\s*)?"
    r"(?:,?and|,?or|,)\s*(?:\$|\\\(|\\?\[)"
)
_FINAL = re.compile(r"(?i:final answer is)")
_FINAL_TO_BOX = re.compile(r":?\s{0,8}(?:\$\$?|\\\(|\\\[)?\s{0,8}")
_BOX_TO_HOPE = re.compile(r"\s{0,8}(?:\$\$?|\\\)|\\\])?\.?\s?")


def extract(response: str) -> str | Extraction:
    r"""The text that the reference takes for the answer; linear in the length of the response.

    Returns:
        The content of the decisive box, stripped, or what is known instead.

    Example:
        >>> extract(r"first \boxed{1}, no: $\boxed{\frac{1}{2}}$ is the answer")
        <Extraction.UNCERTAIN: 'uncertain'>
        >>> extract(r"so it is $\boxed{\frac{1}{2}}$.")
        '\\frac{1}{2}'
        >>> extract("I do not know.")
        <Extraction.NOTHING: 'nothing'>
    """
    start = response.rfind("\\boxed")
    if start < 0:
        return _unboxed(response)
    if not response.startswith(_BOX, start) or "\\fbox" in response:
        return Extraction.UNCERTAIN
    end = _closing(response, start + len(_BOX))
    if end is None:
        return Extraction.UNCERTAIN
    content = response[start + len(_BOX) : end]
    if _CUTS.search(content):
        return Extraction.UNCERTAIN
    if _PERCENT_AFTER.search(response, end):
        return Extraction.UNCERTAIN
    if not _stands_alone(response, start, end) or not _no_later_statement(response, start, end + 1):
        return Extraction.UNCERTAIN
    return content.strip() or Extraction.UNCERTAIN


def _unboxed(response: str) -> str | Extraction:
    try:
        found = find_anchored(response)
    except Uncertain:
        return Extraction.UNCERTAIN
    if found is None:
        return Extraction.NOTHING
    return Extraction.UNCERTAIN if "\\fbox" in found else found


_NOT_PLAIN = re.compile(r"[$\n]|\\(?:boxed|fbox)|(?i:answer)|\\$")


def is_plain_gold(gold: str) -> bool:
    r"""Whether the reference takes the whole of a gold answer for one formula.

    It does where the dollar signs that it puts around it are the only delimiters, and nothing that
    has priority over a plain formula stands inside.

    Example:
        >>> is_plain_gold(r"\frac{1}{2}"), is_plain_gold("the answer is $5$")
        (True, False)
    """
    return bool(gold) and _NOT_PLAIN.search(gold) is None


def _closing(text: str, start: int) -> int | None:
    """Where the brace opened before `start` is closed; every brace counts, as in the reference.

    None where it is not closed, or not within `MAX_BOX`.
    """
    depth = 1
    for found in _BRACE.finditer(text, start, start + MAX_BOX):
        depth += 1 if found.group() == "{" else -1
        if depth == 0:
            return found.start()
    return None


def _stands_alone(text: str, start: int, end: int) -> bool:
    """Whether the reference ignores every box before the one from `start` to `end`."""
    if text.find("\\boxed") == start:
        return True
    earlier = text.rfind("\\boxed", 0, start)
    if not text.startswith(_BOX, earlier):
        return False
    closed = _closing(text, earlier + len(_BOX))
    if closed is None or closed + 1 + _JOIN_DISTANCE > start:
        return False
    between = text[closed + 1 : start]
    if "\n" not in between:  # `$...$`, `\(...\)` and ` [...] ` end with the line
        return False
    if "$$" not in between and text.find("$$", 0, earlier) >= 0 and text.find("$$", end) >= 0:
        return False
    opened = text.rfind("\\[", 0, earlier)
    if opened >= 0 and "\\]" not in between and opened > text.rfind("\\]", 0, earlier):
        return False
    return not any(_holds_rest(between, found.end()) for found in _JOINED.finditer(between))


def _holds_rest(between: str, opened: int) -> bool:
    """Whether an environment opened before this offset may reach the end of the text."""
    if between[opened - 2 : opened] == "\\[":
        return between.find("\\]", opened) < 0
    if between.startswith("$", opened):  # `$$`
        return between.find("$$", opened + 1) < 0
    return between.find("\n", opened) < 0


def _no_later_statement(text: str, start: int, end: int) -> bool:
    """Whether "final answer is ... I hope" says nothing else than the box."""
    hope = text.find("I hope", end)
    if hope < 0:
        return True
    last: re.Match[str] | None = None
    for last in _FINAL.finditer(text):  # noqa: B007 - the last match is what counts
        pass
    if last is None:
        return True
    if text.find("I hope", hope + 1) >= 0 or last.end() > start or start - last.end() > 24:
        return False
    return bool(
        _FINAL_TO_BOX.fullmatch(text, last.end(), start)
        and hope - end <= 16
        and _BOX_TO_HOPE.fullmatch(text, end, hope)
    )


def _stated(response: str, markers: tuple[str, ...]) -> str | None:
    for found in statements(response, markers):
        return found.text
    return None


PLACES: dict[str, Callable[[str], str | None]] = {
    "boxed": last_boxed,
    "hash": partial(_stated, markers=("####",)),
    "tag": partial(last_tag, tag="answer"),
    "phrase": partial(_stated, markers=("nswer", "NSWER")),
}
"""Places where an answer can be looked for instead of the reference's choice."""


def check_places(places: Iterable[str]) -> tuple[str, ...]:
    """The places as a tuple.

    Raises:
        InvalidReward: one of them is unknown.
    """
    listed = tuple(places)
    for place in listed:
        if place not in PLACES:
            raise InvalidReward(
                f"math_verify knows no place {place!r}{nearest(place, PLACES)}; "
                f"it knows {', '.join(PLACES)}"
            )
    return listed


def extract_from(response: str, places: Iterable[str]) -> str | Extraction:
    r"""The answer at the first of the places that holds one.

    Example:
        >>> extract_from("<answer> 5 </answer>", ("boxed", "tag"))
        '5'
    """
    for place in places:
        found = _bare(PLACES[place](response) or "")
        if "\\boxed" in found:
            found = _bare(last_boxed(found) or "")
        if found:
            return found
    return Extraction.NOTHING


def _bare(text: str) -> str:
    """A stated answer without emphasis, a final full stop, and one pair of math delimiters."""
    text = text.strip().strip("*").strip().removesuffix(".").strip().strip("*")
    for opening, closing in (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]")):
        inside = len(text) >= len(opening) + len(closing)
        if inside and text.startswith(opening) and text.endswith(closing):
            return text[len(opening) : len(text) - len(closing)].strip()
    return text.strip()
