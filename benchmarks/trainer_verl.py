"""Samples per second of verl's RewardLoopManager on Ray: our manager beside verl's naive one.

    GUERDON_VERL_PYTHON=.venvs/verl/bin/python python benchmarks/trainer_verl.py [--smoke]

`scripts/trainer-venv verl` makes the interpreter. Two reward workers score GSM8K rollouts of about
300 characters, as token ids, through `compute_rm_score`: verl's naive manager with its own gsm8k
scorer, our manager with our gsm8k rule in the worker, and our manager asking a `guerdon serve` on
this host. Each is started anew in every round, warmed up, and then timed over several batches; the
rounds take turns, and the best batch of each counts. What bounds it is measured as well: the same
batches through a manager that returns 0.0 without reading anything.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from measure import arguments, machine

from guerdon.server import load
from guerdon.server.running import RunningServer

DRIVER = Path(__file__).parent / "trainers" / "verl_loop.py"
VARIABLE = "GUERDON_VERL_PYTHON"
SAMPLES, ROUNDS, BATCHES = 4096, 2, 4
NAMES = {
    "naive": "verl's naive manager",
    "ours": "our manager, in process",
    "served": "our manager, local guerdon serve",
    "nothing": "a manager that does nothing",
}


def main() -> None:
    """Print samples per second and the ratios to verl's own manager."""
    options = arguments(__doc__ or "").parse_args()
    python = os.environ.get(VARIABLE)
    if not python:
        print(f"skipped: no venv ({VARIABLE} is not set; scripts/trainer-venv verl makes one)")
        return
    samples, rounds, batches = (64, 1, 1) if options.smoke else (SAMPLES, ROUNDS, BATCHES)
    hosted = {"gsm8k": {"reward": "gsm8k"}}
    server = RunningServer(load({"rewards": hosted, "serve": {"port": 0}}, environment={})).start()
    try:
        with tempfile.TemporaryDirectory() as folder:
            url = f"http://127.0.0.1:{server.server.port}"
            subprocess.run(
                [
                    Path(python).absolute(),
                    DRIVER,
                    folder,
                    url,
                    *map(str, (samples, rounds, batches)),
                ],
                check=True,
                cwd=folder,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
            seen = json.loads((Path(folder) / "seen.json").read_text())
    finally:
        server.stop()
    print(f"{machine()}; verl {seen['verl']}, 2 reward workers, batches of {samples}")
    base = max(seen["rates"]["naive"])
    for name, title in NAMES.items():
        best = max(seen["rates"][name])
        every = ", ".join(f"{rate:,.0f}" for rate in seen["rates"][name])
        print(f"{title:34} {best:8,.0f} samples/s  {best / base:5.2f}x   (rounds: {every})")
    same = seen["agreement"]
    print(f"rows with verl's own score: {same['ours']:.2%} in process, {same['served']:.2%} served")


if __name__ == "__main__":
    sys.exit(main())
