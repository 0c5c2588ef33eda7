"""The summary against numpy, in any order of the rows."""

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guerdon.rollouts.summary import EXAMPLES, SLOWEST, Moments, Summary

finite = st.floats(-1e6, 1e6)


def row(n, reward=None, **fields):
    return {
        "row": n,
        "sample_id": f"s{n}",
        "group_id": None,
        "reward": reward,
        "components": {},
        "failure": None,
        "assigned": None,
        "elapsed_s": 0.0,
        "reward_name": "r",
        **fields,
    }


def report_of(rows):
    summary = Summary()
    for one in rows:
        summary.add(one)
    return summary.report()


@given(st.lists(finite, min_size=1, max_size=50))
def test_moments_agree_with_numpy(numbers):
    moments = Moments()
    for number in numbers:
        moments.add(number)
    stats = moments.stats()
    scale = max(map(abs, numbers)) + 1.0
    assert stats.count == len(numbers)
    assert stats.mean == pytest.approx(np.mean(numbers), abs=1e-12 * scale)
    assert stats.std == pytest.approx(np.std(numbers), abs=1e-7 * scale)
    assert (stats.min, stats.max) == (min(numbers), max(numbers))


def test_the_deviation_survives_a_large_mean():
    moments = Moments()
    for number in (1e9, 1e9 + 1, 1e9 + 2):
        moments.add(number)
    assert moments.stats().std == pytest.approx(math.sqrt(2 / 3))


@given(
    st.lists(st.tuples(st.integers(0, 5), st.sampled_from([0.0, 1.0, None])), max_size=40),
    st.randoms(),
)
def test_zero_variance_groups(scored, rng):
    rows = [row(n, value, group_id=f"g{group}") for n, (group, value) in enumerate(scored)]
    rng.shuffle(rows)
    groups = {}
    for group, value in scored:
        if value is not None:
            groups.setdefault(group, []).append(value)
    compared = [values for values in groups.values() if len(values) > 1]
    equal = [values for values in compared if len(set(values)) == 1]
    found = report_of(rows).groups
    if not groups:
        assert found is None
    else:
        assert (found.count, found.compared, found.zero_variance) == (
            len(groups),
            len(compared),
            len(equal),
        )
        assert found.zero_variance_share == (len(equal) / len(compared) if compared else None)


def test_assigned_numbers_and_failures_are_never_part_of_the_mean():
    failure = {"kind": "timeout", "blame": "candidate", "message": "too slow", "retryable": False}
    rows = [
        row(0, 1.0, group_id="g"),
        row(1, 1.0, group_id="g"),
        row(2, failure=failure, assigned=0.0, group_id="g"),
        row(3),
    ]
    report = report_of(rows)
    assert (report.rows, report.scores, report.failures, report.abstentions) == (4, 2, 1, 1)
    assert (report.assigned, report.reward.count, report.reward.mean) == (1, 2, 1.0)
    assert report.groups.zero_variance == 1


def test_failures_are_counted_by_kind_and_blame_with_the_first_of_each():
    def lost(n, kind, blame):
        message = f"message {n} " + "x" * 1000
        return row(
            n, failure={"kind": kind, "blame": blame, "message": message, "retryable": False}
        )

    kinds = [("raised", "scorer"), ("bad_input", "data"), ("raised", "scorer")]
    failed = report_of([lost(n, *kind) for n, kind in enumerate(kinds)]).failed
    assert [(f.kind, f.blame, f.count, [e.row for e in f.examples]) for f in failed] == [
        ("raised", "scorer", 2, [0, 2]),
        ("bad_input", "data", 1, [1]),
    ]
    assert failed[0].examples[0].message.startswith("message 0")
    assert len(failed[0].examples[0].message) < 400


def test_equal_messages_are_quoted_once_and_few_of_many():
    def lost(n, message):
        failure = {"kind": "raised", "blame": "scorer", "message": message, "retryable": False}
        return row(n, failure=failure)

    (same,) = report_of([lost(n, "oops") for n in range(50)]).failed
    assert (same.count, len(same.examples)) == (50, 1)
    (many,) = report_of([lost(n, f"oops {n}") for n in range(50)]).failed
    assert (many.count, [e.row for e in many.examples]) == (50, list(range(EXAMPLES)))


def test_components_with_gaps_have_their_own_counts():
    rows = [row(0, 1.0, components={"a": 1.0, "b": None}), row(1, 0.0, components={"a": 0.0})]
    components = report_of(rows).components
    assert list(components) == ["a"]
    assert (components["a"].count, components["a"].mean) == (2, 0.5)


def test_several_rewards_are_told_apart():
    rows = [row(0, 1.0, reward_name="x"), row(1, 0.0, reward_name="y"), row(2, 1.0)]
    rewards = report_of(rows).rewards
    assert {name: stats.mean for name, stats in rewards.items()} == {"x": 1.0, "y": 0.0, "r": 1.0}
    assert report_of(rows[:1]).rewards == {}


def test_the_slowest_rows_in_any_order():
    rows = [row(n, 1.0, elapsed_s=n % 10 / 10) for n in range(30)]
    random.Random(1).shuffle(rows)
    slowest = report_of(rows).slowest
    assert [s.elapsed_s for s in slowest] == sorted((r["elapsed_s"] for r in rows), reverse=True)[
        :SLOWEST
    ]


def test_no_rows():
    report = report_of([])
    assert (report.rows, report.reward.mean, report.groups) == (0, None, None)
