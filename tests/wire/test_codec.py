"""What leaves a process arrives as it was, or is refused by its path; nothing hostile gets in."""

import json
import math
from collections import OrderedDict
from collections.abc import Callable
from decimal import Decimal
from types import MappingProxyType
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guerdon.errors import Blame, FailureKind, MalformedMessage, UnportableData
from guerdon.outcome import EMPTY, Abstention, Failure, Outcome, Score, Span
from guerdon.sample import Media, Message, Part, Sample, ToolCall
from guerdon.wire import codec

Encode = Callable[[Any], bytes]
Decode = Callable[[Any, Any], Any]
FORMATS: dict[str, tuple[Encode, Decode]] = {
    "json": (codec.encode_json, codec.decode_json),
    "msgpack": (codec.encode_msgpack, codec.decode_msgpack),
}


@pytest.fixture(params=FORMATS, name="form")
def _form(request: pytest.FixtureRequest) -> tuple[Encode, Decode]:
    return FORMATS[request.param]


def there_and_back(form: tuple[Encode, Decode], value: Any, kind: Any) -> Any:
    encode, decode = form
    return decode(encode(value), kind)


LOST = Failure(
    kind=FailureKind.TIMEOUT,
    message="slow",
    blame=Blame.CANDIDATE,
    retryable=True,
    evidence="burned CPU",
    reward="r",
    fingerprint="f" * 16,
    sample="s1",
    elapsed=1.5,
)
CHAT = (
    Message("user", (Part(text="what?"), Part(media=Media(kind="image", data=b"\x00\xff")))),
    Message("assistant", None, (ToolCall("f", {"a": [1, {"b": None}]}, "c1"),)),
    Message("tool", "4", (), "c1", "f"),
)
VALUES: list[tuple[Any, Any]] = [
    (Sample(), Sample),
    (Sample(prompt="p", response="r", ground_truth="g", sample_id="1", group_id="2"), Sample),
    (Sample(prompt=CHAT[:1], response=CHAT[1:], finish_reason="stop", policy_version=3), Sample),
    (Sample(prompt_token_ids=[1, 2], response_token_ids=[], response_mask=[0, 1]), Sample),
    (
        Sample(
            images=[b"\x00\xff", "a.png"],
            videos=[Media(kind="video", path="v.mp4", fps=29.97)],
            audios=[Media(kind="audio", data=b"", sample_rate=16000)],
        ),
        Sample,
    ),
    (Sample(response=""), Sample),
    (Score(value=0.5), Outcome),
    (Score(value=-0.0), Outcome),
    (Score(value=5e-324), Outcome),
    (Score(value=1.7976931348623157e308), Outcome),
    (
        Score(
            value=0.1,
            components={"a": 1.0, "b": None},
            absent={"b": Abstention(reason="n/a"), "c": LOST},
            spans=(Span("token", 0, 3, -1.5), Span("char", 2, 2, 0.0)),
            metrics={"m": 2.0, "lost": None},
            info={"text": "x", "list": [1, "a", None, True, 1.5, {"k": []}]},
            renormalised=True,
            reward="r",
            fingerprint="f",
            sample="s",
            elapsed=0.25,
        ),
        Outcome,
    ),
    (Abstention(reason="n/a", absent={"a": LOST}, sample="s"), Outcome),
    (LOST, Outcome),
    (Failure(kind=FailureKind.RAISED, message="", blame=Blame.DATA, absent={"x": LOST}), Outcome),
    (Span("turn", 1, 2, 0.5), Span),
    (CHAT[0], Message),
    (CHAT[1], Message),
    (Media(kind="image", path="a.png"), Media),
    ([LOST, Score(value=1.0), Abstention()], list[Outcome]),
    ([Sample(response="a"), Sample(metadata={"t": (1,)})], list[Sample]),
]


@pytest.mark.parametrize(("value", "kind"), VALUES)
def test_every_type_arrives_as_it_was(form: Any, value: Any, kind: Any) -> None:
    twin = there_and_back(form, value, kind)
    assert twin == value
    assert type(twin) is type(value)
    if isinstance(value, Score):
        assert math.copysign(1.0, twin.value) == math.copysign(1.0, value.value)


