"""`guerdon score` as a user meets it: arguments, messages, exit status, output."""

import gzip
import io
import json
import os
import subprocess
import sys

import pyarrow.parquet as pq
import pytest
import zstandard

from guerdon.cli.main import main

REWARDS = """
import os, sys
from guerdon.errors import BadInput
from guerdon.reward import reward

@reward(value_range=(0.0, 1.0), auto_register=False)
def right(response, ground_truth):
    return response == ground_truth

@reward(auto_register=False)
def noisy(response):
    print("NOISE")
    os.write(1, b"NOISE")
    os.system("echo NOISE")
    return 1.0

@reward(auto_register=False)
def quits(response):
    if response == "quit":
        sys.exit(3)
    return 1.0

@reward(auto_register=False)
def changes(response, tags):
    tags.append(response)
    return float(len(tags))

@reward(scope="group", auto_register=False)
def rank(samples):
    order = sorted(len(sample.response) for sample in samples)
    return [float(order.index(len(sample.response))) for sample in samples]

@reward(auto_register=False)
def odd(response):
    return {"nan": float("nan"), "inf": float("inf"), "text": "1", "list": [1.0]}.get(response)
"""


def rollouts(count):
    return [
        {"prompt": f"q{n // 4}", "response": str(n % 3), "ground_truth": "1", "sample_id": f"s{n}"}
        for n in range(count)
    ]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rewards.py").write_text(REWARDS)
    write("data.jsonl", rollouts(40))
    return tmp_path


def write(name, rows):
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    with open(name, "w", encoding="utf-8") as file:
        file.write("".join(f"{line}\n" for line in lines))


@pytest.fixture
def score(folder, capfd):
    """Runs `guerdon score`; gives the status, standard output and standard error."""

    def run(*arguments, reward="rewards.py:right"):
        with pytest.raises(SystemExit) as ended:
            main(["score", *arguments, *(["--reward", reward] if reward else [])])
        out, err = capfd.readouterr()
        return ended.value.code, out, err

    return run


def rows_in(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def test_the_table(score):
    status, out, err = score("data.jsonl")
    assert status == 0
    assert "40 rows: 40 scored, 0 failed" in out
    assert "right" in out
    assert "0.325" in out
    assert "groups: 10 with at least two scores, 0 of them (0.0%) with zero variance" in out
    assert "slowest: s" in out
    assert "Guerdon layout: response, ground_truth, prompt, sample_id" in err
    assert not os.path.exists("data.jsonl.partial")


def test_the_rows(score):
    assert score("data.jsonl", "-o", "out.jsonl")[0] == 0
    found = rows_in("out.jsonl")
    assert [row["row"] for row in found] == list(range(40))
    assert [row["sample_id"] for row in found] == [f"s{n}" for n in range(40)]
    assert [row["reward"] for row in found] == [float(n % 3 == 1) for n in range(40)]
    assert {row["reward_name"] for row in found} == {"right"}
    assert "input" not in found[0]


def test_the_whole_row_can_be_kept(score):
    rows = rollouts(4)
    rows[1]["reward"] = {"own": "\ud800"}
    write("own.jsonl", rows)
    assert score("own.jsonl", "-o", "out.jsonl", "--keep-input")[0] == 0
    assert [row["input"] for row in rows_in("out.jsonl")] == rows


@pytest.mark.parametrize("form", ["jsonl", "json", "parquet"])
@pytest.mark.parametrize("packed", ["", ".gz", ".zst"])
def test_every_form_in_and_out(score, form, packed):
    rows = rollouts(40)
    content = json.dumps({"rows": rows}).encode()
    if form == "jsonl":
        content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    if form == "parquet":
        import pyarrow

        buffer = io.BytesIO()
        pq.write_table(pyarrow.Table.from_pylist(rows), buffer)
        content = buffer.getvalue()
    content = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}[packed](content)
    with open(f"in.{form}{packed}", "wb") as file:
        file.write(content)
    status, _, _ = score(f"in.{form}{packed}", "-o", f"out.{form}{packed}")
    assert status == 0
    from guerdon.rollouts.reader import Reader

    found = [record.data for record in Reader(f"out.{form}{packed}")]
    assert [row["row"] for row in found] == list(range(40))
    assert [row["reward"] for row in found] == [float(n % 3 == 1) for n in range(40)]
    assert [name for name in os.listdir() if name.startswith("out")] == [f"out.{form}{packed}"]


