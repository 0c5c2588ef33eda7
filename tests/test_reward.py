"""Rewards: defined in five lines, called like functions, bound, configured, and sent elsewhere."""

import asyncio
import functools
import pickle
import threading
from collections.abc import Iterator
from typing import Any

import cloudpickle
import pytest

from guerdon import registry
from guerdon.errors import BadInput, InvalidReward, InvalidSample, NameCollision
from guerdon.outcome import UNBOUNDED
from guerdon.reward import (
    BaseReward,
    FunctionReward,
    Ready,
    reward,
    run_coroutine,
    sample_from,
)
from guerdon.sample import Sample

PATIENCE = 30.0


@pytest.fixture(autouse=True)
def _registry_is_left_as_it_was() -> Iterator[None]:
    before = dict(registry._definitions)
    yield
    registry._definitions.clear()
    registry._definitions.update(before)


@reward(name="test_reward_exact", value_range=(0.0, 1.0), auto_register=False)
def exact(response: str, ground_truth: str, *, strip: bool = False) -> bool:
    """Whether the response is the truth.

    More words.
    """
    return (response.strip() if strip else response) == ground_truth


@reward(auto_register=False)
async def exact_later(response: str, ground_truth: str) -> bool:
    await asyncio.sleep(0)
    return response == ground_truth


class Length(BaseReward):
    """Scores the length."""

    auto_register = False

    def __init__(self, limit: int = 10, *, scale: float = 1.0) -> None:
        self.limit = limit
        self.scale = scale

    def call(self, *, response: str) -> float:
        return self.scale * min(len(response), self.limit)


class Prepared(BaseReward):
    auto_register = False

    def prepare(self, *, response: str, ground_truth: str) -> Ready | dict[str, str]:
        return Ready(0.25) if response == ground_truth else {"a": response, "b": ground_truth}

    def call(self, *, a: str, b: str) -> float:
        return float(a < b)


# -- definitions ----------------------------------------------------------------------------------


def test_five_lines_make_a_reward() -> None:
    @reward
    def test_reward_plain(response: str) -> float:
        return float(len(response))

    assert isinstance(test_reward_plain, FunctionReward)
    assert test_reward_plain.name == "test_reward_plain"
    assert (test_reward_plain.scope, test_reward_plain.work) == ("sample", "cpu")
    assert test_reward_plain.value_range == UNBOUNDED
    assert registry.resolve("test_reward_plain") is test_reward_plain
    assert not test_reward_plain.is_async


def test_a_class_takes_its_name_in_snake_case_and_registers() -> None:
    class TestRewardClass(BaseReward):
        def call(self, *, response: str) -> float:
            return 1.0

    assert TestRewardClass.name == "test_reward_class"
    assert registry.get("test_reward_class") is TestRewardClass


def test_a_class_without_call_and_one_that_does_not_want_to_register_nothing() -> None:
    class TestRewardBase(BaseReward):
        pass

    class TestRewardHidden(BaseReward):
        auto_register = False

        def call(self, *, response: str) -> float:
            return 1.0

    assert {"test_reward_base", "test_reward_hidden"}.isdisjoint(registry._definitions)


def test_a_name_without_its_keyword_is_refused_with_the_cure() -> None:
    with pytest.raises(InvalidReward, match="write name='mine'"):
        reward("mine")  # type: ignore[call-overload]


def test_a_name_is_claimed_once() -> None:
    reward(name="test_reward_taken")(lambda response: 1.0)
    with pytest.raises(NameCollision, match="test_reward_taken"):
        reward(name="test_reward_taken")(exact_later.function)


def test_it_looks_like_its_function() -> None:
    assert exact.__doc__ == exact.function.__doc__
    assert exact.__name__ == "exact"
    assert exact.description == "Whether the response is the truth."
    assert Length().description == "Scores the length."
    assert Prepared().description == ""
    assert repr(exact) == "<reward test_reward_exact()>"
    assert repr(Length(5)) == "<reward length(limit=5, scale=1.0)>"


def test_attributes_of_the_function_do_not_become_declarations() -> None:
    def odd(response: str) -> float:
        return 1.0

    odd.deadline = 3.0  # type: ignore[attr-defined]
    odd.parameters = "mine"  # type: ignore[attr-defined]
    odd.fingerprint = "mine"  # type: ignore[attr-defined]
    made = FunctionReward(odd)
    assert made.deadline is None
    assert made.fingerprint != "mine"
    assert made.parameters.required == ("response",)


