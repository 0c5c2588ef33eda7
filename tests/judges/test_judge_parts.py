"""Parts of judges by themselves: patience, counts, imports, files that ship with the package."""

from __future__ import annotations

import asyncio
import importlib
import subprocess
import sys

import pytest

from guerdon.judges.patience import Patience
from guerdon.judges.usage import Meter, Usage


class TestPatience:
    def test_each_call_has_the_same_time_whenever_it_began(self):
        async def main() -> list[str]:
            patience = Patience(0.05)
            ended: list[str] = []

            async def call(name: str, begin: float) -> None:
                await asyncio.sleep(begin)
                try:
                    with patience:
                        await asyncio.sleep(60)
                except TimeoutError:
                    ended.append(name)

            await asyncio.gather(call("first", 0), call("second", 0.03), call("third", 0.06))
            return ended

        assert asyncio.run(main()) == ["first", "second", "third"]

    def test_a_call_that_is_quick_is_left_alone_and_leaves_nothing(self):
        async def main() -> int:
            patience = Patience(0.02)
            for _ in range(3):
                with patience:
                    await asyncio.sleep(0)
            await asyncio.sleep(0.05)
            with patience:
                await asyncio.sleep(0)
            task = asyncio.current_task()
            assert task is not None
            return task.cancelling()

        assert asyncio.run(main()) == 0

    def test_who_cancels_wins(self):
        async def main() -> None:
            patience = Patience(0.01)

            async def call() -> None:
                with patience:
                    await asyncio.sleep(60)

            task = asyncio.create_task(call())
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(main())

    def test_an_error_of_the_call_stays_that_error(self):
        async def main() -> None:
            with pytest.raises(ValueError, match="mine"), Patience(10):
                raise ValueError("mine")

        asyncio.run(main())

    def test_a_task_goes_on_after_its_call_was_ended(self):
        async def main() -> str:
            try:
                with Patience(0.01):
                    await asyncio.sleep(60)
            except TimeoutError:
                await asyncio.sleep(0.01)
                return "went on"
            return "never"

        assert asyncio.run(main()) == "went on"


def test_totals_know_the_hit_rate():
    meter = Meter()
    assert meter.totals.hit_rate is None
    meter.answered(Usage(1, 1))
    for what in ("hits", "hits", "joined"):
        meter.count(what)
    assert meter.totals.hit_rate == 0.75


def test_judges_are_imported_without_the_libraries_of_their_extra():
    code = (
        "import sys, guerdon.judges, guerdon.cache, guerdon.cli.judge\n"
        "heavy = {'aiohttp', 'rapidfuzz', 'jsonschema', 'PIL'} & set(sys.modules)\n"
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_without_aiohttp_a_judge_says_what_to_install():
    code = (
        "import sys; sys.modules['aiohttp'] = None\n"
        "from guerdon import RewardService, Sample\n"
        "from guerdon.judges import JudgePointwise\n"
        "reward = JudgePointwise({'url': 'http://127.0.0.1:9', 'model': 'm'})\n"
        "RewardService(reward).score_sync([Sample(response='4')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert "pip install '.[judges]' in the clone, or 'guerdon[judges]'" in done.stderr


@pytest.mark.parametrize("ending", ["service.close()", "pass"])
def test_a_process_that_ends_at_once_leaves_no_complaint(server, ending):
    code = (
        "import sys\n"
        "from guerdon import RewardService, Sample\n"
        "from guerdon.judges import JudgePointwise\n"
        "reward = JudgePointwise({'url': sys.argv[1], 'model': 'm'})\n"
        "service = RewardService(reward)\n"
        f"service.score_sync([Sample(response='4')]); {ending}"
    )
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", code, server.url], capture_output=True, text=True
        )
        assert (done.returncode, done.stderr) == (0, "")


def test_the_entry_points_are_the_rewards():
    import tomllib
    from pathlib import Path

    from guerdon import registry

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))
    offered = project["project"]["entry-points"]["guerdon.rewards"]
    ours = {name: place for name, place in offered.items() if name.startswith("judge_")}
    assert len(ours) >= 7
    for name, place in ours.items():
        module, _, attribute = place.partition(":")
        kind = getattr(importlib.import_module(module), attribute)
        assert kind.name == name
        assert registry.place_of(kind) == place
