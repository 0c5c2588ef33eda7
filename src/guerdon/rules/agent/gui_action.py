"""The reward `gui_action`: the model does the wanted thing on a screen.

Source of the formula: AgentFly 0.1.0, `gui_reward` (0.8 accuracy + 0.2 form; half of the accuracy
for the kind of action, half for its parameters; a click counts within 5 % of the diagonal). The
form of actions is UI-TARS' (Qin et al. 2025, arXiv:2501.12326): `click(start_box='(x,y)')`,
`type(content='...')`, `scroll(direction='down')`, and so on.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

import msgspec

from guerdon.errors import BadInput, InvalidReward
from guerdon.reward import reward
from guerdon.rules.answer_place import final_part
from guerdon.rules.case import case
from guerdon.rules.option import one_of

ACTION_CHARS = 20_000
"""An action with a longer text is none."""

NEAR = 0.05 * math.sqrt(2.0)
"""How far a click may be off, in shares of the screen (AgentFly: 5 % of the unit diagonal)."""

TEXT_F1 = 0.5
"""From which F1 over words a typed text counts (AgentFly)."""

KINDS: Mapping[str, tuple[str, ...]] = {
    "click": ("click", "left_single", "left_click", "tap"),
    "double_click": ("double_click", "left_double"),
    "right_click": ("right_click", "right_single"),
    "type": ("type", "input_text", "write"),
    "scroll": ("scroll",),
    "hotkey": ("hotkey", "press", "key"),
    "drag": ("drag", "left_click_drag", "swipe"),
    "wait": ("wait",),
    "finished": ("finished", "terminate", "done"),
}
"""Names of one kind of action, in the action spaces of UI-TARS, AgentFly and others."""

CLICKS = ("click", "double_click", "right_click")
"""One kind, unless they are told apart (AgentFly)."""

PLACED = (*CLICKS, "drag")
"""Kinds for which the truth's box counts; data has boxes of -100 beside others (GUI-R1)."""

TEXT_ARGUMENTS: Mapping[str, tuple[str, ...]] = {
    "scroll": ("direction",),
    "hotkey": ("key", "hotkey"),
}
"""Arguments that hold the text of an action; of other kinds it is `content`."""

_KIND_OF = {name: kind for kind, names in KINDS.items() for name in names}
NO_TEXT = "no input text"
"""How AgentFly's data says that there is none."""

_CALL = re.compile(r"\s*([a-z_]{1,32})\s*\(")
_ARGUMENT = re.compile(r"\s*,?\s*([a-z_]{1,32})\s*=\s*(['\"])")
_NUMBER = re.compile(r"-?\d{1,9}(?:\.\d{1,9})?")
_WORDS = re.compile(r"[^\W_]+(?:_[^\W_]+)*")


class Action(msgspec.Struct, frozen=True):
    """What the model wants to do.

    Attributes:
        kind: such as `click`.
        arguments: as text.
    """

    kind: str
    arguments: Mapping[str, str]

    @property
    def point(self) -> tuple[float, float] | None:
        """Where: a point, or the middle of a box; None where it names none."""
        for name in ("start_box", "point", "start_point", "box"):
            numbers = [float(text) for text in _NUMBER.findall(self.arguments.get(name, "")[:400])]
            if len(numbers) == 2:
                return numbers[0], numbers[1]
            if len(numbers) == 4:
                return (numbers[0] + numbers[2]) / 2, (numbers[1] + numbers[3]) / 2
        return None

    @property
    def text(self) -> str:
        """What is typed, where it scrolls, or which keys are pressed."""
        kind = _KIND_OF.get(self.kind, self.kind)
        for name in TEXT_ARGUMENTS.get(kind, ("content",)):
            if name in self.arguments:
                return self.arguments[name]
        return ""


def read_action(response: str) -> Action | None:
    """The action in a response: behind the last `Action:`, or all of it; None where it is none.

    Linear in the length of the response.

    Example:
        >>> read_action("Thought: there.\\nAction: click(start_box='(10,20)')").point
        (10.0, 20.0)
    """
    text = final_part(response)
    at = text.rfind("Action:")
    text = text[at + len("Action:") if at >= 0 else 0 :][:ACTION_CHARS]
    call = _CALL.match(text)
    if call is None:
        return None
    arguments: dict[str, str] = {}
    position = call.end()
    while (found := _ARGUMENT.match(text, position)) is not None:
        end = _closing(text, found.end(), found[2])
        if end < 0:
            return None
        arguments[found[1]] = _unescaped(text[found.end() : end])
        position = end + 1
    rest = text[position : position + 80].lstrip()
    return Action(call[1], arguments) if rest.startswith(")") else None


def _closing(text: str, start: int, quote: str) -> int:
    """Where a quoted text ends; -1 where it does not."""
    at = start
    while at < len(text):
        if text[at] == "\\":
            at += 1
        elif text[at] == quote:
            return at
        at += 1
    return -1


