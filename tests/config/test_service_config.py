"""Whole services: policy, backend, truncation, imports, records, OmegaConf."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from guerdon.backends.inline import InlineBackend
from guerdon.config import ServiceConfig, load
from guerdon.errors import ConfigError
from guerdon.policy import Assign, Breaker, Budget, Policy, Retry
from guerdon.registry import load_file
from guerdon.sample import Sample
from guerdon.truncation import Truncation

Loader = Callable[..., ServiceConfig]

SERVICE = """
vars: {tries: 2}
reward: {name: cfg_exact, method: loose}
backend: {auto: {workers: "${env:WORKERS,3}", spares: 0}}
policy:
  train:
    on: {data: mask, scorer: drop_group, candidate: {assign: -1}}
    abstention: {assign: 0.5}
    retry: {attempts: "${vars.tries}", within: 10}
    budget: {share: 0.05, minimum: 20}
    breaker: {share: 0.5}
  validation: {on: {data: raise}}
truncation: {mode: soft, max_tokens: 4096, buffer: 512}
"""


def test_a_whole_service(load_text: Loader):
    config = load_text(SERVICE, WORKERS="2")
    assert config.policy == {
        "train": Policy(
            on={"data": "mask", "scorer": "drop_group", "candidate": Assign(-1.0)},
            abstention=Assign(0.5),
            retry=Retry(attempts=2, within=10.0),
            budget=Budget(0.05, 20),
            breaker=Breaker(0.5),
        ),
        "validation": Policy(on={"data": "raise"}),
    }
    assert config.truncation == Truncation("soft", max_tokens=4096, buffer=512)
    assert config.backend.choice == {"auto": {"workers": 2, "spares": 0}}
    with config.build() as service:
        samples = [Sample(response="is 4", ground_truth="4", response_token_ids=[1])]
        assert service.score_sync(samples).values.tolist() == [1.0]


def test_loading_starts_nothing(load_text: Loader, monkeypatch: pytest.MonkeyPatch):
    started: list[object] = []
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: started.append(a))
    load_text("{reward: {name: cfg_exact, _settings_: {deadline: 1}}, backend: pool}").build()
    assert started == []


def test_a_configured_pool_runs_a_reward_of_a_file(load_text: Loader):
    config = load_text(
        """
        reward:
          weighted_sum:
            exact: {name: cfg_exact, method: loose, _settings_: {deadline: 5}}
            short: {name: cfg_length, limit: 9}
        backend: {pool: {workers: 1, spares: 0}}
        """
    )
    with config.build() as service:
        samples = [
            Sample(response="is 4", ground_truth="4"),
            Sample(response="5", ground_truth="4"),
        ]
        assert service.score_sync(samples).values.tolist() == [2.0, 1.0]


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("", Policy()),
        ("policy:", Policy()),
        ("policy: {}", Policy()),
        ("policy: {on: {data: mask}}", Policy(on={"data": "mask"})),
        ("policy: {'*': {on: {data: mask}}}", {"*": Policy(on={"data": "mask"})}),
        (
            "policy: {_target_: guerdon.policy.Policy, abstention: raise}",
            Policy(abstention="raise"),
        ),
        ("policy: {_target_: 'rewards.py:make_policy'}", Policy(on={"data": "mask"})),
        ("policy: {retry: {_target_: guerdon.policy.Retry, attempts: 5}}", Policy(retry=Retry(5))),
        ("policy: {budget: null}", Policy()),
        ("policy: {retry: {attempts: '5'}}", Policy(retry=Retry(5))),
    ],
)
def test_policies(load_text: Loader, text: str, policy: Any):
    assert load_text(f"reward: cfg_exact\n{text}\n").policy == policy


def test_the_key_on_of_a_loader_of_yaml_1_1(folder: Path):
    load_file(str(folder / "rewards.py"))
    data = yaml.safe_load("{reward: cfg_exact, policy: {on: {data: mask}}}")
    assert True in data["policy"]
    assert load(data).policy == Policy(on={"data": "mask"})


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("", {"auto": {}}),
        ("backend: auto", {"auto": {}}),
        ("backend: inline", {"inline": {}}),
        ("backend: pool", {"pool": {}}),
        ("backend: {pool: {}}", {"pool": {}}),
        ("backend: {pool:}", {"pool": {}}),
        ("backend: {pool: {workers: 2}}", {"pool": {"workers": 2}}),
        ("backend: {pool: {memory_bytes: null}}", {"pool": {"memory_bytes": None}}),
    ],
)
def test_backends(load_text: Loader, text: str, choice: object):
    assert load_text(f"reward: cfg_exact\n{text}\n").backend.choice == choice


@pytest.mark.parametrize(
    "target", ["guerdon.backends.inline.InlineBackend", "rewards.py:make_backend"]
)
def test_a_backend_by_target(load_text: Loader, target: str):
    config = load_text(f"{{reward: cfg_exact, backend: {{_target_: '{target}'}}}}")
    assert isinstance(config.backend.choice, InlineBackend)


@pytest.mark.parametrize(
    ("text", "truncation"),
    [
        ("", Truncation()),
        ("truncation: zero", Truncation("zero")),
        ("truncation: {mode: zero}", Truncation("zero")),
        ("truncation: {_target_: guerdon.truncation.Truncation}", Truncation()),
    ],
)
def test_truncation(load_text: Loader, text: str, truncation: Truncation):
    assert load_text(f"reward: cfg_exact\n{text}\n").truncation == truncation


def test_a_reward_of_a_sibling_runs_in_a_pool(folder: Path):
    (folder / "shared_part.py").write_text(
        "from guerdon.reward import reward\n"
        "@reward(name='cfg_shared', value_range=(0, 1), deadline=9)\n"
        "def shared(response): return 0.5\n"
    )
    (folder / "front.py").write_text("from .shared_part import shared\n")
    config = load({"reward": f"{folder / 'front.py'}:shared", "backend": {"pool": {"workers": 1}}})
    with config.build() as service:
        assert service.score_sync([Sample(response="x")]).values.tolist() == [0.5]


def test_imports_register_before_the_reward_is_looked_up(folder: Path):
    (folder / "service.yaml").write_text("{imports: [rewards.py], reward: cfg_exact}\n")
    assert load(folder / "service.yaml").reward.name == "cfg_exact"
    (folder / "service.yaml").write_text("{imports: [json.tool, rewards.py], reward: cfg_exact}\n")
    assert load(folder / "service.yaml").reward.name == "cfg_exact"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rewards: cfg_exact", "1: rewards: unknown key 'rewards' (did you mean 'reward'?)"),
        (
            "{reward: cfg_exact, polizy: {}}",
            "1: polizy: unknown key 'polizy' (did you mean 'policy'?)",
        ),
        (
            "{reward: cfg_exact, seed: 3}",
            "unknown key 'seed'; known: reward, routes, backend, policy",
        ),
        (
            "{name: total, reward: cfg_exact}",
            "name: no reward is named 'total'. For a service with 'reward', put the reward with "
            "its name under 'reward'",
        ),
        (
            "{weighted_sum: [cfg_exact], backend: pool}",
            "unknown argument of weighted_sum 'backend'",
        ),
        ("{weighted_sum: [cfg_exact], backend: pool}", "For a service with 'backend', put"),
        ("backend: inline", "nothing says which reward to use: give 'reward' or 'routes'"),
        ("- cfg_exact", "service.yaml:1: a configuration is a mapping, not ['cfg_exact']"),
        ("just text", "a configuration is a mapping, not 'just text'"),
        (
            "{reward: cfg_exact, policy: {retyr: {}}}",
            "1: policy.retyr: unknown key 'retyr' (did you mean 'retry'?)",
        ),
        ("{reward: cfg_exact, policy: {train: {onn: {}}}}", "policy.train.onn: unknown key 'onn'"),
        ("{reward: cfg_exact, policy: {train: 3}}", "policy.train: unknown key 'train'"),
        ("{reward: cfg_exact, policy: 3}", "1: policy: expected the fields of a Policy, got 3"),
        (
            "{reward: cfg_exact, policy: {on: {date: mask}}}",
            "policy.on.date: unknown blame 'date' (did you mean 'data'?)",
        ),
        (
            "{reward: cfg_exact, policy: {on: {data: maks}}}",
            "policy.on.data: an action is one of raise, mask, drop_group, assign, or "
            "{assign: 0.0}; got 'maks' (did you mean 'mask'?)",
        ),
        ("{reward: cfg_exact, policy: {on: {data: 0.0}}}", "or {assign: 0.0}; got 0.0"),
        (
            "{reward: cfg_exact, policy: {on: {data: {assign: low}}}}",
            "policy.on.data.assign: Expected",
        ),
        ("{reward: cfg_exact, policy: {on: {data: {assign: .nan}}}}", "must be finite"),
        ("{reward: cfg_exact, policy: {on: [data]}}", "policy.on: actions by blame are a mapping"),
        (
            "{reward: cfg_exact, policy: {retry: {atempts: 3}}}",
            "policy.retry.atempts: unknown key 'atempts' (did you mean 'attempts'?)",
        ),
        (
            "{reward: cfg_exact, policy: {retry: {attempts: many}}}",
            "policy.retry.attempts: Expected",
        ),
        (
            "{reward: cfg_exact, policy: {retry: {attempts: 0}}}",
            "policy.retry: retry needs attempts >= 1",
        ),
        (
            "{reward: cfg_exact, policy: {budget: {}}}",
            "policy.budget: guerdon.policy.Budget raised",
        ),
        (
            "{reward: cfg_exact, backend: inlin}",
            "backend: a backend is one of auto, inline, pool; got",
        ),
        (
            "{reward: cfg_exact, backend: {poll: {}}}",
            "backend.poll: unknown backend 'poll' (did you",
        ),
        (
            "{reward: cfg_exact, backend: {pool: {worker: 2}}}",
            "backend.pool.worker: unknown option of the pool 'worker' (did you mean 'workers'?)",
        ),
        ("{reward: cfg_exact, backend: {pool: {workers: two}}}", "backend.pool.workers: Expected"),
        ("{reward: cfg_exact, backend: {inline: {workers: 2}}}", "backend.inline.workers: unknown"),
        ("{reward: cfg_exact, backend: {pool: 3}}", "backend.pool: options of a backend are a"),
        ("{reward: cfg_exact, backend: {pool: {}, inline: {}}}", "backend: a backend has one name"),
        (
            "{reward: cfg_exact, backend: {_target_: guerdon.policy.Policy}}",
            "a Policy is no backend",
        ),
        (
            "{reward: {name: cfg_exact, _settings_: {deadline: 1}}, backend: inline}",
            "1: backend: reward 'cfg_exact' is sync and has a deadline: backend='inline' cannot",
        ),
        (
            "{reward: cfg_exact, truncation: sotf}",
            "truncation: a truncation mode is one of zero, keep",
        ),
        ("{reward: cfg_exact, truncation: {mode: sotf}}", "truncation.mode: "),
        ("{reward: cfg_exact, truncation: soft}", "truncation: soft needs max_tokens"),
        ("{reward: cfg_exact, truncation: {max_token: 3}}", "(did you mean 'max_tokens'?)"),
        ("{reward: cfg_exact, truncation: 3}", "truncation: expected the fields of a Truncation"),
        ("{reward: cfg_exact, imports: rewards.py}", "imports: imports are a list"),
        ("{reward: cfg_exact, imports: [3]}", "imports[0]: an import is pkg.mod or path/file.py"),
        ("{reward: cfg_exact, imports: [nowhere.py]}", "imports[0]: no file"),
        (
            "{reward: cfg_exact, imports: [no_such_module]}",
            "imports[0]: cannot import 'no_such_module'",
        ),
        ("{reward: '${env:ABSENT}'}", "1: reward: the environment variable 'ABSENT' is not set"),
    ],
)
def test_every_complaint_names_the_place_and_the_way_out(
    load_text: Loader, text: str, message: str
):
    with pytest.raises(ConfigError) as caught:
        load_text(text)
    assert message in str(caught.value)
    assert "service.yaml:" in str(caught.value)


@pytest.mark.parametrize("source", [3, ["reward"], None])
def test_what_is_no_configuration_is_refused(source: Any):
    with pytest.raises(ConfigError, match="a configuration is a file or a mapping, not a"):
        load(source)


def test_a_missing_file_is_named():
    with pytest.raises(ConfigError, match=r"no file 'nowhere\.yaml'"):
        load("nowhere.yaml")


class TestRecords:
    def test_the_record_is_resolved_and_loads_to_the_same(self, load_text: Loader):
        config = load_text(SERVICE, WORKERS="2")
        text = config.to_yaml()
        head = text.splitlines()[0]
        assert head.startswith(f"# cfg_exact, fingerprint {config.reward.fingerprint}, from ")
        assert "${" not in text
        again = load_text(text)
        assert again.reward.fingerprint == config.reward.fingerprint
        assert (again.policy, again.truncation) == (config.policy, config.truncation)
        assert again.backend == config.backend

    def test_secrets_stay_out_of_it(self, load_text: Loader):
        config = load_text(
            "reward: {name: 'rewards.py:rest', key: '${env:MY_API_KEY}'}", MY_API_KEY="s3cret"
        )
        assert config.reward.options["key"] == "s3cret"
        assert "s3cret" not in config.to_yaml()
        assert "${env:MY_API_KEY}" in config.to_yaml()

    @pytest.mark.parametrize(
        ("options", "kept"),
        [
            ("token: sk-s3cret", ""),
            ("api_key: sk-s3cret", ""),
            ("password: s3cret", ""),
            ("url: 'http://user:s3cret@host:8000/x'", "host:8000/x"),
            ("headers: {Authorization: 'Bearer s3cret', x-tries: '2'}", "x-tries"),
            ("headers: {X-Api-Key: 's3cret'}", ""),
            ("keys: [{token: s3cret}]", ""),
            ("token: '${env:RM_TOKEN,s3cret}'", "${env:RM_TOKEN,...}"),
            ("headers: {Authorization: 'Bearer ${env:RM_TOKEN}'}", "Bearer ${env:RM_TOKEN}"),
            ("eos_token: '<|end|>'", "<|end|>"),
        ],
    )
    def test_literal_secrets_stay_out_of_it(self, load_text: Loader, options: str, kept: str):
        environment = {"RM_TOKEN": "fr0m-outside"} if "s3cret}" not in options else {}
        text = f"reward: {{name: 'rewards.py:rest', {options}}}"
        config = load_text(text, **environment)
        record = config.to_yaml()
        assert "s3cret" not in record
        assert "fr0m-outside" not in record
        assert kept in record

    def test_python_objects_stand_as_what_names_them(self, folder: Path):
        file = load_file(str(folder / "rewards.py"))
        config = load({"reward": file.exact, "policy": Policy(abstention=Assign(0.0))})
        record = yaml.safe_load(config.to_yaml())
        assert record["reward"] == f"{folder / 'rewards.py'}:exact"
        assert record["policy"]["abstention"] == {"value": 0.0}


class TestOmegaConf:
    def test_a_config_is_accepted_as_it_is(self, folder: Path, monkeypatch: pytest.MonkeyPatch):
        omegaconf = pytest.importorskip("omegaconf")
        load_file(str(folder / "rewards.py"))
        monkeypatch.setenv("GUERDON_TEST_METHOD", "loose")
        whole = omegaconf.OmegaConf.create(
            """
            scale: 1
            trainer:
              reward:
                reward:
                  name: cfg_exact
                  method: ${env:GUERDON_TEST_METHOD}
                  scale: ${scale}
                  tags: [a, "${oc.env:GUERDON_TEST_METHOD}"]
                policy: {on: {data: mask}, retry: {attempts: 2}}
            """
        )
        config = load(whole.trainer.reward)
        assert dict(config.reward.options) == {
            "method": "loose",
            "scale": 1,
            "tags": ("a", "loose"),
        }
        assert config.policy == Policy(on={"data": "mask"}, retry=Retry(attempts=2))

    @pytest.mark.parametrize(
        ("value", "message"),
        [
            ("???", "reward.method: the value is missing (???)"),
            ("${oc.env:GUERDON_ABSENT}", "the environment variable 'GUERDON_ABSENT' is not set"),
            ("${nowhere}", "reward.method: Interpolation key 'nowhere' not found"),
            ("${env:GUERDON_ABSENT}", "reward.method: the environment variable 'GUERDON_ABSENT'"),
        ],
    )
    def test_what_cannot_be_resolved_is_said_with_its_place(
        self, folder: Path, value: str, message: str
    ):
        omegaconf = pytest.importorskip("omegaconf")
        load_file(str(folder / "rewards.py"))
        config = omegaconf.OmegaConf.create({"reward": {"name": "cfg_exact", "method": value}})
        with pytest.raises(ConfigError) as caught:
            load(config)
        assert message in str(caught.value)

    def test_secrets_stay_out_of_records(self, folder: Path, monkeypatch: pytest.MonkeyPatch):
        omegaconf = pytest.importorskip("omegaconf")
        monkeypatch.setenv("GUERDON_TEST_TOKEN", "s3cret")
        options = {
            "name": f"{folder / 'rewards.py'}:rest",
            "own": "${env:GUERDON_TEST_TOKEN}",
            "theirs": "Bearer ${oc.env:GUERDON_TEST_TOKEN,none}",
        }
        config = load(omegaconf.OmegaConf.create({"reward": options}))
        assert config.reward.options["own"] == "s3cret"
        assert config.reward.options["theirs"] == "Bearer s3cret"
        record = config.to_yaml()
        assert "s3cret" not in record
        assert "Bearer ${oc.env:GUERDON_TEST_TOKEN,none}" in record

    def test_it_is_not_imported_for_anything_else(self, folder: Path):
        (folder / "service.yaml").write_text("reward: 'rewards.py:exact'\n")
        path = str(folder / "service.yaml")
        code = (
            f"import sys; from guerdon.config import load; load({path!r}); "
            "print([m for m in sys.modules if m.partition('.')[0] in ('omegaconf', 'torch')])"
        )
        result = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        assert result.stdout.strip() == "[]"
