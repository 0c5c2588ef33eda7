"""How many calls a worker gets at a time: enough to hide the messages, few enough to share."""

from __future__ import annotations

import math
import weakref

from guerdon.reward import BaseReward

CHUNK_SECONDS = 0.01
"""Work that one chunk should hold."""
FIRST_CHUNK = 8
"""Calls of a chunk before anything is known about a reward."""
LARGEST_CHUNK = 512
SMOOTHING = 0.05
"""Weight of the newest call in the running mean of call times."""
SHARES = 2
"""The end of a job is split into so many chunks per worker, so that they finish together."""


class Pace:
    """Learns how long the calls of each reward take.

    Example:
        >>> from guerdon.reward import reward
        >>> slow = reward(auto_register=False)(lambda response: 1.0)
        >>> pace = Pace()
        >>> pace.observe(slow, 1.0)
        >>> pace.chunk(slow, waiting=100, workers=2)
        1
    """

    def __init__(self) -> None:
        self._seconds: weakref.WeakKeyDictionary[BaseReward, float] = weakref.WeakKeyDictionary()

    def observe(self, reward: BaseReward, seconds: float) -> None:
        """Note how long a call took."""
        known = self._seconds.get(reward, seconds)
        self._seconds[reward] = known + SMOOTHING * (seconds - known)

    def chunk(self, reward: BaseReward, waiting: int, workers: int) -> int:
        """How many of the waiting calls the next worker gets, at least 1."""
        seconds = self._seconds.get(reward)
        if seconds is None:
            most = FIRST_CHUNK
        else:
            most = min(LARGEST_CHUNK, int(CHUNK_SECONDS / max(seconds, 1e-9)))
        return max(1, min(most, math.ceil(waiting / (SHARES * workers))))
