"""Drives verifiers' own `Task.score` with our functions; run by `test_verifiers_contract.py`.

    VERIFIERS_PYTHON verifiers_contract.py FOLDER ADDRESS

ADDRESS is that of a server that hosts the rewards. What verifiers recorded on the traces is written
to FOLDER/seen.json.
"""

import asyncio
import json
import sys
from pathlib import Path

from verifiers.v1.configs.agent import AgentConfig
from verifiers.v1.configs.task import RewardFunctionConfig, TaskConfig
from verifiers.v1.errors import TaskError
from verifiers.v1.graph import MessageNode
from verifiers.v1.task import Task, TaskData
from verifiers.v1.trace import AgentInfo, Trace, TraceTask
from verifiers.v1.types import AssistantMessage, ToolCall, ToolMessage, UserMessage

from guerdon.registry import load_file

FOLDER = Path(sys.argv[1]).resolve()
cases = load_file(str(Path(__file__).parents[1] / "parity" / "cases.py"))


class RowData(TaskData):
    answer: str | None = None
    data_source: str = "openai/gsm8k"
    judge: str = "up"
    fault: str = ""


def data_of(row):
    return RowData(
        prompt=row.prompt,
        answer=row.ground_truth,
        data_source=row.data_source,
        judge=row.judge,
        fault=row.fault,
    )


def trace_of(data, messages):
    nodes = [
        MessageNode(
            parent=place - 1 if place else None,
            message=message,
            sampled=isinstance(message, AssistantMessage),
        )
        for place, message in enumerate(messages)
    ]
    task = TraceTask[RowData](type="RowTask", data=data)
    return Trace(task=task, agent=AgentInfo(config=AgentConfig()), nodes=nodes)


class RowTask(Task[RowData]):
    pass


async def score(file, row, messages=None):
    data = data_of(row)
    said = [UserMessage(content=row.prompt), AssistantMessage(content=row.response)]
    trace = trace_of(data, messages or said)
    config = TaskConfig(rewards={"ours": RewardFunctionConfig(fn=f"{file}:reward", weight=0.5)})
    task = RowTask(data, config)
    error = None
    try:
        await task.score(trace)
    except TaskError as caught:
        error = str(caught)
    found = trace.rewards["ours"]
    return {
        "reward": None if found is None else [found.score, found.weight],
        "metrics": dict(trace.metrics),
        "error": error,
    }


def file_with(name, reference, **settings):
    return file_of(name, repr(reference), **settings)


def file_of(name, reward, **settings):
    file = FOLDER / f"{name}.py"
    file.write_text(
        "from guerdon.remote import RemoteReward\n"
        "from guerdon.trainers.verifiers import reward_for\n"
        f"reward = reward_for({reward}, **{settings!r})\n"
    )
    return file


async def drive():
    seen = {}
    pool = {"pool": {"workers": 1}}
    for name in cases.REWARDS:
        rule = "guerdon.rules.gsm8k:gsm8k"
        reference = rule if name == "rule" else cases.reference(name)
        remote = f"RemoteReward({sys.argv[2]!r}, {name!r})"
        files = {
            name: file_with(f"{name}_file", reference),
            f"{name} pool": file_with(f"{name}_pool", reference, backend=pool),
            f"{name} remote": file_of(f"{name}_remote", remote),
        }
        for place, file in files.items():
            seen[place] = await asyncio.gather(*[score(file, row) for row in cases.ROWS])
    settings = {"retry_within": 0, "backend": pool}
    raising = file_with("raising", cases.reference("faulty"), **settings)
    going_on = {**settings, "neutral": 0.125, "failure_share": 1.0}
    neutral = file_with("neutral", cases.reference("faulty"), **going_on)
    for fault in (*cases.FAULTS, "abstention"):
        rows = cases.rows_with(fault)
        seen[f"{fault} raises"] = await asyncio.gather(*[score(raising, row) for row in rows])
        seen[f"{fault} neutral"] = await asyncio.gather(*[score(neutral, row) for row in rows])
    call = ToolCall(id="1", name="add", arguments='{"a": 2}')
    turns = [
        UserMessage(content="2 + 2?"),
        AssistantMessage(content=None, tool_calls=[call]),
        ToolMessage(tool_call_id="1", content="4"),
        AssistantMessage(content="#### 4"),
    ]
    tools = file_with("tools", cases.reference("tool_names"))
    seen["turns"] = await score(tools, cases.ROWS[0], turns)
    seen["nothing said"] = await score(tools, cases.ROWS[0], [UserMessage(content="2 + 2?")])
    return seen


def main():
    seen = asyncio.run(drive())
    (FOLDER / "seen.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main()
