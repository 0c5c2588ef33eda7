"""The slow path: Math-Verify itself, with a faster way to the same trees and verdicts.

It parses and compares exactly as the reference does, with differences that keep the verdict:

- Formulas are parsed in two stages, see `guerdon.rules.math.grammar`.
- Expressions whose values clearly differ are not simplified first.
- Texts are cut out of the response by the reference's own patterns, but for unboxed text the
  patterns are tried only where the word "answer" stands, with which all of them begin.

Nothing here limits time: the pool's deadline does. No string is ever evaluated or sympified.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any, NamedTuple, cast

from guerdon.rules.math.extraction import is_plain_gold
from guerdon.rules.math.grammar import converter_class
from guerdon.rules.math.memo import MAX_KEY_CHARS, Memo
from guerdon.rules.math.packages import require
from guerdon.rules.math.reference import FLOAT_ROUNDING, NUMERIC_PRECISION, answer_config

PARSES = 4096
"""How many parsed golds and answers a process remembers."""


class Parsed(NamedTuple):
    """What the reference makes of a text.

    Attributes:
        values: SymPy objects, none or one.
        text: the normalised text; empty where there is none.
    """

    values: tuple[Any, ...]
    text: str


NOTHING = Parsed((), "")

_CLEAR, _HUGE = 1e-4, 1e100
_POINTS = ((0.739085, 1.324717, 2.236067), (1.606695, 0.643410, 3.162277))

_FINAL_ANSWER = re.compile(r"(?i:final answer)")
_ANSWER = re.compile(r"(?i:answer)")


@dataclass(frozen=True)
class _Library:
    """The imported functions of the reference."""

    patterns: tuple[tuple[Any, ...], ...]
    config: Any
    replace: Callable[..., Any]
    normalise: Callable[..., str]
    last_equation: Callable[[str], str]
    is_complex: Callable[[str], bool]
    percent: Callable[[Any], Any]
    union: Callable[..., Any]
    is_union: Callable[[Any], bool]
    converter: Callable[..., Any]
    equal: Callable[[Any, Any, int, int], bool]
    is_value: Callable[[Any], bool]
    is_formula: Callable[[Any], bool]
    gold_config: Any
    parse_any: Callable[[str], list[Any]]


_PARSES: Memo[tuple[bool, str], Parsed] = Memo(PARSES)
_FORMULAS: Memo[str, tuple[Any, ...]] = Memo(PARSES)
# ANTLR's prediction tables grow while they are read.
_PARSER_LOCK = threading.Lock()


def clear() -> None:
    """Forget every parse."""
    _PARSES.clear()
    _FORMULAS.clear()


@cache
def _library() -> _Library:
    require()
    from dataclasses import replace

    from latex2sympy2_extended.latex2sympy2 import (  # pyright: ignore[reportMissingTypeStubs]
        convert_to_pct,
        normalize_latex,
    )
    from latex2sympy2_extended.sets import FiniteSet  # pyright: ignore[reportMissingTypeStubs]
    from math_verify import grader, parser  # pyright: ignore[reportMissingTypeStubs]
    from sympy import Basic, MatrixBase  # pyright: ignore[reportMissingTypeStubs]

    config = answer_config()
    groups: dict[int, list[Any]] = {}
    for pattern, priority in parser.lazy_latex_regex.__wrapped__(config):
        groups.setdefault(priority, []).append(pattern)
    return _Library(
        patterns=tuple(tuple(groups[priority]) for priority in sorted(groups)),
        config=config.normalization_config,
        replace=replace,
        normalise=normalize_latex,
        last_equation=parser.get_last_eq,
        is_complex=grader.should_treat_as_complex,
        percent=cast("Callable[[Any], Any]", convert_to_pct),
        union=FiniteSet,
        is_union=lambda value: isinstance(value, FiniteSet),
        converter=converter_class(),
        equal=grader.sympy_expr_eq,
        is_value=lambda value: isinstance(value, Basic | MatrixBase),
        is_formula=_is_formula,
        gold_config=parser.LatexExtractionConfig().normalization_config,
        parse_any=_default_parser(parser),
    )


def _default_parser(parser: Any) -> Callable[[str], list[Any]]:
    """`math_verify.parse` with its defaults, without its timer and its warning about that."""
    targets = parser.get_extraction_regexes(
        [parser.LatexExtractionConfig(), parser.ExprExtractionConfig()]
    )

    def parse(text: str) -> list[Any]:
        try:
            return parser.extract_target_from_pred(
                text, targets, fallback_mode="first_match", extraction_mode="any_match"
            )
        except MemoryError:
            raise
        except Exception:
            return []

    return parse


def _formula(latex: str) -> tuple[Any, ...]:
    """The SymPy object of a normalised text, as a tuple of one, or none where it cannot be read.

    As `math_verify.parser.parse_latex_cached`: the last of several equations is the second try.
    """
    known = _FORMULAS.get(latex)
    if known is not None:
        return known
    library = _library()
    values = _converted(library, latex)
    if not values:
        last = library.last_equation(latex)
        if last != latex:
            values = _converted(library, last)
    if len(latex) <= MAX_KEY_CHARS:
        _FORMULAS.put(latex, values)
    return values


def _converted(library: _Library, latex: str) -> tuple[Any, ...]:
    converter = library.converter(
        None, is_real=not library.is_complex(latex), convert_degrees=False
    )
    try:
        with _PARSER_LOCK:
            value = converter.parse(latex)
    except MemoryError:
        raise
    except Exception:
        return ()
    return () if value is None else (value,)


def parse_gold(gold: str) -> Parsed | None:
    """The gold answer as the reference parses it, or None where it cannot be parsed."""
    key = (True, gold)
    known = _PARSES.get(key)
    if known is None:
        known = _gold(gold)
        if len(gold) <= MAX_KEY_CHARS:
            _PARSES.put(key, known)
    return known if known != NOTHING else None


def _gold(gold: str) -> Parsed:
    library = _library()
    if is_plain_gold(gold):
        text = library.normalise(gold, library.gold_config)
        values = _formula(text)
        if values:
            return Parsed(values, text)
    parsed = library.parse_any(f"${gold}$")
    text = parsed[-1] if parsed and isinstance(parsed[-1], str) else ""
    return Parsed(tuple(value for value in parsed if not isinstance(value, str)), text)


def parse_box(content: str) -> Parsed:
    """The content of a decisive box as the reference parses it."""
    key = (False, content)
    known = _PARSES.get(key)
    if known is None:
        library = _library()
        text = library.normalise(content, library.replace(library.config, boxed="none"))
        known = Parsed(_formula(text), text)
        if len(content) <= MAX_KEY_CHARS:
            _PARSES.put(key, known)
    return known


class Piece(NamedTuple):
    """One formula that the reference cuts out of a response.

    Attributes:
        text: normalised.
        is_percentage: a percent sign follows its closing delimiter.
    """

    text: str
    is_percentage: bool


def cut(response: str) -> list[Piece]:
    """The formulas that the reference's own patterns find; several are joined to a set."""
    library = _library()
    boxed = "\\boxed{" in response
    for patterns in library.patterns:
        found: list[Any] = []
        for pattern in patterns:
            if pattern.pattern.startswith("(?i:"):
                found += _anchored(pattern, response)
            elif boxed:
                found += pattern.finditer(response)
        if found:
            return _pieces(max(found, key=lambda match: (match.end(), -match.start())))
    return []


