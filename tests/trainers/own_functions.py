"""Reward functions as users of trainers write them; none of them knows Guerdon."""

import asyncio


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


def trl_short(prompts, completions, **kwargs):
    return [1.0]


def areal_exact(prompt, completions, prompt_ids, completion_ids, answer, **kwargs):
    return float(completions.strip() == answer)


async def slime_exact(args, sample, **kwargs):
    assert sample.status.name == "COMPLETED"
    return float(sample.response.strip() == sample.label)


def openrlhf_exact(queries, prompts, labels):
    right = [
        q.removeprefix(p).strip() == a for q, p, a in zip(queries, prompts, labels, strict=True)
    ]
    return {"rewards": [float(r) for r in right], "scores": right, "extra_logs": {"hits": right}}


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
