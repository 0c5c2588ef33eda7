"""A sandbox for each engine that works here."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from engines import working

from guerdon.resources.sandbox import Limits, Sandbox


@pytest.fixture(params=["bubblewrap", "landlock"], scope="session")
def sandbox(request: pytest.FixtureRequest) -> Sandbox:
    """One engine; skipped with its reason where it is not installed."""
    made = Sandbox(request.param, Limits(wall_seconds=20, memory_bytes=256 << 20))
    return working(made, request.param)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder of the host that anybody may write to; pytest locks its own for others."""
    with tempfile.TemporaryDirectory(prefix="guerdon-open-") as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)
