"""Both services with our backend: UniRL's own where a checkout is named, else what stands for it.

UniRL is on no package index. With GUERDON_UNIRL_SOURCE, a checkout, the tests of `driven` run its
own service and ours on its own types (`drivers/unirl_contract.py`). `TheirService` stands for what
`unirl/reward/service.py` (0.1.0) makes of a backend's response.
"""

import math
import pickle
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.neural

from guerdon.errors import UnknownReward  # noqa: E402
from guerdon.registry import load_file  # noqa: E402
from guerdon.trainers import unirl as ours  # noqa: E402
from guerdon.trainers.unirl import GuerdonBackend, RewardRequest, RewardService  # noqa: E402
from guerdon.trainers.unirl.remote import remote_reward_service  # noqa: E402

PARITY = Path(__file__).with_name("parity")
interpreter = load_file(str(PARITY / "interpreter.py"))
parity_rewards = load_file(str(PARITY / "rewards.py"))
cases = load_file(str(PARITY / "cases.py"))
types = load_file(str(PARITY / "unirl_types.py"))
NEUTRAL = 0.125
RNG = np.random.default_rng(5)


class TheirService:
    """The steps of UniRL's own service that look at a backend."""

    def __init__(self, backend):
        self.backend = backend
        assert isinstance(backend.get_model_name(), str)

    def score_and_attach(self, *, req, track):
        assert self.backend.preferred_input_kind in ("image", "video", "text")
        told = any(row is not None for row in req.metadata)
        request = RewardRequest(
            primitives=dict(req.primitives),
            generated={self.backend.preferred_input_kind: track.decoded},
            metadata=list(req.metadata) if told else None,
            prompt_ids=list(track.sample_ids),
            sample_ids=list(track.sample_ids),
            group_ids=list(track.group_ids),
        )
        found = self.backend.compute_rewards(request)
        pairs = zip(found.successes, found.errors, strict=True)
        failed = [(i, error) for i, (ok, error) in enumerate(pairs) if not ok]
        if failed:
            raise RuntimeError(f"flagged {len(failed)} of {len(found.successes)}: {failed[:3]}")
        return replace(
            track,
            rewards=torch.tensor(found.rewards, dtype=torch.float32),
            component_rewards={
                name: torch.tensor(list(values), dtype=torch.float32)
                for name, values in found.component_rewards.items()
            },
        )


SERVICES = pytest.mark.parametrize("service", [TheirService, RewardService])


# Values.


@SERVICES
@pytest.mark.parametrize("name", ["rule", "composite"])
def test_text_tracks_get_the_value(service, name):
    reference = "guerdon.rules.gsm8k:gsm8k" if name == "rule" else cases.reference(name)
    req, track = types.parity_track(cases.ROWS)
    scored = service(GuerdonBackend(reference, input_kind="text")).score_and_attach(
        req=req, track=track
    )
    assert scored.rewards.dtype == torch.float32
    assert scored.rewards.tolist() == [cases.REWARDS[name](row) for row in cases.ROWS]
    if name == "composite":
        tidy = [row.response == row.response.strip() for row in cases.ROWS]
        for row, found, expected in zip(
            cases.ROWS, scored.component_rewards["tidy"].tolist(), tidy, strict=True
        ):
            assert math.isnan(found) if row.judge == "down" else found == float(expected)


@SERVICES
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_image_tracks_are_scored_as_the_rule_scores_them(service, dtype):
    from guerdon.media import image
    from guerdon.rules.visual.compression import JpegCompressibility

    pixels = torch.from_numpy(RNG.random((3, 3, 16, 24), dtype=np.float32)).to(dtype)
    expected = [
        JpegCompressibility().call(images=[(image(one, layout="CHW", value_range="0..1"),)])
        for one in pixels
    ]
    track = types.Track(["a", "b", "c"], types.Images(pixels))
    req = types.Req({"text": types.Texts(["p", "q", "r"])})
    scored = service(GuerdonBackend("jpeg_compressibility")).score_and_attach(req=req, track=track)
    numbers = [one[0]["score"] for one in expected]
    assert scored.rewards.tolist() == pytest.approx(numbers, abs=1e-9)


