"""Drives SkyRL-gym's own registry with our environment; run by `test_skyrl_contract.py`.

    SKYRL_PYTHON skyrl_contract.py FOLDER

What the environments gave is written to FOLDER/seen.json.
"""

import json
import sys
from pathlib import Path

import skyrl_gym
from omegaconf import OmegaConf
from skyrl_gym.envs.base_text_env import BaseTextEnv

from guerdon.registry import load_file
from guerdon.trainers import skyrl as ours

FOLDER = Path(sys.argv[1]).resolve()
cases = load_file(str(Path(__file__).parents[1] / "parity" / "cases.py"))


def extras(row):
    return {
        "reward_spec": {"method": "rule", "ground_truth": row.ground_truth},
        "data_source": row.data_source,
        "judge": row.judge,
        "fault": row.fault,
        "max_turns": 1,
    }


def step(row, **config):
    """As SkyRL's generator goes through an episode."""
    env = skyrl_gym.make("guerdon", env_config=OmegaConf.create(config), extras=extras(row))
    assert isinstance(env, BaseTextEnv)
    prompt, _ = env.init([{"role": "user", "content": row.prompt}])
    assert prompt[0]["content"] == row.prompt
    try:
        found = env.step(row.response)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    metrics = env.get_metrics()
    env.close()
    return {**found, "metrics": metrics}


def main():
    skyrl_gym.register(id="guerdon", entry_point="guerdon.trainers.skyrl:RewardEnv")
    seen = {}
    for name in cases.REWARDS:
        rule = "guerdon.rules.gsm8k:gsm8k"
        reference = rule if name == "rule" else cases.reference(name)
        seen[name] = [step(row, reward=reference) for row in cases.ROWS]
        pool = {"backend": {"pool": {"workers": 1}}}
        seen[f"{name} pool"] = [step(row, reward=reference, **pool) for row in cases.ROWS]
    averaged = [row["metrics"] for row in seen["composite"]]
    seen["averaged"] = BaseTextEnv.aggregate_metrics(averaged)
    faulty = {
        "reward": cases.reference("faulty"),
        "retry_within": 0,
        "backend": {"pool": {"workers": 1}},
    }
    for fault in (*cases.FAULTS, "abstention"):
        rows = cases.rows_with(fault)
        seen[f"{fault} raises"] = [step(row, **faulty) for row in rows]
        going_on = {**faulty, "neutral": 0.125, "failure_share": 1.0}
        seen[f"{fault} neutral"] = [step(row, **going_on) for row in rows]
    for name, config in (("no reward", {}), ("typo", {"reward": "gsm8k", "netural": 0.0})):
        try:
            seen[name] = step(cases.ROWS[0], **config)
        except Exception as error:
            seen[name] = str(error)
    ours.close()
    (FOLDER / "seen.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main()
