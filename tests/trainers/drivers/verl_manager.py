"""Drives verl's reward loop with our manager; run by `test_verl_manager.py`.

    VERL_PYTHON verl_manager.py FOLDER

FOLDER is empty and the driver's own. What verl saw is written to FOLDER/seen.json.
"""

import ast
import asyncio
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

FOLDER = Path(sys.argv[1]).resolve()
os.environ.update(
    HF_HUB_OFFLINE="1",
    RAY_AUTH_MODE="disabled",
    RAY_USAGE_STATS_ENABLED="0",
    TOKENIZERS_PARALLELISM="false",
)

import numpy as np  # noqa: E402
import torch  # noqa: E402
import verl  # noqa: E402
from hydra import compose, initialize_config_module  # noqa: E402
from omegaconf import open_dict  # noqa: E402
from tensordict import TensorDict  # noqa: E402
from transformers import AutoTokenizer  # noqa: E402
from verl import DataProto  # noqa: E402
from verl.trainer.ppo import core_algos  # noqa: E402
from verl.trainer.ppo.reward import (  # noqa: E402
    extract_reward,
    load_reward_manager,
    resolve_reward_manager_cls,
)
from verl.utils.torch_functional import masked_mean  # noqa: E402
from verl.workers.reward_manager import get_reward_manager_cls  # noqa: E402

from guerdon.trainers import verl as ours  # noqa: E402
from guerdon.trainers import verl_batch  # noqa: E402

sibling = importlib.util.spec_from_file_location(
    "verl_contract", Path(__file__).with_name("verl_contract.py")
)
contract = importlib.util.module_from_spec(sibling)
sibling.loader.exec_module(contract)
cases = contract.cases

REWARDS = FOLDER / "rewards.py"
REWARDS.write_text(
    "from guerdon import reward\n"
    "from guerdon.outcome import Score, Span\n"
    "@reward(name='steps', auto_register=False)\n"
    "def steps(response, response_token_ids):\n"
    "    half = len(response_token_ids) // 2\n"
    "    spans = (Span('token', 0, half, 0.25), Span('char', 0, len(response), 0.5))\n"
    "    return Score(value=0.75, spans=spans) if response else 0.125\n"
    "@reward(name='prompted', auto_register=False)\n"
    "def prompted(response, prompt, group_id, num_turns):\n"
    "    return float(prompt == group_id and num_turns == 1)\n"
    "@reward(name='tokens', auto_register=False)\n"
    "def tokens(response, prompt_token_ids, response_token_ids, response_mask=None):\n"
    "    written = -1 if response_mask is None else sum(response_mask)\n"
    "    found = len(prompt_token_ids), len(response_token_ids), written\n"
    "    return {'score': 0.0, **dict(zip(('prompt', 'response', 'written'), map(float, found)))}\n"
    "@reward(name='looks', auto_register=False)\n"
    "def looks(sample, search_calls, num_turns):\n"
    "    parts = sample.prompt[0].content\n"
    "    shapes = [part.media.array.shape for part in parts if part.media]\n"
    "    return float(shapes == [(2, 3, 3), (2, 3, 3)] and search_calls == 3 and num_turns == 4)\n"
    "@reward(name='hangs', value_range=(0.0, 1.0), deadline=0.5, auto_register=False)\n"
    "def hangs(response, index):\n"
    "    while index == 1:\n"
    "        pass\n"
    "    return 1.0\n"
    "@reward(name='width', auto_register=False)\n"
    "def width(response):\n"
    "    return float(len(response))\n"
    "def compute_score(data_source, solution_str, ground_truth, extra_info=None, **kwargs):\n"
    "    right = solution_str.strip().endswith(ground_truth)\n"
    "    return {'score': float(right), 'pred': solution_str}\n"
)


def config(settings, *, workers=2, custom=None):
    made = contract.config({}, workers=workers)
    made.reward.reward_manager.name = "guerdon"
    made.reward.custom_reward_function = custom or {"path": None, "name": None}
    with open_dict(made):
        made.reward.reward_kwargs = settings
    return made


