"""Tool calls: whether the model called the right tools with the right arguments.

Sources: ToolRL (Qian et al. 2025, arXiv:2504.13958) and GDPO (arXiv:2601.05242) for the graded
formula; verl's `rlla.py` repeats it, see `guerdon.rules.compat.rlla`.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, TypeAlias, cast

import msgspec

from guerdon.errors import BadInput
from guerdon.reward import reward
from guerdon.rules.answer_place import final_part
from guerdon.rules.case import case
from guerdon.rules.json_form import NotJson, parse_json
from guerdon.rules.option import one_of
from guerdon.sample import Message

Mode = Literal["exact", "graded"]

MAX_CALLS = 256
"""A response with more calls answers no question: it scores 0."""

_MODES = ("exact", "graded")
_OPEN, _CLOSE = "<tool_call>", "</tool_call>"


class Call(msgspec.Struct, frozen=True):
    """One call: the tool's name and its arguments, each value as canonical JSON."""

    name: str
    arguments: Mapping[str, str]

    def key(self) -> tuple[str, tuple[tuple[str, str], ...]]:
        """A hashable form that does not depend on the order of the arguments."""
        return self.name, tuple(sorted(self.arguments.items()))


class NoCall(ValueError):
    """Something is no tool call."""


def parse_call(raw: object) -> Call:
    """A call from `{"name", "arguments"}`, `{"name", "parameters"}` or OpenAI's nested form.

    Arguments may be a mapping or JSON text of one; 1 and 1.0 are the same value.

    Raises:
        NoCall: No name, or arguments that are no mapping.

    >>> parse_call({"name": "add", "parameters": {"b": 2.0, "a": 1}}).arguments
    {'b': '2', 'a': '1'}
    """
    if not isinstance(raw, Mapping):
        raise NoCall(f"a call is a mapping, not a {type(raw).__name__}")
    call = cast("Mapping[str, Any]", raw)
    inner = call.get("function")
    if isinstance(inner, Mapping):
        call = cast("Mapping[str, Any]", inner)
    name = call.get("name")
    if not isinstance(name, str) or not name:
        raise NoCall("a call without a name")
    items = _arguments(call.get("arguments", call.get("parameters")))
    return Call(name, {str(key): _canonical(value) for key, value in items.items()})


def _arguments(raw: object) -> Mapping[object, object]:
    if isinstance(raw, str):
        try:
            raw = parse_json(raw) if raw.strip() else None
        except NotJson as error:
            raise NoCall(str(error)) from None
    if raw is None:
        return {}
    if not isinstance(raw, Mapping):
        raise NoCall("the arguments are no mapping")
    return cast("Mapping[object, object]", raw)


def _canonical(value: object) -> str:
    try:
        return json.dumps(_whole_numbers(value), sort_keys=True, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise NoCall(f"an argument is not JSON: {error!s:.100}") from None


def _whole_numbers(value: object) -> object:
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, Mapping):
        items = cast("Mapping[object, object]", value)
        return {key: _whole_numbers(item) for key, item in items.items()}
    if isinstance(value, list | tuple):
        return [_whole_numbers(item) for item in cast("Sequence[object]", value)]
    return value


def calls_in_text(text: str) -> list[Call]:
    """The calls between `<tool_call>` tags: one JSON object, a list, or one object per line.

    Linear in the length of the text.

    Raises:
        NoCall: A tag is not closed, its contents are no calls, or there are above `MAX_CALLS`.

    >>> [call.name for call in calls_in_text('<tool_call>{"name": "look"}</tool_call>')]
    ['look']
    """
    return _all_readable(*_sorted_out(_pieces_of_text(text)))


Piece: TypeAlias = "list[Call] | NoCall"


def _pieces_of_text(text: str) -> Iterator[Piece]:
    at = text.find(_OPEN)
    while at >= 0:
        start = at + len(_OPEN)
        end = text.find(_CLOSE, start)
        if end < 0:
            yield NoCall("a tool_call tag is not closed")
            return
        try:
            yield _calls_in_block(text[start:end])
        except NoCall as error:
            yield error
        at = text.find(_OPEN, end)


def _pieces_of_message(message: Message) -> Iterator[Piece]:
    for call in message.tool_calls:
        try:
            yield [parse_call({"name": call.name, "arguments": call.arguments})]
        except NoCall as error:
            yield error
    if not message.tool_calls:  # else its text is what they were read from
        yield from _pieces_of_text(final_part(message.text))


