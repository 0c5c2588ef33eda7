"""Which engine works on this machine, found by trying what it must prevent."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import msgspec

from guerdon.errors import Unavailable, nearest
from guerdon.resources.sandbox.bubblewrap import Bubblewrap
from guerdon.resources.sandbox.bundle import source_of
from guerdon.resources.sandbox.command import Command
from guerdon.resources.sandbox.engine import SEARCH_PATH, Engine
from guerdon.resources.sandbox.interpreter import Interpreter, interpreters
from guerdon.resources.sandbox.landlock import Landlock, landlock_version
from guerdon.resources.sandbox.limits import Limits
from guerdon.resources.sandbox.spawning import spawn
from guerdon.resources.sandbox.status import Status

EngineName: TypeAlias = Literal["auto", "bubblewrap", "landlock", "unsafe-without-isolation"]

PROBE_SECONDS = 20.0

NAMESPACES = (
    "allow user namespaces (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone, "
    "kernel.apparmor_restrict_unprivileged_userns; of a container its seccomp profile), or use "
    "Landlock"
)
USERS = "let the container have more users than root, or do not run as root in it"

ADVICE = {
    # what an engine says, and what to do
    "is not installed": "install bubblewrap and util-linux (apt install bubblewrap util-linux)",
    "kernel has none": "run on a kernel with Landlock (5.13 or later, and named in `lsm=`)",
    "new namespace": NAMESPACES,
    "uid map": NAMESPACES,
    "loopback": NAMESPACES,
    "setresuid failed": USERS,
    "no other user": USERS,
}

UNSAFE = (
    "programs are not run without a sandbox, unless you ask for the engine "
    "'unsafe-without-isolation'"
)


class Found(msgspec.Struct, frozen=True):
    """An engine that works, and the Python that runs inside it."""

    engine: Engine
    interpreter: Interpreter


class Leaky(Unavailable):
    """No engine of a choice works, and one starts programs but does not keep what it must."""


_lock = threading.Lock()
_found: dict[str, Found] = {}


def find(choice: EngineName) -> Found:
    """The first engine of a choice that works; looked for once in a process.

    Raises:
        ValueError: no such choice.
        Leaky: none works, and one does not keep what it must.
        Unavailable: none works; says why each does not, and what to install.
    """
    if choice not in get_args(EngineName):
        known = get_args(EngineName)
        raise ValueError(
            f"engine is {choice!r}, not one of {', '.join(known)}{nearest(choice, known)}"
        )
    with _lock:
        if choice not in _found:
            _found[choice] = _find(choice)
        return _found[choice]


def _find(choice: EngineName) -> Found:
    reasons: dict[str, list[str]] = {}  # what is wrong, with which interpreters
    leaks = False
    if not sys.platform.startswith("linux"):
        raise Unavailable("the sandbox needs Linux", retryable=False)
    if choice == "unsafe-without-isolation":
        engines: list[Engine | str] = [Landlock(confine=False)]
    else:
        engines = list(_engines(choice))
    for engine in engines:
        if isinstance(engine, str):
            reasons[engine] = []
            continue
        for interpreter in interpreters():
            try:
                seen = _try(engine, interpreter)
            except Unavailable as error:
                told = str(error).removeprefix(f"{engine.name}: ")
            else:
                if not seen or engine.name.startswith("unsafe"):
                    return Found(engine, interpreter)
                leaks = True
                told = ", ".join(f"it {line}" for line in seen)
            known = reasons.setdefault(f"{engine.name}: {told}", [])
            known += {interpreter.path} - {*known}
    kind = Leaky if leaks else Unavailable
    raise kind(f"no sandbox works here ({_told(reasons)}): {_advice(reasons)}", retryable=False)


def _told(reasons: dict[str, list[str]]) -> str:
    return "; ".join(
        f"{reason} (with {', '.join(interpreters)})" if interpreters else reason
        for reason, interpreters in reasons.items()
    )


def _advice(reasons: Iterable[str]) -> str:
    """What to do about the reasons, each advice once."""
    fitting = {
        advice: None for reason in reasons for part, advice in ADVICE.items() if part in reason
    }
    return "; ".join((*fitting, UNSAFE))


def _engines(choice: EngineName) -> Iterator[Engine | str]:
    """The engines of a choice, or why one cannot be tried."""
    if choice in ("auto", "bubblewrap"):
        yield from _bubblewraps()
    if choice in ("auto", "landlock"):
        yield Landlock() if landlock_version() else "landlock: this kernel has none"


def _bubblewraps() -> Iterator[Engine | str]:
    bwrap, prlimit, setpriv = (
        shutil.which(name, path=f"{SEARCH_PATH}:{os.environ.get('PATH', '')}")
        for name in ("bwrap", "prlimit", "setpriv")
    )
    if bwrap is None:
        yield "bubblewrap: the program bwrap is not installed"
    elif prlimit is None:
        yield "bubblewrap: the program prlimit is not installed"
    elif setpriv is None and os.geteuid() == 0:
        yield "bubblewrap: the program setpriv is not installed"
    else:
        yield Bubblewrap(bwrap, prlimit, setpriv)
        yield Bubblewrap(bwrap, prlimit, setpriv, proc=False)


def _try(engine: Engine, interpreter: Interpreter) -> list[str]:
    """What a program in an engine can do that it must not.

    Raises:
        Unavailable: it does not run there.
    """
    with tempfile.TemporaryDirectory(prefix="guerdon-probe-") as folder:
        Path(folder).chmod(0o755)
        canary = Path(folder, "canary")
        canary.write_text("seen")
        canary.chmod(0o644)
        command = Command(
            argv=(
                *interpreter.argv,
                "-c",
                source_of("guerdon.resources.sandbox.prober"),
                str(canary),
                str(os.getpid()),
            ),
            readable=interpreter.readable,
        )
        try:
            with spawn(engine, command, Limits(wall_seconds=PROBE_SECONDS)) as running:
                result = running.finish()
        except OSError as error:
            raise Unavailable(str(error)) from error
    if result.status is not Status.OK:
        raise Unavailable(result.detail or str(result.status))
    lines = result.text.split("\n")
    if "probed" not in lines:
        raise Unavailable("the probe said nothing")
    return [line for line in lines if line and line != "probed"]
