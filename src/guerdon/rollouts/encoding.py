"""JSON lines of anything: lone surrogates, NaN, arrays and objects that know no JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, cast

import msgspec

LONGEST_REPR = 200
LARGEST_ARRAY = 1000
"""Elements up to which an array is written as a list."""
DEEPEST = 100
"""Levels of nesting; what lies deeper is written as text."""


def _plain(value: Any) -> Any:
    """A JSON form of what the encoder does not know."""
    if isinstance(value, Mapping):
        return dict(cast("Mapping[Any, Any]", value))
    if callable(getattr(value, "tolist", None)) and getattr(value, "size", 0) <= LARGEST_ARRAY:
        return value.tolist()
    return _text(value)


_encoder = msgspec.json.Encoder(enc_hook=_plain)


def encode_line(row: Mapping[str, Any]) -> bytes:
    r"""One line of JSON, with its line end. NaN and infinities become null.

    Example:
        >>> encode_line({"a": float("nan"), "b": "\ud800"})
        b'{"a": null, "b": "\\ud800"}\n'
    """
    return encode_value(row) + b"\n"


def encode_value(value: Any) -> bytes:
    """Any value as JSON."""
    try:
        return _encoder.encode(value)
    except Exception:
        return json.dumps(_cleaned(value, 0), ensure_ascii=True, allow_nan=False).encode()


def _cleaned(value: Any, depth: int) -> Any:
    if value is None or isinstance(value, bool | str):
        return str(value) if isinstance(value, str) else value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if depth > DEEPEST:
        return _text(value)
    if isinstance(value, Mapping):
        items = cast("Mapping[Any, Any]", value).items()
        return {str(key): _cleaned(item, depth + 1) for key, item in items}
    if isinstance(value, list | tuple | set | frozenset):
        return [_cleaned(item, depth + 1) for item in cast("list[Any]", value)]
    try:
        plain = msgspec.to_builtins(value, enc_hook=_plain)
    except Exception:
        return _text(value)
    return _text(value) if plain is value else _cleaned(plain, depth + 1)


def _text(value: Any) -> str:
    try:
        text = repr(value)
    except Exception as error:
        text = f"<{type(value).__name__} whose repr() raised {type(error).__name__}>"
    return text if len(text) <= LONGEST_REPR else f"{text[:LONGEST_REPR]}..."
