"""UniRL: our backend, with requests of UniRL 0.1.0 and of later versions."""

import asyncio
import math
from pathlib import Path
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.neural

from guerdon.compose import Child, WeightedSum  # noqa: E402
from guerdon.errors import ConfigError, ScoringFailed, Unavailable  # noqa: E402
from guerdon.models.base import ModelReward  # noqa: E402
from guerdon.registry import load_file  # noqa: E402
from guerdon.reward import reward  # noqa: E402
from guerdon.service import RewardService as GuerdonService  # noqa: E402
from guerdon.trainers.unirl import GuerdonBackend, RewardRequest, RewardService  # noqa: E402

PARITY = Path(__file__).with_name("parity")
cases = load_file(str(PARITY / "cases.py"))
types = load_file(str(PARITY / "unirl_types.py"))


# What was generated, and from what.


def test_the_source_image_belongs_to_the_prompt():
    @reward(auto_register=False)
    def edited(images, prompt_messages) -> float:
        (message,) = prompt_messages
        source, text = message.content
        assert text.text == "redder"
        return float(source.media.array.max() < images[0].array.max())

    dark, bright = torch.zeros(2, 3, 8, 8), torch.ones(2, 3, 8, 8)
    req = types.Req({"text": types.Texts(["redder"] * 2), "image": types.Images(dark)})
    track = types.Track(["a", "b"], types.Images(bright))
    scored = RewardService(GuerdonBackend(edited)).score_and_attach(req=req, track=track)
    assert scored.rewards.tolist() == [1.0, 1.0]


@reward(name="brightest", auto_register=False, deadline=20.0)
def brightest(images=(), videos=()) -> float:
    """The largest number of what was generated."""
    (media,) = (*(images or ()), *(videos or ()))
    return float(media.array.max())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("kind", "make"),
    [
        ("image", lambda ones: types.Images(torch.stack(ones))),
        ("image", lambda ones: types.Packed([ones[0], ones[1][:, :4]])),
        ("video", lambda ones: types.Videos([types.Clip(one[None]) for one in ones])),
    ],
)
def test_tensors_go_to_workers(kind, make, dtype, pool):
    """A sync reward with a deadline runs in a worker process, where no tensor can go."""
    made = make([types.picture(0.25).to(dtype), types.picture(0.5).to(dtype)])
    backend = GuerdonBackend(brightest, input_kind=kind, backend=pool)
    found = backend.compute_rewards(RewardRequest(generated={kind: made}))
    assert found.rewards == [0.25, 0.5]


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (
            SimpleNamespace(  # before `conditioning`
                primitives={
                    "text": types.Texts(["red", "blue"]),
                    "image": types.Packed([types.picture(0.0)] * 2),
                },
                generated={"image": types.Packed([types.picture(1.0)] * 2)},
            ),
            {"generation": [13.0, 14.0], "original": [13.0, 14.0]},
        ),
        (
            SimpleNamespace(
                conditioning={
                    "image": types.ImageSets([[types.picture(0.0)], [types.picture(0.0)] * 3])
                },
                generation_prompt=types.Texts(["redder", "bluer"]),
                original_prompt=types.Texts(["red", "blue"]),
                generated={"image": types.Packed([types.picture(1.0)] * 2)},
            ),
            {"generation": [16.0, 35.0], "original": [13.0, 34.0]},
        ),
        (
            SimpleNamespace(
                primitives={"text": types.Texts(["red", "blue"])},
                image_references=[
                    types.Packed([types.picture(0.0)] * 2),
                    types.Packed([types.picture(0.5)] * 2),
                ],
                generated={"image": types.Packed([types.picture(1.0)] * 2)},
            ),
            {"generation": [23.0, 24.0], "original": [23.0, 24.0]},
        ),
    ],
)
def test_requests_of_later_versions(request_, expected):
    for row in getattr(request_, "conditioning", {}).values():
        row.rows = [types.Packed(one) for one in row.rows]
    request_.metadata = request_.sample_ids = request_.group_ids = None
    for source, numbers in expected.items():
        found = GuerdonBackend(types.sources, prompt_source=source).compute_rewards(request_)
        assert found.rewards == numbers


def test_more_generated_than_prompts_is_an_error():
    request = RewardRequest({"text": types.Texts(["p"])}, {"text": types.Texts(["a", "b"])})
    with pytest.raises(ValueError, match="1 prompts for 2 generated samples"):
        GuerdonBackend(types.told, input_kind="text").compute_rewards(request)


