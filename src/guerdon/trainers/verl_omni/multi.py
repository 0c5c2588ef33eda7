"""VeRL-Omni's `reward.reward_functions`: several functions, added up with weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias, cast

from guerdon import registry
from guerdon.compose import Child, Value, WeightedSum
from guerdon.compose.child import Missing
from guerdon.errors import ConfigError, nearest
from guerdon.reward import BaseReward
from guerdon.trainers.own.verl_omni import VerlOmniFunction

Optional: TypeAlias = Literal["renormalise", "abstain", "zero"]

RESERVED = ("path", "name", "reward", "weight", "required", "missing", "independent")
"""Fields that are no option. All entries run at once, so `independent` changes nothing."""

UPSTREAMS = ("model", "deployment", "use_rollout_sampling_params")
"""Fields that bind an entry to a model which VeRL-Omni's own manager runs."""

SCHEME = "pkg://"

FAILED_OPTIONAL: Mapping[str, Missing] = {
    "renormalise": "renormalise",
    "abstain": "abstain",
    "zero": Value(0.0),
}
"""What becomes of an optional entry without a score; `zero` is upstream's."""


def multi_reward(
    reward_functions: Mapping[str, Mapping[str, Any]], *, missing: Optional = "renormalise"
) -> WeightedSum:
    """The weighted sum of the entries, not divided by the weights, as VeRL-Omni adds them up.

    All entries are evaluated at once. One that fails is never 0, unless `missing` says so: a
    `required` one fails the sample, an optional one leaves the rest of the sum scaled up and the
    score flagged (`renormalise`), or makes the sample abstain (`abstain`).

    Args:
        reward_functions: a mapping, or OmegaConf's; by key: `path` (a file, or `pkg://module`) and
            `name` of a function with VeRL-Omni's signature, or `reward`: any reward of Guerdon;
            `weight` (1.0), `required` (false), `missing` (of this entry), and options of the
            function or the reward.
        missing: of optional entries: `renormalise`, `abstain`, or `zero`, upstream's 0.0, with
            which a crash is the best score of a reward that is always negative.

    Raises:
        ConfigError: an entry that cannot be read, or weights whose sum is not above 0.

    Example:
        >>> panel = multi_reward({"small": {"reward": "jpeg_compressibility", "weight": 2.0}})
        >>> [(name, child.name) for name, child in panel.children.items()]
        [('small', 'jpeg_compressibility')]
    """
    entries = plain_mapping(reward_functions)
    if not entries:
        raise ConfigError("reward_functions has no entry")
    children: dict[str, Child] = {}
    weights = 0.0
    for key, entry in entries.items():
        child = _child(str(key), entry, missing)
        children[str(key)] = child
        weights += float(cast("float", child.weight))
    if not weights > 0:
        raise ConfigError(f"reward_functions: the weights add up to {weights}, not above 0")
    return WeightedSum(children, name="multi_visual")


def plain_mapping(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """A mapping whose values are plain data, where it is OmegaConf's.

    Raises:
        ConfigError: a value is missing, or an interpolation cannot be resolved.
    """
    if type(given).__module__.partition(".")[0] != "omegaconf":
        return given
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        found = OmegaConf.to_container(cast("Any", given), resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(str(error).partition("\n")[0]) from None
    return cast("Mapping[str, Any]", found)


def _child(key: str, entry: Any, missing: str) -> Child:
    where = f"reward_functions.{key}"
    if not isinstance(entry, Mapping):
        raise ConfigError(f"{where} is a {type(entry).__name__}, not a mapping")
    given = {str(name): value for name, value in cast("Mapping[Any, Any]", entry).items()}
    for name in UPSTREAMS:
        if given.get(name):
            raise ConfigError(
                f"{where}.{name} is for VeRL-Omni's own manager, which runs the model: name a "
                "Guerdon reward here, or leave this entry to that manager"
            )
    left_out = (*RESERVED, *UPSTREAMS)
    options = {name: value for name, value in given.items() if name not in left_out}
    weight = given.get("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float):
        raise ConfigError(f"{where}.weight is a number, got {weight!r}")
    own = given.get("missing", missing)
    if own not in FAILED_OPTIONAL:
        hint = nearest(str(own), FAILED_OPTIONAL)
        raise ConfigError(f"{where}.missing is renormalise, abstain or zero, got {own!r}{hint}")
    lost = "fail" if _required(where, given.get("required", False)) else FAILED_OPTIONAL[own]
    return Child(_reward(where, given, options), weight=float(weight), missing=lost, name=key)


def _required(where: str, value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    raise ConfigError(f"{where}.required is true or false, got {value!r}")


def _reward(where: str, given: Mapping[str, Any], options: Mapping[str, Any]) -> BaseReward:
    if "reward" in given:
        if "path" in given or "name" in given:
            raise ConfigError(f"{where} has a reward and a path: one of them")
        return registry.resolve(str(given["reward"]), **options)
    for name in ("path", "name"):
        if not isinstance(given.get(name), str):
            raise ConfigError(f"{where}.{name} is missing: a file or pkg://module, and a function")
    reference = f"{given['path'].removeprefix(SCHEME)}:{given['name']}"
    return VerlOmniFunction(reference, **options)
