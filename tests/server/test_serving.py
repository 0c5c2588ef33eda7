"""The native protocol: what is asked and what is answered."""

from __future__ import annotations

import gzip
import json
from typing import Any

import msgspec
import pytest
import zstandard

from guerdon.errors import Blame, FailureKind
from guerdon.outcome import Abstention, Failure, Score, Span
from guerdon.sample import Sample
from guerdon.wire.codec import decode_msgpack, encode_json, encode_msgpack
from guerdon.wire.protocol import JSON_TYPE, MSGPACK_TYPE, RewardCall, ScoreReply, ScoreRequest

INLINE = {"inline": True}


def samples(*responses: str) -> list[Sample]:
    return [Sample(response=text, sample_id=f"s{i}") for i, text in enumerate(responses)]


def test_outcomes_are_in_the_order_of_the_samples_for_each_reward(
    serve: Any, rewards: Any, no_bug: Any
) -> None:
    client = serve({"echo": {"reward": rewards.echo, **INLINE}, "moody": rewards.moody})
    request = ScoreRequest(samples=samples("3", "1", "2"), rewards=["moody", "echo"])
    moody, echo = client.score(request).reply.results
    assert (moody.name, echo.name) == ("moody", "echo")
    assert [o.value for o in echo.outcomes if isinstance(o, Score)] == [3.0, 1.0, 2.0]
    assert [o.sample for o in echo.outcomes] == ["s0", "s1", "s2"]
    assert echo.fingerprint == rewards.echo.fingerprint == echo.outcomes[0].fingerprint
    assert echo.outcomes[0].reward == "echo"


@pytest.mark.parametrize("inline", [True, False])
def test_failures_and_abstentions_arrive_as_what_they_are(
    serve: Any, rewards: Any, inline: bool
) -> None:
    client = serve({"moody": {"reward": rewards.moody, "inline": inline}})
    texts = ("fine", "abstain", "bad", "raise", "nan")
    outcomes = client.score(ScoreRequest(samples=samples(*texts), rewards=["moody"])).outcomes
    assert isinstance(outcomes[0], Score)
    assert isinstance(outcomes[1], Abstention)
    found = [(o.kind, o.blame) for o in outcomes[2:] if isinstance(o, Failure)]
    assert found == [
        (FailureKind.BAD_INPUT, Blame.DATA),
        (FailureKind.RAISED, Blame.SCORER),
        (FailureKind.NON_FINITE, Blame.SCORER),
    ]


@pytest.mark.parametrize("inline", [True, False])
def test_everything_that_a_score_can_hold_arrives(serve: Any, rewards: Any, inline: bool) -> None:
    client = serve({"rich": {"reward": rewards.rich, "inline": inline}})
    (score,) = client.score(ScoreRequest(samples=samples("abc"), rewards=["rich"])).outcomes
    assert score.components == {"a": 1.0, "b": None}
    assert score.spans == (Span("char", 0, 1, 0.25),)
    assert score.metrics == {"length": 3.0}
    assert list(score.info["pair"]) == [1, 2]


def test_json_and_messagepack_in_any_combination(serve: Any, rewards: Any, no_bug: Any) -> None:
    client = serve({"echo": {"reward": rewards.echo, **INLINE}})
    request = ScoreRequest(samples=samples("7"), rewards=["echo"])
    for body, sent in ((encode_json(request), JSON_TYPE), (encode_msgpack(request), MSGPACK_TYPE)):
        for accept in (JSON_TYPE, MSGPACK_TYPE, "application/msgpack", "*/*", None):
            headers = {} if accept is None else {"accept": accept}
            answer = client.post(body, sent, **headers)
            got = answer.headers["content-type"]
            assert got == (sent if accept in ("*/*", None) else got)
            decode = msgspec.json.decode if got == JSON_TYPE else decode_msgpack
            reply = (
                decode(answer.body, type=ScoreReply)
                if got == JSON_TYPE
                else decode_msgpack(answer.body, ScoreReply)
            )
            assert reply.results[0].outcomes[0].value == 7.0
    assert client.post(encode_json(request), accept="text/html").status == 406


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_compressed_bodies(serve: Any, rewards: Any, no_bug: Any, encoding: str) -> None:
    client = serve({"echo": {"reward": rewards.echo, **INLINE}})
    body = encode_json(ScoreRequest(samples=samples(*map(str, range(500))), rewards=["echo"]))
    pack = gzip.compress if encoding == "gzip" else zstandard.ZstdCompressor().compress
    answer = client.post(pack(body), content_encoding=encoding)
    assert answer.values == [float(i) for i in range(500)]