def test_what_json_can_say_is_written_as_itself() -> None:
    sample = Sample(response="4", ground_truth=["4"], metadata={"level": {"a": 1.5}})
    assert json.loads(codec.encode_json(sample)) == {
        "response": "4",
        "ground_truth": ["4"],
        "metadata": {"level": {"a": 1.5}},
    }
    assert json.loads(codec.encode_json(LOST)) == {
        "outcome": "failure",
        "kind": "timeout",
        "message": "slow",
        "blame": "candidate",
        "retryable": True,
        "evidence": "burned CPU",
        "reward": "r",
        "fingerprint": "ffffffffffffffff",
        "sample": "s1",
        "elapsed": 1.5,
    }


def test_defaults_stay_the_shared_defaults(form: Any) -> None:
    assert there_and_back(form, Sample(response="4"), Sample).metadata is EMPTY
    assert there_and_back(form, Score(value=1.0), Outcome).components is EMPTY


OPEN: list[Any] = [
    None,
    True,
    1,
    1.0,
    -0.0,
    "",
    "é\u2028\x00",
    b"",
    b"\x00\xff",
    (),
    (1, (2, [3])),
    set(),
    {1, "a", (1, 2)},
    frozenset({1}),
    range(0),
    range(5),
    range(10, 0, -3),
    range(10**12),
    2**63,
    2**64,
    -(2**63) - 1,
    10**300,
    -(10**300),
    [2**200, 1],
    "\ud800",
    "a\udfff b",
    ["\ud83d", {"\ude00": "\ud800"}],
    {1: "int", (1, 2): "tuple", None: 0, 1.5: "x", b"k": "bytes", True + 1: "two"},
    {"$guerdon": "tuple", "value": [1]},
    {"$guerdon": 5},
    [{"$guerdon": "$guerdon"}],
    "$guerdon",
    {"deep": [[[[{"er": (b"x",)}]]]]},
    Media(kind="image", data=b"x"),
    {"messages": [CHAT[1], CHAT[0]]},
    Span("token", 0, 1, 0.5),
    [LOST, Score(value=1.0, info={"t": (1, 2)})],
    Sample(response="inner", metadata={"t": (1,)}, images=[b"\x00"]),
    (Failure(kind=FailureKind.RAISED, message="m", blame=Blame.DATA),),
]


def same(one: Any, other: Any) -> bool:
    """Equal in value and in type, all the way down."""
    if type(one) is not type(other):
        return False
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return same([*one.items()], [*other.items()])
    if isinstance(one, np.ndarray):
        return (
            one.dtype == other.dtype
            and one.shape == other.shape
            and one.tobytes() == (other.tobytes())
        )
    return repr(one) == repr(other) if isinstance(one, float) else one == other


@pytest.mark.parametrize("value", OPEN)
def test_open_values_arrive_as_they_were(form: Any, value: Any) -> None:
    sample = Sample(ground_truth=value, metadata={"key": value, "list": [value]})
    twin = there_and_back(form, sample, Sample)
    assert same(twin.ground_truth, value)
    assert same(twin.metadata, {"key": value, "list": [value]})
    score = Score(value=1.0, info={"key": value})
    assert same(there_and_back(form, score, Outcome).info, {"key": value})


ARRAYS = [
    np.arange(6, dtype=np.int16).reshape(2, 3),
    np.array(1.5),
    np.zeros((0, 4), np.float32),
    np.array([True, False]),
    np.array([1 + 2j]),
    np.array([math.nan, math.inf]),
    np.arange(4, dtype=">i4"),
    np.arange(12).reshape(3, 4)[::2, ::-1],
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.float16(0.5),
    np.int64(2**40),
    np.uint64(2**64 - 1),
    np.bool_(True),
    np.float64(0.1),
    np.complex64(1j),
]


@pytest.mark.parametrize("value", ARRAYS, ids=lambda v: f"{v.dtype}{v.shape}")
def test_arrays_and_numpy_numbers_arrive_as_they_were(form: Any, value: Any) -> None:
    twin = there_and_back(form, Sample(metadata={"a": value}), Sample).metadata["a"]
    assert type(twin) is type(value)
    assert (twin.dtype, twin.shape) == (value.dtype, value.shape)
    np.testing.assert_array_equal(twin, value)


