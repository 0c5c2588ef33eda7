"""AReaL: `reward_fn` for its workflows, and a hook that scores rollouts inside the training loop.

    workflow_kwargs = {"reward_fn": "guerdon.trainers.areal.gsm8k_reward_fn", ...}

    workflow="guerdon.trainers.areal.RLVRWorkflow"
    workflow_kwargs = {"reward_fn": "gsm8k", ...}

The first line works in every workflow of AReaL. Its `AsyncRewardWrapper` runs functions in a pool
of processes, counts the queue as computing time, and turns what is not done in time into the reward
0. A function in that pool cannot prevent it: nobody asks the function before the 0 is given. So
IMPORTING THIS MODULE CHANGES THAT CLASS (`await_in_wrapper`): it awaits functions of Guerdon, and
all others go to the pool as ever. With GUERDON_AREAL_PATCH=0 nothing is changed, and functions for
the pool are refused. The second line changes nothing: it has a workflow of its own, which also
reports failures and components.
A sample without a score raises, and AReaL then rejects the episode.
Contract: AReaL 1.0.4, `areal/api/reward_api.py`, `areal/workflow/rlvr.py`, `vision_rlvr.py`.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Mapping
from functools import wraps
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from typing import Any, TypeAlias, cast
from weakref import WeakSet

import msgspec

from guerdon import registry
from guerdon.errors import ConfigError, UnknownReward
from guerdon.outcome import Failure
from guerdon.remote.query import END_TOKENS, without_end
from guerdon.sample import Sample
from guerdon.service import RewardService
from guerdon.trainers.micro_batch import Settled
from guerdon.trainers.plan import RewardLike
from guerdon.trainers.scalar import (
    ScalarFunction,
    ScalarSettings,
    components_of,
    plain,
    settings_of,
    truth_of,
)
from guerdon.trainers.versions import Versions

PARAMETERS = ("prompt", "completions", "prompt_ids", "completion_ids")
"""What AReaL gives by position in text workflows and by name in the vision workflow."""

REWARD_API = "areal.api.reward_api"

SWITCH = "GUERDON_AREAL_PATCH"
"""Environment variable; 0 leaves AReaL's class as it is."""

TESTED = "1.0.4"

WRAPPER_SECONDS = 15.0
"""`AsyncRewardWrapper(timeout_seconds=15)`: what takes longer is submitted again, and is 0 then."""

SYNC_TIMEOUT = 12.0
"""Seconds for a call in AReaL's pool: it must say what failed before AReaL stops waiting."""

ROUTED = ("gsm8k", "geometry3k", "clevr_count_70k")
"""Datasets for which AReaL ships a reward function."""

Report: TypeAlias = Callable[[Mapping[str, float]], None]
"""Gets the numbers of one sample beside its reward."""

WORKFLOWS = {
    "RLVRWorkflow": "rlvr",
    "VisionRLVRWorkflow": "vision_rlvr",
    "MultiTurnWorkflow": "multi_turn",
}
"""Those that are made to await: name to module under `areal.workflow`."""


class Settings(ScalarSettings, frozen=True, kw_only=True):
    """What a reward function can be told, beside `ScalarSettings`.

    Attributes:
        ground_truth: column of the row that is the ground truth; by default `ground_truth`, or the
            only one of `answer`, `solution` and `label`.
        data_source: of the samples; by default the row's own `data_source`.
        end_tokens: special tokens that are taken off the end of a completion: AReaL keeps them.
    """

    ground_truth: str | None = None
    data_source: str | None = None
    end_tokens: tuple[str, ...] = END_TOKENS


