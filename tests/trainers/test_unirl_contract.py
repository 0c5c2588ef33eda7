"""UniRL's backends and its service: its own where a checkout is named, else classes written here.

UniRL is on no package index. With GUERDON_UNIRL_SOURCE, a checkout, the tests of `driven` run its
own service and ours on its own types (`drivers/unirl_contract.py`). `Texts`, `Images`, `Videos`,
`Req` and `Track` below stand for its types, and `TheirService` for what `unirl/reward/service.py`
(0.1.0) makes of a backend's response; `Packed`, `Turn`, `Part` and `Whole` for later versions.
"""

import math
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.neural

from guerdon.compose import Child, WeightedSum  # noqa: E402
from guerdon.errors import (  # noqa: E402
    ConfigError,
    ScoringFailed,
    Unavailable,
    UnknownReward,
)
from guerdon.models.base import ModelReward  # noqa: E402
from guerdon.registry import load_file  # noqa: E402
from guerdon.reward import reward  # noqa: E402
from guerdon.trainers import unirl as ours  # noqa: E402
from guerdon.trainers.unirl import (  # noqa: E402
    GuerdonBackend,
    RewardRequest,
    RewardResponse,
    RewardService,
    StepStopped,
)
from guerdon.trainers.unirl.remote import remote_reward_service  # noqa: E402

interpreter = load_file(str(Path(__file__).with_name("parity") / "interpreter.py"))
parity_rewards = load_file(str(Path(__file__).with_name("parity") / "rewards.py"))
cases = load_file(str(Path(__file__).with_name("parity") / "cases.py"))
NEUTRAL = 0.125
RNG = np.random.default_rng(5)


@dataclass
class Texts:
    texts: list

    def __len__(self):
        return len(self.texts)

    def repeat_interleave(self, times):
        return Texts([text for text in self.texts for _ in range(times)])


@dataclass
class Images:
    pixels: torch.Tensor

    def __len__(self):
        return len(self.pixels)

    def repeat_interleave(self, times):
        return Images(self.pixels.repeat_interleave(times, 0))


@dataclass
class Clip:
    frames: torch.Tensor
    fps: float = 8.0


@dataclass
class Videos:
    clips: list

    def __len__(self):
        return len(self.clips)

    def to_list(self):
        return self.clips


@dataclass
class Sampling:
    samples_per_prompt: int = 1
    max_new_tokens: int = 10


@dataclass
class Req:
    primitives: dict = field(default_factory=dict)
    metadata: list = field(default_factory=list)
    sampling_params: dict = field(default_factory=dict)


@dataclass
class Segment:
    lengths: torch.Tensor


@dataclass
class Track:
    sample_ids: list
    decoded: object
    parent_ids: list | None = None
    segment: object = None
    rewards: object = None
    component_rewards: object = None

    @property
    def group_ids(self):
        return list(self.parent_ids or self.sample_ids)


class TheirService:
    """The steps of UniRL's own service that look at a backend."""

    def __init__(self, backend):
        self.backend = backend

    def score_and_attach(self, *, req, track):
        assert self.backend.preferred_input_kind in ("image", "video", "text")
        metadata = list(req.metadata) or [None] * len(track.sample_ids)
        request = RewardRequest(
            primitives=req.primitives,
            generated={self.backend.preferred_input_kind: track.decoded},
            metadata=metadata,
            sample_ids=track.sample_ids,
            group_ids=track.group_ids,
        )
        found = self.backend.compute_rewards(request)
        pairs = zip(found.successes, found.errors, strict=True)
        failed = [(i, error) for i, (ok, error) in enumerate(pairs) if not ok]
        if failed:
            raise RuntimeError(f"flagged {len(failed)} of {len(found.successes)}: {failed[:3]}")
        track.rewards = torch.tensor(found.rewards, dtype=torch.float32)
        track.component_rewards = {
            name: torch.tensor(list(values)) for name, values in found.component_rewards.items()
        }
        return track


SERVICES = pytest.mark.parametrize("service", [TheirService, RewardService])


def text_track(texts, **more):
    return Track([f"s{i}" for i in range(len(texts))], Texts(list(texts)), **more)


def parity_track(rows):
    track = text_track([row.response for row in rows], parent_ids=[row.prompt for row in rows])
    metadata = [
        {
            "answer": row.ground_truth,
            "data_source": row.data_source,
            "judge": row.judge,
            "fault": row.fault,
        }
        for row in rows
    ]
    return Req({"text": Texts([row.prompt for row in rows])}, metadata), track


