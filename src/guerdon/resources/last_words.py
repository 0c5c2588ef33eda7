"""The end of what a program writes, and nothing more of it, however much that is."""

from __future__ import annotations

import os
import threading

KEPT = 2000
"""Bytes, which an error quotes."""

CHUNK = 65536

SETTLE_SECONDS = 1.0
"""How long to wait for what a program that has ended still wrote."""


class LastWords:
    """Reads a descriptor to its end, on a thread of its own, and closes it.

    Args:
        descriptor: for reading.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._kept = b""
        self._thread = threading.Thread(target=self._read, name="guerdon-last-words", daemon=True)
        self._thread.start()

    @property
    def text(self) -> str:
        """What was written last."""
        return self._kept.decode(errors="replace")

    def settle(self) -> None:
        """Wait a little for the end."""
        self._thread.join(SETTLE_SECONDS)

    def _read(self) -> None:
        with open(self._descriptor, "rb", buffering=0) as file:
            while chunk := os.read(file.fileno(), CHUNK):
                self._kept = (self._kept + chunk)[-KEPT:]
