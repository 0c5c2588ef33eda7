"""UniRL's contract, held by a client that was written from it."""

from __future__ import annotations

import io
import json
import threading
from pathlib import Path
from typing import Any

import pytest
from server.protocols.unirl_client import UniRLClient, turn

from guerdon.errors import Blame, ConfigError, FailureKind
from guerdon.outcome import Score, failure
from guerdon.reward import reward
from guerdon.sample import Media, Message, Sample
from guerdon.server import load

Image = pytest.importorskip("PIL.Image")


def png(level: int = 0, size: int = 8) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (size, size), (level, level, level)).save(stream, "PNG")
    return stream.getvalue()


@reward(auto_register=False)
def level(images: list[Media]) -> float:
    """The brightness of the first pixel."""
    with Image.open(io.BytesIO(images[0].data or b"")) as image:
        return image.convert("RGB").getpixel((0, 0))[0] / 255.0


@reward(auto_register=False)
def parts(prompt: str) -> Score:
    """A score with parts, one of which is absent."""
    return Score(value=0.5, components={"b": 0.25, "a": 0.75, "gone": None}, metrics={"steps": 3.0})


@reward(auto_register=False, candidate_fault=("raised",), value_range=(-1.0, 1.0))
def moody(prompt: str) -> float | None:
    """Scores, abstains or fails, as the prompt says."""
    if prompt == "abstain":
        return None
    if prompt == "nan":
        return float("nan")
    if prompt == "raise":
        raise RuntimeError("the scorer is broken")
    return 1.0


@reward(auto_register=False, scope="batch", value_range=(-1.0, 1.0))
def faults(samples: list[Sample]) -> list[Any]:
    """Fails in the way that the prompt names, with the blame that it names."""
    found: list[Any] = []
    for sample in samples:
        kind, _, blame = str(sample.prompt_text).partition("/")
        found.append(failure(FailureKind(kind), "it is so", Blame(blame)))
    return found


@reward(auto_register=False, scope="batch")
def seen(samples: list[Sample]) -> list[Score]:
    """What a reward sees of a sample."""
    return [Score(value=1.0, info={}, metrics=_described(sample)) for sample in samples]


def _described(sample: Sample) -> dict[str, float]:
    SEEN.append(sample)
    return {}


SEEN: list[Sample] = []


def inline(**rewards: Any) -> dict[str, Any]:
    once = {"attempts": 1}  # the waits between tries are not what is tested here
    return {name: {"reward": one, "inline": True, "retry": once} for name, one in rewards.items()}


@pytest.fixture
def client(serve: Any, no_bug: Any) -> Any:
    def start(dialect: Any = "unirl", *, path: str = "", user: str = "", **rewards: Any) -> Any:
        settings = {"tokens": {"trainer": "correct-horse"}} if user else {}
        server = serve(inline(**rewards), dialects=[dialect], **settings)
        ready(server)
        return UniRLClient(f"http://{user}127.0.0.1:{server.port}{path}")

    return start


def ready(server: Any) -> None:
    deadline = threading.Event()
    for _ in range(3000):
        if server.get("/readyz").status == 200:
            return
        deadline.wait(0.01)
    raise AssertionError("the server did not get ready")


def test_a_shard_of_images(client: Any) -> None:
    unirl = client(level=level, parts=parts)
    found = unirl.score([[turn("a", png(0))], [turn("b", png(255))]], ["level", "parts"])
    assert [row["level"] for row in found] == [(0.0, None), (1.0, None)]
    assert [row["parts"] for row in found] == [(0.5, None)] * 2


def test_the_value_is_the_first_sub_metric_and_absent_parts_are_left_out(client: Any) -> None:
    unirl = client(parts=parts)
    body = {"requests": [{"history": [turn("a", png())], "required_rewards": ["parts"]}]}
    status, found = unirl.fetch("/score", body)
    assert status == 200
    assert list(found["results"][0]["parts"].items()) == [("parts", 0.5), ("b", 0.25), ("a", 0.75)]
    assert found["errors"] == [{}]


def test_sub_metrics_are_named_in_the_configuration(client: Any) -> None:
    named = {"name": "unirl", "sub_metrics": {"parts": ["overall", "a", "steps"]}}
    unirl = client(named, parts=parts)
    body = {"requests": [{"history": [turn("a", png())], "required_rewards": ["parts"]}]}
    _, found = unirl.fetch("/score", body)
    metrics = found["results"][0]["parts"]
    assert list(metrics.items()) == [("overall", 0.5), ("a", 0.75), ("steps", 3.0)]


