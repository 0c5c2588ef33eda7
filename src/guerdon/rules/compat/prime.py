r"""verl 0.9.1, `reward_score/prime_math`: the cascade, without its `eval` and `parse_expr`.

The symbolic last step of the original never runs (verl issue 7437: `timeout_limit` is no context
manager), so an answer that reaches it is wrong. Text with `\pi` is handed to `eval` there; here
`expression.PythonNumbers` reads the arithmetic in it, and anything else stays the text it was, as
it does there when `eval` fails.
"""

import math
import re
from typing import cast

from guerdon.rules.compat import prm800k
from guerdon.rules.compat.expression import PythonNumbers, Refused, evaluate
from guerdon.rules.compat.hendrycks import closing_brace

TOLERANCE = 1e-4
"""Relative tolerance of the numeric comparison; a factor of 100 either way is allowed too."""

_CLIP_CHARS = 1000
_MAX_PARTS = 200

_ANSWER_BEFORE = ("answer:", "answer is", "answers are")
_ANSWER_AFTER = ("is answer", "is the answer", "are answers", "are the answers")
_LAST_WORDS = ("be ", "is ", "are ", "=", ": ", "get ", "be\n", "is\n", "are\n", ":\n", "get\n")

_DOLLARS = re.compile(r"\$\d+(\.\d+)?")
_PERCENT = re.compile(r"^\d+(\.\d+)?\\?%$")
_PI = re.compile(r"\\pi")
_INTERVALS = (
    ("Interval(", re.compile(r"^Interval\((.*)\)$"), "[", "]"),
    ("Interval.Ropen(", re.compile(r"^Interval\.Ropen\((.*)\)$"), "[", ")"),
    ("Interval.Lopen(", re.compile(r"^Interval\.Lopen\((.*)\)$"), "(", "]"),
    ("Interval.open(", re.compile(r"^Interval\.open\((.*)\)$"), "(", ")"),
)
_MATRIX = "\\begin{pmatrix}"


class Undecided(Exception):
    """Where the original raises, its caller counts the answer as wrong."""


def stated_answer(response: str) -> str:
    r"""What the cascade of markers leaves of a response. Linear in its length.

    >>> stated_answer("First 3 is odd. So the answer is x = 5. Done")
    '5'
    """
    text = response
    for marker in _ANSWER_BEFORE:
        at = text.lower().rfind(marker)
        if at != -1:
            text = text[at + len(marker) :].strip()
    for marker in _ANSWER_AFTER:
        at = text.lower().rfind(marker)
        if at != -1:
            text = text[:at].strip()
    boxed = _boxed(text)
    if boxed:
        text = boxed
    at = text.lower().rfind(". ")
    if ". " in text and at != -1:
        text = text[:at].strip()
    for marker in _LAST_WORDS:
        at = text.lower().rfind(marker)
        if at != -1:
            text = text[at + len(marker) :].strip()
    return text


def _boxed(text: str) -> str | None:
    start = text.rfind("\\boxed")
    if start < 0:
        start = text.rfind("\\fbox")
    if start < 0:
        return None
    opening, end = text.find("{", start), closing_brace(text, start)
    return None if opening < 0 or end is None else text[opening + 1 : end].strip()


def is_right(answer: str, truth: str) -> bool:
    r"""The verdict of the cascade on an extracted answer.

    >>> is_right("2\\pi", "6.28"), is_right("50", "0.5"), is_right("x^{2}+1", "1+x^{2}")
    (True, True, False)
    """
    if prm800k.grade(answer, truth, prm800k.VERL):
        return True
    try:
        if "\\pi" in answer or "\\pi" in truth:
            # Both are computed before either counts, so that an error of one decides.
            verdicts = [math_equal(answer, truth, pi) for pi in (math.pi, 3.14)]
            return any(verdicts)
        return math_equal(answer, truth)
    except (Undecided, RecursionError):
        return False


def math_equal(answer: object, truth: object, pi: float = math.pi) -> bool:
    """`grader.math_equal`: text, numbers, then brackets and lists element by element."""
    answer, truth = _normal(answer, pi), _normal(truth, pi)
    if isinstance(answer, str):
        answer = answer[:_CLIP_CHARS]
    if isinstance(answer, str) and isinstance(truth, str):
        if answer.strip().lower() == truth.strip().lower():
            return True
        if answer.replace(" ", "") == truth.replace(" ", ""):
            return True
    given, wanted = _digits(answer), _digits(truth)
    if given is not None and wanted is not None:
        scaled = (wanted / 100, wanted, wanted * 100)
        return any(math.isclose(value, given, rel_tol=TOLERANCE) for value in scaled)
    if not answer and answer not in (0, False):
        return False
    return _same_structure(_interval(str(answer).strip()), str(truth).strip())