# Values.


@SERVICES
@pytest.mark.parametrize("name", ["rule", "composite"])
def test_text_tracks_get_the_value(service, name):
    reference = "guerdon.rules.gsm8k:gsm8k" if name == "rule" else cases.reference(name)
    req, track = parity_track(cases.ROWS)
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
    track = Track(["a", "b", "c"], Images(pixels))
    req = Req({"text": Texts(["p", "q", "r"])})
    scored = service(GuerdonBackend("jpeg_compressibility")).score_and_attach(req=req, track=track)
    numbers = [one[0]["score"] for one in expected]
    assert scored.rewards.tolist() == pytest.approx(numbers, abs=1e-9)


@SERVICES
def test_video_tracks_count_every_frame(service):
    clips = [torch.from_numpy(RNG.random((t, 3, 16, 16), dtype=np.float32)) for t in (2, 3)]
    track = Track(["a", "b"], Videos([Clip(frames) for frames in clips]))
    backend = GuerdonBackend("jpeg_compressibility", input_kind="video")
    scored = service(backend).score_and_attach(req=Req({"text": Texts(["p", "q"])}), track=track)
    frames = Track([f"f{i}" for i in range(5)], Images(torch.cat(clips)))
    single = RewardService(GuerdonBackend("jpeg_compressibility")).score_and_attach(
        req=Req(), track=frames
    )
    each = single.rewards.tolist()
    assert scored.rewards.tolist() == pytest.approx([np.mean(each[:2]), np.mean(each[2:])])


def test_the_source_image_belongs_to_the_prompt():
    @reward(auto_register=False)
    def edited(images, prompt_messages) -> float:
        (message,) = prompt_messages
        source, text = message.content
        assert text.text == "redder"
        return float(source.media.array.max() < images[0].array.max())

    dark, bright = torch.zeros(2, 3, 8, 8), torch.ones(2, 3, 8, 8)
    req = Req({"text": Texts(["redder"] * 2), "image": Images(dark)})
    track = Track(["a", "b"], Images(bright))
    scored = RewardService(GuerdonBackend(edited)).score_and_attach(req=req, track=track)
    assert scored.rewards.tolist() == [1.0, 1.0]


def test_the_input_stays_as_it_is():
    req, track = parity_track(cases.ROWS)
    backend = GuerdonBackend(cases.reference("composite"), input_kind="text")
    scored = RewardService(backend).score_and_attach(req=req, track=track)
    assert track.rewards is None
    assert track.component_rewards is None
    assert scored is not track
    with pytest.raises(RuntimeError, match="rewards already"):
        RewardService(backend).score_and_attach(req=req, track=scored)


# N prompts of M samples.


@reward(name="told", auto_register=False)
def told(response: str, prompt: str, metadata: dict) -> float:
    """Prompt, response and metadata as digits."""
    return float(f"{prompt}{response}{metadata['n']}")


FANNED = text_track(["1", "2", "3", "4"], parent_ids=["p", "p", "q", "q"])


@pytest.mark.parametrize(
    ("sampling", "metadata"),
    [
        ({"ar": Sampling(2)}, [{"n": 7}, {"n": 8}]),
        ({"diffusion": Sampling(2)}, [{"n": 7}, {"n": 8}]),
        ({"ar": Sampling(2), "diffusion": Sampling(1)}, [{"n": 7}, {"n": 7}, {"n": 8}, {"n": 8}]),
    ],
)
def test_prompts_and_metadata_are_repeated_for_their_samples(sampling, metadata):
    req = Req({"text": Texts(["5", "6"])}, metadata, sampling)
    service = RewardService(GuerdonBackend(told, input_kind="text"), "keep")
    scored = service.score_and_attach(req=req, track=FANNED)
    assert scored.rewards.tolist() == [517.0, 527.0, 638.0, 648.0]


def test_metadata_of_prompts_is_found_by_the_group():
    """Prompts were repeated already; the metadata was not, and the groups are mixed."""
    track = text_track(["1", "2", "3", "4"], parent_ids=["p", "q", "p", "q"])
    req = Req({"text": Texts(["5", "6", "5", "6"])}, [{"n": 7}, {"n": 8}])
    service = RewardService(GuerdonBackend(told, input_kind="text"))
    scored = service.score_and_attach(req=req, track=track)
    assert scored.rewards.tolist() == [517.0, 628.0, 537.0, 648.0]


