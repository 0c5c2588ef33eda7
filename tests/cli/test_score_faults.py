"""Runs that are killed, interrupted, or run out of room, and what is left of them.

The reward strikes its own process at a chosen sample, so nothing depends on timing. It also notes
every sample that it is called for: a resumed run must not call it for a row that is kept.
"""

import json
import os
import random
import resource
import signal
import subprocess
import sys

import pytest

from guerdon.rollouts.decoding import Unreadable, decode_row

REWARDS = """
import os, signal
from guerdon.reward import reward

def strike(sample_id):
    with open("calls", "a") as calls:
        calls.write(sample_id + "\\n")
    if sample_id == os.environ.get("STRIKE_AT"):
        os.kill(os.getpid(), int(os.environ["SIGNAL"]))

@reward(auto_register=False)
def each(response, sample_id):
    strike(sample_id)
    return float(len(response))

@reward(scope="group", auto_register=False)
def rank(samples):
    for sample in samples:
        strike(sample.sample_id)
    order = sorted(len(sample.response) for sample in samples)
    return [float(order.index(len(sample.response))) for sample in samples]

@reward(auto_register=False)
def other(response):
    return 0.0
"""
COUNT = 60


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rewards.py").write_text(REWARDS)
    rows = [
        {"response": "x" * n, "sample_id": f"s{n}", "group_id": f"g{n % 15}"} for n in range(COUNT)
    ]
    write("data.jsonl", rows)
    return tmp_path


def write(name, rows):
    with open(name, "w") as file:
        file.write("".join(json.dumps(row) + "\n" for row in rows))


