"""How long `/livez` takes while 32 MB bodies are received, decoded and scored.

    python benchmarks/server_probes.py [--smoke]

One client sends large bodies of several kinds, one after another; another one asks `/livez` all the
while. Server and clients share two cores.
"""

from __future__ import annotations

import http.client
import os
import threading
import time

from measure import arguments, machine
from server_rules import CORES, percentile, server

from guerdon.sample import Media, Sample
from guerdon.wire.codec import encode_json, encode_msgpack
from guerdon.wire.protocol import JSON_TYPE, MSGPACK_TYPE, SCORE_PATH, ScoreRequest

IMAGE_BYTES = 3 << 20
PNG_HEAD = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\x04\0\0\0\x04\0"
"""Says 1024 x 1024; what follows is never decoded here."""
PAUSE_SECONDS = 0.002


def images() -> list[Sample]:
    """Eight images of 3 MiB, each other bytes."""
    return [
        Sample(
            response="#### 1",
            ground_truth="1",
            images=(Media(kind="image", data=PNG_HEAD + os.urandom(IMAGE_BYTES)),),
        )
        for _ in range(8)
    ]


def texts(count: int, size: int) -> list[Sample]:
    """Text samples with metadata."""
    return [
        Sample(response="#### 1" + "x" * size, ground_truth="1", metadata={"a": list(range(20))})
        for _ in range(count)
    ]


def probe(port: int, body: bytes, content_type: str, times: int) -> tuple[list[float], set[int]]:
    """Seconds of each probe while a body is sent some times, and the statuses of the bodies."""
    done = threading.Event()
    statuses: set[int] = set()

    def send() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        try:
            for _ in range(times):
                connection.request("POST", SCORE_PATH, body, {"content-type": content_type})
                response = connection.getresponse()
                response.read()
                statuses.add(response.status)
        finally:
            done.set()

    sender = threading.Thread(target=send)
    connection = http.client.HTTPConnection("127.0.0.1", port)
    latencies: list[float] = []
    sender.start()
    while not done.is_set():
        began = time.perf_counter()
        connection.request("GET", "/livez")
        connection.getresponse().read()
        latencies.append(time.perf_counter() - began)
        time.sleep(PAUSE_SECONDS)
    sender.join()
    return latencies, statuses


def main() -> None:
    """Measure and print."""
    options = arguments(__doc__ or "").parse_args()
    times = 1 if options.smoke else 20
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])

    def request(samples: list[Sample]) -> ScoreRequest:
        return ScoreRequest(samples=samples, rewards=["inline"])

    bodies = [
        ("8 images, base64 in JSON", encode_json(request(images())), JSON_TYPE),
        ("8 images, MessagePack", encode_msgpack(request(images())), MSGPACK_TYPE),
        ("4,096 texts, JSON", encode_json(request(texts(4096, 7800))), JSON_TYPE),
        ("32,000 texts, JSON, refused", encode_json(request(texts(32_000, 900))), JSON_TYPE),
    ]
    print(f"{machine()} (server and clients together); load {os.getloadavg()[0]:.1f}\n")
    print(f"{'body':30} {'MiB':>5} {'probes':>7} {'p50 ms':>7} {'p99 ms':>7} {'max ms':>7}")
    with server() as port:
        for name, body, content_type in bodies:
            latencies, statuses = probe(port, body, content_type, times)
            if statuses != {413 if "refused" in name else 200}:
                raise SystemExit(f"{name}: statuses {statuses}")
            p50, p99 = percentile(latencies, 0.5), percentile(latencies, 0.99)
            print(
                f"{name:30} {len(body) / 2**20:5.1f} {len(latencies):7} {p50:7.1f} {p99:7.1f} "
                f"{max(latencies) * 1000:7.1f}"
            )


if __name__ == "__main__":
    main()
