"""Drives the end of AgentFly's chain with our rewards; run by `test_agentfly_contract.py`.

    python agentfly_contract.py FOLDER CHECKOUT

CHECKOUT is a checkout of Agent-One-Lab/AgentFly. Its registry, its `Context`, its way from a chain
to a reward's arguments and from a result to a `RewardResult` are its own; the messages are written
here as its agents write them. What AgentFly saw is written to FOLDER/seen.json.
"""

import asyncio
import inspect
import json
import math
import sys
from pathlib import Path
from types import MethodType, SimpleNamespace

FOLDER, CHECKOUT = (Path(argument).resolve() for argument in sys.argv[1:3])
sys.path.insert(0, str(CHECKOUT / "src"))

from agentfly.agents.agent_base import BaseAgent  # noqa: E402
from agentfly.core import Context  # noqa: E402
from agentfly.rewards import BaseReward as TheirBaseReward  # noqa: E402
from agentfly.rewards import get_reward_from_name  # noqa: E402
from agentfly.rewards import reward as their_reward  # noqa: E402

from guerdon.errors import ScoringFailed  # noqa: E402
from guerdon.registry import load_file, resolve  # noqa: E402
from guerdon.trainers import agentfly as ours  # noqa: E402

cases = load_file(str(Path(__file__).parents[1] / "parity" / "cases.py"))
NEUTRAL = 0.125
HERE = Path(__file__).resolve()


def text(content):
    return [{"type": "text", "text": content}]


def said(content, calls=()):
    message = {"role": "assistant", "content": text(content), "tool_calls": list(calls)}
    return {**message, "loss": True, "status": "continue" if calls else "terminal"}


CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 2}'}}
ASKED = [{"role": "system", "content": "Add."}, {"role": "user", "content": text("2 + 2?")}]
TOOL = {"role": "tool", "tool_call_id": "c1", "tool_name": "add", "content": text("4")}
TALK = [*ASKED, said("", [CALL]), TOOL, said("It is 4")]
FOLDED = [[*ASKED, said("", [CALL]), TOOL], [*ASKED, said("Summed: 4"), said("It is 4")]]
CUT = [*ASKED, said("", [CALL]), TOOL]


def chain_of(reward_fn):
    """What ends a rollout in AgentFly: one agent that is a chain, or an agent and a rollout."""
    try:
        from agentfly.agents.rollout.base import Rollout
    except ImportError:
        from agentfly.agents.chain.chain_base import ChainRollout

        agent = object.__new__(ChainRollout)
        finalize = agent._finalize_chain
    else:
        agent = SimpleNamespace()
        made = type("OneRollout", (Rollout,), {"run": None})
        finalize = object.__new__(made).finalize_chain
    agent._reward_fn = reward_fn
    agent.extract_final_response = MethodType(BaseAgent.extract_final_response, agent)
    return agent, finalize


async def finish(name, row, segments, rollout="r1", group="g1"):
    """The end of one rollout, from `chain.info` to what AgentFly keeps of the reward."""
    added = {"chain_id": rollout, "group_id": group, "group_idx": 0, "chain_idx": 1}
    chain = SimpleNamespace(info={**row, **added}, histories=[*segments[:-1]], steps=list)
    chain.info["finish_reason"] = "no_tool_calls"
    context = Context(rollout_id=rollout, group_id=group, metadata=chain.info)
    if len(segments) > 1:
        context.trajectory_format = "segmented"
    node = SimpleNamespace(messages=SimpleNamespace(messages=segments[-1]))
    agent, finalize = chain_of(get_reward_from_name(name))
    arguments = [rollout, chain, node, 1, context]
    if "agent" in inspect.signature(finalize).parameters:
        arguments.insert(0, agent)
    try:
        await finalize(*arguments)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    found = chain.info["reward"]
    extras = getattr(found, "extras", None) or getattr(found, "metrics", {})
    return {
        "reward": found.reward,
        **{key: None if math.isnan(value) else value for key, value in extras.items()},
    }


@ours.reward(name="exact")
def exact(final_response: str, answer: str) -> float:
    return 1.0 if final_response == answer else 0.0


@ours.reward(name="tool_user")
async def tool_user(final_response, trajectory, answer, **kwargs):
    """Reads messages as AgentFly's own rewards do."""
    used = any(message["role"] == "tool" for message in trajectory)
    first = trajectory[0]["content"][0]["text"]
    calls = [call for message in trajectory for call in message.get("tool_calls", ())]
    assert all(call["function"]["name"] == "add" for call in calls), calls
    right = final_response.endswith(answer)
    return {"reward": float(used and right), "acc": float(right), "system": float(first == "Add.")}


