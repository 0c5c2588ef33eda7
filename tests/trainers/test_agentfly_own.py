"""Functions written for AgentFly, called as its chain calls them: what they get and may return."""

import pytest

from guerdon.outcome import Failure
from guerdon.policy import Policy
from guerdon.sample import Sample
from guerdon.service import RewardService
from guerdon.trainers.own.agentfly import AgentFlyFunction

FUNCTIONS = """
from types import SimpleNamespace

def told(final_response, context, id, group_id):
    assert (context.trajectory_format, context.final_response) == ("flat", final_response)
    assert (context.rollout_id, context.group_id) == (id, group_id) == ("s1", "g1")
    return 1.0

def takes_all(**kwargs):
    assert "prediction" not in kwargs and kwargs["level"] == 2
    return 1.0

def without_reward(final_response):
    return {"reward": None}

def nothing(final_response):
    return None

def pair(final_response):
    return [1.0]

def as_result(final_response):
    return SimpleNamespace(reward=1.0, extras={"f1": 0.5})

def as_later_result(final_response):
    return SimpleNamespace(reward=1.0, metrics={"f1": 0.5})
"""


@pytest.fixture
def score(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(FUNCTIONS)

    def call(name):
        sample = Sample(response="4", sample_id="s1", group_id="g1", metadata={"level": 2})
        masked = Policy(on={"scorer": "mask"})
        with RewardService(AgentFlyFunction(f"{file}:{name}"), policy=masked) as service:
            (outcome,) = service.score_sync([sample])
        return outcome

    return call


@pytest.mark.parametrize("name", ["told", "takes_all"])
def test_what_a_function_gets(score, name):
    assert score(name).value == 1.0


@pytest.mark.parametrize("name", ["as_result", "as_later_result"])
def test_a_result_of_agentflys_type(score, name):
    found = score(name)
    assert (found.value, dict(found.metrics)) == (1.0, {"f1": 0.5})


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("without_reward", "a number under 'reward'"),
        ("nothing", "a number, or a dict with 'reward'"),
        ("pair", "a number, or a dict with 'reward'"),
    ],
)
def test_what_agentfly_would_make_a_number_of_or_drop(score, name, wanted):
    """Later versions make 0.0 of None."""
    found = score(name)
    assert type(found) is Failure
    assert (found.kind, wanted in found.message) == ("bad_output", True), found