def test_a_request_without_what_is_scored():
    request = RewardRequest(generated={"image": types.Images(torch.zeros(1, 3, 4, 4))})
    with pytest.raises(ValueError, match="scores text, and the request has image"):
        GuerdonBackend("gsm8k", input_kind="text").compute_rewards(request)
    assert request.images[0].size == (4, 4)
    assert not request.is_video


def test_what_was_generated_is_of_another_kind():
    request = RewardRequest(generated={"image": types.Texts(["a"])})
    with pytest.raises(ValueError, match="scores image, and text was generated"):
        GuerdonBackend("jpeg_compressibility").compute_rewards(request)


# Failures.


@pytest.mark.parametrize("fault", cases.CANDIDATE_FAULTS)
def test_what_a_candidate_causes_earns_the_worst_end_flagged(fault, pool):
    backend = GuerdonBackend(cases.reference("candidate_faulty"), input_kind="text", backend=pool)
    rows = cases.rows_with(fault)
    request = RewardRequest(
        generated={"text": types.Texts([row.response for row in rows])},
        metadata=[{"fault": row.fault} for row in rows],
    )
    found = backend.compute_rewards(request)
    assert (found.rewards, found.successes) == ([1.0, 0.0, 1.0], [True] * 3)
    name = "candidate_faulty"
    assert found.errors[1].startswith(f"assigned 0.0: {name}: {fault} (candidate)")
    assert found.component_rewards["guerdon_assigned"] == [0.0, 1.0, 0.0]
    assert found.component_rewards["guerdon_failed"] == [0.0, 1.0, 0.0]


def test_required_children_fail_and_optional_ones_leave_a_hole():
    @reward(value_range=(0.0, 1.0), auto_register=False)
    def down(response: str) -> float:
        raise Unavailable("down", retryable=False)

    both = WeightedSum({"signed": Child(types.signed), "down": Child(down, missing="renormalise")})
    request = RewardRequest(generated={"text": types.Texts(["0.5"])})
    found = GuerdonBackend(both, input_kind="text").compute_rewards(request)
    assert found.successes == [True]
    assert math.isnan(found.component_rewards["down"][0])
    strict = WeightedSum({"signed": Child(types.signed), "down": Child(down)})
    found = GuerdonBackend(strict, input_kind="text").compute_rewards(request)
    assert found.successes == [False]
    assert math.isnan(found.rewards[0])


def test_what_a_reward_is_told_of_a_sample():
    @reward(auto_register=False)
    def nosy(videos, ground_truth, data_source, sample_id, group_id) -> float:
        (clip,) = videos
        assert (ground_truth, data_source) == ("4", "sums")
        assert (sample_id, group_id) == ("p/0", "p")
        assert (clip.fps, clip.value_range, clip.layout) == (8.0, "uint8", "TCHW")
        return 1.0

    frames = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    request = RewardRequest(
        generated={"video": types.Videos([types.Clip(frames)])},
        metadata=[{"ground_truth": "4", "data_source": "sums"}],
        sample_ids=["p/0"],
        group_ids=["p"],
    )
    found = GuerdonBackend(nosy, input_kind="video").compute_rewards(request)
    assert (found.rewards, found.errors) == ([1.0], [None])
    assert request.batch_size == 1
    assert RewardRequest(primitives={"text": types.Texts(["a", "b"])}).batch_size == 2
    (given,) = request.videos
    assert given.shape == (3, 2, 8, 8)


def test_a_row_that_makes_no_sample_is_one_failure():
    request = RewardRequest(
        generated={"text": types.Texts(["#### 4", None, "#### 4"])},
        metadata=[{"answer": "4"}, {"answer": "4"}, "4"],
        sample_ids=["a", "b", "c"],
    )
    found = GuerdonBackend("gsm8k", input_kind="text").compute_rewards(request)
    assert found.successes == [True, False, False]
    assert found.rewards[0] == 1.0
    assert "bad_input (data): the reward needs 'response'" in found.errors[1]
    assert "bad_input (data): the metadata is a str, not a mapping" in found.errors[2]


def test_more_than_the_trainers_tensor_holds_stops_the_step():
    request = RewardRequest(generated={"text": types.Texts(["0.5", "1e300"])})
    unbounded = types.signed.configure(value_range=(-math.inf, math.inf))
    with pytest.raises(ScoringFailed, match="more than the trainer's float32 holds"):
        GuerdonBackend(unbounded, input_kind="text").compute_rewards(request)


