"""The servers that host one remote reward: what each is, how it is, and which one is asked next."""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from guerdon.errors import Blame, ConfigError, FailureKind, MalformedMessage
from guerdon.outcome import failure
from guerdon.remote.address import Address
from guerdon.remote.declared import Declared, check_protocol, find_card
from guerdon.remote.needs import Needs
from guerdon.remote.reply import (
    Answer,
    Refusal,
    bad_reply,
    check_version,
    refusal_of,
    unreachable,
)
from guerdon.wire.codec import decode_json
from guerdon.wire.protocol import (
    JSON_TYPE,
    PROTOCOL,
    REWARDS_PATH,
    VERSION_HEADER,
    Readiness,
    RewardCard,
    ServerCard,
    SharedMemory,
)

if TYPE_CHECKING:
    from guerdon.remote.transport import Session

T = TypeVar("T")

READY_PATH = "/readyz"
WORKING = frozenset({"ready", "degraded"})
"""States of a reward in which it scores."""
HEADERS: Mapping[str, str] = {VERSION_HEADER: str(PROTOCOL), "accept": JSON_TYPE}


class Hosted(msgspec.Struct, frozen=True):
    """What a server has said about the reward.

    Attributes:
        name: under which it is asked for.
        needs: what it reads.
        timeout: most seconds that the server works on a request.
        shared_memory: how to find out whether it is on this host.
    """

    name: str
    needs: Needs
    timeout: float
    shared_memory: SharedMemory | None


class Endpoint:
    """One server.

    Attributes:
        address: where it is.
        in_flight: requests that it has not answered.
        ill: it failed, or said that it is not ready.
        failed_at: when that was noticed last.
    """

    def __init__(self, address: Address, reward: str | None, declared: Declared) -> None:
        self.address = address
        self.in_flight = 0
        self.ill = False
        self.failed_at = 0.0
        self._reward = reward
        self._declared = declared
        self._hosted: Hosted | None = None
        self._asking: asyncio.Future[Hosted] | None = None

    async def hosted(self, session: Session, patience: float) -> Hosted:
        """What it says about the reward; asked once, until it fails.

        Args:
            session: connections.
            patience: seconds that it may take to say so.

        Raises:
            Refusal: it does not answer, or hosts something else.
        """
        if self._hosted is not None:
            return self._hosted
        if self._asking is None or self._asking.done():
            self._asking = asyncio.ensure_future(self._ask(session, patience))
            self._asking.add_done_callback(lambda asked: asked.cancelled() or asked.exception())
        # One caller that goes away does not take the answer from the others.
        hosted = await asyncio.shield(self._asking)
        self._hosted = hosted
        return hosted

    def fail(self) -> None:
        """Leave it alone until it says that it is ready; it may be another server by then."""
        self.ill = True
        self.failed_at = time.monotonic()
        self._hosted = None

    async def look(self, session: Session, patience: float) -> None:
        """Ask whether it is ready."""
        try:
            async with asyncio.timeout(patience):
                answer = await session.get(self.address, READY_PATH, HEADERS)
                ready = _is_ready(answer, self._reward)
        except (Refusal, TimeoutError):
            ready = False
        if not ready:
            self.fail()
        self.ill = not ready

    async def _ask(self, session: Session, patience: float) -> Hosted:
        card = await fetch_card(session, self.address, patience)
        try:
            return self._checked(card)
        except ConfigError as error:
            lost = failure(
                FailureKind.UNAVAILABLE, str(error), Blame.INFRASTRUCTURE, retryable=False
            )
            raise Refusal(lost, again=False, ill=True) from None

    def _checked(self, card: ServerCard) -> Hosted:
        check_protocol(card, self.address)
        reward = find_card(card, self._reward, self.address)
        check_declared(self._declared, reward, self.address)
        return Hosted(
            name=reward.name,
            needs=Needs.of(reward.needs, has_parts=bool(reward.components)),
            timeout=card.limits.timeout_ms / 1000,
            shared_memory=card.shared_memory,
        )


class Endpoints:
    """All servers of one remote reward, as one event loop sees them."""

    def __init__(
        self, addresses: Sequence[Address], reward: str | None, declared: Declared
    ) -> None:
        self.all = [Endpoint(address, reward, declared) for address in addresses]

    def __len__(self) -> int:
        return len(self.all)

    def choose(self, tried: Collection[Endpoint], group: str | None = None) -> Endpoint:
        """The server to ask: one that works, was not tried yet, and has the least to do.

        Args:
            tried: servers that have just failed for this request.
            group: all requests with one group key go to one server, which assembles it.
        """
        fresh = [e for e in self.all if e not in tried] or self.all
        well = [e for e in fresh if not e.ill]
        if not well:
            return min(fresh, key=lambda e: e.failed_at)
        if group is not None:
            return max(well, key=lambda e: _weight(e.address.url, group))
        least = min(e.in_flight for e in well)
        return random.choice([e for e in well if e.in_flight == least])


def check_declared(declared: Declared, card: RewardCard, where: object) -> None:
    """Refuse a reward that is not what was declared.

    Raises:
        ConfigError: naming the difference.
    """
    try:
        found = declared.difference(card)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from None
    if found is not None:
        raise ConfigError(f"reward '{card.name}' of {where} is not what was declared: {found}")


async def fetch_card(session: Session, address: Address, patience: float) -> ServerCard:
    """What a server hosts.

    Raises:
        Refusal: it does not say so.
    """
    try:
        async with asyncio.timeout(patience):
            answer = await session.get(address, REWARDS_PATH, HEADERS)
    except TimeoutError as error:
        told = TimeoutError(f"it does not say within {patience:g} s what it hosts")
        raise unreachable(address.url, told, lost=False) from error
    check_version(answer)
    if answer.status != 200:
        raise refusal_of(answer)
    try:
        return decode_json(answer.body, ServerCard)
    except MalformedMessage as error:
        raise bad_reply(address.url, f"{error}; is it a Guerdon server?") from None


def _is_ready(answer: Answer, reward: str | None) -> bool:
    """Whether a server says that the reward can be scored with, whatever its other rewards do."""
    if answer.status == 200:
        return True
    try:
        states: Mapping[str, Any] = decode_json(answer.body, Readiness).rewards
    except MalformedMessage:
        return False
    return states.get(reward or "") in WORKING


def _weight(url: str, group: str) -> bytes:
    """Rendezvous hashing: when a server goes, only its own groups move."""
    return hashlib.blake2b(f"{url}\n{group}".encode("utf-8", "replace"), digest_size=8).digest()