@pytest.mark.parametrize(
    ("req", "message"),
    [
        (Req({"text": Texts(["5", "6", "7"])}, [], {"ar": Sampling(2)}), "3 prompts and a track"),
        (Req({"text": Texts(["5", "6"])}, [], {"ar": Sampling(4)}), "makes 4 of each prompt"),
        (Req({"text": Texts(["5", "6"])}, [], {}), "makes 1 of each prompt"),
    ],
)
def test_a_request_that_does_not_fit_the_track(req, message):
    service = RewardService(GuerdonBackend(told, input_kind="text"))
    with pytest.raises(RuntimeError, match=message):
        service.score_and_attach(req=req, track=FANNED)


def test_metadata_that_belongs_to_nothing():
    service = RewardService(GuerdonBackend(told, input_kind="text"))
    req = Req({"text": Texts(["5", "6"])}, [{"n": 7}] * 3, {"ar": Sampling(2)})
    with pytest.raises(ValueError, match="3 metadata entries for 4 samples of 2 prompts"):
        service.score_and_attach(req=req, track=FANNED)


def test_a_track_that_is_not_decoded():
    service = RewardService(GuerdonBackend(told, input_kind="text"))
    with pytest.raises(ValueError, match="nothing decoded"):
        service.score_and_attach(req=Req(), track=Track(["a"], None))


def test_more_generated_than_prompts_is_an_error():
    request = RewardRequest({"text": Texts(["p"])}, {"text": Texts(["a", "b"])})
    with pytest.raises(ValueError, match="1 prompts for 2 generated samples"):
        GuerdonBackend(told, input_kind="text").compute_rewards(request)


# Truncation.


@reward(name="signed", value_range=(-1.0, 1.0), auto_register=False)
def signed(response: str) -> float:
    """The response, as a number."""
    return float(response)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("keep", [0.5, 0.5, 0.5, -0.5]),
        ("zero", [0.5, 0.5, 0.0, -0.5]),  # UniRL raises the last one to 0
        ("soft", [0.5, 0.0, -0.5, -1.5]),
    ],
)
def test_texts_that_ran_out_of_tokens(mode, expected):
    lengths = torch.tensor([6, 8, 10, 10])
    track = text_track(["0.5", "0.5", "0.5", "-0.5"], segment=Segment(lengths))
    service = RewardService(GuerdonBackend(signed, input_kind="text"), mode, overlong_buffer_len=4)
    scored = service.score_and_attach(req=Req({}, [], {"ar": Sampling()}), track=track)
    assert scored.rewards.tolist() == expected
    without = service.score_and_attach(req=Req(), track=text_track(["0.5"]))
    assert without.rewards.tolist() == [0.5]  # no sampling of text: nothing was cut


def test_lengths_of_another_track_are_an_error():
    track = text_track(["0.5"], segment=Segment(torch.tensor([1, 2])))
    service = RewardService(GuerdonBackend(signed, input_kind="text"))
    with pytest.raises(ValueError, match="2 lengths for 1 rewards"):
        service.score_and_attach(req=Req({}, [], {"ar": Sampling()}), track=track)


# Failures.


@SERVICES
@pytest.mark.parametrize("fault", [*cases.FAULTS, "abstention"])
def test_a_failure_is_never_a_silent_number(service, fault, pool):
    settings = {"input_kind": "text", "backend": pool, "retry_within": 0}
    req, track = parity_track(cases.rows_with(fault))
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
    req, track = parity_track(cases.rows_with(fault))
    scored = service(going_on).score_and_attach(req=req, track=track)
    assert scored.rewards.tolist() == [1.0, NEUTRAL, 1.0]
    flags = scored.component_rewards
    assert flags["guerdon_assigned"].tolist() == [0.0, 1.0, 0.0]
    assert flags["guerdon_failed"].tolist() == [0.0, float(fault != "abstention"), 0.0]


