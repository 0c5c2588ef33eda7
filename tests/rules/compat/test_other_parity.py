"""Numbers of systems that do not install here, as measured in their reports, and hostile input.

The rows are what AReaL 1.0.4, UniRL 0.1.0 and verl-omni 0.2.0rc1 gave when they were run.
"""

import time
from typing import Any

import pytest

from guerdon.rules.compat import areal, geo3k, prime, prm800k, rlla, unirl
from guerdon.rules.mmk12 import choice


@pytest.mark.parametrize(
    ("response", "truth", "value"),
    [
        (r"\boxed{72}", "72", 1.0), (r"\boxed{71}, no: \boxed{72}", "72", 0.0),
        ("so 72", "72", 1.0),
        (r"\boxed{72, 71}", "72", 0.0), (r"\boxed{72\%}", "0.72", 1.0),
        ("so 72%", "72", 1.0),
        # AReaL pins Math-Verify 0.8.0, for which this is 0; 0.9.0 takes either reading.
        (r"\boxed{72\%}", "72", 1.0),
        (r"\boxed{x=72}", "72", 1.0), (r"\boxed{\$72}", "72", 1.0),
        (r"\boxed{72\text{ dollars}}", "72", 1.0),
        (r"\boxed{1,234}", "1234", 1.0), (r"\boxed{72", "72", 0.0),
        ("the total is 72", "3 * 24 #### 72", 1.0),
        (r"<think>\boxed{72}</think> it is unclear", "72", 1.0),
        (r"\boxed{2\sqrt{3}}", r"2\sqrt{3}", 0.0),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}", 1.0), ("", "72", 0.0), ("no number", "72", 0.0),
    ],
)  # fmt: skip
def test_areals_mathematics_worker(response: str, truth: str, value: float) -> None:
    assert areal.math_worker(response, truth) == value


@pytest.mark.parametrize(
    ("response", "truth", "value"),
    [
        ("[3]", r"2\sqrt{3}", 1.0), (r"[2\sqrt{3}]", r"2\sqrt{3}", 0.0),
        ("[2]", r"\frac{3}{2}", 1.0),
        ("[45] (see [fig 2])", "45", 0.0), ("[45]", "45", 1.0), ("so 1,045", "1045", 1.0),
        ("none", "45", 0.0),
    ],
)  # fmt: skip
def test_areals_geometry3k(response: str, truth: str, value: float) -> None:
    assert areal.geometry3k(response, truth) == value


@pytest.mark.parametrize(
    ("response", "truth", "value"),
    [("[3]", "3", 1.0), ("[ 3 ]", "3", 0.0), ("[3.0]", "3", 0.0), ("three", "", 1.0),
    ("[1] [3]", " 3", 1.0)],
)  # fmt: skip
def test_areals_counting(response: str, truth: str, value: float) -> None:
    assert areal.clevr_count(response, truth) == value


@pytest.mark.parametrize(
    ("text", "inside"),
    [("[a] [b]", "b"), ("[[a]", "[a"), ("[] [a]", "a"), ("[]]", None), ("[a", None),
    ("[a] [", "a"), ("", None)],
)  # fmt: skip
def test_brackets_as_the_pattern_finds_them(text: str, inside: str | None) -> None:
    import re

    found = re.findall(r"\[([^\]]+)\]", text)
    assert areal.last_bracket(text) == inside == (found[-1] if found else None)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("#### 1,234.", "1234."), ("#### 3 then #### 4", "3"), ("it costs $1,234", "234"),
        ("-5", "-5"),
        ("#### 5.00", "5.00"), ("####", ""), ("x .5", ".5"), ("", ""),
    ],
)  # fmt: skip
def test_unirls_gsm8k_answer(text: str, answer: str) -> None:
    assert unirl.gsm8k_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("2", "B"), ("c", "C"), ("The answer is (b)", "B"), ("answer: A, answer: B", "A"),
        ("A dog", "A"),
        ("option is d", "D"), ("E", ""), ("I see A and B", "B"), ("", ""), ("5", ""),
    ],
)  # fmt: skip
def test_unirls_choice(text: str, letter: str) -> None:
    assert unirl.mc_letter(text) == letter


