"""An event loop in a thread, for sync callers in any number of threads.

A loop of its own per call costs more than a rule does, opens every connection anew, and keeps calls
of several threads apart. On one loop they are scored together.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError
from typing import Any, TypeVar
from weakref import WeakSet

from guerdon.errors import Unavailable
from guerdon.reward import run_coroutine

T = TypeVar("T")

CLOSING_SECONDS = 1.0
"""How long a stopped loop may take to cancel what runs there."""


class LoopThread:
    """An event loop in a daemon thread; both start with the first call.

    It is of no use in a forked child, which has no copy of the thread: make another one there.

    Example:
        >>> async def four():
        ...     return 4
        >>> loop = LoopThread()
        >>> loop.run(four)
        4
        >>> loop.stop()
    """

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stopped = False

    def run(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine to its end; from any thread.

        Args:
            make: makes the coroutine.

        Raises:
            Unavailable: the loop was stopped before the end.
            Exception: whatever the coroutine raises.
        """
        if threading.current_thread() is self._thread:  # which cannot wait for itself
            return run_coroutine(make)
        with self._lock:
            if self._stopped:
                raise Unavailable("the reward is closed", retryable=False)
            future = asyncio.run_coroutine_threadsafe(make(), self._started())
        try:
            return future.result()
        except CancelledError:
            raise Unavailable("the reward was closed while it scored", retryable=False) from None
        except BaseException:  # Ctrl-C: nobody waits for it any more
            future.cancel()
            raise

    def stop(self) -> None:
        """Cancel what runs there and end the thread; calls that wait raise."""
        if os.getpid() != self._pid:
            return
        with self._lock:
            self._stopped = True
            if self._loop is not None:
                with contextlib.suppress(RuntimeError):  # stopped before
                    self._loop.call_soon_threadsafe(self._loop.stop)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(CLOSING_SECONDS)

    def _started(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(
                target=_serve, args=(self._loop,), name="guerdon-calls", daemon=True
            )
            self._thread.start()
            _running.add(self)
        return self._loop


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        # Cancels what is left when it ends.
        runner.get_loop().run_forever()


_running: WeakSet[LoopThread] = WeakSet()


@atexit.register
def _stop_all() -> None:
    """Let clients of remote rewards close their connections."""
    for loop in list(_running):
        loop.stop()
