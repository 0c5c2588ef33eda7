"""Rewards that name `context`: here, on an event loop, in a worker; and a caller's own."""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

import psutil
import pytest
from resources import lent_rewards

from guerdon.backends.backend import current_scoring
from guerdon.errors import BadInput, ConfigError, FailureKind, InvalidReward
from guerdon.outcome import Score
from guerdon.policy import Policy
from guerdon.resources import Context, FolderSpec, Resources, process_resources
from guerdon.reward import BaseReward, reward
from guerdon.sample import Sample
from guerdon.service import RewardService

MASKED = Policy(on=dict.fromkeys(("scorer", "infrastructure", "data"), "mask"))


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    yield
    held = [held for held in process_resources().held() if held.holder.scope != "global"]
    assert held == []


def samples(*responses: str) -> list[Sample]:
    return [Sample(response=text, sample_id=f"s-{text}") for text in responses]


def score(reward: Any, *responses: str, **options: Any) -> Any:
    with RewardService(reward, policy=MASKED) as service:
        return service.score_sync(samples(*responses), **options)


def test_each_sample_gets_a_context_of_its_own_that_is_reset() -> None:
    outcomes = score(lent_rewards.own_folder, "a", "b", "c")
    assert outcomes.values.tolist() == [1.0, 1.0, 1.0]
    assert [o.info["rollout"] for o in outcomes] == ["s-a", "s-b", "s-c"]


@pytest.mark.parametrize(
    ("annotation", "lent"),
    [
        (str | None, False),
        (Optional[str], False),  # noqa: UP045 - as others write it
        ("Optional[Sequence[str]]", False),
        (list[dict[str, Any]], False),
        ("typing.List[str]", False),
        (Context, True),
        ("Context | None", True),
        ("interface.Context", True),
        ("StringContext", True),
        (Any, True),
        (inspect.Parameter.empty, True),
    ],
)
def test_a_column_called_context_is_told_by_its_annotation(annotation: Any, lent: bool) -> None:
    def question(context, response: str) -> float:  # type: ignore[no-untyped-def]
        return float(isinstance(context, Context))

    question.__annotations__ = {"response": str, "context": annotation, "return": float}
    if annotation is inspect.Parameter.empty:
        del question.__annotations__["context"]
    sample = Sample(response="a", metadata={} if lent else {"context": "the text"})
    with RewardService(reward(auto_register=False)(question), policy=MASKED) as service:
        assert service.score_sync([sample]).values.tolist() == [float(lent)]


def test_a_batch_shares_and_the_next_batch_does_not() -> None:
    with RewardService(lent_rewards.async_folder) as service:
        for _ in range(2):
            values = service.score_sync(samples("a", "b", "c")).values.tolist()
            assert sorted(values) == [1.0, 2.0, 3.0]


def test_a_reward_of_a_whole_batch_has_one() -> None:
    assert score(lent_rewards.whole_batch, "a", "b").values.tolist() == [1.0, 2.0]


def test_in_a_worker_the_resources_are_the_workers() -> None:
    outcomes = score(lent_rewards.pooled_folder, "a", "b", "c", "d")
    assert outcomes.values.tolist() == [1.0] * 4
    assert os.getpid() not in {outcome.info["pid"] for outcome in outcomes}


def test_a_worker_shares_among_its_own_calls_of_a_batch_only() -> None:
    with RewardService(lent_rewards.pooled_batch, backend={"pool": {"workers": 1}}) as service:
        for _ in range(2):
            outcomes = service.score_sync(samples("a", "b", "c"))
            assert outcomes.values.tolist() == [1.0, 2.0, 3.0]
            assert len({outcome.info["path"] for outcome in outcomes}) == 1


def test_a_worker_that_is_killed_leaves_nothing_for_long(tmp_path: Path) -> None:
    (lost,) = score(lent_rewards.pooled_loop, str(tmp_path))
    assert lost.kind is FailureKind.TIMEOUT
    assert len(os.listdir(tmp_path)) == 1  # nobody could clean up after kill -9
    with Resources() as resources, Context(resources=resources) as context:
        folder = context.acquire_resource_sync(FolderSpec(parent=str(tmp_path)))
        assert [folder.path] == list(tmp_path.iterdir())


