"""Every rank scores its shard; groups whose members are on several ranks are gathered by key.

A group is scored by the rank that has most of it, whole; each outcome goes back to where its sample
is. Groups that live on one rank, and rewards that look at one sample at a time, send nothing.
Whatever fails on one rank is known to all before any of them raises: nobody waits for ever in the
next collective call.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, cast

import msgspec
from msgspec.structs import replace

from guerdon.errors import Blame, ConfigError, FailureKind, ScoringFailed, UnportableData
from guerdon.outcome import Outcome, Score, failure
from guerdon.outcomes import Outcomes
from guerdon.remote.needs import Needs
from guerdon.sample import Sample, Unusable
from guerdon.service import Entry, RewardService
from guerdon.trainers.ranks import Ranks
from guerdon.wire.codec import decode_msgpack, encode_msgpack
from guerdon.wire.portable import find_unportable


class _Header(msgspec.Struct, frozen=True):
    """What a rank tells the others before scoring."""

    fingerprint: str
    members: dict[str, int]
    """How many samples of each group it has."""


class _Parcel(msgspec.Struct, frozen=True):
    """Samples on their way to the rank that scores them."""

    places: list[int]
    """Where they are in the batch of their own rank."""
    samples: list[Sample]
    problems: dict[int, str]
    """What is wrong with samples that are only ids here, by their number in this parcel."""

    def entries(self) -> list[Entry]:
        return [
            Unusable(problem=self.problems[i], sample_id=s.sample_id, group_id=s.group_id)
            if i in self.problems
            else s
            for i, s in enumerate(self.samples)
        ]


class _Answer(msgspec.Struct, frozen=True):
    """Outcomes on their way back."""

    places: list[int]
    outcomes: list[Outcome]
    assigned: list[float | None]
    dropped: list[bool]


class _Verdict(NamedTuple):
    """What became of one sample."""

    outcome: Outcome
    assigned: float | None
    dropped: bool


class ShardScorer:
    """Scores the shards of all ranks.

    Args:
        service: of this rank. Its reward must be the same on every rank; where that compares the
            members of a group, or a policy drops groups, they are scored together.
        ranks: all of them make a scorer, and score together.
        score: scores a list on this rank, by default `service.score_sync`; it may raise.

    Example:
        >>> import tempfile, torch.distributed as dist
        >>> from guerdon.reward import reward
        >>> file = tempfile.mkdtemp() + "/init"
        >>> dist.init_process_group("gloo", init_method=f"file://{file}", rank=0, world_size=1)
        >>> @reward(scope="group", auto_register=False)
        ... def shortest(responses: list[str]) -> list[float]:
        ...     return [float(len(text) == min(map(len, responses))) for text in responses]
        >>> group = [Sample(response=text, group_id="g") for text in ("a", "bc")]
        >>> with RewardService(shortest) as service:
        ...     scorer = ShardScorer(service, Ranks())
        ...     scorer(group).values.tolist()
        [1.0, 0.0]
        >>> dist.destroy_process_group()
    """

    def __init__(
        self,
        service: RewardService,
        ranks: Ranks,
        score: Callable[[list[Entry]], Outcomes] | None = None,
    ) -> None:
        reward = self._reward = service.reward
        self._score = score or service.score_sync
        self._ranks = ranks
        drops = any(policy.drops_groups for policy in service.policies.values())
        self._whole_groups = drops or reward.scope == "group"
        parameters = reward.parameters
        self._needs = Needs.of(
            parameters.named, has_parts=bool(reward.children) or parameters.accepts_any
        )

    def __call__(self, samples: Sequence[Entry]) -> Outcomes:
        """Score this rank's samples; collective.

        Returns:
            Outcomes in the order of the samples.

        Raises:
            ConfigError: the ranks have different rewards.
            ScoringFailed: scoring raised on some rank; every rank raises, with its own outcomes.
        """
        samples = [_entry(sample) for sample in samples]
        owners = self._owners(samples)
        batch = _Gathered(samples, self._ranks.rank, owners)
        if owners:
            batch.receive(self._ranks.exchange(batch.parcels(self._ranks.size, self._needs)))
        settled, error = self._scored(batch)
        if owners:
            batch.returned(self._ranks.exchange(batch.answers(self._ranks.size, settled)))
        outcomes = batch.outcomes(settled)
        self._agree(error, outcomes)
        return outcomes

    def _owners(self, samples: Sequence[Entry]) -> dict[str, int]:
        """The rank that scores each group of which several ranks have members."""
        members: Counter[str] = Counter()
        if self._whole_groups:
            members.update(s.group_id for s in samples if s.group_id is not None)
        header = _Header(self._reward.fingerprint, dict(members))
        told = self._ranks.gather(encode_msgpack(header))
        headers = [decode_msgpack(part, _Header) for part in told]
        found = [header.fingerprint for header in headers]
        if len(set(found)) > 1:
            raise ConfigError(
                f"the ranks score with different rewards (fingerprints {', '.join(found)}): they "
                "need the same code, options and model revision"
            )
        return owners_of([header.members for header in headers])

    def _scored(self, batch: _Gathered) -> tuple[list[_Verdict], Exception | None]:
        """What this rank scored, and what was raised; never raises itself."""
        raised: Exception | None = None
        try:
            outcomes = self._score(batch.entries)
        except ScoringFailed as error:
            outcomes, raised = error.outcomes, error
        except Exception as error:
            found = f"rank {self._ranks.rank}: {type(error).__name__}: {error}"
            lost = failure(FailureKind.UNAVAILABLE, found, Blame.INFRASTRUCTURE)
            return [_Verdict(lost, None, False)] * len(batch.entries), error
        assigned = outcomes.assigned
        verdicts = [
            _Verdict(outcome, float(value) if there else None, bool(dropped))
            for outcome, value, there, dropped in zip(
                outcomes, assigned.values, assigned.mask, outcomes.dropped, strict=True
            )
        ]
        return verdicts, raised

    def _agree(self, error: Exception | None, outcomes: Outcomes) -> None:
        """Raise on every rank where one has something to raise."""
        text = "" if error is None else f"{type(error).__name__}: {error}"
        told = [part.decode() for part in self._ranks.gather(text.encode("utf-8", "replace"))]
        if error is not None and not isinstance(error, ScoringFailed):
            raise error
        if any(told):
            lines = [f"rank {rank}: {text}" for rank, text in enumerate(told) if text]
            raise ScoringFailed("\n".join(lines), outcomes) from error


def owners_of(members: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """Which rank scores a group that several ranks have members of.

    The one with most of them, so that least travels; of equals the one with least to do.

    Args:
        members: how many samples of each group a rank has, by rank.

    Returns:
        Ranks by group, the same on every rank that calls this with the same table.

    Example:
        >>> owners_of([{"a": 3, "b": 2}, {"a": 1, "c": 4}])
        {'a': 0}
    """
    load = [sum(own.values()) for own in members]
    owners: dict[str, int] = {}
    for key in sorted({key for own in members for key in own}):
        counts = [own.get(key, 0) for own in members]
        if sum(count > 0 for count in counts) < 2:
            continue
        owner = max(range(len(members)), key=lambda rank: (counts[rank], -load[rank], -rank))
        owners[key] = owner
        load = [was - count for was, count in zip(load, counts, strict=True)]
        load[owner] += sum(counts)
    return owners


class _Gathered:
    """What this rank scores: of its own samples those that stay, and those of others."""

    def __init__(self, samples: Sequence[Entry], rank: int, owners: Mapping[str, int]) -> None:
        self._samples = samples
        self._rank = rank
        self._leaving: dict[int, list[int]] = {}
        self._staying: list[int] = []
        for place, sample in enumerate(samples):
            owner = rank if sample.group_id is None else owners.get(sample.group_id, rank)
            if owner == rank:
                self._staying.append(place)
            else:
                self._leaving.setdefault(owner, []).append(place)
        self.entries: list[Entry] = [samples[place] for place in self._staying]
        self._origins = [(rank, place) for place in self._staying]
        self._renamed: dict[int, str] = {}
        self._back: dict[int, _Verdict] = {}

    def parcels(self, size: int, needs: Needs) -> list[bytes]:
        """What goes to each rank."""
        return [
            _pack([(p, self._samples[p]) for p in self._leaving.get(rank, ())], needs)
            for rank in range(size)
        ]

    def receive(self, parcels: Sequence[bytes]) -> None:
        """Add what came from each rank; an id that is taken here gets another for the time."""
        taken = {entry.sample_id for entry in self.entries}
        for rank, data in enumerate(parcels):
            parcel = decode_msgpack(data, _Parcel)
            for place, entry in zip(parcel.places, parcel.entries(), strict=True):
                name = entry.sample_id
                if name is not None and name in taken:
                    self._renamed[len(self.entries)] = name
                    while name in taken:
                        name = f"{name} of rank {rank}"
                    entry = replace(entry, sample_id=name)
                taken.add(name)
                self.entries.append(entry)
                self._origins.append((rank, place))

    def answers(self, size: int, verdicts: Sequence[_Verdict]) -> list[bytes]:
        """What goes back to each rank."""
        by_rank: list[list[tuple[int, _Verdict]]] = [[] for _ in range(size)]
        for number, ((rank, place), verdict) in enumerate(
            zip(self._origins, verdicts, strict=True)
        ):
            if number in self._renamed:
                own_name = _named(verdict.outcome, self._renamed[number])
                verdict = verdict._replace(outcome=own_name)
            if rank != self._rank:
                by_rank[rank].append((place, verdict))
        return [encode_msgpack(_answer(entries)) for entries in by_rank]

    def returned(self, answers: Sequence[bytes]) -> None:
        """Take what came back."""
        for data in answers:
            answer = decode_msgpack(data, _Answer)
            for place, outcome, assigned, dropped in zip(
                answer.places, answer.outcomes, answer.assigned, answer.dropped, strict=True
            ):
                self._back[place] = _Verdict(outcome, assigned, dropped)

    def outcomes(self, verdicts: Sequence[_Verdict]) -> Outcomes:
        """Those of this rank's samples, in order."""
        for (rank, place), verdict in zip(self._origins, verdicts, strict=True):
            if rank == self._rank:
                self._back[place] = verdict
        found = [self._back[place] for place in range(len(self._samples))]
        return Outcomes(
            [verdict.outcome for verdict in found],
            sample_ids=[sample.sample_id for sample in self._samples],
            assigned={i: v.assigned for i, v in enumerate(found) if v.assigned is not None},
            dropped=[i for i, verdict in enumerate(found) if verdict.dropped],
        )


