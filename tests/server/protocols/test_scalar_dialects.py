"""The dialects of one number per sample, held by clients written from the published contracts."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from server.protocols.scalar_clients import CLIENTS, Failed, post, rollout, verl
from server.protocols.scalar_rewards import SEEN, exact, faults, inline, seen

from guerdon.errors import (
    BadInput,
    Blame,
    ConfigError,
    FailureKind,
    InvalidSample,
    MalformedMessage,
)
from guerdon.policy import Policy
from guerdon.remote.openrlhf import OpenRlhfReward
from guerdon.remote.pooling import PoolingReward
from guerdon.remote.slime import SlimeReward
from guerdon.reward import reward
from guerdon.sample import Sample
from guerdon.server import load
from guerdon.server.protocols.dialect import ScoreRoute
from guerdon.server.refusal import Refused
from guerdon.service import RewardService

AGAIN = {"scorer": {"unavailable", "overloaded"}, "data": set[str]()}
AGAIN["infrastructure"] = {*AGAIN["scorer"], "timeout"}
"""Kinds for which another try may give a number, by blame."""


@pytest.fixture(autouse=True)
def forget() -> None:
    SEEN.clear()


# Numbers.


@pytest.mark.parametrize("dialect", CLIENTS)
def test_a_score_is_the_reward(serve: Any, dialect: str) -> None:
    server = serve(inline(faults=faults), dialects=[dialect])
    assert CLIENTS[dialect](server.port, "2 + 2?", "|score/", "4") == 0.5


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_both_engines_of_verl(serve: Any, engine: str) -> None:
    server = serve(inline(faults=faults), dialects=["vllm"])
    assert verl(server.port, "2 + 2?", "|score/", None, engine) == 0.5


# Failures: for every dialect and kind, never a number.


@pytest.mark.parametrize("blame", ["scorer", "infrastructure", "data"])
@pytest.mark.parametrize("dialect", CLIENTS)
def test_no_failure_is_a_number(serve: Any, dialect: str, blame: str) -> None:
    server = serve(inline(faults=faults), dialects=[dialect])
    for kind in map(str, FailureKind):
        with pytest.raises(Failed) as failed:
            CLIENTS[dialect](server.port, "2 + 2?", f"|{kind}/{blame}", "4")
        assert f"{kind} (blame: {blame}): it is so" in str(failed.value)
        if dialect == "vllm":  # the only client that tells errors apart
            assert failed.value.again == (kind in AGAIN[blame])


@pytest.mark.parametrize("dialect", CLIENTS)
def test_no_abstention_is_a_number(serve: Any, dialect: str) -> None:
    server = serve(inline(faults=faults), dialects=[dialect])
    with pytest.raises(Failed, match="reward 'faults' abstained") as failed:
        CLIENTS[dialect](server.port, "2 + 2?", "|abstain/", "4")
    if dialect == "vllm":
        assert not failed.value.again


@pytest.mark.parametrize("dialect", CLIENTS)
def test_a_fault_of_the_candidate_earns_the_worst_end_and_is_counted(
    serve: Any, dialect: str
) -> None:
    server = serve(inline(faults=faults), dialects=[dialect])
    assert CLIENTS[dialect](server.port, "2 + 2?", "|crashed/candidate", "4") == -1.0
    path = {"vllm": "/classify", "openrlhf": "/get_reward", "slime": "/rm"}
    path |= {"llamafactory": "/v1/score/evaluation", "nemo_gym": "/verify"}
    counted = f'guerdon_assigned_total{{path="{path[dialect]}"}} 1.0'
    assert counted in server.get("/metrics").body.decode()


@pytest.mark.parametrize("dialect", CLIENTS)
def test_the_user_may_name_numbers(serve: Any, dialect: str) -> None:
    named = {"name": dialect, "candidate": "fail", "abstention": 0.125}
    server = serve(inline(faults=faults), dialects=[named])
    assert CLIENTS[dialect](server.port, "2 + 2?", "|abstain/", "4") == 0.125
    with pytest.raises(Failed):
        CLIENTS[dialect](server.port, "2 + 2?", "|crashed/candidate", "4")


def test_one_failure_of_a_batch_fails_its_request(serve: Any) -> None:
    server = serve(inline(faults=faults), dialects=["vllm", "openrlhf", "llamafactory"])
    texts = ["|score/", "|raised/scorer", "|score/"]
    for path, body in (
        ("/classify", {"input": texts}),
        ("/get_reward", {"query": texts}),
        ("/v1/score/evaluation", {"messages": texts}),
    ):
        status, text = post(server.port, path, body)
        assert status == 422
        assert "sample 1: reward 'faults': raised (blame: scorer): it is so" in text
        assert "scores" not in json.loads(text)


def test_a_request_is_tried_again_only_where_all_of_it_may_help(serve: Any) -> None:
    server = serve(inline(faults=faults), dialects=["vllm"])
    lost = ["|unavailable/infrastructure", "|overloaded/scorer"]
    assert post(server.port, "/classify", {"input": lost})[0] == 503
    assert post(server.port, "/classify", {"input": [*lost, "|raised/scorer"]})[0] == 422


def test_many_failures_are_told_in_few_words(serve: Any) -> None:
    server = serve(inline(faults=faults), dialects=["llamafactory"])
    _, text = post(server.port, "/v1/score/evaluation", {"messages": ["|raised/scorer"] * 9})
    assert text.count("it is so") == 3
    assert "and 6 more" in text


# OpenRLHF.


def test_one_query_gets_scalars_and_none_gets_empty_lists(serve: Any) -> None:
    server = serve(inline(exact=exact), dialects=["openrlhf"])

    def ask(query: Sequence[str], prompts: Sequence[str], labels: Sequence[Any]) -> Any:
        body = {"query": query, "prompts": prompts, "labels": labels}
        status, text = post(server.port, "/get_reward", body)
        assert status == 200, text
        return json.loads(text)

    logs = {"correct": 1.0, "tidy": 0.25}
    assert ask(["2?4"], ["2?"], ["4"]) == {"rewards": 1.0, "scores": 1.0, "extra_logs": logs}
    assert ask([], [], []) == {"rewards": [], "scores": [], "extra_logs": {}}
    both = ask(["2?4", "2?5"], ["2?", "2?"], ["4", "4"])
    assert both["rewards"] == both["scores"] == [1.0, 0.0]
    assert both["extra_logs"] == {"correct": [1.0, 0.0], "tidy": [0.25, 0.25]}


LONG = "".join(chr(97 + i * 7 % 26) + str(i) for i in range(60))


@pytest.mark.parametrize(
    ("query", "prompt", "response"),
    [
        ("2 + 2?4<|im_end|>", "2 + 2?", "4"),
        ("2 + 2?4</s>", "2 + 2?", "4"),
        ("2 + 2?</s> is no end", "2 + 2?", "</s> is no end"),
        (LONG[50:] + "4", LONG, "4"),
        (("ab" * 99)[7:] + "c4", "ab" * 99, "c4"),
        ("2 + 2?", "2 + 2?", ""),
        ("all", None, "all"),
    ],
)
def test_the_response_is_what_follows_the_prompt(
    serve: Any, query: str, prompt: str | None, response: str
) -> None:
    server = serve(inline(seen=seen), dialects=["openrlhf"])
    prompts = None if prompt is None else [prompt]
    assert post(server.port, "/get_reward", {"query": [query], "prompts": prompts})[0] == 200
    assert [(s.prompt_text, s.response_text) for s in SEEN] == [(prompt, response)]


def test_a_query_without_its_prompt_is_refused_unless_it_is_wanted_whole(serve: Any) -> None:
    body = {"query": ["another text"], "prompts": ["2 + 2?"], "labels": ["4"]}
    server = serve(inline(seen=seen), dialects=["openrlhf"])
    status, text = post(server.port, "/get_reward", body)
    assert (status, SEEN) == (400, [])
    assert "response: query" in text
    whole = serve(inline(seen=seen), dialects=[{"name": "openrlhf", "response": "query"}])
    assert post(whole.port, "/get_reward", body)[0] == 200
    assert SEEN[0].response_text == "another text"


def test_a_component_goes_out_as_scores(serve: Any) -> None:
    body = {"query": ["4"], "labels": ["4"]}
    named = {"name": "openrlhf", "scores": "tidy"}
    server = serve(inline(exact=exact), dialects=[named])
    assert json.loads(post(server.port, "/get_reward", body)[1])["scores"] == 0.25
    lacking = serve(inline(exact=exact), dialects=[{**named, "scores": "speed"}])
    status, text = post(lacking.port, "/get_reward", body)
    assert status == 422
    assert "no component or metric 'speed' for 'scores'" in text


@pytest.mark.parametrize(("named", "scores"), [(None, 0.25), ("length", 4.0)])
def test_a_metric_goes_out_as_scores(serve: Any, named: str | None, scores: float) -> None:
    """As for the same reward in a file of OpenRLHF."""

    @reward(name="shaped", auto_register=False)
    def shaped(response: str) -> Any:
        return {"score": -1.0, "metrics": {"scores": 0.25, "length": float(len(response))}}

    server = serve(inline(shaped=shaped), dialects=[{"name": "openrlhf", "scores": named}])
    status, text = post(server.port, "/get_reward", {"query": ["four"], "labels": ["4"]})
    found = json.loads(text)
    assert (status, found["rewards"], found["scores"]) == (200, -1.0, scores)


# slime.


def test_slime_gets_a_number_or_an_object(serve: Any) -> None:
    body = {"prompt": [{"role": "user", "content": "2?"}], "response": "4", "label": "4"}
    server = serve(inline(exact=exact), dialects=["slime"])
    assert post(server.port, "/rm", body) == (200, "1.0")
    keyed = {"name": "slime", "path": "/score-it", "reward_key": "score"}
    other = serve(inline(exact=exact), dialects=[keyed])
    _, text = post(other.port, "/score-it", body)
    assert json.loads(text) == {"correct": 1.0, "tidy": 0.25, "score": 1.0}


def test_slimes_sample(serve: Any) -> None:
    server = serve(inline(seen=seen), dialects=["slime"])
    label = {"answer": [1, None]}
    assert post(server.port, "/rm", {"prompt": "p", "response": "r", "label": label})[0] == 200
    assert (SEEN[0].prompt, SEEN[0].response, SEEN[0].ground_truth) == ("p", "r", label)


# LlamaFactory.


def test_llamafactory_gets_scores(serve: Any) -> None:
    server = serve(inline(faults=faults), dialects=["llamafactory"])
    body = {"model": "model", "messages": ["|score/", "|crashed/candidate"]}
    _, text = post(server.port, "/v1/score/evaluation", body)
    assert json.loads(text)["scores"] == [0.5, -1.0]
    assert json.loads(post(server.port, "/v1/score/evaluation", {"messages": []})[1])["scores"] == (
        []
    )


# Bad input.

GOOD: dict[str, tuple[str, Any]] = {
    "classify": ("/classify", {"input": "|score/"}),
    "score": ("/score", {"text_1": "a", "text_2": "|score/"}),
    "pooling": ("/pooling", {"input": ["|score/"]}),
    "embeddings": ("/v1/embeddings", {"input": "|score/"}),
    "openrlhf": ("/get_reward", {"query": ["|score/"]}),
    "slime": ("/rm", {"response": "|score/"}),
    "llamafactory": ("/v1/score/evaluation", {"messages": ["|score/"]}),
    "nemo_gym": ("/verify", rollout("2?", "|score/")),
}
ALL = ["vllm", "openrlhf", "slime", "llamafactory", "nemo_gym"]

BAD: list[tuple[str, Any, int]] = [
    ("/classify", {}, 400),
    ("/classify", {"input": []}, 400),
    ("/classify", {"messages": []}, 400),
    ("/classify", {"input": "a", "messages": [{"role": "user", "content": "x"}]}, 400),
    ("/classify", {"input": 7}, 400),
    ("/classify", {"input": [1, 2, 3]}, 400),
    ("/classify", {"input": [[1, 2], [3]]}, 400),
    ("/classify", {"input": ["a", None]}, 400),
    ("/classify", {"messages": "talk"}, 400),
    ("/classify", {"messages": [{"content": "no role"}]}, 400),
    ("/classify", {"input": "a", "use_activation": True}, 400),
    ("/classify", {"input": "a", "softmax": True}, 400),
    ("/classify", {"input": "a", "truncate_prompt_tokens": 8}, 400),
    ("/classify", {"input": "a", "chat_template": "{{ x }}"}, 400),
    ("/classify", {"input": "a", "model": 3}, 400),
    ("/v1/embeddings", {"input": "a", "encoding_format": "bytes"}, 400),
    ("/v1/embeddings", {"input": "a", "dimensions": 256}, 400),
    ("/v1/embeddings", {"input": "a", "embed_dtype": "float16"}, 400),
    ("/score", {"text_1": "a"}, 400),
    ("/score", {"text_1": ["a", "b"], "text_2": ["c", "d", "e"]}, 400),
    ("/score", {"text_1": ["a", "b"], "text_2": "c"}, 400),
    ("/score", {"text_1": "a", "text_2": []}, 400),
    ("/score", {"text_1": {"content": []}, "text_2": "b"}, 400),
    ("/score", {"text_1": "a", "text_2": "b", "queries": "a", "items": "b"}, 400),
    ("/get_reward", {"prompts": ["a"]}, 400),
    ("/get_reward", {"query": "not a list"}, 400),
    ("/get_reward", {"query": ["a", "b"], "prompts": ["a"]}, 400),
    ("/get_reward", {"query": ["a"], "labels": []}, 400),
    ("/get_reward", {"query": [["a"]]}, 400),
    ("/rm", {"prompt": "p"}, 400),
    ("/rm", {"prompt": "p", "response": None}, 400),
    ("/rm", {"prompt": [], "response": "r"}, 400),
    ("/rm", {"prompt": [{"text": "r"}], "response": "r"}, 400),
    ("/rm", ["p", "r"], 400),
    ("/v1/score/evaluation", {"model": "m"}, 400),
    ("/v1/score/evaluation", {"messages": [{"role": "user", "content": "x"}]}, 400),
    ("/v1/score/evaluation", {"messages": "text"}, 400),
    ("/verify", {"response": {}}, 400),
    ("/verify", {"responses_create_params": {"input": []}, "response": "text"}, 400),
    ("/verify", {"responses_create_params": {"input": 3}, "response": {"output": []}}, 400),
    ("/verify", {"responses_create_params": {"input": "2?"}, "response": {}}, 400),
    ("/verify", {"responses_create_params": {"input": "2?"}, "response": {"output": "4"}}, 400),
    ("/verify", {"responses_create_params": {"input": [3]}, "response": {"output": []}}, 400),
    (
        "/verify",
        {"responses_create_params": {}, "response": {"output": [{"type": "mystery"}]}},
        400,
    ),
    (
        "/verify",
        {
            "responses_create_params": {},
            "response": {
                "output": [{"role": "assistant", "content": [{"type": "output_text", "text": 3}]}]
            },
        },
        400,
    ),
    ("/seed_session", [], 400),
]


def test_fields_that_make_no_sense(serve: Any, no_bug: Any) -> None:
    server = serve(inline(faults=faults), dialects=ALL)
    for path, body, expected in BAD:
        status, text = post(server.port, path, body)
        assert status == expected, (path, body, text)
        assert "scores" not in json.loads(text)
        assert "reward" not in json.loads(text)
    for path, body in GOOD.values():
        assert post(server.port, path, body)[0] == 200, path


def test_bodies_that_are_damaged(serve: Any, no_bug: Any) -> None:
    server = serve(inline(faults=faults), dialects=ALL)
    for path, body in GOOD.values():
        written = json.dumps(body).encode()
        for damaged in (b"", b"null", b"[]", b'"text"', b"\x80\x04N.", b"{" * 100_000):
            assert post(server.port, path, damaged)[0] == 400, (path, damaged[:20])
        for cut in range(1, len(written), max(1, len(written) // 7)):
            assert post(server.port, path, written[:cut])[0] == 400, (path, written[:cut])
        nan = written.replace(b'"|score/"', b"NaN")
        assert post(server.port, path, nan)[0] == 400


def test_bodies_and_batches_that_are_too_large(serve: Any, no_bug: Any) -> None:
    limits = {"envelope_bytes": 2000, "samples": 4}
    server = serve(inline(faults=faults), dialects=ALL, limits=limits)
    for path, body in GOOD.values():
        status, text = post(server.port, path, {**body, "padding": "x" * 3000})
        assert status == 413, path
        assert "envelope_bytes" in text
    for path, body in (
        ("/classify", {"input": ["|score/"] * 5}),
        ("/get_reward", {"query": ["|score/"] * 5}),
        ("/v1/score/evaluation", {"messages": ["|score/"] * 5}),
    ):
        status, text = post(server.port, path, body)
        assert status == 413
        assert "split the batch" in text


def test_wrong_methods_and_tokens(serve: Any, no_bug: Any) -> None:
    server = serve(inline(faults=faults), dialects=ALL, tokens={"t": "correct-horse"})
    for path, body in GOOD.values():
        assert server.get(path, authorization="Bearer correct-horse").status == 405, path
        assert post(server.port, path, body)[0] == 401
        assert post(server.port, f"{path}?token=correct-horse", body)[0] == 200, path


def test_basic_auth_and_prefixes_for_clients_that_have_only_a_url(serve: Any) -> None:
    dialects = [{"name": name, "prefix": "/behind/a/proxy"} for name in ALL]
    server = serve(inline(faults=faults), dialects=dialects, tokens={"t": "correct-horse"})
    basic = base64.b64encode(b"anybody:correct-horse").decode()
    for path, body in GOOD.values():
        content, where = json.dumps(body).encode(), f"/behind/a/proxy{path}"
        assert server.post(content, path=where, authorization=f"Basic {basic}").status == 200, path
        assert server.post(content, path=path, authorization=f"Basic {basic}").status == 404, path


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "content", "type", "text"]), inner, max_size=3)
    ),
    max_leaves=6,
)
FIELDS = (
    *("model", "input", "messages", "text_1", "text_2", "use_activation", "encoding_format"),
    *("query", "prompts", "labels", "prompt", "response", "label", "output"),
    *("responses_create_params", "expected_answer", "reward", "verify_responses"),
)
ROUTES = [
    route
    for dialect in load(
        {"rewards": inline(faults=faults), "dialects": ALL}, environment={}
    ).dialects
    for route in dialect.routes
    if isinstance(route, ScoreRoute)
]


PART = st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "output_text", "refusal", "input_image", None]) | JSON},
    optional=dict.fromkeys(("text", "refusal", "image_url", "image"), JSON),
)
ITEM = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["message", "function_call", "function_call_output"]) | JSON,
        "role": st.sampled_from(["user", "assistant"]) | JSON,
        "content": st.lists(PART, max_size=2) | JSON,
        **dict.fromkeys(("output", "call_id", "tool_call_id", "name", "arguments"), JSON),
        "tool_calls": st.lists(st.fixed_dictionaries({"function": JSON, "id": JSON})) | JSON,
    },
)
ITEMS = st.lists(ITEM, max_size=3)
NEARLY = st.fixed_dictionaries(
    {
        "responses_create_params": st.fixed_dictionaries({"input": ITEMS | JSON}),
        "response": st.fixed_dictionaries({"output": ITEMS | JSON}) | JSON,
    },
    optional={"messages": ITEMS, "prompt": ITEMS, "verifier_metadata": JSON},
)


@given(st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=4) | JSON | NEARLY)
def test_any_json_is_read_or_refused(body: Any) -> None:
    content = json.dumps(body).encode()
    for route in ROUTES:
        with contextlib.suppress(Refused, MalformedMessage, InvalidSample, BadInput):
            for request in route.read(memoryview(content), {}).requests:
                assert len(request.samples) <= 3


def test_lone_surrogates_do_no_harm(serve: Any, no_bug: Any) -> None:
    server = serve(inline(seen=seen), dialects=ALL)
    for path, body in GOOD.values():
        written = json.dumps(body).replace("|score/", "\\ud800").encode()
        assert post(server.port, path, written)[0] == 200, path


def test_an_http_error_is_no_llamafactory_score(serve: Any) -> None:
    server = serve(inline(faults=faults), dialects=["llamafactory"], tokens={"t": "a-long-token"})
    with pytest.raises(Failed, match="a token is needed"):
        CLIENTS["llamafactory"](server.port, "p", "|score/", None)


# Configuration.


@reward(auto_register=False, higher_is_better=False, value_range=(0.0, 9.0))
def errors(response: str) -> float:
    """Lower is better."""
    return 1.0


@pytest.mark.parametrize("dialect", [*CLIENTS, "pickle", "latent"])
def test_a_reward_that_would_train_the_wrong_way(dialect: str) -> None:
    with pytest.raises(ConfigError, match="lower values of reward 'errors' are better"):
        load({"rewards": inline(errors=errors), "dialects": [dialect]}, environment={})


@pytest.mark.parametrize(
    ("dialect", "told"),
    [
        ({"name": "openrlhf"}, "give reward="),
        ({"name": "slime", "reward": "exat"}, "did you mean 'exact'"),
        ({"name": "slime", "reward": "exact", "path": "rm"}, "begins with a slash"),
        ({"name": "openrlhf", "reward": "exact", "respons": "query"}, "respons"),
        ({"name": "vllm", "models": {"m": "exat"}}, "did you mean 'exact'"),
        ({"name": "llamafactory", "reward": "exact", "path": "/v1/score"}, "give a prefix"),
        ({"name": "nemo_gym", "reward": "exact", "ground_truth": 3}, "ground_truth"),
    ],
)
def test_settings_that_cannot_work(dialect: dict[str, Any], told: str) -> None:
    rewards = inline(exact=exact, faults=faults)
    with pytest.raises(ConfigError, match=told):
        load({"rewards": rewards, "dialects": [dialect]}, environment={})


# Guerdon's own clients of these protocols.


@pytest.mark.parametrize("api", ["classify", "pooling", "embeddings", "score"])
def test_our_pooling_client_talks_to_our_dialect(serve: Any, api: Any) -> None:
    server = serve(inline(faults=faults), dialects=["vllm"])
    form = "pair" if api == "score" else "text"
    rm = PoolingReward(f"http://127.0.0.1:{server.port}", api=api, form=form)
    check_own_client(rm)


def test_our_openrlhf_client_talks_to_our_dialect(serve: Any) -> None:
    server = serve(inline(faults=faults), dialects=["openrlhf"])
    check_own_client(OpenRlhfReward(f"http://127.0.0.1:{server.port}"))


def test_our_slime_client_talks_to_our_dialect(serve: Any) -> None:
    server = serve(inline(faults=faults), dialects=["slime"])
    check_own_client(SlimeReward(f"http://127.0.0.1:{server.port}/rm"))


def check_own_client(rm: Any) -> None:
    """Scores come back, and one failure costs one sample, also within a request of several.

    What the candidate caused is a number on the wire and a failure here.
    """
    texts = ["|score/", "|raised/scorer", "|crashed/candidate", "x|score/"]
    samples = [Sample(prompt="", response=text, sample_id=str(i)) for i, text in enumerate(texts)]
    with RewardService(
        rm, policy=Policy(on=dict.fromkeys(("data", "candidate"), "mask"))
    ) as service:
        outcomes = service.score_sync(samples)
    assert outcomes.mask.tolist() == [True, False, False, True]
    assert outcomes.values[[0, 3]].tolist() == [0.5, 0.5]
    assert outcomes[2].blame is Blame.CANDIDATE
    assert "raised (blame: scorer): it is so" in outcomes[1].message


def test_a_full_queue_is_tried_again_by_every_client(serve: Any) -> None:
    limits = {"bytes_in_flight": 40}
    dialects = ["vllm", "openrlhf", "slime", "nemo_gym"]
    server = serve(inline(faults=faults), dialects=dialects, limits=limits)
    for name, status in (("classify", 503), ("openrlhf", 429), ("slime", 429)):
        path, body = GOOD[name]
        found = server.post(json.dumps({**body, "padding": "x" * 40}).encode(), path=path)
        assert found.status == status
        assert found.headers["retry-after"] == "1"
        assert found.headers["content-type"] == "application/json"
