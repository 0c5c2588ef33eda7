"""Docstrings on terminals that are narrower than the source: paragraphs are filled again."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator

HANGING = 4
"""Columns by which the lines of an entry, such as of an argument, follow its first."""

_ENTRY = re.compile(r" +[\w*.`'\"/-]+(?: \([^()]*\))?: ")
_BULLET = re.compile(r" *(?:[-*] |\d+\. )")
_HEADING = re.compile(r"[A-Z]\w*:")
_VERBATIM = re.compile(r" *(?:>>> |\.\.\. |\|)")


def filled(text: str, width: int) -> str:
    r"""A docstring whose lines fit; one that fits already stays as it is.

    Paragraphs, and entries of `Args:` and the like, are filled; examples, tables and indented text
    under a paragraph keep their lines.

    Args:
        text: as `inspect.getdoc` gives it.
        width: columns.

    Example:
        >>> print(filled("One two three four.\nFive.\n\nArgs:\n    a: six seven eight nine.", 14))
        One two three
        four. Five.
        <BLANKLINE>
        Args:
            a: six
                seven
                eight
                nine.
    """
    if all(len(line) <= width for line in text.splitlines()):
        return text
    return "\n\n".join(
        "\n".join(line for piece in _pieces(block) for line in _lines(piece, width))
        for block in re.split(r"\n\s*\n", text)
    )


def _pieces(block: str) -> Iterator[list[str]]:
    """What belongs together: a paragraph, an entry with its further lines, or one line alone."""
    lines = block.splitlines()
    if any(_VERBATIM.match(line) for line in lines):
        yield from ([line] for line in lines)
        return
    piece: list[str] = []
    for line in lines:
        if piece and not _follows(line, piece):
            yield piece
            piece = []
        piece.append(line)
    if piece:
        yield piece


def _follows(line: str, piece: list[str]) -> bool:
    """Whether a line goes on with a piece."""
    if _HEADING.fullmatch(piece[0].strip()) or _BULLET.match(line):
        return False
    depth, first = _depth(line), _depth(piece[0])
    if depth == first:
        return not _ENTRY.match(line)
    return depth > first and (first > 0 or bool(_BULLET.match(piece[0])))


def _lines(piece: list[str], width: int) -> list[str]:
    if len(piece) == 1 and (_VERBATIM.match(piece[0]) or len(piece[0]) <= width):
        return piece
    indent = " " * _depth(piece[0])
    item = _ENTRY.match(piece[0]) or _BULLET.match(piece[0])
    return textwrap.wrap(
        " ".join(line.strip() for line in piece),
        width,
        initial_indent=indent,
        subsequent_indent=indent + " " * (HANGING if item else 0),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _depth(line: str) -> int:
    return len(line) - len(line.lstrip())
