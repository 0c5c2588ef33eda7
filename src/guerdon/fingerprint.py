"""What identifies the code and configuration that gave a score.

The fingerprint of a reward changes when its source, its version, its options or its model revision
change, and stays equal across processes and machines. Of a function it covers the values that it
closes over and its defaults; of a class, its base classes too. It does not follow calls into other
functions: raise `version` when one that the reward calls changes its meaning.
"""

from __future__ import annotations

import enum
import hashlib
import inspect
import json
import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, cast

import msgspec

DIGEST_CHARACTERS = 16

BASES = ("builtins", "abc", "typing", "guerdon.reward")
"""Modules whose classes say nothing about a reward that inherits from them."""


def digest(parts: Mapping[str, Any]) -> str:
    """16 hexadecimal characters of SHA-256 over the canonical JSON form of the parts.

    Example:
        >>> digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1})
        True
    """
    payload = json.dumps(canonical(parts), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(payload.encode()).hexdigest()[:DIGEST_CHARACTERS]


def source_of(code: Any) -> str:
    """What a function, a class or a callable object does, as text.

    Example:
        >>> def at_least(limit):
        ...     return lambda response: len(response) >= limit
        >>> source_of(at_least(1)) == source_of(at_least(2))
        False
    """
    return json.dumps(_Form().code(code), sort_keys=True)


def canonical(value: Any) -> Any:
    """A JSON form of any option value that is equal in every process.

    Objects with a `fingerprint` stand for it; arrays for their contents; other objects for their
    `repr` unless it holds an address, else for their type.

    Example:
        >>> canonical({"limit": 0.5, 3: {"b", "a"}})
        {'int 3': {'set': ['"a"', '"b"']}, 'limit': {'float': '0.5'}}
    """
    return _Form().value(value)


class _Form:
    """Makes the JSON form of one object, which may hold itself."""

    def __init__(self) -> None:
        self._codes: dict[int, int] = {}
        self._open: set[int] = set()
        self._kept: list[Any] = []

    def value(self, value: Any) -> Any:
        kind = cast("type[object]", type(value))
        if value is None or kind in (bool, int, str):
            return value
        if isinstance(value, enum.Enum):
            return [_type_name(kind), value.name]
        if isinstance(value, float):
            return {"float": repr(float(value))}
        if isinstance(value, str | int):
            return str(value)
        own = getattr(value, "fingerprint", None)
        if isinstance(own, str):
            return own
        if id(value) in self._open:
            return {"again": _type_name(kind)}
        self._open.add(id(value))
        try:
            return self._container(value) or self._object(value, kind)
        finally:
            self._open.discard(id(value))

    def _container(self, value: Any) -> Any:
        """A mapping, a sequence, a set, bytes, an array or a struct; None for others."""
        if isinstance(value, Mapping):
            items = cast("Mapping[object, object]", value).items()
            named = sorted(((_key(key), item) for key, item in items), key=lambda item: item[0])
            return {key: self.value(item) for key, item in named} or {"dict": []}
        if isinstance(value, bytes | bytearray):
            return {"bytes": hashlib.sha256(value).hexdigest()}
        if isinstance(value, Sequence):
            return [self.value(i) for i in cast("Sequence[object]", value)] or {"list": []}
        if isinstance(value, set | frozenset):
            members = [self.value(item) for item in cast("set[object]", value)]
            return {"set": sorted(json.dumps(member, sort_keys=True) for member in members)}
        if isinstance(value, msgspec.Struct):
            return {_type_name(type(value)): self.value(msgspec.structs.asdict(value))}
        if callable(getattr(value, "tobytes", None)) and hasattr(value, "dtype"):
            content = hashlib.sha256(value.tobytes()).hexdigest()
            return {"array": [str(value.dtype), list(value.shape), content]}
        return None

    def _object(self, value: Any, kind: type[object]) -> Any:
        if callable(value):
            return self.code(value)
        if isinstance(value, os.PathLike):
            return {"path": os.fspath(cast("os.PathLike[str]", value))}
        if kind.__repr__ is not object.__repr__:
            text = repr(value)
            if " at 0x" not in text:
                return {_type_name(kind): text}
        return _type_name(kind)

    def code(self, code: Any) -> Any:
        """A callable: its text and the values that belong to it."""
        number = self._codes.setdefault(id(code), len(self._codes))
        if number < len(self._kept):
            return {"again": number}
        self._kept.append(code)  # its id stays its own
        if isinstance(code, partial):
            bound = cast("partial[Any]", code)
            given = [self.value(bound.args), self.value(bound.keywords)]
            return {"partial": [self.code(bound.func), *given]}
        if isinstance(code, type):
            own = [kind for kind in code.__mro__ if kind.__module__ not in BASES]
            return {"class": [_text(kind) for kind in own]}
        if inspect.ismethod(code):
            return {"method": [self.code(code.__func__), self.value(code.__self__)]}
        if inspect.isfunction(code):
            return self._function(code)
        if inspect.isroutine(code):
            return f"{code.__module__}.{code.__qualname__}"
        return {"object": [self.code(cast("type[object]", type(code))), self._state(code)]}

    def _function(self, function: Any) -> Any:
        """A function: its text, its defaults, what it closes over, and what it wraps."""
        parts = {
            "text": _text(function),
            "defaults": self.value([function.__defaults__, function.__kwdefaults__]),
            "closure": [self._cell(cell) for cell in function.__closure__ or ()],
        }
        if function.__name__ == "<lambda>":  # its line may hold several
            parts["code"] = _byte_code(function.__code__)
        wrapped = getattr(function, "__wrapped__", None)
        if wrapped is not None:
            parts["wraps"] = self.code(wrapped)
        return parts

    def _cell(self, cell: Any) -> Any:
        try:
            return self.value(cell.cell_contents)
        except ValueError:  # not assigned yet
            return None

    def _state(self, instance: object) -> Any:
        """The plain attributes of an object; of others (a model, a client) only the class."""
        state = cast("dict[str, Any]", getattr(instance, "__dict__", {}))
        return {name: self.value(v if _is_plain(v) else type(v)) for name, v in state.items()}


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, cast("Sequence[Any]", value)))
    if isinstance(value, dict):
        return all(map(_is_plain, cast("dict[Any, Any]", value).values()))
    return value is None or isinstance(value, bool | int | float | str | bytes | os.PathLike)


def _key(key: object) -> str:
    return key if isinstance(key, str) else f"{type(key).__name__} {key!r}"


def _type_name(kind: type[Any]) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _text(code: Any) -> str:
    """The source text, or what is known of the byte code where there is none."""
    inner = getattr(code, "__code__", None)
    try:
        # Of a function itself, `getsource` would give the text of what it wraps.
        lines, _ = inspect.getsourcelines(code if inner is None else inner)
        return "".join(lines)
    except (OSError, TypeError):
        return _type_name(code) if inner is None else _byte_code(inner)


def _byte_code(inner: Any) -> str:
    constants = [repr(c) for c in inner.co_consts if not hasattr(c, "co_code")]
    nested = [_byte_code(c) for c in inner.co_consts if hasattr(c, "co_code")]
    return repr((inner.co_code.hex(), constants, nested, inner.co_names))
