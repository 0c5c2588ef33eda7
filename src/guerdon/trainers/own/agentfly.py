"""Rewards written for AgentFly: `@reward` functions, `BaseReward` instances, plain callables."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, cast

from guerdon.errors import BadInput
from guerdon.trainers.agentfly_trajectory import turns
from guerdon.trainers.own.function import TRUTHS, OwnFunction, beside, with_truth

TAKES_ALL = inspect.Parameter.VAR_KEYWORD


class AgentFlyFunction(OwnFunction):
    """Called by keywords: `final_response`, `trajectory`, `id`, and the columns of the row.

    A decorated function or a `BaseReward` gets those that it names, a plain callable with
    `**kwargs` all of them. The old name `prediction` is given where it is asked for. A reward that
    asks for `context` gets the row and the trajectory in it; it owns no resources.

    Args:
        function: `pkg.mod:name` or `path/to/file.py:name`.
        keywords: further keywords of every call.
    """

    trainer = "AgentFly"
    given = frozenset(
        {"final_response", "prediction", "trajectory", "id", "group_id", "context", *TRUTHS}
    )

    @property
    def code(self) -> Any:
        """What a decorated function or a `BaseReward` holds."""
        kept = getattr(self.function, "_func", None) or getattr(self.function, "call", None)
        return kept or self.function

    def arguments(
        self,
        *,
        response: str,
        ground_truth: Any = None,
        response_messages: Any = None,
        prompt_messages: Any = None,
        metadata: Mapping[str, Any] | None = None,
        sample_id: str | None = None,
        group_id: str | None = None,
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """What AgentFly's chain gives; the ground truth goes by the name that the reward asks for.

        Raises:
            BadInput: the reward asks for something that the row does not have.
        """
        row = with_truth(metadata, ground_truth)
        trajectory = turns(prompt_messages, response_messages)
        context = SimpleNamespace(
            rollout_id=sample_id,
            group_id=group_id,
            metadata=row,
            final_response=response,
            trajectory=trajectory,
            trajectory_format="flat",
        )
        known = {
            **row,
            "final_response": response,
            "prediction": response,
            "trajectory": trajectory,
            "id": sample_id,
            "group_id": group_id,
            "context": context,
        }
        return (), self._asked_for(known)

    def _asked_for(self, known: Mapping[str, Any]) -> dict[str, Any]:
        parameters = inspect.signature(self.code).parameters
        if any(p.kind is TAKES_ALL for p in parameters.values()):
            old = "prediction"
            return {key: known[key] for key in known if key != old or old in parameters}
        for name, parameter in parameters.items():
            required = parameter.default is parameter.empty and name != "self"
            if required and name not in known and name not in self.keywords:
                columns = ", ".join(sorted(known))
                raise BadInput(
                    f"{self.name} needs {name!r}, which the row lacks (it has {columns})"
                )
        return {name: known[name] for name in parameters if name in known}

    def result(self, returned: Any) -> Any:
        """The number, the dict's `reward`, or the `reward` of a `RewardResult`."""
        row: Any = returned
        if hasattr(returned, "reward") and not isinstance(returned, Mapping):
            kept: Any = getattr(returned, "extras", None) or getattr(returned, "metrics", None)
            row = {"reward": returned.reward, **cast("dict[str, Any]", kept or {})}
        if isinstance(row, Mapping):
            fields = cast("Mapping[str, Any]", row)
            if fields.get("reward") is None:
                self.refuse(returned, "a number under 'reward'")
            return beside(fields["reward"], {k: v for k, v in fields.items() if k != "reward"})
        if row is None or isinstance(row, tuple | list | str):
            self.refuse(returned, "a number, or a dict with 'reward'")
        return row
