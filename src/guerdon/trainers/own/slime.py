"""Functions written for slime's `--custom-rm-path` (also miles; `slime/rollout/rm_hub`)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any, cast

from guerdon import registry
from guerdon.sample import Sample
from guerdon.trainers.own.function import OwnFunction, beside

STATUS = {"length": "TRUNCATED", "abort": "ABORTED"}
"""slime's status for a finish reason; any other is COMPLETED."""


class SlimeFunction(OwnFunction):
    """`async def fn(args, sample, **kwargs)`, or with `group_rm` `fn(args, samples, **kwargs)`.

    A sample is slime's own where slime is installed, else a namespace with its fields: `prompt`,
    `response`, `label`, `metadata`, `tokens`, `response_length`, `reward`, `status` and others.

    Args:
        function: `pkg.mod:name` or `path/to/file.py:name`.
        reward_key: key of the value where it returns a dict, as `--reward-key`.
        group_rm: whether it scores whole groups, as with `--group-rm`.
        args: further attributes of slime's `args`.
    """

    trainer = "slime"
    awaits = "everything"

    def __init__(
        self,
        function: str,
        *,
        reward_key: str | None = None,
        group_rm: bool = False,
        args: Mapping[str, Any] | None = None,
    ) -> None:
        self._key = reward_key
        self._args = dict(args or {})
        self.scope = "group" if group_rm else "sample"
        super().__init__(function)

    def _make_call(self) -> None:
        self.arguments = self._of_group if self.scope == "group" else self._of_sample
        super()._make_call()

    def __getstate__(self) -> Mapping[str, Any]:
        return {key: value for key, value in super().__getstate__().items() if key != "arguments"}

    def _of_group(self, *, samples: list[Sample]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return (self._namespace(), [_slime_sample(sample) for sample in samples]), {}

    def _of_sample(self, *, sample: Sample) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return (self._namespace(), _slime_sample(sample)), {}

    def _namespace(self) -> _Args:
        known = {"reward_key": self._key, "rm_url": None, "rm_type": None, "custom_rm_path": None}
        return _Args(**{**known, **self._args})

    def result(self, returned: Any) -> Any:
        """The number, or the dict's value under `reward_key`; the rest is kept beside it."""
        if self.scope == "sample":
            return self._row(returned)
        if not isinstance(returned, list | tuple):
            self.refuse(returned, "a list with one reward per sample of the group")
        return self.each(cast("list[Any]", returned), self._row)

    def _row(self, returned: Any) -> Any:
        if isinstance(returned, Mapping):
            row = cast("Mapping[str, Any]", returned)
            if self._key is None or row.get(self._key) is None:
                self.refuse(returned, f"a number under reward_key={self._key!r}")
            return beside(row[self._key], row)
        if returned is None or isinstance(returned, tuple | list | str):
            self.refuse(returned, "a number, or a dict and a reward_key")
        return returned


class _Args(SimpleNamespace):
    """slime's command line, of which a file of rollouts knows nothing."""

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"slime's args have no {name!r} here: give it with the option args={{{name!r}: ...}} "
            "of the reward"
        )


@cache
def _slimes_own() -> Any:
    """slime's class; None where slime is not installed."""
    if find_spec("slime") is None:
        return None
    return cast("Any", registry.import_module("slime.utils.types")).Sample


def _slime_sample(sample: Sample) -> Any:
    """What slime hands over for a sample."""
    status = STATUS.get(sample.finish_reason or "", "COMPLETED")
    written = list(sample.response_token_ids or ())
    fields = {
        "prompt": sample.prompt_text or "",
        "response": sample.response_text or "",
        "label": sample.ground_truth,
        "metadata": dict(sample.metadata),
        "tokens": [*(sample.prompt_token_ids or ()), *written],
        "response_length": len(written),
    }
    theirs = _slimes_own()
    if theirs is None:
        others = ("group_index", "index", "reward", "loss_mask", "custom_rm_path")
        return SimpleNamespace(
            **dict.fromkeys(others),
            **fields,
            status=SimpleNamespace(name=status, value=status.lower()),
            remove_sample=False,
        )
    return theirs(**fields, status=theirs.Status[status])
