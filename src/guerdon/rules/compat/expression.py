"""Arithmetic that a model wrote, read by a small parser of our own: nothing is ever evaluated.

verl hands such text to `eval` (CVE-2026-6878) or to SymPy's `parse_expr`, which evaluates Python.
Here a recursive-descent parser with bounds on length, depth and size calls an `Algebra`, which
either computes with Python numbers or builds SymPy objects.
"""

import re
import unicodedata
from collections.abc import Mapping
from typing import Any, Protocol, cast

from guerdon.errors import MissingExtra

MAX_CHARS = 4000
MAX_DEPTH = 60
MAX_EXPONENT = 4000
"""Largest exponent of a number; a larger one would build numbers of unbounded size."""

MAX_FACTORIAL = 2000
_MAX_BITS = 20_000

# Python's own tokens: `007` is the two integers `00` and `7`, `1_000` is one.
_DIGITS = r"[0-9](?:_?[0-9])*"
_TOKEN = re.compile(
    rf"\s*(?:(?P<number>(?:{_DIGITS}\.(?:{_DIGITS})?|\.{_DIGITS})(?:[eE][+-]?{_DIGITS})?"
    rf"|{_DIGITS}[eE][+-]?{_DIGITS}|0(?:_?0)*|[1-9](?:_?[0-9])*)"
    r"|(?P<name>[^\W\d]\w*)|(?P<op>\*\*|//|[-+*/%!()\[\],]))"
)


class Refused(ValueError):
    """A text is no expression that this parser reads."""


class Algebra(Protocol):
    """What the parser computes with; a method raises `Refused` for what it cannot do."""

    implicit: bool
    """Whether factors may stand side by side, as in `2x`."""

    def number(self, digits: str) -> Any:
        """A number from its digits."""
        ...

    def name(self, name: str) -> Any:
        """A name that is no function."""
        ...

    def split(self, name: str) -> list[tuple[str, str]]:
        """The tokens that a name stands for: itself, or the factors that it is made of."""
        ...

    def binary(self, op: str, left: Any, right: Any) -> Any:
        """`+ - * / // % **` of two values."""
        ...

    def negative(self, value: Any) -> Any:
        """The value with a minus sign."""
        ...

    def factorial(self, value: Any) -> Any:
        """The factorial of a value."""
        ...

    def call(self, name: str, value: Any) -> Any:
        """A function of one value."""
        ...

    def is_function(self, name: str) -> bool:
        """Whether a name is a function."""
        ...

    def sequence(self, items: list[Any], bracket: str) -> Any:
        """A tuple or list."""
        ...


def evaluate(text: str, algebra: Algebra) -> Any:
    """The value of an expression in an algebra.

    Raises:
        Refused: Not an expression, or beyond a bound.

    >>> evaluate("2*3.5", PythonNumbers()), evaluate("(1, 2**3)", PythonNumbers())
    (7.0, (1, 8))
    >>> evaluate("open(1)", PythonNumbers())
    Traceback (most recent call last):
    guerdon.rules.compat.expression.Refused: names are not read
    """
    if len(text) > MAX_CHARS:
        raise Refused("too long")
    try:
        return _Parser(text, algebra).whole()
    except (ArithmeticError, TypeError, ValueError, RecursionError) as error:
        if isinstance(error, Refused):
            raise
        raise Refused(f"{type(error).__name__}: {error!s:.100}") from None


