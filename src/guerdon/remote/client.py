"""The client of one remote reward on one event loop; it ends with its loop."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Sequence

from guerdon.backends.backend import Limits
from guerdon.injection import Call
from guerdon.outcome import Outcome
from guerdon.remote.endpoint import Endpoints
from guerdon.remote.gathering import Gatherer
from guerdon.remote.per_loop import Ended
from guerdon.remote.sending import Errand, Sender
from guerdon.remote.settings import Settings
from guerdon.remote.transport import Session
from guerdon.sample import Sample


class Client:
    """Scores samples with one reward of some servers.

    It belongs to the event loop that runs when it is made. When that loop ends its tasks, as
    `asyncio.run` does, the client closes its connections.

    Args:
        settings: which reward of which servers, and how they are talked to.
        ended: called when its loop has ended it.
    """

    def __init__(self, settings: Settings, ended: Ended = lambda: None) -> None:
        self._settings = settings
        self._call_ended = ended
        self._session = Session(settings.connect_timeout)
        self._endpoints = Endpoints(settings.addresses, settings.reward, settings.declared)
        self._sender = Sender(settings, self._session, self._endpoints)
        slots = settings.connections * len(settings.addresses)
        self._gatherer = Gatherer(settings, slots, self._deliver)
        self._ill = asyncio.Event()
        self._closed = asyncio.Event()
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # A callback with a context of its own: the keeper is no part of the call that needs the
        # client first, and outlives it.
        asyncio.get_running_loop().call_soon(self._begin, context=contextvars.Context())

    async def score(
        self, samples: Sequence[Sample], call: Call | None = None, limits: Limits | None = None
    ) -> list[Outcome]:
        """One outcome per sample, in their order; never raises for what a server does.

        Args:
            samples: with unique ids, where they have ids.
            call: where in a run they are scored.
            limits: how long the caller waits.
        """
        if not samples:
            return []
        return await self._gatherer.score(samples, call or Call(), limits or Limits())

    async def close(self) -> None:
        """Close the connections, and remove the shared memory."""
        self._closed.set()
        await asyncio.wait({self._ended})

    def _begin(self) -> None:
        self._keeper = asyncio.get_running_loop().create_task(self._keep())

    async def _deliver(self, errand: Errand) -> list[Outcome]:
        outcomes = await self._sender.send(errand)
        if any(endpoint.ill for endpoint in self._endpoints.all):
            self._ill.set()
        return outcomes

    async def _keep(self) -> None:
        """Look after ill servers until the loop ends."""
        try:
            while not self._closed.is_set():
                await self._look_after()
        except asyncio.CancelledError:
            await self._session.close()
            raise
        else:
            await self._session.close()
        finally:  # without awaiting: the loop may be gone by now
            self._sender.close()
            self._call_ended()
            if not self._ended.done() and not self._ended.get_loop().is_closed():
                self._ended.set_result(None)

    async def _look_after(self) -> None:
        """Wait until a server is ill, and ask it from time to time whether it still is."""
        closed = asyncio.ensure_future(self._closed.wait())
        ill = asyncio.ensure_future(self._ill.wait())
        try:
            await asyncio.wait({closed, ill}, return_when=asyncio.FIRST_COMPLETED)
            if self._closed.is_set():
                return
            self._ill.clear()
            while patients := [e for e in self._endpoints.all if e.ill]:
                await asyncio.wait({closed}, timeout=self._settings.health_every)
                if self._closed.is_set():
                    return
                looks = [e.look(self._session, self._settings.connect_timeout) for e in patients]
                await asyncio.gather(*looks)
        finally:
            if not closed.get_loop().is_closed():  # else this coroutine is only thrown away
                closed.cancel()
                ill.cancel()
