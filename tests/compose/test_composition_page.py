"""The page docs/composition.md shows everything that there is; tests/test_docs.py follows it."""

from pathlib import Path

from guerdon import compose

PAGE = Path(__file__).parents[2] / "docs" / "composition.md"
NOT_FOR_USERS = ("Composition", "Missing", "Condition", "Curve")


def test_every_composition_is_on_the_page() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for name in compose.__all__:
        if name not in NOT_FOR_USERS:
            assert name in text
