"""How a reward's parameters get their values: by name, from one stated order of sources.

For each parameter, the first source that has it wins:

1. the caller's keywords: options bound to the reward, then keywords of the call,
2. the sample's field of that name,
3. a metadata key of that name,
4. the field that the name is a usual synonym of (`completion` means `response`),
5. the call itself (`step`, `split`, `run_id`),
6. the parameter's default.

`context` is a `guerdon.resources.Context`: the caller's keyword, or one that is opened for the
call. A metadata key of that name reaches only a parameter that is annotated as plain data.

A field that is None counts as absent. Lists and dicts are handed over as copies and numpy arrays
read-only, as in a worker process, so a reward that changes its arguments changes nothing for
anybody else; options and keywords, which may be large, are copied once per batch.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias, cast

import msgspec
from msgspec.structs import replace

from guerdon.errors import InvalidReward
from guerdon.lending import LENT, Loan, borrows
from guerdon.outcome import EMPTY, failure_from
from guerdon.sample import NO_MEDIA, Media, Message, Sample

Scope: TypeAlias = Literal["sample", "batch", "group"]

Getter: TypeAlias = Callable[[Sample], Any]

FIELDS: Mapping[str, Getter] = {
    "prompt": lambda s: s.prompt_text,
    "prompt_messages": lambda s: s.prompt_messages,
    "response": lambda s: s.response_text,
    "response_messages": lambda s: s.response_messages,
    "ground_truth": lambda s: s.ground_truth,
    "images": lambda s: s.images or None,
    "videos": lambda s: s.videos or None,
    "audios": lambda s: s.audios or None,
    "data_source": lambda s: s.data_source,
    "sample_id": lambda s: s.sample_id,
    "group_id": lambda s: s.group_id,
    "metadata": lambda s: s.metadata,
    "prompt_token_ids": lambda s: s.prompt_token_ids,
    "response_token_ids": lambda s: s.response_token_ids,
    "response_mask": lambda s: s.response_mask,
    "finish_reason": lambda s: s.finish_reason,
    "policy_version": lambda s: s.policy_version,
}
"""What a parameter of this name receives. `prompt` and `response` are text: of a conversation, the
last user message and the last assistant message; the `_messages` forms give all of it."""

SYNONYMS: Mapping[str, str] = {
    "prediction": "response",
    "final_response": "response",
    "completion": "response",
    "solution_str": "response",
    "response_text": "response",
    "answer": "ground_truth",
    "solution": "ground_truth",
    "label": "ground_truth",
    "question": "prompt",
    "prompt_text": "prompt",
    "trajectory": "response_messages",
    "extra_info": "metadata",
    "prompt_ids": "prompt_token_ids",
    "completion_ids": "response_token_ids",
}
"""Names that other trainers use for the same things."""

TESTS_COLUMN = "input_output"
"""Where the datasets APPS and TACO keep what here is the ground truth."""

TEXT_FIELDS = frozenset({"response", "prompt", "ground_truth", "data_source"})
"""Fields that are their own argument where they are text."""
TEXT_ONLY = frozenset({str})

CALL_FIELDS = ("step", "split", "run_id")


class Call(msgspec.Struct, frozen=True):
    """Where in a run the samples are scored.

    Attributes:
        step: training step, None outside training.
        split: "train", "validation" or any other name.
        run_id: names the run.
        keywords: the caller's keywords, for every reward that asks for them by name.
        lend: what is lent to a call as its `context`, for one sample or for several together; None
            where nobody lends.
    """

    step: int | None = None
    split: str = "train"
    run_id: str | None = None
    keywords: Mapping[str, Any] = EMPTY
    lend: Callable[[Sample | None], Loan] | None = None


class MissingArgument(msgspec.Struct, frozen=True):
    """A required parameter for which the sample has nothing."""

    parameter: str
    available: tuple[str, ...]

    def __str__(self) -> str:
        known = ", ".join(self.available) or "nothing"
        field = SYNONYMS.get(self.parameter, self.parameter)
        hint = ""
        if field == "ground_truth" and TESTS_COLUMN in self.available:
            hint = f"; map it: {field} from {TESTS_COLUMN} (--map {field}={TESTS_COLUMN})"
        return (
            f"the reward needs '{self.parameter}', which the sample lacks "
            f"(available: {known}){hint}"
        )


class UnusableSample(msgspec.Struct, frozen=True):
    """A sample whose data cannot be handed over: nested too deeply, or a mapping that raises."""

    reason: str

    def __str__(self) -> str:
        return f"the data of the sample cannot be read: {self.reason}"


Arguments: TypeAlias = dict[str, Any]
Lack: TypeAlias = MissingArgument | UnusableSample
"""Why a sample gives no arguments."""
_MISSING: Any = inspect.Parameter.empty


class Parameters:
    """The injected parameters of one reward function.

    A keyword-only parameter with a default that names no field is an option: only the caller sets
    it, never a dataset column that happens to have its name.

    Args:
        function: what will be called; its signature decides.
        scope: for `batch` and `group` each parameter receives one value per sample, as a list,
            and plural names (`responses`) are understood.
        owner: name of the reward, for error messages.

    Raises:
        InvalidReward: a positional-only parameter or `*args`.
    """

    def __init__(self, function: Callable[..., Any], scope: Scope, owner: str) -> None:
        self.scope = scope
        self.accepts_any = False
        self.borrows = False
        self.named: dict[str, Any] = {}
        self.options: dict[str, Any] = {}
        for parameter in inspect.signature(function).parameters.values():
            if parameter.kind is parameter.VAR_KEYWORD:
                self.accepts_any = True
            elif parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL):
                raise InvalidReward(
                    f"reward '{owner}': parameter '{parameter}' cannot be injected by name"
                )
            elif self._is_option(parameter):
                self.options[parameter.name] = parameter.default
            else:
                self.named[parameter.name] = parameter.default
                self.borrows = self.borrows or borrows(parameter)

    @property
    def required(self) -> tuple[str, ...]:
        """Parameters without a default."""
        return tuple(name for name, default in self.named.items() if default is _MISSING)

    def binder(self, call: Call, options: Mapping[str, Any]) -> Binder:
        """What binds the samples of one batch.

        Args:
            call: where in the run they are scored, and the caller's keywords.
            options: keywords bound to the reward.
        """
        return Binder(self, call, options)

    def single(self, name: str) -> str:
        """The name of one sample's value, where a batch parameter is in the plural."""
        if self.scope == "sample" or name in FIELDS or name in SYNONYMS:
            return name
        single = name.removesuffix("s")
        return single if single in FIELDS or single in SYNONYMS else name

    def field(self, name: str) -> Getter | None:
        """What reads the sample's field of this name."""
        return FIELDS.get(self.single(name))

    def synonym(self, name: str) -> Getter | None:
        """What reads the field that the name is a synonym of."""
        return FIELDS.get(SYNONYMS.get(self.single(name), ""))

    def _is_option(self, parameter: inspect.Parameter) -> bool:
        name = parameter.name
        return (
            parameter.kind is parameter.KEYWORD_ONLY
            and parameter.default is not _MISSING
            and self.field(name) is None
            and self.synonym(name) is None
            and name not in (*CALL_FIELDS, "sample", "samples", LENT)
        )


