"""Servers that are started, and servers that are there: ports, readiness, words, their end."""

from __future__ import annotations

import http.server
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from guerdon.errors import ConfigError, Unavailable
from guerdon.resources import Context, EndpointSpec, Pool, Resources, ServerSpec
from guerdon.resources.endpoint import answers

LONG = 20.0

SERVER = """
import http.server, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        if self.path == "/end":
            print("told to end", flush=True)
            os._exit(3)
    log_message = lambda *a: None
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def server_spec(code: str = SERVER, **options: Any) -> ServerSpec:
    argv = (sys.executable, "-c", code, "{port}")
    return ServerSpec(argv=argv, **{"stop_seconds": 0.3, **options})


def until(condition: Callable[[], Any]) -> None:
    pause = threading.Event()
    for _ in range(int(LONG / 0.01)):
        if condition():
            return
        pause.wait(0.01)
    raise AssertionError("it did not happen")


@pytest.fixture
def context() -> Iterator[Context]:
    with Resources() as resources, Context("test", resources=resources) as made:
        yield made


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on which another program listens, and answers every question with 200."""

    class Stranger(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(STRANGER[0])
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    STRANGER[:] = [200]
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Stranger)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


STRANGER = [200]
"""What the other program answers."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# Servers that are started.


def test_a_stranger_on_the_port_is_not_taken_for_the_server(context: Context, taken: int) -> None:
    with pytest.raises(Unavailable, match=f"Server: port {taken} cannot be had .*in use"):
        context.acquire_resource_sync(server_spec(port=taken))


def test_a_fixed_port_means_one_at_a_time(context: Context) -> None:
    spec = server_spec(port=free_port(), pool=Pool(min=1, max=4))
    assert spec.pool == Pool(min=1, max=1)
    server = context.acquire_resource_sync(spec)
    assert server.port == spec.port
    resources = context._resources
    with Context("second", resources=resources) as second:
        with pytest.raises(Unavailable, match="held by rollout 'test'"):
            second.acquire_resource_sync(spec, timeout=0.05)
        context.release_resource(server)
        assert second.acquire_resource_sync(spec).check()


def test_two_specs_on_one_port(context: Context) -> None:
    port = free_port()
    context.acquire_resource_sync(server_spec(port=port))
    with pytest.raises(Unavailable, match="or another spec with this port"):
        context.acquire_resource_sync(server_spec(port=port, name="second"))


@pytest.mark.parametrize("port", [-1, 70000])
def test_a_port_that_is_none(port: int) -> None:
    with pytest.raises(ConfigError, match="0 to 65535"):
        server_spec(port=port)


def test_servers_of_one_spec_get_ports_of_their_own(context: Context) -> None:
    first = context.acquire_resource_sync(server_spec())
    with Context("second", resources=context._resources) as second:
        assert second.acquire_resource_sync(server_spec()).port != first.port


def test_a_port_that_is_lost_to_another_program_is_not_the_end(
    context: Context, monkeypatch: pytest.MonkeyPatch, taken: int
) -> None:
    STRANGER[:] = [404]
    ports = [taken, taken, free_port()]
    monkeypatch.setattr("guerdon.resources.server._free_port", lambda: ports.pop(0))
    server = context.acquire_resource_sync(server_spec())
    assert server.port != taken
    assert server.check()
    assert ports == []


def test_ports_that_are_always_lost(
    context: Context, monkeypatch: pytest.MonkeyPatch, taken: int
) -> None:
    STRANGER[:] = [404]
    tried: list[int] = []
    monkeypatch.setattr("guerdon.resources.server._free_port", lambda: tried.append(taken) or taken)
    with pytest.raises(Unavailable, match=r"(?s)it said: .*Address already in use"):
        context.acquire_resource_sync(server_spec())
    assert len(tried) == 5


def test_a_server_that_ends_for_another_reason_is_started_once(
    context: Context, tmp_path: Path
) -> None:
    code = f"open({str(tmp_path / 'starts')!r}, 'a').write('x'); raise SystemExit('no model')"
    with pytest.raises(Unavailable, match="it said: no model"):
        context.acquire_resource_sync(server_spec(code))
    assert (tmp_path / "starts").read_text() == "x"


def test_a_server_that_loads_long_before_it_binds_is_awaited(
    context: Context, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    loaded = tmp_path / "loaded"
    loads = f"import os, time\nwhile not os.path.exists({str(loaded)!r}): time.sleep(0.01)\n"
    asked: list[str] = []

    def counted(url: str) -> bool:
        asked.append(url)
        if len(asked) == 5:
            loaded.touch()
        return answers(url)

    monkeypatch.setattr("guerdon.resources.server.answers", counted)
    assert context.acquire_resource_sync(server_spec(loads + SERVER)).check()
    assert len(asked) > 5


@pytest.mark.parametrize("kind", [server_spec, lambda **o: EndpointSpec(url="http://a", **o)])
def test_a_pool_waits_for_a_long_start(kind: Any) -> None:
    assert kind(start_seconds=900).pool.patience_seconds > 900
    assert kind(start_seconds=9, pool=Pool(patience_seconds=700)).pool.patience_seconds == 700
    for seconds in (0, -1, float("inf"), float("nan")):
        with pytest.raises(ConfigError, match="start_seconds must be above 0"):
            kind(start_seconds=seconds)


def test_a_server_that_dies_is_replaced(context: Context) -> None:
    spec = server_spec(pool=Pool(max=1, check_seconds=0.01))
    server = context.acquire_resource_sync(spec, scope="global")
    url = server.url
    with socket.create_connection(("127.0.0.1", server.port), LONG) as client:
        client.sendall(b"GET /end HTTP/1.0\r\n\r\n")
        client.settimeout(LONG)
        while client.recv(100):
            pass
    until(lambda: not server.check())
    until(lambda: "told to end" in server.output)
    context._resources.tidy()
    until(lambda: context._resources.tidy() or "held" not in state_of(context, spec))
    with pytest.raises(Unavailable, match="Server of rollout 'test' broke and was given up"):
        _ = server.url
    again = context.acquire_resource_sync(spec, scope="global")
    assert again.url != url
    assert again.check()


def state_of(context: Context, spec: ServerSpec) -> list[str]:
    return context._resources.pool(spec, "local").states()


def test_endless_words_fill_nothing(context: Context) -> None:
    loud = "import sys\nfor n in range(20000): print('x' * 1000)\nprint('ready')\n" + SERVER
    server = context.acquire_resource_sync(server_spec(loud))
    until(lambda: server.output.endswith("ready\n"))
    assert len(server.output) == 2000


def test_a_program_that_ends_quickly_is_quoted_whole(context: Context) -> None:
    code = "print('first'); raise SystemExit('CUDA out of memory')"
    with pytest.raises(Unavailable, match=r"(?s)it said: first\nCUDA out of memory"):
        context.acquire_resource_sync(server_spec(code))


FORKS = f"""
import os, sys, time
from guerdon.resources import *
context = Context("main")
server = context.acquire_resource_sync(
    ServerSpec(argv=(sys.executable, "-c", {SERVER!r}, "{{port}}"), stop_seconds=0.3)
)
child = os.fork()
if child == 0:
    time.sleep(600)