def test_media_with_arrays(form: Any) -> None:
    array = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)
    media = Media(kind="image", array=array, layout="CHW", value_range="uint8")
    twin = there_and_back(form, Sample(images=[media]), Sample).images[0]
    assert (twin.kind, twin.layout, twin.value_range) == ("image", "CHW", "uint8")
    np.testing.assert_array_equal(twin.array, array)
    assert twin.array.dtype == np.uint8
    assert not twin.array.flags.writeable


def test_a_binary_format_carries_arrays_without_growing() -> None:
    array = np.zeros(10_000, np.uint8)
    assert len(codec.encode_msgpack(Sample(metadata={"a": array}))) < 10_200


@pytest.mark.parametrize(
    ("value", "arrives"),
    [
        (OrderedDict(a=1), {"a": 1}),
        (MappingProxyType({"a": (1,)}), {"a": (1,)}),
        (np.str_("text"), "text"),
        ({np.str_("key"): 1}, {"key": 1}),
    ],
)
def test_what_arrives_as_the_plain_thing_that_it_is(form: Any, value: Any, arrives: Any) -> None:
    twin = there_and_back(form, Sample(metadata={"a": value}), Sample)
    assert same(twin.metadata["a"], arrives)


@pytest.mark.parametrize(
    "ids", [[1, 2], (1, 2), range(1, 3), np.array([1, 2]), [np.int64(1), 2]], ids=repr
)
def test_token_ids_arrive_as_a_list(form: Any, ids: Any) -> None:
    assert there_and_back(form, Sample(response_token_ids=ids), Sample).response_token_ids == [1, 2]


def test_numbers_of_numpy_in_typed_fields_arrive_as_numbers(form: Any) -> None:
    score = Score(
        value=np.float64(0.5),
        components={"a": np.float32(0.5), "b": np.int64(1)},  # type: ignore[dict-item]
        elapsed=np.float64(1.0),
    )
    assert there_and_back(form, score, Outcome) == Score(
        value=0.5, components={"a": 0.5, "b": 1.0}, elapsed=1.0
    )


@pytest.mark.parametrize("text", ["\ud800", "x\udc00y", "\ud83d\ude00 \ud83d"])
def test_lone_surrogates_in_text_fields_arrive(form: Any, text: str) -> None:
    sample = Sample(prompt=text, response=text, sample_id=text, data_source=text)
    assert there_and_back(form, sample, Sample) == sample
    lost = Failure(kind=FailureKind.RAISED, message=text, blame=Blame.SCORER)
    assert there_and_back(form, [lost, lost], list[Outcome]) == [lost, lost]
    assert there_and_back(form, Message("user", text), Message) == Message("user", text)


def test_escaped_lone_surrogates_of_other_clients_are_read() -> None:
    data = json.dumps({"response": "a\ud800"}).encode()
    assert codec.decode_json(data, Sample) == Sample(response="a\ud800")


def test_ten_megabytes_arrive(form: Any) -> None:
    for text in ("x" * 10_000_000, "é" * 5_000_000, "x" * 9_999_999 + "\ud800"):
        assert there_and_back(form, Sample(response=text), Sample).response == text


class Client:
    pass


class Grade(int):
    pass


def nested(depth: int, make: Callable[[Any], Any] = lambda inner: [inner]) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = make(value)
    return value


