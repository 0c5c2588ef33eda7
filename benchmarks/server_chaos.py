"""A reward service whose workers are killed while 512 clients score: is everything answered right?

    python benchmarks/server_chaos.py [--smoke] [--seconds 120] [--clients 512] [--every 10]

Each client scores one sample after another with `RemoteReward`, one HTTP request per sample, and
each sample has another value, so an outcome that belongs to somebody else is a wrong number. A
worker process chosen at random is killed by SIGKILL at intervals. Counted: requests without an
answer, wrong values, failures by kind, and outcomes that the server gave beyond one per request
(its `/metrics` against the client's count). Exit status 1 where any of them is not zero.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
from measure import arguments, machine

from guerdon.outcome import Failure, Score
from guerdon.remote import RemoteReward
from guerdon.remote.load import summary
from guerdon.sample import Sample

WORKERS = 2
START_SECONDS = 60.0
WORKER_MODULE = "guerdon.backends.pool.worker"

REWARD = '''
from guerdon.reward import reward


@reward(name="number", deadline=10.0)
def number(response):
    """The number in the response."""
    return float(response)
'''
CONFIG = """
imports: [number.py]
serve: {{log: failures, port: {port}}}
rewards:
  number: {{reward: number, workers: {workers}}}
"""


@dataclass
class Tally:
    """What came of the requests."""

    sent: int = 0
    right: int = 0
    wrong: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)
    killed: int = 0

    @property
    def answered(self) -> int:
        """Requests that ended with an outcome of any kind."""
        return self.right + self.wrong + sum(self.failures.values())


@contextmanager
def server(port: int) -> Iterator[psutil.Process]:
    """The service, from ready to ended."""
    with TemporaryDirectory() as folder:
        Path(folder, "number.py").write_text(REWARD)
        Path(folder, "serve.yaml").write_text(CONFIG.format(port=port, workers=WORKERS))
        command = [str(Path(sys.executable).with_name("guerdon")), "serve", "serve.yaml"]
        with Path(folder, "log").open("w") as log:
            started = subprocess.Popen(command, cwd=folder, stderr=log, stdout=log)
            try:
                wait_until_ready(port, started)
                yield psutil.Process(started.pid)
            finally:
                started.send_signal(signal.SIGTERM)
                status = started.wait(60)
        if status != 0:
            raise SystemExit(f"the server ended with {status}")


def wait_until_ready(port: int, started: subprocess.Popen[bytes]) -> None:
    """Wait for `/readyz`."""
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and started.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5):
                return
        except OSError:
            time.sleep(0.05)
    raise SystemExit("the server did not become ready")


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def workers_of(parent: psutil.Process) -> list[psutil.Process]:
    """The worker processes of the server that are alive now."""
    found: list[psutil.Process] = []
    for child in parent.children(recursive=True):
        try:
            if WORKER_MODULE in child.cmdline():
                found.append(child)
        except psutil.Error:
            continue
    return found


def outcomes_given(port: int) -> int:
    """How many outcomes the server says that it has given."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    given = [line for line in lines if line.startswith("guerdon_outcomes_total{")]
    return int(sum(float(line.rsplit(" ", 1)[1]) for line in given))


async def client(number: int, remote: RemoteReward, end: float, tally: Tally) -> None:
    """One client: a request after the other, each with a value of its own."""
    turn = 0
    while time.monotonic() < end:
        value = float(number * 1_000_000 + turn)
        turn += 1
        tally.sent += 1
        began = time.perf_counter()
        (outcome,) = await remote(samples=[Sample(response=str(value), sample_id=f"{value:.0f}")])
        tally.latencies.append((time.perf_counter() - began) * 1000)
        if isinstance(outcome, Score) and outcome.value == value:
            tally.right += 1
        elif isinstance(outcome, Failure):
            tally.failures[f"{outcome.kind} ({outcome.blame}): {outcome.message[:100]}"] += 1
        else:
            tally.wrong += 1


async def killer(parent: psutil.Process, every: float, end: float, tally: Tally) -> None:
    """Kill a worker now and then."""
    while time.monotonic() + every < end:
        await asyncio.sleep(every)
        alive = workers_of(parent)
        if alive:
            random.choice(alive).kill()
            tally.killed += 1


async def chaos(
    parent: psutil.Process, port: int, options: argparse.Namespace, tally: Tally
) -> None:
    """All clients and the killer."""
    remote = RemoteReward(
        f"http://127.0.0.1:{port}",
        "number",
        value_range=(None, None),
        batch_size=1,
        window=0.0,
        connections=options.clients,
    )
    end = time.monotonic() + options.seconds
    async with asyncio.TaskGroup() as group:
        group.create_task(killer(parent, options.every, end, tally))
        for number in range(options.clients):
            group.create_task(client(number, remote, end, tally))


def main() -> None:
    """Run and judge."""
    parser = arguments((__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--clients", type=int, default=512)
    parser.add_argument("--every", type=float, default=10.0, help="seconds between two kills")
    options = parser.parse_args()
    if options.smoke:
        options.seconds, options.every, options.clients = 4.0, 1.0, 64
    print(machine())
    tally = Tally()
    port = free_port()
    with server(port) as parent:
        before = outcomes_given(port)
        began = time.perf_counter()
        asyncio.run(chaos(parent, port, options, tally))
        seconds = time.perf_counter() - began
        given = outcomes_given(port) - before
    latency = summary(tally.latencies)
    print(
        f"{options.clients} clients for {options.seconds:g} s, {tally.killed} of {WORKERS} workers "
        f"killed one after another: {tally.sent} requests ({tally.sent / seconds:,.0f}/s)"
    )
    print("latency, ms: " + ", ".join(f"{name} {value:,.1f}" for name, value in latency.items()))
    lost, doubled = tally.sent - tally.answered, given - tally.sent
    print(
        f"right {tally.right}, wrong {tally.wrong}, lost {lost}, failed "
        f"{sum(tally.failures.values())}, scored more than once {doubled}"
    )
    for failure, count in tally.failures.most_common(10):
        print(f"  {count} x {failure}")
    if not tally.killed:
        raise SystemExit("no worker was killed")
    if tally.wrong or lost or tally.failures or doubled:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
