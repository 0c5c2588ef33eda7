"""AgentFly: rewards in its registry, with the rollout's `Context`, and its names for new ones.

    from guerdon.trainers.agentfly import register
    register("gsm8k", name="guerdon_gsm8k")

    agent.init_config.reward_name=guerdon_gsm8k

A file that was written for AgentFly keeps its text, its import aside:

    from guerdon.trainers.agentfly import BaseReward, reward

What they define is a Guerdon reward, and what `register` gives AgentFly is a callable that it
awaits, for `{"reward": number, ...}`. A sample without a score raises, which AgentFly passes on to
the run, unless `neutral` names a number. Contract: AgentFly 0.1.0,
`src/agentfly/rewards/reward_base.py`, `src/agentfly/agents/chain/chain_base.py` and, later,
`src/agentfly/agents/rollout/base.py`. The package of this name on the index is another project.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from numbers import Real
from typing import Any, TypeAlias, cast

from msgspec.structs import replace

from guerdon import registry
from guerdon.declaration import is_async
from guerdon.errors import (
    BudgetExceeded,
    ConfigError,
    GuerdonError,
    InvalidReward,
    ScoringFailed,
)
from guerdon.outcome import EMPTY, Failure
from guerdon.outcomes import Outcomes
from guerdon.reward import BaseReward as Reward
from guerdon.reward import FunctionReward
from guerdon.sample import Sample, Unusable
from guerdon.service import Entry
from guerdon.trainers.agentfly_trajectory import parted, turns
from guerdon.trainers.component import Columns
from guerdon.trainers.micro_batch import Settled, settled
from guerdon.trainers.plan import RewardLike
from guerdon.trainers.scalar import (
    ScalarFunction,
    ScalarSettings,
    plain,
    settings_of,
    truth_of,
)

REGISTRY = "agentfly.rewards"
"""AgentFly's module with `register_reward`."""

CHAIN = ("final_response", "trajectory", "context", "group_id", "reward_fn")
"""What AgentFly's chain gives that is no metadata. What it adds to the row (`id`, `chain_id`,
`group_idx`, `chain_idx`, `finish_reason`, ...) is, under AgentFly's names."""

TRAJECTORY = "trajectory"

Register: TypeAlias = Callable[[str, Any], Any]


class Settings(ScalarSettings, frozen=True, kw_only=True):
    """What `register` can be told, beside `ScalarSettings`.

    Attributes:
        ground_truth: column of the row that is the ground truth; by default `ground_truth`, or the
            only one of `answer`, `solution` and `label`.
        metrics: names of those of the row; by default all that the reward has reported so far.
            Name them where it reports some only now and then: AgentFly puts the values of a key
            that rollouts lack under other rollouts.
    """

    ground_truth: str | None = None
    metrics: Sequence[str] | None = None


class ChainReward(ScalarFunction[Settings]):
    """What AgentFly's chain calls at the end of a rollout, by keywords, and awaits.

    Args:
        reward: a reward object or function, a reference, a configuration, or a `RewardService`.
        settings: see `Settings`.
    """

    trainer = "AgentFly"

    def __init__(self, reward: RewardLike, settings: Settings) -> None:
        super().__init__(reward, settings)
        self._columns = Columns(self.components, settings.metrics)

    async def __call__(self, **keywords: Any) -> dict[str, float]:
        """The reward of one rollout.

        Args:
            keywords: `final_response`; `trajectory`, its messages; `id`; `context`, which rewards
                that ask for one get as it is; and the columns of the row.

        Returns:
            `reward`; `guerdon_failed`, `guerdon_assigned`; each component and each metric (see
            `Settings`), NaN where this rollout has none: AgentFly makes a column of each key, which
            must not have holes.

        Raises:
            ScoringFailed: there is no score and no `neutral`.
        """
        if "final_response" not in keywords:
            raise TypeError("AgentFly calls a reward with final_response=")
        sample = self._sample(keywords)
        context = keywords.get("context")
        if context is None or not _borrows(self.reward):
            return self._row(await self.score_one(sample))
        # A context belongs to one rollout: nothing is scored together with it.
        return self._row(self.checked(await self._with(sample, context)))

    async def _with(self, sample: Entry, context: Any) -> Settled:
        settings = self.settings
        try:
            outcomes: Outcomes = await self.service.score(
                [sample], split=settings.split, timeout=settings.timeout, context=context
            )
        except BudgetExceeded:
            raise
        except ScoringFailed as failed:  # said as for a reward without a context
            outcomes = failed.outcomes
        return settled(outcomes)[0]

    def _sample(self, keywords: Mapping[str, Any]) -> Entry:
        """The sample, or what stands for messages that are none: the policy decides about it."""
        row = {key: plain(value) for key, value in keywords.items() if key not in CHAIN}
        source = row.get("data_source")
        rollout, group = keywords.get("id"), keywords.get("group_id")
        name = self.sample_id("" if rollout is None else rollout)
        group_id = None if group is None else str(group)
        final = keywords["final_response"]
        truth = truth_of(row, self.settings.ground_truth)
        try:
            prompt, response = parted(keywords.get(TRAJECTORY), final)
            sample = Sample(
                prompt=row.pop("prompt", prompt),
                response=response,
                ground_truth=truth,
                data_source=source if isinstance(source, str) else None,
                sample_id=name,
                group_id=group_id,
                metadata=row or EMPTY,
            )
        except GuerdonError as error:
            problem = f"{TRAJECTORY}: {error}"
            return Unusable(problem=problem, sample_id=name, group_id=group_id)
        if sample.response_text == final:
            return sample
        # A rollout may end with a tool's message: AgentFly calls that the final response.
        return replace(sample, metadata={**row, "final_response": final})

    def _row(self, one: Settled) -> dict[str, float]:
        return {
            **self._columns.row(one.outcome),
            "reward": cast("float", one.number),
            "guerdon_failed": float(isinstance(one.outcome, Failure)),
            "guerdon_assigned": float(one.assigned),
        }