def test_options_are_bound_for_one_request(serve: Any, rewards: Any, no_bug: Any) -> None:
    client = serve({"scaled": {"reward": rewards.scaled, **INLINE}})
    calls = [RewardCall("scaled", {"factor": 3.0}), "scaled", RewardCall("scaled", {"factor": 2.0})]
    results = client.score(ScoreRequest(samples=samples("5"), rewards=calls)).reply.results
    assert [r.outcomes[0].value for r in results] == [15.0, 5.0, 10.0]  # type: ignore[union-attr]
    assert len({r.fingerprint for r in results}) == 3
    assert results[1].fingerprint == rewards.scaled.fingerprint
    assert results[0].fingerprint == rewards.scaled.bind(factor=3.0).fingerprint


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"facto": 1.0}, "did you mean 'factor'"),
        ({"response": "1"}, "may not set"),
        ({"factor": "three"}, "Expected `float`, got `str`"),
        ({"factor": {"_target_": "os.system", "_args_": ["true"]}}, "Expected `float`"),
    ],
)
def test_options_that_are_refused(
    serve: Any, rewards: Any, options: dict[str, Any], part: str
) -> None:
    client = serve({"scaled": {"reward": rewards.scaled, **INLINE}})
    answer = client.score({"samples": [], "rewards": [{"name": "scaled", "options": options}]})
    assert (answer.status, str(answer.error.code)) == (422, "bad_options")
    assert part in answer.error.message


def test_a_keyword_cannot_set_an_option_that_is_not_allowed(serve: Any, rewards: Any) -> None:
    client = serve({"scaled": {"reward": rewards.scaled, "options": [], **INLINE}})
    request = ScoreRequest(samples=samples("5"), rewards=["scaled"], keywords={"factor": 9.0})
    assert client.score(request).status == 422


def test_where_in_the_run_the_samples_are(serve: Any, rewards: Any, no_bug: Any) -> None:
    client = serve({"where": {"reward": rewards.where, **INLINE}})
    request = ScoreRequest(
        samples=samples("x"), rewards=["where"], step=7, keywords={"bonus": 0.5}, run_id="r"
    )
    assert client.score(request).values == [7.5]


def test_a_repeated_sample_id_fails_alone(serve: Any, rewards: Any, no_bug: Any) -> None:
    client = serve({"echo": {"reward": rewards.echo, **INLINE}})
    twice = [Sample(response=text, sample_id="same") for text in "12"]
    request = ScoreRequest(samples=[*twice, Sample(response="3")], rewards=["echo"])
    first, second, third = client.score(request).outcomes
    assert (first.value, third.value) == (1.0, 3.0)
    assert (second.kind, second.blame) == (FailureKind.BAD_INPUT, Blame.DATA)
    assert second.sample == "same"


def test_no_samples_no_outcomes(serve: Any, rewards: Any, no_bug: Any) -> None:
    client = serve({"echo": {"reward": rewards.echo, **INLINE}})
    assert client.score(ScoreRequest(samples=[], rewards=["echo"])).outcomes == []


def test_a_large_body_is_the_same_as_a_small_one(serve: Any, rewards: Any, no_bug: Any) -> None:
    """Above a size, bodies are decoded sample by sample on a thread."""
    client = serve({"echo": {"reward": rewards.echo, **INLINE}})
    padded = [
        Sample(response=str(i), metadata={"pad": "x" * 5000, "pair": (i, "é")}) for i in range(600)
    ]
    request = ScoreRequest(samples=padded, rewards=["echo"], step=1, keywords={"a": (1,)})
    expected = [float(i) for i in range(600)]
    assert client.score(request).values == expected
    assert client.score_msgpack(request).values == expected