@SERVICES
def test_video_tracks_count_every_frame(service):
    clips = [torch.from_numpy(RNG.random((t, 3, 16, 16), dtype=np.float32)) for t in (2, 3)]
    track = types.Track(["a", "b"], types.Videos([types.Clip(frames) for frames in clips]))
    backend = GuerdonBackend("jpeg_compressibility", input_kind="video")
    scored = service(backend).score_and_attach(
        req=types.Req({"text": types.Texts(["p", "q"])}), track=track
    )
    frames = types.Track([f"f{i}" for i in range(5)], types.Images(torch.cat(clips)))
    single = RewardService(GuerdonBackend("jpeg_compressibility")).score_and_attach(
        req=types.Req(), track=frames
    )
    each = single.rewards.tolist()
    assert scored.rewards.tolist() == pytest.approx([np.mean(each[:2]), np.mean(each[2:])])


# Failures.


@SERVICES
@pytest.mark.parametrize("fault", [*cases.FAULTS, "abstention"])
def test_a_failure_is_never_a_silent_number(service, fault, pool):
    settings = {"input_kind": "text", "backend": pool, "retry_within": 0}
    req, track = types.parity_track(cases.rows_with(fault))
    backend = GuerdonBackend(cases.reference("faulty"), **settings)
    with pytest.raises(RuntimeError) as caught:
        service(backend).score_and_attach(req=req, track=track)
    told = "abstention: not mine"
    if fault != "abstention":
        kind, blame = cases.FAULTS[fault]
        told = f"{kind} ({blame})"
    assert told in str(caught.value)
    assert "1 of 3" in str(caught.value)
    going_on = GuerdonBackend(
        cases.reference("faulty"), neutral=NEUTRAL, failure_share=1.0, **settings
    )
    req, track = types.parity_track(cases.rows_with(fault))
    scored = service(going_on).score_and_attach(req=req, track=track)
    assert scored.rewards.tolist() == [1.0, NEUTRAL, 1.0]
    flags = scored.component_rewards
    assert flags["guerdon_assigned"].tolist() == [0.0, 1.0, 0.0]
    assert flags["guerdon_failed"].tolist() == [0.0, float(fault != "abstention"), 0.0]


# A role of UniRL's workers.


