"""Rewards for agents, beyond the cases that they ship: AgentFly's settings, attacks, bad rows."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from engines import working
from hypothesis import given
from hypothesis import strategies as st

from guerdon.errors import BadInput, FailureKind, InvalidReward
from guerdon.outcome import Failure
from guerdon.policy import Policy
from guerdon.resources import Context, SqliteSpec, WorkspaceSpec
from guerdon.resources.sandboxes import sandbox_of
from guerdon.rules.agent import chess_engine, running
from guerdon.rules.agent.chess_puzzle import ChessPuzzle
from guerdon.rules.agent.database_state import DatabaseState
from guerdon.rules.agent.environment import EnvironmentScore
from guerdon.rules.agent.file_state import FileState
from guerdon.rules.agent.gui_action import gui_action, read_action, word_f1
from guerdon.rules.agent.program_reward import ProgramRuns
from guerdon.rules.agent.replay import Spoilt
from guerdon.rules.agent.tool_use import ToolUse
from guerdon.sample import Sample
from guerdon.service import RewardService

MASKED = Policy(on=dict.fromkeys(("scorer", "infrastructure", "data"), "mask"))


@pytest.fixture
def sandboxed() -> None:
    """Skips where no sandbox is installed."""
    working(sandbox_of("auto"), "auto")


def said(*messages: tuple[str, str]) -> list[dict[str, Any]]:
    roles = {"a": "assistant", "t": "tool"}
    return [{"role": roles[role], "content": text} for role, text in messages]


def called(tool: str, argument: str, *values: Any) -> list[dict[str, Any]]:
    calls = [{"name": tool, "arguments": {argument: value}} for value in values]
    return [{"role": "assistant", "content": "", "tool_calls": calls}]


def outcome_of(reward: Any, **fields: Any) -> Any:
    with RewardService(reward, policy=MASKED) as service:
        return service.score_sync([Sample(**fields)])[0]


# Using tools: AgentFly's rewards as settings.

RIGHT, WRONG = ("a", "A: 9"), ("a", "A: 8")
TOOL = ("t", "9")
FORMAT = {
    "rule": "search_r1",
    "options": {"format_score": 0.1},
    "floor": 0.0,
    "turn_form": "think_block_before_last",
}


@pytest.mark.parametrize(
    ("options", "turns", "value"),
    [
        # math_equal_reward_tool: 0 without a tool, 0.1 with one, 1 if right
        ({}, [RIGHT], 0.0),
        ({}, [TOOL, WRONG], 0.1),
        ({}, [TOOL, RIGHT], 1.0),
        # math_reward_thought_with_tool
        ({"turn_form": "thought"}, [("a", "Thought: look"), TOOL, RIGHT], 0.0),
        ({"turn_form": "thought"}, [("a", "Thought: look"), TOOL, ("a", "thought\nA: 9")], 1.0),
        # math_equal_reward_think
        ({"turn_form": "think_block"}, [TOOL, ("a", "<think>x</think>A: 9")], 1.0),
        ({"turn_form": "think_block"}, [TOOL, ("a", "</think><think>A: 9")], 0.0),
        # qa_em_format_reward, as it was meant
        (FORMAT, [("a", "<think>x</think>"), TOOL, ("a", "<answer>9</answer>")], 1.0),
        (FORMAT, [("a", "<think>x</think>"), TOOL, ("a", "<answer>8</answer>")], 0.1),
        (FORMAT, [("a", "<think>x</think>"), TOOL, ("a", "9")], 0.0),
        (FORMAT, [("a", "look"), TOOL, ("a", "<answer>9</answer>")], 0.0),
        (FORMAT, [("a", "<think>x</think><answer>9</answer>")], 0.0),
        # qa_f1_reward_tool: two tool messages
        ({"rule": "qa_f1", "calls": 2, "floor": 0.0}, [TOOL, ("a", "9")], 0.0),
        ({"rule": "qa_f1", "calls": 2, "floor": 0.0}, [TOOL, TOOL, ("a", "9")], 1.0),
        # infoseek_reward: 0.2 for two tool messages + 0.8 F1
        ({"rule": "qa_f1", "calls": 2, "floor": 0.2, "condition": False}, [("a", "9")], 0.8),
        ({"rule": "qa_f1", "calls": 2, "floor": 0.2, "condition": False}, [TOOL, TOOL, WRONG], 0.2),
    ],
)
def test_agentflys_tool_rewards(options: Any, turns: Any, value: float) -> None:
    result = ToolUse(**options).call_sync(response=said(*turns), ground_truth="9")
    assert result["score"] == pytest.approx(value)


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        ({"answer": "The Eiffel Tower"}, 1.0),
        ('{"answer": "eiffel tower"}', 1.0),
        ({"answer": "Louvre"}, 0.0),
        ({"other": "Eiffel tower"}, 0.0),
        ("{broken", 0.0),
        ({"answer": ["Eiffel tower"]}, 0.0),
    ],
)
def test_the_answer_of_the_last_tool_call(arguments: Any, value: float) -> None:
    reward = ToolUse("qa_em", calls=0, floor=0.0, answer_from="last_call")
    call = {"name": "finish", "arguments": arguments}
    turns = [{"role": "assistant", "content": "", "tool_calls": [call]}]
    result = reward.call_sync(response=turns, ground_truth="Eiffel Tower")
    assert result["score"] == value


def test_a_rollout_that_ends_with_a_tool_has_no_answer() -> None:
    reward = ToolUse("gsm8k")
    cut = said(RIGHT, TOOL)
    assert reward.call_sync(response=cut, ground_truth="9")["score"] == pytest.approx(0.1)
    assert reward.call_sync(response=said(TOOL, RIGHT), ground_truth="9")["score"] == 1.0


def test_only_the_named_tool_counts() -> None:
    reward = ToolUse(tool="search")
    turns = [{"role": "tool", "name": "clock", "content": "9"}, *said(RIGHT)]
    assert reward.call_sync(response=turns, ground_truth="9")["score"] == 0.0
    turns[0]["name"] = "search"
    assert reward.call_sync(response=turns, ground_truth="9")["score"] == 1.0


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"floor": 2.0}, "floor"),
        ({"calls": -1}, "calls"),
        ({"turn_form": "odd"}, "turn_form"),
        ({"answer_from": "odd"}, "answer_from"),
        ({"rule": "math_dapo"}, "range"),
    ],
)
def test_settings_that_cannot_be(options: Any, told: str) -> None:
    with pytest.raises(InvalidReward, match=told):
        ToolUse(**options)


# Screens.


@pytest.mark.parametrize(
    ("text", "kind", "point", "content"),
    [
        ("click(start_box='(1,2)')", "click", (1.0, 2.0), ""),
        ('drag(start_box="[0,0,2,4]", end_box="(9,9)")', "drag", (1.0, 2.0), ""),
        (r"type(content='it\'s\n(1,2)')", "type", None, "it's\n(1,2)"),
        ("hotkey(key='ctrl c')", "hotkey", None, "ctrl c"),
        ("wait()", "wait", None, ""),
        ("finished(content='Action: wait()')", "finished", None, "Action: wait()"),
    ],
)
def test_actions_that_can_be_read(text: str, kind: str, point: Any, content: str) -> None:
    action = read_action(text if kind == "finished" else f"Thought: so\nAction: {text}")
    if kind == "finished":  # the last marker counts, even inside a text
        action = read_action(text.replace("Action: ", ""))
        content = "wait()"
    assert action is not None
    assert (action.kind, action.point, action.text) == (kind, point, content)


@pytest.mark.parametrize(
    "text",
    ["", "click", "click(", "click('x')", "click(a=1)", "click(start_box='1", "Click(x='1')",
     "click(start_box='(1,2)'", "__import__('os').system('x')", "<think>wait()"],
)  # fmt: skip
def test_what_is_no_action(text: str) -> None:
    assert read_action(text) is None


@given(st.text())
def test_any_text_is_read_or_not(text: str) -> None:
    for response in (text, f"Action: click(start_box='{text}')", f"type(content={text!r})"):
        assert 0.0 <= gui_action.call_sync(
            response=response, ground_truth={"action": "click", "bbox": [0.5, 0.5]}
        )["score"] <= 1.0  # fmt: skip


def test_a_hostile_text_takes_linear_time() -> None:
    began = time.perf_counter()
    for piece in ("Action:", "Action: click(", "(1,", "a='", "\\"):
        read_action(piece * (2_000_000 // len(piece)))
        read_action(f"click(start_box='{piece * (2_000_000 // len(piece))}')")
    assert time.perf_counter() - began < 5.0


def test_agentflys_columns() -> None:
    row = {"gt_action": "left_single", "gt_bbox": [0.1, 0.2], "gt_input_text": "no input text"}
    assert (
        gui_action.call_sync(response="click(point='<point>100 200</point>')", **row)["score"] == 1
    )
    assert gui_action.call_sync(response="click(point='<point>100 900</point>')", **row)[
        "score"
    ] == pytest.approx(0.6)
    assert word_f1("", "...") == 1.0
    assert word_f1("Cheap  flights!", "cheap flights") == 1.0


BOX = {"action": "click", "bbox": [0.2, 0.4, 0.4, 0.6]}
PIXELS = {"action": "click", "bbox": [384, 432, 768, 648]}


@pytest.mark.parametrize(
    ("options", "response", "truth", "value"),
    [
        ({"scale": 1.0}, "click(point='(0.3, 0.5)')", BOX, 1.0),
        ({"scale": "screen"}, "click(point='(576,540)')", BOX, 1.0),
        ({"scale": "screen"}, "click(point='(300,500)')", BOX, 0.6),
        ({"scale": "screen", "truth_scale": "screen"}, "tap(point='(576,540)')", PIXELS, 1.0),
        ({"truth_scale": 1000}, "click(point='(300,500)')",
         {"action": "tap", "bbox": [300, 500]}, 1.0),
        ({}, "click(point='(390,590)')", BOX, 0.6),
        ({"hit": "inside"}, "click(point='(390,590)')", BOX, 1.0),
        ({"hit": "inside"}, "click(point='(410,590)')", BOX, 0.6),
        ({}, "right_single(point='(300,500)')", BOX, 1.0),
        ({"clicks": "apart"}, "right_single(point='(300,500)')", BOX, 0.2),
        ({"clicks": "apart"}, "left_click(point='(300,500)')", BOX, 1.0),
        ({}, "input_text(content='a b')", {"action": "type", "text": "A, b"}, 1.0),
        ({}, "press(key='ctrl c')", {"action": "hotkey", "text": "ctrl c"}, 1.0),
        ({"format_weight": 0.0}, "wait()", BOX, 0.0),
        ({}, "drag(start_box='(300,500)', end_box='(1,1)')", {**BOX, "action": "drag"}, 1.0),
        ({}, "drag(start_box='(900,500)', end_box='(300,500)')", {**BOX, "action": "swipe"}, 0.6),
        ({}, "type(direction='a b')", {"action": "type", "text": "a b"}, 0.6),
        ({}, "scroll(content='up')", {"action": "scroll", "text": "up"}, 0.6),
        ({}, "hotkey(hotkey='ctrl c')", {"action": "press", "text": "ctrl c"}, 1.0),
        ({}, "finished(content='yes')", {"action": "finished", "text": "yes"}, 1.0),
        ({}, "drag()", {**BOX, "action": "drag"}, 0.6),
        ({}, "type(content='a')", {"action": "type", "text": "a", "bbox": [-100] * 4}, 1.0),
    ],
)  # fmt: skip
def test_conventions_of_screens(options: Any, response: str, truth: Any, value: float) -> None:
    found = gui_action.bind(**options).call_sync(
        response=response, ground_truth=truth, screen=[1920, 1080]
    )
    assert found["score"] == pytest.approx(value)


@pytest.mark.parametrize("screen", [None, 5, [1920], [0, 1], ["a", 1], [float("nan"), 1]])
def test_pixels_need_the_size_of_the_screen(screen: Any) -> None:
    with pytest.raises(BadInput, match="screen"):
        gui_action.bind(scale="screen").call_sync(
            response="wait()", ground_truth=BOX, screen=screen
        )


@pytest.mark.parametrize(
    "options",
    [
        {"scale": 0},
        {"scale": "x"},
        {"truth_scale": float("nan")},
        {"hit": "x"},
        {"clicks": "x"},
        {"format_weight": 2.0},
    ],
)
def test_options_of_screens_that_cannot_be(options: Any) -> None:
    with pytest.raises(InvalidReward):
        gui_action.bind(**options).call_sync(response="wait()", ground_truth=BOX)


def test_how_an_action_went_wrong_is_told() -> None:
    said = ("wait(", "wait()", "click(point='(9,9)')", "click(point='(300,500)')")
    found = [
        gui_action.call_sync(response=text, ground_truth=BOX)["info"]["status"] for text in said
    ]
    assert found == ["no_action", "other_action", "other_parameters", "right"]


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"ground_truth": "click"},
        {"ground_truth": {"bbox": [0.1, 0.1]}},
        {"ground_truth": {"action": "click", "bbox": [100, 200]}},
        {"ground_truth": {"action": "click", "bbox": ["a", "b"]}},
        {"ground_truth": {"action": "drag", "bbox": [-100] * 4}},
        {"ground_truth": {"action": 5}},
    ],
)
def test_rows_of_screens_that_cannot_be_scored(row: Any) -> None:
    with pytest.raises(BadInput):
        gui_action.call_sync(response="wait()", **row)


# Databases.

DUMP = "create table t(n, s); insert into t values (1, 'a'), (2, 'b');"
ENDLESS = "with recursive c(x) as (select 1 union all select x + 1 from c)"
GOLD = "update t set s = 'c' where n = 2"


def database(*statements: str, truth: Any = GOLD, **options: Any) -> Any:
    return outcome_of(
        DatabaseState(**options),
        response=called("sql", "query", *statements),
        ground_truth=truth,
        metadata={"dump": DUMP},
    )


@pytest.mark.usefixtures("sandboxed")
@pytest.mark.parametrize(
    "statements",
    [
        ["create temp table t as select 1 as n, 'a' as s union all select 2, 'c'"],
        ["begin", GOLD],
        ["savepoint p", GOLD],
        ["attach ':memory:' as o", "create table o.t(n, s)", "insert into o.t values (2, 'c')"],
        ["alter table t rename to hidden", "create view t as select 2 as n, 'c' as s"],
        ["drop table t"],
        [GOLD, "create table extra(n)"],
        ["pragma writable_schema = on", "update sqlite_master set sql = 'broken'"],
        [f"{ENDLESS} insert into t select x, 1 from c"],
        ["select zeroblob(2000000000)"],
        ["\0", "\ud800", ""],
    ],
)  # fmt: skip
def test_tricks_do_not_make_the_wanted_state(statements: list[str]) -> None:
    assert database(*statements, statement_seconds=1.0).value == 0.0
    checks = {"checks": [{"sql": "select s from t where n = 2", "rows": [["c"]]},
                         {"sql": "select count(*) from t", "rows": [[2]]}]}  # fmt: skip
    found = database(*statements, truth=checks, statement_seconds=1.0)
    assert found.value == (1.0 if "extra" in str(statements) else 0.0)


@pytest.mark.usefixtures("sandboxed")
@pytest.mark.parametrize(
    ("row", "value"),
    [([2, "b"], 1.0), ([2.0, "b"], 1.0), (["2", "b"], 0.0), ([2.5, "b"], 0.0), ([2], 0.0),
     ([2, None], 0.0)],
)  # fmt: skip
def test_rows_of_a_check_are_compared_by_value(row: list[Any], value: float) -> None:
    truth = {"checks": [{"sql": "select n, s from t where n > 1", "rows": [row]}]}
    assert database(truth=truth).value == value


@pytest.mark.usefixtures("sandboxed")
def test_true_is_what_sqlite_has_for_it() -> None:
    truth = {"checks": [{"sql": "select n > 1 from t order by n", "rows": [[True], [False]]}]}
    assert database(truth=truth).value == 1.0


@pytest.mark.usefixtures("sandboxed")
def test_a_share_of_checks() -> None:
    checks = {"checks": [{"sql": "select s from t where n = 2", "rows": [["c"]]},
                         {"sql": "select count(*) from t", "rows": [[3]]}]}  # fmt: skip
    assert database(GOLD, truth=checks).value == 0.0
    assert database(GOLD, truth=checks, credit="fraction").value == 0.5


@pytest.mark.usefixtures("sandboxed")
@pytest.mark.parametrize(
    ("truth", "told"),
    [
        ("selec", "statements of the ground truth fail"),
        ({"checks": [{"sql": "select nothing", "rows": []}]}, "check 'select nothing' fails"),
        ({"checks": [{"sql": 1, "rows": []}]}, "a check has sql and rows"),
        ({"checks": [{"sql": "select 1", "rows": [1]}]}, "are lists"),
        ({"checks": []}, "neither SQL nor"),
        (5, "neither SQL nor"),
        (None, "ground_truth"),
    ],
)
def test_truths_that_are_none(truth: Any, told: str) -> None:
    lost = database(GOLD, truth=truth)
    assert isinstance(lost, Failure)
    assert lost.kind is FailureKind.BAD_INPUT
    assert told in lost.message


@pytest.mark.usefixtures("sandboxed")
def test_the_database_that_the_callers_tools_changed() -> None:
    sample = Sample(response="Done.", ground_truth=GOLD, metadata={"dump": DUMP})
    with Context("rollout") as context, RewardService(DatabaseState(replay=False)) as service:
        assert service.score_sync([sample], context=context).values.tolist() == [0.0]
        tool = context.acquire_resource_sync(SqliteSpec(dump=DUMP, name="candidate"))
        tool.query(GOLD)
    with Context("rollout") as context, RewardService(DatabaseState(replay=False)) as service:
        tool = context.acquire_resource_sync(SqliteSpec(dump=DUMP, name="candidate"))
        tool.query(GOLD)
        assert service.score_sync([sample], context=context).values.tolist() == [1.0]


# Files.


def files(*commands: str, truth: Any, credit: str = "all") -> Any:
    return outcome_of(
        FileState(credit=credit, command_seconds=1.0),  # type: ignore[arg-type]
        response=called("bash", "command", *commands),
        ground_truth=truth,
        metadata={"files": {"a.txt": "one", "d/b": "two"}},
    )


@pytest.mark.usefixtures("sandboxed")
@pytest.mark.parametrize(
    ("commands", "truth", "value"),
    [
        (["mv a.txt c.txt"], {"a.txt": None, "c.txt": "one\n"}, 1.0),
        (["echo three >> d/b"], {"d/b": {"contains": "three"}}, 1.0),
        (["rm a.txt; sleep 60"], {"a.txt": None}, 0.0),
        (["ln -s /etc/passwd p"], {"p": {"contains": "root"}}, 0.0),
        (["ln -s d/b c"], {"c": "two"}, 0.0),
        (["mkdir c"], {"c": None}, 1.0),
        (["printf ' 1' > c"], {"c": "1"}, 0.0),
        (["printf '1\\n\\n' > c"], {"c": "1"}, 0.0),
        (["printf 1 > c"], {"c": "1\n"}, 1.0),
        (["x\0", "echo 1 > c"], {"c": "1"}, 1.0),
        (["(sleep 0.1; echo x > late) & true"], {"late": "x"}, 0.0),
        (["yes > big", "echo 1 > c"], {"c": "1"}, 0.0),  # its disk stays full
        (["yes > big", "rm big", "echo 1 > c"], {"c": "1"}, 1.0),
        (["kill -9 -1", "echo 1 > c"], {"c": "1", "a.txt": "one"}, 1.0),
    ],
)
def test_files_that_commands_leave(commands: list[str], truth: Any, value: float) -> None:
    assert files(*commands, truth=truth).value == value


def test_all_commands_share_one_time() -> None:
    reward = FileState(command_seconds=30.0, total_seconds=5.0)
    assert all(0 < seconds <= 5.0 for _, seconds in reward.timed(["a", "b"]))
    with pytest.raises(Spoilt, match="more than 1e-09 s"):
        list(FileState(total_seconds=1e-9).timed(["a"]))


@pytest.mark.usefixtures("sandboxed")
def test_a_share_of_files() -> None:
    truth = {"a.txt": None, "d/b": "two"}
    assert files(truth=truth, credit="fraction").value == 0.5
    found = files(truth=truth)
    assert (found.value, found.info["differs"]) == (0.0, ["a.txt"])


@pytest.mark.usefixtures("sandboxed")
@pytest.mark.parametrize(
    "truth", [{}, "a", {"a": 1}, {"a": {"contains": 1}}, {"../a": "x"}, {"": "x"}, {5: "x"}]
)
def test_truths_of_files_that_are_none(truth: Any) -> None:
    assert files(truth=truth).kind is FailureKind.BAD_INPUT


@pytest.mark.usefixtures("sandboxed")
def test_the_workspace_that_the_callers_tools_changed() -> None:
    sample = Sample(response="Done.", ground_truth={"c": "1"}, metadata={"files": {"a": "x"}})
    with Context("rollout") as context, RewardService(FileState(replay=False)) as service:
        tool = context.acquire_resource_sync(WorkspaceSpec(files={"a": b"x"}, name="candidate"))
        tool.run(("sh", "-c", "echo 1 > c"))
        assert service.score_sync([sample], context=context).values.tolist() == [1.0]


# Environments.

PUZZLE = "rules.agent.puzzle:PuzzleSpec"


def puzzle(*numbers: Any, **options: Any) -> Any:
    return outcome_of(
        EnvironmentScore(PUZZLE, columns=["goal"], **options),
        response=called("add", "n", *numbers),
        metadata={"goal": 5},
    )


def test_what_an_environment_says() -> None:
    assert puzzle(2, 3).value == 1.0
    assert "illegal_step" not in puzzle(2, 3).info
    found = puzzle(2, 2, "x")
    assert (found.value, found.metrics) == (0.0, {"total": 4.0, "illegal_steps": 1.0})
    assert found.info["illegal_step"].startswith("add: TypeError: unsupported operand")


def test_an_environment_may_give_a_score() -> None:
    found = puzzle(2, 3, "x", fields={"typed": True})
    assert (found.value, found.metrics) == (1.0, {"illegal_steps": 1.0})
    assert found.info["seen"] == "typed"
    assert "TypeError" in found.info["illegal_step"]


def test_two_rows_are_two_environments_and_each_is_reset() -> None:
    samples = [
        Sample(response=called("add", "n", n), metadata={"goal": goal})
        for n, goal in ((5, 5), (5, 7), (7, 7), (5, 5))
    ]
    with RewardService(EnvironmentScore(PUZZLE, columns=["goal"])) as service:
        assert service.score_sync(samples).values.tolist() == [1.0, 0.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ("OSError", FailureKind.UNAVAILABLE),
        ("TimeoutError", FailureKind.UNAVAILABLE),
        ("MemoryError", FailureKind.CRASHED),
        ("ImportError", FailureKind.RAISED),
        ("NameError", FailureKind.RAISED),
        ("NotImplementedError", FailureKind.RAISED),
    ],
)
def test_an_environment_that_breaks_is_a_failure(error: str, kind: FailureKind) -> None:
    lost = puzzle(1, fields={"broken": error})
    assert lost.kind is kind
    assert "the simulator is gone" in lost.message


@pytest.mark.parametrize("error", ["ValueError", "KeyError", "AttributeError", "RecursionError"])
def test_an_illegal_step_is_the_candidates(error: str) -> None:
    found = puzzle(5, fields={"broken": error})
    assert (found.value, found.metrics["illegal_steps"]) == (0.0, 1.0)


def test_rows_of_environments_that_cannot_be_scored() -> None:
    reward = EnvironmentScore(PUZZLE, columns=["goal"])
    assert outcome_of(reward, response="x").kind is FailureKind.BAD_INPUT
    other = EnvironmentScore(PUZZLE, columns=["level"])
    lost = outcome_of(other, response="x", metadata={"level": 1})
    assert "level" in lost.message


@pytest.mark.parametrize("spec", ["", "puzzle", "nowhere:Spec", "rules.agent.puzzle:Puzzle"])
def test_specs_that_are_none(spec: str) -> None:
    with pytest.raises(InvalidReward, match="spec"):
        EnvironmentScore(spec)


# Programs: what AgentFly's code_reward_test gave 1.0 for.


@pytest.mark.usefixtures("sandboxed")
@pytest.mark.parametrize(
    "code", ["raise ValueError", "assert False", "undefined", "while True: pass"]
)
def test_agentfly_programs_that_fail_earn_nothing(code: str) -> None:
    assert ProgramRuns(run_seconds=1.0).call_sync(response=code)["score"] == 0.0


@pytest.mark.usefixtures("sandboxed")
def test_agentfly_right_programs_run() -> None:
    code = "import os\ndef f(n): return n * f(n - 1) if n else 1\nprint(f(5), os.sep)"
    result = ProgramRuns().call_sync(response=f"```python\n{code}\n```")
    assert (result["score"], result["info"]["stdout"]) == (1.0, "120 /\n")


@pytest.mark.usefixtures("sandboxed")
def test_a_program_that_is_too_long_to_run_is_the_candidates_fault() -> None:
    found = ProgramRuns().call_sync(response="x = 1\n" + "#" * 80_000_000)
    assert found["score"] == 0.0
    assert found["info"]["stderr"].startswith("a program of 80000006 bytes")


@pytest.mark.usefixtures("sandboxed")
@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"files": {"a": "AAAAAAAA", "b": "AAAAAAAA"}}, "files of 12 bytes"),
        ({"run_timeout": 61}, "61 s were asked for"),
        ({"memory_limit_MB": 5000}, "5000 MiB were asked for"),
        ({"language": "perl"}, "'perl'"),
    ],
)
def test_requests_that_ask_for_too_much(
    asked: Any, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "MOST_FILES", 8)
    request = {"code": "print(1)", "language": "python", **asked}
    with pytest.raises(BadInput, match=told):
        ProgramRuns().call_sync(response="", run_code=json.dumps(request))


@pytest.mark.parametrize("language", ["cobol", "Python"])
def test_languages_that_are_not_offered(language: str) -> None:
    with pytest.raises(InvalidReward, match="language"):
        ProgramRuns(language=language)


# Chess puzzles.

FEN = "6k1/5ppp/8/8/8/8/5PPP/R5K1 b - - 0 1"
STOCKFISH = shutil.which("stockfish", path=f"{os.environ['PATH']}:/usr/games")


def chess(*moves: str, fen: Any = FEN, truth: Any = "g8h8 a1a8", **options: Any) -> Any:
    pytest.importorskip("chess")
    return outcome_of(
        ChessPuzzle(**options),
        response=called("make_move", "move", *moves),
        ground_truth=truth,
        metadata={"fen": fen},
    )


def test_another_mate_solves_it() -> None:
    fen = "6k1/5ppp/8/8/8/8/5PPP/RR4K1 b - - 0 1"
    assert chess("b1b8", fen=fen).value == 1.0
    assert chess("b1b7", fen=fen).value == 0.0


def test_agentfly_no_move_earns_nothing_and_no_fault_is_a_number() -> None:
    pytest.importorskip("chess")
    assert chess(progress=0.0).value == 0.0
    lost = chess("a1a8", quality=0.4, engine="/no/such/engine")
    assert isinstance(lost, Failure)
    assert "/no/such/engine" in lost.message
    broken = chess("a1a8", quality=0.4, engine="/usr/bin/true")
    assert broken.kind is FailureKind.UNAVAILABLE


@pytest.mark.parametrize(
    ("fen", "truth"),
    [
        (FEN, "a1a9"),
        (FEN, "g8g1"),
        (FEN, ""),
        (FEN, "g8h8"),
        (FEN, 5),
        ("x", "g8h8 a1a8"),
        (5, "x"),
    ],
)
def test_puzzles_that_cannot_be_played(fen: Any, truth: Any) -> None:
    assert chess("a1a8", fen=fen, truth=truth).kind is FailureKind.BAD_INPUT


def test_quality_needs_an_engine() -> None:
    with pytest.raises(InvalidReward, match="engine="):
        ChessPuzzle(quality=0.4)


SILENT = """#!/bin/sh
while read line; do
    case "$line" in
        uci) echo "id name silent"; echo "option name Threads type spin default 1 min 1 max 8"
             echo uciok ;;
        isready) echo readyok ;;
    esac
done
"""


def test_an_engine_that_never_answers_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "silent"
    path.write_text(SILENT)
    path.chmod(0o755)
    monkeypatch.setattr(chess_engine, "ANSWER_SECONDS", 0.01)
    monkeypatch.setattr(chess_engine, "START_SECONDS", 2.0)
    lost = chess("a1a8", quality=0.4, engine=str(path))
    assert lost.kind is FailureKind.UNAVAILABLE
    assert "TimeoutError" in lost.message


@pytest.mark.skipif(STOCKFISH is None, reason="Stockfish is not installed")
def test_the_quality_of_moves_by_an_engine() -> None:
    options: Any = {"quality": 0.4, "engine": STOCKFISH}
    assert chess("a1a8", **options).value == pytest.approx(1.0)
    blunder = chess("a1a7", **options)
    assert blunder.metrics["quality"] == 0.0
    assert blunder.value == 0.0
    assert chess(**options).value == 0.0
    assert chess("a1a7", **options).metrics == blunder.metrics
