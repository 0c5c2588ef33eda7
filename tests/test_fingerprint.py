"""A fingerprint changes with what decides a value, and with nothing else."""

import enum
import functools
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from guerdon.fingerprint import DIGEST_CHARACTERS, canonical, digest, source_of
from guerdon.reward import BaseReward, FunctionReward, reward


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class Marked:
    def __init__(self, fingerprint: str) -> None:
        self.fingerprint = fingerprint


class Opaque:
    pass


class Threshold:
    """A callable object."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.client = Opaque()

    def __call__(self, response: str) -> bool:
        return len(response) > self.limit

    def other(self, response: str) -> bool:
        return len(response) < self.limit


def longer(response: str, limit: int = 3) -> bool:
    return len(response) > limit


def shorter(response: str, limit: int = 3) -> bool:
    return len(response) < limit


def closing_over(limit: Any) -> Callable[..., Any]:
    def inner(response: str) -> bool:
        return response == limit

    return inner


def with_default(limit: Any) -> Callable[..., Any]:
    def inner(response: str, *, limit: Any = limit) -> bool:
        return response == limit

    return inner


def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(**keywords: Any) -> Any:
        return function(**keywords)

    return wrapper


class Family(BaseReward):
    auto_register = False

    def __init__(self, limit: int = 3, **more: Any) -> None:
        self.limit = limit

    def call(self, *, response: str) -> bool:
        return len(response) > self.limit


class Heir(Family):
    auto_register = False
    name = "family"


class OtherFamily(BaseReward):
    auto_register = False

    def call(self, *, response: str) -> bool:
        return False


class OtherHeir(OtherFamily):
    auto_register = False
    name = "family"


def made(function: Any, **settings: Any) -> FunctionReward:
    return FunctionReward(function, **{"name": "made", **settings})


two_lambdas = (lambda response: 1.0, lambda response: 2.0)

DIFFERENT: list[tuple[str, Callable[[], BaseReward], Callable[[], BaseReward]]] = [
    ("code", lambda: made(longer), lambda: made(shorter)),
    ("name", lambda: made(longer), lambda: made(longer, name="other")),
    ("version", lambda: made(longer), lambda: made(longer, version="2")),
    ("range", lambda: made(longer), lambda: made(longer, value_range=(0.0, 1.0))),
    ("option", lambda: made(longer), lambda: made(longer).bind(limit=4)),
    ("option value", lambda: made(longer).bind(limit=3), lambda: made(longer).bind(limit=4)),
    ("closure", lambda: made(closing_over(1)), lambda: made(closing_over(2))),
    ("closure type", lambda: made(closing_over(1)), lambda: made(closing_over(1.0))),
    ("default", lambda: made(with_default(1)), lambda: made(with_default(2))),
    ("lambda", lambda: made(two_lambdas[0]), lambda: made(two_lambdas[1])),
    (
        "partial function",
        lambda: made(functools.partial(longer, limit=1)),
        lambda: made(functools.partial(shorter, limit=1)),
    ),
    (
        "partial argument",
        lambda: made(functools.partial(longer, limit=1)),
        lambda: made(functools.partial(longer, limit=2)),
    ),
    ("callable state", lambda: made(Threshold(1)), lambda: made(Threshold(2))),
    ("method", lambda: made(Threshold(1).__call__), lambda: made(Threshold(1).other)),
    ("method state", lambda: made(Threshold(1).other), lambda: made(Threshold(2).other)),
    ("wrapped", lambda: made(decorated(longer)), lambda: made(decorated(shorter))),
    ("wrapping", lambda: made(decorated(longer)), lambda: made(longer)),
    ("class option", lambda: Family(limit=1), lambda: Family(limit=2)),
    ("class extra option", lambda: Family(extra=1), lambda: Family(extra=2)),
    ("base class", lambda: Heir(), lambda: OtherHeir()),
]


@pytest.mark.parametrize(
    ("one", "other"), [c[1:] for c in DIFFERENT], ids=[c[0] for c in DIFFERENT]
)
def test_what_decides_the_value_decides_the_fingerprint(
    one: Callable[[], BaseReward], other: Callable[[], BaseReward]
) -> None:
    assert one().fingerprint != other().fingerprint
    assert one().fingerprint == one().fingerprint
    assert re.fullmatch(rf"[0-9a-f]{{{DIGEST_CHARACTERS}}}", one().fingerprint)


@pytest.mark.parametrize("setting", [{"deadline": 3.0}, {"concurrency": 2}, {"batch_size": 5}])
def test_where_and_how_long_it_runs_does_not_change_the_fingerprint(setting: Any) -> None:
    assert made(longer).configure(**setting).fingerprint == made(longer).fingerprint


def test_the_model_revision_counts() -> None:
    class Model(BaseReward):
        auto_register = False
        revision = "a"

        def fingerprint_extra(self) -> dict[str, str]:
            return {"revision": self.revision}

        def call(self, *, response: str) -> float:
            return 1.0

    first, second = Model(), Model()
    second.revision = "b"
    assert first.fingerprint != second.fingerprint


VALUES = [
    None,
    True,
    False,
    0,
    1,
    -1,
    2**70,
    0.0,
    -0.0,
    1.0,
    0.1,
    float("inf"),
    float("nan"),
    "",
    "1",
    "1.0",
    "\ud800",
    b"",
    b"1",
    [],
    [1],
    [[1]],
    {},
    {"a": 1},
    {"1": 1},
    {1: 1},
    {"a"},
    {"a", "b"},
    Colour.RED,
    Colour.BLUE,
    Path("a"),
    Path("b"),
    Decimal("0.5"),
    Decimal("0.50"),
    re.compile("a"),
    re.compile("b"),
    np.array([1, 2]),
    np.array([1.0, 2.0]),
    np.array([[1, 2]]),
    np.array([1, 3]),
    np.arange(10_000),
    np.arange(10_000)[::-1],
    Marked("a"),
    Marked("b"),
    longer,
    shorter,
    Opaque(),
]


def test_different_option_values_have_different_forms() -> None:
    digests = [digest({"option": value}) for value in VALUES]
    assert len(set(digests)) == len(VALUES)
    assert digests == [digest({"option": value}) for value in VALUES]


def test_tuples_and_lists_are_one_and_order_of_keys_does_not_count() -> None:
    assert canonical((1, 2)) == canonical([1, 2])
    assert digest({"a": {"x": longer, "y": longer}}) == digest({"a": {"y": longer, "x": longer}})


def test_two_objects_with_an_address_in_their_repr_are_the_same() -> None:
    assert canonical(Opaque()) == canonical(Opaque())


def test_things_that_hold_themselves_have_a_form() -> None:
    ring: list[Any] = []
    ring.append(ring)
    table: dict[str, Any] = {}
    table["self"] = table

    def even(n: int) -> bool:
        return n == 0 or odd(n - 1)

    def odd(n: int) -> bool:
        return n != 0 and even(n - 1) and many(n)

    def many(n: int) -> bool:
        return any((even(n), odd(n), many(n)))

    for value in (ring, table, even, many):
        assert digest({"option": value}) == digest({"option": value})


def test_an_empty_cell_has_a_form() -> None:
    def reader() -> int:
        return later  # noqa: F821 - deleted below

    later = 1
    del later
    assert source_of(reader) == source_of(reader)


PROGRAM = textwrap.dedent(
    """
    import pathlib, sys
    sys.path.insert(0, sys.argv[1])
    import mine
    print(mine.score.fingerprint, mine.bound.fingerprint, mine.Model({"b", "a", "c"}).fingerprint)
    """
)
MODULE = textwrap.dedent(
    """
    from guerdon.reward import BaseReward, reward

    def build(words):
        @reward(name="score", auto_register=False)
        def score(response: str, *, limit: float = 0.1) -> bool:
            return response in words
        return score

    score = build({"x", "y", "z", "w"})
    bound = score.bind(limit=2)

    class Model(BaseReward):
        auto_register = False
        def __init__(self, words):
            self.words = words
        def call(self, *, response):
            return response in self.words
    """
)


def test_a_fingerprint_is_the_same_in_every_process_and_folder(tmp_path: Path) -> None:
    printed: set[str] = set()
    for number in range(3):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "mine.py").write_text(MODULE)
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(folder)],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": str(number), "PATH": ""},
        )
        printed.add(done.stdout)
    assert len(printed) == 1
    assert len(set(printed.pop().split())) == 3


def test_code_without_source_is_told_apart_by_its_byte_code() -> None:
    def define(text: str) -> FunctionReward:
        space: dict[str, Any] = {}
        exec(text, space)
        return made(space["f"])

    one = define("def f(response): return len(response)")
    same = define("def f(response): return len(response)")
    other = define("def f(response): return len(response) + 1")
    assert one.fingerprint == same.fingerprint
    assert one.fingerprint != other.fingerprint


def test_a_configured_copy_does_not_keep_the_fingerprint_of_its_origin() -> None:
    @reward(auto_register=False)
    def plain(response: str) -> float:
        return 1.0

    before = plain.fingerprint
    assert plain.configure(version="2").fingerprint != before
    assert plain.configure(name="other").fingerprint != before
    assert plain.fingerprint == before
