"""What VeRL-Omni calls `solution_image`: an image, or the frames of a video."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any, cast

from guerdon.judges.compat.verl_omni import media_in
from guerdon.media import image, video
from guerdon.media.arrays import CHANNEL_COUNTS, numpy_of
from guerdon.sample import Media

CONTRACT = {3: "CHW", 4: "TCHW"}
"""Layouts of tensors (docs/contributing/integrating_a_diffusion_model.md 4.1 of VeRL-Omni)."""


def media_of(solution_image: Any, layout: str | None = None) -> Media:
    """The image or video of a rollout.

    A tensor whose third axis from the end has a number of channels is laid out as VeRL-Omni
    documents it: (C, H, W), or (T, C, H, W) for a video, also one of three frames. Any other array
    is taken where its sizes allow one reading only.

    Args:
        solution_image: a tensor or an array of uint8 (0 to 255) or floats (0 to 1); a PIL image; a
            list of frames; encoded bytes; `Media`.
        layout: of the array, such as "THWC".

    Raises:
        BadInput: neither image nor video.
        InvalidSample: an order that could be read in two ways.

    Example:
        >>> import numpy as np
        >>> media_of(np.zeros((8, 3, 16, 16), np.float32)).layout
        'TCHW'
    """
    if isinstance(solution_image, list | tuple):
        frames = cast("Sequence[Any]", solution_image)
        return video([_array(frame) for frame in frames], layout=layout)
    shape: tuple[int, ...] = tuple(getattr(solution_image, "shape", ()))
    if (
        layout is None
        and _is_tensor(solution_image)
        and len(shape) in CONTRACT
        and shape[len(shape) - 3] in CHANNEL_COUNTS
    ):
        layout = CONTRACT[len(shape)]
    return media_in(_array(solution_image), {"layout": layout})


def _is_tensor(value: Any) -> bool:
    return hasattr(value, "detach")


def _array(value: Any) -> Any:
    """A tensor as an array, which can go to a worker process; anything else as it is."""
    return numpy_of(value) if _is_tensor(value) else value


def pil_image_to_base64(picture: Any) -> str:
    """A PIL image as a `data:` URL of a PNG, lossless, as VeRL-Omni's judges send it.

    Args:
        picture: a PIL image of any mode; transparency stays.

    Raises:
        InvalidSample: no PIL image.

    Example:
        >>> from PIL import Image
        >>> pil_image_to_base64(Image.new("RGB", (2, 2)))[:22]
        'data:image/png;base64,'
    """
    if not hasattr(picture, "save"):
        image(picture)  # says what it is not
    file = io.BytesIO()
    picture.save(file, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
