"""The range of a composition: sound for every outcome, tight where it can be reached."""

import asyncio
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guerdon.compose import (
    Affine,
    Cascade,
    Child,
    Clip,
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
    piecewise,
)
from guerdon.outcome import Failure, Score
from guerdon.policy import worst_end
from guerdon.reward import BaseReward

INF = math.inf
SOURCES = ["x", "y", "z"]
numbers = st.floats(-100, 100, allow_subnormal=False).map(lambda number: number + 0.0)
positive = st.floats(0.001, 100)
weights = st.one_of(st.just(0.0), numbers)
missed = st.sampled_from(
    [None, "timeout/candidate", "bad_input/data", "raised/scorer", "unavailable/infrastructure"]
)


@st.composite
def intervals(draw: Any) -> tuple[float, float]:
    low, high = sorted((draw(numbers), draw(numbers)))
    return low, high


@st.composite
def curves(draw: Any) -> Any:
    steps = sorted(draw(st.sets(st.integers(0, 20), min_size=1, max_size=4)))
    points = {step: draw(weights) for step in steps}
    return piecewise(points, interpolate=draw(st.booleans()))


class Tree:
    """Builds a random composition over scripted leaves, each with three outcomes in its range."""

    def __init__(self, draw: Any, stage: Any) -> None:
        self.draw = draw
        self.stage = stage
        self.names: Iterator[int] = itertools.count()
        self.tolerates = False
        """Whether any child has a policy under which a score may lack it."""

    def leaf(self) -> BaseReward:
        low, high = self.draw(intervals())
        script = [
            self.draw(st.one_of(st.floats(low, high), st.floats(low, high), missed))
            for _ in SOURCES
        ]
        return self.stage.reward(f"r{next(self.names)}", *script, value_range=(low, high))

    def child(self, depth: int, *, sums: bool = False, stand_ins: bool = True) -> Child:
        policies: list[Any] = ["fail", "abstain"]
        policies += [Value(self.draw(numbers))] if stand_ins else []
        policies += ["renormalise"] if sums else []
        missing = self.draw(st.sampled_from(policies))
        self.tolerates |= missing not in ("fail", "abstain")
        weight = self.draw(st.one_of(weights, curves())) if sums else 1.0
        return Child(self.node(depth - 1), weight, missing, f"c{next(self.names)}")

    def children(self, depth: int, *, sums: bool = False, least: int = 1) -> list[Child]:
        count = self.draw(st.integers(least, 3))
        return [self.child(depth, sums=sums) for _ in range(count)]

    def node(self, depth: int) -> BaseReward:
        if depth <= 0:
            return self.leaf()
        kinds: list[Callable[[int], BaseReward]] = [
            self.leaf_at,
            self.sum,
            self.mean,
            self.simple,
            self.transform,
            self.gate,
            self.cascade,
            self.route,
            self.phase,
            self.group,
        ]
        return self.draw(st.sampled_from(kinds))(depth)

    def leaf_at(self, _: int) -> BaseReward:
        return self.leaf()

    def sum(self, depth: int) -> BaseReward:
        return WeightedSum(self.children(depth, sums=True))

    def mean(self, depth: int) -> BaseReward:
        always = Child(self.leaf(), self.draw(positive), name=f"c{next(self.names)}")
        return WeightedSum([always, *self.children(depth, sums=True)], normalise=True)

    def simple(self, depth: int) -> BaseReward:
        kind = self.draw(st.sampled_from([Product, Minimum, Maximum]))
        return kind(self.children(depth))

    def transform(self, depth: int) -> BaseReward:
        child = self.child(depth)
        if self.draw(st.booleans()):
            return Affine(child, scale=abs(self.draw(numbers)), offset=self.draw(numbers))
        low, high = self.draw(intervals())
        return Clip(child, low=low, high=self.draw(st.sampled_from([high, None])))

    def gate(self, depth: int) -> BaseReward:
        return Gate(
            self.children(depth),
            self.child(depth),
            threshold=self.draw(numbers),
            closed=self.draw(numbers),
            sequential=self.draw(st.booleans()),
        )

    def cascade(self, depth: int) -> BaseReward:
        undecided = self.draw(st.one_of(st.none(), intervals()))
        return Cascade(self.children(depth, least=2), undecided=undecided)

    def route(self, depth: int) -> BaseReward:
        children = self.children(depth, least=2)
        names = [str(child.name) for child in children]
        when = dict(zip(names[1:], SOURCES, strict=False))
        otherwise = names[0] if self.draw(st.booleans()) else None
        return Conditional(
            children, {**when} if otherwise else {**when, names[0]: "z"}, otherwise=otherwise
        )

    def phase(self, depth: int) -> BaseReward:
        children = self.children(depth)
        return Schedule(children, {7 * i: str(child.name) for i, child in enumerate(children)})

    def group(self, depth: int) -> BaseReward:
        std = self.draw(st.sampled_from(["sample", "population", None]))
        return GroupNormalise(self.child(depth, stand_ins=False), std=std)