@pytest.mark.parametrize("fault", cases.CANDIDATE_FAULTS)
def test_what_a_candidate_causes_earns_the_worst_end_flagged(fault, pool):
    backend = GuerdonBackend(cases.reference("candidate_faulty"), input_kind="text", backend=pool)
    rows = cases.rows_with(fault)
    request = RewardRequest(
        generated={"text": Texts([row.response for row in rows])},
        metadata=[{"fault": row.fault} for row in rows],
    )
    found = backend.compute_rewards(request)
    assert (found.rewards, found.successes) == ([1.0, 0.0, 1.0], [True] * 3)
    name = "candidate_faulty"
    assert found.errors[1].startswith(f"assigned 0.0: {name}: {fault} (candidate)")
    assert found.component_rewards["guerdon_assigned"] == [0.0, 1.0, 0.0]
    assert found.component_rewards["guerdon_failed"] == [0.0, 1.0, 0.0]


class Foreign:
    """A backend of UniRL that says what the test says."""

    preferred_input_kind = "text"

    def __init__(self, response):
        self.response = response

    def compute_rewards(self, request):
        assert isinstance(request, RewardRequest)
        assert request.texts == ["a", "b"]
        assert request.batch_size == 2
        return self.response


@pytest.mark.parametrize(
    ("response", "message"),
    [
        (RewardResponse([1.0, math.nan], {}, [True] * 2, [None] * 2), "the backend gave nan"),
        (RewardResponse([1.0, math.inf], {}, [True] * 2, [None] * 2), "the backend gave inf"),
        (RewardResponse([1.0, 1e300], {}, [True] * 2, [None] * 2), "the backend gave 1e"),
        (RewardResponse([1.0, None], {}, [True] * 2, [None] * 2), "the backend gave None"),
        (RewardResponse([1.0], {}, [True], [None]), "gave 1 rewards for 2 samples"),
        (RewardResponse([1.0, 0.0], {"a": [1.0]}, [True] * 2, [None] * 2), "gave 1 a for 2"),
        (RewardResponse([1.0, 0.0], {}, [True, False], [None, "down"]), r"\(1, 'down'\)"),
    ],
)
def test_what_unirl_lets_through_stops_here(response, message):
    with pytest.raises(RuntimeError, match=message):
        RewardService(Foreign(response)).score_and_attach(req=Req(), track=text_track("ab"))


def test_a_backend_of_unirl_is_served():
    response = RewardResponse([1.0, 0.0], {"x": [0.5, 0.25]}, [True] * 2, [None] * 2)
    scored = RewardService(Foreign(response)).score_and_attach(req=Req(), track=text_track("ab"))
    assert scored.rewards.tolist() == [1.0, 0.0]
    assert scored.component_rewards["x"].tolist() == [0.5, 0.25]


def test_required_children_fail_and_optional_ones_leave_a_hole():
    @reward(value_range=(0.0, 1.0), auto_register=False)
    def down(response: str) -> float:
        raise Unavailable("down", retryable=False)

    both = WeightedSum({"signed": Child(signed), "down": Child(down, missing="renormalise")})
    request = RewardRequest(generated={"text": Texts(["0.5"])})
    found = GuerdonBackend(both, input_kind="text").compute_rewards(request)
    assert found.successes == [True]
    assert math.isnan(found.component_rewards["down"][0])
    strict = WeightedSum({"signed": Child(signed), "down": Child(down)})
    found = GuerdonBackend(strict, input_kind="text").compute_rewards(request)
    assert found.successes == [False]
    assert math.isnan(found.rewards[0])


def test_too_many_failures_stop_the_run():
    @reward(auto_register=False)
    def broken(response: str) -> float:
        raise ValueError("a bug")

    backend = GuerdonBackend(broken, input_kind="text", neutral=0.0, retry_within=0)
    request = RewardRequest(generated={"text": Texts(["x"] * 40)})
    with pytest.raises(ScoringFailed, match="budget"):
        backend.compute_rewards(request)


