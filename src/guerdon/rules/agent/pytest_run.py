"""Runs named tests over files in the sandbox, with tests among them that must fail."""

from __future__ import annotations

import hmac
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from guerdon.errors import Unavailable
from guerdon.resources.inside.parcel import pack
from guerdon.resources.sandbox import Command, Limits, Sandbox
from guerdon.resources.sandbox.bundle import START, compiled
from guerdon.resources.sandbox.files import Blobs
from guerdon.resources.sandbox.limits import MIB
from guerdon.rules.agent.inside.named_tests import READY, signed

MODULES = (
    "guerdon.resources.inside.parcel",
    "guerdon.resources.inside.workspace",
    "guerdon.rules.agent.inside.equality",
    "guerdon.rules.agent.inside.patches",
    "guerdon.rules.agent.inside.named_tests",
)

PASSED = {"setup": "passed", "call": "passed", "teardown": "passed"}
"""What the parts of a test that passed report, each once."""

CONTROLS = Path(__file__).with_name("controls.txt")
"""Tests that fail wherever tests can fail; they run before and after the named ones."""

SHOWN = 500
"""Characters of pytest's output that are kept."""

MOST_TOLD = 64 * MIB
"""Of what was told; what comes behind it counts as not told."""


class TestRun(msgspec.Struct, frozen=True, kw_only=True):
    """How the tests ended.

    Attributes:
        status: `ended`; `forged` where a test that must fail did not, or a function that decides
            about tests was replaced; `broken` where no test ran; `cut` where pytest did not reach
            its end; or a status of the sandbox, such as `timeout`.
        passed: the tests that passed; none unless it ended.
        message: why the first test failed, or else the end of what pytest printed.
    """

    __test__ = False

    status: str
    passed: frozenset[str] = frozenset()
    message: str = ""


def pytest_folder() -> tuple[str, ...]:
    """The folder from which this process imports pytest; none where it cannot."""
    found = find_spec("pytest")
    return () if found is None or found.origin is None else (str(Path(found.origin).parents[1]),)


def run_tests(
    sandbox: Sandbox,
    files: Mapping[str, bytes],
    tests: Sequence[str],
    *,
    packages: Sequence[str],
    roots: Sequence[str],
    limits: Limits,
) -> TestRun:
    """Run tests by their names; blocks.

    Args:
        sandbox: where.
        files: all files, those of the tests included.
        tests: their names, as pytest writes them.
        packages: folders from which tests and files may import; pytest is in one of them.
        roots: folders among the files from which they may be imported.
        limits: of the run.

    Raises:
        Unavailable: the sandbox failed, or pytest is not in it.
    """
    secret = secrets.token_bytes(32)
    controls = _controls()
    names = [[*_names(file, text)] for file, text in controls.items()]
    wanted = [*names[0], *tests, *names[1]]
    paths = dict.fromkeys(name.partition("::")[0] for name in wanted)
    work = {
        "secret": secret.hex(),
        "packages": list(packages),
        "roots": list(roots),
        "files": list(paths),
        "tests": wanted,
    }
    everything = {**files, **{name: text.encode() for name, text in controls.items()}}
    told = os.memfd_create("guerdon-told", os.MFD_CLOEXEC)
    beginning = os.memfd_create("guerdon-began", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with Blobs() as blobs:
            rows = [(name, data, False) for name, data in everything.items()]
            room = sum(len(name) * 4 + len(data) + 64 for name, data in everything.items())
            given = blobs.add(json.dumps(work).encode() + b"\n" + pack(rows, room))
            interpreter = sandbox.interpreter
            program = blobs.add(compiled(interpreter, *MODULES))
            source = START.replace("open(0,", f"open({program},")
            command = Command(
                argv=(*interpreter.argv, "-c", source, str(given), str(beginning), str(told)),
                descriptors=(given, program, beginning, told),
                readable=tuple(packages),
            )
            result = sandbox.run(command, limits).check()
        began = os.pread(beginning, SHOWN, 0)
        said = verdicts(os.pread(told, MOST_TOLD, 0), secret)
    finally:
        os.close(beginning)
        os.close(told)
    if began != READY:
        reason = began.decode(errors="replace") or result.last_error
        raise Unavailable(
            f"pytest cannot be imported in the sandbox ({reason}): install it beside guerdon "
            "(pip install pytest), or give packages=, the folder that has it"
        )
    message = result.text
    for name in controls:
        message = message.replace(name, "CONTROL")
    message = message[-SHOWN:]
    if not said or said[-1][0] != "end":
        return TestRun(
            status=str(result.status) if result.exit_code is None else "cut", message=message
        )
    ends: dict[str, list[tuple[str, str, str]]] = {}
    for name, phase, outcome, why in (entry for entry in said if len(entry) == 4):
        ends.setdefault(name, []).append((phase, outcome, why))
    if not ends:
        return TestRun(status="broken", message=message)
    if any(_outcomes(ends, name).get("call") != "failed" for name in (*names[0], *names[1])):
        return TestRun(status="forged", message=message)
    replaced = [entry[1] for entry in said if entry[0] == "replaced"]
    if replaced != [""]:
        return TestRun(status="forged", message=f"replaced: {', '.join(replaced)}")
    whys = (why for name in tests for _, _, why in ends.get(name, ()) if why)
    return TestRun(
        status="ended",
        passed=frozenset(name for name in tests if _outcomes(ends, name) == PASSED),
        message=next(whys, ""),
    )


def _outcomes(ends: Mapping[str, list[tuple[str, str, str]]], name: str) -> Mapping[str, str]:
    """How each part of a test ended; empty where one is told twice."""
    told = ends.get(name, [])
    parts = {phase: outcome for phase, outcome, _ in told}
    return parts if len(parts) == len(told) else {}


def verdicts(data: bytes, secret: bytes) -> list[list[Any]]:
    """What was said with the secret, up to the first line without it."""
    said: list[list[Any]] = []
    start = 0
    while (end := data.find(b"\n", start) + 1) > 0:
        line, start = data[start:end], end
        text = line[65:-1].decode("utf-8", "replace")
        expected = signed(secret, len(said), text).encode()
        if not hmac.compare_digest(line, expected):
            break
        said.append(json.loads(text))
    return said


def _controls() -> dict[str, str]:
    """Two files of tests that must fail, under names that nobody can know."""
    text = CONTROLS.read_text(encoding="utf-8")
    mark = "TEST"
    made: dict[str, str] = {}
    for _ in range(2):
        word = secrets.token_hex(8)
        made[f"test_{word}.py"] = text.replace(mark, secrets.token_hex(6))
    return made


def _names(file: str, text: str) -> list[str]:
    lines = text.splitlines()
    found: list[str] = []
    owner = ""
    for line in lines:
        if line.startswith("class "):
            owner = line.removeprefix("class ").partition("(")[0] + "::"
        elif line.startswith("def test_"):
            found.append(f"{file}::" + line.removeprefix("def ").partition("(")[0])
        elif line.startswith("    def test_"):
            found.append(f"{file}::{owner}" + line.strip().removeprefix("def ").partition("(")[0])
    return found
