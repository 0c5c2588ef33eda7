"""verl 0.9.1, `reward_score/geo3k.py`, with mathruler 0.1.0's grader."""

import re

from guerdon.rules.compat import prm800k

FORMAT_WEIGHT = 0.1
"""Share of the form in the score."""

_NOTHING = "None"
"""What mathruler reads where there is no box; a truth of that text is then right."""

_BRACE = re.compile(r"[{}]")


def boxed(response: str) -> str:
    r"""The contents of the last `\boxed{`, or the text None.

    >>> boxed(r"\boxed{1} \boxed{ \frac{1}{2} }"), boxed("no")
    ('\\frac{1}{2}', 'None')
    """
    start = response.rfind("\\boxed{")
    if start < 0:
        return _NOTHING
    start += len("\\boxed{")
    depth = 1
    for found in _BRACE.finditer(response, start):
        depth += 1 if found.group() == "{" else -1
        if depth == 0:
            return response[start : found.start()].strip()
    return _NOTHING


def format_score(response: str) -> float:
    r"""1 when the whole text is a thought, then anything with a `\boxed{...}`.

    >>> format_score(r"<think>a</think> so \boxed{1}")
    1.0
    """
    if not response.startswith("<think>"):
        return 0.0
    thought = response.find("</think>", len("<think>"))
    box = response.find("\\boxed{", thought + len("</think>")) if thought >= 0 else -1
    return float(box >= 0 and response.find("}", box + len("\\boxed{")) >= 0)


def total(right: bool, response: str) -> float:
    """`0.9 right + 0.1 form`, in the order in which the original rounds.

    >>> total(True, "18")
    0.9
    """
    accuracy = 1.0 if right else 0.0
    return (1.0 - FORMAT_WEIGHT) * accuracy + FORMAT_WEIGHT * format_score(response)


def score(response: str, ground_truth: str) -> float:
    """verl's `geo3k.compute_score`.

    >>> score("<think>a</think>\\\\boxed{2x}", "x*2")
    1.0
    """
    right = prm800k.grade(boxed(response), ground_truth, prm800k.MATHRULER)
    return total(right, response)
