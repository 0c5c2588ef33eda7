"""Against the real service: one definition gives one value in process, in a pool, and remotely."""

from __future__ import annotations

import asyncio
import gc
import pickle
import re
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from guerdon import config, registry
from guerdon.backends.pool import PoolBackend
from guerdon.errors import Blame, ConfigError, FailureKind
from guerdon.outcome import Failure, Outcome
from guerdon.policy import Policy
from guerdon.remote import RemoteReward, blocks, shared_array
from guerdon.remote.body import Body
from guerdon.sample import Media, Sample
from guerdon.server import load
from guerdon.server.running import RunningServer
from guerdon.service import RewardService

MASKED = Policy(on={"infrastructure": "mask", "scorer": "mask", "data": "mask"})
TOKEN = "a-token-for-tests"
WAIT_SECONDS = 30.0

REWARDS = """
import numpy as np
from guerdon.errors import BadInput
from guerdon.outcome import Score, Span
from guerdon.reward import reward


@reward(name="e2e_number", value_range=(0.0, 10.0), candidate_fault=("timeout",))
def number(response, *, scale: float = 1.0):
    if response == "abstain":
        return None
    if response == "raise":
        raise ValueError("broken")
    if response == "data":
        raise BadInput("no gold")
    return Score(value=float(response) * scale, metrics={"half": float(response) / 2},
                 spans=(Span("char", 0, 1, 0.5),), info={"raw": response})


@reward(name="e2e_rank", scope="group", value_range=(0.0, 1.0))
def rank(responses):
    order = sorted(responses)
    return [order.index(response) / max(len(order) - 1, 1) for response in responses]


@reward(name="e2e_level", value_range=(-5.0, 5.0), higher_is_better=False)
def level(response, level: int = 0):
    return float(level)


@reward(name="e2e_pixels", value_range=(0.0, 255.0))
def pixels(images):
    image = images[0]
    return {"score": float(image.array.mean()), "layout": image.layout,
            "range": image.value_range, "dtype": str(image.array.dtype)}


@reward(name="e2e_context", value_range=(0.0, 1e9))
def context(response, step=None, split="train", run_id=None, bonus=0.0):
    return {"score": float(step or 0) + bonus, "split": split, "run": run_id or ""}
"""
PANEL = {
    "weighted_sum": {
        "exact": {"reward": "gsm8k", "weight": 0.7},
        "short": {"reward": {"name": "length", "limit": 40}, "weight": 0.3, "missing": "abstain"},
    }
}


