"""Rewards for programs, with each engine that works here."""

from __future__ import annotations

from typing import Any

import pytest
from engines import working

from guerdon.resources.sandbox import Sandbox
from guerdon.rules.code.budget import sandbox_of


@pytest.fixture(params=["bubblewrap", "landlock"], scope="session")
def engine(request: pytest.FixtureRequest) -> Any:
    """The name of an engine; skipped with its reason where it is not installed."""
    working(sandbox_of(request.param), request.param)
    return request.param


@pytest.fixture(scope="session")
def any_sandbox() -> Sandbox:
    """The sandbox that rewards take by themselves; skipped where there is none."""
    return working(sandbox_of("auto"), "auto")
