"""UniRL: a backend for its `RewardService`, and a service for its backends.

    reward:
      _target_: unirl.reward.service.RewardService
      backend:
        _target_: guerdon.trainers.unirl.GuerdonBackend
        reward: jpeg_compressibility
        input_kind: image

`guerdon.trainers.unirl.RemoteRewardService` may stand in the first `_target_`: it serves UniRL's
backends and ours, and checks the numbers that UniRL lets through. It is `RewardService` as a role
of UniRL's workers, made where UniRL is installed. Contract: UniRL 0.1.0 and later versions,
`unirl/reward/service.py`, `base.py`, `unirl/types/reward.py`; it is on no package index. For a
server behind UniRL's remote backend see `docs/dialects/unirl.md`.
"""

from typing import Any

from guerdon.trainers.unirl.backend import GuerdonBackend
from guerdon.trainers.unirl.remote import NAME, remote_reward_service
from guerdon.trainers.unirl.request import RewardRequest, RewardResponse
from guerdon.trainers.unirl.service import RewardService, StepStopped

__all__ = ["GuerdonBackend", "RewardRequest", "RewardResponse", "RewardService", "StepStopped"]


def __getattr__(name: str) -> Any:
    """`RemoteRewardService`, which needs UniRL."""
    if name == NAME:
        return remote_reward_service()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
