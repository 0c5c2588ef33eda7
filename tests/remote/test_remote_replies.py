"""Nothing that a server says wrongly becomes a number: a hostile server, answer by answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from aiohttp import web
from msgspec.structs import replace

from guerdon.errors import Blame, FailureKind
from guerdon.outcome import Abstention, Failure, Score, Span, failure
from guerdon.policy import Policy
from guerdon.sample import Sample
from guerdon.service import RewardService
from guerdon.wire.protocol import MSGPACK_TYPE, VERSION_HEADER, ErrorCode

MASKED = Policy(on={"infrastructure": "mask", "scorer": "mask", "data": "mask"})


def score(remote: Any, samples: list[Sample], **arguments: Any) -> Any:
    with RewardService(remote, policy=MASKED) as service:
        return service.score_sync(samples, **arguments)


def raw(body: bytes, content_type: str = MSGPACK_TYPE, status: int = 200, **headers: str) -> Any:
    async def behave(asked: Any) -> web.Response:
        given = {VERSION_HEADER: "1", "content-type": content_type, **headers}
        return web.Response(body=body, status=status, headers=given)

    return behave


def changed(server: Any, change: Callable[[Any], Any]) -> Any:
    async def behave(asked: Any) -> web.Response:
        return server.answer(change(asked))

    return behave


def with_value(asked: Any, value: float) -> Any:
    """A reply that msgspec would not build: one score with a value that is none."""
    reply = msgspec.to_builtins(asked.reply())
    reply["results"][0]["outcomes"][3]["value"] = value
    return web.Response(
        body=msgspec.msgpack.encode(reply),
        headers={VERSION_HEADER: "1", "content-type": MSGPACK_TYPE},
    )


def test_right_answers_arrive(server: Any, batch: list[Sample]) -> None:
    outcomes = score(server.remote(), batch)
    assert outcomes.values.tolist() == [float(i % 3 == 1) for i in range(12)]
    assert {o.fingerprint for o in outcomes} == {"a" * 16}


WRONG_BODIES = {
    "empty": (b"", MSGPACK_TYPE),
    "cut short": (b"\x84\xaarequest_id", MSGPACK_TYPE),
    "html": (b"<html>502</html>", "text/html"),
    "a number": (b"\x01", MSGPACK_TYPE),
    "json that is none": (b"{", "application/json"),
    "deep json": (b"[" * 100_000, "application/json"),
    "pickle": (b"\x80\x04\x95", "application/octet-stream"),
    "random": (bytes(range(256)), MSGPACK_TYPE),
}


@pytest.mark.parametrize("case", WRONG_BODIES)
def test_malformed_replies_fail_every_sample(case: str, server: Any, batch: list[Sample]) -> None:
    server.behaviour = raw(*WRONG_BODIES[case])
    assert_all_lost(score(server.remote(), batch), FailureKind.BAD_OUTPUT)
    assert len(server.asked) == 1, "an unusable reply is not asked for again"


def assert_all_lost(outcomes: Any, kind: FailureKind) -> None:
    assert not outcomes.mask.any()
    assert [o.kind for o in outcomes] == [kind] * len(outcomes)
    assert [o.blame for o in outcomes] == [Blame.INFRASTRUCTURE] * len(outcomes)
    assert all(o.message for o in outcomes)


WRONG_REPLIES: dict[str, Callable[[Any], Any]] = {
    "one outcome too few": lambda a: a.reply(a.outcomes()[1:]),
    "one outcome too many": lambda a: a.reply([*a.outcomes(), a.outcomes()[0]]),
    "no outcomes": lambda a: a.reply([]),
    "another order": lambda a: a.reply(a.outcomes()[::-1]),
    "ids of others": lambda a: a.reply([replace(o, sample="x") for o in a.outcomes()]),
    "no ids": lambda a: a.reply([replace(o, sample=None) for o in a.outcomes()]),
    "another reward": lambda a: a.reply(name="gsm8k"),
    "no results": lambda a: a.reply(results=[]),
    "two results": lambda a: a.reply(results=a.reply().results * 2),
    "another request": lambda a: a.reply(request_id="of somebody else"),
    "another attempt": lambda a: a.reply(attempt=9),
    "another protocol": lambda a: a.reply(protocol=2),
}


@pytest.mark.parametrize("case", WRONG_REPLIES)
def test_replies_that_answer_something_else(case: str, server: Any, batch: list[Sample]) -> None:
    server.behaviour = changed(server, WRONG_REPLIES[case])
    assert_all_lost(score(server.remote(), batch), FailureKind.BAD_OUTPUT)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), "1.0", None, [1.0]])
def test_values_that_are_no_numbers(value: Any, server: Any, batch: list[Sample]) -> None:
    async def behave(asked: Any) -> web.Response:
        return with_value(asked, value)

    server.behaviour = behave
    assert_all_lost(score(server.remote(), batch), FailureKind.BAD_OUTPUT)


@pytest.mark.parametrize("field", ["elapsed", "metrics", "components", "info"])
def test_numbers_beside_the_value_that_are_none(
    field: str, server: Any, batch: list[Sample]
) -> None:
    async def behave(asked: Any) -> web.Response:
        reply = msgspec.to_builtins(asked.reply())
        outcome = reply["results"][0]["outcomes"][3]
        outcome[field] = float("nan") if field == "elapsed" else {"a": float("nan")}
        headers = {VERSION_HEADER: "1", "content-type": MSGPACK_TYPE}
        return web.Response(body=msgspec.msgpack.encode(reply), headers=headers)

    server.behaviour = behave
    assert_all_lost(score(server.remote(), batch), FailureKind.BAD_OUTPUT)


def test_a_value_outside_the_range_fails_alone(server: Any, batch: list[Sample]) -> None:
    server.behaviour = changed(
        server, lambda a: a.reply([replace(a.outcomes()[0], value=2.0), *a.outcomes()[1:]])
    )
    outcomes = score(server.remote(), batch)
    assert outcomes.mask.tolist() == [False] + [True] * 11
    assert (outcomes[0].kind, outcomes[0].blame) == (FailureKind.BAD_OUTPUT, Blame.SCORER)


def test_another_version_of_the_reward_is_not_believed(server: Any, batch: list[Sample]) -> None:
    remote = server.remote()
    server.behaviour = changed(server, lambda a: a.reply(fingerprint="b" * 16))
    outcomes = score(remote, batch)
    assert_all_lost(outcomes, FailureKind.UNAVAILABLE)
    assert "fingerprint" in outcomes[0].message
    assert score(server.remote(fingerprint="any"), batch).mask.all()


def test_outcomes_arrive_whole(server: Any) -> None:
    there = [
        Score(
            value=0.5,
            reward="panel",
            fingerprint="c" * 16,
            sample="0",
            elapsed=1.5,
            components={"a": 1.0, "b": None},
            absent={"b": Abstention(reason="no image", reward="b")},
            spans=(Span("turn", 0, 1, 0.25),),
            metrics={"tokens": 3.0, "odd": None},
            info={"why": ("because", {1, 2})},
            renormalised=True,
        ),
        Abstention(reason="no", reward="panel", fingerprint="c" * 16, sample="1"),
        replace(
            failure(FailureKind.TIMEOUT, "looped", Blame.CANDIDATE, evidence="0.9 s of CPU"),
            reward="code",
            fingerprint="d" * 16,
            sample="2",
            elapsed=2.0,
        ),
    ]
    server.behaviour = changed(server, lambda a: a.reply(there))
    outcomes = score(server.remote(), [Sample(response="", sample_id=str(i)) for i in range(3)])
    assert list(outcomes) == there


CODES = {
    ErrorCode.UNAUTHORIZED: FailureKind.UNAVAILABLE,
    ErrorCode.FORBIDDEN: FailureKind.UNAVAILABLE,
    ErrorCode.UNKNOWN_REWARD: FailureKind.UNAVAILABLE,
    ErrorCode.UNSUPPORTED_PROTOCOL: FailureKind.UNAVAILABLE,
    ErrorCode.BAD_OPTIONS: FailureKind.BAD_INPUT,
    ErrorCode.NOT_ACCEPTABLE: FailureKind.BAD_INPUT,
}


@pytest.mark.parametrize("code", CODES)
def test_final_refusals_are_not_tried_again(
    code: ErrorCode, server: Any, batch: list[Sample]
) -> None:
    async def behave(asked: Any) -> web.Response:
        return server.refuse(code, request_id="r1")

    server.behaviour = behave
    outcomes = score(server.remote(), batch)
    assert_all_lost(outcomes, CODES[code])
    assert not any(o.retryable for o in outcomes)
    assert f"it is {code}" in outcomes[0].message
    assert len(server.asked) == 1


@pytest.mark.parametrize("status", [301, 404, 418])
def test_statuses_of_something_between(status: int, server: Any, batch: list[Sample]) -> None:
    server.behaviour = raw(b"<html>moved</html>", "text/html", status, location="http://evil/")
    assert_all_lost(score(server.remote(), batch), FailureKind.BAD_OUTPUT)


def test_a_compressed_reply_is_not_inflated(server: Any, batch: list[Sample]) -> None:
    server.behaviour = raw(b"\x1f\x8b bomb", **{"content-encoding": "gzip"})
    assert_all_lost(score(server.remote(), batch), FailureKind.BAD_OUTPUT)


def test_a_reply_cut_off_on_the_way(server: Any, batch: list[Sample]) -> None:
    async def behave(asked: Any) -> web.StreamResponse:
        response = web.StreamResponse(
            headers={VERSION_HEADER: "1", "content-type": MSGPACK_TYPE, "content-length": "1000"}
        )
        await response.prepare(asked.raw)
        await response.write(b"half of it")
        asked.raw.transport.close()
        return response

    server.behaviour = behave
    outcomes = score(server.remote(retry={"attempts": 2, "first_delay": 0.0}), batch)
    assert_all_lost(outcomes, FailureKind.UNAVAILABLE)
    ids = {(a.request.request_id, a.request.attempt, a.body) for a in server.asked}
    assert len(server.asked) == 2
    assert len(ids) == 1, "word by word, so that a server that has it scores it once"


def test_no_failure_of_the_way_is_a_number(server: Any, batch: list[Sample]) -> None:
    remote = server.remote(retry={"attempts": 2, "first_delay": 0.0})
    server.stop()
    outcomes = score(remote, batch)
    assert_all_lost(outcomes, FailureKind.UNAVAILABLE)
    assert [o.sample for o in outcomes] == [s.sample_id for s in batch]
    assert {type(o) for o in outcomes} == {Failure}
