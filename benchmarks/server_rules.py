"""A rule reward over loopback HTTP: samples per second in batches, one by one, and as verl asks.

    python benchmarks/server_rules.py [--smoke]

Server and client are two processes that share two cores. The client is a bare one (a few lines over
asyncio streams, on uvloop), so that what is measured is the server; it decodes every reply and
checks every value. Each request has other samples. Loads:

- batches: POSTs of 64 samples, 8 in flight;
- one by one: a POST per sample over 64 kept connections, and over 1;
- verl: a POST per sample, 64 in flight, each over a new connection, as verl's reward loop posts
  (`aiohttp.ClientSession` per call), beside one POST per micro-batch of 64.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import uvloop
from measure import arguments, machine

from guerdon.sample import Sample
from guerdon.wire.codec import encode_json, encode_msgpack
from guerdon.wire.protocol import (
    JSON_TYPE,
    MSGPACK_TYPE,
    SCORE_PATH,
    ScoreRequest,
)

BATCH = 64
IN_FLIGHT = 64
CORES = 2
READY_SECONDS = 60.0

CONFIG = """
serve: {port: 0, log: failures}
rewards:
  inline: {reward: gsm8k, inline: true}
  worker: {reward: gsm8k}
"""


class Answer(msgspec.Struct):
    """What the client reads of an outcome."""

    value: float


class Result(msgspec.Struct):
    """What the client reads of a result."""

    outcomes: list[Answer]


class Reply(msgspec.Struct):
    """What the client reads of a reply."""

    results: list[Result]


def make_requests(reward: str, count: int, size: int) -> list[tuple[ScoreRequest, list[float]]]:
    """Requests of a size, with the values that they must have; half of the answers are right."""
    made: list[tuple[ScoreRequest, list[float]]] = []
    number = 0
    for _ in range(count):
        samples: list[Sample] = []
        values: list[float] = []
        for _ in range(size):
            number += 1
            right = number % 2 == 0
            work = f"We add {number} and 1, step by step. " * 8
            samples.append(
                Sample(
                    prompt=f"What is {number} + 1?",
                    response=f"{work}\n#### {number + (1 if right else 2)}",
                    ground_truth=str(number + 1),
                    sample_id=str(number),
                )
            )
            values.append(1.0 if right else 0.0)
        made.append((ScoreRequest(samples=samples, rewards=[reward]), values))
    return made


class Load:
    """Sends requests, a number of them in flight, and checks what comes back.

    Args:
        port: of the server.
        in_flight: requests at a time.
        keep: whether a connection is used again.
        binary: MessagePack rather than JSON.
    """

    def __init__(self, port: int, in_flight: int, *, keep: bool = True, binary: bool) -> None:
        self._port = port
        self._in_flight = in_flight
        self._keep = keep
        self._type = MSGPACK_TYPE if binary else JSON_TYPE
        self._encode = encode_msgpack if binary else encode_json
        decoder = (msgspec.msgpack if binary else msgspec.json).Decoder(Reply)
        self._decode = decoder.decode
        self.latencies: list[float] = []

    def run(self, requests: list[tuple[ScoreRequest, list[float]]]) -> float:
        """Send them all; returns samples per second, encoding and decoding included."""
        began = time.perf_counter()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._send_all(requests))
        seconds = time.perf_counter() - began
        return sum(len(values) for _, values in requests) / seconds

    async def _send_all(self, requests: list[tuple[ScoreRequest, list[float]]]) -> None:
        todo = iter(requests)
        await asyncio.gather(*(self._send_some(todo) for _ in range(self._in_flight)))

    async def _send_some(self, todo: Iterator[tuple[ScoreRequest, list[float]]]) -> None:
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        for request, values in todo:
            began = time.perf_counter()
            body = self._encode(request)
            if streams is None:
                streams = await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 20)
            reply = await self._exchange(*streams, body)
            if not self._keep:
                streams[1].close()
                streams = None
            found = [answer.value for answer in self._decode(reply).results[0].outcomes]
            if found != values:
                raise SystemExit(f"wrong values: {found} instead of {values}")
            self.latencies.append(time.perf_counter() - began)
        if streams is not None:
            streams[1].close()

    async def _exchange(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: bytes
    ) -> bytes:
        writer.write(
            f"POST {SCORE_PATH} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: {self._type}\r\n"
            f"content-length: {len(body)}\r\n\r\n".encode()
            + body
        )
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"refused: {head!r} {await reader.read(500)!r}")
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        return await reader.readexactly(int(length))


@contextlib.contextmanager
def server(config: str = CONFIG, prepare: Callable[[Path], object] | None = None) -> Iterator[int]:
    """A server process on a free port; its port.

    Args:
        config: YAML.
        prepare: puts further files beside it.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "serve.yaml"
        path.write_text(config)
        if prepare is not None:
            prepare(Path(folder))
        log = Path(folder) / "log"
        command = [sys.executable, "-m", "guerdon.cli.main", "serve", str(path)]
        with log.open("wb") as stderr:
            process = subprocess.Popen(command, stderr=stderr)
        try:
            port = _wait_for_port(process, log)
            _wait_until_ready(port)
            yield port
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