@pytest.fixture
def unirl(monkeypatch):
    """Its modules with `Remote` and `distributed`, as its handle looks at them."""

    class Remote:
        def __init__(self):
            self.device = None

        def setup(self, device):
            self.device = device

    def distributed(*, dispatch_mode):
        def mark(function):
            def marked(*arguments, **keywords):
                return function(*arguments, **keywords)

            marked._distributed_config = {"dispatch_mode": dispatch_mode}
            return marked

        return mark

    names = ("unirl", "unirl.distributed", "unirl.distributed.group")
    for name in (*names, f"{names[-1]}.dispatch", f"{names[-1]}.remote"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    dispatch = sys.modules[f"{names[-1]}.dispatch"]
    dispatch.distributed, dispatch.Dispatch = distributed, SimpleNamespace(DP_SCATTER="scatter")
    sys.modules[f"{names[-1]}.remote"].Remote = Remote
    remote_reward_service.cache_clear()
    yield
    remote_reward_service.cache_clear()


def test_the_service_is_a_role_of_its_workers(unirl):
    role = ours.RemoteRewardService
    assert pickle.loads(pickle.dumps(role)) is role
    marked = [name for name in dir(role) if hasattr(getattr(role, name), "_distributed_config")]
    assert marked == ["score_and_attach"]
    service = role(GuerdonBackend(types.signed, input_kind="text"), truncated_reward="keep")
    service.setup("cuda:0")
    assert (service.device, service.truncated_reward) == ("cuda:0", "keep")
    scored = service.score_and_attach(req=types.Req(), track=types.text_track(["0.5"]))
    assert scored.rewards.tolist() == [0.5]
    service.shutdown()


def test_without_unirl_there_is_no_role(monkeypatch):
    monkeypatch.setitem(sys.modules, "unirl", None)
    remote_reward_service.cache_clear()
    with pytest.raises(UnknownReward, match="unirl"):
        _ = ours.RemoteRewardService
    with pytest.raises(AttributeError, match="RemoteRewardServise"):
        _ = ours.RemoteRewardServise


# UniRL's own code.


@pytest.fixture(scope="module")
def driven(tmp_path_factory):
    return interpreter.drive_checkout(
        "unirl", tmp_path_factory.mktemp("unirl"), modules=("unirl/reward/service.py",)
    )


WHOSE = pytest.mark.parametrize("whose", ["theirs", "ours"])


def test_its_workers_can_dispatch_ours(driven):
    marks = driven["marks"]
    assert marks["same"]
    assert marks["inherited"]
    assert marks["bases"][:3] == ["RemoteRewardService", "RewardService", "Remote"]
    assert marks["attributes"] == ["transport", "cuda:0", "rank"]


@WHOSE
@pytest.mark.parametrize("name", cases.REWARDS)
def test_both_services_give_the_value(driven, whose, name):
    tiny = parity_rewards.tiny_model
    expected = [
        tiny.call_sync(responses=[row.response])[0]
        if name == "tiny_model"
        else cases.REWARDS[name](row)
        for row in cases.ROWS
    ]
    found = driven[whose][name]
    assert found["rewards"] == torch.tensor(expected, dtype=torch.float32).tolist()
    if name == "composite":
        holes = [value is None for value in found["components"]["tidy"]]
        assert holes == [row.judge == "down" for row in cases.ROWS]


@WHOSE
def test_both_services_score_media_and_prompts(driven, whose):
    found = driven[whose]
    first, *rest = found["images"]["rewards"]
    assert found["videos"]["rewards"] == pytest.approx([first, sum(rest) / 3], rel=1e-6)
    for name in ("edited", "edited in a pool"):
        assert found[name]["rewards"] == [4.0, 4.0, 5.0, 5.0]
    assert found["fanned"]["rewards"] == [1.0, 0.0, 1.0, 0.0]
    assert found["their backend"] == {"rewards": [1.0, 2.0], "components": {"twice": [2.0, 4.0]}}


def test_where_the_services_differ(driven):
    theirs, mine = driven["theirs"], driven["ours"]
    for mode in ("keep", "soft"):
        assert theirs[mode] == mine[mode]
    assert theirs["zero"]["rewards"] == [0.5, 0.5, 0.0, 0.0]
    assert mine["zero"]["rewards"] == [0.5, 0.5, 0.0, -0.5]  # no negative reward is raised
    assert math.isnan(theirs["their nan"]["rewards"][1])
    assert mine["their nan"].startswith("RuntimeError: 1 of 2 samples have no reward")
    for found in (theirs, mine):
        assert found["wrong kind"].startswith(("ValueError: ", "InvalidSample: "))


@WHOSE
@pytest.mark.parametrize("fault", [*cases.FAULTS, "abstention"])
def test_both_services_are_stopped_by_a_failure(driven, whose, fault):
    told = "faulty: abstention: not mine"
    if fault != "abstention":
        kind, blame = cases.FAULTS[fault]
        told = f"faulty: {kind} ({blame})"
    raised = driven[whose][f"{fault} raises"]
    assert raised.startswith(("RuntimeError: ", "StepStopped: "))
    assert "1 of 3 sample" in raised
    assert told in raised
    found = driven[whose][f"{fault} neutral"]
    assert found["rewards"] == [1.0, NEUTRAL, 1.0]
    assert found["components"]["guerdon_assigned"] == [0.0, 1.0, 0.0]
    assert found["components"]["guerdon_failed"] == [0.0, float(fault != "abstention"), 0.0]
