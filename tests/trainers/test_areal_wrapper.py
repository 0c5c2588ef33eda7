"""AReaL's wrapper is made to await functions of Guerdon, loudly and only them.

A stand-in of its shape, in processes of their own, as the change is made at import; AReaL's own
class is in the contract test.
"""

import os
import subprocess
import sys

import pytest

WRAPPER = '''
class AsyncRewardWrapper:
    """A pool that takes too long, and the 0 for that."""

    def __init__(self, reward_fn, timeout_seconds=15, max_workers=None, max_retries=3):
        self.reward_fn = reward_fn

    async def __call__(self, *arguments, **row):
        return 0
'''
CHANGED = {
    "gone": "",
    "sync": WRAPPER.replace("async def", "def"),
    "another name": WRAPPER.replace("reward_fn", "function"),
    "a function": "async def AsyncRewardWrapper(reward_fn): ...\n",
}
ASK = """
import asyncio
from guerdon.errors import ScoringFailed
from guerdon.trainers.areal import gsm8k_reward_fn, reward_fn_for
from areal.api.reward_api import AsyncRewardWrapper

made = reward_fn_for("gsm8k", retry_within=0)
for function in (made, made.awaited, gsm8k_reward_fn):
    wrapped = AsyncRewardWrapper(function)
    for _ in range(2):
        found = asyncio.run(wrapped("6*7?", "#### 42", [1], [2], answer="42"))
        assert (type(found), found) == (float, 1.0)
    try:
        raise SystemExit(asyncio.run(wrapped("6*7?", "#### 42", [1], [2])))
    except ScoringFailed:
        pass
theirs = lambda *_, **__: 1.0
assert asyncio.run(AsyncRewardWrapper(theirs)("6*7?", "#### 42", [1], [2])) == 0
"""
FIRST = "import areal.api.reward_api\n"


@pytest.fixture
def run(tmp_path):
    def run(wrapper, script, **environment):
        package = tmp_path / "areal" / "api"
        package.mkdir(parents=True)
        for folder in (package, package.parent):
            (folder / "__init__.py").touch()
        (package / "reward_api.py").write_text(wrapper)
        return subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, **environment},
            timeout=60,
        )

    return run


@pytest.mark.parametrize("first", ["", FIRST], ids=["ours first", "AReaL first"])
def test_it_awaits_functions_of_guerdon_and_no_others(run, first):
    done = run(WRAPPER, first + ASK)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("first", ["", FIRST], ids=["ours first", "AReaL first"])
@pytest.mark.parametrize("wrapper", CHANGED.values(), ids=CHANGED)
def test_a_class_of_another_shape_is_an_error(run, wrapper, first):
    done = run(wrapper, f"{first}import guerdon.trainers.areal\n{FIRST}print('went on')")
    assert done.returncode == 1
    assert "ConfigError" in done.stderr
    assert "AsyncRewardWrapper is not that of AReaL 1.0.4" in done.stderr
    assert "GUERDON_AREAL_PATCH=0" in done.stderr
    assert "went on" not in done.stdout


OFF = """
import asyncio
from guerdon.errors import ConfigError
from guerdon.trainers import areal
from areal.api.reward_api import AsyncRewardWrapper

assert not hasattr(AsyncRewardWrapper.__call__, "__wrapped__")
for make in (lambda: areal.reward_fn_for("gsm8k"), lambda: areal.gsm8k_reward_fn("?", "4", [], [])):
    try:
        make()
        raise SystemExit("it was made")
    except ConfigError as error:
        assert "use the workflow" in str(error), error
awaited = areal.async_reward_fn_for("gsm8k")
assert asyncio.run(awaited("6*7?", "#### 42", [1], [2], answer="42")) == 1.0
"""


def test_switched_off_the_class_is_left_alone_and_functions_for_it_are_refused(run):
    done = run(WRAPPER, OFF, GUERDON_AREAL_PATCH="0")
    assert done.returncode == 0, done.stderr