def test_json_summary(score):
    status, out, _ = score("data.jsonl", "--json", "-o", "out.jsonl")
    summary = json.loads(out)
    assert status == 0
    assert summary["rows"] == summary["scores"] == summary["new_rows"] == 40
    assert summary["reward"]["mean"] == pytest.approx(13 / 40)
    assert summary["groups"] == {
        "count": 10,
        "compared": 10,
        "zero_variance": 0,
        "zero_variance_share": 0.0,
    }
    assert summary["reward_name"] == "right"
    assert len(summary["fingerprint"]) == 16
    assert summary["complete"] is True
    assert len(summary["slowest"]) == 5


def test_rows_on_standard_output_and_the_table_beside(score):
    status, out, err = score("data.jsonl", "-o", "-", "--limit", "3")
    assert status == 0
    assert [json.loads(line)["row"] for line in out.splitlines()] == [0, 1, 2]
    assert "3 rows: 3 scored" in err


@pytest.mark.parametrize("options", [["-o", "-"], ["--json"]])
def test_what_rewards_print_stays_out_of_standard_output(score, options):
    status, out, err = score("data.jsonl", *options, "--limit", "2", reward="rewards.py:noisy")
    assert status == 0
    assert "NOISE" not in out
    assert err.count("NOISE") == 6
    for line in [out] if options == ["--json"] else out.splitlines():
        json.loads(line)


BROKEN = [
    *rollouts(2),
    '{"response": "torn',
    {"prompt": "no response"},
    {"response": None},
    {"response": ""},
    '{"response": "\\ud800", "ground_truth": "1"}',
    '{"response": "1", "ground_truth": NaN}',
    {"response": "1", "ground_truth": "1", "sample_id": "s0"},
    {"response": "x" * 10_000_000, "ground_truth": "1"},
    {"response": "1"},
    {"response": "1", "ground_truth": "1"},
]
# row of the input: part of the message, or the reward
EXPECTED = {
    2: "line 3: not JSON",
    3: "line 4: the row has no column 'response'",
    4: "line 5: the column 'response' is null",
    5: "the reward needs 'ground_truth', which the sample lacks",
    6: 0.0,
    7: "line 8: the column 'ground_truth' is nan",
    8: "line 9: the sample_id 's0' is also that of row 0",
    9: 0.0,
    10: "the reward needs 'ground_truth'",
    11: 1.0,
}


def test_bad_rows_fail_alone_and_say_where(score):
    write("bad.jsonl", BROKEN)
    with open("bad.jsonl", "ab") as file:
        file.write(b'{"response": "\xff"}\n')
    status, out, _ = score("bad.jsonl", "-o", "out.jsonl")
    assert status == 1
    found = rows_in("out.jsonl")
    assert len(found) == len(BROKEN) + 1
    for row, expected in EXPECTED.items():
        if isinstance(expected, float):
            assert found[row]["reward"] == expected, row
        else:
            assert found[row]["reward"] is None, row
            assert expected in found[row]["failure"]["message"], row
            assert (found[row]["failure"]["kind"], found[row]["failure"]["blame"]) == (
                "bad_input",
                "data",
            )
    assert "line 13: not UTF-8: byte 0xff" in found[12]["failure"]["message"]
    assert "8 failed" in out
    assert "bad_input" in out
    assert score("bad.jsonl", "--on-failure", "mask")[0] == 0
    assert score("bad.jsonl", "--on-failure", "raise")[0] == 1


