"""The one entry for trainers: score a batch, settle what failed, keep the order.

    service = RewardService(reward)
    outcomes = await service.score(samples, step=3)

Nothing here belongs to an event loop: a service may be used from any thread and from one loop
after another.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, Self, TypeAlias, TypeVar, cast

from msgspec.structs import replace

from guerdon import registry
from guerdon.backends.backend import Backend, Limits
from guerdon.backends.inline import InlineBackend
from guerdon.batch import attach, samples_of
from guerdon.errors import (
    Blame,
    ConfigError,
    FailureKind,
    InvalidReward,
    InvalidSample,
    ScoringFailed,
    nearest,
)
from guerdon.evaluation import MISUSE, Evaluation, on_thread
from guerdon.injection import Call
from guerdon.outcome import (
    Abstention,
    Failure,
    Outcome,
    Score,
    failure,
    failure_from,
    seal,
)
from guerdon.outcomes import Outcomes
from guerdon.policy import Ledger, Policy, by_split, of_split, settle, worst_end
from guerdon.reward import BaseReward, run_coroutine
from guerdon.sample import Sample, Unusable
from guerdon.truncation import Truncation

T = TypeVar("T")

Entry: TypeAlias = Sample | Unusable
"""What a batch to score holds."""

BackendName: TypeAlias = Literal["auto", "inline", "pool"]
BACKENDS = ("auto", "inline", "pool")

LARGE_BATCH = 512
"""Samples from which even a pass over them is too long for an event loop."""

ONLY_SAMPLES = frozenset({Sample})

GRACE_SECONDS = 1.0
"""How long after the caller's timeout a backend may take to say what it has."""