def below(reward: BaseReward) -> Iterator[BaseReward]:
    yield reward
    for child in reward.children.values():
        yield from below(child)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_values_lie_in_the_range_and_only_policies_make_scores(stage: Any, data: Any) -> None:
    tree = Tree(data.draw, stage)
    root = tree.node(3)
    batch = stage.samples(3, data_source=SOURCES, group_id=["g"] * 3)
    result = stage.run(root, batch, step=data.draw(st.integers(0, 21)))
    low, high = root.value_range
    assert low <= high
    # Rounding noise at most: the ends are computed with the same operations.
    slack = 1e-9 * max(1.0, *(abs(end) for end in (low, high) if math.isfinite(end)), 1.0)
    for sample, outcome in zip(batch, result.outcomes, strict=True):
        if root.children:
            assert (outcome.sample, outcome.reward) == (sample.sample_id, root.name)
            assert outcome.fingerprint == root.fingerprint
        if isinstance(outcome, Score):
            assert low - slack <= outcome.value <= high + slack
            for name, value in outcome.components.items():
                assert (value is None) == (name in outcome.absent)
        elif isinstance(outcome, Failure):
            # Neither a range that is too small nor an operation without a result.
            assert str(outcome.kind) not in ("bad_output", "non_finite")


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_no_score_without_every_child_or_a_policy(stage: Any, data: Any) -> None:
    tree = Tree(data.draw, stage)
    root = tree.node(2)
    sequential = (Cascade, Conditional, Schedule)
    picks = any(
        isinstance(r, sequential) or r.options.get("sequential") is True for r in below(root)
    )
    if tree.tolerates or picks:
        return
    batch = stage.samples(3, data_source=SOURCES, group_id=["g"] * 3)
    result = stage.run(root, batch, step=0)
    leaves = [reward for reward in below(root) if not reward.children]
    for i, outcome in enumerate(result.outcomes):
        complete = all(isinstance(leaf.script[i], Score) for leaf in leaves)  # type: ignore[attr-defined]
        assert isinstance(outcome, Score) == complete


ENDS = [(0.0, 1.0), (-2.0, 3.0), (-5.0, -1.0), (0.0, 0.0)]


@pytest.mark.parametrize("pair", list(itertools.product(ENDS, ENDS)))
@pytest.mark.parametrize(
    ("kind", "function"),
    [
        (lambda c: WeightedSum([Child(c[0], 2.0), Child(c[1], -3.0)]), lambda a, b: 2 * a - 3 * b),
        (
            lambda c: WeightedSum([Child(c[0], 1.0), Child(c[1], -3.0)], normalise=True),
            lambda a, b: (a - 3 * b) / 4,
        ),
        (Product, lambda a, b: a * b),
        (Minimum, min),
        (Maximum, max),
    ],
)
def test_ranges_are_reached(stage: Any, kind: Any, function: Any, pair: Any) -> None:
    children = [stage.reward(f"r{i}", value_range=ends) for i, ends in enumerate(pair)]
    corners = [function(a, b) for a, b in itertools.product(*pair)]
    assert kind(children).value_range == pytest.approx((min(corners), max(corners)))