def _wait_for_port(process: subprocess.Popen[bytes], log: Path) -> int:
    for _ in range(int(READY_SECONDS / 0.05)):
        for line in log.read_text().splitlines():
            _, found, address = line.partition("listening on http://127.0.0.1:")
            if found:
                return int(address.partition('"')[0])
        if process.poll() is not None:
            break
        time.sleep(0.05)
    raise SystemExit(f"the server did not start:\n{log.read_text()}")


def _wait_until_ready(port: int) -> None:
    for _ in range(int(READY_SECONDS / 0.05)):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz").read()
        except urllib.error.HTTPError:
            time.sleep(0.05)
        else:
            return
    raise SystemExit("the server is not ready")


def percentile(latencies: list[float], share: float) -> float:
    """In milliseconds."""
    return sorted(latencies)[int(share * (len(latencies) - 1))] * 1000.0


def main() -> None:
    """Measure and print."""
    options = arguments(__doc__ or "").parse_args()
    rounds = 1 if options.smoke else 5
    scale = 1 if options.smoke else 8
    cores = sorted(os.sched_getaffinity(0))[:CORES]
    os.sched_setaffinity(0, cores)
    print(f"{machine()} (server and client together); load {os.getloadavg()[0]:.1f}")
    print(f"gsm8k, responses of about 300 characters; best of {rounds}, interleaved\n")
    print(f"{'load':46} {'samples/s':>10} {'p50 ms':>8} {'p99 ms':>8}")
    # Name, reward, samples of a request, requests, in flight, kept connections, MessagePack.
    loads = [
        ("batches of 64, JSON, inline", "inline", BATCH, 40, 8, True, False),
        ("batches of 64, MessagePack, inline", "inline", BATCH, 40, 8, True, True),
        ("batches of 64, JSON, worker process", "worker", BATCH, 40, 8, True, False),
        ("one by one, 64 in flight, JSON, inline", "inline", 1, 1000, IN_FLIGHT, True, False),
        ("one by one, 64 in flight, worker", "worker", 1, 1000, IN_FLIGHT, True, False),
        ("one by one, 1 in flight, inline", "inline", 1, 200, 1, True, False),
        ("verl: one POST per sample, new connections", "inline", 1, 500, IN_FLIGHT, False, False),
        ("one POST per micro-batch of 64, 1 in flight", "inline", BATCH, 20, 1, True, False),
    ]
    best: dict[str, tuple[float, list[float]]] = {}
    with server() as port:
        for _ in range(rounds):
            for name, reward, size, count, in_flight, keep, binary in loads:
                requests = make_requests(reward, count * scale, size)
                load = Load(port, in_flight, keep=keep, binary=binary)
                rate = load.run(requests)
                if rate > best.get(name, (0.0, []))[0]:
                    best[name] = (rate, load.latencies)
    for name, (rate, latencies) in best.items():
        p50, p99 = percentile(latencies, 0.5), percentile(latencies, 0.99)
        print(f"{name:46} {rate:10,.0f} {p50:8.2f} {p99:8.2f}")
    verl, batches = best[loads[6][0]][0], best[loads[7][0]][0]
    print(f"\nmicro-batches against verl's posts: {batches / verl:.1f}x")


if __name__ == "__main__":
    main()
