"""A reward that the server hosts: its queue, its replicas, its groups, and whether it works."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, cast

from msgspec.structs import replace

from guerdon.errors import Blame, FailureKind
from guerdon.fixture import Fixture
from guerdon.injection import CALL_FIELDS
from guerdon.lending import LENT
from guerdon.outcome import EMPTY, Failure, Outcome, failure
from guerdon.policy import NO_RETRY, Policy
from guerdon.reward import BaseReward
from guerdon.sample import Sample
from guerdon.server.batching import BatchQueue, Lane
from guerdon.server.configuration import Host
from guerdon.server.gathering import GroupTable
from guerdon.server.parcel import ENDING, Parcel, Place, Unit
from guerdon.server.record import Metrics, RewardRecord
from guerdon.server.refusal import Refused
from guerdon.server.replica import Replica, leaves
from guerdon.server.shape import bucket_of, cost_of
from guerdon.server.variant import Variant, Variants
from guerdon.service import RewardService
from guerdon.wire.protocol import ErrorCode, RewardCard

LOG = logging.getLogger("guerdon.server")

TOGETHER = frozenset(
    {FailureKind.RAISED, FailureKind.BAD_OUTPUT, FailureKind.CRASHED, FailureKind.TIMEOUT}
)
"""Kinds of failure that one bad sample can bring on all samples of a batch call."""
REPLY_MARGIN = 0.05
"""Seconds before the caller stops waiting at which a batch is cut off, so that what is finished by
then still reaches the caller."""
SET_UP_POLL_SECONDS = 0.02
CHECK_SECONDS = 60.0
FIRST_RECHECK_SECONDS = 2.0
LONGEST_RECHECK_SECONDS = 60.0
CHECK_GROUP = "check"


class Hosted:
    """One reward of a server.

    Args:
        name: under which requests ask for it.
        host: the reward and how it is hosted.
        metrics: of the server.
        give_up: called with the reason where the reward can never score.
    """

    def __init__(
        self, name: str, host: Host, metrics: Metrics, give_up: Callable[[str], None]
    ) -> None:
        self.name = name
        self.reward = host.reward
        self.hosting = host.hosting
        self.waits = all(leaf.is_async for leaf in leaves(host.reward))
        self.whole_groups = host.reward.scope == "group"
        self._looks_at_ids = self.whole_groups or any(map(_looks_at_ids, leaves(host.reward)))
        self.record = RewardRecord(name, host.reward.value_range, metrics)
        on_device = any(leaf.work == "gpu" for leaf in leaves(host.reward))
        self.replicas = [
            Replica(index, host.hosting, waits=self.waits, on_device=on_device)
            for index in range(host.hosting.replicas)
        ]
        self.variants = Variants(name, host, self.replicas)
        self.queue = BatchQueue(
            host.hosting.batch,
            host.hosting.queue,
            self.replicas,
            self._run,
            whole_groups=self.whole_groups,
            unique_ids=self._looks_at_ids,
        )
        partial = self._group_complete if host.hosting.partial_groups else None
        self.groups = GroupTable(self._group_complete, partial)
        self.problem = "not started"
        self._give_up = give_up
        self._started = False
        self._draining = False
        self._checks: asyncio.Task[None] | None = None
        self._batch_calls = any(leaf.scope == "batch" for leaf in leaves(host.reward))
        batch = host.hosting.batch
        self._shaped = on_device or batch.tokens is not None or batch.pixels is not None

    # Life.

    def start(self) -> None:
        """Start the workers, and check in the background that the reward works."""
        for replica in self.replicas:
            replica.start()
        self._checks = asyncio.get_running_loop().create_task(self._check_until_right())

    def drain(self) -> None:
        """Take no more requests; groups that are incomplete stay so."""
        self._draining = True
        self.groups.close(ENDING)

    async def stop(self) -> None:
        """End what runs and the workers."""
        if self._checks is not None:
            self._checks.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._checks
        await self.queue.close()
        await asyncio.gather(*(asyncio.to_thread(replica.stop) for replica in self.replicas))

    @property
    def state(self) -> str:
        """As in `RewardCard`."""
        if self._draining:
            return "draining"
        if not self._started:
            return "starting"
        healthy = sum(replica.is_healthy for replica in self.replicas)
        if self.problem or not healthy:
            return "failed"
        return "ready" if healthy == len(self.replicas) else "degraded"

    @property
    def replica_states(self) -> list[str]:
        """Of each replica: `ready`, `failed`, or the state of the reward while none serves."""
        state = self.state
        if state not in ("ready", "degraded"):
            return [state] * len(self.replicas)
        return ["ready" if replica.is_healthy else "failed" for replica in self.replicas]

    async def _check_until_right(self) -> None:
        """Wait for the workers, load each part, then score a fixture of each; again while one is
        wrong."""
        while not any(replica.is_set_up for replica in self.replicas):
            if not any(replica.is_healthy for replica in self.replicas):
                self._started, self.problem = True, "no worker process could be started"
            await asyncio.sleep(SET_UP_POLL_SECONDS)
        lost = await self._load()
        if lost:
            self._started, self.problem = True, lost
            self._give_up(f"reward {self.name!r} cannot be set up: {lost}")
            return
        pause = FIRST_RECHECK_SECONDS
        while True:
            try:
                self.problem = await self._find_problem()
            except Exception as error:
                LOG.exception("the check of reward %r failed", self.name)
                self.problem = f"its check failed: {type(error).__name__}: {error}"
            self._started = True
            if not self.problem:
                return
            LOG.error("reward %r does not work: %s", self.name, self.problem)
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_RECHECK_SECONDS)

    async def _load(self) -> str:
        """Load each part in each replica, such as a model's weights; why that cannot be done."""
        for leaf in leaves(self.reward):
            tried = (asyncio.to_thread(one.backend.load, leaf) for one in self.replicas)
            for lost in await asyncio.gather(*tried):
                if lost is not None and lost.blame is Blame.SCORER:
                    return lost.message if leaf is self.reward else f"{leaf.name}: {lost.message}"
        return ""

    async def _find_problem(self) -> str:
        """What is wrong with the first fixture of a part, or nothing."""
        for leaf in leaves(self.reward):
            for fixture in leaf.fixtures[:1]:
                for replica in self.replicas:
                    wrong = await _mismatch(leaf, fixture, replica)
                    if wrong:
                        where = f"replica {replica.index}, fixture {fixture.name!r}"
                        return f"{leaf.name}: {where}: {wrong}"
        return ""

    # Requests.

    def check_room(self, samples: int) -> None:
        """Refuse samples for which there is no room.

        Raises:
            Refused: the queue is full, or smaller than the request.
        """
        if samples > self.queue.bound:
            raise Refused(
                ErrorCode.TOO_LARGE,
                f"{samples} samples are more than the queue of reward {self.name!r} can hold "
                f"({self.queue.bound}): split the batch",
            )
        if not self.queue.has_room(samples):
            raise Refused(
                ErrorCode.OVERLOADED,
                f"the queue of reward {self.name!r} is full: {self.queue.depth} of "
                f"{self.queue.bound} samples wait; come back later",
                retry_after=self.queue.seconds_to_room(),
            )

    def submit(
        self,
        parcel: Parcel,
        variant: Variant,
        caller: str,
        sizes: Mapping[str, int],
        attempt: int,
        patience: float,
    ) -> None:
        """Score the samples of a parcel that have no outcome yet.

        Args:
            parcel: the samples.
            variant: the reward with its options.
            caller: who asks; groups of different callers are different groups.
            sizes: of groups that span requests.
            attempt: of the request.
            patience: seconds that members wait for their group.
        """
        places = [Place(parcel, p) for p in range(len(parcel.samples))]
        open_places = [place for place in places if place.open]
        if not self.whole_groups:
            self._put(parcel, variant, [[[place]] for place in open_places])
            return
        key = (caller, variant.key, parcel.context.key)
        spanning = _spanning(places, sizes)
        here = [place for place in places if place.sample.group_id not in spanning]
        self._put(parcel, variant, self._whole(here))
        for place in open_places:
            group_id = place.sample.group_id
            if group_id is None or group_id not in spanning:
                continue
            lost = self.groups.add(
                (*key, group_id),
                variant,
                place,
                size=sizes[group_id],
                attempt=attempt,
                patience=patience,
            )
            if lost is not None:
                parcel.fail(place.position, lost)

    def callers_left(self) -> None:
        """Somebody stopped waiting."""
        self.queue.callers_left()
        self.groups.callers_left()

    def _whole(self, places: Iterable[Place]) -> list[list[list[Place]]]:
        """The groups of one request; one with a refused member is refused as a whole."""
        groups: dict[object, list[Place]] = {}
        for place in places:
            group_id = place.sample.group_id
            groups.setdefault(place if group_id is None else group_id, []).append(place)
        whole: list[list[list[Place]]] = []
        for members in groups.values():
            broken = next((place for place in members if not place.open), None)
            if broken is None:
                whole.append([[place] for place in members])
                continue
            for place in members:
                place.parcel.fail(place.position, _broken_group(broken))
        return whole

    def _put(self, parcel: Parcel, variant: Variant, whole: Sequence[list[list[Place]]]) -> None:
        lanes: dict[Hashable, list[Unit]] = {}
        for places in whole:
            key, unit = self._unit(variant, places, None)
            lanes.setdefault(key, []).append(unit)
        for key, units in lanes.items():
            self.queue.put(key, variant, units)

    def _unit(
        self, variant: Variant, places: list[list[Place]], group: Hashable
    ) -> tuple[Hashable, Unit]:
        """A unit and the key of its lane."""
        parcel = places[0][0].parcel
        key: tuple[Any, ...] = (variant.key, parcel.context.key)
        cost = (0, 0)
        if self._shaped:
            samples = [waiting[0].sample for waiting in places]
            costs = [cost_of(sample) for sample in samples]
            cost = (sum(tokens for tokens, _ in costs), sum(pixels for _, pixels in costs))
            key = (*key, bucket_of(samples[0]))
        if self.waits and group is None:
            key = (*key, id(parcel))  # batching gains nothing, and one slow call would delay all
        return key, Unit(places, cost, 0, group)

    def _group_complete(self, key: Hashable, variant: Variant, places: list[list[Place]]) -> None:
        lane, unit = self._unit(variant, places, key)
        self.queue.put(lane, variant, [unit])

    # Batches.

    async def _run(self, replica: Replica, lane: Lane, units: Sequence[Unit]) -> None:
        """Score a batch, and settle everybody who waits for it, whatever happens."""
        try:
            await self._run_batch(replica, lane, units)
        except Exception as error:
            LOG.exception("a batch of reward %r was lost", self.name)
            lost = _server_failed(error)
            for unit in units:
                for waiting in unit.places:
                    for place in waiting:
                        place.parcel.fail(place.position, lost)

    async def _run_batch(self, replica: Replica, lane: Lane, units: Sequence[Unit]) -> None:
        places = [waiting for unit in units for waiting in unit.places]
        samples = [waiting[0].sample for waiting in places]
        began = time.monotonic()
        for waiting in places:
            for place in waiting:
                place.parcel.begin(began)
        oldest = min(place.parcel.arrived_at for waiting in places for place in waiting)
        self.record.batch_begun(len(samples), began - oldest)
        service = cast("Variant", lane.owner).service(replica)
        expires_at = max(place.parcel.expires_at for waiting in places for place in waiting)
        outcomes = await self._score(service, units[0], _told_apart(samples), expires_at)
        outcomes = [
            _of_sample(outcome, sample.sample_id)
            for outcome, sample in zip(outcomes, samples, strict=True)
        ]
        if self._was_lost(replica, outcomes):
            replica.failed(time.monotonic())
            units = self._again(lane, units)
            if not units:
                return
        else:
            replica.worked()
        self.record.batch_done(outcomes, time.monotonic() - began)
        self._settle(units, dict(zip(map(id, places), outcomes, strict=True)))

    async def _score(
        self, service: RewardService, unit: Unit, samples: list[Sample], expires_at: float
    ) -> list[Outcome]:
        """Outcomes of a batch, whatever happens; halves run apart where one sample may have
        brought down the others."""
        context = unit.context
        left = expires_at - time.monotonic()
        try:
            scored = await service.score(
                samples,
                step=context.step,
                split=context.split,
                run_id=context.run_id,
                timeout=max(0.0, left - min(REPLY_MARGIN, 0.1 * left)),
                **context.keywords,
            )
        except Exception as error:
            LOG.exception("a batch of reward %r could not be scored", self.name)
            return [_server_failed(error)] * len(samples)
        outcomes = list(scored)
        if self._batch_calls:
            fell = [i for i, outcome in enumerate(outcomes) if _fell_together(outcome)]
            if len(fell) > 1:
                half = len(fell) // 2
                for part in (fell[:half], fell[half:]):
                    again = [samples[i] for i in part]
                    rescored = await self._score(service, unit, again, expires_at)
                    for i, outcome in zip(part, rescored, strict=True):
                        outcomes[i] = outcome
        return outcomes

    def _was_lost(self, replica: Replica, outcomes: Sequence[Outcome]) -> bool:
        """Whether nothing could run, because the replica has no worker."""
        return not replica.is_set_up and all(
            isinstance(outcome, Failure) and outcome.kind is FailureKind.UNAVAILABLE
            for outcome in outcomes
        )

    def _again(self, lane: Lane, units: Sequence[Unit]) -> list[Unit]:
        """Let units wait once more; returns those that have done so before."""
        again = [unit._replace(tries=1) for unit in units if unit.tries == 0 and unit.open]
        if again:
            self.queue.put(lane.key, lane.owner, again, first=True)
        return [unit for unit in units if unit.tries > 0]

    def _settle(self, units: Sequence[Unit], outcomes: Mapping[int, Outcome]) -> None:
        for unit in units:
            results = [outcomes[id(waiting)] for waiting in unit.places]
            if unit.group is not None:
                self.groups.remember(unit.group, unit.places, results)
            for waiting, outcome in zip(unit.places, results, strict=True):
                for place in waiting:
                    if isinstance(outcome, Failure) and not outcome.reward:
                        place.parcel.fail(place.position, outcome)
                    else:
                        place.parcel.settle(place.position, outcome)

    # What clients are told.

    def card(self) -> RewardCard:
        """What a client must know."""
        reward = self.reward
        low, high = reward.value_range
        return RewardCard(
            name=self.name,
            reward=reward.name,
            fingerprint=self.variants.plain.fingerprint,
            version=reward.version,
            description=reward.description,
            value_range=(_finite(low), _finite(high)),
            higher_is_better=reward.higher_is_better,
            scope=reward.scope,
            work=_work(reward),
            deadline=reward.deadline,
            candidate_fault=tuple(reward.candidate_fault),
            needs=tuple(sorted(set(_needs(reward)))),
            components=tuple(reward.children),
            options=self.variants.allowed,
            whole_groups=self.whole_groups,
            partial_groups=self.hosting.partial_groups,
            state=self.state,
        )


