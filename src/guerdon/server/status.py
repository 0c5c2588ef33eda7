"""Everything that a live page or an operator needs to see, as one JSON document."""

from __future__ import annotations

import msgspec

from guerdon.server.hosted import Hosted
from guerdon.server.record import Bins, Percentiles, RecentFailure


class OutcomeCount(msgspec.Struct, frozen=True):
    """How many outcomes of one sort there were since the start.

    Attributes:
        outcome: score, abstention or failure.
        kind: of failures.
        blame: of failures.
        count: of them.
    """

    outcome: str
    kind: str
    blame: str
    count: int


class ReplicaStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One copy of a reward.

    Attributes:
        index: among the replicas.
        healthy: whether it works.
        batches: that it has in hand.
        samples: that it has in hand.
        workers: worker processes that are set up; 0 where it has none of its own.
        ended: worker processes that died, were killed, or were replaced idle.
    """

    index: int
    healthy: bool
    batches: int
    samples: int
    workers: int
    ended: dict[str, int]


class RewardStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One hosted reward.

    Attributes:
        name: under which it is asked for.
        reward: its own name.
        description: first line of its documentation.
        fingerprint: of it.
        value_range: None where there is no bound.
        state: as in `RewardCard`.
        problem: why it does not work, or empty.
        queue_depth: samples that wait.
        queue_bound: samples that may wait.
        group_waiting: samples that wait for their group.
        batches_running: now.
        samples_total: since the start.
        batches_total: since the start.
        samples_per_second: over the last 10 seconds.
        samples_by_second: over the last 60 seconds, oldest first.
        latency_ms: of the last requests, from the arrival of the samples to the last outcome.
        outcomes: since the start.
        failures: the last ones, oldest first.
        scores: histogram of the last scores, None before the first.
        replicas: its copies.
    """

    name: str
    reward: str
    description: str
    fingerprint: str
    value_range: tuple[float | None, float | None]
    state: str
    problem: str
    queue_depth: int
    queue_bound: int
    group_waiting: int
    batches_running: int
    samples_total: int
    batches_total: int
    samples_per_second: float
    samples_by_second: list[int]
    latency_ms: Percentiles
    outcomes: list[OutcomeCount]
    failures: list[RecentFailure]
    scores: Bins | None
    replicas: list[ReplicaStatus]


class ServerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A server.

    Attributes:
        server_id: unique for each start.
        version: of Guerdon.
        protocol: version of the protocol.
        time: seconds since 1970.
        uptime_seconds: since the start.
        draining: whether it ends.
        requests_open: that are being scored.
        bytes_in_flight: of bodies that are being received or scored.
        rewards: in the order of the configuration.
    """

    server_id: str
    version: str
    protocol: int
    time: float
    uptime_seconds: float
    draining: bool
    requests_open: int
    bytes_in_flight: int
    rewards: list[RewardStatus]


def reward_status(hosted: Hosted) -> RewardStatus:
    """What one hosted reward does and did."""
    card = hosted.card()
    record = hosted.record
    return RewardStatus(
        name=hosted.name,
        reward=card.reward,
        description=card.description,
        fingerprint=card.fingerprint,
        value_range=card.value_range,
        state=card.state,
        problem=hosted.problem,
        queue_depth=hosted.queue.depth,
        queue_bound=hosted.queue.bound,
        group_waiting=hosted.groups.waiting,
        batches_running=hosted.queue.running,
        samples_total=record.samples,
        batches_total=record.batches,
        samples_per_second=record.throughput(),
        samples_by_second=record.throughput_by_second(),
        latency_ms=record.latency(),
        outcomes=[OutcomeCount(*key, count) for key, count in record.outcomes.items()],
        failures=list(record.failures),
        scores=record.histogram(),
        replicas=[
            ReplicaStatus(
                index=replica.index,
                healthy=replica.is_healthy,
                batches=replica.batches,
                samples=replica.samples,
                workers=0 if replica.pool is None else replica.pool.ready(),
                ended=dict(replica.worker_ends()),
            )
            for replica in hosted.replicas
        ],
    )
