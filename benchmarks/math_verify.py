"""CPU time of `math_verify` beside its peers, in one run, with the verdicts compared.

Every contender runs in a process of its own, warmed up on problems that are not in the data, and
the rounds of the contenders take turns. Reported is user + system time of the contender's process
and its children; ratios are peer / Guerdon. Contenders:

- `guerdon`: `guerdon.rules.math.verify`, in process (the parent's and the worker's stage together).
- `pattern`: Math-Verify called as TRL's `accuracy_reward` calls it; always there.
- `trl`: `trl.rewards.accuracy_reward` itself, with `--trl-python`, the Python of a venv with TRL.
- `verl`: `verl.utils.reward_score.math_verify`'s own comparison, called in process without its
  worker pool, with `--verl-python`. Its configuration differs, so its verdicts may.
- `areal`: AReaL's `MathVerifyWorker.verify`, with `--areal-python`. As for verl.

Data: `../shared/data` beside the checkout (see `--data`).

    python benchmarks/math_verify.py --trl-python /path/to/venv/bin/python
    python benchmarks/math_verify.py --smoke
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
LONG_TEXT = 100_000
Pairs = list[tuple[str, str]]
Scorer = Callable[[Pairs], list[bool | None]]


# -- contenders: each runs in its own interpreter ----------------------------------------------


def guerdon_scorer() -> tuple[Scorer, Callable[[], None]]:
    """Guerdon, both stages in this process."""
    sys.path.insert(0, str(ROOT / "src"))
    from guerdon.rules.math import engine, verdict, verify

    def clear() -> None:
        engine.clear()
        verdict.clear()

    return lambda pairs: [verify(gold, text) for gold, text in pairs], clear


def pattern_scorer() -> tuple[Scorer, Callable[[], None]]:
    """Math-Verify called as TRL calls it."""
    from latex2sympy2_extended import NormalizationConfig
    from math_verify import LatexExtractionConfig, parse, verify

    config = LatexExtractionConfig(
        normalization_config=NormalizationConfig(units=True),
        boxed_match_priority=0,
        try_extract_without_anchor=False,
    )

    def one(gold: str, text: str) -> bool | None:
        gold_parsed = parse(f"${gold}$", parsing_timeout=10)
        if not gold_parsed:
            return None
        answer = parse(
            text, extraction_config=[config], extraction_mode="first_match", parsing_timeout=10
        )
        return verify(gold_parsed, answer, timeout_seconds=5)

    return lambda pairs: [one(gold, text) for gold, text in pairs], lambda: None


def trl_scorer() -> tuple[Scorer, Callable[[], None]]:
    """TRL's `accuracy_reward`."""
    from trl.rewards import accuracy_reward

    def score(pairs: Pairs) -> list[bool | None]:
        out: list[bool | None] = []
        for at in range(0, len(pairs), 16):  # one call per group of 16, as GRPO makes them
            group = pairs[at : at + 16]
            texts = [[{"role": "assistant", "content": text}] for _, text in group]
            values = accuracy_reward(texts, [f"${gold}$" for gold, _ in group])
            out += [None if value is None else bool(value) for value in values]
        return out

    return score, lambda: None


def verl_scorer() -> tuple[Scorer, Callable[[], None]]:
    """verl's comparison, without its worker pool."""
    from verl.utils.reward_score import math_verify as module

    def one(gold: str, text: str) -> bool:
        return bool(module._verify_in_subprocess("\\boxed{" + gold + "}", text))

    return lambda pairs: [one(gold, text) for gold, text in pairs], lambda: None


def areal_scorer() -> tuple[Scorer, Callable[[], None]]:
    """AReaL's `MathVerifyWorker`."""
    from areal.reward import MathVerifyWorker

    worker = MathVerifyWorker()
    return (
        lambda pairs: [bool(worker.verify(text, gold)) for gold, text in pairs],
        lambda: None,
    )


SCORERS: dict[str, Callable[[], tuple[Scorer, Callable[[], None]]]] = {
    "guerdon": guerdon_scorer,
    "pattern": pattern_scorer,
    "trl": trl_scorer,
    "verl": verl_scorer,
    "areal": areal_scorer,
}


