"""Stand-ins for UniRL's types, and the rewards of its tests.

`Texts`, `Images`, `Videos`, `Req` and `Track` stand for 0.1.0; `Packed`, `ImageSets`, `Turn`,
`Part` and `Whole` (a `Sample`) for later versions. Only what the reward service touches is there.
"""

from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from guerdon.reward import reward  # noqa: E402


@dataclass
class Texts:
    texts: list

    def __len__(self):
        return len(self.texts)

    def repeat_interleave(self, times):
        return Texts([text for text in self.texts for _ in range(times)])


@dataclass
class Images:
    pixels: torch.Tensor

    def __len__(self):
        return len(self.pixels)

    def repeat_interleave(self, times):
        return Images(self.pixels.repeat_interleave(times, 0))


@dataclass
class Packed:
    """Images of any sizes, one after another."""

    items: list
    packed_pixels: object = None

    def __len__(self):
        return len(self.items)

    def to_list(self):
        return [SimpleNamespace(pixels=one) for one in self.items]


@dataclass
class ImageSets:
    rows: list

    def __len__(self):
        return len(self.rows)


@dataclass
class Clip:
    frames: torch.Tensor
    fps: float = 8.0


@dataclass
class Videos:
    clips: list

    def __len__(self):
        return len(self.clips)

    def to_list(self):
        return self.clips


@dataclass
class Sampling:
    samples_per_prompt: int = 1
    max_new_tokens: int = 10


@dataclass
class Segment:
    lengths: torch.Tensor


@dataclass
class Req:
    primitives: dict = field(default_factory=dict)
    metadata: list = field(default_factory=list)
    sampling_params: dict = field(default_factory=dict)


@dataclass
class Track:
    sample_ids: list
    decoded: object
    parent_ids: list | None = None
    segment: object = None
    rewards: object = None
    component_rewards: object = None

    @property
    def group_ids(self):
        return list(self.parent_ids or self.sample_ids)


@dataclass
class Turn:
    role: str
    content: object


@dataclass
class Part:
    sample_ids: list
    primitives: dict
    sampling_params: object = None
    segment: object = None
    rewards: object = None
    component_rewards: object = None
    primitive_metadata: dict = field(default_factory=dict)

    @property
    def group_ids(self):
        return [name.rpartition("/")[0] for name in self.sample_ids]


@dataclass
class Whole:
    """A `Sample` of later versions: what the model was told, and at last what it made."""

    told: list
    parts: list
    metadata: list

    def turns(self):
        return self.told

    def root_metadata(self, index):
        assert index == -1
        return self.metadata

    def with_parts(self, parts):
        return Whole(self.told, parts, self.metadata)


def text_track(texts, **more):
    return Track([f"s{i}" for i in range(len(texts))], Texts(list(texts)), **more)


def whole(made, kind="text", told=(), metadata=(), **more):
    ids = [f"p/{i}" for i in range(len(made))]
    part = Part(ids, {kind: made}, **more)
    return Whole(list(told), [part], list(metadata) or [None] * len(made))


def picture(value, *size):
    return torch.full((3, *(size or (8, 8))), value)


@reward(name="signed", value_range=(-1.0, 1.0), auto_register=False)
def signed(response: str) -> float:
    """The response, as a number."""
    return float(response)


def parity_track(rows):
    track = text_track([row.response for row in rows], parent_ids=[row.prompt for row in rows])
    metadata = [
        {
            "answer": row.ground_truth,
            "data_source": row.data_source,
            "judge": row.judge,
            "fault": row.fault,
        }
        for row in rows
    ]
    return Req({"text": Texts([row.prompt for row in rows])}, metadata), track


@reward(name="told", auto_register=False)
def told(response: str, prompt: str, metadata: dict) -> float:
    """Prompt, response and metadata as digits."""
    return float(f"{prompt}{response}{metadata['n']}")


@reward(name="sources", auto_register=False)
def sources(images, prompt, prompt_messages) -> float:
    """Images before the text of the prompt, and the length of the text."""
    (message,) = prompt_messages
    pictures = [part.media for part in message.content if part.media is not None]
    assert message.content[-1].text == prompt
    return 10.0 * len(pictures) + len(prompt)


@reward(name="one_of", auto_register=False, deadline=20.0)
def one_of(response: str, *, words: list[str]) -> bool:
    return response in words
