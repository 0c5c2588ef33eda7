"""Rewards that the tests of the scalar dialects host."""

from __future__ import annotations

from typing import Any

from guerdon.errors import Blame, FailureKind
from guerdon.outcome import Score, failure
from guerdon.reward import reward
from guerdon.sample import Sample


@reward(auto_register=False, scope="batch", value_range=(-1.0, 1.0))
def faults(samples: list[Sample]) -> list[Any]:
    """Scores, abstains, or fails in the way and with the blame that the response names."""
    found: list[Any] = []
    for sample in samples:
        kind, _, blame = str(sample.response_text).rpartition("|")[2].partition("/")
        if kind == "score":
            found.append(0.5)
        elif kind == "abstain":
            found.append(None)
        else:
            found.append(failure(FailureKind(kind), "it is so", Blame(blame)))
    return found


@reward(auto_register=False, value_range=(0.0, 1.0))
def exact(response: str, ground_truth: str | None = None) -> Score:
    """The response is the truth; with components."""
    right = response == ground_truth
    return Score(
        value=float(right),
        components={"correct": float(right), "tidy": 0.25, "gone": None},
        metrics={"length": float(len(response)), "expected_answer": 7.0},
    )


SEEN: list[Sample] = []


@reward(auto_register=False, scope="batch")
def seen(samples: list[Sample]) -> list[float]:
    """What a reward sees."""
    SEEN.extend(samples)
    return [float(len(SEEN))] * len(samples)


def inline(**rewards: Any) -> dict[str, Any]:
    once = {"inline": True, "retry": {"attempts": 1}}
    return {name: {"reward": one, **once} for name, one in rewards.items()}