class RewardService:
    """Scores batches with one reward, or one composition of rewards.

    Args:
        reward: the root, or a reference such as "gsm8k" or "rewards.py:mine".
        backend: "inline", "pool", a `Backend`, or "auto" (also None): inline, and a pool of
            killable workers for sync rewards with a deadline. `{"auto": {"workers": 4}}` and
            `{"pool": {...}}` start that pool with options; see `PoolBackend`.
        policy: what becomes of failures; a mapping gives one per split.
        truncation: what responses that ran out of tokens earn.

    Example:
        >>> from guerdon.reward import reward
        >>> @reward(value_range=(0.0, 1.0), auto_register=False)
        ... def exact(response: str, ground_truth: str) -> bool:
        ...     return response == ground_truth
        >>> with RewardService(exact) as service:
        ...     service.score_sync([Sample(response="4", ground_truth="4")]).values.tolist()
        [1.0]
    """

    def __init__(
        self,
        reward: BaseReward | str,
        *,
        backend: Backend | BackendName | Mapping[str, Mapping[str, Any]] | None = None,
        policy: Policy | Mapping[str, Policy] | None = None,
        truncation: Truncation | None = None,
    ) -> None:
        self.reward = registry.resolve(reward) if isinstance(reward, str) else _instance(reward)
        self.policies: Mapping[str, Policy] = by_split(policy)
        """By split; `*` is for splits that are not named."""
        self._truncation = truncation or Truncation()
        self._choice, self._pool_options = _backend_choice(backend)
        self._backends: dict[str, Backend] = {}
        self._lock = threading.Lock()
        self._ledger = Ledger()
        self._check_leaves(self.reward)
        if self._truncation.mode != "keep" and not self.reward.higher_is_better:
            raise ConfigError(
                f"truncation takes away from the value, and for reward '{self.reward.name}' lower "
                "is better: turn it round with Affine(reward, scale=-1)"
            )

    @property
    def worst_end(self) -> float | None:
        """What `assign` gives: the worst value that a response can earn here, truncation included;
        None where the range has no finite worst end."""
        interval = self._truncation.interval(self.reward.value_range)
        return worst_end(interval, self.reward.higher_is_better)

    async def score(
        self,
        samples: Iterable[Entry],
        *,
        step: int | None = None,
        split: str = "train",
        run_id: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - partial results are kept
        **keywords: Any,
    ) -> Outcomes:
        """Score a batch.

        Args:
            samples: any iterable, in any order; the result keeps it. Something else than a sample,
                and a repeated `sample_id`, is a `bad_input` failure in its place; rewards that
                compare the members of its group fail for all of them.
            step: training step, for schedules and failure budgets.
            split: "train", "validation", ...; chooses the policy.
            run_id: names the run.
            timeout: seconds that the caller waits; what is not scored by then is a `timeout`
                failure blamed on the infrastructure.
            keywords: for every reward that has a parameter of that name; `context` gives rewards
                the caller's own `guerdon.resources.Context` instead of a new one per sample.

        Returns:
            One outcome per sample, with what the policy put beside them.

        Raises:
            ScoringFailed: a failure whose blame the policy raises on; it holds all outcomes.
            CircuitOpen: the breaker has stopped the run.
            InvalidSample: what was given is no list of anything.
            ConfigError, InvalidReward: the rewards are set up in a way that cannot work.
        """
        call = Call(step=step, split=split, run_id=run_id, keywords=keywords)
        return await self._score(samples, call, timeout, loop_waits=True)

    def score_sync(
        self,
        samples: Iterable[Entry],
        *,
        step: int | None = None,
        split: str = "train",
        run_id: str | None = None,
        timeout: float | None = None,
        **keywords: Any,
    ) -> Outcomes:
        """As `score`, from sync code: from any thread, with or without a running event loop."""
        call = Call(step=step, split=split, run_id=run_id, keywords=keywords)
        return run_coroutine(partial(self._score, samples, call, timeout, loop_waits=False))

    async def _score(
        self,
        samples: Iterable[Entry],
        call: Call,
        timeout: float | None,  # noqa: ASYNC109 - partial results are kept
        *,
        loop_waits: bool,
    ) -> Outcomes:
        batch = _listed(samples)
        policy = of_split(self.policies, call.split)
        self._ledger.check()
        limits = Limits.within(timeout)
        refused = await _off_loop(batch, lambda: _refused(batch))
        broken = _broken_groups(batch, refused)
        evaluation = Evaluation(self._backend_for, policy.retry, call, limits, broken, loop_waits)
        accepted = [s for i, s in enumerate(batch) if i not in refused] if refused else batch
        scored = await self._evaluate(cast("list[Sample]", accepted), evaluation, limits)
        outcomes = _merge(scored, self._stamped(refused), len(batch))
        leaves = self._counted(evaluation, outcomes, refused)
        return await _off_loop(batch, lambda: self._settle(batch, outcomes, policy, call, leaves))

    def score_and_attach(self, batch: Any, **arguments: Any) -> Any:
        """A copy of a batch with `rewards` and `component_rewards` beside its samples.

        Args:
            batch: a mapping of columns (see `guerdon.batch`), or a `Batch`.
            arguments: as for `score`.

        Raises:
            InvalidSample: the batch has rewards already, or its columns differ in length.
        """
        return attach(batch, self.score_sync(samples_of(batch), **arguments))

    def reset_breaker(self) -> None:
        """Let a run go on after what opened the circuit breaker has been repaired."""
        self._ledger.reset()

    def close(self) -> None:
        """Stop the worker processes and threads that this service started."""
        with self._lock:
            backends = list(self._backends.values())
            self._backends.clear()
        for backend in backends:
            backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.close)

    def _settle(
        self,
        samples: Sequence[Entry],
        outcomes: list[Outcome],
        policy: Policy,
        call: Call,
        leaves: Mapping[str, Sequence[Sequence[Outcome]]],
    ) -> Outcomes:
        known = cast("Sequence[Sample]", samples)
        if any(type(sample) is not Sample for sample in samples):
            known = [s if type(s) is Sample else _stand_in(s) for s in samples]
        outcomes = self._finish(outcomes, known)
        try:
            settled = settle(policy, outcomes, known, self.worst_end)
        except ScoringFailed as error:
            self._ledger.record(policy, call, leaves, error.outcomes)
            raise
        self._ledger.record(policy, call, leaves, settled)
        return settled

    def _counted(
        self, evaluation: Evaluation, outcomes: list[Outcome], refused: Mapping[int, Failure]
    ) -> Mapping[str, Sequence[Sequence[Outcome]]]:
        """What counts against budgets: every leaf's outcomes, and for each what was refused."""
        # A root that failed before any leaf said something counts as itself.
        if not evaluation.leaves:
            return {self.reward.name: [outcomes]}
        lost = list(refused.values())
        return {name: [*lists, lost] for name, lists in evaluation.leaves.items()}

    async def _evaluate(
        self, samples: Sequence[Sample], evaluation: Evaluation, limits: Limits
    ) -> list[Outcome]:
        if not samples:
            return []
        remaining = limits.remaining
        patience = None if remaining is None else remaining + GRACE_SECONDS
        waiting = asyncio.timeout(patience)
        ended = False
        try:
            async with waiting:
                outcomes = await self.reward.evaluate(samples, evaluation)
            ended = True
        except TimeoutError as error:
            lost = limits.failure("running") if waiting.expired() else failure_from(error)
            return self._all_lost(samples, lost)
        except MISUSE:
            raise
        except Exception as error:
            return self._all_lost(samples, failure_from(error))
        finally:
            if not ended:  # nobody waits for the leaves that still run
                limits.cancel()
            evaluation.end()
        count = len(outcomes) if isinstance(cast("object", outcomes), list | tuple) else None
        if count != len(samples):
            gave = f"{type(outcomes).__name__}, no list of" if count is None else count
            found = f"gave {gave} outcomes for {len(samples)} samples"
            return self._all_lost(samples, failure(FailureKind.BAD_OUTPUT, found, Blame.SCORER))
        return outcomes

    def _all_lost(self, samples: Sequence[Sample], lost: Failure) -> list[Outcome]:
        name, fingerprint = self.reward.name, self.reward.fingerprint
        return [
            replace(lost, reward=name, fingerprint=fingerprint, sample=sample.sample_id)
            for sample in samples
        ]

    def _stamped(self, refused: Mapping[int, Failure]) -> dict[int, Failure]:
        name, fingerprint = self.reward.name, self.reward.fingerprint
        return {
            position: replace(lost, reward=name, fingerprint=fingerprint)
            for position, lost in refused.items()
        }

    def _finish(self, outcomes: list[Outcome], samples: Sequence[Sample]) -> list[Outcome]:
        """Check the root of a composition, and apply the truncation rule."""
        pairs = zip(outcomes, samples, strict=True)
        if type(self.reward).evaluate is not BaseReward.evaluate:
            outcomes = [self._checked(outcome, sample) for outcome, sample in pairs]
        if self._truncation.mode == "keep":
            return outcomes
        pairs = zip(outcomes, samples, strict=True)
        return [self._truncation.apply(outcome, sample) for outcome, sample in pairs]

    def _checked(self, outcome: Outcome, sample: Sample) -> Outcome:
        """The root outcome of a composition, or the failure that it is: no outcome, out of range,
        or that of another sample."""
        if not isinstance(cast("object", outcome), Score | Abstention | Failure):
            return self._bad_root(f"gave {type(outcome).__name__}, which is no outcome", sample)
        if outcome.sample is not None and outcome.sample != sample.sample_id:
            other = f"gave the outcome of sample {outcome.sample!r} in its place"
            return self._bad_root(other, sample)
        sealed = seal(outcome, self.reward.value_range)
        if sealed is outcome and outcome.reward and outcome.sample == sample.sample_id:
            return outcome
        return replace(
            sealed,
            reward=outcome.reward or self.reward.name,
            fingerprint=outcome.fingerprint or self.reward.fingerprint,
            sample=sample.sample_id,
            elapsed=outcome.elapsed,
        )

    def _bad_root(self, message: str, sample: Sample) -> Failure:
        lost = failure(FailureKind.BAD_OUTPUT, message, Blame.SCORER)
        return replace(
            lost,
            reward=self.reward.name,
            fingerprint=self.reward.fingerprint,
            sample=sample.sample_id,
        )

    def _check_leaves(self, reward: BaseReward) -> None:
        for child in reward.children.values():
            self._check_leaves(child)
        if type(reward).evaluate is BaseReward.evaluate and not hasattr(reward, "call"):
            raise InvalidReward(f"reward '{reward.name}' has no method call")
        if reward.prepare is not None and reward.parameters.borrows:
            raise InvalidReward(
                f"reward '{reward.name}': prepare gets no context, which belongs to the call; let "
                "call do the work and leave prepare out"
            )
        must_pool = reward.deadline is not None and not reward.is_async
        if not reward.children and must_pool and self._choice == "inline":
            raise InvalidReward(
                f"reward '{reward.name}' is sync and has a deadline: backend='inline' cannot stop "
                "it; use backend='pool' (or None)"
            )

    def _backend_for(self, reward: BaseReward) -> Backend:
        choice = self._choice
        if not isinstance(choice, str):
            return choice
        pooled = not reward.is_async and (choice == "pool" or reward.deadline is not None)
        name = "pool" if pooled and choice != "inline" else "inline"
        with self._lock:
            backend = self._backends.get(name)
            if backend is None:
                backend = self._backends[name] = _make_backend(name, self._pool_options)
            return backend


