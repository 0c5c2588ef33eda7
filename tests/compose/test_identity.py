"""A composition is a reward: declared, named, fingerprinted, pickled, called."""

import asyncio
import pickle
from typing import Any

import cloudpickle
import pytest

from guerdon import registry
from guerdon.compose import (
    Affine,
    Cascade,
    Child,
    Clip,
    Composition,
    Conditional,
    Gate,
    GroupNormalise,
    Maximum,
    Minimum,
    Product,
    Schedule,
    Value,
    WeightedSum,
    linear,
)
from guerdon.errors import BadInput, InvalidReward, RewardFailure, UnknownReward
from guerdon.outcome import Abstention, Score
from guerdon.reward import BaseReward, reward
from guerdon.rules.gsm8k import gsm8k
from guerdon.sample import Sample


class Constant(BaseReward):
    """A reward that pickles by reference to its module."""

    auto_register = False
    value_range = (0.0, 1.0)

    def __init__(self, value: float = 0.5) -> None:
        self.value = value

    def call(self, *, response: str) -> float:
        return self.value


@reward(value_range=(0.0, 1.0), auto_register=False)
def exact(response: str, ground_truth: str) -> bool:
    return response == ground_truth


@reward(value_range=(0.0, 1.0), auto_register=False)
async def slow_length(completion: str, *, limit: int = 10, scale: float = 1.0) -> dict[str, Any]:
    await asyncio.sleep(0)
    return {"score": min(len(completion) / limit, 1.0) * scale, "characters": len(completion)}


def every_kind(a: Any = exact, b: Any = slow_length) -> list[Composition]:
    return [
        WeightedSum([Child(a, 0.8, Value(0.0)), Child(b, linear(0.1, 0.2, 0, 5))], default_step=0),
        Product([a, b]),
        Minimum([a, b]),
        Maximum([a, b]),
        Clip(a, low=0.1),
        Affine(b, scale=2.0, offset=-1.0),
        Gate([a], b, threshold=1.0, sequential=True),
        Cascade([a, b], undecided=(0.0, 0.0)),
        Conditional(
            [a, b], when={"exact": {"metadata": {"x": {"min": 1}}}}, otherwise="slow_length"
        ),
        Schedule([a, b], phases={0: "exact", 3: "slow_length"}, default_step=0),
        GroupNormalise(a, std=None),
    ]


KINDS = [type(made).__name__ for made in every_kind()]
same = pytest.mark.parametrize("i", range(len(KINDS)), ids=KINDS)


@same
def test_fingerprints_are_stable_and_cover_children(i: int) -> None:
    made = every_kind()[i]
    assert made.fingerprint == every_kind()[i].fingerprint
    children = made.children
    changed = [
        every_kind(a=exact.configure(version="2"))[i],
        every_kind(b=slow_length.bind(limit=5))[i],
    ]
    expected = [made.fingerprint != other.fingerprint for other in changed]
    assert expected == ["exact" in children, "slow_length" in children]


@same
def test_pickled_compositions_are_the_same(i: int) -> None:
    child, other = (
        Constant(0.25).configure(name="exact"),
        Constant(0.75).configure(name="slow_length"),
    )
    made = every_kind(child, other)[i]
    # By value: this test module cannot be imported elsewhere.
    copy = pickle.loads(cloudpickle.dumps(made))
    assert copy.fingerprint == made.fingerprint
    assert (copy.name, copy.value_range, copy.scope) == (made.name, made.value_range, made.scope)
    assert copy.members[0].missing == made.members[0].missing
    batch = [Sample(response="a", group_id="g", sample_id="0", metadata={"x": 1})]
    assert copy.call_sync(samples=batch)[0].value == made.call_sync(samples=batch)[0].value


@same
def test_bound_to_nothing_it_is_the_same(i: int) -> None:
    made = every_kind()[i]
    again = made.bind()
    assert again.fingerprint == made.fingerprint
    assert dict(again.children) == dict(made.children)
    assert again.value_range == made.value_range
    assert again.bind(name="other").name == "other"


def test_plain_pickle_of_library_rewards() -> None:
    made = WeightedSum({"g": Child(gsm8k, 0.5), "c": Clip(gsm8k, low=0.5)})
    copy = pickle.loads(pickle.dumps(made))
    assert copy.fingerprint == made.fingerprint
    assert copy.children["g"] is gsm8k


