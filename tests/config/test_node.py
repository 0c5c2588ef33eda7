"""Rewards, compositions and targets from configurations, and what is refused."""

from collections.abc import Callable
from pathlib import Path

import pytest

from guerdon.compose import Conditional, Gate, WeightedSum
from guerdon.config import ServiceConfig, load
from guerdon.errors import ConfigError
from guerdon.registry import load_file, resolve
from guerdon.reward import BaseReward
from guerdon.sample import Sample
from guerdon.service import RewardService

Loader = Callable[..., ServiceConfig]
NODES = [
    ("name: cfg_exact", "cfg_exact", {}),
    ("{name: cfg_exact, method: loose}", "cfg_exact", {"method": "loose"}),
    ("cfg_exact", "cfg_exact", {}),
    ("rewards.py:exact", "cfg_exact", {}),
    ("{name: 'rewards.py:exact', scale: 1}", "cfg_exact", {"scale": 1}),
    ("{name: cfg_exact, tags: [a, b]}", "cfg_exact", {"tags": ("a", "b")}),
    ("rewards.py:plain", "plain", {}),
    ("{name: 'rewards.py:rest', anything: 3}", "rest", {"anything": 3}),
    ("{name: cfg_length, limit: 3}", "cfg_length", {"limit": 3, "inner": None}),
    ("{_target_: 'rewards.py:CfgLength', limit: 3}", "cfg_length", {"limit": 3, "inner": None}),
    ("{_target_: 'rewards.py:CfgLength', _args_: [3]}", "cfg_length", {"limit": 3, "inner": None}),
    ("{_target_: 'rewards.py:exact', method: loose}", "cfg_exact", {"method": "loose"}),
    ("{_target_: 'rewards.py:make_length', limit: 4}", "cfg_length", {"limit": 4, "inner": None}),
    ("{_target_: 'rewards.py:CfgLength.short'}", "cfg_length", {"limit": 3, "inner": None}),
    (
        "{_target_: 'rewards.py:CfgLength', limit: 3, _convert_: all, _recursive_: true}",
        "cfg_length",
        {"limit": 3, "inner": None},
    ),
    ("{name: cfg_exact, _settings_: {name: mine, deadline: 2}}", "mine", {}),
    ("{_target_: cfg_exact, method: loose}", "cfg_exact", {"method": "loose"}),
    ("{_target_: cfg_length, limit: 3}", "cfg_length", {"limit": 3, "inner": None}),
    ("{_target_: cfg_exact, _settings_: {name: mine}}", "mine", {}),
]


@pytest.mark.parametrize(("node", "name", "options"), NODES)
def test_a_node_gives_the_reward_and_its_options(
    load_text: Loader, node: str, name: str, options: dict[str, object]
):
    reward = load_text(f"reward: {node}" if ": " not in node or node[0] == "{" else node).reward
    assert reward.name == name
    assert dict(reward.options) == options


@pytest.mark.parametrize(("node", "name", "options"), [n for n in NODES if n[0][0] == "{"])
def test_a_file_may_be_a_reward_by_itself(
    load_text: Loader, node: str, name: str, options: dict[str, object]
):
    assert load_text(node).reward.name == name


@pytest.mark.parametrize("reference", ["verl:rewards.py:plain", "verl:{folder}/rewards.py:plain"])
def test_a_function_of_a_trainer_is_the_same_under_either_head(
    load_text: Loader, folder: Path, reference: str
):
    reference = reference.format(folder=folder)
    named, targeted = (
        load_text(f"reward: {{{head}: '{reference}', scale: 2.0}}").reward
        for head in ("name", "_target_")
    )
    assert named.fingerprint == targeted.fingerprint
    assert named.fingerprint == resolve(f"verl:{folder}/rewards.py:plain", scale=2.0).fingerprint


def test_the_same_reward_in_python_has_the_same_fingerprint(load_text: Loader, folder: Path):
    configured = load_text("reward: {name: cfg_exact, method: loose, scale: 1}").reward
    bound = resolve(f"{folder / 'rewards.py'}:exact", method="loose", scale=1)
    assert configured.fingerprint == bound.fingerprint


