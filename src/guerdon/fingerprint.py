"""What identifies the code and configuration that gave a score.

The fingerprint of a reward changes when its source, its version, its options or its model revision
change, and stays equal across processes and machines. It does not follow calls into other modules:
raise `version` when a function that the reward calls changes its meaning.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping, Sequence
from typing import Any, cast

import msgspec

DIGEST_CHARACTERS = 16


def digest(parts: Mapping[str, Any]) -> str:
    """16 hexadecimal characters of SHA-256 over the canonical JSON form of the parts.

    Example:
        >>> digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1})
        True
    """
    payload = msgspec.json.encode(canonical(parts), order="sorted")
    return hashlib.sha256(payload).hexdigest()[:DIGEST_CHARACTERS]


def source_of(code: Any) -> str:
    """The source text of a function or class, or a digest of its byte code where there is none."""
    try:
        return inspect.getsource(inspect.unwrap(code) if callable(code) else code)
    except (OSError, TypeError):
        return _byte_code(code)


def canonical(value: Any) -> Any:
    """A JSON form of any option value that is equal in every process.

    Objects with a `fingerprint` stand for it; other objects stand for their type, because the
    default `repr` holds an address.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return repr(value)
    own = getattr(value, "fingerprint", None)
    if isinstance(own, str):
        return own
    if isinstance(value, Mapping):
        items = cast("Mapping[object, object]", value)
        return {str(key): canonical(item) for key, item in items.items()}
    if isinstance(value, bytes | bytearray):
        return hashlib.sha256(value).hexdigest()
    if isinstance(value, Sequence):
        return [canonical(item) for item in cast("Sequence[object]", value)]
    if isinstance(value, set | frozenset):
        return sorted(map(repr, cast("set[object]", value)))
    if isinstance(value, msgspec.Struct):
        return canonical(msgspec.structs.asdict(value))
    if callable(value):
        return source_of(value)
    kind = cast("type[object]", type(value))
    return f"{kind.__module__}.{kind.__qualname__}"


def _byte_code(code: Any) -> str:
    inner: Any = getattr(code, "__code__", None)
    if inner is None:
        kind = cast("type[object]", code if isinstance(code, type) else type(code))
        return f"{kind.__module__}.{kind.__qualname__}"
    constants = [repr(c) for c in inner.co_consts if not hasattr(c, "co_code")]
    nested = [_byte_code(c) for c in inner.co_consts if hasattr(c, "co_code")]
    return repr((inner.co_code.hex(), constants, nested, inner.co_names))
