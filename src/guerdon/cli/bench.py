"""`guerdon bench URL`: how fast a service answers, and what it answers, under growing load.

Exit status: 0 when every request of every load was answered with outcomes, 1 when some were not, 2
on misuse and when nothing could be asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from guerdon.remote.load import Level, Step
    from guerdon.sample import Sample
    from guerdon.wire.protocol import RewardCard

UNANSWERED = 1
MISUSE = 2
DEFAULT_CALLERS = "1,2,4,8,16,32,64"
TOKEN_VARIABLE = "GUERDON_TOKEN"


def bench(
    url: Annotated[str, typer.Argument(metavar="URL", help="Of the service, with its port.")],
    reward: Annotated[
        str | None, typer.Option("--reward", "-r", help="Needed where it hosts several.")
    ] = None,
    samples: Annotated[
        Path | None,
        typer.Option("--samples", help="JSON lines to send; by default short made-up answers."),
    ] = None,
    batch: Annotated[int, typer.Option("--batch", "-b", help="Samples of one request.", min=1)] = 1,
    concurrency: Annotated[
        str | None,
        typer.Option("--concurrency", "-c", help=f"Callers to try. [default: {DEFAULT_CALLERS}]"),
    ] = None,
    rate: Annotated[
        str | None,
        typer.Option("--rate", help="Requests per second to try, whatever the service does."),
    ] = None,
    seconds: Annotated[float, typer.Option("--seconds", help="Of each load.", min=0.01)] = 5.0,
    requests: Annotated[
        int | None, typer.Option("--requests", help="Most requests of each load.", min=1)
    ] = None,
    warm_up: Annotated[
        float, typer.Option("--warm-up", help="Seconds that are not counted.", min=0.0)
    ] = 1.0,
    timeout: Annotated[
        float, typer.Option("--timeout", help="Seconds for one request.", min=0.01)
    ] = 60.0,
    token: Annotated[
        str | None, typer.Option("--token", envvar=TOKEN_VARIABLE, help="That requests have.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write everything here, as JSON.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Draw everything here, as PNG.")
    ] = None,
) -> None:
    """Measure a service: latency and throughput in closed and open loops, errors by kind."""
    import asyncio

    from rich.console import Console

    from guerdon.errors import GuerdonError
    from guerdon.remote.address import Address
    from guerdon.remote.reply import Refusal

    console = Console(highlight=False)
    try:
        address = Address.parse(url, token)
        steps = _steps(concurrency, rate, seconds, requests)
        sent = _samples(samples, batch)
        from guerdon.remote.load import measure

        work = measure(
            address,
            reward,
            sent,
            steps,
            warm_up=warm_up,
            patience=timeout,
            finished=lambda level: _say(console, level),
        )
        card, levels = asyncio.run(work)
        console.print(_table(levels))
        report = _report(address.url, card, batch, levels)
        if json_file is not None:
            json_file.write_bytes(report)
        if plot is not None:
            from guerdon.cli.bench_plot import draw

            draw(levels, f"{card.name} at {address.url}, {batch} per request", plot)
    except (GuerdonError, Refusal, OSError) as error:
        Console(stderr=True, highlight=False).print(f"error: {error}", markup=False, soft_wrap=True)
        raise typer.Exit(MISUSE) from None
    if any(level.errors for level in levels):
        raise typer.Exit(UNANSWERED)


def _steps(
    concurrency: str | None, rate: str | None, seconds: float, requests: int | None
) -> list[Step]:
    """The loads: closed loops first. Without any, closed loops of the usual sizes."""
    from guerdon.remote.load import Step

    if concurrency is None and rate is None:
        concurrency = DEFAULT_CALLERS
    callers = _numbers(concurrency, "--concurrency", whole=True)
    rates = _numbers(rate, "--rate", whole=False)
    return [
        *(Step("closed", load, seconds, requests) for load in callers),
        *(Step("open", load, seconds, requests) for load in rates),
    ]


def _numbers(text: str | None, option: str, *, whole: bool) -> list[float]:
    from guerdon.errors import ConfigError

    if text is None:
        return []
    try:
        found = [int(part) if whole else float(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or not all(0 < number < 1e6 for number in found):
        raise ConfigError(f"{option} takes positive numbers with commas between, got {text!r}")
    return list(map(float, found))


def _samples(path: Path | None, batch: int) -> list[Sample]:
    """The samples of one request: the first of a file, again from its start where it is short."""
    import itertools
    import json

    from msgspec.structs import replace

    from guerdon.errors import ConfigError
    from guerdon.reward import sample_from
    from guerdon.sample import Sample

    if path is None:
        texts = [f"We add step by step, and get {n + 4}.\n#### {n + 4}" for n in range(batch)]
        return [
            Sample(
                prompt=f"What is {n} + 4?",
                response=text,
                ground_truth=str(n + 4 + n % 2),
                sample_id=str(n),
                group_id=str(n // 8),
            )
            for n, text in enumerate(texts)
        ]
    lines = path.read_text(encoding="utf-8").splitlines()
    try:
        rows = [json.loads(line) for line in lines[:batch] if line.strip()]
        found = [sample_from(row) for row in rows]
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} is no file of JSON lines with samples: {error}") from None
    if not found:
        raise ConfigError(f"{path} has no samples")
    chosen = itertools.islice(itertools.cycle(found), batch)
    return [replace(sample, sample_id=str(n)) for n, sample in enumerate(chosen)]


def _say(console: Any, level: Level) -> None:
    """One line as soon as a load is over."""
    p99 = level.latency_ms.get("p99")
    shown = "no answer" if p99 is None else f"p99 {p99:.1f} ms"
    console.print(f"{_name(level)}: {level.samples_per_second:,.0f} samples/s, {shown}")


def _name(level: Level) -> str:
    if level.mode == "open":
        return f"{level.load:g}/s"
    return f"{level.load:g} caller{'s' * (level.load != 1)}"


def _table(levels: Sequence[Level]) -> Table:
    from rich import box
    from rich.table import Table

    columns = ("load", "requests/s", "samples/s", "p50 ms", "p90 ms", "p99 ms", "max ms", "came of")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="left" if column in ("load", "came of") else "right")
    for level in levels:
        latencies = [level.latency_ms.get(key) for key in ("p50", "p90", "p99", "max")]
        table.add_row(
            _name(level),
            f"{level.requests_per_second:,.1f}",
            f"{level.samples_per_second:,.1f}",
            *("-" if latency is None else f"{latency:.2f}" for latency in latencies),
            _what(level),
        )
    return table


def _what(level: Level) -> str:
    """Samples by outcome and requests by error, the most frequent first."""
    parts = [f"{kind} {count:,}" for kind, count in _by_count(level.outcomes)]
    parts += [f"[red]{kind} {count:,} requests[/red]" for kind, count in _by_count(level.errors)]
    return ", ".join(parts)


def _by_count(counts: Any) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _report(url: str, card: RewardCard, batch: int, levels: Sequence[Level]) -> bytes:
    import msgspec

    report = {
        "url": url,
        "reward": card.name,
        "fingerprint": card.fingerprint,
        "batch": batch,
        "levels": levels,
    }
    return msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n"
