"""What the rewards for programs share: their options, and how they run."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from guerdon.errors import InvalidReward, Unavailable
from guerdon.reward import BaseReward, Ready
from guerdon.rules.code.budget import sandbox_of
from guerdon.rules.code.language import Language

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
"""Programs that run at one time in one process: each takes about one core."""

VERSION_SECONDS = 20.0

MOST_READ = 1 << 20
"""Characters of a program that is read for its form, which takes a second or two for so many."""


class CodeReward(BaseReward):
    """Base of the rewards that run programs.

    They wait for sandboxes, one thread each, so they need no pool; the sandbox ends what does not
    end by itself. How a program ends is a score, as the sandbox shows whose doing it is; where the
    sandbox itself fails there is no score but a failure, blamed on the infrastructure.
    """

    auto_register = False
    value_range = (0.0, 1.0)
    work = "io"
    concurrency = CORES

    language: Language
    engine: Any = "auto"

    def warm(self) -> None:
        """Find out which sandbox works here."""
        _ = sandbox_of(self.engine).engine

    def fingerprint_extra(self) -> Mapping[str, Any]:
        """The version of the language, which can decide what a program gives."""
        return {"toolchain": toolchain(self.language, self.engine)}


def no_program() -> Ready:
    """The result for a response without a program."""
    info = {"status": "no_program", "message": "the response holds no program"}
    return Ready({"score": 0.0, "info": info})


def too_long(size: int) -> Ready:
    """The result for a program that is not read."""
    message = f"the program has {size} characters, the most that is read is {MOST_READ}"
    return Ready({"score": 0.0, "info": {"status": "too_long", "message": message}})


def check_first(first: int | None) -> None:
    """Refuse a number of cases that leaves none.

    Raises:
        InvalidReward: it is below 1.
    """
    if first is not None and first < 1:
        raise InvalidReward(f"first is {first}: at least one case has to count")


@lru_cache(maxsize=16)
def toolchain(language: Language, engine: Any) -> str:
    """What the language's interpreter or compiler says about its version, or "missing".

    Example:
        >>> from guerdon.rules.code.language import LANGUAGES
        >>> toolchain(LANGUAGES["bash"], "auto")[:8]
        'GNU bash'
    """
    try:
        path = language.tool_path() if language.tool else sandbox_of(engine).interpreter.path
        done = subprocess.run(
            [path, "--version"], capture_output=True, text=True, timeout=VERSION_SECONDS, check=True
        )
    except (Unavailable, OSError, subprocess.SubprocessError):
        return "missing"
    return done.stdout.partition("\n")[0]