@settings(max_examples=150, deadline=None)
@given(
    rows=st.lists(st.tuples(intervals(), weights, st.booleans()), min_size=1, max_size=5),
    normalise=st.booleans(),
)
def test_renormalised_ranges_are_reached(stage: Any, rows: Any, normalise: bool) -> None:
    """Against every subset of the children that may be missing."""
    total = sum(abs(weight) for _, weight, _ in rows)
    if normalise and total == 0:
        return
    found: list[float] = []
    for there in itertools.product([True, False], repeat=len(rows)):
        if not all(is_there or free for is_there, (_, _, free) in zip(there, rows, strict=True)):
            continue
        kept = [row for is_there, row in zip(there, rows, strict=True) if is_there]
        mass = sum(abs(weight) for _, weight, _ in kept)
        if mass == 0 and not all(there):
            continue
        scale = (1 / mass if normalise else total / mass) if not all(there) else 1.0
        scale = 1 / total if all(there) and normalise else scale
        found.extend(
            sum(pick(w * low, w * high) for (low, high), w, _ in kept) * scale
            for pick in (min, max)
        )
    children = [
        Child(
            stage.reward(f"r{i}", value_range=ends), w, "renormalise" if free else "fail", f"c{i}"
        )
        for i, (ends, w, free) in enumerate(rows)
    ]
    made = WeightedSum(children, normalise=normalise)
    assert made.value_range == pytest.approx((min(found), max(found)), abs=1e-6)


UNIT, WIDE, UP = (0.0, 1.0), (-INF, INF), (1.0, INF)


@pytest.mark.parametrize(
    ("make", "ranges", "expected"),
    [
        (lambda c: WeightedSum([Child(c[0], 0.0), c[1]]), (WIDE, UNIT), UNIT),
        (lambda c: WeightedSum([Child(c[0], -1.0), c[1]]), (UP, UNIT), (-INF, 0.0)),
        (WeightedSum, (WIDE, UNIT), WIDE),
        (Product, (UNIT, UP), (0.0, INF)),
        (Product, ((0.0, 0.0), WIDE), (0.0, 0.0)),
        (Product, ((-1.0, 0.0), UP), (-INF, 0.0)),
        (Minimum, (WIDE, UNIT), (-INF, 1.0)),
        (Maximum, (UP, UNIT), UP),
        (lambda c: Clip(c[0], low=-3.0), (WIDE,), (-3.0, INF)),
        (lambda c: Clip(c[0], low=2.0, high=3.0), (UNIT,), (2.0, 2.0)),
        (lambda c: Affine(c[0], scale=-2.0, offset=1.0), (UP,), (-INF, -1.0)),
        (lambda c: Affine(c[0], scale=0.0, offset=1.0), (WIDE,), (1.0, 1.0)),
        (lambda c: Minimum([Child(c[0], missing=Value(-7.0)), c[1]]), (UNIT, UP), (-7.0, 1.0)),
        (lambda c: Gate([c[0]], c[1], threshold=0.5), (WIDE, UNIT), UNIT),
        (lambda c: Gate([c[0]], c[1], threshold=0.5, closed=-1.0), (WIDE, UNIT), (-1.0, 1.0)),
        (lambda c: Cascade(c), (UNIT, (0.5, 2.0)), (0.0, 2.0)),
        (lambda c: Cascade(c, undecided=(0.0, 0.4)), (UNIT, (0.5, 0.6)), (0.4, 1.0)),
        (lambda c: Cascade(c, undecided=(0.4, 1.0)), (UNIT, (0.5, 0.6)), (0.0, 0.6)),
        (lambda c: Cascade(c, undecided=(0.0, 1.0)), (UNIT, (0.5, 0.6)), (0.5, 0.6)),
        (lambda c: GroupNormalise(c[0], std=None), ((2.0, 5.0),), (-3.0, 3.0)),
        (lambda c: GroupNormalise(c[0]), (UNIT,), WIDE),
        (lambda c: Clip(GroupNormalise(c[0]), low=-3.0, high=3.0), (UNIT,), (-3.0, 3.0)),
        # A cross-fade never leaves the hull of what it fades between.
        (
            lambda c: WeightedSum(
                [Child(c[0], linear(1.0, 0.0, 0, 100)), Child(c[1], linear(0.0, 1.0, 0, 100))]
            ),
            ((-1.0, 1.0), (-1.0, 1.0)),
            (-1.0, 1.0),
        ),
        # A held weight counts up to the step before it changes.
        (
            lambda c: WeightedSum(
                [Child(c[0], piecewise({0: 5.0, 10: 0.0})), Child(c[1], linear(0.0, 10.0, 0, 10))]
            ),
            (UNIT, UNIT),
            (0.0, 14.0),
        ),
        # Half way one weight is 0, and the mean is the other child alone.
        (
            lambda c: WeightedSum([Child(c[0], linear(-1.0, 1.0, 0, 10)), c[1]], normalise=True),
            ((0.0, 0.0), (1.0, 1.0)),
            (0.5, 1.0),
        ),
        (
            lambda c: WeightedSum([Child(c[0], linear(-1.0, 3.0, 0, 100)), Child(c[1], 0.5)]),
            (UNIT, UNIT),
            (-1.0, 3.5),
        ),
    ],
)
def test_table_of_ranges(stage: Any, make: Any, ranges: Any, expected: Any) -> None:
    children = [stage.reward(f"r{i}", value_range=ends) for i, ends in enumerate(ranges)]
    assert make(children).value_range == pytest.approx(expected)


