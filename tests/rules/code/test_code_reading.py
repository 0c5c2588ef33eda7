"""Programs in responses, tests in rows, outputs beside wanted ones: nothing runs here."""

from __future__ import annotations

import time
from typing import Any

import pytest

from guerdon.errors import BadInput
from guerdon.rules.code.calling import calls_of
from guerdon.rules.code.checker import same_output, same_value
from guerdon.rules.code.extraction import program_in
from guerdon.rules.code.function_tests import read_function_tests
from guerdon.rules.code.inside.linting import findings
from guerdon.rules.code.io_cases import Case, read_cases
from guerdon.rules.code.literal_tests import literal_calls

TAGS = ("python", "py")


@pytest.mark.parametrize(
    ("response", "options", "program"),
    [
        ("```python\na\n```", {}, "a\n"),
        ("```py\na\n```\n```python\nb\n```", {}, "b\n"),
        ("```py\na\n```\n```python\nb\n```", {"which": "first"}, "a\n"),
        ("```py\na\n```\n```python\nb\n```", {"which": "joined"}, "a\n\nb\n"),
        ("```python\na\n```\n```text\nout\n```", {}, "a\n"),
        ("```\na\n```", {}, "a\n"),
        ("```bash\nls\n```", {}, None),
        ("```python\na", {}, "a"),
        ("```python\na\n```\nx\n```python\n\n```", {}, "a\n"),
        ("````python\n```\na\n```\n````", {}, "```\na\n```\n"),
        ("~~~python\na\n~~~", {}, "a\n"),
        ("```{.python}\na\n```", {}, "a\n"),
        ("```Python title=x\na\n```", {}, "a\n"),
        ("  ```python\n  a\n  ```", {}, "  a\n"),
        ("<think>```python\nwrong\n```</think>```python\na\n```", {}, "a\n"),
        ("<think>```python\nwrong\n```", {}, None),
        ("x = 1", {}, "x = 1"),
        ("x = 1", {"no_fence": "refuse"}, None),
        ("    return 1", {"no_fence": "continue"}, "    return 1"),
        ("", {}, None),
        (" \n", {}, None),
        ("```python\r\na\r\n```", {}, "a\r\n"),
    ],
)
def test_the_program_in_a_response(response: str, options: Any, program: str | None) -> None:
    assert program_in(response, TAGS, **options) == program


