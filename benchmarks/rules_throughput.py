"""CPU time of the rules beside verl's scorers, on the same answers in one run.

    python benchmarks/rules_throughput.py --verl-python PATH [--smoke]

`--verl-python` names an interpreter with verl 0.9.1 (and mathruler for geometry3k). Without it only
our own times are shown, and the report says that the peer is absent. Answers are the shared GSM8K
rollouts where they lie beside the checkout, and otherwise texts generated from a seed. Each rule is
timed in both processes by turns; the ratio is the median of the rounds, verl's time over ours.

The defaults of the mathematics rules compare equal (truth, answer) pairs once, as in training,
where a group shares its truth. The pairs of geo3k and prime_math are few: those defaults run warm.
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data" / "gsm8k_rollouts.jsonl"
ROUNDS = 5
SAMPLES = 2000
SLOW_SAMPLES = 60
SLOW = frozenset({"geo3k", "prime_math"})

Pair = tuple[Any, ...]


def workloads(count: int) -> dict[str, list[Pair]]:
    """Answers for each of verl's scorers, about a thousand characters each."""
    rng = random.Random(7)
    texts, truths = _rollouts(rng, count)
    numbers = [rng.choice((r"\frac{1}{2}", "18", r"2\sqrt{3}", "1,000", "x+1")) for _ in texts]
    other = [rng.choice((r"\frac{1}{2}", "18", r"2\sqrt{3}", "1000", "1+x")) for _ in texts]
    boxed = [f"<think>{t}</think> so \\boxed{{{n}}}." for t, n in zip(texts, numbers, strict=True)]
    hashes = [t.replace("\nA: ", "\n#### ") for t in texts]
    call = '<tool_call>\n{"name": "read", "parameters": {"page": %d}}\n</tool_call>'
    turns = [f"<think>{t}</think>\n{call % rng.randrange(3)}" for t in texts]
    qa = [f"{t}<answer>The {rng.choice(('Paris', 'Eiffel tower'))}</answer>" for t in texts]
    slow = min(count, SLOW_SAMPLES)
    return {
        "gsm8k strict": list(zip(hashes, truths, strict=True)),
        "gsm8k flexible": list(zip(hashes, truths, strict=True)),
        "math_reward": list(zip(boxed, other, strict=True)),
        "math_dapo": [
            (f"{t}\nAnswer: {n}", o) for t, n, o in zip(texts, numbers, other, strict=True)
        ],
        "search_r1": [(t, {"target": ["Paris", "Tour Eiffel"]}) for t in qa],
        "rlla": [(t, f"<think>x</think>\n{call % 1}", {"experiment_name": "qwen"}) for t in turns],
        "geo3k": list(zip(boxed, other, strict=True))[:slow],
        "prime_math": list(zip(boxed, other, strict=True))[:slow],
    }


def _rollouts(rng: random.Random, count: int) -> tuple[list[str], list[str]]:
    if SHARED.is_file():
        rows = [json.loads(line) for line in SHARED.read_text().splitlines()]
        chosen = rng.sample(rows, min(count, len(rows)))
        return [row["response"] for row in chosen], [row["ground_truth"] for row in chosen]
    words = "so the total is then she has left and 12 3 45 pays each day".split()  # noqa: SIM905
    texts = [
        " ".join(rng.choices(words, k=180)) + f"\nA: {rng.randrange(50)}" for _ in range(count)
    ]
    return texts, [str(rng.randrange(50)) for _ in texts]


def our_rules() -> dict[str, dict[str, Callable[..., Any]]]:
    """For each of verl's scorers, our compat mode and our default."""
    from guerdon.reward import BaseReward, Ready
    from guerdon.rules import competition, gsm8k, qa, toolrl

    def direct(rule: Any, **options: Any) -> Callable[..., Any]:
        return lambda s, g: rule.function(s, g, **options)

    def staged(rule: BaseReward) -> Callable[..., Any]:
        def score(response: str, truth: str) -> Any:
            assert rule.prepare is not None
            prepared = rule.prepare(response=response, ground_truth=truth)
            return prepared.result if isinstance(prepared, Ready) else rule.call(**prepared)

        return score

    def turn(compat: bool) -> Callable[..., Any]:
        name = "qwen" if compat else ""
        return lambda s, g, _: toolrl.rlla.function(s, g, name, compat=compat)

    solve = gsm8k.gsm8k
    return {
        "gsm8k strict": {
            "compat": direct(solve, method="strict", compat=True),
            "default": direct(solve),
        },
        "gsm8k flexible": {
            "compat": direct(solve, method="flexible", compat=True),
            "default": direct(solve, method="flexible"),
        },
        "math_reward": {
            "compat": staged(competition.HendrycksMath(compat=True)),
            "default": staged(competition.HendrycksMath()),
        },
        "math_dapo": {
            "compat": staged(competition.MathDapo(compat=True)),
            "default": staged(competition.MathDapo()),
        },
        "search_r1": {
            "compat": direct(qa.search_r1, compat=True),
            "default": direct(qa.search_r1),
        },
        "rlla": {"compat": turn(True), "default": turn(False)},
        "geo3k": {
            "compat": staged(competition.Geometry3k(compat=True)),
            "default": staged(competition.Geometry3k()),
        },
        "prime_math": {
            "compat": staged(competition.PrimeMath(compat=True)),
            "default": staged(competition.PrimeMath()),
        },
    }


