"""One row of JSON from its bytes.

The fast decoder refuses what real files hold: lone surrogates, NaN and Infinity, a byte order mark.
Rows that it refuses are tried again with one that takes them.
"""

from __future__ import annotations

import json
from typing import Any, TypeAlias, cast

import msgspec

Row: TypeAlias = dict[str, Any]

_fast = msgspec.json.Decoder()
EXCERPT = 80
"""Characters of a row that a message quotes."""


class Unreadable(ValueError):
    """The bytes are no row; the message says why."""


def decode_row(raw: bytes) -> Row:
    r"""The row that some bytes hold.

    Raises:
        Unreadable: no UTF-8, no JSON, or no object.

    Example:
        >>> decode_row(b'{"a": "\\ud800", "b": NaN}')
        {'a': '\ud800', 'b': nan}
    """
    try:
        row: object = _fast.decode(raw)
    except (ValueError, RecursionError):
        row = _patient(raw)
    if type(row) is not dict:
        raise Unreadable(f"not a JSON object but {_what(row)}: {_excerpt(raw)}")
    return cast("Row", row)


def decode_value(raw: bytes) -> Any:
    """Any JSON value; see `decode_row`."""
    try:
        return _fast.decode(raw)
    except (ValueError, RecursionError):
        return _patient(raw)


def _patient(raw: bytes) -> object:
    try:
        text = raw.rstrip(b"\r\n").decode("utf-8-sig", "surrogatepass")
    except UnicodeDecodeError as error:
        byte = raw[error.start]
        raise Unreadable(f"not UTF-8: byte 0x{byte:02x} at position {error.start}") from None
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        what = error.msg.removesuffix(" at")
        raise Unreadable(
            f"not JSON: {what} at character {error.pos + 1} of {_excerpt(raw)}"
        ) from None
    except RecursionError:
        raise Unreadable(f"not usable JSON: nested too deeply: {_excerpt(raw)}") from None
    except ValueError as error:
        raise Unreadable(f"not usable JSON: {error}") from None


def _what(value: object) -> str:
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, list | str):
        return "a list" if isinstance(value, list) else "a text"
    return "a number"


def _excerpt(raw: bytes) -> str:
    text = raw[: 4 * EXCERPT].decode("utf-8", "replace").strip()
    return repr(text if len(text) <= EXCERPT else f"{text[:EXCERPT]}...")
