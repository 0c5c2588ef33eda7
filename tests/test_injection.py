"""Parameters get their values by name, from one stated order of sources."""

from collections import OrderedDict, UserDict
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guerdon.errors import InvalidReward
from guerdon.injection import (
    FIELDS,
    SYNONYMS,
    Arguments,
    Call,
    MissingArgument,
    Parameters,
    Scope,
    UnusableSample,
    own,
)
from guerdon.outcome import EMPTY
from guerdon.sample import Media, Message, Part, Sample, ToolCall

FULL = Sample(
    prompt="2 + 2?",
    response="4",
    ground_truth="four",
    images=[b"png"],
    videos=["v.mp4"],
    audios=["a.wav"],
    data_source="gsm8k",
    sample_id="s1",
    group_id="g1",
    metadata={"level": 3},
    prompt_token_ids=[1, 2],
    response_token_ids=[3, 4],
    response_mask=[1, 0],
    finish_reason="stop",
    policy_version=7,
)
VALUES: dict[str, Any] = {
    "prompt": "2 + 2?",
    "prompt_messages": (Message("user", "2 + 2?"),),
    "response": "4",
    "response_messages": (Message("assistant", "4"),),
    "ground_truth": "four",
    "images": (Media(kind="image", data=b"png"),),
    "videos": (Media(kind="video", path="v.mp4"),),
    "audios": (Media(kind="audio", path="a.wav"),),
    "data_source": "gsm8k",
    "sample_id": "s1",
    "group_id": "g1",
    "metadata": {"level": 3},
    "prompt_token_ids": [1, 2],
    "response_token_ids": [3, 4],
    "response_mask": [1, 0],
    "finish_reason": "stop",
    "policy_version": 7,
}


def function_of(*names: str, **defaults: Any) -> Callable[..., Any]:
    """A function with these parameters."""
    parameters = ", ".join([*names, *(f"{name}=_{name}" for name in defaults)])
    space = {f"_{name}": value for name, value in defaults.items()}
    exec(f"def made({parameters}): pass", space)  # the names are those of this file
    return space["made"]


def bind(
    function: Callable[..., Any],
    sample: Sample,
    call: Call | None = None,
    options: Mapping[str, Any] = EMPTY,
) -> Any:
    binder = Parameters(function, "sample", "r").binder(call or Call(), options)
    bound = binder.one(sample)
    assert binder.each([sample]) == [bound]
    return bound


def bind_many(
    function: Callable[..., Any],
    samples: list[Sample],
    scope: Scope = "batch",
    call: Call | None = None,
    options: Mapping[str, Any] = EMPTY,
) -> Arguments:
    binder = Parameters(function, scope, "r").binder(call or Call(), options)
    assert not binder.lacks(samples)
    return binder.many(samples)


def test_every_field_is_injected_under_its_name() -> None:
    assert set(VALUES) == set(FIELDS)
    for name, value in VALUES.items():
        assert bind(function_of(name), FULL) == {name: value}


@pytest.mark.parametrize(("synonym", "field"), SYNONYMS.items())
def test_every_synonym_is_the_field(synonym: str, field: str) -> None:
    assert bind(function_of(synonym), FULL) == {synonym: VALUES[field]}


def test_the_synonyms_of_the_issue_are_there() -> None:
    for name in ("prediction", "final_response", "completion", "solution_str"):
        assert SYNONYMS[name] == "response"
    for name in ("answer", "solution", "label"):
        assert SYNONYMS[name] == "ground_truth"


SOURCES: list[tuple[str, dict[str, Any]]] = [
    ("option", {"options": {"answer": "option"}}),
    ("keyword", {"keywords": {"answer": "keyword"}}),
    ("metadata", {"metadata": {"answer": "metadata"}}),
    ("synonym", {"ground_truth": "synonym"}),
    ("default", {"default": "default"}),
]


@pytest.mark.parametrize("missing", range(len(SOURCES)))
def test_the_first_source_that_has_a_value_wins(missing: int) -> None:
    given: dict[str, Any] = {}
    for _, source in SOURCES[missing:]:
        given.update(source)
    function = function_of(answer="default") if "default" in given else function_of("answer")
    sample = Sample(ground_truth=given.get("ground_truth"), metadata=given.get("metadata", EMPTY))
    bound = bind(
        function, sample, Call(keywords=given.get("keywords", EMPTY)), given.get("options", EMPTY)
    )
    assert bound == {"answer": SOURCES[missing][0]}


