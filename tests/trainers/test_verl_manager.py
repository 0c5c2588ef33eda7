"""verl's reward loop, registries and KL penalty with our managers (verl 0.9.1)."""

from pathlib import Path

import pytest

from guerdon.registry import load_file

PARITY = Path(__file__).with_name("parity")
cases = load_file(str(PARITY / "cases.py"))
rewards = load_file(str(PARITY / "rewards.py"))
interpreter = load_file(str(PARITY / "interpreter.py"))

FIXED = ["score", "acc", "guerdon_outcome", "guerdon_failure", "guerdon_assigned"]
COMPONENTS = ["component/correct", "component/tidy"]


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    return interpreter.drive("verl", tmp_path_factory.mktemp("verl"), "verl_manager.py")


def expected(name):
    if name == "tiny_model":
        return [rewards.tiny_model.call_sync(responses=[row.response])[0] for row in cases.ROWS]
    return [cases.REWARDS[name](row) for row in cases.ROWS]


@pytest.mark.parametrize("name", ["rule", "composite", "tiny_model"])
def test_the_manager_gives_the_value_with_fixed_keys(seen, name):
    rows = seen["in_process"][name]
    assert [row["reward_score"] for row in rows] == expected(name)
    keys = FIXED + (COMPONENTS if name == "composite" else [])
    assert all(list(row["reward_extra_info"]) == keys for row in rows)


def test_prompt_group_and_turns_reach_the_reward(seen):
    assert [row["reward_score"] for row in seen["in_process"]["prompted"]] == [1.0] * 8


def test_the_rows_of_the_dataset_are_not_changed(seen):
    assert seen["in_process"]["extra_info"] == ["fault", "index", "judge"]


