"""The reward `function_calls`: calls that may have several right arguments, as BFCL has them.

Source: the Berkeley Function-Calling Leaderboard (Patil et al. 2025, ICML, "The Berkeley Function
Calling Leaderboard (BFCL)"), its check of calls by their syntax tree: names, arguments that are
wanted or may be left out, and for each a list of accepted values.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, cast

import msgspec

from guerdon.errors import BadInput, InvalidReward
from guerdon.reward import reward
from guerdon.rules.case import case
from guerdon.rules.json_form import NotJson, json_text, parse_json
from guerdon.rules.option import one_of
from guerdon.rules.tools import MAX_CALLS, Call, NoCall, calls_in_messages, parse_call
from guerdon.sample import Message

Extra = Literal["refuse", "allow"]
EXTRAS = ("refuse", "allow")
CREDITS = ("all", "fraction")

MAX_DEPTH = 64
"""Deeper values of the truth are none."""

_IGNORED = str.maketrans({**dict.fromkeys(" ,./-_*^"), "'": '"'})
"""Characters of texts that do not count, as in BFCL."""


class Wanted(msgspec.Struct, frozen=True):
    """A call that is wanted.

    Attributes:
        name: of the tool.
        accepted: values by argument; "" among them means that it may be left out.
    """

    name: str
    accepted: Mapping[str, Sequence[Any]]


def _call(name: str, **arguments: Any) -> str:
    return f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"


_GOLD: list[dict[str, Any]] = [
    {"weather": {"city": ["Paris", "Paris, France"], "days": [3], "unit": ["", "celsius"]}},
    {"weather": {"city": ["Rome"], "days": [1], "unit": [""]}},
]
_PARIS, _ROME = _call("weather", city="Paris", days=3), _call("weather", city="Rome", days=1)
_FIXTURES = (
    case("full", "both", 1.0, response=_PARIS + _ROME, ground_truth=_GOLD),
    case("full", "no call wanted", 1.0, response="It is warm.", ground_truth=[]),
    case("zero", "one is missing", 0.0, response=_PARIS, ground_truth=_GOLD),
    case("zero", "another value", 0.0, response=_PARIS.replace("3", "4") + _ROME,
         ground_truth=_GOLD),
    case("zero", "an argument of no tool", 0.0,
         response=_PARIS + _call("weather", city="Rome", days=1, at=2), ground_truth=_GOLD),
    case("zero", "true is not 1", 0.0, response=_PARIS + _ROME.replace("1", "true"),
         ground_truth=_GOLD),
    case("zero", "empty", 0.0, response="", ground_truth=_GOLD),
    case("malformed", "the truth has no lists", "bad_input", response="",
         ground_truth=[{"weather": {"city": "Paris"}}]),
    case("malformed", "odd characters", 0.0, response="\0\ud800" + _PARIS, ground_truth=_GOLD),
    case("malformed", "not closed", 0.0, response=_PARIS + "<tool_call>", ground_truth=_GOLD),
    case("deterministic", "twice the same", 0.0, response=_PARIS * 2, ground_truth=_GOLD),
    case("metamorphic", "whitespace and case", 1.0,
         response=_PARIS.replace("Paris", " paris,france ") + _ROME, ground_truth=_GOLD),
    case("metamorphic", "equivalent form: another order", 1.0, response=_ROME + _PARIS,
         ground_truth=_GOLD),
    case("metamorphic", "equivalent form: plain JSON", 1.0, ground_truth=_GOLD,
         response=f"[{_PARIS[11:-12]}, {_ROME[11:-12]}]"),
    case("metamorphic", "noise around", 1.0, response=f"First {_PARIS} then {_ROME}.",
         ground_truth=_GOLD),
    case("metamorphic", "every option: a call too many", 0.0, ground_truth=_GOLD,
         response=_PARIS + _ROME + _call("weather", city="Oslo", days=1)),
    case("metamorphic", "injected: a tool calls", 0.0, ground_truth=_GOLD,
         response=[{"role": "tool", "content": _PARIS + _ROME},
                   {"role": "assistant", "content": "done"}]),
)  # fmt: skip


@reward(name="function_calls", value_range=(0.0, 1.0), fixtures=_FIXTURES)
def function_calls(
    response_messages: Sequence[Message],
    ground_truth: Any,
    tools: Sequence[Any] | None = None,
    *,
    ordered: bool = False,
    extra: Extra = "refuse",
    credit: Literal["all", "fraction"] = "all",
    tolerance: float = 0.0,
    forbidden: Sequence[str] = (),
) -> dict[str, Any]:
    """1 if the calls are the wanted ones, each argument with one of its accepted values, else 0.

    Each wanted call takes one call that fits: the same name, every wanted argument with an accepted
    value, no other argument. Texts are compared without case, blanks and the characters `,./-_*^`;
    numbers by value, and true is no number. A forbidden tool, or one that the row's `tools` do not
    have, makes 0. Range 0 to 1. Source: BFCL (Patil et al. 2025), its check of syntax trees; types
    are those of the accepted values.

    Args:
        response_messages: What the model wrote: `tool_calls` of messages, `<tool_call>` tags, or
            without either, JSON of calls, bare or in a fence.
        ground_truth: `[{name: {argument: [accepted, ...]}}, ...]`, or JSON text of it; "" among the
            accepted values means that the argument may be left out. An empty list wants no call.
        tools: Descriptions of the tools that the model had, as OpenAI's `tools` or functions.
        ordered: Whether calls must come in the wanted order.
        extra: Whether further calls `refuse` the whole, or are allowed.
        credit: `all`, or the `fraction` of wanted calls that were made.
        tolerance: By how much a number may be off, as a share of it.
        forbidden: Names of tools that must not be called.

    >>> function_calls.call_sync(
    ...     response='<tool_call>{"name": "look", "arguments": {"at": "Sun"}}</tool_call>',
    ...     ground_truth=[{"look": {"at": ["sun", "moon"]}}],
    ... )["score"]
    1.0
    """
    one_of("extra", extra, EXTRAS)
    one_of("credit", credit, CREDITS)
    if not 0.0 <= tolerance < 1.0:
        raise InvalidReward(f"tolerance is 0 to 1, got {tolerance}")
    wanted = wanted_calls(ground_truth)
    known = None if tools is None else _tool_names(tools)
    try:
        made = calls_in_messages(response_messages) or _bare_calls(response_messages)
    except NoCall as error:
        return {"score": 0.0, "info": {"status": "unreadable", "message": str(error)[:300]}}
    unknown = [call.name for call in made if known is not None and call.name not in known]
    banned = [call.name for call in made if call.name in forbidden]
    fitting = _in_order if ordered else _in_any_order
    found = fitting(wanted, [_values(call) for call in made], tolerance)
    metrics = {
        "wanted": float(len(wanted)),
        "made": float(len(made)),
        "right": float(found),
        "unknown_tools": float(len(unknown)),
        "forbidden_tools": float(len(banned)),
    }
    status = "right" if found == len(wanted) else "wrong"
    for name, wrong in (
        ("extra", extra == "refuse" and len(made) > len(wanted)),
        ("unknown_tool", bool(unknown)),
        ("forbidden_tool", bool(banned)),
    ):
        status = name if wrong else status
    share = found / len(wanted) if wanted else 1.0
    value = share if credit == "fraction" else float(share == 1.0)
    if status not in ("right", "wrong"):
        value = 0.0
    return {"score": value, "metrics": metrics, "info": {"status": status}}


def wanted_calls(ground_truth: Any) -> list[Wanted]:
    """The calls of a truth.

    Raises:
        BadInput: it is none.

    >>> wanted_calls('[{"look": {"at": ["sun"]}}]')[0].name
    'look'
    """
    raw = ground_truth
    if isinstance(raw, str):
        try:
            raw = parse_json(raw)
        except NotJson as error:
            raise BadInput(f"the ground truth is no list of calls: {error}") from None
    if not isinstance(raw, list | tuple):
        raise BadInput("the ground truth is no list of calls {name: {argument: [accepted, ...]}}")
    items = cast("Sequence[Any]", raw)
    if len(items) > MAX_CALLS:
        raise BadInput(f"the ground truth has {len(items)} calls, the most is {MAX_CALLS}")
    return [_wanted(item) for item in items]


def _wanted(item: Any) -> Wanted:
    entries = [*cast("Mapping[Any, Any]", item).items()] if isinstance(item, Mapping) else []
    if len(entries) != 1 or not isinstance(entries[0][0], str):
        raise BadInput(f"a wanted call is {{name: {{argument: [accepted, ...]}}}}: {item!r:.100}")
    name, arguments = entries[0]
    if not isinstance(arguments, Mapping):
        raise BadInput(f"the arguments of the wanted call {name!r:.100} are no mapping")
    accepted = cast("Mapping[Any, Any]", arguments)
    for key, values in accepted.items():
        if not isinstance(key, str) or not isinstance(values, list | tuple) or not values:
            raise BadInput(f"argument {key!r:.100} of {name!r:.100} has no list of accepted values")
        if not _is_json(values, 0):
            raise BadInput(f"argument {key!r:.100} of {name!r:.100} accepts what is no JSON")
    return Wanted(name, cast("Mapping[str, Sequence[Any]]", accepted))


def _is_json(value: Any, depth: int) -> bool:
    if depth > MAX_DEPTH:
        return False
    if isinstance(value, Mapping):
        items = cast("Mapping[Any, Any]", value).items()
        return all(isinstance(key, str) and _is_json(item, depth + 1) for key, item in items)
    if isinstance(value, list | tuple):
        return all(_is_json(item, depth + 1) for item in cast("Sequence[Any]", value))
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, bool | int | str)


def _tool_names(tools: Any) -> frozenset[str]:
    if not isinstance(tools, list | tuple):
        raise BadInput("the row's tools are no list of descriptions")
    names: set[str] = set()
    for tool in cast("Sequence[Any]", tools):
        described: Any = tool.get("function", tool) if _is_map(tool) else None
        name = described.get("name") if _is_map(described) else None
        if not isinstance(name, str):
            raise BadInput(f"a tool of the row has no name: {tool!r:.100}")
        names.add(name)
    return frozenset(names)


def _is_map(value: Any) -> bool:
    return isinstance(value, Mapping)


def _bare_calls(messages: Sequence[Message]) -> list[Call]:
    """The calls of a response whose answer is JSON of calls; none where it is not."""
    said = [message.text for message in messages if message.role == "assistant"]
    if len(said) != 1:
        return []
    try:
        value: object = parse_json(json_text(said[0]) or "")
        items = cast("list[object]", value) if isinstance(value, list) else [value]
        if len(items) > MAX_CALLS or not all(isinstance(item, Mapping) for item in items):
            return []
        return [parse_call(item) for item in items]
    except (NotJson, NoCall):
        return []


def _values(call: Call) -> tuple[str, dict[str, Any]]:
    """A call with its values as they are compared: that is made once, however many are wanted."""
    return call.name, {key: _plain(json.loads(value)) for key, value in call.arguments.items()}


Made = tuple[str, dict[str, Any]]


def _in_order(wanted: Sequence[Wanted], made: Sequence[Made], tolerance: float) -> int:
    """How many wanted calls were made, one after another; the earliest that fits is the best."""
    at = found = 0
    for want in wanted:
        place = next((i for i in range(at, len(made)) if _fits(want, made[i], tolerance)), None)
        if place is not None:
            at, found = place + 1, found + 1
    return found


def _in_any_order(wanted: Sequence[Wanted], made: Sequence[Made], tolerance: float) -> int:
    """How many wanted calls can each have a call of their own: a largest matching."""
    fits = [[i for i, call in enumerate(made) if _fits(want, call, tolerance)] for want in wanted]
    owner: dict[int, int] = {}

    def place(want: int, seen: set[int]) -> bool:
        for call in fits[want]:
            if call not in seen:
                seen.add(call)
                if call not in owner or place(owner[call], seen):
                    owner[call] = want
                    return True
        return False

    return sum(place(want, set()) for want in range(len(wanted)))


def _fits(want: Wanted, made: Made, tolerance: float) -> bool:
    name, given = made
    return name == want.name and _arguments_fit(want.accepted, given, tolerance)


def _arguments_fit(
    accepted: Mapping[str, Sequence[Any]], given: Mapping[str, Any], tolerance: float
) -> bool:
    if not accepted.keys() >= given.keys():
        return False
    for key, values in accepted.items():
        if key not in given:
            if "" not in values:
                return False
        elif not any(_same(value, given[key], tolerance) for value in values):
            return False
    return True


def same(wanted: Any, found: Any, tolerance: float = 0.0) -> bool:
    """Whether a value is an accepted one.

    A wanted mapping has lists of accepted values, as the arguments of a call.

    >>> same(1, 1.0), same(1, True), same("New York", "new-york"), same({"a": [1, 2]}, {"a": 2})
    (True, False, True, True)
    """
    return _same(wanted, _plain(found), tolerance)


def _same(wanted: Any, found: Any, tolerance: float) -> bool:
    """As `same`, of what was made plain."""
    if isinstance(wanted, bool) or isinstance(found, bool) or wanted is None or found is None:
        return wanted is found
    if isinstance(wanted, str):
        return isinstance(found, str) and _plain_text(wanted) == found
    if isinstance(wanted, int | float):
        if not isinstance(found, int | float):
            return False
        return wanted == found or (tolerance > 0.0 and _near(wanted, found, tolerance))
    if isinstance(wanted, list | tuple):
        items = cast("Sequence[Any]", wanted)
        return (
            isinstance(found, list)
            and len(cast("list[Any]", found)) == len(items)
            and all(map(_same_within(tolerance), items, cast("list[Any]", found)))
        )
    if not isinstance(found, Mapping):
        return False
    inner = cast("Mapping[str, Any]", wanted)
    lists = {key: _accepted(value) for key, value in inner.items()}
    return _arguments_fit(lists, cast("Mapping[str, Any]", found), tolerance)


def _near(wanted: float, found: float, tolerance: float) -> bool:
    try:
        return abs(wanted - found) <= tolerance * abs(wanted)
    except OverflowError:  # an integer beyond the range of a double
        return False


def _accepted(value: Any) -> Sequence[Any]:
    return cast("Sequence[Any]", value) if isinstance(value, list | tuple) else [value]


def _same_within(tolerance: float) -> Callable[[Any, Any], bool]:
    return lambda wanted, found: _same(wanted, found, tolerance)


def _plain(value: Any, depth: int = 0) -> Any:
    """A value with its texts as they are compared; what is too deep equals none anyway."""
    if isinstance(value, str):
        return _plain_text(value)
    if depth > MAX_DEPTH:
        return value
    if isinstance(value, list):
        return [_plain(item, depth + 1) for item in cast("list[Any]", value)]
    if isinstance(value, Mapping):
        items = cast("Mapping[str, Any]", value).items()
        return {key: _plain(item, depth + 1) for key, item in items}
    return value


def _plain_text(text: str) -> str:
    return text.translate(_IGNORED).lower()
