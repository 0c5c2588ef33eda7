"""Exceptions keep their message, kind and blame on every way: raised, copied, pickled."""

import copy
import pickle

import pytest

from guerdon import errors
from guerdon.errors import (
    RETRYABLE_KINDS,
    BadInput,
    Blame,
    FailureKind,
    GuerdonError,
    MissingExtra,
    NonFinite,
    RewardFailure,
    ScoringFailed,
    Unavailable,
    UnportableData,
    nearest,
)
from guerdon.outcome import Failure
from guerdon.outcomes import Outcomes


def test_the_vocabulary_of_kinds_is_the_one_of_the_design() -> None:
    assert {str(kind) for kind in FailureKind} == {
        "timeout",
        "crashed",
        "raised",
        "non_finite",
        "bad_output",
        "bad_input",
        "unavailable",
        "overloaded",
        "cancelled",
    }
    assert {str(blame) for blame in Blame} == {"candidate", "scorer", "infrastructure", "data"}


def test_only_outside_trouble_is_retryable() -> None:
    assert {str(kind) for kind in RETRYABLE_KINDS} == {"unavailable", "overloaded"}


@pytest.mark.parametrize(
    ("error", "kind", "blame", "retryable"),
    [
        (BadInput("no gold"), "bad_input", "data", False),
        (Unavailable("judge gone"), "unavailable", "infrastructure", True),
        (Unavailable("judge gone", retryable=False), "unavailable", "infrastructure", False),
        (NonFinite("nan"), "non_finite", "scorer", False),
        (RewardFailure("x", kind="overloaded", blame="scorer"), "overloaded", "scorer", True),
        (
            RewardFailure("x", kind=FailureKind.RAISED, blame=Blame.DATA, retryable=True),
            "raised",
            "data",
            True,
        ),
    ],
)
def test_a_reward_failure_says_what_and_who(
    error: RewardFailure, kind: str, blame: str, retryable: bool
) -> None:
    assert (str(error.kind), str(error.blame), error.retryable) == (kind, blame, retryable)
    assert isinstance(error.kind, FailureKind)
    assert isinstance(error.blame, Blame)


@pytest.mark.parametrize(("kind", "blame"), [("slow", "data"), ("timeout", "somebody")])
def test_a_reward_failure_outside_the_vocabulary_is_refused(kind: str, blame: str) -> None:
    with pytest.raises(ValueError, match="is not a valid"):
        RewardFailure("x", kind=kind, blame=blame)


def _failed() -> ScoringFailed:
    lost = Failure(kind=FailureKind.RAISED, message="oops", blame=Blame.SCORER)
    return ScoringFailed("1 of 1 failed", Outcomes([lost]))


@pytest.mark.parametrize("clone", [copy.copy, lambda e: pickle.loads(pickle.dumps(e))])
@pytest.mark.parametrize(
    "error",
    [
        BadInput("no gold"),
        Unavailable("gone", retryable=False),
        RewardFailure("x", kind="timeout", blame="candidate"),
        MissingExtra("torch", "torch", "PickScore"),
        UnportableData("metadata['client']", "Client", target="a worker"),
        NonFinite("nan"),
        _failed(),
    ],
    ids=lambda e: type(e).__name__,
)
def test_an_exception_passes_between_processes(error: GuerdonError, clone: object) -> None:
    twin = clone(error)  # type: ignore[operator]
    assert type(twin) is type(error)
    assert str(twin) == str(error)
    assert twin.__dict__.keys() == error.__dict__.keys()
    for name, value in error.__dict__.items():
        if name == "outcomes":
            assert list(twin.outcomes) == list(error.outcomes)  # type: ignore[attr-defined]
        else:
            assert twin.__dict__[name] == value


def test_a_missing_extra_names_the_command_that_repairs_it() -> None:
    error = MissingExtra("rapidfuzz", "text", "edit distance")
    assert isinstance(error, ImportError)
    assert str(error).endswith(
        "pip install '.[text]' in the clone, or 'guerdon[text]' where an index has it"
    )
    assert "rapidfuzz" in str(error)


def test_unportable_data_names_its_place_and_the_way_out() -> None:
    message = str(UnportableData("metadata['db']", "Connection", target="a worker process"))
    for part in ("metadata['db']", "Connection", "a worker process", "score in process"):
        assert part in message


@pytest.mark.parametrize(
    ("word", "known", "hint"),
    [
        ("dedline", ["deadline", "name"], " (did you mean 'deadline'?)"),
        ("zzz", ["deadline"], ""),
        ("", [], ""),
    ],
)
def test_the_hint_is_the_nearest_word_or_nothing(word: str, known: list[str], hint: str) -> None:
    assert nearest(word, known) == hint


def test_every_exception_is_a_guerdon_error() -> None:
    own = [
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, Exception)
    ]
    assert len(own) > 10
    assert all(issubclass(kind, GuerdonError) for kind in own)
