"""Scoring in worker processes that can be killed; see `guerdon.backends.pool.pool`."""

from guerdon.backends.pool.pool import PoolBackend

__all__ = ["PoolBackend"]
