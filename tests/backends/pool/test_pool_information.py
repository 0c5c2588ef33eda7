"""What a reward says beside its value arrives from a worker as it was said."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guerdon import registry
from guerdon.backends.pool import PoolBackend, frames
from guerdon.outcome import Score
from guerdon.sample import Sample
from guerdon.service import RewardService

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.integers(-(10**40), 10**40) | st.text()
    | st.text(st.characters(categories=["Cs"]), max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


def test_integers_beyond_64_bits_arrive_from_a_worker() -> None:
    poison: Any = registry.load_file(str(Path(__file__).parent / "poison.py"))
    with contextlib.closing(PoolBackend(workers=1)) as pool:
        service = RewardService(poison.beyond, backend=pool)
        (outcome,) = service.score_sync([Sample(response="x")])
    assert isinstance(outcome, Score)
    assert outcome.info == poison.BEYOND


def test_keys_arrive_as_text() -> None:
    score = Score(value=1.0, info={"a\ud800": {2**70: 1, 7: 2}})
    found: Any = frames._decode_result.decode(frames.encode_result(0, 0.0, score))[2]
    assert found.info == {"a\\ud800": {str(2**70): 1, 7: 2}}


@given(st.dictionaries(st.text(), plain, max_size=3))
def test_information_both_ways(info: dict[str, Any]) -> None:
    written = frames.encode_result(0, 0.5, [Score(value=1.0, info=info), 0.25])
    call, elapsed, found = frames._decode_result.decode(written)
    assert (call, elapsed) == (0, 0.5)
    assert isinstance(found, list)
    assert found == [Score(value=1.0, info=info), 0.25]


@pytest.mark.parametrize("depth", [99, 101, 5000])
def test_what_is_too_deep_is_said_to_be_lost(depth: int) -> None:
    deep: Any = 2**70
    for _ in range(depth):
        deep = [deep]
    score = Score(value=1.0, info={"deep": deep})
    found: Any = frames._decode_result.decode(frames.encode_result(0, 0.0, score))[2]
    assert found.value == 1.0
    if depth > 99:
        assert "could not be encoded" in found.info["dropped"]
    else:
        assert found.info == score.info
