"""Functions written for a trainer, loaded unchanged and called as that trainer does."""

import json
import pickle
import sys
from pathlib import Path

import pytest

from guerdon import registry
from guerdon.cli.main import main
from guerdon.config import load
from guerdon.errors import InvalidReward, UnknownReward
from guerdon.outcome import Abstention, Failure, Score
from guerdon.policy import NO_RETRY, Policy
from guerdon.sample import Message, Sample
from guerdon.service import RewardService
from guerdon.trainers.own import slime

FUNCTIONS = Path(__file__).with_name("own_functions.py").resolve()
MASKED = Policy(retry=NO_RETRY, on={"scorer": "mask", "infrastructure": "mask", "data": "mask"})

RIGHT_AND_WRONG = (
    ("verl", "compute_score"),
    ("verl", "compute_score_async"),
    ("verl", "noisy"),
    ("verl", "keyword_only"),
    ("verl", "counter"),
    ("verl", "in_batches"),
    ("verl", "of_one_dataset"),
    ("trl", "trl_exact"),
    ("trl", "trl_array"),
    ("trl", "trl_chat"),
    ("areal", "areal_exact"),
    ("slime", "slime_exact"),
    ("slime", "slime_later"),
    ("openrlhf", "openrlhf_exact"),
    ("agentfly", "agentfly_exact"),
    ("agentfly", "agentfly_old"),
)

UNUSABLE = (
    # what the trainer could not use: convention, function, failure kind, part of the message
    ("verl", "nothing", "bad_output", "returned None, where verl wants a number"),
    ("verl", "pair", "bad_output", "where verl wants a number, or a dict with 'score'"),
    ("verl", "breaks", "raised", "KeyError: 'index'"),
    ("verl", "hidden", "bad_output", "where verl wants a result that nobody has to await"),
    ("verl", "not_a_number", "non_finite", "nan"),
    ("verl", "without_a_score", "bad_output", "where verl wants a number under 'score'"),
    ("verl", "a_text", "bad_output", "returned str: '1.0'"),
    ("areal", "areal_none", "bad_output", "where AReaL wants a number"),
    ("trl", "trl_hidden", "bad_output", "where TRL wants a result that nobody has to await"),
    ("trl", "trl_talk_only", "raised", "say conversational: true beside its name"),
    ("trl", "trl_short", "bad_output", "returned 1 results for 2 samples"),
    ("slime", "slime_sync", "bad_output", "slime wants a result to await: write the function as"),
    ("openrlhf", "openrlhf_none", "bad_output", "where OpenRLHF wants a dict with 'rewards'"),
    ("agentfly", "agentfly_needs", "bad_input", "needs 'golden_answers', which the row lacks"),
)


def reference(convention, name):
    return f"{convention}:{FUNCTIONS}:{name}"


def samples(name):
    talk = name == "trl_chat"
    return [
        Sample(
            prompt=(Message("user", "2 + 2?"),) if talk else "2 + 2?",
            response=text,
            ground_truth="4",
            data_source="sums",
        )
        for text in (" 4", "5")
    ]


def outcomes(convention, name, backend):
    with RewardService(
        registry.resolve(reference(convention, name)), backend=backend, policy=MASKED
    ) as service:
        return service.score_sync(samples(name))


@pytest.mark.parametrize("where", ["inline", "pool"])
@pytest.mark.parametrize(("convention", "name"), RIGHT_AND_WRONG)
def test_it_scores_unchanged(convention, name, where, pool):
    found = outcomes(convention, name, pool if where == "pool" else "inline")
    assert [outcome.value for outcome in found] == [1.0, 0.0]


@pytest.mark.parametrize(("convention", "name", "kind", "text"), UNUSABLE)
def test_what_the_trainer_could_not_use_is_a_failure(convention, name, kind, text):
    found = outcomes(convention, name, "inline")[1]
    assert isinstance(found, Failure)
    assert (found.kind, text in found.message) == (kind, True), found.message


def test_none_is_an_abstention_for_trl_alone():
    first, second = outcomes("trl", "trl_async", "inline")
    assert isinstance(first, Score)
    assert isinstance(second, Abstention)


def test_further_keys_of_a_dict_are_kept():
    score = outcomes("verl", "compute_score", "inline")[0]
    assert score.metrics == {"acc": 1.0}
    assert score.info == {"pred": "4", "source": "sums"}


