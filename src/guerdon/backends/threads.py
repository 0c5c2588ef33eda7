"""Daemon threads that are reused while there is work and end when there is none.

Unlike `concurrent.futures`, an interpreter that exits does not wait for a thread that hangs.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")

IDLE_SECONDS = 10.0
"""How long a thread waits for more work before it ends."""


class Threads:
    """An unbounded set of daemon threads; an idle one is reused before a new one starts.

    Example:
        >>> Threads("example").submit(lambda: 2 + 2).result()
        4
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._reset()
        os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        self._ready = threading.Condition()
        self._work: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._idle = 0

    def submit(self, function: Callable[[], T]) -> Future[T]:
        """Run a function on some thread at once."""
        future: Future[T] = Future()
        with self._ready:
            self._work.append((future, function))
            if self._idle >= len(self._work):
                self._ready.notify()
            else:
                threading.Thread(target=self._serve, name=self._name, daemon=True).start()
        return future

    def _serve(self) -> None:
        while True:
            with self._ready:
                self._idle += 1
                waited = self._ready.wait_for(lambda: self._work, timeout=IDLE_SECONDS)
                self._idle -= 1
                if not waited:
                    return
                future, function = self._work.popleft()
            if future.set_running_or_notify_cancel():
                _run(future, function)
            del future, function


def _run(future: Future[Any], function: Callable[[], Any]) -> None:
    try:
        result = function()
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(result)


THREADS = Threads("guerdon")
"""The threads in which this process scores."""
