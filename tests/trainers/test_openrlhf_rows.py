"""Rows for OpenRLHF: by what groups are filtered, and what is logged."""

import math
from pathlib import Path

import pytest

from guerdon.compose import WeightedSum
from guerdon.errors import ConfigError
from guerdon.reward import reward
from guerdon.trainers.openrlhf import StopTraining, reward_func_for

OWN = f"openrlhf:{Path(__file__).with_name('own_functions.py').resolve()}:openrlhf_shaped"
QUERY = (["2+2?5"], ["2+2?"], ["4"])
RIGHT = (["2+2?4"], ["2+2?"], ["4"])
FLAGS = {"guerdon_failed": 0.0, "guerdon_assigned": 0.0}


@reward(name="now_and_then", auto_register=False)
def now_and_then(response):
    metrics = {"even": float(len(response) % 2 == 0)} if response != "-" else {}
    return {"score": 0.5, "metrics": metrics}


@reward(name="plain", auto_register=False)
def plain(response):
    return 0.25


@pytest.fixture
def made():
    functions = []

    def make(named, **settings):
        functions.append(reward_func_for(named, **settings))
        return functions[-1]

    yield make
    for function in functions:
        function.close()


def test_a_function_of_openrlhf_gives_what_it_gives_without_guerdon(made):
    function = made(OWN)
    for query, number, score in ((QUERY, -1.0, 0.0), (RIGHT, 1.0, 1.0)):
        found = function(*query)
        assert (found["rewards"], found["scores"]) == (number, score)
        assert found["extra_logs"]["length"] == 5.0
        # OpenRLHF would take a log of this name for the reward.
        assert found["extra_logs"]["guerdon/reward"] == 0.5
        assert "reward" not in found["extra_logs"]


@pytest.mark.parametrize(
    ("named", "score"), [("scores", 0.0), ("length", 5.0), ("reward", 0.5), (None, 0.0)]
)
def test_groups_are_filtered_by_a_metric(made, named, score):
    assert made(OWN, scores=named)(*QUERY)["scores"] == score


def test_without_a_metric_of_that_name_groups_are_filtered_by_the_value(made):
    assert made(plain)(*QUERY)["scores"] == 0.25


def test_a_metric_that_a_score_lacks_stops_the_run(made):
    with pytest.raises(StopTraining, match=r"no component or metric 'lenght' \(did you mean 'leng"):
        made(OWN, scores="lenght")(*QUERY)


def test_a_component_that_a_composition_lacks_is_an_error_at_once(made):
    whole = WeightedSum({"plain": plain, "other": now_and_then})
    with pytest.raises(ConfigError, match=r"no component 'plane' \(did you mean 'plain'\?\)"):
        made(whole, scores="plane")
    assert made(whole, scores="other")(*QUERY)["scores"] == 0.5


def test_a_metric_that_is_named_is_in_every_row(made):
    function = made(now_and_then, metrics=["even"])
    first, second = function(["?-"], ["?"], [None]), function(["?ab"], ["?"], [None])
    assert math.isnan(first["extra_logs"]["even"])
    assert second["extra_logs"] == {"even": 1.0, **FLAGS}
    assert made(now_and_then, metrics=[])(["?ab"], ["?"], [None])["extra_logs"] == FLAGS


def test_a_metric_stays_once_it_was_seen(made):
    function = made(now_and_then)
    function(["?ab"], ["?"], [None])
    assert math.isnan(function(["?-"], ["?"], [None])["extra_logs"]["even"])


def test_several_rows_have_the_same_keys(made):
    found = made(now_and_then)(["?-", "?ab"], ["?", "?"], [None, None])
    assert found["extra_logs"]["even"] == pytest.approx([math.nan, 1.0], nan_ok=True)


def test_an_assigned_number_filters_too(made):
    function = made(OWN.replace("shaped", "none"), neutral=0.125, retry_within=0, failure_share=1.0)
    found = function(*QUERY)
    assert (found["rewards"], found["scores"]) == (0.125, 0.125)


def test_metrics_are_a_list(made):
    with pytest.raises(ConfigError, match="metrics is a list of names"):
        made(plain, metrics="even")


def test_a_label_of_columns_and_metrics_go_together(made):
    label = {"ground_truth": "4", "data_source": "sums"}
    found = made(OWN, label_columns=True)(["2+2?4"], ["2+2?"], [label])
    assert (found["scores"], found["extra_logs"]["length"]) == (1.0, 5.0)
