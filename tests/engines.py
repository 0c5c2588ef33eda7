"""Sandbox engines for tests: skipped where one is not installed, never where one leaks."""

from __future__ import annotations

import os
from typing import get_args

import pytest

from guerdon.errors import Unavailable
from guerdon.resources.sandbox import Sandbox
from guerdon.resources.sandbox.probe import EngineName, Leaky

REQUIRED = "GUERDON_REQUIRE_ENGINES"
"""Names of engines, with commas, that have to work: their tests fail instead of being skipped."""


def working(sandbox: Sandbox, name: str) -> Sandbox:
    """The sandbox, if its engine works here.

    Args:
        sandbox: not probed yet.
        name: of its engine.
    """
    required = [word.strip() for word in os.environ.get(REQUIRED, "").split(",") if word.strip()]
    unknown = set(required) - set(get_args(EngineName))
    assert not unknown, f"{REQUIRED} names no engine: {unknown}"
    try:
        _ = sandbox.engine
    except Leaky as error:
        pytest.fail(str(error))
    except Unavailable as error:
        if name in required or (name == "auto" and required):
            pytest.fail(f"{REQUIRED} asks for {name}: {error}")
        pytest.skip(str(error)[:300])
    return sandbox
