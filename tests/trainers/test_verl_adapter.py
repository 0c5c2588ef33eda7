"""verl's `compute_score`: call forms, rows, settings. For verl itself see the contract test."""

import asyncio
import inspect
import json
import multiprocessing
import pickle
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from guerdon import registry
from guerdon.errors import BudgetExceeded, ConfigError, ScoringFailed, UnknownReward
from guerdon.outcome import Abstention
from guerdon.policy import Assign, Policy
from guerdon.registry import load_file
from guerdon.reward import reward
from guerdon.service import RewardService
from guerdon.trainers import scalar, verl

PARITY = Path(__file__).with_name("parity")
cases = load_file(str(PARITY / "cases.py"))
RULE = "guerdon.rules.gsm8k:gsm8k"
COMPOSITE = cases.reference("composite")
FAULTY = cases.reference("faulty")
FIXED = ["score", "acc", "guerdon_outcome", "guerdon_failure", "guerdon_assigned"]


@reward(name="echo", auto_register=False)
def echo(response: str, ground_truth=None, metadata=None, data_source=None) -> dict:
    return {"score": len(response), "metadata": metadata, "truth": ground_truth}


def score(*positional, **keywords):
    return asyncio.run(verl.compute_score(*positional, **keywords))


# --- how verl calls it


def test_it_is_a_coroutine_function_to_verl():
    assert inspect.iscoroutinefunction(verl.compute_score)
    assert inspect.iscoroutinefunction(partial(verl.compute_score, reward=RULE))
    assert inspect.iscoroutinefunction(verl.compute_score_for(echo))
    assert not inspect.iscoroutinefunction(verl.compute_score_sync)
    assert pickle.loads(pickle.dumps(verl.compute_score)) is verl.compute_score


@pytest.mark.parametrize(
    ("positional", "keywords"),
    [
        (("gsm8k", "#### 4", "4"), {}),  # verl.trainer.main_eval
        (("gsm8k", "#### 4", "4", {"index": 1}), {}),  # the legacy prime manager
        (("gsm8k", "#### 4", "4", None), {}),
        ((), {"data_source": "gsm8k", "solution_str": "#### 4", "ground_truth": "4"}),
        (
            (),
            {
                "data_source": "gsm8k",
                "solution_str": "#### 4",
                "ground_truth": "4",
                "extra_info": {"num_turns": 2, "rollout_reward_scores": {}},
                "reward_router_address": "10.0.0.1:8000",
                "reward_model_tokenizer": object(),
            },
        ),
    ],
)
def test_call_forms(positional, keywords):
    expected = dict(zip(FIXED, [1.0, 1.0, "score", "", 0.0], strict=True))
    assert score(*positional, reward=RULE, **keywords) == expected
    assert verl.compute_score_sync(*positional, reward=RULE, **keywords) == expected
    assert verl.compute_number(*positional, reward=RULE, **keywords) == 1.0


def test_the_router_of_a_reward_model_reaches_the_reward():
    tokenizer = object()

    async def judge(response, reward_router_address, reward_model_tokenizer):
        return float(reward_router_address == "h:1" and reward_model_tokenizer is tokenizer)

    compute_score = verl.compute_score_for(judge)
    keywords = {"reward_router_address": "h:1", "reward_model_tokenizer": tokenizer}
    assert asyncio.run(compute_score("x", "a", "b", **keywords))["score"] == 1.0


# --- what a reward gets


def test_extra_info_is_copied_when_it_is_called():
    """verl changes it in place, and shares it between the rollouts of a prompt."""
    seen = []

    @reward(auto_register=False)
    def note(response, num_turns):
        seen.append((response, num_turns))
        return 1.0

    compute_score = verl.compute_score_for(note)
    shared = {}

    async def rollouts():
        tasks = []
        for turn in (1, 2, 3):
            shared["num_turns"] = turn
            tasks.append(asyncio.ensure_future(compute_score("x", str(turn), "", shared)))
            await asyncio.sleep(0)  # the call has begun; the next rollout changes the dict
        await asyncio.gather(*tasks)

    asyncio.run(rollouts())
    assert sorted(seen) == [("1", 1), ("2", 2), ("3", 3)]
    assert shared == {"num_turns": 3}


