"""The components and metrics that a reward reports, under names that each row has.

Trainers build their columns from the first row or the first step, so the names must not depend on
what a sample happened to give.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from guerdon.compose.child import SEPARATOR
from guerdon.errors import ConfigError
from guerdon.outcome import EMPTY, Outcome, Score
from guerdon.remote.reward import RemoteReward
from guerdon.reward import BaseReward


def component_names(reward: BaseReward) -> tuple[str, ...]:
    """The components of a composition, inner ones as `outer/inner`; empty for a plain reward.

    Those of a remote reward are what its service says, without inner ones.

    Example:
        >>> from guerdon.compose import Product, WeightedSum
        >>> from guerdon.reward import reward
        >>> @reward(auto_register=False)
        ... def a(response: str) -> float: ...
        >>> @reward(auto_register=False)
        ... def b(response: str) -> float: ...
        >>> component_names(WeightedSum({"both": Product([a, b]), "b": b}))
        ('both', 'both/a', 'both/b', 'b')
    """
    names: list[str] = []
    if isinstance(reward, RemoteReward):
        names.extend(reward.component_names)
    for name, child in reward.children.items():
        names.append(name)
        names.extend(f"{name}{SEPARATOR}{inner}" for inner in component_names(child))
    return tuple(names)


class Columns:
    """Components and metrics as numbers, for a trainer that makes a column of each name.

    Args:
        components: as `component_names` gives them.
        metrics: names of those of the row; None for all that the reward has reported so far, so
            that a name is in every row from the first one on that has it.

    Raises:
        ConfigError: `metrics` is one text, not a list of names.

    Example:
        >>> columns = Columns(("tidy",), None)
        >>> columns.row(Score(value=1.0, metrics={"length": 3.0}))
        {'tidy': nan, 'length': 3.0}
        >>> columns.row(Score(value=1.0, components={"tidy": 0.5}))
        {'tidy': 0.5, 'length': nan}
    """

    def __init__(self, components: Sequence[str], metrics: Sequence[str] | None) -> None:
        if isinstance(metrics, str):
            raise ConfigError(f"metrics is a list of names, got {metrics!r}")
        self._components = tuple(components)
        self._grows = metrics is None
        self._metrics = dict.fromkeys(metrics or ())

    def row(self, outcome: Outcome) -> dict[str, float]:
        """The numbers of an outcome, NaN where it has none; a component before a metric."""
        found = reported(outcome)
        if self._grows and isinstance(outcome, Score):
            self._metrics.update(dict.fromkeys(outcome.metrics))
        values = {name: found.get(name) for name in (*self._components, *self._metrics)}
        return {name: math.nan if value is None else value for name, value in values.items()}


def reported(outcome: Outcome) -> Mapping[str, float | None]:
    """All metrics and components of a score by name; nothing for anything else."""
    if not isinstance(outcome, Score):
        return EMPTY
    return {**outcome.metrics, **outcome.components}