def _same_structure(given: str, wanted: str) -> bool:
    if _bare(given, wanted):
        return True
    if not given:
        return False
    ends = (given[0], given[-1])
    bracketed = ends[0] in "([" and ends[1] in ")]" and ends == (wanted[:1], wanted[-1:])
    if bracketed and _each(given[1:-1].split(","), wanted[1:-1].split(",")):
        return True
    if "," in given and "," in wanted:
        pairs = [item.strip() for item in given.split(",")], [x.strip() for x in wanted.split(",")]
        if len(pairs[0]) == len(pairs[1]):
            return _each(*pairs)
    if given.startswith("Point") and not wanted:
        raise Undecided
    point = given.startswith("Point") and wanted[0] == "(" and wanted[-1] == ")"
    if point and _each(given[given.find("(") + 1 : -1].split(","), wanted[1:-1].split(",")):
        return True
    return _column(given, wanted)


def _bare(given: str, wanted: str) -> bool:
    """Equal without brackets and braces."""
    square = given.startswith("[") and given.endswith("]") and not wanted.startswith("(")
    round_ = given.startswith("(") and given.endswith(")") and not wanted.startswith("[")
    if square or round_:
        given, wanted = given.strip("[]()"), wanted.strip("[]()")
    for bracket in "{}()":
        given, wanted = given.replace(bracket, ""), wanted.replace(bracket, "")
    return given == wanted


def _each(given: list[str], wanted: list[str]) -> bool:
    if len(given) != len(wanted):
        return False
    if len(given) > _MAX_PARTS:
        raise Undecided
    # The original compares all of them, so that an error in any decides.
    verdicts = [math_equal(one, other) for one, other in zip(given, wanted, strict=True)]
    return all(verdicts)


def _column(given: str, wanted: str) -> bool:
    """A list of numbers against a column of a matrix environment."""
    if _MATRIX not in wanted or not (given.startswith("[") and given.endswith("]")):
        return False
    try:
        items: object = evaluate(given, PythonNumbers())
    except Refused:
        raise Undecided from None
    if not isinstance(items, list):
        return False
    for head in ("\\\\begin{pmatrix}", _MATRIX):
        wanted = wanted.removeprefix(head)
    for tail in ("\\\\end{pmatrix}", "\\end{pmatrix}"):
        wanted = wanted.removesuffix(tail)
    rows: list[object] = [row.split("&") if "&" in row else row for row in wanted.split("\\")]
    entries = cast("list[object]", items)
    if len(entries) != len(rows):
        return False
    try:
        verdicts = [math_equal(one, other) for one, other in zip(entries, rows, strict=True)]
        return all(verdicts)
    except Undecided:
        return False


def _normal(value: object, pi: float) -> object:
    if not isinstance(value, str):
        return value
    if _DOLLARS.match(value):
        return value[1:]
    if _PERCENT.match(value):
        return value.replace("\\%", "").replace("%", "")
    if "_" in value:
        return _base(value)
    if "\\pi" not in value:
        return value
    return _with_pi(value, pi)


def _base(value: str) -> int:
    """A number with its base as an index: the original drops the index."""
    try:
        return int(float(value.split("_", 1)[0]))
    except (ValueError, OverflowError):
        raise Undecided from None


def _with_pi(value: str, pi: float) -> object:
    pieces: list[str] = []
    at = 0
    for found in _PI.finditer(value):
        pieces.append(value[at : found.start()])
        before = value[found.start() - 1 : found.start()] if found.start() > at else ""
        # Directly behind another pi the character before is a digit of its value.
        times = before.isdigit() or (at > 0 and found.start() == at)
        pieces.append(f"*{pi}" if times else f"1*{pi}")
        at = found.end()
    pieces.append(value[at:])
    text = "".join(pieces)
    try:
        return evaluate(text, PythonNumbers())
    except Refused:
        return text


def _digits(value: object) -> float | None:
    try:
        text = str(value)
        return float(text.replace("{,}", "") if "{,}" in text else text.replace(",", ""))
    except ValueError:
        return None


def _interval(text: str) -> str:
    for head, pattern, left, right in _INTERVALS:
        if text.startswith(head):
            found = pattern.match(text)
            if found is not None:
                return f"{left}{found[1]}{right}"
    return text
