"""Reward functions as users of trainers write them; none of them knows Guerdon."""

import asyncio
import functools
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
CALLS = {"count": 0}


def compute_score(data_source, solution_str, ground_truth, extra_info=None, **kwargs):
    """Exact match, as verl calls it."""
    solution_str = solution_str.strip()
    return {
        "score": float(solution_str == ground_truth) * kwargs.get("scale", 1.0),
        "acc": solution_str == ground_truth,
        "pred": solution_str,
        "source": data_source,
    }


async def compute_score_async(data_source, solution_str, ground_truth, extra_info=None):
    await asyncio.sleep(0)
    return float(solution_str.strip() == ground_truth)


def passed_on(function):
    """A decorator that keeps the name and hides what kind of function it is."""

    @functools.wraps(function)
    def inner(*arguments, **keywords):
        return function(*arguments, **keywords)

    return inner


@passed_on
def noisy(data_source, solution_str, ground_truth, extra_info=None):
    """Prints, counts, reads a file beside itself, and writes into what it is given."""
    print("noise")
    CALLS["count"] += 1
    assert (HERE / "own_functions.py").is_file()
    extra_info["level"] = 9
    extra_info.setdefault("tags", []).append("seen")
    return np.float32(solution_str.strip() == ground_truth)


def keyword_only(*, data_source, solution_str, ground_truth, extra_info):
    right = solution_str.strip() == ground_truth
    return {"score": np.float64(right), "acc": np.bool_(right), "length": np.int64(1)}


scaled = functools.partial(compute_score, scale=0.5)


class Counter:
    """An object with state of its own."""

    def __init__(self):
        self.seen = 0

    def __call__(self, data_source, solution_str, ground_truth, extra_info=None):
        self.seen += 1
        return float(solution_str.strip() == ground_truth)


counter = Counter()
hidden = passed_on(compute_score_async)


def in_batches(data_sources, solution_strs, ground_truths, extra_infos):
    rows = zip(data_sources, solution_strs, ground_truths, extra_infos, strict=True)
    return [{"score": float(s.strip() == g), "turns": e["num_turns"]} for d, s, g, e in rows]


def of_one_dataset(solution_str, ground_truth, method="strict"):
    """As verl's own scorers are, with a tuple of which the first is the number."""
    return solution_str.strip() == ground_truth, method


def not_a_number(data_source, solution_str, ground_truth, extra_info=None):
    return {"score": float("nan")}


def without_a_score(data_source, solution_str, ground_truth, extra_info=None):
    return {"acc": 1.0}


def a_text(data_source, solution_str, ground_truth, extra_info=None):
    return "1.0"


class Grader:
    """An object whose `__call__` is async: verl and TRL would take its coroutine for a number."""

    async def __call__(self, data_source, solution_str, ground_truth, extra_info=None):
        return float(solution_str.strip() == ground_truth)


grader = Grader()


def nothing(data_source, solution_str, ground_truth, extra_info=None):
    return None if solution_str == "5" else 1.0


def pair(data_source, solution_str, ground_truth, extra_info=None):
    return 1.0, {"why": "a tuple"}


def breaks(data_source, solution_str, ground_truth, extra_info=None):
    return 1.0 if extra_info["index"] else 0.0


def trl_exact(prompts, completions, completion_ids, answer, **kwargs):
    return [float(c.strip() == a) for c, a in zip(completions, answer, strict=True)]


def trl_chat(prompts, completions, ground_truth, log_extra=None, **kwargs):
    texts = [completion[-1]["content"] for completion in completions]
    log_extra("texts", texts)
    return [float(t.strip() == g) for t, g in zip(texts, ground_truth, strict=True)]


async def trl_async(prompts, completions, answer, **kwargs):
    return [None if c == "5" else 1.0 for c in completions]


class TrlGrader:
    """TRL would iterate the coroutine."""

    async def __call__(self, prompts, completions, **kwargs):
        return [1.0] * len(completions)


trl_grader = TrlGrader()
trl_hidden = passed_on(trl_async)


def trl_talk_only(prompts, completions, **kwargs):
    return [float(completion[0]["content"] == "4") for completion in completions]


def trl_array(prompts, completions, answer, **kwargs):
    return np.array([c.strip() == a for c, a in zip(completions, answer, strict=True)], np.float32)


def trl_short(prompts, completions, **kwargs):
    return [1.0]


def areal_exact(prompt, completions, prompt_ids, completion_ids, answer, **kwargs):
    return float(completions.strip() == answer)


async def areal_async(prompt, completions, prompt_ids, completion_ids, **kwargs):
    return 1.0


def areal_none(prompt, completions, prompt_ids, completion_ids, **kwargs):
    return None


async def slime_group(args, samples, **kwargs):
    assert args.rm_type is None
    right = [float(sample.response.strip() == sample.label) for sample in samples]
    return [{"acc": value, "of": len(right)} for value in right]


def slime_sync(args, sample, **kwargs):
    return 1.0


def slime_later(args, sample, **kwargs):
    return slime_exact(args, sample, **kwargs)


async def slime_exact(args, sample, **kwargs):
    assert sample.status.name == "COMPLETED"
    return float(sample.response.strip() == sample.label)


def openrlhf_exact(queries, prompts, labels):
    right = [
        q.removeprefix(p).strip() == a for q, p, a in zip(queries, prompts, labels, strict=True)
    ]
    return {"rewards": [float(r) for r in right], "scores": right, "extra_logs": {"hits": right}}


async def openrlhf_async(queries, prompts, labels):
    return {"rewards": 1.0}


def openrlhf_shaped(queries, prompts, labels):
    right = [q.endswith(a) for q, a in zip(queries, labels, strict=True)]
    return {
        "rewards": [1.0 if r else -1.0 for r in right],
        "scores": [float(r) for r in right],
        "extra_logs": {"length": [float(len(q)) for q in queries], "reward": [0.5] * len(right)},
    }


def openrlhf_none(queries, prompts, labels):
    return {"rewards": None}


class _CallableRewardClass(type):
    """What AgentFly's `@reward` makes of a function: a class that is called like one."""

    def __call__(cls, **keywords):
        return cls._func(**keywords)


class agentfly_exact(metaclass=_CallableRewardClass):
    @staticmethod
    async def _func(final_response, answer, trajectory, context):
        assert trajectory[-1]["content"] == [{"type": "text", "text": final_response}]
        assert context.trajectory == trajectory
        assert context.metadata["answer"] == answer
        return {"reward": float(final_response.strip() == answer), "acc": 1.0}


def agentfly_old(prediction, answer, **kwargs):
    return float(prediction.strip() == answer)


def agentfly_needs(final_response, golden_answers):
    return 1.0
