"""One context's right to use a resource: it ends with the context, whoever kept the resource."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Generator
from typing import Any, cast

from guerdon.errors import GuerdonError, Unavailable
from guerdon.resources.holder import Holder
from guerdon.resources.slot import Request


class Released(GuerdonError):
    """A resource was used after its context had given it back, or is used where it does not live.

    It is a fault of the code that kept it, not of the resource.
    """


class Lease:
    """Counts the calls in a resource, and lets none begin once it has ended.

    Args:
        resource: what is lent.
        request: through which the pool lent it; it knows of all calls in the resource.
        what: kind and name, for messages.
        holder: who borrowed it.
    """

    def __init__(self, resource: Any, request: Request, what: str, holder: Holder) -> None:
        self.kind: type[Any] = cast("type[Any]", type(resource))
        self.request = request
        self.holder = holder
        self._resource = resource
        self._told = f"{what} of {holder}"
        self._process = os.getpid()
        self._ended = False

    def end(self) -> None:
        """Refuse every use from now on."""
        with self.request.lock:
            self._ended = True

    @property
    def inside(self) -> bool:
        """Whether this thread is in one of the resource's methods, which may finish."""
        return self in _calls()

    @property
    def resource(self) -> Any:
        """What is lent, for one use.

        Raises:
            Released: the lease has ended.
            Unavailable: the resource has.
        """
        if not self.inside:
            self.check()
        return self._resource

    def check(self) -> None:
        """Raise what `resource` would."""
        if os.getpid() != self._process:
            raise Released(
                f"{self._told} lives in process {self._process} and cannot be used in a child that "
                "was forked from it: acquire one there"
            )
        if self._ended:
            raise Released(
                f"{self._told} was released and cannot be used any more: use a resource only while "
                "the context is open from which it was acquired"
            )
        if self.request.over:
            raise Unavailable(f"{self._told} {self.request.over}")

    @contextlib.contextmanager
    def call(self) -> Generator[None]:
        """A call in the resource on this thread. Where the lease ends meanwhile, the call fails,
        whatever it gave, and the resource is not reset before it has ended."""
        calls = _calls()
        if self in calls:  # the method calls another one
            yield
            return
        self._enter()
        calls.add(self)
        try:
            yield
        except Exception as error:
            self._still(error)
            raise
        else:
            self._still(None)
        finally:
            calls.discard(self)
            self.request.leave()

    @contextlib.contextmanager
    def waiting(self) -> Generator[None]:
        """A call that other work of this thread may interleave with: a coroutine's."""
        self._enter()
        try:
            yield
        except Exception as error:
            self._still(error)
            raise
        else:
            self._still(None)
        finally:
            self.request.leave()

    def _enter(self) -> None:
        with self.request.lock:
            self.check()
            self.request.calls += 1

    def _still(self, cause: Exception | None) -> None:
        try:
            self.check()
        except GuerdonError as error:
            raise error from cause

    def __str__(self) -> str:
        return f"{self._told}{', released' if self._ended else ''}"


_here = threading.local()


def _calls() -> set[Lease]:
    """Leases in whose calls this thread is."""
    if not hasattr(_here, "calls"):
        _here.calls = set[Lease]()
    return _here.calls
