"""The base of rewards whose work is a call to a server that speaks a protocol of others."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict, cast

import msgspec

from guerdon.backends.backend import Limits, current_scoring
from guerdon.errors import BadInput, Blame, ConfigError, FailureKind
from guerdon.fingerprint import digest, source_of
from guerdon.outcome import UNBOUNDED, Abstention, Failure, Range, Score, failure, failure_from
from guerdon.policy import Retry
from guerdon.remote.address import Urls, addresses
from guerdon.remote.per_loop import PerLoop
from guerdon.remote.settings import retry_from
from guerdon.reward import BaseReward
from guerdon.sample import Sample

if TYPE_CHECKING:
    from guerdon.remote.exchange import Exchange, ExchangeSettings
    from guerdon.remote.reply import Answer

Given: TypeAlias = float | Mapping[str, Any] | Score | Abstention | Failure
"""What a server gave for one sample; the backend seals it. A number that may be NaN stands alone or
in a mapping (`score`, `metrics`): a `Score` cannot be made of it."""

CALLS = 4096
"""Calls in flight: the connections are what is limited."""
NOT_MEANING = frozenset(
    {"url", "token", "name", "batch_size", "connections", "timeout", "connect_timeout"}
    | {"retry", "rest", "value_range", "higher_is_better"}
)
"""Options that say where and how a server is asked, not what."""


class Talk(TypedDict, total=False):
    """Options of every foreign reward; `ForeignReward` says what they mean."""

    token: str | None
    name: str | None
    value_range: Sequence[float | None] | None
    higher_is_better: bool
    connections: int
    timeout: float
    connect_timeout: float
    retry: Retry | Mapping[str, Any] | None
    rest: float


class BatchTalk(Talk, total=False):
    """Also of those that ask for several samples at once."""

    batch_size: int


class ForeignReward(BaseReward):
    """Scores with servers that speak a protocol of others; a subclass knows the protocol.

    What is equal in a batch is asked for once. A request that is refused as a whole is divided, so
    that one sample that a server cannot take costs only itself.

    Args:
        url: of the server, or several that score alike, as a list or separated by commas; with a
            path prefix where there is one. A token may stand in it: `http://:TOKEN@host:8000`.
        token: for all servers whose URL has none, sent as `Authorization: Bearer`.
        name: of the reward here.
        value_range: lowest and highest value, None for an end without a bound.
        higher_is_better: direction.
        batch_size: most samples of one request.
        connections: requests in flight per server.
        timeout: seconds that a server may take for one request.
        connect_timeout: seconds for reaching a server.
        retry: rounds over all servers, as a `Retry` or a mapping with its fields.
        rest: seconds for which a server that failed is left alone, where there is another.

    Raises:
        ConfigError: a setting that cannot work.
    """

    scope = "batch"
    work = "io"
    relays = True  # it tries again by itself, request by request
    concurrency = CALLS
    auto_register = False

    def __init__(
        self,
        url: Urls,
        *,
        token: str | None = None,
        name: str | None = None,
        value_range: Sequence[float | None] | None = None,
        higher_is_better: bool = True,
        batch_size: int = 32,
        connections: int = 64,
        timeout: float = 120.0,
        connect_timeout: float = 10.0,
        retry: Retry | Mapping[str, Any] | None = None,
        rest: float = 5.0,
    ) -> None:
        self._addresses = addresses(url, token)
        self._talk: Mapping[str, Any] = {
            "batch_size": batch_size,
            "connections": connections,
            "timeout": timeout,
            "connect_timeout": connect_timeout,
            "retry": retry_from(retry),
            "rest": rest,
        }
        for key, value in self._talk.items():
            if key != "retry" and not _is_positive(value):
                raise ConfigError(f"{self.name}: {key} must be positive, got {value!r}")
        self.name = name or self.name
        self.value_range = _range(value_range)
        self.higher_is_better = higher_is_better
        self._reset()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.__signature__ = _spelled_out(cls)

    # What a protocol defines.

    def path(self) -> str:
        """Below the URL of a server."""
        raise NotImplementedError

    def item(self, sample: Sample) -> Any:
        """What is sent for one sample: hashable, and equal for samples that must score alike.

        Raises:
            BadInput: the sample has no form in the protocol.
        """
        raise NotImplementedError

    def request(self, items: Sequence[Any]) -> bytes:
        """The body that asks for some items."""
        raise NotImplementedError

    def read(self, answer: Answer, items: Sequence[Any]) -> list[Given]:
        """What a reply of status 200 gives for each item.

        Raises:
            Refusal: it is not the answer to the request.
        """
        raise NotImplementedError

    def headers(self) -> Mapping[str, str]:
        """What is sent beside a request; JSON by default."""
        from guerdon.remote.exchange import HEADERS

        return HEADERS

    def explain(self, answer: Answer) -> str:
        """What the body of an error says, in a few words; by default its beginning."""
        from guerdon.remote.exchange import excerpt

        return excerpt(answer)

    # Scoring.

    async def call(self, *, samples: list[Sample]) -> list[Given]:
        """One result per sample, in their order."""
        given, places = await asyncio.to_thread(self._items, samples)
        items = list(places)
        size: int = self._talk["batch_size"]
        parts = [items[i : i + size] for i in range(0, len(items), size)]
        limits = current_scoring().limits
        for part, found in zip(
            parts,
            await asyncio.gather(*(self._ask(part, limits) for part in parts)),
            strict=True,
        ):
            for item, result in zip(part, found, strict=True):
                for position in places[item]:
                    given[position] = result
        return [given[position] for position in range(len(samples))]

    def _items(self, samples: Sequence[Sample]) -> tuple[dict[int, Given], dict[Any, list[int]]]:
        """Results that are known already, and the positions of each different item."""
        known: dict[int, Given] = {}
        places: dict[Any, list[int]] = {}
        for position, sample in enumerate(samples):
            try:
                places.setdefault(_sendable(self.item(sample)), []).append(position)
            except BadInput as error:
                known[position] = failure_from(error)
        return known, places

    async def _ask(
        self, items: Sequence[Any], limits: Limits, *, again: bool = True
    ) -> list[Given]:
        from guerdon.remote.exchange import DIVISIBLE
        from guerdon.remote.reply import Refusal

        try:
            return await self._exchange().ask(
                self.path(),
                self.request(items),
                lambda answer: self.read(answer, items),
                limits,
                headers=self.headers(),
                explain=self.explain,
                again=again,
            )
        except Refusal as refusal:
            if refusal.code not in DIVISIBLE or len(items) == 1:
                return [refusal.failure] * len(items)
        middle = len(items) // 2
        halves = (items[:middle], items[middle:])
        found = await asyncio.gather(*(self._ask(half, limits, again=False) for half in halves))
        return [*found[0], *found[1]]

    # What it is.

    @cached_property
    def fingerprint(self) -> str:
        """Of the protocol and of what is asked for; not of where the servers are."""
        meaning = {k: v for k, v in self.options.items() if k not in NOT_MEANING}
        parts = {"source": source_of(type(self)), "version": self.version, "options": meaning}
        return digest({**parts, "range": self.value_range})

    def configure(self, **settings: Any) -> BaseReward:
        """A copy with other declarations; see `BaseReward.configure`."""
        changed = cast("ForeignReward", super().configure(**settings))
        changed._reset()
        return changed

    def __getstate__(self) -> dict[str, Any]:
        """Everything but connections, which do not leave a process."""
        return {k: v for k, v in self.__dict__.items() if k != "_exchanges"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()

    def __repr__(self) -> str:
        where = ", ".join(map(str, self._addresses))
        return f"<reward {self.name} of {where}{self.path()}>"

    def _reset(self) -> None:
        self._exchanges: PerLoop[Exchange] = PerLoop()

    def _settings(self) -> ExchangeSettings:
        from guerdon.remote.exchange import ExchangeSettings

        return ExchangeSettings(addresses=self._addresses, **self._talk)

    def _exchange(self) -> Exchange:
        """The connections of the running event loop."""
        from guerdon.remote.exchange import Exchange

        return self._exchanges.here(lambda ended: Exchange(self._settings(), ended))


def plain_json(value: Any) -> bytes:
    """JSON of plain data, with sorted keys.

    Raises:
        BadInput: it is no plain data.

    Example:
        >>> plain_json({"b": None, "a": 1})
        b'{"a":1,"b":null}'
    """
    try:
        return msgspec.json.encode(value, order="sorted")
    except (TypeError, ValueError) as error:
        raise BadInput(f"the sample cannot be written as JSON: {error}") from None


def unusable(told: str) -> Failure:
    """The failure of a sample for which a server gave something that is no score."""
    return failure(FailureKind.BAD_OUTPUT, told, Blame.SCORER)


def _sendable(item: Any) -> Any:
    """The item, if JSON can carry it.

    Raises:
        BadInput: it cannot.
    """
    if not isinstance(item, bytes):
        plain_json(item)
    return item


def _range(given: Sequence[float | None] | None) -> Range:
    if given is None:
        return UNBOUNDED
    if len(given) != 2:
        raise ConfigError(f"value_range is (low, high), got {given!r}")
    low, high = given
    return (
        UNBOUNDED[0] if low is None else float(low),
        UNBOUNDED[1] if high is None else float(high),
    )


def _spelled_out(cls: type[ForeignReward]) -> inspect.Signature:
    """The constructor's signature with the shared options named one by one."""
    found = inspect.signature(cls.__init__)
    own = list(found.parameters.values())[1:]
    rest = next((p for p in own if p.kind is p.VAR_KEYWORD), None)
    if rest is None:
        return found.replace(parameters=own)
    # As text or as a type, whether or not its module postpones annotations.
    batched = BatchTalk.__name__ in str(rest.annotation)
    keys = {*inspect.get_annotations(Talk), *(("batch_size",) if batched else ())}
    shared = inspect.signature(ForeignReward.__init__).parameters.values()
    kept = [p for p in own if p is not rest]
    return found.replace(parameters=[*kept, *(p for p in shared if p.name in keys)])


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0
