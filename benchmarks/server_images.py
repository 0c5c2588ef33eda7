"""Images to a reward service: CPU time per image, client and server together, encoding included.

    python benchmarks/server_images.py [--smoke] [--json FILE]

The scorer reads one byte of each image, so what is measured is the way there. Every contract runs
on uvicorn with uvloop and httptools, one process, one connection, and an aiohttp client:

- Guerdon over TCP, and through shared memory: `RemoteReward` against `guerdon serve`. The pictures
  lie in ordinary arrays, which costs one copy into shared memory, or in `shared_array`s, where the
  pipeline's own copy from its device puts them (that copy, which every contract needs first, is
  counted for none);
- pickled JPEG (quality 75) and PNG, the shape of flow_grpo's reward server and of verl-omni's
  client: PIL encodes, `pickle.dumps` of the bytes, the server unpickles and decodes with PIL;
- JSON with base64 of JPEG (quality 95) and PNG, the shape of UniRL's `/score`: the server reads
  the JSON into a typed request, decodes base64, then PIL. Written here with msgspec, which is
  cheaper than the FastAPI and pydantic of the original; that variant runs too where FastAPI is
  installed.

Each starts from what it is given: uint8 arrays (height, width, channels), which PIL takes without a
copy, and, at 1024 x 1024 in batches of 8, also float32 arrays (channels, height, width) in 0..1, as
a diffusion pipeline gives them. From floats, the peers round to uint8 and lay channels last, as
`to_pil_image` does; Guerdon is given the same rounding but keeps the channels where they are.

Pictures are made here, with as much texture and grain as makes them compress as diffusion pictures
do; the sizes are printed.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import importlib.util
import io
import json
import os
import pickle
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp
import msgspec
import numpy as np
import psutil
from measure import arguments, machine
from PIL import Image

from guerdon.remote import RemoteReward, shared_array
from guerdon.sample import Media, Sample

SIZES = (512, 1024)
BATCHES = (1, 8, 32)
HEADLINE = (1024, 8)
TEXTURE, TEXEL, GRAIN = 9.0, 3, 1.5
"""Grey levels of the texture, its pixels, and grey levels of the noise: chosen so that a picture
compresses as the diffusion pictures of specs/performance.md B.1 do (JPEG 75 125 KB, JPEG 95 304 KB,
PNG 1,583 KB at 1024 x 1024)."""
STARTS = ("uint8", "float32")
START_SECONDS = 60.0
TARGETS = {
    ("Guerdon, TCP", "JSON base64 JPEG 95"): 10.0,
    ("Guerdon, TCP", "JSON base64 PNG"): 100.0,
    ("Guerdon, shared memory", "JSON base64 JPEG 95"): 80.0,
    ("Guerdon, shared arrays", "JSON base64 JPEG 95"): 80.0,
}

REWARD = '''
from guerdon.reward import reward


@reward(name="one_byte", value_range=(0.0, 255.0))
def one_byte(images):
    """Reads one byte of the image."""
    return float(images[0].array.reshape(-1)[0])
'''
CONFIG = """
imports: [one_byte.py]
serve: {log: failures}
rewards:
  one_byte: {reward: one_byte, inline: true, batch: {wait_ms: 0}}
