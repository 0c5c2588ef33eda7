"""None of these cheats and attacks earns anything or touches the host."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

from guerdon.outcome import Score, seal
from guerdon.resources.sandbox import Command, Limits, Sandbox, Status
from guerdon.rules.code.form_reward import CodeSyntax
from guerdon.rules.code.python_reward import CodePython
from guerdon.rules.code.stdio_reward import CodeStdio
from guerdon.sample import Sample
from guerdon.service import RewardService


def _attacks() -> Any:
    """The programs beside this file."""
    spec = spec_from_file_location("code_attacks", Path(__file__).with_name("attacks.py"))
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


attacks = _attacks()
SECRETS: dict[int, int] = attacks.SECRETS
FUNCTION_ATTACKS: dict[str, str] = attacks.FUNCTION_ATTACKS
HOST_ATTACKS: dict[str, str] = attacks.HOST_ATTACKS
STDIO_ATTACKS: dict[str, str] = attacks.STDIO_ATTACKS
HONEST: str = attacks.HONEST
program = attacks.program

CHECKS = "\n".join(f"    assert candidate({x}) == {y}" for x, y in SECRETS.items())
TESTS = {
    "check": {"test": f"def check(candidate):\n{CHECKS}", "entry_point": "secret"},
    "list": {"test_list": [f"assert secret({x}) == {y}" for x, y in SECRETS.items()]},
    "all": {
        "test": f"assert all(map(lambda p: secret(p[0]) == p[1], {list(SECRETS.items())}))",
        "entry_point": "secret",
    },
    "difference": {
        "test": "\n".join(f"assert abs(secret({x}) - {y}) < 1" for x, y in SECRETS.items())
    },
    "calls": {
        "fn_name": "secret",
        "inputs": [[x] for x in SECRETS],
        "outputs": list(SECRETS.values()),
    },
}
CASES = {
    "inputs": [f"{x}\n" for x in SECRETS],
    "outputs": [f"{y}\n" for y in SECRETS.values()],
}
SECONDS = {"case_seconds": 0.5, "program_seconds": 1.5, "memory_mib": 192}


def test_there_are_at_least_forty() -> None:
    assert len(FUNCTION_ATTACKS) + len(HOST_ATTACKS) + len(STDIO_ATTACKS) >= 40


@pytest.mark.parametrize("form", TESTS)
def test_the_honest_program_earns_all(engine: Any, form: str) -> None:
    reward = CodePython(engine=engine, **SECONDS)
    assert reward.call_sync(response=program(HONEST), ground_truth=TESTS[form])["score"] == 1.0


@pytest.mark.parametrize("name", FUNCTION_ATTACKS)
def test_function_attack_earns_nothing(engine: Any, name: str) -> None:
    # Compared in this process with one engine, and in a sandbox of the tests with the other.
    form = "check" if engine == "bubblewrap" else "all"
    reward = CodePython(engine=engine, credit="fraction", **SECONDS)
    outcome = outcome_of(reward, name, TESTS[form])
    assert outcome.value == 0.0, outcome


def outcome_of(reward: CodePython, name: str, tests: Any) -> Score:
    """A score, and never a failure: a program must not be able to hide its own fault."""
    raw = reward.call_sync(response=program(FUNCTION_ATTACKS[name]), ground_truth=tests)
    outcome = seal(raw, reward.value_range)
    assert isinstance(outcome, Score), outcome
    return outcome


@pytest.mark.parametrize("name", STDIO_ATTACKS)
def test_stdio_attack_earns_nothing(engine: Any, name: str) -> None:
    reward = CodeStdio(engine=engine, credit="fraction", **SECONDS)
    raw = reward.call_sync(response=program(STDIO_ATTACKS[name]), ground_truth=CASES)
    outcome = seal(raw)
    assert isinstance(outcome, Score), outcome
    assert outcome.value == 0.0, outcome


@pytest.fixture
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file that anybody on the host may read and write, and that must stay as it is."""
    for folder in [tmp_path, *tmp_path.parents][:-2]:
        if folder.stat().st_uid == os.geteuid():
            folder.chmod(0o777)
    path = tmp_path / "canary"
    path.write_text("still here")
    path.chmod(0o666)
    monkeypatch.setenv("GUERDON_CANARY", "seen")
    yield path
    assert path.read_text() == "still here"
    assert path.stat().st_mode & 0o777 == 0o666
    assert os.listdir(tmp_path) == ["canary"]


