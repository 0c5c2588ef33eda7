"""A resource that counts what happens to it, and what tests of contexts and pools do with it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from guerdon.outcome import EMPTY
from guerdon.resources import Context, Pool, Resource, Resources, Spec

LONG = 20.0
"""Seconds after which something that must happen counts as not happening."""

SOON = 0.05


class Game(Resource):
    """Counts what happens to it."""

    made: list[Game]

    def __init__(self, spec: GameSpec) -> None:
        self.spec = spec
        self.level = spec.level
        self.events: list[str] = []
        self.healthy = True
        self.gate = threading.Event()
        self.number = len(MADE)
        MADE.append(self)

    def start(self) -> None:
        self.events.append("start")
        if self.spec.fails:
            raise OSError("no display")
        if self.spec.hangs == "start":
            assert self.gate.wait(LONG)

    def reset(self) -> bool:
        self.events.append("reset")
        if self.spec.hangs == "reset":
            assert self.gate.wait(LONG)
        if self.spec.reset == "raises":
            raise OSError("stuck")
        self.level = self.spec.level
        return self.spec.reset == "works"

    def check(self) -> bool:
        self.events.append("check")
        return self.healthy

    def stop(self) -> None:
        self.events.append("stop")


class GameSpec(Spec[Game], frozen=True, kw_only=True):
    level: int = 1
    options: Mapping[str, Any] = EMPTY
    fails: bool = False
    hangs: str = ""
    reset: str = "works"

    def make(self) -> Game:
        return Game(self)


MADE: list[Game] = []
ONE = Pool(max=1)


class Clock:
    """Time that a test sets."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def until(condition: Any) -> None:
    """Wait for something that another thread does; how long decides nothing."""
    pause = threading.Event()
    for _ in range(int(LONG / 0.002)):
        if condition():
            return
        pause.wait(0.002)
    raise AssertionError("it did not happen")


def acquire(context: Context, spec: Spec[Game], **options: Any) -> Game:
    """The game behind the handle, which the test may look at when the rollout has ended."""
    return MADE[context.acquire_resource_sync(spec, **options).number]


async def acquire_async(context: Context, spec: Spec[Game], **options: Any) -> Game:
    return MADE[(await context.acquire_resource(spec, **options)).number]


def states(resources: Resources, spec: Spec[Any]) -> list[str]:
    return resources.pool(spec, "local").states()
