"""Every reward that Guerdon ships passes its own check, and is offered under its name."""

import importlib
import pkgutil
import tomllib
from pathlib import Path

import pytest

import guerdon.rules
from guerdon import registry
from guerdon.catalogue import documentation, options_of, with_defaults
from guerdon.checking import Verdict, check
from guerdon.outcome import UNBOUNDED


def shipped() -> list[str]:
    """Names of the rewards that the modules of `guerdon.rules` register."""
    for module in pkgutil.walk_packages(guerdon.rules.__path__, "guerdon.rules."):
        importlib.import_module(module.name)
    return [
        name
        for name in registry.names()
        if registry.place_of(registry.get(name)).startswith("guerdon.rules.")
    ]


NAMES = shipped()
PROJECT = Path(__file__).parents[1] / "pyproject.toml"
ENGINES = {"chess_puzzle": "chess", "ocr": "rapidocr", "scienceworld": "scienceworld"}
"""What a rule needs beyond the extras of the tests."""


def test_there_are_some():
    assert {"gsm8k", "math_verify"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_it_passes_its_own_check(name: str):
    definition = registry.get(name)
    if "" in options_of(definition).values():
        pytest.skip("needs options")
    if name in ENGINES:
        pytest.importorskip(ENGINES[name], reason="needs the extra of its engine")
    (report,) = check(registry.create(definition))
    failed = [case for case in report.cases if case.verdict is Verdict.FAIL]
    assert failed == []
    assert report.needs == ()
    assert {"full", "malformed", "probe"} <= {case.kind for case in report.cases}


@pytest.mark.parametrize("name", NAMES)
def test_it_declares_a_range_and_says_what_it_scores(name: str):
    definition = registry.get(name)
    assert with_defaults(definition).value_range != UNBOUNDED
    assert documentation(definition)


@pytest.mark.parametrize("name", NAMES)
def test_an_entry_point_offers_it_where_it_is_defined(name: str):
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    offered = project["entry-points"]["guerdon.rewards"]
    assert offered.get(name) == registry.place_of(registry.get(name))
