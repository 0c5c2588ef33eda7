"""What all functions of users have in common: where they come from, and how they are called."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeAlias, cast

from guerdon import registry
from guerdon.declaration import is_async
from guerdon.errors import (
    Blame,
    FailureKind,
    InvalidReward,
    RewardFailure,
    UnknownReward,
    nearest,
)
from guerdon.fingerprint import source_of
from guerdon.injection import SYNONYMS
from guerdon.outcome import as_number, failure_from
from guerdon.reward import BaseReward, run_coroutine

SHOWN = 80
"""Characters of a result that a message quotes."""

TRUTHS = ("ground_truth", *(name for name, field in SYNONYMS.items() if field == "ground_truth"))
"""Columns under which datasets of trainers keep the ground truth."""

Awaits: TypeAlias = Literal["everything", "functions", "results", "nothing"]
"""What a trainer awaits: every result, also one that cannot be; what `async def` has made (no
object whose `__call__` is async, no sync decorator around one); whatever can be; or nothing."""


class OwnFunction(BaseReward):
    """A function that a user wrote for a trainer.

    A subclass per trainer implements `arguments`, whose parameters are injected from the sample,
    and `result`.

    Args:
        function: `pkg.mod:name` or `path/to/file.py:name`; it is not changed, and may be sync or
            async.
        keywords: given to every call beside what the trainer gives.

    Raises:
        UnknownReward: nothing is there.
        InvalidReward: what is there cannot be called, is a reward of Guerdon, or is async where the
            trainer awaits nothing; or a keyword that it does not take, or that each row gives.
    """

    auto_register = False
    trainer = ""
    """Whose convention it is, for messages."""
    awaits: Awaits = "results"
    given: frozenset[str] = frozenset()
    """Names that the trainer fills from each row; no keyword may have one of them."""
    arguments: Callable[..., tuple[tuple[Any, ...], dict[str, Any]]]
    """The positional and the named arguments that the trainer would give for a sample."""

    def __init__(self, function: str, **keywords: Any) -> None:
        self.reference = absolute(function)
        self.keywords = keywords
        found = self.function
        if issubclass(found if isinstance(found, type) else type(found), BaseReward):
            raise InvalidReward(
                f"{function!r} is a reward of Guerdon: name it without the prefix of {self.trainer}"
            )
        if not callable(found):
            raise InvalidReward(f"{function!r} is a {type(found).__name__}, not a function")
        self._check_async(function)
        self._check_keywords(function)
        self.name = getattr(_whole(found), "__name__", type(found).__name__)
        if is_async(self.code):
            self.work = "io"
        self._make_call()

    @cached_property
    def function(self) -> Any:
        """The function itself; each worker process loads it for itself."""
        try:
            return registry.target_of(self.reference)
        except UnknownReward as error:
            raise UnknownReward(f"{error}{_package_hint(self.reference)}") from error

    @property
    def code(self) -> Any:
        """The user's code, where the function is only its shell."""
        return self.function

    def _check_async(self, function: str) -> None:
        if self.awaits in ("everything", "results") or not is_async(self.code):
            return
        if self.awaits == "functions" and inspect.iscoroutinefunction(self.function):
            return
        what, hint = "async", "write a sync function"
        if self.awaits == "functions":
            what, hint = "an object with an async __call__", "wrap it in an async def"
        raise InvalidReward(
            f"{function!r} is {what}: {self.trainer} would take the coroutine for the number; "
            f"{hint}"
        )

    @cached_property
    def wanted(self) -> frozenset[str] | None:
        """The names of the function's parameters; None where it takes any, or cannot say."""
        try:
            parameters = inspect.signature(self.code).parameters
        except (TypeError, ValueError):  # built in
            return None
        if any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
            return None
        return frozenset(parameters)

    def _check_keywords(self, function: str) -> None:
        for key in self.keywords:
            if key in self.given:
                hint = ", or say --map ground_truth=COLUMN for a file" if key in TRUTHS else ""
                raise InvalidReward(
                    f"{function!r} gets {key!r} from each row: the option would be the literal "
                    f"{self.keywords[key]!r} in every call, and no column; leave it out{hint}"
                )
            if self.wanted is not None and key not in self.wanted:
                raise InvalidReward(
                    f"{function!r} takes no {key!r}{nearest(key, self.wanted)}: its parameters are "
                    f"{', '.join(sorted(self.wanted))}"
                )

    def __getstate__(self) -> Mapping[str, Any]:
        own = ("function", "call", "wanted")
        return {key: value for key, value in self.__dict__.items() if key not in own}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state)
        self._make_call()

    def _make_call(self) -> None:
        """A sync function gets a sync `call` and may run in workers, an async one is awaited."""

        def call(**found: Any) -> Any:
            returned = self._called(found)
            if not inspect.isawaitable(returned):
                if self.awaits == "everything":
                    self.refuse(returned, "a result to await: write the function as async def")
                return self.result(returned)
            if self.awaits not in ("everything", "results"):
                if inspect.iscoroutine(returned):
                    returned.close()
                self.refuse(returned, "a result that nobody has to await")
            return run_coroutine(lambda: _finish(returned, self.result))

        async def awaited_call(**found: Any) -> Any:
            return self.result(await self._called(found))

        made: Any = awaited_call if is_async(self.code) else call
        made.__signature__ = inspect.signature(self.arguments)
        self.call = made

    def _called(self, found: Mapping[str, Any]) -> Any:
        # Functions write into what they are given; the samples are the caller's.
        positional, named = cast("tuple[Any, dict[str, Any]]", fresh(self.arguments(**found)))
        return self.function(*positional, **{**named, **self.keywords})

    def fingerprint_extra(self) -> Mapping[str, Any]:
        """The source of the function."""
        return {"function": source_of(self.code)}

    @property
    def description(self) -> str:
        """The first line of the function's documentation."""
        return inspect.cleandoc(self.code.__doc__ or "").split("\n", 1)[0]

    def result(self, returned: Any) -> Any:
        """What the function returned, in a form that a reward may return.

        Raises:
            RewardFailure: the trainer could not use it.
        """
        raise NotImplementedError

    def each(self, rows: Sequence[Any], result: Callable[[Any], Any]) -> list[Any]:
        """As `result` for each row of a batch or a group; one that is unusable fails alone."""
        found: list[Any] = []
        for row in rows:
            try:
                found.append(result(row))
            except RewardFailure as error:
                found.append(failure_from(error))
        return found

    def refuse(self, returned: Any, wanted: str) -> NoReturn:
        """Raise what stands for a result that the trainer could not use."""
        text = repr(returned)
        raise RewardFailure(
            f"{self.name} returned {text if len(text) <= SHOWN else f'{text[:SHOWN]}...'}, where "
            f"{self.trainer} wants {wanted}",
            kind=FailureKind.BAD_OUTPUT,
            blame=Blame.SCORER,
        )


