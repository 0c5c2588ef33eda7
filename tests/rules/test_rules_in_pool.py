"""Rules with a deadline, run as they are meant to: a hang costs its own sample and nothing else."""

import pytest

from guerdon.outcome import Failure, Score
from guerdon.policy import Policy
from guerdon.reward import BaseReward
from guerdon.rules.competition import BoxedMath, Geometry3k, PrimeMath
from guerdon.rules.json_form import JsonSchema
from guerdon.rules.pattern import Regex
from guerdon.rules.trajectory import Trajectory
from guerdon.sample import Sample
from guerdon.service import RewardService

HANGS = "(a+)+$"
POISON = "a" * 64 + "!"


def service_for(rule: BaseReward) -> RewardService:
    policy = Policy(on={"candidate": "assign"})
    return RewardService(rule, backend={"pool": {"workers": 2}}, policy=policy)


@pytest.mark.parametrize(
    ("rule", "poison", "right", "wrong"),
    [
        (Regex(HANGS).configure(deadline=0.5), POISON, "aaa", "b"),
        (
            JsonSchema({"type": "string", "pattern": f"^{HANGS}"}).configure(deadline=1.0),
            f'"{POISON}"',
            '"aaa"',
            '"b"',
        ),
        (
            Trajectory(Regex(HANGS).configure(deadline=0.5), aggregate="mean"),
            POISON,
            "aaa",
            "b",
        ),
    ],
    ids=["regex", "json_schema", "trajectory"],
)
def test_a_hang_is_the_candidates_fault_and_costs_nobody_else(
    rule: BaseReward, poison: str, right: str, wrong: str
) -> None:
    texts = [right, poison, wrong, right]
    samples = [Sample(response=text, sample_id=str(i)) for i, text in enumerate(texts)]
    with service_for(rule) as service:
        outcomes = service.score_sync(samples)
    hang = outcomes[1]
    assert isinstance(hang, Failure)
    assert (hang.kind, hang.blame, hang.sample) == ("timeout", "candidate", "1")
    others = [outcomes[index] for index in (0, 2, 3)]
    assert [isinstance(other, Score) and other.value for other in others] == [1.0, 0.0, 1.0]


def test_graders_give_in_the_pool_what_they_give_here() -> None:
    pairs = [
        (r"\boxed{x+1}", "1+x"), (r"\boxed{50}", "0.5"), (r"\boxed{10^{10^{10}}}", "5"),
        (r"\boxed{9**9**9**9}", "5"), ("", "5"), (r"\boxed{\frac{\pi}{2}}", r"\pi/2"),
    ]  # fmt: skip
    # The towers are refused by the compat modes, which is why they can be graded in this process.
    for rule in (PrimeMath(compat=True), Geometry3k(compat="verl"), BoxedMath(compat=True)):
        here = [
            float(rule.call_sync(response=response, ground_truth=truth))
            for response, truth in pairs
        ]
        samples = [
            Sample(response=response, ground_truth=truth, sample_id=str(i))
            for i, (response, truth) in enumerate(pairs)
        ]
        with service_for(rule) as service:
            assert service.score_sync(samples).values.tolist() == here


def test_a_tower_of_powers_ends_at_the_deadline() -> None:
    answers = [r"\boxed{10^{10^{10}}}", r"\boxed{5}"]
    samples = [
        Sample(response=answer, ground_truth="5", sample_id=str(i))
        for i, answer in enumerate(answers)
    ]
    with service_for(PrimeMath().configure(deadline=1.0)) as service:
        outcomes = service.score_sync(samples)
    tower = outcomes[0]
    if isinstance(tower, Failure):
        assert (tower.kind, tower.blame) == ("timeout", "candidate")
    else:
        assert isinstance(tower, Score)
        assert tower.value == 0.0
    assert isinstance(outcomes[1], Score)
    assert outcomes[1].value == 1.0
