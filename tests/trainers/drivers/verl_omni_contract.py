"""Drives VeRL-Omni's reward managers with our functions; run by `test_verl_omni_contract.py`.

    VERL_PYTHON verl_omni_contract.py FOLDER CHECKOUT

CHECKOUT is a checkout of verl-project/verl-omni; VERL_PYTHON has verl, on which it stands. The way
from a configuration to the function is verl's, from a `DataProto` to its arguments and from its
result to a tensor VeRL-Omni's. What they saw is written to FOLDER/seen.json.
"""

import asyncio
import json
import math
import sys
from pathlib import Path

FOLDER, CHECKOUT = (Path(argument).resolve() for argument in sys.argv[1:3])
sys.path.insert(0, str(CHECKOUT))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from omegaconf import OmegaConf  # noqa: E402
from verl import DataProto  # noqa: E402
from verl.trainer.ppo.reward import get_custom_reward_fn  # noqa: E402
from verl_omni.reward_loop.reward_manager.multi import MultiVisualRewardManager  # noqa: E402
from verl_omni.reward_loop.reward_manager.visual import VisualRewardManager  # noqa: E402
from verl_omni.utils.reward_score import default_compute_score_image  # noqa: E402
from verl_omni.utils.reward_score.jpeg_compressibility import compute_score  # noqa: E402

from guerdon.registry import load_file  # noqa: E402
from guerdon.trainers import verl_omni as ours  # noqa: E402

cases = load_file(str(Path(__file__).parents[1] / "parity" / "cases.py"))
PICTURES = cases.HERE / "pictures.py"
JPEG = {"path": "pkg://verl_omni.utils.reward_score.jpeg_compressibility", "name": "compute_score"}
NEUTRAL = 0.125
RNG = np.random.default_rng(11)
PICTURE = torch.from_numpy(RNG.integers(0, 256, (3, 24, 32), dtype=np.uint8))
CLIP = torch.from_numpy(RNG.integers(0, 256, (4, 3, 24, 32), dtype=np.uint8))

MINE = FOLDER / "mine.py"
MINE.write_text(
    "import torch\n"
    "async def bright(solution_image, extra_info, scale=1.0):\n"
    "    assert solution_image.dtype == torch.uint8, solution_image.dtype\n"
    "    assert extra_info['num_turns'] is None\n"
    "    return {'score': scale * float(solution_image.float().mean()) / 255, 'why': 'mean'}\n"
    "def down(**kwargs):\n"
    "    assert set(kwargs) >= {'data_source', 'solution_image', 'ground_truth', 'extra_info'}\n"
    "    raise RuntimeError('the judge is down')\n"
)


def config_of(reward_kwargs=None, *, functions=None, name="compute_score", output_type="image"):
    """What VeRL-Omni's configuration holds of the reward; OmegaConf's, as Hydra makes it."""
    pipeline = {"output_type": output_type}
    custom = {"path": "pkg://guerdon.trainers.verl_omni", "name": name}
    if reward_kwargs is not None:
        custom["reward_kwargs"] = reward_kwargs
    return OmegaConf.create(
        {
            "reward": {
                "custom_reward_function": custom,
                "reward_functions": functions or {},
                "reward_model": {"model_path": "judge-7b", "rollout": {"response_length": 64}},
            },
            "actor_rollout_ref": {
                "rollout": {"pipeline": pipeline, "val_kwargs": {"pipeline": pipeline}}
            },
        }
    )


def data_of(responses, extra_info=None, data_source="jpeg_compressibility", truth="a wall", **more):
    """One sample, as the agent loop hands it to a reward worker."""
    columns = {
        "data_source": data_source,
        "reward_model": {"style": "model", "ground_truth": truth},
        "extra_info": extra_info if extra_info is not None else {"index": 7},
        **more,
    }
    rows = {name: np.array([value, None], dtype=object)[:1] for name, value in columns.items()}
    return DataProto.from_dict(tensors={"responses": responses.unsqueeze(0)}, non_tensors=rows)


async def run(manager_cls, config, *samples, router=None):
    """Every sample through a manager, all at once as in a reward worker."""
    function = get_custom_reward_fn(config)
    manager = manager_cls(config, None, function, reward_router_address=router)
    manager.loop = asyncio.get_running_loop()
    found = await asyncio.gather(*map(manager.run_single, samples), return_exceptions=True)
    return [jsonable(row) for row in found]


def jsonable(row):
    if isinstance(row, Exception):
        return f"{type(row).__name__}: {row}"
    info = row["reward_extra_info"]
    plain = {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in info.items()}
    return {"score": row["reward_score"], **plain}


