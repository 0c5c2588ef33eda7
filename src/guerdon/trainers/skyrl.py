"""SkyRL: an environment of SkyRL-gym whose reward is a Guerdon reward.

    skyrl_gym.register(id="guerdon", entry_point="guerdon.trainers.skyrl:RewardEnv")

    environment.env_class=guerdon
    +environment.skyrl_gym.guerdon.reward=gsm8k

The response is one turn, and ends the episode. SkyRL has no way to say that there is no score: the
step raises, unless `neutral` names a number. Contract: skyrl-gym 0.4.0,
`skyrl_gym/envs/base_text_env.py`.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, cast

from guerdon import registry
from guerdon.errors import ConfigError, InvalidSample
from guerdon.outcome import Failure
from guerdon.sample import Sample
from guerdon.trainers.micro_batch import Settled
from guerdon.trainers.plan import RewardLike
from guerdon.trainers.scalar import (
    ScalarFunction,
    ScalarSettings,
    components_of,
    plain,
    settings_of,
    text_of,
    truth_of,
    without_nodes,
)
from guerdon.trainers.versions import Versions

ENVIRONMENT = "RewardEnv"


class StepReward(ScalarFunction[ScalarSettings]):
    """Scores the action of a step.

    Args:
        reward: a reward object or function, a reference, a configuration, or a `RewardService`.
        settings: see `ScalarSettings`.
    """

    trainer = "SkyRL"
    versions = Versions("skyrl-gym", least="0.4.0", tested="0.4.0")

    def settle(self, prompt: Any, action: str, extras: Mapping[str, Any]) -> Settled:
        """Score one action.

        Args:
            prompt: messages.
            action: what the model wrote.
            extras: columns of the row; `reward_spec.ground_truth` is the ground truth.

        Raises:
            ScoringFailed: there is no score and no `neutral`.
            InvalidSample: `reward_spec` is no mapping.
        """
        row = {str(key): plain(value) for key, value in extras.items()}
        spec = cast("Mapping[str, Any]", row.get("reward_spec") or {})
        if not isinstance(spec, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidSample(f"reward_spec is a {type(spec).__name__}, not a mapping")
        source = row.get("data_source")
        sample = Sample(
            prompt=prompt,
            response=action,
            ground_truth=spec["ground_truth"] if "ground_truth" in spec else truth_of(row),
            data_source=source if isinstance(source, str) else None,
            sample_id=self.sample_id(row.get("index", "")),
            metadata=row,
        )
        return self.score_one_sync(sample)


def step_output(settled: Settled) -> dict[str, Any]:
    """What an environment of one turn gives back for its action."""
    outcome = settled.outcome
    metadata: dict[str, Any] = {"guerdon_failure": text_of(outcome), **metrics_of(settled)}
    return {"observations": [], "reward": settled.number, "done": True, "metadata": metadata}


def metrics_of(settled: Settled) -> dict[str, float]:
    """Numbers of one episode that SkyRL averages: flags, and the components that have a value."""
    found = components_of(settled.outcome)
    return {
        "guerdon_failed": float(isinstance(settled.outcome, Failure)),
        "guerdon_assigned": float(settled.assigned),
        **{f"component/{name}": value for name, value in found.items() if value is not None},
    }


def step_reward(config: Mapping[str, Any] | None) -> StepReward:
    """The reward of an environment's configuration; one for equal configurations of a process.

    Args:
        config: `reward`, and `ScalarSettings`.

    Raises:
        ConfigError: no reward, or an unknown setting.
    """
    settings = cast("dict[str, Any]", without_nodes(config or {}))
    if not settings.get("reward"):
        raise ConfigError(
            "the environment has no reward: +environment.skyrl_gym.guerdon.reward=gsm8k"
        )
    reward = cast("RewardLike", settings.pop("reward"))
    key = repr((reward, sorted(settings.items())))
    with _lock:
        known = _rewards.get(key)
        if known is None:
            known = _rewards[key] = StepReward(
                reward, settings_of(ScalarSettings, settings, "skyrl_gym")
            )
        return known


def close() -> None:
    """Stop every service that this process has started for SkyRL."""
    with _lock:
        while _rewards:
            _rewards.popitem()[1].close()


_lock = threading.Lock()
_rewards: dict[str, StepReward] = {}


def __getattr__(name: str) -> Any:
    """`RewardEnv`, made when SkyRL-gym is there to derive it from."""
    if name != ENVIRONMENT:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    base = cast("Any", registry.import_module("skyrl_gym.envs.base_text_env")).BaseTextEnv
    made = globals()[name] = _environment(base)
    return made


def _environment(base: type[Any]) -> type[Any]:
    def __init__(
        self: Any, env_config: Any = None, extras: Mapping[str, Any] | None = None
    ) -> None:
        cast("Any", base).__init__(self)
        self._reward = step_reward(env_config)
        self._extras = extras or {}
        self._prompt, self._metrics = None, {}

    def init(self: Any, prompt: Any) -> tuple[Any, dict[str, Any]]:
        self._prompt = prompt
        return prompt, {}

    def step(self: Any, action: str) -> dict[str, Any]:
        self.turns += 1
        settled = self._reward.settle(self._prompt, action, self._extras)
        self._metrics = metrics_of(settled)
        return step_output(settled)

    def get_metrics(self: Any) -> dict[str, float]:
        return self._metrics

    methods = {"__init__": __init__, "init": init, "step": step, "get_metrics": get_metrics}
    doc = "One turn, scored by a Guerdon reward; see the module."
    return type(ENVIRONMENT, (base,), {**methods, "__doc__": doc, "__module__": __name__})
