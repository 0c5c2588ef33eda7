"""One of the processes of a TRL run; run by `test_trl_ranks.py`, which starts itself twice.

    TRL_PYTHON trl_ranks.py FOLDER

FOLDER is empty and the driver's own. Without RANK it starts the processes and writes what they saw
to FOLDER/seen.json.
"""

import importlib.util
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

FOLDER = Path(sys.argv[1]).resolve()
SIZE, LIMIT_SECONDS = 2, 300

sibling = importlib.util.spec_from_file_location(
    "trl_contract", Path(__file__).with_name("trl_contract.py")
)
contract = importlib.util.module_from_spec(sibling)


def start():
    """Run every rank, and gather what each of them saw."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    sibling.loader.exec_module(contract)
    contract.make_model(FOLDER / "model")
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, str(FOLDER)],
            env={
                **os.environ,
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": port,
                "WORLD_SIZE": str(SIZE),
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "LOCAL_WORLD_SIZE": str(SIZE),
            },
        )
        for rank in range(SIZE)
    ]
    try:
        codes = [process.wait(timeout=LIMIT_SECONDS) for process in processes]
    finally:
        for process in processes:
            process.kill()
    if any(codes):
        sys.exit(f"the ranks ended with {codes}")
    seen = [json.loads((FOLDER / f"seen-{rank}.json").read_text()) for rank in range(SIZE)]
    (FOLDER / "seen.json").write_text(json.dumps(seen))


def run():
    """One rank: groups of 4, of which each process has half."""
    sibling.loader.exec_module(contract)
    from trl import GRPOConfig, GRPOTrainer

    from guerdon.compose import Child, WeightedSum
    from guerdon.errors import BadInput
    from guerdon.policy import NO_RETRY, Policy
    from guerdon.reward import reward
    from guerdon.service import RewardService
    from guerdon.trainers.trl import reward_function

    rank = int(os.environ["RANK"])

    @reward(name="compared", scope="group", auto_register=False)
    async def compared(responses: list[str]) -> list[dict]:
        longest = max(map(len, responses))
        return [{"score": float(len(r) == longest), "of": len(responses)} for r in responses]

    @reward(name="picky", auto_register=False)
    def picky(response: str) -> float:
        if os.environ["RANK"] == "1":
            raise BadInput("unusable on this rank")
        return float(len(response))

    @reward(name="lossy", auto_register=False)
    def lossy(response: str) -> float:
        if ord(response[-1]) % 2:
            raise BadInput("the text of one rank is enough to lose the group of both")
        return float(len(response))

    @reward(name="even", auto_register=False)
    def even(response: str) -> float | None:
        odd = os.environ["RANK"] == "1" and ord(response[-1]) % 2
        return None if odd else float(len(response))

    @reward(name="one", auto_register=False)
    def one(response: str) -> float:
        return 1.0

    def trainer(name, *functions, data=None):
        return GRPOTrainer(
            model=str(FOLDER / "model"),
            reward_funcs=list(functions),
            args=contract.arguments(
                GRPOConfig, name, per_device_train_batch_size=2, ddp_backend="gloo"
            ),
            train_dataset=contract.dataset(False) if data is None else data,
            processing_class=contract.AutoTokenizer.from_pretrained(FOLDER / "model"),
        )

    def steps(made):
        calls = []
        calculate = made._calculate_rewards

        def recorded(inputs, prompts, completions, ids):
            found = calculate(inputs, prompts, completions, ids)
            calls.append(
                {
                    "prompts": prompts,
                    "completions": completions,
                    "metrics": {key: list(values) for key, values in made._pending_metrics.items()},
                    "rewards": [[None if v != v else v for v in row] for row in found.tolist()],
                }
            )
            return found

        made._calculate_rewards = recorded
        made.train()
        return calls

    drops = Policy(retry=NO_RETRY, on={"data": "drop_group"})
    seen = {
        "processes": trainer("none", compared.call).accelerator.num_processes,
        # Two async functions and a sync one in one list: each sends on a group of its own.
        "compared": steps(
            trainer(
                "compared",
                reward_function(compared, num_generations=contract.GROUP),
                reward_function(compared, name="again"),
                reward_function(compared, name="sync", sync=True),
            )
        ),
        "dropped": steps(trainer("dropped", reward_function(lossy, policy=drops))),
        "served": steps(
            trainer("served", reward_function(RewardService(lossy, policy=drops), sync=True))
        ),
    }
    try:
        seen["raised"] = steps(trainer("raised", reward_function(picky)))
    except Exception as error:
        seen["raised"] = f"{type(error).__name__}: {error}"
    # A column that a rollout function wrote on one process only.
    data = contract.dataset(False)
    data = data.remove_columns("answer") if rank else data
    named = reward_function(compared, columns={"ground_truth": "answer"})
    try:
        seen["column"] = steps(trainer("column", named, data=data))
    except Exception as error:
        seen["column"] = f"{type(error).__name__}: {error}"
    both = WeightedSum({"even": Child(even, missing="renormalise"), "one": one})
    seen["metrics"] = steps(trainer("metrics", reward_function(both, name="sum")))
    (FOLDER / f"seen-{rank}.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    run() if "RANK" in os.environ else start()
