"""The system calls that a sandboxed program may not make, as a filter for the kernel.

The filter is a classic BPF program over `struct seccomp_data` (linux/seccomp.h), built here so that
nothing has to be installed. Calls that only an attack makes end the program; calls that a library
may try and do without are refused with an error.
"""

from __future__ import annotations

import platform
import struct
from collections.abc import Mapping, Sequence
from functools import lru_cache

from guerdon.errors import Unavailable

# linux/bpf_common.h, linux/seccomp.h
LOAD_WORD = 0x20
JUMP_EQUAL = 0x15
JUMP_GREATER_OR_EQUAL = 0x35
JUMP_ANY_BIT = 0x45
AND = 0x54
RETURN = 0x06
KILL_PROCESS = 0x80000000
ERRNO = 0x00050000
ALLOW = 0x7FFF0000
NUMBER_OFFSET, ARCH_OFFSET, ARGUMENTS_OFFSET = 0, 4, 16

EPERM, ENOSYS, EACCES, ENOTTY, EOPNOTSUPP, SUCCESS = 1, 38, 13, 25, 95, 0
AF_UNIX = 1
SOCK_TYPE, SOCK_STREAM, SOCK_SEQPACKET = 0xF, 1, 5
MAP_TYPE, MAP_SHARED, MAP_ANONYMOUS = 0xF, 0x01, 0x20
IOCTLS = (0x5401, 0x802C542A, 0x5411, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
"""TCGETS, TCGETS2, TIOCOUTQ, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX: libraries ask these
of any file. Others change flags, volumes and encryption of files that can only be read, too."""
NEW_NAMESPACES = 0x7E020080
"""All CLONE_NEW* flags of linux/sched.h."""
X32 = 0x40000000
"""Numbers from here on are the x32 ABI, which would pass a filter made for x86-64."""

NEWEST = 462
"""The last call that is known here (mseal); newer ones are absent. The same on all machines."""

AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

ATTACKS = (
    "ptrace", "process_vm_readv", "process_vm_writev", "mount", "umount2", "pivot_root", "chroot",
    "unshare", "setns", "open_tree", "move_mount", "fsopen", "fsconfig", "fsmount", "fspick",
    "mount_setattr", "bpf", "perf_event_open", "init_module", "finit_module", "delete_module",
    "kexec_load", "kexec_file_load", "reboot", "swapon", "swapoff", "acct", "settimeofday",
    "clock_settime", "sethostname", "setdomainname", "open_by_handle_at", "add_key",
    "request_key", "keyctl", "userfaultfd", "kcmp", "pidfd_getfd", "syslog", "quotactl",
    "quotactl_fd", "lookup_dcookie", "vhangup", "fanotify_init", "modify_ldt", "ioperm", "iopl",
)  # fmt: skip
"""Nothing that a program is asked to write makes these; they end it."""

UNCOUNTED = (
    "shmget", "shmat", "shmdt", "shmctl", "memfd_create", "memfd_secret", "msgget", "msgsnd",
    "msgrcv", "msgctl", "semget", "semop", "semtimedop", "semctl", "mq_open", "vmsplice",
)  # fmt: skip
"""They give memory that the limits of a process do not count, or reach what others have of it."""

REFUSED = (
    "name_to_handle_at", "adjtimex", "clock_adjtime", "personality", "migrate_pages", "move_pages",
    "mbind", "set_mempolicy", "setpriority", "ioprio_set", "inotify_init",
    "inotify_init1", "process_madvise",
    "sched_setaffinity", "sched_setscheduler", "sched_setparam", "sched_setattr",
)  # fmt: skip
"""A program that makes itself wait for a processor would look like a victim of a busy machine."""

IGNORED = (
    "sched_yield", "sync", "syncfs", "fsync", "fdatasync", "msync", "sync_file_range",
)  # fmt: skip
"""They succeed and do nothing. The first gives no processor away, for the same reason. The others
wait for the disks of the host, for minutes where it writes a lot, and nothing can end a program
meanwhile; what a program writes does not outlive it anyway."""

REFUSED_OPTIONS = (
    ("prctl", 0, (1, 36, 62)),
    ("fcntl", 1, (8, 10, 15, 1026, 1031)),
    ("ioctl", 1, (0x8901, 0x8902, 0x5412, 0x541C)),
)
"""Calls, the place of an argument, and what it may not be.

- PR_SET_PDEATHSIG, by which a program ends with its sandbox; PR_SET_CHILD_SUBREAPER, by which
  orphans come to it; PR_SCHED_CORE, which makes it wait for a processor.
- F_SETOWN, F_SETSIG and F_SETOWN_EX, and FIOSETOWN and SIOCSPGRP: they let a file send signals.
- F_NOTIFY: it tells when somebody looks into a folder.
- F_SETPIPE_SZ: it gives a pipe more memory, which no limit of a process counts.
- TIOCSTI and TIOCLINUX: they type into a terminal.
"""

ABSENT = (
    "clone3", "io_uring_setup", "io_uring_enter", "io_uring_register", "statmount", "listmount",
    "io_setup",
)  # fmt: skip
"""Libraries do without them; a filter cannot see into their arguments. `io_setup` takes from one
number for the whole machine (fs.aio-max-nr)."""

SIGNALS = ("kill", "tkill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "pidfd_send_signal")
SOCKETS = ("socket", "connect", "bind", "sendmsg", "sendmmsg")
"""A message can carry open files, which are on nobody's list while it is under way."""
PAIRS = ((AND, SOCK_TYPE), (JUMP_EQUAL, SOCK_STREAM), (JUMP_EQUAL, SOCK_SEQPACKET))
"""A socket of datagrams could send to any address, although it was made as one of a pair."""

METADATA = (
    "chmod", "fchmod", "fchmodat", "fchmodat2", "chown", "fchown", "lchown", "fchownat", "utime",
    "utimes", "futimesat", "utimensat", "setxattr", "lsetxattr", "fsetxattr", "removexattr",
    "lremovexattr", "fremovexattr",
)  # fmt: skip
"""Landlock does not see these: they could change files of the host that the same user owns."""

OTHERS = ("prlimit64",)
"""Calls that change another process where their first argument is not 0."""

NUMBERS: Mapping[str, tuple[int, int]] = {
    # name: (x86-64, arm64), from the kernel's system call tables; -1 where there is none
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51),
    "unshare": (272, 97), "setns": (308, 268), "open_tree": (428, 428), "move_mount": (429, 429),
    "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433),
    "mount_setattr": (442, 442), "bpf": (321, 280), "perf_event_open": (298, 241),
    "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106),
    "kexec_load": (246, 104), "kexec_file_load": (320, 294), "reboot": (169, 142),
    "swapon": (167, 224), "swapoff": (168, 225), "acct": (163, 89), "settimeofday": (164, 170),
    "clock_settime": (227, 112), "sethostname": (170, 161), "setdomainname": (171, 162),
    "open_by_handle_at": (304, 265), "add_key": (248, 217), "request_key": (249, 218),
    "keyctl": (250, 219), "userfaultfd": (323, 282), "kcmp": (312, 272),
    "pidfd_getfd": (438, 438), "syslog": (103, 116), "quotactl": (179, 60),
    "lookup_dcookie": (212, 18), "vhangup": (153, 58), "fanotify_init": (300, 262),
    "shmget": (29, 194), "shmat": (30, 196), "shmdt": (67, 197),
    "shmctl": (31, 195), "memfd_create": (319, 279),
    "memfd_secret": (447, 447), "msgget": (68, 186), "msgsnd": (69, 189),
    "msgrcv": (70, 188), "msgctl": (71, 187), "semget": (64, 190), "semop": (65, 193),
    "semtimedop": (220, 192), "semctl": (66, 191), "mq_open": (240, 180),
    "name_to_handle_at": (303, 264), "adjtimex": (159, 171), "clock_adjtime": (305, 266),
    "personality": (135, 92), "migrate_pages": (256, 238), "move_pages": (279, 239),
    "mbind": (237, 235), "set_mempolicy": (238, 237), "setpriority": (141, 140),
    "ioprio_set": (251, 30), "inotify_init": (253, 26), "inotify_init1": (294, 26),
    "process_madvise": (440, 440),
    "clone3": (435, 435), "io_uring_setup": (425, 425), "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427), "kill": (62, 129), "tkill": (200, 130),
    "tgkill": (234, 131), "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240),
    "pidfd_send_signal": (424, 424), "prlimit64": (302, 261), "sched_setaffinity": (203, 122),
    "sched_setscheduler": (144, 119), "sched_setparam": (142, 118), "sched_setattr": (314, 274),
    "chmod": (90, -1), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452),
    "chown": (92, -1), "fchown": (93, 55), "lchown": (94, -1), "fchownat": (260, 54),
    "utime": (132, -1), "utimes": (235, -1), "futimesat": (261, -1), "utimensat": (280, 88),
    "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7), "removexattr": (197, 14),
    "lremovexattr": (198, 15), "fremovexattr": (199, 16), "clone": (56, 220),
    "socket": (41, 198), "connect": (42, 203), "bind": (49, 200), "socketpair": (53, 199),
    "quotactl_fd": (443, 443), "vmsplice": (278, 75), "io_setup": (206, 0), "mmap": (9, 222),
    "sync": (162, 81), "syncfs": (306, 267), "fsync": (74, 82), "fdatasync": (75, 83),
    "msync": (26, 227), "sync_file_range": (277, 84), "fallocate": (285, 47),
    "sendmsg": (46, 211), "sendmmsg": (307, 269),
    "modify_ldt": (154, -1), "ioperm": (173, -1), "iopl": (172, -1), "sched_yield": (24, 124),
    "prctl": (157, 167), "fcntl": (72, 25), "ioctl": (16, 29),
    "statmount": (457, 457), "listmount": (458, 458),
}  # fmt: skip


