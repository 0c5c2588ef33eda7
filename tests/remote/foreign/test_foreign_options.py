"""The options that all foreign rewards share: one list, spelled out in every signature."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from guerdon import registry
from guerdon.config import load
from guerdon.errors import ConfigError
from guerdon.remote.foreign import BatchTalk, ForeignReward, Talk

NAMES = ("openrlhf", "pickle_remote", "unirl_remote", "slime", "latent_remote", "pooling")
ONE_BY_ONE = ("slime", "latent_remote")
URL = "http://127.0.0.1:1/x"


def node(name: str, **options: Any) -> dict[str, Any]:
    needed = {"reward": "x"} if name == "unirl_remote" else {}
    return {"name": name, "url": URL, **needed, **options}


def test_the_list_is_that_of_the_constructor() -> None:
    own = set(inspect.signature(ForeignReward.__init__).parameters) - {"self", "url"}
    assert own == set(BatchTalk.__annotations__)
    assert own - set(Talk.__annotations__) == {"batch_size"}


@pytest.mark.parametrize("name", NAMES)
def test_every_option_is_in_the_signature_with_its_default(name: str) -> None:
    made: Any = registry.resolve(name, **{k: v for k, v in node(name).items() if k != "name"})
    found = inspect.signature(type(made)).parameters
    shared = inspect.signature(ForeignReward.__init__).parameters
    for option in set(BatchTalk.__annotations__) - (
        {"batch_size"} if name in ONE_BY_ONE else set()
    ):
        assert found[option].default == shared[option].default
    assert all(p.kind is not p.VAR_KEYWORD for p in found.values())
    assert ("batch_size" in found) is (name not in ONE_BY_ONE)


@pytest.mark.parametrize("name", NAMES)
def test_a_configuration_knows_them(name: str) -> None:
    given = node(name, token="secret", value_range=[0, 1], timeout=7.0, connections=3, rest=2.0)
    reward: Any = load({"reward": given}).reward
    assert reward.value_range == (0.0, 1.0)
    assert (reward._settings().timeout, reward._settings().connections) == (7.0, 3)
    with pytest.raises(ConfigError, match=r"unknown .*'timeot'.*did you mean 'timeout'"):
        load({"reward": node(name, timeot=3)})
    with pytest.raises(ConfigError, match="timeout must be positive"):
        load({"reward": node(name, timeout=-1)})
    if name in ONE_BY_ONE:
        with pytest.raises(ConfigError, match="batch_size"):
            load({"reward": node(name, batch_size=2)})


def test_how_a_server_is_asked_is_no_part_of_the_fingerprint() -> None:
    plain = load({"reward": node("pooling")}).reward
    other = load({"reward": node("pooling", timeout=3.0, batch_size=2, token="secret")}).reward
    assert other.fingerprint == plain.fingerprint
    assert load({"reward": node("pooling", element=0)}).reward.fingerprint != plain.fingerprint