def test_a_worker_and_its_sandboxes_end_with_a_deadline() -> None:
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    with RewardService(
        lent_rewards.pooled_python, backend={"pool": {"workers": 1}}, policy=MASKED
    ) as service:
        outcomes = service.score_sync(samples("6 * 7", "while True: pass", "6 * 8"))
        assert [getattr(o, "value", None) for o in outcomes] == [42.0, None, 48.0]
        assert outcomes[1].kind is FailureKind.TIMEOUT
        assert outcomes[0].info["pid"] != outcomes[2].info["pid"]
    children = psutil.Process().children(recursive=True)
    _, alive = psutil.wait_procs([c for c in children if c.pid not in before], 20)
    assert alive == []


def test_the_callers_context_is_what_its_tools_used() -> None:
    with Context("rollout") as context:
        folder = context.acquire_resource_sync(FolderSpec())
        folder.file("from a tool").write_text("")
        outcomes = score(lent_rewards.own_folder, "a", context=context)
        assert outcomes.values.tolist() == [2.0]
        assert folder.path.exists()
        assert outcomes[0].info["rollout"] == "rollout"


def test_the_callers_context_cannot_reach_a_worker() -> None:
    with Context() as context, pytest.raises(ConfigError, match="which cannot reach the context"):
        score(lent_rewards.pooled_folder, "a", context=context)


def test_the_callers_context_reaches_no_reward_that_sends_things_elsewhere() -> None:
    @reward(auto_register=False)
    async def sends(response: str) -> float:
        return float(len(current_scoring().call.keywords))

    with Context() as context:
        assert score(sends, "a", context=context, other=1).values.tolist() == [1.0]
    assert score(sends, "a", context="plain text").values.tolist() == [1.0]


def test_an_exception_in_the_reward_costs_only_its_sample() -> None:
    @reward(auto_register=False)
    def broken(context: Context, response: str) -> float:
        context.acquire_resource_sync(FolderSpec())
        if response == "b":
            raise ValueError("broken")
        return 1.0

    outcomes = score(broken, "a", "b", "c")
    assert [isinstance(o, Score) for o in outcomes] == [True, False, True]


def test_a_deadline_that_passes_gives_everything_back() -> None:
    @reward(auto_register=False, deadline=0.2)
    async def waits(context: Context, response: str) -> float:
        await context.acquire_resource(FolderSpec(name="of one who waits"))
        await asyncio.Event().wait()
        return 1.0

    (lost,) = score(waits, "a")
    assert lost.kind is FailureKind.TIMEOUT


def test_agentfly_a_column_called_context_does_not_get_in_the_way() -> None:
    sample = Sample(response="a", metadata={"context": "Paris is the capital."})

    @reward(auto_register=False)
    def live(context: Context, response: str) -> float:
        return float(isinstance(context, Context))

    @reward(auto_register=False)
    def unannotated(context, response) -> float:  # type: ignore[no-untyped-def]
        return float(isinstance(context, Context))

    @reward(auto_register=False)
    def column(context: str, response: str) -> float:
        return float(context.startswith("Paris"))

    for one in (live, unannotated, column):
        with RewardService(one) as service:
            assert service.score_sync([sample]).values.tolist() == [1.0]


def test_a_default_stands_where_nobody_lends() -> None:
    @reward(auto_register=False)
    def optional(response: str, context: Context | None = None) -> float:
        return float(context is None)

    assert optional.call_sync(response="a") == 1.0
    assert score(optional, "a").values.tolist() == [0.0]


def test_a_direct_call_needs_one() -> None:
    with pytest.raises(BadInput, match="needs 'context'"):
        lent_rewards.own_folder.call_sync(response="a")
    with Context() as context:
        called = lent_rewards.own_folder.call_sync(response="a", context=context)
        assert called["score"] == 1.0


def test_a_first_stage_gets_none() -> None:
    class Staged(BaseReward):
        auto_register = False

        def prepare(self, context: Context, response: str) -> dict[str, Any]:
            return {"response": response}

        def call(self, response: str) -> float:
            return 1.0

    with pytest.raises(InvalidReward, match="prepare gets no context"):
        RewardService(Staged())


def test_a_forked_child_has_resources_of_its_own(tmp_path: Path) -> None:
    with Context() as context:
        path = context.acquire_resource_sync(FolderSpec(parent=str(tmp_path))).path
        child = os.fork()
        if child == 0:
            code = 1
            try:
                with Context() as own:
                    other = own.acquire_resource_sync(FolderSpec(parent=str(tmp_path)))
                    code = int(other.path == path)
            finally:
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0
        assert path.exists()
