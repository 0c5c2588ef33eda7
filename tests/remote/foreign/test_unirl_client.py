"""Scoring with UniRL's reward service, as its contract describes it."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest

from guerdon import config
from guerdon.errors import Blame, ConfigError, FailureKind
from guerdon.outcome import Score
from guerdon.remote.unirl import RemoteUniRL
from guerdon.reward import reward
from guerdon.sample import Media, Message, Part, Sample
from guerdon.server import load

Image = pytest.importorskip("PIL.Image")


def encoded(form: str) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), (10, 20, 30)).save(stream, form)
    return stream.getvalue()


QUICK = {"retry": {"attempts": 2, "first_delay": 0.001, "jitter": 0.0}}
PNG = encoded("PNG")


def unirl(server: Any, **options: Any) -> RemoteUniRL:
    return RemoteUniRL(options.pop("url", server.url), **{"reward": "pick", **QUICK, **options})


def image(text: str, data: bytes = PNG, **fields: Any) -> Sample:
    return Sample(prompt=text, images=(data,), **fields)


def answers(**metrics: Any) -> Any:
    """A service that gives these sub-metrics of the reward to every sample."""
    return lambda body: {
        "results": [{"pick": metrics} for _ in body["requests"]],
        "errors": [{} for _ in body["requests"]],
    }


def test_an_image_is_sent_as_the_contract_says(foreign: Any, score: Any) -> None:
    foreign.answer = answers(pick=0.5, other=2)
    scored = score(unirl(foreign), [image("a cat", ground_truth=7, metadata={"tag": "t"})])
    assert scored[0].value == 0.5
    assert scored[0].metrics == {"other": 2.0}
    (asked,) = foreign.bodies[0]["requests"]
    assert asked == {
        "history": [{"text": "a cat", "image_b64": base64.b64encode(PNG).decode()}],
        "required_rewards": ["pick"],
        "metadata": {"tag": "t", "answer": 7},
    }
    (request,) = foreign.requests
    assert request.path == "/score"
    assert request.headers["content-type"] == "application/json"


def test_a_sample_without_metadata_sends_null(foreign: Any, score: Any) -> None:
    foreign.answer = answers(pick=0.5)
    score(unirl(foreign), [image("a cat")])
    assert foreign.bodies[0]["requests"][0]["metadata"] is None


def test_chosen_metadata_travels_alone(foreign: Any, score: Any) -> None:
    foreign.answer = answers(pick=0.5)
    sample = image("a", metadata={"vqa_list": [1], "array": np.zeros(2)})
    score(unirl(foreign, metadata_keys=["vqa_list", "none"]), [sample])
    assert foreign.bodies[0]["requests"][0]["metadata"] == {"vqa_list": [1]}
    (lost,) = score(unirl(foreign), [sample])
    assert lost.kind is FailureKind.BAD_INPUT


def test_an_edited_image_has_its_source_before_it(foreign: Any, score: Any) -> None:
    foreign.answer = answers(pick=0.5)
    source = Media(kind="image", data=b"source")
    prompt = (Message("user", (Part(media=source), Part(text="make it red"))),)
    score(unirl(foreign), [Sample(prompt=prompt, images=(PNG,))])
    history = foreign.bodies[0]["requests"][0]["history"]
    assert [base64.b64decode(turn["image_b64"]) for turn in history] == [b"source", PNG]
    assert [turn["text"] for turn in history] == ["make it red"] * 2


def test_a_video_and_text(foreign: Any, score: Any, tmp_path: Any) -> None:
    foreign.answer = answers(pick=0.5)
    (tmp_path / "v.mp4").write_bytes(b"movie")
    path = str(tmp_path / "v.mp4")
    score(unirl(foreign), [Sample(prompt="p", videos=(path,)), Sample(prompt="p", response="r")])
    first, second = (asked["history"] for asked in foreign.bodies[0]["requests"])
    assert first == [{"text": "p", "video_b64": base64.b64encode(b"movie").decode()}]
    assert second == [{"text": "p"}, {"text": "r"}]


def test_an_array_is_encoded_without_loss(foreign: Any, score: Any) -> None:
    foreign.answer = answers(pick=0.5)
    pixels = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)
    array = Media(kind="image", array=pixels, layout="HWC", value_range="uint8")
    score(unirl(foreign), [Sample(prompt="p", images=(array,))])
    sent = base64.b64decode(foreign.bodies[0]["requests"][0]["history"][0]["image_b64"])
    with Image.open(io.BytesIO(sent)) as picture:
        assert np.array_equal(np.asarray(picture), pixels)
    score(unirl(foreign, image_format="jpeg"), [Sample(prompt="p", images=(array,))])
    sent = base64.b64decode(foreign.bodies[1]["requests"][0]["history"][0]["image_b64"])
    assert sent.startswith(b"\xff\xd8")


def test_equal_samples_are_asked_for_once_and_batches_are_cut(foreign: Any, score: Any) -> None:
    foreign.answer = lambda body: {
        "results": [{"pick": {"pick": float(r["history"][0]["text"])}} for r in body["requests"]]
    }
    batch = [image(str(i % 5)) for i in range(10)]
    scored = score(unirl(foreign, batch_size=2), batch)
    assert [outcome.value for outcome in scored] == [float(i % 5) for i in range(10)]
    assert sorted(len(body["requests"]) for body in foreign.bodies) == [1, 2, 2]


def test_the_sub_metric_is_the_first_or_the_named_one(foreign: Any, score: Any) -> None:
    foreign.answer = answers(Overall=3.0, VQ=1.0)
    assert score(unirl(foreign), [image("a")])[0].value == 3.0
    named = score(unirl(foreign, sub_metric="VQ"), [image("a")])[0]
    assert (named.value, named.metrics) == (1.0, {"Overall": 3.0})
    (lost,) = score(unirl(foreign, sub_metric="MQ"), [image("a")])
    assert lost.kind is FailureKind.BAD_OUTPUT
    assert "no sub-metric 'MQ', only Overall, VQ" in lost.message


RESULTS: dict[str, tuple[Any, FailureKind, str]] = {
    "empty": ({"pick": {}}, FailureKind.BAD_OUTPUT, "has no sub-metrics"),
    "null": ({"pick": {"pick": None}}, FailureKind.NON_FINITE, "is None"),
    "NaN": ({"pick": {"pick": float("nan")}}, FailureKind.NON_FINITE, "is nan"),
    "infinite": ({"pick": {"pick": float("inf")}}, FailureKind.NON_FINITE, "is inf"),
    "null beside it": ({"pick": {"pick": 1, "b": None}}, FailureKind.NON_FINITE, "'b' is None"),
    "text": ({"pick": {"pick": "1.0"}}, FailureKind.BAD_OUTPUT, "is a str"),
    "true": ({"pick": {"pick": True}}, FailureKind.BAD_OUTPUT, "is a bool"),
    "a number": ({"pick": 1.0}, FailureKind.BAD_OUTPUT, "has no sub-metrics"),
    "missing": ({"other": {"a": 1.0}}, FailureKind.BAD_OUTPUT, "is missing from the reply"),
}


@pytest.mark.parametrize("case", list(RESULTS))
def test_what_is_no_score_fails_its_sample_alone(foreign: Any, score: Any, case: str) -> None:
    result, kind, told = RESULTS[case]
    foreign.answer = lambda body: {"results": [result, {"pick": {"pick": 1.0}}]}
    lost, fine = score(unirl(foreign), [image("a"), image("b")])
    assert fine.value == 1.0
    assert (lost.kind, lost.blame) == (kind, Blame.SCORER)
    assert told in lost.message


def test_an_error_of_the_service_is_a_failure(foreign: Any, score: Any) -> None:
    foreign.answer = lambda body: {
        "results": [{}, {"pick": {"pick": 1.0}}],
        "errors": [{"pick": "TimeoutError(\"reward 'pick' exceeded 120.0s\")"}, {}],
    }
    lost, fine = score(unirl(foreign), [image("a"), image("b")])
    assert fine.value == 1.0
    assert (lost.kind, lost.blame) == (FailureKind.RAISED, Blame.SCORER)
    assert "exceeded 120.0s" in lost.message


REPLIES: dict[str, Any] = {
    "a list": [],
    "null": None,
    "no results": {},
    "results are null": {"results": None},
    "too few": {"results": []},
    "too many": {"results": [{"pick": {"pick": 1.0}}] * 2},
    "errors of another length": {"results": [{"pick": {"pick": 1.0}}], "errors": [{}, {}]},
    "errors are text": {"results": [{"pick": {"pick": 1.0}}], "errors": ["a"]},
    "a result is a number": {"results": [1.0]},
    "an error of FastAPI": {"detail": "unknown reward"},
}


@pytest.mark.parametrize("case", list(REPLIES))
def test_a_reply_that_answers_something_else_gives_nothing(
    foreign: Any, score: Any, case: str
) -> None:
    import json

    from aiohttp import web

    content = json.dumps(REPLIES[case]).encode()
    foreign.answer = lambda body: web.Response(body=content, content_type="application/json")
    (lost,) = score(unirl(foreign), [image("a")])
    assert (lost.kind, lost.blame) == (FailureKind.BAD_OUTPUT, Blame.INFRASTRUCTURE)


def test_a_request_that_is_refused_is_divided(foreign: Any, score: Any) -> None:
    from aiohttp import web

    def answer(body: Any) -> Any:
        texts = [asked["history"][0]["text"] for asked in body["requests"]]
        if "bad" in texts:
            return web.json_response({"detail": "invalid image_b64"}, status=400)
        return {"results": [{"pick": {"pick": 1.0}} for _ in texts]}

    foreign.answer = answer
    batch = [image("a"), image("bad"), image("c"), image("d")]
    found = score(unirl(foreign), batch)
    assert [getattr(outcome, "value", None) for outcome in found] == [1.0, None, 1.0, 1.0]
    assert found[1].kind is FailureKind.BAD_INPUT
    assert "invalid image_b64" in found[1].message


SAMPLES: dict[str, Sample] = {
    "nothing": Sample(prompt="a"),
    "an image without a prompt": Sample(images=(PNG,)),
    "a video without a prompt": Sample(videos=(b"v",)),
    "two images": Sample(prompt="a", images=(PNG, PNG)),
    "two videos": Sample(prompt="a", videos=(b"v", b"w")),
    "an image and a video": Sample(prompt="a", images=(PNG,), videos=(b"v",)),
    "a video of pixels": Sample(
        prompt="a",
        videos=(
            Media(
                kind="video",
                array=np.zeros((2, 4, 4, 3), np.uint8),
                layout="THWC",
                value_range="uint8",
            ),
        ),
    ),
    "a file that is not there": Sample(prompt="a", images=("/nowhere.png",)),
}


@pytest.mark.parametrize("case", list(SAMPLES))
def test_a_sample_that_has_no_form_fails_alone(foreign: Any, score: Any, case: str) -> None:
    foreign.answer = answers(pick=0.5)
    lost, fine = score(unirl(foreign), [SAMPLES[case], image("b")])
    assert (lost.kind, lost.blame) == (FailureKind.BAD_INPUT, Blame.DATA)
    assert fine.value == 0.5


def test_settings_and_configuration() -> None:
    with pytest.raises(ConfigError, match="reward= names"):
        RemoteUniRL("http://127.0.0.1:1", reward="")
    node = {"name": "unirl_remote", "url": "http://:secret@a:1/p", "reward": "pick"}
    made = config.load({"reward": node}, environment={}).reward
    assert repr(made) == "<reward unirl_remote of http://a:1/p/score>"
    one = RemoteUniRL("http://a:1", reward="pick")
    other = RemoteUniRL("http://b:1", reward="pick")
    third = RemoteUniRL("http://a:1", reward="hps")
    assert one.fingerprint == other.fingerprint != third.fingerprint


# Against a server of our own that speaks as UniRL's does.


@reward(auto_register=False, scope="batch", value_range=(-1.0, 1.0))
def told(samples: list[Sample]) -> list[Any]:
    """The number in the prompt; `crash` is the candidate's fault, `text` looks at the response."""
    from guerdon.outcome import failure

    found: list[Any] = []
    for sample in samples:
        text = str(sample.prompt_text)
        if text == "crash":
            found.append(failure(FailureKind.CRASHED, "it fell", Blame.CANDIDATE))
        elif text == "text":
            found.append(float(sample.response == "r" and sample.ground_truth == 5))
        else:
            found.append(Score(value=float(text), components={"part": 0.25}))
    return found


def test_there_and_back_again(score: Any) -> None:
    from guerdon.server.running import RunningServer

    hosted = {"told": {"reward": told, "inline": True}}
    setup = {
        "rewards": hosted,
        "serve": {"port": 0, "tokens": {"t": "correct-horse"}},
        "dialects": [{"name": "unirl", "prefix": "/unirl"}],
    }
    batch = [
        image("0.5"),
        image("crash"),
        Sample(prompt="text", response="r", ground_truth=5),
        image("0.75", b"no image"),
    ]
    with RunningServer(load(setup, environment={})) as server:
        url = f"http://:correct-horse@127.0.0.1:{server.server.port}/unirl"
        first, second, third, fourth = score(RemoteUniRL(url, reward="told", **QUICK), batch)
    assert (first.value, first.metrics) == (0.5, {"part": 0.25})
    # The number that stood for the candidate's failure is a failure again, not a score.
    assert (second.kind, second.blame) == (FailureKind.CRASHED, Blame.CANDIDATE)
    assert third.value == 1.0
    assert "bad_input (blame: data)" in fourth.message