@pytest.mark.parametrize(
    "changed",
    [
        WeightedSum([Child(exact, 2.0), slow_length]),
        WeightedSum([Child(exact, missing="abstain"), slow_length]),
        WeightedSum([Child(exact, missing=Value(0.0)), slow_length]),
        WeightedSum([Child(exact, missing=Value(1.0)), slow_length]),
        WeightedSum([Child(exact, linear(1.0, 2.0, 0, 5)), slow_length]),
        WeightedSum([exact, slow_length], normalise=True),
        WeightedSum([slow_length, exact]),
        WeightedSum([exact]),
        WeightedSum({"a": exact, "slow_length": slow_length}),
        WeightedSum([exact, slow_length], name="other"),
        Product([exact, slow_length]).configure(name="weighted_sum"),
    ],
)
def test_what_changes_a_fingerprint(changed: Any) -> None:
    assert changed.fingerprint != WeightedSum([exact, slow_length]).fingerprint


def test_one_fingerprint_however_it_is_written() -> None:
    spellings: list[Any] = [
        [exact, slow_length],
        {"exact": exact, "slow_length": slow_length},
        [Child(exact), Child(slow_length, 1.0, "fail", "slow_length")],
        {"exact": {"reward": exact, "weight": 1}, "slow_length": slow_length},
    ]
    assert len({WeightedSum(children).fingerprint for children in spellings}) == 1


def test_the_order_of_cases_is_part_of_the_fingerprint() -> None:
    when = {"exact": "a*", "slow_length": "*b"}
    first = Conditional([exact, slow_length], when)
    second = Conditional([exact, slow_length], dict(reversed(when.items())))
    assert first.fingerprint != second.fingerprint


def test_what_a_composition_needs() -> None:
    made = WeightedSum([exact, slow_length])
    assert set(made.parameters.required) == {"response", "ground_truth", "completion"}
    assert made.children == {"exact": exact, "slow_length": slow_length}
    assert made.is_async
    assert made.scope == "sample"


@pytest.mark.parametrize(
    ("scopes", "expected"),
    [
        (("sample", "sample"), "sample"),
        (("sample", "batch"), "batch"),
        (("group", "sample"), "group"),
        (("group", "batch"), "group"),
    ],
)
def test_scope(scopes: tuple[str, str], expected: str) -> None:
    children = {str(i): Constant().configure(scope=scope) for i, scope in enumerate(scopes)}
    assert Product(children).scope == expected
    assert Clip(Product(children), low=0.0).scope == expected


def test_references() -> None:
    made = WeightedSum({"correct": "gsm8k", "flexible": Child("guerdon.rules.gsm8k:gsm8k", 0.5)})
    assert made.children["correct"] is registry.resolve("gsm8k")
    assert made.call_sync(response="#### 4", ground_truth="4").value == 1.5
    with pytest.raises(UnknownReward, match="did you mean 'gsm8k'"):
        Product(["gsm9k"])


@pytest.mark.parametrize(
    ("children", "message"),
    [
        ([], "at least one child"),
        ({}, "at least one child"),
        (exact, "must be a mapping or a list"),
        ("gsm8k", "must be a mapping or a list"),
        ([len], "is no reward: decorate it with @reward"),
        ([3], "a int is no reward"),
        (
            {"a": {"reward": exact, "wieght": 2}},
            "child 'a': a child has no 'wieght' .did you mean 'weight'",
        ),
        ({"a": {"weight": 2}}, "child 'a': a child needs 'reward'"),
        ([{"reward": exact, "missing": "failed"}], "got 'failed' .did you mean 'fail'"),
        ([{"reward": exact, "missing": 0.0}], "{value: x}"),
        ([{"reward": exact, "missing": {"value": float("nan")}}], "must be finite"),
    ],
)
def test_children_that_are_none(children: Any, message: str) -> None:
    with pytest.raises(InvalidReward, match=message):
        WeightedSum(children)


def test_children_as_plain_data() -> None:
    made = WeightedSum(
        {
            "a": {"reward": {"reward": Constant}, "weight": 0.5, "missing": {"value": 1}},
            "b": {"reward": exact, "missing": "renormalise", "weight": {"points": {"0": 1.0}}},
        }
    )
    assert made.members[0].missing == Value(1.0)
    assert made.members[1].missing == "renormalise"


@pytest.mark.parametrize("kind", [Product, Minimum, Maximum])
def test_weights_belong_to_sums(kind: Any) -> None:
    with pytest.raises(InvalidReward, match="a weight, which only WeightedSum knows"):
        kind([Child(exact, 0.5)])


