"""The page "Five minutes to a GRPO run", followed with TRL's own environment."""

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "trainers" / "trl-quickstart.md"
STEP = re.compile(
    r"step (\d+): reward (\d\.\d+), correct (\d\.\d+), digits (\d\.\d+), failed 0\.000"
)


@pytest.fixture(scope="module")
def python():
    found = os.environ.get("GUERDON_TRL_PYTHON")
    if not found:
        pytest.skip("set GUERDON_TRL_PYTHON to the interpreter of `scripts/trainer-venv trl`")
    return Path(found).absolute()


def run(python, folder, *arguments):
    environment = {
        **os.environ,
        "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT / "src"),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    return subprocess.run(
        [str(python), *map(str, arguments)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_every_block_of_the_page_works_and_the_run_trains(python, tmp_path):
    done = run(python, tmp_path, ROOT / "tests" / "follow_page.py", PAGE)
    assert done.returncode == 0, done.stderr[-4000:]
    blocks = re.findall(r"^```(?:python|console)$", PAGE.read_text(), re.MULTILINE)
    assert int(done.stdout.split()[-2]) == len(blocks) == 4
    done = run(python, tmp_path, tmp_path / "run" / "train.py", "--steps", 3)
    assert done.returncode == 0, done.stderr[-4000:]
    steps = [list(map(float, found)) for found in STEP.findall(done.stdout)]
    assert [step[0] for step in steps] == [1, 2, 3]
    for _, reward, correct, digits in steps:
        assert reward == pytest.approx(0.7 * correct + 0.3 * digits, abs=2e-3)