@pytest.mark.parametrize(
    ("request_form", "status", "code", "part"),
    [
        ({"samples": [], "rewards": ["eco"]}, 404, "unknown_reward", "did you mean 'echo'"),
        ({"samples": [], "rewards": []}, 400, "malformed", "length"),
        ({"samples": []}, 400, "malformed", "rewards"),
        ({"samples": {}, "rewards": ["echo"]}, 400, "malformed", "array"),
        ({"samples": [{"response": 4}], "rewards": ["echo"]}, 400, "malformed", "response"),
        ({"samples": [], "rewards": ["echo", "echo"]}, 400, "bad_request", "twice"),
        ({"samples": [], "rewards": ["echo"], "attempt": 0}, 400, "malformed", "attempt"),
        (
            {"samples": [], "rewards": ["echo"], "keywords": {"timeout": 1}},
            400,
            "bad_request",
            "'timeout'",
        ),
    ],
)
def test_requests_that_are_refused(
    serve: Any, rewards: Any, request_form: Any, status: int, code: str, part: str
) -> None:
    client = serve({"echo": {"reward": rewards.echo, **INLINE}})
    answer = client.score(request_form)
    assert (answer.status, str(answer.error.code)) == (status, code)
    assert part in answer.error.message
    assert answer.error.request_id == answer.headers["x-request-id"]


def test_the_head_is_understood(serve: Any, rewards: Any) -> None:
    client = serve({"echo": {"reward": rewards.echo, **INLINE}})
    body = encode_json(ScoreRequest(samples=samples("1"), rewards=["echo"]))
    assert client.post(body, "text/plain").status == 415
    assert client.post(body, "").status == 415
    assert client.post(body, content_encoding="br").status == 415
    assert client.post(body, guerdon_protocol="2").error.code == "unsupported_protocol"
    assert client.post(body, "application/json; charset=utf-8").status == 200
    assert client.get("/v1/score").status == 405
    assert client.post(body, path="/v2/score").status == 404


def test_the_request_id_comes_back(serve: Any, rewards: Any) -> None:
    client = serve({"echo": {"reward": rewards.echo, **INLINE}})
    plain = ScoreRequest(samples=samples("1"), rewards=["echo"])
    given = client.score(plain, x_request_id="from-the-head")
    assert given.reply.request_id == given.headers["x-request-id"] == "from-the-head"
    own = ScoreRequest(samples=samples("1"), rewards=["echo"], request_id="é\r\nx: y")
    answer = client.score(own)
    assert answer.reply.request_id == "é\r\nx: y"
    assert answer.headers["x-request-id"] == "???x: y"


def test_timings(serve: Any, rewards: Any) -> None:
    client = serve({"echo": {"reward": rewards.echo, **INLINE}})
    reply = client.score(ScoreRequest(samples=samples("1"), rewards=["echo"])).reply
    assert 0 <= reply.read_ms <= reply.total_ms
    (result,) = reply.results
    assert 0 <= result.queued_ms + result.scoring_ms <= reply.total_ms


def test_the_callers_timeout_is_kept(serve: Any, rewards: Any) -> None:
    gate = rewards.Gate()
    client = serve({"gate": {"reward": gate.reward(), **INLINE}})
    request = ScoreRequest(samples=samples("1", "2"), rewards=["gate"], timeout_ms=50)
    for outcome in client.score(request).outcomes:
        assert (outcome.kind, outcome.blame) == (FailureKind.TIMEOUT, Blame.INFRASTRUCTURE)
        assert outcome.reward == "gate"
    gate.opened.set()
    again = ScoreRequest(samples=samples("1", "2"), rewards=["gate"], timeout_ms=60_000)
    assert client.score(again).values == [1.0, 2.0]


def test_no_time_left_is_a_timeout(serve: Any, rewards: Any) -> None:
    client = serve({"echo": {"reward": rewards.echo, **INLINE}})
    (outcome,) = client.score(
        ScoreRequest(samples=samples("1"), rewards=["echo"], timeout_ms=0)
    ).outcomes
    assert outcome.kind is FailureKind.TIMEOUT


def test_the_example_configuration_serves(serve: Any, rewards: Any, no_bug: Any) -> None:
    from pathlib import Path

    from guerdon.server import load

    path = Path(__file__).parents[2] / "examples" / "serve.yaml"
    config = load(path, environment={})
    client = serve(
        {
            name: {"reward": h.reward, "inline": h.hosting.inline}
            for name, h in config.rewards.items()
        }
    )
    right = {"response": "<think>\nso\n</think>\n\\boxed{4} #### 4", "ground_truth": "4"}
    answer = client.post(
        json.dumps({"samples": [right], "rewards": ["math", "math_and_format", "gsm8k"]}).encode()
    )
    math, both, gsm8k = (result.outcomes[0] for result in answer.reply.results)
    assert isinstance(both, Score)
    assert both.components["math_verify"] == 1.0
    assert [o.value for o in (math, gsm8k) if isinstance(o, Score)] == [1.0, 1.0]
