"""AgentFly's registry and chain: its own code where a checkout is named, else stand-ins.

AgentFly (Agent-One-Lab, 0.1.0) is on no package index; the package of that name there is another
project. With GUERDON_AGENTFLY_SOURCE, a checkout, the tests of `driven` run its own registry,
`Context` and end of a chain (`drivers/agentfly_contract.py`). `Registry` and `finalize` stand for
`rewards/reward_base.py` and for the end of `agents/chain/chain_base.py`: what they call, what they
await, what they make of the result. Messages are as `agents/agent_base.py` writes them.
"""

import asyncio
import base64
import inspect
import io
import math
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from guerdon.compose import Child, WeightedSum
from guerdon.errors import (
    BadInput,
    BudgetExceeded,
    ConfigError,
    InvalidReward,
    ScoringFailed,
    UnknownReward,
)
from guerdon.media import pixels_of
from guerdon.policy import Policy
from guerdon.registry import load_file, resolve
from guerdon.resources import Context, FolderSpec
from guerdon.reward import reward as guerdon_reward
from guerdon.sample import Message, Sample
from guerdon.service import RewardService
from guerdon.trainers.agentfly import BaseReward, register, reward

PARITY = Path(__file__).with_name("parity")
cases = load_file(str(PARITY / "cases.py"))
parity_rewards = load_file(str(PARITY / "rewards.py"))
interpreter = load_file(str(PARITY / "interpreter.py"))
FAULTS = [*cases.FAULTS, "abstention"]
FLAGS = {"guerdon_failed": 0.0, "guerdon_assigned": 0.0}


class Registry(ModuleType):
    """AgentFly's module `agentfly.rewards`."""

    def __init__(self):
        super().__init__("agentfly.rewards")
        self.known = {}

    def register_reward(self, name, found):
        self.known[name.lower()] = found


async def finalize(found, row, trajectory, final_response, rollout="r1", context=None):
    """The end of AgentFly's chain: reserved columns are dropped, all others are keywords."""
    reserved = ("final_response", "trajectory", "id")
    columns = {key: value for key, value in row.items() if key not in reserved}
    result = found(
        final_response=final_response,
        trajectory=trajectory,
        id=rollout,
        context=context,
        chain_id=rollout,
        group_id="g1",
        group_idx=0,
        chain_idx=2,
        finish_reason="no_tool_calls",
        **columns,
    )
    if inspect.isawaitable(result):
        result = await result
    extras = {key: value for key, value in result.items() if key != "reward"}
    assert all(isinstance(value, float) for value in extras.values())
    return float(result["reward"]), extras


@pytest.fixture
def agentfly(monkeypatch):
    module = Registry()
    monkeypatch.setitem(sys.modules, "agentfly", ModuleType("agentfly"))
    monkeypatch.setitem(sys.modules, "agentfly.rewards", module)
    return module.known


def text(content):
    return [{"type": "text", "text": content}]


def said(content, calls=()):
    message = {"role": "assistant", "content": text(content), "tool_calls": list(calls)}
    return {**message, "loss": True, "status": "continue" if calls else "terminal"}


CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": "{}"}}
ASKED = [{"role": "system", "content": "Add."}, {"role": "user", "content": text("2 + 2?")}]
TOOL = {"role": "tool", "tool_call_id": "c1", "tool_name": "add", "content": text("4")}
TURNS = [*ASKED, said("", [CALL]), TOOL, said("It is 4")]
FOLDED = [[*ASKED, said("", [CALL]), TOOL], [*ASKED, said("Summed: 4"), said("It is 4")]]


@reward(name="exact")
def exact(final_response: str, answer: str, strict: float = 1.0) -> float:
    """Written for AgentFly."""
    return strict if final_response == answer else 0.0


@reward(name="detailed")
async def detailed(final_response, trajectory, answer, **kwargs):
    """Async, with extra keys."""
    await asyncio.sleep(0)
    return {"reward": float(final_response.endswith(answer)), "turns": float(len(trajectory))}