class _Parser:
    """Python's precedence: sums, products (with implied ones), signs, powers, factorials."""

    def __init__(self, text: str, algebra: Algebra) -> None:
        self._algebra = algebra
        self._tokens = [
            factor
            for kind, token in _tokens(text)
            for factor in (algebra.split(token) if kind == "name" else [(kind, token)])
        ]
        self._at = 0
        self._depth = 0

    def whole(self) -> Any:
        value = self._sequence("")
        if self._at < len(self._tokens):
            raise Refused(f"unexpected {self._tokens[self._at][1]!r}")
        return value

    def _peek(self) -> tuple[str, str]:
        return self._tokens[self._at] if self._at < len(self._tokens) else ("end", "")

    def _take(self, op: str) -> bool:
        if self._peek() == ("op", op):
            self._at += 1
            return True
        return False

    def _sequence(self, closing: str) -> Any:
        """An expression, or a tuple or list of them up to a closing bracket."""
        items: list[Any] = []
        commas = 0
        while self._peek() not in (("op", closing), ("end", "")):
            items.append(self._sum())
            if not self._take(","):
                break
            commas += 1
        if closing and not self._take(closing):
            raise Refused(f"no {closing!r}")
        if closing == "]" or commas or not items:
            return self._algebra.sequence(items, closing)
        return items[0]

    def _sum(self) -> Any:
        value = self._product()
        while self._peek() in (("op", "+"), ("op", "-")):
            op = self._tokens[self._at][1]
            self._at += 1
            value = self._algebra.binary(op, value, self._product())
        return value

    def _product(self) -> Any:
        value = self._signed()
        while True:
            kind, token = self._peek()
            if kind == "op" and token in ("*", "/", "//", "%"):
                self._at += 1
                value = self._algebra.binary(token, value, self._signed())
            elif self._algebra.implicit and (kind in ("number", "name") or token == "("):
                value = self._algebra.binary("*", value, self._power())
            else:
                return value

    def _signed(self) -> Any:
        minus = False
        while self._peek() in (("op", "+"), ("op", "-")):
            minus ^= self._tokens[self._at][1] == "-"
            self._at += 1
        value = self._power()
        return self._algebra.negative(value) if minus else value

    def _power(self) -> Any:
        value = self._postfix()
        if not self._take("**"):
            return value
        self._enter()
        exponent = self._signed()
        self._depth -= 1
        return self._algebra.binary("**", value, exponent)

    def _postfix(self) -> Any:
        value = self._atom()
        while self._take("!"):
            value = self._algebra.factorial(value)
        return value

    def _atom(self) -> Any:
        kind, token = self._peek()
        self._at += 1
        if kind == "number":
            return self._algebra.number(token)
        if kind == "name":
            return self._named(token)
        if token not in ("(", "["):
            raise Refused(f"unexpected {token!r}")
        self._enter()
        value = self._sequence(")" if token == "(" else "]")
        self._depth -= 1
        return value

    def _named(self, name: str) -> Any:
        if not self._algebra.is_function(name):
            return self._algebra.name(name)
        if not self._take("("):
            raise Refused(f"{name} without an argument")
        self._enter()
        value = self._sequence(")")
        self._depth -= 1
        return self._algebra.call(name, value)

    def _enter(self) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise Refused("nested too deeply")