def _entry(sample: object) -> Entry:
    """What a service would refuse must not stop this rank while the others wait for it."""
    if isinstance(sample, Sample | Unusable):
        return sample
    return Unusable(problem=f"a {type(sample).__name__} is no sample")


def _pack(entries: Sequence[tuple[int, Entry]], needs: Needs) -> bytes:
    samples: list[Sample] = []
    problems: dict[int, str] = {}
    for number, (_, entry) in enumerate(entries):
        problem = entry.problem if isinstance(entry, Unusable) else ""
        if isinstance(entry, Sample):
            entry = needs.trimmed(entry)
            try:
                encode_msgpack(entry)
            except UnportableData as error:
                problem = f"the sample cannot travel to the rank that scores its group: {error}"
        if problem:
            problems[number] = problem
            entry = Sample(sample_id=entry.sample_id, group_id=entry.group_id)
        samples.append(cast("Sample", entry))
    return encode_msgpack(_Parcel([place for place, _ in entries], samples, problems))


def _answer(entries: Sequence[tuple[int, _Verdict]]) -> _Answer:
    return _Answer(
        [place for place, _ in entries],
        [_portable(verdict.outcome) for _, verdict in entries],
        [verdict.assigned for _, verdict in entries],
        [verdict.dropped for _, verdict in entries],
    )


def _portable(outcome: Outcome) -> Outcome:
    """The outcome without information that means something only on the rank that scored it."""
    if not isinstance(outcome, Score):
        return outcome
    kept = {key: value for key, value in outcome.info.items() if not find_unportable(value, key)}
    return outcome if len(kept) == len(outcome.info) else replace(outcome, info=kept)


def _named(outcome: Outcome, sample_id: str) -> Outcome:
    """The outcome, and those inside it, with the id that the sample has on its own rank."""
    inner = {name: _named(lost, sample_id) for name, lost in outcome.absent.items()}
    named = outcome if outcome.sample is None else replace(outcome, sample=sample_id)
    return replace(named, absent=inner) if inner else named
