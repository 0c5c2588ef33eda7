"""All resources of a process: one pool per spec, what everybody shares, and their end."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from guerdon.errors import Unavailable
from guerdon.resources.holder import Held, Holder, listed
from guerdon.resources.pool import ResourcePool
from guerdon.resources.shelf import Shelf
from guerdon.resources.spec import Backend, Spec

logger = logging.getLogger("guerdon.resources")

TIDY_SECONDS = 1.0
"""How often idle resources are looked at."""

CLOSE_SECONDS = 10.0
"""How long the end of a process waits for its resources to stop."""


class PoolStatus(msgspec.Struct, frozen=True):
    """How one pool is doing.

    Attributes:
        spec: kind and name.
        states: how many resources are in each state, such as `held` or `idle`.
        waiting: how many requests wait for a free one.
        most: at one time.
    """

    spec: str
    states: Mapping[str, int]
    waiting: int
    most: int


class Resources:
    """Holds pools; contexts acquire from it.

    Args:
        clock: what measures time; a test sets its own and calls `tidy` by itself.

    Example:
        >>> from guerdon.resources import Context, FolderSpec
        >>> with Resources() as resources, Context("r1", resources=resources) as context:
        ...     folder = context.acquire_resource_sync(FolderSpec())
        ...     [str(held.holder) for held in resources.held()]
        ["rollout 'r1'"]
    """

    def __init__(self, clock: Callable[[], float] | None = None) -> None:
        self._clock = clock or time.monotonic
        self._keeps_house = clock is None
        self._lock = threading.Lock()
        self._pools: dict[tuple[type[Spec[Any]], str, Backend], ResourcePool] = {}
        self._process = os.getpid()
        self._closing = threading.Event()
        self._housekeeper: threading.Thread | None = None
        self.shared = Shelf(Holder("global"))

    def pool(self, spec: Spec[Any], backend: Backend) -> ResourcePool:
        """The pool of a spec.

        Raises:
            ConfigError: the spec holds something else than plain data.
            Unavailable: in a forked child, where the threads of these resources are not.
        """
        if os.getpid() != self._process:
            raise Unavailable(
                f"these resources belong to process {self._process}, from which this one was "
                "forked: make a context of its own here",
                retryable=False,
            )
        key = (type(spec), spec.key, backend)  # a notebook defines a class of one name again
        with self._lock:
            pool = self._pools.get(key)
            if pool is None:
                pool = self._pools[key] = ResourcePool(spec.copied(), backend, self._clock)
            if self._keeps_house and self._housekeeper is None and not self._closing.is_set():
                self._housekeeper = threading.Thread(
                    target=self._keep_house, name="guerdon-resources", daemon=True
                )
                self._housekeeper.start()
            if self._closing.is_set():
                pool.close()
            pool.touch()
            return pool

    def held(self) -> list[Held]:
        """What is held now, and by whom."""
        return [held for pool in self._all() for held in pool.held()]

    def status(self) -> list[PoolStatus]:
        """How each pool is doing now."""
        return [
            PoolStatus(str(pool.spec), Counter(pool.states()), pool.waiting, pool.spec.pool.max)
            for pool in self._all()
        ]

    def tidy(self) -> None:
        """Stop what lay idle too long, replace what is broken, keep what pools must have; forget
        pools that nobody uses any more, as each sample may bring a spec of its own."""
        for pool in self._all():
            pool.tidy()
        with self._lock:
            self._pools = {key: p for key, p in self._pools.items() if not p.forgotten}

    def close(self, timeout: float = CLOSE_SECONDS) -> list[Held]:
        """Stop everything.

        Args:
            timeout: how long to wait for that.

        Returns:
            What rollouts and batches still held: contexts that nobody closed. It is logged, too.
            In a forked child nothing, as nothing is stopped.
        """
        if os.getpid() != self._process:
            return []
        self._closing.set()
        leaked = [held for held in self.held() if held.holder.scope != "global"]
        if leaked:
            logger.warning("resources were still held at shutdown: %s", listed(leaked))
        pools = self._all()
        self.shared.close()
        for pool in pools:
            pool.close()
        ends = time.monotonic() + timeout
        for pool in pools:
            if not pool.empty.wait(max(0.0, ends - time.monotonic())):
                logger.error("%s did not stop within %g s", pool.spec, timeout)
        return leaked

    def __enter__(self) -> Resources:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _all(self) -> list[ResourcePool]:
        with self._lock:
            return list(self._pools.values())

    def _keep_house(self) -> None:
        while not self._closing.wait(TIDY_SECONDS):
            try:
                self.tidy()
            except Exception:  # a spec that cannot be made any more: the others still count
                logger.exception("housekeeping failed")


_lock = threading.Lock()
_own: list[Resources] = []


def process_resources() -> Resources:
    """Those of this process, which end with it."""
    with _lock:
        if not _own:
            _own.append(Resources())
        return _own[0]


def close_process_resources() -> list[Held]:
    """Stop the resources of this process, as its end does; later calls start anew.

    Returns:
        What was still held, as `Resources.close`.
    """
    with _lock:
        ending, _own[:] = list(_own), []
    return [held for resources in ending for held in resources.close()]


def _forget() -> None:
    """In a forked child: threads and processes are the parent's."""
    global _lock
    _lock = threading.Lock()
    _foreign.extend(_own)
    _own.clear()


_foreign: list[Resources] = []
"""Kept for ever in a forked child: dropping them could end what the parent uses."""

atexit.register(close_process_resources)
os.register_at_fork(after_in_child=_forget)
