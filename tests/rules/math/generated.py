"""A seeded generator of gold answers, model answers and responses for differential tests.

Loaded by `conftest.py` through its path: the tests folder is no package.
"""

from __future__ import annotations

import random

LETTERS = "abcknmpqrstuvwxyz"
WORDS = (
    "Yes",
    "No",
    "True",
    "False",
    "blue",
    "odd",
    "even",
    "Monday",
    "Tuesday",
    "hyperbola",
    "parabola",
    "ellipse",
    "A",
    "B",
    "C",
    "D",
    "E",
    "I",
    "none",
    "infinity",
    "undefined",
    "Evelyn",
    "John and Mary",
    "circle",
    "degree",
    "decreasing",
    "trapezoid",
    "east",
    "pi",
    "e",
    "i",
    "d",
)
UNITS = (
    r"\text{ cm}",
    r" \text{ meters}",
    r"\mathrm{cm}^2",
    r"\text{ m}^{2}",
    " cm",
    " dollars",
    "%",
    r"\%",
    r" \%",
    r"^\circ",
    r"^{\circ}",
    " degrees",
    r"\text{ degrees}",
    " mph",
    " units",
    r"\mathrm{~kg}",
    r" \mbox{inches}",
    " percent",
    "°",
    r"\text{th}",
    " ft",
    "m",
    " hours",
)
RELATIONS = ("<", r"\le", r"\leq", ">", r"\ge", r"\geq", "=", "<=", ">=", r"\lt", r"\neq")
FUNCTIONS = (r"\sin", r"\cos", r"\tan", r"\ln", r"\log", r"\exp", r"\arctan", r"\arcsin")
GREEK = (r"\pi", r"\theta", r"\alpha", r"\lambda", r"\phi", r"\gamma", r"\Gamma", r"\Delta")


def integer(rng: random.Random, big: bool = True) -> str:
    top = 10 ** rng.choice((1, 1, 2, 2, 3, 6, 12) if big else (1, 1, 2))
    return str(rng.randint(-top if rng.random() < 0.3 else 0, top))


def decimal(rng: random.Random) -> str:
    places = rng.choice((1, 1, 2, 3, 4, 6, 8))
    whole = rng.choice(("", "0", str(rng.randint(1, 99)), str(rng.randint(100, 99999))))
    sign = "-" if rng.random() < 0.2 else ""
    return f"{sign}{whole}.{rng.randint(0, 10**places - 1):0{places}d}"


def fraction(rng: random.Random) -> str:
    a, b = rng.randint(1, 60), rng.randint(1, 60)
    form = rng.choice(
        (
            r"\frac{%d}{%d}",
            r"\dfrac{%d}{%d}",
            r"\tfrac{%d}{%d}",
            "%d/%d",
            r"-\frac{%d}{%d}",
            r"\frac{-%d}{%d}",
            r"\frac %d%d",
            r"\frac{%d}{-%d}",
            r"%d / %d",
            r"\frac{%d}%d",
            r"%d \div %d",
            r"\cfrac{%d}{%d}",
        )
    )
    return form % (a, b)


def surd(rng: random.Random) -> str:
    a, b, c = rng.randint(1, 9), rng.randint(2, 20), rng.randint(1, 9)
    return rng.choice(
        (
            rf"\sqrt{{{b}}}",
            rf"{a}\sqrt{{{b}}}",
            rf"{a}\sqrt{{{b}}}+{c}",
            rf"{c}-{a}\sqrt{{{b}}}",
            rf"\frac{{{a}+\sqrt{{{b}}}}}{{{c}}}",
            rf"\frac{{\sqrt{{{b}}}}}{{{a}}}",
            rf"\sqrt[3]{{{b}}}",
            rf"\sqrt{{{a * a * b}}}",
            rf"\frac{{{a}}}{{\sqrt{{{b}}}}}",
            rf"\sqrt {b}",
            rf"\sqrt{b}",
            rf"{a} \cdot \sqrt{{{b}}}",
            rf"{b}^{{1/2}}",
            rf"\sqrt{{\frac{{{a}}}{{{b}}}}}",
            rf"-{a}\sqrt {{{b}}}",
            rf"\sqrt{{{a}}}\sqrt{{{b}}}",
        )
    )