def test_a_field_wins_over_metadata_of_its_name_and_metadata_over_the_call() -> None:
    sample = Sample(response="field", metadata={"response": "metadata", "step": 5})
    assert bind(function_of("response"), sample) == {"response": "field"}
    assert bind(function_of("step"), sample, Call(step=3)) == {"step": 5}
    assert bind(function_of("step"), Sample(), Call(step=3)) == {"step": 3}


def test_a_field_that_is_none_counts_as_absent() -> None:
    sample = Sample(metadata={"ground_truth": "metadata"})
    assert bind(function_of("ground_truth"), sample) == {"ground_truth": "metadata"}
    assert bind(function_of(ground_truth="default"), Sample()) == {"ground_truth": "default"}


def test_metadata_that_is_none_is_handed_over() -> None:
    assert bind(function_of(level=3), Sample(metadata={"level": None})) == {"level": None}


@pytest.mark.parametrize("empty", ["", [], {}, 0, False])
def test_what_is_empty_is_there(empty: Any) -> None:
    sample = Sample(ground_truth=empty, response="")
    assert bind(function_of("ground_truth", "response"), sample) == {
        "ground_truth": empty,
        "response": "",
    }


def test_the_call_itself_is_injected() -> None:
    call = Call(step=3, split="validation", run_id="r1")
    assert bind(function_of("step", "split", "run_id"), FULL, call) == {
        "step": 3,
        "split": "validation",
        "run_id": "r1",
    }
    assert bind(function_of(step=0), FULL, Call()) == {"step": 0}


def test_the_whole_sample_is_injected() -> None:
    assert bind(function_of("sample"), FULL) == {"sample": FULL}


def test_only_the_caller_sets_an_option() -> None:
    def graded(response: str, *, method: str = "strict", ground_truth: str = "") -> None: ...

    sample = Sample(response="4", ground_truth="4", metadata={"method": "loose"})
    assert bind(graded, sample) == {"response": "4", "ground_truth": "4"}
    assert bind(graded, sample, options={"method": "a"})["method"] == "a"
    assert bind(graded, sample, Call(keywords={"method": "b"}))["method"] == "b"
    both = bind(graded, sample, Call(keywords={"method": "b"}), {"method": "a"})
    assert both["method"] == "a"


def test_a_keyword_only_parameter_without_default_is_no_option() -> None:
    def graded(*, level: int) -> None: ...

    assert bind(graded, FULL) == {"level": 3}


def test_a_dataset_column_sets_no_option_through_kwargs() -> None:
    def graded(response: str, *, method: str = "strict", **rest: Any) -> None: ...

    sample = Sample(response="4", metadata={"method": "loose", "level": 3})
    assert bind(graded, sample) == {"response": "4", "level": 3}
    assert bind_many(graded, [sample]) == {"response": ["4"], "level": [3]}


def test_kwargs_receive_metadata_and_keywords() -> None:
    def graded(response: str, **rest: Any) -> None: ...

    sample = Sample(response="4", metadata={"level": 3, "extra": 1})
    call = Call(keywords={"extra": 2, "more": 5})
    assert bind(graded, sample, call) == {"response": "4", "level": 3, "extra": 2, "more": 5}


def test_kwargs_do_not_receive_keys_that_are_no_names() -> None:
    def graded(response: str, **rest: Any) -> None: ...

    sample = Sample(response="4", metadata={1: "one", None: "none", "a b": "text"})
    assert bind(graded, sample) == {"response": "4", "a b": "text"}
    assert bind_many(graded, [sample]) == {"response": ["4"], "a b": ["text"]}


def test_keywords_that_nobody_asks_for_are_left_out() -> None:
    call = Call(keywords={"response": "given", "other": 1})
    assert bind(function_of("response"), FULL, call) == {"response": "given"}


@pytest.mark.parametrize(
    ("sample", "available"),
    [
        (Sample(), ()),
        (Sample(response="4"), ("response", "response_messages")),
        (
            Sample(data_source="d", metadata={"level": 1, 7: 2}),
            ("data_source", "metadata", "level", "7"),
        ),
    ],
)
def test_a_missing_argument_names_itself_and_what_was_there(
    sample: Sample, available: tuple[str, ...]
) -> None:
    missing = bind(function_of("ground_truth"), sample)
    assert missing == MissingArgument("ground_truth", available)
    assert "'ground_truth'" in str(missing)
    for name in available or ("nothing",):
        assert name in str(missing)


