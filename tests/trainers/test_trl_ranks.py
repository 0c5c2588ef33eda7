"""A GRPO run on two processes, whose groups are on both (TRL 1.16.0, gloo on CPU)."""

from pathlib import Path

import pytest

from guerdon.registry import load_file

interpreter = load_file(str(Path(__file__).with_name("parity") / "interpreter.py"))

HALF = 2
"""Rows of a group of 4 that each of the two processes has."""


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    return interpreter.drive("trl", tmp_path_factory.mktemp("ranks"), "trl_ranks.py")


def together(seen, run):
    """The rows of both processes, step by step, and what TRL gathered on each."""
    for first, second in zip(*(rank[run] for rank in seen), strict=True):
        assert first["prompts"] == second["prompts"]  # one group
        assert first["rewards"] == second["rewards"]
        yield first["completions"] + second["completions"], first["rewards"]


def test_the_processes_are_two(seen):
    assert [rank["processes"] for rank in seen] == [2, 2]


def test_a_group_is_compared_over_both_processes(seen):
    """Each of three functions, two of them async, at the same time."""
    steps = list(together(seen, "compared"))
    assert len(steps) == 2
    for texts, rewards in steps:
        longest = max(map(len, texts))
        assert rewards == [[float(len(text) == longest)] * 3 for text in texts]


@pytest.mark.parametrize("run", ["dropped", "served"])
def test_a_group_is_dropped_on_both_processes(seen, run):
    """Under a policy of its own, and under that of a service."""
    dropped = []
    for texts, rewards in together(seen, run):
        lost = any(ord(text[-1]) % 2 for text in texts)
        assert rewards == [[None if lost else float(len(text))] for text in texts]
        dropped.append(lost)
    assert any(dropped)


def test_what_raises_on_one_process_raises_on_both(seen):
    for rank in seen:
        assert rank["raised"].startswith("ScoringFailed: rank 1: ScoringFailed: 2 of 2 samples")
        assert "unusable on this rank" in rank["raised"]


def test_a_column_that_one_process_lacks_stops_both(seen):
    here, there = (rank["column"] for rank in seen)
    assert there.startswith("ConfigError: columns: the dataset has no column 'answer'")
    assert here.startswith("ScoringFailed: rank 1: ConfigError: columns: the dataset has no column")


def test_both_processes_log_the_same_metrics(seen):
    """TRL before 1.14 waits for ever for one that a process does not log."""
    uneven = False
    for here, there in zip(*(rank["metrics"] for rank in seen), strict=True):
        heard = [text for text in there["completions"] if not ord(text[-1]) % 2]
        lengths = [len(text) for text in here["completions"] + heard]
        assert here["metrics"]["sum/even"] == [sum(lengths) / len(lengths)]
        assert here["metrics"]["sum/even"] == there["metrics"]["sum/even"]
        uneven = uneven or len(heard) < len(there["completions"])
    assert uneven
