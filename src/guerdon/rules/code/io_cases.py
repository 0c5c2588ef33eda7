"""Input and output cases of a program, in the forms of APPS, TACO and CodeContests."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, cast

import msgspec

from guerdon.errors import BadInput

CONTEST_TESTS = ("public_tests", "private_tests", "generated_tests")
"""Columns of CodeContests, each `{"input": [...], "output": [...]}`."""


LIVE_TESTS = ("public_test_cases", "private_test_cases")
"""Columns of LiveCodeBench, each a list of cases in JSON."""

HELD = ("input_output", "test_cases", "tests", "unit_tests")
"""Keys that hold cases in one of the other forms."""

CALL_KINDS = frozenset({"functional", "function_call"})
STREAM_KINDS = frozenset({"stdin", "stdin_stdout"})
"""What `testtype` or `type` says of a case."""

PACKED = ("eJ", b"eJ")
"""How compressed data in Base64 begins."""

ASSERTIONS = "assert_case"
"""Key of verl's SandboxFusion scorer for assertions."""


class Case(msgspec.Struct, frozen=True):
    """One case on standard input and output."""

    given: str
    wanted: str


class Cases(msgspec.Struct, frozen=True):
    """All cases of one program.

    Attributes:
        streams: cases on standard input and output.
        function: name of a function to call instead, or empty.
        calls: for a function, JSON text of the arguments and of the value of each case.
    """

    streams: tuple[Case, ...] = ()
    function: str = ""
    calls: tuple[Case, ...] = ()

    def __len__(self) -> int:
        return len(self.calls if self.function else self.streams)

    def first(self, count: int | None) -> Cases:
        """The first cases only."""
        if count is None:
            return self
        return Cases(self.streams[:count], self.function, self.calls[:count])


def read_cases(ground_truth: object) -> Cases:
    """The cases in a ground truth.

    It may be a mapping, or JSON text of one: `{"inputs", "outputs"}` with an optional `fn_name`
    (APPS, TACO, PRIME); `{"input", "output"}` with lists; the three columns of CodeContests, or the
    two of LiveCodeBench; one that holds such under `input_output`, `test_cases` or `tests`; or a
    list of mappings with `input` and `output`, and the name of a function if they call one
    (LiveCodeBench, DeepCoder, SYNTHETIC-1).

    Raises:
        BadInput: none of these, a different number of inputs and outputs, or no case at all.

    Example:
        >>> read_cases('{"inputs": ["1"], "outputs": ["2"]}').streams
        (Case(given='1', wanted='2'),)
    """
    cases = _from_any(_decoded(ground_truth))
    if not len(cases):
        raise BadInput("the ground truth holds no case")
    return cases


def _from_any(data: object, name: str = "") -> Cases:
    if isinstance(data, Mapping):
        return _from_mapping(cast("Mapping[str, Any]", data), name)
    if isinstance(data, Sequence) and not isinstance(data, str | bytes):
        return _from_list(cast("Sequence[object]", data), name)
    raise BadInput(f"the ground truth is a {type(data).__name__}, not a mapping of cases")


def _decoded(value: object) -> object:
    if not isinstance(value, str | bytes):
        return value
    try:
        return msgspec.json.decode(value)
    except (msgspec.MsgspecError, UnicodeError) as error:
        hint = ""
        if value[:2] in PACKED:
            hint = "; it looks packed (LiveCodeBench's private tests): unpack it when you make rows"
        raise BadInput(f"the ground truth is no JSON: {error}{hint}") from None


def _from_mapping(data: Mapping[str, Any], name: str) -> Cases:
    name = _function(data) or name
    contest = [data[key] for key in CONTEST_TESTS if data.get(key)]
    if contest:
        found = [_streams(_lists(item, "input", "output")) for item in contest]
        return Cases(tuple(case for cases in found for case in cases))
    columns = [data[key] for key in LIVE_TESTS if data.get(key)]
    if columns:
        items = [item for column in columns for item in _list(_decoded(column))]
        return _from_list(items, name)
    for key in HELD:
        if data.get(key):
            return _from_any(_decoded(data[key]), name)
    for given, wanted in (("inputs", "outputs"), ("input", "output")):
        if given in data:
            inputs, outputs = _lists(data, given, wanted)
            if name:
                return Cases(function=name, calls=_calls(inputs, outputs))
            return Cases(_streams((inputs, outputs)))
    if ASSERTIONS in data:
        raise BadInput(f"the ground truth holds {ASSERTIONS}, which the reward code_python runs")
    known = ", ".join(map(str, list(data)[:8]))
    raise BadInput(f"the ground truth has neither inputs and outputs nor input and output: {known}")