class RewardFn(ScalarFunction[Settings]):
    """What the sync and the async form have in common.

    Args:
        reward: a reward object or function, a reference, a configuration, or a `RewardService`.
        settings: see `Settings`.
    """

    trainer = "AReaL"
    versions = Versions("areal", least=TESTED, tested=TESTED)

    def sample(self, arguments: tuple[Any, ...], row: Mapping[str, Any]) -> Sample:
        """The sample of one call.

        Raises:
            TypeError: something that AReaL always gives is missing.
            ConfigError: the row has not the column that is named as ground truth.
        """
        if len(arguments) > len(PARAMETERS):
            raise TypeError(f"{self.__name__} takes {len(PARAMETERS)} positional arguments")
        given = dict(zip(PARAMETERS, arguments, strict=False))
        columns = {str(key): plain(value) for key, value in row.items()}
        for name in PARAMETERS[len(arguments) :]:
            if name not in columns:
                raise TypeError(f"{self.__name__} needs '{name}'")
            given[name] = columns.pop(name)
        settings = self.settings
        source = settings.data_source or columns.get("data_source")
        return Sample(
            prompt=given["prompt"],
            response=without_end(given["completions"], settings.end_tokens),
            ground_truth=truth_of(columns, settings.ground_truth),
            data_source=source if isinstance(source, str) else None,
            sample_id=self.sample_id(columns.get("query_id", columns.get("id", ""))),
            metadata=columns,
            prompt_token_ids=given["prompt_ids"],
            response_token_ids=given["completion_ids"],
        )


class SyncRewardFn(RewardFn):
    """A function that AReaL may send to its pool: picklable, and quick to fail there."""

    def __init__(self, reward: RewardLike, settings: Settings) -> None:
        if not _may_patch():
            raise ConfigError(
                f"{SWITCH}=0 leaves AReaL's wrapper alone, whose pool makes 0 of what is late: use "
                "the workflow guerdon.trainers.areal.RLVRWorkflow"
            )
        if isinstance(reward, RewardService):
            raise ConfigError(
                "AReaL's pool takes what can be pickled, which a RewardService cannot: name the "
                "reward or a configuration, or use the async form"
            )
        if settings.timeout is not None and not settings.timeout < WRAPPER_SECONDS:
            raise ConfigError(
                f"timeout is {settings.timeout} s, but AReaL waits {WRAPPER_SECONDS} s for a sync "
                "reward and makes 0 of what is not there then: use the async form"
            )
        super().__init__(reward, _quick(settings))
        self.awaited = AsyncRewardFn(reward, settings)
        """The same for what awaits it, without the haste."""

    def close(self) -> None:
        """Stop the services."""
        super().close()
        self.awaited.close()

    def __call__(self, *arguments: Any, **row: Any) -> float:
        """The reward of one completion.

        Args:
            arguments: up to four: prompt, completions (a text), prompt_ids, completion_ids.
            row: those that are left of them, and the columns of the dataset's row.

        Raises:
            ScoringFailed: there is no score and no `neutral`; AReaL rejects the episode.
        """
        return cast("float", self.score_one_sync(self.sample(arguments, row)).number)


class AsyncRewardFn(RewardFn):
    """For a workflow that awaits it: no pool, no queue, samples scored together.

    `report`, where it is set, gets `guerdon_failed`, `guerdon_assigned` and `component/NAME` of
    each sample.
    """

    report: Report | None = None

    async def __call__(self, *arguments: Any, **row: Any) -> float:
        """See `SyncRewardFn.__call__`."""
        settled = await self.score_one(self.sample(arguments, row))
        if self.report is not None:
            self.report(_numbers(settled))
        return cast("float", settled.number)


def _numbers(settled: Settled) -> dict[str, float]:
    numbers = {
        "guerdon_failed": float(isinstance(settled.outcome, Failure)),
        "guerdon_assigned": float(settled.assigned),
    }
    for name, value in components_of(settled.outcome).items():
        if value is not None:
            numbers[f"component/{name}"] = value
    return numbers


def reward_fn_for(reward: RewardLike, **settings: Any) -> SyncRewardFn:
    """A `reward_fn` for any workflow of AReaL, as an object or in a module that a path names.

    Args:
        reward: a reward object or function, a reference, a configuration.
        settings: see `Settings`. Retries and the wait for a score end after `timeout`, by default
            12 s: AReaL makes 0 of what takes 15.

    Raises:
        ConfigError: an unknown setting, or a timeout that AReaL would not wait for.

    Example:
        >>> from guerdon.reward import reward
        >>> @reward(value_range=(0.0, 1.0), auto_register=False)
        ... def exact(response: str, ground_truth: str) -> bool:
        ...     return response == ground_truth
        >>> reward_fn = reward_fn_for(exact)
        >>> reward_fn("2 + 2?", "4<|im_end|>", [17], [19, 2], answer="4")
        1.0
    """
    return SyncRewardFn(reward, settings_of(Settings, settings, "reward_fn_for"))


