"""`guerdon init trainer`: files that work, and no file of the user's lost."""

import ast
import asyncio
import json
import runpy
import shlex
import tomllib
from pathlib import Path

import numpy as np
import pytest
import yaml
from omegaconf import OmegaConf

from guerdon import registry
from guerdon.cli.main import main
from guerdon.reward import BaseReward
from guerdon.trainers import agentfly, verl_omni
from guerdon.trainers.starter import FOLDER, override, starters

TRAINERS = tuple(starters())


def init(*arguments):
    with pytest.raises(SystemExit) as ended:
        main(["init", "trainer", *map(str, arguments)])
    return ended.value.code


@pytest.mark.parametrize("name", TRAINERS)
def test_it_writes_a_reward_that_loads(name, tmp_path, capsys):
    folder = tmp_path / "my run"
    assert init(name, "-o", folder) == 0
    for file in starters()[name].files:
        text = (folder / file).read_text()
        assert FOLDER not in text
        assert "{REWARD:" not in text
        if file.endswith(".py"):
            ast.parse(text)
    found = registry.resolve(f"{folder}/reward.py:reward_of_the_run")
    assert isinstance(found, BaseReward)
    assert "next:" in capsys.readouterr().out


@pytest.mark.parametrize("name", TRAINERS)
def test_the_line_that_comes_next_scores_the_rows_that_are_there(name, tmp_path, capfd):
    if name == "verl_omni":
        pytest.importorskip("PIL")
    folder = tmp_path / "my (run)'s"
    init(name, "-o", folder)
    lines = capfd.readouterr().out.splitlines()
    command, *arguments = shlex.split(lines[lines.index("next:") + 1])
    assert command == "guerdon"
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--quiet", "--json"])
    assert ended.value.code == 0
    out = capfd.readouterr().out
    summary = json.loads(out[out.index("{") :])
    rows = len((folder / Path(arguments[1]).name).read_text().splitlines())
    assert (summary["scores"], summary["failures"]) == (rows, 0)
    assert rows >= 2


@pytest.mark.parametrize("name", TRAINERS)
def test_a_file_with_the_path_of_the_folder_is_named_as_one(name, tmp_path, capsys):
    folder = tmp_path / "run"
    init(name, "-o", folder)
    shown = capsys.readouterr().out
    held = [file for file in starters()[name].files if str(folder) in (folder / file).read_text()]
    moved = [line.split()[0] for line in shown.splitlines() if "where you move" in line]
    assert moved == held


@pytest.mark.parametrize("name", TRAINERS)
def test_the_next_steps_say_where_the_trainer_is_had(name, tmp_path, capsys):
    init(name, "-o", tmp_path / "run")
    shown = capsys.readouterr().out
    assert ("  pip install '" in shown) != ("it is on no package index" in shown)


AWKWARD = ["a b", "it's (x)", 'the "q"', "a,b=[c]{d}", "a: #b", "$x", "${x}", "é", "a\\b", 'a\\"b']


@pytest.mark.parametrize("part", AWKWARD)
def test_the_path_of_an_awkward_folder_is_quoted_for_each_file(part, tmp_path):
    reference = f"{tmp_path / part}/reward.py:reward_of_the_run"
    for name, file in (("unirl", "reward.yaml"), ("verifiers", "rewards.toml")):
        init(name, "-o", tmp_path / part, "--overwrite")
        text = (tmp_path / part / file).read_text()
        if name == "unirl":
            section = OmegaConf.create(yaml.safe_load(text)).reward
            assert section.backend.reward == reference
        else:
            found = tomllib.loads(text)["env"]["taskset"]["task"]["rewards"]["correct"]["fn"]
            assert found == reference.replace("reward_of_the_run", "correct")


@pytest.mark.parametrize(
    ("path", "written"),
    [
        ("/run/reward.py:f", "/run/reward.py:f"),
        ("/a (x)'s/b.py:f", '"/a (x)\'s/b.py:f"'),
        ('/a "q"/b.py:f', '"/a \\"q\\"/b.py:f"'),
        ("/a\\b/c.py:f", '"/a\\b/c.py:f"'),
        ('/a\\"b/c.py:f', '"/a\\\\\\"b/c.py:f"'),
        ("/${x}/b.py:f", '"/\\${x}/b.py:f"'),
    ],
)
def test_a_value_for_hydra_is_quoted_as_its_grammar_says(path, written):
    assert override(path) == written


def test_agentfly_calls_what_its_file_registers(tmp_path, monkeypatch):
    rewards = {}
    kept = agentfly.register
    put = lambda *given, **more: kept(*given, into=rewards.__setitem__, **more)  # noqa: E731
    monkeypatch.setattr(agentfly, "register", put)
    init("agentfly", "-o", tmp_path)
    runpy.run_path(str(tmp_path / "register.py"))
    name = (tmp_path / "agent.args").read_text().strip().partition("=")[2]
    for text, value in (("#### 42", 1.0), ("#### 41", 0.1)):
        call = rewards[name](final_response=text, trajectory=[], id="r", answer="42")
        assert asyncio.run(call)["reward"] == pytest.approx(value)


@pytest.mark.filterwarnings("ignore")
def test_verl_omni_scores_with_the_lines_of_its_file(tmp_path):
    pytest.importorskip("PIL")
    init("verl_omni", "-o", tmp_path)
    lines = (tmp_path / "reward.args").read_text().splitlines()
    settings = dict(line.lstrip("+").split("=", 1) for line in lines)
    prefix = "reward.custom_reward_function."
    assert settings[f"{prefix}path"] == f"pkg://{verl_omni.__name__}"
    kwargs = {
        "reward": settings[f"{prefix}reward_kwargs.reward"],
        "retry_within": float(settings[f"{prefix}reward_kwargs.retry_within"]),
    }
    function = getattr(verl_omni, settings[f"{prefix}name"])
    white = np.full((8, 8, 3), 255, np.uint8)
    row = asyncio.run(function("my/data", white, "a wall", {}, **kwargs))
    assert row["component/bright"] == 1.0
    assert row["score"] == pytest.approx(0.9 * row["component/small"] + 0.1)


def test_unirl_makes_the_backend_of_its_file(tmp_path):
    init("unirl", "-o", tmp_path)
    section = yaml.safe_load((tmp_path / "reward.yaml").read_text())["reward"]
    given = section["backend"]
    module, _, name = given.pop("_target_").rpartition(".")
    backend = getattr(registry.import_module(module), name)(**given)
    assert backend.is_available()
    backend.dispose()


def test_what_is_there_is_kept_unless_told_otherwise(tmp_path, capsys):
    folder = tmp_path / "run"
    init("trl", "-o", folder)
    (folder / "reward.py").write_text("mine")
    (folder / "train.py").unlink()
    assert init("trl", "-o", folder) == 2
    assert "is there already: name another --folder, or say --overwrite" in capsys.readouterr().err
    assert (folder / "reward.py").read_text() == "mine"
    assert not (folder / "train.py").exists()
    assert init("trl", "-o", folder, "--overwrite") == 0
    assert (folder / "reward.py").read_text() != "mine"


def test_an_unknown_trainer_is_named(tmp_path, capsys):
    assert init("tlr", "-o", tmp_path / "run") == 2
    assert "no trainer 'tlr' (did you mean 'trl'?) (trainers: " in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert init("trl", "-o", tmp_path / "file" / "run") == 2
    assert "cannot write to" in capsys.readouterr().err


def test_without_a_name_all_are_listed(capsys):
    assert init() == 0
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == list(TRAINERS)
