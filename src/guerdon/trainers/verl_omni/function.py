"""`compute_score`, as `reward.custom_reward_function` of VeRL-Omni names it."""

from __future__ import annotations

import math
import threading
from collections.abc import Hashable, Mapping
from typing import Any, TypeAlias, cast

from guerdon import registry
from guerdon.errors import GuerdonError
from guerdon.outcome import EMPTY
from guerdon.sample import Sample, Unusable
from guerdon.trainers.micro_batch import Settled
from guerdon.trainers.plan import RewardLike
from guerdon.trainers.scalar import (
    ScalarFunction,
    ScalarSettings,
    components_of,
    kind_of,
    plain,
    settings_of,
    text_of,
)
from guerdon.trainers.verl import POOL_WORKERS
from guerdon.trainers.verl_omni.multi import multi_reward, plain_mapping
from guerdon.trainers.verl_omni.solution import media_of

Row: TypeAlias = dict[str, float | str | None]

RUNTIME = (
    "reward_router_address",
    "reward_model_tokenizer",
    "model_name",
    "sampling_params",
)
"""Keywords that VeRL-Omni adds where it runs a reward model; rewards get them by name."""

CAPTIONS = ("prompt", "raw_prompt")
"""Keys of `extra_info` that hold the prompt, as upstream's UnifiedReward looks for it."""

AUTO = "auto"
COMPONENT = "component/"
OUTCOME = "guerdon_outcome"
FAILURE = "guerdon_failure"
ASSIGNED = "guerdon_assigned"


class Settings(ScalarSettings, frozen=True, kw_only=True):
    """What `reward_kwargs` can hold beside `reward` and `ScalarSettings`.

    Attributes:
        layout: of arrays whose order is not VeRL-Omni's: "HWC", "THWC", "CTHW", ...
    """

    layout: str | None = None


class ComputeScore(ScalarFunction[Settings]):
    """What VeRL-Omni's `VisualRewardManager` calls, by keyword, once per sample.

    Args:
        reward: a reward object or function, a reference, a configuration, or a `RewardService`.
        settings: see `Settings`.
    """

    trainer = "VeRL-Omni"
    pool_workers = POOL_WORKERS

    async def __call__(
        self,
        data_source: str,
        solution_image: Any,
        ground_truth: Any,
        extra_info: Mapping[str, Any] | None = None,
        **runtime: Any,
    ) -> Row:
        """Score one image or video; see `compute_score`."""
        entry = self._entry(data_source, solution_image, ground_truth, extra_info, runtime)
        return self._row(await self.score_one(entry))

    def score_sync(
        self,
        data_source: str,
        solution_image: Any,
        ground_truth: Any,
        extra_info: Mapping[str, Any] | None = None,
        **runtime: Any,
    ) -> Row:
        """As a call, from sync code."""
        entry = self._entry(data_source, solution_image, ground_truth, extra_info, runtime)
        return self._row(self.score_one_sync(entry))

    def _entry(
        self,
        data_source: str,
        solution_image: Any,
        ground_truth: Any,
        extra_info: Mapping[str, Any] | None,
        runtime: Mapping[str, Any],
    ) -> Sample:
        """The sample, or what stands for a picture that is none: the policy decides about it."""
        metadata = {str(key): plain(value) for key, value in (extra_info or EMPTY).items()}
        metadata.update({key: runtime[key] for key in RUNTIME if key in runtime})
        name = self.sample_id(f"{data_source}:{metadata.get('index', '')}")
        truth = plain(ground_truth)
        try:
            media = media_of(solution_image, self.settings.layout)
            is_video = media.kind == "video"
            return Sample(
                prompt=_caption(metadata, truth),
                ground_truth=truth,
                data_source=data_source,
                sample_id=name,
                metadata=metadata or EMPTY,
                images=() if is_video else (media,),
                videos=(media,) if is_video else (),
            )
        except GuerdonError as error:
            return cast("Sample", Unusable(problem=f"solution_image: {error}", sample_id=name))

    def _row(self, settled: Settled) -> Row:
        found = components_of(settled.outcome)
        row: Row = {
            "score": settled.number,
            OUTCOME: kind_of(settled.outcome),
            FAILURE: text_of(settled.outcome),
            ASSIGNED: float(settled.assigned),
        }
        for name in self.components:
            value = found.get(name)
            # VeRL-Omni takes means over columns, which None would end.
            row[f"{COMPONENT}{name}"] = math.nan if value is None else value
        return row


