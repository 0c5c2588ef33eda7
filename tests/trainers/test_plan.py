"""What a user may name as a reward."""

from pathlib import Path

import pytest

from guerdon.config import load
from guerdon.errors import ConfigError, InvalidReward, UnknownReward
from guerdon.registry import load_file
from guerdon.reward import BaseReward, reward
from guerdon.service import RewardService
from guerdon.trainers.component import component_names
from guerdon.trainers.plan import is_configuration, plan

PARITY = Path(__file__).with_name("parity")
REWARDS = str(PARITY / "rewards.py")


@reward(auto_register=False)
def short(response: str, *, limit: int = 10) -> bool:
    return len(response) <= limit


class Long(BaseReward):
    auto_register = False

    def __init__(self, *, limit: int = 3):
        self.limit = limit

    def call(self, *, response: str) -> bool:
        return len(response) > self.limit


def plain_function(response):
    return float(len(response))


@pytest.mark.parametrize(
    ("named", "options", "name"),
    [
        (short, {}, "short"),
        (short, {"limit": 1}, "short"),
        (Long, {"limit": 1}, "long"),
        (Long(limit=2), {"limit": 1}, "long"),
        (plain_function, {}, "plain_function"),
        ("guerdon.rules.gsm8k:gsm8k", {"method": "strict"}, "gsm8k"),
        (f"{REWARDS}:tiny_model", {"seed": 3}, "tiny_model"),
        ({"reward": "guerdon.rules.gsm8k:gsm8k"}, {}, "gsm8k"),
        (load({"reward": short}), {}, "short"),
    ],
)
def test_what_is_understood(named, options, name):
    found = plan(named, options=options)
    assert found.reward.name == name
    for key, value in options.items():
        assert found.reward.options[key] == value


def test_a_yaml_file(tmp_path):
    file = tmp_path / "panel.yaml"
    file.write_text("reward: guerdon.rules.gsm8k:gsm8k\npolicy: {on: {data: mask}}\n")
    found = plan(str(file), backend="inline")
    assert found.policy.on["data"] == "mask"
    assert found.backend.choice == "inline"
    assert is_configuration(file)
    with pytest.raises(ConfigError, match="stand in the configuration"):
        plan(file, options={"method": "strict"})


@pytest.mark.parametrize(
    ("named", "error"),
    [
        ("no.such.module:thing", UnknownReward),
        ("gsm9k", UnknownReward),
        (3, ConfigError),
        (int, ConfigError),
        (None, ConfigError),
    ],
)
def test_what_is_not(named, error):
    with pytest.raises(error):
        plan(named)


def test_an_unknown_option_is_an_error():
    with pytest.raises(InvalidReward, match="limit"):
        plan(short, options={"limti": 3})


def test_a_service_is_no_plan():
    with RewardService(short) as service, pytest.raises(ConfigError, match="RewardService"):
        plan(service)


def test_component_names_are_known_before_scoring():
    assert component_names(load_file(REWARDS).composite) == ("correct", "tidy")
    assert component_names(short) == ()
