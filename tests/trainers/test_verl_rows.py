"""Reading the rows of a batch, without verl: a batch is anything with its columns."""

import threading
from types import SimpleNamespace

import numpy as np
import pytest

from guerdon.trainers.verl_batch import prompt_tokens, response_tokens
from guerdon.trainers.verl_manager import INLINE_TOKENS, GuerdonRewardManager

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.neural

PAD = 0


def batch(prompts, responses, mask, **columns):
    return SimpleNamespace(
        batch={
            "prompts": torch.tensor(prompts),
            "responses": torch.tensor(responses),
            "attention_mask": torch.tensor(mask),
        },
        non_tensor_batch={name: np.array(column) for name, column in columns.items()},
    )


@pytest.mark.parametrize(
    ("row", "lengths", "prompt", "response"),
    [
        (([PAD, 3], [4, 5, PAD], [0, 1, 1, 1, 0]), {}, [3], [4, 5]),
        (([2, 3], [4, 5, 6], [1, 1, 1, 1, 1]), {}, [2, 3], [4, 5, 6]),
        (([2, 3], [PAD, PAD, PAD], [1, 1, 0, 0, 0]), {}, [2, 3], []),
        (([PAD, PAD], [4, 5, 6], [0, 0, 1, 1, 1]), {}, [], [4, 5, 6]),
        (([2, 3], [], [1, 1]), {}, [2, 3], []),
        # Outputs of several lengths are padded at the end, and so is their mask.
        (
            ([2, PAD], [4, PAD, PAD], [1, 1, 0, 0, 0]),
            {"prompt_len": 1, "response_len": 1},
            [2],
            [4],
        ),
        (([2, 3], [4, 5, 6], [1, 1, 1, 1, 1]), {"prompt_len": 2, "response_len": 0}, [2, 3], []),
    ],
)
def test_tokens_without_padding(row, lengths, prompt, response):
    other = [[7] * len(part) for part in row]  # the row before it
    columns = {name: [9, length] for name, length in lengths.items()}
    data = batch(*([first, second] for first, second in zip(other, row, strict=True)), **columns)
    for index in (1, -1):
        assert prompt_tokens(data, index).tolist() == prompt
        assert response_tokens(data, index).tolist() == response


@pytest.mark.parametrize(
    ("width", "tokens", "elsewhere"),
    [
        (INLINE_TOKENS, INLINE_TOKENS, False),
        (4 * INLINE_TOKENS, 10, False),  # padded for others
        (4 * INLINE_TOKENS, INLINE_TOKENS + 1, True),
    ],
)
async def test_only_long_responses_are_decoded_in_a_thread(width, tokens, elsewhere):
    threads = []

    class Tokenizer:
        def decode(self, ids, skip_special_tokens):
            threads.append(threading.current_thread())
            return f"#### {len(ids)}"

    settings = {"reward_kwargs": {"reward": "guerdon.rules.gsm8k:gsm8k"}}
    manager = GuerdonRewardManager(SimpleNamespace(reward=settings), Tokenizer())
    mask = [[1] + [int(i < tokens) for i in range(width)]]
    data = batch(
        [[1]],
        [[5] * width],
        mask,
        data_source=["gsm8k"],
        reward_model=[{"ground_truth": str(tokens)}],
    )
    found = await manager.run_single(data)
    assert found["reward_score"] == 1.0
    assert [thread is not threading.main_thread() for thread in threads] == [elsewhere]
