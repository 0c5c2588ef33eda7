"""verl 0.9.1, `reward_score/rlla.py`: form and tool calls of ToolRL, as used by GDPO.

Sources: ToolRL (Qian et al. 2025, arXiv:2504.13958), GDPO (arXiv:2601.05242).
"""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal, cast

from guerdon.errors import BadInput

FORMAT_RANGE = (0.0, 1.0)
TOOL_RANGE = (-3.0, 3.0)

_THINK, _THOUGHT = "<think>", "</think>"
_CALL, _CALLED = "<tool_call>", "</tool_call>"
_SAY, _SAID = "<response>", "</response>"
_TEMPLATES = {
    "llama": ("<|start_header_id|>assistant<|end_header_id|>", "<|eot_id|>"),
    "qwen": ("<|im_start|>assistant", "<|im_end|>"),
}


def last_turn(response: str, template: Literal["llama", "qwen"]) -> str:
    """The last assistant turn of a text in the chat template, stripped.

    >>> last_turn("<|im_start|>assistant\\nHi<|im_end|>", "qwen")
    'Hi'
    """
    opened, closed = _TEMPLATES[template]
    return (
        response[response.rfind(opened) + len(opened) if opened in response else 0 :]
        .split(closed, 1)[0]
        .strip()
    )


def format_score(turn: str, ground_truth: str) -> float:
    """1 when the turn has the blocks that the truth has, each tag on its line, else 0.

    >>> format_score("<think>a</think>\\n<response>b</response>", "<response>x</response>")
    1.0
    """
    says, calls = _SAY in ground_truth, _CALL in ground_truth
    steps = [_THOUGHT]
    if calls:
        steps = [f"{_THOUGHT}\n{_CALL}\n", f"\n{_CALLED}"]
    if says and calls:
        steps[-1] += f"\n{_SAY}"
    elif says:
        steps = [f"{_THOUGHT}\n{_SAY}"]
    if says:
        steps.append(_SAID)
    tags = (_CALL, _CALLED) * calls + (_SAY, _SAID) * says
    once = all(turn.count(tag) == 1 for tag in tags)
    return FORMAT_RANGE[int(once and _in_order(turn, steps))]


def _in_order(turn: str, steps: Sequence[str]) -> bool:
    """Whether the turn opens with a thought, has the steps in order, and ends with the last."""
    if not turn.startswith(_THINK):
        return False
    at = len(_THINK)
    for step in steps[:-1]:
        found = turn.find(step, at)
        if found < 0:
            return False
        at = found + len(step)
    # `$` of the original also matches before one newline at the end.
    last = steps[-1]
    return any(
        end.endswith(last) and len(end) - len(last) >= at for end in (turn, turn.removesuffix("\n"))
    )


def correctness(turn: str, ground_truth: str) -> float:
    """ToolRL's tool score from -3 to 3; 0 when the truth has no call; -3 for unreadable calls.

    Raises:
        BadInput: The calls of the truth cannot be read.

    >>> correctness("no call", '<tool_call>{"name": "a", "parameters": {}}</tool_call>')
    -3.0
    """
    if _CALL not in ground_truth:
        return 0.0
    gold = _gold(ground_truth)
    low, high = TOOL_RANGE
    if _CALL not in turn or _CALLED not in turn:
        return low
    try:
        found = _calls(turn)
        if gold == found:
            return high
        score, possible = _counts(gold, found)
        # In this order: another one rounds differently.
        return (high - low) * score / possible + low
    except MemoryError:
        raise  # how much there is decides nothing about the calls
    except Exception:
        # Whatever cannot be read or compared is the lowest score, as in the original.
        return low


def _calls(text: str) -> list[Any]:
    block = text.split(_CALL, 2)[1].split(_CALLED, 1)[0].strip()
    return [json.loads(line) for line in block.split("\n")]


def _gold(ground_truth: str) -> list[dict[str, Any]]:
    try:
        gold = _calls(ground_truth)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"the tool calls of the ground truth are no JSON: {error!s:.100}") from None
    for call in gold:
        fields = cast("dict[str, Any]", call) if isinstance(call, dict) else {}
        if not isinstance(fields.get("name"), str) or not isinstance(
            fields.get("parameters"), dict
        ):
            raise BadInput("a tool call of the ground truth lacks name or parameters")
    return gold


def _counts(gold: Sequence[dict[str, Any]], found: Sequence[Any]) -> tuple[float, float]:
    """The score of unequal lists of calls, and the possible score."""
    score = _overlap([call["name"] for call in gold], [call["name"] for call in found])
    possible = 1.0
    used: set[int] = set()
    for wanted in gold:
        parameters = wanted["parameters"]
        possible += 1.0 + len(parameters)
        best, best_index = 0.0, -1
        for index, call in enumerate(found):
            if index in used or call["name"] != wanted["name"]:
                continue
            given = call["parameters"]
            value = _overlap(list(parameters.keys()), list(given.keys()))
            value += sum(1.0 for k, v in parameters.items() if k in given and given[k] == v)
            if value > best:
                best, best_index = value, index
        if best_index >= 0:
            used.add(best_index)
            score += best
    return score, possible


def _overlap(first: list[Any], second: list[Any]) -> float:
    if first == second:
        return 1.0
    if not first or not second:
        return 0.0
    common = sum((Counter(first) & Counter(second)).values())
    return common / (len(first) + len(second) - common)