def warm_up_pairs() -> Pairs:
    """64 problems of all kinds, none of them in the data."""
    golds = (
        r"x^3-7xy+\frac{1}{y}",
        r"\frac{911}{17}",
        "9173",
        "31.4159",
        r"(91,92,93,94)",
        r"[71,72]",
        r"\{71,72,73,74,75\}",
        r"w = 17v + 91",
        r"\text{warm}",
        r"17\sqrt{19}+\pi",
        r"\begin{pmatrix} 71 & 72 \end{pmatrix}",
        r"|x|+\log_{7}{91}",
        r"71 < w < 91",
        r"91\%",
        r"\frac{\ln 91}{\sin 17}",
        r"f(w) = w^2 - 91",
    )
    forms = (r"\boxed{%s}", r"The final answer is $%s$.", r"$\boxed{%s+1}$", r"\[ \boxed{%s} \]")
    return [(gold, form % gold) for gold in golds for form in forms]


def cpu() -> float:
    """User and system seconds of this process and its children."""
    own, children = (
        resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def run_contender(name: str, path: Path) -> None:
    """Score the tasks of a file; write verdicts and seconds as JSON to standard output."""
    import logging
    import warnings

    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    # This file would stand before the package of the same name.
    sys.path[:] = [entry for entry in sys.path if entry != str(Path(__file__).resolve().parent)]
    score, clear = SCORERS[name]()
    score(warm_up_pairs())
    result: dict[str, Any] = {}
    for task in json.loads(path.read_text()):
        pairs = [(gold, text) for gold, text in task["pairs"]]
        times: list[float] = []
        clear()
        for _ in range(task["passes"]):
            if task["cold"]:
                clear()
            start = cpu()
            verdicts = score(pairs)
            times.append(cpu() - start)
        result[task["name"]] = {"seconds": times, "verdicts": verdicts}
    print("RESULT" + json.dumps(result))


# -- the run -----------------------------------------------------------------------------------


def corpus(folder: Path) -> Pairs:
    """The generated completions: gold answer, response."""
    with gzip.open(folder / "math_corpus.jsonl.gz", "rt") as lines:
        return [(row["ground_truth"], row["response"]) for row in map(json.loads, lines)]


def rollouts(folder: Path) -> Pairs:
    """The GSM8K rollouts: gold answer, response."""
    with (folder / "gsm8k_rollouts.jsonl").open() as lines:
        return [(row["ground_truth"], row["response"]) for row in map(json.loads, lines)]


def boxed(pairs: Pairs) -> Pairs:
    """The rollouts with what they state after `A:` in a box.

    As they are they state it in a form that this configuration of Math-Verify does not extract, so
    that every verdict is False.
    """
    stated = [(gold, text, text.rpartition("A:")[2].strip()) for gold, text in pairs]
    return [(gold, f"{text}\n$\\boxed{{{answer}}}$") for gold, text, answer in stated]


def long_and_short(pairs: Pairs) -> tuple[Pairs, Pairs]:
    """Three completions as they are, and each with reasoning before it to 100,000 characters.

    One ends with its only box, one has an earlier box, one has no box but "The final answer is".
    """
    boxed = next(p for p in pairs if p[1].count("\\boxed") == 1)
    twice = next(p for p in pairs if p[1].count("\\boxed") == 2)
    bare = next(p for p in pairs if "\\boxed" not in p[1] and "final answer is $" in p[1])
    plain = [text for _, text in pairs if "\\boxed" not in text and "answer" not in text.lower()]
    reasoning = "\n\n".join(plain)
    reasoning *= LONG_TEXT // len(reasoning) + 1
    short = [boxed, twice, bare]
    return short, [(gold, reasoning[: LONG_TEXT - len(text)] + text) for gold, text in short]


def tasks_of(args: argparse.Namespace) -> list[dict[str, Any]]:
    """What every contender scores, in order."""
    pairs, gsm8k = corpus(args.data), rollouts(args.data)
    short, long = long_and_short(pairs)
    if args.smoke:
        rng = random.Random(7)
        pairs, gsm8k = rng.sample(pairs, 160), rng.sample(gsm8k, 160)
    in_boxes = boxed(gsm8k)
    repeats = 2 if args.smoke else 20
    return [
        {"name": "corpus", "pairs": pairs, "passes": 2, "cold": False},
        {"name": "gsm8k", "pairs": gsm8k, "passes": 1, "cold": True},
        {"name": "gsm8k boxed", "pairs": in_boxes, "passes": 1, "cold": True},
        {"name": "short", "pairs": short, "passes": repeats, "cold": True},
        {"name": "long", "pairs": long, "passes": repeats, "cold": True},
    ]


def contenders_of(args: argparse.Namespace) -> dict[str, str]:
    """The interpreter of each contender."""
    found = {"guerdon": sys.executable, "pattern": sys.executable}
    for name in ("trl", "verl", "areal"):
        python = getattr(args, f"{name}_python")
        if python:
            found[name] = python
    return found


def measure(name: str, python: str, path: Path) -> dict[str, Any]:
    """One contender in a fresh process."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONHASHSEED": "0"}
    done = subprocess.run(
        [python, __file__, "--contender", name, "--tasks", str(path)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    line = next((x for x in done.stdout.splitlines() if x.startswith("RESULT")), None)
    if line is None:
        raise SystemExit(f"{name} failed:\n{done.stderr[-3000:]}")
    return json.loads(line.removeprefix("RESULT"))


def report(rounds: dict[str, list[dict[str, Any]]], tasks: list[dict[str, Any]]) -> bool:
    """Print the table; whether the verdicts agree."""
    sizes = {task["name"]: len(task["pairs"]) for task in tasks}

    def ms(name: str, task: str, which: Callable[[list[float]], float]) -> float:
        values = [which(one[task]["seconds"]) for one in rounds[name]]
        return statistics.median(values) / sizes[task] * 1000

    rows = {
        "corpus, cold": ("corpus", lambda times: times[0]),
        "corpus, repeated": ("corpus", lambda times: times[1]),
        "gsm8k rollouts": ("gsm8k", lambda times: times[0]),
        "gsm8k rollouts, boxed": ("gsm8k boxed", lambda times: times[0]),
        "3 completions, short": ("short", statistics.median),
        "3 completions, 100,000 characters": ("long", statistics.median),
    }
    peers = [name for name in rounds if name != "guerdon"]
    print(
        f"{'CPU ms per sample':36}{'guerdon':>10}" + "".join(f"{p:>11}{'ratio':>8}" for p in peers)
    )
    for label, (task, which) in rows.items():
        own = ms("guerdon", task, which)
        line = f"{label:36}{own:10.4f}"
        for peer in peers:
            other = ms(peer, task, which)
            line += f"{other:11.4f}{other / own:7.1f}x"
        print(line)
    growth = ms("guerdon", "long", statistics.median) / ms("guerdon", "short", statistics.median)
    print(f"{'long / short':36}{growth:9.1f}x")
    return differences(rounds, tasks, peers)


def differences(
    rounds: dict[str, list[dict[str, Any]]], tasks: list[dict[str, Any]], peers: list[str]
) -> bool:
    """Print how many verdicts differ; whether those with the same configuration agree."""
    agree = True
    for peer in peers:
        counts: list[str] = []
        for task in tasks:
            own = rounds["guerdon"][0][task["name"]]["verdicts"]
            other = rounds[peer][0][task["name"]]["verdicts"]
            wrong = sum(a != b for a, b in zip(own, other, strict=True))
            counts.append(f"{task['name']} {wrong} of {len(own)}")
            agree = agree and (not wrong or peer in ("verl", "areal"))
        print(f"verdicts that differ from {peer}: {', '.join(counts)}")
    return agree


def main() -> None:
    """Run the benchmark, or one contender of it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--smoke", action="store_true", help="a few seconds instead of minutes")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--trl-python", help="the Python of a venv with TRL")
    parser.add_argument("--verl-python", help="the Python of a venv with verl")
    parser.add_argument("--areal-python", help="the Python of a venv with AReaL")
    parser.add_argument("--contender", choices=SCORERS, help=argparse.SUPPRESS)
    parser.add_argument("--tasks", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.contender:
        run_contender(args.contender, args.tasks)
        return
    if not args.data.is_dir():
        print(f"skipped: no data at {args.data} (see --data)")
        return
    tasks = tasks_of(args)
    contenders = contenders_of(args)
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in contenders}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tasks.json"
        path.write_text(json.dumps(tasks))
        for _ in range(1 if args.smoke else args.rounds):
            for name, python in contenders.items():
                rounds[name].append(measure(name, python, path))
    if not report(rounds, tasks):
        raise SystemExit("the verdicts differ")


if __name__ == "__main__":
    main()
