"""Runs inside the sandbox, around a program whose files are to be kept.

    python -c SOURCE DESCRIPTOR LIMIT COUNT NAME... PROGRAM ARGUMENT...

It starts the program, waits, and writes the named files to a descriptor that the program does not
inherit: 4 bytes which name, 8 bytes how long, the bytes. It follows no link, and reads nothing that
the program could not read itself. Needs nothing but the standard library's built-in modules.
"""

import os
import stat
import sys


def read(name: str, limit: int) -> "bytes | None":
    """A regular file below the working folder, or nothing."""
    folder = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        parts = [part for part in name.split("/") if part not in ("", ".")]
        for part in parts[:-1]:
            inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
            os.close(folder)
            folder = inner
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
        file = os.open(parts[-1], flags, dir_fd=folder)
    except OSError:
        return None
    finally:
        os.close(folder)
    found = os.fstat(file)
    if not stat.S_ISREG(found.st_mode) or found.st_size > limit:
        os.close(file)
        return None
    with open(file, "rb") as opened:
        return opened.read(limit)


def main() -> None:
    """Run the program and send its files."""
    descriptor, limit, count = map(int, sys.argv[1:4])
    names, argv = sys.argv[4 : 4 + count], sys.argv[4 + count :]
    os.set_inheritable(descriptor, False)
    child = os.fork()
    if child == 0:
        try:
            os.execvp(argv[0], argv)
        finally:
            os._exit(127)
    _, status = os.waitpid(child, 0)
    with open(descriptor, "wb") as pipe:
        for place, name in enumerate(names):
            data = read(name, limit)
            if data is not None:
                limit -= len(data)
                pipe.write(place.to_bytes(4, "little") + len(data).to_bytes(8, "little") + data)
    os._exit(os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status))


if __name__ == "__main__":
    main()