def register(
    reward: RewardLike, *, name: str | None = None, into: Register | None = None, **settings: Any
) -> ChainReward:
    """Put a reward into AgentFly's registry, for `agent.init_config.reward_name`.

    It must run in the process of the agent, before the agent is made.

    Args:
        reward: a reward object or function, a reference, a configuration, or a `RewardService`.
        name: in the registry, which lowers its case; by default the reward's.
        into: in place of `agentfly.rewards.register_reward`.
        settings: see `Settings`.

    Raises:
        ConfigError: an unknown setting, or AgentFly is not installed.

    Example:
        >>> import asyncio
        >>> rewards = {}
        >>> @reward(name="exact")
        ... def exact(final_response: str, answer: str) -> float:
        ...     return 1.0 if final_response == answer else 0.0
        >>> found = register(exact, into=rewards.__setitem__)
        >>> asyncio.run(rewards["exact"](final_response="4", answer="4", id="r1", trajectory=[]))
        {'reward': 1.0, 'guerdon_failed': 0.0, 'guerdon_assigned': 0.0}
    """
    function = ChainReward(reward, settings_of(Settings, settings, "register"))
    (into or _registry())(name or function.__name__, function)
    return function


def reward(name: str | None = None, auto_register: bool = False) -> Callable[[Any], FunctionReward]:
    """AgentFly's decorator: keywords by name, a float or a dict with `reward` back.

    Args:
        name: by default the function's.
        auto_register: also in Guerdon's registry of names, under which configurations find it.

    Raises:
        InvalidReward: it is used without parentheses, which AgentFly's has not either.
    """
    if callable(name):
        raise InvalidReward(f"write @reward() or @reward(name=...) above {name!r}")

    def decorate(function: Callable[..., Any]) -> FunctionReward:
        return FunctionReward(_translated(function), name=name or function.__name__)

    if auto_register:
        return lambda function: _registered(decorate(function))
    return decorate


class BaseReward(Reward):
    """AgentFly's base class: a subclass has `name` and `call`, sync or async.

    `call` gets what it names of the row and the rollout, and returns a float or a dict with
    `reward`. An instance is a Guerdon reward.

    Example:
        >>> class Long(BaseReward):
        ...     name = "long"
        ...     def call(self, final_response: str) -> float:
        ...         return {"reward": 1.0, "length": float(len(final_response))}
        >>> Long().call(final_response="four")["metrics"]
        {'length': 4.0}
    """

    auto_register = False

    def __init_subclass__(cls, **keywords: Any) -> None:
        if "call" in cls.__dict__:
            cls.call = _translated(cls.__dict__["call"])
        if "auto_register" not in cls.__dict__:  # AgentFly's names are its own
            cls.auto_register = False
        super().__init_subclass__(**keywords)

    def __init__(self, name: str | None = None) -> None:
        """AgentFly's subclasses call it.

        Args:
            name: in place of the class's, for this instance alone.
        """
        if name is not None:
            self.name = name


def _registered(made: FunctionReward) -> FunctionReward:
    registry.register(made.name, made)
    return made


def _translated(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with its results as Guerdon has them, and its trajectory as AgentFly has it."""
    signature = inspect.signature(function)
    if any(one.kind is one.VAR_POSITIONAL for one in signature.parameters.values()):
        raise InvalidReward(f"{function.__name__}: AgentFly gives keywords only")
    made: Any
    if is_async(function):

        @wraps(function)
        async def awaited(*arguments: Any, **keywords: Any) -> Any:
            return _result(await function(*arguments, **_with_trajectory(keywords)))

        made = awaited
    else:

        @wraps(function)
        def called(*arguments: Any, **keywords: Any) -> Any:
            return _result(function(*arguments, **_with_trajectory(keywords)))

        made = called
    made.__signature__ = signature.replace(
        parameters=[
            one.replace(name="sample") if one.name == TRAJECTORY else one
            for one in signature.parameters.values()
        ]
    )
    return made


def _with_trajectory(keywords: dict[str, Any]) -> dict[str, Any]:
    """Keywords of a call with the whole conversation in place of the sample."""
    sample = keywords.pop("sample", None)
    if isinstance(sample, Sample):
        keywords[TRAJECTORY] = turns(sample.prompt_messages, sample.response_messages)
    return keywords


def _result(returned: Any) -> Any:
    """A dict with `reward` as Guerdon writes it; anything else is checked where all results are."""
    if not isinstance(returned, Mapping):
        return returned
    row = dict(cast("Mapping[str, Any]", returned))
    if "reward" not in row:
        return row
    number = row.pop("reward")
    metrics = {key: float(value) for key, value in row.items() if isinstance(value, Real)}
    info = {key: value for key, value in row.items() if key not in metrics}
    return {"score": number, "metrics": metrics, "info": info}


def _borrows(root: Reward) -> bool:
    """Whether the reward, or one of its parts, asks for a context."""
    own = not root.children and bool(root.parameters.borrows)
    return own or any(_borrows(child) for child in root.children.values())


def _registry() -> Register:
    module = registry.import_module(REGISTRY)
    found = getattr(module, "register_reward", None)
    if found is None:
        raise ConfigError(
            f"{REGISTRY} has no register_reward: AgentFly 0.1.0 of Agent-One-Lab has; the package "
            "'agentfly' on the package index is another project"
        )
    return found


__all__ = ["BaseReward", "ChainReward", "Settings", "register", "reward"]
