"""Runs: order, what is written when one is cut short, policies, routes."""

import asyncio
import json

import pytest

from guerdon import registry
from guerdon.errors import CircuitOpen
from guerdon.reward import reward
from guerdon.rollouts.misuse import Misuse
from guerdon.rollouts.outcome_row import Item
from guerdon.rollouts.scorer import Conditions, RewardScorer, Stopped, open_scorer
from guerdon.rollouts.scoring import run
from guerdon.sample import Sample

REWARDS = """
from guerdon.errors import BadInput, RewardFailure
from guerdon.reward import reward

@reward(value_range=(0.0, 1.0), auto_register=False, candidate_fault=("timeout",))
def judge(response):
    if response == "data":
        raise BadInput("unusable")
    if response == "bug":
        raise KeyError("oops")
    if response == "looped":
        raise RewardFailure("looped", kind="timeout", blame="candidate")
    if response == "skip":
        return None
    return {"score": 1.0, "n": len(response), "why": "because", "components": {"a": 0.5}}

@reward(scope="group", auto_register=False)
def share(samples):
    longest = max(len(sample.response) for sample in samples)
    return [len(sample.response) / longest for sample in samples]
"""


@pytest.fixture
def rewards(tmp_path):
    path = tmp_path / "rewards.py"
    path.write_text(REWARDS)
    return str(path)


def items_of(*responses, **fields):
    return [
        Item(row=n, place=f"line {n + 1}", digest=f"{n:016x}", sample=sample, sample_id=None)
        for n, sample in enumerate(Sample(response=text, **fields) for text in responses)
    ]


def scored(reference, items, **conditions):
    scorer = open_scorer(reference, [], Conditions(**conditions))
    try:
        return asyncio.run(scorer.score(items)), scorer
    finally:
        scorer.close()


def test_the_output_row_has_everything(rewards):
    rows, scorer = scored(f"{rewards}:judge", items_of("good"))
    (row,) = rows
    assert row.pop("elapsed_s") >= 0.0
    assert row == {
        "row": 0,
        "sample_id": None,
        "group_id": None,
        "reward": 1.0,
        "outcome": "score",
        "components": {"a": 0.5},
        "metrics": {"n": 4.0},
        "info": {"why": "because"},
        "failure": None,
        "assigned": None,
        "reward_name": "judge",
        "fingerprint": scorer.fingerprint,
        "input_digest": "0" * 16,
    }


def test_failures_never_stop_the_others_and_are_never_numbers(rewards):
    items = items_of("good", "data", "bug", "looped", "skip", "good")
    items.insert(3, Item(row=9, place="line 10", digest="0" * 16, problem="torn"))
    rows, _ = scored(f"{rewards}:judge", items)
    assert [row["outcome"] for row in rows] == [
        "score",
        "failure",
        "failure",
        "failure",
        "failure",
        "abstention",
        "score",
    ]
    assert [row["reward"] for row in rows] == [1.0, None, None, None, None, None, 1.0]
    assert [row["assigned"] for row in rows] == [None, None, None, None, 0.0, None, None]
    blames = [row["failure"]["blame"] for row in rows if row["failure"]]
    assert blames == ["data", "scorer", "data", "candidate"]
    assert rows[3]["failure"]["message"] == "line 10: torn"
    assert rows[5]["reason"]


@pytest.mark.parametrize(
    ("on_failure", "expected"), [(None, True), ("raise", True), ("mask", False)]
)
def test_which_failures_are_an_error(rewards, on_failure, expected):
    scorer = open_scorer(f"{rewards}:judge", [], Conditions(on_failure=on_failure))
    assert scorer.raises("scorer") is expected
    assert scorer.raises("data") is expected
    assert scorer.raises("candidate") is False


CONFIG = """
reward: {{name: "{rewards}:judge"}}
policy:
  train: {{on: {{data: mask, scorer: drop_group}}}}
  validation: {{on: {{data: {{assign: 0.25}}}}}}
"""


def configured(tmp_path, rewards, text=CONFIG):
    path = tmp_path / "service.yaml"
    path.write_text(text.format(rewards=rewards))
    return str(path)


def test_the_policy_of_a_configuration_holds(tmp_path, rewards):
    path = configured(tmp_path, rewards)
    items = items_of("good", "data", "bug", group_id="g")
    rows, scorer = scored(path, items)
    assert [row.get("dropped", False) for row in rows] == [True, True, True]
    assert not scorer.raises("data")
    assert scorer.raises("infrastructure")
    rows, scorer = scored(path, items, split="validation")
    assert [row["assigned"] for row in rows] == [None, 0.25, None]
    assert scorer.raises("scorer")
    assert not scored(path, items, split="validation", on_failure="mask")[1].raises("scorer")
    with pytest.raises(Misuse, match="no policy for --split test"):
        scored(path, items, split="test")


