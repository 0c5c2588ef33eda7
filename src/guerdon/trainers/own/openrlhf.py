"""Functions written as OpenRLHF's `reward_func` (OpenRLHF 0.11.2, `openrlhf/utils/agent.py`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from guerdon.trainers.own.function import OwnFunction, beside


class OpenRlhfFunction(OwnFunction):
    """`reward_func(queries, prompts, labels, **kwargs)`, with lists of length 1.

    `queries` are the prompt and the response in one text. OpenRLHF's own hold special tokens of
    the chat template, which a file of rollouts rarely has.

    Args:
        function: `pkg.mod:name` or `path/to/file.py:name`.
        keywords: further keywords of every call.
    """

    trainer = "OpenRLHF"
    awaits = "nothing"
    given = frozenset({"queries", "prompts", "labels"})

    def arguments(
        self, *, response: str, prompt: str = "", ground_truth: Any = None
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """What OpenRLHF gives for a sample."""
        return ([prompt + response], [prompt], [ground_truth]), {}

    def result(self, returned: Any) -> Any:
        """`rewards`, a number or one in a list or tensor; `scores` and `extra_logs` beside it."""
        row = cast("Mapping[str, Any]", returned)
        if not isinstance(returned, Mapping) or row.get("rewards") is None:
            self.refuse(returned, "a dict with 'rewards'")
        logs = {"scores": row.get("scores"), **dict(row.get("extra_logs") or {})}
        singles = {key: _single(value) for key, value in logs.items() if value is not None}
        value = _single(row["rewards"])
        if value is None or isinstance(value, list):
            self.refuse(returned, "one reward for one sample")
        return beside(value, singles)


def _single(value: Any) -> Any:
    """What a list or tensor of one element holds; anything else as it is."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list | tuple):
        entries = list(cast("list[Any]", value))
        return _single(entries[0]) if len(entries) == 1 else entries
    return value
