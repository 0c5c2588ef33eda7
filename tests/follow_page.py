"""Follow a documentation page as a reader would: run its blocks in order, in this folder.

    python follow_page.py PAGE

Python blocks share one namespace; a block that begins with `# name.py` or `# name.yaml` is that
file instead. The lines of console blocks run and must succeed, or end as `# exit N` says. Every
YAML block is a configuration of rewards or of a server, and must load.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

UNNAMED = Path("unnamed.yaml")
"""Where a YAML block without a name of its own is written."""

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
VARIABLE = re.compile(r"\$\{env:(\w+)\}")
FILE_NAME = re.compile(r"# (\S+\.(?:py|yaml))\n")


def main(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    names: dict[str, object] = {"__name__": "page"}
    configurations: dict[Path, str] = {}
    followed = 0
    for block in BLOCK.finditer(text):
        kind, body = block.groups()
        line = text.count("\n", 0, block.start(2))
        named = FILE_NAME.match(body)
        if named:
            Path(named[1]).write_text(body, encoding="utf-8")
            if kind == "yaml":
                configurations[Path(named[1])] = f"{page.name}:{line}"
        elif kind == "yaml":
            UNNAMED.write_text(body, encoding="utf-8")
            load(UNNAMED, f"{page.name}:{line}")
        elif kind == "python":
            exec(compile("\n" * line + body, str(page), "exec"), names)
        elif kind == "console":
            for command in filter(None, body.splitlines()):
                run(command, f"{page.name}:{line}")
        else:
            continue
        followed += 1
    for path, where in configurations.items():  # after the blocks that write what they name
        load(path, where)
    print(f"{followed} blocks")


def load(path: Path, where: str) -> None:
    """Read a configuration as its commands would; it starts nothing."""
    from guerdon import config
    from guerdon.errors import GuerdonError
    from guerdon.server import configuration

    text = path.read_text(encoding="utf-8")
    serves = "rewards:" in text.splitlines()
    for name in VARIABLE.findall(text):
        os.environ.setdefault(name, "correct-horse-battery")
    try:
        configuration.load(path) if serves else config.load(path)
    except GuerdonError as error:
        sys.exit(f"{where}: {error}")


def run(command: str, where: str) -> None:
    _, _, status = command.partition("# exit ")
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    if done.returncode != int(status or 0):
        sys.exit(f"{where}: {command}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
