"""Requests out of calls: a large call is cut, and small calls that come together share a request.

A call goes at once where no request is in flight. While one is, calls that are smaller than a
request wait a moment for each other, and while all connections are busy they wait together for a
free one: the busier the servers, the larger the requests.
"""

from __future__ import annotations

import asyncio
import contextvars
import itertools
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, TypeAlias

from guerdon.backends.backend import Limits
from guerdon.injection import Call
from guerdon.outcome import Outcome
from guerdon.remote.sending import Errand
from guerdon.remote.settings import Settings
from guerdon.sample import Sample

SAME_END_SECONDS = 0.05
"""Calls whose callers stop waiting within the same such slice of time may share a request."""

Deliver: TypeAlias = Callable[[Errand], Coroutine[Any, Any, list[Outcome]]]


class Gatherer:
    """Cuts and joins the calls of one event loop.

    Args:
        settings: sizes and waits.
        slots: requests that may be in flight.
        deliver: sends a request.
    """

    def __init__(self, settings: Settings, slots: int, deliver: Deliver) -> None:
        self._settings = settings
        self._slots = slots
        self._deliver = deliver
        self._lanes: dict[object, _Lane] = {}
        self._in_flight = 0
        self._loop = asyncio.get_running_loop()

    async def score(self, samples: Sequence[Sample], call: Call, limits: Limits) -> list[Outcome]:
        """One outcome per sample, in their order."""
        pieces = [_Piece(positions, samples) for positions in self._cut(samples)]
        try:
            for piece in pieces:
                self._put(piece, call, limits)
            found = await asyncio.gather(*(piece.outcomes for piece in pieces))
        except BaseException:
            for piece in pieces:
                piece.outcomes.cancel()
            raise
        outcomes: dict[int, Outcome] = {}
        for piece, some in zip(pieces, found, strict=True):
            outcomes.update(zip(piece.positions, some, strict=True))
        return [outcomes[position] for position in range(len(samples))]

    def _cut(self, samples: Sequence[Sample]) -> list[list[int]]:
        """Positions of the samples of each piece; groups stay whole where that matters."""
        size, most_bytes = self._settings.batch_size, self._settings.batch_bytes
        if len(samples) <= size and not any(map(_has_media, samples)) and not self._spans:
            return [list(range(len(samples)))]
        pieces: list[list[int]] = []
        held = room = 0
        for unit in self._units(samples):
            weight = sum(_media_bytes(samples[i]) for i in unit)
            fits = pieces and len(pieces[-1]) + len(unit) <= size and held + weight <= room
            if not fits:
                pieces.append([])
                held, room = 0, most_bytes
            pieces[-1].extend(unit)
            held += weight
        return pieces

    def _units(self, samples: Sequence[Sample]) -> Iterable[list[int]]:
        """What must travel together: single samples, or whole groups."""
        if not self._whole_groups:
            return ([position] for position in range(len(samples)))
        groups: dict[object, list[int]] = {}
        for position, sample in enumerate(samples):
            key = position if sample.group_id is None else sample.group_id
            groups.setdefault(key, []).append(position)
        return groups.values()

    @property
    def _whole_groups(self) -> bool:
        return bool(self._settings.declared.whole_groups) and not self._spans

    @property
    def _spans(self) -> bool:
        """Whether groups are assembled by the server."""
        return self._settings.group_size is not None

    def _put(self, piece: _Piece, call: Call, limits: Limits) -> None:
        key = _key(call, limits, piece.samples[0].group_id if self._spans else None)
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = _Lane(call)
        lane.add(piece, limits.expires_at)
        full = lane.samples >= self._settings.batch_size
        if lane.due or (lane.timer is not None and not full):
            return
        if lane.timer is not None:
            lane.timer.cancel()
        wait = 0.0 if full or self._in_flight == 0 else self._settings.window
        # A callback with a context of its own: a request is no part of the call that began it.
        lane.timer = self._loop.call_later(wait, self._ripen, lane, context=contextvars.Context())

    def _ripen(self, lane: _Lane) -> None:
        """The wait for company is over."""
        lane.timer = None
        lane.due = True
        self._pump()

    def _pump(self) -> None:
        """Start requests while there are calls that have waited enough, and room."""
        for key, lane in list(self._lanes.items()):
            while lane.due and (self._spans or self._in_flight < self._slots):
                pieces = lane.take(self._settings, self._whole_groups)
                if not lane.pieces:
                    lane.due = False
                    del self._lanes[key]
                if pieces:
                    self._start(pieces, lane)

    def _start(self, pieces: list[_Piece], lane: _Lane) -> None:
        self._in_flight += 1
        # The limits of all: one caller that goes away does not end the request of the others.
        errand_limits = Limits(lane.expires_at)
        request = self._loop.create_task(self._request(pieces, lane.call, errand_limits))
        waiting = itertools.count(len(pieces) - 1, -1)

        def gone(outcomes: asyncio.Future[list[Outcome]]) -> None:
            """A request that nobody waits for any more is given up."""
            if next(waiting) == 0 and outcomes.cancelled():
                request.cancel()

        for piece in pieces:
            piece.outcomes.add_done_callback(gone)
        request.add_done_callback(lambda _: self._ended(pieces))

    def _ended(self, pieces: list[_Piece]) -> None:
        self._in_flight -= 1
        for piece in pieces:
            piece.outcomes.cancel()  # does nothing where there are outcomes
        self._pump()

    async def _request(self, pieces: list[_Piece], call: Call, limits: Limits) -> None:
        samples = [sample for piece in pieces for sample in piece.samples]
        try:
            outcomes = await self._deliver(Errand(samples, call, limits))
        except Exception as error:
            for piece in pieces:
                if not piece.outcomes.done():
                    piece.outcomes.set_exception(error)
            return
        rest = iter(outcomes)
        for piece in pieces:
            some = list(itertools.islice(rest, len(piece.samples)))
            if not piece.outcomes.done():
                piece.outcomes.set_result(some)


