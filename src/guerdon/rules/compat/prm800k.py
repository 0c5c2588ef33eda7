"""PRM800K's answer grader, as verl's `prime_math` and mathruler (`geo3k`) repeat it.

Source: Lightman et al. 2023, "Let's Verify Step by Step" (arXiv:2305.20050), `grading/grader.py`.
The two copies differ in a few steps, which `Variant` names. SymPy decides last; the text reaches
it through `guerdon.rules.compat.expression`, never through `parse_expr`.
"""

import logging
import re
from typing import Any

import msgspec

from guerdon.errors import MissingExtra
from guerdon.rules.compat.expression import Refused, SympyObjects, evaluate, is_zero
from guerdon.rules.compat.hendrycks import NotNormal, strip_string

MAX_CHARS = 20_000
"""A longer answer, or truth, is never equal unless its normal form is: the original would run for
minutes in its LaTeX reader."""

# fmt: off
_UNITS = (
    "degree", "cm", "centimeter", "meter", "mile", "second", "minute", "hour", "day", "week",
    "month", "year", "foot", "feet", "inch", "yard",
)
# fmt: on
_TEXT = re.compile(r"^\\text\{(?P<text>.+?)\}$")
_FRACTION = re.compile(r"^-?[0-9]+.?/0*[1-9][0-9]*.?$")
_COMMA = re.compile(r"(\d)(,)(\d\d\d)($|\D)")
_MIXED = re.compile(r"([0-9]) +([0-9])")
_BAD_POWERS = (re.compile(r"\^[0-9]+\^"), re.compile(r"\^[0-9][0-9]+"))
_BRACKETS = "()[]"
_INTEGER_SLACK = 1e-7


class Variant(msgspec.Struct, frozen=True):
    """Where the copies of the grader differ.

    Attributes:
        units: Unit words that are removed.
        bare_percent: `%` is removed in the first comparison too.
        squeeze: Blanks and leftover braces are removed.
    """

    units: tuple[str, ...]
    bare_percent: bool
    squeeze: bool


VERL = Variant((*_UNITS, "liter"), bare_percent=False, squeeze=False)
MATHRULER = Variant(_UNITS, bare_percent=True, squeeze=True)


def same_spelling(answer: str, truth: str, variant: Variant) -> bool:
    r"""The first comparison: Hendrycks' normal forms are equal. Linear in the lengths.

    >>> same_spelling(r"\frac12", "1/2", VERL)
    True
    """
    return _hendrycks(answer, variant) == _hendrycks(truth, variant)


def _hendrycks(answer: str, variant: Variant) -> str:
    answer = answer.strip()
    found = _TEXT.search(answer)
    if found is not None:
        answer = found["text"].strip()
    try:
        return strip_string(answer, bare_percent=variant.bare_percent)
    except NotNormal:
        return answer


def grade(answer: str, truth: str, variant: Variant) -> bool:
    r"""Whether the grader calls an answer equal to the truth.

    Raises:
        MissingExtra: SymPy or pylatexenc is not installed.

    >>> grade("x+1", "1+x", VERL), grade("0.50", r"\frac{1}{2}", VERL)
    (True, True)
    >>> grade("2/4", "1/2", VERL)
    False
    """
    if same_spelling(answer, truth, variant):
        return True
    if len(answer) > MAX_CHARS or len(truth) > MAX_CHARS:
        return False
    wanted, given = _normal(truth, variant), _normal(answer, variant)
    if wanted == given:
        return True
    if not given:
        return False
    wanted_items, given_items = _items(wanted), _items(given)
    if len(wanted_items) > 1 and (wanted[0] != given[0] or wanted[-1] != given[-1]):
        return False
    if len(wanted_items) != len(given_items):
        return False
    # Nothing to compare leaves the original without a verdict; its caller counts that as wrong.
    return bool(wanted_items) and all(
        _same_item(one, other) for one, other in zip(wanted_items, given_items, strict=True)
    )


def _same_item(wanted: str, given: str) -> bool:
    if _FRACTION.search(wanted) and _FRACTION.search(given):
        return wanted == given
    if (_integer(wanted) is None) != (_integer(given) is None):
        return False
    return _same_expression(wanted, given)


