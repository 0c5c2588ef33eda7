"""Our service as a role of UniRL's workers: its trainers reach a reward through a handle.

The handle (`unirl/distributed/group/handle.py`) makes the role in each worker and forwards the
methods that are marked `distributed`, each rank's shard to its rank; so the class derives from
UniRL's `Remote`, and is made when it is asked for.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, cast

from guerdon import registry
from guerdon.trainers.unirl.service import RewardService

NAME = "RemoteRewardService"
GROUP = "unirl.distributed.group"


@functools.cache
def remote_reward_service() -> type[RewardService]:
    """`RewardService` as a subclass of UniRL's `Remote`.

    Raises:
        UnknownReward: UniRL is not installed.
    """
    dispatch: Any = registry.import_module(f"{GROUP}.dispatch")
    remote: Any = registry.import_module(f"{GROUP}.remote").Remote
    distributed = cast("Callable[..., Any]", dispatch.distributed)

    def initialise(self: Any, *arguments: Any, **settings: Any) -> None:
        remote.__init__(self)
        RewardService.__init__(self, *arguments, **settings)

    methods = {
        "__doc__": RewardService.__doc__,
        "__module__": __package__,
        "__qualname__": NAME,
        "__init__": initialise,
        "score_and_attach": distributed(dispatch_mode=dispatch.Dispatch.DP_SCATTER)(
            RewardService.score_and_attach
        ),
    }
    return type(NAME, (RewardService, remote), methods)