def _sorted_out(pieces: Iterator[Piece]) -> tuple[list[Call], list[NoCall]]:
    found: list[Call] = []
    unreadable: list[NoCall] = []
    for piece in pieces:
        if isinstance(piece, NoCall):
            unreadable.append(piece)
        else:
            found.extend(piece)
        if len(found) + len(unreadable) > MAX_CALLS:
            raise NoCall(f"more than {MAX_CALLS} calls")
    return found, unreadable


def _all_readable(found: list[Call], unreadable: list[NoCall]) -> list[Call]:
    if unreadable:
        raise unreadable[0]
    return found


def _calls_in_block(block: str) -> list[Call]:
    try:
        value: object = parse_json(block)
        items = cast("list[object]", value) if isinstance(value, list) else [value]
        return [parse_call(item) for item in items]
    except NotJson:
        lines = [line for line in block.strip().split("\n", MAX_CALLS + 1) if line.strip()]
        try:
            return [parse_call(parse_json(line)) for line in lines]
        except NotJson as error:
            raise NoCall(str(error)) from None


def readable_calls(messages: Sequence[Message]) -> tuple[list[Call], int]:
    """The calls of all assistant messages that can be read, and how many cannot.

    Calls are a message's `tool_calls`, or without any, the tags in its text outside the thinking.

    Raises:
        NoCall: There are above `MAX_CALLS`.

    >>> text = '<tool_call>{</tool_call><tool_call>{"name": "look"}</tool_call>'
    >>> calls, unreadable = readable_calls([Message("assistant", text)])
    >>> calls[0].name, unreadable
    ('look', 1)
    """
    found, unreadable = _sorted_out(_pieces(messages))
    return found, len(unreadable)


def calls_in_messages(messages: Sequence[Message]) -> list[Call]:
    """As `readable_calls`, where all of them can be read.

    Raises:
        NoCall: One cannot, or there are above `MAX_CALLS`.
    """
    return _all_readable(*_sorted_out(_pieces(messages)))


def _pieces(messages: Sequence[Message]) -> Iterator[Piece]:
    for message in messages:
        if message.role == "assistant":
            yield from _pieces_of_message(message)


def gold_calls(ground_truth: object) -> list[Call]:
    """The wanted calls: a list of calls, one call, JSON text of these, or text with tags.

    An empty list means that no tool must be called.

    Raises:
        BadInput: Anything else.
    """
    raw = ground_truth
    try:
        if isinstance(raw, str):
            if _OPEN in raw:
                return calls_in_text(raw)
            raw = parse_json(raw)
        if isinstance(raw, Mapping):
            return [parse_call(cast("object", raw))]
        if not isinstance(raw, list | tuple):
            raise NoCall(f"a {type(raw).__name__}")
        return [parse_call(item) for item in cast("Sequence[object]", raw)]
    except (NoCall, NotJson) as error:
        raise BadInput(f"the ground truth is no list of tool calls: {error}") from None


def overlap(first: Sequence[str], second: Sequence[str]) -> float:
    """Multiset Jaccard: common items over all items; 1 for two equal sequences.

    >>> overlap(["a", "b"], ["a", "a"])
    0.3333333333333333
    """
    if first == second:
        return 1.0
    common = sum((Counter(first) & Counter(second)).values())
    union = len(first) + len(second) - common
    return common / union if union else 0.0


def graded(gold: Sequence[Call], found: Sequence[Call]) -> float:
    """ToolRL's correctness, brought to 0 .. 1.

    `(N + sum_g max(K + V)) / (1 + sum_g (1 + |args_g|))`: `N` is the overlap of the names; for each
    wanted call, `K` is the overlap of argument names and `V` the number of equal argument values of
    the best unused call of that tool. 1 only if all calls are equal, in any order.

    >>> graded([Call("add", {"a": "1"})], [Call("add", {"a": "2"})])
    0.6666666666666666
    """
    score = overlap([call.name for call in gold], [call.name for call in found])
    best_possible = 1.0
    unused = list(range(len(found)))
    for wanted in gold:
        best_possible += 1.0 + len(wanted.arguments)
        best, best_index = 0.0, -1
        for index in unused:
            if found[index].name != wanted.name:
                continue
            value = _match(wanted, found[index])
            if value > best:
                best, best_index = value, index
        if best_index >= 0:
            unused.remove(best_index)
            score += best
    return score / best_possible


def _match(wanted: Call, found: Call) -> float:
    keys = overlap(sorted(wanted.arguments), sorted(found.arguments))
    equal = sum(1 for key, value in wanted.arguments.items() if found.arguments.get(key) == value)
    return keys + equal


