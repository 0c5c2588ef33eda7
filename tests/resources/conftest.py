"""Resources whose clock a test sets."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from resources.games import MADE, Clock

from guerdon.resources import Resources


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def resources(clock: Clock) -> Iterator[Resources]:
    MADE.clear()
    with Resources(clock) as made:
        yield made
        for game in MADE:
            game.gate.set()
