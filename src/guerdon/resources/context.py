"""What a reward gets as `context`: access to live resources, given back when the rollout ends."""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any, NamedTuple, TypeVar, cast

from guerdon.errors import ConfigError, Unavailable, UnportableData
from guerdon.lending import Live
from guerdon.outcome import EMPTY
from guerdon.resources.engine import Resources, process_resources
from guerdon.resources.handle import handle_of, lease_of
from guerdon.resources.holder import SCOPES, Holder, Scope
from guerdon.resources.lease import Lease
from guerdon.resources.pool import ResourcePool
from guerdon.resources.resource import Resource
from guerdon.resources.shelf import Batch, Shelf
from guerdon.resources.slot import Request
from guerdon.resources.spec import Backend, Spec, checked_backend

R = TypeVar("R", bound=Resource)

ACQUIRE_SECONDS = 60.0
"""How long to wait for a resource, unless the call says otherwise."""

_numbers = itertools.count(1)


class _Asked(NamedTuple):
    """What somebody waits for."""

    pool: ResourcePool
    shelf: Shelf
    request: Request


class _Lent(NamedTuple):
    """What this context handed out."""

    handle: Any
    lease: Lease
    asked: _Asked


class Context(Live):
    """The resources of one rollout. Close it, or use it in a `with` block.

    What it hands out works until it closes; every later use raises `Released`, also in a thread or
    a task that kept it.

    Args:
        rollout_id: names the rollout in messages.
        group_id: of the rollout's group.
        metadata: whatever the caller's tools want to find here.
        batch: whose resources the scope `batch` means.
        resources: where they come from; by default those of the process.
        backend: where resources live unless a call says otherwise; by default where their kind
            does.

    Example:
        >>> from guerdon.resources import FolderSpec
        >>> with Context("rollout-7") as context:
        ...     folder = context.acquire_resource_sync(FolderSpec())
        ...     folder is context.acquire_resource_sync(FolderSpec())
        ...     folder is context.acquire_resource_sync(FolderSpec(name="other"))
        True
        False
        >>> folder.path
        Traceback (most recent call last):
        guerdon.resources.lease.Released: Folder of rollout 'rollout-7' was released ...
    """

    def __init__(
        self,
        rollout_id: str | None = None,
        *,
        group_id: str | None = None,
        metadata: Mapping[str, Any] = EMPTY,
        batch: Batch | None = None,
        resources: Resources | None = None,
        backend: Backend | None = None,
    ) -> None:
        self.rollout_id = rollout_id or f"unnamed {next(_numbers)}"
        self.group_id = group_id
        self.metadata = metadata
        self._backend = backend
        self._resources = resources or process_resources()
        self._holder = Holder("rollout", self.rollout_id)
        self._own = Shelf(self._holder)
        self._batch = batch
        self._lock = threading.Lock()
        self._lent: dict[Request, _Lent] = {}
        self._closed = False
        self._process = os.getpid()
        if batch is not None:
            batch.enter()

    async def acquire_resource(
        self,
        spec: Spec[R],
        scope: Scope = "rollout",
        backend: Backend | None = None,
        timeout: float = ACQUIRE_SECONDS,  # noqa: ASYNC109 - who waits too long learns who holds it
    ) -> R:
        """A live resource; the same one for the same spec and scope.

        Args:
            spec: what it is made from.
            scope: `rollout`: for this context alone, reset before another one gets it. `batch`:
                shared by the contexts of one batch. `global`: shared by all contexts of the
                process, until it ends; never reset.
            backend: where it lives.
            timeout: seconds to wait for a free one and for its start.

        Raises:
            Unavailable: none was free or started in time, saying who holds what; or the context is
                closed.
            ConfigError: the spec, the scope or the backend cannot be.
            Exception: whatever else the resource's `start` raised.
        """
        asked = self._ask(spec, scope, backend)
        try:
            return self._lend(asked, await _result(asked.request.future, timeout))
        except TimeoutError:
            if asked.request.future.done():  # it is what the start raised
                raise
            raise asked.pool.too_late(asked.request, timeout) from None
        finally:
            asked.shelf.waited(asked.request)

    def acquire_resource_sync(
        self,
        spec: Spec[R],
        scope: Scope = "rollout",
        backend: Backend | None = None,
        timeout: float = ACQUIRE_SECONDS,
    ) -> R:
        """As `acquire_resource`, from sync code; blocks."""
        asked = self._ask(spec, scope, backend)
        try:
            return self._lend(asked, asked.request.future.result(timeout))
        except TimeoutError:
            if asked.request.future.done():
                raise
            raise asked.pool.too_late(asked.request, timeout) from None
        finally:
            asked.shelf.waited(asked.request)

    async def reset_resource(
        self,
        resource: R,
        timeout: float = ACQUIRE_SECONDS,  # noqa: ASYNC109 - as in acquire_resource
    ) -> R:
        """Bring a resource of this rollout back to how it began.

        Returns:
            The resource; or a new one of its spec, if it cannot be reset.

        Raises:
            ConfigError: it is shared, or comes from another context.
            Unavailable: it was not reset in time, and is stopped.
        """
        lent = self._own_lent(resource)
        try:
            if await _result(_reset(lent), timeout):
                return resource
        except TimeoutError:
            raise self._not_reset(lent, timeout) from None
        self._take_back(lent, end=True)
        spec, backend = lent.asked.pool.spec, lent.asked.pool.backend
        return await self.acquire_resource(spec, "rollout", backend, timeout)

    def reset_resource_sync(self, resource: R, timeout: float = ACQUIRE_SECONDS) -> R:
        """As `reset_resource`, from sync code; blocks."""
        lent = self._own_lent(resource)
        try:
            if _reset(lent).result(timeout):
                return resource
        except TimeoutError:
            raise self._not_reset(lent, timeout) from None
        self._take_back(lent, end=True)
        spec, backend = lent.asked.pool.spec, lent.asked.pool.backend
        return self.acquire_resource_sync(spec, "rollout", backend, timeout)

    def release_resource(self, resource: Resource) -> None:
        """Give a resource back before the rollout ends; does not block. A shared one only becomes
        unusable through this context."""
        self._take_back(self._found(resource))

    def end_resource(self, resource: Resource) -> None:
        """Give a resource of this rollout back as one that nobody shall get again: it is stopped.

        Raises:
            ConfigError: it is shared, or comes from another context.
        """
        self._take_back(self._own_lent(resource), end=True)

    def is_spec_acquired(
        self, spec: Spec[Any], scope: Scope = "rollout", backend: Backend | None = None
    ) -> bool:
        """Whether a resource of the spec is there, so that acquiring it makes no new one."""
        return self._shelf(scope).has(self._pool(spec, backend))

    @property
    def held(self) -> list[Any]:
        """The resources of this rollout alone, in the order in which they were acquired."""
        with self._lock:
            return [lent.handle for lent in self._lent.values() if lent.asked.shelf is self._own]

    def close(self) -> None:
        """Give back what the rollout holds; does not block. Idempotent; of no effect in a forked
        child, where nothing is held."""
        if os.getpid() != self._process:
            return
        with self._lock:
            if self._closed:
                return
            self._closed = True
            ending, self._lent = self._lent, {}
        for lent in ending.values():
            lent.lease.end()
        self._own.close()
        if self._batch is not None:
            self._batch.leave()

    def __enter__(self) -> Context:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Context:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<context of rollout {self.rollout_id!r}>"

    def __reduce__(self) -> Any:
        raise UnportableData("context", "Context", target="another process")

    def _ask(self, spec: Spec[Any], scope: str, backend: Backend | None) -> _Asked:
        pool = self._pool(spec, backend)
        shelf = self._shelf(scope)
        return _Asked(pool, shelf, shelf.request(pool))

    def _pool(self, spec: Spec[Any], backend: Backend | None) -> ResourcePool:
        if os.getpid() != self._process:
            raise Unavailable(
                f"{self!r} was made in process {self._process}, from which this one was forked: "
                "make one here",
                retryable=False,
            )
        chosen = checked_backend(spec, self._backend if backend is None else backend)
        return self._resources.pool(spec, chosen)

    def _shelf(self, scope: str) -> Shelf:
        if scope == "rollout":
            return self._own
        if scope == "global":
            return self._resources.shared
        if scope != "batch":
            raise ConfigError(f"a scope is one of {', '.join(SCOPES)}, got {scope!r}")
        if self._batch is None:
            raise ConfigError(
                f"{self!r} belongs to no batch: make it with batch=, or let the service make it"
            )
        return self._batch

    def _lend(self, asked: _Asked, resource: R) -> R:
        with self._lock:
            if self._closed:
                raise Unavailable(f"{self._holder} has ended", retryable=False)
            lent = self._lent.get(asked.request)
            if lent is None:
                lease = Lease(resource, asked.request, str(asked.pool.spec), self._holder)
                lent = _Lent(handle_of(resource, lease), lease, asked)
                self._lent[asked.request] = lent
            return cast("R", lent.handle)

    def _found(self, resource: Resource) -> _Lent:
        lease = lease_of(resource)
        lease.check()
        with self._lock:
            lent = self._lent.get(lease.request)
        if lent is None or lent.lease is not lease:
            raise ConfigError(f"{lease} was not acquired from {self!r}")
        return lent

    def _own_lent(self, resource: Resource) -> _Lent:
        lent = self._found(resource)
        if lent.asked.shelf is not self._own:
            raise ConfigError(
                f"{lent.lease} is shared by all of {lent.asked.shelf.holder}: one rollout can "
                "neither reset nor end it"
            )
        return lent

    def _take_back(self, lent: _Lent, *, end: bool = False) -> None:
        with self._lock:
            self._lent.pop(lent.asked.request, None)
        lent.lease.end()
        if lent.asked.shelf is self._own:
            self._own.put_back(lent.asked.request, end=end)

    def _not_reset(self, lent: _Lent, timeout: float) -> Unavailable:
        self._take_back(lent, end=True)
        return Unavailable(f"{lent.asked.pool.spec} was not reset within {timeout:g} s")


async def _result(future: Future[Any], timeout: float) -> Any:  # noqa: ASYNC109 - see there
    """What a future of another thread gives.

    Raises:
        TimeoutError: too late; the future goes on.
    """
    wrapped = asyncio.wrap_future(future)
    wrapped.add_done_callback(_looked_at)
    done, _ = await asyncio.wait({wrapped}, timeout=timeout)
    if not done:
        raise TimeoutError
    return wrapped.result()


def _looked_at(future: asyncio.Future[Any]) -> None:
    """Nobody may be left to look at the error, and that is no fault."""
    if not future.cancelled():
        future.exception()


def _reset(lent: _Lent) -> Future[bool]:
    """Whether a held resource could be reset, on its own thread."""
    slot = lent.asked.request.slot
    assert slot is not None
    done: Future[bool] = Future()

    def then(ok: object, error: BaseException | None) -> None:
        done.set_result(error is None and bool(ok))

    slot.keeper.submit(slot.resource.reset, then)
    return done