def _function(data: Mapping[str, Any]) -> str:
    """The function that cases call: `fn_name`, or LiveCodeBench's `func_name`, maybe in its
    metadata; empty where there is none."""
    for key in ("fn_name", "func_name"):
        if isinstance(data.get(key), str):
            return data[key]
    metadata = data.get("metadata")
    with contextlib.suppress(BadInput):
        held = _decoded(metadata)
        if isinstance(held, Mapping):
            return _function({**cast("Mapping[str, Any]", held), "metadata": None})
    return ""


def _list(data: object) -> Sequence[object]:
    if isinstance(data, list | tuple):
        return cast("Sequence[object]", data)
    raise BadInput(f"cases are a {type(data).__name__}, not a list")


def _from_list(items: Sequence[object], name: str) -> Cases:
    """Cases that are a mapping each; all of them call one function, or none does."""
    pairs = [_pair(item) for item in items]
    names = {_function(pair) or name for pair in pairs}
    kinds = {str(pair.get("testtype", pair.get("type", ""))) for pair in pairs}
    if len(names) > 1 or len(kinds) > 1:
        raise BadInput(f"the cases are of several kinds: {sorted(names | kinds)}")
    calls = bool(kinds & CALL_KINDS)
    if calls and names == {""}:
        raise BadInput("the cases call a function, and nothing names it: fn_name is missing")
    if names == {""} or kinds & STREAM_KINDS:
        return Cases(tuple(Case(_text(p["input"]), _text(p["output"])) for p in pairs))
    inputs, outputs = ([pair[key] for pair in pairs] for key in ("input", "output"))
    return Cases(function=names.pop(), calls=_calls(inputs, outputs)) if pairs else Cases()


def _lists(data: object, given: str, wanted: str) -> tuple[list[Any], list[Any]]:
    found = _decoded(data)
    if not isinstance(found, Mapping):
        raise BadInput(f"cases are a {type(found).__name__}, not a mapping")
    both = [cast("Mapping[str, Any]", found).get(key) for key in (given, wanted)]
    inputs, outputs = (
        [item] if isinstance(item, str) else list(cast("Sequence[Any]", item or ()))
        for item in both
    )
    if len(inputs) != len(outputs):
        raise BadInput(f"{len(inputs)} inputs and {len(outputs)} outputs")
    return inputs, outputs


def _streams(lists: tuple[list[Any], list[Any]]) -> tuple[Case, ...]:
    return tuple(Case(_text(a), _text(b)) for a, b in zip(*lists, strict=True))


def _text(item: object) -> str:
    """A stream as text; APPS has some as lists of lines."""
    if isinstance(item, str):
        return item
    if isinstance(item, list | tuple):
        return "\n".join(map(_text, cast("Sequence[object]", item)))
    if isinstance(item, int | float):
        return str(item)
    raise BadInput(f"a case holds a {type(item).__name__}, not a text")


def _pair(item: object) -> Mapping[str, Any]:
    if isinstance(item, Mapping):
        pair = cast("Mapping[str, Any]", item)
        if "input" in pair and "output" in pair:
            return pair
    raise BadInput("a case is no mapping with 'input' and 'output'")


def _calls(inputs: Sequence[Any], outputs: Sequence[Any]) -> tuple[Case, ...]:
    """Arguments and values as JSON; APPS has the arguments of one call also as lines of JSON."""
    calls: list[Case] = []
    for given, wanted in zip(inputs, outputs, strict=True):
        if isinstance(given, str):
            given = [_decoded(line) for line in given.splitlines() if line.strip()]
        if isinstance(wanted, str):
            # A text that is no JSON is the value itself.
            with contextlib.suppress(msgspec.MsgspecError):
                wanted = msgspec.json.decode(wanted)
        if not isinstance(given, list | tuple):
            raise BadInput(f"the arguments of a call are a {type(given).__name__}, not a list")
        calls.append(Case(_json(cast("object", given)), _json(wanted)))
    return tuple(calls)


def _json(value: object) -> str:
    try:
        return msgspec.json.encode(value).decode()
    except (TypeError, ValueError, RecursionError) as error:
        raise BadInput(f"a case cannot be written as JSON: {error}") from None