@pytest.mark.parametrize(
    ("convention", "name", "message"),
    [
        ("verl", "grader", "async __call__: verl would take the coroutine for the number"),
        ("trl", "trl_grader", "async __call__: TRL would take the coroutine for the number"),
        ("areal", "areal_async", "is async: AReaL would take the coroutine for the number"),
        ("openrlhf", "openrlhf_async", "is async: OpenRLHF would take the coroutine"),
    ],
)
def test_what_the_trainer_would_not_await_is_refused(convention, name, message):
    with pytest.raises(InvalidReward, match=message):
        registry.resolve(reference(convention, name))


def test_what_a_function_writes_into_its_row_stays_its_own():
    row = Sample(response="4", ground_truth="4", metadata={"level": 1, "tags": ["a"]})
    made = registry.resolve(reference("verl", "noisy"))
    with RewardService(made, backend="inline", policy=MASKED) as service:
        service.score_sync([row])
    assert row.metadata == {"level": 1, "tags": ["a"]}


def test_a_partial_keeps_its_keywords_and_has_a_name():
    made = registry.resolve(reference("verl", "scaled"))
    assert made.name == "compute_score"
    assert made.call_sync(response="4", ground_truth="4")["score"] == 0.5


def test_a_scorer_that_verl_itself_would_refuse_is_a_warning(caplog):
    registry.resolve(reference("verl", "of_one_dataset"))
    assert "as a custom_reward_function verl would refuse it" in caplog.text


def test_a_group_of_slime_is_scored_at_once():
    made = registry.resolve(reference("slime", "slime_group"), group_rm=True, reward_key="acc")
    rows = [
        Sample(prompt="2 + 2?", response=text, ground_truth="4", group_id="g")
        for text in ("4", "5", "4")
    ]
    with RewardService(made, backend="inline", policy=MASKED) as service:
        found = service.score_sync(rows, run_id="r", step=0)
    assert [outcome.value for outcome in found] == [1.0, 0.0, 1.0]
    assert found[0].metrics == {"acc": 1.0, "of": 3.0}


SLIME_TYPES = """
from dataclasses import dataclass, field
from enum import Enum

@dataclass
class Sample:
    # slime/utils/types.py, as published
    group_index: int | None = None
    index: int | None = None
    prompt: str | list[dict[str, str]] = ""
    tokens: list[int] = field(default_factory=list)
    response: str = ""
    response_length: int = 0
    label: str | None = None
    reward: float | dict | None = None
    loss_mask: list[int] | None = None
    remove_sample: bool = False

    class Status(Enum):
        PENDING = "pending"
        COMPLETED = "completed"
        TRUNCATED = "truncated"
        ABORTED = "aborted"
        FAILED = "failed"

    status: Status = Status.PENDING
    metadata: dict = field(default_factory=dict)
"""
SLIME_REWARD = """
from slime.utils.types import Sample

async def seen(args, sample):
    assert type(sample) is Sample
    assert sample.prompt == "2 + 2?" and sample.response == "4" and sample.label == "4"
    assert sample.tokens == [1, 2, 3] and sample.response_length == 2
    assert sample.metadata == {"level": 1}
    statuses = [Sample.Status.COMPLETED, Sample.Status.TRUNCATED, Sample.Status.ABORTED]
    return float(statuses.index(sample.status))
"""


@pytest.mark.parametrize(
    ("finish", "number"), [(None, 0.0), ("stop", 0.0), ("length", 1.0), ("abort", 2.0)]
)
def test_slimes_own_sample_where_slime_is_installed(tmp_path, monkeypatch, finish, number):
    """A stand-in of the published form: slime itself installs on no CPU."""
    package = tmp_path / "slime" / "utils"
    package.mkdir(parents=True)
    for folder in (package.parent, package):
        (folder / "__init__.py").touch()
    (package / "types.py").write_text(SLIME_TYPES)
    (tmp_path / "my_rm.py").write_text(SLIME_REWARD)
    monkeypatch.syspath_prepend(str(tmp_path))
    slime._slimes_own.cache_clear()
    sample = Sample(
        prompt="2 + 2?",
        response="4",
        ground_truth="4",
        finish_reason=finish,
        prompt_token_ids=[1],
        response_token_ids=[2, 3],
        metadata={"level": 1},
    )
    try:
        made = registry.resolve(f"slime:{tmp_path / 'my_rm.py'}:seen")
        with RewardService(made, backend="inline", policy=MASKED) as service:
            (found,) = service.score_sync([sample])
    finally:
        slime._slimes_own.cache_clear()
        for name in [name for name in sys.modules if name.split(".")[0] == "slime"]:
            del sys.modules[name]
    assert isinstance(found, Score), found
    assert found.value == number


