"""TRL's reward functions: the call, None, groups, columns, logs. TRL itself: contract test."""

import asyncio
import inspect
import pickle
import threading
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from guerdon.compose import Child, WeightedSum
from guerdon.errors import BadInput, ConfigError, ScoringFailed
from guerdon.policy import NO_RETRY, Policy
from guerdon.registry import load_file
from guerdon.reward import BaseReward, reward
from guerdon.service import RewardService
from guerdon.trainers.trl import reward_function
from guerdon.trainers.trl_rows import check_size, groups_of_size

PARITY = Path(__file__).with_name("parity")
cases = load_file(str(PARITY / "cases.py"))
RULE = "guerdon.rules.gsm8k:gsm8k"
COMPOSITE = cases.reference("composite")
MASKED = Policy(retry=NO_RETRY, on={"data": "mask", "scorer": "mask", "infrastructure": "mask"})


class Sink:
    """The trainer behind `log_extra` and `log_metric`."""

    def __init__(self, *reward_funcs):
        self.reward_funcs = list(reward_funcs)
        self.columns = {}
        self.metrics = {}

    def log_extra(self, column, values):
        self.columns.setdefault(column, []).extend(values)

    def log_metric(self, name, value):
        self.metrics.setdefault(name, []).append(value)

    def call(self, function, completions, prompts=None, step=0, **columns):
        arguments = {
            "prompts": ["p"] * len(completions) if prompts is None else prompts,
            "completions": completions,
            "completion_ids": [[1, 2]] * len(completions),
            "trainer_state": SimpleNamespace(global_step=step),
            "log_extra": self.log_extra,
            "log_metric": self.log_metric,
            **columns,
        }
        if inspect.iscoroutinefunction(function):
            return asyncio.run(function(**arguments))
        return function(**arguments)


class Seen(BaseReward):
    """Keeps the samples it gets."""

    name = "seen"
    auto_register = False

    def __init__(self):
        self.samples = []

    def call(self, *, sample, step) -> float:
        self.samples.append((sample, step))
        return 1.0


def seen_by(completions, **columns):
    kept = Seen()
    settings = columns.pop("settings", {})
    assert Sink().call(reward_function(kept, **settings), completions, **columns) == [1.0] * len(
        completions
    )
    return [sample for sample, _ in kept.samples]


# --- the form that TRL looks at


def test_async_is_seen_by_every_way_of_asking():
    """An object whose `__call__` is async passes for sync in TRL before 1.16."""
    function = reward_function(RULE)
    assert inspect.iscoroutinefunction(function)
    assert inspect.iscoroutinefunction(partial(function, timeout=1))
    assert asyncio.iscoroutinefunction(function)
    assert inspect.iscoroutinefunction(function.__call__)
    sync = reward_function(RULE, sync=True)
    assert not inspect.iscoroutinefunction(sync)
    assert not inspect.iscoroutinefunction(sync.__call__)


@pytest.mark.parametrize("sync", [False, True])
def test_names_and_signature(sync):
    assert reward_function(RULE, sync=sync).__name__ == "gsm8k"
    assert reward_function(RULE, sync=sync, name="math").__name__ == "math"
    assert list(inspect.signature(reward_function(RULE, sync=sync)).parameters)[:3] == [
        "prompts",
        "completions",
        "completion_ids",
    ]


@pytest.mark.parametrize("sync", [False, True])
@pytest.mark.parametrize("named", [RULE, COMPOSITE, {"reward": RULE}])
def test_pickle(named, sync):
    """Async GRPO sends the functions to a spawned child."""
    function = reward_function(named, sync=sync, name="n", policy=MASKED, num_generations=2)
    Sink().call(function, ["#### 4", "#### 5"], answer=["4", "4"])  # its service is running
    copy = pickle.loads(pickle.dumps(function))
    assert (type(copy), copy.__name__) == (type(function), "n")
    found = [Sink().call(f, ["#### 4", "#### 5"], answer=["4", "4"]) for f in (function, copy)]
    assert found[0] == found[1]


