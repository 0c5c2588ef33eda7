"""Rewards that misbehave on command; the pool's workers load this file by path."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from guerdon.errors import BadInput, RewardFailure
from guerdon.outcome import Score, Span
from guerdon.reward import BaseReward, reward

DEADLINE = 2.0


def loop_in_python() -> float:
    while True:
        pass


def loop_in_c() -> float:
    return float(sum(range(10**13)))


def sleep() -> float:
    time.sleep(3600)
    return 1.0


def exit_now() -> float:
    os._exit(3)


def segfault() -> float:
    ctypes.string_at(0)
    return 1.0


def kill_self() -> float:
    os.kill(os.getpid(), signal.SIGKILL)
    return 1.0


def allocate() -> float:
    return float(len(bytearray(1 << 44)))


def recurse() -> float:
    return recurse()


def leave() -> float:
    sys.exit(1)


def interrupt() -> float:
    raise KeyboardInterrupt


def raise_plainly() -> float:
    raise ValueError("no \ud800 value")


def refuse() -> float:
    raise BadInput("the truth is unusable")


def blame_candidate() -> float:
    raise RewardFailure("the sandbox saw a loop", kind="timeout", blame="candidate")


def report_a_crash() -> float:
    raise RewardFailure("the sandbox saw a segfault", kind="crashed", blame="candidate")


def odd_score() -> Any:
    return Score(value=1.0, info=["no", "mapping"])  # type: ignore[arg-type]


def nan() -> float:
    return float("nan")


def text() -> Any:
    return "1.0"


def close_descriptors() -> float:
    """Break the worker's own channel."""
    os.closerange(3, 64)
    return 1.0


POISON = {
    f.__name__: f
    for f in (
        loop_in_python,
        loop_in_c,
        sleep,
        exit_now,
        segfault,
        kill_self,
        allocate,
        recurse,
        leave,
        interrupt,
        raise_plainly,
        refuse,
        blame_candidate,
        report_a_crash,
        odd_score,
        nan,
        text,
        close_descriptors,
    )
}


@reward(
    auto_register=False,
    deadline=DEADLINE,
    value_range=(0.0, 1.0),
    candidate_fault=("timeout", "crashed"),
)
def act(response: str, ground_truth: str) -> float:
    if response in POISON:
        return POISON[response]()
    return float(response == ground_truth)


scorer_only = act.configure(name="scorer_only", candidate_fault=())


@reward(auto_register=False)
def once_fatal(response: str, *, marker: str) -> float:
    """Kills its worker the first time it sees the word, and scores the second time."""
    if response == "fatal" and not Path(marker).exists():
        Path(marker).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return 1.0


@reward(auto_register=False)
def hold(response: str, *, folder: str) -> float:
    """Says that it has begun, then waits for a file that the test makes."""
    (Path(folder) / f"began-{response}").touch()
    while not (Path(folder) / "go").exists():
        time.sleep(0.005)
    return 1.0


@reward(auto_register=False)
def worker_pid(response: str) -> dict[str, Any]:
    return {"score": 1.0, "info": {"pid": os.getpid(), "parent": os.getppid()}}


HOARD: list[bytearray] = []


@reward(auto_register=False)
def hoard(response: str) -> dict[str, Any]:
    HOARD.append(bytearray(os.urandom(1024) * 1024 * 40))
    return {"score": 1.0, "info": {"pid": os.getpid()}}


@reward(auto_register=False)
def rich(response: str) -> Any:
    return Score(
        value=0.5,
        spans=(Span("char", 0, 1, 0.25),),
        components={"a": 1.0, "b": None},
        metrics={"length": float(len(response))},
        info={"text": response, "many": [1, {"deep": (2, 3)}]},
    )


@reward(auto_register=False)
def unencodable(response: str) -> Any:
    deep: list[Any] = []
    for _ in range(1000):
        deep = [deep]
    information = {"object": threading, "deep": deep, "n": 10**30}
    return {"score": 0.5, "length": 3, "components": {"a": 1.0}, "info": information}


BEYOND: dict[str, Any] = {
    **{f"{sign}2**{bits}": sign * 2**bits for sign in (-1, 1) for bits in (63, 64, 65, 400)},
    "edges": [-(2**63), -(2**63) - 1, 2**64 - 1, 2**64],
    "nested": {"deep": [{"n": 10**30}]},
    "broken": "\ud800 and \U0001f600",
    "plain": [1, 2.5, None, True, "text"],
}


@reward(auto_register=False)
def beyond(response: str) -> Any:
    """Information for which MessagePack has no word."""
    return {"score": 0.5, "info": BEYOND}


class Unhashable(dict[str, int]):
    """A mapping that is a key here, and cannot be one where its type is forgotten."""

    def __hash__(self) -> int:  # type: ignore[override]
        return 1


@reward(auto_register=False)
def unreadable(response: str) -> Any:
    """Says something that can be written and cannot be read again."""
    details = {"deep": {Unhashable(a=1): 2}} if response == "bad" else {}
    return {"score": 1.0, "info": details}


@reward(auto_register=False, scope="batch", batch_size=2)
def unreadable_together(responses: list[str]) -> Any:
    return [unreadable.function(response) for response in responses]


@reward(auto_register=False, scope="batch")
def lengths(responses: list[str]) -> list[float]:
    return [float(len(text)) for text in responses]


@reward(auto_register=False, scope="group", deadline=DEADLINE)
def relative(responses: list[str]) -> list[float]:
    if "hang" in responses:
        loop_in_python()
    if "short" in responses:
        return [1.0]
    return [float(len(text) == max(map(len, responses))) for text in responses]


@reward(auto_register=False)
def pixels(images: Any) -> float:
    return float(images[0].array.sum())


@reward(auto_register=False)
def chatty(response: str) -> float:
    print("from the reward")
    return 1.0


class FatalToLoad(BaseReward):
    """Kills the workers that load it, until it has done so a number of times."""

    auto_register = False

    def __init__(self, folder: str, times: int) -> None:
        self.folder = folder
        self.times = times

    def call(self, response: str) -> float:
        return 1.0

    def __reduce__(self) -> Any:
        return load_or_die, (self.folder, self.times)


def load_or_die(folder: str, times: int) -> FatalToLoad:
    deaths = len(list(Path(folder).iterdir()))
    if deaths < times:
        (Path(folder) / f"death-{os.getpid()}").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return FatalToLoad(folder, times)


class SlowToWarm(BaseReward):
    """Would miss its deadline if its first call had to warm it."""

    auto_register = False
    deadline = 0.5

    def __init__(self) -> None:
        self.warmed = 0

    def warm(self) -> None:
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            pass
        self.warmed += 1

    def call(self, response: str) -> float:
        return float(self.warmed)


@reward(name="poison_device", auto_register=False, work="gpu")
def device_work(response: str, pipe: str) -> float:
    """Reads a byte from a named pipe, as work that goes on for as long as a test wants."""
    if pipe:
        with open(pipe, "rb") as file:
            file.read(1)
    return float(os.getpid())
