"""Drives TRL's own trainers with our functions; run by `test_trl_contract.py`.

    TRL_PYTHON trl_contract.py FOLDER

FOLDER is empty and the driver's own. What TRL saw is written to FOLDER/seen.json.
"""

import asyncio
import json
import os
import pickle
import sys
from pathlib import Path
from types import SimpleNamespace

FOLDER = Path(sys.argv[1]).resolve()
os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", CUDA_VISIBLE_DEVICES="")

import torch  # noqa: E402
from datasets import Dataset  # noqa: E402
from tokenizers import Tokenizer, decoders, models, pre_tokenizers  # noqa: E402
from transformers import (  # noqa: E402
    AutoTokenizer,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer  # noqa: E402
from trl.trainer.utils import get_callable_name, is_async_callable  # noqa: E402

from guerdon.policy import NO_RETRY, Assign, Policy  # noqa: E402
from guerdon.registry import load_file  # noqa: E402
from guerdon.trainers.trl import reward_function  # noqa: E402

cases = load_file(str(Path(__file__).parents[1] / "parity" / "cases.py"))
rewards = load_file(str(Path(__file__).parents[1] / "parity" / "rewards.py"))
GROUP = 4
MASKED = Policy(retry=NO_RETRY, on={"data": "mask", "scorer": "mask", "infrastructure": "mask"})
LOW = Policy(retry=NO_RETRY, on={"data": Assign(-1.0)})
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_model(path):
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<|im_start|>", "<|im_end|>", "<|pad|>"]
    vocabulary = {token: i for i, token in enumerate(special + alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|pad|>",
        additional_special_tokens=["<|im_start|>"],
    )
    made.chat_template = TEMPLATE
    made.save_pretrained(path)
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(made),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=256,
        eos_token_id=made.eos_token_id,
        pad_token_id=made.pad_token_id,
    )
    Qwen2ForCausalLM(config).save_pretrained(path)


def lottery(response, step, number):
    """Sync: uses the trainer's step; does not apply to every third prompt."""
    return None if number % 3 == 2 else (len(response) + step) % 7 / 7


async def broken_for_some(response):
    """Async: fails for some generations of a prompt and not for others."""
    from guerdon.errors import BadInput

    if len(response) % 2 == 0:
        raise BadInput("unusable")
    return {"score": min(len(response) / 100, 1.0), "letters": len(response)}


def dataset(conversational):
    prompts = [f"What is {i}+1?" for i in range(8)]
    return Dataset.from_dict(
        {
            "prompt": [[{"role": "user", "content": p}] for p in prompts]
            if conversational
            else prompts,
            "answer": [str(i + 1) for i in range(8)],
            "number": list(range(8)),
            "judge": ["down" if i == 3 else "up" for i in range(8)],
            "fault": [""] * 8,
        }
    )


def arguments(kind, name, **more):
    usual = {"per_device_train_batch_size": 8, "max_steps": 2, "save_strategy": "no"}
    return kind(
        output_dir=str(FOLDER / name),
        num_generations=GROUP,
        max_completion_length=8,
        logging_steps=1,
        report_to=[],
        use_cpu=True,
        seed=1,
        **{**usual, **more},
    )


def several():
    return [
        reward_function(cases.reference("composite"), num_generations=GROUP),
        reward_function(lottery, sync=True),
    ]


def one():
    return [reward_function(broken_for_some, policy=MASKED, name="some")]


def train(kind, config_kind, name, made, conversational=False, **more):
    """Two steps; records what came out of `_calculate_rewards` and what was logged."""
    trainer = kind(
        model=str(FOLDER / "model"),
        reward_funcs=made,
        args=arguments(config_kind, name, **more),
        train_dataset=dataset(conversational),
        processing_class=AutoTokenizer.from_pretrained(FOLDER / "model"),
    )
    calls = []
    calculate = trainer._calculate_rewards

    def note_advantages():
        if calls:
            calls[-1]["advantages"] = list(trainer._logs["advantages"])

    def recorded(inputs, prompts, completions, ids):
        note_advantages()
        found = calculate(inputs, prompts, completions, ids)
        calls.append(
            {
                "rewards": [[None if v != v else v for v in row] for row in found.tolist()],
                "numbers": [row["number"] for row in inputs],
                "answers": [row["answer"] for row in inputs],
                "judges": [row["judge"] for row in inputs],
                "step": trainer.state.global_step,
                "completions": [c if isinstance(c, str) else c[-1]["content"] for c in completions],
            }
        )
        return found

    trainer._calculate_rewards = recorded
    trainer.train()
    note_advantages()
    seen = {
        "names": trainer.reward_func_names,
        "calls": calls,
        "log": [entry for entry in trainer.state.log_history if "reward" in entry],
        "extra": {key: list(column) for key, column in trainer._logs["extra"].items()},
        "rows": len(trainer._logs["prompt"]),
    }
    return trainer, seen


def call_site(trainer):
    """The parity rows through the trainer's own `_calculate_rewards`."""
    seen = {}
    for name in cases.REWARDS:
        reference = rewards.RULE if name == "rule" else cases.reference(name)
        seen[name] = through(trainer, reward_function(reference), cases.ROWS)
    for fault in ("crashed", "raised", "non_finite", "bad_input", "abstention"):
        rows = cases.rows_with(fault)
        pool = {"pool": {"workers": 1}}
        masked = reward_function(cases.reference("faulty"), backend=pool, policy=MASKED)
        seen[f"{fault} masked"] = through(trainer, masked, rows)
        masked.close()
        strict = reward_function(cases.reference("faulty"), sync=True, backend=pool)
        try:
            seen[f"{fault} raises"] = through(trainer, strict, rows)
        except Exception as error:
            seen[f"{fault} raises"] = f"{type(error).__name__}: {error}"
        strict.close()
    return seen


def through(trainer, function, rows):
    trainer.reward_funcs = [function]
    trainer.reward_func_names = [function.__name__]
    trainer.reward_processing_classes = [None]
    trainer._pending_extra_logs.clear()
    trainer._pending_metrics.clear()
    inputs = [
        {
            "prompt": row.prompt,
            "ground_truth": row.ground_truth,
            "data_source": row.data_source,
            "judge": row.judge,
            "fault": row.fault,
        }
        for row in rows
    ]
    calculate = type(trainer)._calculate_rewards
    found = calculate(
        trainer,
        inputs,
        [row.prompt for row in rows],
        [row.response for row in rows],
        [list(row.response.encode()) for row in rows],
    )
    return {
        "name": function.__name__,
        "rewards": [None if v != v else v for v in found[:, 0].tolist()],
        "columns": dict(trainer._pending_extra_logs),
    }


def evaluation():
    """A step of training, then TRL's evaluation: another size of groups, and another policy."""
    trainer = GRPOTrainer(
        model=str(FOLDER / "model"),
        reward_funcs=[
            reward_function(broken_for_some, name="some", policy={"train": MASKED, "eval": LOW}),
        ],
        args=arguments(
            GRPOConfig, "evaluation", max_steps=1, num_generations_eval=2, eval_strategy="no"
        ),
        train_dataset=dataset(False),
        eval_dataset=dataset(False).select(range(4)),
        processing_class=AutoTokenizer.from_pretrained(FOLDER / "model"),
    )
    groups = []
    score = trainer.reward_funcs[0].service.score

    async def noted(samples, **keywords):
        groups.append([[sample.group_id for sample in samples], keywords["split"]])
        return await score(samples, **keywords)

    trainer.reward_funcs[0].service.score = noted
    trainer.train()
    trained = trainer.state.log_history[0]
    evaluated = trainer.evaluate()
    return {"groups": groups, "train": trained, "eval": evaluated}


def weighted():
    """Two functions with weights of TRL's own."""
    made = [reward_function(lottery, sync=True), reward_function(size, name="size")]
    return train(GRPOTrainer, GRPOConfig, "weighted", made, reward_weights=[2.0, 0.5])[1]


def size(response):
    return float(len(response))


def resumed():
    """Two steps in two runs: the second starts from the first one's checkpoint."""
    steps = []
    for more in ({"max_steps": 1}, {"max_steps": 2}):
        trainer = GRPOTrainer(
            model=str(FOLDER / "model"),
            reward_funcs=[reward_function(step_of, name="steps")],
            args=arguments(GRPOConfig, "resumed", save_strategy="steps", save_steps=1, **more),
            train_dataset=dataset(False),
            processing_class=AutoTokenizer.from_pretrained(FOLDER / "model"),
        )
        trainer.train(resume_from_checkpoint=bool(steps))
        steps.append([e["rewards/steps/mean"] for e in trainer.state.log_history if "reward" in e])
    return steps


def step_of(response, step):
    return float(step)


def environments(trainer):
    """What TRL hands over where environments made the completions."""
    trainer.environments = [Counter(n) for n in range(len(cases.ROWS))]
    try:
        return through(trainer, reward_function(counted), cases.ROWS)["rewards"]
    finally:
        trainer.environments = None


class Counter:
    def __init__(self, count):
        self.count = count


def counted(response, environment):
    return float(environment.count)


def async_grpo():
    """A group through the worker of async GRPO, whose functions come to it in a pickle."""
    from trl.experimental.async_grpo import async_rollout_worker

    made = [reward_function(cases.reference("composite")), reward_function(letters, sync=True)]
    (kind,) = [
        found
        for found in vars(async_rollout_worker).values()
        if isinstance(found, type) and "_score_group" in vars(found)
    ]
    worker = object.__new__(kind)
    worker.reward_funcs = pickle.loads(pickle.dumps(made))
    worker.reward_func_names = [get_callable_name(function) for function in made]
    worker._env_reward_types, worker._provides_rollout_reward = [], False
    rows = cases.ROWS[:4]
    group = SimpleNamespace(
        prompts=[row.prompt for row in rows],
        completions=[row.response for row in rows],
        completions_ids=[list(row.response.encode()) for row in rows],
        completions_sequences=[[] for _ in rows],
        reward_kwargs={
            "ground_truth": [row.ground_truth for row in rows],
            "judge": [row.judge for row in rows],
        },
        env_rewards=[None] * 4,
        tool_call_counts=[0] * 4,
        tool_failure_counts=[0] * 4,
        model_version=0,
    )
    seen = []
    gather = asyncio.gather

    async def noted(*calls):
        seen.extend(await gather(*calls))
        return seen

    async_rollout_worker.asyncio = SimpleNamespace(gather=noted, to_thread=asyncio.to_thread)
    try:
        asyncio.run(worker._score_group(group))
    finally:
        async_rollout_worker.asyncio = asyncio
    return {"names": worker.reward_func_names, "rewards": seen}


def letters(response):
    return float(len(response))


def forms():
    """How TRL's own inspection sees the functions, before and after a pickle."""
    seen = {}
    for sync in (False, True):
        function = reward_function(cases.reference("composite"), sync=sync)
        for step, there in (("made", function), ("copied", pickle.loads(pickle.dumps(function)))):
            seen[f"{'sync' if sync else 'async'} {step}"] = [
                get_callable_name(there),
                is_async_callable(there),
            ]
    return seen


def main():
    make_model(FOLDER / "model")
    torch.set_num_threads(1)
    seen = {"forms": forms()}
    trainer, seen["grpo"] = train(GRPOTrainer, GRPOConfig, "grpo", several())
    seen["call_site"] = call_site(trainer)
    seen["environments"] = environments(trainer)
    seen["evaluation"] = evaluation()
    seen["weighted"] = weighted()
    seen["resumed"] = resumed()
    seen["async_grpo"] = async_grpo()
    _, seen["grpo_chat"] = train(GRPOTrainer, GRPOConfig, "grpo_chat", several(), True)
    _, seen["grpo_masked"] = train(GRPOTrainer, GRPOConfig, "grpo_masked", one())
    _, seen["rloo"] = train(RLOOTrainer, RLOOConfig, "rloo", several())
    _, seen["rloo_masked"] = train(RLOOTrainer, RLOOConfig, "rloo_masked", one())
    try:
        train(GRPOTrainer, GRPOConfig, "refused", several() + one())
        seen["refused"] = None
    except Exception as error:
        seen["refused"] = f"{type(error).__name__}: {error}"
    (FOLDER / "seen.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main()
