"""The string normalisation of the MATH dataset, as verl, PRM800K and mathruler repeat it.

Source of the rules: Hendrycks et al. 2021, "Measuring Mathematical Problem Solving With the MATH
Dataset" (arXiv:2103.03874), `math_equivalence`.
"""

import re

_BRACE = re.compile(r"[{}]")
_REMOVED = ("\\left", "\\right", "^{\\circ}", "^\\circ", "\\$")


class NotNormal(ValueError):
    """A text for which the original raises an exception inside its normalisation."""


def strip_string(text: str, *, bare_percent: bool = False) -> str:
    r"""Bring an answer to the spelling in which MATH compares it. Linear in its length.

    Args:
        text: The answer.
        bare_percent: Remove `%` too, as mathruler does; verl removes only `\%`.

    Raises:
        NotNormal: A `\frac` or `\sqrt` with nothing behind it, or two `\text{ ` units.

    >>> [strip_string(t) for t in (r"x=\dfrac12", "0.5", "3/4", r"5\text{ cm}")]
    ['\\frac{1}{2}', '\\frac{1}{2}', '\\frac{3}{4}', '5']
    """
    text = text.replace("\n", "").replace("\\!", "").replace("\\\\", "\\")
    text = text.replace("tfrac", "frac").replace("dfrac", "frac")
    for removed in _REMOVED:
        text = text.replace(removed, "")
    text = _without_unit(text)
    if not bare_percent:
        text = text.replace("\\\\%", "")
    text = text.replace("\\%", "")
    if bare_percent:
        text = text.replace("%", "")
    text = text.replace(" .", " 0.").replace("{.", "{0.")
    if not text:
        return text
    if text[0] == ".":
        text = "0" + text
    sides = text.split("=", 2)
    if len(sides) == 2 and len(sides[0]) <= 2:
        text = sides[1]
    text = _braced_roots(text).replace(" ", "")
    text = _braced_fractions(text)
    if text == "0.5":
        text = "\\frac{1}{2}"
    return _slash_as_fraction(text)


def _without_unit(text: str) -> str:
    parts = text.split("\\text{ ", 2)
    if len(parts) > 2:
        raise NotNormal("two units")
    return parts[0]


def _braced_roots(text: str) -> str:
    head, *rest = text.split("\\sqrt")
    made = [head]
    for piece in rest:
        if not piece:
            raise NotNormal("a root of nothing")
        made.append(piece if piece[0] == "{" else f"{{{piece[0]}}}{piece[1:]}")
    return "\\sqrt".join(made)


def _braced_fractions(text: str) -> str:
    head, *rest = text.split("\\frac")
    made = [head]
    for piece in rest:
        if not piece:
            raise NotNormal("a fraction of nothing")
        if piece[0] == "{":
            made.append(piece)
        elif len(piece) < 2:
            return text
        elif piece[1] == "{":
            made.append(f"{{{piece[0]}}}{piece[1:]}")
        else:
            made.append(f"{{{piece[0]}}}{{{piece[1]}}}{piece[2:]}")
    return "\\frac".join(made)


def _slash_as_fraction(text: str) -> str:
    sides = text.split("/", 2)
    if len(sides) != 2:
        return text
    try:
        top, bottom = int(sides[0]), int(sides[1])
        canonical = f"{top}/{bottom}" == text
    except ValueError:
        return text
    return f"\\frac{{{top}}}{{{bottom}}}" if canonical else text


def closing_brace(text: str, start: int) -> int | None:
    """Offset of the brace after which the braces from `start` on balance, as the originals count.

    A closing brace that comes before any opening one makes the count negative for good, unless
    later opening ones outweigh it.

    >>> closing_brace("{a{b}}", 0), closing_brace("{a", 0) is None
    (5, True)
    """
    depth = 0
    for found in _BRACE.finditer(text, start):
        if found.group() == "{":
            depth += 1
        else:
            depth -= 1
            if depth == 0:
                return found.start()
    return None
