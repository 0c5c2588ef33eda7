"""Running out of memory is no verdict."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from guerdon.rules.math import engine


def library(error: Exception) -> Any:
    def equal(*_: Any) -> bool:
        raise error

    return SimpleNamespace(is_value=lambda _: True, is_formula=lambda _: False, equal=equal)


def test_running_out_of_memory_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_library", lambda: library(MemoryError()))
    with pytest.raises(MemoryError):
        engine._same("gold", "answer")


def test_other_errors_are_no_match_as_in_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_library", lambda: library(TypeError()))
    assert engine._same("gold", "answer") is False


def test_no_stage_swallows_it() -> None:
    lines = Path(engine.__file__).read_text(encoding="utf-8").splitlines()
    swallowing = [i for i, line in enumerate(lines) if line.strip().startswith("except Exception")]
    assert swallowing
    for i in swallowing:
        assert lines[i - 2].strip() == "except MemoryError:", f"line {i + 1}"
        assert lines[i - 1].strip().startswith("raise")