@pytest.mark.parametrize(
    ("raw", "plain"),
    [
        (np.int64(3), 3),
        (np.float64(0.5), 0.5),
        (np.str_("4"), "4"),
        (np.bool_(True), True),
        (np.array(["4", "four"]), ["4", "four"]),
        (np.array(5), 5),
        (np.array([np.array([1, 2]), None], dtype=object), [[1, 2], None]),
        ({"a": np.array([1.0])}, {"a": [1.0]}),
        ([np.int32(1)], [1]),
        ("4", "4"),
        (None, None),
    ],
)
def test_parquet_values_are_plain(raw, plain):
    found = scalar.plain(raw)
    assert found == plain
    assert json.loads(json.dumps(found)) == plain


def test_numpy_ground_truths_give_the_same_value():
    for truth in (42, "42", np.int64(42), np.str_("42"), np.float64(42.0)):
        assert score("gsm8k", "#### 42", truth, reward=RULE)["score"] == 1.0


def test_extra_info_that_is_no_mapping():
    with pytest.raises(ScoringFailed, match="extra_info is a list"):
        score("gsm8k", "#### 4", "4", [1], reward=RULE)
    row = score("gsm8k", "#### 4", "4", [1], reward=RULE, neutral=0.25, failure_share=1.0)
    assert (row["score"], row["guerdon_assigned"]) == (0.25, 1.0)
    assert row["guerdon_failure"].startswith("bad_input (data)")


# --- rows


def test_every_row_has_the_same_keys():
    """verl takes the keys of a batch from its first row and looks them up in all others."""
    rows = [
        score(
            row.data_source,
            row.response,
            row.ground_truth,
            {"judge": row.judge},
            reward=COMPOSITE,
            neutral=0.0,
            failure_share=1.0,
        )
        for row in (*cases.ROWS, cases.ROWS[0]._replace(ground_truth="no number at all"))
    ]
    assert {tuple(row) for row in rows} == {(*FIXED, "component/correct", "component/tidy")}
    assert rows[-1]["guerdon_outcome"] == "failure"
    assert (rows[-1]["component/correct"], rows[-1]["component/tidy"]) == (None, None)
    assert rows[4]["component/tidy"] is None
    assert "reward" not in rows[0]
    for row in rows:
        kinds = {type(value) for value in row.values()}
        assert kinds <= {float, str, type(None)}


def test_components_can_be_named():
    found = score("x", "#### 4", "4", reward=COMPOSITE, components=["correct", "none"])
    assert {k: v for k, v in found.items() if k.startswith("component/")} == {
        "component/correct": 1.0,
        "component/none": None,
    }


def test_a_long_failure_is_cut():
    @reward(auto_register=False)
    def long_winded(response):
        raise ValueError("x" * 10_000)

    row = asyncio.run(
        verl.compute_score_for(long_winded, neutral=0.0, failure_share=1.0)("x", "a", "b")
    )
    assert len(row["guerdon_failure"]) == scalar.SHOWN
    assert row["guerdon_failure"].startswith("raised (scorer): ValueError: xxx")


def test_a_value_that_float32_does_not_hold():
    @reward(auto_register=False)
    def huge(response):
        return 1e39

    with pytest.raises(ScoringFailed, match="float32"):
        asyncio.run(verl.compute_score_for(huge)("x", "a", "b"))


# --- no score


def test_a_failure_raises_and_names_the_row():
    with pytest.raises(ScoringFailed) as caught:
        score("gsm8k", "#### 4", "four or so", {"index": 17}, reward=RULE)
    assert "'gsm8k[17]#" in str(caught.value)
    assert "bad_input (data)" in str(caught.value)


def test_an_abstention_raises_and_says_what_to_do():
    @reward(auto_register=False)
    def picky(response):
        return Abstention(reason="not mine")

    with pytest.raises(ScoringFailed, match=r"not mine.*neutral="):
        asyncio.run(verl.compute_score_for(picky)("x", "a", "b"))


