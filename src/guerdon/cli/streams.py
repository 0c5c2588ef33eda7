"""Standard output kept for what a command prints: what rewards print goes to standard error."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager, redirect_stdout

STDOUT = 1
STDERR = 2


@contextmanager
def own_stdout() -> Generator[io.TextIOWrapper]:
    """A text stream to standard output that nobody else writes to.

    For as long as it lasts, descriptor 1 of this process and of processes that it starts is
    standard error. `print` in a reward, in C code and in a worker cannot mix with the output.
    """
    sys.stdout.flush()
    kept = os.dup(STDOUT)
    os.set_inheritable(kept, False)
    try:
        os.dup2(STDERR, STDOUT)
        stream = os.fdopen(kept, "w", encoding="utf-8", errors="backslashreplace")
    except BaseException:
        os.close(kept)
        raise
    try:
        with redirect_stdout(sys.stderr):
            yield stream
        stream.flush()
    finally:
        sys.stdout.flush()
        os.dup2(stream.fileno(), STDOUT)
        _discard_on_error(stream)


def _discard_on_error(stream: io.TextIOWrapper) -> None:
    """Close a stream; what a closed pipe did not take is gone."""
    try:
        stream.close()
    except OSError:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, STDOUT)
        os.close(null)
