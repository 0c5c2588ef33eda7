"""Trainers that call a reward for one sample and want one number: what their adapters share.

A failure is tried again within a time budget, then gets the number that the user named with
`neutral`, flagged, inside a failure budget; without `neutral` the call raises. Each adapter makes
the sample, and writes the number in its trainer's form.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Mapping, Sequence
from itertools import count
from numbers import Real
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar, cast

import msgspec
import numpy as np

from guerdon.config.section import BackendChoice
from guerdon.errors import ConfigError, nearest
from guerdon.injection import SYNONYMS
from guerdon.outcome import EMPTY, Failure, Outcome, Score
from guerdon.policy import by_split, of_split, worst_end
from guerdon.reward import BaseReward
from guerdon.service import Entry, RewardService
from guerdon.trainers.component import component_names
from guerdon.trainers.loop_thread import LoopThread
from guerdon.trainers.micro_batch import MicroBatches, Settled
from guerdon.trainers.no_score import FAILURE_SHARE, NoScore, check_single, refusal
from guerdon.trainers.plan import RewardLike, is_configuration, plan
from guerdon.trainers.versions import Versions

logger = logging.getLogger("guerdon.trainers")

TRUTHS = tuple(name for name, field in SYNONYMS.items() if field == "ground_truth")
"""Columns that are the ground truth where only one of them is there."""

SHOWN = 200
"""Characters of a failure that a trainer's log keeps."""


class ScalarSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What every such trainer can be told.

    Attributes:
        options: of the reward, such as `{"method": "strict"}`.
        backend: as for `RewardService`; by default what the reward needs.
        neutral: the number for a sample without a score; by default the call raises.
        retry_within: seconds for all tries of a retryable failure; by default 60.
        failure_share: of all samples of one process that may get `neutral`.
        timeout: seconds that a sample is waited for, its time in a queue included.
        split: which policy of a configuration holds.
    """

    options: Mapping[str, Any] = EMPTY
    backend: Any = None
    neutral: float | None = None
    retry_within: float | None = None
    failure_share: float = FAILURE_SHARE
    timeout: float | None = None
    split: str = "train"


S = TypeVar("S", bound=ScalarSettings)

NUMBERS = ("neutral", "retry_within", "failure_share", "timeout")


def settings_of(kind: type[S], given: Mapping[str, Any], trainer: str) -> S:
    """Settings by name; nodes of OmegaConf, as Hydra gives them, become plain.

    Raises:
        ConfigError: one that does not exist, with the nearest one that does, or one that is no
            number and should be one.
    """
    known = kind.__struct_fields__
    for key in given:
        if key not in known:
            raise ConfigError(
                f"{trainer}: there is no setting {key!r}{nearest(key, known)} (settings: "
                f"{', '.join(known)}); options of the reward go under 'options'"
            )
    return kind(**{key: _setting(key, value, trainer) for key, value in given.items()})


def _setting(key: str, value: Any, trainer: str) -> Any:
    if key in ("options", "backend"):
        return without_nodes(value)
    if key not in NUMBERS or value is None:
        return value
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ConfigError(f"{trainer}: {key} is a number, got {value!r}")
    return float(value)


def without_nodes(node: Any) -> Any:
    """OmegaConf nodes, which are mappings and sequences, as dicts and lists.

    Example:
        >>> without_nodes({"a": ("x", 1)})
        {'a': ['x', 1]}
    """
    if isinstance(node, Mapping):
        items = cast("Mapping[Any, Any]", node).items()
        return {str(key): without_nodes(item) for key, item in items}
    if isinstance(node, Sequence) and not isinstance(node, str | bytes):
        return [without_nodes(item) for item in cast("Sequence[Any]", node)]
    return node


class _Served(NamedTuple):
    """What one function has in one process."""

    service: RewardService
    batches: MicroBatches
    loop: LoopThread
    """Where sync calls are scored."""


class ScalarFunction(Generic[S]):
    """One reward behind a trainer's function: a service of its own in each process.

    It can be pickled unless it was made of a `RewardService`, and a forked child starts afresh.

    Args:
        reward: a reward object or function, a reference, a configuration, or a `RewardService`.
            A service keeps its own policy, so `neutral` and the like are refused beside it.
        settings: of the trainer.
    """

    trainer = "the trainer"
    sees = "one sample at a time, without its group"
    versions: ClassVar[Versions | None] = None
    """Which versions of the trainer work; None where it is on no package index."""
    pool_workers: ClassVar[int | None] = None
    """Of a pool that nobody sized, in trainers that call rewards in many processes."""
    says_assigned: ClassVar[bool] = False
    """Whether the trainer's form itself says that a number was assigned."""

    def __init__(self, reward: RewardLike, settings: S) -> None:
        if self.versions is not None:
            self.versions.check()
        self._named = reward
        self.settings = settings
        self._lock = threading.Lock()
        self._served: _Served | None = None
        self._ids = count()
        given = isinstance(reward, RewardService)
        if given and (_recipe(settings) != NoScore() or settings.options or settings.backend):
            raise ConfigError(
                "a RewardService has its own policy, options and backend: name neutral, "
                "retry_within and failure_share there, as Policy(on=..., retry=..., budget=...)"
            )
        if isinstance(reward, RewardService):
            self.reward: BaseReward = reward.reward
            policies = reward.policies
        else:
            self._plan = plan(reward, options=settings.options, backend=settings.backend)
            self.reward = self._plan.reward
            policies = by_split(self._plan.policy)
        of_split(policies, settings.split)
        if self.reward.scope == "group":
            raise ConfigError(
                f"reward '{self.reward.name}' scores whole groups, and {self.trainer} hands over "
                f"{self.sees}"
            )
        self.components = component_names(self.reward)
        self.__name__ = self.reward.name
        self.__qualname__ = self.__name__

    async def score_one(self, sample: Entry) -> Settled:
        """Score one sample, together with those of concurrent callers.

        Raises:
            ScoringFailed: it has no number.
            CircuitOpen: the breaker has stopped the run.
        """
        return self.checked(await self._started().batches.score(sample))

    def score_one_sync(self, sample: Entry) -> Settled:
        """As `score_one`, from sync code in any thread; threads are scored together, too."""
        served = self._started()
        return self.checked(served.loop.run(lambda: served.batches.score(sample)))

    async def score_many(self, samples: Sequence[Entry]) -> list[Settled]:
        """Score samples that are together already; raises for the first that has no number."""
        found = await self._started().batches.score_batch(list(samples))
        return [self.checked(one) for one in found]

    def score_many_sync(self, samples: Sequence[Entry]) -> list[Settled]:
        """As `score_many`, from sync code."""
        served = self._started()
        found = served.loop.run(lambda: served.batches.score_batch(list(samples)))
        return [self.checked(one) for one in found]

    def checked(self, settled: Settled) -> Settled:
        """A settled sample whose number the trainer can keep as float32.

        An assigned one is a warning in the log `guerdon.trainers`, where the trainer's form cannot
        say it.

        Raises:
            ScoringFailed: there is no number, or it is too large.
        """
        if settled.number is None:
            raise refusal(settled.outcome, self.trainer)
        check_single(settled.number, settled.outcome)
        if settled.assigned and not self.says_assigned:
            outcome = settled.outcome
            logger.warning(
                "%s: sample %r of reward '%s' has the assigned number %r: %s",
                self.trainer,
                outcome.sample,
                self.__name__,
                settled.number,
                text_of(outcome) or kind_of(outcome),
            )
        return settled

    def sample_id(self, place: object = "") -> str:
        """A name for a sample, its own in every process."""
        return f"{self.__name__}[{place}]#{os.getpid()}.{next(self._ids)}"

    @property
    def service(self) -> RewardService:
        """The service behind it; in each process one of its own, made when it is first needed."""
        return self._started().service

    def close(self) -> None:
        """Stop the service, unless it was given; sync calls that still wait raise."""
        with self._lock:
            served, self._served = self._served, None
        if served is None:
            return
        served.loop.stop()
        if not isinstance(self._named, RewardService):
            served.service.close()

    def forget(self) -> None:
        """Drop the service without stopping it, in a forked child that has only its shell."""
        self._lock = threading.Lock()
        if self._served is not None:
            _foreign.append(self._served)
        self._served = None

    def __reduce__(self) -> Any:
        """By what it was made of.

        Raises:
            TypeError: it was made of a `RewardService`.
        """
        if isinstance(self._named, RewardService):
            raise TypeError(
                f"'{self.__name__}' was made of a RewardService, which lives in one process: make "
                "it of the reward, or of a configuration"
            )
        return type(self), (self._named, self.settings)

    def __repr__(self) -> str:
        return f"<{self.trainer} reward {self.__name__}>"

    def _started(self) -> _Served:
        served = self._served
        if served is None:
            with self._lock:
                served = self._served
                if served is None:
                    service = self._made()
                    settings = self.settings
                    batches = MicroBatches(service, split=settings.split, timeout=settings.timeout)
                    served = self._served = _Served(service, batches, LoopThread())
                    weakref.finalize(self, served.loop.stop).atexit = False
                    _started.add(self)
        return served

    def _made(self) -> RewardService:
        if isinstance(self._named, RewardService):
            return self._named
        made = self._plan
        worst = worst_end(self.reward.value_range, self.reward.higher_is_better)
        base = made.policy if is_configuration(self._named) else None
        policy = _recipe(self.settings).policies(base, worst)
        backend = made.backend
        if self.pool_workers is not None and backend == BackendChoice():
            backend = BackendChoice(options={"workers": self.pool_workers})
        return msgspec.structs.replace(made, policy=policy, backend=backend).build()