def _tokens(text: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    at = 0
    end = len(text.rstrip())
    while at < end:
        token = _TOKEN.match(text, at, end)
        if token is None:
            raise Refused(f"unexpected {text[at]!r}")
        kind = token.lastgroup or ""
        text_of = token[kind]
        if kind == "name" and not text_of.isidentifier():
            raise Refused(f"unexpected {text_of!r}")
        found.append((kind, text_of.replace("_", "") if kind == "number" else text_of))
        at = token.end()
    return found


class PythonNumbers:
    """Python's int and float arithmetic, tuples and lists of numbers; no names."""

    implicit = False

    def number(self, digits: str) -> int | float:
        """An int, or a float where there is a dot or exponent."""
        return int(digits) if digits.isdigit() else float(digits)

    def name(self, name: str) -> Any:
        """Refused."""
        raise Refused("names are not read")

    def split(self, name: str) -> list[tuple[str, str]]:
        """The name."""
        return [("name", name)]

    def is_function(self, name: str) -> bool:
        """Nothing is."""
        return False

    def call(self, name: str, value: Any) -> Any:
        """Refused."""
        raise Refused("functions are not read")

    def factorial(self, value: Any) -> Any:
        """Refused, as in Python."""
        raise Refused("'!' is no operator")

    def negative(self, value: Any) -> Any:
        """The value with a minus sign."""
        return -_number(value)

    def sequence(self, items: list[Any], bracket: str) -> Any:
        """A list in brackets, else a tuple."""
        return items if bracket == "]" else tuple(items)

    def binary(self, op: str, left: Any, right: Any) -> Any:
        """Python's operator; results of bounded size."""
        left, right = _number(left), _number(right)
        if op == "+":
            return left + right
        if op == "-":
            return left - right
        if op == "*":
            return left * right
        if op == "/":
            return left / right
        if op == "//":
            return left // right
        if op == "%":
            return left % right
        return _power(left, right)


def _number(value: object) -> Any:
    if isinstance(value, int | float):
        return value
    raise Refused("a sequence is no number")


def _power(base: int | float, exponent: int | float) -> Any:
    whole = isinstance(base, int) and isinstance(exponent, int)
    if whole and abs(exponent) * int(base).bit_length() > _MAX_BITS:
        raise Refused("too large a power")
    value: Any = base**exponent
    if isinstance(value, complex):
        raise Refused("a complex number")
    return value


class SympyObjects:
    """SymPy's objects, as `parse_expr` with implied multiplication builds them.

    With `implicit`, factors may stand side by side and a name of several letters is the product of
    its letters unless it is known, Greek, or has an underscore; without it, as `sympify` reads
    text, a name is one symbol. Names that SymPy knows beyond a few are refused.

    Raises:
        MissingExtra: SymPy is not installed.
    """

    _FUNCTIONS = frozenset({"sqrt", "ln"})
    # fmt: off
    _REFUSED = frozenset((
        "all", "csc", "eye", "ff", "fft", "frac", "fu", "gff", "hn1", "hn2", "id", "im", "jn",
        "li", "ntt", "re", "rf", "yn", "lambda", "and", "or", "not", "in", "is", "if", "else",
        "for", "as",
    ))
    # fmt: on

    def __init__(self, *, implicit: bool = True) -> None:
        self.implicit = implicit
        try:
            import sympy
        except ImportError:
            raise MissingExtra("sympy", "math", "symbolic comparison") from None
        self._sympy: Any = sympy
        self._known: Mapping[str, Any] = {
            "pi": self._sympy.pi,
            "oo": self._sympy.oo,
            "zoo": self._sympy.zoo,
            "nan": self._sympy.nan,
        }

    def number(self, digits: str) -> Any:
        """An Integer, or a Float where there is a dot or exponent."""
        if digits.isdigit():
            return self._sympy.Integer(int(digits))
        return self._sympy.Float(digits)

    def is_function(self, name: str) -> bool:
        """`sqrt` and `ln`."""
        return name in self._FUNCTIONS

    def call(self, name: str, value: Any) -> Any:
        """The function of a value."""
        return self._sympy.sqrt(value) if name == "sqrt" else self._sympy.log(value)

    def name(self, name: str) -> Any:
        """A known constant, or a symbol."""
        if name in self._known:
            return self._known[name]
        if name in self._REFUSED or (not self.implicit and hasattr(self._sympy, name)):
            raise Refused(f"{name} is no symbol")
        return self._sympy.Symbol(name)

    def split(self, name: str) -> list[tuple[str, str]]:
        """A name of several letters as letters and digits, before any operator binds them."""
        whole = name in self._known or name in self._REFUSED or self.is_function(name)
        if whole or not self.implicit or "_" in name or _is_greek(name):
            return [("name", name)]
        pieces = re.findall(r"[0-9]+|[^0-9]", name)
        return [("number" if piece.isdigit() else "name", piece) for piece in pieces]

    def negative(self, value: Any) -> Any:
        """The value with a minus sign."""
        return -value

    def factorial(self, value: Any) -> Any:
        """The factorial, of a number of bounded size."""
        if value.is_number and not (value.is_Integer and abs(value) <= MAX_FACTORIAL):
            raise Refused("too large a factorial")
        return self._sympy.factorial(value)

    def sequence(self, items: list[Any], bracket: str) -> Any:
        """Refused: the difference of two tuples is no expression."""
        raise Refused("a sequence")

    def binary(self, op: str, left: Any, right: Any) -> Any:
        """SymPy's operator; powers of bounded size."""
        if op == "+":
            return left + right
        if op == "-":
            return left - right
        if op == "*":
            return left * right
        if op == "/":
            return left / right
        if op != "**":
            raise Refused(f"{op} is not read")
        if right.is_number and (not right.is_real or abs(right) > MAX_EXPONENT):
            raise Refused("too large an exponent")
        if left.is_Integer and right.is_number:
            bits = int(left).bit_length() * int(abs(right) + 1)
            if bits > _MAX_BITS:
                raise Refused("too large a power")
        return left**right


def is_zero(value: Any) -> bool:
    """Whether SymPy simplifies a value of `SympyObjects` to zero; may take any time.

    >>> is_zero(evaluate("(x+1)**2-(x**2+2x+1)", SympyObjects()))
    True
    """
    import sympy

    simplified = cast("Any", sympy).simplify(value)
    return bool(simplified == 0)


def _is_greek(name: str) -> bool:
    if len(name) < 2 or not name.isascii():
        return False
    try:
        unicodedata.lookup(f"GREEK SMALL LETTER {name}")
    except KeyError:
        return False
    return True
