"""Every built-in rule passes its own fixtures and survives anything that a model can write."""

import importlib
import pkgutil
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

import guerdon.rules
from guerdon.errors import Blame, FailureKind
from guerdon.fixture import Fixture
from guerdon.injection import Call, MissingArgument
from guerdon.outcome import Failure, Outcome, Score, failure, failure_from, seal
from guerdon.reward import BaseReward, Ready
from guerdon.sample import Sample

# What runs code, looks at pictures or needs a live environment has suites of its own.
OTHERS = ("guerdon.rules.agent", "guerdon.rules.code", "guerdon.rules.visual")


def rules() -> Iterator[BaseReward]:
    """All rewards that the modules of `guerdon.rules` define, made with their default options."""
    seen: set[str] = set()
    prefix = guerdon.rules.__name__ + "."
    for info in pkgutil.walk_packages(guerdon.rules.__path__, prefix):
        if info.name.startswith(OTHERS):
            continue
        module = importlib.import_module(info.name)
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, BaseReward):
                own = value.__dict__.get("auto_register", True)
                if value.__module__ != info.name or not hasattr(value, "call") or not own:
                    continue
                value = value()
            if not isinstance(value, BaseReward) or value.defined_by.__module__ != info.name:
                continue
            if value.name not in seen:
                seen.add(value.name)
                yield value


RULES = {rule.name: rule for rule in rules()}
KINDS = ("full", "zero", "malformed", "deterministic", "metamorphic")


def outcome_of(rule: BaseReward, sample: Sample) -> Outcome:
    """What the rule gives, without service or backend."""
    arguments: Any = rule.parameters.binder(Call(), rule.bound_options()).one(sample)
    if isinstance(arguments, MissingArgument):
        return failure(FailureKind.BAD_INPUT, str(arguments), Blame.DATA)
    try:
        if rule.prepare is not None:
            arguments = rule.prepare(**arguments)
            if isinstance(arguments, Ready):
                return seal(arguments.result, rule.value_range)
            hash(tuple(arguments.values()))
        return seal(rule.call(**arguments), rule.value_range)
    except Exception as error:
        return failure_from(error)


def cases() -> Iterator[Any]:
    for rule in RULES.values():
        for fixture in rule.fixtures:
            yield pytest.param(rule, fixture, id=f"{rule.name}-{fixture.kind}-{fixture.name}")


@pytest.mark.parametrize(("rule", "fixture"), list(cases()))
def test_fixture(rule: BaseReward, fixture: Fixture) -> None:
    outcomes = [outcome_of(rule, fixture.sample) for _ in range(3)]
    assert fixture.mismatch(outcomes[0]) is None
    assert outcomes[0] == outcomes[1] == outcomes[2]


METAMORPHIC = ("noise around", "whitespace", "equivalent form", "every option", "injected")
"""Changes of a case that each rule must show; the name of such a fixture begins with its kind."""

_TOKENS = "token ids are counted, and no text is read"
NO_MEANING: dict[tuple[str, str], str] = {
    ("length", "noise around"): "every word counts, so that noise is what is measured",
    ("length", "every option"): "a length has no options",
    ("length", "injected"): "no word is read as a statement",
    ("overlong", "noise around"): _TOKENS,
    ("overlong", "whitespace"): _TOKENS,
    ("overlong", "every option"): _TOKENS,
    ("cosine_length", "noise around"): _TOKENS,
    ("cosine_length", "whitespace"): _TOKENS,
    ("cosine_length", "every option"): _TOKENS,
    ("repetition", "every option"): "there is no answer to offer several of",
}
"""Kinds that mean nothing for a rule, and why."""


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
def test_every_rule_ships_all_kinds_of_fixtures(rule: BaseReward) -> None:
    assert {*KINDS} - {fixture.kind for fixture in rule.fixtures} == set()
    names = [(fixture.kind, fixture.name) for fixture in rule.fixtures]
    assert len(set(names)) == len(names)
    low, high = rule.value_range
    values = {kind: [f.expect for f in rule.fixtures if f.kind == kind] for kind in KINDS}
    if rule.name not in ("rlla", "tool_calls", "mmk12"):  # they name partial credit there too
        assert set(values["full"]) == {high}
    assert high in values["full"]
    assert all(isinstance(value, float) and value < (low + high) / 2 for value in values["zero"])
    if rule.name != "repetition":  # which comes as near to its lower end as the text is long
        assert low in values["zero"]


@pytest.mark.parametrize("kind", METAMORPHIC)
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
def test_every_rule_ships_the_metamorphic_kinds(rule: BaseReward, kind: str) -> None:
    names = [fixture.name for fixture in rule.fixtures if fixture.kind == "metamorphic"]
    shown = any(name.startswith(kind) for name in names)
    assert shown != ((rule.name, kind) in NO_MEANING)


def test_only_rules_that_exist_are_exempt() -> None:
    assert {name for name, _ in NO_MEANING} <= RULES.keys()
    assert {kind for _, kind in NO_MEANING} <= {*METAMORPHIC}


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
def test_every_rule_documents_range_source_and_example(rule: BaseReward) -> None:
    low, high = rule.value_range
    assert low < high < float("inf")
    assert rule.description.endswith((".", ":"))
    said = rule.defined_by.__doc__ or ""
    assert ">>>" in said
    assert re.search(r"\b[Rr]ange\b", said)
    assert re.search(r"\bSources?\b", said)


