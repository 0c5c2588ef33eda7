"""System calls: what becomes of those that a program may not make, really and by the filter."""

from __future__ import annotations

import json
import platform
import struct
from typing import Any

import pytest

from guerdon.resources.sandbox import Command, Sandbox, Status
from guerdon.resources.sandbox.seccomp import AUDIT_ARCH, NUMBERS, build_filter


def words(text: str) -> list[str]:
    """Names of calls, with space between them."""
    return text.split()


KILLED = words("""
ptrace process_vm_readv process_vm_writev mount umount2 pivot_root chroot unshare setns open_tree
move_mount fsopen fsconfig fsmount fspick mount_setattr bpf perf_event_open init_module finit_module
delete_module kexec_load kexec_file_load reboot swapon swapoff acct settimeofday clock_settime
sethostname setdomainname open_by_handle_at add_key request_key keyctl userfaultfd kcmp pidfd_getfd
syslog quotactl quotactl_fd lookup_dcookie vhangup fanotify_init modify_ldt ioperm iopl
""")

REFUSED = words("""
shmget shmat shmdt shmctl memfd_create memfd_secret msgget msgsnd msgrcv msgctl semget semop
semtimedop semctl mq_open name_to_handle_at adjtimex clock_adjtime personality migrate_pages
move_pages mbind set_mempolicy setpriority ioprio_set inotify_init inotify_init1 process_madvise
sched_setaffinity sched_setscheduler sched_setparam sched_setattr vmsplice
""")

ABSENT = words("""
clone3 io_uring_setup io_uring_enter io_uring_register statmount listmount io_setup
""")

IGNORED = words("""
sched_yield sync syncfs fsync fdatasync msync sync_file_range
""")

REFUSED_WITHOUT_NAMESPACES = words("""
chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat utime utimes futimesat utimensat
setxattr lsetxattr fsetxattr removexattr lremovexattr fremovexattr
""")

DENIED_WITHOUT_NAMESPACES = words("""
kill tkill tgkill rt_sigqueueinfo rt_tgsigqueueinfo pidfd_send_signal connect bind
sendmsg sendmmsg
""")

EPERM, EACCES, ENOTTY, ENOSYS, EOPNOTSUPP = 1, 13, 25, 38, 95
NEW_CALLS = (463, 466, 467, 469, 470, 1000)
"""setxattrat, removexattrat, open_tree_attr, file_setattr, and those that nobody knows yet."""

ERRORS = {
    EPERM: "EPERM",
    EACCES: "EACCES",
    ENOTTY: "ENOTTY",
    ENOSYS: "ENOSYS",
    EOPNOTSUPP: "EOPNOTSUPP",
}

Call = tuple[int, tuple[int, ...], str]

WITH_ARGUMENTS: list[tuple[str, tuple[int, ...], str, str]] = [
    # name, arguments, what becomes of it in namespaces of its own, and without
    *(
        ("clone", (flag | 17,), "killed", "killed")
        for flag in (0x80, 0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000)
    ),
    ("clone", (0x20000000 | 17,), "killed", "killed"),
    ("clone", (0x40000000 | 17,), "killed", "killed"),
    ("prctl", (1, 0), "EPERM", "EPERM"),
    ("prctl", (36, 1), "EPERM", "EPERM"),
    ("prctl", (62, 1), "EPERM", "EPERM"),
    ("prctl", (3,), "allowed", "allowed"),
    ("fcntl", (1, 8, 1), "EPERM", "EPERM"),
    ("fcntl", (1, 10, 9), "EPERM", "EPERM"),
    ("fcntl", (1, 15, 0), "EPERM", "EPERM"),
    ("fcntl", (1, 1026, 1), "EPERM", "EPERM"),
    ("fcntl", (1, 1031, 1 << 20), "EPERM", "EPERM"),
    ("fcntl", (1, 3), "allowed", "allowed"),
    ("ioctl", (1, 0x8901, 0), "EPERM", "ENOTTY"),
    ("ioctl", (1, 0x8902, 0), "EPERM", "ENOTTY"),
    ("ioctl", (1, 0x5412, 0), "EPERM", "ENOTTY"),
    ("ioctl", (1, 0x541C, 0), "EPERM", "ENOTTY"),
    ("ioctl", (1, 0x5451, 0), "allowed", "allowed"),  # FIOCLEX
    ("ioctl", (1, 0x40086602, 0), "tried", "ENOTTY"),  # FS_IOC_SETFLAGS
    ("ioctl", (1, 0x40806685, 0), "tried", "ENOTTY"),  # FS_IOC_ENABLE_VERITY
    ("ioctl", (1, 0x5000940E, 0), "tried", "ENOTTY"),  # BTRFS_IOC_SUBVOL_CREATE
    ("fallocate", (1, 0, 0, 1), "tried", "EOPNOTSUPP"),
    ("fallocate", (1, 1, 0, 1), "tried", "EOPNOTSUPP"),
    ("mmap", (0, 4096, 3, 0x21, -1, 0), "EPERM", "EPERM"),
    ("mmap", (0, 4096, 3, 0x4021, -1, 0), "EPERM", "EPERM"),
    ("mmap", (0, 4096, 3, 0x22, -1, 0), "allowed", "allowed"),
    ("mmap", (0, 4096, 3, 0x01, 0, 0), "tried", "tried"),
    ("socket", (1, 1, 0), "allowed", "EACCES"),
    ("socket", (2, 1, 0), "EACCES", "EACCES"),
    ("socket", (10, 1, 0), "EACCES", "EACCES"),
    ("socket", (16, 3, 0), "EACCES", "EACCES"),
    ("socket", (17, 3, 0), "EACCES", "EACCES"),
    ("socket", (40, 1, 0), "EACCES", "EACCES"),
    ("socketpair", (1, 1, 0, 0), "tried", "tried"),
    ("socketpair", (1, 5 | 0x80000, 0, 0), "tried", "tried"),
    ("socketpair", (1, 2, 0, 0), "tried", "EACCES"),
    ("socketpair", (1, 3, 0, 0), "tried", "EACCES"),
    ("prlimit64", (0, 7, 0, 0), "allowed", "allowed"),
    ("prlimit64", (1, 7, 0, 0), "tried", "EPERM"),
    ("getpid", (), "allowed", "allowed"),
]