def test_a_named_sub_metric_that_is_absent_is_an_error_of_the_sample(client: Any) -> None:
    named = {"name": "unirl", "sub_metrics": {"parts": ["overall", "gone"]}}
    (row,) = client(named, parts=parts).score([[turn("a", png())]], ["parts"])
    assert "no sub-metric 'gone'" in row["parts"].error


@pytest.mark.parametrize(
    ("prompt", "told"),
    [
        ("abstain", "reward 'moody' abstained"),
        ("nan", "non_finite"),
        ("raise", "RuntimeError: the scorer is broken"),
    ],
)
def test_a_failure_is_an_error_of_its_sample_alone(client: Any, prompt: str, told: str) -> None:
    found = client(moody=moody).score([[turn("fine", png())], [turn(prompt, png())]], ["moody"])
    assert found[0]["moody"] == (1.0, None)
    assert told in found[1]["moody"].error


@pytest.mark.parametrize("blame", list(Blame))
def test_no_failure_of_any_kind_is_a_silent_number(client: Any, blame: Blame) -> None:
    unirl = client(faults=faults)
    for kind in FailureKind:
        row = {"history": [turn(f"{kind}/{blame}", png())], "required_rewards": ["faults"]}
        status, found = unirl.fetch("/score", {"requests": [row]})
        assert status == 200
        if blame is Blame.CANDIDATE:  # the worst end of the range, which the reply flags
            assert found["results"] == [{"faults": {"faults": -1.0}}]
            behind = {"outcome": "failure", "kind": str(kind), "blame": "candidate"}
            assert found["assigned"] == [{"faults": {**behind, "message": "it is so"}}]
        else:
            assert found["results"] == [{}]
            assert f"{kind} (blame: {blame}): it is so" in found["errors"][0]["faults"]
            assert "assigned" not in found


def test_a_candidates_failure_can_be_an_error_too(client: Any) -> None:
    strict = {"name": "unirl", "candidate": "fail"}
    (row,) = client(strict, faults=faults).score([[turn("timeout/candidate", png())]], ["faults"])
    assert "timeout (blame: candidate)" in row["faults"].error


def test_assigned_numbers_are_counted(serve: Any, no_bug: Any) -> None:
    server = serve(inline(faults=faults), dialects=[{"name": "unirl", "abstention": -1}])
    unirl = UniRLClient(f"http://127.0.0.1:{server.port}")
    unirl.score([[turn("crashed/candidate", png())]] * 3, ["faults"])
    metrics = server.get("/metrics").body.decode()
    assert 'guerdon_assigned_total{path="/score"} 3.0' in metrics
    assert 'guerdon_requests_total{path="/score",status="200"} 1.0' in metrics
    (line,) = [r for r in no_bug.records if r.name == "guerdon.server.request"]
    assert line.guerdon_fields["assigned"] == 3


def test_rewards_may_differ_by_sample(client: Any) -> None:
    unirl = client(level=level, parts=parts)
    requests = [
        {"history": [turn("a", png(255))], "required_rewards": ["level", "level"]},
        {"history": [turn("b", png())], "required_rewards": []},
        {"history": [turn("c", png())], "required_rewards": ["parts", "level"]},
    ]
    status, found = unirl.fetch("/score", {"requests": requests, "unknown": 1})
    assert status == 200
    assert [sorted(row) for row in found["results"]] == [["level"], [], ["level", "parts"]]
    assert found["results"][0] == {"level": {"level": 1.0}}
    assert unirl.fetch("/score", {"requests": []}) == (200, {"results": [], "errors": []})


IMAGE = png()
HISTORIES: dict[str, tuple[list[dict[str, Any]], Any]] = {
    "an image": ([turn("p", IMAGE)], ("p", None, [IMAGE])),
    "an edited image": (
        [turn("p", png(9)), turn("p", IMAGE)],
        ([("user", "p", True)], None, [IMAGE]),
    ),
    "a conversation about images": (
        [turn("p", png(9)), turn("q", IMAGE)],
        ([("user", "p", True), ("user", "q", False)], None, [IMAGE]),
    ),
    "a response alone": ([turn("r")], (None, "r", [])),
    "prompt and response": ([turn("p"), turn("r")], ("p", "r", [])),
    "a conversation": (
        [turn("p"), turn("a"), turn("q"), turn("r")],
        ([("user", "p", False), ("assistant", "a", False), ("user", "q", False)], "r", []),
    ),
    "text about an image": ([turn("p", IMAGE), turn("r")], ([("user", "p", True)], "r", [])),
}