def _unescaped(text: str) -> str:
    if "\\" not in text:
        return text
    names = {"n": "\n", "t": "\t"}
    return re.sub(r"\\(.)", lambda found: names.get(found[1], found[1]), text, flags=re.DOTALL)


def word_f1(one: str, other: str) -> float:
    """F1 over the sets of words, without case and punctuation; 1 for two texts without words."""
    first, second = (set(_WORDS.findall(text.lower())) for text in (one, other))
    if not first and not second:
        return 1.0
    common = len(first & second)
    return 2 * common / (len(first) + len(second))


_CLICK = {"action": "click", "bbox": [0.2, 0.3, 0.4, 0.5]}
_TYPE = {"action": "type", "text": "cheap flights"}
_FIXTURES = (
    case("full", "click", 1.0, response="Action: click(point='(300,400)')", ground_truth=_CLICK),
    case("full", "type", 1.0, response="type(content='cheap flights')", ground_truth=_TYPE),
    case(
        "full",
        "scroll",
        1.0,
        response="scroll(direction='down', start_box='(1,1)')",
        ground_truth={"action": "scroll", "text": "down"},
    ),
    case("zero", "empty", 0.0, response="", ground_truth=_CLICK),
    case("zero", "no action", 0.0, response="I would click there.", ground_truth=_CLICK),
    case("malformed", "no truth", "bad_input", response="wait()"),
    case("malformed", "a box of three", "bad_input", response="wait()",
         ground_truth={"action": "click", "bbox": [1, 2, 3]}),
    case("malformed", "not closed", 0.0, response="click(start_box='(1", ground_truth=_CLICK),
    case("malformed", "odd characters", 0.0, response="\0\ud800", ground_truth=_CLICK),
    case("deterministic", "another action", 0.2, response="wait()", ground_truth=_CLICK),
    case("metamorphic", "noise around", 1.0,
         response="Thought: I see.\nAction: click(point='(300,400)')\n", ground_truth=_CLICK),
    case("metamorphic", "whitespace", 1.0, response="  click( start_box = '( 300 , 400 )' )",
         ground_truth=_CLICK),
    case("metamorphic", "equivalent form: a box", 1.0,
         response="click(start_box='<|box_start|>[290,390,310,410]<|box_end|>')",
         ground_truth=_CLICK),
    case("metamorphic", "equivalent form: a point", 1.0,
         response="left_double(point='<point>300 400</point>')", ground_truth=_CLICK),
    case("metamorphic", "every option: too far", 0.6, response="click(start_box='(900,900)')",
         ground_truth=_CLICK),
    case("metamorphic", "every option: all words", 0.6,
         response="type(content='hotels cars trains cheap boats flights beds meals')",
         ground_truth=_TYPE),
    case("metamorphic", "injected", 0.0, response="click(start_box=__import__('os'))",
         ground_truth=_CLICK),
)  # fmt: skip


@reward(name="gui_action", value_range=(0.0, 1.0), fixtures=_FIXTURES)
def gui_action(
    response: str,
    ground_truth: Any = None,
    gt_action: str | None = None,
    gt_bbox: Any = None,
    gt_input_text: str | None = None,
    screen: Any = None,
    *,
    scale: float | Literal["screen"] = 1000.0,
    truth_scale: float | Literal["screen"] = 1.0,
    hit: Literal["near", "inside"] = "near",
    clicks: Literal["one", "apart"] = "one",
    format_weight: float = 0.2,
) -> dict[str, Any]:
    """Whether the model does the wanted thing on a screen; range 0 to 1.

    `(1 - w) a + w f`: `f` is 1 for an action that can be read; `a` is half for its kind (all clicks
    are one kind) and half for its parameters: a click within 5 % of the diagonal of the box's
    middle (and so where a drag begins), a typed text with a word F1 of at least 0.5, the direction
    of a scroll; what the truth does not name is free, and a box beside another action is not looked
    at. Source: AgentFly 0.1.0, `gui_reward`, which takes every screen for one of 1920 x 1080 and
    gives half for parameters that fit whatever the action. Kinds beside click, type and scroll are
    compared by their text here.

    Args:
        response: What the model wrote; the last `Action:` counts. Nothing in it is evaluated.
        ground_truth: A mapping with `action`, and maybe `bbox` (2 or 4 numbers) and `text`.
        gt_action: The same as columns, AgentFly's names.
        gt_bbox: Likewise.
        gt_input_text: Likewise.
        screen: Width and height in pixels, for scales that are `screen`.
        scale: What the model's coordinates are divided by: UI-TARS counts to 1000; 1 for shares of
            the screen; `screen` for pixels.
        truth_scale: Likewise for the truth's box.
        hit: Whether a click must be `near` the middle of the box, or `inside` of it.
        clicks: Whether single, double and right clicks are `one` kind, or told `apart`.
        format_weight: `w`.

    >>> truth = {"action": "click", "bbox": [0.3, 0.4]}
    >>> gui_action.call_sync(response="click(start_box='(310,390)')", ground_truth=truth)["score"]
    1.0
    """
    one_of("hit", hit, ("near", "inside"))
    one_of("clicks", clicks, ("one", "apart"))
    if not 0.0 <= format_weight <= 1.0:
        raise InvalidReward(f"format_weight is 0 to 1, got {format_weight}")
    mine, theirs = _size(scale, screen), _size(truth_scale, screen)
    name, box, text = _wanted(ground_truth, gt_action, gt_bbox, gt_input_text, theirs)
    if hit == "inside" and len(box) == 2:
        raise BadInput("a click inside of a box needs a wanted box of 4 numbers, got 2")
    action = read_action(response)
    if action is None:
        metrics = {"accuracy": 0.0, "format": 0.0}
        return {"score": 0.0, "metrics": metrics, "info": {"status": "no_action"}}
    kind = _kind(name, clicks)
    accuracy, status = 0.0, "other_action"
    if _kind(action.kind, clicks) == kind:
        fits = _fits(action, kind, text) and _hits(action, box, mine, hit)
        accuracy, status = 0.5 + 0.5 * fits, "right" if fits else "other_parameters"
    score = (1.0 - format_weight) * accuracy + format_weight
    metrics = {"accuracy": accuracy, "format": 1.0}
    return {"score": score, "metrics": metrics, "info": {"status": status}}