@pytest.mark.parametrize(
    "make",
    [
        lambda cost: WeightedSum([cost]),
        lambda cost: WeightedSum([Child(cost, linear(-1.0, 0.5, 0, 9))]),
        lambda cost: Product([exact, cost]),
        lambda cost: Minimum([cost]),
        lambda cost: Cascade([exact, cost]),
        lambda cost: Conditional([cost], {"cost": "*"}),
        lambda cost: Schedule([cost], {0: "cost"}),
    ],
)
def test_a_cost_is_not_rewarded_by_accident(make: Any) -> None:
    cost = Constant().configure(name="cost", higher_is_better=False)
    with pytest.raises(InvalidReward, match="for child 'cost' lower is better"):
        make(cost)
    make(Affine(cost, scale=-1.0, name="cost"))
    make(cost.configure(higher_is_better=True))


class TestDirectCalls:
    """As a function: keywords in, a score out."""

    def test_sync(self) -> None:
        made = WeightedSum([exact, Child(slow_length, -0.5)])
        score = made.call_sync(prediction="four!", answer="4")
        assert isinstance(score, Score)
        assert score.value == -0.25
        assert score.components == {"exact": 0.0, "slow_length": 0.5}
        assert score.metrics == {"slow_length/characters": 5.0}

    async def test_async_and_sync_inside_a_loop(self) -> None:
        made = Product([exact, slow_length])
        assert (await made(prediction="4", answer="4")).value == 0.1
        assert made.call_sync(prediction="4", answer="4").value == 0.1

    def test_options_reach_the_children(self) -> None:
        made = Product([exact, slow_length])
        assert made.call_sync(prediction="4", answer="4", limit=2, scale=0.5).value == 0.25

    def test_equal_to_the_child_alone(self) -> None:
        keywords = {"solution_str": "So 3 + 4 = 7.\n#### 7", "ground_truth": "7"}
        assert WeightedSum([gsm8k]).call_sync(**keywords).value == gsm8k.call_sync(**keywords)

    def test_a_failure_is_raised(self) -> None:
        with pytest.raises(
            RewardFailure, match=r"'product': exact: .*needs 'ground_truth'"
        ) as caught:
            Product([exact]).call_sync(prediction="4")
        assert (str(caught.value.kind), str(caught.value.blame)) == ("bad_input", "data")

        @reward(auto_register=False)
        def unusable(response: str) -> float:
            raise BadInput("no number")

        with pytest.raises(RewardFailure, match="unusable: no number"):
            Product([unusable]).call_sync(prediction="4")

    def test_an_abstention_is_returned(self) -> None:
        @reward(auto_register=False)
        def silent(response: str) -> None:
            return None

        result = Minimum([exact, silent]).call_sync(prediction="4", answer="4")
        assert isinstance(result, Abstention)

    def test_samples(self) -> None:
        samples = [Sample(response="4", ground_truth="4"), Sample(response="4")]
        first, second = Product([exact]).call_sync(samples=samples)
        assert first.value == 1.0
        assert str(second.kind) == "bad_input"

    def test_step(self) -> None:
        made = Schedule([exact, slow_length], phases={0: "exact", 3: "slow_length"})
        assert made.call_sync(prediction="4", answer="4", step=2).value == 1.0
        assert made.call_sync(prediction="4", answer="4", step=3).value == 0.1

    def test_deadlines_are_not_kept(self) -> None:
        patient = exact.configure(deadline=0.5)
        assert Product([patient]).call_sync(prediction="4", answer="4").value == 1.0

    def test_batch_and_group_children(self) -> None:
        @reward(scope="batch", auto_register=False)
        def longest(responses: list[str]) -> list[float]:
            return [float(len(text) == max(map(len, responses))) for text in responses]

        @reward(scope="group", auto_register=False)
        async def count(samples: list[Sample]) -> list[int]:
            return [len(samples)] * len(samples)

        made = WeightedSum([longest, Child(count, 10.0)])
        samples = [Sample(response=text, group_id=text[0]) for text in ("aa", "bbb", "ab")]
        assert [o.value for o in made.call_sync(samples=samples)] == [20.0, 11.0, 20.0]
        assert WeightedSum([longest]).call_sync(response="a").value == 1.0


def test_compositions_claim_no_names() -> None:
    before = registry.names()
    every_kind()
    assert registry.names() == before