def test_settings_change_the_declaration_and_options_the_reward(load_text: Loader):
    reward = load_text(
        """
        reward:
          name: cfg_exact
          method: loose
          _settings_:
            name: loose_exact
            deadline: 2.5
            value_range: [0, 2]
            candidate_fault: [timeout]
            concurrency: ${env:MANY,8}
        """
    ).reward
    assert (reward.name, reward.deadline, reward.value_range) == ("loose_exact", 2.5, (0.0, 2.0))
    assert (reward.candidate_fault, reward.concurrency) == (("timeout",), 8)
    assert reward.call_sync(response="is 4", ground_truth="4") == 1.0


def test_nested_targets_are_built_first(load_text: Loader):
    reward = load_text(
        """
        reward:
          name: cfg_length
          limit: 3
          inner: {_target_: "rewards.py:CfgLength", limit: 9}
        """
    ).reward
    inner = reward.options["inner"]
    assert isinstance(inner, BaseReward)
    assert inner.options["limit"] == 9


def test_python_objects_are_taken_as_they_are(folder: Path):
    file = load_file(str(folder / "rewards.py"))
    assert load({"reward": file.exact}).reward is file.exact
    assert load({"reward": file.plain}).reward.name == "plain"


COMPOSED = """
reward:
  weighted_sum:
    accuracy:
      reward: {name: cfg_exact, method: loose}
      weight: 0.9
    tidy: {reward: cfg_tidy, weight: 0.1, missing: {value: 0.0}}
  name: total
"""


class TestCompositions:
    def test_the_short_form_is_the_class(self, load_text: Loader, folder: Path):
        made = load_text(COMPOSED).reward
        exact = resolve(f"{folder / 'rewards.py'}:exact", method="loose")
        by_hand = WeightedSum(
            {
                "accuracy": {"reward": exact, "weight": 0.9},
                "tidy": {"reward": "cfg_tidy", "weight": 0.1, "missing": {"value": 0.0}},
            },
            name="total",
        )
        assert isinstance(made, WeightedSum)
        assert made.fingerprint == by_hand.fingerprint
        with RewardService(made) as service:
            scored = service.score_sync([Sample(response="is 4 ", ground_truth="4")])
        assert scored.values.tolist() == [0.9]
        assert {k: c.values[0] for k, c in scored.components.items()} == {
            "accuracy": 1.0,
            "tidy": 0.0,
        }

    def test_a_list_of_children_and_nested_compositions(self, load_text: Loader):
        made = load_text(
            """
            minimum:
              - cfg_tidy
              - name: both
                weighted_sum: {a: cfg_exact, b: {reward: {name: cfg_length, limit: 2}}}
                normalise: true
              - clip: {name: cfg_length, limit: 3}
                high: 0.5
            """
        ).reward
        assert list(made.children) == ["cfg_tidy", "both", "clip"]
        assert made.value_range == (0.0, 0.5)

    def test_a_gate_has_a_reward_and_is_no_service(self, load_text: Loader):
        made = load_text("{gate: {tidy: cfg_tidy}, reward: cfg_exact, threshold: 1}").reward
        assert isinstance(made, Gate)
        assert list(made.children) == ["tidy", "cfg_exact"]

    def test_a_gate_is_a_child_like_any_other(self, load_text: Loader):
        made = load_text(
            """
            weighted_sum:
              gated: {gate: [cfg_tidy], reward: cfg_exact, threshold: 1}
              plain: cfg_exact
            """
        ).reward
        assert isinstance(made.children["gated"], Gate)

    def test_weights_follow_the_step_and_conditions_choose(self, load_text: Loader):
        made = load_text(
            """
            conditional:
              math: {weighted_sum: [{reward: cfg_exact, weight: {points: {0: 1.0, 100: 0.5}}}]}
              rest: cfg_tidy
            when: {math: "math*"}
            otherwise: rest
            """
        ).reward
        samples = [
            Sample(response="4", ground_truth="4", data_source="math/1"),
            Sample(response=" x", data_source="chat"),
        ]
        with RewardService(made) as service:
            assert service.score_sync(samples, step=100).values.tolist() == [0.5, 0.0]

    def test_a_composition_by_target_takes_nodes_as_its_children(self, load_text: Loader):
        by_target = load_text(
            """
            reward:
              _target_: guerdon.compose.WeightedSum
              children:
                accuracy: {_target_: guerdon.compose.Child, reward: cfg_exact, weight: 0.5}
                loose: {name: cfg_exact, method: loose}
                tidy: {reward: cfg_tidy, weight: 0.1}
              normalise: true
              _settings_: {name: total}
            """
        ).reward
        in_short = load_text(
            """
            weighted_sum:
              accuracy: {reward: cfg_exact, weight: 0.5}
              loose: {name: cfg_exact, method: loose}
              tidy: {reward: cfg_tidy, weight: 0.1}
            normalise: true
            _settings_: {name: total}
            """
        ).reward
        assert by_target.fingerprint == in_short.fingerprint

    def test_schedule_cascade_affine_group_normalise(self, load_text: Loader):
        made = load_text(
            """
            schedule:
              easy: {cascade: [cfg_tidy, cfg_exact], undecided: [0, 0]}
              hard: {group_normalise: {affine: cfg_exact, scale: 2, offset: -1}}
            phases: {0: easy, 10: hard}
            """
        ).reward
        assert list(made.children) == ["easy", "hard"]