@pytest.mark.parametrize("parameter", ["ground_truth", "answer"])
def test_a_column_that_holds_the_missing_truth_is_named_with_the_option(parameter: str) -> None:
    row = Sample(metadata={"input_output": "{}"})
    assert "--map ground_truth=input_output" in str(bind(function_of(parameter), row))
    assert "--map" not in str(bind(function_of("response"), row))
    assert "--map" not in str(bind(function_of(parameter), Sample()))


def test_what_the_caller_gave_is_named_as_available() -> None:
    missing = bind(function_of("ground_truth"), Sample(), Call(keywords={"beta": 1}))
    assert missing == MissingArgument("ground_truth", ("beta",))


@pytest.mark.parametrize(
    "text", ["def made(a, /): pass", "def made(*args): pass", "def made(a, *b): pass"]
)
def test_what_cannot_be_injected_is_refused(text: str) -> None:
    space: dict[str, Any] = {}
    exec(text, space)
    with pytest.raises(InvalidReward, match=r"'r'.*cannot be injected"):
        Parameters(space["made"], "sample", "r")


def test_a_function_without_parameters_is_called_for_every_sample() -> None:
    binder = Parameters(lambda: 1.0, "sample", "r").binder(Call(), EMPTY)
    assert binder.each([FULL, FULL]) == [{}, {}]
    bound = Parameters(function_of("response"), "sample", "r").binder(Call(), {"response": "x"})
    assert bound.each([FULL, FULL]) == [{"response": "x"}, {"response": "x"}]


@given(
    st.lists(
        st.builds(
            Sample,
            prompt=st.one_of(st.none(), st.text(max_size=3), st.just([{"role": "user"}])),
            response=st.one_of(st.none(), st.text(max_size=3), st.just([{"role": "assistant"}])),
            ground_truth=st.one_of(st.none(), st.text(max_size=3), st.lists(st.integers())),
            data_source=st.one_of(st.none(), st.text(max_size=3)),
            metadata=st.dictionaries(st.sampled_from(["response", "answer", "x"]), st.text()),
        ),
        max_size=5,
    ),
    st.lists(
        st.sampled_from(["prompt", "response", "ground_truth", "data_source", "answer", "x"]),
        unique=True,
    ),
    st.dictionaries(st.sampled_from(["response", "x", "other"]), st.integers()),
)
def test_binding_columns_is_the_same_as_binding_each_sample(
    samples: list[Sample], names: list[str], options: dict[str, int]
) -> None:
    binder = Parameters(function_of(*names), "sample", "r").binder(Call(), options)
    assert binder.each(samples) == [binder.one(sample) for sample in samples]


# -- batches and groups ---------------------------------------------------------------------------

TWO = [
    Sample(response="a", ground_truth="1", sample_id="s1", group_id="g", metadata={"level": 1}),
    Sample(response="b", ground_truth="2", sample_id="s2", group_id="g", metadata={"level": 2}),
]


@pytest.mark.parametrize("scope", ["batch", "group"])
@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("response", ["a", "b"]),
        ("responses", ["a", "b"]),
        ("completions", ["a", "b"]),
        ("predictions", ["a", "b"]),
        ("ground_truths", ["1", "2"]),
        ("answers", ["1", "2"]),
        ("labels", ["1", "2"]),
        ("sample_ids", ["s1", "s2"]),
        ("level", [1, 2]),
        ("levels", None),
        ("samples", TWO),
        ("metadata", [{"level": 1}, {"level": 2}]),
    ],
)
def test_a_batch_gets_lists_and_understands_plurals(
    scope: Scope, name: str, column: list[Any] | None
) -> None:
    binder = Parameters(function_of(name), scope, "r").binder(Call(), EMPTY)
    if column is None:
        assert set(binder.lacks(TWO)) == {0, 1}
    else:
        assert bind_many(function_of(name), TWO, scope) == {name: column}


def test_the_call_and_options_of_a_batch_are_single_values() -> None:
    def graded(responses: list[str], step: int, *, method: str = "a") -> None: ...

    assert bind_many(graded, TWO, call=Call(step=4), options={"method": "b"}) == {
        "responses": ["a", "b"],
        "step": 4,
        "method": "b",
    }


