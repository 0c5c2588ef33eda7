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

from guerdon.resources.sandbox import Sandbox

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
NEEDS = re.compile(r"^<!-- needs (\w+) -->$", re.MULTILINE)
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


@pytest.mark.parametrize(
    "page", PAGES, ids=lambda page: str(page.relative_to(ROOT).with_suffix(""))
)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"
