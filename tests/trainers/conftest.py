"""Fixtures of the trainers' tests."""

from pathlib import Path

import pytest

from guerdon.backends.pool import PoolBackend
from guerdon.registry import load_file
from guerdon.remote import RemoteReward
from guerdon.server import load
from guerdon.server.running import RunningServer
from guerdon.trainers import verl

PARITY = Path(__file__).with_name("parity")


@pytest.fixture(scope="session")
def pool():
    with_workers = PoolBackend(workers=6)
    yield with_workers
    with_workers.close()


@pytest.fixture(scope="session")
def parity_server():
    """A server on a free port of the loopback that hosts the rewards of the parity tests."""
    cases = load_file(str(PARITY / "cases.py"))
    rule = load_file(str(PARITY / "rewards.py")).RULE
    hosted = {
        name: {
            "reward": rule if name == "rule" else cases.reference(name),
            "retry": {"attempts": 1},
            # Faults wait for each other's deadlines unless there is a worker for each.
            "workers": 4 if name == "faulty" else 1,
        }
        for name in cases.HOSTED
    }
    config = load({"rewards": hosted, "serve": {"port": 0, "drain_seconds": 5.0}}, environment={})
    running = RunningServer(config).start()
    yield f"http://127.0.0.1:{running.server.port}"
    running.stop()


@pytest.fixture(scope="session")
def remote(parity_server):
    """From the name of a hosted reward to a reward that asks the server, once per sample."""
    return lambda name: RemoteReward(parity_server, name, retry={"attempts": 1})


@pytest.fixture(autouse=True)
def _no_services_of_other_tests():
    yield
    verl.close()
