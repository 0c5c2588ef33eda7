"""The pickle scorers' contracts, held by clients that were written from them."""

from __future__ import annotations

import asyncio
import io
import json
import pickle
import threading
from typing import Any

import numpy as np
import pytest
from server.protocols.pickle_clients import Attempts, FlowGRPO, verl_omni

from guerdon.errors import Blame, ConfigError, FailureKind
from guerdon.outcome import Score, failure
from guerdon.reward import reward
from guerdon.sample import Media, Message, Sample
from guerdon.server import load

Image = pytest.importorskip("PIL.Image")
pytest.importorskip("requests")

RAN: list[object] = []
SEEN: list[Sample] = []


def run(*arguments: object) -> None:
    """What a hostile pickle would call; the server lives in this process."""
    RAN.append(arguments)


class Hostile:
    def __reduce__(self) -> Any:
        return (run, ("ran",))


def jpeg(level: int = 0, size: int = 8) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (size, size), (level, level, level)).save(stream, "JPEG")
    return stream.getvalue()


@reward(auto_register=False)
def level(images: list[Media], prompt: str | None = None) -> float:
    """The brightness of the first pixel."""
    with Image.open(io.BytesIO(images[0].data or b"")) as image:
        return image.convert("RGB").getpixel((0, 0))[0] / 255.0


@reward(auto_register=False, scope="batch", value_range=(-1.0, 1.0))
def told(samples: list[Sample]) -> list[Any]:
    """Does what the prompt says: `kind/blame` fails, `abstain` abstains, a number is the score."""
    found: list[Any] = []
    for sample in samples:
        SEEN.append(sample)
        kind, _, blame = str(sample.prompt_text).partition("/")
        if blame:
            found.append(failure(FailureKind(kind), "it is so", Blame(blame)))
        else:
            found.append(None if kind == "abstain" else float(kind))
    return found


@reward(auto_register=False, scope="batch")
def geneval(samples: list[Sample]) -> list[Score]:
    """What GenEval would say."""
    return [
        Score(
            value=0.5,
            metrics={"strict": float(sample.metadata["tag"] == "colors"), "correct": 1.0},
        )
        for sample in samples
    ]


@reward(auto_register=False, scope="batch")
def vlm(samples: list[Sample]) -> list[Score]:
    """Answers each query by its length."""
    found: list[Score] = []
    for sample in samples:
        queries = sample.metadata["queries"]
        info: dict[str, Any] = {"outputs": [f"{len(query)}" for query in queries]}
        if "answers" in sample.metadata:
            for name in ("precision", "recall", "f1"):
                info[name] = [0.25 for _ in queries]
        found.append(Score(value=1.0, info=info))
    return found


def inline(**rewards: Any) -> dict[str, Any]:
    once = {"attempts": 1}  # the waits between tries are not what is tested here
    return {name: {"reward": one, "inline": True, "retry": once} for name, one in rewards.items()}


@pytest.fixture
def start(serve: Any, no_bug: Any) -> Any:
    def begin(dialect: Any = "pickle", **rewards: Any) -> Any:
        return serve(inline(**rewards), dialects=[dialect])

    return begin


def url(server: Any, path: str = "/") -> str:
    return f"http://127.0.0.1:{server.port}{path}"


def ask(server: Any, payload: Any, path: str = "/") -> tuple[int, Any]:
    """The status and the unpickled reply: this server's own, so that nothing is risked."""
    body = payload if isinstance(payload, bytes) else pickle.dumps(payload)
    answer = server.post(body, "application/octet-stream", path)
    return answer.status, pickle.loads(answer.body)


# VeRL-Omni.


def test_verl_omni_gets_a_score(start: Any) -> None:
    server = start(level=level)
    assert asyncio.run(verl_omni(url(server), jpeg(255), "a cat")) == {"score": 1.0}


def test_the_prompt_is_the_ground_truth_too(start: Any) -> None:
    SEEN.clear()
    server = start(told=told)
    asyncio.run(verl_omni(url(server), jpeg(), "0.25"))
    (sample,) = SEEN
    assert sample.prompt == sample.ground_truth == "0.25"


def test_paths_name_rewards(start: Any) -> None:
    dialect = {"name": "pickle", "prefix": "/p", "paths": {"/level/": "level", "/told": "told"}}
    server = start(dialect, level=level, told=told)
    assert asyncio.run(verl_omni(url(server, "/p/level"), jpeg(255), "x")) == {"score": 1.0}
    assert asyncio.run(verl_omni(url(server, "/p/told?any=1"), jpeg(), "-0.5")) == {"score": -0.5}


