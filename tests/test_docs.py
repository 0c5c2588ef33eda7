"""Every page of the documentation, followed from top to bottom in an empty folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from engines import working

from guerdon import plugins
from guerdon.resources.sandbox import Sandbox

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
NEEDS = re.compile(r"^<!-- needs (\w+) -->$", re.MULTILINE)
BLOCK = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


def followed(page: Path) -> Any:
    """A page as a parameter; those that need an engine belong to the neural stage."""
    engines = {"torch", "transformers", "rapidocr"}
    needs = NEEDS.findall(page.read_text(encoding="utf-8"))
    marks = [pytest.mark.neural] if engines.intersection(needs) else []
    return pytest.param(page, id=str(page.relative_to(ROOT).with_suffix("")), marks=marks)


@pytest.mark.parametrize("page", [followed(page) for page in PAGES])
def test_every_block_of_the_page_works(page: Path, tmp_path: Path) -> None:
    for package in NEEDS.findall(page.read_text(encoding="utf-8")):
        if package == "sandbox":
            working(Sandbox("auto"), "auto")
        else:
            pytest.importorskip(package)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "follow_page.py"), str(page)],
        cwd=tmp_path,
        # Threads that wait for each other cost more than they save on a busy machine.
        env={"OMP_NUM_THREADS": "1", **os.environ, "PATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    runnable = re.findall(r"^```(?:python|console|yaml)$", page.read_text(), re.MULTILINE)
    assert int(done.stdout.split()[-2]) == len(runnable)


def test_pages_install_from_the_clone_because_no_index_has_guerdon() -> None:
    for page in PAGES:
        assert "pip install 'guerdon" not in page.read_text(encoding="utf-8"), page.name


def test_the_readme_says_where_the_command_is_before_it_uses_it() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.index("\n. .venv/bin/activate\n") < text.index("\nguerdon ")


def test_tests_are_run_where_pytest_is() -> None:
    for page in PAGES:
        for line in page.read_text(encoding="utf-8").splitlines():
            if "pytest tests/" in line:
                assert ".venv/bin/python -m pytest tests/" in line, f"{page.name}: {line}"


def test_every_convention_is_in_the_table() -> None:
    page = (ROOT / "docs" / "trainers.md").read_text(encoding="utf-8")
    for name in plugins.conventions():
        assert f"\n| `{name}` | " in page, name


def test_imports_stand_in_code() -> None:
    """One at the margin, outside of a block, would be shown as prose."""
    for page in PAGES:
        prose = BLOCK.sub("", page.read_text(encoding="utf-8"))
        assert not re.findall(r"^(?:from \S+ )?import \S+$", prose, re.MULTILINE), page.name


@pytest.mark.parametrize(
    "page", PAGES, ids=lambda page: str(page.relative_to(ROOT).with_suffix(""))
)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"
