r"""Inputs made to hang, crash or blow up a verifier.

Each is a gold answer and a response. `ANSWERS` stand in a box; `RESPONSES` are whole responses.
Loaded by `conftest.py` through its path: the tests folder is no package.
"""

from __future__ import annotations

BIG = 100_000

ANSWERS = {
    "power tower": r"9^{9^{9^9}}",
    "tens tower": r"10^{10^{10}}",
    "high tower": r"10^{10^{10^{10}}}",
    "tower of twos": "2^{" * 12 + "2" + "}" * 12,
    "power of a power": r"((((9^9)^9)^9)^9)^9",
    "huge exponent": r"2^{10^9}+1",
    "negative huge exponent": r"2^{-10^9}",
    "million digits exponent": "7^{" + "9" * 200 + "}",
    "root of a tower": r"\sqrt{9^{9^{9}}}",
    "tower in a fraction": r"\frac{9^{9^9}}{8^{8^8}}",
    "tower difference": r"9^{9^9}-9^{9^9}+1",
    "factorial": r"10^9!",
    "large factorial": r"99999999!",
    "factorial tower": "9" + "!" * 6,
    "nested factorials": r"(((9!)!)!)!",
    "factorial in parentheses": r"((10!)!)!",
    "factorial of a decimal": r"1234567.5!",
    "binomial": r"\binom{1000000000}{500000000}",
    "nested binomials": r"\binom{\binom{100}{50}}{\binom{50}{25}}",
    "long integer": "7" * BIG,
    "integer over the digit limit of Python": "7" * 5000,
    "long decimal": "0." + "3" * BIG,
    "long fraction": rf"\frac{{{'1' * 20_000}}}{{{'3' * 20_000}}}",
    "long thousands": "1" + ",000" * 30_000,
    "sum of 50,000 terms": "+".join(["1"] * 50_000),
    "sum of 20,000 variables": "+".join(f"x_{{{i}}}" for i in range(20_000)),
    "product of 5,000 terms": "(x+1)" * 5_000,
    "50,000 digits apart": "+".join(["12345678"] * 5_000),
    "tuple of 10,000": "(" + ",".join(["1"] * 10_000) + ")",
    "set of 5,000": r"\{" + ",".join(map(str, range(5_000))) + r"\}",
    "matrix of 60 by 60": r"\begin{pmatrix}"
    + r"\\".join("&".join(["1"] * 60) for _ in range(60))
    + r"\end{pmatrix}",
    "expansion": r"(a+b+c+d+e+f)^{60}",
    "product of expansions": r"(a+b+c)^9" * 25,
    "nested expansion": r"((((x+y)^9)^9)^9)^9",
    "nested parentheses": "(" * 60 + "1" + ")" * 60,
    "deep parentheses": "(" * 5_000 + "1" + ")" * 5_000,
    "nested fractions": r"\frac{1}{1+" * 30 + "x" + "}" * 30,
    "deep fractions": r"\frac{1}{" * 2_000 + "x" + "}" * 2_000,
    "nested roots": r"\sqrt{2+" * 40 + "2" + "}" * 40,
    "nested absolute values": "|" * 80 + "x" + "|" * 80,
    "nested functions": r"\sin(" * 60 + "x" + ")" * 60,
    "nested logarithms": r"\log_{2}(" * 60 + "x" + ")" * 60,
    "long minus chain": "-" * 3_000 + "1",
    "long plus chain": "+" * 3_000 + "1",
    "hard integral": r"\int_0^1 \frac{\sin(x^{x^x})}{\ln(1+x^{77})} dx",
    "long sum": r"\sum_{n=1}^{10^8} \frac{1}{n^3+\sin n}",
    "long product": r"\prod_{n=1}^{10^7} (1+\frac{1}{n^2})",
    "limit": r"\lim_{x \to 0} \frac{\sin(\tan x)-\tan(\sin x)}{x^{77}}",
    "determinant": r"\begin{vmatrix}"
    + r"\\".join("&".join(f"x_{{{i}{j}}}" for j in range(9)) for i in range(9))
    + r"\end{vmatrix}",
    "inverse trigonometry": r"\arctan(\arctan(\arctan(\sin(10^{10^{8}}))))",
    "modulus": r"7^{10^{10}} \mod 13",
    "greatest divisor": rf"\gcd({'9' * 3000}, {'8' * 3000})",
    "floor of a tower": r"\lfloor 9^{9^{9}} / 7 \rfloor",
    "complex tower": r"i^{i^{i^{i^{10^9}}}}",
    "spaces": " " * BIG + "1" + " " * BIG,
    "backslashes": "\\" * 20_000 + "1",
    "text commands": r"\text{a}" * 5_000,
    "open text": r"\text{" * 3_000,
    "blank and comma in braces": "{ " * 5_000 + ", }",
    "words that join": " and or" * 5_000,
    "decimal points": "." * 20_000,
    "carets": "x" + "^" * 5_000 + "2",
    "open braces": r"\frac{" * 3_000,
    "nul and lone surrogate": "1\0\ud8002",
    "right to left": "\u202e1\u202c",
    "combining marks": "1" + "\u0301" * 20_000,
    "full-width digits": "\uff11\uff12" * 100,
    "zero division": r"\frac{1}{0}",
    "infinite difference": r"\infty-\infty",
    "code": r"__import__('os').system('true')",
    "call": r"\text{exec}(x)",
}
"""Contents of a box. The gold answer beside them is `GOLD`, or `SYMBOLIC` for one more round."""

GOLD = "18"
SYMBOLIC = r"x^2+\sqrt{2}"

RESPONSES = {
    "4,000 unclosed displays": r"\[" * 4_000,
    "4,000 unclosed inlines": r"\(" * 4_000,
    "unclosed displays with a box": r"\[ \boxed{1} " * 3_000,
    "answers before unclosed displays": r"answer \[ " * 4_000,
    "answers before unclosed inlines": r"answer \( " * 4_000,
    "answers before dollars": "answer $$ " * 4_000,
    "final answers": "final answer is " * 20_000,
    "hopes": r"\boxed{1}" + "final answer is $ I hope " * 10_000,
    "answers and blanks": ("final answer" + " " * 2_000 + "is ") * 200,
    "unclosed boxes": r"\boxed{" * 20_000,
    "closed boxes": r"\boxed{1}" * 20_000,
    "nested boxes": r"\boxed{" * 2_000 + "1" + "}" * 2_000,
    "dollars": "$" * 100_000 + r"\boxed{1}",
    "brackets": " [" * 50_000 + r"\boxed{1}",
    "percent signs behind": r"\boxed{1}" + "$ " * 50_000 + "x",
    "blanks behind": r"\boxed{1}$" + " " * 1_000_000 + "x",
    "joins": r"\boxed{1}$" + ", $" * 30_000 + "\n" + r"\boxed{2}",
    "frames": r"\fbox{" * 20_000,
    "braces behind a box": r"\boxed{" + "{" * 1_000_000,
    "tags": "<answer>" * 50_000,
    "hashes": "####" * 50_000,
}
