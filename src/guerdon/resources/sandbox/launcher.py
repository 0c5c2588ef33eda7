"""Starts one program confined by Landlock, seccomp and resource limits; runs on the host.

    python -c BUNDLE DESCRIPTOR      where DESCRIPTOR holds the job as JSON

It adopts the orphans of the program, reports like bubblewrap (`child-pid`, `exit-code`), and ends
the whole tree when the program or its own parent ends. Standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import sys
from typing import Any

from guerdon.resources.sandbox.tree import kill_descendants

# linux/prctl.h
PR_SET_PDEATHSIG = 1
PR_SET_SECCOMP = 22
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
SECCOMP_MODE_FILTER = 2

# linux/landlock.h; the numbers of its calls are the same on all machines
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
RULE_PATH_BENEATH = 1
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1, 2, 4, 8
TRUNCATE, IOCTL_DEV = 1 << 14, 1 << 15
FILE_RIGHTS = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
RIGHTS_BY_VERSION = (0, (1 << 13) - 1, (1 << 14) - 1, (1 << 15) - 1, (1 << 15) - 1)
ALL_RIGHTS = (1 << 16) - 1
NET_RIGHTS = 3
SCOPES = 3

FIRST_USER = 1_000_000_000
"""Users from here on own nothing; as root each run gets its own, by the launcher's process id."""

NOBODY = 65534

_libc = ctypes.CDLL(None, use_errno=True)


def prctl(option: int, first: Any, second: Any = 0) -> None:
    """Call prctl(2).

    Raises:
        OSError: it failed.
    """
    if _libc.prctl(option, ctypes.c_ulong(first), second, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl {option}")


def landlock_version() -> int:
    """The version of Landlock that the kernel has; 0 without it."""
    return max(0, int(_libc.syscall(CREATE_RULESET, None, 0, 1)))


def confine_files(readable: list[str], devices: list[str], folder: str) -> None:
    """Let this process and its children read some folders, and write only in one.

    Raises:
        OSError: the kernel refuses; nothing may run then.
    """
    version = landlock_version()
    rights = RIGHTS_BY_VERSION[version] if version < len(RIGHTS_BY_VERSION) else ALL_RIGHTS
    fields = [rights]
    if version >= 4:
        fields.append(NET_RIGHTS)
    if version >= 6:
        fields.append(SCOPES)
    attributes = (ctypes.c_uint64 * len(fields))(*fields)
    size = ctypes.c_size_t(ctypes.sizeof(attributes))
    ruleset = _libc.syscall(CREATE_RULESET, ctypes.byref(attributes), size, 0)
    if ruleset < 0:
        raise OSError(ctypes.get_errno(), "landlock_create_ruleset")
    for path in readable:
        _allow(ruleset, path, (EXECUTE | READ_FILE | READ_DIR) & rights)
    for path in devices:
        _allow(ruleset, path, (READ_FILE | WRITE_FILE) & rights)
    _allow(ruleset, folder, rights)
    if _libc.syscall(RESTRICT_SELF, ruleset, 0) != 0:
        raise OSError(ctypes.get_errno(), "landlock_restrict_self")
    os.close(ruleset)


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def _allow(ruleset: int, path: str, rights: int) -> None:
    with contextlib.suppress(FileNotFoundError):
        parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
        if not os.path.isdir(path):
            rights &= FILE_RIGHTS
        rule = _PathBeneath(rights, parent)
        failed = _libc.syscall(ADD_RULE, ruleset, RULE_PATH_BENEATH, ctypes.byref(rule), 0)
        os.close(parent)
        if failed:
            raise OSError(ctypes.get_errno(), f"landlock_add_rule {path}")


class _FilterProgram(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_char_p))


def confine_calls(code: bytes) -> None:
    """Install a filter of system calls.

    Raises:
        OSError: the kernel refuses it.
    """
    program = _FilterProgram(len(code) // 8, code)
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program))


def become(user: int) -> None:
    """Give up root.

    Raises:
        OSError: the kernel refuses.
    """
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)


def tasks_of(user: int) -> int:
    """Threads of all processes of a user: the kernel counts them against one limit."""
    count = 0
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if os.stat(f"/proc/{name}").st_uid == user:
                count += len(os.listdir(f"/proc/{name}/task"))
    return count


def limit(limits: dict[str, list[int]], processes: int) -> None:
    """Set resource limits by their names in the module `resource`."""
    for name, (soft, hard) in limits.items():
        resource.setrlimit(getattr(resource, name), (soft, hard))
    _, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    most = processes if hard == resource.RLIM_INFINITY else min(processes, hard)
    resource.setrlimit(resource.RLIMIT_NPROC, (most, most))


def child(job: dict[str, Any], user: int) -> None:
    """Become the program; never returns."""
    try:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        os.chdir(job["folder"])
        if os.geteuid() == 0:
            become(user)
        used = 0 if user >= FIRST_USER else tasks_of(user)
        limit(job["limits"], used + job["processes"])
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        prctl(PR_SET_NO_NEW_PRIVS, 1)
        if job["confine"]:
            confine_files(job["readable"], job["devices"], job["folder"])
            confine_calls(bytes.fromhex(job["filter"]))
        os.write(job["started"], b"1")
        os.execve(job["argv"][0], job["argv"], job["environment"])
    except OSError as error:
        os.write(2, f"cannot start {job['argv'][0]}: {error}\n".encode())
    finally:
        os._exit(127)


def main() -> None:
    """Run the job, report, and leave nothing behind."""
    with open(int(sys.argv[1]), encoding="utf-8") as file:
        job = json.load(file)
    status = job["status"]
    os.set_inheritable(status, False)

    def on_signal(number: int, frame: object) -> None:
        """The parent has died: nobody else removes the folder."""
        kill_descendants(os.getpid())
        os.execv("/bin/rm", ["rm", "-rf", "--", job["folder"]])

    signal.signal(signal.SIGTERM, on_signal)
    prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != job["parent"]:
        return
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    user = os.geteuid() or own(job["folder"], (FIRST_USER + os.getpid(), NOBODY))
    started, job["started"] = os.pipe()
    pid = os.fork()
    if pid == 0:
        child(job, user)
    os.close(job["started"])
    report(status, "child-pid", pid)
    code = _wait_for(pid)
    if os.read(started, 1):
        report(status, "exit-code", code)
    _end()


def own(folder: str, users: tuple[int, ...]) -> int:
    """Give a folder to the first of some users that exists in this container; returns which.

    Raises:
        OSError: none does.
    """
    for user in users:
        with contextlib.suppress(OSError):
            os.chown(folder, user, user)
            break
    else:
        raise OSError("there is no other user in this container than root")
    for path, folders, files in os.walk(folder):
        for name in (*folders, *files):
            os.chown(os.path.join(path, name), user, user, follow_symlinks=False)
    return user


def _wait_for(pid: int) -> int:
    while True:
        ended, status = os.wait()  # adopted orphans end here, too
        if ended == pid:
            return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


def report(descriptor: int, key: str, value: int) -> None:
    """Write one line for the sandbox that started this."""
    os.write(descriptor, json.dumps({key: value}).encode() + b"\n")


def _end() -> None:
    kill_descendants(os.getpid())
    os._exit(0)


if __name__ == "__main__":
    try:
        main()
    except OSError as error:
        sys.exit(str(error))
