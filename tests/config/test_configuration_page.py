"""The page docs/configuration.md, followed from top to bottom."""

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

import guerdon.rules.gsm8k  # noqa: F401 - registers gsm8k where the package is not installed anew
from guerdon.cli.main import application
from guerdon.config import load

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE_NAME = re.compile(r"# (\S+\.(?:py|yaml))\n")


@pytest.fixture
def empty_folder(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("page")


def test_every_block_works_in_order(empty_folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(empty_folder)
    monkeypatch.setenv("REWARD_METHOD", "")
    names: dict[str, object] = {}
    kinds: list[str] = []
    for kind, text in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        kinds.append(kind)
        named = FILE_NAME.match(text)
        if named:
            Path(named.group(1)).write_text(text, encoding="utf-8")
            if kind == "yaml":
                assert load(named.group(1)).build() is not None
        elif kind == "python":
            exec(compile(text, str(PAGE), "exec"), names)
        elif kind == "console":
            for line in text.splitlines():
                run(line)
    assert {"python", "yaml", "console", "toml"} == set(kinds)


def run(line: str) -> None:
    program, command, *arguments = shlex.split(line)
    assert program == "guerdon"
    result = CliRunner().invoke(application(command), [command, *arguments])
    assert result.exit_code == 0, f"{line}: {result.output}"
