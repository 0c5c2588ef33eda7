"""A leaf: what is bound, what is known already, what runs once, and what is stamped."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from guerdon.backends.backend import Calls, Limits, Results
from guerdon.backends.inline import InlineBackend
from guerdon.errors import BadInput, ConfigError, InvalidReward
from guerdon.evaluation import Evaluation, on_thread
from guerdon.injection import Call
from guerdon.outcome import Abstention, Failure, Outcome, Score
from guerdon.policy import NO_RETRY
from guerdon.reward import BaseReward, FunctionReward, Ready
from guerdon.sample import Sample


class Spy(InlineBackend):
    """Notes the calls that it gets."""

    def __init__(self, name: str = "inline") -> None:
        super().__init__()
        self.name = name
        self.runs: list[Calls] = []

    def run(self, reward: BaseReward, calls: Calls, limits: Limits) -> Results:
        self.runs.append(calls)
        return super().run(reward, calls, limits)


def evaluation(backend: Any) -> Evaluation:
    return Evaluation(lambda _: backend, NO_RETRY, Call(step=3), Limits())


def leaf(reward: BaseReward, samples: list[Sample], backend: Any = None) -> list[Outcome]:
    return asyncio.run(evaluation(backend or InlineBackend()).leaf(reward, samples))


def said(outcomes: Any) -> list[Any]:
    return [
        o.value if isinstance(o, Score) else str(o.kind) if isinstance(o, Failure) else None
        for o in outcomes
    ]


class Stages(BaseReward):
    auto_register = False
    value_range = (0.0, 1.0)

    def __init__(
        self, prepare: Callable[[str], Any], call: Callable[..., Any] | None = None
    ) -> None:
        self._prepare = prepare
        self._call = call

    def prepare(self, *, response: str) -> Any:
        return self._prepare(response)

    def call(self, **arguments: Any) -> Any:
        assert self._call is not None
        return self._call(**arguments)


def texts(*responses: str) -> list[Sample]:
    return [Sample(response=r, sample_id=f"s{i}") for i, r in enumerate(responses)]


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (0.5, 0.5),
        (True, 1.0),
        (None, None),
        ({"score": 0.5}, 0.5),
        (2.0, "bad_output"),
        (float("nan"), "non_finite"),
        ("text", "bad_output"),
    ],
)
def test_what_is_ready_needs_no_backend(result: Any, expected: Any) -> None:
    spy = Spy()
    assert said(leaf(Stages(lambda _: Ready(result)), texts("a", "b"), spy)) == [expected] * 2
    assert spy.runs == []


@pytest.mark.parametrize("returned", [0.5, None, ("a",), [], Score(value=0.5)])
def test_what_prepare_must_not_return(returned: Any) -> None:
    (lost,) = leaf(Stages(lambda _: returned), texts("a"))
    assert isinstance(lost, Failure)
    assert str(lost.kind) == "bad_output"
    assert "neither Ready nor a dict" in lost.message


def test_what_prepare_raises_is_the_failure_of_its_sample() -> None:
    def prepare(response: str) -> Any:
        if response == "gold":
            raise BadInput("no gold")
        if response == "exit":
            raise SystemExit
        return Ready(1.0)

    outcomes = leaf(Stages(prepare), texts("gold", "a", "exit", "b"))
    assert said(outcomes) == ["bad_input", 1.0, "raised", 1.0]


def test_only_open_cases_travel_and_equal_ones_once() -> None:
    spy = Spy()

    def prepare(response: str) -> Any:
        return Ready(0.0) if response == "known" else {"answer": response.strip()}

    stages = Stages(prepare, lambda answer: float(len(answer)) / 10)
    outcomes = leaf(stages, texts("known", "a", " a", "bb", "a ", "known"), spy)
    assert said(outcomes) == [0.0, 0.1, 0.1, 0.2, 0.1, 0.0]
    (calls,) = spy.runs
    assert calls.arguments == [{"answer": "a"}, {"answer": "bb"}]
    assert [o.sample for o in outcomes] == [f"s{i}" for i in range(6)]


def test_arguments_that_are_nested_too_deeply_for_a_comparison_cost_nobody_else() -> None:
    def prepare(response: str) -> dict[str, Any]:
        nested: tuple[Any, ...] = ()
        for _ in range(100_000 if response == "deep" else 1):
            nested = (nested,)
        return {"nested": nested}

    stages = Stages(prepare, lambda nested: 1.0)
    assert said(leaf(stages, texts("a", "deep", "b"))) == [1.0, 1.0, 1.0]


def test_no_samples_and_no_open_calls_run_nothing() -> None:
    spy = Spy()
    assert leaf(Stages(lambda _: Ready(1.0)), [], spy) == []
    never = FunctionReward(lambda ground_truth: 1.0, name="r")
    assert said(leaf(never, texts("a"), spy)) == ["bad_input"]
    assert spy.runs == []


def test_every_kind_of_outcome_is_stamped() -> None:
    reward = FunctionReward(
        lambda response: {"a": 1.0, "b": None, "c": "x", "d": Score(value=1.0, elapsed=9.0)}[
            response
        ],
        name="mine",
    )
    for outcome in leaf(reward, texts("a", "b", "c", "d", "e")):
        assert (outcome.reward, outcome.fingerprint) == ("mine", reward.fingerprint)
    kinds = [type(o) for o in leaf(reward, texts("a", "b", "c", "d"))]
    assert kinds == [Score, Abstention, Failure, Score]


@pytest.mark.parametrize("error", [ConfigError("no pool"), InvalidReward("no deadline")])
def test_misuse_is_raised_and_fails_no_sample(error: Exception) -> None:
    class Refuses(InlineBackend):
        def run(self, reward: BaseReward, calls: Calls, limits: Limits) -> Results:
            raise error

    with pytest.raises(type(error)):
        leaf(FunctionReward(lambda response: 1.0, name="r"), texts("a"), Refuses())


def test_a_leaf_in_two_places_scores_once() -> None:
    spy = Spy("other")
    reward = FunctionReward(lambda response: 1.0, name="r")
    samples = texts("a", "b")

    async def twice() -> tuple[list[Outcome], list[Outcome], Evaluation]:
        running = evaluation(spy)
        first, second = await asyncio.gather(
            running.leaf(reward, samples), running.leaf(reward, samples)
        )
        return first, second, running

    first, second, running = asyncio.run(twice())
    assert first == second
    assert len(spy.runs) == 1
    assert [len(outcomes) for outcomes in running.leaves["r"]] == [2]


def test_plain_functions_run_slice_by_slice_and_others_in_one_run() -> None:
    plain, pooled, waiting = Spy(), Spy("pool"), Spy()
    samples = [Sample(response=str(i)) for i in range(5000)]
    expected = [float(i) for i in range(5000)]
    reward = FunctionReward(lambda response: float(response), name="r")
    assert said(leaf(reward, samples, plain)) == expected
    assert said(leaf(reward, samples, pooled)) == expected
    assert said(leaf(reward.configure(dedupe=True), samples, waiting)) == expected
    assert [run.samples for run in plain.runs] == [2048, 2048, 904]
    assert [run.samples for run in pooled.runs] == [5000]
    assert [run.samples for run in waiting.runs] == [5000]


async def test_errors_of_a_thread_come_back() -> None:
    def fails() -> None:
        raise KeyError("x")

    assert await on_thread(lambda: 42) == 42
    with pytest.raises(KeyError):
        await on_thread(fails)