class Tools(BaseReward):
    """A class, with data of its instance."""

    name = "tools"

    def __init__(self, least: int = 1):
        super().__init__()
        self.least = least

    def call(self, trajectory, final_response: str) -> dict:
        used = sum(message["role"] == "tool" for message in trajectory)
        return {"reward": float(used >= self.least), "tools": float(used)}


async def test_what_is_registered_is_called_by_the_chain(agentfly):
    register(exact)
    register(detailed, name="Detailed_One")
    register(Tools(least=1))
    assert set(agentfly) == {"exact", "detailed_one", "tools"}
    row = {"answer": "4", "question": "2 + 2?"}
    assert await finalize(agentfly["exact"], row, [*ASKED, said("4")], "4") == (1.0, FLAGS)
    found = await finalize(agentfly["detailed_one"], row, TURNS, "It is 4")
    assert found == (1.0, {**FLAGS, "turns": 5.0})
    assert await finalize(agentfly["tools"], {}, TURNS, "It is 4") == (1.0, {**FLAGS, "tools": 1.0})
    assert (await finalize(agentfly["tools"], {}, [*ASKED, said("no")], "no"))[0] == 0.0


async def test_a_guerdon_reward_by_its_name(agentfly):
    register("gsm8k", name="ours")
    row = {"answer": "6*7 = 42\n#### 42"}
    assert (await finalize(agentfly["ours"], row, [], "so\n#### 42"))[0] == 1.0


async def test_the_trajectory_is_the_conversation(agentfly):
    seen = {}

    @guerdon_reward(name="nosy", auto_register=False)
    def nosy(final_response, trajectory, question, prompt, prompt_messages, metadata) -> float:
        seen.update(locals())
        return 1.0

    register(nosy)
    await finalize(agentfly["nosy"], {"question": "q?", "level": 2}, TURNS, "It is 4")
    assert seen["final_response"] == "It is 4"
    assert [message.role for message in seen["trajectory"]] == ["assistant", "tool", "assistant"]
    assert seen["trajectory"][0].tool_calls[0].name == "add"
    assert seen["trajectory"][1] == Message("tool", seen["trajectory"][1].content, (), "c1", "add")
    assert [message.role for message in seen["prompt_messages"]] == ["system", "user"]
    assert (seen["prompt"], seen["question"]) == ("2 + 2?", "q?")
    row = {"question": "q?", "level": 2, "id": "r1", "chain_id": "r1", "group_idx": 0}
    assert seen["metadata"] == {**row, "chain_idx": 2, "finish_reason": "no_tool_calls"}


async def test_ids_and_columns_that_are_fields_of_a_sample(agentfly):
    seen = {}

    @guerdon_reward(name="nosy", auto_register=False)
    def nosy(prompt, data_source, sample_id, group_id, response_messages) -> float:
        seen.update(locals())
        return 1.0

    register(nosy)
    talk = [*ASKED, said("", [CALL])]
    row = {"prompt": "as in the row", "data_source": "sums"}
    await finalize(agentfly["nosy"], row, talk, "", rollout="r7")
    assert (seen["prompt"], seen["data_source"], seen["group_id"]) == (
        "as in the row",
        "sums",
        "g1",
    )
    assert seen["sample_id"].startswith("nosy[r7]#")
    (message,) = seen["response_messages"]
    assert message.tool_calls[0].name == "add"  # a call that no tool has answered


async def test_names_are_agentflys_and_not_guerdons(agentfly):
    @reward(name="spoken")
    def called_otherwise(final_response) -> float:
        return 1.0

    @reward(name="shared_by_name", auto_register=True)
    def shared(final_response) -> float:
        return 1.0

    register(called_otherwise)
    assert set(agentfly) == {"spoken"}
    assert resolve("shared_by_name").name == "shared_by_name"
    for name in ("spoken", "tools"):
        with pytest.raises(UnknownReward):
            resolve(name)


async def test_what_is_no_number_of_a_dict_is_information():
    @reward(name="told")
    def told(final_response) -> dict:
        return {"reward": 1.0, "length": 2, "why": "right", "parts": [1]}

    with RewardService(told) as service:
        (score,) = await service.score([Sample(response="4")])
    assert (dict(score.metrics), dict(score.info)) == (
        {"length": 2.0},
        {"why": "right", "parts": [1]},
    )


