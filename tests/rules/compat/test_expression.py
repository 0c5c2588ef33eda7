"""The arithmetic parser against SymPy's own on text that is safe to evaluate, and its bounds."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guerdon.rules.compat.expression import (
    MAX_CHARS,
    MAX_DEPTH,
    PythonNumbers,
    Refused,
    SympyObjects,
    evaluate,
)

ATOMS = st.sampled_from(
    [
        "1",
        "2",
        "3",
        "12",
        "0.5",
        "1.",
        ".25",
        "2e1",
        "x",
        "y",
        "pi",
        "xy",
        "x2",
        "mu",
        "x_1",
        "(x+1)",
    ]
)
SAFE = st.recursive(
    ATOMS,
    lambda inner: (
        st.builds("{}{}{}".format, inner, st.sampled_from(["+", "-", "*", "/", " ", ""]), inner)
        | st.builds("({})".format, inner)
        | st.builds("-{}".format, inner)
        | st.builds("sqrt({})".format, inner)
        | st.builds("({})**{}".format, inner, st.sampled_from(["2", "3", "-1", "x"]))
    ),
    max_leaves=6,
)


@settings(deadline=None)
@given(SAFE)
def test_builds_what_sympys_parser_builds(text: str) -> None:
    from sympy.parsing.sympy_parser import (
        implicit_multiplication_application,
        parse_expr,
        standard_transformations,
    )

    steps = (*standard_transformations, implicit_multiplication_application)
    try:
        # The text is generated here from harmless pieces; nothing else may reach this parser.
        theirs: Any = parse_expr(text, transformations=steps)
    except (SyntaxError, TypeError, ValueError):
        theirs = None
    try:
        ours: Any = evaluate(text, SympyObjects())
    except Refused:
        ours = None
    if ours is not None:
        assert theirs is not None
        assert ours == theirs or str(ours) == str(theirs)
    else:
        # What we refuse and they read: numbers that touch ("1." then "2"), and nothing else.
        assert theirs is None or "." in text or "e" in text


@given(st.lists(st.sampled_from("0123456789.+-*/%() ,[]"), max_size=12).map("".join))
def test_python_numbers_are_pythons(text: str) -> None:
    import ast
    import warnings

    try:
        ours: Any = evaluate(text, PythonNumbers())
    except Refused:
        return
    with warnings.catch_warnings():
        # "1 [2]" and "(1)(2)" are odd calls to Python's compiler; they never get here.
        warnings.simplefilter("error")
        tree = ast.parse(text.strip() or "()", mode="eval")
    allowed = (
        ast.Expression, ast.BinOp, ast.UnaryOp, ast.Constant, ast.Tuple, ast.List, ast.Load,
        ast.operator, ast.unaryop,
    )  # fmt: skip
    assert all(isinstance(node, allowed) for node in ast.walk(tree))
    theirs = _value(tree.body)
    assert ours == theirs
    assert type(ours) is type(theirs)


def _value(node: Any) -> Any:
    """Python's value of a tree of numbers."""
    import ast
    import operator

    operators: dict[type, Any] = {
        ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul,
        ast.Div: operator.truediv,
        ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod, ast.Pow: operator.pow,
    }  # fmt: skip
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Tuple):
        return tuple(_value(item) for item in node.elts)
    if isinstance(node, ast.List):
        return [_value(item) for item in node.elts]
    if isinstance(node, ast.UnaryOp):
        value = _value(node.operand)
        return -value if isinstance(node.op, ast.USub) else +value
    return operators[type(node.op)](_value(node.left), _value(node.right))


@pytest.mark.parametrize(
    "text",
    ["1+", "(1", "1)", "a.b", "x'y'", "1;2", "f'{1}'", "=", "\\frac", "x:=1", "1 if 1 else 2",
     "(" * (MAX_DEPTH + 1) + "1" + ")" * (MAX_DEPTH + 1), "1+" * MAX_CHARS, "2**" * 70 + "2",
     "5000!",
     "2**5000", "x**99999", "frac(1)", "eye", "lambda", "\u00bd"],
    ids=lambda text: text[:12],
)  # fmt: skip
def test_what_is_refused(text: str) -> None:
    with pytest.raises(Refused):
        evaluate(text, SympyObjects())
