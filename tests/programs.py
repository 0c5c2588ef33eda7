"""Responses that hold a program, and what the two rewards make of them."""

from __future__ import annotations

from typing import Any

from guerdon.rules.code.python_reward import CodePython
from guerdon.rules.code.stdio_reward import CodeStdio

ADD = {"inputs": ["1 2\n", "3 4\n", "5 6\n"], "outputs": ["3\n", "7\n", "11\n"]}

SUMS = {
    "python": "a, b = map(int, input().split())\nprint(a + b)",
    "javascript": (
        "const [a, b] = require('fs').readFileSync(0, 'utf8').split(' ').map(Number);\n"
        "console.log(a + b);"
    ),
    "cpp": (
        "#include <iostream>\nint main() { int a, b; std::cin >> a >> b; "
        "std::cout << a + b << std::endl; }"
    ),
    "bash": "read a b\necho $((a + b))",
}

SHORT = {"case_seconds": 0.5, "program_seconds": 2.0}


def fenced(code: str, tag: str = "python") -> str:
    return f"```{tag}\n{code}\n```"


def python(code: str, truth: Any, **options: Any) -> dict[str, Any]:
    return CodePython(**{**SHORT, **options}).call_sync(response=fenced(code), ground_truth=truth)


def stdio(code: str, truth: Any, language: Any = "python", **options: Any) -> dict[str, Any]:
    reward = CodeStdio(language=language, **options)
    return reward.call_sync(response=fenced(code, language), ground_truth=truth)