def _recipe(settings: ScalarSettings) -> NoScore:
    return NoScore(settings.neutral, settings.retry_within, settings.failure_share)


def truth_of(row: Mapping[str, Any], column: str | None = None) -> Any:
    """The ground truth of a dataset row: a named column, `ground_truth`, or the one usual name.

    Args:
        row: of the dataset.
        column: its name, where the user says so.

    Raises:
        ConfigError: the row has no such column.

    Example:
        >>> truth_of({"answer": "4", "level": 2}), truth_of({"answer": "4", "solution": "2 + 2"})
        ('4', None)
    """
    if column is not None:
        if column not in row:
            hint = nearest(column, row)
            raise ConfigError(f"ground_truth: the row has no column {column!r}{hint}")
        return row[column]
    if "ground_truth" in row:
        return row["ground_truth"]
    there = [name for name in TRUTHS if name in row]
    # Two of them (a worked solution and its answer) are for the user to tell apart.
    return row[there[0]] if len(there) == 1 else None


def plain(value: Any) -> Any:
    """A value as JSON would have held it, where a dataset gives numpy scalars and arrays.

    Example:
        >>> plain({"answers": np.array(["4", "four"]), "level": np.int64(3)})
        {'answers': ['4', 'four'], 'level': 3}
    """
    if isinstance(value, np.generic):
        return cast("Any", value).item()
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, dict):
        return {key: plain(item) for key, item in cast("dict[Any, Any]", value).items()}
    if isinstance(value, list):
        return [plain(item) for item in cast("list[Any]", value)]
    return value


def components_of(outcome: Outcome) -> Mapping[str, float | None]:
    """The components of a score; nothing for anything else."""
    return outcome.components if isinstance(outcome, Score) else EMPTY


def kind_of(outcome: Outcome) -> str:
    """`score`, `abstention` or `failure`."""
    return type(outcome).__name__.lower()


def text_of(outcome: Outcome) -> str:
    """Kind, blame and message of a failure; "" for anything else."""
    if not isinstance(outcome, Failure):
        return ""
    text = f"{outcome.kind} ({outcome.blame}): {outcome.message}"
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


_started: weakref.WeakSet[ScalarFunction[Any]] = weakref.WeakSet()
_foreign: list[_Served] = []
"""Those of the parent, in a forked child: kept for ever, as closing a loop here would empty the
selector that its thread waits on."""


def _forget_all() -> None:
    for function in _started:
        function.forget()
    _started.clear()


os.register_at_fork(after_in_child=_forget_all)
