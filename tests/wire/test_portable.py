"""What may leave this process is plain data; the first thing that is not is named by its path."""

from collections import OrderedDict
from typing import Any

import numpy as np
import pytest

from guerdon.errors import UnportableData
from guerdon.sample import Media, Message, Sample
from guerdon.wire.portable import check_portable, find_unportable


class Client:
    pass


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        1,
        1.5,
        "text",
        b"bytes",
        [1, [2]],
        (1, (2,)),
        {1},
        frozenset({1}),
        {"a": {"b": [1]}},
        OrderedDict(a=1),
        range(3),
        np.arange(3),
        np.float32(1),
        Sample(response="4", metadata={"a": 1}),
        Message("user", "hi"),
        Media(kind="image", data=b""),
    ],
)
def test_plain_data_travels(value: Any) -> None:
    check_portable({"value": value, "nested": [value]}, target="a worker")


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (Client(), "v"),
        ([1, Client()], "v[1]"),
        ({"a": [{"b": Client()}]}, "v['a'][0]['b']"),
        ({1: Client()}, "v[1]"),
        (Sample(metadata={"client": Client()}), "v.metadata['client']"),
        ((1, {"x": (Client(),)}), "v[1]['x'][0]"),
    ],
)
def test_the_first_thing_that_cannot_travel_is_named(value: Any, path: str) -> None:
    assert find_unportable(value, "v") == (path, "Client")
    with pytest.raises(UnportableData, match="Client") as caught:
        check_portable({"fine": "x", "v": value}, target="a worker")
    assert caught.value.path == path
    assert "a worker" in str(caught.value)


@pytest.mark.parametrize(
    "value",
    [
        len,
        lambda: 1,
        np.array([object()]),
        Client,
        type("Text", (str,), {})("x"),
        type("Number", (int,), {})(1),
        bytearray(b"x"),
        iter([1]),
    ],
)
def test_objects_and_subclasses_do_not_travel(value: Any) -> None:
    assert find_unportable(value, "v") is not None


@pytest.mark.parametrize("make", [lambda i: [i], lambda i: (i,), lambda i: {"k": i}])
@pytest.mark.parametrize("levels", [101, 100_000])
def test_what_is_nested_too_deeply_does_not_travel(make: Any, levels: int) -> None:
    value: Any = 0
    for level in range(levels):
        value = make(value)
        if level == 99:
            assert find_unportable(value, "v") is None
    found = find_unportable(make(value), "v")
    assert found is not None
    assert found[0].startswith(("v[0][0]", "v['k']['k']"))
    assert "nested more than 100 levels" in found[1]
    assert len(found[0]) < 1000
