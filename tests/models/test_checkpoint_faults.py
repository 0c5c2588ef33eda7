"""Checkpoints that are broken, hostile or of another kind."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from models.plain_forward import (  # noqa: E402
    Tiny,
    close_to,
    configured,
    copied,
    samples,
    score,
)
from safetensors.torch import load_file, save_file  # noqa: E402

from guerdon.errors import ConfigError, MissingExtra  # noqa: E402
from guerdon.models.scalar import ScalarRewardModel  # noqa: E402

pytestmark = pytest.mark.neural


class TestCheckpoints:
    @pytest.mark.parametrize(
        ("family", "kind", "found"),
        [
            ("qwen2", "causal", r"a language-model head \('lm_head.weight' of shape \[\d+, 64\]\)"),
            ("llama", "process", "a process-reward head of two layers"),
        ],
    )
    def test_what_is_no_reward_model_says_its_head(
        self, tiny: Tiny, family: str, kind: str, found: str
    ) -> None:
        with pytest.raises(ConfigError, match=f"is no model for ScalarRewardModel: it has {found}"):
            ScalarRewardModel(tiny(family, kind), device="cpu").load()

    def test_a_head_that_is_not_in_the_file_is_never_random(
        self, tiny: Tiny, tmp_path: Path
    ) -> None:

        folder = copied(tiny(), tmp_path)
        weights = load_file(Path(folder) / "model.safetensors")
        del weights["score.weight"]
        save_file(weights, Path(folder) / "model.safetensors")
        with pytest.raises(ConfigError, match="it has no head"):
            ScalarRewardModel(folder, device="cpu").load()

    def test_a_layer_that_is_not_in_the_file_is_never_random(
        self, tiny: Tiny, tmp_path: Path
    ) -> None:

        folder = copied(tiny(), tmp_path)
        weights = load_file(Path(folder) / "model.safetensors")
        del weights["model.layers.1.mlp.up_proj.weight"]
        save_file(weights, Path(folder) / "model.safetensors")
        with pytest.raises(ConfigError, match=r"lacks 1 weights.*up_proj"):
            ScalarRewardModel(folder, device="cpu").load()

    def test_nan_weights(self, tiny: Tiny, tmp_path: Path) -> None:

        folder = copied(tiny(), tmp_path)
        weights = load_file(Path(folder) / "model.safetensors")
        weights["score.weight"][0, 3] = math.nan
        save_file(weights, Path(folder) / "model.safetensors")
        with pytest.raises(ConfigError, match=r"'\S*score.weight' holds 1 of 64 values"):
            ScalarRewardModel(folder, device="cpu").load()

    def test_a_file_that_is_cut_short(self, tiny: Tiny, tmp_path: Path) -> None:
        folder = copied(tiny(), tmp_path)
        file = Path(folder) / "model.safetensors"
        file.write_bytes(file.read_bytes()[:-1000])
        with pytest.raises(ConfigError, match=r"model.safetensors is cut short at"):
            ScalarRewardModel(folder, device="cpu").load()

    @pytest.mark.parametrize("name", ["nowhere", "./nowhere", "/nowhere/at/all"])
    def test_no_such_folder(self, name: str) -> None:
        with pytest.raises(ConfigError, match="no such folder"):
            ScalarRewardModel(name, device="cpu").load()

    def test_a_folder_that_is_no_checkpoint(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"holds no config.json"):
            ScalarRewardModel(str(tmp_path), device="cpu").load()

    def test_weights_that_are_no_safetensors_load_without_running_code(
        self, tiny: Tiny, tmp_path: Path
    ) -> None:

        folder = copied(tiny(), tmp_path)
        file = Path(folder) / "model.safetensors"
        torch.save(load_file(file), file.with_name("pytorch_model.bin"))
        file.unlink()
        expected = score(ScalarRewardModel(tiny(), device="cpu"), samples())
        values = score(ScalarRewardModel(folder, device="cpu"), samples()).values
        assert close_to(values, expected.values.tolist())

    def test_a_pickle_that_runs_code_is_refused(self, tiny: Tiny, tmp_path: Path) -> None:
        folder = copied(tiny(), tmp_path)
        (Path(folder) / "model.safetensors").unlink()
        torch.save({"score.weight": Evil(tmp_path / "ran")}, Path(folder) / "pytorch_model.bin")
        with pytest.raises(ConfigError, match="a pickle that would run code"):
            ScalarRewardModel(folder, device="cpu").load()
        assert not (tmp_path / "ran").exists()

    def test_code_in_a_checkpoint_does_not_run(self, tiny: Tiny, tmp_path: Path) -> None:
        folder = copied(tiny(), tmp_path)
        (Path(folder) / "modeling_x.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
        configured(folder, model_type="x", auto_map={"AutoConfig": "modeling_x.XConfig"})
        with pytest.raises(ConfigError):
            ScalarRewardModel(folder, device="cpu").load()
        assert not (tmp_path / "ran").exists()

    def test_the_fingerprint_follows_the_weights_not_the_place(
        self, tiny: Tiny, tmp_path: Path
    ) -> None:

        folder = copied(tiny(), tmp_path)
        before = ScalarRewardModel(tiny(), device="cpu").fingerprint
        assert ScalarRewardModel(folder, device="cpu").fingerprint == before
        weights = load_file(Path(folder) / "model.safetensors")
        weights["score.weight"] += 0.1
        save_file(weights, Path(folder) / "model.safetensors")
        assert ScalarRewardModel(folder, device="cpu").fingerprint != before

    def test_without_transformers_the_extra_is_named(
        self, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        reward = ScalarRewardModel(tiny(), device="cpu")
        monkeypatch.setitem(sys.modules, "transformers", None)
        with pytest.raises(MissingExtra, match=r"guerdon\[models\]"):
            reward.load()

    def test_a_model_that_failed_to_load_is_not_loaded(self, tiny: Tiny) -> None:
        reward = ScalarRewardModel(tiny(), device="cpu", score_at="<|R|>")
        for _ in range(2):
            with pytest.raises(ConfigError, match="score_at"):
                reward.load()
        assert reward.residency.state == "absent"


class Evil:
    """Unpickled, it would leave a file behind."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return open, (str(self.trace), "w")