class _Program:
    """Instructions of `struct sock_filter`: code, jump if true, jump if false, operand."""

    def __init__(self) -> None:
        self._code = bytearray()

    def add(self, code: int, operand: int, if_true: int = 0, if_false: int = 0) -> None:
        self._code += struct.pack("=HBBI", code, if_true, if_false, operand)

    def returns(self, names: Sequence[str], column: int, result: int) -> None:
        """End with a result where the number of the call is one of these."""
        for name in names:
            number = NUMBERS[name][column]
            if number >= 0:
                self.add(JUMP_EQUAL, number, 0, 1)
                self.add(RETURN, result)

    def argument(
        self,
        name: str,
        column: int,
        place: int,
        steps: Sequence[tuple[int, int]],
        *,
        passes: int,
        fails: int = ALLOW,
    ) -> None:
        """End with a result for one call, by whether one of its arguments passes one of the tests.

        The low word of the argument is what counts: none of these calls takes more than 32 bits.
        """
        self.add(JUMP_EQUAL, NUMBERS[name][column], 0, len(steps) + 3)
        self.add(LOAD_WORD, ARGUMENTS_OFFSET + 8 * place)
        for at, (code, operand) in enumerate(steps):
            self.add(code, operand, 0 if code == AND else len(steps) - at)
        self.add(RETURN, fails)
        self.add(RETURN, passes)

    def done(self) -> bytes:
        return bytes(self._code)


