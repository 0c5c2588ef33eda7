"""Calls with several right arguments: what fits, what does not, and bad rows."""

from __future__ import annotations

import json
from typing import Any

import pytest

import guerdon.rules.function_calls as module
from guerdon.errors import BadInput, InvalidReward
from guerdon.rules.function_calls import function_calls, same, wanted_calls


def call(name: str, **arguments: Any) -> dict[str, Any]:
    return {"name": name, "arguments": arguments}


def scored(truth: Any, *calls: Any, tools: Any = None, **options: Any) -> dict[str, Any]:
    said = [{"role": "assistant", "content": "", "tool_calls": list(calls)}]
    return function_calls.bind(**options).call_sync(response=said, ground_truth=truth, tools=tools)


A, B = {"f": {"x": [1, 2]}}, {"f": {"x": [1]}}


@pytest.mark.parametrize(
    ("wanted", "found", "fits"),
    [
        (1, 1.0, True), (1.5, 1.5, True), (1, True, False), (True, 1, False),
        (None, None, True),
        (0, None, False), ("1", 1, False), (1, "1", False), ("New York, NY", "new york ny", True),
        ("it's", 'it"s', True), ("a", "b", False), ([1, "A"], [1.0, "a"], True),
        ([1], [1, 2], False),
        ([1], 1, False), ({"a": [1, 2], "b": [""]}, {"a": 2}, True), ({"a": [1]}, {}, False),
        ({"a": [1]}, {"a": 1, "c": 1}, False), ({"a": "x"}, {"a": "X"}, True),
        ({"a": [1]}, [1], False),
        ([{"a": [1]}], [{"a": 1}], True), (1.0, 10**400, False),
    ],
)  # fmt: skip
def test_values(wanted: Any, found: Any, fits: bool) -> None:
    assert same(wanted, found) is fits


def test_numbers_within_a_tolerance() -> None:
    assert same(100.0, 101, 0.01)
    assert not same(100.0, 102, 0.01)
    assert not same(100.0, 10**400, 0.5)
    assert not same(100.0, True, 0.999)


def test_each_wanted_call_has_a_call_of_its_own() -> None:
    # Whoever takes the first that fits gives the call with 1 to A, and B gets none.
    assert scored([A, B], call("f", x=1), call("f", x=2))["score"] == 1.0
    assert scored([A, B], call("f", x=2), call("f", x=2))["score"] == 0.0
    assert scored([A, B], call("f", x=2), call("f", x=2), credit="fraction")["score"] == 0.5
    many = [{"f": {"x": list(range(256))}}] * 256
    assert scored(many, *[call("f", x=n) for n in range(256)])["score"] == 1.0


def test_order_where_it_counts() -> None:
    truth = [{"f": {}}, {"g": {}}]
    assert scored(truth, call("g"), call("f"))["score"] == 1.0
    assert scored(truth, call("g"), call("f"), ordered=True)["score"] == 0.0
    extra = [call("f"), call("h"), call("g")]
    assert scored(truth, *extra, ordered=True)["info"]["status"] == "extra"
    assert scored(truth, *extra, ordered=True, extra="allow")["score"] == 1.0


def test_tools_that_are_forbidden_or_that_nobody_has() -> None:
    tools = [{"type": "function", "function": {"name": "f"}}, {"name": "g"}]
    truth = [{"f": {}}]
    made = [call("f"), call("rm")]
    options: Any = {"extra": "allow"}
    assert scored(truth, *made, **options)["score"] == 1.0
    assert scored(truth, *made, tools=tools, **options)["info"]["status"] == "unknown_tool"
    found = scored(truth, call("f"), call("g"), tools=tools, forbidden=["g"], **options)
    assert (found["score"], found["info"]["status"]) == (0.0, "forbidden_tool")
    assert found["metrics"]["forbidden_tools"] == 1.0


