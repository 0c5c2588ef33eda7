"""What a sample may hold: limits on pixels and frames, and which files it may name.

A sample over a limit fails alone, as `bad_input`; its neighbours are scored.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import msgspec
from msgspec.structs import replace

from guerdon.errors import BadInput, Blame, FailureKind
from guerdon.outcome import Failure, failure
from guerdon.sample import Media, Message, Sample
from guerdon.server.clip import clip_of
from guerdon.server.picture import picture_of
from guerdon.server.settings import Limits


class Admission:
    """Checks samples.

    Args:
        limits: of pixels and frames.
        media_roots: directories below which files may lie.
    """

    def __init__(self, limits: Limits, media_roots: Sequence[str]) -> None:
        self._limits = limits
        self._roots = [os.path.realpath(root) for root in media_roots]

    def check(self, samples: Sequence[Sample], *, tagged: bool) -> dict[int, Failure]:
        """Failures of samples that may not be scored, by position.

        Args:
            samples: of one request.
            tagged: whether open values may hold Guerdon's own types.
        """
        refused = _repeated(samples)
        for position, sample in enumerate(samples):
            try:
                self._check(sample, tagged)
            except BadInput as error:
                lost = failure(FailureKind.BAD_INPUT, str(error), Blame.DATA)
                refused[position] = replace(lost, sample=sample.sample_id)
        return refused

    def _check(self, sample: Sample, tagged: bool) -> None:
        if not tagged and _is_text(sample):
            return
        for media in media_of(sample):
            self._check_media(media)
        if tagged and holds_struct((sample.metadata, sample.ground_truth)):
            raise BadInput(
                "metadata and ground truths from requests may not hold media, messages or samples: "
                "give them in the sample's own fields"
            )

    def _check_media(self, media: Media) -> None:
        if media.path is not None:
            self._check_path(media.path, media.kind)
        elif media.array is not None:
            self._check_array(media)
        elif media.kind == "image" and media.data is not None:
            picture = picture_of(media.data)
            self._check_size(picture.width, picture.height, picture.frames, "an image")
        elif media.kind == "video" and media.data is not None:
            clip = clip_of(media.data)
            if clip is not None:
                self._check_size(clip.width, clip.height, clip.frames, "a video")

    def _check_array(self, media: Media) -> None:
        sizes = dict(zip(media.layout or "", media.array.shape, strict=True))
        if media.kind != "audio":
            self._check_size(sizes["W"], sizes["H"], sizes.get("T", 1), f"an array of {media.kind}")

    def _check_size(self, width: int, height: int, frames: int, what: str) -> None:
        if width * height > self._limits.pixels:
            raise BadInput(
                f"{what} of {width} x {height} pixels is larger than the {self._limits.pixels} "
                "pixels that this server takes (serve.limits.pixels)"
            )
        if frames > self._limits.frames:
            raise BadInput(
                f"{what} has {frames} frames, more than the {self._limits.frames} that this server "
                "takes (serve.limits.frames)"
            )

    def _check_path(self, path: str, kind: str) -> None:
        """Whether a file lies below an allowed root; what is there otherwise is not told."""
        try:
            real = os.path.realpath(path)
        except (OSError, ValueError):
            real = ""
        inside = any(real.startswith(root.rstrip(os.sep) + os.sep) for root in self._roots)
        if not inside or not os.path.isfile(real):
            roots = ", ".join(self._roots) or "none"
            raise BadInput(
                f"no {kind} can be read at that path: files must lie below serve.media_roots "
                f"({roots}); or send the bytes"
            )


def holds_struct(value: Any) -> bool:
    """Whether an open value holds one of Guerdon's own types."""
    todo: list[Any] = [value]
    while todo:
        item = todo.pop()
        if isinstance(item, msgspec.Struct):
            return True
        if isinstance(item, Mapping):
            mapping = cast("Mapping[Any, Any]", item)
            todo.extend(mapping.keys())
            todo.extend(mapping.values())
        elif isinstance(item, list | tuple | set | frozenset):
            todo.extend(cast("Iterable[Any]", item))
    return False


def _is_text(sample: Sample) -> bool:
    """Whether a sample holds no media; most do not, and are passed quickly."""
    return not (
        sample.images
        or sample.videos
        or sample.audios
        or isinstance(sample.prompt, tuple)
        or isinstance(sample.response, tuple)
    )


def media_of(sample: Sample) -> Iterator[Media]:
    """All media of a sample, those in messages included."""
    yield from sample.images
    yield from sample.videos
    yield from sample.audios
    yield from _media_in(sample.prompt)
    yield from _media_in(sample.response)


def _media_in(messages: str | tuple[Message, ...] | None) -> Iterator[Media]:
    if not isinstance(messages, tuple):
        return
    for message in messages:
        if isinstance(message.content, tuple):
            yield from (part.media for part in message.content if part.media is not None)


def _repeated(samples: Sequence[Sample]) -> dict[int, Failure]:
    """Repetitions of a `sample_id`; the first sample with it is scored, as in process."""
    refused: dict[int, Failure] = {}
    seen: dict[str, int] = {}
    for position, sample in enumerate(samples):
        if sample.sample_id is None:
            continue
        first = seen.setdefault(sample.sample_id, position)
        if first != position:
            found = f"sample_id {sample.sample_id!r} is also that of entry {first}"
            lost = failure(FailureKind.BAD_INPUT, found, Blame.DATA)
            refused[position] = replace(lost, sample=sample.sample_id)
    return refused
