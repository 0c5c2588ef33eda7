"""Runs pytest over files that a stranger changed, and says how each test ended.

    WORK DESCRIPTOR, BEGINNING DESCRIPTOR, VERDICTS DESCRIPTOR

The work is a line of JSON and then the files. Pytest is imported before the files are there, and
they come last on the path of modules, so that none of them stands in for a module of pytest or of
the standard library. That it could be imported is said before the files are there too, and sealed:
nothing that they do can make it look as if there were no pytest. Each verdict is signed and
numbered with a secret that is not on the channel.
"""

from __future__ import annotations

import fcntl
import hmac
import importlib
import json
import os
import sys

from guerdon.resources.inside.parcel import unpack
from guerdon.resources.inside.workspace import put
from guerdon.rules.agent.inside.equality import ask_everything
from guerdon.rules.agent.inside.patches import Patches

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

OPTIONS = (
    "--import-mode=importlib",
    "--rootdir=.",
    "--continue-on-collection-errors",
    "--tb=line",
    "-q",
    "-o",
    "addopts=",
    "-p",
    "no:cacheprovider",
)

READY = b"ready"
"""How the beginning is said to have gone well."""

SEALS = 0xF
"""F_SEAL_SEAL, _SHRINK, _GROW and _WRITE of linux/fcntl.h."""

SHOWN = 500
"""Characters that are told of why a test failed."""


def signed(secret: bytes, number: int, text: str) -> str:
    """A line that only who knows the secret can write, at that place.

    Example:
        >>> signed(b"s", 0, "x") == signed(b"s", 1, "x")
        False
    """
    mac = hmac.new(secret, f"{number} {text}".encode("utf-8", "surrogatepass"), "sha256")
    return f"{mac.hexdigest()} {text}\n"


def teller(descriptor: int, secret: bytes) -> Callable[[list[Any]], None]:
    """What writes one verdict after another."""
    number = 0

    def tell(said: list[Any]) -> None:
        nonlocal number
        os.write(descriptor, signed(secret, number, json.dumps(said)).encode())
        number += 1

    return tell


class Recorder:
    """A plug-in of pytest: keeps the wanted tests, in the wanted order, and tells their ends."""

    def __init__(
        self, wanted: list[str], patches: Patches, tell: Callable[[list[Any]], None]
    ) -> None:
        self._place = {test: place for place, test in enumerate(wanted)}
        self._patches = patches
        self._tell = tell

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        """Keep the wanted tests."""
        place = self._place
        items[:] = sorted(
            (item for item in items if item.nodeid in place), key=lambda item: place[item.nodeid]
        )

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Tell how a part of a test ended; a part of a part is not told where it passed."""
        if report.passed and hasattr(report, "context"):
            return
        why = "" if report.passed else str(report.longreprtext)[-SHOWN:]
        self._tell([report.nodeid, report.when, report.outcome, why])

    def pytest_unconfigure(self) -> None:
        """Tell what was replaced and is not put back, when all tests have cleaned up."""
        self._tell(["replaced", self._patches.found()])


def began(descriptor: int, said: bytes) -> None:
    """Say how the beginning went, once for all."""
    os.write(descriptor, said)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, SEALS)


def main() -> None:
    """Run the tests."""
    given, beginning, told = map(int, sys.argv[1:4])
    for descriptor in (given, beginning, told):
        os.set_inheritable(descriptor, False)
    with open(given, "rb") as file:
        work = json.loads(file.readline())
        files = unpack(file.read())
    tell = teller(told, bytes.fromhex(work.pop("secret")))
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    sys.path = [path for path in sys.path if path] + work["packages"]
    try:
        import pytest

        ask_everything(importlib.import_module("_pytest.assertion.rewrite"))
    except (ImportError, AttributeError) as error:
        began(beginning, str(error).encode())
        os._exit(1)
    for plugin in getattr(importlib.import_module("_pytest.config"), "default_plugins", ()):
        importlib.import_module(f"_pytest.{plugin}")
    patches = Patches()
    began(beginning, READY)
    put(files)
    sys.path += [os.path.abspath(root) for root in work["roots"]]
    sys.argv = ["pytest"]
    recorder = Recorder(work["tests"], patches, tell)
    code = pytest.main([*OPTIONS, *work["files"]], plugins=[recorder])
    tell(["end", int(code)])
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
