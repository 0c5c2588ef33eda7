"""Functions of users with the small things that they ask for, and what goes wrong in one row."""

import math

import pytest

from guerdon import registry
from guerdon.config import load
from guerdon.errors import ConfigError, InvalidReward
from guerdon.outcome import Failure
from guerdon.policy import NO_RETRY, Policy
from guerdon.sample import Sample
from guerdon.service import RewardService

FUNCTIONS = """
import guerdon
from guerdon.trainers import agentfly

def areal_truth(prompt, completions, prompt_ids, completion_ids, {truth}):
    return float(completions == {truth})

def areal_all(prompt, completions, prompt_ids, completion_ids, **row):
    return float(completions == row[{truth!r}])

def areal_none(prompt, completions, prompt_ids, completion_ids):
    return float(completions == "4")

def agentfly_truth(final_response, {truth}):
    return float(final_response == {truth})

def agentfly_context(final_response, context):
    return float(final_response == context.metadata[{truth!r}])

def agentfly_more(final_response):
    import numpy
    return {{"reward": 1, "em": 0.5, "hit": numpy.bool_(True), "pred": "4"}}

@agentfly.reward(name="em")
def guerdons(final_response):
    return {{"reward": 1.0}}

class GuerdonsClass(guerdon.BaseReward):
    auto_register = False

    def call(self, response):
        return 1.0

def verl(data_source, solution_str, ground_truth, extra_info=None, bonus=0.0):
    return bonus

def verl_any(data_source, solution_str, ground_truth, extra_info=None, **more):
    return more["bonos"]

def verl_batch(data_sources, solution_strs, ground_truths, extra_infos):
    bad = {{"none": {{"score": None}}, "nan": {{"score": float("nan")}}, "text": "1", "NONE": None}}
    return [bad.get(text, {{"score": 1.0, "acc": True}}) for text in solution_strs]

async def slime_group(args, samples):
    bad = {{"none": {{"acc": None}}, "nan": {{"acc": float("nan")}}, "text": "1", "NONE": None}}
    return [bad.get(sample.response, {{"acc": 1.0}}) for sample in samples]

async def slime_args(args, sample):
    assert getattr(args, "other", 7) == 7
    return args.scale

def trl_step(prompts, completions, trainer_state=None, **columns):
    return [trainer_state.global_step / 100] * len(prompts)

def trl_most(prompts, completions, trainer_state=None, **columns):
    return [trainer_state.max_steps] * len(prompts)
"""
MASKED = Policy(retry=NO_RETRY, on={"scorer": "mask", "infrastructure": "mask", "data": "mask"})
TRUTHS = ("ground_truth", "answer", "solution", "label")


@pytest.fixture
def functions(tmp_path):
    return lambda truth="answer": _written(tmp_path / f"mine_{truth}.py", truth)


def _written(file, truth):
    file.write_text(FUNCTIONS.format(truth=truth))
    return file


def scored(reward, samples, **call):
    with RewardService(reward, backend="inline", policy=MASKED) as service:
        return service.score_sync(samples, **call)


@pytest.mark.parametrize("truth", TRUTHS)
@pytest.mark.parametrize(
    "name",
    [
        "areal:areal_truth",
        "areal:areal_all",
        "agentfly:agentfly_truth",
        "agentfly:agentfly_context",
    ],
)
def test_the_ground_truth_has_the_name_that_a_function_asks_for(functions, name, truth):
    trainer, _, function = name.partition(":")
    made = registry.resolve(f"{trainer}:{functions(truth)}:{function}")
    rows = [Sample(prompt="2+2?", response=text, ground_truth="4") for text in ("4", "5")]
    assert [outcome.value for outcome in scored(made, rows)] == [1.0, 0.0]


def test_a_function_that_asks_for_no_ground_truth_gets_none(functions):
    made = registry.resolve(f"areal:{functions()}:areal_none")
    assert scored(made, [Sample(response="4", ground_truth="5")])[0].value == 1.0


