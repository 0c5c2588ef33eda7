"""What the core does for rewards that hand on outcomes of another service."""

from __future__ import annotations

import pytest

from guerdon.backends.backend import current_scoring
from guerdon.errors import Blame, FailureKind, ScoringFailed
from guerdon.outcome import Failure, Score, failure
from guerdon.policy import Policy, Retry
from guerdon.reward import BaseReward
from guerdon.sample import Sample
from guerdon.service import RewardService

SAMPLES = [Sample(response="a", sample_id="1"), Sample(response="b", sample_id="2")]


class Relay(BaseReward):
    auto_register = False
    scope = "batch"
    work = "io"
    relays = True

    def __init__(self) -> None:
        self.calls = 0
        self.seen = None

    async def call(self, *, samples: list[Sample]) -> list[Score | Failure]:
        self.calls += 1
        self.seen = current_scoring()
        lost = failure(FailureKind.UNAVAILABLE, "judge gone", Blame.INFRASTRUCTURE)
        there = Score(value=1.0, reward="there", fingerprint="f" * 16, sample="1", elapsed=0.5)
        return [there, lost]


def test_outcomes_keep_what_their_service_says() -> None:
    relay = Relay()
    with (
        RewardService(relay, policy=Policy(retry=Retry(first_delay=0.0))) as service,
        pytest.raises(ScoringFailed) as caught,
    ):
        service.score_sync(SAMPLES, step=7, timeout=60.0, level=3)
    first, second = caught.value.outcomes
    assert (first.reward, first.fingerprint, first.elapsed) == ("there", "f" * 16, 0.5)
    assert (second.reward, second.fingerprint) == ("relay", relay.fingerprint)
    assert [o.sample for o in (first, second)] == ["1", "2"]
    assert isinstance(second, Failure)
    assert second.retryable
    assert relay.calls == 1, "its service has tried again already"


def test_an_async_call_knows_the_batch_it_belongs_to() -> None:
    relay = Relay()
    with RewardService(relay, policy=Policy(on={"infrastructure": "mask"})) as service:
        service.score_sync(SAMPLES, step=7, timeout=60.0, level=3)
        assert relay.seen is not None
        assert relay.seen.call.step == 7
        assert relay.seen.call.keywords == {"level": 3}
        assert 0 < (relay.seen.limits.remaining or 0) <= 60.0
        service.score_sync(SAMPLES)
        assert relay.seen.limits.remaining is None
    assert current_scoring().call.step is None