class _Piece:
    """A call, or a part of one, that travels in one request."""

    def __init__(self, positions: list[int], samples: Sequence[Sample]) -> None:
        self.positions = positions
        self.samples = [samples[i] for i in positions]
        self.media_bytes = sum(map(_media_bytes, self.samples))
        self.outcomes: asyncio.Future[list[Outcome]] = asyncio.get_running_loop().create_future()

    @property
    def names(self) -> set[str]:
        """Ids of its samples."""
        return {sample.sample_id for sample in self.samples if sample.sample_id is not None}

    @property
    def groups(self) -> set[str]:
        """Ids of its groups."""
        return {sample.group_id for sample in self.samples if sample.group_id is not None}


class _Lane:
    """Pieces that may share a request, in the order in which they came."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.expires_at: float | None = None
        self.pieces: list[_Piece] = []
        self.timer: asyncio.TimerHandle | None = None
        self.due = False

    def add(self, piece: _Piece, expires_at: float | None) -> None:
        """Let a piece wait here; the caller who goes first counts for all."""
        self.pieces.append(piece)
        if expires_at is not None:
            self.expires_at = min(expires_at, self.expires_at or expires_at)

    @property
    def samples(self) -> int:
        """How many samples wait here."""
        return sum(len(piece.samples) for piece in self.pieces)

    def take(self, settings: Settings, whole_groups: bool) -> list[_Piece]:
        """The pieces of the next request.

        Samples of two calls with one id, and two groups with one id that are not one group, may
        not share a request.
        """
        taken: list[_Piece] = []
        left: list[_Piece] = []
        names: set[str] = set()
        groups: set[str] = set()
        samples = media = 0
        for piece in self.pieces:
            if piece.outcomes.done():  # cancelled while it waited
                continue
            fits = not taken or (
                samples + len(piece.samples) <= settings.batch_size
                and media + piece.media_bytes <= settings.batch_bytes
                and names.isdisjoint(piece.names)
                and not (whole_groups and groups & piece.groups)
            )
            if not fits:
                left.append(piece)
                continue
            taken.append(piece)
            names |= piece.names
            groups |= piece.groups
            samples += len(piece.samples)
            media += piece.media_bytes
        self.pieces = left
        return taken


def _key(call: Call, limits: Limits, group: str | None) -> object:
    """Equal for calls that may share a request."""
    end = None if limits.expires_at is None else int(limits.expires_at / SAME_END_SECONDS)
    keywords = id(call.keywords) if call.keywords else 0
    return call.step, call.split, call.run_id, keywords, end, group


def _has_media(sample: Sample) -> bool:
    return bool(sample.images or sample.videos or sample.audios)


def _media_bytes(sample: Sample) -> int:
    """Bytes of the media of a sample; those in messages count as nothing."""
    total = 0
    for media in (*sample.images, *sample.videos, *sample.audios):
        total += len(media.data or b"") + int(getattr(media.array, "nbytes", 0))
    return total