def symbol(rng: random.Random) -> str:
    roll = rng.random()
    if roll < 0.75:
        return rng.choice(LETTERS)
    if roll < 0.85:
        return rng.choice(GREEK)
    return rng.choice(("x_1", "x_{2}", "a_{12}", "X", "y_n", r"\theta_1", "C", "e", "d", "i", "E"))


def expression(rng: random.Random, depth: int = 2) -> str:
    if depth == 0:
        return rng.choice((integer(rng, False), symbol(rng), symbol(rng), "2", decimal(rng)))
    left, right = expression(rng, depth - 1), expression(rng, depth - 1)
    return rng.choice(
        (
            f"{left}+{right}",
            f"{left} - {right}",
            f"{left}{right}",
            f"{left}({right})",
            rf"{left}\cdot {right}",
            rf"\frac{{{left}}}{{{right}}}",
            f"({left})({right})",
            f"{symbol(rng)}^{{{right}}}",
            f"({left})^{rng.randint(2, 5)}",
            f"{left}/{right}",
            rf"\sqrt{{{left}}}",
            rf"{rng.choice(FUNCTIONS)}({left})",
            f"{symbol(rng)}^2",
            rf"{rng.choice(FUNCTIONS)} {left}",
            f"-{left}",
            f"{symbol(rng)}({right})",
            rf"\log_{{{rng.randint(2, 9)}}} {left}",
            rf"\log_{rng.randint(2, 9)}{{{left}}}",
            f"e^{{{left}}}",
            f"e^{rng.randint(1, 9)}",
            rf"{left} \times {right}",
            f"{left}!",
            rf"\binom{{{rng.randint(2, 14)}}}{{{rng.randint(0, 5)}}}",
            f"2^{{{right}}}",
            rf"{left}\left({right}\right)",
            rf"{integer(rng, False)} {fraction(rng)}",
            rf"\sin^2 {left}",
            rf"\cos^{{2}}({left})",
            f"|{left}|",
            f"[{left}]",
            f"{{{left}}}",
        )
    )


def element(rng: random.Random) -> str:
    return rng.choice((integer, integer, integer, fraction, decimal, surd))(rng)


def elements(rng: random.Random, low: int = 2, high: int = 4) -> str:
    separator = rng.choice((",", ", ", " , ", ",\\ ", r",\,"))
    return separator.join(element(rng) for _ in range(rng.randint(low, high)))


def collection(rng: random.Random) -> str:
    inner = elements(rng, rng.choice((1, 2, 2)), 4)
    return rng.choice(
        (
            f"({inner})",
            rf"\{{{inner}\}}",
            rf"\left\{{{inner}\right\}}",
            inner,
            rf"\left({inner}\right)",
            inner.replace(",", r" \text{ and } ", 1),
            f"[{inner}]",
            inner.replace(",", " and ", 1),
            rf"\pm {integer(rng, False)}",
            f"{{{inner}}}",
            f"({inner}), ({elements(rng, 2, 2)})",
            inner.replace(",", ";", 1),
            f"<{inner}>",
        )
    )


def interval(rng: random.Random) -> str:
    a = rng.choice((r"-\infty", integer(rng, False), integer(rng, False), fraction(rng), surd(rng)))
    b = rng.choice((r"\infty", integer(rng, False), integer(rng, False), decimal(rng), r"\pi"))
    left, right = rng.choice("(["), rng.choice(")]")
    space = rng.choice(("", " "))
    if rng.random() < 0.3:
        left, right = rf"\left{left}", rf"\right{right}"
    body = f"{left}{a},{space}{b}{right}"
    if rng.random() < 0.15:
        return rf"{body} \cup {interval(rng)}"
    return body