@pytest.mark.parametrize(
    ("sample", "path", "what"),
    [
        (Sample(metadata={"client": Client()}), "metadata['client']", "Client"),
        (Sample(metadata={"a": [1, {"b": Client()}]}), "metadata['a'][1]['b']", "Client"),
        (Sample(ground_truth=(1, [object()])), "ground_truth[1][0]", "object"),
        (Sample(metadata={"n": math.nan}), "metadata['n']", "float nan"),
        (Sample(metadata={"n": [0.0, -math.inf]}), "metadata['n'][1]", "float -inf"),
        (Sample(ground_truth=math.inf), "ground_truth", "float inf"),
        (Sample(metadata={"n": np.float32("nan")}), "metadata['n']", "float32 nan"),
        (Sample(metadata={"f": len}), "metadata['f']", "builtin_function_or_method"),
        (Sample(metadata={"d": Decimal(1)}), "metadata['d']", "Decimal"),
        (Sample(metadata={"g": Grade(1)}), "metadata['g']", "Grade"),
        (Sample(metadata={"k": FailureKind.RAISED}), "metadata['k']", "FailureKind"),
        (Sample(metadata={"o": np.array([object()])}), "metadata['o']", "ndarray of |O"),
        (Sample(metadata={"t": np.datetime64("2024-01-01")}), "metadata['t']", "datetime64 of"),
        (Sample(metadata={"m": np.ma.array([1])}), "metadata['m']", "MaskedArray"),
        (Sample(metadata={"x": bytearray(b"x")}), "metadata['x']", "bytearray"),
        (Sample(metadata={Client(): 1}), "metadata[<", "Client"),
        (
            Sample(response=[Message("assistant", None, (ToolCall("f", {"c": Client()}),))]),
            "response[0].tool_calls[0].arguments['c']",
            "Client",
        ),
        (
            Sample(videos=[{"path": "v", "fps": math.nan}]),
            "videos[0].fps",
            "float nan",
        ),
        (Sample(metadata={"d": nested(1000)}), "metadata['d'][0]", "nested more than 100"),
        (Sample(metadata={"d": nested(100_000)}), "metadata['d'][0]", "nested more than 100"),
        (Sample(metadata={"d": nested(150, lambda i: {"k": i})}), "metadata['d']['k']", "nested"),
    ],
    ids=lambda v: v[:40] if isinstance(v, str) else "",
)
def test_what_cannot_travel_is_named_by_its_path(
    form: Any, sample: Sample, path: str, what: str
) -> None:
    encode, _ = form
    with pytest.raises(UnportableData) as caught:
        encode(sample)
    assert caught.value.path.startswith(path)
    assert what in caught.value.type_name
    with pytest.raises(UnportableData) as caught:
        encode([Sample(), sample])
    assert caught.value.path.startswith(f"[1].{path}")


@pytest.mark.parametrize(
    ("score", "path"),
    [
        (Score(value=1.0, components={"a": math.nan}), "components['a']"),
        (Score(value=1.0, metrics={"m": math.inf}), "metrics['m']"),
        (Score(value=1.0, info={"i": math.nan}), "info['i']"),
        (Score(value=1.0, elapsed=math.nan), "elapsed"),
    ],
)
def test_no_number_that_is_not_finite_leaves(form: Any, score: Score, path: str) -> None:
    encode, _ = form
    with pytest.raises(UnportableData) as caught:
        encode(score)
    assert caught.value.path == path


def test_a_list_that_holds_itself_is_refused(form: Any) -> None:
    ring: list[Any] = []
    ring.append(ring)
    with pytest.raises(UnportableData):
        form[0](Sample(metadata={"ring": ring}))


def test_encoding_changes_nothing(form: Any) -> None:
    metadata = {"a": (1, {2: 3}), "b": [np.arange(3)], "c": MappingProxyType({"x": 1})}
    before = repr(metadata)
    form[0](Sample(metadata=metadata))
    assert repr(metadata) == before


