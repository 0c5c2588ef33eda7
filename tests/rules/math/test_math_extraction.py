"""What is taken for the answer, against the reference's own patterns."""

from __future__ import annotations

import random
from itertools import groupby

import pytest

from guerdon.errors import InvalidReward
from guerdon.rules.math import engine
from guerdon.rules.math.anchored import Uncertain, find_anchored, words_of
from guerdon.rules.math.extraction import (
    MAX_BOX,
    Extraction,
    check_places,
    extract,
    extract_from,
    is_plain_gold,
)

NOTHING, UNCERTAIN = Extraction.NOTHING, Extraction.UNCERTAIN
FAR = "\nWe go on with other things for more than seventy characters, and so on and on.\n"

CASES = [
    (r"\boxed{5}", "5"),
    (r"$\boxed{5}$", "5"),
    (r"\[ \boxed{ \frac{1}{2} } \]", r"\frac{1}{2}"),
    (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
    (r"\boxed{5} and then {x}", "5"),
    (r"costs $5, so \boxed{6} and $x$", "6"),
    (r"\boxed{\$5}", r"\$5"),
    (r"\boxed{[1,2]}", "[1,2]"),
    (r"\boxed{(1,2] }", UNCERTAIN),
    (r"$\boxed{5}$%", UNCERTAIN),
    (r"$\boxed{5}$ \% of it", UNCERTAIN),
    (r"$\boxed{5}$ percent", UNCERTAIN),
    (r"\boxed{5} %", "5"),
    (r"\boxed{5", UNCERTAIN),
    (r"\boxed 5", UNCERTAIN),
    (r"\boxed{}", UNCERTAIN),
    (r"\boxed{$5$}", UNCERTAIN),
    (r"\boxed{a\) b}", UNCERTAIN),
    (r"\fbox{3} \boxed{5}", UNCERTAIN),
    (r"\boxed{1}, \boxed{2}", UNCERTAIN),
    (r"\boxed{1}" + FAR + r"\boxed{2}", "2"),
    (r"$\boxed{1}$" + FAR + r"$\boxed{2}$", "2"),
    (r"\[\boxed{1}" + FAR + r"\boxed{2}\]", UNCERTAIN),
    (r"$$\boxed{1}" + FAR + r"\boxed{2}$$", UNCERTAIN),
    (r"$\boxed{1}$, $" + FAR.replace("\n", " ") + r"\boxed{2}$", UNCERTAIN),
    (r"The final answer is $\boxed{5}$. I hope it is correct.", "5"),
    (r"The final answer is $7$. I hope so. \boxed{5}", "5"),
    (r"\boxed{5} The final answer is $7$. I hope it is correct.", UNCERTAIN),
    (r"\boxed{5} I hope it is correct.", "5"),
    ("nothing", NOTHING),
    ("the answer is 5", NOTHING),
    ("the answer is $5$.", "5"),
    ("The ANSWER: $5$", "5"),
    (r"the answer is \(5\)", "5"),
    (r"the answer is \[5\]", "5"),
    ("the answer is $$5$$", "5"),
    ("the answer is [5] .", "5"),
    (r"the answer is -\frac{1}{2}", r"-\frac{1}{2}"),
    ("the answer is $5$ and $6$", UNCERTAIN),
    ("the answer is $5$%", UNCERTAIN),
    ("the answer is $$5$", UNCERTAIN),
    ("the answer is \\$5 or $6$", "6"),
    ("the answer is " + "x" * 60 + " $5$", NOTHING),
    ("answer $1$ then the final answer is $2$ then answer $3$", "2"),
    ("answer $1$ then Answer: $2$ then answer $3$", "2"),
    ("answer $1$ then answer $3$", "3"),
    ("answer $1 answer 2$ answer $3$ x", "3"),
    ("The final answer is $2$. I hope it is correct.", "2"),
    ("The final answer is $2$. I hope. The final answer is $3$.", UNCERTAIN),
    ("an\u017fwer $5$", "5"),
]


def by_the_patterns(response: str) -> list[engine.Piece]:
    """The reference's own extraction: every pattern over the whole text."""
    from math_verify import parser

    from guerdon.rules.math.reference import answer_config

    ((patterns, _),) = parser.get_extraction_regexes([answer_config()])
    ordered = sorted(patterns, key=lambda pair: pair[1])
    for _, group in groupby(ordered, key=lambda pair: pair[1]):
        found = [match for pattern, _ in group for match in pattern.finditer(response)]
        if found:
            found.sort(key=lambda match: (match.end(), -match.start()), reverse=True)
            return engine._pieces(found[0])
    return []


def pieces_of(found: str | Extraction) -> list[engine.Piece]:
    """A certain extraction as the reference would give it."""
    if found is NOTHING:
        return []
    library = engine._library()
    config = library.replace(library.config, boxed="none")
    return [engine.Piece(library.normalise(found, config), False)]


@pytest.mark.parametrize(("response", "expected"), CASES)
def test_cases(response, expected):
    found = extract(response)
    assert found == expected
    patterns = by_the_patterns(response)
    assert engine.cut(response) == patterns
    if found is not UNCERTAIN:
        assert pieces_of(found) == patterns


def test_generated_responses(generated, scale):
    rng = random.Random(4)
    kinds = {"box": 0, "anchored": 0, "nothing": 0}
    for _ in range(1500 * scale):
        text = generated.integer(rng) if rng.random() < 0.5 else generated.pair(rng)[1]
        response = generated.response(rng, text)
        if rng.random() < 0.3:
            response = generated.mutated(rng, response)
        if rng.random() < 0.3:
            response = response.replace("\\boxed", "")
        patterns = by_the_patterns(response)
        assert engine.cut(response) == patterns, response
        found = extract(response)
        if found is UNCERTAIN:
            continue
        kind = "nothing" if found is NOTHING else "box" if "\\boxed" in response else "anchored"
        kinds[kind] += 1
        assert pieces_of(found) == patterns, response
    assert min(kinds.values()) > 50 * scale


def test_a_box_beyond_the_bound_is_left_to_the_worker():
    assert extract(r"\boxed{" + "1" * (MAX_BOX - 1) + "}") == "1" * (MAX_BOX - 1)
    assert extract(r"\boxed{" + "1" * MAX_BOX + "}") is UNCERTAIN


def test_every_spelling_of_answer_is_found():
    assert words_of("AnSwEr the answer") == [6, 17]
    assert words_of("an\u017fwer \u00e9") == [6]  # a pattern without case takes the long s for an s
    assert words_of("swear, anser") == words_of("an\u00dfwer") == []


def test_too_many_words_are_left_to_the_worker():
    with pytest.raises(Uncertain):
        find_anchored("answer " * 1000)


@pytest.mark.parametrize(
    ("gold", "plain"),
    [("5", True), (r"\text{a}", True), ("", False), ("$5$", False), ("a\nb", False),
     (r"\boxed{5}", False), ("Answer 5", False), ("5\\", False)],
)  # fmt: skip
def test_plain_gold(gold, plain):
    assert is_plain_gold(gold) is plain


PLACES = [
    ("so #### 1,200\n", ("hash",), "1,200"),
    (r"\boxed{1} <answer> $2$. </answer>", ("tag",), "2"),
    (r"\boxed{1} <answer> $2$ </answer>", ("tag",), "2"),
    ("<answer>**2**.</answer>", ("tag",), "2"),
    (r"<answer>It is $\boxed{\frac{1}{2}}$.</answer>", ("tag",), r"\frac{1}{2}"),
    (r"<answer>\boxed{</answer> #### 3", ("tag", "hash"), "3"),
    (r"<answer>2</answer> \boxed{1}", ("tag", "boxed"), "2"),
    (r"\boxed{1}", ("tag", "boxed"), "1"),
    ("The answer is 5.", ("phrase",), "5"),
    ("nothing", ("boxed", "hash", "tag", "phrase"), NOTHING),
]


@pytest.mark.parametrize(("response", "places", "expected"), PLACES)
def test_other_places(response, places, expected):
    assert extract_from(response, places) == expected


def test_unknown_place():
    with pytest.raises(InvalidReward, match=r"did you mean 'boxed'"):
        check_places(("boxd",))