def test_a_column_wins_over_the_synonym(functions):
    made = registry.resolve(f"areal:{functions()}:areal_truth")
    row = Sample(response="4", ground_truth="5", metadata={"answer": "4"})
    assert scored(made, [row])[0].value == 1.0


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("areal:areal_truth", "ground_truth"),
        ("areal:areal_truth", "answer"),
        ("areal:areal_truth", "prompt"),
        ("agentfly:agentfly_truth", "answer"),
        ("verl:verl", "ground_truth"),
        ("verl:verl_batch", "ground_truths"),
        ("trl:trl_step", "solution"),
    ],
)
def test_a_keyword_that_each_row_gives_is_no_column(functions, tmp_path, name, option):
    """`ground_truth: answer` would have scored every row against the word "answer"."""
    trainer, _, function = name.partition(":")
    file = tmp_path / "panel.yaml"
    reference = f"{trainer}:{functions()}:{function}"
    file.write_text(f"reward: {{name: '{reference}', {option}: {option}}}\n")
    with pytest.raises(ConfigError, match=f"gets '{option}' from each row: .* literal '{option}'"):
        load(file).build()


def test_a_keyword_that_a_function_does_not_take_is_an_error_at_load(functions, tmp_path):
    file = tmp_path / "panel.yaml"
    text = "reward: {{name: 'verl:{}:{}', bonos: 0.25}}\n"
    file.write_text(text.format(functions(), "verl"))
    with pytest.raises(ConfigError, match=r"takes no 'bonos' \(did you mean 'bonus'\?\)"):
        load(file).build()
    file.write_text(text.format(functions(), "verl_any"))
    with load(file).build() as service:
        assert service.score_sync([Sample(response="4")])[0].value == 0.25


def test_numbers_beside_a_reward_of_agentfly_are_metrics(functions):
    made = registry.resolve(f"agentfly:{functions()}:agentfly_more")
    (found,) = scored(made, [Sample(response="4")])
    assert (dict(found.metrics), dict(found.info)) == ({"em": 0.5, "hit": 1.0}, {"pred": "4"})


@pytest.mark.parametrize("trainer", ["verl", "trl", "areal", "agentfly", "slime", "openrlhf"])
@pytest.mark.parametrize("name", ["guerdons", "GuerdonsClass"])
def test_a_reward_of_guerdon_needs_no_prefix(functions, trainer, name):
    with pytest.raises(InvalidReward, match="is a reward of Guerdon: name it without the prefix"):
        registry.resolve(f"{trainer}:{functions()}:{name}")


@pytest.mark.parametrize("bad", ["none", "nan", "text", "NONE"])
@pytest.mark.parametrize("trainer", ["verl", "slime"])
def test_an_unusable_row_of_a_batch_fails_alone(functions, trainer, bad):
    if trainer == "verl":
        made = registry.resolve(f"verl:{functions()}:verl_batch")
    else:
        reference = f"slime:{functions()}:slime_group"
        made = registry.resolve(reference, group_rm=True, reward_key="acc")
    rows = [Sample(prompt="?", response=text, group_id="g") for text in ("4", bad, "5")]
    first, second, third = scored(made, rows, run_id="r", step=0)
    assert (first.value, third.value) == (1.0, 1.0)
    assert isinstance(second, Failure)
    assert (second.kind, second.blame) == (
        "non_finite" if bad == "nan" else "bad_output",
        "scorer",
    )


def test_the_step_of_a_trl_function(functions):
    made = registry.resolve(f"trl:{functions()}:trl_step")
    row = Sample(prompt="?", response="4")
    assert scored(made, [row], step=25)[0].value == 0.25
    assert "no global_step: say which, as --step 0" in scored(made, [row])[0].message


def test_the_rest_of_the_trainers_state_is_not_there(functions):
    made = registry.resolve(f"trl:{functions()}:trl_most")
    (found,) = scored(made, [Sample(prompt="?", response="4")], step=1)
    assert "no 'max_steps' outside of a run" in found.message


def test_what_slimes_args_lack_is_an_option(functions):
    reference = f"slime:{functions()}:slime_args"
    (found,) = scored(registry.resolve(reference), [Sample(response="4")])
    assert "args have no 'scale' here: give it with the option args={'scale': ...}" in found.message
    (found,) = scored(registry.resolve(reference, args={"scale": 0.5}), [Sample(response="4")])
    assert math.isclose(found.value, 0.5)
