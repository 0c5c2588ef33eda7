"""A temporary folder on the host, for trusted code: tools, evaluators, caches."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

from guerdon.fingerprint import digest
from guerdon.resources.resource import Resource
from guerdon.resources.sandbox.files import check_name
from guerdon.resources.spec import Spec

PREFIX = "guerdon-folder-"


class Folder(Resource):
    """An empty folder; what policies wrote belongs into a `Workspace`, not here.

    Attributes:
        path: where it is.
    """

    path: Path

    def __init__(self, parent: str | None) -> None:
        self._parent = parent

    def start(self) -> None:
        """Make it, and remove those of processes that were killed."""
        parent = self._parent or tempfile.gettempdir()
        sweep(parent)
        self.path = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{_self()}-", dir=parent))

    def reset(self) -> bool:
        """Empty it."""
        self.stop()
        self.start()
        return True

    def check(self) -> bool:
        """Whether it is still there."""
        return self.path.is_dir()

    def stop(self) -> None:
        """Remove it with all it holds."""
        if hasattr(self, "path"):
            shutil.rmtree(self.path, ignore_errors=True)

    def file(self, name: str) -> Path:
        """The path of a file in it.

        Raises:
            ValueError: the name leaves the folder.
        """
        return self.path / check_name(name)


class FolderSpec(Spec[Folder], frozen=True, kw_only=True):
    """A temporary folder.

    Attributes:
        parent: where it is made; by default where the system keeps temporary files.
    """

    parent: str | None = None

    def make(self) -> Folder:
        """The folder, not made yet."""
        return Folder(self.parent)


_swept: set[tuple[int, str]] = set()
_lock = threading.Lock()


def sweep(parent: str) -> None:
    """Once per process: remove folders whose process has ended without removing them."""
    with _lock:
        if (os.getpid(), parent) in _swept:
            return
        _swept.add((os.getpid(), parent))
    with contextlib.suppress(OSError):
        for entry in os.scandir(parent):
            owner = entry.name.removeprefix(PREFIX).split("-")
            ours = entry.name.startswith(PREFIX) and entry.is_dir(follow_symlinks=False)
            if ours and _has_ended(owner):
                shutil.rmtree(entry.path, ignore_errors=True)


def _self() -> str:
    """This process, told apart from a later one of the same number and from those elsewhere."""
    return f"{_place()}-{os.getpid()}-{_started(os.getpid())}"


def _place() -> str:
    """What numbers processes: this boot of this machine, and this container. Other machines may
    write to the same disk, and about their processes nothing is known here."""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
        return digest({"boot": boot, "processes": os.readlink("/proc/self/ns/pid")})
    return ""


def _has_ended(owner: Sequence[str]) -> bool:
    place, pid, started, *_ = [*owner, "", "", ""]
    here = place != "" and place == _place()
    return here and pid.isdigit() and started != "" and _started(int(pid)) != started


def _started(pid: int) -> str:
    """When a process started, in ticks of the kernel; empty where it does not live."""
    with contextlib.suppress(OSError):
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        return text.rpartition(")")[2].split()[19]
    return ""