def test_the_front_page_stays_where_the_dialect_is_at_the_root(start: Any) -> None:
    server = start(level=level)
    page = server.get("/")
    assert page.status == 200
    assert b"<html" in page.body


AGAIN = {"scorer": {"unavailable", "overloaded"}, "data": set[str]()}
AGAIN["infrastructure"] = {*AGAIN["scorer"], "timeout"}
"""Kinds for which another try may give a number, by blame."""


@pytest.mark.parametrize("blame", [blame for blame in Blame if blame is not Blame.CANDIDATE])
def test_a_failure_is_an_error_that_is_repeated_where_that_may_help(
    start: Any, blame: Blame
) -> None:
    server = start(told=told)
    for kind in FailureKind:
        attempts = Attempts()
        asked = verl_omni(url(server), jpeg(), f"{kind}/{blame}", attempts=attempts)
        with pytest.raises(RuntimeError, match=rf"{kind} \(blame: {blame}\): it is so"):
            asyncio.run(asked)
        assert attempts.statuses == ([503] * 3 if kind in AGAIN[blame] else [422])


def test_a_candidates_failure_is_the_worst_end_of_the_range_and_flagged(start: Any) -> None:
    server = start(told=told)
    for kind in FailureKind:
        prompt = f"{kind}/candidate"
        assert asyncio.run(verl_omni(url(server), jpeg(), prompt)) == {"score": -1.0}
        _, found = ask(server, {"images": [jpeg()], "prompts": [prompt], "metadata": {}})
        behind = {"outcome": "failure", "kind": str(kind), "blame": "candidate"}
        assert found["assigned"] == {"0": {**behind, "message": "it is so"}}


def test_an_abstention_is_an_error_unless_a_number_is_named(start: Any) -> None:
    attempts = Attempts()
    with pytest.raises(RuntimeError, match="HTTP 422: reward 'told' abstained"):
        asyncio.run(verl_omni(url(start(told=told)), jpeg(), "abstain", attempts=attempts))
    assert attempts.statuses == [422]
    named = start({"name": "pickle", "abstention": 0.5}, told=told)
    assert asyncio.run(verl_omni(url(named), jpeg(), "abstain")) == {"score": 0.5}
    assert b'guerdon_assigned_total{path="/"} 1.0' in named.get("/metrics").body


def test_overload_and_the_end_of_the_server_are_repeated(
    serve: Any, rewards: Any, no_bug: Any
) -> None:
    server = serve(
        {"gate": {"reward": rewards.Gate().reward(), "inline": True, "queue": 1}},
        dialects=["pickle"],
    )
    payload = {"images": [jpeg()] * 2, "metadata": {}}
    status, found = ask(server, payload)
    assert status == 413  # more than the queue can ever hold
    assert "split the batch" in found["error"]
    server.server.server.application.drain()
    attempts = Attempts()
    with pytest.raises(RuntimeError, match="the server ends"):
        asyncio.run(verl_omni(url(server), jpeg(), "x", attempts=attempts))
    assert attempts.statuses == [503] * 3


def test_one_image_per_request_is_scored_in_batches(serve: Any, no_bug: Any) -> None:
    """Sixteen requests that wait while one is scored become batches, not sixteen calls."""
    sizes: list[int] = []
    inside, opened = threading.Event(), threading.Event()

    @reward(auto_register=False, scope="batch")
    def slow(images: list[list[Media]]) -> list[float]:
        sizes.append(len(images))
        inside.set()
        opened.wait(30)
        return [1.0] * len(images)

    hosting = {"reward": slow, "inline": True, "batch": {"size": 16, "in_flight": 1}}
    server = serve({"slow": hosting}, dialects=["pickle"])

    async def load_it() -> list[dict[str, float]]:
        first = asyncio.create_task(verl_omni(url(server), jpeg(), "first"))
        await asyncio.to_thread(inside.wait, 30)
        rest = [asyncio.create_task(verl_omni(url(server), jpeg(), str(i))) for i in range(16)]
        await asyncio.to_thread(_wait_for, server, 16)
        opened.set()
        return await asyncio.gather(first, *rest)

    assert asyncio.run(load_it()) == [{"score": 1.0}] * 17
    assert sizes == [1, 16]


def _wait_for(server: Any, waiting: int) -> None:
    while server.status()["rewards"][0]["queue_depth"] < waiting:
        threading.Event().wait(0.01)


# deepgen_rl, EditReward.


def test_a_batch_of_deepgen_rl(start: Any) -> None:
    status, found = ask(
        start(level=level),
        {"images": [jpeg(0), jpeg(255)], "prompts": ["a", "b"], "metadata": {"seed": 5}},
    )
    assert (status, found) == (200, {"scores": [0.0, 1.0]})