class Binder:
    """Binds the samples of one batch: what is equal for all of them is looked up once."""

    def __init__(self, parameters: Parameters, call: Call, options: Mapping[str, Any]) -> None:
        self._parameters = parameters
        self._call = call
        self._given = {**call.keywords, **options}
        names = (*parameters.named, *parameters.options)
        if parameters.accepts_any:
            names = tuple(self._given)
        self._fixed = {name: _own_plain(self._given[name]) for name in names if name in self._given}
        self._borrows = parameters.borrows and LENT not in self._fixed
        self._plan = [
            (name, parameters.field(name), parameters.synonym(name), default)
            for name, default in parameters.named.items()
            if name not in self._fixed and not (self._borrows and name == LENT)
        ]

    def each(self, samples: Sequence[Sample]) -> list[Arguments] | list[Arguments | Lack]:
        """As `one` for every sample; columns of plain text are bound without looking at each."""
        names = [name for name, *_ in self._plan]
        plain = not self._parameters.accepts_any and not self._borrows
        if names and plain and TEXT_FIELDS.issuperset(names):
            columns = [[getattr(sample, name) for sample in samples] for name in names]
            if all(TEXT_ONLY.issuperset(map(type, column)) for column in columns):
                return _rows(self._fixed, names, columns)
        return [self.one(sample) for sample in samples]

    def one(self, sample: Sample) -> Arguments | Lack:
        """The arguments for one sample, or what prevents them."""
        try:
            return self._one(sample)
        except Exception as error:
            return UnusableSample(failure_from(error).message)

    def _one(self, sample: Sample) -> Arguments | MissingArgument:
        arguments = self._fixed.copy()
        metadata = sample.metadata
        if self._borrows and not self._borrow(arguments, sample):
            return MissingArgument(LENT, self._available(sample))
        for name, field, synonym, default in self._plan:
            value = field(sample) if field is not None else None
            if type(value) is str:
                arguments[name] = value
                continue
            if value is None and metadata is not EMPTY and name in metadata:
                arguments[name] = own(metadata[name])
                continue
            if value is None:
                value = synonym(sample) if synonym is not None else self._special(name, sample)
            if value is None:
                if default is _MISSING:
                    return MissingArgument(name, self._available(sample))
                value = default
            arguments[name] = own(value)
        if self._parameters.accepts_any:
            for key, value in metadata.items():
                if self._is_extra(key, arguments):
                    arguments[key] = own(value)
        return arguments

    def lacks(self, samples: Sequence[Sample]) -> dict[int, Lack]:
        """What prevents a batch or group call from covering each sample, by position."""
        found = ((i, self._lack(sample)) for i, sample in enumerate(samples))
        return {i: lack for i, lack in found if lack is not None}

    def _borrow(self, arguments: Arguments, sample: Sample | None) -> bool:
        """Add what the call is lent, or the default; False where there is neither."""
        lent = self._parameters.named[LENT]
        if self._call.lend is not None:
            lent = self._call.lend(sample)
        if lent is _MISSING:
            return False
        arguments[LENT] = lent
        return True

    def _lack(self, sample: Sample) -> Lack | None:
        try:
            if self._borrows and not self._borrow({}, None):
                return MissingArgument(LENT, self._available(sample))
            for name, field, synonym, default in self._plan:
                if name == "samples":
                    own(sample)
                elif name not in CALL_FIELDS:
                    present, _ = self._value(name, field, synonym, sample)
                    if not present and default is _MISSING:
                        return MissingArgument(name, self._available(sample))
            if self._parameters.accepts_any:
                own(sample.metadata)
        except Exception as error:
            return UnusableSample(failure_from(error).message)
        return None

    def many(self, samples: Sequence[Sample]) -> Arguments:
        """The arguments of one batch or group call: lists with one value per sample.

        A parameter with a default receives it where no sample has a value; where some have one,
        the others contribute None.

        Args:
            samples: of which none `lacks` anything.
        """
        arguments = self._fixed.copy()
        if self._borrows:
            self._borrow(arguments, None)
        for name, field, synonym, default in self._plan:
            if name == "samples":
                arguments[name] = [own(sample) for sample in samples]
                continue
            if name in CALL_FIELDS:
                arguments[name] = getattr(self._call, name)
                continue
            column = [self._value(name, field, synonym, sample) for sample in samples]
            present = [found for found, _ in column]
            if not any(present) and default is not _MISSING:
                arguments[name] = own(default)
                continue
            arguments[name] = [value for _, value in column]
        if self._parameters.accepts_any:
            arguments.update(self._columns(samples, arguments))
        return arguments

    def _columns(self, samples: Sequence[Sample], taken: Arguments) -> Arguments:
        """Metadata columns for `**kwargs`; a sample without the key contributes None."""
        keys = dict.fromkeys(key for sample in samples for key in sample.metadata)
        return {
            key: [own(sample.metadata.get(key)) for sample in samples]
            for key in keys
            if self._is_extra(key, taken)
        }

    def _is_extra(self, key: object, taken: Arguments) -> bool:
        """Whether a metadata key may be passed to `**kwargs`: never as an option."""
        return isinstance(key, str) and key not in taken and key not in self._parameters.options

    def _value(
        self, name: str, field: Getter | None, synonym: Getter | None, sample: Sample
    ) -> tuple[bool, Any]:
        """Whether the sample has a value for a batch parameter, and the value."""
        value = field(sample) if field is not None else None
        if value is None:
            for key in (name, self._parameters.single(name)):
                if key in sample.metadata:
                    return True, own(sample.metadata[key])
            value = synonym(sample) if synonym is not None else None
        return value is not None, own(value)

    def _special(self, name: str, sample: Sample) -> Any:
        if name == "sample":
            return sample
        return getattr(self._call, name) if name in CALL_FIELDS else None

    def _available(self, sample: Sample) -> tuple[str, ...]:
        values = {name: get(sample) for name, get in FIELDS.items()}
        fields = [
            name for name, value in values.items() if value is not None and value is not EMPTY
        ]
        return tuple(dict.fromkeys([*fields, *map(str, sample.metadata), *self._given]))


