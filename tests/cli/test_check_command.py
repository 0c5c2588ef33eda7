"""`guerdon check`: what it prints and how it ends."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from guerdon import registry, source_file
from guerdon.cli.main import application

FILE = """
from guerdon.errors import MissingExtra
from guerdon.fixture import Fixture
from guerdon.reward import reward
from guerdon.sample import Sample

RIGHT = Fixture(name="right [a]", kind="full", sample=Sample(response="4", ground_truth="4"),
                expect=1.0)
settings = dict(value_range=(0.0, 1.0), fixtures=[RIGHT])


@reward(name="check_exact", **settings)
def exact(response, ground_truth, *, scale: float = 1.0):
    return scale * (response == ground_truth)


@reward(name="check_fragile", **settings)
def fragile(response):
    return response[0] == "4"


@reward(name="check_extra", **settings)
def extra(response):
    raise MissingExtra("sympy", "math", "check_extra")


def plain(response):
    return 1.0
"""

CONFIG = """
imports: [mine.py]
reward:
  weighted_sum:
    exact: {name: check_exact, scale: 0.5}
    plain: "mine.py:plain"
  name: total
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(registry, "_definitions", {})
    monkeypatch.setattr(source_file, "_files", {})
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(FILE, encoding="utf-8")
    (tmp_path / "service.yaml").write_text(CONFIG, encoding="utf-8")
    return tmp_path


Run = Callable[..., Result]


@pytest.fixture
def run(folder: Path) -> Run:
    def invoke(*arguments: str) -> Result:
        return CliRunner().invoke(application("check"), ["check", *arguments])

    return invoke


def test_a_sound_reward_ends_with_0_and_a_table(run: Run):
    result = run("mine.py:exact")
    assert result.exit_code == 0
    assert "range [0, 1]  deadline none  work cpu" in result.stdout
    assert "right [a]" in result.stdout
    assert result.stdout.rstrip().endswith("1 reward: 10 passed, 0 failed, 0 not run")


@pytest.mark.parametrize("target", ["check_exact", "mine:exact", "mine.py:exact"])
def test_names_modules_and_files(run: Run, monkeypatch: pytest.MonkeyPatch, target: str):
    monkeypatch.syspath_prepend(".")
    imports = ["-i", "mine.py"] if target == "check_exact" else []
    assert run(target, *imports).exit_code == 0


def test_a_failed_case_ends_with_1_and_says_why(run: Run):
    result = run("mine.py:fragile", "--quiet")
    assert result.exit_code == 1
    assert "empty response" in result.stdout
    assert "raised (scorer): IndexError: string index out of range" in result.stdout
    assert "right [a]" not in result.stdout
    assert "8 passed, 1 failed, 0 not run" in result.stdout


def test_a_missing_extra_ends_with_1_and_the_line_to_install_it(run: Run):
    result = run("mine.py:extra")
    assert result.exit_code == 1
    assert "needs: pip install '.[math]' in the clone, or 'guerdon[math]'" in result.stdout
    assert "0 passed, 0 failed, 1 not run" in result.stdout


def test_a_reward_without_fixtures_is_said_so(run: Run):
    result = run("mine.py:plain")
    assert result.exit_code == 0
    assert "note: has no fixtures" in result.stdout
    assert result.stdout.rstrip().endswith("without fixtures: plain")


def test_a_configuration_checks_each_leaf_and_the_whole(run: Run):
    result = run("service.yaml", "--json")
    assert result.exit_code == 0
    report = json.loads(result.stdout)
    assert report["passed"] is True
    assert [r["path"] for r in report["rewards"]] == ["total/exact", "total/plain", "total"]
    assert report["rewards"][0]["options"] == {"scale": "0.5"}
    printed = run("service.yaml").stdout
    assert "total/exact (check_exact)" in printed
    assert "options scale=0.5" in printed
    assert "without fixtures: total/plain" in printed


def test_a_dry_run_scores_nothing_and_prints_the_record(run: Run, folder: Path):
    (folder / "mine.py").write_text(FILE.replace("return 1.0", "raise SystemExit"))
    result = run("service.yaml", "--dry-run")
    assert result.exit_code == 0
    assert result.stdout.startswith("# total, fingerprint ")
    assert "scale: 0.5" in result.stdout
    assert "total/plain" in result.stdout
    assert result.stdout.rstrip().endswith("loaded; nothing was scored")
    facts = json.loads(run("service.yaml", "--dry-run", "--json").stdout)
    assert [row["fixtures"] for row in facts["rewards"]] == [1, 0]


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        ("reward: check_exakt", [], "reward: no reward is named 'check_exakt'"),
        ("imports: [mine.py]\nreward: {name: check_exact, scal: 2}", [], "did you mean 'scale'?"),
        ("reward: [", [], "service.yaml:1: no valid YAML"),
        ("reward: ${env:GUERDON_ABSENT}", [], "environment variable 'GUERDON_ABSENT' is not set"),
        (CONFIG, ["-i", "nowhere.py"], "no file"),
    ],
)
def test_misuse_ends_with_2(
    run: Run, folder: Path, content: str, arguments: list[str], message: str
):
    (folder / "service.yaml").write_text(content)
    result = run("service.yaml", *arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert message in result.stderr.replace("\n", "")


@pytest.mark.parametrize("target", ["nowhere.yaml", "check_nobody", "nowhere.py:fn", "mine.py:no"])
def test_a_target_that_is_not_there_ends_with_2(run: Run, target: str):
    result = run(target)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")


def test_a_pool_that_is_asked_for_is_used(run: Run, folder: Path):
    (folder / "service.yaml").write_text(
        "reward: {name: 'mine.py:exact', _settings_: {deadline: 20}}\n"
        "backend: {pool: {workers: 1}}\n"
    )
    result = run("service.yaml", "--json")
    assert result.exit_code == 0, result.stdout
    (report,) = json.loads(result.stdout)["rewards"]
    assert report["deadline"] == 20.0
    assert {case["verdict"] for case in report["cases"]} == {"pass"}
