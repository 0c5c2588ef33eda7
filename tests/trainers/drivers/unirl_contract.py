"""Drives UniRL's `RewardService` and ours with both backends; run by `test_unirl_contract.py`.

    python unirl_contract.py FOLDER CHECKOUT

CHECKOUT is a checkout of Tencent-Hunyuan/UniRL. Its types, its service and the marks of its
workers' roles are its own; a version with `RolloutTrack` is driven with a request and its track, a
later one with a `Sample`. What came out is written to FOLDER/seen.json.
"""

import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace

FOLDER, CHECKOUT = (Path(argument).resolve() for argument in sys.argv[1:3])
sys.path.insert(0, str(CHECKOUT))

import torch  # noqa: E402
from unirl.reward.base import RewardBackend  # noqa: E402
from unirl.reward.service import RewardService as TheirService  # noqa: E402
from unirl.types.primitives import Images, Texts, Video, Videos  # noqa: E402
from unirl.types.reward import RewardResponse  # noqa: E402
from unirl.types.sampling import ARSamplingParams, DiffusionSamplingParams  # noqa: E402

from guerdon.registry import load_file  # noqa: E402
from guerdon.trainers.unirl import GuerdonBackend, RemoteRewardService  # noqa: E402

try:
    from unirl.types.rollout_req import RolloutReq
    from unirl.types.rollout_resp import RolloutTrack
except ImportError:
    from unirl.types.sample import Part, Sample

    RolloutTrack = None

cases = load_file(str(Path(__file__).parents[1] / "parity" / "cases.py"))
PICTURES = cases.HERE / "pictures.py"
NEUTRAL = 0.125
SERVICES = {"theirs": TheirService, "ours": RemoteRewardService}
torch.manual_seed(3)


def images_of(pixels):
    return Images(pixels=pixels) if RolloutTrack else Images.from_dense(pixels)


def score(service, made, *, texts=None, images=None, metadata=(), branch=1, params=None, **more):
    """Rewards and components of N prompts with `branch` samples each, by a service."""
    params = params if params is not None else DiffusionSamplingParams(samples_per_prompt=branch)
    (kind,) = ((key) for key, cls in KINDS.items() if isinstance(made, cls))
    given = {}
    if texts is not None:
        given["text"] = Texts(texts=list(texts))
    if images is not None:
        given["image"] = images
    prompts = len(made) // branch
    roots = [f"p{i}" for i in range(prompts)]
    ids = [f"{root}/{j}" for root in roots for j in range(branch)]
    try:
        if RolloutTrack:
            modality = "ar" if isinstance(params, ARSamplingParams) else "diffusion"
            req = RolloutReq(
                sample_ids=roots,
                primitives=given,
                metadata=list(metadata),
                sampling_params={modality: params},
            )
            parents = [root for root in roots for _ in range(branch)]
            track = RolloutTrack(sample_ids=ids, parent_ids=parents, decoded=made, **more)
            scored = service.score_and_attach(req=req, track=track)
            assert track.rewards is None
        else:
            root = Part.input(roots, primitives=given, metadata=list(metadata))
            sample = Sample(parts=[root]).fork(branch, sampling_params=params)
            part = sample.parts[-1]
            part.primitives = {kind: made}
            part.segment = more.get("segment")
            scored = service.score_and_attach(sample).parts[-1]
            assert part.rewards is None
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    assert type(scored) is (RolloutTrack or Part)
    assert scored.rewards.dtype == torch.float32
    components = {
        name: [None if math.isnan(value) else value for value in column.tolist()]
        for name, column in scored.component_rewards.items()
    }
    return {"rewards": scored.rewards.tolist(), "components": components}


KINDS = {"text": Texts, "image": Images, "video": Videos}


class Theirs(RewardBackend):
    """A backend of UniRL: the length of each text, and what the test says of a sample."""

    input_kind = "text"

    def compute_rewards(self, request):
        texts = request.texts
        numbers = [float(text) if text != "nan" else math.nan for text in texts]
        wrong = [text == "down" for text in texts] if "down" in texts else [False] * len(texts)
        return RewardResponse(
            rewards=numbers,
            component_rewards={"twice": [2 * number for number in numbers]},
            successes=[not flag for flag in wrong],
            errors=["down" if flag else None for flag in wrong],
        )

    def is_available(self):
        return True


def drive():
    seen = {"marks": marks()}
    for name, service in SERVICES.items():
        seen[name] = {**values(service), **failures(service)}
    return seen