def _anchored(pattern: Any, response: str) -> list[Any]:
    """All matches of a pattern that begins with a word, as `finditer` gives them."""
    anchor = _FINAL_ANSWER if pattern.pattern.startswith("(?i:final answer") else _ANSWER
    found: list[Any] = []
    end = 0
    for word in anchor.finditer(response):
        if word.start() >= end:
            match = pattern.match(response, word.start())
            if match is not None:
                found.append(match)
                end = match.end()
    return found


def _pieces(match: Any) -> list[Piece]:
    """The normalised formulas of a match, as in `math_verify.parser.extract_latex`."""
    library = _library()
    groups: dict[str, str | None] = match.groupdict()
    pieces: list[Piece] = []
    for prefix in ("first", *(f"next{index}" for index in range(1, 6))):
        named = next(
            ((name, text) for name, text in groups.items() if _is_latex(name, prefix) and text),
            None,
        )
        if named is None:
            continue
        name, latex = named
        config = library.config
        if name.endswith("latexBoxed"):
            config = library.replace(config, boxed="last")
        text = library.normalise(latex, config)
        pieces.append(Piece(text, bool(groups.get(f"{prefix}_percent"))))
    return pieces


def parse_pieces(pieces: list[Piece]) -> Parsed:
    """What the reference makes of the formulas that it cut out."""
    if not pieces:
        return NOTHING
    values: list[tuple[Any, ...]] = []
    for text, is_percentage in pieces:
        value = _formula(text)
        values.append(_percentage(value) if is_percentage else value)
    if len(values) > 1 and all(values):
        return _joined([value[0] for value in values], [piece.text for piece in pieces])
    return Parsed(values[0], pieces[0].text)


