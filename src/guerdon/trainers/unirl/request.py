"""What goes to a backend of UniRL and what comes back, by the names of its own classes.

Source: UniRL 0.1.0, `unirl/types/reward.py` and `primitives.py`. UniRL's own requests are read as
well as this one: of 0.1.0 (`primitives`, images as one array), and later ones (`conditioning`,
`original_prompt` and `generation_prompt`, images packed one after another).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from guerdon.errors import InvalidSample
from guerdon.media import image, pixels_of, video
from guerdon.media.arrays import numpy_of
from guerdon.outcome import EMPTY
from guerdon.outcomes import Outcomes
from guerdon.sample import Media, Message, Part, Sample, Unusable
from guerdon.service import Entry

KINDS = ("image", "video", "text")
MODALITIES: Mapping[str, str] = {
    "texts": "text",
    "frames": "video",
    "waveform": "audio",
    "pixels": "image",
    "packed_pixels": "image",
    "rows": "image",
}
"""By what UniRL's primitives hold: dense and packed images, and several images per sample."""

UNKNOWN = "media"
PROMPT_SOURCES = ("generation", "original")
GROUND_TRUTHS = ("answer", "ground_truth")
"""Keys of the metadata that hold what UniRL's text rewards compare with."""


@dataclass
class RewardResponse:
    """What a backend found, one entry per sample.

    Attributes:
        rewards: NaN where there is none.
        component_rewards: one list per component; NaN where a sample has no score for it.
        successes: whether `rewards` holds a number.
        errors: why not, or why a number was assigned and not measured.
        compute_time: seconds.
        outcomes: what each sample gave, where a backend of Guerdon scored it.
    """

    rewards: list[float] = field(default_factory=list[float])
    component_rewards: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    successes: list[bool] = field(default_factory=list[bool])
    errors: list[str | None] = field(default_factory=list[str | None])
    compute_time: float = 0.0
    outcomes: Outcomes | None = None


@dataclass
class RewardRequest:
    """What is to be scored.

    Attributes:
        primitives: what the model was given: "text" (`.texts`), "image".
        generated: what it made: "image" ([C, H, W] each, in [0, 1]), "video" (`.to_list()` of
            `.frames`, [T, C, H, W]), "text" (`.texts`).
        metadata: one mapping or None per sample.
        prompt_ids: ids of the samples (so it is in UniRL).
        sample_ids: ids of the samples.
        group_ids: of the prompts.
        original_prompt: texts as the user gave them, where a model has rewritten them since.
        image_references: images that the model was given, one column per turn.
        audio_sample_rate: of generated sounds, in hertz.
    """

    primitives: Mapping[str, Any] = field(default_factory=dict[str, Any])
    generated: Mapping[str, Any] = field(default_factory=dict[str, Any])
    metadata: list[dict[str, Any] | None] | None = None
    prompt_ids: list[str] | None = None
    sample_ids: list[str] | None = None
    group_ids: list[str] | None = None
    reward_types: Sequence[Any] = ()
    return_components: bool = False
    original_prompt: Any = None
    image_references: Sequence[Any] = ()
    audio_sample_rate: int | None = None

    @property
    def prompts(self) -> list[str]:
        """Texts that the model was given; none without a text primitive."""
        return _texts(self.primitives.get("text")) or []

    @property
    def generation_prompt(self) -> Any:
        """The text primitive."""
        return self.primitives.get("text")

    @property
    def conditioning(self) -> Mapping[str, Any]:
        """What the model was given beside texts."""
        return {key: value for key, value in self.primitives.items() if key != "text"}

    @property
    def images(self) -> list[Any] | None:
        """Generated images as PIL."""
        made = self.generated.get("image")
        if made is None:
            return None
        from PIL import Image

        return [Image.fromarray(pixels_of(one)) for one in _images(made)]

    @property
    def videos(self) -> list[Any] | None:
        """Generated videos, (C, T, H, W) each."""
        made = self.generated.get("video")
        return None if made is None else [_frames(one).swapaxes(0, 1) for one in made.to_list()]

    @property
    def texts(self) -> list[str] | None:
        """Generated texts."""
        return _texts(self.generated.get("text"))

    @property
    def audio(self) -> list[Any] | None:
        """Generated sounds."""
        made = self.generated.get("audio")
        return None if made is None else [one.waveform for one in made.to_list()]

    @property
    def batch_size(self) -> int:
        """Of what was generated, else of what was given."""
        for value in (*self.generated.values(), *self.primitives.values()):
            if value is not None:
                return len(value)
        return 0

    @property
    def is_video(self) -> bool:
        """Whether a video was generated."""
        return "video" in self.generated

    @property
    def has_audio(self) -> bool:
        """Whether a sound was generated."""
        return "audio" in self.generated