def marks():
    """What UniRL's handle looks at: the methods of a role that it may dispatch."""
    config = RemoteRewardService.score_and_attach._distributed_config
    theirs = TheirService.score_and_attach._distributed_config
    role = RemoteRewardService(Theirs())
    role.setup("transport", "cuda:0", "rank", get_sibling=None)
    return {
        "same": config["dispatch_mode"] is theirs["dispatch_mode"],
        "bases": [cls.__name__ for cls in RemoteRewardService.__mro__],
        "attributes": [role.transport, role.device, role.rank_info],
        "inherited": hasattr(RemoteRewardService._cleanup_all_grads, "_distributed_config"),
    }


def values(service):
    seen = {}
    for name in cases.REWARDS:
        rule = "guerdon.rules.gsm8k:gsm8k"
        reference = rule if name == "rule" else cases.reference(name)
        made = service(GuerdonBackend(reference, input_kind="text"))
        seen[name] = parity(made, cases.ROWS)
    seen["their backend"] = score(service(Theirs()), Texts(texts=["1", "2"]), texts=["a", "b"])
    seen["their nan"] = score(service(Theirs()), Texts(texts=["1", "nan"]), texts=["a", "b"])
    jpeg = service(GuerdonBackend("jpeg_compressibility"))
    pixels = torch.rand(4, 3, 16, 24, generator=torch.Generator().manual_seed(1))
    seen["images"] = score(jpeg, images_of(pixels), texts=["a", "b"], branch=2)
    clips = service(GuerdonBackend("jpeg_compressibility", input_kind="video"))
    frames = [Video(frames=one) for one in (pixels[:1], pixels[1:])]
    seen["videos"] = score(clips, Videos.from_list(frames), texts=["a", "b"])
    edited = service(GuerdonBackend(f"{PICTURES}:edited"))
    sources = images_of(torch.zeros(2, 3, 8, 8))
    bright = images_of(torch.ones(4, 3, 8, 8))
    seen["edited"] = score(edited, bright, texts=["red", "blue"], images=sources, branch=2)
    in_pool = GuerdonBackend(f"{PICTURES}:edited", backend={"pool": {"workers": 1}})
    seen["edited in a pool"] = score(
        service(in_pool), bright, texts=["red", "blue"], images=sources, branch=2
    )
    in_pool.dispose()
    exact = cases.reference("rule_of_text")
    fanned = GuerdonBackend(exact, input_kind="text")
    seen["fanned"] = score(
        service(fanned),
        Texts(texts=["4", "5", "6", "7"]),
        texts=["2 + 2?", "3 + 3?"],
        metadata=[{"answer": "4"}, {"answer": "6"}],
        params=ARSamplingParams(samples_per_prompt=2),
        branch=2,
    )
    lengths = SimpleNamespace(lengths=torch.tensor([6, 8, 10, 10]))
    for mode in ("keep", "zero", "soft"):
        seen[mode] = score(
            service(Theirs(), mode, 4),
            Texts(texts=["0.5", "0.5", "0.5", "-0.5"]),
            texts=["a"] * 4,
            params=ARSamplingParams(max_new_tokens=10),
            segment=lengths,
        )
    seen["wrong kind"] = score(jpeg, Texts(texts=["a"]), texts=["a"])
    return seen


def parity(service, rows):
    metadata = [
        {
            "answer": row.ground_truth,
            "data_source": row.data_source,
            "judge": row.judge,
            "fault": row.fault,
        }
        for row in rows
    ]
    made = Texts(texts=[row.response for row in rows])
    prompts = [row.prompt for row in rows]
    return score(service, made, texts=prompts, metadata=metadata, params=ARSamplingParams())


def failures(service):
    seen = {}
    settings = {
        "input_kind": "text",
        "retry_within": 0,
        "backend": {"pool": {"workers": 1}},
    }
    raising = GuerdonBackend(cases.reference("faulty"), **settings)
    going_on = GuerdonBackend(
        cases.reference("faulty"), neutral=NEUTRAL, failure_share=1.0, **settings
    )
    for fault in (*cases.FAULTS, "abstention"):
        rows = cases.rows_with(fault)
        seen[f"{fault} raises"] = parity(service(raising), rows)
        seen[f"{fault} neutral"] = parity(service(going_on), rows)
    raising.dispose()
    going_on.dispose()
    return seen


def main():
    (FOLDER / "seen.json").write_text(json.dumps(drive()))


if __name__ == "__main__":
    main()
