"""Environments that come as packages, driven by the packages themselves where they are installed.

pip install scienceworld textworld alfworld   (and Java for the first)
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from guerdon.errors import BadInput, FailureKind
from guerdon.outcome import Failure
from guerdon.policy import Policy
from guerdon.resources import Context
from guerdon.rules.agent import text_game
from guerdon.rules.agent.science_world import ScienceWorld, ScienceWorldScore, ScienceWorldSpec
from guerdon.rules.agent.text_game import TextGame, TextGameScore, TextGameSpec
from guerdon.sample import Sample
from guerdon.service import RewardService

MASKED = Policy(on=dict.fromkeys(("scorer", "infrastructure", "data"), "mask"))


def sample(tool: str, *actions: Any, **columns: Any) -> Sample:
    calls = [{"name": tool, "arguments": {"action": action}} for action in actions]
    said = [{"role": "assistant", "content": "", "tool_calls": calls}]
    return Sample(response=said, metadata=columns)


def values(reward: Any, *samples: Sample) -> list[Any]:
    with RewardService(reward, policy=MASKED) as service:
        return [getattr(outcome, "value", outcome) for outcome in service.score_sync(samples)]


# What needs no package.


def test_a_missing_package_is_no_score() -> None:
    for reward, module in (
        (ScienceWorldScore(), "scienceworld"),
        (TextGameScore(games="."), "textworld"),
    ):
        if __import__("importlib").util.find_spec(module) is not None:
            continue
        (lost,) = values(reward, sample("x", "y", task_name="boil", variation_idx=0, game_file="x"))
        assert isinstance(lost, Failure)
        assert module in lost.message
        assert "pip install" in lost.message


@pytest.mark.parametrize(
    ("task", "variation"), [(5, 0), ("boil", "0"), ("boil", True), (None, 0), ("boil", 1.5)]
)
def test_columns_that_are_no_task(task: Any, variation: Any) -> None:
    with pytest.raises(BadInput, match="task_name"):
        ScienceWorld(ScienceWorldSpec()).begin({"task_name": task, "variation_idx": variation})


@pytest.mark.parametrize("name", ["", None, 5, "no such game.json"])
def test_columns_that_are_no_game(name: Any) -> None:
    with pytest.raises(BadInput, match="game"):
        TextGame(TextGameSpec()).begin({"game_file": name})


@pytest.mark.parametrize("place", [ScienceWorld(ScienceWorldSpec()), TextGame(TextGameSpec())])
@pytest.mark.parametrize("action", [5, None, "x" * 2000, "\ud800"])
def test_steps_that_are_none(place: Any, action: Any) -> None:
    tool = "scienceworld_explorer" if isinstance(place, ScienceWorld) else "alfworld_step"
    for name in (tool, "other"):
        with pytest.raises(ValueError, match=r"no |surrogates"):
            place.step(name, {"action": action})


class Played:
    """A game that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def reset(self) -> Any:
        return SimpleNamespace(won=False, score=0, max_score=1, feedback="")

    def step(self, command: str) -> Any:
        self.told.append(command)
        return self.reset(), 0, False

    def close(self) -> None:
        pass


