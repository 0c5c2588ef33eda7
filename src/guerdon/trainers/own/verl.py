"""Functions written as verl's `compute_score` (verl 0.9.1, `naive` and `batch` reward managers)."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias, cast

from guerdon.sample import Sample
from guerdon.trainers.own.function import OwnFunction, beside

logger = logging.getLogger("guerdon.trainers")

Form: TypeAlias = Literal["sample", "batch", "scorer"]
"""`compute_score(data_source, ...)`; `compute_score(data_sources, ...)` of the batch manager; or
`compute_score(solution, ground_truth)`, as the scorers that verl has for each dataset."""


class ScoreFunction(OwnFunction):
    """What verl and VeRL-Omni take of a function: a number, or a dict with `score`."""

    awaits = "functions"

    def result(self, returned: Any) -> Any:
        """The number, or the dict with its `score`; the other keys are kept beside it."""
        if isinstance(returned, Mapping):
            row = cast("Mapping[str, Any]", returned)
            if row.get("score") is None:
                self.refuse(returned, "a number under 'score'")
            rest = {key: plain(value) for key, value in row.items() if key != "score"}
            return beside(row["score"], rest)
        if returned is None or isinstance(returned, tuple | list):
            self.refuse(returned, "a number, or a dict with 'score'")
        return returned


class VerlFunction(ScoreFunction):
    """`compute_score(data_source, solution_str, ground_truth, extra_info=None, **kwargs)`.

    It is called by keywords, as verl's reward loop does, with `num_turns` and
    `rollout_reward_scores` in `extra_info`. It returns a number, or a dict with `score`; None and
    tuples, which would break a step of verl, are failures.

    A function with the plural names (`data_sources`, `solution_strs`, `ground_truths`,
    `extra_infos`) is called once per batch, as verl's batch manager does. One that takes no
    `data_source` is called as verl's `default_compute_score` calls its own scorers: with the
    solution and the ground truth by position, and the first of a tuple is the number. verl refuses
    such a function as a custom one, which is a warning in the log `guerdon.trainers`.

    Args:
        function: `pkg.mod:name` or `path/to/file.py:name`.
        keywords: as `reward_kwargs`.

    Raises:
        InvalidReward: an object whose `__call__` is async, which verl does not await.

    Example:
        >>> VerlFunction("statistics:fmean").name
        'fmean'
    """

    trainer = "verl"
    given = frozenset(
        f"{name}{end}"
        for name in ("data_source", "solution_str", "ground_truth", "extra_info")
        for end in ("", "s")
    )

    def __init__(self, function: str, **keywords: Any) -> None:
        super().__init__(function, **keywords)
        if self._form == "scorer":
            logger.warning(
                "%s takes no data_source: it gets the solution and the ground truth, as verl calls "
                "its own scorers; as a custom_reward_function verl would refuse it",
                self.name,
            )

    def _make_call(self) -> None:
        self._form = _form_of(self.code)
        self.arguments = {"sample": _of_sample, "batch": _of_batch, "scorer": _of_scorer}[
            self._form
        ]
        if self._form == "batch":
            self.scope = "batch"
        super()._make_call()

    def result(self, returned: Any) -> Any:
        """As verl's manager reads it; see the class."""
        if self._form == "scorer" and isinstance(returned, tuple | list) and returned:
            return super().result(cast("list[Any]", returned)[0])
        if self._form != "batch":
            return super().result(returned)
        rows = _listed(returned)
        if rows is None:
            self.refuse(returned, "a list with one number or dict per row")
        return self.each(rows, super().result)


def _form_of(function: Any) -> Form:
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):  # built in
        return "sample"
    if "solution_strs" in parameters:
        return "batch"
    takes_all = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
    return "sample" if takes_all or "data_source" in parameters else "scorer"


def _listed(returned: Any) -> list[Any] | None:
    found = returned.tolist() if hasattr(returned, "tolist") else returned
    return list(cast("list[Any]", found)) if isinstance(found, list | tuple) else None


def _of_sample(
    *,
    response: str,
    ground_truth: Any = None,
    data_source: str = "",
    metadata: Mapping[str, Any] | None = None,
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return (), {
        "data_source": data_source,
        "solution_str": response,
        "ground_truth": ground_truth,
        "extra_info": _extra(metadata),
    }


def _of_batch(*, samples: list[Sample]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return (), {
        "data_sources": [sample.data_source or "" for sample in samples],
        "solution_strs": [sample.response_text or "" for sample in samples],
        "ground_truths": [sample.ground_truth for sample in samples],
        "extra_infos": [_extra(sample.metadata) for sample in samples],
    }


def _of_scorer(
    *, response: str, ground_truth: Any = None
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return (response, ground_truth), {}


def _extra(metadata: Mapping[str, Any] | None) -> dict[str, Any]:
    return {"num_turns": None, "rollout_reward_scores": {}, **(metadata or {})}


def plain(value: Any) -> Any:
    """The number in a numpy scalar or in a tensor of one element; anything else as it is.

    Example:
        >>> import numpy as np
        >>> plain(np.float32(0.5)), plain("a")
        (0.5, 'a')
    """
    return value.item() if getattr(value, "shape", None) == () and hasattr(value, "item") else value