def _rows(
    fixed: Arguments, names: Sequence[str], columns: Sequence[Sequence[str]]
) -> list[Arguments]:
    """One dict per row; the common small cases are written out because they are the hot path."""
    if len(names) == 1 and not fixed:
        (name,) = names
        return [{name: value} for value in columns[0]]
    if len(names) == 2 and not fixed:
        one, two = names
        return [{one: a, two: b} for a, b in zip(*columns, strict=True)]
    return [{**fixed, **dict(zip(names, row, strict=True))} for row in zip(*columns, strict=True)]


def own(value: Any) -> Any:
    """A copy of lists, dicts and sets, all the way down; numpy arrays as read-only views.

    Tensors and other objects are shared: copying them would cost more than scoring.

    Example:
        >>> truth = ["a", {"b": [1]}]
        >>> own(truth) == truth, own(truth)[1] is truth[1]
        (True, False)
    """
    kind = cast("type[object]", type(value))
    if kind is str or kind is int or kind is float or value is None or kind is bool:
        return value
    if kind is dict:
        return {key: own(item) for key, item in cast("dict[Any, Any]", value).items()}
    if kind is list:
        return [own(item) for item in cast("list[Any]", value)]
    if kind is tuple:
        return tuple(own(item) for item in cast("tuple[Any, ...]", value))
    if kind is set:
        return set(cast("set[Any]", value))
    if kind is Sample:
        return _own_sample(cast("Sample", value))
    if kind is Message:
        return _own_message(cast("Message", value))
    if kind is Media:
        return _own_media(cast("Media", value))
    if _is_array(value):
        return _own_array(value)
    if isinstance(value, Mapping):
        return {key: own(item) for key, item in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, list):
        return [own(item) for item in cast("list[Any]", value)]
    return value