def score(*arguments, reward="each", strike_at="", number=signal.SIGKILL, **keywords):
    command = [sys.executable, "-m", "guerdon.cli.main", "score", "data.jsonl", "--batch-size", "7"]
    environment = {**os.environ, "STRIKE_AT": strike_at, "SIGNAL": str(int(number))}
    return subprocess.run(
        [*command, "--reward", f"rewards.py:{reward}", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        **keywords,
    )


def rows_in(path):
    """The whole rows of a file."""
    rows = []
    with open(path, "rb") as file:
        for line in file:
            try:
                rows.append(decode_row(line))
            except Unreadable:
                continue
    return rows


def calls():
    """Samples that the reward was called for since the last look."""
    with open("calls") as file:
        found = file.read().split()
    os.remove("calls")
    return found


def damage(path, rng):
    """What a crash may leave: a torn last line, and lines in any order."""
    with open(path, "rb") as file:
        lines = file.readlines()
    rng.shuffle(lines)
    content = b"".join(lines)
    with open(path, "wb") as file:
        file.write(content[: len(content) - rng.randrange(min(400, len(content) + 1))])


@pytest.mark.parametrize("reward", ["each", "rank"])
@pytest.mark.parametrize("seed", range(3))
def test_kills_again_and_again_lose_nothing_and_score_nothing_twice(folder, reward, seed):
    whole = score("-o", "whole.jsonl", reward=reward)
    assert whole.returncode == 0, whole.stderr
    calls()
    rng = random.Random(seed)
    kept = set()
    for victim in rng.sample(range(10, COUNT), 3):
        ended = score(
            "-o",
            "out.jsonl",
            *(["--resume"] if kept else []),
            reward=reward,
            strike_at=f"s{victim}",
        )
        called = calls() if os.path.exists("calls") else []
        if ended.returncode == 0:  # the victim had been scored
            break
        assert ended.returncode == -signal.SIGKILL, ended.stderr
        assert not os.path.exists("out.jsonl")
        if reward == "each":
            assert kept.isdisjoint(called)
        damage("out.jsonl.partial", rng)
        kept = {row["sample_id"] for row in rows_in("out.jsonl.partial")}
    ended = score("-o", "out.jsonl", "--resume", reward=reward)
    assert ended.returncode == 0, ended.stderr
    assert not os.path.exists("out.jsonl.partial")
    without_time = [{**row, "elapsed_s": 0} for row in rows_in("out.jsonl")]
    assert without_time == [{**row, "elapsed_s": 0} for row in rows_in("whole.jsonl")]
    if os.path.exists("calls"):
        called = calls()
        assert len(called) == len(set(called))
        if reward == "each":
            assert kept.isdisjoint(called)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_can_go_on(folder, number):
    ended = score("-o", "out.parquet", strike_at="s33", number=number)
    assert ended.returncode == 130
    assert "Traceback" not in ended.stderr
    assert "interrupted: " in ended.stderr
    assert "--resume" in ended.stderr
    kept = {row["sample_id"] for row in rows_in("out.parquet.partial")}
    assert kept
    calls()
    ended = score("-o", "out.parquet", "--resume", "--json")
    assert ended.returncode == 0, ended.stderr
    assert kept.isdisjoint(calls())
    summary = json.loads(ended.stdout)
    assert (summary["rows"], summary["new_rows"]) == (COUNT, COUNT - len(kept))
    assert os.path.exists("out.parquet")
    assert not os.path.exists("out.parquet.partial")


def test_an_interrupted_run_is_not_forgotten_by_accident(folder):
    score("-o", "out.jsonl", strike_at="s33")
    before = rows_in("out.jsonl.partial")
    refused = score("-o", "out.jsonl")
    assert refused.returncode == 2
    assert "--resume" in refused.stderr
    assert "--overwrite" in refused.stderr
    assert rows_in("out.jsonl.partial") == before
    assert score("-o", "out.jsonl", "--overwrite").returncode == 0
    assert len(rows_in("out.jsonl")) == COUNT


def changed_row(rows):
    rows[3]["response"] = "changed"


def fewer_rows(rows):
    del rows[5:]


def another_order(rows):
    rows[0], rows[1] = rows[1], rows[0]


@pytest.mark.parametrize("change", [changed_row, fewer_rows, another_order])
@pytest.mark.parametrize("finished", [False, True])
def test_another_input_is_refused(folder, change, finished):
    score("-o", "out.jsonl", strike_at="" if finished else "s33")
    name = "out.jsonl" if finished else "out.jsonl.partial"
    before = rows_in(name)
    assert before
    rows = rows_in("data.jsonl")
    change(rows)
    write("data.jsonl", rows)
    refused = score("-o", "out.jsonl", "--resume")
    assert refused.returncode == 2, refused.stderr
    assert "scored" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert rows_in(name) == before
    assert [n for n in sorted(os.listdir()) if n.startswith("out")] == [name]


@pytest.mark.parametrize(
    "arguments",
    [["--step", "3"], ["--split", "validation"], ["--map", "metadata.x=group_id"]],
)
def test_other_conditions_are_refused(folder, arguments):
    score("-o", "out.jsonl", strike_at="s33")
    refused = score("-o", "out.jsonl", "--resume", *arguments)
    assert refused.returncode == 2
    assert "has changed" in refused.stderr


@pytest.mark.parametrize("finished", [False, True])
def test_another_reward_is_refused(folder, finished):
    score("-o", "out.jsonl", strike_at="" if finished else "s33")
    refused = score("-o", "out.jsonl", "--resume", reward="other")
    assert refused.returncode == 2
    assert "used the reward each" in refused.stderr
    code = (
        (folder / "rewards.py").read_text().replace("float(len(response))", "len(response) + 1.0")
    )
    (folder / "rewards.py").write_text(code)
    refused = score("-o", "out.jsonl", "--resume")
    assert refused.returncode == 2
    assert "the same code and options" in refused.stderr
    left = [n for n in sorted(os.listdir()) if n.startswith("out")]
    assert left == ["out.jsonl" if finished else "out.jsonl.partial"]


@pytest.mark.parametrize("form", ["jsonl", "json.gz", "parquet"])
def test_a_finished_run_can_go_on_over_more_rows(folder, form):
    first = score("-o", f"out.{form}", "--limit", "20", "--json")
    assert json.loads(first.stdout)["rows"] == 20
    calls()
    second = score("-o", f"out.{form}", "--resume", "--json")
    assert second.returncode == 0, second.stderr
    assert json.loads(second.stdout)["new_rows"] == COUNT - 20
    assert len(calls()) == COUNT - 20
    third = score("-o", f"out.{form}", "--resume", "--json")
    summary = json.loads(third.stdout)
    assert (summary["rows"], summary["new_rows"]) == (COUNT, 0)
    assert summary["reward"]["mean"] == pytest.approx(sum(range(COUNT)) / COUNT)
    assert not os.path.exists("calls")


def test_resuming_what_never_began_begins(folder):
    ended = score("-o", "out.jsonl", "--resume")
    assert ended.returncode == 0
    assert "no earlier run was found" in ended.stderr
    assert len(rows_in("out.jsonl")) == COUNT


def limited_files():
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))