async def test_rewards_written_for_agentfly_get_messages_as_dicts(agentfly):
    seen = []

    @reward(name="reader")
    def reader(trajectory, finish_reason, id) -> float:
        seen.append((trajectory, finish_reason, id))
        return 1.0

    register(reader)
    await finalize(agentfly["reader"], {}, TURNS, "It is 4")
    ((trajectory, finish_reason, rollout),) = seen
    assert (finish_reason, rollout) == ("no_tool_calls", "r1")
    known = [{key: m[key] for key in m if key not in ("loss", "status")} for m in TURNS]
    known[0] = {"role": "system", "content": text("Add.")}  # as AgentFly's own rewards accept it
    assert trajectory == known


@pytest.mark.parametrize("written", [exact, Tools(least=1)])
async def test_they_run_in_workers_too(agentfly, written, pool):
    register(written.configure(deadline=20.0), name="there", backend=pool)
    found = await finalize(agentfly["there"], {"answer": "It is 4"}, TURNS, "It is 4")
    assert found[0] == 1.0


async def test_segments_of_a_folded_rollout_follow_one_another(agentfly):
    seen = {}

    @guerdon_reward(name="nosy", auto_register=False)
    def nosy(final_response, trajectory, prompt) -> float:
        seen.update(locals())
        return 1.0

    register(nosy)
    await finalize(agentfly["nosy"], {}, FOLDED, "It is 4")
    roles = [message.role for message in seen["trajectory"]]
    assert roles == ["assistant", "tool", "system", "user", "assistant", "assistant"]
    assert (seen["prompt"], seen["final_response"]) == ("2 + 2?", "It is 4")


async def test_the_final_response_may_be_a_tools(agentfly):
    """AgentFly takes the last message of the model or of a tool."""
    register(exact)
    register("gsm8k", name="ours")
    cut = [*ASKED, said("I add", [CALL]), TOOL]
    assert (await finalize(agentfly["exact"], {"answer": "4"}, cut, "4"))[0] == 1.0
    # A rule reads what the model said, and that is no answer.
    assert (await finalize(agentfly["ours"], {"answer": "#### 4"}, cut, "#### 4"))[0] == 0.0


@pytest.mark.parametrize(
    ("trajectory", "message"),
    [
        ("a text", "a trajectory is a list, got a str"),
        ([*ASKED, 7], "got a int"),
        ([{"content": "no role"}], "a dict with 'role'"),
        ([*ASKED, {"role": "assistant", "content": [{"type": "smell"}]}, TOOL], "unknown type"),
    ],
)
async def test_what_is_no_trajectory_fails_as_data(agentfly, trajectory, message):
    register(exact, retry_within=0)
    with pytest.raises(ScoringFailed) as caught:
        await finalize(agentfly["exact"], {"answer": "4"}, trajectory, "4")
    assert "bad_input (data)" in str(caught.value)
    assert message in str(caught.value)
    register(exact, retry_within=0, neutral=0.25, failure_share=1.0)
    found = await finalize(agentfly["exact"], {"answer": "4"}, trajectory, "4")
    assert found == (0.25, {"guerdon_failed": 1.0, "guerdon_assigned": 1.0})


async def test_the_keys_are_the_same_for_every_rollout(agentfly):
    """AgentFly makes a column of each key; a hole in it is None, over which it sums."""

    @reward(name="uneven")
    def uneven(final_response) -> dict:
        if final_response == "broken":
            raise ValueError("a bug")
        more = {"length": float(len(final_response))} if final_response else {}
        return {"reward": 1.0, **more}

    register(uneven, retry_within=0, neutral=0.0, failure_share=1.0)
    rows = [await finalize(agentfly["uneven"], {}, [], said) for said in ("four", "", "broken")]
    assert [set(extras) for _, extras in rows] == [{*FLAGS, "length"}] * 3
    assert rows[0][1]["length"] == 4.0
    assert all(math.isnan(extras["length"]) for _, extras in rows[1:])