@lru_cache(maxsize=4)
def build_filter(*, own_namespaces: bool, machine: str | None = None) -> bytes:
    """The filter as an array of `struct sock_filter`, as bubblewrap's `--seccomp` reads it.

    Args:
        own_namespaces: whether the program has process and network namespaces of its own; without,
            it may have no socket but connected pairs, may signal or change no process, and may not
            change owners, permissions and times of files.
        machine: as `platform.machine()` says; by default this one.

    Raises:
        Unavailable: no table of system calls for this machine.

    Example:
        >>> len(build_filter(own_namespaces=True, machine="x86_64")) % 8
        0
    """
    machine = machine or platform.machine()
    if machine not in AUDIT_ARCH:
        raise Unavailable(
            f"the sandbox has no table of system calls for {machine}, only for "
            f"{' and '.join(AUDIT_ARCH)}",
            retryable=False,
        )
    column = list(AUDIT_ARCH).index(machine)
    program = _Program()
    program.add(LOAD_WORD, ARCH_OFFSET)
    program.add(JUMP_EQUAL, AUDIT_ARCH[machine], 1, 0)
    program.add(RETURN, KILL_PROCESS)
    program.add(LOAD_WORD, NUMBER_OFFSET)
    if machine == "x86_64":
        program.add(JUMP_GREATER_OR_EQUAL, X32, 0, 1)
        program.add(RETURN, KILL_PROCESS)
    program.returns(ATTACKS, column, KILL_PROCESS)
    program.returns(ABSENT, column, ERRNO | ENOSYS)
    program.add(JUMP_GREATER_OR_EQUAL, NEWEST + 1, 0, 1)
    program.add(RETURN, ERRNO | ENOSYS)
    program.returns(UNCOUNTED + REFUSED, column, ERRNO | EPERM)
    program.returns(IGNORED, column, ERRNO | SUCCESS)
    namespaces = [(JUMP_ANY_BIT, NEW_NAMESPACES)]
    program.argument("clone", column, 0, namespaces, passes=KILL_PROCESS)
    # What is shared without a file stays when it is unmapped, and then counts for nobody.
    shared = [(AND, MAP_TYPE | MAP_ANONYMOUS), (JUMP_EQUAL, MAP_SHARED | MAP_ANONYMOUS)]
    program.argument("mmap", column, 3, shared, passes=ERRNO | EPERM)
    if not own_namespaces:
        harmless = [(JUMP_EQUAL, request) for request in IOCTLS]
        program.argument("ioctl", column, 1, harmless, passes=ALLOW, fails=ERRNO | ENOTTY)
    for name, place, operands in REFUSED_OPTIONS:
        tests = [(JUMP_EQUAL, operand) for operand in operands]
        program.argument(name, column, place, tests, passes=ERRNO | EPERM)
    if own_namespaces:
        unix = [(JUMP_EQUAL, AF_UNIX)]
        program.argument("socket", column, 0, unix, passes=ALLOW, fails=ERRNO | EACCES)
    else:
        program.returns((*SOCKETS, *SIGNALS), column, ERRNO | EACCES)
        program.returns(METADATA, column, ERRNO | EPERM)
        program.argument("socketpair", column, 1, PAIRS, passes=ALLOW, fails=ERRNO | EACCES)
        # Gigabytes of a disk at once; writing takes time, in which they are seen.
        program.returns(("fallocate",), column, ERRNO | EOPNOTSUPP)
        for name in OTHERS:
            own = [(JUMP_EQUAL, 0)]
            program.argument(name, column, 0, own, passes=ALLOW, fails=ERRNO | EPERM)
    program.add(RETURN, ALLOW)
    return program.done()
