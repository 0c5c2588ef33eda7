"""Dataset rules: right by default where the original is wrong, its number on request."""

from typing import Any

import pytest

from guerdon.errors import BadInput, InvalidReward
from guerdon.reward import BaseReward
from guerdon.rules.competition import BoxedMath, Geometry3k, HendrycksMath, MathDapo, PrimeMath
from guerdon.rules.counting import clevr_count
from guerdon.rules.mmk12 import Mmk12, choice
from guerdon.rules.qa import search_r1
from guerdon.rules.toolrl import rlla


def value(rule: BaseReward, response: str, truth: Any, **keywords: Any) -> float:
    found = rule.call_sync(response=response, ground_truth=truth, **keywords)
    return found["score"] if isinstance(found, dict) else found


# (response, truth, right, the original's number)
HENDRYCKS = [
    (r"\boxed{1,000}", "1000", 1.0, 0.0),
    (r"\boxed{5.0}", "5", 1.0, 0.0),
    (r"\fbox{5}", "5", 1.0, 0.0),
    (r"\boxed{\dfrac12}", r"\frac{1}{2}", 1.0, 1.0),
    (r"<think>\boxed{5}</think>\boxed{6}", "5", 0.0, 0.0),
    (r"<think>\boxed{5}</think> unclear", "5", 0.0, 1.0),
    (r"\boxed{x=5}", "5", 1.0, 1.0),
    (r"\boxed{5\text{ cm}}", "5", 1.0, 1.0),
    (r"\boxed{(1, 2)}", "(1,2)", 1.0, 1.0),
    (r"\boxed{x+1}", "1+x", 1.0, 0.0),
    (r"\boxed{5}. The rest: \boxed{", "5", 1.0, 0.0),
    (r"\boxed{\frac", r"\frac", 0.0, 0.0),
]
DAPO = [
    ("Answer: 0.5", "1/2", 1.0, -1.0),
    ("Answer: 42.", "42", 1.0, -1.0),
    ("**Answer:** 42", "42", 1.0, -1.0),
    (r"\boxed{\dfrac12}", r"\frac{1}{2}", 1.0, -1.0),
    (r"\boxed{5}" + " ok" * 60, "5", 1.0, -1.0),
    ("Answer: 5" + " " * 400 + "\n", "5", 1.0, -1.0),
    ("Answer: $5$", "5", 1.0, 1.0),
    ("Answer: $$5$$", "5", 1.0, -1.0),
    ("Answer: \\(5\\)", "5", 1.0, -1.0),
    ("Answer: 5 dollars", "5", 1.0, 1.0),
    ("Answer: 2.5 million", "2500000", 1.0, -1.0),
    ("Answer: 5 pi", "5", -1.0, -1.0),
    ("Answer: 5 x", "5", -1.0, -1.0),
    ("Answer: 6", "5", -1.0, -1.0),
    ("Answer: 5\nAnswer: 6", "5", -1.0, -1.0),
    ("5", "5", -1.0, -1.0),
]
PRIME = [
    (r"\boxed{50}", "0.5", 0.0, 1.0),
    (r"\boxed{x^{2}+1}", "1+x^{2}", 1.0, 0.0),
    (r"\boxed{2^{10}}", "1024", 1.0, 0.0),
    (r"\boxed{6.28}", r"2\pi", 0.0, 1.0),
    ("so x = 5", "5", 0.0, 1.0),
    ("The answer is: 5", "5", 1.0, 1.0),
    (r"\boxed{(1,2)}", "(1, 2)", 1.0, 1.0),
    (r"\boxed{6}", "5", 0.0, 0.0),
]
GEO = [
    (r"<think>a</think>\boxed{2\sqrt{3}}", r"2\sqrt{3}", 1.0, 1.0),
    (r"\boxed{2\sqrt{3}}", r"2\sqrt{3}", 0.9, 0.9),
    ("nothing", "None", 0.0, 0.9),
    (r"<think>\boxed{5}</think>hm \boxed", "5", 0.0, 0.9),
    (r"<think>a</think>\boxed{4}", "5", 0.1, 0.1),
    (r"<think>a</think>\boxed{2/4}", "1/2", 1.0, 0.1),
]
BOXED = [
    (r"\boxed{\frac{6}{4}}", "1.5", 1.0, 1.0),
    (r"\boxed{(1,2)}", "(12)", 0.0, 1.0),
    ("#### 5\n#### 6", "6", 1.0, 0.0),
    (r"\boxed{5}", "5", 1.0, 1.0),
    (r"\boxed{5", "5", 0.0, 0.0),
    (r"\boxed{2x}", "x*2", 1.0, 0.0),
]
TABLES: list[tuple[type[BaseReward], list[tuple[str, str, float, float]]]] = [
    (HendrycksMath, HENDRYCKS),
    (MathDapo, DAPO),
    (PrimeMath, PRIME),
    (Geometry3k, GEO),
    (BoxedMath, BOXED),
]
ROWS = [
    pytest.param(rule, *row, id=f"{rule.name}-{index}")
    for rule, table in TABLES
    for index, row in enumerate(table)
]


@pytest.mark.parametrize(("rule", "response", "truth", "right", "original"), ROWS)
def test_right_by_default_and_the_originals_number_on_request(
    rule: Any, response: str, truth: str, right: float, original: float
) -> None:
    assert value(rule(), response, truth) == pytest.approx(right)
    assert value(rule(compat=True), response, truth) == pytest.approx(original)