def test_a_service_cannot_be_pickled():
    with RewardService(RULE) as service:
        function = reward_function(service)
        assert Sink().call(function, ["#### 4"], answer=["4"]) == [1.0]
        with pytest.raises(TypeError, match="lives in one process"):
            pickle.dumps(function)


# --- values


@pytest.mark.parametrize("sync", [False, True])
def test_plain_and_conversational(sync):
    function = reward_function(RULE, sync=sync)
    plain = Sink().call(function, ["#### 4", "#### 5"], answer=["4", "4"])
    chat = Sink().call(
        function,
        [[{"role": "assistant", "content": t}] for t in ("#### 4", "#### 5")],
        prompts=[[{"role": "user", "content": "2+2?"}]] * 2,
        answer=["4", "4"],
    )
    assert plain == chat == [1.0, 0.0]


def test_tool_calls_and_their_results():
    completion = [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"type": "function", "function": {"name": "add", "arguments": "{}"}}],
        },
        {"role": "tool", "name": "add", "content": "#### 5"},
        {"role": "assistant", "content": "#### 4"},
    ]
    assert Sink().call(reward_function(RULE), [completion], answer=["4"]) == [1.0]
    (sample,) = seen_by([completion])
    assert sample.response[0].tool_calls[0].name == "add"


@pytest.mark.parametrize("sync", [False, True])
def test_an_empty_shard(sync):
    sink = Sink()
    assert sink.call(reward_function(RULE, sync=sync), [], answer=[]) == []
    assert (sink.columns, sink.metrics) == ({}, {})


@pytest.mark.parametrize("sync", [False, True])
def test_none_for_masked_rows_and_nothing_else(sync):
    found = Sink().call(
        reward_function(RULE, sync=sync, policy=MASKED),
        ["#### 4", "#### 4", "#### 5"],
        answer=["4", "not a number", "4"],
    )
    assert found == [1.0, None, 0.0]
    assert [type(value) for value in found] == [float, type(None), float]


@pytest.mark.parametrize("sync", [False, True])
def test_a_failure_raises_by_default(sync):
    with pytest.raises(ScoringFailed, match="bad_input"):
        Sink().call(reward_function(RULE, sync=sync), ["#### 4"] * 2, answer=["4", "no number"])


def test_the_composite_is_none_as_a_whole():
    """TRL adds up what is there: a required component that failed must not leave the others."""

    @reward(auto_register=False)
    def judge(response, up):
        if not up:
            raise BadInput("the judge cannot read this")
        return 1.0

    both = WeightedSum({"correct": Child(RULE, 0.75), "judge": Child(judge, 0.25)}, name="both")
    sink = Sink()
    found = sink.call(
        reward_function(both, policy=MASKED), ["#### 4"] * 2, answer=["4"] * 2, up=[True, False]
    )
    assert found == [1.0, None]
    assert sink.columns["both/correct"] == [1.0, None]


@pytest.mark.parametrize("policy", [MASKED, Policy(on={"scorer": "drop_group"})])
def test_masking_beside_other_functions_is_refused_at_once(policy):
    """A partial None is no None to TRL: the other functions' sum would stand."""
    function = reward_function(RULE, policy=policy)
    with pytest.raises(ConfigError, match="count the missing one as 0"):
        Sink(function, len).call(function, ["#### 4"], answer=["4"])
    alone = Sink(function)
    assert alone.call(function, ["#### 4"], answer=["4"]) == [1.0]


def test_a_service_that_masks_beside_other_functions():
    with RewardService(RULE, policy=MASKED) as service:
        function = reward_function(service)
        with pytest.raises(ConfigError, match="count the missing one as 0"):
            Sink(function, len).call(function, ["#### 4"], answer=["4"])
        assert Sink(function).call(function, ["#### 4"], answer=["4"]) == [1.0]


def test_a_mask_that_only_a_failure_shows_beside_other_functions():
    """`assign` gives the worst end of the range, and here there is none."""

    @reward(auto_register=False)
    def unbounded(response):
        if not response:
            raise BadInput("empty")
        return float(len(response))

    function = reward_function(unbounded, policy=Policy(on={"data": "assign"}))
    sink = Sink(function, len)
    assert sink.call(function, ["four"]) == [4.0]
    with pytest.raises(ScoringFailed, match=r"no number for row 1.*count the missing one as 0"):
        sink.call(function, ["four", ""])