def streaming(tokenizer, rows):
    """Rows as the agent loop sends them: one trajectory each, with lengths and prompts."""
    found = contract.make_data(tokenizer, rows)
    lengths = found.batch["attention_mask"][:, contract.PROMPT_LENGTH :].sum(1)
    found.non_tensor_batch["response_len"] = lengths.numpy()
    found.non_tensor_batch["__num_turns__"] = np.ones(len(rows), dtype=np.int64)
    talk = [[{"role": "user", "content": row.prompt}] for row in rows]
    found.non_tensor_batch["raw_prompt"] = contract.objects(talk)
    return found


def singles(tokenizer, data, made):
    async def run():
        manager = load_reward_manager(
            made, tokenizer, reward_router_address=None, reward_model_tokenizer=None
        )
        calls = [manager.run_single(data[i : i + 1]) for i in range(len(data))]
        found = await asyncio.gather(*calls, return_exceptions=True)
        return [row if isinstance(row, dict) else repr(row) for row in found]

    return asyncio.run(run())


def in_process(tokenizer):
    data = streaming(tokenizer, cases.ROWS)
    seen = {
        name: singles(tokenizer, data, config({"reward": reference}))
        for name, reference in contract.references().items()
    }
    mine = lambda name: config({"reward": f"{REWARDS}:{name}"})  # noqa: E731
    seen["prompted"] = singles(tokenizer, data, mine("prompted"))
    spanned = singles(tokenizer, data, mine("steps"))
    manager = resolve_reward_manager_cls(mine("steps"))
    placed = manager.assemble_rm_scores(data, [row["reward_score"] for row in spanned])
    seen["tokens"] = placed.tolist()
    seen["lengths"] = data.non_tensor_batch["response_len"].tolist()
    seen["typo"] = error(lambda: singles(tokenizer, data, config({"rewrad": "gsm8k"}))[0])
    own = {"path": str(REWARDS), "name": "compute_score"}
    seen["custom"] = error(lambda: singles(tokenizer, data, config({}, custom=own)))
    theirs = {"reward": f"verl:{REWARDS}:compute_score"}
    seen["own"] = [row["reward_score"] for row in singles(tokenizer, data, config(theirs))]
    bare = data.select(non_tensor_batch_keys=["raw_prompt"])
    seen["bare"] = singles(tokenizer, bare, config({"reward": "gsm8k"}))[0]
    extra = data.non_tensor_batch["extra_info"][0]
    seen["extra_info"] = sorted(extra)
    return seen


def error(call):
    try:
        return call()
    except Exception as caught:
        return f"{type(caught).__name__}: {caught}"


def several_outputs(tokenizer):
    """Outputs of one trajectory, padded together; the last one is the shortest."""
    from verl.experimental.reward_loop.reward_manager import get_reward_manager_cls as loop_cls

    texts, prompts = ["a long first answer that is not the last", "#### 42"], [5, 2]
    ids = [tokenizer(text)["input_ids"] for text in texts]
    pad = torch.nn.utils.rnn.pad_sequence
    masks = [torch.ones(p + len(i), dtype=torch.long) for p, i in zip(prompts, ids, strict=True)]
    data = DataProto.from_dict(
        tensors={
            "prompts": pad([torch.ones(p, dtype=torch.long) for p in prompts], batch_first=True),
            "responses": pad([torch.tensor(i) for i in ids], batch_first=True),
            "attention_mask": pad(masks, batch_first=True),
        },
        non_tensors={
            "data_source": contract.objects(["openai/gsm8k"] * 2),
            "reward_model": contract.objects([{"ground_truth": "42"}] * 2),
            "response_len": np.array([len(i) for i in ids]),
        },
    )

    async def run():
        made = config({"reward": f"{REWARDS}:width"})
        manager = loop_cls("guerdon")(made, tokenizer)
        return (await manager.run_single(data))["reward_score"]

    return [asyncio.run(run()), float(len(texts[-1]))]


class Picture:
    """As much of a PIL image as anybody uses; the environment has no Pillow."""

    def convert(self, mode):
        assert mode == "RGB"
        return np.zeros((2, 3, 3), np.uint8)