def test_retries_before_the_neutral_number():
    tries = []

    @reward(auto_register=False)
    def flaky(response):
        tries.append(response)
        if len(tries) < 3:
            raise ConnectionError("judge gone")
        return 1.0

    row = asyncio.run(verl.compute_score_for(flaky, neutral=0.0)("x", "a", "b"))
    assert (row["score"], row["guerdon_assigned"], len(tries)) == (1.0, 0.0, 3)


def test_the_neutral_number_stays_inside_the_failure_budget():
    async def many(count):
        compute_score = verl.compute_score_for(picky_rule, neutral=0.0, failure_share=0.25)
        calls = [compute_score("x", "bad" if i % 2 else "1", "") for i in range(count)]
        return await asyncio.gather(*calls, return_exceptions=True)

    @reward(auto_register=False)
    def picky_rule(response):
        return float(response)  # "bad" is a ValueError: a fault of the scorer

    rows = asyncio.run(many(4))
    assert [row["score"] for row in rows] == [1.0, 0.0, 1.0, 0.0]
    assert {type(row) for row in asyncio.run(many(40))} == {BudgetExceeded}


def test_a_candidates_fault_is_not_the_neutral_number(pool):
    found = score(
        "x",
        "b",
        "",
        {"fault": "timeout"},
        reward=cases.reference("candidate_faulty"),
        backend=pool,
        neutral=0.5,
    )
    assert (found["score"], found["guerdon_assigned"]) == (0.0, 1.0)
    assert found["guerdon_failure"].startswith("timeout (candidate)")


# --- settings


def test_hydra_settings():
    """As verl hands them over: `dict(reward_kwargs)` of a DictConfig, nested nodes inside."""
    kwargs = dict(
        OmegaConf.create(
            {
                "reward": RULE,
                "options": {"method": "strict"},
                "backend": {"pool": {"workers": 1}},
                "neutral": 0,
                "components": ["correct"],
            }
        )
    )
    assert score("gsm8k", "#### 4", "4", **kwargs)["score"] == 1.0
    assert score("gsm8k", "The answer is 4.", "4", **kwargs)["score"] == 0.0
    assert len(verl._scorers) == 1


def test_an_inline_configuration():
    inline = OmegaConf.create({"reward": {"name": RULE, "method": "strict"}})
    assert score("gsm8k", "#### 4", "4", reward=inline)["score"] == 1.0
    inline = OmegaConf.create(
        {"weighted_sum": {"a": {"reward": RULE, "weight": 0.5}, "b": {"reward": RULE, "weight": 1}}}
    )
    assert score("gsm8k", "#### 4", "4", reward=inline)["score"] == 1.5