def _percentage(value: tuple[Any, ...]) -> tuple[Any, ...]:
    try:
        return tuple(map(_library().percent, value))
    except MemoryError:
        raise
    except Exception:
        return ()


def _joined(values: list[Any], texts: list[str]) -> Parsed:
    library = _library()
    members: list[Any] = []
    for value in values:
        members.extend(value.args if library.is_union(value) else (value,))
    try:
        return Parsed((library.union(*members),), " and ".join(texts))
    except MemoryError:
        raise
    except Exception:  # the reference then loses the text as well
        return NOTHING


def _is_latex(name: str, prefix: str) -> bool:
    return name.startswith(f"{prefix}_latex")


def verify(gold: Parsed, answer: Parsed) -> bool:
    """The reference's comparison of two parses, as `math_verify.verify` without a time limit."""
    left = (*gold.values, *((gold.text,) if gold.text else ()))
    right = (*answer.values, *((answer.text,) if answer.text else ()))
    # Texts first: an equal text decides without computing anything.
    if gold.text.strip() and gold.text.strip() == answer.text.strip():
        return True
    return any(_same(a, b) for a, b in product(left, right))


def _same(gold: Any, answer: Any) -> bool:
    library = _library()
    if not library.is_value(gold) or not library.is_value(answer):
        return False
    try:
        if _surely_differ(gold, answer):
            return False
        return bool(library.equal(gold, answer, FLOAT_ROUNDING, NUMERIC_PRECISION))
    except MemoryError:
        raise  # how much there is decides nothing about the answer
    except Exception:
        return False  # as the reference does


def _surely_differ(gold: Any, answer: Any) -> bool:
    """Whether two expressions have clearly different values at two points.

    Then none of the reference's methods finds them equal, and `simplify` need not be run. Symbols,
    relations, sets, tuples and matrices are compared by other rules than their values.
    """
    library = _library()
    if not library.is_formula(gold) or not library.is_formula(answer):
        return False
    names = sorted(gold.free_symbols | answer.free_symbols, key=str)
    if len(names) > len(_POINTS[0]):
        return False
    for values in _POINTS:
        point = dict(zip(names, values, strict=False))
        try:
            a = complex(gold.evalf(NUMERIC_PRECISION, subs=point))
            b = complex(answer.evalf(NUMERIC_PRECISION, subs=point))
        except MemoryError:
            raise
        except Exception:
            return False
        # A comparison with NaN is false as well.
        if not _CLEAR * (1 + abs(a) + abs(b)) < abs(a - b) < _HUGE:
            return False
    return True


def _is_formula(value: Any) -> bool:
    """Whether the reference compares a value by computing it, and SymPy computes it directly."""
    import sympy  # pyright: ignore[reportMissingTypeStubs]

    refused = (
        sympy.UnevaluatedExpr,  # a percentage holds an unevaluated hundredth, and 9% equals 9
        sympy.Integral,
        sympy.Sum,
        sympy.Product,
        sympy.Limit,
        sympy.Derivative,
    )
    return (
        isinstance(value, sympy.Expr)
        and not isinstance(value, sympy.Symbol | sympy.MatrixExpr)
        and not cast("Any", value).has(*refused)
    )