MEGABYTES = 10_000_000
HOSTILE = {
    "nothing": "",
    "NUL": "\0" * 1000,
    "lone surrogates": "\ud800\udfff" * 500,
    "letters": "a" * MEGABYTES,
    "blanks": " " * MEGABYTES,
    "newlines": "\n" * MEGABYTES,
    "digits": "7" * MEGABYTES,
    "open braces": "\\boxed{" + "{" * MEGABYTES,
    "boxes": "\\boxed{" * (MEGABYTES // 7),
    "open brackets": "[" * MEGABYTES,
    "open tags": "<think>" * (MEGABYTES // 7),
    "answer tags": "<answer></answer>" * (MEGABYTES // 17),
    "open answers": "<answer>" * (MEGABYTES // 8),
    "tool calls": "<tool_call>\n" * (MEGABYTES // 12),
    "closed tool calls": '<tool_call>{"name":"a"}</tool_call>' * (MEGABYTES // 35),
    "quotes": '"' * MEGABYTES,
    "backslashes": "\\" * MEGABYTES,
    "words": "the a an " * (MEGABYTES // 9),
    "markers": "Answer: " * (MEGABYTES // 8),
    "objects": '{"a":' * (MEGABYTES // 5),
    "fences": "```json\n" * (MEGABYTES // 8),
    "dots": ". " * (MEGABYTES // 2),
    "equals": "=" * MEGABYTES,
    "fractions": "\\frac" * (MEGABYTES // 5),
}
TRUTHS: dict[str, object] = {
    "countdown": {"target": 3, "numbers": [1, 2]},
    "multiple_choice": "B",
    "gsm8k": "18",
    "trajectory": "18",
    "clevr_count": "18",
    "json_schema": {"type": "object"},
    "tool_calls": [{"name": "look", "arguments": {"at": 1}}],
    "function_calls": [{"look": {"at": [1]}}],
}


# The same rules with the options that take other ways through the text.
VARIANTS: dict[str, BaseReward] = {
    **RULES,
    **{
        f"{name}-compat": rule.bind(compat=True)
        for name, rule in RULES.items()
        if "compat" in (rule.options or rule.parameters.options)
        and name not in ("gsm8k", "rlla", "math_verify")
    },
    "math_verify-verl": RULES["math_verify"].bind(compat="verl"),
    "math_verify-after": RULES["math_verify"].bind(after="</think>"),
    "gsm8k-strict-compat": RULES["gsm8k"].bind(method="strict", compat=True),
    "gsm8k-flexible-compat": RULES["gsm8k"].bind(method="flexible", compat=True),
    "gsm8k-unirl": RULES["gsm8k"].bind(compat="unirl"),
    "gsm8k-flexible": RULES["gsm8k"].bind(method="flexible"),
    "geometry3k-areal": RULES["geometry3k"].bind(compat="areal"),
    "format-count": RULES["format"].bind(mode="count"),
    "json_valid-whole": RULES["json_valid"].bind(where="whole"),
    "qa_f1-whole": RULES["qa_f1"].bind(where="whole"),
    "repetition-chars": RULES["repetition"].bind(unit="chars"),
    "search_r1-substring": RULES["search_r1"].bind(substring=True),
    "tool_calls-graded": RULES["tool_calls"].bind(mode="graded"),
    "trajectory-lines": RULES["trajectory"].bind(aggregate="mean", split="line"),
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.parametrize("name", VARIANTS)
def test_hostile_text_gets_a_score_in_linear_time(name: str, text: str) -> None:
    rule = VARIANTS[name]
    if name not in RULES:
        # A megabyte shows a quadratic scan as well; ten are for what runs by default.
        text = text[: len(text) // 10]
    sample = Sample(
        prompt="?",
        response=text,
        ground_truth=TRUTHS.get(rule.name, "truth"),
        response_token_ids=[1, 2, 3],
        response_mask=[1, 1, 1],
        metadata={"correct": True},
    )
    started = time.process_time()
    if rule.prepare is not None:
        # What comes after it runs in a worker that the deadline ends.
        arguments: Any = rule.parameters.binder(Call(), rule.bound_options()).one(sample)
        assert rule.deadline is not None
        assert isinstance(rule.prepare(**arguments), Ready | dict)
    else:
        outcome = outcome_of(rule, sample)
        assert isinstance(outcome, Score), outcome
    # A quadratic scan takes many minutes; the bound only has to tell those apart.
    assert time.process_time() - started < 30.0


ODD_TRUTHS: list[object] = [
    None, True, 3.5, float("nan"), [], {}, [[]], {"a": {}}, b"18", "\ud800", object(), 10**5000,
]  # fmt: skip


@pytest.mark.parametrize("truth", ODD_TRUTHS, ids=lambda truth: type(truth).__name__)
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
def test_an_odd_ground_truth_is_the_datas_fault_or_does_not_matter(
    rule: BaseReward, truth: object
) -> None:
    sample = Sample(prompt="?", response="Answer: B", ground_truth=truth)
    outcome = outcome_of(rule, sample)
    if isinstance(outcome, Failure):
        assert outcome.kind == "bad_input", outcome
        assert outcome.blame == "data"