@pytest.mark.parametrize("way", ["in_process", "ray"])
def test_spans_become_token_level_rewards(seen, way):
    """A token span ends at its last token, one of characters at the last token of the text."""
    rows = seen[way]["tokens"]
    for tokens, length in zip(rows, seen["in_process"]["lengths"], strict=False):
        if length == 0:  # a score without spans, and no token: in the padding, so in the row's sum
            assert tokens == [0.125] + [0.0] * (len(tokens) - 1)
            continue
        wanted = [0.0] * len(tokens)
        wanted[length // 2 - 1] += 0.25
        wanted[length - 1] += 0.5
        assert tokens == wanted


def test_of_several_outputs_the_last_one_is_read_by_its_own_length(seen):
    scored, length = seen["several_outputs"]
    assert scored == length


def test_a_misspelt_setting_is_an_error(seen):
    assert "no setting 'rewrad' (did you mean 'reward'?)" in seen["in_process"]["typo"]


def test_a_function_beside_the_manager_is_refused_with_the_line_to_write(seen):
    text = seen["in_process"]["custom"]
    assert text.startswith("ConfigError")
    assert "+reward.reward_kwargs.reward=verl:" in text


def test_a_function_of_the_users_own_runs_in_the_manager(seen):
    right = [float(row.response.strip().endswith(row.ground_truth)) for row in cases.ROWS]
    assert seen["in_process"]["own"] == right


def test_missing_columns_are_named(seen):
    text = seen["in_process"]["bare"]
    assert text.startswith("BadInput")
    assert "no column 'data_source' (it has raw_prompt)" in text


def test_the_legacy_manager(seen):
    found = seen["legacy"]
    assert found["sums"] == found["extra"]["score"] == expected("composite")
    assert found["placed"] == [int(value != 0.0) for value in expected("composite")]
    assert list(found["extra"]) == FIXED + COMPONENTS
    assert found["tensor"]


@pytest.mark.parametrize(
    "estimator", ["kl", "k1", "abs", "mse", "k2", "low_var_kl", "k3", "k3+", "low_var_kl+"]
)
def test_the_kl_penalty_is_verls(seen, estimator):
    for far, theirs, ours in seen["kl"][estimator]:
        assert far < 1e-6
        assert ours == pytest.approx(theirs, rel=1e-5)


def test_what_init_writes_works(seen):
    wanted = [0.9 * cases.REWARDS["rule"](row) + 0.1 for row in cases.ROWS]
    assert seen["starter"] == pytest.approx(wanted)


def test_the_reward_loop_on_ray(seen):
    found = seen["ray"]["composite"]
    assert found["scores"] == found["extra"]["score"] == expected("composite")[:-1]
    assert list(found["extra"]) == FIXED + COMPONENTS


def test_fewer_rows_than_workers(seen):
    """verl pads such a batch by repeating its rows."""
    assert seen["ray"]["few"]["scores"] == expected("composite")[:2]


def test_images_and_what_tools_left_reach_the_reward(seen):
    (row,) = seen["agent_loop"]["looks"]
    assert row["reward_score"] == 1.0


def test_prompts_and_responses_are_read_by_their_own_lengths(seen):
    """In the streaming path verl gives no mask of what tools wrote."""
    found = seen["agent_loop"]
    assert found["tokens"] == [3.0, found["response"], -1.0]


def test_a_row_that_is_broken_fails_alone(seen):
    whole, no_model, no_truth, no_info = seen["broken"]["raises"]
    assert "reward_model is a NoneType, not a mapping" in no_model
    assert "extra_info is a str, not a mapping" in no_info
    assert no_truth["reward_score"] == float(len(cases.ROWS[2].response))  # this reward needs none
    assert whole["reward_score"] == float(len(cases.ROWS[0].response))


def test_the_neutral_number_of_broken_rows(seen):
    infos = [row["reward_extra_info"] for row in seen["broken"]["neutral"]]
    assert [info["guerdon_assigned"] for info in infos] == [0.0, 1.0, 0.0, 1.0]
    assert [list(info) for info in infos] == [FIXED] * 4
    assert infos[1]["score"] == infos[3]["score"] == 0.25


def test_a_row_that_never_ends_has_a_deadline(seen):
    first, stuck, last = seen["broken"]["hangs"]
    assert first["reward_score"] == last["reward_score"] == 1.0
    assert stuck["reward_score"] == 0.25
    info = stuck["reward_extra_info"]
    assert info["guerdon_failure"].startswith("timeout (scorer)")
    assert list(info) == FIXED


def test_the_overlong_penalty_of_verls_manager(seen):
    found = seen["overlong"]
    assert found["measured"] == expected("rule")
    wanted = [
        score - max(length - 0, 0) / 4
        for score, length in zip(found["measured"], found["lengths"], strict=True)
    ]
    assert found["scores"] == wanted
    assert "the reward 'overlong'" in found["manager"][0]


def test_the_legacy_manager_at_the_edges(seen):
    found = seen["legacy_batches"]
    assert found["empty"] == [[0, found["empty"][0][1]], {}]
    assert found["there"] == [2.0, [1.0, 1.0, 1.0]]
    assert found["same"]
    prompts, responses, written = found["counted"]
    mask, attended = found["mask"]
    assert written == mask
    assert prompts == [2.0] * 3
    assert responses == [attended[row] - 2 for row in range(3)]


def test_import_verl_loads_nothing_of_ours(seen):
    """The reward workers need it, and the many other processes of a run do not."""
    found = seen["imports"]
    ours = [name for name in found if name.startswith(("guerdon", "msgspec"))]
    assert ours == ["guerdon", "guerdon.trainers", "guerdon.trainers.verl_plugin"]
    assert not [name for name in found if name.startswith("verl.") and "reward" in name]


def test_the_streaming_path(seen):
    """verl's agent loop puts the score at the last token; of an empty response into the padding."""
    found = seen["streamed"]
    assert found["sums"] == found["extra"]["score"] == expected("composite")
    assert list(found["extra"]) == FIXED + COMPONENTS
    assert found["extra"]["component/tidy"].count(None) == sum(
        r.judge == "down" for r in cases.ROWS
    )
    for place, length, number in zip(found["placed"], found["lengths"], found["sums"], strict=True):
        if number:
            assert place == (length - 1 if length else found["width"] - 1)
