"""Functions written for TRL's `reward_funcs` (TRL 1.16.0, `GRPOTrainer._calculate_rewards`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from guerdon.errors import BadInput, Blame, FailureKind, RewardFailure
from guerdon.sample import Message, Sample
from guerdon.trainers.own.function import TRUTHS, OwnFunction

TALK_HINT = (
    "it got texts where it wants messages: give prompts as messages, or say conversational: true "
    "beside its name in a configuration"
)


class TrlFunction(OwnFunction):
    """`reward_func(prompts, completions, completion_ids, **columns) -> list[float | None]`.

    It is called once per batch. None is an abstention, as TRL leaves such a row out. A list of
    another length is a failure of all rows: TRL cannot say which number belongs to which.

    Args:
        function: `pkg.mod:name` or `path/to/file.py:name`.
        conversational: whether prompts and completions are lists of messages; by default they are
            if every prompt of the batch is.
        keywords: further keywords of every call.
    """

    trainer = "TRL"
    awaits = "functions"
    scope = "batch"
    given = frozenset({"prompts", "completions", "completion_ids", "data_source", *TRUTHS})

    def __init__(
        self, function: str, *, conversational: bool | None = None, **keywords: Any
    ) -> None:
        self._conversational = conversational
        super().__init__(function, **keywords)

    def arguments(
        self, *, samples: list[Sample], step: int | None = None
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """What TRL gives for a batch.

        Raises:
            BadInput: rows have different columns, which no dataset of TRL has.
        """
        talk = self._conversational
        if talk is None:
            talk = all(isinstance(sample.prompt, tuple) for sample in samples)
        columns = _columns(samples)
        return (), {
            "prompts": [_prompt(sample, talk) for sample in samples],
            "completions": [_completion(sample, talk) for sample in samples],
            "completion_ids": [list(s.response_token_ids or ()) for s in samples],
            "trainer_state": _State(step),
            "log_extra": _ignore,
            "log_metric": _ignore,
            **columns,
        }

    def _called(self, found: Mapping[str, Any]) -> Any:
        try:
            return super()._called(found)
        except TypeError as error:
            # "string indices must be integers, not 'str'", of a completion that is no message list
            if not self._conversational and "string ind" in str(error):
                raise RewardFailure(
                    f"{type(error).__name__}: {error} ({TALK_HINT})",
                    kind=FailureKind.RAISED,
                    blame=Blame.SCORER,
                ) from error
            raise

    def result(self, returned: Any) -> Any:
        """One number or None per row."""
        if hasattr(returned, "tolist"):
            returned = returned.tolist()
        if not isinstance(returned, list | tuple):
            self.refuse(returned, "a list with one number or None per row")
        return list(cast("list[Any]", returned))


class _State:
    """As much of the trainer's state as is known outside of a run: `global_step`."""

    def __init__(self, step: int | None) -> None:
        if step is not None:
            self.global_step = step

    def __getattr__(self, name: str) -> Any:
        if name == "global_step":
            raise AttributeError("trainer_state has no global_step: say which, as --step 0")
        raise AttributeError(f"trainer_state has no {name!r} outside of a run: only global_step")


def _columns(samples: Sequence[Sample]) -> dict[str, list[Any]]:
    """Metadata keys and the ground truth as columns; it goes by all of its usual names."""
    names = dict.fromkeys(key for sample in samples for key in sample.metadata)
    for name in names:
        lacking = sum(name not in sample.metadata for sample in samples)
        if lacking:
            raise BadInput(
                f"{lacking} of {len(samples)} rows have no column {name!r}: a dataset of TRL has "
                "the same columns in every row"
            )
    columns = {name: [sample.metadata[name] for sample in samples] for name in names}
    truths = [sample.ground_truth for sample in samples]
    if any(truth is not None for truth in truths):
        for name in TRUTHS:
            columns.setdefault(name, truths)
    if any(sample.data_source is not None for sample in samples):
        columns.setdefault("data_source", [sample.data_source for sample in samples])
    return columns


def _prompt(sample: Sample, talk: bool) -> Any:
    messages = sample.prompt_messages
    if not talk:
        return sample.prompt_text or ""
    if messages is None:
        return [{"role": "user", "content": sample.prompt_text or ""}]
    return [_plain(message) for message in messages]


def _completion(sample: Sample, talk: bool) -> Any:
    messages = sample.response_messages
    if not talk:
        return sample.response_text or ""
    if messages is None:
        return [{"role": "assistant", "content": sample.response_text or ""}]
    return [_plain(message) for message in messages]


def _plain(message: Message) -> dict[str, Any]:
    return {"role": message.role, "content": message.text}


def _ignore(*_: Any) -> None:
    """Logging outside of a run goes nowhere."""
