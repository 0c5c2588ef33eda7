"""verl 0.9.1, `verl/utils/reward_score`: the scorers without a computer algebra system."""

import re
from typing import Literal

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