def test_a_truncated_archive_scores_what_is_whole(score):
    content = gzip.compress("".join(json.dumps(r) + "\n" for r in rollouts(5000)).encode())
    with open("cut.jsonl.gz", "wb") as file:
        file.write(content[: len(content) // 2])
    status, _, _ = score("cut.jsonl.gz", "-o", "out.jsonl")
    found = rows_in("out.jsonl")
    assert status == 1
    assert len(found) > 1000
    assert "the file is truncated" in found[-1]["failure"]["message"]
    assert all(row["outcome"] == "score" for row in found[:-1])


@pytest.mark.parametrize("value", ["nan", "inf", "text", "list"])
def test_results_that_are_no_scores(score, value):
    write("odd.jsonl", [{"response": value}, {"response": "none"}])
    status, _, _ = score("odd.jsonl", "-o", "out.jsonl", reward="rewards.py:odd")
    found = rows_in("out.jsonl")
    assert status == 1
    assert found[0]["failure"]["kind"] == (
        "non_finite" if value in ("nan", "inf") else "bad_output"
    )
    assert found[0]["reward"] is None
    assert (found[1]["outcome"], found[1]["failure"]) == ("abstention", None)


def test_a_reward_that_quits_fails_alone(score):
    write("quit.jsonl", [{"response": "a"}, {"response": "quit"}, {"response": "b"}])
    status, _, _ = score("quit.jsonl", "-o", "out.jsonl", reward="rewards.py:quits")
    found = rows_in("out.jsonl")
    assert status == 1
    assert [row["reward"] for row in found] == [1.0, None, 1.0]
    assert found[1]["failure"]["blame"] == "scorer"


def test_a_reward_that_changes_its_input_changes_only_its_copy(score):
    write("tags.jsonl", [{"response": "a", "tags": ["x"]}])
    score("tags.jsonl", "-o", "out.jsonl", "--keep-input", reward="rewards.py:changes")
    (row,) = rows_in("out.jsonl")
    assert row["reward"] == 2.0
    assert row["input"]["tags"] == ["x"]


def test_group_rewards_see_members_from_anywhere(score):
    rows = [
        {"response": "x" * (n + 1), "group_id": f"g{n % 10}", "sample_id": f"s{n}"}
        for n in range(40)
    ]
    write("groups.jsonl", rows)
    status, _, _ = score(
        "groups.jsonl", "-o", "out.jsonl", "--batch-size", "3", reward="rewards.py:rank"
    )
    found = rows_in("out.jsonl")
    assert status == 0
    assert [row["row"] for row in found] == list(range(40))
    assert [row["reward"] for row in found] == [float(n // 10) for n in range(40)]


MISUSE = {
    "no file": (["nowhere.jsonl"], {}, "guerdon: no such file: nowhere.jsonl"),
    "a folder": (["."], {}, "is a directory"),
    "an empty file": (["empty.jsonl"], {}, "empty.jsonl is empty"),
    "nothing readable": (["rewards.py"], {}, "none of the first"),
    "no such reward": (["data.jsonl"], {"reward": "gsm9k"}, "no reward is named 'gsm9k'"),
    "no such function": (["data.jsonl"], {"reward": "rewards.py:nope"}, "has no 'nope'"),
    "no such module": (["data.jsonl"], {"reward": "no.mod:x"}, "cannot import 'no.mod'"),
    "a broken module": (["data.jsonl"], {"reward": "broken.py:x"}, "fails to import"),
    "no such config": (["data.jsonl"], {"reward": "no.yaml"}, "no such file: no.yaml"),
    "a wrong config": (["data.jsonl"], {"reward": "wrong.yaml"}, "wrong.yaml"),
    "no data source": (["data.jsonl"], {"reward": "auto"}, "data_source"),
    "a wrong map": (["data.jsonl", "--map", "respons=x"], {}, "did you mean 'response'"),
    "an unknown column": (["odd.jsonl"], {}, "--map response=text"),
    "a wrong suffix": (["data.jsonl", "-o", "out.csv"], {}, "must end in one of"),
    "no such folder": (["data.jsonl", "-o", "no/out.jsonl"], {}, "there is no folder"),
    "the output is a folder": (["data.jsonl", "-o", "folder.jsonl"], {}, "is a directory"),
    "the output is the input": (["data.jsonl", "-o", "./data.jsonl"], {}, "is the input"),
    "resume without output": (["data.jsonl", "--resume"], {}, "--resume needs -o OUT"),
    "resume to a pipe": (["data.jsonl", "--resume", "-o", "-"], {}, "--resume needs -o OUT"),
    "resume and overwrite": (
        ["data.jsonl", "--resume", "--overwrite", "-o", "out.jsonl"],
        {},
        "choose one",
    ),
    "two things to one pipe": (["data.jsonl", "--json", "-o", "-"], {}, "give -o a file"),
    "no reward": (["data.jsonl"], {"reward": None}, "Missing option '--reward'"),
    "a wrong option": (["data.jsonl", "--rewards", "x"], {}, "No such option"),
    "a wrong choice": (["data.jsonl", "--on-failure", "ignore"], {}, "'raise', 'mask'"),
    "no rows": (["data.jsonl", "--limit", "0"], {}, "--limit"),
}


@pytest.mark.parametrize("case", MISUSE)
def test_misuse_is_told_in_few_lines(score, case):
    arguments, keywords, message = MISUSE[case]
    write("empty.jsonl", [])
    write("odd.jsonl", [{"q": 1, "text": "abc"}])
    write("broken.py", ["import nothing_of_that_name"])
    write("wrong.yaml", ["rewrd: gsm8k"])
    os.makedirs("folder.jsonl", exist_ok=True)
    before = sorted(os.listdir())
    status, out, err = score(*arguments, **keywords)
    assert status == 2
    assert out == ""
    assert message in err
    assert "Traceback" not in err
    assert len(err.strip().splitlines()) <= 4
    assert sorted(set(os.listdir()) - {"__pycache__"}) == sorted(set(before) - {"__pycache__"})


def test_a_device_takes_rows_without_an_unfinished_file(score):
    assert score("data.jsonl", "-o", "/dev/null")[0] == 0
    assert not os.path.exists("/dev/null.partial")


def test_plain_lines_are_few(score):
    write("many.jsonl", rollouts(20_000))
    _, _, err = score("many.jsonl")
    lines = [line for line in err.splitlines() if "rows/s" in line]
    assert 3 <= len(lines) <= 20
    assert "0 failures" in lines[0]
    assert "left" in lines[0]
    assert score("many.jsonl", "--quiet")[2] == ""


def guerdon(*arguments, **keywords):
    command = [sys.executable, "-m", "guerdon.cli.main", *arguments]
    return subprocess.run(command, capture_output=True, timeout=120, check=False, **keywords)


def test_standard_input(folder):
    data = "".join(json.dumps(row) + "\n" for row in rollouts(10)).encode()
    for content in (data, gzip.compress(data), zstandard.compress(data)):
        ended = guerdon("score", "-", "-r", "rewards.py:right", "--json", input=content)
        assert ended.returncode == 0, ended.stderr
        assert json.loads(ended.stdout)["scores"] == 10
    assert guerdon("score", "-", "-r", "rewards.py:right", input=b"").returncode == 2


HEAVY = ("pyarrow", "sympy", "math_verify", "zstandard", "torch", "omegaconf", "rapidfuzz", "yaml")


@pytest.mark.parametrize(
    ("arguments", "light"),
    [
        (["--help"], (*HEAVY, "numpy")),
        (["score", "--help"], (*HEAVY, "numpy")),
        (["score", "data.jsonl", "-r", "rewards.py:right", "-o", "o.jsonl"], HEAVY),
    ],
)
def test_starting_imports_nothing_heavy(folder, arguments, light):
    code = (
        "import sys\n"
        "from guerdon.cli.main import main\n"
        "try:\n    main(sys.argv[1:])\n"
        "except SystemExit as ended:\n    assert not ended.code, ended.code\n"
        f"print([name for name in {light!r} if name in sys.modules])"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert ended.stdout.splitlines()[-1] == "[]", ended.stderr


def test_the_shared_rollouts_agree_with_their_labels(score, shared_data):
    path = str(shared_data / "gsm8k_rollouts.jsonl")
    status, _, _ = score(path, "-o", "out.jsonl", reward="guerdon.rules.gsm8k:gsm8k")
    assert status == 0
    labels = [row["label"] for row in rows_in(path)]
    assert [row["reward"] for row in rows_in("out.jsonl")] == [float(label) for label in labels]
