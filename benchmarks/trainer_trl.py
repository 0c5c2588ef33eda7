"""Time of TRL's reward phase for 1,024 completions of mathematics: ours beside accuracy_reward.

    GUERDON_TRL_PYTHON=.venvs/trl/bin/python python benchmarks/trainer_trl.py [--smoke]

`scripts/trainer-venv trl` makes the interpreter. Both are reward functions of one real GRPOTrainer,
and what is timed is its own `_calculate_rewards`: 64 prompts with 16 completions each, of the
shared corpus where it lies beside the checkout, else generated. Each round is a new process, which
warms both up on other rows and then times each of them once: nothing has seen these rows before.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from measure import arguments, machine

DRIVER = Path(__file__).parent / "trainers" / "trl_phase.py"
VARIABLE = "GUERDON_TRL_PYTHON"
PROMPTS, ROUNDS = 64, 5


def main() -> None:
    """Print seconds per reward phase, and the ratios to TRL's own reward."""
    options = arguments(__doc__ or "").parse_args()
    python = os.environ.get(VARIABLE)
    if not python:
        print(f"skipped: no venv ({VARIABLE} is not set; scripts/trainer-venv trl makes one)")
        return
    prompts, rounds = (4, 1) if options.smoke else (PROMPTS, ROUNDS)
    seen = [run(python, prompts) for _ in range(rounds)]
    first = seen[0]
    print(f"{machine()}; TRL {first['trl']}, {first['rows']} completions, {first['data']}")
    theirs = [found["seconds"]["accuracy_reward"] for found in seen]
    ours = [found["seconds"]["math_verify"] for found in seen]
    ratios = [a / b for a, b in zip(theirs, ours, strict=True)]
    print(f"TRL's accuracy_reward  {statistics.median(theirs):7.3f} s")
    print(f"our math_verify        {statistics.median(ours):7.3f} s")
    print(
        f"ratio {statistics.median(ratios):.1f}x (rounds: {', '.join(f'{r:.1f}' for r in ratios)})"
    )
    left_out = first["rows"] - first["judged"]
    print(
        f"same verdict: {first['agreement']:.2%}; TRL leaves out {left_out} rows (unparsed truth)"
    )


def run(python: str, prompts: int) -> dict[str, Any]:
    """One round, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [Path(python).absolute(), DRIVER, folder, str(prompts)],
            check=True,
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        return json.loads((Path(folder) / "seen.json").read_text())


if __name__ == "__main__":
    sys.exit(main())