def test_one_sample_that_fails_is_named(start: Any) -> None:
    payload = {"images": [jpeg()] * 3, "prompts": ["1", "raised/scorer", "1"], "metadata": {}}
    status, found = ask(start(told=told), payload)
    assert status == 422
    assert found == {"error": "sample 1: reward 'told': raised (blame: scorer): it is so"}


def test_a_request_is_repeated_only_where_all_of_it_may_help(start: Any) -> None:
    server = start(told=told)
    lost = ["unavailable/infrastructure", "overloaded/scorer"]
    payload = {"images": [jpeg()] * 2, "prompts": lost, "metadata": {}}
    assert ask(server, payload)[0] == 503
    payload = {"images": [jpeg()] * 3, "prompts": [*lost, "raised/scorer"], "metadata": {}}
    status, found = ask(server, payload)
    assert status == 422
    assert found["error"].count("it is so") == 3


def test_edited_images_come_with_their_sources(start: Any) -> None:
    SEEN.clear()
    source, edited = jpeg(10), jpeg(20)
    payload = {
        "images": {"source": [source] * 2, "edited": [edited] * 2},
        "prompts": ["0.5", "0.25"],
        "metadata": {},
    }
    assert ask(start(told=told), payload) == (200, {"scores": [0.5, 0.25]})
    sample = SEEN[0]
    assert [image.data for image in sample.images] == [edited]
    (message,) = sample.prompt or ()
    assert isinstance(message, Message)
    assert isinstance(message.content, tuple)
    assert message.content[0].media is not None
    assert message.content[0].media.data == source
    assert sample.prompt_text == "0.5"


# flow_grpo.


def test_flow_grpo_deqa_gets_outputs(start: Any) -> None:
    client = FlowGRPO(url(start(level=level)))
    assert client.ask(images=[jpeg(0), jpeg(255)]) == {"outputs": [0.0, 1.0]}


def test_flow_grpo_unified_reward_sends_an_array_of_prompts(start: Any) -> None:
    prompts = np.array_split(np.array(["1", "0.5"]), 1)[0]
    payload = {"images": [jpeg()] * 2, "prompts": prompts}
    closed = start(told=told)
    status, found = ask(closed, payload)
    assert status == 400
    assert "looks up 'numpy" in found["error"]
    opened = start({"name": "pickle", "arrays": True}, told=told)
    assert FlowGRPO(url(opened)).ask(**payload) == {"outputs": [1.0, 0.5]}


GENEVAL = [{"tag": "colors", "prompt": "a red cat"}, {"tag": "counting", "prompt": "two cats"}]


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("only_strict", [False, True])
def test_geneval_gets_its_five_keys(start: Any, nested: bool, only_strict: bool) -> None:
    metas = list(np.array_split(np.array(GENEVAL), 1)[0])  # as flow_grpo makes the list
    fields = {"meta_datas": metas, "only_strict": only_strict}
    asked = {"prompts": ["p", "q"], "metadata": fields} if nested else fields
    found = FlowGRPO(url(start(geneval=geneval))).ask(images=[jpeg()] * 2, **asked)
    loose = [0.0, 0.0] if only_strict else [1.0, 1.0]
    tags = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
    other = {tag: [-10.0, -10.0] for tag in tags}
    assert found == {
        "scores": [0.5, 0.5],
        "rewards": loose,
        "strict_rewards": [1.0, 0.0],
        "group_rewards": {**other, "colors": [loose[0], -10.0], "counting": [-10.0, loose[1]]},
        "group_strict_rewards": {**other, "colors": [1.0, -10.0], "counting": [-10.0, 0.0]},
    }


def test_a_reward_that_says_nothing_of_strictness_is_an_error(start: Any) -> None:
    payload = {"images": [jpeg()], "meta_datas": [{"tag": "colors"}], "only_strict": True}
    status, found = ask(start(level=level), payload)
    assert status == 422
    assert "its score has no component or metric 'strict'" in found["error"]


def test_flow_grpo_repeats_what_may_help_and_nothing_else(start: Any, no_bug: Any) -> None:
    client = FlowGRPO(url(start(told=told)), tries=2)
    with pytest.raises(KeyError, match="outputs"):  # as flow_grpo reads a reply, at the end
        client.ask(images=[jpeg()], prompts=["unavailable/infrastructure"])["outputs"]
    assert _requests(no_bug) == [503] * 3
    with pytest.raises(KeyError, match="outputs"):
        client.ask(images=[jpeg()], prompts=["raised/scorer"])["outputs"]
    assert _requests(no_bug) == [503] * 3 + [422]