async def _mismatch(leaf: BaseReward, fixture: Fixture, replica: Replica) -> str:
    """How a replica's outcome of a fixture differs from the expected one, or nothing."""
    sample = fixture.sample
    if leaf.scope == "group" and sample.group_id is None:
        sample = replace(sample, group_id=CHECK_GROUP)
    policy = Policy(retry=NO_RETRY, on=dict.fromkeys(map(str, Blame), "mask"))
    service = RewardService(leaf, backend=replica.backend, policy=policy)
    (outcome,) = await service.score([sample], timeout=CHECK_SECONDS)
    wrong = fixture.mismatch(outcome)
    if wrong is None:
        return ""
    return f"{wrong} ({outcome})" if isinstance(outcome, Failure) else wrong


def _spanning(places: Sequence[Place], sizes: Mapping[str, int]) -> frozenset[str]:
    """Groups that have members outside the request."""
    if not sizes:
        return frozenset()
    here = Counter(place.sample.group_id for place in places)
    return frozenset(group for group, size in sizes.items() if size > here[group] > 0)


def _broken_group(broken: Place) -> Failure:
    lost = broken.parcel.outcomes[broken.position]
    why = lost.message if isinstance(lost, Failure) else "it has no outcome"
    name = broken.sample.sample_id
    found = f"sample {name!r}" if name is not None else f"entry {broken.position}"
    return failure(FailureKind.BAD_INPUT, f"{found} of its group: {why}", Blame.DATA)


