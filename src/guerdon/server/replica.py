"""A copy of a reward: where its batches run, how much it has in hand, and whether it works."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

from guerdon.backends.inline import InlineBackend
from guerdon.backends.pool import PoolBackend
from guerdon.reward import BaseReward
from guerdon.server.settings import Hosting

IO_BATCHES = 64
"""Batches in flight of a reward that only waits."""
FIRST_BACKOFF_SECONDS = 0.5
LONGEST_BACKOFF_SECONDS = 30.0
RESTART_GRACE_SECONDS = 5.0
"""How long a replica may be without a worker that is set up before it counts as failed."""


class Replica:
    """One copy of a hosted reward.

    Args:
        index: among the replicas.
        hosting: how the reward is hosted.
        waits: whether the reward only waits, so that many batches may be in flight.
        on_device: whether it does GPU work, which goes on when nobody waits for it any more.
    """

    def __init__(self, index: int, hosting: Hosting, *, waits: bool, on_device: bool) -> None:
        self.index = index
        self._on_device = on_device
        self._workers = hosting.workers
        self.backend: InlineBackend | PoolBackend = _backend(index, hosting)
        self.capacity = hosting.batch.in_flight or _capacity(hosting, waits)
        self.batches = 0
        self.samples = 0
        self._failures = 0
        self._rests_until = 0.0
        self._last_ready = time.monotonic()

    @property
    def pool(self) -> PoolBackend | None:
        """The pool of its workers, where it has any."""
        return self.backend if isinstance(self.backend, PoolBackend) else None

    def start(self) -> None:
        """Start the workers."""
        if self.pool is not None:
            self.pool.warm()

    def stop(self) -> None:
        """End the workers; blocks until they are gone."""
        self.backend.close()

    def takes_work(self, now: float) -> bool:
        """Whether it may be given a batch."""
        if now < self._rests_until:
            return False
        lingering = self.lingering
        if not lingering:
            return self.batches < self.capacity
        return self.batches < self.capacity * (self._workers - lingering) // self._workers

    @property
    def lingering(self) -> int:
        """Workers that are busy with device work that nobody waits for any more."""
        return self.pool.lingering() if self._on_device and self.pool is not None else 0

    @property
    def rests_until(self) -> float:
        """Until when it is left alone after a failure."""
        return self._rests_until

    def failed(self, now: float) -> None:
        """A batch was lost because it could not run here at all."""
        delay = min(LONGEST_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2.0 ** min(self._failures, 16))
        self._failures += 1
        self._rests_until = now + delay

    def worked(self) -> None:
        """A batch has run."""
        self._failures = 0

    @property
    def is_set_up(self) -> bool:
        """Whether a worker stands ready, or none is needed."""
        return self.pool is None or self.pool.ready() > 0

    @property
    def is_healthy(self) -> bool:
        """Whether it works; a worker that is being replaced is no illness."""
        if self.is_set_up:
            self._last_ready = time.monotonic()
        graced = time.monotonic() - self._last_ready < RESTART_GRACE_SECONDS
        return self._failures == 0 and graced

    def worker_ends(self) -> Mapping[str, int]:
        """How many of its workers ended, by how."""
        return {} if self.pool is None else self.pool.ended()


def _backend(index: int, hosting: Hosting) -> InlineBackend | PoolBackend:
    if hosting.inline:
        return InlineBackend()
    environment = dict(hosting.environment)
    if hosting.devices:
        environment["CUDA_VISIBLE_DEVICES"] = str(hosting.devices[index % len(hosting.devices)])
    return PoolBackend(
        workers=hosting.workers,
        spares=hosting.spares,
        hang_after=hosting.hang_after,
        memory_bytes=hosting.memory_bytes,
        recycle_bytes=hosting.recycle_bytes,
        environment=environment,
    )


def _capacity(hosting: Hosting, waits: bool) -> int:
    """Batches that keep a replica busy: one that waits while another one runs."""
    if waits:
        return IO_BATCHES
    return 1 if hosting.inline else 2 * hosting.workers


def leaves(reward: BaseReward) -> Iterator[BaseReward]:
    """The rewards without children that a reward is made of."""
    if not reward.children:
        yield reward
    for child in reward.children.values():
        yield from leaves(child)