def test_geometry_as_areal_reads_it() -> None:
    theirs = Geometry3k(compat="areal")
    assert value(theirs, "[3]", r"2\sqrt{3}") == 1.0
    assert value(Geometry3k(), r"\boxed{3}", r"2\sqrt{3}") == 0.0
    with pytest.raises(InvalidReward):
        Geometry3k(compat="trl")


def test_dapo_says_what_it_read() -> None:
    found = MathDapo(compat=True).call_sync(response="Answer: 1,000 dollars", ground_truth="1000")
    assert found == {"score": 1.0, "acc": True, "info": {"pred": "1000"}}
    strict = MathDapo(strict_box=True)
    assert value(strict, "Answer: 5", "5") == -1.0
    assert value(strict, r"\boxed{5}", "5") == 1.0


@pytest.mark.parametrize(
    ("response", "truth", "options", "value_"),
    [
        ("<answer>The U.S.</answer>", {"target": ["US"]}, {}, 1.0),
        ("<answer>in the US</answer>", {"target": "US"}, {"substring": True}, 1.0),
        ("<answer>UK</answer>", {"target": "US"}, {"format_score": 0.1}, 0.1),
        ("US", {"target": "US"}, {"format_score": 0.1}, 0.0),
        ("<answer>a<answer>US</answer>", {"target": "US"}, {}, 1.0),
        ("<answer>a<answer>US</answer>", {"target": "US"}, {"compat": True}, 0.0),
        ("<answer>US</answer>" * 11, {"target": "US"}, {"substring": True}, 0.25),
        ("<answer>US</answer>" * 11, {"target": "US"}, {"substring": True, "compat": True}, 1.0),
        ("<answer>x</answer>", {"target": "The"}, {"substring": True, "compat": True}, 1.0),
    ],
)
def test_search_r1(response: str, truth: Any, options: Any, value_: float) -> None:
    assert value(search_r1, response, truth, **options) == value_


def test_a_truth_of_articles_is_unusable() -> None:
    with pytest.raises(BadInput):
        value(search_r1, "<answer>x</answer>", {"target": "The"}, substring=True)


CALL = '<tool_call>\n{"name": "read", "parameters": {"page": %s}}\n</tool_call>'
TRUTH = f"<think>x</think>\n{CALL % 1}"


@pytest.mark.parametrize(
    ("response", "truth", "right", "original"),
    [
        (TRUTH, TRUTH, 4.0, 4.0),
        (f"<think>a</think>\n{CALL % 2}", TRUTH, 2.0, 2.0),
        (f"<think>a</think>\n{CALL % 'true'}", TRUTH, 2.0, 4.0),
        (CALL % 1, TRUTH, 3.0, 3.0),
        (TRUTH, "<response>hi</response>", -3.0, 0.0),
        ("<think>a</think>\n<response>hi</response>", "<response>hi</response>", 1.0, 1.0),
        ("", TRUTH, -3.0, -3.0),
    ],
)
def test_rlla(response: str, truth: str, right: float, original: float) -> None:
    assert value(rlla, response, truth) == pytest.approx(right)
    found = value(rlla, response, truth, compat=True, experiment_name="qwen")
    assert found == pytest.approx(original)


def test_rlla_as_verl_needs_the_model_family() -> None:
    with pytest.raises(BadInput, match="experiment_name"):
        value(rlla, TRUTH, TRUTH, compat=True)


@pytest.mark.parametrize(
    ("response", "truth", "options", "accuracy", "form"),
    [
        (r"<answer>\boxed{B}</answer>", "B", None, 1.0, 0.3),
        ("<answer>B</answer>", "B", None, 1.0, 0.15),
        ("B", "B", None, 1.0, 0.0),
        ("C", "B", {"B": "7"}, 0.0, 0.0),
        (r"<answer>\boxed{7.0}</answer>", "B", {"B": "7"}, 0.5, 0.3),
        (r"<answer>\boxed{7.0}</answer>", "B", '{"B": "7"}', 0.5, 0.3),
        (r"<answer>\boxed{60^\circ}</answer>", "60\u00b0", None, 1.0, 0.3),
        (r"<answer>\boxed{\frac{1}{2}}</answer>", "0.5", None, 1.0, 0.3),
        (r"<answer>\boxed{1}</answer><answer>\boxed{2}</answer>", "2", None, 1.0, 0.15),
        ("", "5", None, 0.0, 0.0),
    ],
)
def test_mmk12(response: str, truth: str, options: Any, accuracy: float, form: float) -> None:
    found = Mmk12().call_sync(response=response, ground_truth=truth, options=options)
    assert found["accuracy"] == accuracy
    assert found["format_reward"] == pytest.approx(form)
    assert found["score"] == pytest.approx((accuracy + form) / 1.3)


def test_mmk12_takes_the_article_as_the_original_does() -> None:
    assert value(Mmk12(), "I see A car", "A") == 0.0
    assert value(Mmk12(compat=True), "I see A car", "A") == pytest.approx(1 / 1.3)


def test_choice_and_counting() -> None:
    assert value(choice, "x", "y", compat=True) == 1.0
    assert value(choice, "x", "y") == 0.0
    assert value(clevr_count, "[ 3 ]", "3") == 1.0
    assert value(clevr_count, "[ 3 ]", "3", compat=True) == 0.0
    assert value(clevr_count, "none", "", compat=True) == 1.0
    with pytest.raises(BadInput):
        value(clevr_count, "none", "")