# Life.


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


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GuerdonBackend("gsm8k", input_kind="txt"), "did you mean 'text'"),
        (
            lambda: GuerdonBackend("gsm8k", prompt_source="orignal"),
            "did you mean 'original'",
        ),
        (lambda: RewardService(None, "zeor"), "did you mean 'zero'"),
        (lambda: RewardService(None, "soft", 0), "above 0"),
        (lambda: RewardService(object()).preferred_input_kind, "preferred_input_kind is ''"),
    ],
)
def test_settings_that_cannot_work(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_a_request_without_what_is_scored():
    request = RewardRequest(generated={"image": Images(torch.zeros(1, 3, 4, 4))})
    with pytest.raises(ValueError, match="scores text, and the request has image"):
        GuerdonBackend("gsm8k", input_kind="text").compute_rewards(request)
    assert request.images[0].size == (4, 4)
    assert not request.is_video


def test_what_was_generated_is_of_another_kind():
    request = RewardRequest(generated={"image": Texts(["a"])})
    with pytest.raises(ValueError, match="scores image, and text was generated"):
        GuerdonBackend("jpeg_compressibility").compute_rewards(request)


# Tensors, and what later versions of UniRL hand over.


@dataclass
class Packed:
    """Images of any sizes, one after another."""

    items: list
    packed_pixels: object = None

    def __len__(self):
        return len(self.items)

    def to_list(self):
        return [SimpleNamespace(pixels=one) for one in self.items]


@dataclass
class ImageSets:
    rows: list

    def __len__(self):
        return len(self.rows)


def picture(value, *size):
    return torch.full((3, *(size or (8, 8))), value)


@reward(name="brightest", auto_register=False, deadline=20.0)
def brightest(images=(), videos=()) -> float:
    """The largest number of what was generated."""
    (media,) = (*(images or ()), *(videos or ()))
    return float(media.array.max())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("kind", "make"),
    [
        ("image", lambda ones: Images(torch.stack(ones))),
        ("image", lambda ones: Packed([ones[0], ones[1][:, :4]])),
        ("video", lambda ones: Videos([Clip(one[None]) for one in ones])),
    ],
)
def test_tensors_go_to_workers(kind, make, dtype, pool):
    """A sync reward with a deadline runs in a worker process, where no tensor can go."""
    made = make([picture(0.25).to(dtype), picture(0.5).to(dtype)])
    backend = GuerdonBackend(brightest, input_kind=kind, backend=pool)
    found = backend.compute_rewards(RewardRequest(generated={kind: made}))
    assert found.rewards == [0.25, 0.5]


@reward(name="sources", auto_register=False)
def sources(images, prompt, prompt_messages) -> float:
    """Images before the text of the prompt, and the length of the text."""
    (message,) = prompt_messages
    pictures = [part.media for part in message.content if part.media is not None]
    assert message.content[-1].text == prompt
    return 10.0 * len(pictures) + len(prompt)


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (
            SimpleNamespace(  # before `conditioning`
                primitives={"text": Texts(["red", "blue"]), "image": Packed([picture(0.0)] * 2)},
                generated={"image": Packed([picture(1.0)] * 2)},
            ),
            {"generation": [13.0, 14.0], "original": [13.0, 14.0]},
        ),
        (
            SimpleNamespace(
                conditioning={"image": ImageSets([[picture(0.0)], [picture(0.0)] * 3])},
                generation_prompt=Texts(["redder", "bluer"]),
                original_prompt=Texts(["red", "blue"]),
                generated={"image": Packed([picture(1.0)] * 2)},
            ),
            {"generation": [16.0, 35.0], "original": [13.0, 34.0]},
        ),
        (
            SimpleNamespace(
                primitives={"text": Texts(["red", "blue"])},
                image_references=[Packed([picture(0.0)] * 2), Packed([picture(0.5)] * 2)],
                generated={"image": Packed([picture(1.0)] * 2)},
            ),
            {"generation": [23.0, 24.0], "original": [23.0, 24.0]},
        ),
    ],
)
def test_requests_of_later_versions(request_, expected):
    for row in getattr(request_, "conditioning", {}).values():
        row.rows = [Packed(one) for one in row.rows]
    request_.metadata = request_.sample_ids = request_.group_ids = None
    for source, numbers in expected.items():
        found = GuerdonBackend(sources, prompt_source=source).compute_rewards(request_)
        assert found.rewards == numbers


@dataclass
class Turn:
    role: str
    content: object


@dataclass
class Part:
    sample_ids: list
    primitives: dict
    sampling_params: object = None
    segment: object = None
    rewards: object = None
    component_rewards: object = None
    primitive_metadata: dict = field(default_factory=dict)

    @property
    def group_ids(self):
        return [name.rpartition("/")[0] for name in self.sample_ids]


@dataclass
class Whole:
    """A `Sample` of later versions: what the model was told, and at last what it made."""

    told: list
    parts: list
    metadata: list

    def turns(self):
        return self.told

    def root_metadata(self, index):
        assert index == -1
        return self.metadata

    def with_parts(self, parts):
        return Whole(self.told, parts, self.metadata)


def whole(made, kind="text", told=(), metadata=(), **more):
    ids = [f"p/{i}" for i in range(len(made))]
    part = Part(ids, {kind: made}, **more)
    return Whole(list(told), [part], list(metadata) or [None] * len(made))