@pytest.mark.parametrize("piece", ["```python\n", "`", "```\n```\n", "~~~\n", "`" * 50 + "\n"])
def test_reading_is_linear(piece: str) -> None:
    began = time.process_time()
    program_in(piece * (4_000_000 // len(piece)), TAGS)
    assert time.process_time() - began < 60  # what is quadratic would take hours


CHECK = """def check(candidate):
    assert candidate(1) == 2
    x = 3
    assert candidate(x) == 4"""


def test_check_becomes_steps() -> None:
    tests = read_function_tests(CHECK, None, "f", (), "def f(x):\n    '''Doc.'''\n")
    assert tests.steps == (
        ("assert candidate(1) == 2", True),
        ("x = 3", False),
        ("assert candidate(x) == 4", True),
    )
    assert (tests.entry, tests.alias, tests.cases) == ("f", "candidate", 2)
    assert tests.first(1).steps == tests.steps[:1]
    assert tests.first(9) is tests


@pytest.mark.parametrize(
    ("test", "cases"),
    [
        (f"METADATA = {{}}\n{CHECK}\ncheck(f)", 2),
        ("def check(candidate):\n    assert True\n    assert candidate(1)", 1),
        ("def check(candidate):\n    if candidate(1):\n        return\n    assert candidate(2)", 1),
        ("def check(candidate):\n    for i in range(3):\n        assert candidate(i) == i", 1),
        ("def check(candidate):\n    def inner():\n        assert candidate(1)\n    inner()", 1),
        ("import math\nassert f(1) == 2\nassert math.pi > f(3)", 2),
    ],
)
def test_cases_are_counted(test: str, cases: int) -> None:
    assert read_function_tests(test, None, "f", (), None).cases == cases


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"test": None, "test_list": None}, "no tests.*--map ground_truth=input_output"),
        ({"test": "  ", "test_list": []}, "no tests"),
        ({"test": "x = 1", "test_list": None}, "no assertion"),
        ({"test": "assert True", "test_list": None}, "no assertion"),
        ({"test": "if:", "test_list": None}, "no Python"),
        ({"test": None, "test_list": ["x"]}, "no assertion"),
        ({"test": None, "test_list": [3]}, "int"),
        ({"test": "(" * 1000, "test_list": None}, "no Python"),
        ({"test": "a\0b", "test_list": None}, "no Python"),
    ],
)
def test_unusable_tests_are_bad_input(fields: Any, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        read_function_tests(entry="f", setup=(), prompt=None, **fields)


def test_check_needs_an_entry_point() -> None:
    with pytest.raises(BadInput, match="entry_point"):
        read_function_tests(CHECK, None, None, (), None)


def test_words_are_no_source() -> None:
    assert read_function_tests("assert f(1)", None, "f", (), "Sort").preamble == ""
    assert read_function_tests("assert f(1)", None, "f", (), "import re").preamble == "import re"


@pytest.mark.parametrize(
    ("source", "value", "right"),
    [
        ("assert f(1, 'a') == [2]", [2], True),
        ("assert f(1) == [2]", (2,), False),
        ("assert f(1)", 3, True),
        ("assert f(1)", [], False),
        ("assert not f(1)", "", True),
        ("assert f(1) is None", None, True),
        ("assert f(1) is True", 1, False),
        ("assert f(1) != 2", 2, False),
        ("assert f(1) in (2, 3)", 3, True),
        ("assert f(1) not in [2]", 2, False),
        ("assert f(x=1) > -2.5", 0, True),
        ("assert f(2 * 3, 'a' + 'b') == 3 + 5", 8, True),
        ("assert f({1: {2}, 3: [None, 1j]}) == {}", {}, True),
    ],
)
def test_literal_tests_are_compared_here(source: str, value: Any, right: bool) -> None:
    tests = read_function_tests(source, None, None, (), None)
    found = literal_calls(tests)
    assert found is not None
    function, (call,) = found
    assert function == "f"
    assert call.is_right(value) is right


@pytest.mark.parametrize(
    "source",
    [
        "assert f(x) == 1",
        "assert f(1) == g(2)",
        "assert f(1) == 10 ** 10",
        "assert f(1) == 2 * [1]",
        "assert f(9 ** 9) == 1",
        "assert abs(f(1) - 1.5) < 1e-6",
        "assert f(1).x == 2",
        "assert 1 < f(1) < 3",
        "assert f(1) is 1000",
        "assert f(*[1]) == 1",
        "assert f(**{'a': 1}) == 1",
        "assert f(1) == 1 and f(2) == 2",
        "assert f(1) == 1\nassert g(1) == 1",
        "x = 1\nassert f(1) == 1",
        "import numpy\nassert f(1) == 1",
        "from os import path\nassert f(1) == 1",
        "def h(): pass\nassert f(1) == 1",
        "assert sorted([2]) == [2]",
        "assert math(1) == 2",
        "assert f(1)(2) == 2",
        "assert x.f(1) == 2",
    ],
)
def test_other_tests_need_a_sandbox(source: str) -> None:
    tests = read_function_tests(source, None, None, (), None)
    assert literal_calls(tests) is None


@pytest.mark.parametrize(
    "truth",
    [
        {"inputs": ["1", "2"], "outputs": ["3", "4"]},
        '{"inputs": ["1", "2"], "outputs": ["3", "4"]}',
        {"inputs": [["1"], ["2"]], "outputs": [["3"], ["4"]]},
        {"input": ["1", "2"], "output": ["3", "4"]},
        [{"input": "1", "output": "3"}, {"input": "2", "output": 4}],
        {
            "public_tests": {"input": ["1"], "output": ["3"]},
            "private_tests": {"input": ["2"], "output": ["4"]},
            "generated_tests": {"input": [], "output": []},
        },
        {"input_output": '{"inputs": ["1", "2"], "outputs": ["3", "4"]}', "starter_code": ""},
        {
            "public_test_cases": '[{"input": "1", "output": "3", "testtype": "stdin"}]',
            "private_test_cases": '[{"input": "2", "output": "4", "testtype": "stdin"}]',
            "metadata": "{}",
        },
        {
            "language": "python",
            "test_cases": [
                {"fn_name": None, "input": "1", "output": "3", "type": "stdin_stdout"},
                {"fn_name": None, "input": "2", "output": "4", "type": "stdin_stdout"},
            ],
        },
        '[{"input": "1", "output": "3", "type": "stdin_stdout"}, '
        '{"input": "2", "output": "4", "type": "stdin_stdout"}]',
    ],
)
def test_forms_of_cases(truth: Any) -> None:
    assert read_cases(truth).streams == (Case("1", "3"), Case("2", "4"))


def test_function_cases() -> None:
    cases = read_cases({"fn_name": "f", "inputs": [[1, 2], "3\n[4]"], "outputs": [[3], "[7]"]})
    assert cases.calls == (Case("[1,2]", "[3]"), Case("[3,[4]]", "[7]"))


@pytest.mark.parametrize(
    "truth",
    [
        {"fn_name": "f", "inputs": ["1\n[2]"], "outputs": ["[3]"]},
        {"input_output": {"fn_name": "f", "inputs": ["1\n[2]"], "outputs": ["[3]"]}},
        {
            "public_test_cases": '[{"input": "1\\n[2]", "output": "[3]", '
            '"testtype": "functional"}]',
            "private_test_cases": "",
            "metadata": '{"func_name": "f"}',
        },
        [{"input": [1, [2]], "output": [3], "type": "function_call", "fn_name": "f"}],
        {"tests": [{"input": "1\n[2]", "output": "[3]", "metadata": {"func_name": "f"}}]},
        {"input": ["1\n[2]"], "output": ["[3]"], "metadata": {"func_name": "f"}},
    ],
)
def test_forms_of_function_cases(truth: Any) -> None:
    cases = read_cases(truth)
    assert cases.function == "f"
    assert cases.calls == (Case("[1,[2]]", "[3]"),)


def test_whole_numbers_as_keys_of_arguments() -> None:
    arguments = [{"1": "a", "-2": {"3": "b"}}, {"1": 1, "x": 2}, {}, {"1" * 5000: 1}, ["1"]]
    given = read_cases({"fn_name": "f", "inputs": [arguments], "outputs": [0]})
    (call,) = calls_of(given, 0.0)
    assert call.arguments[0] == {1: "a", -2: {"3": "b"}}
    assert call.arguments[1:] == arguments[1:]


@pytest.mark.parametrize(
    ("truth", "message"),
    [
        (None, "NoneType"),
        ({"public_test_cases": "[]", "private_test_cases": "eJxrYJk6"}, "packed"),
        ({"assert_case": ["assert f(1)"]}, "code_python"),
        ([{"input": "1", "output": "1", "type": "function_call"}], "fn_name is missing"),
        ([{"input": "1", "output": "1", "fn_name": "f"}, {"input": "1", "output": "1"}], "kinds"),
        ({"tests": 3}, "int"),
        ("x", "no JSON"),
        ({}, "neither"),
        ({"inputs": [], "outputs": []}, "no case"),
        ({"inputs": ["1"], "outputs": []}, "1 inputs and 0 outputs"),
        ({"inputs": [{}], "outputs": [""]}, "dict"),
        ([{"input": "1"}], "no mapping"),
        ({"fn_name": "f", "inputs": [3], "outputs": [1]}, "not a list"),
        ({"public_tests": 3}, "not a mapping"),
    ],
)
def test_unusable_cases_are_bad_input(truth: Any, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        read_cases(truth)


@pytest.mark.parametrize(
    ("got", "wanted", "checker", "same"),
    [
        ("1 2\n", "1 2", "tokens", True),
        ("1\n2", "1 2", "tokens", True),
        ("1.0000001", "1.0", "tokens", True),
        ("1.1", "1.0", "tokens", False),
        ("1000000.5", "1000000.0", "tokens", True),
        ("1.0", "1", "tokens", True),
        ("1.0000001", "1", "tokens", False),
        ("1e3", "1000", "tokens", True),
        ("12345678901234567890.0", "12345678901234567891", "tokens", False),
        ("01", "1", "tokens", False),
        ("9" * 390, "1.0", "tokens", False),
        ("1", "1.0", "tokens", True),
        ("1e0", "1.0", "tokens", True),
        ("nan", "1.0", "tokens", False),
        ("inf", "1e999", "tokens", False),
        ("nan", "nan", "tokens", True),
        ("1_0", "10.0", "tokens", False),
        ("yes", "YES", "tokens", False),
        ("", "", "tokens", True),
        ("1", "", "tokens", False),
        ("a  b \n\n", "a  b", "lines", True),
        ("a b", "a  b", "lines", False),
        ("a\r\nb", "a\nb", "lines", True),
        ("a\n", "a", "exact", False),
        ("a", "a", "exact", True),
        ("9" * 500 + ".0", "8" * 500 + ".0", "tokens", False),
    ],
)
def test_outputs(got: str, wanted: str, checker: Any, same: bool) -> None:
    assert same_output(got, wanted, checker, 1e-6) is same


@pytest.mark.parametrize(
    ("got", "wanted", "same"),
    [
        ([1, 2], [1, 2], True),
        ((1, (2,)), [1, [2]], True),
        (1, 1.0, True),
        (1.0, 1, True),
        (True, 1, True),
        (1, True, True),
        (1.0000000001, True, False),
        (True, 1.0000000001, False),
        ([True], [[1]], False),
        (None, None, True),
        (0, None, False),
        ("1", 1, False),
        ({1: "a"}, {"1": "a"}, True),
        ({1: "a", "1": "b"}, {"1": "a"}, False),
        ({(1,): 2}, {"(1,)": 2}, False),
        ({1}, [1], False),
        (float("nan"), 1.0, False),
        (10**400, 1.5, False),
        (0.1 + 0.2, 0.3, True),
        (object(), [], False),
    ],
)
def test_values(got: Any, wanted: Any, same: bool) -> None:
    assert same_value(got, wanted, 1e-6) is same


@pytest.mark.parametrize(
    ("source", "rules"),
    [
        ("x = 1", []),
        ("import os", ["unused-import"]),
        ("import os\nprint(os)", []),
        ("from os import *", ["star-import"]),
        ("print(y)", ["undefined-name"]),
        ("def f():\n    y = 1\n    return 2", ["unused-variable"]),
        ("def f():\n    return 1\n    return 2", ["unreachable"]),
        ("def f(a=[]):\n    return a", ["mutable-default"]),
        ("def list():\n    return 1", ["shadowed-builtin"]),
        ("try:\n    x = 1\nexcept:\n    pass", ["bare-except"]),
        ("x = 1\nprint(x == None)", ["compare-none"]),
        ("x = 1\nprint(x is 2)", ["is-literal"]),
        ("x = {1: 2, 1: 3}", ["repeated-key"]),
        ("x = f'a'", ["f-string-without-values"]),
        ("x = '" + "a" * 100 + "'", ["long-line"]),
        ("match 1:\n    case [a, *b]:\n        print(a, b)", []),
        ("for i in range(3):\n    print(i)\nelse:\n    pass", []),
        ("try:\n    pass\nexcept ValueError as e:\n    print(e)", []),
        ("print([q for q in range(3)], lambda z: z)", []),
        ("class A:\n    b: int = 1\nprint(A)", []),
    ],
)
def test_lint_rules(source: str, rules: list[str]) -> None:
    assert [rule for _, rule in findings(source)[1]] == rules
