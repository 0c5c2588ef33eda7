"""Writes the files of `guerdon init trainer NAME` and gives them to the trainer's own code.

    TRAINER_PYTHON starter_contract.py FOLDER NAME        run by `test_starter_contract.py`

What the trainer made of them is written to FOLDER/seen.json: mostly the rewards of a right and of a
wrong answer.
"""

import ast
import asyncio
import json
import os
import runpy
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from guerdon.registry import load_file
from guerdon.trainers.starter import write

FOLDER, NAME = Path(sys.argv[1]).resolve(), sys.argv[2]
RUN = FOLDER / "a (run)'s"
DRIVERS = Path(__file__).parent
ROWS = (("#### 42", "42"), ("#### 41", "42"))
os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")


def arguments_of(script):
    """What a shell script gives to `python -m MODULE`."""
    stub = FOLDER / "bin" / "python"
    stub.parent.mkdir()
    stub.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >{FOLDER / "arguments"}\n')
    stub.chmod(0o755)
    path = f"{stub.parent}:{os.environ['PATH']}"
    subprocess.run(["bash", str(script)], check=True, env={**os.environ, "PATH": path})
    flag, module, *arguments = (FOLDER / "arguments").read_text().splitlines()
    assert flag == "-m"
    return module, arguments


def contract_of(trainer):
    """The driver of the trainer's contract test, for its rows and stand-ins."""
    kept, sys.argv = sys.argv, [f"{trainer}_contract.py", str(FOLDER)]
    contract = load_file(str(DRIVERS / f"{trainer}_contract.py"))
    sys.argv = kept
    rows = [
        contract.cases.Row(text, "6*7?", text, truth, 0.0, 0.0, data_source="openai/gsm8k")
        for text, truth in ROWS
    ]
    return contract, rows


def verl():
    from hydra import compose, initialize_config_module
    from transformers import AutoTokenizer

    contract, rows = contract_of("verl")
    module, overrides = arguments_of(RUN / "train.sh")
    with initialize_config_module("verl.trainer.config", version_base=None):
        composed = compose("ppo_trainer", overrides=overrides)
    contract.make_tokenizer(FOLDER / "tokenizer")
    tokenizer = AutoTokenizer.from_pretrained(FOLDER / "tokenizer")
    data = contract.make_data(tokenizer, rows)
    _, found = asyncio.run(contract.run_singles(tokenizer, data, composed))
    return {
        "rewards": [row["reward_score"] for row in found],
        "config": [module, composed.reward.reward_manager.name, composed.trainer.total_epochs],
    }


def trl():
    import torch

    script = runpy.run_path(str(RUN / "train.py"))
    chosen = {}
    for there in (True, False):
        torch.accelerator.is_available = lambda there=there: there
        for model in (None, "some/model"):
            made = script["settings_for"](model, None)
            chosen[f"{model} {there}"] = [made["use_cpu"], made["max_completion_length"]]
    script["make_tiny_model"](FOLDER / "model")
    given = ["--model", str(FOLDER / "model"), "--completion-tokens", "8"]
    # A ground truth that nobody could match: the policy of the script masks every row.
    (FOLDER / "masked").mkdir()
    write(NAME, FOLDER / "masked")
    problems = FOLDER / "masked" / "problems.jsonl"
    rows = [json.loads(line) for line in problems.read_text().splitlines()]
    problems.write_text("".join(json.dumps({**row, "ground_truth": ""}) + "\n" for row in rows))
    return {
        "chosen": chosen,
        "tiny": trained(RUN, "--steps", "2"),
        "given": trained(RUN, "--steps", "1", *given),
        "masked": trained(FOLDER / "masked", "--steps", "1"),
    }


def trained(folder, *arguments):
    """What `train.py` printed."""
    command = [sys.executable, "train.py", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return [line for line in done.stdout.splitlines() if line.startswith(("step ", "on "))]


def openrlhf():
    from openrlhf.utils import agent

    module, arguments = arguments_of(RUN / "train.sh")
    executor = agent.SingleTurnAgentExecutor([str(RUN / "reward.py")])
    found = [
        asyncio.run(executor._fetch_rewards_via_func([f"6*7?{text}</s>"], ["6*7?"], [truth]))
        for text, truth in ROWS
    ]
    return {
        "rewards": [one[0]["rewards"] for one in found],
        "config": parsed_by_openrlhf(module, arguments),
    }


def parsed_by_openrlhf(module, arguments):
    """The command line through the parser and the checks of OpenRLHF's script.

    The script is run without what it imports at its top (vLLM, DeepSpeed) and without its end.
    """
    source = Path(find_spec("openrlhf").origin).parent / "cli"
    tree = ast.parse((source / f"{module.rpartition('.')[2]}.py").read_text())
    (main,) = [node for node in tree.body if isinstance(node, ast.If)]
    assert ast.unparse(main.body.pop()) == "train(args)"
    imports = "import argparse, os\nfrom datetime import datetime\n"
    code = ast.Module([*ast.parse(imports).body, *main.body], [])
    names = {}
    kept, sys.argv = sys.argv, [module, *arguments]
    exec(compile(code, module, "exec"), names)
    sys.argv = kept
    args = names["args"]
    return {"url": args.reward.remote_url, "label": args.data.label_key}


def areal():
    sys.path.insert(0, str(RUN))
    from areal.utils.dynamic_import import import_from_string

    contract, rows = contract_of("areal")
    given = import_from_string("workflow.WORKFLOW")
    kind, settings = import_from_string(given["workflow"]), given["workflow_kwargs"]
    contract.all_rows = lambda: rows
    found = asyncio.run(contract.episodes(kind, rows=rows, **settings))
    by_path = import_from_string("reward.reward_fn")
    return {
        "rewards": [row[0] for row in found],
        "by path": [by_path("6*7?", text, [1], [2], answer=truth) for text, truth in ROWS],
    }


def verifiers():
    import tomllib

    contract, rows = contract_of("verifiers")
    config = tomllib.loads((RUN / "rewards.toml").read_text())["env"]["taskset"]["task"]
    rewards = []
    for row in rows:
        data = contract.data_of(row)
        said = [contract.UserMessage(content=row.prompt)]
        trace = contract.trace_of(data, [*said, contract.AssistantMessage(content=row.response)])
        asyncio.run(contract.RowTask(data, contract.TaskConfig(**config)).score(trace))
        rewards.append(trace.rewards["correct"].score)
    return {"rewards": rewards}


def skyrl():
    import skyrl_gym
    from omegaconf import OmegaConf

    runpy.run_path(str(RUN / "register.py"))
    lines = (RUN / "environment.args").read_text().splitlines()
    config = OmegaConf.from_dotlist([line.removeprefix("+") for line in lines]).environment
    rewards = []
    for text, truth in ROWS:
        env = skyrl_gym.make(
            config.env_class,
            env_config=config.skyrl_gym[config.env_class],
            extras={"reward_spec": {"method": "rule", "ground_truth": truth}},
        )
        env.init([{"role": "user", "content": "6*7?"}])
        rewards.append(env.step(text)["reward"])
    return {"rewards": rewards}


TRAINERS = {one.__name__: one for one in (areal, openrlhf, skyrl, trl, verifiers, verl)}


def main():
    write(NAME, RUN)
    (FOLDER / "seen.json").write_text(json.dumps(TRAINERS[NAME]()))


if __name__ == "__main__":
    main()