async def _off_loop(samples: Sequence[Entry], work: Callable[[], T]) -> T:
    """Run work over all samples, on a thread where the batch is large enough to stall a loop."""
    return work() if len(samples) < LARGE_BATCH else await on_thread(work)


def _make_backend(name: str, pool_options: Mapping[str, Any]) -> Backend:
    if name == "inline":
        return InlineBackend()
    from guerdon.backends.pool import PoolBackend

    return PoolBackend(**pool_options)


def _backend_choice(
    backend: Backend | str | Mapping[str, Mapping[str, Any]] | None,
) -> tuple[Backend | str, Mapping[str, Any]]:
    """The backend or its name, and the options of the pool that the service starts."""
    options: Mapping[str, Any] = {}
    if isinstance(backend, Mapping):
        if len(backend) != 1:
            raise ConfigError(f"a backend has one name, such as {{'pool': {{}}}}; got {backend!r}")
        backend, options = next(iter(backend.items()))
    name = "auto" if backend is None else backend
    if isinstance(name, str) and name not in BACKENDS:
        hint = nearest(name, BACKENDS)
        raise ConfigError(f"no backend is called {name!r}{hint}; there are {', '.join(BACKENDS)}")
    if options and name == "inline":
        raise ConfigError(f"the backend 'inline' takes no options, got {', '.join(options)}")
    return name, options


