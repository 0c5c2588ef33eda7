"""NeMo Gym's resources server, held by a client written from the published contract."""

from __future__ import annotations

import json
from typing import Any

import pytest
from server.protocols.scalar_clients import post, rollout
from server.protocols.scalar_rewards import SEEN, exact, faults, inline, seen


@pytest.fixture(autouse=True)
def forget() -> None:
    SEEN.clear()


def test_a_row_comes_back_with_its_reward(serve: Any) -> None:
    server = serve(inline(exact=exact), dialects=["nemo_gym"])
    row = rollout("2?", "4", expected_answer="4", level=3)
    found = json.loads(post(server.port, "/verify", row)[1])
    assert found == {
        **row,
        "reward": 1.0,
        "mask_sample": False,
        "reward_components": {"correct": 1.0, "tidy": 0.25},
        "length": 1.0,  # and not the metric `expected_answer`: a column has that name
    }


def test_all_fields_of_a_failure(serve: Any) -> None:
    server = serve(inline(faults=faults), dialects=["nemo_gym"])
    row = rollout("2?", "|non_finite/scorer", reward=1.0, failure_reason="of the last time")
    found = json.loads(post(server.port, "/verify", row)[1])
    told = "reward 'faults': non_finite (blame: scorer): it is so"
    assert found == {
        **row,
        "reward": 0.0,
        "mask_sample": True,
        "_ng_failure_class": "judge_failed",
        "_ng_failure_judge_error": told,
        "failure_kind": "guerdon:non_finite",
        "failure_reason": told,
    }
    fault = json.loads(post(server.port, "/verify", rollout("2?", "|crashed/candidate"))[1])
    assert (fault["reward"], fault["mask_sample"]) == (-1.0, False)
    assert fault["failure_kind"] == "guerdon:crashed"
    assert fault["guerdon_assigned"] is True
    assert "_ng_failure_class" not in fault


def test_items_of_the_responses_api(serve: Any) -> None:
    server = serve(inline(seen=seen), dialects=["nemo_gym"])
    row = rollout("unused", "4", verifier_metadata={"answer": "deep"}, data_source="gsm8k")
    row["responses_create_params"] = {"input": "2 + 2?", "instructions": "Be brief."}
    row["response"]["output"] = [
        {"type": "reasoning", "summary": []},
        {"type": "function_call", "name": "add", "arguments": "{}", "call_id": "c"},
        {"type": "function_call_output", "call_id": "c", "output": "4"},
        *row["response"]["output"],
    ]
    nested = {"name": "nemo_gym", "ground_truth": ["verifier_metadata.answer"]}
    assert post(server.port, "/verify", row)[0] == 200
    assert post(serve(inline(seen=seen), dialects=[nested]).port, "/verify", row)[0] == 200
    first, second = SEEN
    assert [message.role for message in first.prompt_messages or ()] == ["system", "user"]
    assert [m.role for m in first.response_messages or ()] == ["assistant", "tool", "assistant"]
    assert (first.response_messages or ())[0].tool_calls[0].id == "c"
    assert first.response_text == "4"
    assert (first.ground_truth, second.ground_truth) == (None, "deep")
    assert first.data_source == "gsm8k"
    assert first.metadata["verifier_metadata"] == {"answer": "deep"}


