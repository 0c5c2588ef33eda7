"""`import guerdon` costs nothing, and every public name is found when it is first used."""

import ast
import importlib
import pickle
import statistics
import subprocess
import sys
import time
from pathlib import Path

import cloudpickle
import pytest

import guerdon

HEAVY = (
    "torch",
    "sympy",
    "antlr4",
    "math_verify",
    "latex2sympy2_extended",
    "ray",
    "datasets",
    "pyarrow",
    "pandas",
    "rapidfuzz",
    "jsonschema",
    "transformers",
    "PIL",
    "omegaconf",
    "zstandard",
    "aiohttp",
    "starlette",
)
LATER = ("numpy", "msgspec", "yaml", "typer", "rich", "cloudpickle", "asyncio", "multiprocessing")


def modules_after(statement: str) -> set[str]:
    """Top-level modules that a fresh process holds after a statement."""
    code = f"import sys; {statement}; print(*sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {line.partition(".")[0] for line in done.stdout.split()}


def test_import_guerdon_imports_nothing_else() -> None:
    loaded = modules_after("import guerdon")
    assert "guerdon" in loaded
    assert loaded.isdisjoint(HEAVY)
    # What the interpreter's own start-up files load (an editable install may use importlib parts).
    assert (loaded - modules_after("pass")).isdisjoint(LATER)


@pytest.mark.parametrize(
    "statement",
    [
        "from guerdon import RewardService, Sample, reward",
        "from guerdon import *",
        "import guerdon.service, guerdon.compose, guerdon.wire.codec, guerdon.backends.pool",
        "from guerdon import Sample, RewardService, reward; "
        "RewardService(reward(auto_register=False)(lambda response: 1.0))"
        ".score_sync([Sample(response='x')])",
    ],
)
def test_no_heavy_library_is_loaded_before_it_is_needed(statement: str) -> None:
    assert modules_after(statement).isdisjoint(HEAVY)


@pytest.mark.parametrize(
    "module", ["guerdon.backends.pool.worker", "guerdon.reward", "guerdon.outcome"]
)
def test_workers_start_without_numpy(module: str) -> None:
    assert "numpy" not in modules_after(f"import {module}")


def test_import_guerdon_is_quick() -> None:
    times: list[float] = []
    for _ in range(5):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import guerdon"], check=True)
        bare = time.perf_counter()
        subprocess.run([sys.executable, "-c", "pass"], check=True)
        times.append((bare - began) - (time.perf_counter() - bare))
    assert statistics.median(times) < 0.3


@pytest.mark.parametrize("name", guerdon.__all__)
def test_every_public_name_resolves(name: str) -> None:
    value = getattr(guerdon, name)
    assert value is getattr(guerdon, name)
    assert getattr(value, "__doc__", None)


def test_what_is_promised_to_type_checkers_is_what_there_is() -> None:
    tree = ast.parse(Path(guerdon.__file__).read_text())
    block = next(
        node
        for node in tree.body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    promised = {
        alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert sorted(promised) == sorted(guerdon.__all__)
    for name, home in promised.items():
        value = getattr(importlib.import_module(home or ""), name)
        assert getattr(guerdon, name) is (value if name != "reward" else guerdon.reward)
    assert set(guerdon.__all__) <= set(dir(guerdon))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Rewrad'"):
        guerdon.Rewrad  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(ImportError):
        from guerdon import Rewrad  # type: ignore[attr-defined]  # noqa: F401


def test_there_is_a_version() -> None:
    assert guerdon.__version__.count(".") >= 2


@pytest.mark.parametrize(
    "first", ["pass", "import guerdon.reward", "import guerdon.service", "from guerdon import *"]
)
def test_reward_is_the_decorator_whatever_was_imported_before(first: str) -> None:
    code = f"""
{first}
from guerdon import reward
import guerdon.reward as module
from guerdon.reward import BaseReward

@reward
def plain(response): return 1.0

@reward(name="other", value_range=(0.0, 1.0))
def declared(response): return 0.5

assert isinstance(plain, BaseReward) and isinstance(declared, module.BaseReward)
print(plain.call_sync(response=""), declared.name)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1.0", "other"]


def test_the_module_that_can_be_called_can_travel() -> None:
    assert pickle.loads(pickle.dumps(guerdon.reward)) is guerdon.reward
    assert pickle.loads(cloudpickle.dumps(guerdon.reward)) is guerdon.reward
    made = pickle.loads(cloudpickle.dumps(lambda: guerdon.reward))
    assert made() is guerdon.reward
