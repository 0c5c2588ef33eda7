"""What the mathematics rules of the datasets must not confuse, and what they must find."""

from __future__ import annotations

import pytest

from guerdon.registry import resolve


@pytest.mark.parametrize("rule", ["hendrycks_math", "boxed_math", "prime_math"])
@pytest.mark.parametrize(
    ("gold", "answer", "value"),
    [
        ("12", "1 2", 0.0),
        ("105", "10 5", 0.0),
        ("21/2", "2 1/2", 0.0),
        ("y=5", "z=5", 0.0),
        (r"\frac{1}{2}", r"\frac12", 1.0),
        ("1000", "1,000", 1.0),
    ],
)
def test_a_normal_form_that_joins_or_drops_decides_nothing(
    rule: str, gold: str, answer: str, value: float
) -> None:
    response = f"so \\boxed{{{answer}}}"
    assert resolve(rule).call_sync(response=response, ground_truth=gold) == value


@pytest.mark.parametrize(
    ("response", "gold", "value"),
    [
        ("The answer is 5.", "5", 1.0),
        ("The answer is $5$", "5", 1.0),
        (r"The final answer is $\frac{1}{2}$", "0.5", 1.0),
        ("The answer is 6.", "5", 0.0),
        ("Answer: 7\nso the answer is 5", "7", 1.0),
    ],
)
def test_prime_math_reads_an_answer_in_a_sentence(response: str, gold: str, value: float) -> None:
    assert resolve("prime_math").call_sync(response=response, ground_truth=gold) == value
