"""Fixtures of the math tests: helper modules, the reference under a guard, clean memos."""

from __future__ import annotations

import importlib.util
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("math_verify", reason="needs the extra 'math'")

from guerdon.rules.math import engine, verdict

HERE = Path(__file__).parent
FULL = int(os.environ.get("GUERDON_MATH_FULL", "0"))
"""How many times as many generated cases to run; 0 is the short default."""
GUARD_SECONDS = 20
"""A generated pair on which the reference itself runs longer says nothing and is skipped."""


class ReferenceHangs(BaseException):
    """The reference has no time limit; not an Exception, so that it cannot swallow this."""


def load(name: str) -> ModuleType:
    """A helper module beside this file."""
    known = sys.modules.get(f"math_tests_{name}")
    if known is not None:
        return known
    spec = importlib.util.spec_from_file_location(f"math_tests_{name}", HERE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def guarded(function: Callable[[], Any]) -> Any:
    """What a function returns; `ReferenceHangs` where it does not."""

    def ring(*_: object) -> None:
        raise ReferenceHangs

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(GUARD_SECONDS)
    try:
        return function()
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="session")
def generated() -> ModuleType:
    """The generator of pairs and responses."""
    return load("generated")


@pytest.fixture(scope="session")
def rebuilt() -> ModuleType:
    """The builder of SymPy objects from terms."""
    return load("rebuilt")


@pytest.fixture(scope="session")
def poison() -> ModuleType:
    """The list of hostile inputs."""
    return load("poison")


@pytest.fixture(scope="session")
def scale() -> int:
    """How many times the default number of generated cases to run."""
    return max(1, FULL)


@pytest.fixture(scope="session")
def guard() -> Callable[[Callable[[], Any]], Any]:
    """Runs a function of the reference under a guard."""
    return guarded


@pytest.fixture(autouse=True)
def _quiet_and_cold() -> Iterator[None]:
    """No memo survives a test, and SymPy's warnings about odd inputs stay unheard."""
    verdict.clear()
    engine.clear()
    loggers = [logging.getLogger(name) for name in ("math_verify.parser", "math_verify.grader")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)