@pytest.mark.parametrize(
    ("metrics", "keys"),
    [(None, [{*FLAGS}, {*FLAGS, "length"}]), (["length", "odd"], [{*FLAGS, "length", "odd"}] * 2)],
)
async def test_metrics_that_are_not_there_at_first(agentfly, metrics, keys):
    """AgentFly puts a value under another rollout where a rollout before has no such key."""

    @reward(name="late")
    def late(final_response) -> dict:
        more = {"length": 4.0, "text": "kept out"} if final_response else {}
        return {"reward": 1.0, **more}

    register(late, metrics=metrics)
    rows = [(await finalize(agentfly["late"], {}, [], said))[1] for said in ("", "four")]
    assert [set(extras) for extras in rows] == keys
    assert rows[1]["length"] == 4.0


async def test_metrics_that_nobody_named_are_left_out(agentfly):
    register(detailed, metrics=())
    row = {"answer": "4"}
    assert await finalize(agentfly["detailed"], row, TURNS, "It is 4") == (1.0, FLAGS)
    with pytest.raises(ConfigError, match="a list of names, got 'turns'"):
        register(detailed, metrics="turns")


async def test_images_and_messages_as_openais_models_give_them(agentfly):
    """PIL images, bytes, `data:` URLs; a text that is None beside a tool call."""
    image = pytest.importorskip("PIL.Image")
    seen = {}

    @reward(name="looker")
    def looker(trajectory) -> float:
        seen["parts"] = [part for message in trajectory for part in message["content"]]
        return 1.0

    @guerdon_reward(name="pixels", auto_register=False)
    def pixels(prompt_messages) -> float:
        return float(pixels_of(prompt_messages[0].content[0].media).max())

    register(looker)
    register(pixels)
    jpeg = io.BytesIO()
    white = image.new("RGB", (4, 4), "white")
    white.save(jpeg, format="JPEG")
    url = f"data:image/jpeg;base64,{base64.b64encode(jpeg.getvalue()).decode()}"
    silent = {"role": "assistant", "content": [{"type": "text", "text": None}]}
    for given in (white, url, jpeg.getvalue()):
        asked = {"role": "user", "content": [{"type": "image", "image": given}]}
        talk = [asked, {**silent, "tool_calls": [CALL]}, TOOL]
        assert (await finalize(agentfly["pixels"], {}, talk, "4"))[0] == 255.0
        assert (await finalize(agentfly["looker"], {}, talk, "4"))[0] == 1.0
        picture, nothing, answer = seen["parts"]
        assert (nothing["text"], answer["text"]) == ("", "4")
        if given is not white:
            assert picture == {"type": "image", "image": url}
    asked = {"role": "user", "content": [{"type": "image", "image": "pictures/a.png"}]}
    await finalize(agentfly["looker"], {}, [asked, said("4")], "4")
    assert seen["parts"][0] == {"type": "image", "image": "pictures/a.png"}


async def test_columns_that_agentfly_reserves(agentfly):
    """`context` and `reward_fn` as columns end in a TypeError in AgentFly before we are called."""
    register(exact)
    row = {"answer": "4", "id": "mine", "trajectory": "mine", "final_response": "mine"}
    assert (await finalize(agentfly["exact"], row, [*ASKED, said("4")], "4"))[0] == 1.0
    with pytest.raises(TypeError, match="multiple values"):
        await finalize(agentfly["exact"], {"answer": "4", "context": "a text"}, [], "4")


async def test_positional_calls_and_rewards_without_names_are_refused(agentfly):
    found = register(exact)
    with pytest.raises(TypeError):
        found("4", "4")
    with pytest.raises(TypeError, match="final_response="):
        await found(prediction="4", answer="4")
    with pytest.raises(InvalidReward, match="keywords only"):
        reward()(lambda *everything: 1.0)
    with pytest.raises(InvalidReward, match=r"write @reward\(\)"):
        reward(exact.call)