def test_a_shard_is_waited_for_as_long_as_was_said():
    @reward(auto_register=False)
    async def hangs(response: str) -> float:
        return await asyncio.Event().wait()

    backend = GuerdonBackend(hangs, input_kind="text", timeout=0.01)
    found = backend.compute_rewards(RewardRequest(generated={"text": types.Texts(["x"])}))
    assert found.successes == [False]
    assert found.errors[0].startswith("hangs: timeout (")


def test_too_many_failures_stop_the_run():
    @reward(auto_register=False)
    def broken(response: str) -> float:
        raise ValueError("a bug")

    backend = GuerdonBackend(broken, input_kind="text", neutral=0.0, retry_within=0)
    request = RewardRequest(generated={"text": types.Texts(["x"] * 40)})
    with pytest.raises(ScoringFailed, match="budget"):
        backend.compute_rewards(request)


# Settings and life.


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GuerdonBackend("gsm8k", input_kind="txt"), "did you mean 'text'"),
        (
            lambda: GuerdonBackend("gsm8k", prompt_source="orignal"),
            "did you mean 'original'",
        ),
        (lambda: GuerdonBackend("gsm8k", neutral="0.5"), "neutral is a number, got '0.5'"),
        (lambda: RewardService(None, "zeor"), "did you mean 'zero'"),
        (lambda: RewardService(None, "soft", 0), "above 0"),
        (lambda: RewardService(object()).preferred_input_kind, "preferred_input_kind is ''"),
    ],
)
def test_settings_that_cannot_work(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_settings_as_hydra_gives_them():
    """Nodes of OmegaConf, and the device that every recipe of UniRL names."""
    omegaconf = pytest.importorskip("omegaconf")
    config = omegaconf.OmegaConf.create(
        {
            "reward": f"{PARITY / 'unirl_types.py'}:one_of",
            "options": {"words": ["a", "b"]},
            "backend": {"pool": {"workers": 1}},
            "input_kind": "text",
            "base_device": "cuda",
        }
    )
    backend = GuerdonBackend(**config)
    assert type(backend.service.reward.options["words"]) is list
    request = RewardRequest(generated={"text": types.Texts(["a", "c"])})
    assert backend.compute_rewards(request).rewards == [1.0, 0.0]
    backend.dispose()


@reward(auto_register=False)
def of_the_clip(videos) -> float:
    return 0.0


@reward(auto_register=False)
def of_both(videos, prompt="") -> float:
    return 0.0


@pytest.mark.parametrize(
    ("scored", "kind", "covered"),
    [
        (of_the_clip, "video", False),
        (of_both, "video", True),
        (WeightedSum({"a": Child(of_the_clip), "b": Child(of_the_clip)}), "video", False),
        (WeightedSum({"a": Child(of_the_clip), "b": Child(of_both)}), "video", True),
        ("jpeg_compressibility", "video", False),
        ("jpeg_compressibility", "image", True),
        ("gsm8k", "text", True),
    ],
)
def test_whether_a_reward_of_videos_reads_their_prompt(scored, kind, covered):
    """Later versions ask it of every backend that says so (`PromptVideoReward`)."""
    assert GuerdonBackend(scored, input_kind=kind).covers_prompt_video() is covered


class Moving(ModelReward):
    name = "moving"
    scope = "batch"
    auto_register = False

    def load_model(self, device, dtype):
        return torch.nn.Linear(1, 1, device=device)

    def call(self, *, responses):
        return [0.0] * len(responses)


def test_the_models_are_moved():
    model = Moving(device="cpu")
    backend = GuerdonBackend(WeightedSum({"m": Child(model)}))
    service = RewardService(backend)
    service.onload()
    assert model.residency.state == "device"
    service.offload()
    assert model.residency.state == "host"
    assert service.is_available()
    service.dispose()


def test_a_service_that_was_given_is_not_stopped(monkeypatch):
    with GuerdonService(types.signed) as service:
        monkeypatch.setattr(service, "close", lambda: pytest.fail("it is the user's"))
        backend = GuerdonBackend(service, input_kind="text")
        backend.dispose()
        request = RewardRequest(generated={"text": types.Texts(["0.5"])})
        assert backend.compute_rewards(request).rewards == [0.5]
        with pytest.raises(ConfigError, match="its own policy"):
            GuerdonBackend(service, neutral=0.0)
        monkeypatch.undo()
    closed = []
    own = GuerdonBackend(types.signed, input_kind="text")
    monkeypatch.setattr(own.service, "close", lambda: closed.append(own.service.reward.name))
    own.dispose()
    assert closed == ["signed"]