def test_an_abstention_beside_other_functions_is_what_none_is_for():
    @reward(auto_register=False)
    def math_only(response, kind):
        return None if kind != "math" else 1.0

    function = reward_function(math_only)
    found = Sink(function, len).call(function, ["a", "b"], kind=["math", "code"])
    assert found == [1.0, None]


def test_a_dropped_group_is_none():
    function = reward_function(RULE, policy=Policy(on={"data": "drop_group"}), num_generations=2)
    found = Sink().call(
        function,
        ["#### 4"] * 4,
        prompts=["a", "a", "b", "b"],
        answer=["4", "no number", "4", "4"],
    )
    assert found == [None, None, 1.0, 1.0]


def test_a_value_that_float32_does_not_hold():
    @reward(auto_register=False)
    def huge(response):
        return -1e39

    with pytest.raises(ScoringFailed, match="float32"):
        Sink().call(reward_function(huge), ["a"])


# --- samples


def test_step_tokens_and_metadata():
    kept = Seen()
    pictures = [object(), object()]
    Sink().call(
        reward_function(kept),
        ["a", "b"],
        step=7,
        level=[1, 2],
        data_source=["x"] * 2,
        image=pictures,
    )
    (first, step), (second, _) = kept.samples
    assert step == 7
    assert (first.response, first.data_source) == ("a", "x")
    assert list(first.response_token_ids) == [1, 2]
    assert second.metadata["level"] == 2
    assert second.metadata["image"] is pictures[1]  # of the prompt: no image of the response
    assert second.images == ()


class Picture:
    """As much of a PIL image as the adapter uses."""

    def convert(self, mode):
        assert mode == "RGB"
        return np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)


def test_images_in_a_prompt():
    parts = [{"type": "image", "image": Picture()}, {"type": "text", "text": "What is this?"}]
    (sample,) = seen_by(["a"], prompts=[[{"role": "user", "content": parts}]])
    image = sample.prompt[0].content[0].media
    assert (image.kind, image.layout, image.array.shape) == ("image", "HWC", (2, 3, 3))
    assert sample.prompt_text == "What is this?"


@reward(auto_register=False)
def length_of_text(response):
    return float(len(response))


@pytest.mark.parametrize(
    ("prompts", "completions", "message"),
    [
        ([[{"content": "no role"}]], ["a"], "row 0: prompt: a message needs"),
        (["p", "p"], ["a", [{"content": "no role"}]], "row 1: a message needs"),
        (["p"], [3], "row 0: response must be text or a list of messages"),
    ],
)
def test_a_row_that_is_no_sample_fails_alone(prompts, completions, message):
    function = reward_function(length_of_text)
    with pytest.raises(ScoringFailed, match=message) as caught:
        asyncio.run(function(prompts=[*prompts, "p"], completions=[*completions, "abc"]))
    *_, failure, last = caught.value.outcomes
    assert (failure.kind, failure.blame) == ("bad_input", "data")
    assert last.value == 3.0


def test_without_a_trainer_state():
    """Async GRPO gives none, and no logging functions."""

    @reward(auto_register=False)
    def steps(response, step=None):
        return -1.0 if step is None else float(step)

    function = reward_function(steps)
    found = asyncio.run(function(prompts=["p"], completions=["a"], completion_ids=[[1]]))
    assert found == [-1.0]


@pytest.mark.parametrize(
    ("prompts", "groups"),
    [
        (["a", "a", "b", "b"], "0011"),
        (["a", "b", "b", "b"], "0111"),
        ([[{"role": "user", "content": c}] for c in "aabb"], "0011"),
        (["a", "b", "a", "b"], "0123"),
    ],
)
def test_equal_prompts_in_a_row_are_a_group(prompts, groups):
    found = seen_by(["x"] * 4, prompts=prompts)
    assert "".join(sample.group_id for sample in found) == groups