HOSTILE_JSON: list[tuple[bytes, Any]] = [
    (b"", Sample),
    (b"{", Sample),
    (b"null", Sample),
    (b"[]", Sample),
    (b"5", Outcome),
    (b'{"response": 5}', Sample),
    (b'{"response": [{"content": "x"}]}', Sample),
    (b'{"metadata": []}', Sample),
    (b'{"sample_id": 5}', Sample),
    (b'{"response_token_ids": ["a"]}', Sample),
    (b'{"images": [{"kind": "image"}]}', Sample),
    (b'{"images": [{"kind": "smell", "data": ""}]}', Sample),
    (b'{"images": [{"kind": "image", "data": "@"}]}', Sample),
    (b'{"metadata": {"a": NaN}}', Sample),
    (b'{"metadata": {"a": Infinity}}', Sample),
    (b'{"metadata": {"a": -Infinity, "b": "\\ud800"}}', Sample),
    (b'{"metadata": {"a": 1e999}}', Sample),
    (b"\xff\xfe", Sample),
    (b'{"response": "\xff"}', Sample),
    (b'{"outcome": "prize", "value": 1}', Outcome),
    (b'{"value": 1}', Outcome),
    (b'{"outcome": "score"}', Outcome),
    (b'{"outcome": "score", "value": NaN}', Outcome),
    (b'{"outcome": "score", "value": 1e999}', Outcome),
    (b'{"outcome": "score", "value": null}', Outcome),
    (b'{"outcome": "score", "value": "1"}', Outcome),
    (b'{"outcome": "score", "value": true}', Outcome),
    (b'{"outcome": "score", "value": 1, "components": {"a": "b"}}', Outcome),
    (b'{"outcome": "score", "value": 1, "spans": [["token", 3, 1, 0]]}', Outcome),
    (
        b'{"outcome":"score","value":1,"spans":[{"unit":"token","start":3,"end":1,"value":0}]}',
        Outcome,
    ),
    (b'{"outcome": "failure", "kind": "slow", "message": "", "blame": "data"}', Outcome),
    (b'{"outcome": "failure", "kind": "raised", "message": "", "blame": "me"}', Outcome),
    (b'{"metadata": {"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}}", Sample),
    (b"[" * 100_000, Sample),
    (b'{"a":' * 100_000, Sample),
    (b'{"metadata": {"a": {"$guerdon": "tuple"}}}', Sample),
    (b'{"metadata": {"a": {"$guerdon": "tuple", "value": 5}}}', Sample),
    (b'{"metadata": {"a": {"$guerdon": "pickle", "value": "gAR9lC4="}}}', Sample),
    (b'{"metadata": {"a": {"$guerdon": ["tuple"], "value": []}}}', Sample),
    (b'{"metadata": {"a": {"$guerdon": "set", "value": [[1]]}}}', Sample),
    (b'{"metadata": {"a": {"$guerdon": "dict", "value": [[1]]}}}', Sample),
    (b'{"metadata": {"a": {"$guerdon": "dict", "value": [[[], 1]]}}}', Sample),
    (b'{"metadata": {"a": {"$guerdon": "range", "value": [0, 1, 0]}}}', Sample),
    (b'{"metadata": {"a": {"$guerdon": "range", "value": ["a"]}}}', Sample),
    (b'{"metadata": {"a": {"$guerdon": "bytes", "value": "@@"}}}', Sample),
    (b'{"metadata": {"a": {"$guerdon": "bytes", "value": 5}}}', Sample),
    (b'{"metadata": {"a": {"$guerdon": "text", "value": "/w=="}}}', Sample),
    (b'{"metadata": {"a": {"$guerdon": "struct", "type": "Popen", "value": {}}}}', Sample),
    (b'{"metadata": {"a": {"$guerdon": "struct", "type": [], "value": {}}}}', Sample),
    (b'{"metadata": {"a": {"$guerdon": "struct", "type": "Span", "value": {}}}}', Sample),
    (b'{"metadata": {"a": {"$guerdon": "struct", "type": "Span"}}}', Sample),
    (b'{"metadata": {"$guerdon": "tuple", "value": []}}', Sample),
    (b'{"response": {"$guerdon": "bytes", "value": "AA=="}}', Sample),
    (
        b'{"metadata": ' + b'{"$guerdon": "tuple", "value": [' * 20_000 + b"]}" * 20_000 + b"}",
        Sample,
    ),
]


@pytest.mark.parametrize(("data", "kind"), HOSTILE_JSON, ids=lambda v: repr(v)[:50])
def test_json_that_is_no_message_is_refused(data: bytes, kind: Any) -> None:
    with pytest.raises(MalformedMessage):
        codec.decode_json(data, kind)


@pytest.mark.parametrize(
    "change",
    [
        {"dtype": "|O"},
        {"dtype": "O"},
        {"dtype": "i4,i4"},
        {"dtype": "(2,)i4"},
        {"dtype": "<U4"},
        {"dtype": "<f16"},
        {"dtype": "<f4\n"},
        {"dtype": 5},
        {"dtype": None},
        {"shape": [3]},
        {"shape": [-1]},
        {"shape": [-2, -1]},
        {"shape": [2.0]},
        {"shape": [True, 2]},
        {"shape": "2"},
        {"shape": [10**30, 0]},
        {"shape": [10**30]},
        {"shape": [1] * 100 + [2]},
        {"value": b""},
        {"value": "text"},
        {"value": 5},
    ],
)
@pytest.mark.parametrize("name", ["array", "scalar"])
def test_an_array_that_is_none_is_refused(name: str, change: dict[str, Any]) -> None:
    table = {"$guerdon": name, "dtype": "<i4", "shape": [2], "value": bytes(8), **change}
    if 10**30 in list(table["shape"]):
        table["shape"] = [{"$guerdon": "int", "value": (10**30).to_bytes(16, "big")}, 0]
    with pytest.raises(MalformedMessage):
        codec.decode_msgpack(msgspec.msgpack.encode({"metadata": {"a": table}}), Sample)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ({"outcome": "score", "value": math.nan}, Outcome),
        ({"outcome": "score", "value": math.inf}, Outcome),
        ({"outcome": "score", "value": 1.0, "components": {"a": math.nan}}, Outcome),
        ({"outcome": "score", "value": 1.0, "metrics": {"a": math.nan}}, Outcome),
        ({"outcome": "score", "value": 1.0, "info": {"a": [math.nan]}}, Outcome),
        ({"outcome": "score", "value": 1.0, "elapsed": math.inf}, Outcome),
        ({"metadata": {"a": math.nan}}, Sample),
        ({"ground_truth": -math.inf}, Sample),
        ({"metadata": {"t": msgspec.msgpack.Ext(5, b"x")}}, Sample),
        (nested(100_000), Sample),
        ({"metadata": {"a": nested(500)}}, Sample),
    ],
    ids=lambda v: repr(v)[:50] if not isinstance(v, list) else "deep",
)
def test_messagepack_lets_nothing_in_that_may_not_leave(value: Any, kind: Any) -> None:
    if isinstance(value, list):
        data = b"\x91" * 100_000 + b"\x00"
    else:
        data = msgspec.msgpack.encode(value)
    with pytest.raises(MalformedMessage):
        codec.decode_msgpack(data, kind)


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x81", b"\xa2\xff\xfe", b"\x81\xa8response\x05"])
def test_bytes_that_are_no_messagepack_are_refused(data: bytes) -> None:
    with pytest.raises(MalformedMessage):
        codec.decode_msgpack(data, Sample)