print(child, server.port, flush=True)
time.sleep(600)
"""


def test_a_forked_child_does_not_keep_the_servers_of_a_killed_trainer() -> None:
    owner = subprocess.Popen([sys.executable, "-c", FORKS], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    child = int(owner.stdout.readline().split()[0])
    tree = psutil.Process(owner.pid).children(recursive=True)
    servers = [process for process in tree if process.pid != child]
    try:
        assert servers
        owner.send_signal(signal.SIGKILL)
        owner.wait(LONG)
        _, alive = psutil.wait_procs(servers, LONG)
        assert alive == []
        assert psutil.pid_exists(child)
    finally:
        os.kill(child, signal.SIGKILL)
        owner.stdout.close()


# Servers that are there.


def test_a_server_elsewhere_is_awaited_and_watched(context: Context, taken: int) -> None:
    STRANGER[:] = [503]
    spec = EndpointSpec(url=f"http://127.0.0.1:{taken}", pool=Pool(max=1))
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.append(context.acquire_resource_sync(spec).url))
    thread.start()
    assert found == []
    STRANGER[:] = [204]
    thread.join(LONG)
    assert found == [spec.url]
    STRANGER[:] = [500]
    assert not context.acquire_resource_sync(spec).check()


def test_a_server_elsewhere_that_is_not_ready(context: Context, taken: int) -> None:
    STRANGER[:] = [404]
    spec = EndpointSpec(url=f"http://127.0.0.1:{taken}/api", start_seconds=0.05)
    with pytest.raises(
        Unavailable, match=r"not ready within 0.05 s: GET .*/api/health gave no 2xx"
    ):
        context.acquire_resource_sync(spec)


def test_it_lives_on_the_backend_remote(context: Context, taken: int) -> None:
    spec = EndpointSpec(url=f"http://127.0.0.1:{taken}")
    assert context.acquire_resource_sync(spec) is context.acquire_resource_sync(
        spec, backend="remote"
    )
    with pytest.raises(ConfigError, match="lives on the backend 'remote', not on 'local'"):
        context.acquire_resource_sync(spec, backend="local")
    with (
        Context(resources=context._resources, backend="remote") as remote,
        pytest.raises(ConfigError, match="Server lives on the backend 'local', not on 'remote'"),
    ):
        remote.acquire_resource_sync(server_spec())


@pytest.mark.parametrize(
    "options",
    [{"url": "localhost:80"}, {"url": "http://a:b"}, {"url": "http://a", "ready_path": "x"}],
)
def test_an_address_that_is_none(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"address|path such as"):
        EndpointSpec(**options)