def test_scaled_up_under_a_schedule_the_extreme_may_lie_between_the_points(stage: Any) -> None:
    made = WeightedSum(
        [
            Child(stage.reward("fading", 1.0, value_range=(0.0, 1.0)), linear(1.0, 0.0, 0, 10)),
            stage.reward("still", 0.0, value_range=(0.0, 0.0)),
            Child(
                stage.reward("growing", None, value_range=(0.0, 0.0)),
                linear(0.0, 10.0, 0, 10),
                "renormalise",
            ),
        ]
    )
    values = [stage.one(made, step=step).value for step in (0, 5, 10)]
    # 6.5 of weight in all, 1.5 of it there, 0.5 of that scored.
    assert values == pytest.approx([1.0, 0.5 * 6.5 / 1.5, 0.0])
    assert made.value_range[0] == 0.0
    assert made.value_range[1] >= max(values)


@pytest.mark.parametrize(
    ("make", "better", "worst"),
    [
        (lambda cost: Clip(cost, high=10.0), False, 10.0),
        (lambda cost: Affine(cost, scale=-1.0), True, -60.0),
        (lambda cost: Affine(cost, scale=0.5), False, 30.0),
        (lambda cost: GroupNormalise(cost, std=None), False, 60.0),
        (lambda cost: WeightedSum([Child(cost, -0.1)]), True, -6.0),
        (lambda cost: WeightedSum([Child(cost, 0.1)], higher_is_better=False), False, 6.0),
        (lambda cost: Maximum([cost], higher_is_better=False), False, 60.0),
        (lambda cost: Gate([Child(cost, name="cheap")], cost, threshold=30.0), False, 60.0),
    ],
)
def test_the_worst_end_follows_the_direction(
    stage: Any, make: Any, better: bool, worst: float
) -> None:
    cost = stage.reward("cost", value_range=(0.0, 60.0), higher_is_better=False)
    made = make(cost)
    assert made.higher_is_better is better
    assert worst_end(made.value_range, made.higher_is_better) == pytest.approx(worst)


def test_a_narrower_range_can_be_declared_and_is_kept(stage: Any) -> None:
    children = [stage.reward("a", 1.0, 0.4), stage.reward("b", 1.0, 0.4)]
    made = WeightedSum(children).configure(value_range=(0.0, 1.0))
    outcomes = asyncio.run(made.evaluate(stage.samples(2), stage.recorder()))
    assert isinstance(outcomes[0], Failure)
    assert (str(outcomes[0].kind), outcomes[0].sample) == ("bad_output", "0")
    assert outcomes[1].value == 0.8


@pytest.mark.parametrize(
    "make",
    [
        lambda a, b: WeightedSum([Child(a, 10.0), b]),
        lambda a, b: WeightedSum([Child(a, 10.0), Child(b, -10.0)]),
        lambda a, b: Product([a, b]),
        lambda a, b: Affine(a, scale=10.0),
    ],
)
def test_an_overflow_is_a_failure(stage: Any, make: Any) -> None:
    lost = stage.one(make(stage.reward("a", 1e308), stage.reward("b", 1e308)))
    assert isinstance(lost, Failure)
    assert (str(lost.kind), str(lost.blame)) == ("non_finite", "scorer")
