"""`guerdon bench`: loads that a test decides, percentiles, errors by kind, files."""

from __future__ import annotations

import asyncio
import builtins
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from guerdon.cli.main import application
from guerdon.remote.address import Address
from guerdon.remote.load import Step, measure, summary
from guerdon.reward import reward
from guerdon.sample import Sample
from guerdon.server import load
from guerdon.server.running import RunningServer

QUICK = ("--seconds", "0.15", "--warm-up", "0")


@reward(auto_register=False, value_range=(0.0, 1.0))
def bench_moody(response: str) -> float | None:
    """Scores, abstains, or fails, as it is told."""
    if response == "abstain":
        return None
    if response == "raise":
        raise ValueError("broken")
    return 1.0


@reward(auto_register=False, value_range=(0.0, 1.0))
async def bench_slow(response: str) -> float:
    """Takes a while."""
    await asyncio.sleep(0.05)
    return 1.0


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    rewards = {"moody": {"reward": bench_moody, "inline": True}, "slow": {"reward": bench_slow}}
    serve = {"port": 0, "log": "failures"}
    with RunningServer(load({"rewards": rewards, "serve": serve}, environment={})) as running:
        yield running


def run(*arguments: str) -> Result:
    return CliRunner().invoke(application("bench"), ["bench", *map(str, arguments)])


def test_a_sweep_with_files(server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    pytest.importorskip("matplotlib")
    report, plot = tmp_path / "bench.json", tmp_path / "bench.png"
    files = ("--json", report, "--plot", plot)
    done = run(server.url, "-r", "moody", "-c", "1,4", "--rate", "50", "-b", "3", *QUICK, *files)
    assert done.exit_code == 0, done.output
    assert "4 callers" in done.output
    assert "50/s" in done.output
    found = json.loads(report.read_text())
    assert (found["reward"], found["batch"]) == ("moody", 3)
    assert [(level["mode"], level["load"]) for level in found["levels"]] == [
        ("closed", 1.0),
        ("closed", 4.0),
        ("open", 50.0),
    ]
    for level in found["levels"]:
        assert level["requests"] > 0
        assert level["outcomes"] == {"score": 3 * level["requests"]}
        assert level["errors"] == {}
        latency = level["latency_ms"]
        assert 0 < latency["p50"] <= latency["p90"] <= latency["p99"] <= latency["max"]
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_what_came_of_the_samples(server: Any, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"response": "fine"}\n{"response": "abstain"}\n{"response": "raise"}\n')
    report = tmp_path / "bench.json"
    done = run(
        *(server.url, "-r", "moody", "--samples", rows, "-b", "6", "-c", "1"),
        *("--requests", "4", "--json", report, *QUICK),
    )
    assert done.exit_code == 0, done.output
    (level,) = json.loads(report.read_text())["levels"]
    assert level["requests"] == 4
    assert level["outcomes"] == {"score": 8, "abstention": 8, "raised": 8}


def test_requests_without_outcomes_are_errors(server: Any, tmp_path: Path) -> None:
    report = tmp_path / "bench.json"
    done = run(
        *(server.url, "-r", "slow", "-c", "2", "--timeout", "0.01"),
        *("--requests", "4", "--json", report, *QUICK),
    )
    (level,) = json.loads(report.read_text())["levels"]
    if level["errors"]:
        assert done.exit_code == 1
        assert set(level["errors"]) <= {"timeout"}
        assert level["latency_ms"] == {} or level["outcomes"]
    assert sum(level["errors"].values()) + sum(level["outcomes"].values()) == level["requests"]
    assert "score" not in level["outcomes"], "nothing can be scored in this time"


MISUSES = [
    (("http://127.0.0.1:9",), "cannot reach"),
    (("127.0.0.1:8300",), "a server has a URL"),
    (("{url}",), "several rewards, name one"),
    (("{url}", "-r", "mody"), "did you mean 'moody'"),
    (("{url}", "-r", "moody", "-c", "0"), "--concurrency takes positive numbers"),
    (("{url}", "-r", "moody", "--rate", "fast"), "--rate takes positive numbers"),
    (("{url}", "-r", "moody", "--samples", "absent.jsonl"), "No such file"),
]


@pytest.mark.parametrize(("arguments", "message"), MISUSES)
def test_misuse(server: Any, arguments: tuple[str, ...], message: str) -> None:
    done = run(*(part.format(url=server.url) for part in arguments))
    assert done.exit_code == 2
    assert message in done.output


def test_without_matplotlib_the_numbers_are_written(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def absent(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", absent)
    report = tmp_path / "bench.json"
    files = ("--json", report, "--plot", tmp_path / "bench.png")
    done = run(server.url, "-r", "moody", "-c", "1", *QUICK, *files)
    assert done.exit_code == 2
    assert "guerdon[bench]" in done.output
    assert json.loads(report.read_text())["levels"]


def test_an_open_loop_counts_from_when_a_request_was_due(server: Any) -> None:
    """A stall of the loader itself, too, delays what was due meanwhile: it is not left out."""
    stalled = 0.3

    async def stall() -> list[Any]:
        async def block() -> None:
            await asyncio.sleep(0.05)
            time.sleep(stalled)  # noqa: ASYNC251 - that is the stall

        blocking = asyncio.create_task(block())
        address = Address.parse(server.url)
        steps = [Step("open", 100.0, 0.5)]
        samples = [Sample(response="fine")]
        _, levels = await measure(address, "moody", samples, steps, warm_up=0.0, patience=30.0)
        await blocking
        return levels

    (level,) = asyncio.run(stall())
    assert level.requests == 50
    assert level.latency_ms["max"] >= stalled * 1000 / 2
    assert level.latency_ms["p90"] >= 50.0, "not one request was late, but all that were due"


@pytest.mark.parametrize("count", [1, 2, 99, 100, 101, 1000])
def test_percentiles_are_latencies_that_occurred(count: int) -> None:
    latencies = [float(n) for n in range(1, count + 1)]
    found = summary(latencies[::-1])
    for share in (50, 90, 99):
        value = found[f"p{share}"]
        assert sum(latency <= value for latency in latencies) >= share / 100 * count
        assert sum(latency < value for latency in latencies) < share / 100 * count
    assert found["max"] == float(count)
    assert summary([]) == {}
