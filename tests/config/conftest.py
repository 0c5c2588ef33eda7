"""Shared by the tests of configurations."""

from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

from guerdon import registry, source_file
from guerdon.config import ServiceConfig, load

REWARDS = """
from typing import Literal
from guerdon.backends.inline import InlineBackend
from guerdon.policy import Policy
from guerdon.reward import BaseReward, reward


@reward(name="cfg_exact", value_range=(0.0, 1.0))
def exact(response: str, ground_truth: str, *, method: Literal["strict", "loose"] = "strict",
          scale: float = 1.0, tags: tuple[str, ...] = ()) -> float:
    "Equal."
    same = response == ground_truth if method == "strict" else ground_truth in response
    return scale * same


@reward(name="cfg_tidy", value_range=(0.0, 1.0))
def tidy(response: str) -> bool:
    return response == response.strip()


class CfgLength(BaseReward):
    value_range = (0.0, 1.0)

    def __init__(self, limit: int, inner: BaseReward | None = None) -> None:
        self.limit = limit
        self.inner = inner

    def call(self, *, response: str) -> bool:
        return len(response) <= self.limit

    @classmethod
    def short(cls) -> "CfgLength":
        return cls(3)


def make_length(limit: int = 2) -> CfgLength:
    return CfgLength(limit)


def make_policy() -> Policy:
    return Policy(on={"data": "mask"})


def make_backend() -> InlineBackend:
    return InlineBackend()


def lying_factory() -> CfgLength:
    return 3


class Foreign:
    calls = []

    def __init__(self, **options):
        self.calls.append(options)


def plain(solution_str, ground_truth, scale=1.0):
    return scale * float(solution_str == ground_truth)


def rest(response, **others):
    return 1.0
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a file of rewards; their names are free again after the test."""
    # Workers of a pool load every file that this process has loaded: those of this test only.
    monkeypatch.setattr(registry, "_definitions", dict(registry._definitions))
    monkeypatch.setattr(registry, "_routes", {})
    monkeypatch.setattr(source_file, "_files", {})
    (tmp_path / "rewards.py").write_text(REWARDS, encoding="utf-8")
    return tmp_path


@pytest.fixture
def load_text(folder: Path) -> Callable[..., ServiceConfig]:
    """Load a YAML text as the file service.yaml beside rewards.py, whose rewards are registered."""

    def load_yaml(text: str, **environment: str) -> ServiceConfig:
        registry.load_file(str(folder / "rewards.py"))
        path = folder / "service.yaml"
        path.write_text(dedent(text), encoding="utf-8")
        return load(path, environment=environment)

    return load_yaml
