"""Rewards of pictures for VeRL-Omni's and UniRL's tests, loaded from this file."""

import math
import os

from guerdon.errors import BadInput, RewardFailure
from guerdon.outcome import Abstention
from guerdon.reward import reward


@reward(name="faulty_picture", value_range=(0.0, 1.0), deadline=1.0, auto_register=False)
def faulty_picture(images, fault: str = ""):
    """Fails in the way that the sample names, else 1."""
    if fault == "timeout":
        while True:
            pass
    if fault == "crashed":
        os._exit(3)
    if fault == "raised":
        raise ValueError("a bug in the reward")
    if fault == "bad_input":
        raise BadInput("unusable")
    if fault in ("unavailable", "overloaded", "cancelled"):
        raise RewardFailure(f"it is {fault}", kind=fault, blame="infrastructure")
    returned = {"non_finite": math.nan, "bad_output": "good", "out_of_range": 2.0}
    return Abstention(reason="not mine") if fault == "abstention" else returned.get(fault, 1.0)


@reward(name="told", auto_register=False)
def told(images, prompt: str, ground_truth: str, index: int, num_turns: int | None = None) -> float:
    """Index, turns, and whether prompt and truth differ, as digits."""
    return 100.0 * index + 10.0 * (num_turns or 0) + float(prompt != ground_truth)


@reward(name="edited", auto_register=False)
def edited(images, prompt_messages) -> float:
    """Whether a picture is brighter than its source, plus the letters of the instruction."""
    (message,) = prompt_messages
    source, text = message.content
    return float(source.media.array.max() < images[0].array.max()) + len(text.text)
