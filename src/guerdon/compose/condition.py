"""Whether a sample is of a kind: by its data source, by its metadata, or by a function.

Conditions are plain data, so that a configuration can hold them:

    data_source: "math*"                    # or a list; * ? [...] are wildcards
    metadata:
      language: [python, c]                 # any of these
      level: {min: 3, below: 6}             # all of these tests
      user.country: {not: de}               # reaches into nested mappings

A key that the sample lacks fits no test but `present: false`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, TypeAlias, cast

import msgspec
from msgspec.structs import force_setattr

from guerdon.errors import InvalidReward, nearest
from guerdon.outcome import EMPTY
from guerdon.sample import Sample

_ABSENT: Any = object()


def _like(value: Any, patterns: Any) -> bool:
    return isinstance(value, str) and any(fnmatchcase(value, p) for p in _listed(patterns))


TESTS: Mapping[str, Callable[[Any, Any], Any]] = {
    "equals": operator.eq,
    "not": operator.ne,
    "in": lambda value, allowed: value in allowed,
    "not_in": lambda value, refused: value not in refused,
    "contains": operator.contains,
    "min": operator.ge,
    "max": operator.le,
    "above": operator.gt,
    "below": operator.lt,
    "like": _like,
}
"""What a metadata value can be asked, besides `present: true` or `present: false`."""

_LIST_TESTS = ("in", "not_in")


class Condition(msgspec.Struct, frozen=True):
    """A kind of samples; all parts that are given must fit.

    Attributes:
        data_source: patterns of which one must match; `*`, `?` and `[...]` are wildcards.
        metadata: tests by key, see the module.

    Example:
        >>> hard = Condition("math*", {"level": {"min": 4}})
        >>> hard.holds(Sample(data_source="math/aime", metadata={"level": 5}))
        True
        >>> hard.holds(Sample(data_source="math/aime"))
        False
    """

    data_source: str | Sequence[str] = ()
    metadata: Mapping[str, Any] = EMPTY

    def __post_init__(self) -> None:
        patterns = tuple(_listed(self.data_source))
        tests = {str(key): _tests(key, raw) for key, raw in self.metadata.items()}
        if not patterns and not tests:
            raise InvalidReward("a condition needs a data_source or metadata")
        if any(not isinstance(pattern, str) for pattern in patterns):
            raise InvalidReward(f"data_source takes text, got {list(patterns)}")
        force_setattr(self, "data_source", patterns)
        force_setattr(self, "metadata", tests)

    def holds(self, sample: Sample) -> bool:
        """Whether a sample is of this kind.

        Raises:
            TypeError: a metadata value cannot be compared as asked.
        """
        if self.data_source and not _like(sample.data_source, self.data_source):
            return False
        return all(_fits(sample.metadata, key, tests) for key, tests in self.metadata.items())


Predicate: TypeAlias = Callable[[Sample], bool]
ConditionLike: TypeAlias = Condition | Predicate | str | Sequence[str] | Mapping[str, Any]
"""A `Condition`, a function of the sample, data source patterns, or a mapping with the fields of a
`Condition`."""


def as_condition(raw: ConditionLike) -> Condition | Predicate:
    """A condition from any of its forms.

    Raises:
        InvalidReward: it is none, with the nearest known word.

    Example:
        >>> as_condition({"data_sourse": "gsm8k"})
        Traceback (most recent call last):
        guerdon.errors.InvalidReward: a condition has no 'data_sourse' (did you mean 'data_source'?)
    """
    if isinstance(raw, Condition):
        return raw
    if isinstance(raw, Mapping):
        known = Condition.__struct_fields__
        mapping = cast("Mapping[str, Any]", raw)
        for key in mapping:
            if key not in known:
                raise InvalidReward(f"a condition has no {key!r}{nearest(key, known)}")
        return Condition(**mapping)
    if callable(raw):
        return raw
    return Condition(data_source=raw)


def _tests(key: str, raw: object) -> dict[str, Any]:
    """The tests of one key in their full form."""
    if not isinstance(raw, Mapping):
        return {"in": raw} if isinstance(raw, list | tuple | set | frozenset) else {"equals": raw}
    tests = {str(name): value for name, value in cast("Mapping[object, Any]", raw).items()}
    known = (*TESTS, "present")
    for name, value in tests.items():
        if name not in known:
            raise InvalidReward(
                f"metadata {key!r}: no test is called {name!r}{nearest(name, known)}"
            )
        if name in _LIST_TESTS and isinstance(value, str):
            raise InvalidReward(f"metadata {key!r}: '{name}' takes a list, got {value!r}")
    if not tests:
        raise InvalidReward(f"metadata {key!r}: no test is given")
    return tests


def _fits(metadata: Mapping[str, Any], key: str, tests: Mapping[str, Any]) -> bool:
    value = _reach(metadata, key)
    if value is _ABSENT:
        return tests.get("present") is False and len(tests) == 1
    for name, wanted in tests.items():
        if name == "present":
            if not wanted:
                return False
        elif not TESTS[name](value, wanted):
            return False
    return True


def _reach(metadata: Mapping[str, Any], key: str) -> Any:
    """The value under a key, or under a dotted path through nested mappings."""
    if key in metadata:
        return metadata[key]
    value: Any = metadata
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return _ABSENT
        value = cast("Mapping[str, Any]", value)[part]
    return value


def _listed(raw: Any) -> Sequence[Any]:
    return (raw,) if isinstance(raw, str) else cast("Sequence[Any]", raw)