def _requests(log: Any) -> list[int]:
    lines = [record for record in log.records if record.name == "guerdon.server.request"]
    return [line.guerdon_fields["status"] for line in lines]


# LLaVA-server.


def test_llava_gets_outputs_and_bert_scores(start: Any) -> None:
    server = start(vlm=vlm)
    queries = [["how many?", "why"]] * 2  # the same list twice, as ddpo-pytorch sends it
    client = FlowGRPO(url(server))
    assert client.ask(images=[jpeg()] * 2, queries=queries) == {"outputs": [["9", "3"]] * 2}
    answers = [["a", "b"], ["c", "d"]]
    found = client.ask(images=[jpeg()] * 2, queries=queries, answers=answers)
    assert found["recall"] == found["precision"] == found["f1"] == [[0.25, 0.25]] * 2


def test_a_reward_without_outputs_cannot_serve_llava(start: Any) -> None:
    status, found = ask(start(level=level), {"images": [jpeg()], "queries": [["a"]]})
    assert status == 422
    assert "no information 'outputs'" in found["error"]


# Bad input.


def text(value: str) -> bytes:
    return b"\x8c" + bytes([len(value)]) + value.encode()


BAD: dict[str, tuple[Any, str]] = {
    "reduce": ({"images": [Hostile()]}, "looks up"),
    "reduce as metadata": ({"images": [jpeg()], "metadata": Hostile()}, "looks up"),
    "an image of PIL": ({"images": [Image.new("RGB", (4, 4))]}, "looks up"),
    "an array": ({"images": np.zeros((1, 8, 8, 3), np.uint8)}, "looks up"),
    "extension": (b"\x80\x04\x82\x01.", "EXT1"),
    "persistent id": (b"\x80\x04K\x01Q.", "BINPERSID"),
    "a loop": (b"\x80\x04]\x94h\x00a.", "deeper than"),
    "nested frames": (
        b"\x80\x04\x95\x10" + b"\0" * 7 + b"\x95\x01" + b"\0" * 7 + b"N......",
        "a frame inside",
    ),
    "a memo from afar": (b"\x80\x04j\xff\xff\xff\x7f.", "memo"),
    "cut short": (pickle.dumps({"images": [jpeg()]})[:-20], "cut short"),
    "nothing": (b"", "cut short"),
    "JSON": (b'{"images": []}', "opcode"),
    "a list": ([jpeg()], "a dict is pickled here, not a list"),
    "None": (None, "not a NoneType"),
    "no images": ({"prompts": []}, "no 'images', only 'prompts'"),
    "images are text": ({"images": "abc"}, "images is a str, not a list"),
    "an image is text": ({"images": ["abc"]}, "images[0] is a str"),
    "an image is None": ({"images": [None]}, "images[0] is a NoneType"),
    "too few prompts": ({"images": [jpeg()] * 2, "prompts": ["a"]}, "1 prompts for 2 images"),
    "a prompt is a number": ({"images": [jpeg()], "prompts": [1]}, "prompts[0] is a int"),
    "prompts are text": ({"images": [jpeg()], "prompts": "a"}, "prompts is a str, not a list"),
    "metadata is a list": ({"images": [jpeg()], "metadata": []}, "metadata holds a list"),
    "keys are numbers": ({1: 2}, "keys are text"),
    "edited without a source": ({"images": {"edited": []}}, "no 'source' and 'edited'"),
    "more sources": (
        {"images": {"source": [jpeg()] * 2, "edited": [jpeg()]}, "prompts": ["a"]},
        "2 sources for 1 edited",
    ),
    "edits without prompts": (
        {"images": {"source": [jpeg()], "edited": [jpeg()]}},
        "prompts is a NoneType",
    ),
    "too few meta_datas": ({"images": [jpeg()], "meta_datas": []}, "0 meta_datas for 1 images"),
    "meta_datas of text": ({"images": [jpeg()], "meta_datas": ["a"]}, "meta_datas holds a str"),
    "a prompt of numbers": ({"images": [jpeg()], "meta_datas": [{"prompt": 1}]}, "is no text"),
    "only_strict is text": (
        {"images": [jpeg()], "meta_datas": [{}], "only_strict": "no"},
        "only_strict is true or false",
    ),
    "queries are text": ({"images": [jpeg()], "queries": ["a"]}, "queries[0] is a str"),
    "queries of numbers": ({"images": [jpeg()], "queries": [[1]]}, "something that is no text"),
    "too few queries": ({"images": [jpeg()], "queries": []}, "0 queries for 1 images"),
    "too few answers": (
        {"images": [jpeg()], "queries": [["a", "b"]], "answers": [["c"]]},
        "2 queries and 1 answers",
    ),
}