def async_reward_fn_for(reward: RewardLike, **settings: Any) -> AsyncRewardFn:
    """The same for what awaits it: `RLVRWorkflow` below, or a workflow of your own.

    Args:
        reward: also a `RewardService`.
        settings: see `Settings`; nothing limits the wait unless `timeout` does.
    """
    return AsyncRewardFn(reward, settings_of(Settings, settings, "async_reward_fn_for"))


def get_custom_reward_fn(path: str, **settings: Any) -> SyncRewardFn:
    """The reward function of a dataset, by the path or the name of the dataset.

    AReaL's function of this name knows two datasets and is called by nobody; this one looks in all
    routes of Guerdon (`guerdon rewards list`).

    Args:
        path: such as "/data/gsm8k" or "hiyouga/geometry3k".
        settings: see `Settings`.

    Raises:
        UnknownReward: no route fits.

    Example:
        >>> get_custom_reward_fn("/data/BUAADreamer/clevr_count_70k").__name__
        'clevr_count'
    """
    for name in ROUTED:
        if name in path:
            return reward_fn_for(_routed(name), data_source=name, **settings)
    try:
        reference = registry.reference_for(path)
    except UnknownReward as error:
        known = ", ".join(ROUTED)
        raise UnknownReward(f"{error}; AReaL's own datasets are {known}") from None
    return reward_fn_for(reference, data_source=path, **settings)


def _routed(dataset: str) -> str:
    source = "openai/gsm8k" if dataset == "gsm8k" else dataset
    return registry.reference_for(source)


def _quick(settings: Settings) -> Settings:
    timeout = SYNC_TIMEOUT if settings.timeout is None else settings.timeout
    within = timeout if settings.retry_within is None else settings.retry_within
    return msgspec.structs.replace(settings, timeout=timeout, retry_within=within)


def gsm8k_reward_fn(*arguments: Any, **row: Any) -> float:
    """The route of GSM8K, for `reward_fn="guerdon.trainers.areal.gsm8k_reward_fn"`.

    Example:
        >>> gsm8k_reward_fn("6*7?", "so it is\\n#### 42", [1], [2], answer="6*7 = 42\\n#### 42")
        1.0
    """
    return _of_dataset("gsm8k")(*arguments, **row)


def geometry3k_reward_fn(*arguments: Any, **row: Any) -> float:
    r"""The route of Geometry3K: 0.9 for the answer and 0.1 for the form, as verl has it.

    AReaL's own number is `reward_fn_for("geometry3k", options={"compat": "areal"})`.

    Example:
        >>> geometry3k_reward_fn("x?", r"<think>a</think>\boxed{3}", [1], [2], answer="3")
        1.0
    """
    return _of_dataset("geometry3k")(*arguments, **row)


def clevr_count_70k_reward_fn(*arguments: Any, **row: Any) -> float:
    """The route of CLEVR counting.

    Example:
        >>> clevr_count_70k_reward_fn("how many?", "I count [3]", [1], [2], answer="3")
        1.0
    """
    return _of_dataset("clevr_count_70k")(*arguments, **row)


_functions: dict[str, SyncRewardFn] = {}


def _of_dataset(name: str) -> SyncRewardFn:
    function = _functions.get(name)
    if function is None:
        function = _functions[name] = get_custom_reward_fn(name)
    return function


def await_in_wrapper() -> None:
    """Let AReaL's wrapper await the functions of this module instead of sending them to its pool.

    Done when this module is imported, or as soon as AReaL's is. `timeout_seconds` and `max_retries`
    hold for such functions no more: `timeout` and `retry_within` do.

    Raises:
        ConfigError: AReaL's class is not the one that is known.
    """
    module = sys.modules.get(REWARD_API)
    if module is None or not _may_patch():
        return
    wrapper: Any = getattr(module, "AsyncRewardWrapper", None)
    if wrapper in _awaiting:
        return
    if not _is_known(wrapper):
        raise ConfigError(
            f"{REWARD_API}.AsyncRewardWrapper is not that of AReaL {TESTED}, so Guerdon cannot "
            f"make it await rewards: set {SWITCH}=0, which leaves it alone, and use the workflow "
            "guerdon.trainers.areal.RLVRWorkflow"
        )
    _awaiting.add(wrapper)
    pooled = wrapper.__call__

    @wraps(pooled)
    async def awaited_or_pooled(self: Any, *arguments: Any, **row: Any) -> Any:
        function = _awaitable(self.reward_fn)
        return await (
            pooled(self, *arguments, **row) if function is None else function(*arguments, **row)
        )

    wrapper.__call__ = awaited_or_pooled