def _kind(name: str, clicks: str) -> str:
    kind = _KIND_OF.get(name, name)
    return "click" if clicks == "one" and kind in CLICKS else kind


def _size(scale: float | str, screen: Any) -> tuple[float, float]:
    """What x and y are divided by."""
    if scale != "screen":
        if isinstance(scale, str) or not 0 < scale < math.inf:
            raise InvalidReward(f"a scale is a number above 0 or 'screen', got {scale!r}")
        return float(scale), float(scale)
    items = screen.tolist() if hasattr(screen, "tolist") else screen
    try:
        width, height = (float(item) for item in items or ())
    except (TypeError, ValueError):
        raise BadInput(f"the row's screen is no width and height: {items!r:.100}") from None
    if not (0 < width < math.inf and 0 < height < math.inf):
        raise BadInput(f"the row's screen has no size: {items!r:.100}")
    return width, height


def _hits(action: Action, box: Sequence[float], size: tuple[float, float], hit: str) -> bool:
    """Whether a click is where it is wanted, or a drag begins there."""
    if not box:
        return True
    if action.point is None:
        return False
    x, y = action.point[0] / size[0], action.point[1] / size[1]
    if hit == "inside":
        left, right = sorted((box[0], box[2]))
        top, bottom = sorted((box[1], box[3]))
        return left <= x <= right and top <= y <= bottom
    return math.dist((x, y), ((box[0] + box[-2]) / 2, (box[1] + box[-1]) / 2)) < NEAR


def _fits(action: Action, kind: str, text: str) -> bool:
    """Whether what is typed, pressed or scrolled is what is wanted."""
    if kind in CLICKS or not text:
        return True
    if kind == "scroll":
        return action.text.strip().lower() == text.strip().lower()
    return word_f1(action.text, text) >= TEXT_F1


def _wanted(
    ground_truth: Any, action: str | None, box: Any, text: str | None, size: tuple[float, float]
) -> tuple[str, list[float], str]:
    """Name, box in shares of the screen, and text that are wanted.

    Raises:
        BadInput: there is no kind, or the box is none.
    """
    if isinstance(ground_truth, Mapping):
        truth = cast("Mapping[str, Any]", ground_truth)
        action, box, text = (truth.get(key) for key in ("action", "bbox", "text"))
    elif ground_truth is not None and action is None:
        raise BadInput("the ground truth is no mapping with action, bbox and text")
    if not isinstance(action, str) or not action:
        raise BadInput("the row names no wanted action (ground_truth.action or gt_action)")
    if _KIND_OF.get(action.lower(), action.lower()) not in PLACED:
        box = None
    items = box.tolist() if hasattr(box, "tolist") else box
    try:
        numbers = [float(item) for item in items or ()]
    except (TypeError, ValueError):
        raise BadInput(
            f"the wanted box holds something else than numbers: {items!r:.100}"
        ) from None
    shares = [number / size[place % 2] for place, number in enumerate(numbers)]
    if len(shares) not in (0, 2, 4) or not all(0.0 <= share <= 1.0 for share in shares):
        raise BadInput(
            f"a wanted box is 2 or 4 numbers within the screen, which counts to {size[0]:g} and "
            f"{size[1]:g} (truth_scale), got {items!r:.100}"
        )
    return action.lower(), shares, "" if text is None or text == NO_TEXT else str(text)
