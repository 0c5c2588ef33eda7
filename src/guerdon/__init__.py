"""Guerdon: the reward layer for RL post-training.

    from guerdon import RewardService, Sample, reward

Names are imported when they are first used, so that `import guerdon` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from guerdon.backends.backend import Backend, Calls, Limits, Results
    from guerdon.backends.inline import InlineBackend
    from guerdon.backends.pool import PoolBackend
    from guerdon.batch import Batch
    from guerdon.compose import (
        Affine,
        Cascade,
        Child,
        Clip,
        Composition,
        Conditional,
        Gate,
        GroupNormalise,
        Maximum,
        Minimum,
        Product,
        Schedule,
        WeightedSum,
    )
    from guerdon.errors import (
        BadInput,
        Blame,
        BudgetExceeded,
        CircuitOpen,
        ConfigError,
        FailureKind,
        GuerdonError,
        InvalidReward,
        InvalidSample,
        MalformedMessage,
        MissingExtra,
        NameCollision,
        NonFinite,
        RewardFailure,
        ScoringFailed,
        Unavailable,
        UnknownReward,
        UnportableData,
    )
    from guerdon.fixture import Fixture
    from guerdon.outcome import Abstention, Failure, Outcome, Score, Span, seal
    from guerdon.outcomes import Column, Outcomes
    from guerdon.policy import Assign, Breaker, Budget, Policy, Retry
    from guerdon.reward import BaseReward, FunctionReward, Ready, reward
    from guerdon.sample import Media, Message, Part, Sample, ToolCall
    from guerdon.service import RewardService
    from guerdon.truncation import Truncation

__version__: str

_HOMES = {
    "backends.backend": ("Backend", "Calls", "Limits", "Results"),
    "backends.inline": ("InlineBackend",),
    "backends.pool": ("PoolBackend",),
    "batch": ("Batch",),
    "compose": (
        "Affine",
        "Cascade",
        "Child",
        "Clip",
        "Composition",
        "Conditional",
        "Gate",
        "GroupNormalise",
        "Maximum",
        "Minimum",
        "Product",
        "Schedule",
        "WeightedSum",
    ),
    "errors": (
        "BadInput",
        "Blame",
        "BudgetExceeded",
        "CircuitOpen",
        "ConfigError",
        "FailureKind",
        "GuerdonError",
        "InvalidReward",
        "InvalidSample",
        "MalformedMessage",
        "MissingExtra",
        "NameCollision",
        "NonFinite",
        "RewardFailure",
        "ScoringFailed",
        "Unavailable",
        "UnknownReward",
        "UnportableData",
    ),
    "fixture": ("Fixture",),
    "outcome": ("Abstention", "Failure", "Outcome", "Score", "Span", "seal"),
    "outcomes": ("Column", "Outcomes"),
    "policy": ("Assign", "Breaker", "Budget", "Policy", "Retry"),
    "reward": ("BaseReward", "FunctionReward", "Ready"),
    "sample": ("Media", "Message", "Part", "Sample", "ToolCall"),
    "service": ("RewardService",),
    "truncation": ("Truncation",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Abstention",
    "Affine",
    "Assign",
    "Backend",
    "BadInput",
    "BaseReward",
    "Batch",
    "Blame",
    "Breaker",
    "Budget",
    "BudgetExceeded",
    "Calls",
    "Cascade",
    "Child",
    "CircuitOpen",
    "Clip",
    "Column",
    "Composition",
    "Conditional",
    "ConfigError",
    "Failure",
    "FailureKind",
    "Fixture",
    "FunctionReward",
    "Gate",
    "GroupNormalise",
    "GuerdonError",
    "InlineBackend",
    "InvalidReward",
    "InvalidSample",
    "Limits",
    "MalformedMessage",
    "Maximum",
    "Media",
    "Message",
    "Minimum",
    "MissingExtra",
    "NameCollision",
    "NonFinite",
    "Outcome",
    "Outcomes",
    "Part",
    "Policy",
    "PoolBackend",
    "Product",
    "Ready",
    "Results",
    "Retry",
    "RewardFailure",
    "RewardService",
    "Sample",
    "Schedule",
    "Score",
    "ScoringFailed",
    "Span",
    "ToolCall",
    "Truncation",
    "Unavailable",
    "UnknownReward",
    "UnportableData",
    "WeightedSum",
    "reward",
    "seal",
]


def __getattr__(name: str) -> Any:
    if name == "reward":  # both a module and what it is named after: the module can be called
        return importlib.import_module("guerdon.reward")
    if name == "__version__":
        from importlib.metadata import version

        return version("guerdon")
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'guerdon' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"guerdon.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
