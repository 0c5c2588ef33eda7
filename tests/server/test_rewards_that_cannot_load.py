"""A reward that can never score: the server says why and ends, instead of answering failures."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from guerdon import registry
from guerdon.backends.inline import InlineBackend
from guerdon.backends.pool import PoolBackend
from guerdon.errors import Blame

WAIT_SECONDS = 60.0

REWARDS = '''
import os
import pathlib
import time

from guerdon.errors import ConfigError
from guerdon.reward import BaseReward, reward


class Absent(BaseReward):
    """Its device is not there."""

    name = "absent_device"
    auto_register = False

    def warm(self):
        raise ConfigError("device 'cuda': there is none here")

    def call(self, *, response: str):
        return 0.0


class Slow(BaseReward):
    """Loads until a file is there."""

    name = "slow_to_load"
    auto_register = False

    def __init__(self, gate: str) -> None:
        self._gate = pathlib.Path(gate)

    def warm(self):
        while not self._gate.exists():
            time.sleep(0.005)

    def call(self, *, response: str):
        return 1.0
'''


@pytest.fixture
def rewards(tmp_path: Path) -> Path:
    path = tmp_path / "loading_rewards.py"
    path.write_text(REWARDS)
    return path


def test_the_command_ends_and_says_why(tmp_path: Path, rewards: Path) -> None:
    for place in ("inline: true", "workers: 1"):
        config = tmp_path / "serve.yaml"
        config.write_text(
            f"rewards:\n  fine: gsm8k\n  sick: {{reward: '{rewards}:Absent', {place}}}\n"
            "serve: {port: 0}\n"
        )
        command = [sys.executable, "-m", "guerdon.cli.main", "serve", str(config)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_SECONDS)
        assert done.returncode == 1
        last = done.stderr.splitlines()[-1]
        assert last.startswith("guerdon: reward 'sick' cannot be set up: ")
        assert "device 'cuda': there is none here" in last
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("place", [{"inline": True}, {"workers": 1}])
def test_it_lives_and_is_not_ready_while_a_model_loads(
    serve: Any, tmp_path: Path, rewards: Path, place: dict[str, Any]
) -> None:
    gate = tmp_path / "open"
    named = {"_target_": f"{rewards}:Slow", "gate": str(gate)}
    server = serve({"slow": {"reward": named, **place}})
    try:
        assert server.get("/livez").status == 200
        assert server.get("/readyz").status == 503
        assert json.loads(server.get("/readyz").body)["rewards"] == {"slow": "starting"}
    finally:
        gate.touch()
    server.wait_until(lambda: server.get("/readyz").status == 200)


@pytest.mark.parametrize("backend", [InlineBackend, PoolBackend])
def test_a_backend_loads_without_a_call(tmp_path: Path, rewards: Path, backend: Any) -> None:
    module = registry.load_file(str(rewards))
    gate = tmp_path / "open"
    gate.touch()
    with contextlib.closing(backend()) as place:
        assert place.load(module.Slow(str(gate))) is None
        lost = place.load(module.Absent())
        assert "there is none here" in lost.message
        assert lost.blame is Blame.SCORER


def test_a_loading_pool_can_be_closed(tmp_path: Path, rewards: Path) -> None:
    module = registry.load_file(str(rewards))
    pool = PoolBackend(workers=1)
    found: list[Any] = []
    slow = module.Slow(str(tmp_path / "never"))
    thread = threading.Thread(target=lambda: found.append(pool.load(slow)))
    thread.start()
    while not pool.ready():
        time.sleep(0.005)
    pool.close()
    thread.join()
    assert found[0].blame is not Blame.SCORER