def _looks_at_ids(leaf: BaseReward) -> bool:
    """Whether a reward may see the id of a sample."""
    return not {"sample_id", "sample", "samples"}.isdisjoint(leaf.parameters.named)


def _told_apart(samples: Sequence[Sample]) -> list[Sample]:
    """The samples of a batch with an id each: those of several clients may be called the same."""
    taken: set[str] = set()
    apart: list[Sample] = []
    for number, sample in enumerate(samples):
        while sample.sample_id in taken:
            sample = replace(sample, sample_id=f"{sample.sample_id}:{number}")
        if sample.sample_id is not None:
            taken.add(sample.sample_id)
        apart.append(sample)
    return apart


def _of_sample(outcome: Outcome, sample_id: str | None) -> Outcome:
    """The outcome under the id that the client gave the sample."""
    if outcome.sample == sample_id:
        return outcome
    absent = {name: _of_sample(lost, sample_id) for name, lost in outcome.absent.items()}
    return replace(outcome, sample=sample_id, absent=absent or EMPTY)


def _server_failed(error: Exception) -> Failure:
    message = f"the server could not score: {type(error).__name__}: {error}"
    return failure(FailureKind.RAISED, message, Blame.INFRASTRUCTURE)


def _fell_together(outcome: Outcome) -> bool:
    return (
        isinstance(outcome, Failure) and outcome.kind in TOGETHER and outcome.blame is Blame.SCORER
    )


def _finite(end: float) -> float | None:
    return end if math.isfinite(end) else None


def _work(reward: BaseReward) -> str:
    """What its parts spend; the most expensive one names it."""
    works = {leaf.work for leaf in leaves(reward)}
    return next(work for work in ("gpu", "cpu", "io") if work in works)


def _needs(reward: BaseReward) -> Iterable[str]:
    """Everything that a part may read from a sample; `*` where that may be all of it."""
    for leaf in leaves(reward):
        parameters = leaf.parameters
        if parameters.accepts_any:
            yield "*"
        for name in parameters.named:
            if name in ("sample", "samples"):
                yield "*"
            elif name not in CALL_FIELDS and not (name == LENT and parameters.borrows):
                yield parameters.single(name)
