"""The resources of one spec in one process: lent one by one, reset, checked, stopped.

Nothing here blocks: starting, checking, resetting and stopping happen on the thread of each
resource, which then calls back. Requests are served in the order in which they came.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from guerdon.errors import ConfigError, Unavailable
from guerdon.resources.holder import Held, Holder, listed
from guerdon.resources.resource import Resource
from guerdon.resources.slot import BUSY, Request, Slot
from guerdon.resources.spec import Backend, Spec

logger = logging.getLogger("guerdon.resources")


class ResourcePool:
    """Lends the resources of one spec.

    Args:
        spec: what they are made from.
        backend: where they live.
        clock: `time.monotonic`, or what a test sets.
    """

    def __init__(self, spec: Spec[Any], backend: Backend, clock: Callable[[], float]) -> None:
        self.spec = spec
        self.backend: Backend = backend
        self._clock = clock
        self._lock = threading.RLock()
        self._slots: list[Slot] = []
        self._queue: deque[Request] = deque()
        self._closed = False
        self._asked = clock()
        self.empty = threading.Event()
        self.empty.set()

    # Lending.

    def touch(self) -> None:
        """Somebody is about to ask."""
        self._asked = self._clock()

    def request(self, holder: Holder) -> Request:
        """Ask for a resource; the request's future resolves to it.

        Raises:
            Unavailable: the pool is closed.
        """
        request = Request(holder)
        with self._lock:
            if self._closed:
                raise Unavailable("the resources of this process are closed", retryable=False)
            self._queue.append(request)
            self._serve()
            self._fill()
        return request

    def give_back(self, request: Request, *, end: bool = False) -> None:
        """Nobody wants what was asked for: take it out of the queue, or take the resource back.

        Args:
            request: may be given back before.
            end: stop the resource instead of resetting it.
        """
        with self._lock:
            if request.withdrawn:
                return
            request.withdrawn = True
            if request in self._queue:
                self._queue.remove(request)
                request.future.set_exception(Unavailable("nobody waits for it any more"))
            slot = request.slot
            if slot is None or slot.state != "held" or slot.request is not request:
                return
            slot.enter("in use", self._clock())
            if request.when_unused(lambda: self._unused(slot, end)):
                self._unused(slot, end)
            else:
                slot.keeper.submit(slot.resource.interrupt, self._interrupted)

    def _unused(self, slot: Slot, end: bool) -> None:
        """The last call of who held it has ended: reset it, or stop what is not wanted."""
        with self._lock:
            if slot.ending:
                return
            if end or slot not in self._slots:
                self._stop(slot)
                return
            slot.enter("resetting", self._clock())
            slot.keeper.submit(slot.resource.reset, lambda ok, error: self._reset(slot, ok, error))

    def _hurry(self, slot: Slot) -> None:
        """Let a start end that may take as long as a server loads its model."""
        try:
            slot.resource.interrupt()
        except Exception as error:
            self._interrupted(None, error)

    def _interrupted(self, _: object, error: BaseException | None) -> None:
        if error is not None:
            logger.error("%s: its calls cannot be interrupted: %s", self.spec, error)

    def _serve(self) -> None:
        """Give what is free to who waits longest."""
        while self._queue:
            idle = next((slot for slot in reversed(self._slots) if slot.state == "idle"), None)
            coming = next((slot for slot in self._slots if slot.coming), None)
            if idle is not None:
                self._check(idle, self._queue.popleft())
            elif coming is not None:
                self._assign(coming, self._queue.popleft())
            elif len(self._slots) < self.spec.pool.max:
                self._make(self._queue.popleft())
            else:
                return

    def _fill(self) -> None:
        """Keep as many ready as the pool says."""
        pool = self.spec.pool
        while self._living < pool.min and len(self._slots) < pool.max and not self._closed:
            if not self._make(None):
                return

    @property
    def _living(self) -> int:
        """How many are not about to end."""
        return sum(not slot.ending for slot in self._slots)

    def _make(self, request: Request | None) -> bool:
        """Make a resource and start it; whether that could be tried."""
        try:
            slot = Slot(self._made(), str(self.spec), self._clock())
        except Exception as error:
            self._failed(request, error)
            return False
        self._slots.append(slot)
        self.empty.clear()
        self._assign(slot, request)
        slot.keeper.submit(slot.resource.start, lambda _, error: self._started(slot, error))
        return True

    def _made(self) -> Resource:
        resource: object = self.spec.make()
        if not isinstance(resource, Resource):
            kind = type(self.spec).__name__
            raise ConfigError(f"{kind}.make gave a {type(resource).__name__}, not a Resource")
        return resource

    def _failed(self, request: Request | None, error: BaseException) -> None:
        """Say that a resource could not be made or started."""
        if request is not None:
            request.future.set_exception(error)
        else:
            logger.error("%s: %s", self.spec, error)

    def _check(self, slot: Slot, request: Request | None) -> None:
        self._assign(slot, request)
        slot.enter("checking", self._clock())
        slot.keeper.submit(slot.resource.check, lambda ok, error: self._checked(slot, ok, error))

    def _assign(self, slot: Slot, request: Request | None) -> None:
        slot.request = request
        if request is not None:
            request.slot = slot

    # What the threads of the resources say.

    def _started(self, slot: Slot, error: BaseException | None) -> None:
        with self._lock:
            if slot not in self._slots:
                self._stop(slot)
            elif error is None:
                self._hand_out(slot)
            else:
                request, slot.request = slot.request, None
                self._stop(slot)
                if isinstance(error, OSError):  # the machine's fault, and may pass
                    error = Unavailable(f"{self.spec} does not start: {error}")
                self._failed(request, error)
                self._serve()

    def _checked(self, slot: Slot, ok: object, error: BaseException | None) -> None:
        with self._lock:
            slot.checked = self._clock()
            if slot not in self._slots:
                self._stop(slot)
            elif error is None and ok:
                self._hand_out(slot)
            else:
                logger.warning("%s is not healthy and is replaced: %s", self.spec, error or "")
                self._put_back(slot)
                self._stop(slot)
                self._serve()

    def _reset(self, slot: Slot, ok: object, error: BaseException | None) -> None:
        with self._lock:
            if error is not None:
                logger.warning("%s cannot be reset and is stopped: %s", self.spec, error)
            slot.request = None
            if slot not in self._slots or error is not None or not ok:
                self._stop(slot)
            elif not slot.ending:
                slot.enter("idle", self._clock())
            self._serve()

    def _hand_out(self, slot: Slot) -> None:
        request = slot.request
        if slot.ending:
            return
        if request is None or request.withdrawn:
            slot.request = None
            slot.enter("idle", self._clock())
            self._serve()
            return
        slot.enter("held", self._clock())
        request.future.set_result(slot.resource)

    def _put_back(self, slot: Slot) -> None:
        """Who was to get this resource waits for another one, before all others."""
        request, slot.request = slot.request, None
        if request is not None and not request.withdrawn:
            request.slot = None
            self._queue.appendleft(request)

    def _stop(self, slot: Slot) -> None:
        """Stop a resource after what its thread does now; its place is taken until then."""
        if slot.ending:
            return
        slot.ending = True
        slot.enter("stopping", self._clock())
        slot.keeper.submit(slot.resource.stop, lambda _, error: self._stopped(slot, error))
        slot.keeper.dismiss()

    def _stopped(self, slot: Slot, error: BaseException | None) -> None:
        if error is not None:
            logger.error("%s did not stop in order: %s", self.spec, error)
        with self._lock:
            self._remove(slot)

    def _remove(self, slot: Slot) -> None:
        if slot in self._slots:
            self._slots.remove(slot)
        if not self._slots:
            self.empty.set()
        if not self._closed:
            self._serve()

    # Housekeeping.

    def tidy(self) -> None:
        """Stop what lay idle too long, check what lies idle, give up what hangs, keep `min`."""
        now, pool = self._clock(), self.spec.pool
        with self._lock:
            for slot in list(self._slots):
                if slot.state in BUSY and now - slot.since > pool.patience_seconds:
                    self._give_up(slot, now)
                elif slot.state != "idle":
                    self._look_after(slot, now)
                elif now - slot.idle_since > pool.idle_seconds and self._living > pool.min:
                    self._stop(slot)
                elif now - max(slot.since, slot.checked) > pool.check_seconds:
                    self._check(slot, None)
            self._fill()

    @property
    def forgotten(self) -> bool:
        """Whether it has nothing, and nobody asked for as long as an idle resource is kept."""
        with self._lock:
            unused = not self._slots and not self._queue
            return unused and self._clock() - self._asked > self.spec.pool.idle_seconds

    def _look_after(self, slot: Slot, now: float) -> None:
        """Check what everybody shares: it is handed out once, and held until the end."""
        request = slot.request
        shared = slot.state == "held" and request is not None and request.holder.scope == "global"
        if shared and now - slot.checked > self.spec.pool.check_seconds:
            slot.checked = now
            slot.keeper.submit(slot.resource.check, lambda ok, error: self._still(slot, ok, error))

    def _still(self, slot: Slot, ok: object, error: BaseException | None) -> None:
        """Replace what everybody shares once it is broken: who asks next gets a new one."""
        with self._lock:
            if slot.ending or (error is None and ok):
                return
            logger.error("%s is not healthy and is given up: %s", self.spec, error or "")
            if slot.request is not None:
                slot.request.withdrawn = True
                slot.request.over = "broke and was given up: acquire it again"
            self._stop(slot)

    def _give_up(self, slot: Slot, now: float) -> None:
        """Forget a resource whose thread hangs."""
        logger.error("%s is %s: it is given up", self.spec, slot.told(now))
        request = slot.request
        if slot.state == "starting" and request is not None:
            slot.request = None
            if not request.future.done():
                told = f"{self.spec} did not start within {self.spec.pool.patience_seconds:g} s"
                request.future.set_exception(Unavailable(told))
        elif slot.state == "checking":
            self._put_back(slot)
        self._remove(slot)

    # What it says.

    def too_late(self, request: Request, timeout: float) -> Unavailable:
        """The error of who waited too long: who holds what."""
        now = self._clock()
        with self._lock:
            states = [slot.told(now) for slot in self._slots]
            before = self._queue.index(request) if request in self._queue else 0
        waits = f"; {before} requests came before" if before else ""
        return Unavailable(
            f"no {self.spec} for {request.holder} within {timeout:g} s: {len(states)} of at most "
            f"{self.spec.pool.max} exist: {listed(states)}{waits}. Close contexts that are done, "
            "or raise the timeout or the pool's max"
        )

    def held(self) -> list[Held]:
        """What is held now."""
        now = self._clock()
        with self._lock:
            return [
                Held(str(self.spec), slot.request.holder, now - slot.since)
                for slot in self._slots
                if slot.state == "held" and slot.request is not None
            ]

    @property
    def waiting(self) -> int:
        """How many requests wait for a free resource."""
        with self._lock:
            return len(self._queue)

    def states(self) -> list[str]:
        """The state of each resource."""
        with self._lock:
            return [slot.state for slot in self._slots]

    def close(self) -> None:
        """Stop all resources and refuse all requests; `empty` is set when all have stopped."""
        with self._lock:
            self._closed = True
            waiting, self._queue = list(self._queue), deque()
            for slot in list(self._slots):
                if slot.request is not None:
                    slot.request.over = "was stopped with all resources of the process"
                    if not slot.request.future.done():
                        waiting.append(slot.request)
                slot.request = None
                if slot.state == "starting":
                    self._hurry(slot)
                self._stop(slot)
        for request in waiting:
            request.future.set_exception(Unavailable("the resources of this process are closed"))