@pytest.mark.parametrize("name", HOST_ATTACKS)
def test_host_attack_touches_nothing(engine: Any, name: str, canary: Path) -> None:
    sandbox = Sandbox(engine, Limits(wall_seconds=20))
    with socket.create_server(("127.0.0.1", 0)) as server:
        known = {"CANARY": str(canary), "PARENT": os.getpid(), "PORT": server.getsockname()[1]}
        lines = [f"{key} = {value!r}" for key, value in known.items()]
        body = program(HOST_ATTACKS[name]).split("\n", 1)[1].rsplit("\n", 1)[0]
        source = "\n".join([*lines, body, "open('reached', 'w').write('reached')"])
        command = Command(argv=(*sandbox.interpreter.argv, "-c", source), keep=("reached",))
        result = sandbox.run(command)
    assert result.status.fault == "program", result
    assert not result.files, result
    assert b"still here" not in result.stdout


@pytest.mark.parametrize("name", ["mounts", "makes namespaces", "traces its parent"])
def test_an_attack_on_the_kernel_has_its_own_status(engine: Any, name: str) -> None:
    sandbox = Sandbox(engine)
    body = program(HOST_ATTACKS[name]).split("\n", 1)[1].rsplit("\n", 1)[0]
    result = sandbox.run(Command(argv=(*sandbox.interpreter.argv, "-c", body)))
    assert result.status is Status.FORBIDDEN, result


def test_tests_bring_their_own_helpers(engine: Any) -> None:
    prompt = (
        "import math\n\ndef poly(xs, x):\n"
        "    return sum(c * math.pow(x, i) for i, c in enumerate(xs))\n\n"
        "def find_zero(xs):\n    '''A zero of a polynomial.'''\n"
    )
    test = (
        "def check(candidate):\n"
        "    assert math.fabs(poly([-2.0, 1.0], candidate([-2.0, 1.0]))) < 1e-6"
    )
    row = {"test": test, "entry_point": "find_zero", "prompt": prompt}
    reward = CodePython(engine=engine, **SECONDS)
    cheat = "def poly(xs, x): return 0.0\nclass math: fabs = abs\ndef find_zero(xs): return 1.0\n"
    assert reward.call_sync(response=program(cheat), ground_truth=row)["score"] == 0.0
    honest = "def find_zero(xs): return -xs[0] / xs[1]"
    assert reward.call_sync(response=program(honest), ground_truth=row)["score"] == 1.0


def test_a_program_cannot_bring_the_module_that_the_tests_use(engine: Any) -> None:
    cheat = "class math:\n    isclose = staticmethod(lambda *a, **k: True)\ndef half(x): return 0"
    reward = CodePython(engine=engine, **SECONDS)
    tests = ["assert math.isclose(half(3), 1.5)"]
    assert reward.call_sync(response=program(cheat), ground_truth=tests)["score"] == 0.0
    honest = "def half(x): return x / 2"
    assert reward.call_sync(response=program(honest), ground_truth=tests)["score"] == 1.0


def test_a_program_cannot_change_what_the_tests_compare_with(engine: Any) -> None:
    tests = ["x = [3, 1, 2]\nassert ordered(x) == sorted(x)"]
    cheat = "def ordered(x):\n    x.clear()\n    return x"
    reward = CodePython(engine=engine, **SECONDS)
    assert reward.call_sync(response=program(cheat), ground_truth=tests)["score"] == 0.0


