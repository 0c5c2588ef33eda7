"""The tokens of the LaTeX subset that the fast path reads.

The reference's lexer takes the longest match among some 150 tokens. Anything for which this lexer
could cut the text in another place is refused with `Unsupported`, and the slow path decides.
"""

from __future__ import annotations

import re
from typing import NamedTuple


class Unsupported(Exception):
    """The text is outside of the subset that is known to mean the same in the reference."""


class Token(NamedTuple):
    """One token.

    Attributes:
        kind: the group of `_TOKEN` or, for signs and commands, the text itself.
        text: the characters.
    """

    kind: str
    text: str


_TOKEN = re.compile(
    r"(?P<skip>[ \t\r\n]+|\\[,;:!]|\\q?quad(?![a-zA-Z]))"
    r"|(?P<percent>(?:[0-9]*\.[0-9]+|[0-9]+)[ \t\r\n]?\\?%)"
    r"|(?P<number>[0-9]*\.[0-9]+|[0-9]+)"
    r"|(?P<letters>[a-zA-Z]+)"
    r"|\\(?:text|mbox)[ \t\r\n]?\{(?P<text>[A-Za-z0-9 ]+)\}"
    r"|(?P<matrix>\\(?:begin|end)\{[pb]?matrix\})"
    r"|\\(?P<command>[a-zA-Z]+)"
    r"|(?P<degree>\^\\circ(?![a-zA-Z])|\^\{\\circ\})"
    r"|(?P<sign>\\[{}\\]|<=(?!>)|>=|[-+*/^_()\[\]{},=&!<>])"
)

# Operator names that the reference reads as one token where they stand in a run of letters.
_KEYWORD = re.compile(
    r"gcd|lcm|floor|ceil|eye|zeros|ones|cols|rows|diag|norm|rank|tr|rref|stack|orth|nullspace"
    r"|eig|svd|SVD|ar(?:c?sinh|c?cosh|c?tanh|sinh|cosh|tanh)|matrix"
)
_DIFFERENTIAL = re.compile(r"[ \t\r\n]*(?:[a-zA-Z]|\\[a-zA-Z])")
_TRANSPOSE = re.compile(r"\{?\s*T|\{\s*\\top")
_WORD = re.compile(r"[a-zA-Z]{2,}")

OPERATORS = {
    "le": "<=",
    "leq": "<=",
    "leqslant": "<=",
    "lt": "<",
    "ge": ">=",
    "geq": ">=",
    "geqslant": ">=",
    "gt": ">",
    "cdot": "*",
    "times": "*",
    "div": "/",
}
"""Commands that are another way to write a sign."""

_UNICODE_MINUS = "\u2212"


def tokenize(latex: str) -> list[Token]:
    r"""The tokens of a normalised answer.

    Raises:
        Unsupported: the reference may cut the text differently.

    Example:
        >>> [token.text for token in tokenize(r"2\cdot x_{1}")]
        ['2', '*', 'x', '_', '{', '1', '}']
    """
    if not latex.isascii():
        latex = latex.replace(_UNICODE_MINUS, "-")
        if not latex.isascii():
            raise Unsupported
    if _WORD.fullmatch(latex):
        return _word(latex)
    tokens: list[Token] = []
    at = 0
    match = _TOKEN.match
    while at < len(latex):
        found = match(latex, at)
        if found is None:
            raise Unsupported
        kind = found.lastgroup
        start, at = at, found.end()
        if kind == "skip":
            continue
        if kind == "sign":
            text = found.group()
            _check_sign(text, latex, at)
            tokens.append(Token(text, text))
        elif kind == "letters":
            _letters(found.group(), latex, start, at, tokens)
        elif kind == "command":
            name = found.group("command")
            sign = OPERATORS.get(name)
            tokens.append(Token(sign, sign) if sign else Token("command", name))
        else:
            assert kind is not None
            tokens.append(Token(kind, found.group(kind)))
    return tokens


def _check_sign(sign: str, latex: str, end: int) -> None:
    following = latex[end : end + 1]
    if sign == "=" and following == "=":
        raise Unsupported
    if sign == "!" and following in ("=", "!"):
        raise Unsupported
    if sign == "<" and following in ("-", "="):
        raise Unsupported
    if sign == "^" and _TRANSPOSE.match(latex, end):
        raise Unsupported


def _letters(run: str, latex: str, start: int, end: int, tokens: list[Token]) -> None:
    if _KEYWORD.search(run) or "I" in run:
        raise Unsupported
    at = run.find("d")
    # The reference reads `d` and a letter, with any space between, as one differential.
    if at >= 0 and (at < len(run) - 1 or _DIFFERENTIAL.match(latex, end)):
        raise Unsupported
    # `2E5` is a number in scientific notation.
    if run[0] == "E" and start and latex[start - 1].isdigit():
        raise Unsupported
    tokens.extend(Token("letter", letter) for letter in run)


def _word(word: str) -> list[Token]:
    """The letters of a lone word; in it a `d` and its follower are one symbol."""
    if _KEYWORD.search(word) or "I" in word:
        raise Unsupported
    tokens: list[Token] = []
    at = 0
    while at < len(word):
        if word[at] == "d" and at + 1 < len(word):
            tokens.append(Token("differential", word[at : at + 2]))
            at += 2
        else:
            tokens.append(Token("letter", word[at]))
            at += 1
    return tokens