def test_the_last_part_of_a_sample_is_scored():
    told_ = [Turn("user", Texts(["5", "6"])), Turn("assistant", Texts(["7", "8"]))]
    sample = whole(Texts(["1", "2"]), told=told_, metadata=[{"n": 3}, {"n": 4}])
    by_source = {"generation": [713.0, 824.0], "original": [513.0, 624.0]}
    for source, numbers in by_source.items():
        backend = GuerdonBackend(told, input_kind="text", prompt_source=source)
        scored = RewardService(backend).score_and_attach(sample)
        assert scored.parts[-1].rewards.tolist() == numbers
    assert sample.parts[-1].rewards is None
    with pytest.raises(RuntimeError, match="rewards already"):
        RewardService(backend).score_and_attach(scored)
    with pytest.raises(ValueError, match="scores image, and the last part has"):
        RewardService(GuerdonBackend("jpeg_compressibility")).score_and_attach(sample)


def test_images_of_a_sample_have_their_sources():
    told_ = [Turn("user", Texts(["red"])), Turn("user", Packed([picture(0.0)]))]
    sample = whole(Packed([picture(1.0)]), "image", told_)
    scored = RewardService(GuerdonBackend(sources)).score_and_attach(sample)
    assert scored.parts[-1].rewards.tolist() == [13.0]


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        (Sampling(), [0.5, 0.0]),
        (SimpleNamespace(max_new_tokens=10, emits_fixed_length=True), [0.5, 0.5]),
        (SimpleNamespace(num_inference_steps=10), [0.5, 0.5]),
        (None, [0.5, 0.5]),
    ],
)
def test_a_part_that_ran_out_of_tokens(params, expected):
    segment = Segment(torch.tensor([6, 10]))
    sample = whole(Texts(["0.5", "0.5"]), sampling_params=params, segment=segment)
    scored = RewardService(GuerdonBackend(signed, input_kind="text")).score_and_attach(sample)
    assert scored.parts[-1].rewards.tolist() == expected


def test_pictures_made_of_tokens_keep_their_reward():
    """They have the length that they must have; UniRL 0.1.0 makes 0 of all of them."""
    segment = Segment(torch.tensor([10]))
    track = Track(["a"], Images(torch.zeros(1, 3, 8, 8)), segment=segment)
    service = RewardService(GuerdonBackend("jpeg_compressibility"), "soft", 1)
    scored = service.score_and_attach(req=Req({}, [], {"ar": Sampling()}), track=track)
    assert scored.rewards.tolist() == pytest.approx([-0.001262], abs=1e-6)


def test_what_stops_a_step_can_be_caught_both_ways_and_pickled():
    backend = GuerdonBackend(signed, input_kind="text")
    with pytest.raises(StepStopped) as caught:
        RewardService(backend).score_and_attach(req=Req(), track=text_track(["0.5", "x"]))
    assert {RuntimeError, ScoringFailed} <= set(type(caught.value).__mro__)
    assert [type(one).__name__ for one in caught.value.outcomes] == ["Score", "Failure"]
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value)
    assert '(1, "signed: raised (scorer): ValueError' in str(again)


@pytest.mark.parametrize("name", ["composite", "tiny_model"])
def test_an_empty_shard(name):
    service = RewardService(GuerdonBackend(cases.reference(name), input_kind="text"))
    scored = service.score_and_attach(req=Req({"text": Texts([])}), track=text_track([]))
    assert scored.rewards.shape == (0,)
    assert {column.shape for column in scored.component_rewards.values()} == {(0,)}


def test_shards_are_scored_from_several_threads():
    """UniRL's driver scores finished rollouts in a pool of threads (`reward/async_dispatch.py`)."""
    service = RewardService(GuerdonBackend(signed, input_kind="text"))

    def score(i):
        texts = Texts([str(i / 64), str(-i / 64)])
        return service.score_and_attach(whole(texts)).parts[-1].rewards.tolist()

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(score, range(64)))
    assert found == [[i / 64, -i / 64] for i in range(64)]
    service.dispose()


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
    service = role(GuerdonBackend(signed, input_kind="text"), truncated_reward="keep")
    service.setup("cuda:0")
    assert (service.device, service.truncated_reward) == ("cuda:0", "keep")
    scored = service.score_and_attach(req=Req(), track=text_track(["0.5"]))
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
