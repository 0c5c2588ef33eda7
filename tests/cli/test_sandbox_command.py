"""`guerdon sandbox`."""

from __future__ import annotations

import json
from typing import Any

import pytest
from engines import working
from typer.testing import CliRunner, Result

from guerdon.cli.main import application
from guerdon.resources.sandbox import Sandbox, probe


def run(*arguments: str) -> Result:
    return CliRunner().invoke(application("sandbox"), ["sandbox", *arguments])


@pytest.fixture
def nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without any engine."""
    monkeypatch.setattr(probe, "_found", {})
    monkeypatch.setattr(probe, "SEARCH_PATH", "/nowhere")
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(probe, "landlock_version", lambda: 0)


def test_what_works_is_listed() -> None:
    sandbox = working(Sandbox(), "auto")
    found = run()
    assert found.exit_code == 0
    assert f"{sandbox.engine.name} works, and is used by default" in found.output
    for line in sandbox.guarantees:
        assert f"  + {line}" in found.output
    for line in sandbox.weaknesses:
        assert f"  - {line}" in found.output


def test_json() -> None:
    sandbox = working(Sandbox(), "auto")
    found: dict[str, Any] = json.loads(run("--json").output)
    assert set(found) == {"bubblewrap", "landlock"}
    assert found[sandbox.engine.name] == {
        "works": True,
        "interpreter": sandbox.interpreter.path,
        "guarantees": list(sandbox.guarantees),
        "weaknesses": list(sandbox.weaknesses),
    }


@pytest.mark.usefixtures("nothing")
def test_without_any_it_says_what_to_install() -> None:
    found = run()
    assert found.exit_code == 1
    assert "bubblewrap does not work" in found.output
    assert "apt install bubblewrap" in found.output
    assert "landlock does not work" in found.output
    assert run("--json").exit_code == 1