def test_what_cannot_be_injected_is_refused_at_the_definition() -> None:
    with pytest.raises(InvalidReward, match="cannot be injected"):
        FunctionReward(lambda *responses: 1.0, name="r")


# -- direct calls ---------------------------------------------------------------------------------

NAMES: list[dict[str, Any]] = [
    {"response": "4", "ground_truth": "4"},
    {"prediction": "4", "answer": "4"},
    {"completion": "4", "label": "4"},
    {"solution_str": "4", "ground_truth": "4", "extra_info": None, "data_source": "d"},
    {"final_response": [{"role": "assistant", "content": "4"}], "solution": "4"},
    {"response_messages": [{"role": "assistant", "content": "4"}], "solution": "4"},
    {"response": "4", "metadata": {"ground_truth": "4"}},
]


@pytest.mark.parametrize("keywords", NAMES, ids=lambda k: ",".join(k))
@pytest.mark.parametrize("made", [exact, exact_later], ids=["sync", "async"])
async def test_called_directly_it_behaves_as_a_function(made: Any, keywords: Any) -> None:
    assert await made(**keywords) is True
    assert made.call_sync(**keywords) is True  # inside a running loop
    assert await asyncio.to_thread(made.call_sync, **keywords) is True  # outside of one


def test_options_defaults_and_unknown_keywords_of_a_direct_call() -> None:
    assert exact.call_sync(response=" 4 ", ground_truth="4") is False
    assert exact.call_sync(response=" 4 ", ground_truth="4", strip=True) is True
    assert exact.call_sync(response="4", ground_truth="4", unknown=1) is True
    assert exact.bind(strip=True).call_sync(response=" 4 ", ground_truth="4") is True


def test_a_direct_call_that_lacks_something_says_so() -> None:
    for made in (exact, exact_later):
        with pytest.raises(BadInput, match=r"'ground_truth'.*available.*response"):
            made.call_sync(response="4")
    with pytest.raises(BadInput, match="needs responses"):
        FunctionReward(lambda responses: [1.0], scope="batch", name="r").call_sync(x=1)
    with pytest.raises(InvalidSample, match="response"):
        exact.call_sync(prediction=5, answer="4")


def test_what_a_direct_call_raises_is_raised() -> None:
    def fails(response: str) -> float:
        raise KeyError(response)

    async def fails_later(response: str) -> float:
        raise KeyError(response)

    for function in (fails, fails_later):
        with pytest.raises(KeyError, match="x"):
            FunctionReward(function).call_sync(response="x")


def test_a_batch_reward_is_called_with_columns() -> None:
    batch = FunctionReward(
        lambda responses, *, limit=1: [len(r) > limit for r in responses], scope="batch", name="b"
    )
    assert batch.call_sync(responses=["a", "aa"]) == [False, True]
    assert batch.bind(limit=0).call_sync(responses=["a", "aa"]) == [True, True]


@pytest.mark.parametrize(("response", "value"), [("x", 0.25), ("a", 1.0), ("z", 0.0)])
async def test_a_prepared_reward_is_called_through_both_stages(response: str, value: float) -> None:
    made = Prepared()
    assert made.call_sync(response=response, ground_truth="x") == value
    assert await made(response=response, answer="x") == value


def test_a_sample_from_keywords() -> None:
    sample = sample_from({"prediction": "4", "response": "5", "level": 3, "extra_info": {"a": 1}})
    assert sample == Sample(response="4", metadata={"response": "5", "level": 3, "a": 1})


# -- bind and configure ---------------------------------------------------------------------------


def test_binding_makes_a_copy() -> None:
    bound = exact.bind(strip=True)
    assert (exact.options, bound.options) == ({}, {"strip": True})
    assert bound.bind(ground_truth="4").options == {"strip": True, "ground_truth": "4"}
    assert bound.bind(strip=False).options == {"strip": False}
    assert bound.name == exact.name
    assert bound.value_range == (0.0, 1.0)


def test_an_unknown_option_is_refused_with_the_nearest() -> None:
    with pytest.raises(InvalidReward, match="did you mean 'strip'"):
        exact.bind(stripp=True)

    def open_ended(response: str, **rest: Any) -> float:
        return float(rest["beta"])

    assert FunctionReward(open_ended).bind(beta=2).call_sync(response="") == 2.0


