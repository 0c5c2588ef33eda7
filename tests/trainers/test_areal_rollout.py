"""Rewards inside AReaL's training loop; with AReaL's own tensors in `test_areal_contract.py`."""

from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.neural

from guerdon.errors import ConfigError, ScoringFailed  # noqa: E402
from guerdon.reward import reward  # noqa: E402
from guerdon.trainers.areal_rollout import RolloutScorer  # noqa: E402


class Letters:
    """One token per letter; 0 is padding."""

    def decode(self, ids, skip_special_tokens):
        assert skip_special_tokens
        return "".join(map(chr, ids))


@reward(name="size", auto_register=False)
def size(prompt: str, response: str) -> float:
    """Tens of the prompt's letters and ones of the response's."""
    if response == "bad":
        raise ValueError("a bug")
    return 10.0 * len(prompt) + len(response)


def group(*rows):
    """A group of (prompt, response), padded on the right, with rewards of 1."""
    width = max(len(prompt + response) for prompt, response in rows)
    tensors = {
        key: torch.zeros(len(rows), width, dtype=torch.int64)
        for key in ("input_ids", "attention_mask", "loss_mask")
    }
    for row, (prompt, response) in enumerate(rows):
        total = len(prompt + response)
        tensors["input_ids"][row, :total] = torch.tensor([ord(c) for c in prompt + response])
        tensors["attention_mask"][row, :total] = 1
        tensors["loss_mask"][row, len(prompt) : total] = 1
    return {**tensors, "rewards": torch.ones(len(rows))}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [[23.0, 21.0], [34.0]]),
        ({"weight": 0.5}, [[11.5, 10.5], [17.0]]),
        ({"mode": "add"}, [[24.0, 22.0], [35.0]]),
    ],
)
def test_scores_are_written_into_the_groups(settings, expected):
    batch = [group(("ab", "xyz"), ("ab", "x")), group(("abc", "wxyz"))]
    with RolloutScorer(size, tokenizer=Letters(), **settings) as scorer:
        assert scorer(batch) is batch
        assert scorer([]) == []
    assert [one["rewards"].tolist() for one in batch] == expected
    assert batch[0]["rewards"].dtype == torch.float32


def test_a_failure_stops_the_step_and_writes_nothing():
    batch = [group(("ab", "xyz")), group(("ab", "bad"))]
    with (
        RolloutScorer(size, tokenizer=Letters()) as scorer,
        pytest.raises(ScoringFailed, match=r"size: raised \(scorer\): ValueError: a bug"),
    ):
        scorer(batch)
    assert [one["rewards"].tolist() for one in batch] == [[1.0], [1.0]]


def test_the_neutral_number():
    batch = [group(("ab", "xyz"), ("ab", "bad"))]
    with RolloutScorer(size, tokenizer=Letters(), neutral=-3.0) as scorer:
        scorer(batch)
    assert batch[0]["rewards"].tolist() == [23.0, -3.0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda one: one.pop("loss_mask"), "has no 'loss_mask'"),
        (lambda one: one.pop("rewards"), "has no 'rewards'"),
        (lambda one: one["loss_mask"].zero_(), "row 0 of group 1 has no token of the policy"),
        (lambda one: one.update(rewards=torch.ones(3)), "rewards of shape"),
    ],
)
def test_tensors_that_do_not_fit(change, message):
    batch = [group(("ab", "x")), group(("ab", "xyz"))]
    change(batch[-1])
    with (
        RolloutScorer(size, tokenizer=Letters()) as scorer,
        pytest.raises(ConfigError, match=message),
    ):
        scorer(batch)


class Trainer:
    """A `PPOTrainer` as far as `install` looks at it; AReaL's own is in the contract test."""

    def __init__(self, *, offloads):
        self._should_offload_rollout = offloads
        self.offloaded = []
        self.actor = SimpleNamespace(prepare_batch=self.prepare, get_version=lambda: 3)

    def prepare(self, dataloader, *, group_size):
        self.batch = [group(("ab", "xyz"))]
        return self.batch

    def _offload_rollout(self, is_eval=False):
        self.offloaded.append(self.batch[0]["rewards"].tolist())


@pytest.mark.parametrize(("offloads", "before"), [(True, [1.0]), (False, [23.0])])
def test_a_step_is_scored_once_its_rollout_has_left_the_device(offloads, before):
    trainer = Trainer(offloads=offloads)
    with RolloutScorer(size, tokenizer=Letters()) as scorer:
        scorer.install(trainer)
        for _ in range(2):
            batch = trainer.actor.prepare_batch(None, group_size=1)
            if offloads:
                trainer._offload_rollout()
                trainer._offload_rollout(is_eval=True)
            assert batch[0]["rewards"].tolist() == [23.0]
    assert trainer.offloaded == ([[1.0], [23.0]] * 2 if offloads else [])


def test_a_schedule_sees_the_version_of_the_policy():
    @reward(name="at_step", auto_register=False)
    def at_step(response: str, step: int) -> float:
        """The step."""
        return float(step)

    trainer = Trainer(offloads=False)
    with RolloutScorer(at_step, tokenizer=Letters()) as scorer:
        scorer.install(trainer)
        assert trainer.actor.prepare_batch(None, group_size=1)[0]["rewards"].tolist() == [3.0]


@pytest.mark.parametrize("trainer", [SimpleNamespace(), SimpleNamespace(actor=SimpleNamespace())])
def test_something_else_than_the_trainer(trainer):
    with (
        RolloutScorer(size, tokenizer=Letters()) as scorer,
        pytest.raises(ConfigError, match="has not the rollout of a PPOTrainer"),
    ):
        scorer.install(trainer)


class Handle:
    """A tensor in another process, as a single controller of AReaL has them."""

    fetched = 0

    def __init__(self, tensor):
        self.tensor = tensor

    @staticmethod
    def localize(groups):
        Handle.fetched += 1
        return [{key: value.tensor for key, value in one.items()} for one in groups]


def test_tensors_in_other_processes_are_fetched_once():
    tensors = [group(("ab", "xyz")), group(("abc", "wxyz"))]
    batch = [{key: Handle(value) for key, value in one.items()} for one in tensors]
    with RolloutScorer(size, tokenizer=Letters(), mode="add") as scorer:
        scorer(batch)
    assert [one["rewards"].tolist() for one in batch] == [[24.0], [35.0]]
    assert Handle.fetched == 1
    assert isinstance(batch[0]["input_ids"], Handle)


def test_token_ids_go_to_the_model_as_they_are(tmp_path):
    from guerdon.models.lock import DeviceLock
    from guerdon.models.scalar import ScalarRewardModel
    from guerdon.models.tiny import make_tiny

    model = ScalarRewardModel(str(make_tiny(tmp_path / "model")), device="cpu")
    batch = [group(("ab", "xyz"), ("ab", "x")), group(("ab", "xyz"))]
    with RolloutScorer(model, lock=DeviceLock("cpu", folder=str(tmp_path))) as scorer:
        scorer(batch)
    (first, second), (again,) = (one["rewards"].tolist() for one in batch)
    assert first == pytest.approx(again, abs=1e-6)  # in another batch, beside another row
    assert first != second
    assert np.isfinite([first, second]).all()
    assert model.residency.state == "host"
