"""UniRL 0.1.0, `unirl/reward/local`: the text scorers, without `sympify` on model text."""

import re
from fractions import Fraction

from guerdon.rules.compat.expression import SympyObjects, evaluate, is_zero
from guerdon.rules.compat.hendrycks import closing_brace

_HASHES = re.compile(r"####\s*([-+]?\d[\d,]*\.?\d*)")
_NUMBERS = re.compile(r"[-+]?\d*\.?\d+")
_PHRASE = re.compile(r"(?:answer|option)\s*(?:is|:)\s*\(?([A-D])\)?", re.IGNORECASE)
_STANDALONE = re.compile(r"\b[A-D]\b")
_DIGIT_LETTERS = {"1": "A", "2": "B", "3": "C", "4": "D"}


def mc_letter(text: str) -> str:
    """The letter that `mc_exact_match` reads, or an empty text.

    A single character 1 to 4 or A to D; else the first `answer is X`; else the last capital A to D
    that stands alone, the article A included.

    >>> mc_letter("A dog"), mc_letter("the answer is (c)"), mc_letter("2")
    ('A', 'C', 'B')
    """
    text = text.strip()
    if len(text) == 1 and text in _DIGIT_LETTERS:
        return _DIGIT_LETTERS[text]
    if len(text) == 1 and text.upper() in ("A", "B", "C", "D"):
        return text.upper()
    phrase = _PHRASE.search(text)
    if phrase is not None:
        return phrase[1].upper()
    alone = _STANDALONE.findall(text)
    return alone[-1] if alone else ""


def mc_score(response: str, ground_truth: str | int) -> float:
    """`mc_exact_match.py`: 1 when the letters are equal, else 0.

    >>> mc_score("I choose A dog", "A")
    1.0
    """
    gold = str(ground_truth).strip().upper()
    return float(mc_letter(response) == _DIGIT_LETTERS.get(gold, gold))


def gsm8k_answer(text: str) -> str:
    """The number that `gsm8k_exact_match` reads: the first `####` number, else the last number.

    >>> gsm8k_answer("#### 1,234."), gsm8k_answer("it costs $1,234")
    ('1234.', '234')
    """
    found = _HASHES.search(text)
    if found is not None:
        return found[1].replace(",", "")
    numbers = _NUMBERS.findall(text)
    return numbers[-1] if numbers else ""


def gsm8k_score(response: str, ground_truth: str | float) -> float:
    """`gsm8k_exact_match.py`: 1 on string equality without commas, else 0.

    >>> gsm8k_score("#### 5.00", "5")
    0.0
    """
    return float(gsm8k_answer(response) == str(ground_truth).strip().replace(",", ""))


# -- math_boxed.py --------------------------------------------------------------------------------

MAX_CHARS = 4000
"""A longer answer is equal only if its text is."""

_LATEX_TEXT = re.compile(r"\\text\s*\{[^{}]*\}")
_LATEX_FRACTION = re.compile(r"\\frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
_DROPPED = ("\\left", "\\right", "\\,", "\\!", "\\;", "\\ ", "\\quad", "\\qquad")
_HUGE_EXPONENT = re.compile(r"[eE][+-]?[0-9_]{4,}")
_SLACK = 1e-9


def boxed_answer(text: str) -> str:
    r"""The last box, or what follows its last equals sign, else the first `####` number.

    >>> boxed_answer(r"so \boxed{x = 3}"), boxed_answer("#### 1,234")
    ('3', '1234')
    """
    start = text.rfind("\\boxed")
    if start >= 0:
        opening = text.find("{", start)
        end = closing_brace(text, opening) if opening >= 0 else None
        if end is not None:
            return text[opening + 1 : end].rsplit("=", 1)[-1].strip()
    found = _HASHES.search(text)
    return found[1].replace(",", "") if found is not None else ""


def same_value(answer: str, truth: str) -> bool:
    r"""Whether `math_boxed` calls two texts equal, with its `sympify` replaced by our parser.

    Raises:
        MissingExtra: SymPy is not installed and needed.

    >>> same_value(r"\frac{6}{4}", "1.5"), same_value("x*2", "2*x"), same_value("1,000", "1000")
    (True, True, True)
    """
    if not answer:
        return False
    if answer.strip() == truth.strip():
        return True
    if len(answer) > MAX_CHARS or len(truth) > MAX_CHARS:
        return False
    given, wanted = _plain(answer), _plain(truth)
    if not given or _HUGE_EXPONENT.search(given) or _HUGE_EXPONENT.search(wanted):
        return False
    try:
        return Fraction(given) == Fraction(wanted)
    except (ValueError, ZeroDivisionError):
        pass
    return _same_expression(given, wanted)


def _same_expression(given: str, wanted: str) -> bool:
    try:
        algebra = SympyObjects(implicit=False)
        return is_zero(evaluate(given, algebra) - evaluate(wanted, algebra))
    except (ArithmeticError, AttributeError, NotImplementedError, TypeError, ValueError):
        # What SymPy cannot read or simplify is compared as floats, as in the original.
        pass
    except RecursionError:
        return False
    try:
        return abs(float(given) - float(wanted)) < _SLACK
    except ValueError:
        return False


def _plain(text: str) -> str:
    text = _LATEX_TEXT.sub("", text.strip().strip("$").strip())
    for dropped in _DROPPED:
        text = text.replace(dropped, "")
    text = text.replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac")
    for _ in range(3):
        text = _LATEX_FRACTION.sub(r"((\1)/(\2))", text)
    text = text.replace("\\cdot", "*").replace("\\times", "*").replace("^", "**")
    return text.replace(",", "").replace(" ", "").replace("%", "")
