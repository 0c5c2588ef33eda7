"""verl 0.9.1, `verl/utils/reward_score`: the scorers without a computer algebra system."""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

from guerdon.rules.compat.hendrycks import NotNormal, closing_brace, strip_string
from guerdon.rules.normal import squad_normal

GSM8K_CLIP_CHARS = 300
"""`gsm8k.py` looks at the last 300 characters only."""

_GSM8K_NUMBER = re.compile(r"-?[0-9.,]+")


def gsm8k_answer(response: str, method: Literal["strict", "flexible"]) -> str | None:
    """The answer that verl extracts: after the last `#### `, or the last number-like token.

    >>> gsm8k_answer("#### 1,234.", "strict"), gsm8k_answer("1,234 .", "flexible")
    ('1234.', '1,234')
    """
    tail = response[-GSM8K_CLIP_CHARS:]
    if method == "strict":
        at = tail.rfind("#### ")
        while at >= 0:
            found = _GSM8K_NUMBER.match(tail, at + 5)
            if found is not None:
                return found.group().replace(",", "")
            at = tail.rfind("#### ", 0, at)
        return None
    numbers = _GSM8K_NUMBER.findall(tail)
    # A text of lone dots falls through verl's loop and leaves its first token.
    return next((n for n in reversed(numbers) if n != "."), numbers[0] if numbers else None)


def gsm8k_score(
    response: str,
    ground_truth: str,
    method: Literal["strict", "flexible"] = "strict",
    format_score: float = 0.0,
) -> float:
    """verl's `gsm8k.compute_score`: 1 on string equality, `format_score` on another answer, else 0.

    >>> gsm8k_score("#### 42.", "42"), gsm8k_score("#### 42", "42")
    (0.0, 1.0)
    """
    answer = gsm8k_answer(response, method)
    if answer is None:
        return 0.0
    return 1.0 if answer == ground_truth else format_score


# -- math_reward.py: the last box, compared after Hendrycks' normalisation ------------------------


def hendrycks_score(response: str, ground_truth: str) -> float:
    r"""verl's `math_reward.compute_score`: 1 or 0.

    >>> hendrycks_score(r"\boxed{\dfrac12}", "0.5"), hendrycks_score(r"\boxed{1,000}", "1000")
    (1.0, 0.0)
    """
    answer = _hendrycks_answer(response)
    if answer is None:
        return 0.0
    try:
        return float(strip_string(answer) == _normal_gold(ground_truth))
    except NotNormal:
        return float(answer == ground_truth)


def _normal_gold(gold: str) -> str:
    return _short_gold(gold) if len(gold) <= _GOLD_CHARS else strip_string(gold)


# The samples of a group share their truth.
_short_gold = lru_cache(maxsize=4096)(strip_string)
_GOLD_CHARS = 200


def _hendrycks_answer(response: str) -> str | None:
    bare = response.rfind("\\boxed ")
    if bare >= 0:
        return response[bare + len("\\boxed ") :].split("$", 1)[0]
    start = response.rfind("\\boxed")
    # A box of \fbox is located by the original, but fails its unwrapping.
    if start < 0 or not response.startswith("\\boxed{", start):
        return None
    end = closing_brace(response, start)
    return None if end is None else response[start + len("\\boxed{") : end]


# -- math_dapo.py: the last "Answer:" line, compared after Minerva's normalisation ----------------

DAPO_CLIP_CHARS = 300
"""`math_dapo.py` looks at the last 300 characters, and at 100 of them for a box."""

_DAPO_BOX_CHARS = 100
_INVALID = "[INVALID]"
_ANSWER_LINE = re.compile(r"(?i)Answer\s*:\s*([^\n]+)")