class Least(ours.BaseReward):
    name = "least"

    def __init__(self, least: int = 1):
        super().__init__()
        self.least = least

    def call(self, trajectory) -> dict:
        return {"reward": float(len(trajectory) >= self.least), "turns": float(len(trajectory))}


@ours.reward(name="asks_all")
def asks_all(final_response, id, chain_id, group_id, group_idx, chain_idx, finish_reason, question):
    seen.setdefault("asked", {}).update(locals())
    return 1.0


@ours.reward(name="in_context")
async def in_context(final_response, context: Context) -> float:
    box = await context.acquire_resource(id="box", spec=SPEC, scope="global")
    assert context.final_response == final_response
    assert box is await context.acquire_resource(id="box", spec=SPEC, scope="global")
    return float(context.metadata["answer"] == "4")


SPEC = SimpleNamespace(category="python_env", image="python", max_global_num=1)


@their_reward(name="theirs")
def theirs(final_response: str, trajectory, answer: str) -> dict:
    used = any(message["role"] == "tool" for message in trajectory)
    return {"reward": float(used and final_response.endswith(answer)), "acc": 1.0}


class Theirs(TheirBaseReward):
    name = "theirs_as_class"

    async def call(self, final_response, answer, context):
        return 1.0 if context.trajectory[-1]["content"][0]["text"] == f"It is {answer}" else 0.0


theirs_as_class = Theirs()
seen = {}


async def drive():
    ours.register(exact)
    ours.register(tool_user, name="Tool_User")
    ours.register(Least(least=5))
    ours.register(asks_all)
    ours.register(in_context)
    row = {"answer": "4", "question": "2 + 2?"}
    seen["exact"] = await finish("exact", row, [[*ASKED, said("4")]])
    seen["tool_user"] = await finish("TOOL_USER", row, [TALK])
    seen["folded"] = await finish("tool_user", row, FOLDED)
    seen["cut"] = await finish("tool_user", row, [CUT])
    seen["least"] = await finish("least", row, [TALK])
    seen["asks_all"] = await finish("asks_all", row, [[*ASKED, said("4")]])
    seen["in_context"] = await finish("in_context", row, [TALK])
    seen["reserved"] = await finish("exact", {**row, "id": "mine", "trajectory": 1}, [TALK])
    seen["broken messages"] = await finish("tool_user", row, [[*ASKED, {"role": "assistant"}]])
    for name in cases.REWARDS:
        rule = "guerdon.rules.gsm8k:gsm8k"
        ours.register(rule if name == "rule" else cases.reference(name), name=f"parity_{name}")
        seen[name] = [await parity(f"parity_{name}", row) for row in cases.ROWS]
    faulty = {"retry_within": 0, "backend": {"pool": {"workers": 1}}}
    ours.register(cases.reference("faulty"), name="raises", **faulty)
    going_on = {**faulty, "neutral": NEUTRAL, "failure_share": 1.0}
    ours.register(cases.reference("faulty"), name="goes_on", **going_on)
    for fault in (*cases.FAULTS, "abstention"):
        rows = cases.rows_with(fault)
        seen[f"{fault} raises"] = [await parity("raises", row) for row in rows]
        seen[f"{fault} neutral"] = [await parity("goes_on", row) for row in rows]
    await own()


async def parity(name, row):
    columns = {"answer": row.ground_truth, "data_source": row.data_source}
    talk = [{"role": "user", "content": text(row.prompt)}, said(row.response)]
    row = {**columns, "judge": row.judge, "fault": row.fault}
    return await finish(name, row, [talk])


async def own():
    """Rewards that were written for AgentFly, in AgentFly and by us: the same number."""
    from guerdon.sample import Sample
    from guerdon.service import RewardService

    here = str(HERE)
    sample = Sample(prompt=ASKED, response=TALK[2:], ground_truth="4")
    for name in ("theirs", "theirs_as_class"):
        theirs = await finish(name, {"answer": "4"}, [TALK])
        service = RewardService(resolve(f"agentfly:{here}:{name}"))
        outcomes = await service.score([sample])
        seen[name] = [theirs["reward"], outcomes[0].value]


def main():
    assert issubclass(ScoringFailed, Exception)
    asyncio.run(drive())
    seen["asked"].pop("seen", None)
    (FOLDER / "seen.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main()