@pytest.mark.parametrize(
    "output",
    [
        [],
        [{"type": "reasoning", "summary": []}],
        [{"type": "message", "role": "assistant", "content": []}],
        [{"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}],
    ],
)
def test_a_policy_that_says_nothing_is_scored(serve: Any, output: Any) -> None:
    row = {**rollout("2?", ""), "response": {"output": output}, "expected_answer": "4"}
    server = serve(inline(exact=exact), dialects=["nemo_gym"])
    found = json.loads(post(server.port, "/verify", row)[1])
    assert (found["reward"], found["mask_sample"]) == (0.0, False)
    assert "failure_kind" not in found


def test_sessions_and_reverification(serve: Any) -> None:
    server = serve(inline(seen=seen), dialects=["nemo_gym"])
    assert post(server.port, "/seed_session", {"any": "thing"}) == (200, "{}")
    assert post(server.port, "/seed_session", {"resources_session_id": "s"}) == (
        200,
        '{"resources_session_id":"s"}',
    )
    assert server.get("/reverify_mode").body == b'"stateless"'


# Statistics of an evaluation.


def verified(task: int, place: int, reward: float, **columns: Any) -> dict[str, Any]:
    return {"_ng_task_index": task, "_ng_rollout_index": place, "reward": reward, **columns}


def test_statistics_of_an_evaluation(serve: Any) -> None:
    rows = [
        verified(3, 0, 1.0, mask_sample=False, correct=True, response={"usage": {"tokens": 10}}),
        verified(3, 1, 0.25, mask_sample=False, correct=False, response={"usage": {"tokens": 16}}),
        verified(3, 2, 0.25, mask_sample=False, note="text", answers=[1], correct=False),
        verified(1, 0, 0.5, mask_sample=False),
    ]
    server = serve(inline(exact=exact), dialects=["nemo_gym"])
    status, text = post(server.port, "/aggregate_metrics", {"verify_responses": rows})
    assert status == 200
    found = json.loads(text)
    first, second = found["group_level_metrics"]
    assert first == {
        **{f"{name}/reward": 0.5 for name in ("mean", "max", "min", "median")},
        **{f"{name}/mask_sample": 0.0 for name in ("mean", "max", "min", "median", "std")},
        "std/reward": 0.0,
        "sample": {"agent_ref": {"name": "agent"}},
        "_ng_task_index": 1,
    }
    assert second["_ng_task_index"] == 3
    assert (second["mean/reward"], second["median/reward"]) == (0.5, 0.25)
    assert second["std/reward"] == pytest.approx(0.4330127018922193)
    assert (second["mean/tokens"], second["max/tokens"]) == (13.0, 16.0)
    assert second["mean/correct"] == pytest.approx(1 / 3)
    overall = found["agent_metrics"]
    assert (overall["mean/reward"], overall["median/reward"]) == (0.5, 0.375)
    assert overall["std/tokens"] == pytest.approx(4.242640687119285)
    assert found["key_metrics"] == {k: v for k, v in overall.items() if k.startswith("mean/")}
    assert set(found["key_metrics"]) == {
        f"mean/{n}" for n in ("reward", "mask_sample", "correct", "tokens")
    }


def test_a_row_without_a_measurement_does_not_count(serve: Any) -> None:
    server = serve(inline(faults=faults), dialects=["nemo_gym"])
    rows = [
        {**json.loads(post(server.port, "/verify", rollout("2?", said))[1]), "_ng_task_index": 0}
        for said in ("|score/", "|raised/scorer", "|timeout/infrastructure", "|abstain/")
    ]
    assert [row["reward"] for row in rows] == [0.5, 0.0, 0.0, 0.0], "what the schema demands"
    found = json.loads(post(server.port, "/aggregate_metrics", {"verify_responses": rows})[1])
    for metrics in (found["agent_metrics"], *found["group_level_metrics"]):
        assert metrics["mean/reward"] == metrics["min/reward"] == 0.5
        assert metrics["mean/mask_sample"] == 0.75
    lost = json.loads(post(server.port, "/aggregate_metrics", {"verify_responses": rows[1:]})[1])
    assert lost["key_metrics"] == {"mean/mask_sample": 1.0}


def test_nothing_to_describe(serve: Any) -> None:
    server = serve(inline(exact=exact), dialects=["nemo_gym"])
    status, text = post(server.port, "/aggregate_metrics", {"verify_responses": []})
    empty = {"group_level_metrics": [], "agent_metrics": {}, "key_metrics": {}}
    assert (status, json.loads(text)) == (200, empty)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({}, "no 'verify_responses'"),
        ({"verify_responses": {}}, "no 'verify_responses'"),
        ({"verify_responses": [7]}, "[0] is no object"),
        ({"verify_responses": [{"reward": 1}, {}]}, "[1] has no reward"),
        ({"verify_responses": [{"reward": True}]}, "[0] has no reward"),
        ({"verify_responses": [{"reward": None}]}, "[0] has no reward"),
        ({"verify_responses": [{"reward": 10**400}]}, "[0].reward is too large"),
        ({"verify_responses": [{"reward": 1e308}]}, "[0].reward is too large"),
        ({"verify_responses": [{"reward": 1, "_ng_task_index": "a"}]}, "_ng_task_index"),
    ],
)
def test_rows_that_cannot_be_described(serve: Any, no_bug: Any, body: Any, told: str) -> None:
    server = serve(inline(exact=exact), dialects=["nemo_gym"])
    status, text = post(server.port, "/aggregate_metrics", body)
    assert status == 400
    assert told in json.loads(text)["detail"]