# Lewkowycz et al. 2022 (Minerva, arXiv:2206.14858), appendix D.1: what is replaced, in this order,
# and what is removed.
_MINERVA_REPLACED = (
    ("an ", ""),
    ("a ", ""),
    (".$", "$"),
    ("\\$", ""),
    ("\\ ", ""),
    (" ", ""),
    ("mbox", "text"),
    (",\\text{and}", ","),
    ("\\text{and}", ","),
    ("\\text{m}", "\\text{}"),
)
# fmt: off
_MINERVA_REMOVED = (
    "square", "ways", "integers", "dollars", "mph", "inches", "hours", "km", "units", "\\ldots",
    "sue", "points", "feet", "minutes", "digits", "cents", "degrees", "cm", "gm", "pounds",
    "meters", "meals", "edges", "students", "childrentickets", "multiples",
    "\\text{s}", "\\text{.}", "\\text{\ns}", "\\text{}^2", "\\text{}^3", "\\text{\n}", "\\text{}",
    "\\mathrm{th}", "^\\circ", "^{\\circ}", "\\;", ",\\!", "{,}", '"', "\\dots",
)
# fmt: on
_BETWEEN_DOLLARS = re.compile(r"(.*?)(\$)(.*?)(\$)(.*)")
_UNWRAPPED = (
    re.compile(r"(\\text\{)(.*?)(\})"),
    re.compile(r"(\\textbf\{)(.*?)(\})"),
    re.compile(r"(\\overline\{)(.*?)(\})"),
    re.compile(r"(\\boxed\{)(.*)(\})"),
)
_SHORT_FRACTION = re.compile(r"(frac)([^{])(.)")
_SHORT_ROOT = re.compile(r"(sqrt)([^{])")


def minerva_normal(answer: str) -> str:
    r"""Minerva's normalisation of a final answer.

    >>> minerva_normal("x = 1,000 dollars"), minerva_normal(r"\frac12")
    ('1000', '\\frac{1}{2}')
    """
    answer = answer.rsplit("=", 1)[-1]
    for before, after in _MINERVA_REPLACED:
        answer = answer.replace(before, after)
    for removed in _MINERVA_REMOVED:
        answer = answer.replace(removed, "")
    answer = _BETWEEN_DOLLARS.sub(r"$\3$", answer)
    for wrapper in _UNWRAPPED:
        answer = wrapper.sub(r"\2", answer)
    answer = _SHORT_FRACTION.sub(r"frac{\2}{\3}", answer)
    answer = _SHORT_ROOT.sub(r"sqrt{\2}", answer).replace("$", "")
    digits = answer.replace(",", "")
    return (digits if digits.isdigit() else answer).strip()


def dapo_verdict(
    response: str, ground_truth: str, strict_box: bool = False
) -> tuple[bool, str | None]:
    """What `math_dapo.verify` gives: whether the answer is right, and what was read.

    >>> dapo_verdict("Answer: 1,000", "1000"), dapo_verdict("so it is 5", "5")
    ((True, '1000'), (False, '[INVALID]'))
    """
    tail = response[-DAPO_CLIP_CHARS:]
    if strict_box:
        return _dapo_box(tail, ground_truth)
    lines = _ANSWER_LINE.findall(tail)
    read = minerva_normal(lines[-1] if lines else _INVALID)
    verdict = read == minerva_normal(ground_truth)
    if read == _INVALID:
        boxed = _dapo_box(tail, ground_truth)
        if boxed[1] is not None:
            return boxed
    return verdict, read


def _dapo_box(tail: str, ground_truth: str) -> tuple[bool, str | None]:
    tail = tail[-_DAPO_BOX_CHARS:]
    start = tail.rfind("\\boxed{")
    end = closing_brace(tail, start) if start >= 0 else None
    if end is None:
        return False, None
    contents = tail[start + len("\\boxed{") : end]
    return contents == ground_truth, contents


# -- search_r1_like_qa_em.py ----------------------------------------------------------------------

MANY_TAGS = 10
"""With more opening or closing answer tags than this, a right answer earns a quarter."""


def search_r1_answer(response: str) -> str | None:
    """The contents of the last match of `<answer>(.*?)</answer>`, read from the left.

    >>> search_r1_answer("<answer>a<answer>b</answer>")
    'a<answer>b'
    """
    answer: str | None = None
    start = response.find("<answer>")
    while start >= 0:
        end = response.find("</answer>", start)
        if end < 0:
            break
        answer = response[start + len("<answer>") : end]
        start = response.find("<answer>", end)
    return None if answer is None else answer.strip()


def search_r1_score(
    response: str, golds: Sequence[str], substring: bool = False, format_score: float = 0.0
) -> float:
    """`compute_score` and `compute_score_subem`: equal to, or containing, an accepted text.

    >>> search_r1_score("<answer>The U.S.</answer>", ["US"])
    1.0
    """
    answer = search_r1_answer(response)
    if answer is None:
        return 0.0
    read = squad_normal(answer)
    normal = (squad_normal(gold) for gold in golds)
    if substring:
        return 1.0 if any(gold in read for gold in normal) else format_score
    if not any(gold == read for gold in normal):
        return format_score
    tags = max(response.count("<answer>"), response.count("</answer>"))
    return 0.25 if tags > MANY_TAGS else 1.0