@pytest.mark.parametrize("form", ["jsonl", "json"])
def test_without_room_the_run_ends_and_can_go_on(folder, form):
    ended = score("-o", f"out.{form}", "-q", preexec_fn=limited_files)
    assert ended.returncode == 1
    assert ended.stderr.startswith("guerdon: cannot write ")
    assert len(ended.stderr.splitlines()) <= 3
    assert not os.path.exists(f"out.{form}")
    kept = rows_in(f"out.{form}.partial")
    assert 0 < len(kept) < COUNT
    calls()
    assert score("-o", f"out.{form}", "--resume").returncode == 0
    assert {row["sample_id"] for row in kept}.isdisjoint(calls())
    assert not os.path.exists(f"out.{form}.partial")


def test_when_the_finished_file_cannot_be_written_nothing_is_lost(folder):
    os.mkdir("out.json.tmp")
    ended = score("-o", "out.json", "-q")
    assert ended.returncode == 1, ended.stderr
    assert "guerdon: cannot write " in ended.stderr
    assert not os.path.exists("out.json")
    assert len(calls()) == COUNT
    os.rmdir("out.json.tmp")
    assert score("-o", "out.json", "--resume").returncode == 0
    assert not os.path.exists("calls")
    with open("out.json") as file:
        assert len(json.load(file)) == COUNT


def test_a_closed_pipe_ends_the_run_quietly(folder):
    write("many.jsonl", [{"response": "x" * 1000, "sample_id": f"s{n}"} for n in range(3000)])
    command = (
        f"'{sys.executable}' -m guerdon.cli.main score many.jsonl -r rewards.py:other -q"
        " --keep-input -o - | head -n 1; echo ${PIPESTATUS[0]}"
    )
    ended = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, timeout=120, check=False
    )
    line, status = ended.stdout.splitlines()
    assert json.loads(line)["row"] == 0
    assert status == "141"
    assert ended.stderr == ""


def test_an_interrupt_ends_a_run_that_waits_for_a_pipe(folder):
    """The reading thread is stuck in the pipe for ever; the run ends all the same."""
    command = [sys.executable, "-m", "guerdon.cli.main", "score", "-", "-o", "out.jsonl"]
    rows = "".join(json.dumps({"response": "x", "sample_id": f"s{n}"}) + "\n" for n in range(300))
    environment = {**os.environ, "STRIKE_AT": "s299", "SIGNAL": str(int(signal.SIGINT))}
    with subprocess.Popen(
        [*command, "--reward", "rewards.py:each", "--batch-size", "50"],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
    ) as running:
        running.stdin.write(rows.encode())
        running.stdin.flush()
        assert running.wait(60) == 130
        assert b"interrupted: " in running.stderr.read()
    assert len(rows_in("out.jsonl.partial")) >= 200


def test_two_runs_cannot_write_one_file(folder):
    from guerdon.rollouts.journal import Journal

    journal = Journal(folder / "out.jsonl.partial")
    refused = score("-o", "out.jsonl")
    journal.close()
    assert refused.returncode == 2
    assert "being written by another process" in refused.stderr


def test_groups_larger_than_the_memory_that_is_given(folder):
    """The rows of groups wait on disk: the run needs far less memory than the input has bytes."""
    if not os.path.exists("/proc/self/status"):
        pytest.skip("the peak of memory is read from /proc, which is not here")
    path = "large.jsonl"
    with open(path, "w") as file:
        for n in range(4000):
            row = {"response": "x" * 50_000, "group_id": f"g{n % 1000}", "sample_id": f"s{n}"}
            file.write(json.dumps(row) + "\n")
    code = (
        "import sys\n"
        "from guerdon.cli.main import main\n"
        "try:\n    main(sys.argv[1:])\n"
        "except SystemExit as ended:\n    assert not ended.code\n"
        "print(next(l.split()[1] for l in open('/proc/self/status') if l.startswith('VmHWM')))"
    )
    arguments = ["score", path, "-r", "rewards.py:rank", "-q", "-o", "out.jsonl"]
    ended = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    kibibytes = int(ended.stdout.splitlines()[-1])
    assert os.path.getsize(path) > 200_000_000
    assert kibibytes * 1024 < os.path.getsize(path)
    assert len(rows_in("out.jsonl")) == 4000
