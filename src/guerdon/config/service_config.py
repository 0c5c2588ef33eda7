"""A whole service as a configuration describes it, before anything is started."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import msgspec

from guerdon.config import section
from guerdon.config.document import Document, dump, from_mapping, read_file
from guerdon.config.interpolation import interpolate
from guerdon.config.node import NAME, Builder
from guerdon.config.place import Place
from guerdon.config.section import BackendChoice
from guerdon.config.target import TARGET, guarded
from guerdon.declaration import without_secrets
from guerdon.errors import ConfigError
from guerdon.outcome import EMPTY
from guerdon.policy import Policy
from guerdon.registry import place_of
from guerdon.reward import BaseReward
from guerdon.service import RewardService
from guerdon.truncation import Truncation

KEYS = ("reward", "routes", "backend", "policy", "truncation", "imports")
"""What a configuration of a service holds; `vars` is free for values that others refer to."""

VARIABLES = "vars"


class ServiceConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A checked configuration: every reward is made, nothing is started.

    Attributes:
        reward: the root.
        backend: where the work runs.
        policy: what becomes of failures; a mapping gives one per split.
        truncation: what responses that ran out of tokens earn.
        source: the file, or "" for a mapping.
        resolved: the configuration as plain data, `${...}` replaced; what environment variables
            with a name such as `API_KEY` hold is left out.

    Example:
        >>> from guerdon.reward import reward
        >>> from guerdon.sample import Sample
        >>> @reward(value_range=(0.0, 1.0), auto_register=False)
        ... def exact(response: str, ground_truth: str) -> bool:
        ...     return response == ground_truth
        >>> config = load({"reward": exact, "policy": {"on": {"data": "mask"}}})
        >>> with config.build() as service:
        ...     service.score_sync([Sample(response="4", ground_truth="4")]).values.tolist()
        [1.0]
    """

    reward: BaseReward
    backend: BackendChoice = BackendChoice()
    policy: Policy | Mapping[str, Policy] = Policy()
    truncation: Truncation = Truncation()
    source: str = ""
    resolved: Mapping[str, Any] = EMPTY

    def build(self) -> RewardService:
        """The service. Workers start with the first batch that needs them."""
        return RewardService(
            self.reward,
            backend=self.backend.choice,
            policy=self.policy,
            truncation=self.truncation,
        )

    def to_yaml(self) -> str:
        """The resolved configuration for records: headed by what it is of, and loadable again.

        Tokens, passwords and keys that stand in the configuration itself are left out: write them
        as `${env:NAME}`, which stays as it is.

        Example:
            >>> from guerdon.reward import reward
            >>> @reward(auto_register=False)
            ... def exact(response: str, ground_truth: str) -> bool:
            ...     return response == ground_truth
            >>> print(load({"reward": exact, "backend": "inline"}).to_yaml().split("\\n", 1)[1])
            reward: guerdon.config.service_config:exact
            backend: inline
            <BLANKLINE>
        """
        header = f"# {self.reward.name}, fingerprint {self.reward.fingerprint}"
        source = f", from {self.source}" if self.source else ""
        return f"{header}{source}\n{dump(_printable(without_secrets('', self.resolved)))}"


def load(
    source: str | os.PathLike[str] | Mapping[Any, Any],
    *,
    environment: Mapping[str, str] | None = None,
) -> ServiceConfig:
    """Read a configuration, check all of it and make its rewards; nothing is started.

    Args:
        source: a YAML file, a mapping, or an OmegaConf object; see the page "Configuration".
        environment: variables for `${env:...}`; by default those of the process.

    Raises:
        ConfigError: naming the file, the line, the key, and the nearest known key.

    Example:
        >>> load({"reward": {"nam": "gsm8k"}})
        Traceback (most recent call last):
        guerdon.errors.ConfigError: reward.nam: unknown key 'nam' (did you mean 'name'?)
    """
    try:
        document = _document(source)
        variables = os.environ if environment is None else environment
        data = interpolate(document, variables)
        if not isinstance(data, dict):
            raise document.place.error(f"a configuration is a mapping, not {data!r}")
        return _ServiceReader(document, cast("dict[str, Any]", data), variables).read()
    except RecursionError:
        where = "" if isinstance(source, Mapping) else f"{source}: "
        raise ConfigError(f"{where}nested too deeply") from None