class TestRoutes:
    ROUTES = """
    routes:
      "*": cfg_tidy
      "openai/*": {name: cfg_exact, method: loose}
      "openai/gsm8k": cfg_exact
    """
    SAMPLES = (
        Sample(response="is 4", ground_truth="4", data_source="openai/gsm8k"),
        Sample(response="is 4", ground_truth="4", data_source="openai/other"),
        Sample(response="is 4", ground_truth="4", data_source="else"),
        Sample(response=" is 4", ground_truth="4", data_source="else"),
    )

    def test_exact_patterns_come_first_then_the_longest(self, load_text: Loader):
        made = load_text(self.ROUTES).reward
        assert isinstance(made, Conditional)
        with RewardService(made) as service:
            assert service.score_sync(self.SAMPLES).values.tolist() == [0.0, 1.0, 1.0, 0.0]

    def test_exact_patterns_of_one_reward_are_one_component(self, load_text: Loader):
        made = load_text(
            "routes: {a: cfg_exact, b/c: cfg_exact, d: {name: cfg_exact, method: loose},"
            " 'e/*': cfg_exact, f: cfg_tidy}"
        ).reward
        assert list(made.children) == [
            "cfg_exact@b_c",
            "cfg_exact@d",
            "cfg_tidy",
            "cfg_exact@e_*",
        ]
        samples = [
            Sample(response="4", ground_truth="4", data_source=source)
            for source in ("a", "b/c", "d", "e/1", "f", "g")
        ]
        with RewardService(made) as service:
            scored = service.score_sync(samples)
        assert scored.mask.tolist() == [True] * 5 + [False]
        columns = {name: c.mask.tolist()[:5] for name, c in scored.components.items()}
        assert columns["cfg_exact@b_c"] == [True, True, False, False, False]
        assert columns["cfg_exact@e_*"] == [False, False, False, True, False]

    def test_patterns_that_look_alike_are_told_apart(self, load_text: Loader):
        made = load_text("routes: {'a/*': cfg_exact, 'a_*': cfg_exact}").reward
        assert list(made.children) == ["cfg_exact@a_*", "cfg_exact@a_*'"]

    def test_a_reward_beside_routes_takes_the_rest(self, load_text: Loader):
        made = load_text("{reward: cfg_tidy, routes: {'openai/*': cfg_exact}}").reward
        with RewardService(made) as service:
            assert service.score_sync(self.SAMPLES).values.tolist() == [0.0, 0.0, 1.0, 0.0]

    def test_without_it_the_rest_is_abstained(self, load_text: Loader):
        made = load_text("routes: {'openai/*': cfg_exact}").reward
        with RewardService(made) as service:
            assert service.score_sync(self.SAMPLES).mask.tolist() == [True, True, False, False]

    def test_a_registry_without_routes_is_said_so(
        self, load_text: Loader, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr("guerdon.plugins.routes", dict)
        with pytest.raises(ConfigError, match="the registry has no routes"):
            load_text("routes: registered")

    def test_the_routes_of_the_registry(self, load_text: Loader, monkeypatch: pytest.MonkeyPatch):
        from guerdon import registry

        monkeypatch.setattr("guerdon.plugins.routes", dict)
        registry.route("openai/*", "cfg_exact")
        registry.route("*", "cfg_tidy")
        made = load_text("routes: registered").reward
        with RewardService(made) as service:
            assert service.score_sync(self.SAMPLES).values.tolist() == [0.0, 0.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "reward: cfg_exakt",
            "1: reward: no reward is named 'cfg_exakt' (did you mean 'cfg_exact'?)",
        ),
        ("reward: {nam: cfg_exact}", "1: reward.nam: unknown key 'nam' (did you mean 'name'?)"),
        ("reward: {}", "1: reward: nothing says which reward this is: give name, _target_, "),
        ("reward: {foo: 1}", "nothing says which reward this is (keys: foo): give name"),
        ("reward: 3", "1: reward: a reward is a name or a mapping, not a int 3"),
        ("reward:", "1: reward: a reward is a name or a mapping, not nothing"),
        ("reward: [cfg_exact]", "a reward is a name or a mapping, not a list"),
        ("reward: {name: 3}", "1: reward.name: a name is text, not a int 3"),
        (
            "reward:\n  name: cfg_exact\n  metod: loose\n",
            "3: reward.metod: unknown option of reward 'cfg_exact' 'metod' (did you mean 'method'",
        ),
        (
            "reward:\n  name: cfg_exact\n  method: lose\n",
            "3: reward.method: 'lose' is none of strict, loose (did you mean 'loose'?)",
        ),
        (
            "reward: {name: cfg_exact, scale: much}",
            "reward.scale: Expected `float`, got `str`: 'much'",
        ),
        ("reward: {name: cfg_exact, scale: true}", "reward.scale: Expected `float`, got `bool`"),
        ("reward: {name: cfg_length, limt: 3}", "unknown option of reward 'cfg_length' 'limt'"),
        ("reward: {name: cfg_length, limit: 3.5}", "reward.limit: Expected `int`, got `float`"),
        ("reward: cfg_length", "cannot make"),
        (
            "reward: {name: cfg_exact, deadline: 3}",
            "reward.deadline: 'deadline' is no option of reward 'cfg_exact' but a setting: write "
            "_settings_: {deadline: ...}",
        ),
        (
            "reward: {name: cfg_exact, weight: 3}",
            "reward.weight: 'weight' belongs beside the reward: {reward: {name: ...}, weight: ...}",
        ),
        (
            "reward: {name: cfg_exact, _settings_: {dedline: 3}}",
            "reward._settings_.dedline: unknown setting 'dedline' (did you mean 'deadline'?)",
        ),
        (
            "reward: {name: cfg_exact, _settings_: {deadline: -1}}",
            "reward._settings_: reward 'cfg_exact': deadline must be a number above 0, got -1",
        ),
        ("reward: {name: cfg_exact, _settings_: {deadline: soon}}", "reward._settings_.deadline:"),
        (
            "reward: {name: cfg_exact, _settings_: {scope: all}}",
            "scope is 'all', not one of sample",
        ),
        ("reward: {name: cfg_exact, _settings_: 3}", "reward._settings_: settings are a mapping"),
        ("reward: {name: cfg_exact, _settings_: {auto_register: false}}", "unknown setting"),
        ("reward: 'nowhere.py:fn'", "1: reward: no file "),
        ("reward: 'rewards.py:nobody'", "has no 'nobody'"),
        ("reward: 'rewards.py:Foreign'", "Foreign' is a class that is not derived from BaseReward"),
        ("reward: {_target_: absent_pkg.Foreign}", "reward._target_: cannot import 'absent_pkg'"),
        ("reward: {_target_: 'rewards.py:Foreign'}", "is nothing that a configuration may build"),
        ("reward: {_target_: 'rewards.py:make_policy'}", "gives a Policy, not a reward"),
        ("reward: {_target_: 'rewards.py:lying_factory'}", "lying_factory returned a int"),
        ("reward: {_target_: os.system, command: 'echo x'}", "posix.system is nothing that"),
        ("reward: {_target_: builtins.eval}", "builtins.eval is nothing that a configuration"),
        ("reward: {_target_: subprocess.Popen, args: [echo]}", "is nothing that a configuration"),
        ("reward: {_target_: pathlib.Path}", "is nothing that a configuration may build"),
        ("reward: {_target_: no.such.thing}", "reward._target_: cannot import 'no'"),
        ("reward: {_target_: cfg_exakt}", "reward._target_: no reward is named 'cfg_exakt' (did"),
        ("reward: {_target_: 'verl:lost.py:f'}", "reward._target_: no file "),
        ("reward: {_target_: 'verll:rewards.py:plain'}", "no calling convention is named 'verll'"),
        ("reward: {_target_: 'verl:rewards.py'}", "write verl:rewards.py:NAME"),
        ("reward: {_target_: 3}", "reward._target_: a target is a text such as pkg.mod.Class"),
        (
            "reward: {_target_: 'rewards.py:CfgLength', limit: 3, _partial_: true}",
            "reward._partial_: Hydra's '_partial_' is understood as False only",
        ),
        ("reward: {_target_: 'rewards.py:exact', _args_: [3]}", "takes its options by name"),
        (
            "reward: {name: cfg_length, limit: 3, inner: {_target_: os.getcwd}}",
            "reward.inner._target_: posix.getcwd is nothing",
        ),
        ("reward: {weighted_sum: {a: cfg_exact}, product: {b: cfg_exact}}", "in one node"),
        (
            "reward: {weighted_sum: {a: {reward: cfg_exact, wieght: 1}}}",
            "reward.weighted_sum.a.wieght: unknown key 'wieght' (did you mean 'weight'?)",
        ),
        (
            "reward: {weighted_sum: {a: cfg_exact}, normalize: true}",
            "reward.normalize: unknown argument of weighted_sum 'normalize' (did you mean",
        ),
        (
            "reward: {weighted_sum: {a: {reward: cfg_exact, missing: fial}}}",
            "reward.weighted_sum.a: missing must be one of fail, abstain, renormalise",
        ),
        (
            "reward: {weighted_sum: {a: {reward: cfg_exact, weight: heavy}}}",
            "reward.weighted_sum.a: a weight must be a finite number, got 'heavy'",
        ),
        ("reward: {weighted_sum: cfg_exact}", "reward.weighted_sum: rewards by name, or a list"),
        (
            "reward: {weighted_sum: [cfg_exact], children: [cfg_exact]}",
            "reward.children: 'children' is what stands under 'weighted_sum'",
        ),
        (
            "reward: {_target_: guerdon.compose.WeightedSum, children: [{nam: cfg_exact}]}",
            "reward.children[0].nam: unknown key 'nam' (did you mean 'name'?)",
        ),
        (
            "reward: {weighted_sum: [{_target_: guerdon.policy.Policy}]}",
            "reward.weighted_sum[0]: a reward is a name or a mapping, not a Policy",
        ),
        (
            "reward: {weighted_sum: {}}",
            "reward: WeightedSum 'weighted_sum' needs at least one child",
        ),
        ("reward: {weigthed_sum: {a: cfg_exact}}", "(did you mean 'weighted_sum'?)"),
        ("reward: {clip: cfg_exact, low: 3, high: 1}", "needs low <= high"),
        ("reward: {gate: {a: cfg_exact}, reward: cfg_exact}", "threshold"),
        ("routes: {}", "1: routes: routes are a mapping of data source patterns to rewards"),
        ("routes: {a: cfg_exakt}", "1: routes.a: no reward is named 'cfg_exakt'"),
    ],
)
def test_every_complaint_names_the_place_and_the_way_out(
    load_text: Loader, text: str, message: str
):
    with pytest.raises(ConfigError) as caught:
        load_text(text)
    assert message in str(caught.value)
    assert "service.yaml:" in str(caught.value)


def test_a_refused_target_is_never_called(load_text: Loader, folder: Path):
    file = load_file(str(folder / "rewards.py"))
    with pytest.raises(ConfigError):
        load_text("reward: {name: cfg_length, limit: 1, inner: {_target_: 'rewards.py:Foreign'}}")
    assert file.Foreign.calls == []


def test_a_file_is_looked_for_beside_the_configuration_then_in_the_working_directory(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "other.py").write_text("def score(response): return 0.5\n")
    (folder / "service.yaml").write_text("reward: 'other.py:score'\n")
    with pytest.raises(ConfigError, match=r"no file .*other\.py and no file .*other\.py"):
        load(folder / "service.yaml")
    monkeypatch.chdir(elsewhere)
    assert load(folder / "service.yaml").reward.call_sync(response="") == 0.5
    (folder / "other.py").write_text("def score(response): return 0.25\n")
    assert load(folder / "service.yaml").reward.call_sync(response="") == 0.25


def test_an_option_may_be_called_like_a_composition():
    reward = load({"name": "length", "maximum": 200}).reward
    assert (reward.name, reward.options["maximum"]) == ("length", 200)
