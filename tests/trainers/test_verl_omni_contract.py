"""VeRL-Omni's call convention: its own managers where a checkout is named, else one written here.

VeRL-Omni is on no package index and imports its whole stack. With GUERDON_VERL_OMNI_SOURCE, a
checkout, and GUERDON_VERL_PYTHON the tests of `driven` run its own managers on verl
(`drivers/verl_omni_contract.py`). `Manager` below stands for
`verl_omni/reward_loop/reward_manager/visual.py` (0.2.0rc1): what it passes, what it awaits, and
what it makes of the result.
"""

import asyncio
import inspect
import io
import math
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("PIL")
from PIL import Image

from guerdon import registry
from guerdon.errors import (
    ConfigError,
    InvalidReward,
    NameCollision,
    RewardFailure,
    ScoringFailed,
    Unavailable,
    UnknownReward,
)
from guerdon.media import frames_of, pixels_of
from guerdon.registry import load_file
from guerdon.reward import reward
from guerdon.trainers import verl_omni as ours
from guerdon.trainers.verl import POOL_WORKERS
from guerdon.trainers.verl_omni import dispatcher
from guerdon.trainers.verl_omni import jpeg_compressibility as jpeg

PARITY = Path(__file__).with_name("parity")
cases = load_file(str(PARITY / "cases.py"))
interpreter = load_file(str(PARITY / "interpreter.py"))
faulty_picture = load_file(str(PARITY / "pictures.py")).faulty_picture
FAULTS = [*cases.FAULTS, "abstention"]
NEUTRAL = 0.125
RNG = np.random.default_rng(3)
PICTURE = RNG.integers(0, 256, (3, 24, 32), dtype=np.uint8)


