"""Loads reward functions that a trainer ships, unchanged; run by `test_own_contract.py`.

    TRAINER_PYTHON own_contract.py FOLDER TRAINER

What each function gave through Guerdon, and when called as its trainer calls it, is written to
FOLDER/seen.json.
"""

import asyncio
import inspect
import json
import logging
import sys
from pathlib import Path

from guerdon import registry
from guerdon.policy import NO_RETRY, Policy
from guerdon.sample import Message, Sample
from guerdon.service import RewardService

FOLDER, TRAINER = Path(sys.argv[1]).resolve(), sys.argv[2]
MASKED = Policy(retry=NO_RETRY, on={"scorer": "mask", "infrastructure": "mask", "data": "mask"})

ROWS = (
    # response, ground truth, data source
    ("6*7 is 42\n#### 42", "42", "openai/gsm8k"),
    ("<think>6*7</think>\nso \\boxed{42}", "42", "lighteval/MATH"),
    ("Answer: \\boxed{41}\n#### 41", "42", "math_dapo"),
    ("<answer>42</answer>\nAnswer: 42", "42", "openai/gsm8k"),
    ("I count [42]", "42", "lighteval/MATH"),
    ("", "42", "lighteval/MATH"),
)

OPENRLHF_FILE = """
import torch
from openrlhf.utils import extract_boxed_answer, grade_answer

def reward_func(queries, prompts, labels, **kwargs):
    print(queries)
    found = [extract_boxed_answer(query[len(prompt):]) for query, prompt in zip(queries, prompts)]
    right = torch.tensor([float(grade_answer(a, g)) for a, g in zip(found, labels)])
    return {"rewards": right, "scores": right, "extra_logs": {"accuracy": right.mean()}}
"""


def verl(reference):
    function = registry.target_of(reference)
    names = inspect.signature(function).parameters
    responses, truths, sources = (list(column) for column in zip(*ROWS, strict=True))
    if "solution_strs" in names:
        return function(sources, responses, truths, [{} for _ in ROWS])
    if "data_source" in names:
        return [
            function(data_source=s, solution_str=r, ground_truth=t, extra_info={})
            for r, t, s in ROWS
        ]
    return [function(response, truth) for response, truth, _ in ROWS]


def trl(reference):
    function = registry.target_of(reference)
    talk = [[{"role": "assistant", "content": response}] for response, _, _ in ROWS]
    columns = {"prompts": [""] * len(ROWS), "solution": [truth for _, truth, _ in ROWS]}
    return function(completions=talk, completion_ids=[[]] * len(ROWS), **columns)


def areal(reference):
    function = registry.target_of(reference)
    return [function("6*7?", response, [], [], answer=truth) for response, truth, _ in ROWS]


def openrlhf(reference):
    function = registry.target_of(reference)
    calls = [function([f"6*7?{response}"], ["6*7?"], [truth]) for response, truth, _ in ROWS]
    return [call["rewards"] for call in calls]


FUNCTIONS = {
    "verl": [
        "verl.utils.reward_score:default_compute_score",
        *(
            f"verl.utils.reward_score.{name}"
            for name in (
                "gsm8k:compute_score",
                "math_reward:compute_score",
                "math_dapo:compute_score",
                "geo3k:compute_score",
                "math_verify:compute_score",
                "math_batch:compute_score_batched",
            )
        ),
    ],
    "trl": ["trl.rewards:accuracy_reward", "trl.rewards:think_format_reward"],
    "areal": [
        "areal.reward.gsm8k:gsm8k_reward_fn",
        "areal.reward.geometry3k:geometry3k_reward_fn",
        "areal.reward.clevr_count_70k:clevr_count_70k_reward_fn",
    ],
    "openrlhf": [f"{FOLDER / 'reward_func.py'}:reward_func"],
}


AS_THEY_ARE = {"verl": verl, "trl": trl, "areal": areal, "openrlhf": openrlhf}


def number(result):
    """What the trainer takes of a result."""
    if isinstance(result, dict):
        result = result["score"]
    if isinstance(result, tuple | list):
        result = result[0]
    return None if result is None else float(result)


def through_guerdon(reference):
    reward = registry.resolve(f"{TRAINER}:{reference}")
    talk = TRAINER == "trl"
    samples = [
        Sample(
            prompt=(Message("user", "6*7?"),) if talk else "6*7?",
            response=response,
            ground_truth=truth,
            data_source=source,
        )
        for response, truth, source in ROWS
    ]
    with RewardService(reward, backend="inline", policy=MASKED) as service:
        outcomes = asyncio.run(service.score(samples))
    return [getattr(outcome, "value", None) for outcome in outcomes], [
        getattr(outcome, "message", "") for outcome in outcomes
    ]


def main():
    logging.disable(logging.WARNING)
    (FOLDER / "reward_func.py").write_text(OPENRLHF_FILE)
    seen = {}
    for reference in FUNCTIONS[TRAINER]:
        name = reference.rpartition("/")[2]
        ours, messages = through_guerdon(reference)
        theirs = [number(one) for one in AS_THEY_ARE[TRAINER](reference)]
        seen[name] = {"theirs": theirs, "ours": ours, "messages": messages}
    (FOLDER / "seen.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main()