_awaiting: WeakSet[type[Any]] = WeakSet()


def _may_patch() -> bool:
    return os.environ.get(SWITCH, "1") != "0"


def _is_known(wrapper: Any) -> bool:
    """Whether it is a class that is made of a `reward_fn` and then awaited."""
    if not isinstance(wrapper, type) or not inspect.iscoroutinefunction(wrapper.__call__):
        return False
    return "reward_fn" in inspect.signature(wrapper).parameters


class _WhenImported(MetaPathFinder):
    """Sees AReaL's module come where ours was first."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if fullname != REWARD_API:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        found = (finder.find_spec(fullname, path, target) for finder in others)
        spec = next((one for one in found if one is not None), None)
        if spec is not None and spec.loader is not None:
            loader: Any = spec.loader
            run = loader.exec_module

            def then_await(module: Any) -> None:
                run(module)
                await_in_wrapper()

            loader.exec_module = then_await
        return spec


def _awaitable(function: Any) -> AsyncRewardFn | None:
    """What is awaited for a function of this module; None for any other."""
    if isinstance(function, AsyncRewardFn):
        return function
    by_path = (gsm8k_reward_fn, geometry3k_reward_fn, clevr_count_70k_reward_fn)
    for name, one in zip(ROUTED, by_path, strict=True):
        if function is one:
            function = _of_dataset(name)
    return function.awaited if isinstance(function, SyncRewardFn) else None


def close() -> None:
    """Stop the services behind the functions of this module."""
    while _functions:
        _functions.popitem()[1].close()


def __getattr__(name: str) -> Any:
    """The workflows, made when AReaL is there to derive them from."""
    if name not in WORKFLOWS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = registry.import_module(f"areal.workflow.{WORKFLOWS[name]}")
    made = globals()[name] = _workflow(getattr(module, name), name, _report)
    return made


def _report(numbers: Mapping[str, float]) -> None:
    """Into the statistics of the rollout, where AReaL itself writes the reward."""
    tracker = cast("Any", registry.import_module("areal.utils.stats_tracker"))
    context = cast("Any", registry.import_module("areal.infra.workflow_context"))
    tracker.get(context.stat_scope()).scalar(**numbers)


def _workflow(base: type[Any], name: str, report: Report) -> type[Any]:
    """A workflow of AReaL that awaits the reward instead of sending it to a pool of processes."""

    def __init__(
        self: Any,
        reward_fn: Any,
        *arguments: Any,
        reward_settings: Mapping[str, Any] | None = None,
        **keywords: Any,
    ) -> None:
        # A pool starts its processes when it is first used, which is never; the two attributes are
        # all that the rest of the class looks at.
        cast("Any", base).__init__(self, "", *arguments, **keywords)
        if not isinstance(reward_fn, AsyncRewardFn):
            reward_fn = async_reward_fn_for(reward_fn, **(reward_settings or {}))
        elif reward_settings:
            raise ConfigError("reward_settings stand beside a reward, not beside a made function")
        reward_fn.report = report
        self.reward_fn = self.async_reward_fn = reward_fn

    return type(
        name,
        (base,),
        {"__init__": __init__, "__doc__": base.__doc__, "__module__": __name__},
    )


await_in_wrapper()
sys.meta_path.insert(0, _WhenImported())

__all__ = [
    "AsyncRewardFn",
    "Settings",
    "SyncRewardFn",
    "async_reward_fn_for",
    "await_in_wrapper",
    "clevr_count_70k_reward_fn",
    "close",
    "geometry3k_reward_fn",
    "get_custom_reward_fn",
    "gsm8k_reward_fn",
    "reward_fn_for",
]
