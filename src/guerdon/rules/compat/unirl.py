"""UniRL 0.1.0, `unirl/reward/local`: the text scorers, without `sympify` on model text."""

import re

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
