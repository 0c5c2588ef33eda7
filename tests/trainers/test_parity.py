"""One reward, one value: through every trainer's adapter, inline, in a pool and over HTTP."""

import asyncio
import json
from pathlib import Path

import pytest

from guerdon.errors import FailureKind, ScoringFailed, UnknownReward
from guerdon.registry import load_file, resolve

PARITY = Path(__file__).with_name("parity")
cases = load_file(str(PARITY / "cases.py"))
adapter_terms = load_file(str(PARITY / "adapter.py"))
rewards = load_file(str(PARITY / "rewards.py"))


def adapter(name):
    try:
        return load_file(str(PARITY / f"{name}_adapter.py"))
    except UnknownReward as error:
        if isinstance(error.__cause__, pytest.skip.Exception):  # a library that it needs is absent
            raise error.__cause__ from None
        raise


def reward_for(name):
    return rewards.RULE if name == "rule" else cases.reference(name)


@pytest.fixture(params=["inline", "pool", "remote"])
def place(request, pool):
    """Where a reward runs: from its name to what an adapter is given, a reward and a backend."""
    if request.param == "remote":
        remote = request.getfixturevalue("remote")
        return lambda name: (remote(name), None)
    return lambda name: (reward_for(name), pool if request.param == "pool" else "inline")


@pytest.mark.parametrize("trainer", cases.ADAPTERS)
@pytest.mark.parametrize("name", cases.REWARDS)
async def test_values_agree(name, trainer, place):
    reward, backend = place(name)
    seen = await adapter(trainer).score(reward, cases.ROWS, backend)
    expected = cases.REWARDS[name]
    for row, found in zip(cases.ROWS, seen, strict=True):
        value = (
            expected(row)
            if expected is not None
            else rewards.tiny_model.call_sync(responses=[row.response])[0]
        )
        assert found[:3] == (value, False, "score"), (row.name, found)


@pytest.mark.parametrize("trainer", cases.ADAPTERS)
async def test_components_agree(trainer, place):
    reward, backend = place("composite")
    seen = await adapter(trainer).score(reward, cases.ROWS, backend)
    assert [found.components for found in seen] == [
        {
            "correct": row.rule,
            "tidy": None if row.judge == "down" else float(row.response == row.response.strip()),
        }
        for row in cases.ROWS
    ]


@pytest.fixture(params=["pool", "remote"])
def where(request):
    """Places where a reward that hangs or crashes can be ended."""
    return request.param


@pytest.fixture(scope="module")
def failing(request, pool):
    """What becomes of every fault, by trainer and place.

    The faults of one trainer are scored at once, so that the deadlines pass at the same time. Those
    that end a worker are real once; to a trainer that is to raise, the reward only says them, as
    a new worker for each would be most of the time of these tests.
    """
    known = {}

    async def rows_of(trainer, where):
        if (trainer, where) not in known:
            remote = request.getfixturevalue("remote")
            calls = {}
            for ask, name, faults in ASKED:
                ask_for = getattr(adapter(trainer), ask)
                for fault in faults:
                    rows = cases.rows_with(fault)
                    key = ask, name, fault
                    calls["pool", *key] = ask_for(cases.reference(name), rows, pool)
                    calls["remote", *key] = ask_for(remote(name), rows, None)
            seen = await asyncio.gather(*calls.values())
            for (place, *key), found in zip(calls, seen, strict=True):
                known.setdefault((trainer, place), {})[tuple(key)] = found
        return known[trainer, where]

    return rows_of


ASKED = (
    # how the trainer is asked to go on, the reward, its faults
    ("score_on", "faulty", (*cases.FAULTS, "abstention")),
    ("score", "faulty", (*map(cases.told, cases.FAULTS), "abstention")),
    ("score", "candidate_faulty", cases.CANDIDATE_FAULTS),
)


def test_every_kind_of_failure_has_a_fault():
    assert {kind for kind, _ in cases.FAULTS.values()} == set(FailureKind)


@pytest.mark.parametrize("trainer", cases.ADAPTERS)
@pytest.mark.parametrize("fault", cases.FAULTS)
async def test_a_failure_is_never_a_silent_number(fault, trainer, where, failing):
    kind, blame = cases.FAULTS[fault]
    whole, found, other = (await failing(trainer, where))["score_on", "faulty", fault]
    assert whole[:3] == other[:3] == (1.0, False, "score")
    assert (found.kind, found.text) == ("failure", f"{kind} ({blame})")
    if adapter(trainer).MASKS:
        assert (found.number, found.assigned) == (None, False)
    else:
        assert (found.number, found.assigned) == (adapter_terms.NEUTRAL, True)


@pytest.mark.parametrize("trainer", cases.ADAPTERS)
@pytest.mark.parametrize("fault", cases.FAULTS)
async def test_a_failure_raises_unless_the_user_says_otherwise(fault, trainer, where, failing):
    kind, blame = cases.FAULTS[fault]
    seen = (await failing(trainer, where))["score", "faulty", cases.told(fault)]
    assert isinstance(seen[1], ScoringFailed)
    assert f"faulty: {kind} ({blame})" in str(seen[1])
    for neighbour in (seen[0], seen[2]):
        assert neighbour is seen[1] or neighbour[:3] == (1.0, False, "score")


@pytest.mark.parametrize("trainer", cases.ADAPTERS)
@pytest.mark.parametrize("fault", cases.CANDIDATE_FAULTS)
async def test_what_a_candidate_causes_earns_the_worst_end_flagged(fault, trainer, where, failing):
    seen = (await failing(trainer, where))["score", "candidate_faulty", fault]
    assert seen[1][:4] == (0.0, True, "failure", f"{fault} (candidate)")
    assert seen[0][:3] == seen[2][:3] == (1.0, False, "score")


@pytest.mark.parametrize("trainer", cases.ADAPTERS)
async def test_an_abstention_is_no_number_either(trainer, where, failing):
    found = await failing(trainer, where)
    went_on = found["score_on", "faulty", "abstention"]
    seen = found["score", "faulty", "abstention"]
    if adapter(trainer).MASKS:
        assert went_on[1][:3] == seen[1][:3] == (None, False, "abstention")
    else:
        assert went_on[1][:3] == (adapter_terms.NEUTRAL, True, "abstention")
        assert isinstance(seen[1], ScoringFailed)
    assert went_on[0].number == went_on[2].number == 1.0


@pytest.mark.parametrize("trainer", cases.ADAPTERS)
async def test_real_rollouts_agree_with_their_labels(trainer, shared_data):
    lines = (shared_data / "gsm8k_rollouts.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    rows = [
        cases.Row(r["sample_id"], r["prompt"], r["response"], r["ground_truth"], 0.0, 0.0)
        for r in records
    ]
    seen = await adapter(trainer).score(rewards.RULE, rows, "inline")
    assert [found.number for found in seen] == [float(record["label"]) for record in records]


def test_the_rewards_are_those_that_a_configuration_names():
    assert resolve(cases.reference("composite")) is rewards.composite
