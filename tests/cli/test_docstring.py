"""Docstrings on narrow terminals."""

from __future__ import annotations

import pytest

from guerdon import plugins, registry
from guerdon.catalogue import documentation
from guerdon.cli.docstring import filled

TEXT = """One line of what it does, of which the source has room for a hundred columns, no more.

A paragraph that is broken in the source where the source is broken, which is no place for a
terminal of eighty columns.
Range 0 to 1.

| a table | stays as it is, however long its lines are and however narrow the terminal is here |
|---|---|

- a point that is too long for a terminal of eighty columns, and that goes on in the next
  line of the source
- another

Args:
    response: What the model wrote; linear in its length, which may be ten megabytes or
        more of it.
    gold: A number.

Returns:
    What is described here in words, over two lines of the source, each of which is too long
    for eighty columns.

    >>> filled("an example of one line is never broken, because it is run by the tests of us", 3)
    'x'
"""


def test_no_line_of_prose_is_too_long_and_none_is_torn() -> None:
    found = filled(TEXT, 80)
    long = [line for line in found.splitlines() if len(line) > 80]
    assert all(line.lstrip().startswith(("|", ">>>")) for line in long)
    assert len(long) == 2
    assert found.split() == TEXT.split(), "no word is lost or moved"
    assert "\nplace for a terminal of eighty columns. Range 0 to 1.\n" in found
    assert "\n    response: What the model wrote; linear in its length, which may be ten\n" in found
    assert "\n        megabytes or more of it.\n    gold: A number.\n" in found
    assert "\n- another\n" in found


@pytest.mark.parametrize("width", [100, 240])
def test_what_fits_stays_as_it_is(width: int) -> None:
    assert filled(TEXT, width) == TEXT


@pytest.mark.parametrize("width", [20, 60, 80])
def test_every_reward_can_be_shown(width: int) -> None:
    shown = [documentation(registry.get(name)) for name in plugins.names()]
    assert len(shown) > 50
    for text in shown:
        assert filled(text, width).split() == text.split()
