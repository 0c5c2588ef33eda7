"""UniRL: our service, with backends of UniRL and ours."""

import math
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.neural

from guerdon.errors import ScoringFailed  # noqa: E402
from guerdon.registry import load_file  # noqa: E402
from guerdon.trainers.unirl import (  # noqa: E402
    GuerdonBackend,
    RewardRequest,
    RewardResponse,
    RewardService,
    StepStopped,
)

PARITY = Path(__file__).with_name("parity")
cases = load_file(str(PARITY / "cases.py"))
types = load_file(str(PARITY / "unirl_types.py"))


def test_the_input_stays_as_it_is():
    req, track = types.parity_track(cases.ROWS)
    backend = GuerdonBackend(cases.reference("composite"), input_kind="text")
    scored = RewardService(backend).score_and_attach(req=req, track=track)
    assert track.rewards is None
    assert track.component_rewards is None
    assert scored is not track
    with pytest.raises(RuntimeError, match="rewards already"):
        RewardService(backend).score_and_attach(req=req, track=scored)


# N prompts of M samples.


FANNED = types.text_track(["1", "2", "3", "4"], parent_ids=["p", "p", "q", "q"])


@pytest.mark.parametrize(
    ("sampling", "metadata"),
    [
        ({"ar": types.Sampling(2)}, [{"n": 7}, {"n": 8}]),
        ({"diffusion": types.Sampling(2)}, [{"n": 7}, {"n": 8}]),
        (
            {"ar": types.Sampling(2), "diffusion": types.Sampling(1)},
            [{"n": 7}, {"n": 7}, {"n": 8}, {"n": 8}],
        ),
    ],
)
def test_prompts_and_metadata_are_repeated_for_their_samples(sampling, metadata):
    req = types.Req({"text": types.Texts(["5", "6"])}, metadata, sampling)
    service = RewardService(GuerdonBackend(types.told, input_kind="text"), "keep")
    scored = service.score_and_attach(req=req, track=FANNED)
    assert scored.rewards.tolist() == [517.0, 527.0, 638.0, 648.0]


def test_n_rewrites_of_m_pictures_each_have_the_metadata_of_their_prompt():
    """The groups are the rewrites: metadata of prompts cannot be found by them."""
    parents = [f"{prompt}/{rewrite}" for prompt in "pq" for rewrite in "01" for _ in range(2)]
    track = types.text_track(list("12345678"), parent_ids=parents)
    sampling = {"ar": types.Sampling(2), "diffusion": types.Sampling(2)}
    req = types.Req({"text": types.Texts(["5", "6"])}, [{"n": 7}, {"n": 8}], sampling)
    service = RewardService(GuerdonBackend(types.told, input_kind="text"), "keep")
    scored = service.score_and_attach(req=req, track=track)
    expected = [517.0, 527.0, 537.0, 547.0, 658.0, 668.0, 678.0, 688.0]
    assert scored.rewards.tolist() == expected


def test_metadata_of_prompts_is_found_by_the_group():
    """Prompts were repeated already; the metadata was not, and the groups are mixed."""
    track = types.text_track(["1", "2", "3", "4"], parent_ids=["q", "p", "q", "p"])
    req = types.Req({"text": types.Texts(["5", "6", "5", "6"])}, [{"n": 7}, {"n": 8}])
    service = RewardService(GuerdonBackend(types.told, input_kind="text"))
    scored = service.score_and_attach(req=req, track=track)
    assert scored.rewards.tolist() == [517.0, 628.0, 537.0, 648.0]


@pytest.mark.parametrize(
    ("req", "message"),
    [
        (
            types.Req({"text": types.Texts(["5", "6", "7"])}, [], {"ar": types.Sampling(2)}),
            "3 prompts and a track",
        ),
        (
            types.Req({"text": types.Texts(["5", "6"])}, [], {"ar": types.Sampling(4)}),
            "makes 4 of each prompt",
        ),
        (types.Req({"text": types.Texts(["5", "6"])}, [], {}), "makes 1 of each prompt"),
    ],
)
def test_a_request_that_does_not_fit_the_track(req, message):
    service = RewardService(GuerdonBackend(types.told, input_kind="text"))
    with pytest.raises(RuntimeError, match=message):
        service.score_and_attach(req=req, track=FANNED)


def test_metadata_that_belongs_to_nothing():
    service = RewardService(GuerdonBackend(types.told, input_kind="text"))
    req = types.Req({"text": types.Texts(["5", "6"])}, [{"n": 7}] * 3, {"ar": types.Sampling(2)})
    with pytest.raises(ValueError, match="3 metadata entries for 4 samples of 2 prompts"):
        service.score_and_attach(req=req, track=FANNED)