def _caption(metadata: Mapping[str, Any], truth: Any) -> Any:
    """The prompt: of `extra_info`, else the ground truth, which holds it in VeRL-Omni's data."""
    for key in CAPTIONS:
        if metadata.get(key):
            return metadata[key]
    return truth if isinstance(truth, str) else None


def compute_score_for(reward: RewardLike, **settings: Any) -> Any:
    """A coroutine function `compute_score` with a reward of its own, for a file.

    VeRL-Omni looks for one with `inspect.iscoroutinefunction`.

    Args:
        reward: see `ComputeScore`.
        settings: see `Settings`.

    Raises:
        ConfigError: an unknown setting, or a reward that cannot work here.

    Example:
        >>> import asyncio
        >>> import numpy as np
        >>> compute_score = compute_score_for("jpeg_compressibility")
        >>> picture = np.zeros((8, 8, 3), np.uint8)
        >>> asyncio.run(compute_score("jpeg", picture, "a wall"))["score"]
        -0.001262
    """
    function = ComputeScore(reward, settings_of(Settings, settings, "compute_score"))

    async def compute_score(
        data_source: str,
        solution_image: Any,
        ground_truth: Any,
        extra_info: Mapping[str, Any] | None = None,
        **runtime: Any,
    ) -> Row:
        return await function(data_source, solution_image, ground_truth, extra_info, **runtime)

    return compute_score


async def compute_score(
    data_source: str,
    solution_image: Any,
    ground_truth: Any,
    extra_info: Mapping[str, Any] | None = None,
    *,
    reward: Any = AUTO,
    reward_functions: Mapping[str, Mapping[str, Any]] | None = None,
    **keywords: Any,
) -> Row:
    """Score one image or video; VeRL-Omni's `VisualRewardManager` calls it.

    Args:
        data_source: routes the reward under `auto`.
        solution_image: see `media_of`.
        ground_truth: `reward_model.ground_truth` of the row.
        extra_info: of the row; copied, its keys are metadata of the sample.
        reward: a name, `pkg.mod:name`, `/path/rewards.py:name`, a YAML file, or `auto`.
        reward_functions: in place of `reward`: see `multi_reward`.
        keywords: `Settings`, and what VeRL-Omni adds where it runs a reward model.

    Returns:
        `score`; `guerdon_outcome`: "score", "abstention" or "failure"; `guerdon_failure`: kind,
        blame and message, or ""; `guerdon_assigned`: 1.0 where the score was assigned and not
        measured, else 0.0; and `component/NAME` for each component, NaN where it has no score.
        The keys are the same for every row.

    Raises:
        ScoringFailed: there is no score and no `neutral`, or too many failed.
        ConfigError: an unknown setting.
    """
    runtime = {key: keywords.pop(key) for key in RUNTIME if key in keywords}
    function = _function(data_source, reward, reward_functions, keywords)
    return await function(data_source, solution_image, ground_truth, extra_info, **runtime)


def close() -> None:
    """Stop every service that this process has started here."""
    with _lock:
        functions = list(_functions.values())
        _functions.clear()
    for function, _ in functions:
        function.close()


_lock = threading.Lock()
# Beside each function what its key names by identity, which must not be freed meanwhile.
_functions: dict[Hashable, tuple[ComputeScore, Any]] = {}


def _function(
    data_source: str,
    named: Any,
    panel: Mapping[str, Mapping[str, Any]] | None,
    given: Mapping[str, Any],
) -> ComputeScore:
    auto = panel is None and isinstance(named, str) and named == AUTO
    route = data_source if auto else None
    key = (route, _stand_in(named), _stand_in(panel), _stand_in(given))
    with _lock:
        known = _functions.get(key)
        if known is None:
            if panel is not None:
                reward: Any = multi_reward(panel)
            else:
                reward = registry.reference_for(data_source) if auto else named
            settings = {name: _plain(value) for name, value in given.items()}
            made = ComputeScore(reward, settings_of(Settings, settings, "compute_score"))
            known = _functions[key] = (made, (named, panel, dict(given)))
        return known[0]


def _plain(value: Any) -> Any:
    return plain_mapping(cast("Any", value)) if isinstance(value, Mapping) else value


def _stand_in(value: Any) -> Hashable:
    """A hashable stand-in; an object counts as itself."""
    if isinstance(value, str | int | float | None):
        return (type(value), value)
    if isinstance(value, Mapping):
        items = cast("Mapping[Any, Any]", value).items()
        return ("mapping", tuple((str(key), _stand_in(item)) for key, item in items))
    return ("object", id(value))
