"""512 clients for two minutes, while a worker process is killed every ten seconds.

    python benchmarks/server_soak.py [--smoke]

Each client sends requests of 1 to 8 samples over a connection that it keeps. The reward returns the
number in the response, which no two samples share, so an outcome that is lost, doubled, or that of
another sample shows. What is refused with 429 is sent again after the time that the server names.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import psutil
import uvloop
from measure import arguments, machine
from server_rules import percentile, server

from guerdon.outcome import Failure, Outcome, Score
from guerdon.sample import Sample
from guerdon.wire.codec import decode_msgpack, encode_msgpack
from guerdon.wire.protocol import MSGPACK_TYPE, SCORE_PATH, ErrorReply, ScoreReply, ScoreRequest

CLIENTS = 512
SECONDS = 120.0
KILL_SECONDS = 10.0
MOST_SAMPLES = 8

REWARD = """
from guerdon.reward import reward

@reward(auto_register=False)
def number(response: str) -> float:
    return float(response)
"""
CONFIG = """
serve: {port: 0, log: failures}
rewards:
  number: {reward: numbers.py:number, replicas: 2}
"""


class Soak:
    """All clients, and what they saw."""

    def __init__(self, port: int, seconds: float, clients: int) -> None:
        self.port = port
        self.ends_at = time.monotonic() + seconds
        self.clients = clients
        self.latencies: list[float] = []
        self.seen: Counter[str] = Counter()
        self.kills = 0

    async def run(self, server_pid: int) -> None:
        """Until the time is over and every request is answered."""
        killer = asyncio.create_task(self._kill(server_pid))
        await asyncio.gather(*(self._client(number) for number in range(self.clients)))
        killer.cancel()

    async def _kill(self, server_pid: int) -> None:
        chance = random.Random(1)
        process = psutil.Process(server_pid)
        pause = min(KILL_SECONDS, (self.ends_at - time.monotonic()) / 4)
        while True:
            await asyncio.sleep(pause)
            workers = process.children()
            if workers:
                chance.choice(workers).kill()
                self.kills += 1

    async def _client(self, number: int) -> None:
        chance = random.Random(number)
        streams = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 20)
        turn = 0
        while time.monotonic() < self.ends_at:
            turn += 1
            first = (number * 1_000_000 + turn) * 10
            values = [float(first + i) for i in range(chance.randrange(1, MOST_SAMPLES + 1))]
            samples = [
                Sample(response=str(int(value)), sample_id=str(i)) for i, value in enumerate(values)
            ]
            body = encode_msgpack(ScoreRequest(samples=samples, rewards=["number"]))
            began = time.perf_counter()
            reply = await self._ask(streams, body)
            self.latencies.append(time.perf_counter() - began)
            self._check(values, reply.results[0].outcomes)
        streams[1].close()

    def _check(self, values: list[float], outcomes: list[Outcome]) -> None:
        self.seen["requests"] += 1
        if len(outcomes) != len(values):
            self.seen["lost or doubled"] += 1
        for value, outcome in zip(values, outcomes, strict=False):
            if isinstance(outcome, Score):
                self.seen["scores" if outcome.value == value else "wrong"] += 1
            elif isinstance(outcome, Failure):
                self.seen[f"failure {outcome.kind} ({outcome.blame})"] += 1

    async def _ask(
        self, streams: tuple[asyncio.StreamReader, asyncio.StreamWriter], body: bytes
    ) -> ScoreReply:
        while True:
            status, content = await self._post(*streams, body)
            if status == 200:
                return decode_msgpack(content, ScoreReply)
            error = msgspec.msgpack.decode(content, type=ErrorReply).error
            self.seen[f"refused {error.code}"] += 1
            await asyncio.sleep((error.retry_after_ms or 1000.0) / 1000.0)

    async def _post(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: bytes
    ) -> tuple[int, bytes]:
        writer.write(
            f"POST {SCORE_PATH} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: {MSGPACK_TYPE}\r\n"
            f"accept: {MSGPACK_TYPE}\r\ncontent-length: {len(body)}\r\n\r\n".encode()
            + body
        )
        head = await reader.readuntil(b"\r\n\r\n")
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        return int(head[9:12]), await reader.readexactly(int(length))


def main() -> None:
    """Measure and print."""
    options = arguments(__doc__ or "").parse_args()
    seconds, clients = (3.0, 64) if options.smoke else (SECONDS, CLIENTS)
    print(f"{machine()}; load {os.getloadavg()[0]:.1f}")

    def add_reward(folder: Path) -> None:
        (folder / "numbers.py").write_text(REWARD)

    with server(CONFIG, add_reward) as port:
        (pid,) = (child.pid for child in psutil.Process().children())
        soak = Soak(port, seconds, clients)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(soak.run(pid))
    report(soak, seconds)


def report(soak: Soak, seconds: float) -> None:
    """Print what was seen; an outcome that is not the right one ends the program."""
    seen: dict[str, Any] = dict(sorted(soak.seen.items()))
    print(f"{soak.clients} clients, {seconds:g} s, {soak.kills} workers killed")
    for name, count in seen.items():
        print(f"  {name:40} {count:10,}")
    p50, p99 = percentile(soak.latencies, 0.5), percentile(soak.latencies, 0.99)
    print(f"  latency p50 {p50:.1f} ms, p99 {p99:.1f} ms, max {max(soak.latencies) * 1000:.1f} ms")
    wrong = soak.seen["wrong"] + soak.seen["lost or doubled"]
    failed = sum(count for name, count in seen.items() if name.startswith("failure"))
    if wrong or failed or not soak.kills:
        raise SystemExit(f"{wrong} wrong, {failed} failed, {soak.kills} kills")


if __name__ == "__main__":
    main()
