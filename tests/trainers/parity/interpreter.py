"""Runs a driver script with the interpreter of a trainer's own environment, or its checkout."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TRAINERS = Path(__file__).resolve().parents[1]
ROOT = TRAINERS.parents[1]
LIMIT_SECONDS = 600


def drive(trainer, folder, script=None, *arguments):
    """What a driver of a trainer saw; skips where no interpreter is named.

    Args:
        trainer: whose interpreter runs it.
        folder: empty, and the driver's own.
        script: its name, by default that of the trainer.
        arguments: further ones.
    """
    variable = f"GUERDON_{trainer.upper()}_PYTHON"
    python = os.environ.get(variable)
    if not python:
        pytest.skip(
            f"set {variable} to the interpreter that `scripts/trainer-venv {trainer}` makes"
        )
    return _run(python, folder, script or f"{trainer}_contract.py", *arguments)


def drive_checkout(trainer, folder, *, python=None, modules=()):
    """What a driver of a trainer that is on no package index saw; skips where none is named.

    Args:
        trainer: GUERDON_<TRAINER>_SOURCE names a checkout of its repository.
        folder: empty, and the driver's own.
        python: the variable that names the interpreter; by default the one of the tests.
        modules: what the checkout must have, from its root.
    """
    variable = f"GUERDON_{trainer.upper()}_SOURCE"
    source = os.environ.get(variable)
    if not source:
        pytest.skip(f"set {variable} to a checkout of the trainer's repository")
    missing = [name for name in modules if not (Path(source) / name).is_file()]
    if missing:
        pytest.fail(f"{variable}={source} has no {', '.join(missing)}")
    if python is not None and not os.environ.get(python):
        pytest.skip(f"set {python} to the interpreter that `scripts/trainer-venv` makes")
    interpreter = os.environ[python] if python is not None else sys.executable
    return _run(interpreter, folder, f"{trainer}_contract.py", str(Path(source).resolve()))


def _run(python, folder, script, *arguments):
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT / "src"),
        "OMP_NUM_THREADS": "1",
    }
    script = TRAINERS / "drivers" / script
    done = subprocess.run(
        [Path(python).absolute(), script, folder, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=LIMIT_SECONDS,
    )
    if done.returncode != 0:
        pytest.fail(f"{script.name} failed:\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}")
    return json.loads((folder / "seen.json").read_text())