def _instance(reward: Any) -> BaseReward:
    if isinstance(reward, BaseReward):
        return reward
    if isinstance(reward, type):
        name = cast("type[object]", reward).__name__
        raise InvalidReward(f"{name} is a class: make a reward of it, {name}()")
    raise InvalidReward(
        f"a {type(reward).__name__} is no reward: decorate the function with @reward, or give the "
        "name of a reward"
    )


def _listed(samples: Any) -> list[Entry]:
    """The samples in a list of their own, which the caller cannot change meanwhile."""
    kind = cast("type[object]", type(samples))
    if not issubclass(kind, Iterable) or issubclass(kind, str | bytes | Mapping | Sample):
        hint = ": for columns use score_and_attach" if issubclass(kind, Mapping) else ""
        raise InvalidSample(f"score takes a list of samples, got a {kind.__name__}{hint}")
    return list(cast("Iterable[Entry]", samples))


def _stand_in(entry: object) -> Sample:
    """A sample with the ids of something that is none."""
    if isinstance(entry, Unusable):
        return Sample(sample_id=entry.sample_id, group_id=entry.group_id)
    return Sample()


def _broken_groups(samples: Sequence[Entry], refused: Mapping[int, Failure]) -> dict[str, str]:
    """The groups of which members were refused, and why the first of them was."""
    broken: dict[str, str] = {}
    for position, lost in refused.items():
        group_id = getattr(samples[position], "group_id", None)
        if isinstance(group_id, str) and group_id not in broken:
            name = f"entry {position}" if lost.sample is None else f"sample {lost.sample!r}"
            broken[group_id] = f"{name} of its group: {lost.message}"
    return broken


def _refused(samples: Sequence[Entry]) -> dict[int, Failure]:
    """Entries that are no samples, and repetitions of a `sample_id`."""
    if ONLY_SAMPLES.issuperset(map(type, samples)):
        ids = [sample.sample_id for sample in samples if sample.sample_id is not None]
        if len(set(ids)) == len(ids):
            return {}
    refused: dict[int, Failure] = {}
    seen: dict[str, int] = {}
    for position, sample in enumerate(samples):
        if type(sample) is Unusable:
            lost = failure(FailureKind.BAD_INPUT, sample.problem, Blame.DATA)
            refused[position] = replace(lost, sample=sample.sample_id)
        elif type(sample) is not Sample:
            found = f"entry {position} is a {type(sample).__name__}, not a Sample"
            refused[position] = failure(FailureKind.BAD_INPUT, found, Blame.DATA)
        elif sample.sample_id is not None:
            first = seen.setdefault(sample.sample_id, position)
            if first != position:
                found = f"sample_id {sample.sample_id!r} is also that of entry {first}"
                lost = failure(FailureKind.BAD_INPUT, found, Blame.DATA)
                refused[position] = replace(lost, sample=sample.sample_id)
    return refused


def _merge(scored: Sequence[Outcome], refused: Mapping[int, Failure], total: int) -> list[Outcome]:
    if not refused:
        return list(scored)
    rest = iter(scored)
    return [refused[i] if i in refused else next(rest) for i in range(total)]