def trajectory(tokenizer):
    """A row as the agent loop makes it: images in the prompt, what tools left, both lengths."""
    picture = Picture()
    parts = [
        {"type": "image", "image": picture},
        {"type": "video", "video": [picture]},
        {"type": "text", "text": "2 + 2?"},
    ]
    columns = {
        "raw_prompt": [{"role": "user", "content": parts}],
        "data_source": "openai/gsm8k",
        "reward_model": {"style": "rule", "ground_truth": "4"},
        "extra_info": {"index": 0},
        "uid": "u",
    }
    response = tokenizer("#### 4")["input_ids"]
    ids = torch.tensor([[5, 6, 7, 0, 0]]), torch.tensor([[*response, 0, 0]])
    return DataProto.from_dict(
        tensors={
            "prompts": ids[0],
            "responses": ids[1],
            "attention_mask": torch.ones(1, 7 + len(response), dtype=torch.long),
        },
        non_tensors={
            **{key: np.array([value] * 1) for key, value in columns.items()},
            "__num_turns__": np.array([4]),
            "tool_extra_fields": np.array([{"search_calls": 3}], dtype=object),
            "prompt_len": np.array([3]),
            "response_len": np.array([len(response)]),
        },
    )


def rows_of_the_agent_loop(tokenizer):
    data = trajectory(tokenizer)
    columns = ["prompt", "response", "written"]
    settings = {"reward": f"{REWARDS}:tokens", "components": columns}
    found = singles(tokenizer, data, config(settings))[0]["reward_extra_info"]
    return {
        "looks": singles(tokenizer, data, config({"reward": f"{REWARDS}:looks"})),
        "tokens": [found[f"component/{name}"] for name in columns],
        "response": len(tokenizer("#### 4")["input_ids"]),
    }


def broken_rows(tokenizer):
    """Cells that are no mappings, a row without a ground truth, and one that never ends."""
    data = streaming(tokenizer, cases.ROWS[:4])
    data.non_tensor_batch["reward_model"][1] = None
    data.non_tensor_batch["reward_model"][2] = {"style": "model"}
    data.non_tensor_batch["extra_info"][3] = "none"
    neutral = {"neutral": 0.25, "failure_share": 1.0, "retry_within": 0}
    mine = lambda name: {"reward": f"{REWARDS}:{name}", **neutral}  # noqa: E731
    fine = streaming(tokenizer, cases.ROWS[:3])
    backend = {"pool": {"workers": 1}}
    return {
        "raises": singles(tokenizer, data, config({"reward": f"{REWARDS}:width"})),
        "neutral": singles(tokenizer, data, config(mine("width"))),
        "hangs": singles(tokenizer, fine, config({**mine("hangs"), "backend": backend})),
    }


def overlong(tokenizer):
    """verl's own manager `dapo`, with our function and its penalty."""
    made = contract.config({"reward": "guerdon.rules.gsm8k:gsm8k"}, manager="dapo")
    with open_dict(made):
        made.reward.reward_kwargs = {
            "max_resp_len": 4,
            "overlong_buffer_cfg": {"enable": True, "len": 4, "penalty_factor": 1.0, "log": True},
        }
    data = contract.make_data(tokenizer, cases.ROWS)
    lengths = data.batch["attention_mask"][:, contract.PROMPT_LENGTH :].sum(1).tolist()
    rows = singles(tokenizer, data, made)
    return {
        "lengths": lengths,
        "scores": [float(row["reward_score"]) for row in rows],
        "measured": [row["reward_extra_info"]["score"] for row in rows],
        "manager": error(lambda: singles(tokenizer, data, config(dict(made.reward.reward_kwargs)))),
    }