def beside(value: Any, fields: Mapping[str, Any]) -> dict[str, Any]:
    """A score with what the function gave beside it: numbers as metrics, all else as info.

    Example:
        >>> beside(1.0, {"em": True, "pred": "4"})
        {'score': 1.0, 'metrics': {'em': 1.0}, 'info': {'pred': '4'}}
    """
    metrics: dict[str, float] = {}
    info: dict[str, Any] = {}
    for key, item in fields.items():
        number = as_number(item)
        if number is None:
            info[key] = item
        else:
            metrics[key] = number
    return {"score": value, "metrics": metrics, "info": info}


def with_truth(row: Mapping[str, Any] | None, ground_truth: Any) -> dict[str, Any]:
    """A row that has the ground truth by all of its usual names; its own columns win.

    Example:
        >>> with_truth({"label": 1}, "4")
        {'ground_truth': '4', 'answer': '4', 'solution': '4', 'label': 1}
    """
    truth = {} if ground_truth is None else dict.fromkeys(TRUTHS, ground_truth)
    return {**truth, **(row or {})}


async def _finish(returned: Any, result: Callable[[Any], Any]) -> Any:
    return result(await returned)


def _whole(function: Any) -> Any:
    while isinstance(function, partial):
        function = cast("partial[Any]", function).func
    return function


def fresh(value: Any) -> Any:
    """A value with lists, tuples and dicts of its own; what they hold is shared.

    Example:
        >>> row = {"tags": ["a"]}
        >>> fresh(row)["tags"].append("b"), row
        (None, {'tags': ['a']})
    """
    if type(value) is dict:
        return {key: fresh(item) for key, item in cast("dict[Any, Any]", value).items()}
    if type(value) is list:
        return list(map(fresh, cast("list[Any]", value)))
    if type(value) is tuple:
        return tuple(map(fresh, cast("tuple[Any, ...]", value)))
    return value


def _package_hint(reference: str) -> str:
    """How to name a file that is a module of a package, whose relative imports need its name."""
    path, _, attribute = reference.rpartition(":")
    file = Path(path)
    if file.suffix != ".py" or not file.is_file() or not (file.parent / "__init__.py").is_file():
        return ""
    parts = [] if file.stem == "__init__" else [file.stem]
    folder = file.parent
    while (folder / "__init__.py").is_file():
        parts.insert(0, folder.name)
        folder = folder.parent
    return f" (the file is a module of a package: name it {'.'.join(parts)}:{attribute})"


def absolute(reference: str) -> str:
    """A reference whose file, if it names one, is absolute: workers start elsewhere."""
    path, _, attribute = reference.rpartition(":")
    if not path.endswith(".py"):
        return reference
    return f"{Path(path).expanduser().resolve()}:{attribute}"