def test_groups_of_a_given_size():
    prompts = ["a", "a", "a", "a", "b", "b"]  # the same prompt twice in the batch
    found = seen_by(["x"] * 6, prompts=prompts, settings={"num_generations": 2})
    assert [sample.group_id for sample in found] == ["0", "0", "1", "1", "2", "2"]
    with pytest.raises(ConfigError, match="row 3 of a batch has another prompt"):
        seen_by(["x"] * 6, prompts=["a", "a", "a", "b", "b", "b"], settings={"num_generations": 2})
    with pytest.raises(ConfigError, match="num_generations is 4, but a batch has 6 rows"):
        seen_by(["x"] * 6, prompts=["a"] * 6, settings={"num_generations": 4})


def test_group_rewards_see_their_groups():
    @reward(scope="group", auto_register=False)
    def shortest(responses):
        best = min(map(len, responses))
        return [float(len(text) == best) for text in responses]

    function = reward_function(shortest, num_generations=2)
    prompts = ["a", "a", "b", "b"]
    assert Sink().call(function, ["x", "xx", "yyyy", "yyy"], prompts=prompts) == [1, 0, 0, 1]


@pytest.mark.parametrize(
    ("columns", "settings", "truth"),
    [
        ({"ground_truth": ["1"]}, {}, "1"),
        ({"answer": ["2"]}, {}, "2"),
        ({"solution": ["3"]}, {}, "3"),
        ({"ground_truth": ["1"], "answer": ["2"]}, {}, "1"),
        # Two candidates: nobody guesses.
        ({"solution": ["3"], "answer": ["2"]}, {}, None),
        ({"solution": ["3"], "answer": ["2"]}, {"columns": {"ground_truth": "answer"}}, "2"),
        ({"target": ["5"]}, {"columns": {"ground_truth": "target"}}, "5"),
    ],
)
def test_which_column_is_the_ground_truth(columns, settings, truth):
    (sample,) = seen_by(["x"], settings=settings, **columns)
    assert sample.ground_truth == truth


def test_two_candidates_for_the_ground_truth_fail_only_a_reward_that_asks():
    with pytest.raises(ScoringFailed, match=r"needs 'ground_truth'.*solution"):
        Sink().call(reward_function(RULE), ["#### 4"], solution=["4 = 4"], answer=["4"])