OTHER_NUMBERS = {"getpid": (39, 172)}


def number(name: str, machine: str) -> int:
    """Of a call, or -1."""
    return {**NUMBERS, **OTHER_NUMBERS}[name][list(AUDIT_ARCH).index(machine)]


def calls(*, own_namespaces: bool, machine: str) -> list[Call]:
    """All calls that are looked at: number, arguments, what has to become of them."""
    wanted = {
        **dict.fromkeys(KILLED, "killed"),
        **dict.fromkeys(REFUSED, "EPERM"),
        **dict.fromkeys(ABSENT, "ENOSYS"),
        **dict.fromkeys(IGNORED, "ignored"),
        **dict.fromkeys(REFUSED_WITHOUT_NAMESPACES, "tried" if own_namespaces else "EPERM"),
        **dict.fromkeys(DENIED_WITHOUT_NAMESPACES, "tried" if own_namespaces else "EACCES"),
    }
    found = [(number(name, machine), (-1,) * 6, fate) for name, fate in wanted.items()]
    found += [(fresh, (-1,) * 6, "ENOSYS") for fresh in NEW_CALLS]
    for name, arguments, own, without in WITH_ARGUMENTS:
        found.append((number(name, machine), arguments, own if own_namespaces else without))
    return [call for call in found if call[0] >= 0]


def test_every_call_of_the_table_is_looked_at() -> None:
    looked_at = {*KILLED, *REFUSED, *ABSENT, *IGNORED, *REFUSED_WITHOUT_NAMESPACES}
    looked_at |= {*DENIED_WITHOUT_NAMESPACES, *(name for name, *_ in WITH_ARGUMENTS)}
    assert set(NUMBERS) == looked_at - set(OTHER_NUMBERS)


TRY = """
import ctypes, json, os, signal
libc = ctypes.CDLL(None, use_errno=True)
fates = []
for number, arguments in json.load(open(0)):
    pid = os.fork()
    if pid == 0:
        ctypes.set_errno(0)
        result = libc.syscall(number, *map(ctypes.c_long, arguments))
        os._exit(ctypes.get_errno() if result == -1 else 0)
    status = os.waitpid(pid, 0)[1]
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGSYS
    fates.append("killed" if killed else os.waitstatus_to_exitcode(status))
print(json.dumps(fates))
"""


def test_calls(sandbox: Sandbox) -> None:
    """Each is made by a process of its own, with arguments that the kernel refuses otherwise."""
    own = sandbox.engine.name == "bubblewrap"
    wanted = [
        call for call in calls(own_namespaces=own, machine=platform.machine()) if call[2] != "tried"
    ]
    given = json.dumps([call[:2] for call in wanted]).encode()
    result = sandbox.run(Command(argv=(*sandbox.interpreter.argv, "-c", TRY), stdin=given))
    assert result.status is Status.OK, result
    names: dict[object, str] = {"killed": "killed", 0: "allowed", **ERRORS}
    fates = [names.get(fate, str(fate)) for fate in json.loads(result.text)]
    assert list(zip(wanted, fates, strict=True)) == [
        (call, call[2].replace("ignored", "allowed")) for call in wanted
    ]


VERDICTS = {
    0x80000000: "killed",
    0x7FFF0000: "tried",
    0x00050000: "ignored",
    **{0x00050000 | number: name for number, name in ERRORS.items()},
}


def verdict(code: bytes, arch: int, call: int, arguments: tuple[int, ...] = ()) -> str:
    """What a filter says of a call: runs its program as the kernel does."""
    values = [value & (2**64 - 1) for value in (*arguments, 0, 0, 0, 0, 0, 0)[:6]]
    data = struct.pack("=IIQ6Q", call, arch, 0, *values)
    steps: list[Any] = list(struct.iter_unpack("=HBBI", code))
    place, word = 0, 0
    while True:
        step, if_true, if_false, operand = steps[place]
        place += 1
        match step:
            case 0x20:
                (word,) = struct.unpack_from("=I", data, operand)
            case 0x54:
                word &= operand
            case 0x06:
                return VERDICTS[operand]
            case 0x15 | 0x35 | 0x45:
                hit = {0x15: word == operand, 0x35: word >= operand, 0x45: bool(word & operand)}
                place += if_true if hit[step] else if_false
            case _:
                raise AssertionError(f"step {step:#x}")


@pytest.mark.parametrize("machine", AUDIT_ARCH)
@pytest.mark.parametrize("own", [True, False])
def test_verdicts(machine: str, own: bool) -> None:
    code = build_filter(own_namespaces=own, machine=machine)
    arch = AUDIT_ARCH[machine]
    for call, arguments, fate in calls(own_namespaces=own, machine=machine):
        found = verdict(code, arch, call, arguments)
        assert found == fate.replace("allowed", "tried"), (call, arguments)
    assert verdict(code, arch, number("getpid", machine)) == "tried"
    assert verdict(code, 0x40000003, number("getpid", machine)) == "killed"  # 32-bit code
    if machine == "x86_64":
        assert verdict(code, arch, 0x40000000 | number("getpid", machine)) == "killed"
