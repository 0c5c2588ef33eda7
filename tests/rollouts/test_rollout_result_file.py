"""Finished outputs in every form, read back."""

import gzip
import json
import os

import pyarrow.parquet as pq
import pytest

from guerdon.rollouts.encoding import encode_line
from guerdon.rollouts.misuse import Misuse, StorageFailed
from guerdon.rollouts.result_file import FORMATS, form_of, read_result, write_result

ROWS = [
    {
        "row": n,
        "sample_id": f"s{n}",
        "group_id": None,
        "reward": n / 2,
        "outcome": "score",
        "components": {"a": 1.0, "b": None},
        "metrics": {"m": 0.5},
        "info": {"why": ["x", {"y": 1}]},
        "failure": None,
        "assigned": None,
        "elapsed_s": 0.001,
        "reward_name": "r",
        "fingerprint": "f" * 16,
        "input_digest": f"{n:016x}",
        "input": {"text": "line\nend", "n": [1, 2]},
    }
    for n in range(3)
]
ROWS.append(
    {
        **ROWS[0],
        "row": 3,
        "reward": None,
        "outcome": "failure",
        "components": {},
        "metrics": {},
        "info": {},
        "failure": {"kind": "raised", "blame": "scorer", "message": "oops", "retryable": False},
        "assigned": -1.0,
        "input_digest": f"{3:016x}",
    }
)
NAMES = {"components": ["a", "b"], "metrics": ["m"]}
ENDINGS = [suffix + packed for suffix in FORMATS for packed in ("", ".gz", ".zst")]


def write(path, rows=ROWS, names=NAMES):
    write_result(path, form_of(path.name), map(encode_line, rows), names)


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_is_written_can_be_read(tmp_path, ending):
    path = tmp_path / f"out{ending}"
    write(path)
    found = list(read_result(path))
    if ".parquet" in ending:  # structs have all their fields in every row
        one = {**ROWS[3], "row": 4, "components": {"a": 1.0}}
        write(path, [one])
        assert next(read_result(path))["components"] == {"a": 1.0, "b": None}
    assert found == ROWS
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("ending", ENDINGS)
def test_no_rows(tmp_path, ending):
    path = tmp_path / f"out{ending}"
    write(path, [], {})
    if ending.startswith((".jsonl", ".ndjson")):
        assert form_of(path.name).format == "jsonl"
    elif ending == ".json":
        assert json.loads(path.read_bytes()) == []
    elif ending == ".parquet":
        assert pq.read_table(path).num_rows == 0


def test_parquet_columns_can_be_queried(tmp_path):
    write(tmp_path / "out.parquet")
    table = pq.read_table(tmp_path / "out.parquet")
    assert table["reward"].to_pylist() == [0.0, 0.5, 1.0, None]
    assert table["components"].combine_chunks().field("a").to_pylist() == [1.0, 1.0, 1.0, None]
    assert table["failure"].to_pylist()[3]["blame"] == "scorer"
    assert json.loads(table["input"].to_pylist()[0])["text"] == "line\nend"


def test_too_many_names_become_text(tmp_path, monkeypatch):
    from guerdon.rollouts import output

    monkeypatch.setattr(output, "MOST_NAMES", 3)
    rows = [{**ROWS[0], "row": n, "metrics": {f"m{n}": 1.0}} for n in range(10)]
    names = output._names(map(encode_line, rows))
    assert names == {"components": ["a", "b"], "metrics": None}
    write(tmp_path / "out.parquet", rows, names)
    assert [row["metrics"] for row in read_result(tmp_path / "out.parquet")] == [
        {f"m{n}": 1.0} for n in range(10)
    ]


def test_lone_surrogates_fit_every_form(tmp_path):
    odd = {**ROWS[0], "sample_id": "\ud800", "info": {"\udfff": "\ud800"}}
    for ending, expected in ((".jsonl", "\ud800"), (".json", "\ud800"), (".parquet", "\\ud800")):
        path = tmp_path / f"out{ending}"
        write(path, [odd])
        assert next(read_result(path))["sample_id"] == expected


def test_equal_results_are_equal_files(tmp_path):
    for name in ("a.jsonl.gz", "b.jsonl.gz"):
        write(tmp_path / name)
    assert (tmp_path / "a.jsonl.gz").read_bytes() == (tmp_path / "b.jsonl.gz").read_bytes()
    assert gzip.decompress((tmp_path / "a.jsonl.gz").read_bytes()).count(b"\n") == len(ROWS)


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "out.json"
    path.write_text("old")

    def lines():
        yield encode_line(ROWS[0])
        raise OSError(28, "No space left on device")

    with pytest.raises(StorageFailed, match="No space left"):
        write_result(path, form_of(path.name), lines(), {})
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["out.json"]


@pytest.mark.parametrize("name", ["out", "out.csv", "out.gz", "out.jsonl.xz", "out.csv.gz"])
def test_other_names_are_refused(name):
    with pytest.raises(Misuse, match=r"\.jsonl, \.ndjson, \.json, \.parquet"):
        form_of(name)


def test_a_file_of_something_else_is_refused(tmp_path):
    (tmp_path / "out.jsonl").write_text('{"row": 0, "reward": 1}\n')
    with pytest.raises(Misuse, match="line 1: not a row"):
        list(read_result(tmp_path / "out.jsonl"))