@pytest.mark.parametrize("case", list(HISTORIES))
def test_what_a_history_means(client: Any, case: str) -> None:
    history, (prompt, response, images) = HISTORIES[case]
    SEEN.clear()
    client(seen=seen).score([history], ["seen"], [{"answer": 7, "data_source": "d", "tag": "t"}])
    (sample,) = SEEN
    found: Any = sample.prompt
    if isinstance(found, tuple):
        found = [(m.role, m.text, _holds_media(m)) for m in sample.prompt or ()]
    assert found == prompt
    assert sample.response == response
    assert [image.data for image in sample.images] == images
    assert sample.ground_truth == 7
    assert sample.data_source == "d"
    assert sample.metadata["tag"] == "t"


def _holds_media(message: Any) -> bool:
    assert isinstance(message, Message)
    return isinstance(message.content, tuple) and any(part.media for part in message.content)


def test_videos_travel_as_bytes_or_as_a_path_below_a_root(serve: Any, tmp_path: Path) -> None:
    @reward(auto_register=False)
    def size(videos: list[Media]) -> float:
        (video,) = videos
        data = video.data if video.data is not None else Path(video.path or "").read_bytes()
        return float(len(data))

    (tmp_path / "v.mp4").write_bytes(b"12345")
    server = serve(inline(size=size), dialects=["unirl"], media_roots=[str(tmp_path)])
    unirl = UniRLClient(f"http://127.0.0.1:{server.port}")
    inside = {"text": "p", "video_path": str(tmp_path / "v.mp4")}
    outside = {"text": "p", "video_path": "/etc/passwd"}
    found = unirl.score([[turn("p", video=b"1234567")], [inside], [outside]], ["size"])
    assert [row["size"].value for row in found[:2]] == [7.0, 5.0]
    assert "files must lie below serve.media_roots" in found[2]["size"].error
    assert "passwd" not in found[2]["size"].error


# What is refused, and how.


def item(**changes: Any) -> dict[str, Any]:
    base = {"history": [turn("a", IMAGE)], "required_rewards": ["level"], "metadata": None}
    return {**base, **changes}


REFUSED: dict[str, tuple[Any, int, str]] = {
    "unknown reward": (item(required_rewards=["lvl"]), 400, "unknown reward: lvl. available: ["),
    "empty history": (item(history=[]), 400, "requests[0]: the history is empty"),
    "broken base64": (item(history=[{"text": "a", "image_b64": "abc"}]), 400, "invalid image_b64"),
    "no base64": (item(history=[{"text": "a", "image_b64": "\u00e9"}]), 400, "invalid image_b64"),
    "data URL": (
        item(history=[{"text": "a", "image_b64": "data:image/png;base64,AAAA"}]),
        400,
        "data: URL",
    ),
    "broken video": (item(history=[{"text": "a", "video_b64": "abc"}]), 400, "invalid video_b64"),
    "two videos": (
        item(history=[{"text": "a", "video_b64": "", "video_path": "x"}]),
        422,
        "exclude each other",
    ),
    "no text": (item(history=[{"image_b64": "AAAA"}]), 422, "text"),
    "text is a number": (item(history=[{"text": 5, "image_b64": "AAAA"}]), 422, "text"),
    "image is a list": (item(history=[{"text": "", "image_b64": []}]), 422, "image_b64"),
    "metadata is a list": (item(metadata=[]), 422, "metadata"),
    "rewards are text": (item(required_rewards="level"), 422, "required_rewards"),
    "reward is a number": (item(required_rewards=[5]), 422, "required_rewards"),
    "not an object": (5, 422, "requests[0]"),
}


def test_requests_that_are_refused(client: Any) -> None:
    unirl = client(level=level)
    for case, (wrong, status, told) in REFUSED.items():
        found = unirl.fetch("/score", {"requests": [wrong]})
        assert found[0] == status, case
        assert told in json.dumps(found[1]), case
        assert set(found[1]) == {"detail"}, case
        assert isinstance(found[1]["detail"], list if status == 422 else str), case


