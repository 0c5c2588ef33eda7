"""What it costs to get a trivial reward called, per sample, beside the ways of other systems.

    python benchmarks/dispatch.py [--smoke]

The reward is `response.endswith(ground_truth)`. Peers, written to the shape that they have:
AReaL submits each sample to a process pool and waits with a timeout (`AsyncRewardWrapper`); verl's
reward loop and others make one asyncio task per sample; TRL calls the function once per group.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ProcessPoolExecutor

from measure import Time, arguments, interleaved, machine

from guerdon.backends.pool import PoolBackend
from guerdon.reward import reward
from guerdon.sample import Sample
from guerdon.service import RewardService

GROUP = 16


@reward(auto_register=False, value_range=(0.0, 1.0))
def ends(response: str, ground_truth: str) -> bool:
    """The trivial reward."""
    return response.endswith(ground_truth)


def plain(response: str, ground_truth: str) -> float:
    """The same as a plain function, for the peers."""
    return float(response.endswith(ground_truth))


def make_samples(count: int) -> list[Sample]:
    """Short answers in groups, half of them right."""
    return [
        Sample(
            response=f"the answer is {i % 20}",
            ground_truth=str(i % 10),
            sample_id=str(i),
            group_id=str(i // GROUP),
        )
        for i in range(count)
    ]


def bare_loop(samples: list[Sample]) -> list[float]:
    """The floor: nothing but the calls."""
    return [plain(s.response, s.ground_truth) for s in samples]  # type: ignore[arg-type]


def group_calls(samples: list[Sample]) -> list[float]:
    """TRL's shape: the function gets the lists of one group."""
    values: list[float] = []
    for start in range(0, len(samples), GROUP):
        group = samples[start : start + GROUP]
        completions = [s.response for s in group]
        truths = [s.ground_truth for s in group]
        values += [plain(c, t) for c, t in zip(completions, truths, strict=True)]  # type: ignore[arg-type]
    return values


async def task_per_sample(samples: list[Sample]) -> list[float]:
    """One asyncio task per sample."""

    async def one(sample: Sample) -> float:
        return plain(sample.response, sample.ground_truth)  # type: ignore[arg-type]

    return await asyncio.gather(*[one(s) for s in samples])


async def process_per_sample(pool: ProcessPoolExecutor, samples: list[Sample]) -> list[float]:
    """AReaL's shape: one pool task with a time-out per sample."""
    loop = asyncio.get_running_loop()

    async def one(sample: Sample) -> float:
        future = loop.run_in_executor(pool, plain, sample.response, sample.ground_truth)
        return await asyncio.wait_for(future, timeout=15)

    return await asyncio.gather(*[one(s) for s in samples])


def main() -> None:
    """Measure, check that all agree, print."""
    options = arguments(__doc__ or "").parse_args()
    count, few, rounds = (2_000, 500, 1) if options.smoke else (100_000, 10_000, 5)
    samples = make_samples(count)
    inline = RewardService(ends, backend="inline")
    pooled = RewardService(ends, backend=PoolBackend(workers=2))
    expected = bare_loop(samples)
    if pooled.score_sync(samples).values.tolist() != expected:
        raise SystemExit("the pool disagrees with the bare loop")
    if inline.score_sync(samples).values.tolist() != expected:
        raise SystemExit("the service disagrees with the bare loop")
    with ProcessPoolExecutor(2) as executor:
        asyncio.run(process_per_sample(executor, samples[:64]))
        times = interleaved(
            {
                "bare loop": lambda: bare_loop(samples),
                "one call per group (TRL's shape)": lambda: group_calls(samples),
                "Guerdon, service inline": lambda: inline.score_sync(samples),
                "asyncio task per sample": lambda: asyncio.run(task_per_sample(samples)),
                "Guerdon, service on the pool, 2 workers": lambda: pooled.score_sync(samples),
                "process call per sample (AReaL's shape), 2 workers": lambda: asyncio.run(
                    process_per_sample(executor, samples[:few])
                ),
            },
            rounds,
        )
    pooled.close()
    sizes = dict.fromkeys(times, count) | {
        "process call per sample (AReaL's shape), 2 workers": few
    }
    show(times, sizes)


def show(times: dict[str, Time], sizes: dict[str, int]) -> None:
    """One line per way: microseconds of wall time per sample, and ratios."""
    per_sample = {name: times[name].wall / sizes[name] * 1e6 for name in times}
    floor = per_sample["bare loop"]
    ours = per_sample["Guerdon, service inline"]
    print(machine())
    print(f"{'':52s} {'us/sample':>10s} {'over loop':>10s} {'x ours':>8s}")
    for name, value in per_sample.items():
        print(f"{name:52s} {value:10.3f} {value - floor:10.3f} {value / ours:8.2f}")


if __name__ == "__main__":
    main()