def test_a_configuration_keeps_its_own_policy(tmp_path):
    file = tmp_path / "panel.yaml"
    file.write_text(f"reward: {RULE}\npolicy: {{on: {{data: {{assign: 0.75}}}}}}\n")
    found = score("gsm8k", "#### 4", "no number", reward=str(file))
    assert (found["score"], found["guerdon_assigned"]) == (0.75, 1.0)
    file.write_text(f"reward: {RULE}\npolicy: {{on: {{data: mask}}}}\n")
    verl.close()
    with pytest.raises(ScoringFailed, match="bad_input"):
        score("gsm8k", "#### 4", "no number", reward=str(file))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rewrad": RULE}, "no setting 'rewrad' \\(did you mean 'reward'"),
        ({"reward": RULE, "method": "strict"}, "under 'options'"),
        ({"reward": RULE, "neutral": "zero"}, "neutral is a number"),
        ({"reward": RULE, "neutral": float("nan")}, "finite"),
        ({"reward": RULE, "components": "correct"}, "list of names"),
        ({"reward": RULE, "timeout": True}, "timeout is a number"),
        ({"reward": RULE, "acc": "false"}, "acc is true or false"),
        ({"reward": RULE, "max_resp_len": 10}, "the reward 'overlong'"),
        ({"reward": RULE, "backend": "pol"}, "no backend is called 'pol'"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(ConfigError, match=message):
        score("gsm8k", "#### 4", "4", **settings)


def test_wrong_settings_of_the_factory_are_found_at_once():
    with pytest.raises(ConfigError, match="neutral"):
        verl.compute_score_for(echo, neutrl=0.0)


def test_a_group_reward_is_refused():
    @reward(scope="group", auto_register=False)
    def ranks(responses):
        return [0.0 for _ in responses]

    with pytest.raises(ConfigError, match="whole groups"):
        asyncio.run(verl.compute_score_for(ranks)("x", "a", "b"))


def test_a_service_keeps_its_policy():
    with RewardService(echo, policy=Policy(on={"data": Assign(0.5)})) as service:
        assert asyncio.run(verl.compute_score_for(service)("x", "abc", "b"))["score"] == 3.0
        with pytest.raises(ConfigError, match="own policy"):
            asyncio.run(verl.compute_score_for(service, neutral=0.0)("x", "abc", "b"))


def test_a_split_without_a_policy_is_an_error_before_anything_is_scored():
    with (
        RewardService(echo, policy={"validation": Policy()}) as service,
        pytest.raises(ConfigError, match=r"no policy for split 'train' \(policies: validation\)"),
    ):
        verl.Scorer(service, verl.Settings())


def test_auto_routes_by_data_source(monkeypatch):
    monkeypatch.setattr(registry, "_routes", {"openai/gsm8k": RULE, "mine/*": COMPOSITE})
    gsm8k = score("openai/gsm8k", "#### 4", "4")
    mine = score("mine/easy", "#### 4 ", "4")
    assert (gsm8k["score"], mine["score"]) == (1.0, 0.75)
    assert list(gsm8k) == list(mine) == FIXED  # one key set, whichever reward it was
    with pytest.raises(UnknownReward, match="no reward is routed"):
        score("somewhere/else", "#### 4", "4")


@reward(name="dapo_like", value_range=(-1.0, 1.25), auto_register=False)
def dapo_like(response: str, ground_truth: str) -> dict:
    return {"score": 1.25 if response == ground_truth else -1.0, "acc": response == ground_truth}


def test_the_accuracy_that_a_reward_measures_is_the_accuracy():
    """verl's validation averages `acc`: a score of -1 is no accuracy of -1."""
    rows = [score("any", text, "4", reward=dapo_like) for text in ("4", "5")]
    assert [(row["score"], row["acc"]) for row in rows] == [(1.25, 1.0), (-1.0, 0.0)]
    assert "acc" not in score("any", "4", "4", reward=dapo_like, acc=False)


@reward(name="unsure", auto_register=False)
def unsure(response: str) -> dict:
    return {"score": 0.5, "acc": float("nan")}


def test_an_accuracy_that_is_no_number_is_not_averaged():
    assert score("any", "4", "4", reward=unsure)["acc"] == 0.5


# --- processes


def test_one_service_per_process_and_settings():
    for _ in range(3):
        score("gsm8k", "#### 4", "4", reward=RULE)
        score("other", "#### 4", "4", reward=RULE)
    assert len(verl._scorers) == 1
    score("gsm8k", "#### 4", "4", reward=RULE, acc=False)
    assert len(verl._scorers) == 2


def test_a_pool_that_nobody_sized_is_small(tmp_path):
    """verl starts 8 reward workers, each a process with services of its own."""
    file = tmp_path / "panel.yaml"
    file.write_text(f"reward: {FAULTY}\n")
    for settings, workers in (
        ({"reward": FAULTY}, verl.POOL_WORKERS),
        ({"reward": str(file)}, verl.POOL_WORKERS),
        ({"reward": FAULTY, "backend": {"pool": {"workers": 1}}}, 1),
    ):
        verl.close()
        assert score("x", "a", "", {}, **settings)["score"] == 1.0
        (scorer,) = verl._scorers.values()
        assert scorer.service._backends["pool"].workers == workers


def _in_child(queue):
    queue.put(verl.compute_score_sync("x", "b", "", {}, reward=FAULTY)["score"])


def test_a_forked_child_starts_its_own():
    """verl's legacy prime manager forks after the parent has scored."""
    assert verl.compute_score_sync("x", "a", "", {}, reward=FAULTY)["score"] == 1.0
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_in_child, args=(queue,))
    child.start()
    assert queue.get(timeout=60) == 1.0
    child.join(timeout=60)
    assert child.exitcode == 0
    assert verl.compute_score_sync("x", "a", "", {}, reward=FAULTY)["score"] == 1.0