def reference(pixels):
    """Upstream's formula for one picture (H, W, C): minus kilobytes over 500."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="JPEG", quality=95)
    return -(file.tell() / 1000) / 500


def of_chw(array):
    return reference(np.ascontiguousarray(array.transpose(1, 2, 0)))


class Manager:
    """What the real manager does with a configured function."""

    def __init__(self, compute_score):
        self.compute_score = compute_score
        self.is_async = inspect.iscoroutinefunction(compute_score)

    async def run_single(self, row, **router):
        extra_info = row.setdefault("extra_info", {})
        extra_info["num_turns"] = None
        extra_info["rollout_reward_scores"] = {}
        arguments = {
            "data_source": row["data_source"],
            "solution_image": row["responses"],
            "ground_truth": row["ground_truth"],
            "extra_info": extra_info,
            **router,
        }
        if self.is_async:
            result = await self.compute_score(**arguments)
        else:
            loop = asyncio.get_running_loop()
            result = await loop.run_in_executor(None, lambda: self.compute_score(**arguments))
        if isinstance(result, dict):
            rest = {key: value for key, value in result.items() if key != "score"}
            return {"reward_score": result["score"], "reward_extra_info": rest}
        return {"reward_score": result, "reward_extra_info": {"acc": result}}


@pytest.fixture(autouse=True)
def _closed():
    yield
    ours.close()


@pytest.fixture
def tensor():
    torch = pytest.importorskip("torch")
    return lambda array: torch.from_numpy(np.ascontiguousarray(array))


def row(responses, **fields):
    return {"data_source": "jpeg_compressibility", "ground_truth": "a wall", **fields} | {
        "responses": responses
    }


# The solution: dtype says the range, the contract says the layout.


@pytest.mark.neural
@pytest.mark.parametrize("frames", [1, 2, 3, 5])
@pytest.mark.parametrize("kind", ["uint8", "float32", "bfloat16"])
def test_every_frame_of_a_tensor_counts(tensor, frames, kind):
    import torch

    video = RNG.integers(0, 256, (frames, 3, 24, 32), dtype=np.uint8)
    given = tensor(video)
    if kind != "uint8":
        given = given.float() / 255
    if kind == "bfloat16":  # 8 bits of a mantissa hold fewer than 256 steps
        given = (torch.round(given * 4) / 4).bfloat16()
        video = np.rint(given.float().numpy() * 255).astype(np.uint8)
    expected = np.mean([of_chw(frame) for frame in video])
    assert jpeg.compute_score(given) == pytest.approx(expected, abs=1e-12)
    assert ours.default_compute_score_image(
        "jpeg_compressibility", given, None, None
    ) == pytest.approx(expected, abs=1e-12)


@pytest.mark.neural
@pytest.mark.parametrize(
    ("shape", "found"),
    [
        ((3, 24, 32), "CHW"),
        ((3, 3, 24, 32), "TCHW"),  # upstream builds one picture of channel 0 of the frames
        ((8, 3, 24, 32), "TCHW"),
        ((3, 8, 24, 32), "CTHW"),
        ((8, 24, 32, 3), "THWC"),
        ((24, 32, 3), "HWC"),
        ((1, 24, 32), "CHW"),
        ((4, 24, 32), "CHW"),
    ],
)
def test_layouts_of_tensors(tensor, shape, found):
    assert ours.media_of(tensor(np.zeros(shape, np.uint8))).layout == found


def test_arrays_that_could_be_read_in_two_ways_are_refused():
    with pytest.raises(ValueError, match="say layout="):
        ours.media_of(np.zeros((3, 8, 3), np.uint8))
    assert ours.media_of(np.zeros((3, 8, 3), np.uint8), "HWC").layout == "HWC"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros((2, 3, 4, 8, 8), np.uint8), "score one sample at a time"),
        (np.full((8, 8, 3), 300.0), "pixels from 300"),
        (np.full((8, 8, 3), np.nan), "NaN"),
        (np.zeros((8, 8, 5), np.uint8), "none of CHW, HWC"),
        (np.zeros((8, 8, 3), np.int64), "say nothing of their range"),
        (b"no picture", "image"),
        (None, "holds no image"),
        ("x", "image"),
    ],
)
async def test_what_is_no_picture_fails_as_data(given, message):
    score = ours.compute_score_for("jpeg_compressibility")
    with pytest.raises(ScoringFailed) as caught:
        await Manager(score).run_single(row(given))
    assert "bad_input (data)" in str(caught.value)
    assert message in str(caught.value)
    going_on = ours.compute_score_for(
        "jpeg_compressibility", neutral=-1.0, failure_share=1.0, retry_within=0
    )
    found = await Manager(going_on).run_single(row(given))
    assert found["reward_score"] == -1.0
    assert found["reward_extra_info"]["guerdon_assigned"] == 1.0
    assert found["reward_extra_info"]["guerdon_failure"].startswith("bad_input (data)")


# Functions by upstream's names.


def test_an_unknown_source_names_the_known_ones():
    with pytest.raises(NotImplementedError) as caught:
        ours.default_compute_score_image("aesthetics", PICTURE, None, {})
    assert "data_source='aesthetics'" in str(caught.value)
    for name in ours.known_sources():
        assert name in str(caught.value)


async def test_the_dispatcher_in_the_managers_default_place():
    found = await Manager(ours.default_compute_score_image).run_single(row(PICTURE))
    assert found["reward_score"] == of_chw(PICTURE) == found["reward_extra_info"]["acc"]


def test_the_factories_score_whole_batches():
    batch = RNG.integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    numbers, info = jpeg.jpeg_compressibility()(batch, None)
    assert numbers.tolist() == [reference(one) for one in batch]
    assert info == {}
    sizes = jpeg.jpeg_incompressibility()(batch / 255.0, None)[0]
    assert sizes.tolist() == pytest.approx([-500 * reference(one) for one in batch])


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "1"])
def test_a_picture_as_a_data_url_is_lossless(mode):
    import base64

    picture = Image.fromarray(RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)).convert(mode)
    head, _, body = ours.pil_image_to_base64(picture).partition(",")
    assert head == "data:image/png;base64"
    back = Image.open(io.BytesIO(base64.b64decode(body)))
    assert back.convert("RGBA").tobytes() == picture.convert("RGBA").tobytes()


def test_a_frame_that_is_none_is_no_number():
    nothing = np.full((2, 8, 8, 3), np.nan)
    with pytest.raises(RewardFailure, match="NaN"):
        jpeg.compute_score(nothing[0])
    with pytest.raises(RewardFailure, match="NaN"):
        jpeg.jpeg_compressibility()(nothing, None)


def test_a_data_source_has_one_reward(monkeypatch):
    monkeypatch.setattr(dispatcher, "_sources", dict(dispatcher._sources))
    ours.register_source("of the test", "jpeg_incompressibility")
    ours.register_source("of the test", "jpeg_incompressibility")
    with pytest.raises(NameCollision, match="scored by 'jpeg_incompressibility' already"):
        ours.register_source("of the test", "jpeg_compressibility")
    found = ours.default_compute_score_image("of the test", PICTURE, None)
    assert found == pytest.approx(-500 * of_chw(PICTURE))


def test_what_is_no_picture_has_no_data_url():
    with pytest.raises(ValueError, match="holds no image"):
        ours.pil_image_to_base64(3)


# The manager.


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_failure_is_never_a_silent_number(fault, pool):
    settings = {"backend": pool, "retry_within": 0}
    raising = Manager(ours.compute_score_for(faulty_picture, **settings))
    with pytest.raises(ScoringFailed) as caught:
        await raising.run_single(row(PICTURE, extra_info={"fault": fault}))
    assert (await raising.run_single(row(PICTURE)))["reward_score"] == 1.0
    going_on = ours.compute_score_for(
        faulty_picture, neutral=NEUTRAL, failure_share=1.0, **settings
    )
    found = await Manager(going_on).run_single(row(PICTURE, extra_info={"fault": fault}))
    info = found["reward_extra_info"]
    assert (found["reward_score"], info["guerdon_assigned"]) == (NEUTRAL, 1.0)
    if fault == "abstention":
        assert info["guerdon_outcome"] == "abstention"
        assert "neutral=" in str(caught.value)
    else:
        kind, blame = cases.FAULTS[fault]
        assert info["guerdon_failure"].startswith(f"{kind} ({blame})")
        assert f"{kind} ({blame})" in str(caught.value)


async def test_extra_info_reaches_the_reward_and_stays_as_it_was():
    @reward(auto_register=False)
    def nosy(images, prompt: str, reward_router_address: str, metadata: dict) -> float:
        assert prompt == "a cat"
        assert reward_router_address == "host:1"
        assert metadata["index"] == 7
        return 1.0

    given = row(PICTURE, extra_info={"index": 7, "prompt": "a cat"})
    found = await Manager(ours.compute_score_for(nosy)).run_single(
        given, reward_router_address="host:1", model_name="m"
    )
    assert found["reward_score"] == 1.0
    assert "reward_router_address" not in given["extra_info"]


@pytest.mark.neural
@pytest.mark.parametrize("kind", ["uint8", "float32", "bfloat16"])
@pytest.mark.parametrize("frames", [None, 3])
async def test_tensors_go_to_workers(tensor, kind, frames, pool):
    """A sync reward with a deadline runs in a worker process, where no tensor can go."""
    import torch

    shape = (3, 8, 8) if frames is None else (frames, 3, 8, 8)
    given = tensor(np.full(shape, 255, np.uint8))
    if kind != "uint8":
        given = (given.float() / 255).to(getattr(torch, kind))

    @reward(auto_register=False, deadline=20.0)
    def white(images=(), videos=()) -> float:
        (media,) = (*(images or ()), *(videos or ()))
        return float(media.array.max())

    score = ours.compute_score_for(white, backend=pool)
    extra = {"latents_clean": torch.zeros(16, 4, 4), "audio": torch.zeros(2, 8)}
    found = await Manager(score).run_single(row(given, extra_info=extra))
    assert found["reward_score"] == (255.0 if kind == "uint8" else 1.0)


@pytest.mark.parametrize(
    ("extra", "truth", "caption"),
    [
        ({"prompt": "a cat"}, "x", "a cat"),
        ({"prompt": "", "raw_prompt": [{"role": "user", "content": "a dog"}]}, "x", "a dog"),
        ({"raw_prompt": np.array([{"role": "user", "content": "a dog"}], object)}, "x", "a dog"),
        ({}, "a wall", "a wall"),
        (None, "a wall", "a wall"),
    ],
)
async def test_where_the_caption_is(extra, truth, caption):
    @reward(auto_register=False)
    def captioned(images, prompt) -> float:
        return float(prompt == caption)

    score = ours.compute_score_for(captioned)
    found = await score(
        data_source="x", solution_image=PICTURE, ground_truth=truth, extra_info=extra
    )
    assert found["score"] == 1.0


async def test_the_keys_are_the_same_for_every_row(down):
    """VeRL-Omni takes the keys of the first row, and means of numbers."""
    panel = small_panel(judge={"reward": f"{down}:judge_by_index"})
    score = ours.compute_score_for(
        ours.multi_reward(panel), retry_within=0, neutral=NEUTRAL, failure_share=1.0
    )
    given = [row(PICTURE, extra_info={"index": index}) for index in (0, 1)]
    given.append(row(np.zeros((2, 2), np.int64)))
    rows = [(await Manager(score).run_single(one))["reward_extra_info"] for one in given]
    assert len({tuple(one) for one in rows}) == 1
    for key in rows[0]:
        column = np.array([one[key] for one in rows])
        assert column.dtype.kind in "fU", (key, column)
    holes = [math.isnan(one["component/judge"]) for one in rows]
    assert holes == [False, True, True]


@pytest.mark.parametrize(
    ("backend", "workers"), [(None, POOL_WORKERS), ({"pool": {"workers": 1}}, 1)]
)
async def test_a_pool_that_nobody_sized_is_small(backend, workers):
    """VeRL-Omni starts 8 reward workers, as verl does, and each of them has its own pool."""

    @reward(auto_register=False, deadline=20.0)
    def one(images) -> float:
        return 1.0

    function = ours.ComputeScore(one, ours.Settings(backend=backend))
    assert (await function("x", PICTURE, None))["score"] == 1.0
    assert function.service._backends["pool"].workers == workers
    function.close()


async def test_the_route_of_a_data_source():
    registry.route("pictures of the test", "jpeg_compressibility")
    found = await ours.compute_score("pictures of the test", PICTURE, None)
    assert found["score"] == of_chw(PICTURE)
    with pytest.raises(UnknownReward, match="no reward is routed"):
        await ours.compute_score("pictures that nobody knows", PICTURE, None)


async def test_an_order_that_was_said_holds_for_arrays_and_for_frames():
    @reward(name="rows", auto_register=False)
    def rows(data_source, images=(), videos=()) -> float:
        assert data_source == "my/data"
        (media,) = (*(images or ()), *(videos or ()))
        frame = pixels_of(media) if images else frames_of(media).pixels[0]
        return float(frame.shape[0])

    for layout, height in (("HWC", 3.0), ("CHW", 8.0)):
        score = ours.compute_score_for(rows, layout=layout)
        array = np.zeros((3, 8, 3), np.uint8)
        assert (await score("my/data", array, None))["score"] == height
        assert (await score("my/data", [array, array], None))["score"] == height


def test_services_that_were_started_are_stopped(monkeypatch):
    asyncio.run(ours.compute_score("x", PICTURE, None, reward="jpeg_compressibility"))
    closed = []
    monkeypatch.setattr(ours.ComputeScore, "close", lambda self: closed.append(self.__name__))
    ours.close()
    ours.close()
    assert closed == ["jpeg_compressibility"]


def test_it_is_a_coroutine_function_to_the_manager():
    assert inspect.iscoroutinefunction(ours.compute_score)
    assert inspect.iscoroutinefunction(ours.compute_score_for("jpeg_compressibility"))


# Several rewards.


def small_panel(**entries):
    return {"size": {"reward": "jpeg_compressibility", "weight": 2.0}, **entries}


@pytest.fixture
def down(monkeypatch):
    @reward(name="judge_down", value_range=(0.0, 1.0), auto_register=False)
    def judge_down(images) -> float:
        raise Unavailable("the judge is down", retryable=False)

    @reward(name="judge_up", value_range=(0.0, 1.0), auto_register=False)
    def judge_up(images) -> float:
        return 0.5

    @reward(name="judge_by_index", value_range=(0.0, 1.0), auto_register=False)
    def judge_by_index(images, index: int) -> float:
        return judge_up.call(images) if index == 0 else judge_down.call(images)

    import sys
    from types import ModuleType

    module = ModuleType("panel_of_the_test")
    module.judge_down, module.judge_up = judge_down, judge_up
    module.judge_by_index = judge_by_index
    monkeypatch.setitem(sys.modules, "panel_of_the_test", module)
    return "panel_of_the_test"


async def panel_score(panel, **settings):
    return await Manager(
        ours.compute_score_for(ours.multi_reward(panel), retry_within=0, **settings)
    ).run_single(row(PICTURE))


async def test_the_sum_is_upstreams(down):
    panel = small_panel(judge={"reward": f"{down}:judge_up", "weight": 0.5, "required": "True"})
    found = await panel_score(panel)
    assert found["reward_score"] == pytest.approx(2.0 * of_chw(PICTURE) + 0.5 * 0.5)
    info = found["reward_extra_info"]
    assert info["component/size"] == of_chw(PICTURE)
    assert info["component/judge"] == 0.5


async def test_an_optional_entry_that_fails_is_never_zero(down):
    """JPEG is always negative: 0 for a crash would be its best score."""
    broken = {"reward": f"{down}:judge_down", "weight": 1.0}
    found = await panel_score(small_panel(judge=broken))
    assert found["reward_score"] == pytest.approx(3.0 * of_chw(PICTURE))  # scaled up
    assert math.isnan(found["reward_extra_info"]["component/judge"])
    with pytest.raises(ScoringFailed, match="neutral="):
        await panel_score(small_panel(judge={**broken, "missing": "abstain"}))
    zero = await panel_score(small_panel(judge={**broken, "missing": "zero"}))
    assert zero["reward_score"] == pytest.approx(2.0 * of_chw(PICTURE))
    assert math.isnan(zero["reward_extra_info"]["component/judge"])


async def test_a_required_entry_that_fails_fails_the_sample(down):
    broken = {"reward": f"{down}:judge_down", "required": True}
    with pytest.raises(ScoringFailed, match="the judge is down"):
        await panel_score(small_panel(judge=broken))


@pytest.mark.neural
async def test_entries_by_path_as_upstream_loads_them(tmp_path, tensor):
    file = tmp_path / "mine.py"
    file.write_text(
        "import torch\n"
        "async def bright(solution_image, ground_truth, scale=1.0):\n"
        "    assert solution_image.dtype == torch.uint8 and solution_image.shape[0] == 3\n"
        "    return {'score': scale * float(solution_image.float().mean()) / 255, 'why': 'mean'}\n"
        "def dark(data_source, **kwargs):\n"
        "    assert set(kwargs) >= {'solution_image', 'ground_truth', 'extra_info'}\n"
        "    raise RuntimeError('no')\n"
    )
    bright = {"path": str(file), "name": "bright", "scale": 2.0}
    by_package = {"path": "pkg://guerdon.trainers.verl_omni.jpeg_compressibility"}
    panel = {
        "bright": bright,
        "size": {**by_package, "name": "compute_score"},
        "dark": {"path": str(file), "name": "dark", "weight": 0.5},
    }
    score = ours.compute_score_for(ours.multi_reward(panel), retry_within=0)
    found = await Manager(score).run_single(row(tensor(PICTURE)))
    values = [2.0 * PICTURE.mean() / 255, of_chw(PICTURE)]
    assert found["reward_score"] == pytest.approx(sum(values) * 2.5 / 2.0, rel=1e-6)
    assert math.isnan(found["reward_extra_info"]["component/dark"])


@pytest.mark.neural
async def test_what_a_function_written_for_verl_omni_gets(tmp_path, tensor):
    """Frames keep their height and width; what runs a reward model is beside `extra_info`."""
    file = tmp_path / "mine.py"
    file.write_text(
        "def told(solution_image, extra_info, model_name):\n"
        "    assert tuple(solution_image.shape) == (2, 3, 8, 6), solution_image.shape\n"
        "    assert extra_info == {'num_turns': None, 'rollout_reward_scores': {}}, extra_info\n"
        "    return float(model_name == 'judge')\n"
    )
    clip = tensor(np.zeros((2, 3, 8, 6), np.uint8))
    score = ours.compute_score_for(f"verl_omni:{file}:told")
    assert (await score("x", clip, None, {}, model_name="judge"))["score"] == 1.0


async def test_the_configuration_line_takes_the_panel():
    panel = {"size": {"reward": "jpeg_compressibility"}}
    found = await ours.compute_score("x", PICTURE, None, {}, reward_functions=panel)
    assert found["score"] == of_chw(PICTURE)
    routed = ours.compute_score("x", PICTURE, None, {}, reward="jpeg_compressibility")
    assert (await routed)["score"] == of_chw(PICTURE)


@pytest.mark.parametrize(
    ("panel", "message"),
    [
        ({}, "no entry"),
        ({"a": {"reward": "jpeg_compressibility", "weight": 0}}, "add up to 0"),
        ({"a": {"reward": "jpeg_compressibility", "weight": "2"}}, "weight is a number"),
        ({"a": {"reward": "jpeg_compressibility", "weight": True}}, "weight is a number"),
        ({"a": {"reward": "jpeg_compressibility", "required": "yes"}}, "true or false"),
        ({"a": {"reward": "jpeg_compressibility", "required": 1}}, "true or false"),
        ({"a": {"reward": "jpeg_compressibility", "missing": "zeor"}}, "did you mean 'zero'"),
        ({"a": {"path": "x.py"}}, "a.name is missing"),
        ({"a": {"reward": "jpeg_compressibility", "path": "x.py"}}, "one of them"),
        ({"a": "jpeg_compressibility"}, "not a mapping"),
    ],
)
def test_a_panel_that_cannot_be_read(panel, message):
    with pytest.raises(ConfigError, match=message):
        ours.multi_reward(panel)


@pytest.mark.neural
def test_fields_that_upstream_reads_or_drops(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("def bright(solution_image, scale=1.0):\n    return scale\n")
    entry = {"path": str(file), "name": "bright"}
    assert ours.multi_reward({"a": {**entry, "device": "cpu", "independent": True, "scale": 2.0}})
    with pytest.raises(InvalidReward, match=r"takes no 'sclae' \(did you mean 'scale'"):
        ours.multi_reward({"a": {**entry, "sclae": 2.0}})
    with pytest.raises(ConfigError, match=r"a\.model is for VeRL-Omni's own manager"):
        ours.multi_reward({"a": {**entry, "model": "judge"}})


async def test_omegaconfs_mappings_are_read(tmp_path):
    omegaconf = pytest.importorskip("omegaconf")
    panel = {"size": {"reward": "jpeg_compressibility", "weight": "${half}"}}
    whole = {"half": 0.5, "panel": panel, "hole": {"a": {"reward": "???"}}}
    config = omegaconf.OmegaConf.create(whole)
    found = await ours.compute_score("x", PICTURE, None, {}, reward_functions=config.panel)
    assert found["score"] == 0.5 * of_chw(PICTURE)
    with pytest.raises(ConfigError, match="Missing mandatory value"):
        ours.multi_reward(config.hole)


async def test_negative_weights_and_a_lost_entry_keep_their_signs(down):
    """What is left of the sum is scaled by the absolute weights: a penalty stays one."""
    lost = {"reward": f"{down}:judge_down", "weight": 1.0}
    panel = {"lost": lost, "malus": {"reward": f"{down}:judge_up", "weight": -0.5}}
    found = await panel_score(panel)
    assert found["reward_score"] == pytest.approx(-0.5 * 0.5 * (1.5 / 0.5))


async def test_a_misspelt_setting_is_an_error():
    with pytest.raises(ConfigError, match="did you mean 'neutral'"):
        await ours.compute_score("x", PICTURE, None, {}, reward="gsm8k", netural=1.0)


# VeRL-Omni's own managers.


@pytest.fixture(scope="module")
def driven(tmp_path_factory):
    managers = "verl_omni/reward_loop/reward_manager"
    return interpreter.drive_checkout(
        "verl_omni",
        tmp_path_factory.mktemp("verl_omni"),
        python="GUERDON_VERL_PYTHON",
        modules=(f"{managers}/visual.py", f"{managers}/multi.py"),
    )


def test_its_manager_calls_our_function(driven):
    picture, clip = (row["score"] for row in driven["image and clip"])
    assert [picture, clip] == pytest.approx(driven["theirs"], abs=1e-12)
    assert driven["tensor"][:2] == ["torch.float32", [2, 1]]
    assert driven["tensor"][2] == pytest.approx([picture, clip], rel=1e-6)
    (dispatched,) = driven["dispatcher"]
    assert dispatched == {"score": picture, "acc": picture}


@pytest.mark.parametrize("place", ["told", "told in a pool"])
def test_its_manager_hands_over_the_row_and_the_rollout(driven, place):
    assert [row["score"] for row in driven[place]] == [321.0, 700.0]


def test_its_guard_and_ours(driven):
    assert "Expected uint8 pixel responses" in driven["float"][0]
    assert "bad_input (data): pixels from" in driven["latent"][0]
    assert "did you mean 'neutral'" in driven["typo"][0]


def test_its_panel_and_ours_add_up_to_the_same(driven):
    (theirs,), (ours_,) = driven["multi, theirs"], driven["multi, ours"]
    assert ours_["score"] == pytest.approx(theirs["score"], abs=1e-12)
    for key in ("size", "bright", "again"):
        assert ours_[f"component/{key}"] == theirs[f"reward/{key}"]


def test_an_optional_entry_that_fails_is_zero_there_and_never_here(driven):
    (theirs,), (ours_,) = driven["multi, one down, theirs"], driven["multi, one down, ours"]
    assert theirs["reward/down"] == 0.0
    assert ours_["component/down"] is None
    assert ours_["score"] == pytest.approx(theirs["score"] * 3.25 / 2.75)
    (zero,) = driven["multi, zero, ours"]
    assert zero["score"] == pytest.approx(theirs["score"])


def test_a_required_entry_that_fails_stops_both(driven):
    for whose in ("theirs", "ours"):
        (text,) = driven[f"multi, required down, {whose}"]
        assert "the judge is down" in text


def test_ours_as_an_entry_of_their_panel(driven):
    (found,) = driven["as an entry of theirs"]
    assert found["reward/ours"] == driven["upstream's number"]
    assert found["score"] == 2.0 * driven["upstream's number"]
    (stopped,) = driven["as their required entry"]
    assert "faulty_picture: raised (scorer)" in stopped
    # Their manager makes 0 of every exception of an optional entry: the page says so.
    (silent,) = driven["as their optional entry"]
    assert silent["reward/ours"] == 0.0


@pytest.mark.parametrize("fault", FAULTS)
def test_its_manager_gets_no_silent_number(driven, fault):
    whole, found, other = driven[f"{fault} raises"]
    assert whole["score"] == other["score"] == 1.0
    assert found.startswith("ScoringFailed")
    rows = driven[f"{fault} neutral"]
    assert [row["score"] for row in rows] == [1.0, NEUTRAL, 1.0]
    assert [row["guerdon_assigned"] for row in rows] == [0.0, 1.0, 0.0]
    if fault == "abstention":
        assert rows[1]["guerdon_outcome"] == "abstention"
    else:
        kind, blame = cases.FAULTS[fault]
        assert f"faulty_picture: {kind} ({blame})" in found
        assert rows[1]["guerdon_failure"].startswith(f"{kind} ({blame})")
