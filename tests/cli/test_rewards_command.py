"""`guerdon rewards` and `guerdon rewards show`."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from guerdon import plugins, registry, source_file
from guerdon.catalogue import entries
from guerdon.cli.main import application
from guerdon.cli.rewards import range_text

FILE = '''
from guerdon.fixture import Fixture
from guerdon.reward import BaseReward, reward
from guerdon.sample import Sample

CASE = Fixture(name="tidy text", kind="full", sample=Sample(response="a"), expect=1.0)


@reward(name="cli_tidy", value_range=(0.0, 1.0), fixtures=[CASE], deadline=2.5)
def tidy(response: str, answer: str, level: int = 3, *, limit: int = 10) -> bool:
    """1 if the text has no blanks at its ends [and is short].

    Explained at length.
    """
    return response == response.strip()


class CliNeedy(BaseReward):
    value_range = (0.0, float("inf"))

    def __init__(self, model: str, *, dtype: str = "bf16") -> None:
        self.model = model

    def call(self, *, images: list, step: int, **rest) -> float:
        return 0.0


def plain(solution_str):
    return 1.0
'''


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(registry, "_definitions", {})
    monkeypatch.setattr(registry, "_routes", {})
    monkeypatch.setattr(source_file, "_files", {})
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("COLUMNS", "240")
    path = tmp_path / "mine.py"
    path.write_text(FILE, encoding="utf-8")
    yield path
    plugins.refresh()


@pytest.fixture
def run() -> Callable[..., Result]:
    def invoke(*arguments: object) -> Result:
        return CliRunner().invoke(application("rewards"), ["rewards", *map(str, arguments)])

    return invoke


Run = Callable[..., Result]


def listed(run: Run, *arguments: object) -> Any:
    result = run("--json", *arguments)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_the_table_says_what_each_scores_takes_and_gives(file: Path, run: Run):
    result = run("-i", file, "cli")
    assert result.exit_code == 0
    lines = [line.strip() for line in result.stdout.splitlines()]
    tidy = next(i for i, line in enumerate(lines) if line.startswith("cli_tidy"))
    assert "1 if the text has no blanks at its ends [and is short]." in lines[tidy]
    assert lines[tidy].endswith("[0, 1]")
    assert lines[tidy + 1 : tidy + 3] == ["response, answer, [level]", f"{file}:tidy"]
    needy = next(i for i, line in enumerate(lines) if line.startswith("cli_needy"))
    assert "(no documentation)" in lines[needy]
    assert lines[needy].endswith("[0, inf)")
    assert lines[needy + 1] == "images, step, [**]"


def test_the_list_as_json(file: Path, run: Run):
    found = {entry["name"]: entry for entry in listed(run, "-i", file)["rewards"]}
    assert found["cli_tidy"] == {
        "name": "cli_tidy",
        "description": "1 if the text has no blanks at its ends [and is short].",
        "inputs": ["response", "answer", "[level]"],
        "value_range": [0.0, 1.0],
        "place": f"{file}:tidy",
        "package": "",
        "error": "",
    }
    assert found["cli_needy"]["value_range"] == [0.0, None]


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["TIDY"], ["cli_tidy"]),
        (["blanks", "short"], ["cli_tidy"]),
        (["mine.py", "cli"], ["cli_needy", "cli_tidy"]),
        (["no such thing"], []),
    ],
)
def test_words_filter(file: Path, run: Run, words: list[str], names: list[str]):
    assert [entry["name"] for entry in listed(run, "-i", file, *words)["rewards"]] == names


def test_nothing_found_is_said(file: Path, run: Run):
    assert "No reward holds 'zebra'." in run("zebra").stdout


def test_routes_are_listed(file: Path, run: Run):
    registry.route("opening/*", "cli_tidy")
    assert listed(run, "opening")["routes"] == {"opening/*": "cli_tidy"}
    assert listed(run, "zebra")["routes"] == {}
    assert "opening/*" in run().stdout


def test_a_broken_plugin_is_listed_with_its_error_and_hides_no_other(
    file: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    site = tmp_path / "site"
    (site / "cli_plugin-0.3.dist-info").mkdir(parents=True)
    (site / "cli_plugin-0.3.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: cli_plugin\nVersion: 0.3\n"
    )
    (site / "cli_plugin-0.3.dist-info" / "entry_points.txt").write_text(
        "[guerdon.rewards]\ncli_works = cli_plugin:works\ncli_broken = cli_plugin.broken:gone\n"
        "[guerdon.routes]\nx = cli_plugin.broken:routes\n"
    )
    (site / "cli_plugin").mkdir()
    (site / "cli_plugin" / "__init__.py").write_text("def works(response):\n    return 1\n")
    (site / "cli_plugin" / "broken.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(str(site))
    plugins.refresh()
    found = {entry["name"]: entry for entry in listed(run, "cli_")["rewards"]}
    assert found["cli_works"]["package"] == "cli_plugin 0.3"
    assert found["cli_works"]["error"] == ""
    assert "ZeroDivisionError: division by zero" in found["cli_broken"]["error"]
    assert found["cli_broken"]["place"] == "cli_plugin.broken:gone"
    result = run("cli_")
    assert result.exit_code == 0
    assert "cli_plugin 0.3" in result.stdout
    assert "cli_broken: the plug-in reward 'cli_broken'" in result.stderr
    assert "cli_plugin.broken:routes of cli_plugin: fails to import" in result.stderr


def test_a_range_that_depends_on_options_is_that_of_the_defaults(file: Path, run: Run):
    file.write_text(
        "from guerdon.reward import BaseReward\n"
        "class CliScaled(BaseReward):\n"
        "    def __init__(self, scale: float = 2.0) -> None:\n"
        "        self.value_range = (0.0, scale)\n"
        "    def call(self, *, response: str) -> float:\n"
        "        return 0.0\n"
    )
    (entry,) = listed(run, "-i", file, "cli_scaled")["rewards"]
    assert entry["value_range"] == [0.0, 2.0]
    facts = json.loads(run("show", "cli_scaled", "--json").stdout)
    assert facts["declaration"]["value_range"] == [0.0, 2.0]


class TestShow:
    def test_everything_about_a_reward(self, file: Path, run: Run):
        registry.load_file(str(file))
        registry.route("tidy/*", "cli_tidy")
        facts = json.loads(run("show", "cli_tidy", "--json").stdout)
        assert facts["place"] == f"{file}:tidy"
        assert facts["documentation"].endswith("Explained at length.")
        assert facts["declaration"]["deadline"] == 2.5
        assert facts["fingerprint"] == registry.resolve("cli_tidy").fingerprint
        assert [(p["name"], p["source"], p["required"]) for p in facts["parameters"]] == [
            ("response", "sample.response", True),
            ("answer", "metadata, else sample.ground_truth", True),
            ("level", "metadata", False),
        ]
        assert facts["options"] == [{"name": "limit", "type": "int", "default": "10"}]
        assert facts["fixtures"] == [{"name": "tidy text", "kind": "full", "expect": 1.0}]
        assert facts["routes"] == ["tidy/*"]

    def test_it_is_printed_too(self, file: Path, run: Run):
        result = run("show", f"{file}:tidy")
        assert result.exit_code == 0
        for part in ("[and is short]", "2.5", "sample.response", "required", "limit", "tidy text"):
            assert part in result.stdout

    def test_a_class_that_needs_options_is_shown_without_them(self, file: Path, run: Run):
        facts = json.loads(run("show", "cli_needy", "-i", file, "--json").stdout)
        assert facts["fingerprint"].startswith("depends on its options")
        assert facts["options"] == [
            {"name": "model", "type": "str", "default": ""},
            {"name": "dtype", "type": "str", "default": "'bf16'"},
        ]
        assert [(p["name"], p["source"]) for p in facts["parameters"]] == [
            ("images", "sample.images"),
            ("step", "the call"),
            ("**", "every other metadata key"),
        ]

    def test_a_plain_function_of_a_file(self, file: Path, run: Run):
        facts = json.loads(run("show", f"{file}:plain", "--json").stdout)
        assert facts["parameters"][0]["source"] == "metadata, else sample.response"

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["show", "cli_tody"], "no reward is named 'cli_tody'"),
            (["show", "nowhere.py:fn"], "no file"),
            (["show", "guerdon.sample:Sample"], "not derived from BaseReward"),
            (["-i", "no_such_module"], "cannot import 'no_such_module'"),
        ],
    )
    def test_misuse_ends_with_2(self, file: Path, run: Run, arguments: list[str], message: str):
        result = run(*arguments)
        assert result.exit_code == 2
        assert message in result.stderr
        assert result.stdout == ""


def test_every_known_reward_can_be_listed_and_shown(run: Run):
    for entry in entries():
        assert entry.error == "", entry.name
        assert run("show", entry.name).exit_code == 0, entry.name


@pytest.mark.parametrize(
    ("value_range", "text"),
    [((0.0, 1.0), "[0, 1]"), ((-0.5, float("inf")), "[-0.5, inf)"), ((1.0, 1.0), "[1, 1]")],
)
def test_ranges_are_written_as_intervals(value_range: tuple[float, float], text: str):
    assert range_text(value_range) == text
