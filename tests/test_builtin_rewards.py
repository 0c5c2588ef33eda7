"""Every reward that Guerdon ships passes its own check, and is offered under its name."""

import importlib
import pkgutil
from importlib.metadata import entry_points

import pytest

import guerdon.rules
from guerdon import registry
from guerdon.catalogue import documentation, options_of
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


def test_there_are_some():
    assert {"gsm8k", "math_verify"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_it_passes_its_own_check(name: str):
    definition = registry.get(name)
    if "" in options_of(definition).values():
        pytest.skip("needs options")
    (report,) = check(registry.create(definition))
    failed = [case for case in report.cases if case.verdict is Verdict.FAIL]
    assert failed == []
    assert report.needs == ()
    assert {"full", "malformed", "probe"} <= {case.kind for case in report.cases}


@pytest.mark.parametrize("name", NAMES)
def test_it_declares_a_range_and_says_what_it_scores(name: str):
    definition = registry.get(name)
    if "" not in options_of(definition).values():
        definition = registry.create(definition)
    assert definition.value_range != UNBOUNDED
    assert documentation(definition)


@pytest.mark.parametrize("name", NAMES)
def test_an_entry_point_offers_it_where_it_is_defined(name: str):
    offered = {p.name: p.value for p in entry_points(group="guerdon.rewards")}
    if "gsm8k" not in offered:
        pytest.skip("the package was installed before its entry points were written")
    assert offered.get(name) == registry.place_of(registry.get(name))
