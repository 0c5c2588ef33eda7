"""The page docs/composition.md, followed from top to bottom."""

import re
from pathlib import Path
from typing import Any

import pytest

from guerdon import compose, registry

PAGE = Path(__file__).parents[2] / "docs" / "composition.md"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
DEFINED = ("correct", "tidy", "quality", "seconds")


@pytest.fixture(autouse=True)
def own_names() -> Any:
    yield
    for name in DEFINED:
        registry.unregister(name)


def test_every_block_runs() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text.count("```python") == len(BLOCK.findall(text)) > 10
    namespace: dict[str, Any] = {"__name__": "composition_page"}
    for block in BLOCK.finditer(text):
        line = text.count("\n", 0, block.start(1))
        exec(compile("\n" * line + block[1], str(PAGE), "exec"), namespace)


def test_every_composition_is_on_the_page() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for name in compose.__all__:
        if name not in ("Composition", "Missing", "Condition", "Curve"):
            assert name in text
