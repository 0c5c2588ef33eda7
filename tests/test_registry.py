"""Names, references and routes of rewards."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from guerdon import plugins, registry, source_file
from guerdon.errors import InvalidReward, NameCollision, UnknownReward
from guerdon.reward import BaseReward, reward


@pytest.fixture(autouse=True)
def clean_registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Names, routes, modules and search path of one test are gone after it."""
    monkeypatch.setattr(registry, "_definitions", dict(registry._definitions))
    monkeypatch.setattr(registry, "_routes", {})
    monkeypatch.setattr(source_file, "_files", {})
    monkeypatch.setattr(sys, "path", list(sys.path))
    modules = set(sys.modules)
    plugins.refresh()
    yield
    for name in set(sys.modules) - modules:
        del sys.modules[name]
    plugins.refresh()


Writer = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Writer:
    """Write a Python file below the test's folder."""

    def write_file(name: str, code: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(code), encoding="utf-8")
        return path

    return write_file


@pytest.fixture
def install(write: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Install a package of one module with entry points, in a site folder of its own."""

    def install_package(
        module: str,
        code: str,
        rewards: dict[str, str] | None = None,
        routes: dict[str, str] | None = None,
    ) -> None:
        write(f"{module}_site/{module}/__init__.py", code)
        site = tmp_path / f"{module}_site"
        info = f"{module}_site/{module}-1.2.dist-info"
        write(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.2\n")
        lines = ["[guerdon.rewards]", *(f"{k} = {v}" for k, v in (rewards or {}).items())]
        lines += ["[guerdon.routes]", *(f"{k} = {v}" for k, v in (routes or {}).items())]
        write(f"{info}/entry_points.txt", "\n".join(lines))
        monkeypatch.syspath_prepend(str(site))
        plugins.refresh()

    return install_package


class TestByName:
    def test_a_decorated_function_is_found_by_its_name(self):
        @reward(name="registry_found")
        def found(response: str) -> bool:
            return bool(response)

        assert registry.get("registry_found") is found
        assert registry.resolve("registry_found") is found
        assert "registry_found" in registry.names()

    def test_a_function_without_a_name_gets_its_own(self):
        @reward
        def registry_plain(response: str) -> bool:
            return bool(response)

        assert registry.get("registry_plain") is registry_plain

    def test_a_class_is_registered_in_snake_case_and_constructed_with_options(self):
        class RegistryTall(BaseReward):
            def __init__(self, limit: int = 3) -> None:
                self.limit = limit

            def call(self, *, response: str) -> bool:
                return len(response) > self.limit

        assert registry.get("registry_tall") is RegistryTall
        made = registry.resolve("registry_tall", limit=1)
        assert isinstance(made, RegistryTall)
        assert made.call_sync(response="ab") is True

    def test_function_options_are_bound(self):
        @reward(name="registry_short")
        def short(response: str, *, limit: int = 10) -> bool:
            return len(response) <= limit

        assert registry.resolve("registry_short", limit=1).call_sync(response="ab") is False
        assert short.call_sync(response="ab") is True

    def test_a_base_class_without_call_claims_no_name(self):
        class RegistryAbstract(BaseReward):
            pass

        assert RegistryAbstract.name not in registry.names()

    def test_auto_register_off_keeps_the_name_free(self):
        @reward(name="registry_hidden", auto_register=False)
        def hidden(response: str) -> bool:
            return bool(response)

        class RegistryHiddenClass(BaseReward):
            auto_register = False

            def call(self, *, response: str) -> bool:
                return bool(response)

        assert hidden.call_sync(response="x") is True
        assert not {"registry_hidden", RegistryHiddenClass.name} & set(registry.names())

    def test_unregister_frees_a_name(self):
        @reward(name="registry_gone")
        def gone(response: str) -> bool:
            return bool(response)

        registry.unregister(gone.name)
        registry.unregister("registry_never_there")
        with pytest.raises(UnknownReward, match="no reward is named 'registry_gone'"):
            registry.get("registry_gone")

    @pytest.mark.parametrize(
        ("reference", "message"),
        [
            ("registry_spelt", "no reward is named 'registry_spelt' (did you mean"),
            ("my_pkg.rewards.exact", "(a dotted path is my_pkg.rewards:exact)"),
            ("rewards/mine.py", "for a file write rewards/mine.py:NAME"),
            ("guerdon.sample:Sampel", "has no 'Sampel' (did you mean 'Sample'?)"),
            ("guerdon.sample:", "write pkg.mod:NAME or path.py:NAME"),
            (":exact", "write pkg.mod:NAME or path.py:NAME"),
            ("verl:v.py", "'verl:v.py' names no function of the file: write verl:v.py:NAME"),
            ("verl_omni:rewards", "is verl_omni:path.py:NAME or verl_omni:pkg.mod:NAME"),
            ("no_such_pkg.mod:exact", "cannot import 'no_such_pkg.mod': No module named"),
        ],
    )
    def test_what_is_not_found_is_explained(self, reference: str, message: str):
        @reward(name="registry_spelled")
        def spelled(response: str) -> bool:
            return bool(response)

        with pytest.raises(UnknownReward) as caught:
            registry.resolve(reference)
        assert message in str(caught.value)

    @pytest.mark.parametrize(
        ("reference", "message"),
        [
            ("guerdon.sample:Sample", "is a class that is not derived from BaseReward"),
            ("guerdon.injection:CALL_FIELDS", "is a tuple, not a reward"),
            ("guerdon.reward:BaseReward", "has no method 'call'"),
            ("math:sqrt", "cannot be injected by name"),
        ],
    )
    def test_what_is_no_reward_is_refused(self, reference: str, message: str):
        with pytest.raises(InvalidReward, match=message):
            registry.resolve(reference)


class TestOptions:
    def test_an_unknown_option_of_a_class_names_the_nearest(self):
        class RegistryOptions(BaseReward):
            def __init__(self, method: str = "strict") -> None:
                self.method = method

            def call(self, *, response: str) -> bool:
                return bool(response)

        message = r"'registry_options' has no option 'metod' \(did you mean 'method'\?\)"
        with pytest.raises(InvalidReward, match=message):
            registry.resolve("registry_options", metod="x")

    def test_an_unknown_option_of_a_function_names_the_nearest(self):
        @reward(name="registry_option_function")
        def function(response: str, *, method: str = "strict") -> bool:
            return method == response

        with pytest.raises(InvalidReward, match="did you mean 'method'"):
            registry.resolve("registry_option_function", metod="x")

    def test_a_missing_required_option_names_the_class(self):
        class RegistryNeedy(BaseReward):
            def __init__(self, model: str) -> None:
                self.model = model

            def call(self, *, response: str) -> bool:
                return bool(response)

        with pytest.raises(InvalidReward, match=r"cannot make .*RegistryNeedy.*'model'"):
            registry.resolve("registry_needy")


class TestCollisions:
    def test_another_definition_is_refused_and_both_places_are_named(self):
        @reward(name="registry_taken")
        def first(response: str) -> bool:
            return bool(response)

        with pytest.raises(NameCollision) as caught:

            @reward(name="registry_taken")
            def second(response: str) -> bool:
                return bool(response)

        assert ".first" in str(caught.value)
        assert ".second" in str(caught.value)
        assert registry.get("registry_taken") is first

    def test_a_class_cannot_take_the_name_of_a_function(self):
        @reward(name="registry_both")
        def function(response: str) -> bool:
            return bool(response)

        with pytest.raises(NameCollision, match="RegistryBoth"):

            class RegistryBoth(BaseReward):
                def call(self, *, response: str) -> bool:
                    return bool(response)

    def test_the_same_definition_again_replaces_the_old_one(self):
        def define() -> BaseReward:
            @reward(name="registry_again")
            def again(response: str) -> bool:
                return bool(response)

            return again

        define()
        second = define()
        assert registry.get("registry_again") is second

    def test_a_file_loaded_by_path_and_imported_by_name_is_one_definition(
        self, write: Writer, monkeypatch: pytest.MonkeyPatch
    ):
        path = write(
            "registry_twice.py",
            """
            from guerdon.reward import reward

            @reward(name="registry_twice")
            def twice(response):
                return 2
            """,
        )
        by_path = registry.resolve(f"{path}:twice")
        monkeypatch.syspath_prepend(str(path.parent))
        by_name = registry.resolve("registry_twice:twice")
        assert by_path.fingerprint == by_name.fingerprint

    def test_a_definition_cannot_take_the_name_of_a_plugin(self, install: Callable[..., None]):
        install("registry_plug", "", {"registry_plugged": "registry_plug:reward"})
        with pytest.raises(NameCollision) as caught:

            @reward(name="registry_plugged")
            def mine(response: str) -> bool:
                return bool(response)

        assert "registry_plug:reward" in str(caught.value)
        assert ".mine" in str(caught.value)
        assert "registry_plug" not in sys.modules


PLUGIN = """
from guerdon.reward import reward

@reward(name="registry_plugged", value_range=(0.0, 2.0))
def plugged(response):
    "Twice."
    return 2
"""


class TestPlugins:
    def test_a_plugin_is_listed_without_being_imported_and_loaded_on_use(
        self, install: Callable[..., None]
    ):
        install("registry_plug", PLUGIN, {"registry_plugged": "registry_plug:plugged"})
        assert "registry_plugged" in registry.names()
        assert "registry_plug" not in sys.modules
        assert plugins.package_of("registry_plugged") == "registry_plug 1.2"
        assert registry.resolve("registry_plugged").call_sync(response="x") == 2

    def test_a_plugin_may_point_to_another_module_of_its_package(
        self, install: Callable[..., None], write: Writer
    ):
        write("registry_plug_site/registry_plug/inner.py", PLUGIN)
        code = "from registry_plug.inner import plugged"
        install("registry_plug", code, {"registry_plugged": "registry_plug:plugged"})
        assert registry.resolve("registry_plugged").call_sync(response="x") == 2
        assert registry.resolve("registry_plugged").name == "registry_plugged"

    def test_a_package_that_has_two_rewards_of_one_name_is_refused(
        self, install: Callable[..., None], write: Writer
    ):
        write("registry_plug_site/registry_plug/inner.py", PLUGIN)
        code = PLUGIN.replace('name="registry_plugged"', "auto_register=False")
        install("registry_plug", code, {"registry_plugged": "registry_plug:plugged"})
        assert registry.resolve("registry_plug.inner:plugged").call_sync(response="x") == 2
        with pytest.raises(NameCollision, match=r"registry_plug\.inner:plugged"):
            registry.resolve("registry_plugged")

    def test_a_plugin_that_fails_to_import_costs_only_its_own_name(
        self, install: Callable[..., None]
    ):
        install("registry_plug", PLUGIN, {"registry_plugged": "registry_plug:plugged"})
        install("registry_broken", "1 / 0", {"registry_bad": "registry_broken:reward"})
        message = (
            r"'registry_bad' \(registry_broken:reward of registry_broken\) fails to import: "
            "ZeroDivisionError"
        )
        with pytest.raises(UnknownReward, match=message):
            registry.get("registry_bad")
        assert registry.resolve("registry_plugged").call_sync(response="x") == 2

    def test_a_plugin_that_is_no_reward_is_refused(self, install: Callable[..., None]):
        install("registry_plug", "thing = 3", {"registry_thing": "registry_plug:thing"})
        with pytest.raises(InvalidReward, match="'registry_plug:thing' is a int"):
            registry.get("registry_thing")

    def test_two_packages_with_one_name_cost_only_that_name(self, install: Callable[..., None]):
        for module in ("registry_left", "registry_right"):
            claims = {"registry_plugged": f"{module}:plugged", f"only_{module}": f"{module}:other"}
            install(module, PLUGIN + "\ndef other(response): return 1\n", claims)
        with pytest.raises(NameCollision) as caught:
            registry.get("registry_plugged")
        assert "registry_left:plugged" in str(caught.value)
        assert "registry_right:plugged" in str(caught.value)
        assert registry.resolve("only_registry_left").call_sync(response="") == 1

    def test_a_package_found_twice_on_the_path_is_one(
        self, install: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        install("registry_plug", PLUGIN, {"registry_plugged": "registry_plug:plugged"})
        twin = tmp_path / "twin"
        info = tmp_path / "registry_plug_site" / "registry_plug-1.2.dist-info"
        (twin / info.name).mkdir(parents=True)
        for file in info.iterdir():
            (twin / info.name / file.name).write_text(file.read_text())
        monkeypatch.syspath_prepend(str(twin))
        plugins.refresh()
        assert registry.resolve("registry_plugged").call_sync(response="x") == 2


class TestFiles:
    def test_a_plain_function_of_a_file_is_a_reward(self, write: Writer):
        path = write("mine.py", "def score(solution_str, ground_truth): return 0.5")
        found = registry.resolve(f"{path}:score")
        assert found.call_sync(response="x", ground_truth="y") == 0.5
        assert registry.place_of(found) == f"{path}:score"

    def test_a_file_runs_once(self, write: Writer):
        path = write("once.py", "import sys\ncalls = []\ndef score(response): return 1\n")
        first = registry.load_file(str(path))
        assert registry.load_file(str(path)) is first
        assert str(path) in registry.loaded_files().values()

    def test_a_path_is_relative_to_the_working_directory(
        self, write: Writer, monkeypatch: pytest.MonkeyPatch
    ):
        path = write("folder/mine.py", "def score(response): return 1")
        monkeypatch.chdir(path.parents[1])
        assert registry.resolve("folder/mine.py:score").call_sync(response="") == 1

    @pytest.mark.parametrize(
        "statement", ["from .sibling_helper import half", "from sibling_helper import half"]
    )
    def test_siblings_are_imported_relatively_or_by_name(self, write: Writer, statement: str):
        write("sibling_helper.py", "half = 0.5\n")
        path = write("with-sibling.v2.py", f"{statement}\ndef score(response): return half\n")
        assert registry.resolve(f"{path}:score").call_sync(response="") == 0.5

    def test_a_file_does_not_shadow_an_installed_module(self, write: Writer):
        write("textwrap.py", "dedent = None\n")
        path = write("beside.py", "from textwrap import dedent\ndef score(response): return 1\n")
        registry.resolve(f"{path}:score")
        assert registry.target_of(f"{path}:dedent") is dedent

    def test_a_reward_of_a_file_has_the_same_name_in_another_process(self, write: Writer):
        path = write("stable.py", "def score(response): return 1\n")
        code = f"from guerdon import registry; print(registry.load_file({str(path)!r}).__name__)"
        result = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        assert result.stdout.strip() == registry.load_file(str(path)).__name__

    @pytest.mark.parametrize(
        ("code", "message"),
        [
            ("x = 1\ny = x +\n", "(line 2): SyntaxError: invalid syntax"),
            ("x = 1\n\n1 / 0\n", "(line 3): ZeroDivisionError: division by zero"),
            ("import no_such_module\n", "(line 1): No module named 'no_such_module'"),
            ("from .nobody import x\n", "(line 1): No module named"),
            ("import sys\nsys.exit(3)\n", "(line 2): SystemExit: 3"),
        ],
    )
    def test_a_broken_file_says_what_and_where(self, write: Writer, code: str, message: str):
        path = write("broken.py", code)
        for _ in range(2):
            with pytest.raises(UnknownReward) as caught:
                registry.resolve(f"{path}:score")
            assert f"{str(path)!r} fails to import {message}" in str(caught.value)
        assert str(path) not in registry.loaded_files().values()

    def test_a_broken_file_can_be_mended(self, write: Writer):
        path = write("mended.py", "1 / 0\n")
        with pytest.raises(UnknownReward):
            registry.resolve(f"{path}:score")
        write("mended.py", "def score(response): return 1\n")
        assert registry.resolve(f"{path}:score").call_sync(response="") == 1

    def test_missing_files_and_folders_are_told_apart(self, tmp_path: Path):
        with pytest.raises(UnknownReward, match=r"no file '.*absent\.py'"):
            registry.resolve(f"{tmp_path / 'absent.py'}:score")
        (tmp_path / "folder.py").mkdir()
        with pytest.raises(UnknownReward, match="is a folder"):
            registry.resolve(f"{tmp_path / 'folder.py'}:score")


class TestRoutes:
    def test_the_exact_pattern_wins_then_the_longest(self):
        for pattern, name in {
            "*": "any",
            "openai/*": "openai",
            "openai/gsm8k": "exact",
            "openai/gsm*": "gsm",
            "math_[0-9]?": "numbered",
        }.items():
            registry.route(pattern, name)
        expected = {
            "openai/gsm8k": "exact",
            "openai/gsm1k": "gsm",
            "openai/human_eval": "openai",
            "math_12": "numbered",
            "math_x2": "any",
            "OPENAI/gsm8k": "any",
        }
        assert {source: registry.reference_for(source) for source in expected} == expected

    def test_no_route_is_an_error_with_a_hint(self):
        registry.route("openai/gsm8k", "gsm8k")
        with pytest.raises(UnknownReward, match=r"'openai/gsm8' \(did you mean 'openai/gsm8k'"):
            registry.reference_for("openai/gsm8")

    def test_own_routes_override_those_of_plugins(self, install: Callable[..., None]):
        code = "table = {'a/*': 'theirs', 'b': 'theirs'}"
        install("registry_routes", code, routes={"x": "registry_routes:table"})
        registry.route("a/*", "mine")
        assert registry.reference_for("a/1") == "mine"
        assert registry.reference_for("b") == "theirs"

    def test_broken_routes_of_a_plugin_break_no_others(self, install: Callable[..., None]):
        install("registry_bad_routes", "1 / 0", routes={"x": "registry_bad_routes:table"})
        install("registry_no_routes", "table = 3", routes={"y": "registry_no_routes:table"})
        registry.route("a", "mine")
        assert registry.reference_for("a") == "mine"
        with pytest.raises(UnknownReward, match=r"registry_bad_routes.*ZeroDivisionError") as found:
            registry.reference_for("zzz")
        assert "registry_no_routes:table of registry_no_routes is a int" in str(found.value)
