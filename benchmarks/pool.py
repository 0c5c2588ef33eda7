"""The pool of killable workers: throughput, and what one poisoned sample costs.

    python benchmarks/pool.py [--smoke]

Beside it: `concurrent.futures.ProcessPoolExecutor` with chunks (fast, but it can neither time out
nor lose a worker) and pebble's `ProcessPool`, a kept library that can kill (one message per task).
"""

from __future__ import annotations

import ctypes
import os
import time
from concurrent.futures import ProcessPoolExecutor

from measure import arguments, interleaved, machine
from pebble import ProcessPool

from guerdon.backends.pool import PoolBackend
from guerdon.policy import Policy
from guerdon.reward import reward
from guerdon.sample import Sample
from guerdon.service import RewardService

DEADLINE = 1.0
POISONED = 1_000
CHUNK = 64


def judge(response: str, ground_truth: str) -> float:
    """Trivial, unless the response says otherwise."""
    if response == "loop in Python":
        while True:
            pass
    if response == "loop in C":
        return float(sum(range(10**13)))
    if response == "segmentation fault":
        ctypes.string_at(0)
    if response == "exit":
        os._exit(1)
    return float(response.endswith(ground_truth))


@reward(
    auto_register=False,
    deadline=DEADLINE,
    candidate_fault=("timeout", "crashed"),
    value_range=(0.0, 1.0),
)
def guarded(response: str, ground_truth: str) -> float:
    """The same under a deadline."""
    return judge(response, ground_truth)


def make_samples(count: int, poison: str | None = None) -> list[Sample]:
    """Short answers; one in the middle may be poisoned."""
    texts = [f"the answer is {i % 20}" for i in range(count)]
    if poison is not None:
        texts[count // 2] = poison
    return [Sample(response=text, ground_truth=str(i % 10)) for i, text in enumerate(texts)]


def throughput(count: int, rounds: int) -> None:
    """Samples per second of trivial work."""
    samples = make_samples(count)
    responses = [s.response for s in samples]
    truths = [s.ground_truth for s in samples]
    service = RewardService(guarded, backend=PoolBackend(workers=2))
    expected = [judge(r, t) for r, t in zip(responses, truths, strict=True)]  # type: ignore[arg-type]
    few = max(200, count // 20)
    with ProcessPoolExecutor(2) as executor, ProcessPool(2) as killable:
        if service.score_sync(samples).values.tolist() != expected:
            raise SystemExit("the pool disagrees with the plain function")
        list(executor.map(judge, responses[:64], truths[:64]))
        pebble(killable, responses, truths, 64)
        times = interleaved(
            {
                "Guerdon pool, deadline per sample": lambda: service.score_sync(samples),
                f"ProcessPoolExecutor.map, chunks of {CHUNK}, no deadline": lambda: list(
                    executor.map(judge, responses, truths, chunksize=CHUNK)
                ),
                "ProcessPoolExecutor, one by one": lambda: list(
                    executor.map(judge, responses[:few], truths[:few])
                ),
                "pebble ProcessPool, deadline per sample": lambda: pebble(
                    killable, responses, truths, few
                ),
            },
            rounds,
        )
    service.close()
    sizes = dict.fromkeys(times, count)
    for name in ("ProcessPoolExecutor, one by one", "pebble ProcessPool, deadline per sample"):
        sizes[name] = few
    ours = None
    for name, found in times.items():
        rate = sizes[name] / found.wall
        ours = ours or rate
        print(f"{name:52s} {rate:12,.0f} samples/s   ours is {ours / rate:7.2f}x")


def pebble(pool: ProcessPool, responses: list[object], truths: list[object], few: int) -> None:
    """Pebble with a time-out per task."""
    futures = [
        pool.schedule(judge, (responses[i], truths[i]), timeout=DEADLINE) for i in range(few)
    ]
    for future in futures:
        future.result()


def poison() -> None:
    """One poisoned sample among many: the delay, and who fails."""
    # On a busy machine a loop may get too little processor time to be blamed on the candidate.
    mask = Policy(on={"candidate": "mask", "scorer": "mask"})
    service = RewardService(guarded, backend=PoolBackend(workers=2), policy=mask)
    service.score_sync(make_samples(POISONED))
    healthy = min(clock(service, make_samples(POISONED))[0] for _ in range(3))
    print(f"\n{POISONED} samples, none poisoned: {healthy:.3f} s; deadline {DEADLINE} s")
    for word in ("loop in Python", "loop in C", "segmentation fault", "exit"):
        seconds, outcomes = clock(service, make_samples(POISONED, word))
        (lost,) = outcomes.failures.values()
        if int(outcomes.mask.sum()) != POISONED - 1:
            raise SystemExit(f"{word}: neighbours were lost")
        beyond = seconds - healthy - (DEADLINE if word.startswith("loop") else 0.0)
        print(
            f"one '{word}': {seconds:.3f} s, {beyond:+.3f} s beyond the deadline; fails alone as "
            f"{lost.kind}, blame {lost.blame}"
        )
    service.close()


def clock(service: RewardService, samples: list[Sample]):
    """Seconds of wall time, and the outcomes."""
    began = time.perf_counter()
    outcomes = service.score_sync(samples)
    return time.perf_counter() - began, outcomes


def main() -> None:
    """Measure and print."""
    options = arguments(__doc__ or "").parse_args()
    print(machine())
    throughput(*((2_000, 1) if options.smoke else (100_000, 5)))
    poison()


if __name__ == "__main__":
    main()
