"""AReaL's own wrapper, workflows and training loop with our functions (AReaL 1.0.4, in its own
environment)."""

from pathlib import Path

import pytest

from guerdon.registry import load_file

PARITY = Path(__file__).with_name("parity")
cases = load_file(str(PARITY / "cases.py"))
rewards = load_file(str(PARITY / "rewards.py"))
interpreter = load_file(str(PARITY / "interpreter.py"))

FAULTS = [*cases.FAULTS, "abstention"]


@pytest.fixture(scope="module")
def seen(tmp_path_factory, parity_server):
    folder = tmp_path_factory.mktemp("areal")
    return interpreter.drive("areal", folder, None, parity_server)


def expected(name):
    if name == "tiny_model":
        return [rewards.tiny_model.call_sync(responses=[row.response])[0] for row in cases.ROWS]
    return [cases.REWARDS[name](row) for row in cases.ROWS]


@pytest.mark.parametrize("way", ["pool", "wrapped", "awaited", "workers", "remote"])
@pytest.mark.parametrize("name", cases.REWARDS)
def test_the_workflow_gets_the_value(seen, way, name):
    found = [row[0] for row in seen["values"][f"{way} {name}"]]
    assert found == pytest.approx(expected(name), abs=1e-7)  # tensors of float32


def test_components_are_in_the_statistics(seen):
    statistics = seen["values"]["statistics composite"]
    tidy = [float(r.response == r.response.strip()) for r in cases.ROWS if r.judge == "up"]
    assert statistics["rollout/component/tidy"] == pytest.approx(sum(tidy) / len(tidy))
    assert statistics["rollout/component/tidy__count"] == len(tidy)
    assert statistics["rollout/guerdon_failed"] == statistics["rollout/guerdon_assigned"] == 0.0


@pytest.mark.parametrize("way", ["positional", "by name"])
def test_the_wrapper_calls_both_ways_and_gets_a_float(seen, way):
    assert seen["calls"][way] == ["float", 1.0]  # an int loses the trajectory of an agent


@pytest.mark.parametrize("way", ["vision", "vision awaited"])
def test_the_vision_workflow_calls_by_name(seen, way):
    assert seen["calls"][way] == 1.0


@pytest.mark.parametrize("dataset", ["gsm8k", "geometry3k", "clevr_count_70k"])
def test_functions_of_datasets_by_their_path(seen, dataset):
    assert seen["calls"][dataset] == ["float", 1.0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("no answer", "ScoringFailed: 1 of 1 samples failed"),
        ("missing", "needs 'completion_ids'"),
        ("async in the pool", "TypeError: cannot pickle 'coroutine' object"),  # AReaL's own trap
    ],
)
def test_what_cannot_be_scored_raises_through_the_wrapper(seen, call, message):
    assert message in seen["calls"][call]


def test_its_wrapper_awaits_our_functions_and_no_others(seen):
    assert seen["calls"]["async in the wrapper"] == ["float", 1.0]
    assert seen["calls"]["sync in the pool"] == ["float", 1.0]
    _, process = seen["calls"]["someone else's"]
    assert process != seen["process"]


def test_a_workflow_of_several_turns(seen):
    # Wrong in the first turn, right in the second, which is discounted.
    assert seen["turns"] == {"rewards": [0.5], "turns": 2}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_failure_rejects_its_own_episode(seen, fault):
    whole, found, other = seen["failing"][f"{fault} awaited"]
    assert whole == other == [1.0]
    if fault == "abstention":
        assert "name one with neutral=" in found
    else:
        kind, blame = cases.FAULTS[fault]
        assert f"faulty: {kind} ({blame})" in found


@pytest.mark.parametrize("fault", FAULTS)
def test_the_neutral_number_is_counted(seen, fault):
    assert seen["failing"][f"{fault} neutral"] == [[1.0], [0.125], [1.0]]
    statistics = seen["failing"][f"{fault} statistics"]
    assert statistics["rollout/guerdon_assigned"] == pytest.approx(1 / 3)
    failed = 0.0 if fault == "abstention" else 1 / 3
    assert statistics["rollout/guerdon_failed"] == pytest.approx(failed)


@pytest.mark.parametrize("way", ["wrapped", "pool"])
@pytest.mark.parametrize("fault", ["raised", "bad_input", "unavailable", "abstention"])
def test_a_failure_raises_through_the_wrapper_and_in_its_pool(seen, fault, way):
    whole, found, other = seen["failing"][f"{fault} {way}"]
    assert whole == other == [1.0]
    assert found.startswith("ScoringFailed")


def test_a_slow_reward_fails_before_areal_makes_it_zero(seen):
    assert "timeout (infrastructure)" in seen["failing"]["slow pool"]


def test_what_areal_makes_zero_fails_where_its_wrapper_awaits(seen):
    assert seen["failing"]["slow trap"] == ["int", 0]  # AReaL alone, with the same patience
    assert "timeout (infrastructure)" in seen["failing"]["slow"]


LENGTHS = [[0.5 + len("4"), 0.5 + len("four")], [0.5 + len("a longer answer")]]
"""The length of each response, beside the workflow's own 0.5."""


@pytest.mark.parametrize("rollout", ["offloads", "stays"])
def test_every_engine_of_a_step_sees_the_scores(seen, rollout):
    calls = [event for event in seen["loop"][rollout] if isinstance(event, list)]
    assert calls == [["ref.compute_logp", LENGTHS], ["actor.compute_advantages", LENGTHS]]
    assert set(seen["loop"]["dtype"]) == {"torch.float32"}


def test_the_model_has_the_device_when_no_engine_has(seen):
    events = seen["loop"]["model"]
    once = [event for at, event in enumerate(events) if event != events[at - 1]]
    assert once[once.index("rollout.offload") :] == [
        "rollout.offload",
        "model.onload",
        "model.offload",
        "ref.onload",
        "ref.compute_logp host",
        "ref.offload",
        "actor.onload",
        "actor.compute_advantages host",
        "end",
    ]
    assert len({value for group in seen["loop"]["model values"] for value in group}) == 3
