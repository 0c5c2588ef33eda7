"""What a resource is: something live that is started, used, reset and stopped."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from guerdon.errors import ConfigError
from guerdon.resources.keeper import Keeper

T = TypeVar("T")

LIFECYCLE = ("start", "reset", "check", "stop", "interrupt")


class Resource:
    """Base class of resources; a subclass adds methods that rewards use.

    The methods here run one after another on a thread that belongs to the resource and lives as
    long as it does, and may block. What rewards call runs where they call it, from several threads
    at one time where the resource is shared.

    Rewards get a handle on it, which ends with their context. To `isinstance` and to type checkers
    it is the resource, and it is the `self` of the methods that it calls. What those hand out of
    other objects, such as a path or a client, is not watched: take it away in `reset` and `stop`.

    Example:
        >>> class Counter(Resource):
        ...     def start(self): self.count = 0
        ...     def reset(self):
        ...         self.count = 0
        ...         return True
    """

    _keeper: Keeper | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in LIFECYCLE:
            if inspect.iscoroutinefunction(getattr(cls, name)):
                raise ConfigError(
                    f"{cls.__name__}.{name} is a coroutine function: make it a plain one, which "
                    "may block, as it runs on a thread of its own"
                )

    def start(self) -> None:
        """Make it live; what it raises reaches who asked for the resource, an `OSError` as
        `Unavailable`."""

    def reset(self) -> bool:
        """Bring it back to how it was after `start`, for the next rollout.

        Returns:
            Whether that was possible; otherwise it is stopped, and the next rollout gets a new one.
        """
        return False

    def check(self) -> bool:
        """Whether it can be used; asked before it is handed out."""
        return True

    def stop(self) -> None:
        """Release everything; also after a `start` that failed half-way."""

    def interrupt(self) -> None:
        """Let the calls that are in it end soon: it was taken back. It is reset when they have.
        Also a `start`, where the process ends; that is called from another thread."""

    def keep(self, work: Callable[[], T]) -> T:
        """Run work on the resource's own thread, for what must not end with the calling one."""
        return work() if self._keeper is None else self._keeper.run(work)

    def kept_by(self, keeper: Keeper) -> None:
        """Say which thread is its own."""
        object.__setattr__(self, "_keeper", keeper)  # a subclass may be frozen
