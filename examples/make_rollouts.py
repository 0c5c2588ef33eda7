"""Write the example rollouts: `python examples/make_rollouts.py > examples/rollouts.jsonl`.

Four answers to each of 48 questions about numbers, options and form, as models of different skill
might give them, and some rows that are broken in the ways real files are. The seed is fixed: every
run writes the same bytes.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

SEED = 20
QUESTIONS = 16
"""Of each kind."""
ANSWERS = 4
"""To each question: the size of a group."""
SKILLS = (0.0, 0.35, 0.65, 1.0)
"""Chances of a right answer, one per question: two of them give groups without variance."""

Row = dict[str, Any]


def math_question(rng: random.Random) -> tuple[str, str, list[str], list[str]]:
    """A question, its truth, right ways to say it and wrong ones, for `math_verify`."""
    low, high = rng.randint(2, 9), rng.randint(2, 9)
    value = Fraction(rng.randint(1, 9), low) + Fraction(rng.randint(1, 9), high)
    parts = (value - Fraction(1, high), Fraction(1, high))
    question = f"What is {parts[0]} + {parts[1]}?"
    fraction = rf"\frac{{{value.numerator}}}{{{value.denominator}}}"
    right = [rf"\boxed{{{fraction}}}", rf"\boxed{{{value}}}", rf"\boxed{{x = {fraction}}}"]
    wrong = [rf"\boxed{{{value + 1}}}", rf"\boxed{{-{fraction}}}", f"It must be about {high}."]
    return question, str(value), right, wrong


def choice_question(rng: random.Random) -> tuple[str, str, list[str], list[str]]:
    """A question with options, for `multiple_choice`."""
    left, right_side = rng.randint(12, 99), rng.randint(12, 99)
    product = left * right_side
    options = [product, product + 10, product - left, product + right_side]
    rng.shuffle(options)
    letter = "ABCD"[options.index(product)]
    other, third = rng.sample([name for name in "ABCD" if name != letter], 2)
    listed = " ".join(f"({name}) {option}" for name, option in zip("ABCD", options, strict=True))
    right = [f"The answer is ({letter}).", f"Answer: {letter}", rf"\boxed{{{letter}}}"]
    wrong = [f"The answer is ({other}).", f"Answer: {third}", f"It is {letter} or {other}."]
    return f"What is {left} * {right_side}? {listed}", letter, right, wrong


def form_question(rng: random.Random) -> tuple[str, str, list[str], list[str]]:
    """A question whose answer must stand in tags, for `format`."""
    a, b = rng.randint(2, 30), rng.randint(2, 30)
    thought = f"<think>{a} + {b} is {a + b}.</think>"
    right = [f"{thought}<answer>{a + b}</answer>", f"{thought}\n<answer>\n{a + b}\n</answer>"]
    wrong = [f"<answer>{a + b}</answer>", f"{thought}{a + b}", f"{thought}<answer></answer>"]
    return f"Think, then answer in tags: {a} + {b}?", str(a + b), right, wrong


KINDS = {"demo/math": math_question, "demo/choice": choice_question, "demo/form": form_question}


def rows(rng: random.Random) -> Iterator[Row]:
    """The rows that are as they should be, in groups."""
    for source, ask in KINDS.items():
        kind = source.removeprefix("demo/")
        for number in range(QUESTIONS):
            question, truth, right, wrong = ask(rng)
            skill = rng.choice(SKILLS)
            for answer in range(ANSWERS):
                said = rng.choice(right if rng.random() < skill else wrong)
                tagged = kind == "form" or rng.random() < 0.5
                yield {
                    "sample_id": f"{kind}-{number}-{answer}",
                    "group_id": f"{kind}-{number}",
                    "data_source": source,
                    "prompt": question,
                    "response": said if tagged else f"Let me see. {said}",
                    "ground_truth": truth,
                }


def broken_rows() -> Iterator[Row | str]:
    """Rows that cannot be scored, or only oddly; `about` says why."""

    def row(name: str, source: str, about: str, **fields: Any) -> Row:
        return {
            "sample_id": f"broken-{name}",
            "group_id": "broken",
            "data_source": source,
            "prompt": "2 + 2?",
            "response": r"\boxed{4}",
            "ground_truth": "4",
            "about": about,
            **fields,
        }

    math, choice = "demo/math", "demo/choice"
    yield '{"sample_id": "broken-torn", "response": "the writer was killed in the mid'
    missing = row("response", math, "no response at all")
    del missing["response"]
    yield missing
    yield row("null", math, "the response is null", response=None)
    yield row("truth", math, "an empty ground truth", ground_truth="")
    yield row("option", choice, "a ground truth that is no option", ground_truth="none of these")
    yield row("twice", math, "the id of another row", sample_id="math-0-0")
    yield row("source", "demo/poetry", "a data source that nothing scores")
    yield row("empty", math, "an empty response is an answer: a wrong one", response="")
    yield row("surrogate", math, "half a character", response="\ud83d \\boxed{4}")
    yield row("bomb", math, "a number that no computer holds", response=r"\boxed{9^{9^{9^9}}!}")


def main() -> None:
    """Write all rows to standard output, the broken ones among the others."""
    rng = random.Random(SEED)
    every: list[Row | str] = list(rows(rng))
    for broken in broken_rows():
        every.insert(rng.randint(1, len(every)), broken)
    for row in every:
        line = row if isinstance(row, str) else json.dumps(row)
        sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    main()
