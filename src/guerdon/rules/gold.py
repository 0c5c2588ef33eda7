"""Ground truths of the text rules: one text, or several of which each is right."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from guerdon.errors import BadInput


def gold_texts(ground_truth: object) -> tuple[str, ...]:
    """All accepted texts of a ground truth.

    A text, a number, a list of these, or a mapping with `target` (search-R1), `answers`, `answer`
    or `text` holding one of them (a mapping with `text` is SQuAD's `answers`).

    Raises:
        BadInput: nothing to compare with, or something that is no text.

    >>> gold_texts("Paris"), gold_texts({"target": ["Paris", 75]})
    (('Paris',), ('Paris', '75'))
    """
    if isinstance(ground_truth, str):
        return (ground_truth,)
    if isinstance(ground_truth, Mapping):
        return gold_texts(_inner(cast("Mapping[object, object]", ground_truth)))
    items: Sequence[Any]
    if isinstance(ground_truth, list | tuple):
        items = cast("Sequence[Any]", ground_truth)
    elif hasattr(ground_truth, "tolist"):
        # A numpy array, as Parquet readers give lists.
        return gold_texts(cast("Any", ground_truth).tolist())
    else:
        items = (ground_truth,)
    if not items:
        raise BadInput("the ground truth is an empty list")
    return tuple(_text(item) for item in items)


def _inner(mapping: Mapping[object, object]) -> object:
    for key in ("target", "answers", "answer", "text"):
        if key in mapping:
            return mapping[key]
    raise BadInput(
        f"the ground truth has none of target, answers, answer, text: {list(mapping)[:8]}"
    )


def _text(item: object) -> str:
    if isinstance(item, str):
        return item
    if isinstance(item, int | float) and not isinstance(item, bool):
        try:
            return str(item)
        except ValueError:
            raise BadInput("the ground truth is an integer of thousands of digits") from None
    raise BadInput(f"the ground truth holds a {type(item).__name__}, not a text")


def one_text(ground_truth: object) -> str:
    """A ground truth that is one text or number, as text.

    Raises:
        BadInput: It is neither, or it is blank.

    >>> one_text(0.5), one_text(" 1/2 ")
    ('0.5', ' 1/2 ')
    """
    text = _text(ground_truth)
    if not text.strip():
        raise BadInput("the ground truth is empty")
    return text