def test_defaults_of_a_batch_are_for_the_whole_parameter() -> None:
    some = [TWO[0], Sample(response="b")]
    assert bind_many(function_of("responses", level=0), TWO)["level"] == [1, 2]
    assert bind_many(function_of("responses", level=0), some)["level"] == [1, None]
    assert bind_many(function_of("responses", other=0), TWO)["other"] == 0


def test_kwargs_of_a_batch_are_columns() -> None:
    def graded(responses: list[str], **rest: Any) -> None: ...

    some = [TWO[0], Sample(response="b", metadata={"extra": 5})]
    assert bind_many(graded, some) == {
        "responses": ["a", "b"],
        "level": [1, None],
        "extra": [None, 5],
    }


def test_what_a_batch_lacks_is_said_for_each_sample() -> None:
    binder = Parameters(function_of("responses", "ground_truths"), "batch", "r").binder(
        Call(), EMPTY
    )
    lacks = binder.lacks([TWO[0], Sample(response="b"), Sample(ground_truth="2")])
    assert {place: str(lack).split("'")[1] for place, lack in lacks.items()} == {
        1: "ground_truths",
        2: "responses",
    }


# -- isolation ------------------------------------------------------------------------------------


class Grudge(Mapping[str, Any]):
    """A mapping that raises when it is read."""

    def __getitem__(self, key: str) -> Any:
        raise OSError("disk gone")

    def __contains__(self, key: object) -> bool:
        return True

    def __iter__(self) -> Iterator[str]:
        raise OSError("disk gone")

    def __len__(self) -> int:
        return 1


def nested(depth: int) -> list[Any]:
    inner: list[Any] = []
    for _ in range(depth):
        inner = [inner]
    return inner


@pytest.mark.parametrize(
    "sample",
    [
        Sample(response="4", ground_truth=nested(100_000)),
        Sample(response="4", ground_truth="4", metadata=Grudge()),
    ],
    ids=["deep", "raises"],
)
def test_data_that_cannot_be_read_is_the_fault_of_one_sample(sample: Sample) -> None:
    def graded(response: str, ground_truth: Any, level: int = 0, **rest: Any) -> None: ...

    good = Sample(response="5", ground_truth="5")
    binder = Parameters(graded, "sample", "r").binder(Call(), EMPTY)
    first, second = binder.each([sample, good])
    assert isinstance(first, UnusableSample)
    assert second == {"response": "5", "ground_truth": "5", "level": 0}
    lacks = Parameters(graded, "batch", "r").binder(Call(), EMPTY).lacks([sample, good])
    assert [type(lack) for lack in lacks.values()] == [UnusableSample]
    assert list(lacks) == [0]


def spoil(value: Any) -> None:
    """Change everything that can be changed, all the way down."""
    if isinstance(value, Sample):
        for name in Sample.__struct_fields__:
            spoil(getattr(value, name))
    elif isinstance(value, Message):
        for call in value.tool_calls:
            spoil(call.arguments)
    elif isinstance(value, dict):
        for item in value.values():
            spoil(item)
        value.clear()
    elif isinstance(value, list | tuple):
        for item in value:
            spoil(item)
        if isinstance(value, list):
            value.append("spoilt")
    elif isinstance(value, set):
        value.clear()


class Listed(list[Any]):
    """A subclass of list."""


def rich() -> Sample:
    call = {"name": "f", "arguments": {"a": [1]}}
    return Sample(
        prompt=[{"role": "user", "content": "hi"}],
        response=[{"role": "assistant", "content": "4", "tool_calls": [call]}],
        ground_truth={"answers": ["4", {"4.0"}], "tests": Listed([[1, 2]])},
        metadata={
            "nested": {"list": [[1], ({"deep": [2]},)]},
            "ordered": OrderedDict(a=[1]),
            "user": UserDict({"a": [1]}),
        },
        prompt_token_ids=[1, 2],
        response_token_ids=[3, 4],
        response_mask=[1, 1],
    )


PARAMETERS = [
    "sample",
    "ground_truth",
    "metadata",
    "nested",
    "ordered",
    "user",
    "prompt_messages",
    "response_messages",
    "prompt_token_ids",
    "response_token_ids",
    "response_mask",
    "extra_info",
]


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_reward_cannot_change_the_sample(name: str) -> None:
    sample = rich()
    spoil(bind(function_of(name), sample))
    assert sample == rich()