def test_ids_of_a_dataset_name_prompts():
    found = seen_by(["x"] * 3, sample_id=["q1", "q1", "q2"])
    assert [sample.sample_id for sample in found] == ["q1#0", "q1#1", "q2#0"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"answer": ["4"]}, "'answer' has 1 entries for 2 prompts"),
        ({"response": ["a", "b"]}, "column 'response'"),
    ],
)
def test_columns_that_cannot_be(columns, message):
    with pytest.raises(ConfigError, match=message):
        Sink().call(reward_function(RULE), ["a", "b"], **columns)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_generation": 2}, "did you mean 'num_generations'"),
        ({"num_generations": 0}, "at least 1"),
        ({"columns": {"truth": "answer"}}, "no field that a column can fill"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(ConfigError, match=message):
        reward_function(RULE, **settings)


def test_a_column_that_is_not_there():
    function = reward_function(RULE, columns={"ground_truth": "anwser"})
    with pytest.raises(ConfigError, match=r"no column 'anwser' .*did you mean 'answer'"):
        Sink().call(function, ["#### 4"], answer=["4"])


def test_a_service_refuses_a_second_policy():
    with RewardService(RULE) as service, pytest.raises(ConfigError, match="its own"):
        reward_function(service, policy=MASKED)


# --- logs


def test_the_same_columns_at_every_call():
    """TRL's table needs equal lengths: a column that comes with the second call breaks it."""
    sink, function = Sink(), reward_function(COMPOSITE, policy=MASKED)
    sink.call(function, ["#### 4"], answer=["no number"])
    assert sink.columns == {
        "correct_and_tidy/outcome": ["failure: bad_input (data)"],
        "correct_and_tidy/correct": [None],
        "correct_and_tidy/tidy": [None],
    }
    sink.call(function, ["#### 4", " #### 4"], answer=["4", "4"], judge=["down", "up"])
    assert sink.columns == {
        "correct_and_tidy/outcome": ["failure: bad_input (data)", "score", "score"],
        "correct_and_tidy/correct": [None, 1.0, 1.0],
        "correct_and_tidy/tidy": [None, None, 0.0],
    }


def test_two_functions_write_columns_of_their_own():
    sink = Sink()
    sink.call(reward_function(COMPOSITE, name="a"), ["#### 4"], answer=["4"])
    sink.call(reward_function(COMPOSITE, name="b"), ["#### 4"], answer=["4"])
    assert {len(values) for values in sink.columns.values()} == {1}


def test_metrics_are_finite_and_of_what_is_there():
    sink = Sink()
    function = reward_function(COMPOSITE, policy=MASKED)
    sink.call(
        function,
        ["#### 4", " #### 5", "#### 4", "#### 4"],
        answer=["4", "4", "no number", "4"],
        judge=["up", "up", "up", "down"],
    )
    assert sink.metrics == {
        "correct_and_tidy/failed": [0.25],
        "correct_and_tidy/assigned": [0.0],
        "correct_and_tidy/masked": [0.25],
        "correct_and_tidy/correct": [pytest.approx(2 / 3)],
        "correct_and_tidy/tidy": [0.5],
    }
    only_down = Sink()
    only_down.call(function, ["#### 4"], answer=["4"], judge=["down"])
    assert only_down.columns["correct_and_tidy/tidy"] == [None]
    assert "correct_and_tidy/tidy" not in only_down.metrics
    only_lost = Sink()
    only_lost.call(function, ["#### 4"], answer=["no number"])
    assert "correct_and_tidy/tidy" not in only_lost.metrics


def test_assigned_rows_are_flagged(pool):
    sink = Sink()
    function = reward_function(cases.reference("candidate_faulty"), backend=pool)
    assert sink.call(function, ["a", "b"], fault=["", "crashed"]) == [1.0, 0.0]
    assert sink.columns["candidate_faulty/outcome"] == [
        "score",
        "failure: crashed (candidate), assigned",
    ]
    assert sink.metrics["candidate_faulty/assigned"] == [0.5]


def test_components_can_be_left_out():
    sink = Sink()
    sink.call(reward_function(COMPOSITE, components=False), ["#### 4"], answer=["4"])
    assert set(sink.columns) == {"correct_and_tidy/outcome"}


# --- what the trainer knows


def trained(*, evaluates=False, **attributes):
    """A trainer with the attributes that TRL's own have."""
    sink = Sink()
    sink.model = SimpleNamespace(training=not evaluates)
    vars(sink).update(attributes)
    return sink


def test_the_trainer_says_how_large_groups_are():
    """Two prompts of the dataset may be equal and follow each other: they are two groups."""
    for evaluates, groups in ((False, "0011"), (True, "0000")):
        kept = Seen()
        sink = trained(evaluates=evaluates, num_generations=2, num_generations_eval=4)
        sink.call(reward_function(kept, num_generations=2), ["a"] * 4)
        assert "".join(sample.group_id for sample, _ in kept.samples) == groups


def test_an_environment_may_write_into_each_prompt_of_a_group():
    """TRL appends what `reset` observed, and its baseline goes by position all the same."""
    kept = Seen()
    prompts = [[{"role": "user", "content": f"Find it. You see {i}."}] for i in (7, 8, 9, 9)]
    sink = trained(num_generations=2)
    sink.call(reward_function(kept), ["x"] * 4, prompts=prompts)
    assert [sample.group_id for sample, _ in kept.samples] == ["0", "0", "1", "1"]
    assert [sample.prompt_text[-2] for sample, _ in kept.samples] == ["7", "8", "9", "9"]


def test_groups_go_on_over_processes():
    """Three processes with two rows each, in groups of three."""
    assert [groups_of_size(2, 3, rank) for rank in range(3)] == [
        ["0", "0"],
        ["0", "1"],
        ["1", "1"],
    ]
    check_size([False, False], size=3, rank=1, processes=3)
    with pytest.raises(ConfigError, match="row 1 of a batch has another prompt"):
        check_size([False, False], size=3, rank=0, processes=3)


def test_a_part_of_a_group_has_groups_by_prompt():
    """Where something else than TRL's own loop hands over a batch."""
    kept = Seen()
    trained(num_generations=2).call(reward_function(kept), ["x"] * 3, prompts=["a", "b", "b"])
    assert [sample.group_id for sample, _ in kept.samples] == ["0", "1", "1"]


def test_another_size_than_the_trainers_is_an_error():
    with pytest.raises(ConfigError, match="num_generations is 3, but the trainer's is 2"):
        trained(num_generations=2).call(reward_function(Seen(), num_generations=3), ["a"] * 6)


@pytest.mark.parametrize(
    ("policy", "settings", "found"),
    [
        ({"train": Policy(), "eval": MASKED}, {}, None),
        ({"train": MASKED, "*": Policy()}, {}, "raises"),
        ({"train": MASKED}, {}, None),
        ({"train": Policy(), "held out": MASKED}, {"split": "held out"}, None),
        (MASKED, {}, None),
    ],
)
def test_evaluation_is_a_split_of_its_own(policy, settings, found):
    function = reward_function(RULE, policy=policy, **settings)
    sink = trained(evaluates=True)
    if found == "raises":
        with pytest.raises(ScoringFailed):
            sink.call(function, ["#### 4"], answer=["no number"])
    else:
        assert sink.call(function, ["#### 4"], answer=["no number"]) == [None]


def test_a_service_without_a_policy_for_evaluation():
    with RewardService(RULE, policy={"train": MASKED}) as service:
        sink = trained(evaluates=True)
        found = sink.call(reward_function(service), ["#### 4"], answer=["no number"])
        assert found == [None]


@pytest.mark.parametrize("settings", [{}, {"split": "trian"}])
def test_a_split_without_a_policy_is_an_error_at_once(settings):
    policy = {"eval": Policy(), **({"train": Policy()} if settings else {})}
    split = settings.get("split", "train")
    with pytest.raises(ConfigError, match=f"no policy for split '{split}'"):
        reward_function(RULE, policy=policy, **settings)
    with (
        RewardService(RULE, policy=policy) as service,
        pytest.raises(ConfigError, match=f"no policy for split '{split}'"),
    ):
        reward_function(service, **settings)


def test_the_environment_of_a_row_reaches_the_reward():
    @reward(auto_register=False)
    def counted(response, environment):
        return float(environment.counter)

    environments = [SimpleNamespace(counter=n) for n in (1, 2)]
    found = Sink().call(reward_function(counted), ["a", "b"], environments=environments)
    assert found == [1.0, 2.0]


def test_an_environment_that_nobody_reads_goes_to_no_worker(pool):
    function = reward_function(cases.reference("candidate_faulty"), backend=pool)
    locks = [threading.Lock() for _ in range(2)]
    assert Sink().call(function, ["a", "b"], environments=locks, fault=["", ""]) == [1.0, 1.0]


def test_frames_of_a_video_are_images():
    parts = [{"type": "video", "video": [Picture(), "/frames/1.png"]}]
    (sample,) = seen_by(["a"], prompts=[[{"role": "user", "content": parts}]])
    first, second = (part.media for part in sample.prompt[0].content)
    assert (first.kind, first.array.shape) == ("image", (2, 3, 3))
    assert (second.kind, second.path) == ("image", "/frames/1.png")


def test_pictures_in_a_completion():
    """Tools may answer with images."""
    talk = [
        {"role": "tool", "name": "draw", "content": [{"type": "image", "image": Picture()}]},
        {"role": "assistant", "content": "#### 4"},
    ]
    (sample,) = seen_by([talk])
    assert sample.response[0].content[0].media.array.shape == (2, 3, 3)
    assert Sink().call(reward_function(RULE), [talk], answer=["4"]) == [1.0]


def test_two_functions_of_one_name_are_refused():
    """Their columns would be one, of twice the length that TRL's table has."""
    first, second = reward_function(RULE), reward_function(RULE)
    with pytest.raises(ConfigError, match="two reward functions called 'gsm8k'"):
        Sink(first, second).call(first, ["#### 4"], answer=["4"])
    renamed = reward_function(RULE, name="again")
    assert Sink(first, renamed).call(renamed, ["#### 4"], answer=["4"]) == [1.0]
