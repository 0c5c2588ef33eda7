"""What a reward gets instead of the resource itself: all of it, until the lease ends.

A handle is no instance of a subclass, whose own state would be an empty copy beside the true one.
It says that it is one of the class (`__class__`, so that `isinstance` holds, and type checkers see
the class), and runs the methods of the class with itself as `self`. So whatever a method hands on,
to a thread, to a task or in its result, ends with the lease as well.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from functools import lru_cache, wraps
from types import FunctionType, MethodType
from typing import Any, NoReturn, TypeVar, cast

from guerdon.errors import ConfigError, UnportableData
from guerdon.resources.lease import Lease
from guerdon.resources.resource import Resource

R = TypeVar("R", bound=Resource)

POOLS = frozenset({"start", "stop", "kept_by"})
"""Methods that the pool calls, and nobody else."""

OWN = frozenset(
    {
        "__class__", "__class_getitem__", "__del__", "__delattr__", "__dir__", "__doc__",
        "__format__", "__getattr__", "__getattribute__", "__getstate__", "__init__",
        "__init_subclass__", "__module__", "__new__", "__qualname__", "__reduce__",
        "__reduce_ex__", "__repr__", "__setattr__", "__setstate__", "__sizeof__",
        "__subclasshook__",
    }
)  # fmt: skip
"""Special methods of a handle that are not the resource's."""


class Handle:
    """Base class of handles; see the module."""

    __slots__ = ("__weakref__", "_lease")

    def __getattribute__(self, name: str) -> Any:
        lease = lease_of(self)
        if name == "__class__":
            return lease.kind
        if name in ("__reduce__", "__reduce_ex__"):
            raise UnportableData("resource", lease.kind.__name__, target="another process")
        resource = lease.resource
        found = next((vars(base)[name] for base in lease.kind.__mro__ if name in vars(base)), None)
        if isinstance(found, property) and found.fget is not None:
            with lease.call():
                return found.fget(self)
        if not isinstance(found, FunctionType) or name in getattr(resource, "__dict__", ()):
            return getattr(resource, name)
        if not lease.inside:
            if name in POOLS:
                _refuse(lease, name)
            if name == "reset":  # on its own thread, as every reset
                return lambda: _call(self, Resource.keep, resource.reset)
        return MethodType(_lent(found), self)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(lease_of(self).resource, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(lease_of(self).resource, name)

    def __repr__(self) -> str:
        lease = lease_of(self)
        return f"<{lease.kind.__name__}: {lease}>"


_LEASE = Handle.__dict__["_lease"]


def handle_of(resource: R, lease: Lease) -> R:
    """A handle on a resource."""
    kind = _handle_class(type(resource))
    handle = object.__new__(kind)
    _LEASE.__set__(handle, lease)
    return cast("R", handle)


def lease_of(handle: Any) -> Lease:
    """The lease of a handle.

    Raises:
        ConfigError: it is none.
    """
    if not issubclass(type(handle), Handle):
        kind = type(handle).__name__
        raise ConfigError(f"this {kind} was not acquired from a context")
    return _LEASE.__get__(handle)


@lru_cache(maxsize=256)
def _handle_class(kind: type[Resource]) -> type[Handle]:
    """Handles of one class; it has the special methods, which Python looks for nowhere else."""
    special = {
        name: _forward(name)
        for base in kind.__mro__[:-1]
        for name, value in vars(base).items()
        if name.startswith("__") and name.endswith("__") and name not in OWN and callable(value)
    }
    return type(kind.__name__, (Handle,), {"__slots__": (), "__doc__": kind.__doc__, **special})


def _forward(name: str) -> Callable[..., Any]:
    def forward(self: Handle, *args: Any, **keywords: Any) -> Any:
        return getattr(self, name)(*args, **keywords)

    forward.__name__ = name
    return forward


def _lent(function: FunctionType) -> Callable[..., Any]:
    """A method that counts as a call of the lease; a coroutine function remains one."""
    if inspect.iscoroutinefunction(function):

        @wraps(function)
        async def awaited(handle: Handle, *args: Any, **keywords: Any) -> Any:
            with lease_of(handle).waiting():
                return await function(handle, *args, **keywords)

        return awaited

    @wraps(function)
    def call(handle: Handle, *args: Any, **keywords: Any) -> Any:
        return _call(handle, function, *args, **keywords)

    return call


def _call(handle: Handle, function: Callable[..., Any], *args: Any, **keywords: Any) -> Any:
    lease = lease_of(handle)
    with lease.call():
        result = function(handle, *args, **keywords)
    return _awaited(lease, result) if inspect.iscoroutine(result) else result


async def _awaited(lease: Lease, work: Coroutine[Any, Any, Any]) -> Any:
    try:
        with lease.waiting():
            return await work
    finally:
        work.close()


def _refuse(lease: Lease, name: str) -> NoReturn:
    raise ConfigError(
        f"{name} of {lease} is called by its pool: use release_resource, end_resource or "
        "reset_resource of the context"
    )
