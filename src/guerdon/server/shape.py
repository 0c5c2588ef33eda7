"""What a sample costs and which samples are alike, for batches of models."""

from __future__ import annotations

from guerdon.sample import Media, Message, Sample
from guerdon.server.admission import media_of
from guerdon.server.picture import picture_of

BYTES_PER_TOKEN = 4
"""Text without token ids is taken to have one token for so many bytes."""


def cost_of(sample: Sample) -> tuple[int, int]:
    """Tokens and pixels of a sample; pixels are counted over all frames.

    Example:
        >>> cost_of(Sample(prompt="2 + 2?", response_token_ids=[1, 2, 3]))
        (4, 0)
    """
    return tokens_of(sample), sum(map(_pixels, media_of(sample)))


def tokens_of(sample: Sample) -> int:
    """Tokens of prompt and response."""
    prompt = _count(sample.prompt_token_ids, sample.prompt)
    return prompt + _count(sample.response_token_ids, sample.response)


def bucket_of(sample: Sample) -> tuple[object, ...]:
    """Equal for samples that pad each other little: same shapes of arrays, and about the same
    length of text (within a factor of two).

    Example:
        >>> bucket_of(Sample(response="a" * 100)) == bucket_of(Sample(response="a" * 120))
        True
    """
    shapes = tuple(_shape(media) for media in media_of(sample))
    return (tokens_of(sample).bit_length(), shapes)


def _count(token_ids: object, text: str | tuple[Message, ...] | None) -> int:
    if token_ids is not None:
        return len(token_ids)  # pyright: ignore[reportArgumentType]
    if text is None:
        return 0
    size = len(text) if isinstance(text, str) else sum(len(message.text) for message in text)
    return size // BYTES_PER_TOKEN


def _shape(media: Media) -> tuple[object, ...]:
    if media.array is not None:
        return (media.kind, media.layout, tuple(media.array.shape))
    if media.kind == "image" and media.data is not None:
        picture = picture_of(media.data)
        return (media.kind, picture.width, picture.height)
    return (media.kind,)


def _pixels(media: Media) -> int:
    if media.array is not None:
        sizes = dict(zip(media.layout or "", media.array.shape, strict=True))
        return sizes.get("H", 0) * sizes.get("W", 0) * sizes.get("T", 1)
    if media.kind == "image" and media.data is not None:
        picture = picture_of(media.data)
        return picture.width * picture.height * picture.frames
    return 0
