"""Functions written as AReaL's `reward_fn` (AReaL 1.0.4, `areal/api/reward_api.py`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from guerdon.errors import BadInput
from guerdon.trainers.own.function import TRUTHS, OwnFunction, with_truth

NAMES = ("prompt", "completions", "prompt_ids", "completion_ids")


class ArealFunction(OwnFunction):
    """`reward_fn(prompt, completions, prompt_ids, completion_ids, **row)`.

    The four are given by position, as the text workflows do, and the columns of the row as
    keywords. AReaL decodes with special tokens kept; a file of rollouts rarely has them, so a
    function that looks for them sees none.

    Args:
        function: `pkg.mod:name` or `path/to/file.py:name`.
        keywords: further keywords of every call.
    """

    trainer = "AReaL"
    awaits = "nothing"
    given = frozenset({*NAMES, *TRUTHS})

    def arguments(
        self,
        *,
        response: str,
        prompt: str = "",
        prompt_token_ids: Any = None,
        response_token_ids: Any = None,
        ground_truth: Any = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """What AReaL's workflows give for a sample; the ground truth goes by the name that the
        function asks for.

        Raises:
            BadInput: a column has the name of one of the four, which AReaL cannot call either.
        """
        own = metadata or {}
        row = {
            name: value
            for name, value in with_truth(own, ground_truth).items()
            if name in own or self.wanted is None or name in self.wanted
        }
        taken = [name for name in NAMES if name in row]
        if taken:
            raise BadInput(f"the row has a column {taken[0]!r}, which AReaL gives by position")
        ids = (list(prompt_token_ids or ()), list(response_token_ids or ()))
        return (prompt, response, *ids), row

    def result(self, returned: Any) -> Any:
        """The number; AReaL takes nothing else."""
        if returned is None or isinstance(returned, Mapping | tuple | list | str):
            self.refuse(returned, "a number")
        return returned