def relation(rng: random.Random) -> str:
    variable = symbol(rng)
    right = rng.choice((integer(rng, False), fraction(rng), expression(rng, 1), surd(rng)))
    roll = rng.random()
    if roll < 0.35:
        return f"{variable}{rng.choice(('=', ' = '))}{right}"
    if roll < 0.6:
        a, b = rng.randint(-9, 9), rng.randint(-9, 19)
        one, other = rng.choice(RELATIONS), rng.choice(RELATIONS)
        return f"{a}{one} {variable} {other} {b}"
    if roll < 0.8:
        return f"{variable} {rng.choice(RELATIONS)} {right}"
    if roll < 0.9:
        return f"{expression(rng, 1)} = {expression(rng, 1)}"
    return rng.choice(
        (
            f"x={integer(rng)}, y={integer(rng)}",
            f"x={elements(rng)}",
            rf"x \in {interval(rng)}",
            f"f(x) = {expression(rng, 1)}",
            f"x = {integer(rng)} = {integer(rng)}",
            f"y = {rng.randint(1, 9)}x + {rng.randint(1, 9)}",
            f"x^2+y^2={rng.randint(1, 50)}",
            rf"x \approx {decimal(rng)}",
            f"{integer(rng)} = {variable}",
        )
    )


def matrix(rng: random.Random) -> str:
    rows, columns = rng.randint(1, 3), rng.randint(1, 3)
    kind = rng.choice(("pmatrix", "bmatrix", "vmatrix", "matrix"))
    make = rng.choice((integer, integer, fraction, symbol))
    body = r" \\ ".join(" & ".join(make(rng) for _ in range(columns)) for _ in range(rows))
    return rf"\begin{{{kind}}} {body} \end{{{kind}}}"


def word(rng: random.Random) -> str:
    text = rng.choice(WORDS)
    form = rng.choice(
        (
            r"\text{%s}",
            r"\text{ %s}",
            "%s",
            r"\textbf{%s}",
            r"\mathrm{%s}",
            "(%s)",
            r"\text{(%s)}",
            r"\mathbf{%s}",
            "%s.",
            r"\mbox{%s}",
        )
    )
    return form % rng.choice((text, text, text.lower(), text.upper()))


def complex_number(rng: random.Random) -> str:
    a, b = rng.randint(1, 9), rng.randint(1, 9)
    form = rng.choice(("%d+%di", "%d + %d i", "%d-%di", "%d - i%d", "%di+%d"))
    return form % (a, b)


KINDS = (
    integer,
    integer,
    integer,
    decimal,
    decimal,
    fraction,
    fraction,
    surd,
    surd,
    expression,
    expression,
    collection,
    collection,
    interval,
    relation,
    relation,
    matrix,
    word,
    word,
    complex_number,
)


def answer(rng: random.Random) -> str:
    """Any answer, sometimes with a unit."""
    text = rng.choice(KINDS)(rng)
    return text + rng.choice(UNITS) if rng.random() < 0.08 else text


def noisy(rng: random.Random, text: str) -> str:
    """The same answer as somebody else would write it; now and then no longer the same."""
    roll = rng.random()
    if roll < 0.35:
        return text
    changes = (
        lambda: text.replace(r"\frac", r"\dfrac"),
        lambda: text.replace(",", ", "),
        lambda: text.replace(" ", ""),
        lambda: text + ".",
        lambda: text + rng.choice(UNITS),
        lambda: rf"\displaystyle {text}",
        lambda: rf"\left({text}\right)",
        lambda: f" {text} ",
        lambda: text.replace("(", r"\left(").replace(")", r"\right)"),
        lambda: text.replace("+", r"\,+\,"),
        lambda: f"x = {text}",
        lambda: rf"\${text}",
        lambda: rf"\text{{{text}}}",
        lambda: text.replace("-", "\u2212"),
        lambda: text.replace(r"\{", "").replace(r"\}", ""),
        lambda: f"{text}, {text}",
        lambda: text.upper(),
        lambda: f"{text}=2",
        lambda: rf"\boxed{{{text}}}",
        lambda: thousands(text),
        lambda: text.replace("(", "[").replace(")", "]"),
    )
    return rng.choice(changes)()


def thousands(text: str) -> str:
    """A long integer with separators."""
    if text.isdigit() and len(text) > 3:
        head = len(text) % 3
        groups = [text[:head]] if head else []
        groups += [text[at : at + 3] for at in range(head, len(text), 3)]
        return ",".join(groups)
    return text + ",000"


