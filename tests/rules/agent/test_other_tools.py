"""Rollouts whose tools have other names than the reward expects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from guerdon import registry
from guerdon.errors import InvalidReward
from guerdon.resources import Context
from guerdon.rules.agent.replay import sent
from guerdon.sample import Message

GOLD = "insert into t values (1)"


def called(*calls: tuple[str, dict[str, Any]]) -> list[dict[str, Any]]:
    tool_calls = [{"name": name, "arguments": arguments} for name, arguments in calls]
    return [{"role": "assistant", "content": "", "tool_calls": tool_calls}]


def test_calls_of_other_tools_are_counted_and_named() -> None:
    turns = called(("bash", {"cmd": "ls"}), ("look", {}), ("bash", {"command": "ls"}))
    found = sent([Message.parse(turn) for turn in turns], "bash", "command")
    assert (found.texts, found.others, found.tools) == (("ls",), 2, ("bash", "look"))
    assert found.hint("bash", "command") == {}


@pytest.mark.parametrize(
    ("name", "call", "options", "row"),
    [
        (
            "database_state",
            ("execute_query", {"sql": GOLD}),
            {"tool": "execute_query", "argument": "sql"},
            {"dump": "create table t(n)", "ground_truth": GOLD},
        ),
        (
            "file_state",
            ("execute_bash", {"cmd": "echo 1 > a"}),
            {"tool": "execute_bash", "argument": "cmd"},
            {"ground_truth": {"a": "1"}},
        ),
    ],
)
def test_a_reward_says_that_its_tool_was_never_called(
    name: str, call: tuple[str, dict[str, Any]], options: dict[str, Any], row: dict[str, Any]
) -> None:
    given = {"response": called(call), **row}
    with Context() as context:
        missed = registry.resolve(name).call_sync(context=context, **given)
    assert (missed["score"], missed["metrics"]["other_calls"]) == (0.0, 1)
    assert f"calls are of: {call[0]}" in missed["info"]["message"]
    with Context() as context:
        met = registry.resolve(name, **options).call_sync(context=context, **given)
    assert (met["score"], met["metrics"]["other_calls"]) == (1.0, 0)
    assert "message" not in met["info"]


FILE = """from guerdon.resources import Spec
from guerdon.rules.agent.environment import Environment

class Always(Environment):
    def score(self):
        return 1.0

class AlwaysSpec(Spec[Always], frozen=True, kw_only=True):
    def make(self):
        return Always()
"""


def test_the_spec_of_an_environment_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "always.py"
    path.write_text(FILE)
    reward = registry.resolve("environment_score", spec=f"{path}:AlwaysSpec")
    with Context() as context:
        found = reward.call_sync(context=context, response=called())
        assert found["score"] == 1.0
    with pytest.raises(InvalidReward, match="AlwaysSpek"):
        registry.resolve("environment_score", spec=f"{path}:AlwaysSpek")
