"""Drives AReaL's own wrapper and workflows with our functions; run by `test_areal_contract.py`.

    AREAL_PYTHON areal_contract.py FOLDER ADDRESS

ADDRESS is that of a server that hosts the rewards. What AReaL saw is written to FOLDER/seen.json.
"""

import asyncio
import json
import logging
import os
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace

FOLDER = Path(sys.argv[1]).resolve()
os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
# Loggers that the trainer imports, and that nobody logs to here.
for absent in ("swanlab", "wandb", "trackio", "tensorboardX"):
    sys.modules[absent] = ModuleType(absent)
sys.modules["tensorboardX"].SummaryWriter = None

from areal.api import AsyncRewardWrapper, ModelResponse  # noqa: E402
from areal.api.cli_args import GenerationHyperparameters  # noqa: E402
from areal.infra import workflow_context  # noqa: E402
from areal.trainer.rl_trainer import PPOTrainer  # noqa: E402
from areal.utils import stats_tracker  # noqa: E402
from areal.utils.dynamic_import import import_from_string  # noqa: E402
from areal.workflow.rlvr import RLVRWorkflow  # noqa: E402
from areal.workflow.vision_rlvr import VisionRLVRWorkflow  # noqa: E402

from guerdon.registry import load_file  # noqa: E402
from guerdon.remote import RemoteReward  # noqa: E402
from guerdon.trainers import areal as ours  # noqa: E402

cases = load_file(str(Path(__file__).parents[1] / "parity" / "cases.py"))
END = 256
WORKERS = 2
AWAITED_OR_POOLED = AsyncRewardWrapper.__call__
"""As importing `guerdon.trainers.areal` has left it."""


@contextmanager
def theirs_alone():
    """AReaL's wrapper without our change, as where AReaL came after our functions."""
    AsyncRewardWrapper.__call__ = AWAITED_OR_POOLED.__wrapped__
    try:
        yield
    finally:
        AsyncRewardWrapper.__call__ = AWAITED_OR_POOLED


NEUTRAL = 0.125


class ByteTokenizer:
    """One token per byte, and one that ends a response."""

    eos_token_id = pad_token_id = END

    def encode(self, text):
        return list(text.encode())

    def decode(self, ids, skip_special_tokens=False, **_):
        text = bytes(token for token in ids if token != END).decode()
        return text + "<|im_end|>" * (END in ids and not skip_special_tokens)

    def apply_chat_template(self, messages, **_):
        return {"input_ids": self.encode("".join(message["content"] for message in messages))}