def test_a_class_of_the_program_catches_no_assertion(engine: Any) -> None:
    tests = "try:\n    f(-1)\n    assert False, 'no exception'\nexcept Negative:\n    pass"
    reward = CodePython(engine=engine, **SECONDS)
    for cheat in (
        "Negative = AssertionError",
        "Negative = Exception",
        "class Negative(AssertionError): pass",
        "class M(type):\n    def __instancecheck__(c, e): return True\n"
        "    def __subclasscheck__(c, e): return True\n"
        "class Negative(Exception, metaclass=M): pass",
    ):
        code = f"{cheat}\ndef f(x): return x"
        result = reward.call_sync(response=program(code), ground_truth={"test": tests})
        assert result["score"] == 0.0, cheat
    code = "class Negative(Exception): pass\ndef f(x): raise Negative(x)"
    result = reward.call_sync(response=program(code), ground_truth={"test": tests})
    assert result["score"] == 1.0


def test_a_program_cannot_make_its_fault_one_of_the_data(engine: Any) -> None:
    """A value that comes back to the program must not be refused as if the tests had made it."""
    reward = CodePython(engine=engine, **SECONDS)
    for value in ("deep(149)", "'x' * ((16 << 20) - 8)", "[0] * (3 << 20)"):
        cheat = f"""
        def deep(n):
            return [deep(n - 1)] if n else 0
        def pack(x):
            return {value}
        def unpack(x):
            return x
        """
        tests = ["x = pack(3)\nassert unpack(x) == 3"]
        assert reward.call_sync(response=program(cheat), ground_truth=tests)["score"] == 0.0


ASKED = """
def f(g, *rest):
    peer = object.__getattribute__(g, "_peer")
    found = []
    for number in range(30):
        for what in ("call", "attribute", "set", "item", "text", "form", "next", "iterate"):
            for name in ("__globals__", "__self__", "_space", "gi_frame", "SECRET", 0):
                try:
                    found.append(peer.ask(what, type(g)(peer, number if NUMBERS else 0), name, {}))
                except Exception as error:
                    found.append(error)
    import re
    numbers = re.findall("[0-9]{6}", repr(found))
    return int(numbers[0]) if numbers else 0
"""
LENT = {
    "reads the globals of a function": "def f(g, *rest): return g.__globals__['SECRET']",
    "reads the frame of a generator": "def f(g, *rest): return g.gi_frame.f_globals['SECRET']",
    "asks for everything": ASKED.replace("NUMBERS", "False"),
    "guesses numbers of objects": ASKED.replace("NUMBERS", "True"),
    "reports by the channel": "def f(g, *rest):\n    return object.__getattribute__(g, '_peer')"
    ".ask('passed', g)",
    "calls for ever": "def f(g, *rest):\n    while True: g",
    "calls itself through the tests": "def f(g, *rest): return f(lambda *a: f(g), g)",
    "changes an object": "def f(g, *rest):\n    g.value = rest\n    g.right = lambda *a: True\n"
    "    return g",
    "is the class of everything": "class f:\n    def __init__(self, *a): pass\n"
    "    __class__ = int\n    def __getattr__(self, name): return self",
}
LENDING = {
    "a function": "SECRET = 748121\nassert f(lambda x: x) == SECRET",
    "a generator": "SECRET = 748121\nassert f(x for x in [1]) == SECRET",
    "an object": "class A:\n    value = 748121\n    def right(self, x): return x == self.value\n"
    "a = A()\nassert f(a) is not None and a.right(f(a))",
    "a mock": "from unittest.mock import Mock\nSECRET = 748121\nm = Mock()\nassert f(m) == SECRET",
}


@pytest.mark.parametrize("name", LENT)
def test_a_program_gets_nowhere_by_what_the_tests_lend_it(engine: Any, name: str) -> None:
    reward = CodePython(engine=engine, **SECONDS)
    for tests in LENDING.values():
        result = reward.call_sync(response=program(LENT[name]), ground_truth={"test": tests})
        assert result["score"] == 0.0, tests