def legacy_batches(tokenizer):
    """Rewards that are there already, no rows at all, and a mask of what tools wrote."""
    make = get_reward_manager_cls("guerdon")
    manager = make(tokenizer, 0, None, reward="gsm8k")
    data = contract.make_data(tokenizer, cases.ROWS[:3])
    empty = manager(data[:0], return_dict=True)
    mask = data.batch["attention_mask"][:, contract.PROMPT_LENGTH :].clone()
    mask[0, 1] = 0
    data.batch["response_mask"] = mask
    names = ["prompt", "response", "written"]
    tokens = make(tokenizer, 0, None, reward=f"{REWARDS}:tokens", components=names)
    counted = tokens(data, return_dict=True)["reward_extra_info"]
    data.batch["rm_scores"] = torch.full_like(mask, 2.0, dtype=torch.float32)
    data.non_tensor_batch["acc"] = contract.objects([1.0] * 3)
    data.meta_info["reward_extra_keys"] = ["acc"]
    there = manager(data, return_dict=True)
    return {
        "empty": [list(empty["reward_tensor"].shape), dict(empty["reward_extra_info"])],
        "counted": [counted[f"component/{name}"] for name in names],
        "mask": [mask.sum(1).tolist(), data.batch["attention_mask"].sum(1).tolist()],
        "there": [float(there["reward_tensor"].mean()), list(there["reward_extra_info"]["acc"])],
        "same": bool((manager(data) == data.batch["rm_scores"]).all()),
    }


