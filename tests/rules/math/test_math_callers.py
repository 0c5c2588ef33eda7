"""Math-Verify as other systems call it, against the library called in their words."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from guerdon.errors import BadInput, InvalidReward, MissingExtra
from guerdon.rules.math import callers, math_verify, packages
from guerdon.rules.math.callers import CALLERS, verdict
from guerdon.rules.math.mathverify import response_after

RECORDER = Path(__file__).parents[1] / "compat" / "record_verl.py"
PAIRS = 250


def pairs() -> list[tuple[str, str]]:
    """Golds and responses from the fragments of the verl record."""
    spec = importlib.util.spec_from_file_location("record_verl", RECORDER)
    assert spec is not None
    assert spec.loader is not None
    fragments: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fragments)
    rng = random.Random(3)
    golds = [fragments.atom(rng) for _ in range(PAIRS)]
    return [(gold, fragments.response(rng, gold)) for gold in golds if gold.strip()]


def verl_says(gold: str, response: str) -> bool:
    """The arguments of verl 0.9.1, `reward_score/math_verify.py`, the limits of time left out."""
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

    wanted = parse(f"\\boxed{{{gold}}}", (LatexExtractionConfig(),), parsing_timeout=None)
    both = (ExprExtractionConfig(), LatexExtractionConfig())
    given = parse(response, both, parsing_timeout=None)
    return any(verify(g, p, timeout_seconds=None) for g in wanted for p in given)


def unirl_says(gold: str, response: str) -> bool:
    """The arguments of UniRL 0.1.0, `reward/local/mathverify.py`."""
    from math_verify import parse, verify

    wanted = parse(f"\\boxed{{{gold.strip()}}}", parsing_timeout=None)
    return verify(wanted, parse(response, parsing_timeout=None), timeout_seconds=None)


def agents_say(gold: str, response: str) -> bool:
    """The arguments of AReaL 1.0.4's `math_reward_fn`: the response stands first."""
    from math_verify import parse, verify

    given = parse(response, parsing_timeout=None)
    return verify(given, parse(gold, parsing_timeout=None), timeout_seconds=None)


@pytest.mark.parametrize(
    ("system", "says"), [("verl", verl_says), ("unirl", unirl_says), ("areal_agent", agents_say)]
)
def test_each_system_gets_its_own_verdict(system: str, says: Any) -> None:
    reward = math_verify.bind(compat=system)
    right = 0
    for gold, response in pairs():
        wanted = bool(says(gold, response))
        assert reward.call_sync(response=response, ground_truth=gold) == float(wanted), (
            gold,
            response,
        )
        right += wanted
    assert PAIRS // 10 < right < PAIRS


def test_the_systems_differ_where_the_page_says() -> None:
    reads = {system: verdict(system, "60", "It is 59 or 60.") for system in CALLERS}
    assert reads == dict.fromkeys(CALLERS, True)
    assert math_verify.call_sync(response="It is 59 or 60.", ground_truth="60") == 0.0
    assert verdict("verl", "2x+8", r"\boxed{y=2x+8}")
    assert not verdict("areal_agent", "2x+8", r"\boxed{y=2x+8}")


@pytest.mark.parametrize(
    ("response", "ends", "rest"),
    [
        ("a</think>b", ("</think>",), "b"), ("a</think>b</think>c", ("</think>",), "c"),
        ("a", ("</think>",), None), ("a", (), "a"), ("", ("</think>",), None),
        ("a</r>b</think>c", ("</r>", "</think>"), "b</think>c"),
        ("a</think>c", ("</r>", "</think>"), "c"), ("a</think>", ("</think>",), ""),
    ],
)  # fmt: skip
def test_what_follows_the_reasoning(response: str, ends: Any, rest: str | None) -> None:
    assert response_after(response, ends) == rest


def test_reasoning_that_does_not_end_scores_nothing_but_its_gold_is_read() -> None:
    reward = math_verify.bind(after="</think>")
    boxed = r"\boxed{5}"
    assert reward.call_sync(response=f"x</think>{boxed}", ground_truth="5") == 1.0
    assert reward.call_sync(response=f"{boxed}</think>no", ground_truth="5") == 0.0
    assert reward.call_sync(response=boxed, ground_truth="5") == 0.0
    with pytest.raises(BadInput):
        reward.call_sync(response=boxed, ground_truth=" ")


@pytest.mark.parametrize(
    "options",
    [
        {"compat": "trl"}, {"compat": True}, {"compat": "verl", "extract": "boxed"},
        {"compat": "verl", "after": "</think>"}, {"after": ""}, {"after": ["</think>", ""]},
    ],
)  # fmt: skip
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidReward):
        math_verify.bind(**options)


@pytest.fixture
def without_the_library(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An installation that lacks math-verify."""
    installed = importlib.metadata.version

    def version(name: str) -> str:
        if name == "math-verify":
            raise importlib.metadata.PackageNotFoundError(name)
        return installed(name)

    packages.versions.cache_clear()
    callers._library.cache_clear()
    monkeypatch.setattr(importlib.metadata, "version", version)
    yield
    packages.versions.cache_clear()
    callers._library.cache_clear()


@pytest.mark.usefixtures("without_the_library")
@pytest.mark.parametrize("system", CALLERS)
def test_a_library_that_is_not_installed_is_no_wrong_answer(system: str) -> None:
    with pytest.raises(MissingExtra, match="math-verify"):
        verdict(system, "60", "60")


@pytest.mark.parametrize("error", [MemoryError(), ImportError("antlr4"), BadInput("unusable")])
@pytest.mark.parametrize("system", CALLERS)
def test_what_says_nothing_about_the_answer_is_raised(
    monkeypatch: pytest.MonkeyPatch, system: str, error: Exception
) -> None:
    monkeypatch.setattr(callers, "_library", lambda: _Broken(error))
    with pytest.raises(type(error)):
        verdict(system, "60", "60")


@pytest.mark.parametrize("system", CALLERS)
def test_what_the_library_stumbles_over_is_wrong(
    monkeypatch: pytest.MonkeyPatch, system: str
) -> None:
    monkeypatch.setattr(callers, "_library", lambda: _Broken(RecursionError()))
    assert verdict(system, "60", "60") is False


class _Broken:
    """Math-Verify, of which every call raises."""

    latex = number = None

    def __init__(self, error: Exception) -> None:
        self._error = error

    def parse(self, *_: Any) -> list[Any]:
        raise self._error

    same = parse