def test_dropping_groups_needs_them_whole(tmp_path, rewards):
    assert open_scorer(configured(tmp_path, rewards), [], Conditions()).whole_groups
    validation = Conditions(split="validation")
    assert not open_scorer(configured(tmp_path, rewards), [], validation).whole_groups


def test_abstentions_can_be_an_error(tmp_path, rewards):
    text = CONFIG.split("policy:")[0] + "policy: {{abstention: raise}}\n"
    path = configured(tmp_path, rewards, text)
    rows, scorer = scored(path, items_of("skip"))
    assert rows[0]["outcome"] == "abstention"
    assert scorer.raises(None)
    assert not open_scorer(path, [], Conditions(on_failure="mask")).raises(None)
    assert not open_scorer(f"{rewards}:judge", [], Conditions()).raises(None)


def test_a_used_up_budget_stops_the_run_after_writing(tmp_path, rewards):
    text = CONFIG.split("policy:")[0] + "policy: {{budget: {{share: 0.1}}}}\n"
    path = configured(tmp_path, rewards, text)
    scorer = open_scorer(path, [], Conditions())
    written = []
    batches = iter([items_of("good"), items_of("bug", "looped"), items_of("good")])
    with pytest.raises(Stopped, match="more than the budget"):
        asyncio.run(run(batches, scorer, written.extend))
    assert [row["reward"] for row in written][:3] == [1.0, None, None]
    assert written[2]["assigned"] == 0.0


def test_an_open_breaker_stops_the_run(tmp_path, rewards):
    text = CONFIG.split("policy:")[0] + "policy: {{breaker: {{share: 0.5, window: 2}}}}\n"
    scorer = open_scorer(configured(tmp_path, rewards, text), [], Conditions())
    written = []
    batches = iter([items_of("good", "good"), items_of("bug", "bug"), items_of("good")])
    with pytest.raises(CircuitOpen):
        asyncio.run(run(batches, scorer, written.extend))
    assert [row["reward"] for row in written] == [1.0, 1.0]


def test_rows_are_written_in_the_order_of_the_batches():
    finished = []

    class Backwards:
        waits = True

        async def score(self, batch):
            await asyncio.sleep(0.002 * (4 - batch[0] % 4))
            finished.append(batch[0])
            return [{"row": batch[0]}]

    written = []
    asyncio.run(run(iter([[n] for n in range(8)]), Backwards(), written.extend))
    assert [row["row"] for row in written] == list(range(8))
    assert finished != sorted(finished)


def test_what_was_scored_is_written_when_the_run_is_cancelled():
    started = asyncio.Event()

    class Hanging:
        waits = True

        async def score(self, batch):
            if batch[0] == 2:
                started.set()
                await asyncio.Event().wait()
            return [{"row": batch[0]}]

    written = []

    async def cut_short():
        task = asyncio.create_task(run(iter([[n] for n in range(4)]), Hanging(), written.extend))
        await started.wait()
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cut_short())
    assert {0, 1} <= {row["row"] for row in written} <= {0, 1, 3}


def test_an_error_of_the_reader_ends_the_run_with_what_was_scored():
    class Plain:
        waits = False

        async def score(self, batch):
            return [{"row": batch[0]}]

    def batches():
        yield [0]
        raise Misuse("the input has changed")

    written = []
    with pytest.raises(Misuse, match="has changed"):
        asyncio.run(run(batches(), Plain(), written.extend))
    assert written == [{"row": 0}]


def test_group_rewards_ask_for_whole_groups(rewards):
    assert open_scorer(f"{rewards}:share", [], Conditions()).whole_groups
    assert not open_scorer(f"{rewards}:judge", [], Conditions()).whole_groups


def test_a_group_reward_inside_a_composition_asks_for_whole_groups(tmp_path, rewards):
    text = 'reward:\n  weighted_sum: {{a: "{rewards}:judge", b: "{rewards}:share"}}\n'
    assert open_scorer(configured(tmp_path, rewards, text), [], Conditions()).whole_groups


@pytest.fixture
def routes(rewards):
    before = registry.routes()
    registry.route("test-judged/*", f"{rewards}:judge")
    registry.route("test-shared", f"{rewards}:share")
    yield
    for pattern in ("test-judged/*", "test-shared"):
        if pattern not in before:
            registry._routes.pop(pattern, None)