def _own_plain(value: Any) -> Any:
    """A copy of plain lists, dicts and sets; an object of the caller, a mapping too, is itself."""
    return own(value) if type(value) in (dict, list, tuple, set) else value


def _own_sample(sample: Sample) -> Sample:
    changed = {
        name: own(value)
        for name in _CHANGEABLE
        if (value := getattr(sample, name)) is not None
        and value is not EMPTY
        and value is not NO_MEDIA
        and type(value) is not str
    }
    return replace(sample, **changed) if changed else sample


_CHANGEABLE = (
    "metadata",
    "ground_truth",
    "prompt",
    "response",
    "images",
    "videos",
    "audios",
    "prompt_token_ids",
    "response_token_ids",
    "response_mask",
)
"""Fields of a sample in which a reward could change something."""


def _own_message(message: Message) -> Message:
    changed: dict[str, Any] = {}
    if any(type(call.arguments) is dict for call in message.tool_calls):
        changed["tool_calls"] = tuple(
            replace(call, arguments=own(call.arguments)) for call in message.tool_calls
        )
    if isinstance(message.content, tuple):
        changed["content"] = tuple(
            part if part.media is None else replace(part, media=_own_media(part.media))
            for part in message.content
        )
    return replace(message, **changed) if changed else message


def _own_media(media: Media) -> Media:
    return replace(media, array=_own_array(media.array)) if _is_array(media.array) else media


def _is_array(value: Any) -> bool:
    kind = cast("type[object]", type(value))
    return kind.__name__ == "ndarray" and kind.__module__ == "numpy"


def _own_array(array: Any) -> Any:
    if array.dtype.hasobject:
        array = array.copy()
        for place, item in enumerate(array.flat):
            array.flat[place] = own(item)
    view = array.view()
    view.flags.writeable = False
    return view
