"""The rewards of the parity tests, defined once and loaded from this file by every adapter."""

import asyncio
import math
import os
import time

from guerdon.compose import Child, WeightedSum
from guerdon.errors import BadInput, RewardFailure, Unavailable
from guerdon.outcome import Abstention
from guerdon.reward import BaseReward, reward

RULE = "guerdon.rules.gsm8k:gsm8k"


@reward(name="tidy", value_range=(0.0, 1.0), auto_register=False)
def tidy(response: str, judge: str = "up") -> float:
    """An optional judge: it is down for some samples."""
    if judge == "down":
        raise Unavailable("the judge is down", retryable=False)
    return float(response == response.strip())


composite = WeightedSum(
    {"correct": Child(RULE, 0.75), "tidy": Child(tidy, 0.25, missing="renormalise")},
    name="correct_and_tidy",
)


class TinyModel(BaseReward):
    """A scorer with weights: hashed character trigrams, one hidden layer, batches as they come."""

    name = "tiny_model"
    scope = "batch"
    value_range = (-1.0, 1.0)
    auto_register = False

    def __init__(self, *, seed: int = 7, width: int = 64) -> None:
        state, self._weights = seed, []
        for _ in range(width):
            state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
            self._weights.append(state / 2**63 - 1.0)

    def call(self, *, responses: list[str]) -> list[float]:
        return [self._one(text) for text in responses]

    def _one(self, text: str) -> float:
        hashes = [hash_of(text[i : i + 3]) for i in range(len(text))]
        total = math.fsum(self._weights[h % len(self._weights)] for h in hashes)
        return math.tanh(total / math.sqrt(1 + len(text)))


def hash_of(text: str) -> int:
    """FNV-1a: Python's own hash differs from process to process."""
    value = 14695981039346656037
    for byte in text.encode("utf-8", "surrogatepass"):
        value = (value ^ byte) * 1099511628211 % 2**64
    return value


tiny_model = TinyModel()


@reward(name="faulty", value_range=(0.0, 1.0), deadline=1.0, auto_register=False)
def faulty(response: str, fault: str = ""):
    """Fails in the way that the sample names, else 1."""
    if fault == "timeout":
        time.sleep(3600)
    if fault == "crashed":
        os._exit(3)
    if fault == "raised":
        raise ValueError("a bug in the reward")
    if fault == "bad_input":
        raise BadInput("the ground truth is unusable")
    if fault in ("told timeout", "told crashed"):
        raise RewardFailure("it is so", kind=fault.removeprefix("told "), blame="scorer")
    if fault in ("unavailable", "overloaded", "cancelled"):
        raise RewardFailure(f"it is {fault}", kind=fault, blame="infrastructure")
    returned = {"non_finite": math.nan, "bad_output": "good", "out_of_range": 2.0}
    return Abstention(reason="not mine") if fault == "abstention" else returned.get(fault, 1.0)


@reward(
    name="candidate_faulty",
    value_range=(0.0, 1.0),
    deadline=1.0,
    candidate_fault=("timeout", "crashed"),
    auto_register=False,
)
def candidate_faulty(response: str, fault: str = ""):
    """Runs what the candidate wrote, which hangs (and burns CPU) or crashes."""
    while fault == "timeout":
        pass
    if fault == "crashed":
        os._exit(3)
    return 1.0


@reward(name="rule_of_text", value_range=(0.0, 1.0), auto_register=False)
def rule_of_text(response: str, ground_truth: str) -> bool:
    """Exact."""
    return response == ground_truth


@reward(name="length", value_range=(0.0, math.inf), auto_register=False)
def length(response: str) -> float:
    """Characters of the response."""
    return float(len(response))


@reward(name="endless", value_range=(0.0, 1.0), auto_register=False)
async def endless(response: str) -> float:
    """A judge that never answers."""
    await asyncio.Event().wait()
    return 1.0


@reward(name="tool_names", value_range=(0.0, 1.0), auto_register=False)
def tool_names(response: str, response_messages) -> bool:
    """Whether a conversation has its tool call, its result and its answer."""
    call, result, answer = response_messages
    names = [one.name for one in call.tool_calls]
    return names == ["add"] and result.text == "4" and answer.text == response == "#### 4"