def test_binding_a_class_constructs_it_again() -> None:
    first = Length(5)
    second = first.bind(scale=2.0)
    assert second.options == {"limit": 5, "scale": 2.0}
    assert (first.call_sync(response="abc"), second.call_sync(response="abc")) == (3, 6.0)
    with pytest.raises(TypeError, match="limt"):
        first.bind(limt=3)


def test_configuring_changes_declarations_of_the_copy_only() -> None:
    for made in (exact, Length(3)):
        changed = made.configure(name="other", deadline=2.0, value_range=(0.0, 5.0))
        assert (changed.name, changed.deadline, changed.value_range) == ("other", 2.0, (0.0, 5.0))
        assert made.deadline is None
        assert made.name != "other"
        assert changed.options == made.options
        assert changed.call_sync(response="4", ground_truth="4") == 1


# -- travelling -----------------------------------------------------------------------------------


def same_reward(one: BaseReward, other: BaseReward) -> None:
    assert type(one) is type(other)
    assert one.fingerprint == other.fingerprint
    assert (one.name, one.deadline, one.value_range) == (
        other.name,
        other.deadline,
        other.value_range,
    )
    assert one.options == other.options
    keywords = {"response": "abc ", "ground_truth": "abc"}
    assert one.call_sync(**keywords) == other.call_sync(**keywords)


@pytest.mark.parametrize(
    "made",
    [
        exact,
        exact_later,
        exact.bind(strip=True),
        exact.configure(name="n", deadline=2.0),
        exact.configure(deadline=3.0).bind(strip=True).configure(name="m"),
        Length(5, scale=0.5),
        Length(5).configure(deadline=1.0, name="x"),
        Prepared(),
    ],
    ids=repr,
)
def test_a_reward_of_a_module_travels_by_reference(made: BaseReward, importable: None) -> None:
    for data in (pickle.dumps(made), cloudpickle.dumps(made)):
        same_reward(pickle.loads(data), made)
        assert len(data) < 1500


@pytest.fixture(name="importable")
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pytest loads this file under a name of its own choice; a worker would import it by name."""
    import sys

    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or _this_module())


def _this_module() -> Any:
    import types

    module = types.ModuleType(__name__)
    module.__dict__.update(globals())
    return module


def test_a_module_level_reward_is_itself_after_travelling(importable: None) -> None:
    assert pickle.loads(pickle.dumps(exact)) is exact


def local(limit: int) -> FunctionReward:
    def over(response: str) -> bool:
        return len(response) > limit

    return FunctionReward(over, value_range=(0.0, 1.0), version="3")


def test_a_closure_travels_by_value() -> None:
    for made in (local(2), local(2).configure(name="n"), local(2).configure(deadline=1.0)):
        twin = pickle.loads(cloudpickle.dumps(made))
        same_reward(twin, made)
        assert twin.version == "3"
    with pytest.raises((AttributeError, pickle.PicklingError)):
        pickle.dumps(local(2))


def test_a_partial_travels() -> None:
    made = FunctionReward(functools.partial(exact.function, strip=True), name="p")
    same_reward(pickle.loads(cloudpickle.dumps(made)), made)


def test_a_notebook_cell_that_is_run_again_travels_by_value() -> None:
    shadowed = FunctionReward(exact.function, name="shadow")
    assert not shadowed._is_global()
    same_reward(pickle.loads(cloudpickle.dumps(shadowed)), shadowed)


# -- coroutines from sync code --------------------------------------------------------------------


async def answer() -> int:
    await asyncio.sleep(0)
    return 42


async def fail() -> None:
    raise KeyError("x")


def test_a_coroutine_runs_without_a_loop() -> None:
    assert run_coroutine(answer) == 42
    with pytest.raises(KeyError):
        run_coroutine(fail)


async def test_a_coroutine_runs_beside_a_loop_and_leaves_no_thread() -> None:
    before = threading.active_count()
    assert run_coroutine(answer) == 42
    with pytest.raises(KeyError):
        run_coroutine(fail)
    assert threading.active_count() == before


async def test_an_interrupt_while_a_coroutine_runs_beside_a_loop_cancels_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started, cancelled = threading.Event(), threading.Event()

    async def waits() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    def interrupted(_: threading.Thread) -> None:
        assert started.wait(PATIENCE)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "join", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_coroutine(waits)
    assert cancelled.wait(PATIENCE)
