"""Runs inside a sandbox and looks for what should not be possible there.

    python -c SOURCE CANARY PARENT

CANARY is a file on the host that anybody may read, PARENT a process on the host. Prints what it got
hold of, one line each, and "probed" at the end.
"""

import os
import sys


def main() -> None:
    """Try everything, and say what worked."""
    if sys.hexversion < 0x030A0000:
        sys.exit("it is older than Python 3.10")
    import _socket

    canary, parent = sys.argv[1], int(sys.argv[2])

    def read() -> None:
        with open(canary, "rb"):
            pass

    def write() -> None:
        with open(canary + ".new", "wb"):
            pass

    def write_system() -> None:
        with open("/usr/guerdon-canary", "wb"):
            pass

    def connect() -> None:
        made = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
        made.close()

    def signal() -> None:
        os.kill(parent, 0)

    for name, attempt in (
        ("reads a file of the host", read),
        ("writes beside a file of the host", write),
        ("writes to /usr", write_system),
        ("has a network socket", connect),
        ("signals a process of the host", signal),
    ):
        try:
            attempt()
        except OSError:
            continue
        sys.stdout.write(f"{name}\n")
    with open("own", "wb") as own:
        own.write(b"probed")
    if os.getuid() == 0:
        sys.stdout.write("runs as root\n")
    sys.stdout.write("probed\n")


if __name__ == "__main__":
    main()
