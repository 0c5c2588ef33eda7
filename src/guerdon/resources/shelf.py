"""Resources that belong together: those of one rollout, of one batch, or of everybody."""

from __future__ import annotations

import threading

from guerdon.errors import Unavailable
from guerdon.resources.holder import Holder
from guerdon.resources.pool import ResourcePool
from guerdon.resources.slot import Request


class Shelf:
    """Has at most one resource of each pool, and gives all of them back together.

    Args:
        holder: for whom they are.
    """

    def __init__(self, holder: Holder) -> None:
        self.holder = holder
        self._lock = threading.Lock()
        self._requests: dict[int, tuple[ResourcePool, Request]] = {}
        self._closed = False

    def request(self, pool: ResourcePool) -> Request:
        """What was asked for already, or a new request where there is none or it failed.

        Raises:
            Unavailable: the shelf is closed, or the pool is.
        """
        with self._lock:
            if self._closed:
                raise Unavailable(f"{self.holder} has ended", retryable=False)
            known = self._requests.get(id(pool))
            if known is None or known[1].failed:
                known = self._requests[id(pool)] = (pool, pool.request(self.holder))
            known[1].waiting += 1
            return known[1]

    def waited(self, request: Request) -> None:
        """Somebody got what was asked for, or waits no more; what nobody waits for is withdrawn."""
        with self._lock:
            request.waiting -= 1
            abandoned = not request.waiting and not request.future.done()
        if abandoned:
            self.put_back(request)

    def has(self, pool: ResourcePool) -> bool:
        """Whether a resource of the pool is here, and ready."""
        with self._lock:
            _, request = self._requests.get(id(pool), (pool, None))
        return request is not None and request.future.done() and not request.failed

    def put_back(self, request: Request, *, end: bool = False) -> None:
        """Give one resource back, or stop it."""
        with self._lock:
            pool = next((pool for pool, known in self._requests.values() if known is request), None)
            if pool is None:
                return
            del self._requests[id(pool)]
        pool.give_back(request, end=end)

    def close(self) -> None:
        """Give everything back, the last first; does not block."""
        with self._lock:
            self._closed = True
            requests = list(self._requests.values())
            self._requests.clear()
        for pool, request in reversed(requests):
            pool.give_back(request)


class Batch(Shelf):
    """What the rollouts of one batch share; ends when it is told to and no rollout is open.

    Args:
        name: of the batch.
    """

    def __init__(self, name: str) -> None:
        super().__init__(Holder("batch", name))
        self.name = name
        self._open = 0
        self._ended = False

    def enter(self) -> None:
        """A rollout begins.

        Raises:
            Unavailable: the batch has ended.
        """
        with self._lock:
            if self._ended:
                raise Unavailable(f"{self.holder} has ended", retryable=False)
            self._open += 1

    def leave(self) -> None:
        """A rollout ended."""
        with self._lock:
            self._open -= 1
            last = self._ended and self._open == 0
        if last:
            self.close()

    def end(self) -> None:
        """No rollout begins any more; idempotent."""
        with self._lock:
            self._ended = True
            last = self._open == 0
        if last:
            self.close()

    @property
    def idle(self) -> bool:
        """Whether no rollout is open."""
        with self._lock:
            return self._open == 0

    def __enter__(self) -> Batch:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