def test_a_track_that_is_not_decoded():
    service = RewardService(GuerdonBackend(types.told, input_kind="text"))
    with pytest.raises(ValueError, match="nothing decoded"):
        service.score_and_attach(req=types.Req(), track=types.Track(["a"], None))


# Truncation.


@pytest.mark.parametrize(
    ("mode", "factor", "expected"),
    [
        ("keep", 1.0, [0.5, 0.5, 0.5, -0.5]),
        ("zero", 1.0, [0.5, 0.5, 0.0, -0.5]),  # UniRL raises the last one to 0
        ("soft", 1.0, [0.5, 0.0, -0.5, -1.5]),
        ("soft", 2.0, [0.5, -0.5, -1.5, -2.5]),
    ],
)
def test_texts_that_ran_out_of_tokens(mode, factor, expected):
    lengths = torch.tensor([2, 8, 10, 10])
    track = types.text_track(["0.5", "0.5", "0.5", "-0.5"], segment=types.Segment(lengths))
    backend = GuerdonBackend(types.signed, input_kind="text")
    service = RewardService(backend, mode, overlong_buffer_len=4, overlong_penalty_factor=factor)
    scored = service.score_and_attach(req=types.Req({}, [], {"ar": types.Sampling()}), track=track)
    assert scored.rewards.tolist() == expected
    without = service.score_and_attach(req=types.Req(), track=types.text_track(["0.5"]))
    assert without.rewards.tolist() == [0.5]  # no sampling of text: nothing was cut


def test_lengths_of_another_track_are_an_error():
    track = types.text_track(["0.5"], segment=types.Segment(torch.tensor([1, 2])))
    service = RewardService(GuerdonBackend(types.signed, input_kind="text"))
    with pytest.raises(ValueError, match="2 lengths for 1 rewards"):
        service.score_and_attach(req=types.Req({}, [], {"ar": types.Sampling()}), track=track)


def test_pictures_made_of_tokens_keep_their_reward():
    """They have the length that they must have; UniRL 0.1.0 makes 0 of all of them."""
    segment = types.Segment(torch.tensor([10]))
    track = types.Track(["a"], types.Images(torch.zeros(1, 3, 8, 8)), segment=segment)
    service = RewardService(GuerdonBackend("jpeg_compressibility"), "soft", 1)
    scored = service.score_and_attach(req=types.Req({}, [], {"ar": types.Sampling()}), track=track)
    assert scored.rewards.tolist() == pytest.approx([-0.001262], abs=1e-6)


# Backends of UniRL.


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
        (RewardResponse([1.0, 0.0], {}, [True] * 2, ["down"]), "gave 1 errors for 2"),
        (RewardResponse([1.0, 0.0], {"a": [1.0]}, [True] * 2, [None] * 2), "gave 1 a for 2"),
        (RewardResponse([1.0, 0.0], {}, [True, False], [None, "down"]), r"\(1, 'down'\)"),
    ],
)
def test_what_unirl_lets_through_stops_here(response, message):
    with pytest.raises(RuntimeError, match=message):
        RewardService(Foreign(response)).score_and_attach(
            req=types.Req(), track=types.text_track("ab")
        )


@pytest.mark.parametrize(
    "make", [list, np.float32, torch.tensor, lambda ones: list(np.float32(ones))]
)
def test_a_backend_of_unirl_is_served(make):
    """As lists, as its types say, and as what its own service takes, too."""
    response = RewardResponse(make([1.0, 0.0]), {"x": make([0.5, 0.25])}, [True] * 2, [])
    scored = RewardService(Foreign(response)).score_and_attach(
        req=types.Req(), track=types.text_track("ab")
    )
    assert scored.rewards.tolist() == [1.0, 0.0]
    assert scored.component_rewards["x"].tolist() == [0.5, 0.25]


# The last part of a `Sample`.


def test_the_last_part_of_a_sample_is_scored():
    told_ = [
        types.Turn("user", types.Texts(["5", "6"])),
        types.Turn("assistant", types.Texts(["7", "8"])),
    ]
    sample = types.whole(types.Texts(["1", "2"]), told=told_, metadata=[{"n": 3}, {"n": 4}])
    by_source = {"generation": [713.0, 824.0], "original": [513.0, 624.0]}
    for source, numbers in by_source.items():
        backend = GuerdonBackend(types.told, input_kind="text", prompt_source=source)
        scored = RewardService(backend).score_and_attach(sample)
        assert scored.parts[-1].rewards.tolist() == numbers
    assert sample.parts[-1].rewards is None
    with pytest.raises(RuntimeError, match="rewards already"):
        RewardService(backend).score_and_attach(scored)
    with pytest.raises(ValueError, match="scores image, and the last part has"):
        RewardService(GuerdonBackend("jpeg_compressibility")).score_and_attach(sample)


