"""The container of `docs/resources.md`, with a stand-in for Docker's command line."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from guerdon.errors import Unavailable
from guerdon.resources import Context, Resources

PAGE = Path(__file__).parents[2] / "docs" / "resources.md"

DOCKER = f"""#!{sys.executable}
import os, pathlib, signal, subprocess, sys
home = pathlib.Path(__file__).parent
verb, rest = sys.argv[1], sys.argv[2:]
with open(home / "asked", "a") as asked:
    print(*sys.argv[1:], file=asked)
if verb == "run":
    if "broken" in rest:
        sys.exit("no such image")
    name = rest[rest.index("--name") + 1]
    main = subprocess.Popen(rest[-1:])
    (home / name).write_text(str(main.pid))
    main.wait()
    (home / name).unlink(missing_ok=True)
elif verb == "exec":
    while rest[0].startswith("--"):
        rest.pop(0)
    if not (home / rest[0]).exists():
        sys.exit("no such container")
    os.execvp(rest[1], rest[1:])
elif verb == "rm":
    name = home / rest[1]
    if name.exists():
        os.kill(int(name.read_text()), signal.SIGKILL)
"""


@pytest.fixture
def docker(tmp_path: Path) -> str:
    path = tmp_path / "docker"
    path.write_text(DOCKER)
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def spec(docker: str) -> Any:
    """The page's spec, for an image."""
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    (source,) = [block for block in blocks if "class ContainerSpec" in block]
    names: dict[str, Any] = {"__name__": "page"}
    exec(compile(source, str(PAGE), "exec"), names)
    return lambda image: names["ContainerSpec"](image=image, tool=docker)


def test_commands_run_in_the_container_of_one_rollout(spec: Any, tmp_path: Path) -> None:
    with Resources() as resources:
        with Context("one", resources=resources) as context:
            box = context.acquire_resource_sync(spec("python:3.12"))
            done = box.run("echo $((6 * 7)); exit 3", workdir="/src", user="nobody")
            assert (done.stdout, done.returncode) == (b"42\n", 3)
            assert box.run("sleep 60", seconds=1).returncode == 124
            first = box.name
        with Context("two", resources=resources) as context:
            assert context.acquire_resource_sync(spec("python:3.12")).name != first
    asked = (tmp_path / "asked").read_text()
    assert (
        f"run --rm -i --name {first} --network=none --memory=4g --pids-limit=512 python:3.12 cat"
        in asked
    )
    assert f"exec --workdir=/src --user=nobody {first} timeout 60 sh -c echo" in asked
    assert f"rm -f {first}" in asked
    assert [p for p in psutil.Process().children(recursive=True) if "docker" in p.name()] == []


def test_an_image_that_is_not_there(spec: Any) -> None:
    with (
        Resources() as resources,
        Context(resources=resources) as context,
        pytest.raises(Unavailable, match="Container does not start: no such image"),
    ):
        context.acquire_resource_sync(spec("broken"))