def samples_of(request: Any, kind: str, prompt_source: str = PROMPT_SOURCES[0]) -> list[Entry]:
    """The samples of a request, UniRL's or ours.

    Args:
        request: see `RewardRequest`.
        kind: which of the generated things is scored.
        prompt_source: whether the prompt is that of the generation or the original one.

    Raises:
        InvalidSample: nothing of that kind was generated, or the columns differ in length. UniRL
            0.1.0 scores what is beyond the prompts against an empty one.
    """
    made = request.generated.get(kind)
    if made is None:
        there = ", ".join(request.generated) or "nothing"
        raise InvalidSample(f"the reward scores {kind}, and the request has {there}")
    if modality(made) not in (kind, UNKNOWN):
        raise InvalidSample(f"the reward scores {kind}, and {modality(made)} was generated")
    things: Sequence[Any] = _texts(made) or [] if kind == "text" else _media(made, kind)
    size = len(things)
    prompts = _column("prompts", _prompts(request, prompt_source), size)
    sources = [_column("source images", _sources(column), size) for column in _references(request)]
    metadata = _column("metadata", request.metadata, size)
    ids = _column("sample_ids", request.sample_ids, size)
    groups = _column("group_ids", request.group_ids, size)
    return [
        _sample(
            kind,
            things[i],
            _prompt(prompts[i], [media for column in sources for media in column[i] or ()]),
            metadata[i],
            ids[i],
            groups[i],
        )
        for i in range(size)
    ]


def modality(primitive: Any) -> str:
    """Under which key UniRL puts a primitive (`unirl/types/primitives.py`)."""
    return next((key for name, key in MODALITIES.items() if hasattr(primitive, name)), UNKNOWN)


def _column(name: str, column: Sequence[Any] | None, size: int) -> Sequence[Any]:
    if not column:
        return [None] * size
    if len(column) != size:
        raise InvalidSample(f"{len(column)} {name} for {size} generated samples")
    return column


def _given(request: Any) -> Mapping[str, Any]:
    """What the model was given: `primitives`, in later versions `conditioning`."""
    found = getattr(request, "primitives", None) or getattr(request, "conditioning", None)
    return cast("Mapping[str, Any]", found or EMPTY)


def _prompts(request: Any, source: str) -> list[str] | None:
    own = getattr(request, f"{source}_prompt", None)
    return _texts(_given(request).get("text") if own is None else own)


def _references(request: Any) -> list[Any]:
    """Columns of images that the model was given."""
    references = list(getattr(request, "image_references", None) or ())
    if references:
        return references
    image = _given(request).get("image")
    return [] if image is None else [image]


def _texts(primitive: Any) -> list[str] | None:
    return None if primitive is None else list(primitive.texts)


def _media(made: Any, kind: str) -> list[Media]:
    return _images(made) if kind == "image" else [_video(one) for one in made.to_list()]


def _images(made: Any) -> list[Media]:
    """One image per sample."""
    dense = getattr(made, "pixels", None)
    return [_image(one) for one in (dense if dense is not None else _unpacked(made))]


def _unpacked(made: Any) -> list[Any]:
    """The arrays of a batch that holds its images one after another, of any sizes."""
    return [one.pixels for one in made.to_list()]


def _sources(made: Any) -> list[tuple[Media, ...]]:
    """The images that each sample was given: one, or several in UniRL's `ImageSets`."""
    rows = getattr(made, "rows", None)
    if rows is None:
        return [(one,) for one in _images(made)]
    return [tuple(_image(one.pixels) for one in row.to_list()) for row in rows]


def _image(pixels: Any) -> Media:
    array = numpy_of(pixels)
    return image(array, layout="CHW", value_range=_range(array))


def _video(one: Any) -> Media:
    frames = _frames(one)
    fps = getattr(one, "fps", None)
    return video(frames, layout="TCHW", value_range=_range(frames), fps=fps)


def _frames(one: Any) -> Any:
    """Frames of shape [T, C, H, W], as an array, which can go to a worker process."""
    return numpy_of(getattr(one, "frames", one))


def _range(array: Any) -> str:
    """UniRL's floats lie in [0, 1]."""
    return "uint8" if str(array.dtype).endswith("uint8") else "0..1"


def _prompt(text: str | None, sources: Sequence[Media]) -> Any:
    if not sources:
        return text
    parts = [Part(media=source) for source in sources]
    if text is not None:
        parts.append(Part(text=text))
    return (Message("user", tuple(parts)),)


def _sample(
    kind: str, thing: Any, prompt: Any, metadata: Any, sample_id: Any, group_id: Any
) -> Entry:
    """The sample, or what stands for a row that makes none: the policy decides about it."""
    known = cast("Mapping[str, Any]", metadata or EMPTY)
    try:
        if not isinstance(cast("object", known), Mapping):
            raise InvalidSample(f"the metadata is a {type(known).__name__}, not a mapping")
        source = known.get("data_source")
        return Sample(
            prompt=prompt,
            response=thing if kind == "text" else None,
            images=(thing,) if kind == "image" else (),
            videos=(thing,) if kind == "video" else (),
            ground_truth=next((known[key] for key in GROUND_TRUTHS if key in known), None),
            data_source=source if isinstance(source, str) else None,
            metadata=known,
            sample_id=sample_id,
            group_id=group_id,
        )
    except InvalidSample as error:
        return Unusable(problem=str(error), sample_id=sample_id, group_id=group_id)