@pytest.mark.parametrize(
    ("answer", "truth", "same"),
    [
        ("34.0", "34", True), ("3/2", "1.5", True), (r"\frac{6}{4}", "1.5", True),
        ("1,000", "1000", True),
        ("50%", "50", True), ("x*2", "2*x", True), ("x^2-1", "(x-1)*(x+1)", True),
        ("2x", "2*x", False),
        ("sqrt(8)", "2*sqrt(2)", True), ("", "", False), ("yes", "yes", True), ("1/0", "1", False),
        (r"\text{cm}", "1", False), (r"$5$", "5", True), ("10^2", "100", True),
        ("x_1", "x_1+0", True),
        ("__import__('os').system('true')", "0", False), ("1e9999999", "1e9999999+1", False),
    ],
)  # fmt: skip
def test_unirls_boxed_values(answer: str, truth: str, same: bool) -> None:
    assert unirl.same_value(answer, truth) == same


def out_of_memory(*_: Any) -> Any:
    raise MemoryError


def test_running_out_of_memory_is_no_wrong_tool_call(monkeypatch: pytest.MonkeyPatch) -> None:
    call = '<tool_call>{"name": "a", "parameters": {}}</tool_call>'
    monkeypatch.setattr(rlla, "_counts", out_of_memory)
    with pytest.raises(MemoryError):
        rlla.correctness(call.replace('"a"', '"b"'), call)


def test_running_out_of_memory_is_no_text_without_latex(monkeypatch: pytest.MonkeyPatch) -> None:
    latex = pytest.importorskip("pylatexenc.latex2text")
    monkeypatch.setattr(latex.LatexNodes2Text, "latex_to_text", out_of_memory)
    with pytest.raises(MemoryError):
        prm800k.grade(r"\frac{1}{2}", r"\frac{1}{3}x", prm800k.VERL)


def test_verl_omnis_choice_calls_two_missing_tags_equal() -> None:
    for response, truth, value in (
        ("B", "A", 1.0), ("<answer>B</answer>", "<answer>B</answer>", 1.0),
        ("B", "<answer>B</answer>", 0.0),
        ("<answer>A</answer><answer>B</answer>", "<answer>A</answer>", 1.0),
        ("<answer>b</answer>", "<answer>B</answer>", 0.0),
    ):  # fmt: skip
        assert choice.call_sync(response=response, ground_truth=truth, compat=True) == value


POISON = [
    "10^{10^{10}}", "10^10^10", "9**9**9**9", "2**99999999", "99999999!", "9!!!!!!!!",
    "((((" * 900, "x" * 4000,
    "(x+1)**4001", "-" * 3999 + "1", "1" * 3999, "2^x^x^x^x", "((x+1)**9)**9*(x+y)**9",
    "1e400000000", "\\frac" * 700,
    "__import__('os').system('touch /tmp/owned')", "().__class__.__mro__", "lambda: 0",
    "[x for x in (1,2)]",
    "\\pi" * 1300, "9**9**9\\pi", "\\pi**9**9**9", "1/0\\pi",
    "[" * 900 + "]" * 900, "Matrix([[1]])", "oo-oo", "zoo",
    "x(y(x(y)))",
    "sqrt(" * 700,
    "\\text{" * 600, "{" * 3000 + "}" * 3000, "7 3/4" * 500, "1,234" * 700, "\\(\\[" * 900,
]  # fmt: skip


@pytest.mark.parametrize("poison", POISON, ids=lambda text: f"{text[:18]}")
@pytest.mark.parametrize("truth", ["5", r"x+\pi", r"\begin{pmatrix}1\\2\end{pmatrix}"])
def test_poison_is_refused_and_never_evaluated(poison: str, truth: str, tmp_path: Any) -> None:
    started = time.process_time()
    for graded in (
        lambda: prime.is_right(poison, truth),
        lambda: prime.is_right(truth, poison),
        lambda: geo3k.score(f"\\boxed{{{poison}}}", truth),
        lambda: unirl.same_value(poison, truth),
    ):
        assert graded() in (False, 0.0)
    # An evaluated tower would never come back; the bound only has to tell that apart.
    assert time.process_time() - started < 20.0
