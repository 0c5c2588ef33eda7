"""An environment of a user: a row of numbers is to be counted up to a goal."""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from typing import Any

from guerdon.outcome import Score
from guerdon.resources import Spec
from guerdon.rules.agent.environment import Environment


class Puzzle(Environment):
    def __init__(self, goal: int, broken: str, typed: bool) -> None:
        self.goal = goal
        self.broken = broken
        self.typed = typed

    def start(self) -> None:
        self.total = 0

    def reset(self) -> bool:
        self.total = 0
        return True

    def step(self, tool: str, arguments: Mapping[str, Any]) -> None:
        if self.broken:
            raise getattr(builtins, self.broken)("the simulator is gone")
        if tool != "add":
            raise ValueError(f"no tool {tool}")
        self.total += arguments["n"]

    def score(self) -> Mapping[str, Any] | Score:
        if self.typed:
            return Score(value=float(self.total == self.goal), info={"seen": "typed"})
        return {"score": float(self.total == self.goal), "metrics": {"total": self.total}}


class PuzzleSpec(Spec[Puzzle], frozen=True, kw_only=True):
    goal: int
    broken: str = ""
    typed: bool = False

    def make(self) -> Puzzle:
        return Puzzle(self.goal, self.broken, self.typed)