@pytest.mark.parametrize("name", [*PARAMETERS[1:], "samples", "ground_truths"])
def test_a_batch_reward_cannot_change_the_samples(name: str) -> None:
    samples = [rich(), rich()]
    spoil(bind_many(function_of(name), samples))
    assert samples == [rich(), rich()]


def test_kwargs_cannot_change_the_sample() -> None:
    def graded(**rest: Any) -> None: ...

    sample = rich()
    spoil(bind(graded, sample))
    spoil(bind_many(graded, [sample]))
    assert sample == rich()


def test_options_and_keywords_of_the_caller_cannot_be_changed() -> None:
    options, keywords = {"weights": [1.0]}, {"table": {"a": [1]}}
    for accepts in (function_of("weights", "table"), function_of("**rest")):
        binder = Parameters(accepts, "sample", "r").binder(Call(keywords=keywords), options)
        spoil(binder.one(FULL))
        assert (options, keywords) == ({"weights": [1.0]}, {"table": {"a": [1]}})


def test_a_default_cannot_be_changed() -> None:
    default: list[int] = []
    spoil(bind(function_of(level=default), Sample()))
    spoil(bind_many(function_of(level=default), [Sample()]))
    assert default == []


@pytest.mark.parametrize(
    "value", [b"bytes", object(), frozenset({1}), Media(kind="image", data=b""), np.float32(1)]
)
def test_other_objects_are_shared(value: Any) -> None:
    assert own(value) is value


PIXELS = np.arange(12, dtype=np.uint8).reshape(3, 2, 2)


def pixels(kind: Any = "image") -> Media:
    return Media(kind=kind, array=PIXELS, layout="CHW", value_range="uint8")


def arrays_of(value: Any) -> list[np.ndarray]:
    """All arrays in a value."""
    if isinstance(value, np.ndarray):
        return [value]
    if isinstance(value, Sample | Message | Part | Media):
        return [a for name in value.__struct_fields__ for a in arrays_of(getattr(value, name))]
    if isinstance(value, dict):
        return [a for item in value.values() for a in arrays_of(item)]
    if isinstance(value, list | tuple):
        return [a for item in value for a in arrays_of(item)]
    return []


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("ground_truth", 1),
        ("metadata", 2),
        ("nested", 1),
        ("images", 1),
        ("prompt_messages", 1),
        ("prompt_token_ids", 1),
        ("sample", 6),
    ],
)
def test_arrays_are_shared_and_read_only(name: str, count: int) -> None:
    sample = Sample(
        prompt=[{"role": "user", "content": [pixels(), "what?"]}],
        images=[pixels()],
        ground_truth=PIXELS,
        metadata={"array": PIXELS, "nested": [{"deep": PIXELS}]},
        prompt_token_ids=PIXELS[0, 0],
    )
    arrays = arrays_of(
        Parameters(function_of(name), "sample", "r").binder(Call(), EMPTY).one(sample)
    )
    assert len(arrays) == count
    for array in arrays:
        assert np.shares_memory(array, PIXELS)
        assert array.dtype == PIXELS.dtype
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
    assert PIXELS.flags.writeable


def test_lists_in_an_array_are_copied() -> None:
    truth = np.array([["a"], ["b", "c"]], dtype=object)
    copied = own(truth)
    copied[0].append("spoilt")
    assert truth.tolist() == [["a"], ["b", "c"]]
    assert copied.dtype == object


def test_mappings_become_dicts() -> None:
    assert own(MappingProxyType({"a": [1]})) == {"a": [1]}
    assert type(own(UserDict(a=1))) is dict


def test_a_message_without_parsed_arguments_is_shared() -> None:
    message = Message("assistant", "4", tool_calls=(ToolCall("f", "{}"),))
    assert own(message) is message


PLAIN = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(), st.binary()),
    lambda inner: st.one_of(
        st.lists(inner),
        st.tuples(inner, inner),
        st.dictionaries(st.text(), inner),
        st.sets(st.integers()),
    ),
    max_leaves=20,
)


@given(PLAIN)
def test_a_copy_is_equal_and_apart(value: Any) -> None:
    copied = own(value)
    assert copied == value
    assert type(copied) is type(value)
    before = repr(value)
    spoil(copied)
    assert repr(value) == before