PIECES = (
    "0",
    "1",
    "2",
    "7",
    "10",
    "x",
    "y",
    "e",
    "d",
    "i",
    "t",
    "+",
    "-",
    "*",
    "/",
    "^",
    "_",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    ",",
    ".",
    "=",
    "<",
    ">",
    "!",
    " ",
    r"\frac",
    r"\sqrt",
    r"\cdot",
    r"\pi",
    r"\le",
    r"\infty",
    r"\sin",
    r"\ln",
    r"\log",
    r"\text{a}",
    r"\%",
    "%",
    r"\{",
    r"\}",
    r"\,",
    r"\circ",
    "^2",
    "_1",
    r"\\",
    "&",
    r"\cup",
    r"\left",
    r"\right",
    "'",
    "|",
    ":",
    ";",
    "~",
)


def mutated(rng: random.Random, text: str) -> str:
    """A near miss: one to three characters inserted, dropped, doubled or replaced."""
    for _ in range(rng.randint(1, 3)):
        at = rng.randint(0, len(text))
        roll = rng.random()
        if roll < 0.45:
            text = text[:at] + rng.choice(PIECES) + text[at:]
        elif roll < 0.7:
            text = text[:at] + text[at + 1 :]
        elif roll < 0.8:
            text = text[:at] + text[at : at + 1] * 2 + text[at + 1 :]
        else:
            text = text[:at] + rng.choice(PIECES) + text[at + 1 :]
    return text


def pair(rng: random.Random) -> tuple[str, str]:
    """A gold answer and an answer that may or may not equal it."""
    gold = answer(rng)
    roll = rng.random()
    if roll < 0.45:
        return gold, noisy(rng, gold)
    if roll < 0.75:
        return gold, mutated(rng, noisy(rng, gold))
    if roll < 0.9:
        return gold, answer(rng)
    return mutated(rng, gold), mutated(rng, gold)


OPENINGS = ("$", "$$", r"\(", r"\[", " [", "", "", "$$\n", r"\[ ", "$ ")
CLOSINGS = ("$", "$$", r"\)", r"\]", "] ", "", "", "\n$$", r" \]", " $")
PHRASES = (
    "So the answer is ",
    "The final answer is ",
    "final answer is: ",
    "Answer: ",
    "Thus ",
    "",
    "answer = ",
    "**Final Answer**\n",
    "The Final Answer to this is ",
    "We get ",
    "\n\n",
)
TAILS = (
    "",
    ".",
    ". I hope it is correct.",
    "\nI hope",
    "%",
    r" \% of it",
    " percent.",
    " and ",
    ", ",
    " or ",
    "\n",
    "}",
    " $x_{1}$",
    r" \(a\)",
    ".\n\nQ.E.D.",
    " I hope so.",
)
FILLERS = (
    "We know that $x = 5$. ",
    "By Pythagoras \\(a^2+b^2=c^2\\), ",
    "it costs \\$5 or $7. ",
    "\n",
    "\\[\n\\begin{aligned} a &= 1 \\\\ b &= 2 \\end{aligned}\n\\]\n",
    "\n\nHence ",
    "Wait, no: ",
    "the set [1, 2] is fine. ",
    "$$ y = x^2 $$ ",
    "as f(x) = {x} shows, " * 3,
    "hmm " * 25,
    "$",
    "{",
    "\\[",
    "the interval [0,1) ",
    "with 50\\% of $n$ ",
    "\\fbox{3}",
    "answer",
    " and ",
    ", ",
)


ODD_BOXES = ("%s", r"\boxed {%s}", r"\boxed{%s", r"\boxed{\boxed{%s}}", r"\fbox{%s}")


def response(rng: random.Random, text: str) -> str:
    """A response that states the answer in some way, between distractions."""
    parts: list[str] = []
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3))):
        parts += (rng.choice(FILLERS) for _ in range(rng.randint(0, 3)))
        inner = text if rng.random() < 0.7 else integer(rng)
        box = rng.choice((r"\boxed{%s}",) * 6 + ODD_BOXES).replace("%s", inner)
        at = rng.randrange(len(OPENINGS))
        closing = CLOSINGS[at] if rng.random() < 0.9 else rng.choice(CLOSINGS)
        parts += (rng.choice(PHRASES), OPENINGS[at], box, closing, rng.choice(TAILS))
    parts += (rng.choice(FILLERS) for _ in range(rng.randint(0, 2)))
    return "".join(parts)