@pytest.mark.parametrize(
    "response",
    [
        '{"name": "f", "arguments": {"x": 1}}',
        '[{"name": "f", "parameters": {"x": 1}}]',
        'Sure:\n```json\n{"name": "f", "arguments": {"x": 1}}\n```',
        '<think>{"name": "g"}</think>\n{"name": "f", "arguments": "{\\"x\\": 1}"}',
        '<tool_call>{"function": {"name": "f", "arguments": {"x": 1}}}</tool_call>',
    ],
)
def test_forms_in_which_models_write_calls(response: str) -> None:
    assert function_calls.call_sync(response=response, ground_truth=[B])["score"] == 1.0


@pytest.mark.parametrize(
    "response",
    [
        '{"name": "f", "arguments": {"x": NaN}}',
        '{"name": "f", "arguments": {"x": 1, "x": 1}}',
        '<tool_call>{"name": "f", "arguments": {"x": 1}}',
        '<tool_response>{"name": "f", "arguments": {"x": 1}}</tool_response>',
        json.dumps({"name": "f", "arguments": {"x": 10**999}}),
        '{"name": "f", "arguments": {"x": ' + "[" * 5000 + "]" * 5000 + "}}",
        '{"name": "f", "arguments": {"x": "\\ud800"}}',
        '<tool_call>{"name": "f", "arguments": {"x": 1}}</tool_call>' * 300,
    ],
)
def test_what_earns_nothing(response: str) -> None:
    found = function_calls.bind(tolerance=0.5).call_sync(response=response, ground_truth=[B])
    assert found["score"] == 0.0


def test_only_one_call_counts_where_a_message_has_it_twice() -> None:
    text = '<tool_call>{"name": "f", "arguments": {"x": 1}}</tool_call>'
    said = [{"role": "assistant", "content": text, "tool_calls": [call("f", x=1)]}]
    assert function_calls.call_sync(response=said, ground_truth=[B])["score"] == 1.0


@pytest.mark.parametrize(
    "truth",
    ["[", "5", 5, {"f": {}}, [5], [{}], [{"f": {}, "g": {}}], [{5: {}}], [{"f": []}],
     [{"f": {"x": 1}}], [{"f": {"x": []}}], [{"f": {5: [1]}}], [{"f": {"x": [float("nan")]}}],
     [{"f": {"x": [b"1"]}}], [{"f": {}}] * 300],
)  # fmt: skip
def test_truths_that_are_none(truth: Any) -> None:
    with pytest.raises(BadInput):
        wanted_calls(truth)


@pytest.mark.parametrize("tools", ["f", [5], [{}], [{"function": {"name": 5}}]])
def test_tools_that_are_none(tools: Any) -> None:
    with pytest.raises(BadInput, match="tool"):
        scored([B], call("f", x=1), tools=tools)


@pytest.mark.parametrize(
    "options", [{"extra": "x"}, {"credit": "x"}, {"tolerance": 1.0}, {"tolerance": float("nan")}]
)
def test_options_that_cannot_be(options: Any) -> None:
    with pytest.raises(InvalidReward):
        scored([B], **options)


@pytest.mark.parametrize("ordered", [True, False])
def test_one_call_is_not_counted_for_two(ordered: bool) -> None:
    found = scored([B, B], call("f", x=1), ordered=ordered, credit="fraction")
    assert (found["score"], found["metrics"]["right"]) == (0.5, 1.0)


def test_a_long_text_is_read_once_however_many_are_wanted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain_text, long = module._plain_text, 0

    def counted(text: str) -> str:
        nonlocal long
        long += len(text) > 1000
        return plain_text(text)

    monkeypatch.setattr(module, "_plain_text", counted)
    truth = [{"f": {"x": [f"a{n}", f"b{n}"]}} for n in range(100)]
    assert scored(truth, *[call("f", x="a." * 10_000)] * 3)["score"] == 0.0
    assert long == 3
