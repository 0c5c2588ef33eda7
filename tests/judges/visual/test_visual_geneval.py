"""GenEval 2: questions about a picture, answered by probabilities."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from judges.visual.asked_pictures import (
    BLUE,
    RED,
    clip,
    lost,
    parts,
    picture,
    pixels_in,
    replies,
    score,
    tokens,
)

from guerdon.errors import ConfigError
from guerdon.judges.visual import (
    JudgeGenEval2,
)
from guerdon.judges.visual.geneval import arithmetic, atoms_of, forms, geometric
from guerdon.outcome import Score
from guerdon.sample import Sample


def question(asked):
    return parts(asked)[1]["text"]


class TestGenEval2:
    ATOMS = (("Is there a dog?", "yes"), ("How many dogs are there?", "two"))

    def sample(self, atoms=ATOMS, **fields):
        return Sample(images=(picture(),), metadata={"vqa_list": list(map(list, atoms))}, **fields)

    def answers(self, server):
        replies(
            server,
            lambda asked: (
                tokens((" two", 0.4), ("2", 0.1), ("2", 0.1), ("three", 0.3), ("Two", 0.05))
                if question(asked).startswith("How many")
                else tokens(("Yes", 0.5), ("yes", 0.25), ("no", 0.2), ("yesterday", 0.05))
            ),
        )

    def test_the_means_of_the_probabilities(self, server):
        self.answers(server)
        yes, two = 0.5 + 0.25, 0.4 + 0.1 + 0.05  # a token that is listed twice counts once
        for aggregate, expected in (("gm", math.sqrt(yes * two)), ("am", (yes + two) / 2)):
            reward = JudgeGenEval2(server.judge(cache="off"), aggregate=aggregate)
            (one,) = score(reward, self.sample())
            assert one.value == pytest.approx(expected)
            assert one.metrics["soft_tifa_am"] == pytest.approx((yes + two) / 2)
            assert one.metrics["soft_tifa_gm"] == pytest.approx(math.sqrt(yes * two))
        assert [atom["probability"] for atom in one.info["atoms"]] == pytest.approx([yes, two])
        asked = server.requests[0]
        assert (asked["max_tokens"], asked["top_logprobs"], asked["temperature"]) == (1, 20, 0.0)
        assert [part["type"] for part in parts(asked)] == ["image_url", "text"]

    def test_a_video_is_the_mean_over_its_frames(self, server):
        share = {RED: 0.9, BLUE: 0.4}
        replies(
            server,
            lambda asked: tokens(
                ("yes", share[pixels_in(asked)[0]]), ("no", 1 - share[pixels_in(asked)[0]])
            ),
        )
        metadata = {"vqa_list": [["Is there a dog?", "yes"], ["Is it brown?", "yes"]]}
        sample = Sample(videos=(clip(RED, BLUE),), metadata=metadata)
        (one,) = score(JudgeGenEval2(server.judge()), sample)
        assert one.value == pytest.approx((0.9 + 0.4) / 2)
        assert one.metrics["judge_calls"] == 4

    def test_an_answer_that_cannot_be_is_0_and_not_lost(self, server):
        replies(server, lambda asked: tokens(("no", 1.0)))
        (one,) = score(JudgeGenEval2(server.judge()), self.sample(self.ATOMS[:1]))
        assert one.value == 0.0

    def test_a_model_that_says_something_else_gave_no_answer(self, server):
        replies(server, lambda asked: tokens(("The", 0.9), ("yes", 0.05), ("no", 0.05)))
        (one,) = score(JudgeGenEval2(server.judge()), self.sample(self.ATOMS[:1]))
        words = ("question 'Is there a dog?'", "hold 0.100", "said 'The'")
        assert lost(one, *words) == ("bad_output", "scorer")
        (upstream,) = score(
            JudgeGenEval2(server.judge(), least_mass=0), self.sample(self.ATOMS[:1])
        )
        assert upstream.value == pytest.approx(0.05)

    @pytest.mark.parametrize(
        "choice",
        [
            {"message": {"content": "yes"}},
            {"message": {"content": "yes"}, "logprobs": {"content": []}},
            {"message": {"content": "yes"}, "logprobs": {"content": [{"token": "yes"}]}},
            {"message": {"content": "", "refusal": "no"}},
        ],
    )
    def test_no_log_probabilities_no_value(self, server, choice):
        replies(server, lambda asked: choice)
        (one,) = score(JudgeGenEval2(server.judge()), self.sample())
        assert lost(one) == ("bad_output", "scorer")

    @pytest.mark.parametrize(
        "atoms",
        [
            [],
            "yes",
            [["Is it?"]],
            [["Is it?", "no"]],
            [["", "yes"]],
            [["How many?", ""]],
            7,
            ["Is it?", "yes"],
        ],
    )
    def test_questions_that_are_none(self, server, atoms):
        sample = Sample(images=(picture(),), metadata={"vqa_list": atoms})
        (one,) = score(JudgeGenEval2(server.judge()), sample)
        assert lost(one) == ("bad_input", "data")
        assert server.requests == []

    def test_arrays_of_tables_are_lists(self):
        rows = np.array([["Is it?", "Yes"], ["How many?", "3"]], dtype=object)
        assert [atom.answer for atom in atoms_of(rows)] == ["yes", "three"]

    def test_questions_from_a_file(self, server, tmp_path):
        self.answers(server)
        path = tmp_path / "geneval2.jsonl"
        row = {"prompt": "two dogs", "vqa_list": [list(pair) for pair in self.ATOMS]}
        path.write_text(json.dumps(row) + "\n\n")
        reward = JudgeGenEval2(server.judge(), data=str(path))
        known, unknown = score(
            reward,
            Sample(prompt="two dogs", images=(picture(),)),
            Sample(prompt="a cat", images=(picture(),)),
        )
        assert isinstance(known, Score)
        assert lost(unknown, "no such prompt") == ("bad_input", "data")
        path.write_text(json.dumps({**row, "prompt": "three dogs"}))
        changed = JudgeGenEval2(server.judge(), data=str(path))
        assert changed.fingerprint != reward.fingerprint
        path.write_text('{"prompt": "x"}')
        with pytest.raises(ConfigError, match=r"geneval2\.jsonl:1"):
            JudgeGenEval2(server.judge(), data=str(path))

    @settings(max_examples=200, deadline=None)
    @given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
    def test_the_means_are_upstreams(self, probabilities):
        floored = [max(p, 1e-300) for p in probabilities]
        slow = math.exp(sum(map(math.log, floored)) / len(floored))
        assert geometric(probabilities) == pytest.approx(slow, rel=1e-9, abs=1e-20)
        assert arithmetic(probabilities) == pytest.approx(sum(probabilities) / len(probabilities))
        assert geometric(probabilities) <= arithmetic(probabilities) + 1e-12

    def test_the_forms_of_an_answer(self):
        assert forms("yes") == {"yes", "Yes", " yes", " Yes"}
        assert "10" in forms("ten")
        assert forms("twelve") == {"twelve", "Twelve", " twelve", " Twelve"}