async def test_instances_of_one_class_keep_their_names(agentfly):
    """In AgentFly a name given to one instance becomes that of all."""

    class Named(BaseReward):
        def __init__(self, name: str, value: float):
            super().__init__(name=name)
            self.value = value

        def call(self, final_response):
            return {"reward": self.value, "exact": np.float32(0.5), "text": "kept out"}

    first, second = Named("first", 0.25), Named("second", 0.75)
    register(first)
    register(second)
    assert set(agentfly) == {"first", "second"}
    assert await finalize(agentfly["first"], {}, [], "x") == (0.25, {**FLAGS, "exact": 0.5})
    assert (await finalize(agentfly["second"], {}, [], "x"))[0] == 0.75


async def test_the_context_of_the_rollout_reaches_the_reward(agentfly):
    @reward(name="in_folder")
    async def in_folder(final_response, context: Context) -> float:
        folder = await context.acquire_resource(FolderSpec())
        return float(folder is await context.acquire_resource(FolderSpec()))

    register(in_folder)
    with Context("rollout-7") as context:
        found = await finalize(agentfly["in_folder"], {}, [], "x", context=context)
        assert found[0] == 1.0
        assert len(context.held) == 1  # it is the caller's own, and lives on


async def test_agentflys_own_context_is_passed_as_it_is(agentfly):
    class Theirs:
        rollout_id, metadata = "r1", {"answer": "4"}

        async def acquire_resource(self, **keywords):
            return SimpleNamespace(run_cmd=lambda cmd: f"{cmd} in {keywords['spec']}")

    @reward(name="in_container")
    async def in_container(final_response, context: Context) -> float:
        box = await context.acquire_resource(spec="python", scope="global", id="own")
        return float(box.run_cmd("ls") == "ls in python")

    register(in_container)
    found = await finalize(agentfly["in_container"], {}, [], "x", context=Theirs())
    assert found[0] == 1.0


@pytest.mark.parametrize("inside", [False, True])
async def test_failures_with_a_context_of_the_rollout(agentfly, inside):
    """Alone, or as a part of a composition, which asks for the context then."""

    @reward(name="waits")
    async def waits(final_response, context: Context) -> float:
        assert context.rollout_id == "r9"
        if final_response == "hangs":
            await asyncio.Event().wait()
        if final_response == "broken":
            raise ValueError("a bug")
        return None if final_response == "silent" else 1.0

    context = SimpleNamespace(rollout_id="r9")
    made = WeightedSum({"waits": Child(waits)}, name="waits") if inside else waits
    register(made, retry_within=0, timeout=0.2)
    assert (await finalize(agentfly["waits"], {}, [], "x", context=context))[0] == 1.0
    for said, told in (("hangs", "timeout"), ("silent", "neutral=")):
        with pytest.raises(ScoringFailed, match=told):
            await finalize(agentfly["waits"], {}, [], said, context=context)
    masked = RewardService(made, policy=Policy(abstention="mask"))
    register(masked, name="masked")
    with pytest.raises(ScoringFailed, match="neutral="):
        await finalize(agentfly["masked"], {}, [], "silent", context=context)
    masked.close()
    register(made, name="going_on", retry_within=0, neutral=0.0)

    async def rollouts(said):
        return [
            await finalize(agentfly["going_on"], {}, [], said, context=context) for _ in range(40)
        ]

    assert [number for number, _ in await rollouts("x")] == [1.0] * 40
    with pytest.raises(BudgetExceeded):
        await rollouts("broken")


@pytest.mark.parametrize(
    ("returned", "kind"),
    [
        (float("nan"), "non_finite"),
        ("good", "bad_output"),
        ({"score": "x"}, "bad_output"),
        ({"reward": float("inf")}, "non_finite"),
        (BadInput("no answer"), "bad_input"),
        (ValueError("a bug"), "raised"),
    ],
)
async def test_what_is_no_number_raises(agentfly, returned, kind):
    @reward(name="broken")
    def broken(final_response) -> float:
        if isinstance(returned, Exception):
            raise returned
        return returned

    register(broken, retry_within=0)
    with pytest.raises(ScoringFailed, match=f"broken: {kind}"):
        await finalize(agentfly["broken"], {}, [], "x")
    register(broken, name="going_on", retry_within=0, neutral=0.25, failure_share=1.0)
    number, extras = await finalize(agentfly["going_on"], {}, [], "x")
    assert (number, extras) == (0.25, {"guerdon_failed": 1.0, "guerdon_assigned": 1.0})


