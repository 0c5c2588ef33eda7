"""What a program writes goes as it is through files, the command line and the server."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet
import pytest
from typer.testing import CliRunner

from guerdon.cli.main import application
from guerdon.outcome import Score
from guerdon.sample import Sample
from guerdon.server import load
from guerdon.server.running import RunningServer
from guerdon.wire.codec import decode_msgpack, encode_json, encode_msgpack
from guerdon.wire.protocol import JSON_TYPE, MSGPACK_TYPE, SCORE_PATH, ScoreReply, ScoreRequest

pytestmark = pytest.mark.usefixtures("any_sandbox")

UGLY = "chr(0xd800) + chr(0) + chr(27) + 'x' * 10**6"
CASES = {"inputs": ["1\n"], "outputs": ["1\n"]}
TESTS = {"fn_name": "f", "inputs": [[1]], "outputs": [1]}
PROGRAMS: list[tuple[str, Any, float]] = [
    (f"import sys\nsys.exit({UGLY})", CASES, 0.0),
    (f"raise ValueError({UGLY})", CASES, 0.0),
    ("import os\nos.write(1, b'\\xff\\xed\\xa0\\x80\\0' * 10**5)", CASES, 0.0),
    ("while True: print('x' * 10**6)", CASES, 0.0),
    (f"def f(x): raise ValueError({UGLY})", TESTS, 0.0),
    (f"def f(x): return {UGLY}", TESTS, 0.0),
    (f"def f(x): return {{{UGLY}: [{UGLY}]}}", TESTS, 0.0),
    ("type('E' + chr(0xd800), (Exception,), {})()\nraise E", TESTS, 0.0),
    ("x = '\\ud800' \0", CASES, 0.0),
    ("print(input())", CASES, 1.0),
]
VALUES = [value for _, _, value in PROGRAMS]
ROWS = [
    {
        "sample_id": str(number),
        "response": f"```python\n{code}\n```",
        "ground_truth": json.dumps(truth),
    }
    for number, (code, truth, _) in enumerate(PROGRAMS)
]


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_by_the_command_line(suffix: str, tmp_path: Path) -> None:
    data, output = tmp_path / "rows.jsonl", tmp_path / f"scored.{suffix}"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    argv = ["score", str(data), "--reward", "code_stdio", "--output", str(output)]
    done = CliRunner().invoke(application("score"), argv)
    assert done.exit_code == 0, done.output
    if suffix == "jsonl":
        rows = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    else:
        rows = pyarrow.parquet.read_table(output).to_pylist()
    scored = {row["sample_id"]: row for row in rows}
    assert [scored[row["sample_id"]]["reward"] for row in ROWS] == VALUES
    said = [row["info"] for row in rows]
    assert all(char not in str(said) for char in "\x1b\0\ud800")
    assert output.stat().st_size < 100_000


def test_by_the_server() -> None:
    settings = {"rewards": {"code": {"reward": "code_stdio", "inline": True}}, "serve": {"port": 0}}
    samples = [Sample(**row) for row in ROWS]
    request = ScoreRequest(samples=samples, rewards=["code"])
    server = RunningServer(load(settings, environment={})).start()
    try:
        replies = [
            msgspec.json.decode(_post(server, encode_json(request), JSON_TYPE), type=ScoreReply),
            decode_msgpack(_post(server, encode_msgpack(request), MSGPACK_TYPE), ScoreReply),
        ]
    finally:
        server.stop()
    for reply in replies:
        (result,) = reply.results
        assert [o.value for o in result.outcomes if isinstance(o, Score)] == VALUES
    assert replies[0].results[0].outcomes[0].info == replies[1].results[0].outcomes[0].info


def _post(server: RunningServer, body: bytes, kind: str) -> bytes:
    url = f"http://127.0.0.1:{server.server.port}{SCORE_PATH}"
    headers = {"content-type": kind, "accept": kind}
    with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=60) as answer:
        return answer.read()