BODIES: dict[str, tuple[bytes, int]] = {
    "nothing": (b"", 422),
    "no JSON": (b"requests", 422),
    "cut short": (b'{"requests": [{"history": [{"text": "a"', 422),
    "a list": (b"[]", 422),
    "null": (b"null", 422),
    "no requests": (b"{}", 422),
    "requests is null": (b'{"requests": null}', 422),
    "NaN": (
        b'{"requests": [{"history": [], "required_rewards": [], "metadata": {"a": NaN}}]}',
        422,
    ),
    "nested": (b'{"requests": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", 422),
    "nested metadata": (
        b'{"requests": [{"history": [], "required_rewards": [], "metadata": {"a": '
        + b"[" * 100_000
        + b"]" * 100_000
        + b"}}]}",
        422,
    ),
    "not UTF-8": (b'{"requests": [{"history": [{"text": "\xff"}]}]}', 422),
}


def test_bodies_that_are_no_requests(serve: Any, no_bug: Any) -> None:
    server = serve(inline(level=level), dialects=["unirl"])
    for case, (body, status) in BODIES.items():
        found = server.post(body, path="/score")
        assert found.status == status, (case, found.body)
        assert isinstance(json.loads(found.body)["detail"], list), case


def test_a_mark_of_guerdons_own_means_nothing_here(client: Any) -> None:
    SEEN.clear()
    marked = {"$guerdon": "struct", "type": "Media", "value": {"kind": "image", "path": "/etc"}}
    client(seen=seen).score([[turn("p", IMAGE)]], ["seen"], [{"m": marked}])
    assert SEEN[0].metadata["m"] == marked


def test_half_a_surrogate_pair_is_text(client: Any) -> None:
    SEEN.clear()
    client(seen=seen).score([[turn("a\ud800b", IMAGE)]], ["seen"])
    assert SEEN[0].prompt == "a\ud800b"


NO_IMAGES = {
    "text": b"no image",
    "nothing": b"",
    "a head alone": png()[:20],
    "a bomb": b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + b"\x7f\xff\xff\xff" * 2 + b"\x08\x02\0\0\0",
}


@pytest.mark.parametrize("case", list(NO_IMAGES))
def test_what_is_no_image_costs_its_sample_alone(client: Any, case: str) -> None:
    found = client(level=level).score(
        [[turn("a", NO_IMAGES[case])], [turn("b", png(255))]], ["level"]
    )
    assert found[1]["level"] == (1.0, None)
    assert "bad_input (blame: data)" in found[0]["level"].error


def test_wrong_methods_and_oversized_bodies(serve: Any, no_bug: Any) -> None:
    server = serve(inline(level=level), dialects=["unirl"], limits={"body_bytes": 1000})
    for method, path, allowed in [
        ("GET", "/score", "POST"),
        ("PUT", "/score", "POST"),
        ("POST", "/health", "GET"),
        ("DELETE", "/rewards", "GET"),
    ]:
        found = server.send(method, path)
        assert found.status == 405
        assert allowed in found.headers["allow"]
    found = server.post(b"{" + b" " * 2000 + b"}", path="/score")
    assert found.status == 413
    assert "serve.limits.body_bytes" in json.loads(found.body)["detail"]


# The pages.


def test_health_and_names(client: Any) -> None:
    unirl = client(parts=parts, level=level)
    assert unirl.roster() == ["parts", "level"]
    assert unirl.fetch("/health")[1] == {
        "status": "ok",
        "rewards": {"parts": ["parts:ready"], "level": ["level:ready"]},
    }
    assert unirl.fetch("/rewards") == (200, {"rewards": ["level", "parts"]})


def test_health_is_answered_while_everything_is_busy(serve: Any, rewards: Any, no_bug: Any) -> None:
    gate = rewards.Gate()
    server = serve({"gate": {"reward": gate.reward(), "inline": True}}, dialects=["unirl"])
    url = f"http://127.0.0.1:{server.port}"
    threads = [
        threading.Thread(
            target=UniRLClient(url).score, args=([[turn("p"), turn("1")]], ["gate"]), daemon=True
        )
        for _ in range(16)
    ]
    for thread in threads:
        thread.start()
    for _ in threads:
        gate.entered.acquire(timeout=30)
    assert UniRLClient(url, timeout=5.0).roster() == ["gate"]  # the client's own five seconds
    gate.opened.set()
    for thread in threads:
        thread.join()


# How it is reached.


def test_a_user_in_the_url_and_a_prefix(client: Any) -> None:
    unirl = client(
        {"name": "unirl", "prefix": "/for/unirl"},
        user="any:correct-horse@",
        path="/for/unirl",
        level=level,
    )
    assert unirl.roster() == ["level"]
    (row,) = unirl.score([[turn("a", png(255))]], ["level"])
    assert row["level"] == (1.0, None)
    unirl.headers["authorization"] = "Basic YW55Ondyb25n"
    assert unirl.fetch("/score", {"requests": []})[0] == 401
    assert unirl.roster() is None


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ("unirls", "did you mean 'unirl'?"),
        ({"prefix": "/a"}, "a dialect is a name, or a mapping with a name"),
        ({"name": "unirl", "prefx": "/a"}, "did you mean 'prefix'?"),
        ({"name": "unirl", "prefix": "a"}, "a path begins with a slash"),
        ({"name": "unirl", "timeout_seconds": 0}, "timeout_seconds must be positive"),
        ({"name": "unirl", "sub_metrics": {"lenght": ["a"]}}, "did you mean 'length'?"),
        ({"name": "unirl", "sub_metrics": {"length": []}}, "at least one"),
        ({"name": "unirl", "candidate": "best"}, "dialects[0].candidate"),
        (5, "a dialect is a name, or a mapping with a name"),
    ],
)
def test_the_configuration_is_checked(entry: Any, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load({"rewards": {"length": "length"}, "dialects": [entry]}, environment={})
    assert told in str(caught.value)


def test_rewards_that_would_train_the_wrong_way_are_named() -> None:
    lower = level.configure(higher_is_better=False, name="lower")
    rewards = {"length": "length", "low": {"reward": lower}}
    (dialect,) = load({"rewards": rewards, "dialects": ["unirl"]}, environment={}).dialects
    assert "lower values of low are better" in dialect.warning
    (quiet,) = load({"rewards": {"a": "length"}, "dialects": ["unirl"]}, environment={}).dialects
    assert not quiet.warning


def test_two_dialects_on_one_path_need_a_prefix() -> None:
    with pytest.raises(ConfigError, match=r"dialects\[1\]: POST /score is spoken by 'unirl'"):
        load({"rewards": {"length": "length"}, "dialects": ["unirl", "unirl"]}, environment={})
    two = ["unirl", {"name": "unirl", "prefix": "/b"}]
    assert (
        len(load({"rewards": {"length": "length"}, "dialects": two}, environment={}).dialects) == 2
    )


def test_a_large_shard_is_read_as_a_small_one(client: Any) -> None:
    """It is decoded sample by sample; what is wrong with one is said with its place."""
    unirl = client(level=level)
    heavy = {"pad": "x" * (2 << 20)}
    found = unirl.score([[turn("a", png(255))], [turn("b", png(0))]], ["level"], [heavy, heavy])
    assert [row["level"].value for row in found] == [1.0, 0.0]
    found = unirl.score([[turn("a\ud800", png(255))]], ["level"], [heavy])
    assert found[0]["level"].value == 1.0
    wrong = [item(metadata=heavy), item(history=[{"text": 5}])]
    status, told = unirl.fetch("/score", {"requests": wrong})
    assert status == 422
    assert "requests[1]" in told["detail"][0]["msg"]


@pytest.mark.parametrize(
    "start", [b'{"requests": [', b"[", b"\x00", b'{"requests": [{"history": "']
)
def test_large_bodies_that_are_no_requests(serve: Any, no_bug: Any, start: bytes) -> None:
    server = serve(inline(level=level), dialects=["unirl"])
    assert server.post(start + start[-1:] * (2 << 20), path="/score").status == 422


def test_a_request_is_scored_whole_or_not_at_all(serve: Any, rewards: Any, no_bug: Any) -> None:
    """The first samples are in a queue already when there is no room for the others."""
    gate, other = rewards.Gate(), rewards.Gate()
    hosted = {
        "gate": {"reward": gate.reward(), "inline": True},
        "full": {"reward": other.reward(), "inline": True, "queue": 1},
    }
    server = serve(hosted, dialects=["unirl"])
    unirl = UniRLClient(f"http://127.0.0.1:{server.port}")
    rows = [
        {"history": [turn("p"), turn("1")], "required_rewards": [name]}
        for name in ("gate", "full", "full")
    ]
    status, told = unirl.fetch("/score", {"requests": rows})
    assert status == 413
    assert "more than the queue of reward 'full' can hold" in told["detail"]
    while server.status()["requests_open"]:
        threading.Event().wait(0.01)
    assert other.calls == 0
    gate.opened.set()


def test_stray_characters_in_base64_are_skipped(client: Any) -> None:
    unirl = client(level=level)
    bright = turn("a", png(255))
    text = bright["image_b64"]
    bright["image_b64"] = f"{text[:10]}\r\n {text[10:]}\n"
    (row,) = unirl.score([[bright]], ["level"])
    assert row["level"] == (1.0, None)
    (row,) = unirl.score([[bright]], ["level"], [{"pad": "x" * (2 << 20)}])
    assert row["level"] == (1.0, None)