@pytest.fixture(scope="module")
def rewards(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    path = tmp_path_factory.mktemp("rewards") / "e2e_rewards.py"
    path.write_text(REWARDS)
    return registry.load_file(str(path))


@pytest.fixture(scope="module")
def hosted(rewards: ModuleType) -> dict[str, Any]:
    made = {name: getattr(rewards, name) for name in ("number", "rank", "level", "pixels")}
    return {
        **{name: {"reward": reward, "inline": True} for name, reward in made.items()},
        "context": {"reward": rewards.context, "inline": True},
        "gsm8k": {"reward": "gsm8k", "inline": True},
        "worker": {"reward": "gsm8k"},
        "panel": {"reward": registry_panel(rewards), "inline": True},
    }


def registry_panel(rewards: ModuleType) -> Any:
    from guerdon.compose import Child, WeightedSum

    return WeightedSum(
        {
            "number": Child(rewards.number, weight=0.5, missing="renormalise"),
            "rank": Child(rewards.rank, weight=0.5, missing="renormalise"),
        },
        name="panel",
    )


@pytest.fixture(scope="module")
def server(hosted: dict[str, Any]) -> Iterator[RunningServer]:
    settings = {"port": 0, "tokens": {"tests": TOKEN}, "log": "failures"}
    running = RunningServer(load({"rewards": hosted, "serve": settings}, environment={}))
    with running:
        yield running


def remote(server: RunningServer, name: str, **options: Any) -> RemoteReward:
    return RemoteReward(server.url, name, **{"token": TOKEN, **options})


def score(reward: Any, samples: list[Sample], **arguments: Any) -> list[Outcome]:
    backend = arguments.pop("backend", None)
    with RewardService(reward, policy=MASKED, backend=backend) as service:
        return list(service.score_sync(samples, **arguments))


def compared(outcomes: list[Outcome]) -> list[Outcome]:
    """Everything but how long it took."""
    return [
        replace(
            outcome,
            elapsed=0.0,
            absent={name: compared([missing])[0] for name, missing in outcome.absent.items()},
        )
        for outcome in outcomes
    ]


ANSWERS = ["1", "2.5", "abstain", "raise", "data", "nan", "99", "7", "7", "0"]


def numbers() -> list[Sample]:
    return [
        Sample(response=text, sample_id=f"s{i}", group_id=f"g{i % 3}")
        for i, text in enumerate(ANSWERS)
    ]


@pytest.mark.parametrize("name", ["number", "rank"])
def test_inline_pool_and_remote_agree(server: Any, rewards: ModuleType, name: str) -> None:
    reward = getattr(rewards, name)
    inline = compared(score(reward, numbers()))
    pool = PoolBackend(workers=1)
    pooled = compared(score(reward, numbers(), backend=pool))
    pool.close()
    remotely = compared(score(remote(server, name), numbers()))
    assert inline == pooled == remotely
    assert {type(o) for o in inline} >= {type(remotely[0])}


def test_compositions_agree(server: Any, rewards: ModuleType) -> None:
    inline = compared(score(registry_panel(rewards), numbers()))
    remotely = compared(score(remote(server, "panel"), numbers()))
    assert inline == remotely
    assert any(o.components for o in remotely if not isinstance(o, Failure))


def test_a_composition_of_remote_rewards_is_the_composition(
    server: Any, rewards: ModuleType
) -> None:
    from guerdon.compose import WeightedSum

    here = WeightedSum({"number": rewards.number, "level": rewards.level}, higher_is_better=False)
    there = WeightedSum(
        {"number": remote(server, "number"), "level": remote(server, "level")},
        higher_is_better=False,
    )
    assert here.value_range == there.value_range
    samples = [Sample(response=str(i), sample_id=str(i), metadata={"level": i}) for i in range(4)]
    one, other = compared(score(here, samples)), compared(score(there, samples))
    assert [o.value for o in one] == [o.value for o in other]
    assert [o.components for o in one] == [o.components for o in other]


def test_real_rollouts_agree(server: Any, shared_data: Path) -> None:
    import json

    lines = (shared_data / "gsm8k_rollouts.jsonl").read_text().splitlines()
    samples = [
        Sample(
            prompt=row["prompt"],
            response=row["response"],
            ground_truth=row["ground_truth"],
            sample_id=row["sample_id"],
            group_id=row["group_id"],
        )
        for row in map(json.loads, lines)
    ]
    inline = compared(score(registry.resolve("gsm8k"), samples))
    assert inline == compared(score(remote(server, "gsm8k"), samples))
    assert inline == compared(score(remote(server, "worker", batch_size=100), samples))


def test_the_fingerprint_is_that_of_the_reward(server: Any, rewards: ModuleType) -> None:
    plain = remote(server, "number")
    assert plain.fingerprint == rewards.number.fingerprint
    assert plain.value_range == (0.0, 10.0)
    bound = remote(server, "number", options={"scale": 2.0})
    assert bound.fingerprint not in ("", plain.fingerprint)
    (outcome,) = score(bound, [Sample(response="3")])
    assert outcome.value == 6.0
    assert outcome.fingerprint == rewards.number.bind(scale=2.0).fingerprint
    assert remote(server, "level").higher_is_better is False
    assert remote(server, "rank").scope == "group"


def test_the_call_travels(server: Any) -> None:
    (outcome,) = score(
        remote(server, "context"),
        [Sample(response="x")],
        step=41,
        split="validation",
        run_id="r9",
        bonus=1.0,
    )
    assert (outcome.value, outcome.info) == (42.0, {"split": "validation", "run": "r9"})
    with RewardService(remote(server, "context"), policy={"validation": MASKED}) as service:
        (outcome,) = service.score_sync([Sample(response="x")], split="validation")
        assert outcome.info["split"] == "validation"


def test_groups_that_come_in_pieces(server: Any) -> None:
    """Each member by a call of its own, as some trainers score: the server assembles them."""
    reward = remote(server, "rank", group_size=4, connections=1, window=0.0)
    samples = [Sample(response=str(i), sample_id=f"m{i}", group_id="g") for i in range(4)]

    async def run() -> list[float]:
        with RewardService(reward, policy=MASKED) as service:
            scored = [service.score([s], step=1, run_id="r") for s in samples]
            return [outcomes.values[0] for outcomes in await asyncio.gather(*scored)]

    assert asyncio.run(run()) == [0.0, 1 / 3, 2 / 3, 1.0]


def test_a_group_that_stays_incomplete(server: Any) -> None:
    reward = remote(server, "rank", group_size=4, group_timeout=0.05, retry={"attempts": 1})
    samples = [Sample(response=str(i), sample_id=f"m{i}", group_id="h") for i in range(3)]
    outcomes = score(reward, samples, step=1, run_id="r")
    assert {(o.kind, o.blame) for o in outcomes} == {
        (FailureKind.UNAVAILABLE, Blame.INFRASTRUCTURE)
    }


def image_samples(count: int = 6) -> list[Sample]:
    random = np.random.default_rng(0)
    hwc = [random.integers(0, 255, (64, 48, 3)).astype(np.uint8) for _ in range(count)]
    chw = [random.random((3, 33, 17)).astype(np.float32) for _ in range(count)]
    return [
        Sample(
            sample_id=str(i),
            images=(Media(kind="image", array=a, layout=layout, value_range=spread),),
        )
        for i, (a, layout, spread) in enumerate(
            [(a, "HWC", "uint8") for a in hwc]
            + [(a, "CHW", "0..1") for a in chw]
            + [(hwc[0][:, ::2], "HWC", "uint8"), (hwc[0][:, ::-1], "HWC", "uint8")]
        )
    ]


@pytest.mark.parametrize("sharing", ["off", "on", "auto"])
def test_arrays_arrive_bit_by_bit(server: Any, rewards: ModuleType, sharing: Any) -> None:
    samples = image_samples()
    inline = compared(score(rewards.pixels, samples))
    reward = remote(server, "pixels", shared_memory=sharing)
    for _ in range(3):  # blocks and buffers are used again
        assert compared(score(reward, samples)) == inline


def test_arrays_made_in_shared_memory(server: Any, rewards: ModuleType) -> None:
    pictures = shared_array((4, 40, 30, 3))
    pictures[:] = np.random.default_rng(2).integers(0, 255, pictures.shape)
    samples = [
        Sample(images=(Media(kind="image", array=p, layout="HWC", value_range="uint8"),))
        for p in pictures
    ]
    inline = compared(score(rewards.pixels, samples))
    for sharing in ("on", "off"):
        found = compared(score(remote(server, "pixels", shared_memory=sharing), samples))
        assert found == inline


def test_an_encrypted_connection_is_not_gone_round(
    server: Any, rewards: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large bodies go to the socket itself, but not below TLS: then the connection writes them."""

    async def none(writer: Any) -> None:
        return None

    from guerdon.remote import transport

    monkeypatch.setattr(transport, "_direct_socket", none)
    big = np.random.default_rng(1).integers(0, 255, (700, 900, 3)).astype(np.uint8)
    media = Media(kind="image", array=big, layout="HWC", value_range="uint8")
    samples = [Sample(images=(media,), sample_id=str(n)) for n in range(3)]
    found = score(remote(server, "pixels", shared_memory="off"), samples)
    assert compared(found) == compared(score(rewards.pixels, samples))


def test_a_refusal_while_a_large_body_is_on_its_way(server: Any) -> None:
    big = Media(
        kind="image", array=np.zeros((4000, 4000, 3), np.uint8), layout="HWC", value_range="uint8"
    )
    reward = remote(server, "pixels", shared_memory="off", options={"unknown": 1})
    with RewardService(reward, policy=MASKED) as service:
        for _ in range(3):
            (lost,) = service.score_sync([Sample(images=(big,))])
            assert isinstance(lost, Failure)
            assert lost.kind in (FailureKind.BAD_INPUT, FailureKind.UNAVAILABLE)


def test_shared_memory_is_used_again_and_removed(
    server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[blocks.Block] = []
    removed = threading.Event()

    class Watched(blocks.Block):
        def __init__(self, directory: str, size: int) -> None:
            super().__init__(directory, size)
            made.append(self)

        def remove(self) -> None:
            super().remove()
            removed.set()

    monkeypatch.setattr(blocks, "Block", Watched)
    with RewardService(remote(server, "pixels", shared_memory="on"), policy=MASKED) as service:
        for _ in range(4):
            assert service.score_sync(image_samples()).mask.all()
        assert len(made) == 1
        assert not removed.is_set()
    assert removed.wait(WAIT_SECONDS)


@pytest.mark.parametrize("sealed", [True, False])
def test_a_server_that_cannot_open_what_is_shared(
    server: Any, rewards: ModuleType, monkeypatch: pytest.MonkeyPatch, sealed: bool
) -> None:
    """It may be in a sandbox that the handshake did not show: the connection takes over."""
    from guerdon.server.shared import SharedFiles

    def hidden(self: SharedFiles, *_: object) -> int:
        raise PermissionError(13, "Permission denied")

    asked: list[bool] = []
    real = Body.__init__

    def spy(self: Body, request: Any, media: Any) -> None:
        asked.append(bool(media.block))
        real(self, request, media)

    monkeypatch.setattr(SharedFiles, "_open_sealed" if sealed else "_open_plain", hidden)
    monkeypatch.setattr(Body, "__init__", spy)
    if not sealed:
        monkeypatch.setattr(blocks, "SEALED_PATH", re.compile("nothing"))
    reward = remote(server, "pixels", shared_memory="auto")
    inline = compared(score(rewards.pixels, image_samples()))
    with RewardService(reward, policy=MASKED) as service:
        for _ in range(2):
            assert compared(service.score_sync(image_samples())) == inline
    assert asked == [True, False, False]
    (lost, *_) = score(remote(server, "pixels", shared_memory="on"), image_samples())
    assert isinstance(lost, Failure)
    assert "shared" in lost.message


def test_full_memory_falls_back_to_the_connection(
    server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(blocks.os, "posix_fallocate", full)
    outcomes = score(remote(server, "pixels", shared_memory="on"), image_samples())
    assert not any(isinstance(o, Failure) for o in outcomes)


def test_from_any_thread_and_any_loop(server: Any) -> None:
    reward = remote(server, "number")
    sample = Sample(response="3")

    assert reward.call_sync(response="3").value == 3.0
    assert asyncio.run(reward(response="3")).value == 3.0
    assert asyncio.run(reward(response="3")).value == 3.0, "the first loop is closed"

    async def inside() -> float:
        return reward.call_sync(response="3").value  # from sync code below a running loop

    assert asyncio.run(inside()) == 3.0
    with RewardService(reward, policy=MASKED) as service:
        found: list[float] = []
        threads = [
            threading.Thread(
                target=lambda: found.append(float(service.score_sync([sample]).values[0]))
            )
            for _ in range(16)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [3.0] * 16
    copy = pickle.loads(pickle.dumps(reward))
    assert copy.call_sync(response="3").value == 3.0


def test_nothing_is_kept_of_loops_that_have_ended(server: Any) -> None:
    reward = remote(server, "number")
    clients: list[weakref.ref[Any]] = []

    async def ask() -> None:
        assert (await reward(response="3")).value == 3.0
        clients.append(weakref.ref(reward._client()))

    for _ in range(3):
        asyncio.run(ask())
    gc.collect()
    assert [client() for client in clients] == [None, None, None]


def test_a_loop_that_is_closed_over_a_client_leaves_no_error(
    server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a trainer does that closes its loop without cancelling what runs there."""
    reward = remote(server, "number")
    unraisable: list[Any] = []
    loop = asyncio.new_event_loop()
    assert loop.run_until_complete(reward(response="3")).value == 3.0
    loop.run_until_complete(asyncio.sleep(0))  # the keeper waits by now
    loop.close()
    monkeypatch.setattr("sys.unraisablehook", lambda seen: unraisable.append(seen.exc_value))
    del loop, reward
    gc.collect()
    errors = [one for one in unraisable if not isinstance(one, ResourceWarning)]
    assert errors == []


def test_the_token_may_stand_in_the_url_and_is_never_shown(server: Any) -> None:
    url = server.url.replace("http://", f"http://:{TOKEN}@")
    reward = RemoteReward(url, "number")
    assert reward.call_sync(response="2").value == 2.0
    assert TOKEN not in repr(reward)
    assert TOKEN not in repr(reward.settings)
    with pytest.raises(ConfigError, match="401"):
        RemoteReward(server.url, "number")
    declared = RemoteReward(server.url, "number", value_range=(0, 10), token="wrong-token")
    (lost,) = score(declared, [Sample(response="2")])
    assert isinstance(lost, Failure)
    assert (lost.kind, lost.retryable) == (FailureKind.UNAVAILABLE, False)


MISMATCHES = {
    "value_range": {"value_range": (0.0, 1.0)},
    "higher_is_better": {"higher_is_better": False},
    "whole_groups": {"whole_groups": True},
    "fingerprint": {"fingerprint": "0" * 16},
}


@pytest.mark.parametrize("what", MISMATCHES)
def test_a_service_that_hosts_something_else_is_an_error(server: Any, what: str) -> None:
    declared = {"value_range": (0.0, 10.0), **MISMATCHES[what]}
    (lost,) = score(remote(server, "number", **declared), [Sample(response="2")])
    assert isinstance(lost, Failure)
    assert (lost.kind, lost.blame) == (FailureKind.UNAVAILABLE, Blame.INFRASTRUCTURE)
    assert what in lost.message
    if what != "value_range":
        with pytest.raises(ConfigError, match=what):
            remote(server, "number", **MISMATCHES[what])


def test_what_cannot_work_says_so(server: Any) -> None:
    with pytest.raises(ConfigError, match=r"no reward 'numbr' \(did you mean 'number'\?\)"):
        remote(server, "numbr")
    with pytest.raises(ConfigError, match="several rewards, name one"):
        RemoteReward(server.url, token=TOKEN)
    with pytest.raises(ConfigError, match="Start the service first"):
        RemoteReward("http://127.0.0.1:9", "number")
    for url in ("127.0.0.1:8300", "ftp://a", "http://", "http://a:port", "http://a/?key=x"):
        with pytest.raises(ConfigError):
            RemoteReward(url, "number", value_range=(0, 1))
    for options in ({"batch_size": 0}, {"window": -1}, {"shared_memory": "maybe"}):
        with pytest.raises(ConfigError):
            RemoteReward("http://a", "number", value_range=(0, 1), **options)
    with pytest.raises(ConfigError, match="retry has no 'tries'"):
        RemoteReward("http://a", "number", value_range=(0, 1), retry={"tries": 2})


def test_metadata_that_cannot_travel_is_named(server: Any) -> None:
    client = object()
    samples = [
        Sample(response="1", sample_id="a", metadata={"level": 1, "client": client}),
        Sample(response="1", sample_id="b", metadata={"level": client}),
        Sample(response="1", sample_id="c", metadata={"level": 2}),
    ]
    fine, lost, last = score(remote(server, "level"), samples)
    assert (fine.value, last.value) == (1.0, 2.0), "nothing there reads 'client'"
    assert isinstance(lost, Failure)
    assert (lost.kind, lost.blame) == (FailureKind.BAD_INPUT, Blame.DATA)
    assert "metadata['level']" in lost.message
    assert "object" in lost.message


@pytest.mark.parametrize("form", ["_target_", "name"])
def test_one_line_of_configuration(server: Any, form: str) -> None:
    url = server.url.replace("http://", f"http://:{TOKEN}@")
    head = {"_target_": "guerdon.remote.RemoteReward"}
    if form == "name":
        registry.register("remote", RemoteReward)
        head = {"name": "remote"}
    made = config.load({"reward": {**head, "url": url, "reward": "number"}})
    assert made.reward.value_range == (0.0, 10.0)
    (outcome,) = score(made.reward, [Sample(response="4")])
    assert outcome.value == 4.0