def verl_rules() -> dict[str, Callable[..., Any]]:
    """verl's scorers; runs in the peer's interpreter."""
    import builtins

    from verl.utils.reward_score import geo3k, gsm8k, math_dapo, math_reward, prime_math, rlla
    from verl.utils.reward_score import search_r1_like_qa_em as search_r1

    # Two scorers print samples at random; that is not what is measured.
    builtins.print = lambda *_, **__: None
    return {
        "gsm8k strict": lambda s, g: gsm8k.compute_score(s, g, method="strict"),
        "gsm8k flexible": lambda s, g: gsm8k.compute_score(s, g, method="flexible"),
        "math_reward": math_reward.compute_score,
        "math_dapo": math_dapo.compute_score,
        "search_r1": search_r1.compute_score,
        "rlla": lambda s, g, extra: rlla.compute_score("rlla", s, g, extra),
        "geo3k": geo3k.compute_score,
        "prime_math": prime_math.compute_score,
    }


def cpu_seconds(rule: Callable[..., Any], pairs: list[Pair], *, children: bool = False) -> float:
    """CPU seconds of one pass, those of finished child processes included where asked."""
    import os

    def now() -> float:
        times = os.times()
        spawned = times.children_user + times.children_system
        return time.process_time() + (spawned if children else 0.0)

    started = now()
    for arguments in pairs:
        rule(*arguments)
    return now() - started


def serve_peer() -> None:
    """Answer requests on standard input: a rule's name and pairs, answered by CPU seconds."""
    answers = sys.stdout
    sys.stdout = sys.stderr
    rules = verl_rules()
    answers.write("ready\n")
    answers.flush()
    for line in sys.stdin:
        name, pairs = json.loads(line)
        seconds = cpu_seconds(rules[name], [tuple(pair) for pair in pairs], children=True)
        answers.write(f"{seconds}\n")
        answers.flush()


class Peer:
    """The other interpreter, kept warm."""

    def __init__(self, python: str) -> None:
        command = [python, str(Path(__file__).resolve()), "--serve"]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True, cwd="/",
        )  # fmt: skip
        self._answer()

    def time(self, name: str, pairs: list[Pair]) -> float:
        """CPU seconds of one pass over the pairs."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([name, pairs]) + "\n")
        self._process.stdin.flush()
        return float(self._answer())

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("the peer's interpreter ended: does it have verl 0.9.1?")
        return line

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait()


def main() -> None:
    """Run the benchmark and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--verl-python", help="an interpreter with verl 0.9.1")
    parser.add_argument("--smoke", action="store_true", help="few samples, one round")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve_peer()
        return
    count, rounds = (40, 1) if options.smoke else (SAMPLES, ROUNDS)
    peer = Peer(options.verl_python) if options.verl_python else None
    if peer is None:
        print("verl is absent (no --verl-python): only our own times are shown, no ratios")
    else:
        print("peer: verl 0.9.1; ratio = verl's CPU time / ours, median of", rounds, "rounds")
    source = "shared GSM8K rollouts" if SHARED.is_file() else "generated texts"
    print(f"answers: {source}; microseconds of CPU per sample\n")
    print(
        f"{'scorer':16}{'samples':>8}{'verl':>10}{'compat':>10}{'ratio':>8}{'default':>10}{'ratio':>8}"
    )
    ours = our_rules()
    for name, pairs in workloads(count).items():
        times: dict[str, list[float]] = {"verl": [], "compat": [], "default": []}
        for mode in ("compat", "default"):
            cpu_seconds(ours[name][mode], pairs[:20])
        for _ in range(rounds):
            if peer is not None:
                times["verl"].append(peer.time(name, pairs))
            for mode in ("compat", "default"):
                times[mode].append(cpu_seconds(ours[name][mode], pairs))
        print(_row(name, len(pairs), times))
    if peer is not None:
        peer.close()


def _row(name: str, count: int, times: dict[str, list[float]]) -> str:
    def each(mode: str) -> str:
        if not times[mode]:
            return "-"
        return f"{statistics.median(times[mode]) / count * 1e6:.1f}"

    def ratio(mode: str) -> str:
        pairs = zip(times["verl"], times[mode], strict=False)
        ratios = [theirs / ours for theirs, ours in pairs if ours > 0]
        return f"{statistics.median(ratios):.1f}x" if ratios else "-"

    cells = f"{each('verl'):>10}{each('compat'):>10}{ratio('compat'):>8}"
    return f"{name:16}{count:>8}{cells}{each('default'):>10}{ratio('default'):>8}"


if __name__ == "__main__":
    main()