def what_import_verl_loads():
    program = (
        "import json, sys, verl\n"
        "names = [n for n in sys.modules if n.startswith(('guerdon', 'msgspec', 'verl.'))]\n"
        "print(json.dumps(names))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def legacy(tokenizer):
    data = contract.make_data(tokenizer, cases.ROWS)
    manager = get_reward_manager_cls("guerdon")(
        tokenizer, 0, None, reward_fn_key="data_source", reward=cases.reference("composite")
    )
    whole = manager(data, return_dict=True)
    return {
        "sums": whole["reward_tensor"].sum(-1).tolist(),
        "placed": (whole["reward_tensor"] != 0).sum(-1).tolist(),
        "extra": dict(whole["reward_extra_info"]),
        "tensor": torch.equal(manager(data), whole["reward_tensor"]),
    }


def out_of(path, function, names):
    """A function of verl's out of its file, whose other imports need a whole trainer."""
    wanted = [
        node
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.name == function
    ]
    found = {}
    exec(
        compile(ast.Module(wanted, []), str(path), "exec"), {**names, "DataProto": DataProto}, found
    )
    return found[function]


def streamed(tokenizer):
    """Rows scored one by one, put together by verl's agent loop and read by its trainer."""
    rows = cases.ROWS
    data = streaming(tokenizer, rows)
    scored = singles(tokenizer, data, config({"reward": cases.reference("composite")}))
    loop = Path(verl.__file__).with_name("experimental") / "agent_loop" / "agent_loop.py"
    names = {"np": np, "torch": torch, "TensorDict": TensorDict, "_InternalAgentLoopOutput": object}
    mask = data.batch["attention_mask"][:, contract.PROMPT_LENGTH :]
    whole = torch.cat([data.batch["prompts"], data.batch["responses"]], dim=1)
    outputs = [
        SimpleNamespace(
            prompt_ids=data.batch["prompts"][i : i + 1],
            response_ids=data.batch["responses"][i : i + 1],
            response_mask=mask[i : i + 1],
            attention_mask=data.batch["attention_mask"][i : i + 1],
            input_ids=whole[i : i + 1],
            position_ids=whole[i : i + 1],
            response_logprobs=None,
            routed_experts=None,
            teacher_logprobs=None,
            multi_modal_inputs=None,
            num_turns=1,
            metrics=SimpleNamespace(model_dump=dict),
            reward_score=row["reward_score"],
            extra_fields={"reward_extra_info": row["reward_extra_info"]},
        )
        for i, row in enumerate(scored)
    ]
    worker = SimpleNamespace(reward_loop_worker_handles=["a worker"])
    batch = out_of(loop, "_postprocess", names)(worker, outputs)
    tensor, extra = extract_reward(batch)
    return {
        "sums": tensor.sum(-1).tolist(),
        "placed": (tensor != 0).int().argmax(-1).tolist(),
        "lengths": mask.sum(1).tolist(),
        "width": mask.shape[1],
        "extra": {key: column.tolist() for key, column in extra.items()},
    }


def kl(rows=6, width=5):
    """verl's own function against ours, for each of its estimators, over two updates."""
    names = {"core_algos": core_algos, "masked_mean": masked_mean, "torch": torch}
    path = Path(core_algos.__file__).with_name("ray_trainer.py")
    seen, apply_kl_penalty = {}, out_of(path, "apply_kl_penalty", names)
    for name in ("kl", "k1", "abs", "mse", "k2", "low_var_kl", "k3", "k3+", "low_var_kl+"):
        torch.manual_seed(3)
        theirs = core_algos.AdaptiveKLController(init_kl_coef=0.1, target_kl=0.02, horizon=50)
        mine = verl_batch.controller("adaptive", 0.1, target=0.02, horizon=50)
        pairs = []
        for _ in range(2):
            mask = torch.ones(rows, width, dtype=torch.long)
            mask[1, 3:] = 0
            tensors = {
                "token_level_scores": torch.randn(rows, width) * mask,
                "old_log_probs": -torch.rand(rows, width),
                "ref_log_prob": -torch.rand(rows, width),
                "response_mask": mask,
            }
            one, two = DataProto.from_dict(tensors=tensors), DataProto.from_dict(tensors=tensors)
            _, expected = apply_kl_penalty(one, theirs, kl_penalty=name)
            _, found = verl_batch.apply_kl_penalty(two, mine, kl_penalty=name)
            far = one.batch["token_level_rewards"] - two.batch["token_level_rewards"]
            pairs.append([float(far.abs().max()), expected, found])
        seen[name] = pairs
    return seen


def starter(tokenizer):
    """What `guerdon init trainer verl` writes, through Hydra and verl's configuration."""
    folder = FOLDER / "starter"
    command = [sys.executable, "-m", "guerdon.cli.main", "init", "trainer", "verl", "-o", folder]
    subprocess.run(list(map(str, command)), check=True, capture_output=True)
    lines = (folder / "reward.args").read_text().split()
    with initialize_config_module("verl.trainer.config", version_base=None):
        composed = compose("ppo_trainer", overrides=lines)
    data = streaming(tokenizer, cases.ROWS)
    return [row["reward_score"] for row in singles(tokenizer, data, composed)]


def on_ray(tokenizer):
    import ray
    from verl.experimental.reward_loop import RewardLoopManager

    rows = cases.ROWS[:-1]
    data = streaming(tokenizer, rows)
    temporary = tempfile.mkdtemp(prefix="ray", dir="/tmp")
    ray.init(
        num_cpus=4,
        include_dashboard=False,
        log_to_driver=False,
        _temp_dir=temporary,
        runtime_env={"env_vars": {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}},
    )
    try:
        seen = {
            "composite": contract.ray_scores(
                RewardLoopManager, data, config({"reward": cases.reference("composite")})
            )
        }
        few = config({"reward": cases.reference("composite")}, workers=4)
        seen["few"] = contract.ray_scores(RewardLoopManager, data[:2], few)
        loop = RewardLoopManager(config({"reward": f"{REWARDS}:steps"}))
        try:
            seen["tokens"] = loop.compute_rm_score(data).batch["rm_scores"].tolist()
        finally:
            for worker in loop.reward_loop_workers:
                ray.kill(worker)
        return seen
    finally:
        ray.shutdown()
        shutil.rmtree(temporary, ignore_errors=True)


def main():
    torch.set_num_threads(1)
    contract.make_tokenizer(FOLDER / "tokenizer")
    tokenizer = AutoTokenizer.from_pretrained(FOLDER / "tokenizer")
    seen = {
        "in_process": in_process(tokenizer),
        "several_outputs": several_outputs(tokenizer),
        "legacy": legacy(tokenizer),
        "agent_loop": rows_of_the_agent_loop(tokenizer),
        "broken": broken_rows(tokenizer),
        "overlong": overlong(tokenizer),
        "legacy_batches": legacy_batches(tokenizer),
        "streamed": streamed(tokenizer),
        "imports": what_import_verl_loads(),
        "kl": kl(),
        "starter": starter(tokenizer),
    }
    ours.close()
    seen["ray"] = on_ray(tokenizer)
    (FOLDER / "seen.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main()
