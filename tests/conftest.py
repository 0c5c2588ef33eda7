"""Fixtures shared by all tests."""

import signal
from pathlib import Path

import pytest

collect_ignore_glob = ["trainers/drivers/*", "*/record_*.py", "*/*/record_*.py"]
"""Programs for other interpreters, and the writers of recorded tables."""

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # So a shell starts what it runs in the background, and every child would inherit it: Ctrl-C
    # has to arrive in the tests of Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the checkout; tests that need it skip where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the shared data folder is not beside this checkout (../shared/data)")
    return SHARED_DATA


@pytest.fixture(autouse=True)
def busy_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine gives an endless loop little processor time; a sleeping call uses none."""
    from guerdon.backends.pool import dispatcher

    monkeypatch.setattr(dispatcher, "CPU_SHARE", 0.02)
