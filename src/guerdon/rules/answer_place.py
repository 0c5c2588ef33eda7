"""Where a response states its final answer.

Every function walks the text a bounded number of times with `str.find` and `str.rfind` and looks
at a bounded number of places, so that ten megabytes of markers cost milliseconds.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, TypeAlias

from guerdon.rules.numeral import SEGMENT_CHARS
from guerdon.rules.option import one_of

MAX_MARKERS = 64
"""Only this many answer markers of a kind, counted from the end, are looked at."""

BOX_CHARS = 20_000
"""A box with longer contents states no answer."""

_BRACES = re.compile(r"(?<!\\)(?:\\\\)*[{}]")
_BOX = re.compile(r"\\(?:boxed|fbox)\s{0,8}\{")
_BOX_BARE = re.compile(r"\\boxed ?([^\s{}$\\]{1,40})")
_BLANKS = re.compile(r"[\s*_`:\uff1a]*")
_BULLET = re.compile(r"\s*[-+\u2022]\s+")
_TAG_OR_TOKEN = re.compile(r"</?[A-Za-z][^<>\n]{0,40}>|<\|[^<>|\n]{1,40}\|>")

_AFTER_A = re.compile(r"[*_`]{0,3}[:\uff1a]")
# From "answer" to what it is: within one sentence, at most 80 characters.
_AFTER_ANSWER = re.compile(
    r"[*_`\"')\]]{0,8}(?:[ \t,][^\n:=\uff1a.]{0,80}?)?[*_`\"')\] \t]{0,8}"
    r"(?:(?P<strong>[:=\uff1a])|\b(?:is|was|equals)\b[*_ ]{0,4}(?P<colon>[:\uff1a])?)",
    re.IGNORECASE,
)


def final_part(text: str) -> str:
    """The text after the thinking block; empty when the block never ends.

    >>> final_part("<think>A: 3</think>A: 4"), final_part("A: 4"), final_part("<think>A: 4")
    ('A: 4', 'A: 4', '')
    """
    end = text.rfind("</think>")
    if end >= 0:
        return text[end + len("</think>") :]
    return "" if "<think>" in text else text


def box_contents(text: str, start: int) -> tuple[int, int] | None:
    r"""Offsets of the contents of the `\boxed{...}` or `\fbox{...}` at `start`.

    None when no brace follows, the braces do not close within `BOX_CHARS`, or it is another
    command. Escaped braces (`\{`, `\}`) do not count.

    >>> box_contents(r"\boxed{\frac{1}{2}}", 0)
    (7, 18)
    """
    head = _BOX.match(text, start)
    if head is None:
        return None
    depth = 1
    for found in _BRACES.finditer(text, head.end(), head.end() + BOX_CHARS):
        depth += 1 if found.group()[-1] == "{" else -1
        if depth == 0:
            return head.end(), found.end() - 1
    return None


def last_boxed(text: str) -> str | None:
    r"""The contents of the last `\boxed{...}` or `\fbox{...}` whose braces close.

    Of the last `MAX_MARKERS` boxes the last closed one counts, so a box that the token limit cut
    off does not hide the one before it. Of nested boxes the inner one counts.

    >>> last_boxed(r"\boxed{1}, so \boxed{\frac{1}{2}} and \boxed{3")
    '\\frac{1}{2}'
    """
    for start in _backwards(text, ("\\boxed", "\\fbox")):
        found = box_contents(text, start)
        if found is not None:
            return text[found[0] : found[1]]
    return None


def _backwards(text: str, words: tuple[str, ...]) -> Iterator[int]:
    """Offsets of the words from the last to the first, at most `MAX_MARKERS` of them."""
    at = {word: text.rfind(word) for word in words}
    for _ in range(MAX_MARKERS):
        word = max(at, key=at.__getitem__)
        start = at[word]
        if start < 0:
            return
        yield start
        at[word] = text.rfind(word, 0, start)


def last_tag(text: str, tag: str) -> str | None:
    """The contents of the last closed `<tag>...</tag>`, None when there is none.

    >>> last_tag("<answer>1</answer><answer> 2 </answer>", "answer")
    ' 2 '
    """
    opened, closed = f"<{tag}>", f"</{tag}>"
    end = text.rfind(closed)
    start = text.rfind(opened, 0, end) if end >= 0 else -1
    return text[start + len(opened) : end] if start >= 0 else None


class Statement(NamedTuple):
    """What a response says after one answer marker.

    Attributes:
        text: the piece of text, at most `SEGMENT_CHARS` characters.
        weak: the marker is running text ("the answer ... is"), so that words between it and a
            number mean that it speaks of something else.
    """

    text: str
    weak: bool


_Place: TypeAlias = tuple[int, int, bool]

# The characters between the start of a line and "A:", and those that end a sentence before it.
_QUOTE_MARKS = " \t*_>`\"'(-"
_SENTENCE_ENDS = "\n.?!;)]>"
_LOOK_BACK = 12


def _hashes(_text: str, at: int, end: int) -> _Place | None:
    return at + 4, end, False


def _letter(text: str, at: int, end: int) -> _Place | None:
    after = _AFTER_A.match(text, at + 1)
    if after is None:
        return None
    before = at
    while before > 0 and at - before < _LOOK_BACK and text[before - 1] in _QUOTE_MARKS:
        before -= 1
    opens = before == 0 or text[before - 1] in _SENTENCE_ENDS
    return (after.end(), end, False) if opens else None


def _word(text: str, at: int, end: int) -> _Place | None:
    """`answer`, `option` or `choice`, found by its letters after the first."""
    before = text[at - 2] if at >= 2 else " "
    if at < 1 or text[at - 1] not in "aAoOcC" or before.isalnum() or before == "/":
        return None
    if before == "<" and text.startswith("nswer>", at):
        close = text.find("</answer>", at, at + SEGMENT_CHARS)
        return at + 6, min(end, close) if close >= 0 else end, False
    after = _AFTER_ANSWER.match(text, at + 5)
    if after is None:
        return None
    return after.end(), end, not (after["strong"] or after["colon"])


def _box(text: str, at: int, _end: int) -> _Place | None:
    found = box_contents(text, at)
    if found is not None:
        return *found, False
    bare = _BOX_BARE.match(text, at)
    return (*bare.span(1), False) if bare is not None else None


_KINDS: dict[str, Callable[[str, int, int], _Place | None]] = {
    "####": _hashes,
    "A:": _letter,
    "A*": _letter,
    "A\uff1a": _letter,
    "nswer": _word,
    "NSWER": _word,
    "ption": _word,
    "hoice": _word,
    "\\boxed": _box,
    "\\fbox": _box,
}
CHOICE_MARKERS = tuple(_KINDS)
ALL_MARKERS = tuple(kind for kind in _KINDS if kind not in ("ption", "hoice"))
HASH_MARKERS = ("####",)
DAPO_MARKERS = ("nswer", "NSWER", "\\boxed", "\\fbox")


def statements(text: str, markers: tuple[str, ...] = ALL_MARKERS) -> Iterator[Statement]:
    r"""What a text says after its answer markers, from the last marker to the first.

    Markers are `####`, `A:` (at the start of a line or after the end of a sentence, never inside a
    word or after a name such as `Plan A:`), `answer is`, `Answer:`, `<answer>` and `\boxed`. A
    statement ends at the end of its line, at the next marker, or after `SEGMENT_CHARS` characters;
    when its line is empty, the next line that is not counts.

    >>> [found.text for found in statements("PLA: 3 #### 4\nA: 5")]
    [' 5', ' 4']
    """
    bound = len(text)
    for at in _backwards(text, markers):
        kind = next(word for word in markers if text.startswith(word, at))
        place = _KINDS[kind](text, at, bound)
        if place is None:
            continue
        start, end, weak = place
        piece = text[start:end][:SEGMENT_CHARS] if kind[0] == "\\" else _line(text, start, end)
        if piece.strip():
            yield Statement(piece, weak)
        bound = at


def _line(text: str, start: int, end: int) -> str:
    newline = text.find("\n", start, end)
    stop = end if newline < 0 else newline
    if newline >= 0 and not text[start : min(stop, start + SEGMENT_CHARS)].strip("\r\t *_`:"):
        start = _end_of(_BLANKS, text, start, end)
        start = _end_of(_BULLET, text, start, end)
        newline = text.find("\n", start, end)
        stop = end if newline < 0 else newline
    piece = text[start : min(stop, start + SEGMENT_CHARS)]
    return _TAG_OR_TOKEN.sub(" ", piece) if "<" in piece else piece


def _end_of(pattern: re.Pattern[str], text: str, start: int, end: int) -> int:
    found = pattern.match(text, start, end)
    return start if found is None else found.end()


# -- parts: the piece of a response that a text rule compares --------------------------------------


def _last_line(text: str) -> str | None:
    stripped = text.rstrip()
    return stripped[stripped.rfind("\n") + 1 :] or None


def _auto(text: str) -> str | None:
    tagged = last_tag(text, "answer")
    if tagged is not None:
        return tagged
    boxed = last_boxed(text)
    return boxed if boxed is not None else final_part(text)


PARTS: Mapping[str, Callable[[str], str | None]] = {
    "auto": _auto,
    "whole": lambda text: text,
    "final": final_part,
    "answer": lambda text: last_tag(text, "answer"),
    "boxed": last_boxed,
    "last_line": _last_line,
}
"""What the option `where` of the text rules can name: the last `<answer>` tag, else the last box,
else what follows the thinking block (`auto`); the whole response; what follows the thinking block
(`final`); the last `<answer>` tag; the last box; the last line that is not blank."""


def part(text: str, where: str) -> str | None:
    """The part of a response that a rule looks at, stripped; None where the response has none.

    Raises:
        InvalidReward: `where` is none of `PARTS`.

    >>> part("so <answer> Paris </answer>.", "auto"), part("no tag", "answer")
    ('Paris', None)
    """
    find = PARTS.get(where)
    if find is None:
        one_of("where", where, PARTS)
        return None
    found = find(text)
    return None if found is None else found.strip()