class Engine:
    """Generates the response of the row that is asked for."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        self.responses = {row.prompt + row.name: row.response for row in all_rows()}

    async def agenerate(self, req):
        prompt = self.tokenizer.decode(req.input_ids)
        output = [*self.tokenizer.encode(self.responses[prompt]), END]
        return ModelResponse(
            input_tokens=list(req.input_ids),
            output_tokens=output,
            output_logprobs=[0.0] * len(output),
            output_versions=[0] * len(output),
        )


def all_rows():
    faulty = [row for fault in (*cases.FAULTS, "abstention") for row in named_faults(fault)]
    return [*cases.ROWS, *faulty]


def named_faults(fault):
    return [row._replace(name=f"{fault} {i}") for i, row in enumerate(cases.rows_with(fault))]


def columns(row, **more):
    return {"answer": row.ground_truth, "judge": row.judge, "fault": row.fault, **more}


def data_of(row):
    return columns(row, messages=[{"role": "user", "content": row.prompt + row.name}])


def input_ids(messages, tokenizer, _):
    return tokenizer.encode(messages[0]["content"])


def workflow(kind, reward_fn, **more):
    tokenizer = ByteTokenizer()
    config = GenerationHyperparameters(max_new_tokens=64)
    return kind(reward_fn, config, tokenizer, get_input_ids_fn=input_ids, **more), tokenizer


async def episodes(kind, reward_fn, rows, **more):
    """What becomes of each row's episode: its tensors' reward, or the exception."""
    made, tokenizer = workflow(kind, reward_fn, **more)
    workflow_context.set(workflow_context.WorkflowContext(is_eval=False, task_id=0))
    engine = Engine(tokenizer)
    found = await asyncio.gather(
        *[made.arun_episode(engine, data_of(row)) for row in rows], return_exceptions=True
    )
    return [
        one["rewards"].tolist() if isinstance(one, dict) else f"{type(one).__name__}: {one}"
        for one in found
    ]


def references():
    return {
        name: "guerdon.rules.gsm8k:gsm8k" if name == "rule" else cases.reference(name)
        for name in cases.REWARDS
    }


async def values():
    seen = {}
    for name, reference in references().items():
        sync = ours.reward_fn_for(reference)
        seen[f"wrapped {name}"] = await episodes(RLVRWorkflow, sync, cases.ROWS)
        with theirs_alone():
            seen[f"pool {name}"] = await episodes(RLVRWorkflow, sync, cases.ROWS)
        theirs = import_from_string("guerdon.trainers.areal.RLVRWorkflow")
        stats_tracker.export_all()
        seen[f"awaited {name}"] = await episodes(theirs, reference, cases.ROWS)
        seen[f"statistics {name}"] = stats_tracker.export_all()
        workers = {"backend": {"pool": {"workers": 1}}}
        seen[f"workers {name}"] = await episodes(
            theirs, reference, cases.ROWS, reward_settings=workers
        )
        remote = RemoteReward(sys.argv[2], name)
        seen[f"remote {name}"] = await episodes(theirs, remote, cases.ROWS)
    return seen


async def wrapper(function, *arguments, timing=(15, 3), **keywords):
    seconds, tries = timing
    wrapped = AsyncRewardWrapper(function, seconds, max_workers=WORKERS, max_retries=tries)
    try:
        found = await wrapped(*arguments, **keywords)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return [type(found).__name__, found]


async def calls():
    """The real wrapper: both ways of calling, columns that collide, the functions by path."""
    exact = ours.reward_fn_for(cases.reference("rule_of_text"))
    seen = {
        "positional": await wrapper(exact, "2 + 2?", "4", [1], [2], answer="4"),
        "by name": await wrapper(
            exact, prompt="2 + 2?", completions="4", prompt_ids=[1], completion_ids=[2], answer="4"
        ),
        "no answer": await wrapper(exact, "2 + 2?", "4", [1], [2]),
        "missing": await wrapper(exact, "2 + 2?", "4", [1]),
    }
    for name, text, answer in (
        ("gsm8k", "so\n#### 42", "6*7 = 42\n#### 42"),
        ("geometry3k", "<think>x</think>\\boxed{3}", "3"),
        ("clevr_count_70k", "I see [3]", "3"),
    ):
        path = f"guerdon.trainers.areal.{name}_reward_fn"
        seen[name] = await wrapper(import_from_string(path), "?", text, [1], [2], answer=answer)
    vision = VisionRLVRWorkflow.__new__(VisionRLVRWorkflow)
    vision.tokenizer, vision.async_reward_fn = ByteTokenizer(), AsyncRewardWrapper(exact)
    response = ModelResponse(input_tokens=[50], output_tokens=[52, END])
    seen["vision"] = await vision._compute_rewards(response, "2 + 2?", {"answer": "4"})
    awaited = ours.async_reward_fn_for(cases.reference("rule_of_text"))
    vision.async_reward_fn = awaited
    seen["vision awaited"] = await vision._compute_rewards(response, "2 + 2?", {"answer": "4"})
    seen["async in the wrapper"] = await wrapper(awaited, "2 + 2?", "4", [1], [2], answer="4")
    with theirs_alone():
        seen["async in the pool"] = await wrapper(awaited, "2 + 2?", "4", [1], [2], answer="4")
        seen["sync in the pool"] = await wrapper(exact, "2 + 2?", "4", [1], [2], answer="4")
    seen["someone else's"] = await wrapper(process_of, "?", "4", [1], [2])
    return seen


def process_of(*_, **__):
    """A function that is not ours: it goes to the pool as ever."""
    return float(os.getpid())


class TurnEngine:
    """Answers wrong at first."""

    def __init__(self, tokenizer):
        self.tokenizer, self.turns = tokenizer, 0

    async def agenerate(self, req):
        self.turns += 1
        output = [*self.tokenizer.encode(f"#### {40 + self.turns}"), END]
        return ModelResponse(
            input_tokens=list(req.input_ids),
            output_tokens=output,
            output_logprobs=[0.0] * len(output),
            output_versions=[0] * len(output),
        )


async def in_turns():
    tokenizer = ByteTokenizer()
    workflow_context.set(workflow_context.WorkflowContext(is_eval=False, task_id=0))
    kind = import_from_string("guerdon.trainers.areal.MultiTurnWorkflow")
    config = GenerationHyperparameters(max_new_tokens=64)
    made = kind("gsm8k", config, tokenizer, max_turns=3, turn_discount=0.5)
    row = {"messages": [{"role": "user", "content": "6*7?"}], "answer": "42"}
    engine = TurnEngine(tokenizer)
    found = await made.arun_episode(engine, row)
    return {"rewards": found["rewards"].tolist(), "turns": engine.turns}


async def failing():
    seen = {}
    theirs = import_from_string("guerdon.trainers.areal.RLVRWorkflow")
    pool = {"pool": {"workers": 1}}
    faulty = cases.reference("faulty")
    for fault in (*cases.FAULTS, "abstention"):
        rows = named_faults(fault)
        settings = {"retry_within": 0, "backend": pool}
        seen[f"{fault} awaited"] = await episodes(theirs, faulty, rows, reward_settings=settings)
        stats_tracker.export_all()
        assigned = {**settings, "neutral": NEUTRAL, "failure_share": 1.0}
        seen[f"{fault} neutral"] = await episodes(theirs, faulty, rows, reward_settings=assigned)
        seen[f"{fault} statistics"] = stats_tracker.export_all()
    for fault in ("raised", "bad_input", "unavailable", "abstention"):
        sync = ours.reward_fn_for(faulty, retry_within=0, backend=pool)
        seen[f"{fault} wrapped"] = await episodes(RLVRWorkflow, sync, named_faults(fault))
        with theirs_alone():
            seen[f"{fault} pool"] = await episodes(RLVRWorkflow, sync, named_faults(fault))
    slow = ours.reward_fn_for(cases.reference("endless"), timeout=1.0)
    seen["slow"] = await wrapper(slow, "?", "4", [1], [2], timing=(0.1, 0))
    with theirs_alone():
        seen["slow pool"] = await wrapper(slow, "?", "4", [1], [2])
        seen["slow trap"] = await wrapper(slow, "?", "4", [1], [2], timing=(0.1, 0))
    return seen


class LoggedEngine:
    """An engine of the trainer: says what it was asked for, and what it saw then."""

    def __init__(self, role, log, batch=None, see=None):
        self.role, self.log, self.batch, self.see = role, log, batch, see
        self.pause_generation = self.continue_generation = lambda: None

    def prepare_batch(self, *_, **__):
        self.log.append("rollout")
        return self.batch

    def get_version(self):
        return 7

    def compute_logp(self, batch):
        self.log.append([f"{self.role}.compute_logp", self.see(batch)])
        return [None] * len(batch)

    def compute_advantages(self, batch):
        self.log.append([f"{self.role}.compute_advantages", self.see(batch)])
        raise StopIteration  # the rest of the step is of no interest

    def get_device_stats(self):
        return SimpleNamespace(log=lambda name: None)

    def __getattr__(self, name):
        if name not in ("onload", "offload", "pause", "resume"):
            raise AttributeError(name)
        return lambda: self.log.append(f"{self.role}.{name}")


def trajectories():
    """Two groups as AReaL's workflows give them."""
    import torch
    from areal.utils.data import concat_padded_tensors

    tokenizer = ByteTokenizer()
    groups = []
    for responses in (["4", "four"], ["a longer answer"]):
        rows = []
        for response in responses:
            prompt, output = tokenizer.encode("2 + 2?"), [*tokenizer.encode(response), END]
            ids = prompt + output
            rows.append(
                {
                    "input_ids": torch.tensor([ids], dtype=torch.int32),
                    "loss_mask": torch.tensor([[0] * len(prompt) + [1] * len(output)]),
                    "attention_mask": torch.ones(1, len(ids), dtype=torch.bool),
                    "rewards": torch.tensor([0.5]),
                }
            )
        groups.append(concat_padded_tensors(rows))
    return groups