async def drive():
    seen = {}
    jpeg = {"reward": "jpeg_compressibility"}
    config = config_of(jpeg)
    found = await run(VisualRewardManager, config, data_of(PICTURE), data_of(CLIP))
    seen["image and clip"] = found
    each = [default_compute_score_image("jpeg_compressibility", one, None) for one in CLIP]
    theirs = default_compute_score_image("jpeg_compressibility", PICTURE, None)
    seen["theirs"] = [theirs, sum(each) / len(each)]
    scores = [row["score"] for row in found]
    tensor = VisualRewardManager.assemble_rm_scores(None, scores)
    seen["tensor"] = [str(tensor.dtype), list(tensor.shape), tensor.flatten().tolist()]
    seen["dispatcher"] = await run(
        VisualRewardManager, config_of(name="default_compute_score_image"), data_of(PICTURE)
    )
    fields = {"latents_clean": torch.zeros(16, 4, 4), "audio": torch.zeros(2, 800)}
    told = config_of({"reward": f"{PICTURES}:told"})
    samples = [
        data_of(
            PICTURE,
            {"index": 3, "prompt": "a cat"},
            tool_extra_fields=fields,
            media_kind="image",
            __num_turns__=2,
        ),
        data_of(PICTURE, truth="a dog"),
    ]
    seen["told"] = await run(VisualRewardManager, told, *samples, router="host:1")
    in_pool = config_of({"reward": f"{PICTURES}:told", "backend": {"pool": {"workers": 1}}})
    seen["told in a pool"] = await run(VisualRewardManager, in_pool, *samples, router="host:1")
    latent = config_of(jpeg, output_type="latent")
    seen["latent"] = await run(VisualRewardManager, latent, data_of(torch.randn(16, 4, 4)))
    seen["float"] = await run(VisualRewardManager, config, data_of(PICTURE / 255))
    await multi(seen)
    await failures(seen)
    seen["typo"] = await run(
        VisualRewardManager, config_of({**jpeg, "netural": 0.0}), data_of(PICTURE)
    )
    return seen


async def multi(seen):
    """The same `reward_functions` in VeRL-Omni's own manager and in ours."""
    functions = {
        "size": {**JPEG, "weight": 2.0, "required": True},
        "bright": {"path": str(MINE), "name": "bright", "weight": 0.5, "scale": 2.0},
        "again": {"path": str(MINE), "name": "bright", "weight": -0.25, "device": "cpu"},
    }
    down = {"path": str(MINE), "name": "down", "weight": 0.5}
    for name, entries in (
        ("multi", functions),
        ("multi, one down", {**functions, "down": down}),
        ("multi, required down", {**functions, "down": {**down, "required": "true"}}),
    ):
        theirs = config_of(functions=entries)
        seen[f"{name}, theirs"] = await run(MultiVisualRewardManager, theirs, data_of(PICTURE))
        mine = config_of({"reward_functions": entries, "retry_within": 0})
        seen[f"{name}, ours"] = await run(VisualRewardManager, mine, data_of(PICTURE))
    zero = {**functions, "down": {**down, "missing": "zero"}}
    mine = config_of({"reward_functions": zero, "retry_within": 0})
    seen["multi, zero, ours"] = await run(VisualRewardManager, mine, data_of(PICTURE))
    # Our function as one entry of VeRL-Omni's own manager.
    entry = {"path": "pkg://guerdon.trainers.verl_omni", "name": "compute_score"}
    nested = {"ours": {**entry, "reward": "jpeg_compressibility", "weight": 2.0}}
    config = config_of(functions=nested)
    seen["as an entry of theirs"] = await run(MultiVisualRewardManager, config, data_of(PICTURE))
    broken = {**entry, "reward": f"{PICTURES}:faulty_picture", "retry_within": 0}
    sample = data_of(PICTURE, {"fault": "raised"})
    for name, required in (("required", True), ("optional", False)):
        config = config_of(functions={"ours": {**broken, "required": required}})
        seen[f"as their {name} entry"] = await run(MultiVisualRewardManager, config, sample)
    seen["upstream's number"] = compute_score(PICTURE)


async def failures(seen):
    settings = {
        "reward": f"{PICTURES}:faulty_picture",
        "retry_within": 0,
        "backend": {"pool": {"workers": 1}},
    }
    going_on = {**settings, "neutral": NEUTRAL, "failure_share": 1.0}
    for fault in (*cases.FAULTS, "abstention"):
        samples = [data_of(PICTURE, {"fault": one}) for one in ("", fault, "")]
        seen[f"{fault} raises"] = await run(VisualRewardManager, config_of(settings), *samples)
        seen[f"{fault} neutral"] = await run(VisualRewardManager, config_of(going_on), *samples)


def main():
    seen = asyncio.run(drive())
    ours.close()
    (FOLDER / "seen.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main()