YES = """
class Yes:
    def yes(*a): return True
    def zero(*a): return 0
    def same(self, *a): return self
    __eq__ = __le__ = __ge__ = __lt__ = __gt__ = __contains__ = __and__ = __rand__ = yes
    __sub__ = __rsub__ = __xor__ = __rxor__ = __abs__ = __hash__ = __pow__ = zero
    __mul__ = __rmul__ = __truediv__ = same
    def __bool__(self): return False
def f(x): return Yes()
"""
TRUSTED = (
    "abs(f(3) - N) < 1", "not (f(3) - N)", "f(3) == N", "N == f(3)", "[f(3)] == [N]",
    "f(3) <= N <= f(3)", "not f(3) ^ N", "f(3) * 1 == N", "f(3) / N == 1", "N in f(3)",
    "abs(f(3) / N - 1) < 0.1", "{f(3)} == {N}", "f(3) & {N}", "{N} & {f(3)}", "f(3) ** N == 0",
    "min(f(3), N) == max(f(3), N)",
)  # fmt: skip


@pytest.mark.usefixtures("any_sandbox")
def test_an_object_of_a_program_is_not_asked_about_what_the_tests_expect() -> None:
    reward = CodePython(credit="fraction", **SECONDS)
    tests = [f"assert {test.replace('N', '748121')}" for test in TRUSTED]
    result = reward.call_sync(response=program(YES), ground_truth=tests)
    assert result["score"] == 0.0, result


@pytest.mark.parametrize(
    ("value", "test"),
    [
        ("10**12", "assert len(list(range(f(3)))) == 2"),
        ("10**9", "assert sum(range(f(3))) == 2"),
        ("10**12", "assert len('x' * f(3)) == 2"),
        ("'(a+)+$'", "import re\nassert re.search(f(3), 'a' * 60 + 'b')"),
        ("iter(int, 1)", "assert list(f(3)) == [1]"),
        ("10**7", "assert 3 ** f(3) == 1"),
        ("datetime.datetime.max", "import datetime\nassert f(3) + datetime.timedelta(1) == 1"),
    ],
)
def test_a_value_that_keeps_the_tests_busy_is_wrong(engine: Any, value: str, test: str) -> None:
    code = f"import datetime\ndef f(x): return {value}"
    reward = CodePython(engine=engine, **SECONDS)
    assert reward.call_sync(response=program(code), ground_truth={"test": test})["score"] == 0.0


UGLY = "chr(0xd800) + chr(0) + chr(27) + 'x' * 10**6"


@pytest.mark.usefixtures("any_sandbox")
def test_what_a_program_says_fits_into_any_file() -> None:
    rows = [
        (CodePython(**SECONDS), f"def f(x): raise ValueError({UGLY})", "assert f(1) == 1"),
        (CodePython(**SECONDS), f"def f(x): raise ValueError({UGLY})", "assert abs(f(1)) == 1"),
        (CodePython(**SECONDS), f"raise ValueError({UGLY})", "assert abs(f(1)) == 1"),
        (CodePython(**SECONDS), f"type('E', (Exception,), {{}})({UGLY})\n1 +", "assert f(1) == 1"),
        (CodeStdio(**SECONDS), f"print({UGLY})\nraise ValueError({UGLY})", CASES),
        (CodeStdio(**SECONDS), f"import sys\nsys.exit({UGLY})", CASES),
        (CodeStdio(language="bash", **SECONDS), "printf '\\355\\240\\200\\0' >&2; exit 3", CASES),
        (CodeSyntax(), "x = '\ud800' +", None),
    ]
    for reward, code, truth in rows:
        tag = "bash" if "printf" in code else "python"
        response = f"```{tag}\n{code}\n```"
        with RewardService(reward) as service:
            outcomes = service.score_sync([Sample(response=response, ground_truth=truth)])
        (outcome,) = outcomes
        assert isinstance(outcome, Score), outcome
        assert outcome.value == 0.0
        message = outcome.info["message"]
        assert isinstance(message, str)
        assert len(message) <= 500
        message.encode()
        assert all(c.isprintable() or c in "\n\t" for c in message), message


def test_the_stub_of_the_prompt_is_no_solution(engine: Any) -> None:
    row = {
        "prompt": "def nothing(x):\n    '''Gives None.'''\n",
        "test": "def check(candidate):\n    assert candidate(1) is None",
        "entry_point": "nothing",
    }
    reward = CodePython(engine=engine, **SECONDS)
    assert reward.call_sync(response=program("x = 1"), ground_truth=row)["score"] == 0.0