def test_bad_requests_run_nothing_and_get_an_error(start: Any) -> None:
    server = start(level=level)
    for case, (payload, message) in BAD.items():
        RAN.clear()
        status, found = ask(server, payload)
        assert status == 400, case
        assert list(found) == ["error"], case
        assert message in found["error"], case
        assert not RAN, case


NO_IMAGES = {
    "text": b"no image",
    "nothing": b"",
    "a head alone": jpeg()[:20],
    "a bomb": b"\xff\xd8\xff\xc0\x00\x11\x08\xff\xff\xff\xff\x03",
}


@pytest.mark.parametrize("case", list(NO_IMAGES))
def test_what_is_no_image_is_an_error(start: Any, case: str) -> None:
    attempts = Attempts()
    with pytest.raises(RuntimeError, match=r"HTTP 422: reward 'level': bad_input \(blame: data\)"):
        asyncio.run(verl_omni(url(start(level=level)), NO_IMAGES[case], "a", attempts=attempts))
    assert attempts.statuses == [422]


def test_wrong_methods_oversized_and_compressed_bodies(serve: Any, no_bug: Any) -> None:
    dialect = {"name": "pickle", "paths": {"/s": "level"}}
    server = serve(inline(level=level), dialects=[dialect], limits={"body_bytes": 2000})
    for method in ("GET", "PUT", "DELETE", "HEAD"):
        answer = server.send(method, "/s")
        assert answer.status == 405
        assert answer.headers["allow"] == "POST"
    status, found = ask(server, b"\x80\x04" + b"N" * 3000, "/s")
    assert status == 413
    assert "serve.limits.body_bytes" in found["error"]
    answer = server.post(b"xx", "application/octet-stream", "/s", content_encoding="br")
    assert answer.status == 415
    assert "content encoding 'br'" in pickle.loads(answer.body)["error"]


# How it is switched on and reached.


def test_it_is_off_unless_it_is_named(serve: Any, no_bug: Any) -> None:
    server = serve(inline(level=level))
    answer = server.post(pickle.dumps({"images": [jpeg()]}), "application/octet-stream", "/")
    assert answer.status == 405
    assert "error" in json.loads(answer.body)


def test_a_warning_is_logged_where_it_is_on(start: Any, no_bug: Any) -> None:
    start(level=level)
    warnings = [r.getMessage() for r in no_bug.records if r.levelname == "WARNING"]
    assert any("dialect pickle: it reads pickles" in warning for warning in warnings)


@pytest.mark.parametrize("where", ["user", "password", "query"])
def test_a_token_in_the_url(serve: Any, no_bug: Any, where: str) -> None:
    server = serve(inline(level=level), dialects=["pickle"], tokens={"trainer": "correct-horse"})
    host = f"127.0.0.1:{server.port}"
    found = {
        "user": f"http://correct-horse@{host}/",
        "password": f"http://any:correct-horse@{host}/",
        "query": f"http://{host}/?key=correct-horse",
    }[where]
    assert asyncio.run(verl_omni(found, jpeg(255), "a")) == {"score": 1.0}
    if where != "user":  # `requests` sends no user without a password
        assert FlowGRPO(found).ask(images=[jpeg(255)]) == {"outputs": [1.0]}
    attempts = Attempts()
    with pytest.raises(RuntimeError, match="HTTP 401: a token is needed"):
        asyncio.run(verl_omni(f"http://{host}/", jpeg(), "a", attempts=attempts))
    assert attempts.statuses == [401]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("pickle", "its requests name no reward: give reward="),
        ({"paths": {"/a": "lenght"}}, "did you mean 'length'?"),
        ({"paths": {"/a": "length", "/a/": "format"}}, "/a is there twice"),
        ({"paths": {"a": "length"}}, "a path begins with a slash"),
        ({"paths": {"/a?b": "length"}}, "a path begins with a slash"),
        ({"paths": {"/v1/score": "length"}}, "belongs to the server itself"),
        ({"paths": {"/a": "length"}, "array": True}, "did you mean 'arrays'?"),
    ],
)
def test_the_configuration_of_pickles_is_checked(entry: Any, message: str) -> None:
    dialect = entry if isinstance(entry, str) else {"name": "pickle", **entry}
    rewards = {"length": "length", "format": "format"}
    with pytest.raises(ConfigError) as caught:
        load({"rewards": rewards, "dialects": [dialect]}, environment={})
    assert message in str(caught.value)
