"""What a user names as a reward in a trainer's configuration, made ready to be served."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from inspect import isclass
from typing import Any, TypeAlias, cast

from guerdon import registry
from guerdon.config import ServiceConfig, load
from guerdon.config.section import BackendChoice
from guerdon.errors import ConfigError
from guerdon.outcome import EMPTY
from guerdon.reward import BaseReward, FunctionReward
from guerdon.service import RewardService

RewardLike: TypeAlias = (
    RewardService
    | ServiceConfig
    | BaseReward
    | type[BaseReward]
    | Callable[..., Any]
    | str
    | os.PathLike[str]
    | Mapping[str, Any]
)
"""A reward, a function, a reference ("gsm8k", "pkg.mod:name", "rewards.py:name"), a configuration
(a YAML file or a mapping), or a service."""

YAML = (".yaml", ".yml")


def plan(
    reward: RewardLike, *, options: Mapping[str, Any] | None = None, backend: Any = None
) -> ServiceConfig:
    """The checked configuration of the service for a reward; nothing is started.

    Args:
        reward: see `RewardLike`; a service is no plan, its settings are made.
        options: of the reward, such as `{"method": "strict"}`.
        backend: as for `RewardService`; None leaves it to the configuration.

    Raises:
        ConfigError: options beside a configuration, or something that is no reward.
        UnknownReward: nothing answers to a reference.

    Example:
        >>> from guerdon.reward import reward
        >>> @reward(auto_register=False)
        ... def short(response: str, *, limit: int = 10) -> bool:
        ...     return len(response) <= limit
        >>> plan(short, options={"limit": 2}).reward.options
        {'limit': 2}
    """
    if is_configuration(reward):
        if options:
            raise ConfigError("options stand in the configuration, beside the reward's name")
        found = reward if isinstance(reward, ServiceConfig) else load(cast("Any", reward))
    else:
        found = ServiceConfig(reward=_reward(reward, options or EMPTY))
    if backend is None:
        return found
    return ServiceConfig(
        reward=found.reward,
        backend=BackendChoice(given=backend),
        policy=found.policy,
        truncation=found.truncation,
        source=found.source,
        resolved=found.resolved,
    )


def is_configuration(reward: object) -> bool:
    """Whether this describes a whole service, its policy included.

    Example:
        >>> is_configuration("rewards/panel.yaml"), is_configuration("rewards.py:mine")
        (True, False)
    """
    if isinstance(reward, str | os.PathLike):
        return os.fspath(cast("str", reward)).endswith(YAML)
    return isinstance(reward, ServiceConfig | Mapping)


def _reward(named: Any, options: Mapping[str, Any]) -> BaseReward:
    if isinstance(named, str):
        return registry.resolve(named, **options)
    if isinstance(named, BaseReward):
        return registry.create(named, **options)
    if isclass(named):
        if issubclass(named, BaseReward):
            return registry.create(named, **options)
        kind = f"the class {named.__name__}"
    elif callable(named):
        return registry.create(FunctionReward(named), **options)
    else:
        kind = type(named).__name__
    raise ConfigError(
        f"a reward is a name, a reference such as 'rewards.py:mine', a .yaml file or a reward "
        f"object, not {kind}"
    )
