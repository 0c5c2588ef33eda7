"""`math_verify` through the service: throughput on the pool, and what it does to an event loop.

    python benchmarks/math_service.py [--smoke]

The stall of the loop is how late a timer of 1 ms comes. It is taken while the service of the same
process scores, and, as the measure, in an idle loop beside the same work in a process of its own.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from measure import arguments, machine

from guerdon.backends.pool import PoolBackend
from guerdon.policy import Policy
from guerdon.sample import Sample
from guerdon.service import RewardService

CORPUS = Path(__file__).resolve().parents[2] / "shared" / "data" / "math_corpus.jsonl.gz"
TICK = 0.001
MASK = Policy(on=dict.fromkeys(("candidate", "scorer", "infrastructure", "data"), "mask"))


def numeric(count: int) -> list[Sample]:
    """Answers in boxes: integers, decimals and fractions, half of them right."""
    chance = random.Random(3)
    samples: list[Sample] = []
    for i in range(count):
        top, bottom = chance.randrange(1, 500), chance.randrange(2, 60)
        gold = chance.choice([str(top), f"{top / 8:.3f}", rf"\frac{{{top}}}{{{bottom}}}"])
        answer = gold if i % 2 else str(top + 1)
        text = f"{'We compute step by step. ' * 40} So \\boxed{{{answer}}}"
        samples.append(Sample(response=text, ground_truth=gold, sample_id=str(i)))
    return samples


def corpus(most: int) -> list[Sample]:
    """The shared completions of mixed kinds, or numeric ones where they are absent."""
    if not CORPUS.is_file():
        return numeric(most)
    with gzip.open(CORPUS, "rt") as file:
        rows = [json.loads(line) for line in file][:most]
    return [Sample(response=r["response"], ground_truth=r["ground_truth"]) for r in rows]


def throughput(count: int, rounds: int) -> None:
    """Samples per second of numeric answers."""
    samples = numeric(count)
    with RewardService("math_verify", backend=PoolBackend(workers=2)) as service:
        service.score_sync(samples[:10])
        seconds: list[float] = []
        for round_number in range(rounds):
            fresh = [replaced(sample, round_number) for sample in samples]
            began = time.perf_counter()
            outcomes = service.score_sync(fresh)
            seconds.append(time.perf_counter() - began)
        right = int(outcomes.values.sum())
    print(
        f"{count:,} numeric answers, pool of 2: {count / min(seconds):,.0f} samples/s "
        f"({right:,} right)"
    )


def replaced(sample: Sample, number: int) -> Sample:
    """The same question with other texts, so that nothing is remembered."""
    return Sample(
        response=f"{number} {sample.response}",
        ground_truth=sample.ground_truth,
        sample_id=sample.sample_id,
    )


async def stalls(until: asyncio.Event) -> list[float]:
    """How late each tick comes, in milliseconds."""
    late: list[float] = []
    loop = asyncio.get_running_loop()
    while not until.is_set():
        due = loop.time() + TICK
        await asyncio.sleep(TICK)
        late.append((loop.time() - due) * 1e3)
    return late


async def beside_service(samples: list[Sample], batches: int) -> list[float]:
    """Stalls of the loop that awaits the service."""
    async with RewardService("math_verify", backend=PoolBackend(workers=2), policy=MASK) as service:
        await service.score(samples[:10])
        ended = asyncio.Event()
        ticking = asyncio.create_task(stalls(ended))
        for _ in range(batches):
            await service.score(samples)
        ended.set()
        return await ticking


async def beside_process(batches: int, most: int) -> list[float]:
    """Stalls of an idle loop while another process does the same."""
    command = [sys.executable, __file__, "--work", str(batches), str(most)]
    worker = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: ASYNC220
    assert worker.stdout is not None
    await asyncio.to_thread(worker.stdout.readline)
    ended = asyncio.Event()
    ticking = asyncio.create_task(stalls(ended))
    await asyncio.to_thread(worker.wait)
    ended.set()
    return await ticking


def work(batches: int, most: int) -> None:
    """The load alone."""
    samples = corpus(most)
    with RewardService("math_verify", backend=PoolBackend(workers=2), policy=MASK) as service:
        service.score_sync(samples[:10])
        print("ready", flush=True)
        for _ in range(batches):
            service.score_sync(samples)


def main() -> None:
    """Measure and print."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--work", nargs=2, type=int, help="internal: only score")
    options = parser.parse_args()
    if options.work:
        work(*options.work)
        return
    count, rounds, batches, most = (400, 1, 2, 200) if options.smoke else (2_000, 5, 10, 2_000)
    print(machine())
    throughput(count, rounds)
    samples = corpus(most)
    for number in range(rounds if not options.smoke else 1):
        ours = np.array(asyncio.run(beside_service(samples, batches)))
        idle = np.array(asyncio.run(beside_process(batches, most)))
        print(
            f"round {number + 1}: stall p50 / p99 / max in ms: service in this loop "
            f"{show(ours)}, idle loop beside a process {show(idle)}; "
            f"p99 ratio {np.percentile(ours, 99) / np.percentile(idle, 99):.2f}"
        )


def show(late: np.ndarray) -> str:
    """Percentiles."""
    return " / ".join(f"{np.percentile(late, q):.2f}" for q in (50, 99, 100)) + f" ({len(late)})"


if __name__ == "__main__":
    main()