def test_unknown_fields_are_ignored_and_the_last_of_two_counts() -> None:
    data = b'{"response": "a", "temperature": 0.7, "response": "b"}'
    assert codec.decode_json(data, Sample) == Sample(response="b")


def test_a_complaint_names_the_place() -> None:
    with pytest.raises(MalformedMessage, match=r"\$\[1\]\.response"):
        codec.decode_json(b'[{}, {"response": 5}]', list[Sample])


@given(st.binary(max_size=200))
def test_noise_is_refused_or_read(data: bytes) -> None:
    for _, decode in FORMATS.values():
        for kind in (Sample, Outcome, list[Sample]):
            try:
                decode(data, kind)
            except MalformedMessage:
                continue


TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=5)
ATOMS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=-(2**80), max_value=2**80),
    st.floats(allow_nan=False, allow_infinity=False),
    TEXT,
    st.binary(max_size=5),
)
KEYS = st.one_of(TEXT, st.integers(), st.just("$guerdon"))
PLAIN = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(KEYS, inner, max_size=4),
        st.sets(st.integers(), max_size=3),
    ),
    max_leaves=15,
)


@settings(max_examples=300)
@given(PLAIN, TEXT, st.lists(st.integers(0, 2**31), max_size=4))
def test_any_plain_data_arrives_as_it_was(value: Any, text: str, ids: list[int]) -> None:
    sample = Sample(
        prompt=text,
        response=text,
        ground_truth=value,
        metadata={"v": value},
        response_token_ids=ids,
    )
    for form in FORMATS.values():
        twin = there_and_back(form, sample, Sample)
        assert same(twin.ground_truth, value)
        assert same(twin.metadata["v"], value)
        assert (twin.prompt, twin.response, twin.response_token_ids) == (text, text, ids)
