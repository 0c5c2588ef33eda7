"""Cases that the rewards for programs ship about themselves."""

from guerdon.rules.case import case


def _fenced(code: str) -> str:
    return f"```python\n{code}\n```"


_TWICE = _fenced("def twice(x):\n    return 2 * x")
_TESTS = "assert twice(2) == 4\nassert twice(-1) == -2"
_ROW = {"test": "def check(candidate):\n    assert candidate(3) == 6", "entry_point": "twice"}
_EQUAL = _fenced(
    "class Any(int):\n    __eq__ = lambda *a: True\ndef twice(x):\n    return Any(x + 1)"
)
_EXIT = _fenced("import os\nos._exit(0)")
_PLUS = _fenced("print(int(input()) + 1)")
_CASES = {"inputs": ["1\n", "41\n"], "outputs": ["2\n", "42\n"]}
_CALLS = {"inputs": [[1], [41]], "outputs": [2, 42], "fn_name": "plus"}
_TIDY = _fenced("def twice(x):\n    return 2 * x")

_SUITE = {"test": "from solution import twice\n\ndef test_one():\n    assert twice(2) == 4"}
_LIVE = {
    "public_test_cases": '[{"input": "1\\n", "output": "2", "testtype": "stdin"}]',
    "private_test_cases": '[{"input": "41\\n", "output": "42", "testtype": "stdin"}]',
}
_LEFT = {"test": "assert twice(2)[:1] == 4", "entry_point": "twice"}

PYTHON_FIXTURES = (
    case("full", "test functions", 1.0, response=_TWICE, ground_truth=_SUITE),
    case("zero", "a value that the tests cannot use", 0.0, response=_TWICE, ground_truth=_LEFT),
    case(
        "malformed",
        "tests that run text",
        "bad_input",
        response=_TWICE,
        ground_truth="assert eval(twice('2')) == 4",
    ),
    case("full", "passes", 1.0, response=_TWICE, ground_truth=_TESTS),
    case("full", "check(candidate)", 1.0, response=_TWICE, ground_truth=_ROW),
    case("full", "a list of assertions", 1.0, response=_TWICE, ground_truth=_TESTS.split("\n")),
    case("zero", "wrong", 0.0, response=_TWICE.replace("2 *", "3 *"), ground_truth=_TESTS),
    case("zero", "nothing", 0.0, response="", ground_truth=_TESTS),
    case("zero", "no Python", 0.0, response=_fenced("def twice(:"), ground_truth=_TESTS),
    case("zero", "exits", 0.0, response=_EXIT, ground_truth=_TESTS),
    case("zero", "equal to everything", 0.0, response=_EQUAL, ground_truth=_TESTS),
    case("malformed", "no tests", "bad_input", response=_TWICE, ground_truth=None),
    case("malformed", "checks nothing", "bad_input", response=_TWICE, ground_truth="x = 1"),
    case("malformed", "no Python tests", "bad_input", response=_TWICE, ground_truth="if:"),
    case("malformed", "NUL and surrogate", 0.0, response="\0\ud800", ground_truth=_TESTS),
    case("deterministic", "passes again", 1.0, response=_TWICE, ground_truth=_TESTS),
    case("metamorphic", "words around", 1.0, response=f"So:\n{_TWICE}\nDone.", ground_truth=_TESTS),
)

STDIO_FIXTURES = (
    case("full", "LiveCodeBench's columns", 1.0, response=_PLUS, ground_truth=_LIVE),
    case(
        "full",
        "names of contests",
        1.0,
        ground_truth=_CALLS,
        response=_fenced("def plus(x: List[int]): return sum(deque([x, 1]))"),
    ),
    case("full", "prints", 1.0, response=_PLUS, ground_truth=_CASES),
    case(
        "full", "a function", 1.0, response=_fenced("plus = lambda x: x + 1"), ground_truth=_CALLS
    ),
    case("zero", "wrong", 0.0, response=_fenced("print(2)"), ground_truth=_CASES),
    case("zero", "nothing", 0.0, response="", ground_truth=_CASES),
    case("zero", "exits", 0.0, response=_EXIT, ground_truth=_CASES),
    case("zero", "prints and fails", 0.0, response=_PLUS[:-4] + "\n1/0\n```", ground_truth=_CASES),
    case("malformed", "no cases", "bad_input", response=_PLUS, ground_truth={"inputs": []}),
    case("malformed", "no JSON", "bad_input", response=_PLUS, ground_truth="1 2 3"),
    case("malformed", "NUL and surrogate", 0.0, response="\0\ud800", ground_truth=_CASES),
    case("deterministic", "prints again", 1.0, response=_PLUS, ground_truth=_CASES),
    case("metamorphic", "words around", 1.0, response=f"So:\n{_PLUS}\nDone.", ground_truth=_CASES),
)

SYNTAX_FIXTURES = (
    case("full", "a program", 1.0, response=_TWICE),
    case("full", "is not run", 1.0, response=_fenced("raise SystemExit(1)")),
    case("zero", "no program", 0.0, response="I cannot do that."),
    case("zero", "an error", 0.0, response=_fenced("def twice(:")),
    case("malformed", "NUL", 0.0, response=_fenced("x = 1\0")),
    case("malformed", "a surrogate", 0.0, response=_fenced("x = '\ud800'")),
    case("deterministic", "again", 1.0, response=_TWICE),
    case("metamorphic", "words around", 1.0, response=f"So:\n{_TWICE}\nDone."),
)

LINT_FIXTURES = (
    case("full", "tidy", 1.0, response=_TIDY),
    case("zero", "one fault for each statement", 0.0, response=_fenced("import os\nimport sys")),
    case("zero", "no program", 0.0, response="I cannot do that."),
    case("zero", "an error", 0.0, response=_fenced("def twice(:")),
    case("malformed", "NUL", 0.0, response=_fenced("x = 1\0")),
    case("malformed", "a surrogate", 0.0, response=_fenced("x = '\ud800'; import os")),
    case("deterministic", "again", 1.0, response=_TIDY),
    case("metamorphic", "words around", 1.0, response=f"So:\n{_TIDY}\nDone."),
)
