"""How calls become requests: alone at once, together while one is in flight, cut where large."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from msgspec.structs import replace

from guerdon.injection import Call
from guerdon.remote.client import Client
from guerdon.sample import Media, Sample


def sizes(server: Any) -> list[int]:
    return [len(asked.request.samples) for asked in server.asked]


def sample(number: int, **fields: Any) -> Sample:
    return Sample(response="1", ground_truth="1", sample_id=str(number), **fields)


class Gate:
    """Holds requests back until it is opened."""

    def __init__(self, server: Any, hold: int = 1) -> None:
        self._open = asyncio.Event()
        self._server = server
        self._left = hold
        self.reached = threading.Event()
        server.behaviour = self.wait

    async def wait(self, asked: Any) -> None:
        if self._left > 0:
            self._left -= 1
            if not self._left:
                self.reached.set()
            await self._open.wait()

    def open(self) -> None:
        self._server._loop.call_soon_threadsafe(self._open.set)


async def client_of(server: Any, **options: Any) -> Client:
    made = await asyncio.to_thread(lambda: server.remote(**options))
    return Client(made.settings)


async def test_calls_of_one_moment_share_a_request(server: Any) -> None:
    client = await client_of(server)
    found = await asyncio.gather(*(client.score([sample(n)]) for n in range(20)))
    assert sizes(server) == [20]
    assert [outcomes[0].sample for outcomes in found] == [str(n) for n in range(20)]
    await client.close()


async def test_calls_wait_for_each_other_while_one_is_in_flight(server: Any) -> None:
    gate = Gate(server)
    client = await client_of(server, window=30.0, batch_size=4)
    first = asyncio.ensure_future(client.score([sample(0)]))
    await asyncio.to_thread(gate.reached.wait, 30)
    rest = [asyncio.ensure_future(client.score([sample(n)])) for n in range(1, 5)]
    await asyncio.gather(*rest)  # four make a request, long before the window ends
    assert sizes(server) == [1, 4]
    gate.open()
    await first
    await client.close()


async def test_busy_connections_make_larger_requests(server: Any) -> None:
    gate = Gate(server, hold=2)
    client = await client_of(server, window=0.0, connections=2)
    calls = [asyncio.ensure_future(client.score([sample(0)]))]
    while not gate.reached.is_set():
        calls.append(asyncio.ensure_future(client.score([sample(len(calls))])))
        await asyncio.sleep(0.001)
    before = len(server.asked)
    later = [asyncio.ensure_future(client.score([sample(1000 + n)])) for n in range(50)]
    await asyncio.sleep(0)
    gate.open()
    await asyncio.gather(*calls, *later)
    assert before == 2
    assert sum(sizes(server)[2:]) == sum(sizes(server)) - sum(sizes(server)[:2])
    assert max(sizes(server)) >= 50
    await client.close()


async def test_a_large_call_is_cut(server: Any) -> None:
    client = await client_of(server, batch_size=10)
    outcomes = await client.score([sample(n) for n in range(35)])
    assert sorted(sizes(server)) == [5, 10, 10, 10]
    assert [outcome.sample for outcome in outcomes] == [str(n) for n in range(35)]
    await client.close()


async def test_a_call_is_cut_by_the_bytes_of_its_media(server: Any) -> None:
    server.card = replace(server.card, rewards=[replace(server.card.rewards[0], needs=("images",))])
    client = await client_of(server, batch_bytes=1000, shared_memory="off")
    picture = [Media(kind="image", data=bytes(400)) for _ in range(5)]
    huge = Media(kind="image", data=bytes(5000))
    samples = [sample(n, images=(media,)) for n, media in enumerate([*picture, huge])]
    await client.score(samples)
    assert sorted(sizes(server)) == [1, 1, 2, 2]
    await client.close()


async def test_whole_groups_are_never_cut(server: Any) -> None:
    server.card = replace(server.card, rewards=[replace(server.card.rewards[0], whole_groups=True)])
    client = await client_of(server, batch_size=5)
    samples = [sample(n, group_id=f"g{n % 4}") for n in range(24)]
    outcomes = await client.score(samples)
    for asked in server.asked:
        groups = [s.group_id for s in asked.request.samples]
        assert all(groups.count(group) == 6 for group in groups)
    assert [outcome.sample for outcome in outcomes] == [s.sample_id for s in samples]
    await client.close()


APART = {
    "step": (Call(step=1), Call(step=2)),
    "split": (Call(split="train"), Call(split="validation")),
    "run": (Call(run_id="a"), Call(run_id="b")),
    "keywords": (Call(keywords={"a": 1}), Call(keywords={"a": 2})),
}


@pytest.mark.parametrize("case", APART)
async def test_calls_of_different_places_stay_apart(server: Any, case: str) -> None:
    client = await client_of(server)
    one, other = APART[case]
    await asyncio.gather(client.score([sample(0)], one), client.score([sample(1)], other))
    assert sizes(server) == [1, 1]
    told = [
        (r.step, r.split, r.run_id, dict(r.keywords)) for r in (a.request for a in server.asked)
    ]
    wanted = [(c.step, c.split, c.run_id, dict(c.keywords)) for c in (one, other)]
    assert sorted(map(str, told)) == sorted(map(str, wanted))
    await client.close()


async def test_equal_ids_of_two_callers_stay_apart(server: Any) -> None:
    client = await client_of(server)
    right, wrong = sample(0), replace(sample(0), response="2")
    found = await asyncio.gather(client.score([right]), client.score([wrong]))
    assert [outcomes[0].value for outcomes in found] == [1.0, 0.0]
    assert sizes(server) == [1, 1]
    await client.close()


async def test_one_caller_that_goes_away_takes_nobody_along(server: Any) -> None:
    gate = Gate(server)
    client = await client_of(server)
    stays = asyncio.ensure_future(client.score([sample(0)]))
    goes = asyncio.ensure_future(client.score([sample(1)]))
    await asyncio.to_thread(gate.reached.wait, 30)
    goes.cancel()
    gate.open()
    (outcome,) = await stays
    assert outcome.sample == "0"
    assert sizes(server) == [2]
    with pytest.raises(asyncio.CancelledError):
        await goes
    await client.close()


async def test_a_request_of_nobody_is_given_up(server: Any) -> None:
    gate = Gate(server)
    client = await client_of(server)
    calls = [asyncio.ensure_future(client.score([sample(n)])) for n in range(3)]
    await asyncio.to_thread(gate.reached.wait, 30)
    for call in calls:
        call.cancel()
    assert await asyncio.to_thread(server.cancelled.wait, 30)
    await asyncio.gather(*calls, return_exceptions=True)
    await client.close()