"""


@dataclass(frozen=True)
class Cell:
    """One contract with one size and batch."""

    contract: str
    start: str
    size: int
    batch: int
    client_ms: float
    server_ms: float
    wall_ms: float

    @property
    def cpu_ms(self) -> float:
        """Milliseconds of CPU per image on both sides."""
        return self.client_ms + self.server_ms


def picture(size: int, seed: int) -> np.ndarray:
    """A picture, uint8, height x width x 3: smooth colours, a texture, and grain."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:size, 0:size] / size
    waves = random.uniform(1, 6, (3, 2))
    colours = np.stack([np.sin(a * x * 3 + b * y * 5 + a) for a, b in waves], axis=-1) * 80 + 128
    coarse = random.normal(0, TEXTURE, (size // TEXEL, size // TEXEL)).astype(np.float32)
    texture = np.asarray(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC))
    grain = random.normal(0, GRAIN, colours.shape)
    return np.clip(colours + texture[:, :, None] + grain, 0, 255).astype(np.uint8)


def floats(image: np.ndarray) -> np.ndarray:
    """The picture as a pipeline gives it: float32, 3 x height x width, 0..1."""
    return np.ascontiguousarray(image.transpose(2, 0, 1)).astype(np.float32) / 255


def rounded(image: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """Floats in 0..1 as uint8, in the same layout; into an array where one is given."""
    scaled = np.clip(image, 0, 1)
    np.multiply(scaled, 255, out=scaled)
    np.add(scaled, 0.5, out=scaled)
    if out is None:
        return scaled.astype(np.uint8)
    np.copyto(out, scaled, casting="unsafe")
    return out


# What the peers' clients do.


def as_pil(image: np.ndarray) -> Image.Image:
    """The picture for an encoder."""
    if image.dtype == np.uint8:
        return Image.fromarray(image)
    return Image.fromarray(rounded(image).transpose(1, 2, 0))


def encoded(image: np.ndarray, form: str, **options: Any) -> bytes:
    """The bytes of a JPEG or PNG, with PIL's defaults where no option is given."""
    buffer = io.BytesIO()
    as_pil(image).save(buffer, format=form, **options)
    return buffer.getvalue()


def pickle_body(form: str) -> Callable[[list[np.ndarray]], bytes]:
    """flow_grpo's and verl-omni's: `{"images": [bytes], "prompts": [...]}`."""

    def make(images: list[np.ndarray]) -> bytes:
        pictures = [encoded(image, form) for image in images]
        return pickle.dumps({"images": pictures, "prompts": [""] * len(pictures)})

    return make


def json_body(form: str, **options: Any) -> Callable[[list[np.ndarray]], bytes]:
    """UniRL's: items with a prompt and base64 text."""

    def make(images: list[np.ndarray]) -> bytes:
        items = [
            {"prompt": "", "media": base64.b64encode(encoded(image, form, **options)).decode()}
            for image in images
        ]
        return json.dumps({"model": "one_byte", "items": items}).encode()

    return make


PEERS: dict[str, tuple[str, Callable[[list[np.ndarray]], bytes]]] = {
    "pickle JPEG 75": ("/pickle", pickle_body("JPEG")),
    "pickle PNG": ("/pickle", pickle_body("PNG")),
    "JSON base64 JPEG 95": ("/json", json_body("JPEG", quality=95)),
    "JSON base64 PNG": ("/json", json_body("PNG")),
}
FASTAPI: dict[str, tuple[str, Callable[[list[np.ndarray]], bytes]]] = {
    "FastAPI base64 JPEG 95": ("/fastapi/score", json_body("JPEG", quality=95)),
    "FastAPI base64 PNG": ("/fastapi/score", json_body("PNG")),
}


# What the peers' servers do.


class Item(msgspec.Struct):
    """One image of a JSON request."""

    prompt: str
    media: str


class Request(msgspec.Struct):
    """A JSON request."""

    model: str
    items: list[Item]


def first_byte(data: bytes) -> float:
    """Decode all of a picture, read one byte."""
    return float(Image.open(io.BytesIO(data)).convert("RGB").tobytes()[0])


def peer_application() -> Any:
    """The peers' servers in one ASGI application."""
    from starlette.applications import Starlette
    from starlette.requests import Request as HttpRequest
    from starlette.responses import Response
    from starlette.routing import Mount, Route

    async def of_pickle(request: HttpRequest) -> Response:
        data = pickle.loads(await request.body())
        return Response(pickle.dumps({"scores": [first_byte(image) for image in data["images"]]}))

    async def of_json(request: HttpRequest) -> Response:
        data = msgspec.json.decode(await request.body(), type=Request)
        scores = [first_byte(base64.b64decode(item.media)) for item in data.items]
        return Response(msgspec.json.encode({"scores": scores}))

    routes: list[Any] = [
        Route("/pickle", of_pickle, methods=["POST"]),
        Route("/json", of_json, methods=["POST"]),
    ]
    if importlib.util.find_spec("fastapi"):
        routes.append(Mount("/fastapi", fastapi_application()))
    return Starlette(routes=routes)


def fastapi_application() -> Any:
    """The same contract as UniRL serves it: FastAPI, pydantic, the handler in a thread pool."""
    from fastapi import FastAPI
    from pydantic import create_model

    item = create_model("Item", prompt=(str, ...), media=(str, ...))
    body = create_model("Body", model=(str, ...), items=(list[item], ...))  # type: ignore[valid-type]
    app = FastAPI()

    def score(request: Any) -> dict[str, list[float]]:
        return {"scores": [first_byte(base64.b64decode(i.media)) for i in request.items]}

    score.__annotations__["request"] = body
    app.post("/score")(score)
    return app


def serve_peers(port: int) -> None:
    """Run the peers' servers until killed."""
    import uvicorn

    uvicorn.run(
        peer_application(),
        host="127.0.0.1",
        port=port,
        loop="uvloop",
        http="httptools",
        log_level="warning",
        access_log=False,
        timeout_keep_alive=600,
    )


# Measuring.


@contextmanager
def process(command: list[str], port: int, folder: str) -> Iterator[psutil.Process]:
    """A server, until it listens and then until the end."""
    started = subprocess.Popen(command, cwd=folder, stderr=subprocess.DEVNULL)
    try:
        wait_for(port, started)
        yield psutil.Process(started.pid)
    finally:
        started.terminate()
        started.wait(30)


def wait_for(port: int, started: subprocess.Popen[bytes]) -> None:
    """Wait until a port is open."""
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and started.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise SystemExit(f"a server did not start: {started.args}")


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def server_seconds(server: psutil.Process) -> float:
    """CPU time of a server and of its children."""
    total = 0.0
    for one in [server, *server.children(recursive=True)]:
        times = one.cpu_times()
        total += times.user + times.system
    return total


def client_seconds() -> float:
    """CPU time of this process."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    return own.ru_utime + own.ru_stime


Send = Callable[[list[np.ndarray]], Awaitable[list[float]]]


async def measured(
    contract: str,
    start: str,
    images: list[np.ndarray],
    expected: list[float] | None,
    send: Send,
    server: psutil.Process,
    seconds: float,
) -> Cell:
    """CPU time per image of one contract."""
    scores = await send(images)  # also makes connections, buffers and blocks
    if len(scores) != len(images) or (expected is not None and scores != expected):
        raise SystemExit(f"{contract}: wrong scores")
    done = 0
    before = client_seconds(), server_seconds(server), time.perf_counter()
    while time.perf_counter() - before[2] < seconds:
        await send(images)
        done += len(images)
    after = client_seconds(), server_seconds(server), time.perf_counter()
    client, served, wall = ((b - a) * 1000 / done for a, b in zip(before, after, strict=True))
    size = images[0].shape[1]
    return Cell(contract, start, size, len(images), client, served, wall)


def guerdon_sender(remote: RemoteReward, start: str, *, in_place: bool) -> Send:
    """Guerdon's client; every sample is made anew, as a trainer does.

    Args:
        remote: the reward.
        start: what the pictures are.
        in_place: whether the pictures lie, or are rounded into, arrays in shared memory.
    """
    kept: list[np.ndarray] = []

    async def send(images: list[np.ndarray]) -> list[float]:
        if in_place and not kept:
            kept.extend(shared_array((len(images), *images[0].shape)))
            if start == "uint8":
                for array, image in zip(kept, images, strict=True):
                    array[:] = image
        layout = "HWC" if start == "uint8" else "CHW"
        arrays = kept if in_place else images
        if start != "uint8":
            targets = kept or [None] * len(images)
            arrays = [rounded(i, out) for i, out in zip(images, targets, strict=True)]
        samples = [
            Sample(
                prompt="",
                images=(Media(kind="image", array=a, layout=layout, value_range="uint8"),),
            )
            for a in arrays
        ]
        outcomes = await remote(samples=samples)
        return [outcome.value for outcome in outcomes]

    return send


def peer_sender(
    session: aiohttp.ClientSession, url: str, make: Callable[[list[np.ndarray]], bytes]
) -> Send:
    """A peer's client."""

    async def send(images: list[np.ndarray]) -> list[float]:
        async with session.post(url, data=make(images), headers=TYPE) as response:
            body = await response.read()
            if response.status != 200:
                raise SystemExit(f"{url}: {response.status} {body[:200]!r}")
        data = pickle.loads(body) if url.endswith("pickle") else json.loads(body)
        return list(data["scores"])

    return send


TYPE = {"content-type": "application/json"}


def peers() -> dict[str, tuple[str, Callable[[list[np.ndarray]], bytes]]]:
    """All contracts that can run here."""
    return {**PEERS, **(FASTAPI if importlib.util.find_spec("fastapi") else {})}


def run(options: argparse.Namespace) -> list[Cell]:
    """Start the servers, and measure all cells."""
    ours_port, peers_port = free_port(), free_port()
    with TemporaryDirectory() as folder:
        Path(folder, "one_byte.py").write_text(REWARD)
        Path(folder, "serve.yaml").write_text(CONFIG)
        command = Path(sys.executable).with_name("guerdon")
        ours = [str(command), "serve", "serve.yaml", "--port", str(ours_port)]
        others = [sys.executable, os.path.abspath(__file__), "--serve", str(peers_port)]
        with (
            process(ours, ours_port, folder) as server,
            process(others, peers_port, folder) as other,
        ):
            places = {
                "ours": (f"http://127.0.0.1:{ours_port}", server),
                "peers": (f"http://127.0.0.1:{peers_port}", other),
            }
            return asyncio.run(run_all(options, places))


async def run_all(
    options: argparse.Namespace, places: dict[str, tuple[str, psutil.Process]]
) -> list[Cell]:
    """All cells, shape by shape."""
    short = options.smoke or options.headline
    shapes = [HEADLINE] if short else [(s, b) for s in SIZES for b in BATCHES]
    seconds, rounds = (0.2, 1) if options.smoke else (options.seconds, options.rounds)
    url = places["ours"][0]
    sharing = {
        "Guerdon, TCP": "off",
        "Guerdon, shared memory": "on",
        "Guerdon, shared arrays": "on",
    }
    remotes = {
        name: RemoteReward(url, "one_byte", value_range=(0, 255), shared_memory=how)
        for name, how in sharing.items()
    }
    cells: list[Cell] = []
    async with aiohttp.ClientSession() as session:
        for size, batch in shapes:
            starts = STARTS if (size, batch) == HEADLINE else STARTS[:1]
            for start in starts:
                senders = senders_for(remotes, session, places, start)
                cells += await measured_in_turn(senders, start, size, batch, seconds, rounds)
    return cells


Senders = dict[str, tuple[Send, psutil.Process]]


def senders_for(
    remotes: dict[str, RemoteReward],
    session: aiohttp.ClientSession,
    places: dict[str, tuple[str, psutil.Process]],
    start: str,
) -> Senders:
    """Every contract with the process of its server."""
    _, server = places["ours"]
    base, other = places["peers"]
    senders: Senders = {
        name: (guerdon_sender(remote, start, in_place="arrays" in name), server)
        for name, remote in remotes.items()
    }
    for name, (path, make) in peers().items():
        senders[name] = (peer_sender(session, base + path, make), other)
    return senders


async def measured_in_turn(
    senders: Senders, start: str, size: int, batch: int, seconds: float, rounds: int
) -> list[Cell]:
    """One shape with every contract; what takes long for one call is measured in one round."""
    images = [picture(size, seed) for seed in range(batch)]
    given = images if start == "uint8" else [floats(image) for image in images]
    exact = [float(image.reshape(-1)[0]) for image in images]
    cells: list[Cell] = []
    slow: set[str] = set()
    for _ in range(rounds):
        for name, (send, place) in senders.items():
            if name in slow:
                continue
            expected = None if "JPEG" in name else exact
            cell = await measured(name, start, given, expected, send, place, seconds)
            cells.append(cell)
            if cell.wall_ms * batch > 1000 * seconds:
                slow.add(name)
    return cells


def best(cells: list[Cell]) -> dict[tuple[str, str, int, int], Cell]:
    """The cheapest of the rounds of each cell."""
    found: dict[tuple[str, str, int, int], Cell] = {}
    for cell in cells:
        key = (cell.contract, cell.start, cell.size, cell.batch)
        if key not in found or cell.cpu_ms < found[key].cpu_ms:
            found[key] = cell
    return found


def report(cells: dict[tuple[str, str, int, int], Cell]) -> None:
    """Tables, and the ratios that count."""
    for start in STARTS:
        shapes = sorted({(s, b) for _, found, s, b in cells if found == start})
        print(f"\nfrom {start} arrays: CPU ms per image, client + server (wall)")
        print(f"{'':24s}" + "".join(f"{f'{s}, batch {b}':>26s}" for s, b in shapes))
        for contract in dict.fromkeys(name for name, *_ in cells):
            row = [cells[(contract, start, size, batch)] for size, batch in shapes]
            shown = [f"{c.client_ms:.3f} + {c.server_ms:.3f} ({c.wall_ms:.2f})" for c in row]
            print(f"{contract:24s}" + "".join(f"{text:>26s}" for text in shown))
        print(f"\nat {HEADLINE[0]}, batch {HEADLINE[1]}: images per CPU-second, and how many times")
        compare(cells, start, start)
    print("\nas the peers are published, from float32 arrays, against Guerdon from uint8 arrays")
    compare(cells, "uint8", "float32")


def compare(cells: dict[tuple[str, str, int, int], Cell], mine: str, theirs: str) -> None:
    """The ratios with a target, for what each starts from."""
    for (contract, peer), target in TARGETS.items():
        own, other = cells[(contract, mine, *HEADLINE)], cells[(peer, theirs, *HEADLINE)]
        print(
            f"{contract:24s} {1000 / own.cpu_ms:9,.0f}   {peer:20s} {1000 / other.cpu_ms:7,.1f}"
            f"   {other.cpu_ms / own.cpu_ms:7.1f}x   (target {target:g}x)"
        )


def main() -> None:
    """Measure and print."""
    parser = arguments((__doc__ or "").splitlines()[0])
    parser.add_argument("--serve", type=int, metavar="PORT", help=argparse.SUPPRESS)
    parser.add_argument("--json", metavar="FILE", help="write all cells here")
    parser.add_argument("--headline", action="store_true", help="only 1024 x 1024, batch 8")
    parser.add_argument("--seconds", type=float, default=1.0, help="per cell and round")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if options.serve:
        serve_peers(options.serve)
        return
    print(machine())
    for size in SIZES:
        image = picture(size, 0)
        sizes = [len(encoded(image, f, **o)) for f, o in FORMS]
        shown = ", ".join(
            f"{name} {n // 1024} KB" for name, n in zip(FORM_NAMES, sizes, strict=True)
        )
        print(f"{size} x {size}: raw {image.nbytes // 1024} KB, {shown}")
    cells = best(run(options))
    report(cells)
    if options.json:
        Path(options.json).write_text(json.dumps([asdict(c) for c in cells.values()], indent=1))


FORMS: list[tuple[str, dict[str, Any]]] = [("JPEG", {}), ("JPEG", {"quality": 95}), ("PNG", {})]
FORM_NAMES = ("JPEG 75", "JPEG 95", "PNG")


if __name__ == "__main__":
    main()
