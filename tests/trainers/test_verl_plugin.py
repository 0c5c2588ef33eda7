"""The plug-in costs a process that only imports verl nothing; here of a verl with registries alone.

What the real one does with it is in `test_verl_manager.py`.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src"

REGISTRY = """
found = {}
def register(name):
    def keep(manager):
        found[name] = manager.__name__
        return manager
    return keep
"""

PLACES = {
    "verl.experimental.reward_loop.reward_manager": "GuerdonRewardManager",
    "verl.workers.reward_manager": "GuerdonBatchManager",
}

AFTER = """
import json, sys
print(json.dumps([sorted(m for m in sys.modules if m.startswith(("guerdon", "msgspec", "numpy"))),
    sys.modules[PLACE + ".registry"].found if PLACE + ".registry" in sys.modules else None]))
"""


@pytest.fixture
def packages(tmp_path):
    for place in PLACES:
        folder = tmp_path.joinpath(*place.split("."))
        folder.mkdir(parents=True)
        for parent in (folder, *folder.parents):
            if parent == tmp_path:
                break
            (parent / "__init__.py").touch()
        (folder / "__init__.py").write_text("from .registry import register\n")
        (folder / "registry.py").write_text(REGISTRY)
    return tmp_path


def run(packages, *lines, place):
    program = "\n".join((f"PLACE = {place!r}", *lines, AFTER))
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": f"{packages}:{SOURCE}", "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    return (*json.loads(done.stdout), done.stderr)


@pytest.mark.parametrize("place", PLACES)
def test_nothing_is_imported_until_a_registry_is(packages, place):
    loaded, found, _ = run(packages, "import guerdon.trainers.verl_plugin", place=place)
    assert loaded == ["guerdon", "guerdon.trainers", "guerdon.trainers.verl_plugin"]
    assert found is None


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("first", ["plug-in", "registry"])
def test_each_registry_gets_its_manager(packages, place, first):
    lines = ["import guerdon.trainers.verl_plugin", f"import {place}"]
    lines = lines if first == "plug-in" else lines[::-1]
    loader = f"print(type({place}.registry.__spec__.loader).__name__, file=sys.stderr)"
    loaded, found, errors = run(packages, *lines, "import sys", loader, place=place)
    assert found == {"guerdon": PLACES[place]}
    assert errors == "SourceFileLoader\n"
    assert "guerdon.trainers.verl_manager" in loaded


@pytest.mark.parametrize("place", PLACES)
def test_a_registry_that_refuses_is_logged(packages, place):
    folder = packages.joinpath(*place.split("."))
    (folder / "registry.py").write_text("def register(name):\n    raise ValueError('taken')\n")
    lines = [
        "import guerdon.trainers.verl_plugin",
        f"import {place}",
        f"{place}.registry.found = 0",
    ]
    _, _, errors = run(packages, *lines, place=place)
    assert f"guerdon's reward manager is not registered in {place}.registry" in errors
    assert "ValueError: taken" in errors
