"""How the benchmarks measure: processor time of this process and its children, best of several.

Machines are noisy, so every figure is taken from interleaved runs of one program, and what counts
are the ratios that it prints.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Time:
    """Seconds of one run."""

    wall: float
    cpu: float


def cpu_seconds() -> float:
    """User and system time of this process and of its children that have ended."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def timed(run: Callable[[], object]) -> Time:
    """Time one run."""
    wall, cpu = time.perf_counter(), cpu_seconds()
    run()
    return Time(time.perf_counter() - wall, cpu_seconds() - cpu)


def interleaved(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, Time]:
    """The fastest of several rounds for each run; a round makes every run once."""
    times: dict[str, list[Time]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            times[name].append(timed(run))
    return {name: min(found, key=lambda t: t.wall) for name, found in times.items()}


def machine() -> str:
    """One line about where the figures come from."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"Python {platform.python_version()}, {platform.machine()}, {cores} cores"


def arguments(description: str) -> argparse.ArgumentParser:
    """The options that all benchmarks share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--smoke", action="store_true", help="a few seconds: does it still run?")
    return parser