def _normal(text: str, variant: Variant) -> str:
    found = _TEXT.search(text)
    if found is not None:
        text = found["text"]
    text = text.replace("\\%", "%").replace("\\$", "$").replace("$", "").replace("%", "")
    text = text.replace(" or ", " , ").replace(" and ", " , ")
    text = text.replace("million", "*10^6").replace("billion", "*10^9")
    text = text.replace("trillion", "*10^12")
    for unit in variant.units:
        text = re.sub(f"{unit}(es)?(s)? *(\\^[0-9]+)?", "", text)
    text = re.sub(r"\^ *\\circ", "", text)
    if text and text[0] == "{" and text[-1] == "}":
        text = text[1:-1]
    text = re.sub(r",\\! *", "", text)
    whole = _whole(text)
    if whole is not None:
        text = str(round(whole))
    if "\\" in text:
        text = _without_latex(text)
    text = re.sub("- *", "-", text)
    text = _MIXED.sub(r"\1+\2", text)
    if variant.squeeze:
        text = text.replace(" ", "").replace("{", "").replace("}", "")
    text = text.lower()
    integer = _integer(text)
    return text if integer is None else str(integer)


def _whole(text: str) -> float | None:
    """The value of a text that is a float close to an integer."""
    try:
        value = float(text)
        return value if abs(value - round(value)) <= _INTEGER_SLACK else None
    except (ValueError, OverflowError):
        return None


def _integer(text: str) -> int | None:
    """The integer that a text with commas denotes, truncated as the original does."""
    if _whole(_without_commas(text)) is None:
        return None
    try:
        return int(float(text.replace(",", "")))
    except (ValueError, OverflowError):
        return None


def _without_commas(text: str) -> str:
    while True:
        shorter = _COMMA.sub(r"\1\3\4", text)
        if shorter == text:
            return text
        text = shorter


def _without_latex(text: str) -> str:
    try:
        from pylatexenc.latex2text import LatexNodes2Text
    except ImportError:
        raise MissingExtra("pylatexenc", "compat", "PRM800K's grader") from None
    # It logs every malformed macro, and the model decides how many there are.
    logging.getLogger("pylatexenc.latex2text").setLevel(logging.CRITICAL)
    prepared = text.replace("\\tfrac", "\\frac").replace("\\dfrac", "\\frac")
    prepared = prepared.replace("\\frac", " \\frac")
    try:
        converter: Any = LatexNodes2Text()
        plain: str = converter.latex_to_text(prepared)
    except MemoryError:
        raise
    except Exception:
        # The original goes on with the text as it was, whatever its LaTeX reader stumbled over.
        return text
    for symbol, name in (("√", "sqrt"), ("π", "pi"), ("∞", "inf"), ("∪", "U")):
        plain = plain.replace(symbol, name)
    return plain.replace("·", "*").replace("×", "*").strip()


def _items(text: str) -> list[str]:
    """The elements of a tuple or interval; anything else is one element."""
    text = _without_commas(text)
    if not text:
        return []
    inner = text[1:-1]
    bracketed = len(text) > 2 and text[0] in _BRACKETS and text[-1] in _BRACKETS
    if bracketed and not any(bracket in inner for bracket in _BRACKETS):
        return [item.strip() for item in inner.split(",")]
    return [text]


def _same_expression(wanted: str, given: str) -> bool:
    """Whether SymPy simplifies the difference to zero."""
    difference = f"({wanted})-({given})"
    letters = {x for x in difference.replace("sqrt", "").replace("frac", "") if x.isalpha()}
    if len(letters) > 2 or "^{" in difference or "^(" in difference:
        return False
    if any(bad.search(difference) for bad in _BAD_POWERS):
        return False
    try:
        value: Any = evaluate(difference.replace("^", "**"), SympyObjects())
    except Refused:
        return False
    try:
        return is_zero(value)
    except (ArithmeticError, AttributeError, NotImplementedError, TypeError, ValueError):
        # SymPy gives up on some expressions; the original calls those unequal.
        return False
    except RecursionError:
        return False