def test_images_of_a_sample_have_their_sources():
    told_ = [
        types.Turn("user", types.Texts(["red"])),
        types.Turn("user", types.Packed([types.picture(0.0)])),
    ]
    sample = types.whole(types.Packed([types.picture(1.0)]), "image", told_)
    scored = RewardService(GuerdonBackend(types.sources)).score_and_attach(sample)
    assert scored.parts[-1].rewards.tolist() == [13.0]


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        (types.Sampling(), [0.5, 0.0]),
        (SimpleNamespace(max_new_tokens=10, emits_fixed_length=True), [0.5, 0.5]),
        (SimpleNamespace(num_inference_steps=10), [0.5, 0.5]),
        (None, [0.5, 0.5]),
    ],
)
def test_a_part_that_ran_out_of_tokens(params, expected):
    segment = types.Segment(torch.tensor([6, 10]))
    sample = types.whole(types.Texts(["0.5", "0.5"]), sampling_params=params, segment=segment)
    scored = RewardService(GuerdonBackend(types.signed, input_kind="text")).score_and_attach(sample)
    assert scored.parts[-1].rewards.tolist() == expected


class Listening(GuerdonBackend):
    """Keeps the request."""

    def compute_rewards(self, request):
        self.request = request
        return super().compute_rewards(request)


def test_what_a_backend_of_unirl_is_told():
    """By the names of UniRL's own requests, sounds included."""
    sound = SimpleNamespace(waveform=torch.zeros(2, 8))
    sounds = SimpleNamespace(to_list=lambda: [sound])
    backend = Listening(types.signed, input_kind="text")
    track = types.text_track(["0.5"], parent_ids=["p"])
    track.decoded_audio, track.audio_sample_rate = sounds, 16000
    RewardService(backend).score_and_attach(req=types.Req(metadata=[None]), track=track)
    of_track = backend.request
    sample = types.whole(
        types.Texts(["0.5"]),
        told=[
            types.Turn("user", types.Texts(["draw"])),
            types.Turn("assistant", types.Packed([types.picture(0.0)])),
        ],
        primitive_metadata={"audio": {"sample_rate": 16000}},
    )
    sample.parts[-1].primitives["audio"] = sounds
    RewardService(backend).score_and_attach(sample)
    of_sample = backend.request
    for request in (of_track, of_sample):
        assert request.metadata is None
        assert request.texts == ["0.5"]
        assert request.audio == [sound.waveform]
        assert request.audio_sample_rate == 16000
        assert request.has_audio
        assert not request.is_video
        assert request.sample_ids == request.prompt_ids
    assert (of_track.sample_ids, of_track.group_ids) == (["s0"], ["p"])
    assert (of_sample.sample_ids, of_sample.group_ids) == (["p/0"], ["p"])
    assert of_sample.image_references == []  # the model's own picture is no reference
    assert list(of_sample.conditioning) == ["image"]
    assert of_sample.prompts == ["draw"]


# Steps.


def test_what_stops_a_step_can_be_caught_both_ways_and_pickled():
    backend = GuerdonBackend(types.signed, input_kind="text")
    with pytest.raises(StepStopped) as caught:
        RewardService(backend).score_and_attach(
            req=types.Req(), track=types.text_track(["0.5", "x"])
        )
    assert {RuntimeError, ScoringFailed} <= set(type(caught.value).__mro__)
    assert [type(one).__name__ for one in caught.value.outcomes] == ["Score", "Failure"]
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value)
    assert '(1, "signed: raised (scorer): ValueError' in str(again)


@pytest.mark.parametrize("name", ["composite", "tiny_model"])
def test_an_empty_shard(name):
    service = RewardService(GuerdonBackend(cases.reference(name), input_kind="text"))
    scored = service.score_and_attach(
        req=types.Req({"text": types.Texts([])}), track=types.text_track([])
    )
    assert scored.rewards.shape == (0,)
    assert {column.shape for column in scored.component_rewards.values()} == {(0,)}


def test_shards_are_scored_from_several_threads():
    """UniRL's driver scores finished rollouts in a pool of threads (`reward/async_dispatch.py`)."""
    service = RewardService(GuerdonBackend(types.signed, input_kind="text"))

    def score(i):
        texts = types.Texts([str(i / 64), str(-i / 64)])
        return service.score_and_attach(types.whole(texts)).parts[-1].rewards.tolist()

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(score, range(64)))
    assert found == [[i / 64, -i / 64] for i in range(64)]
    service.dispose()