@pytest.mark.parametrize("name", ["g.z8", "g.ulx", "G.Z5", "g.json", "g.tw-pddl"])
def test_no_command_reaches_files_of_this_machine(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    played = Played()
    (tmp_path / name).write_text("")
    monkeypatch.setattr(text_game, "_wrappers", lambda path: [])
    place = TextGame(TextGameSpec(games=str(tmp_path)))
    library = SimpleNamespace(EnvInfos=dict, start=lambda *args, **kwargs: played)
    monkeypatch.setattr(place, "_library", library)
    place.begin({"game_file": name})
    commands = ["look", "save", "look. Save", "restored", "oops save", "transcripts on", "script"]
    for command in commands:
        with contextlib.suppress(ValueError):
            place.step("alfworld_step", {"action": command})
    compiled = name.lower().endswith((".z8", ".ulx", ".z5"))
    assert played.told == (["look", "restored"] if compiled else commands)


# ScienceWorld.

TASK: dict[str, Any] = {"task_name": "find-living-thing", "variation_idx": 0}
SOLUTION = ["open door to greenhouse", "go to greenhouse", "open door to outside", "go to outside",
            "focus on dove", "pick up dove", "open door to kitchen", "go to kitchen",
            "move egg dove egg in inventory to red box"]  # fmt: skip


@pytest.fixture
def java() -> None:
    pytest.importorskip("scienceworld")
    if shutil.which("java") is None:
        pytest.skip("Java is not installed")


def explored(*actions: Any, **columns: Any) -> Sample:
    return sample("scienceworld_explorer", *actions, **{**TASK, **columns})


@pytest.mark.usefixtures("java")
def test_a_task_of_scienceworld_and_rows_that_share_its_process() -> None:
    with Context() as context:
        world = context.acquire_resource_sync(ScienceWorldSpec(simplifications="easy"))
        world.begin(TASK)
        golden = _solution(world)
    reward = ScienceWorldScore(simplifications="easy")
    odd = ["\0", "\ud800", "x" * 2000, "say \n\r\n e\n", "reset task"]
    found = values(
        reward,
        explored(*golden),
        explored(*golden[:-1]),
        explored("look around"),
        explored(*odd, *golden),
        explored(*golden, "reset task", "look around"),
        Sample(response="I solved it, 100 points", metadata=TASK),
        explored(*golden, task_name="boil"),
    )
    assert found == [1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0]
    partial = ScienceWorldScore(simplifications="easy", partial=True)
    most, least = values(partial, explored(*golden[:-1]), explored("focus on orange"))
    assert 0.5 < most < 1.0
    assert least < most


def _solution(world: Any) -> list[str]:
    simulator = world._simulator
    simulator.load(TASK["task_name"], TASK["variation_idx"], "easy", generateGoldPath=True)
    return list(simulator.get_gold_action_sequence())


@pytest.mark.usefixtures("java")
@pytest.mark.parametrize("row", [{"task_name": "no-such-task"}, {"variation_idx": 10**6}])
def test_tasks_that_scienceworld_does_not_have(row: Any) -> None:
    (lost,) = values(ScienceWorldScore(), explored("look around", **row))
    assert lost.kind is FailureKind.BAD_INPUT


@pytest.mark.usefixtures("java")
def test_a_java_that_dies_is_a_failure_and_the_next_one_works() -> None:
    with Context() as context:
        world = context.acquire_resource_sync(ScienceWorldSpec())
        world.begin(TASK)
        os.kill(world._simulator._gateway.java_process.pid, signal.SIGKILL)
        world._simulator._gateway.java_process.wait()
        with pytest.raises(OSError, match="Java"):
            world.step("scienceworld_explorer", {"action": "look around"})
    assert values(ScienceWorldScore(), explored("look around")) == [0.0]


@pytest.mark.usefixtures("java")
def test_the_simulator_that_the_callers_tools_used() -> None:
    reward = ScienceWorldScore(replay=False, simplifications="easy")
    with Context("rollout") as context, RewardService(reward) as service:
        world = context.acquire_resource_sync(ScienceWorldSpec(simplifications="easy"))
        world.begin(TASK)
        golden = _solution(world)
        world.begin(TASK)
        for action in golden:
            world.step("scienceworld_explorer", {"action": action})
        done = Sample(response="Done.", metadata=TASK)
        assert service.score_sync([done], context=context).values.tolist() == [1.0]


# TextWorld.


@pytest.fixture
def game(tmp_path: Path) -> tuple[str, list[str]]:
    """A folder with the game g.json, and the commands that win it."""
    textworld = pytest.importorskip("textworld")
    options = textworld.GameOptions()
    options.seeds, options.nb_rooms, options.nb_objects, options.quest_length = 7, 2, 3, 2
    made = textworld.generator.make_game(options)
    made.save(str(tmp_path / "g.json"))
    (tmp_path / "broken.json").write_text("{}")
    return str(tmp_path), list(made.metadata["walkthrough"])


def test_a_game_of_textworld(game: Any) -> None:
    folder, golden = game
    reward = TextGameScore(games=folder)
    row = {"game_file": "g.json"}
    found = values(
        reward,
        sample("alfworld_step", *golden, **row),
        sample("alfworld_step", *golden[:-1], **row),
        sample("alfworld_step", "\0", "\ud800", "x" * 2000, *golden, "look", **row),
        sample("other", *golden, **row),
        Sample(response="I won", metadata=row),
    )
    assert found == [1.0, 0.0, 1.0, 0.0, 0.0]
    for name in ("none.json", "broken.json"):
        (lost,) = values(reward, sample("alfworld_step", "look", game_file=name))
        assert lost.kind is FailureKind.BAD_INPUT, lost


# ALFWorld: its own domain and grammar, with a room of two things.

PROBLEM = """
(define (problem put) (:domain alfred)
(:objects
  agent1 - agent
  Mug_bar_1 - object
  MugType - otype
  Desk_bar_1 Shelf_bar_1 - receptacle
  DeskType ShelfType - rtype
  loc1 loc2 loc3 - location
)
(:init
  (atLocation agent1 loc1)
  (receptacleType Desk_bar_1 DeskType) (receptacleType Shelf_bar_1 ShelfType)
  (objectType Mug_bar_1 MugType)
  (canContain DeskType MugType) (canContain ShelfType MugType)
  (receptacleAtLocation Desk_bar_1 loc2) (receptacleAtLocation Shelf_bar_1 loc3)
  (pickupable Mug_bar_1) (objectAtLocation Mug_bar_1 loc2) (inReceptacle Mug_bar_1 Desk_bar_1)
)
(:goal (and (exists (?r - receptacle) (exists (?o - object)
  (and (inReceptacle ?o ?r) (objectType ?o MugType) (receptacleType ?r ShelfType))))))
)
"""


@pytest.fixture
def alfworld(tmp_path: Path) -> str:
    """A folder with the game game.tw-pddl."""
    package = pytest.importorskip("alfworld")
    pytest.importorskip("fast_downward")
    data = Path(package.__file__).parent / "data"
    grammar = (data / "alfred.twl2").read_text().replace("UNKNOWN GOAL", "put a mug on the shelf")
    made = {
        "pddl_domain": (data / "alfred.pddl").read_text(),
        "grammar": grammar,
        "pddl_problem": PROBLEM,
        "solvable": True,
        "walkthrough": [],
    }
    (tmp_path / "game.tw-pddl").write_text(json.dumps(made))
    return str(tmp_path)


def test_a_game_of_alfworld(alfworld: str) -> None:
    row = {"game_file": "game.tw-pddl"}
    golden = ["go to desk 1", "take mug 1 from desk 1", "go to shelf 1", "move mug 1 to shelf 1"]
    reward = TextGameScore(games=alfworld)
    found = values(
        reward,
        sample("alfworld_step", *golden, **row),
        sample("alfworld_step", *golden[:-1], **row),
        sample("alfworld_step", "win", *golden, "look", **row),
    )
    assert found == [1.0, 0.0, 1.0]
