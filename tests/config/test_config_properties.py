"""What is written is read again, and no input raises anything but ConfigError."""

import math
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from guerdon.config import ServiceConfig, load
from guerdon.config.document import dump, parse
from guerdon.config.interpolation import interpolate
from guerdon.errors import ConfigError
from guerdon.registry import load_file

TRAPS = (
    *("yes", "No", "on", "1e5", "0o17", "0x1f", "1_0", "007", "~", "null", "", ".inf", "\n", "\t"),
    *("<<", "${", "\\${", "- a", "a: b", "#", "'", '"', "!!str", "&a", "*a", "12:30", "2026-01-01"),
)
TEXT = st.sampled_from(TRAPS) | st.text(
    st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters="\ufeff\u2028\u2029\x85")
)
SCALAR = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT
DATA = st.recursive(
    SCALAR, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4)
)


@given(data=st.dictionaries(TEXT, DATA, max_size=5))
def test_what_is_dumped_is_read_again(data: dict[str, Any]):
    found = parse(dump(data), "r.yaml", Path()).data if data else {}
    assert found == data
    assert repr(found) == repr(data), "types, too"


@given(text=st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str):
    with suppress(ConfigError):
        interpolate(parse(text, "r.yaml", Path()), {})


@given(value=TEXT, pieces=st.lists(st.sampled_from(["${env:V}", "x", "\\${", "${oc.env:V}"])))
def test_what_a_variable_holds_is_not_interpolated_again(value: str, pieces: list[str]):
    text = "-" + "".join(pieces)
    document = parse(dump({"key": text}), "r.yaml", Path())
    expected = text.replace("\\${", "\0").replace("${env:V}", value).replace("${oc.env:V}", value)
    assert interpolate(document, {"V": value})["key"] == expected.replace("\0", "${")


KEYS = st.sampled_from(
    ["reward", "routes", "backend", "policy", "truncation", "imports", "vars", "name", "_target_",
     "_args_", "_settings_", "weighted_sum", "product", "clip", "affine", "gate", "cascade",
     "conditional", "schedule", "group_normalise", "minimum", "weight", "missing", "method", "low",
     "threshold", "when", "phases", "on", "data", "retry", "attempts", "train", "pool", "workers",
     "mode", "limit", "value", "points", "deadline", "value_range", "a", "0"]
)  # fmt: skip
WORDS = st.sampled_from(
    ["cfg_exact", "cfg_tidy", "cfg_length", "guerdon.compose.WeightedSum", "guerdon.policy.Policy",
     "mask", "raise", "assign", "pool", "inline", "auto", "soft", "zero", "strict", "loose", "fail",
     "${reward}", "${vars.a}", "${env:X,3}", "guerdon", "a", "*", "registered", ""]
)  # fmt: skip
LEAVES = WORDS | st.integers(-2, 5) | st.floats(allow_nan=True) | st.booleans() | st.none()
NODES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(data=st.dictionaries(KEYS, NODES, max_size=5))
def test_any_mapping_loads_or_is_refused(folder: Path, data: dict[str, Any]):
    load_file(str(folder / "rewards.py"))
    try:
        config = load(data, environment={})
    except ConfigError:
        return
    assert isinstance(config, ServiceConfig)
    assert all(not math.isnan(end) for end in config.reward.value_range)
    assert config.to_yaml()


def test_deep_nesting_is_refused(folder: Path):
    load_file(str(folder / "rewards.py"))
    node: Any = "cfg_exact"
    for _ in range(5000):
        node = {"clip": node, "high": 1.0}
    with pytest.raises(ConfigError, match="nested too deeply"):
        load({"reward": node})