def step_of_the_trainer(scorer, groups, log, see, *, offloads):
    """AReaL's own `PPOTrainer.train`, up to the advantages of its first step."""
    trainer = PPOTrainer.__new__(PPOTrainer)
    actor = LoggedEngine("actor", log, groups, see)
    ref = LoggedEngine("ref", log, see=see)
    generation = SimpleNamespace(n_samples=2)
    actor_config = SimpleNamespace(should_compute_prox_logp=lambda: False)
    trainer.config = SimpleNamespace(
        total_train_epochs=1, total_train_steps=1, gconfig=generation, dynamic_bs=False
    )
    trainer.config.actor = actor_config
    trainer.actor, trainer.ref, trainer.critic, trainer.teacher = actor, ref, None, None
    trainer.rollout, trainer.eval_rollout = LoggedEngine("rollout", log), None
    trainer.recover_info, trainer.train_dataloader = None, [None]
    for role in ("rollout", "actor", "critic", "ref", "teacher"):
        setattr(trainer, f"_should_offload_{role}", offloads)
    trainer._requires_proxy_workflow = lambda workflow: False
    scorer.install(trainer)
    try:
        trainer.train(workflow="any")
    except StopIteration:
        log.append("end")


def in_the_loop():
    from guerdon.models.lock import DeviceLock
    from guerdon.models.scalar import ScalarRewardModel
    from guerdon.models.tiny import make_tiny
    from guerdon.trainers.areal_rollout import RolloutScorer

    seen = {}
    for offloads in (True, False):
        log, groups = [], trajectories()
        with RolloutScorer(
            cases.reference("length"), tokenizer=ByteTokenizer(), mode="add"
        ) as scorer:
            step_of_the_trainer(
                scorer,
                groups,
                log,
                lambda batch: [g["rewards"].tolist() for g in batch],
                offloads=offloads,
            )
        seen["offloads" if offloads else "stays"] = log
        seen["dtype"] = [str(group["rewards"].dtype) for group in groups]

    log, groups = [], trajectories()

    class LoggedModel(ScalarRewardModel):
        auto_register = False

        def onload(self):
            log.append("model.onload")
            return super().onload()

        def offload(self):
            log.append("model.offload")
            return super().offload()

    with tempfile.TemporaryDirectory() as folder:
        model = LoggedModel(str(make_tiny(f"{folder}/model")), device="cpu")
        lock = DeviceLock("cpu", folder=folder)
        with RolloutScorer(model, tokenizer=ByteTokenizer(), lock=lock) as scorer:
            step_of_the_trainer(
                scorer, groups, log, lambda batch: model.residency.state, offloads=True
            )
    seen["model"] = [event if isinstance(event, str) else " ".join(event) for event in log]
    seen["model values"] = [group["rewards"].tolist() for group in groups]
    return seen


def main():
    logging.disable(logging.WARNING)
    seen = {
        "process": float(os.getpid()),
        "values": asyncio.run(values()),
        "calls": asyncio.run(calls()),
        "turns": asyncio.run(in_turns()),
        "failing": asyncio.run(failing()),
        "loop": in_the_loop(),
    }
    ours.close()
    (FOLDER / "seen.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main()
