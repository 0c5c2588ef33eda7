"""Which tokens of a conversation a text model reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from models.plain_forward import (  # noqa: E402
    CLOSE,
    Tiny,
    close_to,
    copied,
    plain_ids,
    score,
)

from guerdon.errors import ConfigError  # noqa: E402
from guerdon.models.scalar import ScalarRewardModel  # noqa: E402
from guerdon.outcome import Failure, Score  # noqa: E402
from guerdon.sample import Message, Sample  # noqa: E402

pytestmark = pytest.mark.neural


class TestTooLong:
    LONG = Sample(prompt="2 + 2?", response="four " * 200)
    SHORT = Sample(prompt="2 + 2?", response="4")

    def test_it_fails_alone_and_says_what_to_do(self, tiny: Tiny) -> None:
        reward = ScalarRewardModel(tiny(), device="cpu", max_length=100)
        long, short = score(reward, [self.LONG, self.SHORT], mask=True)
        assert isinstance(long, Failure)
        assert (str(long.kind), str(long.blame)) == ("bad_input", "data")
        assert "tokens and the model takes 100" in long.message
        assert isinstance(short, Score)

    @pytest.mark.parametrize("side", ["keep_end", "keep_start"])
    def test_it_is_cut_and_reported(self, tiny: Tiny, side: str) -> None:
        folder = tiny()
        reward = ScalarRewardModel(folder, device="cpu", max_length=100, too_long=side)
        long, short = score(reward, [self.LONG, self.SHORT])
        assert isinstance(long, Score)
        assert isinstance(short, Score)
        (ids,) = plain_ids(folder, [self.LONG])
        assert long.metrics == {"truncated_tokens": len(ids) - 100}
        assert not short.metrics
        kept = ids[-100:] if side == "keep_end" else ids[:100]
        model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
        with torch.inference_mode():
            assert abs(float(model(torch.tensor([kept])).logits) - long.value) <= CLOSE

    def test_a_limit_beyond_the_model_is_refused(self, tiny: Tiny) -> None:
        with pytest.raises(ConfigError, match="max_length=5000: the model takes 1 to 4096"):
            ScalarRewardModel(tiny(), device="cpu", max_length=5000).load()


class TestTokenIds:
    def sample(self, folder: str, response: str, **changes: Any) -> Sample:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        prompt = tokenizer.apply_chat_template(
            [{"role": "user", "content": "2 + 2?"}], add_generation_prompt=True, return_dict=False
        )
        own = [*tokenizer.encode(response, add_special_tokens=False), tokenizer.eos_token_id]
        fields: dict[str, Any] = {
            "prompt": "2 + 2?",
            "response": response,
            "prompt_token_ids": prompt,
            "response_token_ids": own,
        }
        return Sample(**{**fields, **changes})

    @pytest.mark.parametrize("family", ["qwen2", "llama"])
    def test_the_policy_s_ids_are_taken_where_tokenizers_agree(
        self, tiny: Tiny, family: str
    ) -> None:
        folder = tiny(family)
        batch = [self.sample(folder, text) for text in ("4", "It is four.", "")]
        reward = ScalarRewardModel(folder, device="cpu", policy_tokenizer=tiny(family, "causal"))
        reader = reward.reader
        assert reader.reuses_ids
        seen: list[str] = []
        reader.template.text = lambda *_: seen.append("tokenized") or ""  # type: ignore[assignment]
        values = score(reward, batch).values.tolist()
        assert not seen
        plain = score(ScalarRewardModel(folder, device="cpu"), batch).values
        assert close_to(plain, values)

    def test_another_tokenizer_s_ids_are_not(self, tiny: Tiny) -> None:
        folder = tiny("qwen2")
        reward = ScalarRewardModel(folder, device="cpu", policy_tokenizer=tiny("llama"))
        assert not reward.reader.reuses_ids
        wrong = self.sample(folder, "4", response_token_ids=[7, 7, 7])
        right = self.sample(folder, "4")
        values = score(reward, [wrong, right]).values
        assert values[0] == values[1]

    def test_a_prompt_that_the_policy_saw_otherwise_is_tokenized(self, tiny: Tiny) -> None:
        folder = tiny()
        reward = ScalarRewardModel(folder, device="cpu", policy_tokenizer=folder)
        other = self.sample(folder, "4", prompt_token_ids=[5, 6, 7])
        plain = score(ScalarRewardModel(folder, device="cpu"), [other])
        assert close_to(score(reward, [other]).values, plain.values.tolist())

    @pytest.mark.parametrize(
        ("ids", "message"),
        [
            ([999_999], "beyond the vocabulary"),
            ([-1], "beyond the vocabulary"),
            (["four"], "no list of integers"),
            ([1.5], "no list of integers"),
        ],
    )
    def test_impossible_ids_fail_alone(self, tiny: Tiny, ids: list[Any], message: str) -> None:
        folder = tiny()
        reward = ScalarRewardModel(folder, device="cpu", policy_tokenizer=folder)
        bad, good = score(
            reward,
            [self.sample(folder, "4", response_token_ids=ids), self.sample(folder, "4")],
            mask=True,
        )
        assert isinstance(bad, Failure)
        assert message in bad.message
        assert isinstance(good, Score)


class TestBadInput:
    @pytest.mark.parametrize("ids", [False, True])
    def test_a_template_that_refuses_fails_its_sample_alone(
        self, tiny: Tiny, tmp_path: Path, ids: bool
    ) -> None:
        jinja = tmp_path / "strict.jinja"
        jinja.write_text(
            "{% for m in messages %}{% if m['role'] == 'tool' %}"
            "{{ raise_exception('no tools') }}{% endif %}{{ m['content'] }}{% endfor %}"
        )
        folder = tiny()
        reward = ScalarRewardModel(
            folder, device="cpu", template=str(jinja), policy_tokenizer=folder if ids else None
        )
        given: Any = {"prompt_token_ids": [5], "response_token_ids": [6]} if ids else {}
        tool = Sample(prompt=(Message("tool", "x"),), response="4", **given)
        bad, good = score(reward, [tool, Sample(prompt="a", response="b")], mask=True)
        assert isinstance(bad, Failure)
        assert "refuses these messages" in bad.message
        assert "no tools" in bad.message
        assert isinstance(good, Score)

    def test_no_response_is_bad_input_and_an_empty_one_is_scored(self, tiny: Tiny) -> None:
        reward = ScalarRewardModel(tiny(), device="cpu")
        none, empty = score(
            reward, [Sample(prompt="a"), Sample(prompt="a", response="")], mask=True
        )
        assert isinstance(none, Failure)
        assert str(none.kind) == "bad_input"
        assert isinstance(empty, Score)

    def test_nothing_at_all_is_bad_input(self, tiny: Tiny) -> None:
        reward = ScalarRewardModel(tiny(), device="cpu", template="concat")
        (outcome,) = score(reward, [Sample(prompt="", response="")], mask=True)
        assert isinstance(outcome, Failure)
        assert "no token at all" in outcome.message

    def test_text_that_is_no_unicode_is_scored(self, tiny: Tiny) -> None:
        reward = ScalarRewardModel(tiny(), device="cpu")
        odd, same = score(
            reward,
            [Sample(prompt="a", response="\ud800 b"), Sample(prompt="a", response="\ufffd b")],
        )
        assert isinstance(odd, Score)
        assert isinstance(same, Score)
        assert odd.value == same.value

    def test_media_are_not_left_out_unnoticed(self, tiny: Tiny) -> None:
        from guerdon.sample import Media, Part

        picture = Message("user", (Part(text="What?"), Part(media=Media(kind="image", data=b"x"))))
        reward = ScalarRewardModel(tiny(), device="cpu")
        (outcome,) = score(reward, [Sample(prompt=(picture,), response="4")], mask=True)
        assert isinstance(outcome, Failure)
        assert "a text model reads no media, and a user message has some" in outcome.message

    def test_no_chat_template(self, tiny: Tiny, tmp_path: Path) -> None:
        folder = copied(tiny(), tmp_path)
        (Path(folder) / "chat_template.jinja").unlink()
        with pytest.raises(ConfigError, match="has no chat template: say template='concat'"):
            ScalarRewardModel(folder, device="cpu").load()

    def test_a_template_file_that_is_not_there(self, tiny: Tiny) -> None:
        with pytest.raises(ConfigError, match=r"there is no file 'my\.jinja'"):
            ScalarRewardModel(tiny(), device="cpu", template="my.jinja").load()


@pytest.mark.parametrize("side", ["keep_end", "keep_start"])
@pytest.mark.parametrize("family", ["bert", "llama"])
def test_special_tokens_around_a_text_are_never_cut(tiny: Tiny, family: str, side: str) -> None:
    """As transformers truncates: CLS and SEP, or BOS, stay, and the text gives way."""
    folder = tiny(family)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    reward = ScalarRewardModel(
        folder, device="cpu", template="concat", max_length=20, too_long=side
    )
    sample = Sample(prompt="2 + 2?", response="four and two " * 20)
    (outcome,) = score(reward, [sample])
    text = f"{sample.prompt}{sample.response}"
    tokenizer.truncation_side = "left" if side == "keep_end" else "right"
    cut = tokenizer(text, truncation=True, max_length=20, return_tensors="pt")
    whole = tokenizer(text)["input_ids"]
    assert isinstance(outcome, Score)
    assert outcome.metrics == {"truncated_tokens": len(whole) - 20}
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.inference_mode():
        assert abs(float(model(input_ids=cut["input_ids"]).logits) - outcome.value) <= CLOSE


@pytest.mark.filterwarnings("ignore:.*its own probes")
def test_special_tokens_that_leave_no_room_fail_the_sample(tiny: Tiny) -> None:
    reward = ScalarRewardModel(
        tiny("bert"), device="cpu", template="concat", max_length=2, too_long="keep_end"
    )
    (outcome,) = score(reward, [Sample(prompt="2", response="4")], mask=True)
    assert isinstance(outcome, Failure)
    assert "leave no room" in outcome.message
