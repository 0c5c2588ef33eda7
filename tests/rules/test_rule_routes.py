"""Every source that verl dispatches reaches the rule that stands for verl's scorer."""

import importlib
import pkgutil

import pytest

import guerdon.rules
from guerdon import registry
from guerdon.rules.routes import ROUTES

# verl 0.9.1, default_compute_score: sources by scorer.
VERL = {
    "gsm8k": ["openai/gsm8k"],
    "hendrycks_math": [
        "lighteval/MATH",
        "DigitalLearningGmbH/MATH-lighteval",
        "HuggingFaceH4/MATH-500",
    ],
    "math_dapo": ["math_dapo", "math", "math_dapo_reasoning", "aime24", "aime_2025"],
    "prime_math": [
        "numina_aops_forum",
        "numina_synthetic_math",
        "numina_amc_aime",
        "numina_synthetic_amc",
        "numina_cn_k12",
        "numina_olympiads",
    ],
    "geometry3k": ["hiyouga/geometry3k"],
    "search_r1": [
        "searchR1_nq",
        "searchR1_triviaqa",
        "searchR1_popqa",
        "searchR1_hotpotqa",
        "searchR1_2wikimultihopqa",
        "searchR1_musique",
        "searchR1_bamboogle",
    ],
    "code_stdio": ["codecontests", "apps", "codeforces", "taco", "livecodebench/lite"],
    "code_python": [
        "openai/openai_humaneval",
        "google-research-datasets/mbpp",
        "KodCode/KodCode-V1",
    ],
    "clevr_count": ["BUAADreamer/clevr_count_70k"],
}


@pytest.fixture(autouse=True)
def routes() -> None:
    for pattern, name in ROUTES.items():
        registry.route(pattern, name)


@pytest.mark.parametrize(
    ("source", "rule"), [(source, rule) for rule, sources in VERL.items() for source in sources]
)
def test_source_reaches_its_rule(source: str, rule: str) -> None:
    assert registry.reference_for(source) == rule


def test_every_route_names_a_rule_of_this_package() -> None:
    for info in pkgutil.walk_packages(guerdon.rules.__path__, "guerdon.rules."):
        importlib.import_module(info.name)
    for name in set(ROUTES.values()):
        assert registry.resolve(name).name == name
