"""vLLM's and SGLang's scalar models: the forms of the requests and of the replies."""

from __future__ import annotations

import json
from typing import Any

import pytest
from server.protocols.scalar_clients import post
from server.protocols.scalar_rewards import SEEN, exact, faults, inline, seen

from guerdon.errors import ConfigError
from guerdon.server import load


@pytest.fixture(autouse=True)
def forget() -> None:
    SEEN.clear()


def test_the_forms_of_vllm(serve: Any) -> None:
    server = serve(inline(exact=exact), dialects=["vllm"])

    def ask(path: str, **body: Any) -> Any:
        status, text = post(server.port, path, body)
        assert status == 200, text
        return json.loads(text)

    reply = ask("/classify", model="m", input=["a", "b"], use_activation=False)
    assert reply["object"] == "list"
    assert reply["model"] == "m"
    assert reply["data"] == [
        {"index": i, "label": None, "probs": [0.0], "num_classes": 1} for i in range(2)
    ]
    assert ask("/classify", input="a")["data"][0]["probs"] == [0.0]
    assert ask("/pooling", input="a", task="classify")["data"] == [
        {"index": 0, "object": "pooling", "data": [0.0]}
    ]
    assert ask("/v1/embeddings", input="a")["data"] == [
        {"index": 0, "object": "embedding", "embedding": [0.0]}
    ]
    assert ask("/score", text_1="a", text_2=["b", "c"])["data"] == [
        {"index": i, "object": "score", "score": 0.0} for i in range(2)
    ]
    assert ask("/v1/embeddings", input="a", encoding_format="base64")["data"][0]["embedding"] == (
        "AAAAAA=="
    )


def test_what_a_reward_sees_of_vllms_requests(serve: Any) -> None:
    server = serve(inline(seen=seen), dialects=["vllm"])
    talk = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "first"},
        {"role": "user", "content": [{"type": "text", "text": "again"}]},
        {"role": "assistant", "content": "a"},
    ]
    post(server.port, "/classify", {"input": "whole"})
    post(server.port, "/classify", {"messages": talk})
    post(server.port, "/score", {"text_1": ["p", "q"], "text_2": ["r", "s"]})
    post(server.port, "/score", {"queries": "p", "documents": ["r", "s"]})
    assert [(s.prompt_text, s.response_text) for s in SEEN] == [
        (None, "whole"),
        ("again", "a"),
        ("p", "r"),
        ("q", "s"),
        ("p", "r"),
        ("p", "s"),
    ]
    roles = [message.role for message in SEEN[1].prompt_messages or ()]
    assert roles == ["system", "user", "assistant", "user"]


def test_models_name_rewards(serve: Any) -> None:
    several = inline(exact=exact, faults=faults)
    by_name = serve(several, dialects=["vllm"])
    assert post(by_name.port, "/classify", {"model": "faults", "input": "|score/"})[0] == 200
    for model in ("exakt", None):
        status, text = post(by_name.port, "/classify", {"model": model, "input": "x"})
        assert status == 404
        assert json.loads(text)["error"]["code"] == 404
    listed = json.loads(by_name.get("/v1/models").body)["data"]
    assert [entry["id"] for entry in listed] == ["exact", "faults"]
    assert by_name.get("/health").status in (200, 503)  # 503 until the fixtures have run
    mapped = serve(several, dialects=[{"name": "vllm", "models": {"org/rm": "faults"}}])
    assert post(mapped.port, "/classify", {"model": "org/rm", "input": "|score/"})[0] == 200
    assert post(mapped.port, "/classify", {"model": "faults", "input": "x"})[0] == 404
    fixed = serve(several, dialects=[{"name": "vllm", "reward": "faults"}])
    assert post(fixed.port, "/classify", {"model": "any", "input": "|score/"})[0] == 200


def test_prefixes_keep_dialects_apart(serve: Any) -> None:
    dialects = [{"name": "vllm", "prefix": "/rm/"}, {"name": "unirl"}]
    server = serve(inline(faults=faults), dialects=dialects)
    assert post(server.port, "/rm/score", {"text_1": "a", "text_2": "|score/"})[0] == 200
    assert server.get("/rm/v1/models").status == 200
    with pytest.raises(ConfigError, match="give one of them a prefix"):
        load({"rewards": inline(faults=faults), "dialects": ["vllm", "unirl"]}, environment={})


def test_the_openai_client_reads_it(serve: Any) -> None:
    openai = pytest.importorskip("openai")
    server = serve(inline(faults=faults), dialects=["vllm"])
    with openai.OpenAI(
        base_url=f"http://127.0.0.1:{server.port}/v1", api_key="none", max_retries=0
    ) as client:
        found = client.embeddings.create(model="rm", input=["|score/", "|score/"])
        assert [entry.embedding for entry in found.data] == [[0.5], [0.5]]
        assert [model.id for model in client.models.list()] == ["faults"]
        with pytest.raises(openai.UnprocessableEntityError, match="it is so"):
            client.embeddings.create(model="rm", input="|raised/scorer")
        with pytest.raises(openai.InternalServerError, match="it is so"):
            client.embeddings.create(model="rm", input="|unavailable/scorer")