def _document(source: object) -> Document:
    if isinstance(source, str | os.PathLike):
        return read_file(Path(cast("str", source)).expanduser())
    if isinstance(source, Mapping):
        return from_mapping(cast("Mapping[Any, Any]", source))
    raise ConfigError(f"a configuration is a file or a mapping, not a {type(source).__name__}")


class _ServiceReader:
    def __init__(
        self, document: Document, data: dict[str, Any], environment: Mapping[str, str]
    ) -> None:
        self._document = document
        self._environment = environment
        self._place = document.place
        self._builder = Builder(document.folder)
        self._is_service = ("reward" in data or "routes" in data) and not _is_node(data)
        self._data = {key: item for key, item in data.items() if key != VARIABLES}

    def read(self) -> ServiceConfig:
        """The configuration; a mapping without `reward` or `routes` is a reward by itself."""
        if not self._is_service:
            return self._config(self._lone_reward())
        for key in self._data:
            if key not in KEYS:
                raise self._place.unknown(key, (*KEYS, VARIABLES))
        if "imports" in self._data:
            section.imports(self._data["imports"], self._place.child("imports"), self._builder)
        reward = self._reward()
        return self._config(
            reward,
            backend=section.backend(*self._at("backend"), self._builder),
            policy=section.policies(*self._at("policy", Policy()), self._builder),
            truncation=section.truncation(*self._at("truncation", Truncation()), self._builder),
        )

    def _reward(self) -> BaseReward:
        place = self._place.child("reward")
        if "routes" not in self._data:
            return self._builder.reward(self._data["reward"], place)
        from guerdon.config.composition import routed

        default = None
        if "reward" in self._data:
            default = self._builder.reward(self._data["reward"], place)
        return routed(self._builder, self._data["routes"], default, self._place.child("routes"))

    def _at(self, key: str, default: Any = None) -> tuple[Any, Place]:
        """A section and its place; one that is there but empty is the default."""
        found = self._data.get(key)
        return (default if found is None else found), self._place.child(key)

    def _lone_reward(self) -> BaseReward:
        """A file that is one reward; keys of a service in it are hints at what was meant."""
        self._refuse_near_misses()
        try:
            return self._builder.reward(self._data, self._place)
        except ConfigError as error:
            stray = [repr(key) for key in KEYS if key in self._data]
            if not stray:
                raise
            raise ConfigError(
                f"{error}. For a service with {', '.join(stray)}, put the reward with its name "
                "under 'reward'"
            ) from error

    def _refuse_near_misses(self) -> None:
        """A service whose `reward` is misspelt, or missing, must not be taken for a reward."""
        if _is_node(self._data):
            return
        for key in self._data:
            if key not in KEYS:
                raise self._place.unknown(key, (*KEYS, VARIABLES, *_heads()))
        raise self._place.error("nothing says which reward to use: give 'reward' or 'routes'")

    def _config(self, reward: BaseReward, **sections: Any) -> ServiceConfig:
        hidden = interpolate(self._document, self._environment, keep_secrets_hidden=True)
        resolved = {key: item for key, item in hidden.items() if key != VARIABLES}
        source = self._place.source
        config = ServiceConfig(reward=reward, source=source, resolved=resolved, **sections)
        # Making a service starts nothing, and refuses a backend that cannot run the reward.
        guarded(self._place.child("backend"), config.build)
        return config


def _heads() -> tuple[str, ...]:
    from guerdon.config.composition import FORMS

    return (NAME, TARGET, *FORMS)


def _is_node(data: Mapping[str, Any]) -> bool:
    """Whether a mapping says itself which reward it is."""
    return any(head in data for head in _heads())


def _printable(value: Any) -> Any:
    """Plain data for YAML; objects that came from Python stand as what names them."""
    if isinstance(value, Mapping):
        items = cast("Mapping[str, Any]", value).items()
        return {str(key): _printable(item) for key, item in items}
    if isinstance(value, list | tuple):
        return [_printable(item) for item in cast("list[Any]", value)]
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, BaseReward):
        return place_of(value)
    if isinstance(value, msgspec.Struct):
        return _printable(msgspec.structs.asdict(value))
    return repr(value)
