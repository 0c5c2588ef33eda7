"""The command line: `guerdon score` on real rollouts from start to end, and on a large file.

    python benchmarks/score_command.py [--smoke]

`gsm8k_rollouts.jsonl` (2,640 rows) is scored by a fresh process each time, with the wall clock
around it, and every verdict is compared with the label of the dataset's authors. The large file is
the same rows again and again with other ids, shuffled; it is scored as a stream, and by a group
reward, for which the members of every group come together on disk.
"""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measure import arguments, machine

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "gsm8k_rollouts.jsonl"
BOUND_SECONDS = 2.0
"""What the whole command may take, start included."""
ROUNDS = 7
COPIES = 100
"""Of the rollouts in the large file."""

GROUP_REWARD = """
def shortest(samples):
    low = min(len(sample.response) for sample in samples)
    return [float(len(sample.response) == low) for sample in samples]

from guerdon.reward import FunctionReward
shortest = FunctionReward(shortest, scope="group")
"""

MEASURED = (
    "import sys\n"
    "from guerdon.cli.main import main\n"
    "try:\n    main(sys.argv[1:])\n"
    "except SystemExit as ended:\n    status = ended.code\n"
    # Not `ru_maxrss`: across an exec it keeps the peak of the process that forked.
    "peak = next(l.split()[1] for l in open('/proc/self/status') if l.startswith('VmHWM'))\n"
    "print(peak, file=sys.stderr)\n"
    "sys.exit(status)\n"
)


def score(*options: str) -> tuple[float, float]:
    """Seconds and MiB of one run of the command."""
    began = time.perf_counter()
    command = [sys.executable, "-c", MEASURED, "score", *options, "--quiet", "--overwrite"]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    return time.perf_counter() - began, int(ended.stderr.splitlines()[-1]) / 1024


def small(folder: Path, rounds: int) -> None:
    """The figure of the command, and its agreement with the labels."""
    out = folder / "small.jsonl"
    seconds = [score(str(DATA), "-r", "gsm8k", "-o", str(out))[0] for _ in range(rounds)]
    labels = [json.loads(line)["label"] for line in DATA.read_text().splitlines()]
    rewards = [json.loads(line)["reward"] for line in out.read_text().splitlines()]
    agreeing = sum(reward == label for reward, label in zip(rewards, labels, strict=True))
    print(
        f"{len(labels):,} rows with gsm8k: median {statistics.median(seconds):.2f} s, "
        f"worst {max(seconds):.2f} s of {rounds} (bound {BOUND_SECONDS} s); "
        f"{agreeing:,} of {len(labels):,} verdicts agree with the label"
    )
    if agreeing != len(labels):
        sys.exit("verdicts differ from the labels")
    if max(seconds) > BOUND_SECONDS and rounds == ROUNDS:
        sys.exit("the bound is missed")


def large(folder: Path, copies: int) -> None:
    """Rate and memory on a file that is read as a stream."""
    path, reward = folder / "large.jsonl", folder / "rewards.py"
    reward.write_text(GROUP_REWARD)
    lines: list[str] = []
    for copy in range(copies):
        for line in DATA.read_text().splitlines():
            row = json.loads(line)
            row["sample_id"], row["group_id"] = (
                f"{row['sample_id']}.{copy}",
                f"{row['group_id']}.{copy}",
            )
            lines.append(json.dumps(row) + "\n")
    random.Random(0).shuffle(lines)
    path.write_text("".join(lines))
    size = path.stat().st_size / 2**20
    for name, reference in (("gsm8k", "gsm8k"), ("a group reward", f"{reward}:shortest")):
        seconds, memory = score(str(path), "-r", reference, "-o", str(folder / "large.out.jsonl"))
        print(
            f"{len(lines):,} rows ({size:.0f} MiB, shuffled) with {name}: {seconds:.1f} s, "
            f"{len(lines) / seconds:,.0f} rows/s, peak memory {memory:.0f} MiB"
        )


def main() -> None:
    """Measure."""
    smoke = arguments(__doc__ or "").parse_args().smoke
    if not DATA.is_file():
        print(f"skipped: the shared data is not there ({DATA})")
        return
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        small(Path(folder), 2 if smoke else ROUNDS)
        large(Path(folder), 4 if smoke else COPIES)


if __name__ == "__main__":
    main()
