"""One resource of a pool: its state, its thread, and who waits for or holds it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Literal, TypeAlias

from guerdon.resources.holder import Holder
from guerdon.resources.keeper import Keeper
from guerdon.resources.resource import Resource

State: TypeAlias = Literal[
    "starting", "checking", "held", "in use", "resetting", "idle", "stopping"
]
"""`in use`: nobody holds it any more, but calls of who did are still in it."""

BUSY = ("starting", "checking", "in use", "resetting", "stopping")
"""States that end by themselves, or it is given up."""


class Request:
    """Somebody wants a resource.

    Args:
        holder: for whom.

    Attributes:
        slot: what it got.
        future: resolves to the resource.
        withdrawn: nobody waits for it or holds it any more.
        waiting: how many wait for it.
        over: why what it got is gone; empty while it is there.
        calls: how many calls are in what it got.
        lock: guards `calls`; nothing else is locked under it.
    """

    def __init__(self, holder: Holder) -> None:
        self.holder = holder
        self.future: Future[Any] = Future()
        self.slot: Slot | None = None
        self.withdrawn = False
        self.waiting = 0
        self.over = ""
        self.calls = 0
        self.lock = threading.Lock()
        self._unused: Callable[[], None] | None = None

    def leave(self) -> None:
        """A call has ended."""
        with self.lock:
            self.calls -= 1
            then = None if self.calls else self._unused
        if then is not None:
            then()

    def when_unused(self, then: Callable[[], None]) -> bool:
        """Whether no call is in what it got; otherwise `then` follows the last one."""
        with self.lock:
            self._unused = then
            return not self.calls

    @property
    def failed(self) -> bool:
        """Whether it ended without a resource, or with one that is broken by now."""
        return self.withdrawn or (self.future.done() and self.future.exception() is not None)


class Slot:
    """A resource with its thread; the pool's lock guards all of it.

    Args:
        resource: not started.
        what: its spec, for messages.
        now: the time.
    """

    def __init__(self, resource: Resource, what: str, now: float) -> None:
        self.resource = resource
        self.keeper = Keeper(f"guerdon-{what}")
        self.state: State = "starting"
        self.since = now
        self.idle_since = now
        self.checked = now
        self.request: Request | None = None
        self.ending = False
        resource.kept_by(self.keeper)

    def enter(self, state: State, now: float) -> None:
        """Change the state. A check is no use: what was idle before it has been idle since then."""
        if state == "idle" and self.state != "checking":
            self.idle_since = now
        self.state = state
        self.since = now

    @property
    def coming(self) -> bool:
        """Whether it will be ready soon, and nobody is to get it yet."""
        free = self.request is None or self.request.withdrawn
        return free and not self.ending and self.state in ("starting", "checking")

    def told(self, now: float) -> str:
        """Its state in words."""
        took = f"for {now - self.since:.1f} s"
        if self.state == "held" and self.request is not None:
            return f"held by {self.request.holder} {took}"
        if self.state == "in use" and self.request is not None:
            return f"used by a call that outlives its {self.request.holder} {took}"
        return f"{self.state} {took}"
