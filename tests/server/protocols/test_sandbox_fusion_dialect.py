"""SandboxFusion's dialect: held by a client written from the published form, by our own client and
by verl's, and our client by a server written from the form."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from engines import working

from guerdon.errors import BadInput, ConfigError, Unavailable
from guerdon.resources import Context, Program, Resources, SandboxFusionSpec
from guerdon.resources.sandboxes import sandbox_of
from guerdon.reward import reward
from guerdon.rules.agent.program_reward import ProgramRuns
from guerdon.sample import Sample
from guerdon.server import load
from guerdon.service import RewardService

VERL = "GUERDON_VERL_PYTHON"


@pytest.fixture(scope="module", autouse=True)
def _a_sandbox() -> None:
    working(sandbox_of("auto"), "auto")


def hosted(**options: Any) -> dict[str, Any]:
    target = "guerdon.rules.agent.program_reward:ProgramRuns"
    return {"run": {"reward": {"_target_": target, **options}, "inline": True}}


@pytest.fixture
def run_code(serve: Any) -> Any:
    """Asks a server as the published form says, and reads the reply as it says."""
    server = serve(hosted(), dialects=["sandbox_fusion"])

    def ask(expect: int = 200, **fields: Any) -> dict[str, Any]:
        body = json.dumps({"language": "python", **fields}).encode()
        answer = server.post(body, path="/run_code")
        assert answer.status == expect, answer.body
        return json.loads(answer.body)

    ask.server = server  # type: ignore[attr-defined]
    return ask


def test_a_program_that_runs(run_code: Any) -> None:
    reply = run_code(code="print(input()[::-1])", stdin="abc")
    assert reply["status"] == "Success"
    assert reply["message"] == ""
    assert reply["compile_result"] is None
    assert reply["executor_pod_name"] is None
    assert reply["files"] == {}
    ran = reply["run_result"]
    assert (ran["status"], ran["return_code"], ran["stdout"]) == ("Finished", 0, "cba\n")
    assert ran["execution_time"] > 0


@pytest.mark.parametrize(
    ("code", "status", "return_code"),
    [
        ("raise ValueError('no')", "Finished", 1),
        ("import sys; sys.exit(7)", "Finished", 7),
        ("import os; os.abort()", "Finished", -6),
        ("while True: pass", "TimeLimitExceeded", None),
        ("print('x' * 10**8)", "Finished", -9),
        ("x = bytearray(10**11)", "Finished", 1),
        ("def f(:", "Finished", 1),
    ],
)
def test_a_program_that_fails(run_code: Any, code: str, status: str, return_code: Any) -> None:
    reply = run_code(code=code, run_timeout=1.5)
    assert reply["status"] == "Failed"
    assert reply["run_result"]["status"] == status
    assert reply["run_result"]["return_code"] == return_code


def test_files_go_in_and_come_back(run_code: Any) -> None:
    data = base64.b64encode(b"VALUE = 4").decode()
    reply = run_code(
        code="import helper; open('out/x', 'w').write(str(helper.VALUE))",
        files={"helper.py": data, "out/keep": "", "ignored": None},
        fetch_files=["out/x", "never"],
    )
    assert reply["status"] == "Success", reply
    assert {name: base64.b64decode(d) for name, d in reply["files"].items()} == {"out/x": b"4"}


def test_numbers_as_other_writers_have_them(run_code: Any) -> None:
    fields = {"memory_limit_MB": 256.0, "run_timeout": 5, "stdin": None, "unknown": [1]}
    assert run_code(code="print(1)", **fields)["status"] == "Success"


def test_other_languages(run_code: Any) -> None:
    said = "hello\n"
    programs = {
        "bash": "echo hello",
        "nodejs": "console.log('hello')",
        "cpp": '#include <iostream>\nint main() { std::cout << "hello\\n"; }',
    }
    for language, code in programs.items():
        reply = run_code(code=code, language=language)
        assert (reply["status"], reply["run_result"]["stdout"]) == ("Success", said), reply
    assert reply["compile_result"]["return_code"] == 0
    broken = run_code(code="int main() { return x; }", language="cpp")
    assert broken["status"] == "Failed"
    assert broken["run_result"] is None
    assert broken["compile_result"]["return_code"] == 1
    assert "x" in broken["compile_result"]["stderr"]


@pytest.mark.parametrize(
    ("fields", "expect", "told"),
    [
        ({"language": "cobol", "code": ""}, 422, "cobol"),
        ({"code": 5}, 422, "code"),
        ({"code": "1", "files": ["a"]}, 422, "files"),
        ({}, 422, "code"),
        ({"code": "1", "memory_limit_MB": 0}, 422, "-1 for no limit of the request's own, got 0"),
        ({"code": "1", "memory_limit_MB": -5}, 422, "got -5"),
        ({"code": "1", "memory_limit_MB": 0.5}, 422, "got 0.5"),
        ({"code": "1", "memory_limit_MB": 64.5}, 422, "whole number"),
        ({"code": "1", "memory_limit_MB": 1e300}, 422, "the most is"),
        ({"code": "1", "memory_limit_MB": "64"}, 422, "memory_limit_MB"),
        ({"code": "1", "memory_limit_MB": None}, 422, "memory_limit_MB"),
        ({"code": "1", "memory_limit_MB": True}, 422, "memory_limit_MB"),
        ({"code": "1", "memory_limit_MB": 10**6}, 422, "the most is"),
        ({"code": "1", "run_timeout": 1e6}, 422, "the most is"),
        ({"code": "1", "run_timeout": -1}, 422, "above 0"),
        ({"code": "1", "run_timeout": 0.0001}, 422, "from 0.001"),
        ({"code": "1", "compile_timeout": 0}, 422, "above 0"),
        ({"code": "1", "files": {"../x": ""}}, 422, "leaves its folder"),
        ({"code": "1", "files": {"x": "*"}}, 422, "base64"),
        ({"code": "1", "files": {f"f{i}": "" for i in range(300)}}, 422, "300 files"),
        ({"code": "1", "fetch_files": ["/etc/passwd"]}, 422, "leaves its folder"),
        ({"code": "1", "args": ["-x"]}, 422, "pytest"),
        ({"code": "x", "language": "rust"}, 422, "'rust' are not run here, only in python"),
        ({"code": "x", "language": None}, 422, "language"),
    ],
)
def test_requests_that_have_not_the_form(
    run_code: Any, fields: dict[str, Any], expect: int, told: str
) -> None:
    assert told in str(run_code(expect, **fields)["detail"])


@pytest.mark.parametrize("limit", [{}, {"memory_limit_MB": -1}, {"memory_limit_MB": -1.0}])
def test_without_a_limit_of_its_own_a_program_has_the_most_that_may_be_used(
    serve: Any, limit: dict[str, Any]
) -> None:
    server = serve(hosted(max_memory_mib=300, memory_mib=64), dialects=["sandbox_fusion"])

    def ran(mib: int, **fields: Any) -> str:
        body = {"code": f"x = bytearray({mib} << 20)", "language": "python", **fields}
        return json.loads(server.post(json.dumps(body).encode(), path="/run_code").body)["status"]

    assert ran(200, **limit) == "Success"
    assert ran(400, **limit) == "Failed"
    assert ran(200, memory_limit_MB=100) == "Failed"


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/run_jupyter", "PythonSpec"),
        ("/submit", "code_stdio"),
        ("/get_prompts", "no data sets"),
        ("/get_prompt_by_id", "no data sets"),
        ("/get_metrics", "no data sets"),
        ("/get_metrics_function", "no data sets"),
        ("/list_ids", "no data sets"),
        ("/list_datasets", "no data sets"),
    ],
)
def test_other_paths_say_what_to_use_instead(run_code: Any, path: str, told: str) -> None:
    server = run_code.server
    answer = server.get(path) if path == "/list_datasets" else server.post(b"{}", path=path)
    assert answer.status == 501
    detail = json.loads(answer.body)["detail"]
    assert detail.startswith(f"{path} is not offered here: ")
    assert told in detail


def test_nothing_of_the_host_is_there(run_code: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANTED_SECRET", "s3cret")
    code = "import os, socket\nprint(dict(os.environ), os.getuid())\nsocket.socket()"
    reply = run_code(code=code)
    assert "s3cret" not in reply["run_result"]["stdout"]
    assert reply["status"] == "Failed"


def test_text_that_is_no_text(run_code: Any) -> None:
    assert run_code(code="x = '\ud800'")["status"] == "Failed"
    assert run_code(code="x = '\0'")["status"] == "Failed"
    loud = run_code(code="import os; os.write(1, b'\\xff')")
    assert loud["run_result"]["stdout"] == "\ufffd"


def test_it_says_that_it_is_there(run_code: Any) -> None:
    assert run_code.server.get("/v1/ping").body == b'"pong"'


def test_a_wrong_method_and_a_missing_token(serve: Any) -> None:
    server = serve(hosted(), dialects=["sandbox_fusion"], tokens={"me": "t" * 20})
    body = b'{"code": "1", "language": "python"}'
    assert server.post(body, path="/run_code").status == 401
    headers = {"authorization": f"Bearer {'t' * 20}"}
    assert server.post(body, path="/run_code", **headers).status == 200
    assert server.get("/run_code", **headers).status == 405


def test_a_sandbox_that_may_come_back_is_a_504(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: Any, program: Program) -> Any:
        raise Unavailable("the disk is full", retryable="later" in program.code)

    monkeypatch.setattr("guerdon.rules.agent.running.Machine.run", fails)
    made = {"run": {"reward": ProgramRuns(), "inline": True, "retry": {"attempts": 1}}}
    server = serve(made, dialects=["sandbox_fusion"])
    for code, status in (("later", 504), ("never", 200)):
        body = json.dumps({"code": code, "language": "python"}).encode()
        answer = server.post(body, path="/run_code")
        assert answer.status == status
        assert json.loads(answer.body)["status"] == "SandboxError"
        assert "disk is full" in json.loads(answer.body)["message"]


def test_a_full_queue_is_a_504(serve: Any) -> None:
    made = hosted()
    made["run"]["queue"] = 1
    server = serve(made, dialects=["sandbox_fusion"])
    body = json.dumps({"code": "import time; time.sleep(0.7)", "language": "python"}).encode()
    found: list[int] = []
    threads = [
        threading.Thread(target=lambda: found.append(server.post(body, path="/run_code").status))
        for _ in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(found) == {200, 504}


def test_another_reward_is_refused_at_the_start() -> None:
    @reward(auto_register=False)
    def other(response: str) -> float:
        return 0.0

    config = {"rewards": {"a": {"reward": other, "inline": True}}, "dialects": ["sandbox_fusion"]}
    with pytest.raises(ConfigError, match="program_runs"):
        load(config, environment={})


# Our client, with our server and with one written from the form.


def test_our_client_and_our_server_agree_with_a_run_here(serve: Any) -> None:
    server = serve(hosted(), dialects=["sandbox_fusion"])
    codes = ["print(1)", "1/0", "def f(:", "import os; os._exit(0)", ""]
    samples = [Sample(response=f"```python\n{code}\n```") for code in codes]
    there = ProgramRuns(url=f"http://127.0.0.1:{server.port}")
    with RewardService(there) as far, RewardService(ProgramRuns()) as near:
        values = near.score_sync(samples).values.tolist()
        assert far.score_sync(samples).values.tolist() == values == [1, 0, 0, 1, 0]


class Published(BaseHTTPRequestHandler):
    """A SandboxFusion as its form says, whose runs are what the code names."""

    replies: ClassVar[list[tuple[int, Any]]] = []
    seen: ClassVar[list[dict[str, Any]]] = []

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.seen.append({"path": self.path, "token": self.headers["authorization"], **body})
        status, reply = self.replies.pop(0)
        data = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def published() -> Iterator[str]:
    Published.replies, Published.seen = [], []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Published)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def reply(status: str, ran: Any = None, compiled: Any = None, **more: Any) -> dict[str, Any]:
    return {"status": status, "message": "", "compile_result": compiled, "run_result": ran, **more}


def phase(status: str = "Finished", code: int | None = 0) -> dict[str, Any]:
    return {
        "status": status, "execution_time": 0.1, "return_code": code, "stdout": "o", "stderr": "e",
    }  # fmt: skip


def test_what_our_client_sends_and_reads(published: str) -> None:
    files = {"a.txt": base64.b64encode(b"data").decode()}
    Published.replies = [(200, reply("Success", phase(), phase(), files=files))]
    spec = SandboxFusionSpec(url=f"{published}/fusion/", token="secret")
    with Resources() as resources, Context(resources=resources, backend="remote") as context:
        run = context.acquire_resource_sync(spec).run(
            Program(
                code="c",
                language="go",
                stdin="in",
                files={"f": b"1"},
                fetch=("a.txt",),
                run_seconds=3,
                memory_mib=64,
            )
        )
    assert run.ok
    assert run.files == {"a.txt": b"data"}
    assert run.ran is not None
    assert run.ran.stdout == "o"
    (seen,) = Published.seen
    assert seen == {
        "path": "/fusion/run_code", "token": "Bearer secret", "code": "c", "language": "go",
        "stdin": "in", "files": {"f": "MQ=="}, "fetch_files": ["a.txt"], "run_timeout": 3.0,
        "memory_limit_MB": 64, "compile_timeout": 10.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (reply("Failed", phase(code=1)), "error"),
        (reply("Failed", phase("TimeLimitExceeded", None)), "timeout"),
        (reply("Failed", None, phase(code=1)), "compile_error"),
        (reply("Failed", None, phase("TimeLimitExceeded", None)), "compile_timeout"),
    ],
)
def test_a_program_that_fails_there_is_a_score(published: str, answer: Any, status: str) -> None:
    Published.replies = [(200, answer)]
    result = ProgramRuns(url=published).call_sync(response="x")
    assert (result["score"], result["info"]["status"]) == (0.0, status)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ((200, reply("SandboxError", message="no cgroup")), "no cgroup"),
        ((200, reply("Failed", phase("Error", None))), "failed: e"),
        ((200, {"status": "Success"}), "neither of compiling nor of running"),
        ((200, reply("Success", phase(code=1))), "says Success, and its phases say Failed"),
        ((200, reply("Success", phase(), phase(code=1))), "says Success"),
        ((200, reply("Success", phase("TimeLimitExceeded", None))), "says Success"),
        ((200, reply("Failed", phase())), "says Failed, and its phases say Success"),
        ((200, reply("Failed", None, phase())), "says Failed"),
        ((200, reply("Success", None, phase())), "says nothing of running it"),
        ((200, reply("Failed", phase(code=None))), "has no exit code"),
        ((200, reply("Failed", None, phase("Error", None))), "failed: e"),
        ((200, reply("Weird", phase())), "the status is 'Weird'"),
        ((200, reply("Success", {"status": "Odd"})), "Odd"),
        ((200, b"<html>"), "html"),
        ((500, {"detail": "x"}), "answers 500"),
        ((404, {"detail": "Not Found"}), "answers 404"),
    ],
)
def test_a_server_that_fails_is_a_failure(published: str, answer: Any, told: str) -> None:
    Published.replies = [answer] * 3
    client = SandboxFusionSpec(url=published, attempts=1).make()
    with pytest.raises(Unavailable, match=told):
        client.run(Program(code="x"))


def test_a_request_that_the_server_refuses_is_bad_input(published: str) -> None:
    Published.replies = [(422, {"detail": "language"})]
    with pytest.raises(BadInput, match="language"):
        SandboxFusionSpec(url=published).make().run(Program(code="x"))


def test_another_try_helps(published: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("guerdon.resources.sandbox_fusion.WAIT_SECONDS", 0.0)
    Published.replies = [(503, {}), (429, {}), (200, reply("Success", phase()))]
    assert SandboxFusionSpec(url=published).make().run(Program(code="x")).ok


def test_a_server_that_is_not_there() -> None:
    client = SandboxFusionSpec(url="http://127.0.0.1:9", attempts=1).make()
    with pytest.raises(Unavailable, match=r"127.0.0.1:9 gives no answer"):
        client.run(Program(code="x"))


@pytest.mark.parametrize("url", ["127.0.0.1", "ftp://a", "http://a/run_code"])
def test_a_url_that_is_none(url: str) -> None:
    with pytest.raises(ConfigError, match="url"):
        SandboxFusionSpec(url=url)


# The published client.


@pytest.fixture
def fusion(run_code: Any) -> Any:
    """The package `sandbox_fusion`, pointed at our server; it tries once."""
    fusion = pytest.importorskip("sandbox_fusion")
    url = f"http://127.0.0.1:{run_code.server.port}/"
    fusion.ask = lambda **fields: fusion.run_code(
        fusion.RunCodeRequest(**fields), endpoint=url, max_attempts=1
    )
    fusion.url = url
    return fusion


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"code": "print(input())", "stdin": "hi"}, "ok"),
        ({"code": "raise SystemExit(3)"}, "run failed"),
        ({"code": "while True: pass", "run_timeout": 0.5}, "run timeout"),
        ({"code": "int main() { return x; }", "language": "cpp"}, "compile failed"),
    ],
)
def test_the_published_client_reads_every_end_of_a_program(
    fusion: Any, fields: dict[str, Any], found: str
) -> None:
    names = fusion.SummaryMapping(
        Success="ok", RunFailed="run failed", RunTimeout="run timeout",
        CompileFailed="compile failed", CompileTimeout="compile timeout",
    )  # fmt: skip
    response = fusion.ask(**{"language": "python", **fields})
    assert fusion.summary_run_code_result(response, names) == found


async def test_its_async_form(fusion: Any) -> None:
    request = fusion.RunCodeRequest(code="print(6 * 7)", language="python")
    response = await fusion.run_code_async(request, endpoint=fusion.url, max_attempts=1)
    assert response.run_result.stdout == "42\n"


def test_the_published_client_raises_what_is_no_end_of_a_program(fusion: Any) -> None:
    with pytest.raises(Exception, match=r"code 422: .*'rust' are not run here"):
        fusion.ask(code="x", language="rust")
    submission = fusion.SubmitRequest(
        dataset="humaneval_python", id=0, completion="", config=fusion.TestConfig()
    )
    with pytest.raises(Exception, match=r"code 501: .*code_stdio"):
        fusion.submit(submission, endpoint=fusion.url, max_attempts=1)
    with pytest.raises(Exception, match=r"code 501: .*no data sets"):
        fusion.get_prompts(
            fusion.GetPromptsRequest(dataset="x", config=fusion.TestConfig()), endpoint=fusion.url
        )
    with pytest.raises(Exception, match=r"code 501: .*PythonSpec"):
        fusion.run_jupyter(
            fusion.RunJupyterRequest(cells=["1"]), endpoint=fusion.url, max_attempts=1
        )


@pytest.mark.parametrize(
    ("retryable", "told"),
    [(False, "Sandbox responded with error: .*"), (True, "code 504: .*SandboxError.*")],
)
def test_a_sandbox_that_fails_is_no_failed_program(
    serve: Any, monkeypatch: pytest.MonkeyPatch, retryable: bool, told: str
) -> None:
    fusion = pytest.importorskip("sandbox_fusion")

    def fails(self: Any, program: Program) -> Any:
        raise Unavailable("no namespaces here", retryable=retryable)

    monkeypatch.setattr("guerdon.rules.agent.running.Machine.run", fails)
    made = {"run": {"reward": ProgramRuns(), "inline": True, "retry": {"attempts": 1}}}
    server = serve(made, dialects=["sandbox_fusion"])
    request = fusion.RunCodeRequest(code="1", language="python")
    with pytest.raises(Exception, match=f"{told}no namespaces here"):
        fusion.run_code(request, endpoint=f"http://127.0.0.1:{server.port}", max_attempts=1)


# verl's own client.

DRIVER = Path(__file__).parents[2] / "trainers" / "drivers" / "verl_sandbox_fusion.py"


@pytest.mark.skipif(
    VERL not in os.environ, reason=f"{VERL} does not name an interpreter with verl 0.9.1"
)
def test_verls_own_client(serve: Any) -> None:
    server = serve(hosted(), dialects=["sandbox_fusion"])
    done = subprocess.run(
        [os.environ[VERL], str(DRIVER), f"http://127.0.0.1:{server.port}/run_code"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "right": [1.0, [True, True]],
        "half": [0.5, [True, False]],
        "raises": [0.0, [-2, -2]],
        "loops": [0.0, [-3]],
        "function": [1.0, [True]],
        "asserts": [0.5, [True, -2]],
        "compiles": [0.0, [-4]],
        "refused": [0.0, [-1]],
    }
