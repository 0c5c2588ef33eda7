"""The page that a worker shares with the pool, and how the pool reads it."""

from __future__ import annotations

import os
from collections import deque
from types import SimpleNamespace
from typing import Any

import pytest

from guerdon.backends.backend import CLOSED, Calls
from guerdon.backends.pool import dispatcher as dispatching
from guerdon.backends.pool.board import AREA_BYTES, IDLE, Board, Now
from guerdon.backends.pool.dispatcher import Dispatcher
from guerdon.backends.pool.job import Job
from guerdon.backends.pool.process import WorkerProcess
from guerdon.outcome import Failure
from guerdon.reward import FunctionReward

DECLARED_SHARE = dispatching.CPU_SHARE


def a_reward(response: str) -> float:
    return 1.0


def worker_with(board: Any) -> WorkerProcess:
    worker = object.__new__(WorkerProcess)
    worker.board = board
    return worker


def test_what_is_written_is_read() -> None:
    board = Board.create()
    assert board.read().call == IDLE
    board.begin(7, 3, 1_000, 20)
    assert board.read() == Now(chunk=7, call=3, started_ns=1_000, cpu_ns=20, written=0)
    board.write(0, b"result")
    board.end(6)
    assert board.read().call == IDLE
    assert board.written() == b"result"
    board.end(0)
    assert board.written() == b""
    board.close()


def test_a_second_map_sees_the_same_page() -> None:
    board = Board.create()
    other = Board(os.dup(board.descriptor))
    other.begin(1, 2, 3, 4)
    other.write(AREA_BYTES - 2, b"ok")
    assert board.read().call == 2
    board.limit = 5
    assert other.limit == 5
    other.close()
    board.close()


def test_a_call_that_began_before_the_chunk_was_sent_is_none() -> None:
    """The index is there already and its start is still that of an earlier call."""
    board = Board.create()
    board.begin(7, 3, started_ns=900, cpu_ns=0)
    worker = worker_with(board)
    assert worker.now(since_ns=1_000).call == IDLE
    assert worker.now(since_ns=900).call == 3
    board.close()


def test_two_looks_that_disagree_are_none() -> None:
    looks = deque([Now(7, 3, 2_000, 0, 0), Now(7, 4, 3_000, 0, 0)])
    worker = worker_with(SimpleNamespace(read=looks.popleft))
    assert worker.now(since_ns=1_000).call == IDLE


def test_only_a_call_that_still_ran_when_its_worker_was_killed_has_timed_out() -> None:
    late = Now(0, 1, 5_000, 0, 0)
    job = Job(FunctionReward(a_reward), Calls([{"response": "x"}] * 3), b"")
    chunk = job.take(3)
    dispatcher = object.__new__(Dispatcher)
    dispatcher._jobs = deque([job])
    late = late._replace(chunk=chunk.number)
    dispatcher._timed_out(chunk, late, late._replace(call=2, started_ns=6_000), None)
    assert job.waiting == 3
    again = job.take(3)
    late = late._replace(chunk=again.number)
    dispatcher._timed_out(again, late, late, None)
    assert job.waiting == 2
    assert isinstance(job.results(CLOSED).sealed[1], Failure)
    assert job.is_done(1)


@pytest.mark.parametrize(
    ("declares", "burned", "size", "blame"),
    [
        (True, 0.5, 1, "candidate"),
        (True, 0.49, 1, "scorer"),
        (True, None, 1, "scorer"),
        (False, 1.0, 1, "scorer"),
        (True, 1.0, 2, "scorer"),
    ],
)
def test_half_of_the_deadline_in_processor_time_is_evidence(
    monkeypatch: pytest.MonkeyPatch, declares: bool, burned: float | None, size: int, blame: str
) -> None:
    monkeypatch.setattr(dispatching, "CPU_SHARE", DECLARED_SHARE)
    faults = ("timeout",) if declares else ()
    reward = FunctionReward(a_reward, deadline=1.0 / size, candidate_fault=faults)
    job = Job(reward, Calls([{"response": "x"}], None if size == 1 else [size]), b"")
    lost = dispatching._too_slow(job, 0, burned)
    assert (lost.kind, lost.blame) == ("timeout", blame)
    assert bool(lost.evidence) is (blame == "candidate")
