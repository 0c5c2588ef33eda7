"""What all adapters of trainers that want one number have in common."""

import asyncio
import importlib.metadata
import os
import pickle
import subprocess
import sys
from types import SimpleNamespace

import pytest

from guerdon.errors import ConfigError, InvalidSample, ScoringFailed
from guerdon.policy import Policy
from guerdon.registry import load_file
from guerdon.reward import reward
from guerdon.service import RewardService
from guerdon.trainers import agentfly, areal, openrlhf, skyrl, verifiers, verl_omni
from guerdon.trainers.scalar import truth_of

cases = load_file(os.path.join(os.path.dirname(__file__), "parity", "cases.py"))

MAKERS = {
    "areal": areal.reward_fn_for,
    "areal awaited": areal.async_reward_fn_for,
    "openrlhf": openrlhf.reward_func_for,
    "verifiers": verifiers.reward_for,
    "agentfly": lambda named, **settings: agentfly.register(
        named, into=lambda *_: None, **settings
    ),
    "skyrl": lambda named, **settings: skyrl.step_reward({"reward": named, **settings}),
    "verl_omni": lambda named, **settings: verl_omni.ComputeScore(
        named, verl_omni.Settings(**settings)
    ),
}
EACH = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


@reward(name="whole", scope="group", auto_register=False)
def whole(responses):
    """Compares a group."""
    return [0.0] * len(responses)


@EACH
def test_rewards_of_groups_are_refused(make):
    with pytest.raises(ConfigError, match="scores whole groups"):
        make(whole)


@pytest.mark.parametrize("make", [m for n, m in MAKERS.items() if n not in ("areal", "skyrl")])
def test_a_service_keeps_its_own_policy(make):
    with RewardService(cases.reference("rule_of_text"), policy=Policy()) as service:
        assert make(service).reward is service.reward
        with pytest.raises(ConfigError, match="has its own policy"):
            make(service, neutral=0.0)
        with pytest.raises(TypeError, match="lives in one process"):
            pickle.dumps(make(service))


@EACH
def test_it_can_be_pickled_and_a_reference_is_one(make):
    made = make(cases.reference("composite"))
    again = pickle.loads(pickle.dumps(made))
    assert again.components == made.components == ("correct", "tidy")
    assert again.settings == made.settings


