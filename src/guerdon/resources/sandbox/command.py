"""What to run in a sandbox."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from guerdon.outcome import EMPTY
from guerdon.resources.sandbox.files import check_files, check_name

HIDDEN = ("", "/tmp", "/dev", "/proc")
"""Folders that every sandbox has of its own."""

MAX_ARGUMENT_BYTES = 120_000
"""Below the kernel's limit of one argument (MAX_ARG_STRLEN, 128 KiB)."""


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """One program with what it gets and what is kept of it.

    Attributes:
        argv: the program (an absolute path, or a name on `/usr/local/bin:/usr/bin:/bin`) and its
            arguments.
        stdin: its standard input, as a file.
        files: files in its working folder, by relative path.
        keep: files of its working folder to bring back when it has ended.
        environment: its whole environment, beside PATH, HOME, TMPDIR and LANG.
        readable: folders of the host that it may read, under the same path.
        descriptors: open descriptors that it inherits, under the same numbers.
        capture: whether its output is kept; without, it goes nowhere and has no limit.

    Raises:
        ValueError: text where arguments or bytes are wanted, an empty or unusable argument, a file
            name that leaves the folder.

    Example:
        >>> Command(argv=("cat",), stdin=b"hello").argv
        ('cat',)
        >>> Command(argv=("echo", "a\\0b"))
        Traceback (most recent call last):
        ValueError: argument 1 has a NUL byte
    """

    argv: tuple[str, ...]
    stdin: bytes = b""
    files: Mapping[str, bytes] = EMPTY
    keep: tuple[str, ...] = ()
    environment: Mapping[str, str] = EMPTY
    readable: tuple[str, ...] = ()
    descriptors: tuple[int, ...] = ()
    capture: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.argv, str):
            raise ValueError(f'argv is a text; write ("sh", "-c", {self.argv!r}) for a shell')
        for what, data in (("stdin", self.stdin), *self.files.items()):
            if isinstance(data, str):
                raise ValueError(f"{what} is a text where bytes are wanted: .encode() makes them")
        if not self.argv or not self.argv[0]:
            raise ValueError("there is no program to run")
        for place, argument in enumerate(self.argv):
            _check_text(f"argument {place}", argument)
        for key, value in self.environment.items():
            _check_text(f"the environment variable {key!r}", key + value)
            if not key or "=" in key:
                raise ValueError(f"{key!r} is no name of an environment variable")
        for path in self.readable:
            _check_text("a readable folder", path)
            if not path.startswith("/"):
                raise ValueError(f"the readable folder {path!r} is no absolute path")
            if path.rstrip("/") in HIDDEN:
                raise ValueError(f"the readable folder {path!r} would hide what the sandbox makes")
        check_files(self.files)
        for name in self.keep:
            check_name(name)


def _check_text(what: str, text: str) -> None:
    if "\0" in text:
        raise ValueError(f"{what} has a NUL byte")
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise ValueError(f"{what} is no Unicode text") from None
    if size > MAX_ARGUMENT_BYTES:
        raise ValueError(f"{what} has {size} bytes, the most is {MAX_ARGUMENT_BYTES}: use a file")
