"""What the user asked for cannot be done."""

from __future__ import annotations

from guerdon.errors import GuerdonError


class Misuse(GuerdonError, ValueError):
    """A wrong argument or an unusable file; the message is shown as it is, with exit status 2."""


class StorageFailed(GuerdonError, OSError):
    """A disk that is full or broken; what was written before stays, with exit status 1."""
