"""TRL 1.16, `trl/rewards`: the scorers of form and length.

The patterns of the originals are walked by hand, because theirs take quadratic time on text with
many tags.
"""

from collections.abc import Sequence


def think_format(text: str) -> float:
    """`format_rewards.think_format_reward`: starts with the only `<think>`, and closes it.

    >>> think_format("<think></think>"), think_format(" <think>a</think>b")
    (1.0, 0.0)
    """
    opened = "<think>"
    once = text.startswith(opened) and text.find(opened, len(opened)) < 0
    return float(once and text.find("</think>", len(opened)) >= 0)


def soft_overlong(length: int, maximum: int, cache: int) -> float:
    """`other_rewards.get_soft_overlong_punishment`, equation 13 of DAPO (arXiv:2503.14476).

    >>> soft_overlong(90, 100, 20), soft_overlong(101, 100, 20)
    (-0.5, -1.0)
    """
    if length <= maximum - cache:
        return 0.0
    if length <= maximum:
        return (maximum - cache - length) / cache
    return -1.0


def repetition_penalty(tokens: Sequence[int], size: int, max_penalty: float) -> float:
    """`other_rewards.get_repetition_penalty_reward`: share of repeated n-grams times the penalty.

    >>> repetition_penalty([5, 5, 5, 5, 5], 2, -1.0)
    -0.75
    """
    if len(tokens) < size:
        return 0.0
    grams = list(zip(*(tokens[i:] for i in range(size)), strict=False))
    share = 1 - len(set(grams)) / len(grams)
    return share * max_penalty if share else 0.0
