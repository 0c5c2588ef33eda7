"""`guerdon serve` as users run it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from guerdon.errors import ConfigError
from guerdon.server import load

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "serve.yaml"
WAIT_SECONDS = 60.0


def guerdon(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "guerdon.cli.main", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=WAIT_SECONDS, **options)


def test_check_starts_nothing() -> None:
    done = guerdon("serve", str(EXAMPLE), "--check")
    assert done.returncode == 0, done.stderr
    assert "math_and_format: weighted_sum" in done.stdout
    assert "nothing was started" in done.stdout


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("rewards: {a: gsm8kk}", "did you mean 'gsm8k'"),
        ("rewards: {}", "nothing to host"),
        ("reward: gsm8k", "unknown key 'reward' (did you mean 'rewards'?)"),
        ("rewards: {a: {reward: gsm8k, workerz: 2}}", "did you mean 'workers'"),
        ("rewards: {a: {reward: gsm8k, workers: 0}}", "workers must be at least 1"),
        ("rewards: {a: {reward: gsm8k, inline: true, workers: 2}}", "inline has no processes"),
        ("rewards: {a: {reward: math_verify, inline: true}}", "has a deadline"),
        ("rewards: {a: {reward: gsm8k, options: [metod]}}", "did you mean 'method'"),
        ("rewards: {a: gsm8k}\nserve: {prt: 1}", "did you mean 'port'"),
        ("rewards: {a: gsm8k}\nserve: {port: 70000}", "port must lie in"),
        ("rewards: {a: gsm8k}\nserve: {limits: {samples: 0}}", "samples must be positive"),
        ("rewards: {a: gsm8k}\nserve: {limits: {sample: 1}}", "did you mean 'samples'"),
        ("rewards: {a: {reward: gsm8k, batch: {size: 0}}}", "size must be at least 1"),
        ("- a", "is a mapping"),
    ],
)
def test_configurations_that_are_wrong(tmp_path: Path, text: str, part: str) -> None:
    path = tmp_path / "serve.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as wrong:
        load(path, environment={})
    assert part in str(wrong.value)


def test_a_wrong_configuration_is_misuse(tmp_path: Path) -> None:
    path = tmp_path / "serve.yaml"
    path.write_text("rewards: {a: gsm8kk}")
    for arguments in ([str(path)], [str(path), "--check"], [str(tmp_path / "none.yaml")]):
        done = guerdon("serve", *arguments)
        assert done.returncode == 2
        assert done.stderr.startswith("guerdon: ")


def test_a_public_bind_needs_a_token() -> None:
    environment = {key: value for key, value in os.environ.items() if key != "GUERDON_TOKEN"}
    public = ("serve", str(EXAMPLE), "--host", "0.0.0.0", "--check")
    assert guerdon(*public, env=environment).returncode == 2
    assert guerdon(*public, "--token", "long enough", env=environment).returncode == 0
    given = {**environment, "GUERDON_TOKEN": "long enough"}
    assert guerdon(*public, env=given).returncode == 0


def test_a_port_that_is_taken_is_said_so(tmp_path: Path, serve: Any, rewards: Any) -> None:
    client = serve({"echo": {"reward": rewards.echo, "inline": True}})
    path = tmp_path / "serve.yaml"
    path.write_text("rewards: {a: {reward: gsm8k, inline: true}}")
    done = guerdon("serve", str(path), "--port", str(client.port))
    assert done.returncode == 1
    assert "address already in use" in done.stderr


@pytest.fixture
def running(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    log = tmp_path / "log"
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "guerdon.cli.main", "serve", str(EXAMPLE), "--port", "0"],
            stderr=stderr,
            text=True,
        )
    yield process, log
    if process.poll() is None:
        process.kill()
        process.wait()


def port_of(process: subprocess.Popen[str], log: Path) -> int:
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        for line in log.read_text().splitlines():
            message = json.loads(line)["message"]
            if message.startswith("listening on"):
                return int(message.rpartition(":")[2])
    raise AssertionError(log.read_text())


def post(port: int, request: Any) -> Any:
    url = f"http://127.0.0.1:{port}/v1/score"
    headers = {"content-type": "application/json"}
    return json.loads(
        urllib.request.urlopen(
            urllib.request.Request(url, json.dumps(request).encode(), headers)
        ).read()
    )


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_and_ends_in_order(running: Any, how: signal.Signals) -> None:
    process, log = running
    port = port_of(process, log)
    request = {
        "samples": [{"response": "so it is \\boxed{\\frac{1}{2}}", "ground_truth": "0.5"}],
        "rewards": ["math"],
    }
    reply = post(port, request)
    assert reply["results"][0]["outcomes"][0]["value"] == 1.0
    children = psutil.Process(process.pid).children(recursive=True)
    assert children
    process.send_signal(how)
    assert process.wait(WAIT_SECONDS) == 0
    _, alive = psutil.wait_procs(children, timeout=WAIT_SECONDS)
    assert not alive
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert {line["level"] for line in lines} == {"info"}
    assert lines[-1]["message"].startswith("draining")


def test_workers_end_with_a_server_that_is_killed(running: Any) -> None:
    process, log = running
    port_of(process, log)
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(children, timeout=WAIT_SECONDS)
    assert not alive