def test_a_file_of_a_package_is_named_as_a_module(tmp_path):
    package = tmp_path / "mine" / "rewards"
    package.mkdir(parents=True)
    for folder in (package.parent, package):
        (folder / "__init__.py").write_text("")
    (package.parent / "answers.py").write_text("RIGHT = '4'\n")
    (package / "exact.py").write_text("from ..answers import RIGHT\n")
    with pytest.raises(UnknownReward, match=r"name it mine\.rewards\.exact:compute_score"):
        registry.resolve(f"verl:{package / 'exact.py'}:compute_score")


def test_rows_with_different_columns_are_named():
    rows = [
        Sample(response="4", ground_truth="4", metadata={"level": 1}),
        Sample(response="4", ground_truth="4"),
    ]
    with RewardService(
        registry.resolve(reference("trl", "trl_exact")), backend="inline", policy=MASKED
    ) as service:
        found = service.score_sync(rows)
    assert all(isinstance(outcome, Failure) for outcome in found)
    assert "1 of 2 rows have no column 'level'" in found[0].message


def test_a_column_that_areal_gives_by_position_is_named():
    row = Sample(response="4", ground_truth="4", metadata={"prompt_ids": [1]})
    with RewardService(
        registry.resolve(reference("areal", "areal_exact")), backend="inline", policy=MASKED
    ) as service:
        found = service.score_sync([row])[0]
    assert (found.kind, found.blame) == ("bad_input", "data")
    assert "column 'prompt_ids'" in found.message


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("vrel:f.py:g", "no calling convention is named 'vrel' (did you mean 'verl'?)"),
        (f"verl:{FUNCTIONS}:compute_scores", "(did you mean 'compute_score'?)"),
        ("verl:/nowhere/f.py:g", "no file '/nowhere/f.py'"),
    ],
)
def test_what_is_not_there_is_named(wanted, message):
    with pytest.raises(UnknownReward) as caught:
        registry.resolve(wanted)
    assert message in str(caught.value)


def test_what_is_no_function_is_refused():
    with pytest.raises(InvalidReward, match="is a module, not a function"):
        registry.resolve(f"verl:{FUNCTIONS}:asyncio")


def test_it_travels_and_keeps_its_fingerprint():
    made = registry.resolve(reference("verl", "compute_score"), scale=0.5)
    copied = pickle.loads(pickle.dumps(made))
    assert copied.fingerprint == made.fingerprint
    assert copied.call_sync(response="4", ground_truth="4")["score"] == 0.5


def test_the_fingerprint_follows_the_users_code(tmp_path):
    seen = []
    for name, low in (("a", "0.0"), ("b", "0.1")):
        file = tmp_path / f"{name}.py"
        file.write_text(
            f"def f(data_source, solution_str, ground_truth, extra_info=None):\n    return {low}\n"
        )
        seen.append(registry.resolve(f"verl:{file}:f").fingerprint_extra())
    assert seen[0] != seen[1]


def test_a_configuration_names_one_beside_itself(tmp_path):
    (tmp_path / "mine.py").write_text(FUNCTIONS.read_text())
    file = tmp_path / "panel.yaml"
    file.write_text("reward: {name: 'verl:mine.py:compute_score', scale: 0.25}\n")
    with load(file).build() as service:
        assert [outcome.value for outcome in service.score_sync(samples(""))] == [0.25, 0.0]


def test_the_command_line(tmp_path, capsys):
    data, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    rows = [
        {"prompt": "2 + 2?", "response": text, "ground_truth": "4", "data_source": "sums"}
        for text in ("4", "5")
    ]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    wanted = ["score", str(data), "--reward", reference("verl", "compute_score"), "-o", str(out)]
    with pytest.raises(SystemExit) as ended:
        main([*wanted, "--quiet"])
    assert ended.value.code == 0
    scored = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["reward"] for row in scored] == [1.0, 0.0]
