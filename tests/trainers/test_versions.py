"""Versions of trainers that cannot work are named before anything runs."""

import pytest

from guerdon.errors import ConfigError
from guerdon.trainers import trl, verl, versions
from guerdon.trainers.versions import Versions

KNOWN = Versions("trainer", least="1.2.0", tested="1.4.0", needs="rewards")


@pytest.mark.parametrize("found", ["1.1.9", "0.29", "1"])
def test_a_version_that_is_too_old_is_refused(found, monkeypatch):
    monkeypatch.setattr(versions, "version", lambda package: found)
    with pytest.raises(ConfigError) as caught:
        KNOWN.check()
    assert f"trainer {found} is installed" in str(caught.value)
    assert "trainer 1.2.0 or later (1.4.0 is tested)" in str(caught.value)


@pytest.mark.parametrize(
    "found", ["1.2.0", "1.2", "1.2.0.post1", "1.10", "2.0.0.dev3", "1.2.0+cpu"]
)
def test_later_ones_are_not(found, monkeypatch):
    monkeypatch.setattr(versions, "version", lambda package: found)
    KNOWN.check()


@pytest.mark.parametrize(
    ("found", "warned"),
    [("1.4.0", False), ("1.4.0.post1", False), ("1.3.9", False), ("1.4.1", True), ("2.0.0", True)],
)
def test_one_newer_than_tested_is_a_warning_once(found, warned, monkeypatch, caplog):
    monkeypatch.setattr(versions, "version", lambda package: found)
    versions._warn_untested.cache_clear()
    for _ in range(3):
        KNOWN.check()
    texts = [record.getMessage() for record in caplog.records]
    if warned:
        (text,) = texts
        assert text.startswith(f"trainer {found} is newer than what Guerdon was tested with")
        assert "(trainer 1.2.0 to 1.4.0)" in text
    else:
        assert texts == []


def test_a_trainer_that_is_not_installed_is_none():
    Versions("no-such-trainer-at-all", least="1", tested="1", needs="x").check()


def test_trl_looks_before_the_function_is_made(monkeypatch):
    monkeypatch.setattr(versions, "version", lambda package: "0.29.1")
    with pytest.raises(ConfigError, match=r"trl 0\.29\.1 is installed, which has no log_extra"):
        trl.reward_function("gsm8k")


async def test_verl_looks_before_the_first_sample(monkeypatch):
    monkeypatch.setattr(versions, "version", lambda package: "0.7.0")
    with pytest.raises(ConfigError, match=r"verl 0\.7\.0 is installed"):
        await verl.compute_score("openai/gsm8k", "#### 4", "4", reward="gsm8k", split="versions")