def test_auto_chooses_by_data_source(routes):
    items = [
        *items_of("good", data_source="test-judged/a"),
        *items_of("good", data_source="nowhere"),
        *items_of("good"),
        Item(row=4, place="line 5", digest="0" * 16, problem="torn"),
    ]
    for n, item in enumerate(items):
        item.row = n
    scorer = open_scorer("auto", ["test-judged/a", "nowhere"], Conditions())
    rows = asyncio.run(scorer.score(items))
    assert [row["reward_name"] for row in rows] == ["judge", "auto", "auto", "auto"]
    assert [row["reward"] for row in rows] == [1.0, None, None, None]
    assert "no reward is routed for data source 'nowhere'" in rows[1]["failure"]["message"]
    assert "no data_source" in rows[2]["failure"]["message"]
    assert not scorer.whole_groups


def test_auto_knows_group_rewards_from_the_first_rows_or_refuses_them(routes):
    assert open_scorer("auto", ["test-shared"], Conditions()).whole_groups
    scorer = open_scorer("auto", ["test-judged/a"], Conditions())
    with pytest.raises(Misuse, match="needs whole groups"):
        asyncio.run(scorer.score(items_of("x", data_source="test-shared", group_id="g")))


def test_auto_without_any_route_lists_the_routes(routes):
    with pytest.raises(Misuse, match=r"test-judged/\*"):
        open_scorer("auto", ["nowhere"], Conditions())


def test_auto_refuses_rows_of_another_version(routes):
    scorer = open_scorer("auto", ["test-judged/a"], Conditions())
    own = json.loads(json.dumps(next(iter(scorer._scorers.values())).fingerprint))
    assert scorer.accepts("judge", own)
    assert not scorer.accepts("judge", "0" * 16)
    assert scorer.accepts("not known yet", "0" * 16)


def test_workers_bound_the_calls_in_flight():
    most = [0, 0]

    @reward(auto_register=False)
    async def waits(response):
        most[0] += 1
        most[1] = max(most)
        await asyncio.sleep(0.001)
        most[0] -= 1
        return 1.0

    from guerdon.policy import Policy
    from guerdon.rollouts.scorer import _reward_scorer

    scorer = _reward_scorer(waits, Policy(), Conditions(workers=3))
    assert isinstance(scorer, RewardScorer)
    assert scorer.waits
    rows = asyncio.run(scorer.score(items_of(*"abcdefghijkl")))
    scorer.close()
    assert [row["reward"] for row in rows] == [1.0] * 12
    assert most[1] == 3


def test_an_unknown_name_points_to_the_list():
    with pytest.raises(Misuse, match="'guerdon rewards' lists the names"):
        open_scorer("no_such_reward", [], Conditions())
    with pytest.raises(Misuse, match="no such file"):
        open_scorer("nowhere.yaml", [], Conditions())


def with_a_broken_member(*responses, group_id="g"):
    """Items of one group, the second of which is no sample."""
    items = items_of(*responses, group_id=group_id)
    items[1].sample, items[1].problem = None, "the column 'response' is null"
    for item in items:
        item.group_id = group_id
    return items


def test_a_broken_member_fails_its_group_where_members_are_compared(rewards):
    items = [*with_a_broken_member("a", "?", "bb"), *items_of("c", group_id="other")]
    rows, _ = scored(f"{rewards}:share", items)
    assert [row["reward"] for row in rows] == [None, None, None, 1.0]
    assert rows[1]["failure"]["message"] == "line 2: the column 'response' is null"
    assert rows[0]["failure"]["message"] == "entry 1 of its group: " + rows[1]["failure"]["message"]
    rows, _ = scored(f"{rewards}:judge", with_a_broken_member("a", "?", "bb"))
    assert [row["reward"] for row in rows] == [1.0, None, 1.0]


def test_the_policy_holds_for_rows_that_are_no_samples(rewards, tmp_path):
    for action, expected in (
        ("drop_group", (None, [True, True, True])),
        ("assign", (0.0, [None, None, None])),
    ):
        config = tmp_path / f"{action}.yaml"
        config.write_text(f"reward: {rewards}:judge\npolicy:\n  on: {{data: {action}}}\n")
        rows, _ = scored(str(config), with_a_broken_member("a", "?", "bb"))
        assert (rows[1]["assigned"], [row.get("dropped") for row in rows]) == expected


def test_auto_scores_a_broken_row_where_its_group_is_scored(routes):
    items = with_a_broken_member("a", "?", "bb")
    for item in (items[0], items[2]):
        item.sample = Sample(response=item.sample.response, data_source="test-shared", group_id="g")
    scorer = open_scorer("auto", ["test-shared"], Conditions())
    rows = asyncio.run(scorer.score(items))
    assert [row["reward"] for row in rows] == [None, None, None]
    assert {row["reward_name"] for row in rows} == {"share"}