_GOLD: list[dict[str, Any]] = [
    {"name": "search", "arguments": {"query": "tide", "limit": 3}},
    {"name": "read", "arguments": {"page": 1}},
]
_FIRST = '<tool_call>{"name": "search", "arguments": {"query": "tide", "limit": 3}}</tool_call>'
_SECOND = '<tool_call>{"name": "read", "arguments": {"page": 1}}</tool_call>'
_FIXTURES = (
    case("full", "both calls", 1.0, response=_FIRST + _SECOND, ground_truth=_GOLD),
    case(
        "full",
        "calls of messages",
        1.0,
        response=[{"role": "assistant", "tool_calls": _GOLD}, {"role": "tool", "content": "3 m"}],
        ground_truth=_GOLD,
    ),
    case("full", "no call wanted", 1.0, response="Hello!", ground_truth=[]),
    case("zero", "one is missing", 0.0, response=_FIRST, ground_truth=_GOLD),
    case("zero", "a call too many", 0.0, response=_FIRST * 2 + _SECOND, ground_truth=_GOLD),
    case("zero", "wrong order", 0.0, response=_SECOND + _FIRST, ground_truth=_GOLD),
    case(
        "zero", "wrong value", 0.0, response=_FIRST.replace("3", "4") + _SECOND, ground_truth=_GOLD
    ),
    case("zero", "empty", 0.0, response="", ground_truth=_GOLD),
    case("malformed", "truth without a name", "bad_input", response="", ground_truth=[{"a": 1}]),
    case("malformed", "not closed", 0.0, response="<tool_call>{", ground_truth=_GOLD),
    case("malformed", "odd characters", 0.0, response="\0\ud800" + _FIRST, ground_truth=_GOLD),
    case("deterministic", "no JSON", 0.0, response="<tool_call>x</tool_call>", ground_truth=_GOLD),
    case(
        "metamorphic",
        "whitespace and order of keys",
        1.0,
        response='<tool_call>\n{"arguments": {"limit": 3.0, "query": "tide"},\n "name": "search"}\n'
        f"</tool_call>\n and then\n{_SECOND}",
        ground_truth=_GOLD,
    ),
    case(
        "metamorphic",
        "equivalent form: a list in one tag",
        1.0,
        response=f"<tool_call>{json.dumps(_GOLD)}</tool_call>",
        ground_truth=_GOLD,
    ),
    case(
        "metamorphic",
        "every option: a call too many",
        0.0,
        response=_FIRST + _SECOND + _FIRST,
        ground_truth=_GOLD,
    ),
    case(
        "metamorphic", "noise around", 1.0, response=f"So: {_FIRST}, {_SECOND}.", ground_truth=_GOLD
    ),
    case(
        "metamorphic",
        "injected: call inside the tool's output",
        0.0,
        response=[
            {"role": "tool", "content": _FIRST + _SECOND},
            {"role": "assistant", "content": "ok"},
        ],
        ground_truth=_GOLD,
    ),
)


@reward(name="tool_calls", value_range=(0.0, 1.0), fixtures=_FIXTURES)
def tool_calls(
    response_messages: Sequence[Message],
    ground_truth: Any,
    *,
    mode: Mode = "exact",
    ordered: bool = True,
) -> float:
    """Whether the model called the wanted tools with the wanted arguments.

    `exact`: 1 if the calls are equal (names and argument values; order of arguments does not
    matter, order of calls does unless `ordered` is off), else 0. `graded`: partial credit by
    ToolRL's formula, see `graded`. Range 0 to 1. Calls come from the assistant messages only:
    their `tool_calls`, or where they have none, `<tool_call>` tags in their text. Calls that cannot
    be read score 0.
    Source: ToolRL (Qian et al. 2025, arXiv:2504.13958) for `graded`.

    Args:
        response_messages: What the model wrote; text counts as one assistant message.
        ground_truth: A list of calls `{"name", "arguments"}`; an empty list wants no call; text is
            read as JSON. Anything else is `bad_input`.
        mode: `exact` or `graded`.
        ordered: For `exact`: calls must come in the wanted order.

    >>> tool_calls.call_sync(
    ...     response='<tool_call>{"name": "look", "arguments": {"at": 1}}</tool_call>',
    ...     ground_truth=[{"name": "look", "arguments": {"at": 1}}],
    ... )
    1.0
    """
    one_of("mode", mode, _MODES)
    gold = gold_calls(ground_truth)
    try:
        found = calls_in_messages(response_messages)
    except NoCall:
        return 0.0
    if mode == "graded":
        return graded(gold, found)
    wanted, made = [call.key() for call in gold], [call.key() for call in found]
    return float(wanted == made if ordered else Counter(wanted) == Counter(made))
