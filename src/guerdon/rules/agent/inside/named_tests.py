"""Runs pytest over files that a stranger changed, and says how each test ended.

    WORK DESCRIPTOR, VERDICTS DESCRIPTOR

The work is a line of JSON and then the files. Pytest is imported before the files are there, and
they come last on the path of modules, so that none of them stands in for a module of pytest or of
the standard library. Each verdict is signed and numbered with a secret that is not on the channel.
"""

from __future__ import annotations

import hmac
import json
import os
import sys

from guerdon.resources.inside.parcel import unpack
from guerdon.resources.inside.workspace import put

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

    def __init__(self, wanted: list[str], tell: Callable[[list[Any]], None]) -> None:
        self._place = {test: place for place, test in enumerate(wanted)}
        self._tell = tell

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        """Keep the wanted tests."""
        place = self._place
        items[:] = sorted(
            (item for item in items if item.nodeid in place), key=lambda item: place[item.nodeid]
        )

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Tell how a part of a test ended."""
        why = "" if report.passed else str(report.longreprtext)[-SHOWN:]
        self._tell([report.nodeid, report.when, report.outcome, why])


def main() -> None:
    """Run the tests."""
    given, told = map(int, sys.argv[1:3])
    for descriptor in (given, told):
        os.set_inheritable(descriptor, False)
    with open(given, "rb") as file:
        work = json.loads(file.readline())
        files = unpack(file.read())
    tell = teller(told, bytes.fromhex(work.pop("secret")))
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    sys.path = [path for path in sys.path if path] + work["packages"]
    try:
        import pytest
    except ImportError as error:
        tell(["missing", str(error)])
        os._exit(1)
    tell(["ready"])
    put(files)
    sys.path += [os.path.abspath(root) for root in work["roots"]]
    sys.argv = ["pytest"]
    code = pytest.main([*OPTIONS, *work["files"]], plugins=[Recorder(work["tests"], tell)])
    tell(["end", int(code)])
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