@pytest.mark.parametrize("name", [n for n in MAKERS if n != "verl_omni"])
def test_a_misspelt_setting_is_an_error(name):
    with pytest.raises(ConfigError, match="did you mean 'neutral'"):
        MAKERS[name](cases.reference("composite"), netural=0.0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_starts_afresh():
    """AReaL forks its workers from a process that has scored already."""
    function = areal.reward_fn_for(cases.reference("rule_of_text"))
    assert function("?", "4", [1], [2], answer="4") == 1.0
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = int(function("?", "5", [1], [2], answer="4") != 0.0)
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    function.close()


@pytest.mark.parametrize(
    ("name", "package", "found", "works"),
    [
        ("areal", "areal", "1.0.3", "areal 1.0.4 or later (1.0.4 is tested)"),
        ("openrlhf", "openrlhf", "0.8.0", "openrlhf 0.11.2 or later (0.11.2 is tested)"),
        ("verifiers", "verifiers", "0.1.3", "verifiers 0.4.0 or later (0.4.0 is tested)"),
        ("skyrl", "skyrl-gym", "0.1.1", "skyrl-gym 0.4.0 or later (0.4.0 is tested)"),
    ],
)
def test_another_version_of_the_trainer_says_which_ones_work(
    monkeypatch, name, package, found, works
):
    from guerdon.trainers import versions

    known = importlib.metadata.version
    monkeypatch.setattr(
        versions, "version", lambda asked: found if asked == package else known(asked)
    )
    with pytest.raises(ConfigError) as caught:
        MAKERS[name](cases.reference("rule_of_text"))
    assert works in str(caught.value)


@pytest.mark.parametrize(
    ("row", "column", "truth"),
    [
        ({"ground_truth": "a", "answer": "b"}, None, "a"),
        ({"answer": "b", "x": 1}, None, "b"),
        ({"answer": "b", "solution": "c"}, None, None),
        ({"answer": "b", "solution": "c"}, "solution", "c"),
        ({}, None, None),
    ],
)
def test_which_column_is_the_ground_truth(row, column, truth):
    assert truth_of(row, column) == truth


def test_a_column_that_is_not_there():
    with pytest.raises(ConfigError, match=r"no column 'anwser' \(did you mean 'answer'"):
        truth_of({"answer": "4"}, "anwser")


LACKING = {
    # the trainer's call for a row without a ground truth, and what it raises
    "areal": lambda f: f("6*7?", "42", [1], [2]),
    "openrlhf": lambda f: f(["6*7?42"], ["6*7?"], [None]),
    "verifiers": lambda f: asyncio.run(f(Row({"prompt": "6*7?"}), Trace("42"))),
    "skyrl": lambda f: f.settle("6*7?", "42", {}),
}


class Row:
    """A task of verifiers, as far as the adapter looks at it."""

    def __init__(self, fields):
        self.model_dump = lambda **_: dict(fields)


class Trace:
    """A trace of verifiers with one message of the model."""

    is_truncated = False

    def __init__(self, text):
        node = SimpleNamespace(sampled=True, message=Row({"role": "assistant", "content": text}))
        self.branches = [SimpleNamespace(nodes=[node])]


@pytest.mark.parametrize("trainer", LACKING)
def test_a_row_without_the_column_of_the_ground_truth_has_no_number(trainer):
    function = MAKERS[trainer](cases.reference("rule_of_text"), retry_within=0)
    with pytest.raises((ScoringFailed, openrlhf.StopTraining)) as caught:
        LACKING[trainer](function)
    assert "bad_input (data): the reward needs 'ground_truth'" in str(caught.value)
    function.close()


@pytest.mark.parametrize("trainer", ["areal", "verifiers"])
def test_a_named_column_that_a_row_lacks_is_named(trainer):
    function = MAKERS[trainer](cases.reference("rule_of_text"), ground_truth="truth")
    with pytest.raises(ConfigError, match="the row has no column 'truth'"):
        LACKING[trainer](function)
    function.close()


def test_an_empty_shard_of_openrlhf_gets_empty_lists():
    function = openrlhf.reward_func_for(cases.reference("rule_of_text"))
    assert function([], [], []) == {"rewards": [], "scores": [], "extra_logs": {}}
    function.close()


def test_lists_of_openrlhf_that_do_not_fit_stop_the_run():
    function = openrlhf.reward_func_for(cases.reference("rule_of_text"))
    with pytest.raises(openrlhf.StopTraining, match="2 queries, 1 prompts and 1 labels"):
        function(["a", "b"], ["a"], ["b"])
    function.close()


@pytest.mark.parametrize("error", [RuntimeError("a bug"), ImportError("no torch")])
def test_no_error_is_left_to_openrlhf_which_swallows_it(monkeypatch, error):
    function = openrlhf.reward_func_for(cases.reference("rule_of_text"))

    def broken(_):
        raise error

    monkeypatch.setattr(function, "score_one_sync", broken)
    with pytest.raises(openrlhf.StopTraining, match=f"{type(error).__name__}: {error}"):
        function(["6*7?42"], ["6*7?"], ["42"])


def test_a_reward_spec_of_skyrl_that_is_no_mapping_is_named():
    stepping = skyrl.step_reward({"reward": cases.reference("rule_of_text")})
    with pytest.raises(InvalidSample, match="reward_spec is a str, not a mapping"):
        stepping.settle("6*7?", "42", {"reward_spec": "rule"})
    skyrl.close()


def test_a_sync_reward_of_areal_must_be_quicker_than_its_pool():
    with pytest.raises(ConfigError, match="use the async form"):
        areal.reward_fn_for(cases.reference("rule_of_text"), timeout=15.0)
    assert areal.reward_fn_for(cases.reference("rule_of_text")).settings.timeout < 15.0
    with (
        RewardService(cases.reference("rule_of_text")) as service,
        pytest.raises(ConfigError, match="which a RewardService cannot"),
    ):
        areal.reward_fn_for(service)


@pytest.mark.parametrize(
    "module", ["agentfly", "areal", "openrlhf", "skyrl", "unirl", "verifiers", "verl_omni"]
)
def test_importing_an_adapter_needs_no_trainer_and_no_torch(module):
    script = (
        "import sys\n"
        "absent = 'torch', 'transformers', 'PIL', 'av', 'areal', 'openrlhf', 'verifiers', "
        "'skyrl_gym', 'agentfly', 'unirl', 'verl_omni', 'ray'\n"
        "sys.modules.update(dict.fromkeys(absent))\n"
        f"import guerdon.trainers.{module}\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
