"""What NeMo Gym's `/aggregate_metrics` makes of the rows of an evaluation.

Every number at the top of a row, and of its `response.usage`, is described by its mean, maximum,
minimum, median and standard deviation: per task, and over all rows. Source: NeMo Gym,
`reward_profile.py` (`RewardProfiler`, `compute_aggregate_metrics`), as read in 2026; written from
its text and not compared with its output. Fields that later versions add per task are left out.

One thing differs: a row with `mask_sample` has no measurement, so of its numbers only `mask_sample`
counts. Gym's schema has a `reward` of 0.0 there, which is no score.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median
from typing import Any, TypeAlias, cast

from guerdon.errors import InvalidSample

TASK, ROLLOUT = "_ng_task_index", "_ng_rollout_index"
"""Columns that say to which task a row belongs, and which of its rollouts it is."""
MASK = "mask_sample"
AGENT = {"agent_ref": {"name": "agent"}}
"""The sample of a task, as Gym writes it here: rows of all agents are taken together."""

Numbers: TypeAlias = dict[str, float]


def aggregate(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The body of a reply: per task, over all rows, and the means of the latter.

    Args:
        rows: replies of `/verify`, with the index of the task; 0 where there is none.

    Raises:
        InvalidSample: a row has no reward, or something that cannot be counted.

    Example:
        >>> found = aggregate([{"reward": 1.0}, {"reward": 0.5}])
        >>> found["key_metrics"]
        {'mean/reward': 0.75}
        >>> found["agent_metrics"]["min/reward"]
        0.5
    """
    if not rows:
        return {"group_level_metrics": [], "agent_metrics": {}, "key_metrics": {}}
    tasks: dict[int, list[Numbers]] = {}
    for place, row in enumerate(rows):
        tasks.setdefault(_task(row, place), []).append(_numbers(row, place))
    overall = described([numbers for task in tasks.values() for numbers in task])
    return {
        "group_level_metrics": [
            {**described(tasks[task]), "sample": AGENT, TASK: task} for task in sorted(tasks)
        ],
        "agent_metrics": overall,
        "key_metrics": {name: v for name, v in overall.items() if name.startswith("mean/")},
    }


def described(rows: Sequence[Numbers]) -> Numbers:
    """Statistics of each column, over the rows that have it.

    The standard deviation is that of a sample. Of one value it is left out; where no column has
    two, it is 0 for those that every row has, as Gym does.

    Example:
        >>> described([{"reward": 1.0}])["std/reward"]
        0.0
    """
    columns: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row.items():
            columns.setdefault(name, []).append(value)
    found: Numbers = {}
    for statistic, of in STATISTICS.items():
        found |= {f"{statistic}/{name}": of(values) for name, values in columns.items()}
    several = {name: values for name, values in columns.items() if len(values) > 1}
    found |= {f"std/{name}": _deviation(values) for name, values in several.items()}
    if not several:
        found |= {f"std/{name}": 0.0 for name, v in columns.items() if len(v) == len(rows)}
    return found


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _deviation(values: Sequence[float]) -> float:
    mean = _mean(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


STATISTICS: Mapping[str, Callable[[Sequence[float]], float]] = {
    "mean": _mean,
    "max": max,
    "min": min,
    "median": median,
}


def _task(row: Mapping[str, Any], place: int) -> int:
    found = row.get(TASK, 0)
    if isinstance(found, bool) or not isinstance(found, int):
        raise InvalidSample(f"verify_responses[{place}]: {TASK} is no integer")
    return found


def _numbers(row: Mapping[str, Any], place: int) -> Numbers:
    """What counts of a row."""
    response = row.get("response")
    usage: Any = cast("dict[str, Any]", response).get("usage") if isinstance(response, dict) else {}
    fields: Iterable[tuple[str, Any]] = row.items()
    if isinstance(usage, dict):
        fields = {**row, **cast("dict[str, Any]", usage)}.items()
    if row.get(MASK) is True:
        return {MASK: 1.0}
    if isinstance(row.get("reward"), bool) or not isinstance(row.get("reward"), int | float):
        raise InvalidSample(f"verify_responses[{place}] has no reward that is a number")
    return {
        name: _bounded(value, f"verify_responses[{place}].{name}")
        for name, value in fields
        if isinstance(value, int | float) and name not in (TASK, ROLLOUT)
    }


LARGEST = 1e150
"""Beyond it the square of a deviation has no float."""


def _bounded(value: float, where: str) -> float:
    if abs(value) > LARGEST:
        raise InvalidSample(f"{where} is too large to be averaged")
    return float(value)