@pytest.mark.parametrize("returned", [None, {"reward": None}])
async def test_none_is_an_abstention_not_zero(agentfly, returned):
    @reward(name="silent")
    def silent(final_response):
        return returned

    register(silent)
    with pytest.raises(ScoringFailed, match="neutral="):
        await finalize(agentfly["silent"], {}, [], "x")


def test_without_agentfly_there_is_no_registry(monkeypatch):
    monkeypatch.setitem(sys.modules, "agentfly", None)
    monkeypatch.setitem(sys.modules, "agentfly.rewards", None)
    with pytest.raises(UnknownReward, match=r"agentfly\.rewards"):
        register(exact)


def test_the_other_project_of_that_name_is_told_apart(monkeypatch):
    monkeypatch.setitem(sys.modules, "agentfly", ModuleType("agentfly"))
    monkeypatch.setitem(sys.modules, "agentfly.rewards", ModuleType("agentfly.rewards"))
    with pytest.raises(ConfigError, match="another project"):
        register(exact)


def test_a_misspelt_setting_is_an_error():
    with pytest.raises(ConfigError, match="did you mean 'neutral'"):
        register(exact, into=print, netural=0.0)


# AgentFly's own code.


@pytest.fixture(scope="module")
def driven(tmp_path_factory):
    return interpreter.drive_checkout(
        "agentfly",
        tmp_path_factory.mktemp("agentfly"),
        modules=("src/agentfly/rewards/reward_base.py",),
    )


def test_its_registry_and_its_chain_take_ours(driven):
    assert driven["exact"] == {"reward": 1.0, **FLAGS}
    assert driven["tool_user"] == {"reward": 1.0, **FLAGS, "acc": 1.0, "system": 1.0}
    assert driven["least"] == {"reward": 1.0, **FLAGS, "turns": 5.0}
    assert driven["in_context"]["reward"] == 1.0
    assert driven["reserved"]["reward"] == 0.0


def test_its_folded_and_cut_rollouts(driven):
    for name in ("folded", "cut"):
        assert driven[name] == {"reward": 1.0, **FLAGS, "acc": 1.0, "system": 1.0}


def test_everything_that_its_chain_gives_can_be_asked_for(driven):
    given = {"id": "r1", "chain_id": "r1", "group_id": "g1", "group_idx": 0, "chain_idx": 1}
    given |= {"final_response": "4", "finish_reason": "no_tool_calls", "question": "2 + 2?"}
    assert driven["asked"] == given


@pytest.mark.parametrize("name", cases.REWARDS)
def test_its_chain_keeps_the_value(driven, name):
    tiny = parity_rewards.tiny_model
    expected = [
        tiny.call_sync(responses=[row.response])[0]
        if name == "tiny_model"
        else cases.REWARDS[name](row)
        for row in cases.ROWS
    ]
    assert [row["reward"] for row in driven[name]] == expected
    if name == "composite":
        holes = [row["tidy"] is None for row in driven[name]]
        assert holes == [row.judge == "down" for row in cases.ROWS]


@pytest.mark.parametrize("fault", FAULTS)
def test_its_chain_is_stopped_by_a_failure(driven, fault):
    whole, found, other = driven[f"{fault} raises"]
    assert whole["reward"] == other["reward"] == 1.0
    assert found.startswith("ScoringFailed")
    if fault != "abstention":
        kind, blame = cases.FAULTS[fault]
        assert f"faulty: {kind} ({blame})" in found


@pytest.mark.parametrize("fault", FAULTS)
def test_its_chain_keeps_the_flags(driven, fault):
    rows = driven[f"{fault} neutral"]
    assert [row["reward"] for row in rows] == [1.0, 0.125, 1.0]
    failed = float(fault != "abstention")
    assert rows[1] == {"reward": 0.125, "guerdon_failed": failed, "guerdon_assigned": 1.0}


@pytest.mark.parametrize("name", ["theirs", "theirs_as_class"])
def test_rewards_of_its_own_give_the_same_number_here(driven, name):
    assert driven[name] == [1.0, 1.0]
