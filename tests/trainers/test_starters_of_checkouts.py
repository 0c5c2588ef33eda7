"""Files to start from of the trainers that are on no package index: they do what they say."""

import asyncio
import sys
from types import ModuleType

import pytest

pytest.importorskip("PIL")
import numpy as np
import yaml

from guerdon.registry import load_file
from guerdon.trainers import verl_omni
from guerdon.trainers.starter import write

PICTURE = np.zeros((256, 256, 3), np.uint8)


def test_agentflys_registers_when_it_is_imported(tmp_path, monkeypatch):
    write("agentfly", tmp_path / "run")
    load_file(str(tmp_path / "run" / "reward.py"))  # AgentFly is not here: nothing happens
    known = {}
    module = ModuleType("agentfly.rewards")
    module.register_reward = known.__setitem__
    monkeypatch.setitem(sys.modules, "agentfly", ModuleType("agentfly"))
    monkeypatch.setitem(sys.modules, "agentfly.rewards", module)
    write("agentfly", tmp_path / "there")
    load_file(str(tmp_path / "there" / "reward.py"))
    (line,) = (tmp_path / "there" / "agent.args").read_text().split()[1:]
    found = known[line.partition("agent.init_config.reward_name=")[2]]
    said = {"role": "assistant", "content": [{"type": "text", "text": "#### 42"}]}
    call = found(final_response="#### 42", trajectory=[said], id="r", answer="42", context=None)
    row = asyncio.run(call)
    assert row["reward"] == pytest.approx(0.9)
    assert (row["correct"], row["used_a_tool"]) == (1.0, 0.0)


def test_verl_omnis_lines_name_its_reward(tmp_path):
    write("verl_omni", tmp_path / "run")
    lines = (tmp_path / "run" / "reward.args").read_text().split()
    said = dict(line.lstrip("+").split("=", 1) for line in lines)
    prefix = "reward.custom_reward_function."
    module, name = (said.pop(f"{prefix}{key}") for key in ("path", "name"))
    assert module == "pkg://guerdon.trainers.verl_omni"
    kwargs = {k.removeprefix(f"{prefix}reward_kwargs."): yaml.safe_load(v) for k, v in said.items()}
    row = asyncio.run(getattr(verl_omni, name)("mine", PICTURE, "a wall", {}, **kwargs))
    verl_omni.close()
    assert row["guerdon_outcome"] == "score"
    assert row["component/large_enough"] == 1.0


@pytest.mark.neural
def test_unirls_configuration_makes_its_backend(tmp_path):
    import torch

    from guerdon.trainers import unirl

    write("unirl", tmp_path / "run")
    said = yaml.safe_load((tmp_path / "run" / "reward.yaml").read_text())["reward"]
    assert said.pop("_target_") == "guerdon.trainers.unirl.RemoteRewardService"
    backend = said.pop("backend")
    assert backend.pop("_target_") == "guerdon.trainers.unirl.GuerdonBackend"
    service = unirl.RewardService(unirl.GuerdonBackend(**backend), **said)
    made = type("Images", (), {"pixels": torch.zeros(1, 3, 256, 256)})()
    request = unirl.RewardRequest(generated={service.preferred_input_kind: made})
    found = service.compute_rewards(request)
    service.dispose()
    assert found.successes == [True]
    assert found.component_rewards["large_enough"] == [1.0]
