"""What combining costs: the time of each composition beyond its children.

The children's outcomes are made beforehand and handed over by an evaluator that does nothing else,
so what is timed is the composition alone: missing policies, components, ranges, stamps. `plain`
children give a value only; `detailed` ones also give a metric and a piece of information, which the
composition keeps under their names. The bare loop adds up three lists of floats and is the floor.

    python benchmarks/compose.py
    python benchmarks/compose.py --samples 1000 --rounds 1
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from measure import arguments, machine

from guerdon.compose import (
    Affine,
    Cascade,
    Child,
    Clip,
    Conditional,
    Gate,
    GroupNormalise,
    Minimum,
    Product,
    Schedule,
    Value,
    WeightedSum,
)
from guerdon.injection import Call
from guerdon.outcome import Abstention, Outcome, Score
from guerdon.reward import BaseReward
from guerdon.sample import Sample

GROUP_SIZE = 8


class Known(BaseReward):
    """A reward whose outcomes are there already."""

    auto_register = False
    value_range = (0.0, 1.0)

    def __init__(self, name: str, outcomes: Sequence[Outcome]) -> None:
        self.name = name
        self.outcomes = outcomes


class Shelf:
    """Hands over what is known, by position."""

    call = Call(step=1)

    async def leaf(self, reward: BaseReward, samples: Sequence[Sample]) -> list[Outcome]:
        """The known outcomes of the samples."""
        assert isinstance(reward, Known)
        if len(samples) == len(reward.outcomes):
            return list(reward.outcomes)
        return [reward.outcomes[int(sample.sample_id or 0)] for sample in samples]


def children(count: int, *, detailed: bool) -> list[Known]:
    """Three children with a score for every sample."""
    details = {"metrics": {"length": 3.0}, "info": {"answer": "4"}} if detailed else {}
    return [
        Known(
            f"child{k}",
            [Score(value=(7 * i + k) % 11 / 11, sample=str(i), **details) for i in range(count)],
        )
        for k in range(3)
    ]


def cases(kids: Sequence[Known], holes: Known) -> dict[str, BaseReward]:
    """What is timed, by the name under which it is reported."""
    first, second, third = kids
    by_level = {"child0": {"metadata": {"level": {"min": 3}}}}
    return {
        "weighted sum": WeightedSum(kids),
        "weighted mean": WeightedSum(kids, normalise=True),
        "sum, every 4th missing": WeightedSum([first, second, Child(holes, missing=Value(0.0))]),
        "nested sum": WeightedSum([first, WeightedSum([second, third])]),
        "product": Product(kids),
        "minimum": Minimum(kids),
        "gate": Gate(kids[:2], third, threshold=0.3),
        "sequential gate": Gate(kids[:2], third, threshold=0.3, sequential=True),
        "cascade": Cascade(kids, undecided=(0.0, 0.5)),
        "by data source": Conditional(kids[:2], {"child0": "a*"}, otherwise="child1"),
        "by metadata": Conditional(kids[:2], by_level, otherwise="child1"),
        "schedule": Schedule(kids[:2], {0: "child0", 5: "child1"}),
        "clip": Clip(first, high=0.5),
        "affine": Affine(first, scale=2.0, offset=-1.0),
        "group z-score": GroupNormalise(first),
    }


def best(rounds: int, work: Callable[[], object]) -> float:
    """Seconds of the fastest round."""
    times: list[float] = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)


def main() -> None:
    """Time everything and print the table."""
    options = arguments(__doc__ or "").parse_args()
    count, rounds = (2_000, 1) if options.smoke else (100_000, 5)
    print(machine())
    samples = [
        Sample(
            sample_id=str(i),
            group_id=str(i // GROUP_SIZE),
            data_source="a" if i % 2 else "b",
            metadata={"level": i % 5},
        )
        for i in range(count)
    ]
    plain, detailed = children(count, detailed=False), children(count, detailed=True)
    missing = Abstention(reason="not there")
    lists = [[o.value for o in kid.outcomes if isinstance(o, Score)] for kid in plain]
    floor = best(rounds, lambda: [a + b + c for a, b, c in zip(*lists, strict=True)])
    print(f"{count} samples, best of {rounds}; microseconds per sample")
    print(f"{'bare loop over floats':26s}{floor / count * 1e6:10.2f}")
    print(f"{'':26s}{'plain':>10s}{'detailed':>10s}")
    rows: dict[str, list[float]] = {}
    for kids in (plain, detailed):
        holes = Known(
            "holes", [missing if i % 4 == 0 else o for i, o in enumerate(kids[2].outcomes)]
        )
        for name, made in cases(kids, holes).items():
            outcomes = asyncio.run(made.evaluate(samples, Shelf()))
            assert all(type(outcome) is Score for outcome in outcomes), name
            spent = best(rounds, lambda made=made: asyncio.run(made.evaluate(samples, Shelf())))
            rows.setdefault(name, []).append(spent / count * 1e6)
    for name, (alone, with_details) in rows.items():
        print(f"{name:26s}{alone:10.2f}{with_details:10.2f}")


if __name__ == "__main__":
    main()
