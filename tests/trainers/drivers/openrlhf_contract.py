"""Drives OpenRLHF's single-turn executor with a file; run by `test_openrlhf_contract.py`.

    OPENRLHF_PYTHON openrlhf_contract.py FOLDER ADDRESS

ADDRESS is that of a server that hosts the rewards. The file is the one of
`docs/trainers/openrlhf.md`, with other rewards. What the executor makes of it is written to
FOLDER/seen.json.
"""

import asyncio
import json
import sys
from pathlib import Path
from types import SimpleNamespace

from openrlhf.utils import agent

from guerdon.registry import load_file
from guerdon.trainers.openrlhf import StopTraining

FOLDER = Path(sys.argv[1]).resolve()
cases = load_file(str(Path(__file__).parents[1] / "parity" / "cases.py"))
END = 256


class ByteTokenizer:
    """One token per byte, and one that ends a response."""

    def __call__(self, *, text, **_):
        import torch

        return {"input_ids": torch.tensor([list(text.encode())])}

    def decode(self, ids, **_):
        return bytes(i for i in ids if i != END).decode() + "<|im_end|>" * (END in ids)


class Engine:
    """Generates the response of a row."""

    def __init__(self, response):
        self.text = response

    async def generate(self, prompt_ids, params, multi_modal_data=None):
        ids = [*self.text.encode(), END]
        output = SimpleNamespace(token_ids=ids, text=self.text, finish_reason="stop", logprobs=None)
        return SimpleNamespace(outputs=[output])


async def execute(file, rows):
    executor = agent.SingleTurnAgentExecutor([str(file)])

    async def one(row):
        label = {
            "ground_truth": row.ground_truth,
            "data_source": row.data_source,
            "judge": row.judge,
            "fault": row.fault,
        }
        params = SimpleNamespace(max_tokens=64, logprobs=None)
        try:
            found = await executor.execute(
                row.prompt, label, params, 512, ByteTokenizer(), Engine(row.response)
            )
        except StopTraining as stop:
            return f"StopTraining: {stop}"
        return {name: found[name] for name in ("reward", "scores", "extra_logs")}

    return await asyncio.gather(*[one(row) for row in rows])


def file_with(name, reference, **settings):
    return file_of(name, repr(reference), **settings)


def file_of(name, reward, **settings):
    file = FOLDER / f"{name}.py"
    file.write_text(
        "from guerdon.remote import RemoteReward\n"
        "from guerdon.trainers.openrlhf import reward_func_for\n"
        f"reward_func = reward_func_for({reward}, label_columns=True, **{settings!r})\n"
    )
    return file


def main():
    seen = {}
    pool = {"pool": {"workers": 1}}
    for name in cases.REWARDS:
        rule = "guerdon.rules.gsm8k:gsm8k"
        reference = rule if name == "rule" else cases.reference(name)
        files = {
            name: file_with(name, reference),
            f"{name} pool": file_with(f"{name}_pool", reference, backend=pool),
            f"{name} remote": file_of(f"{name}_remote", f"RemoteReward({sys.argv[2]!r}, {name!r})"),
        }
        for place, file in files.items():
            seen[place] = asyncio.run(execute(file, cases.ROWS))
    scores = file_with("scores", cases.reference("composite"), scores="correct")
    seen["scores"] = asyncio.run(execute(scores, cases.ROWS))
    settings = {"retry_within": 0, "backend": pool}
    raising = file_with("raising", cases.reference("faulty"), **settings)
    going_on = {**settings, "neutral": 0.125, "failure_share": 1.0}
    neutral = file_with("neutral", cases.reference("faulty"), **going_on)
    for fault in (*cases.FAULTS, "abstention"):
        rows = cases.rows_with(fault)
        seen[f"{fault} raises"] = asyncio.run(execute(raising, rows))
        seen[f"{fault} neutral"] = asyncio.run(execute(neutral, rows))
    (FOLDER / "seen.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main()
