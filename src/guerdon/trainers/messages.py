"""Messages as trainers hand them over: with PIL images, and with videos as lists of frames."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np

from guerdon.sample import Media, Message


def parsed(raw: Any) -> Any:
    """Text as it is; messages parsed, with the PIL images in them.

    A video that is a list of frames becomes one image for each: how fast they follow each other is
    not known.

    Args:
        raw: of a prompt or a completion.

    Raises:
        InvalidSample: something is no message.

    Example:
        >>> parsed("2 + 2?"), parsed([{"role": "user", "content": "2 + 2?"}])[0].text
        ('2 + 2?', '2 + 2?')
    """
    found = with_media(raw)
    if not isinstance(found, tuple):
        return found
    return tuple(map(Message.parse, cast("tuple[Any, ...]", found)))


def with_media(raw: Any) -> Any:
    """As `parsed`, the messages left for `Sample` to parse."""
    if isinstance(raw, np.ndarray):  # Parquet gives lists as arrays
        raw = cast("Any", raw).tolist()
    if not isinstance(raw, list | tuple):
        return raw
    return tuple(map(_with_media, cast("Sequence[Any]", raw)))


def _with_media(message: Any) -> Any:
    if not isinstance(message, Mapping):
        return message
    fields = cast("Mapping[str, Any]", message)
    parts = fields.get("content")
    if isinstance(parts, str) or not isinstance(parts, list | tuple | np.ndarray):
        return fields
    return {**fields, "content": [found for part in cast("Any", parts) for found in _parts(part)]}


def _parts(part: Any) -> Iterator[Any]:
    if not isinstance(part, Mapping):
        yield part
        return
    fields = cast("Mapping[str, Any]", part)
    frames = fields.get("video")
    if isinstance(frames, list | tuple):
        for frame in cast("Sequence[Any]", frames):
            yield _image(frame) or {"type": "image", "image": frame}
    else:
        yield _image(fields.get("image")) or fields


def _image(found: Any) -> Media | None:
    """A PIL image: height, width, 3 channels of 8 bits. None for anything else."""
    if not hasattr(found, "convert"):
        return None
    pixels = np.asarray(found.convert("RGB"))
    return Media(kind="image", array=pixels, layout="HWC", value_range="uint8")
