"""The pool's thread: gives calls to workers, reads results, and kills what outlives its deadline.

All state of workers and jobs belongs to this one thread, so it needs no locks; callers hand it jobs
and wait for them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import socket
import struct
import sys
import threading
import time
import weakref
from collections import Counter, deque
from collections.abc import Callable, Mapping

import msgspec

from guerdon import registry
from guerdon.backends.backend import CLOSED
from guerdon.backends.pool import frames
from guerdon.backends.pool.board import IDLE, NO_LIMIT, Now
from guerdon.backends.pool.job import Chunk, Job
from guerdon.backends.pool.pace import Pace
from guerdon.backends.pool.process import WorkerProcess
from guerdon.errors import Blame, FailureKind
from guerdon.outcome import EMPTY, OUT_OF_MEMORY, Failure, failure
from guerdon.reward import BaseReward

LOG = logging.getLogger(__name__)

CPU_SHARE = 0.5
"""Share of the deadline that a worker must have burned as processor time to blame the candidate."""
CANCEL_GRACE_SECONDS = 0.5
"""How long a call that nobody waits for may go on before its worker is killed."""
BETWEEN_CALLS_SECONDS = 0.005
"""How soon to look again at a worker that is between two calls."""
START_SECONDS = 60.0
"""How long a worker may take to start, or to load a reward."""
FAILED_STARTS = 3
"""Workers that may fail to start one after another before the jobs are told."""
LOST_LOADS = 3
"""Workers that may die one after another while they load a reward."""
LOST_CHUNKS = 3
"""Times that a chunk may lose its worker without a call in hand."""
LONG = 3600.0
"""Seconds to sleep when no clock runs."""
UNREADABLE = (msgspec.MsgspecError, struct.error)
"""What reading the messages of a worker raises whose memory is no longer its own."""
CLOSE_SECONDS = 2.0
"""How long workers may take to end by themselves when the pool closes."""

# Made once and here: `decode(type=...)` prepares a type when it is first used, and msgspec crashes
# where two threads do that at the same time.
_decode_loaded = msgspec.msgpack.Decoder(frames.Loaded).decode
_decode_done = msgspec.msgpack.Decoder(frames.Done).decode
_decode_text = msgspec.msgpack.Decoder(str).decode


class Settings(msgspec.Struct, frozen=True):
    """How a pool is made; see `PoolBackend`."""

    workers: int
    spares: int
    memory_bytes: int | None
    recycle_bytes: int | None
    hang_after: float
    environment: Mapping[str, str] = EMPTY


class _Slot:
    """A worker and what it is busy with."""

    def __init__(self, process: WorkerProcess) -> None:
        self.process = process
        self.chunk: Chunk | None = None
        self.loading: int | None = None
        self.since = time.monotonic()
        self.sent_ns = 0
        self.unwanted_since: float | None = None
        self.worn_out = False

    @property
    def idle(self) -> bool:
        return self.process.ready and self.chunk is None and self.loading is None

    @property
    def lingers(self) -> bool:
        chunk = self.chunk
        return chunk is not None and (self.unwanted_since is not None or not chunk.job.unfinished)

    @property
    def fresh(self) -> bool:
        """Whether no call has run in it, and none runs."""
        return self.process.served == 0 and self.chunk is None


class Dispatcher:
    """Runs jobs on worker processes, from a thread of its own."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._inbox: deque[Callable[[], None]] = deque()
        self._selector = selectors.DefaultSelector()
        self._wake_out, self._wake_in = socket.socketpair()
        self._wake_out.setblocking(False)
        self._wake_in.setblocking(False)
        self._selector.register(self._wake_out, selectors.EVENT_READ, None)
        self._jobs: deque[Job] = deque()
        self._slots: list[_Slot] = []
        self._numbers: weakref.WeakKeyDictionary[BaseReward, int] = weakref.WeakKeyDictionary()
        self._next_number = 0
        self._pace = Pace()
        self._failed_starts = 0
        self._lost_loads: dict[int, int] = {}
        self._resting = False
        self._closing = False
        self._ended: Counter[str] = Counter()
        self._thread = threading.Thread(target=self._run, name="guerdon-pool", daemon=True)
        self._thread.start()

    # What callers use, from any thread.

    def submit(self, job: Job) -> None:
        """Begin a job."""
        self._post(lambda: self._accept(job))

    def abandon(self, job: Job) -> None:
        """Nobody waits for a job any more."""
        self._post(lambda: self._abandon(job))

    def warm(self) -> None:
        """Start the workers."""
        self._post(self._fill)

    def close(self) -> None:
        """End the workers and the thread; waits until they are gone."""
        self._post(self._begin_close)
        self._thread.join(CLOSE_SECONDS + 2 * START_SECONDS)

    @property
    def alive(self) -> bool:
        """Whether the thread takes jobs."""
        return self._thread.is_alive() and not self._closing

    def pids(self) -> list[int]:
        """Process ids of the workers, for tests and diagnosis."""
        return [slot.process.pid for slot in list(self._slots)]

    def ready(self) -> int:
        """How many workers are set up."""
        return sum(slot.process.ready for slot in list(self._slots))

    def lingering(self) -> int:
        """How many workers are busy with a call that nobody waits for any more."""
        return sum(slot.lingers for slot in list(self._slots))

    def ended(self) -> dict[str, int]:
        """How many workers have `died` by themselves, were `killed`, and were `replaced` idle."""
        return dict(self._ended)

    def _post(self, action: Callable[[], None]) -> None:
        self._inbox.append(action)
        with contextlib.suppress(OSError):  # full: the thread is awake; closed: it has ended
            self._wake_in.send(b"!")

    # The thread.

    def _run(self) -> None:
        try:
            while not (self._closing and not self._slots):
                self._turn()
        except Exception as error:
            LOG.exception("the pool's thread failed")
            lost = f"the pool's thread failed: {type(error).__name__}: {error}"
            self._end(failure(FailureKind.CRASHED, lost, Blame.INFRASTRUCTURE))
        else:
            self._end(CLOSED)

    def _turn(self) -> None:
        for key, events in self._selector.select(self._patience()):
            slot: _Slot | None = key.data
            if slot is None:
                self._drain_wake()
            else:
                self._serve(slot, events)
        while self._inbox:
            self._inbox.popleft()()
        self._look_at_clocks()
        self._dispatch()

    def _drain_wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._wake_out.recv(4096):
                pass

    def _end(self, lost: Failure) -> None:
        self._closing = True
        for slot in self._slots:
            slot.process.kill()
            slot.process.close()
        self._slots.clear()
        while self._inbox:
            self._inbox.popleft()()
        for job in self._jobs:
            job.fail_all(lost)
        self._jobs.clear()
        self._selector.close()
        self._wake_in.close()
        self._wake_out.close()

    def _begin_close(self) -> None:
        self._closing = True
        for job in list(self._jobs):
            job.fail_all(CLOSED)
            self._forget(job)
        for slot in list(self._slots):
            if slot.idle:
                slot.process.dismiss()
        deadline = time.monotonic() + CLOSE_SECONDS
        for slot in list(self._slots):
            if not slot.idle or not slot.process.reap(max(0.0, deadline - time.monotonic())):
                slot.process.kill()
            self._remove(slot)

    # Jobs.

    def _accept(self, job: Job) -> None:
        if self._closing:
            job.fail_all(CLOSED)
            return
        if not job.unfinished:
            job.finished.set()
            return
        if job.reward not in self._numbers:
            self._next_number += 1
            self._numbers[job.reward] = self._next_number
        self._jobs.append(job)
        self._resting = False
        self._failed_starts = 0
        self._fill()

    def _abandon(self, job: Job) -> None:
        job.abandon()
        for slot in self._slots:
            if slot.chunk is not None and slot.chunk.job is job:
                slot.process.board.limit = 0
                slot.unwanted_since = time.monotonic()
        self._forget(job)

    def _forget(self, job: Job) -> None:
        if job in self._jobs:
            self._jobs.remove(job)

    def _fill(self) -> None:
        """Keep as many workers as are wanted, and the spare ones."""
        wanted = self._settings.workers + self._settings.spares
        while len(self._slots) < wanted and not self._closing and not self._resting:
            if not self._start() and self._slots:
                return

    def _start(self) -> bool:
        hello = frames.Hello(
            path=list(sys.path),
            files=registry.loaded_files(),
            parent=os.getpid(),
            memory_bytes=self._settings.memory_bytes,
        )
        try:
            slot = _Slot(WorkerProcess(hello, self._settings.environment))
        except OSError as error:
            self._start_failed(f"a worker could not be started: {error}")
            return False
        self._slots.append(slot)
        self._selector.register(slot.process.connection, selectors.EVENT_READ, slot)
        return True

    def _start_failed(self, reason: str) -> None:
        self._failed_starts += 1
        if self._failed_starts < FAILED_STARTS:
            return
        self._resting = True
        if any(slot.process.ready for slot in self._slots):
            return
        lost = failure(FailureKind.UNAVAILABLE, reason, Blame.INFRASTRUCTURE)
        for job in list(self._jobs):
            job.fail_all(lost)
            self._forget(job)

    def _dispatch(self) -> None:
        """Give idle workers something to do; jobs take turns."""
        if not self._jobs:
            return
        for slot in list(self._slots):
            if not slot.idle or not self._may_work(slot):
                continue
            for _ in range(len(self._jobs)):
                job = self._jobs[0]
                self._jobs.rotate(-1)
                if self._give(slot, job):
                    break
        self._load_ahead()

    def _load_ahead(self) -> None:
        """Let idle spare workers load what runs now, so that a replacement is ready at once."""
        for slot in self._slots:
            if slot.idle:
                for job in self._jobs:
                    if self._load_first(slot, job, self._numbers[job.reward]):
                        break

    def _may_work(self, slot: _Slot) -> bool:
        """Spare workers wait until they are needed as a replacement, or for a suspect."""
        busy = sum(1 for other in self._slots if not other.idle and other.process.ready)
        if busy < self._settings.workers:
            return True
        return slot.fresh and any(job.has_suspect for job in self._jobs)

    def _give(self, slot: _Slot, job: Job) -> bool:
        number = self._numbers[job.reward]
        if job.has_suspect and slot.fresh:
            if self._load_first(slot, job, number):
                return True
            self._send_chunk(slot, job.take_suspect(), number)
            return True
        if job.has_suspect and not any(other.fresh for other in self._slots):
            self._replace(slot)
            return True
        if not job.waiting:
            return False
        if self._load_first(slot, job, number):
            return True
        if job.end_load():
            self._forget(job)
            return False
        size = self._pace.chunk(job.reward, job.waiting, self._settings.workers)
        self._send_chunk(slot, job.take(size), number)
        return True

    def _load_first(self, slot: _Slot, job: Job, number: int) -> bool:
        if number in slot.process.loaded:
            return False
        slot.loading = number
        slot.since = time.monotonic()
        slot.process.send(frames.LOAD, (number, registry.loaded_files(), job.pickled))
        self._watch_writes(slot)
        return True

    def _send_chunk(self, slot: _Slot, chunk: Chunk, number: int) -> None:
        job = chunk.job
        sizes = job.calls.sizes
        slot.chunk = chunk
        slot.since = time.monotonic()
        slot.sent_ns = time.monotonic_ns()
        slot.unwanted_since = None
        slot.process.board.limit = NO_LIMIT
        run = frames.Run(
            chunk=chunk.number,
            reward=number,
            arguments=[job.calls.arguments[call] for call in chunk.calls],
            sizes=None if sizes is None else [sizes[call] for call in chunk.calls],
        )
        try:
            slot.process.send(frames.RUN, run)
        except Exception as error:
            slot.chunk = None
            self._not_sent(chunk, error)
            return
        self._watch_writes(slot)

    def _not_sent(self, chunk: Chunk, error: Exception) -> None:
        """A chunk cannot be packed: fail the calls that are to blame, or all where none is."""
        job = chunk.job
        problems = {call: frames.unsendable(job.calls.arguments[call]) for call in chunk.calls}
        for call, problem in problems.items():
            if problem:
                found = f"the arguments cannot travel to a worker process: {problem}"
                job.fail(call, failure(FailureKind.BAD_INPUT, found, Blame.DATA))
        if not any(problems.values()):
            found = f"a worker cannot be given its work: {type(error).__name__}: {error}"
            lost = failure(FailureKind.UNAVAILABLE, found, Blame.INFRASTRUCTURE)
            for call in chunk.calls:
                job.fail(call, lost)
        job.put_back(chunk.calls)
        self._settle(job)
        self._post(self._dispatch)  # the worker is still idle, and nothing else would tell

    # Workers.

    def _serve(self, slot: _Slot, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            slot.process.flush()
            self._watch_writes(slot)
        if not events & selectors.EVENT_READ or slot not in self._slots:
            return
        messages, there = slot.process.receive()
        try:
            for kind, body in messages:
                self._read(slot, kind, body)
        except UNREADABLE as error:
            LOG.warning("worker %d sent what no worker sends: %s", slot.process.pid, error)
            slot.process.kill()
            there = False
        if not there and slot in self._slots:
            self._died(slot)

    def _watch_writes(self, slot: _Slot) -> None:
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if slot.process.sending else 0)
        self._selector.modify(slot.process.connection, events, slot)

    def _read(self, slot: _Slot, kind: int, body: bytes) -> None:
        if kind == frames.READY:
            slot.process.ready = True
            self._failed_starts = 0
        elif kind == frames.LOADED:
            self._loaded(slot, _decode_loaded(body))
        elif kind == frames.RESULTS:
            self._results(slot, frames.CHUNK.unpack_from(body)[0], body[frames.CHUNK.size :])
        elif kind == frames.DONE:
            self._done(slot, _decode_done(body))
        elif kind == frames.UNREAD:
            self._unread(slot, _decode_text(body))

    def _loaded(self, slot: _Slot, loaded: frames.Loaded) -> None:
        slot.loading = None
        if not loaded.error:
            slot.process.loaded.add(loaded.number)
            self._lost_loads.pop(loaded.number, None)
            return
        self._refuse(loaded.number, f"the reward cannot be loaded in a worker: {loaded.error}")

    def _lost_load(self, number: int, message: str) -> None:
        """A worker died while it loaded a reward: by chance, unless it happens again and again."""
        self._lost_loads[number] = self._lost_loads.get(number, 0) + 1
        if self._lost_loads[number] >= LOST_LOADS:
            del self._lost_loads[number]
            self._refuse(number, message)

    def _refuse(self, number: int, message: str) -> None:
        """Fail all jobs of a reward that no worker can load."""
        lost = failure(FailureKind.RAISED, message, Blame.SCORER)
        for job in list(self._jobs):
            if self._numbers.get(job.reward) == number:
                job.fail_all(lost)
                self._forget(job)

    def _results(self, slot: _Slot, number: int, body: bytes) -> None:
        chunk = slot.chunk
        if chunk is None or chunk.number != number:
            return
        for result in frames.decode_results(body):
            if not 0 <= result[0] < len(chunk.calls):
                continue
            call = chunk.calls[result[0]]
            slot.process.served += 1
            self._pace.observe(chunk.job.reward, result[1])
            if _ran_out_of_memory(result) and not chunk.job.is_done(call):
                slot.worn_out = True
                self._crashed(chunk.job, call, "ran out of memory", result[1])
            else:
                chunk.job.accept(call, result)

    def _done(self, slot: _Slot, done: frames.Done) -> None:
        chunk = slot.chunk
        if chunk is None or chunk.number != done.chunk:
            return
        slot.chunk = None
        slot.unwanted_since = None
        if chunk.job in self._jobs:
            chunk.job.put_back(chunk.calls)
        self._settle(chunk.job)
        most = self._settings.recycle_bytes
        if slot.worn_out or (most is not None and done.resident > most):
            self._replace(slot)

    def _unread(self, slot: _Slot, problem: str) -> None:
        """A worker cannot unpickle its chunk: from now on the calls of this job travel one by one,
        so that each is judged by its own arguments."""
        chunk, slot.chunk = slot.chunk, None
        slot.unwanted_since = None
        if chunk is None or chunk.job not in self._jobs:
            return
        if len(chunk.calls) == 1:
            found = f"the arguments cannot be read in a worker process: {problem}"
            chunk.job.fail(chunk.calls[0], failure(FailureKind.BAD_INPUT, found, Blame.DATA))
        chunk.job.one_by_one = True
        chunk.job.put_back(chunk.calls)
        self._settle(chunk.job)

    def _settle(self, job: Job) -> None:
        if not job.unfinished:
            self._forget(job)

    def _replace(self, slot: _Slot) -> None:
        """End an idle worker and start another one."""
        self._ended["replaced"] += 1
        slot.process.dismiss()
        if not slot.process.reap(CANCEL_GRACE_SECONDS):
            slot.process.kill()
        self._remove(slot)
        self._fill()

    def _remove(self, slot: _Slot) -> None:
        if slot.process.ready:
            # One that could start is gone: starting another is worth its tries.
            self._resting = False
            self._failed_starts = 0
        self._selector.unregister(slot.process.connection)
        self._slots.remove(slot)
        slot.process.close()

    def _died(self, slot: _Slot) -> None:
        """A worker ended by itself: find out which call did it."""
        self._ended["died"] += 1
        slot.process.reap(CANCEL_GRACE_SECONDS)
        slot.process.kill()
        now, chunk = self._bury(slot)
        how = f"the worker died ({slot.process.ending()})"
        if not slot.process.ready:
            self._start_failed(f"{how} while it started")
        elif slot.loading is not None:
            self._lost_load(slot.loading, f"{how} while it loaded the reward")
        elif chunk is not None:
            self._after_death(chunk, now, how)
        self._fill()

    def _bury(self, slot: _Slot) -> tuple[Now, Chunk | None]:
        """Read what a dead worker left, then remove it; returns its last page."""
        messages, _ = slot.process.receive()
        now = slot.process.board.read()
        with contextlib.suppress(*UNREADABLE):  # what is lost with it runs again
            for kind, body in messages:
                if kind == frames.RESULTS:
                    self._read(slot, kind, body)
            if slot.chunk is not None and now.chunk == slot.chunk.number:
                self._results(slot, now.chunk, slot.process.board.written())
        self._remove(slot)
        return now, slot.chunk

    def _after_death(self, chunk: Chunk, now: Now, how: str) -> None:
        job = chunk.job
        if job not in self._jobs:
            return
        in_hand = now.call if now.chunk == chunk.number else IDLE
        call = chunk.calls[in_hand] if 0 <= in_hand < len(chunk.calls) else None
        rest = [c for c in chunk.calls if c != call]
        if call is not None and not job.is_done(call):
            self._crashed(job, call, how, 0.0)
        elif call is None and rest and job.count_death(rest[0]) >= LOST_CHUNKS:
            lost = failure(FailureKind.CRASHED, f"{how} between calls", Blame.INFRASTRUCTURE)
            for unlucky in rest:
                job.fail(unlucky, lost)
        job.put_back(rest)
        self._settle(job)

    def _crashed(self, job: Job, call: int, how: str, elapsed: float) -> None:
        """A call took its worker with it: try it alone in a fresh worker, then judge."""
        if not job.tried_alone(call):
            job.suspect(call)
            return
        candidate = FailureKind.CRASHED in job.reward.candidate_fault
        again = f"{how}, again when it ran alone in a fresh worker"
        blame, evidence = (Blame.CANDIDATE, again) if candidate else (Blame.SCORER, "")
        job.fail(call, failure(FailureKind.CRASHED, how, blame, evidence=evidence), elapsed)

    # Clocks.

    def _patience(self) -> float:
        """Seconds until some worker may have to be killed."""
        return max(0.0, min((self._clock(slot)[0] for slot in self._slots), default=LONG))

    def _look_at_clocks(self) -> None:
        for slot in list(self._slots):
            left, running = self._clock(slot)
            if left > 0:
                continue
            if slot.chunk is not None and running is not None and self._may_go_on(slot, running):
                self._report_late(slot.chunk, running)
            else:
                self._stop(slot, running)

    def _clock(self, slot: _Slot) -> tuple[float, Now | None]:
        """Seconds that a worker may go on before another look, and the call that limits it."""
        if slot.chunk is not None and slot.chunk.job.reward.work == "gpu":
            return self._patient_clock(slot, slot.chunk)
        if slot.unwanted_since is not None:
            return slot.unwanted_since + CANCEL_GRACE_SECONDS - time.monotonic(), None
        if slot.chunk is None:
            waiting = slot.loading is not None or not slot.process.ready
            return (self._start_left(slot) if waiting else LONG), None
        if slot.chunk.job.reward.deadline is None:
            return LONG, None
        now = slot.process.now(slot.sent_ns)
        if now.chunk != slot.chunk.number:
            return min(BETWEEN_CALLS_SECONDS, self._start_left(slot)), None
        if now.call == IDLE:
            return BETWEEN_CALLS_SECONDS, None
        deadline = slot.chunk.job.deadline(slot.chunk.calls[now.call]) or 0.0
        return deadline - (time.monotonic_ns() - now.started_ns) / 1e9, now

    def _patient_clock(self, slot: _Slot, chunk: Chunk) -> tuple[float, Now | None]:
        """The same for GPU work: until its deadline is reported, and then until it hangs."""
        now = slot.process.now(slot.sent_ns)
        if now.chunk != chunk.number:
            return min(BETWEEN_CALLS_SECONDS, self._start_left(slot)), None
        if now.call == IDLE:
            return BETWEEN_CALLS_SECONDS, None
        ran = (time.monotonic_ns() - now.started_ns) / 1e9
        call = chunk.calls[now.call]
        deadline = chunk.job.deadline(call)
        awaited = chunk.job in self._jobs and not chunk.job.is_done(call)
        if deadline is not None and awaited and deadline < self._settings.hang_after:
            return deadline - ran, now
        return self._settings.hang_after - ran, now

    def _may_go_on(self, slot: _Slot, running: Now) -> bool:
        """Whether a call that is late is GPU work, and not late enough to be taken to hang."""
        if slot.chunk is None or slot.chunk.job.reward.work != "gpu":
            return False
        return (time.monotonic_ns() - running.started_ns) / 1e9 < self._settings.hang_after

    def _report_late(self, chunk: Chunk, late: Now) -> None:
        """Fail a call whose deadline is over, and let its worker go on."""
        job, call = chunk.job, chunk.calls[late.call]
        deadline = job.deadline(call) or 0.0
        message = f"ran longer than its deadline of {deadline:g} s, and goes on"
        job.fail(call, failure(FailureKind.TIMEOUT, message, Blame.SCORER), deadline)
        self._settle(job)

    def _start_left(self, slot: _Slot) -> float:
        return slot.since + START_SECONDS - time.monotonic()

    def _stop(self, slot: _Slot, late: Now | None) -> None:
        """Kill a worker: for a call that is late, for a call nobody wants, or for not starting."""
        self._ended["killed"] += 1
        burned = slot.process.cpu_seconds_since(late) if late is not None else None
        slot.process.kill()
        now, chunk = self._bury(slot)
        if chunk is None:
            self._not_started(slot)
        elif late is not None:
            self._timed_out(chunk, late, now, burned)
        else:
            self._after_death(chunk, now, "the worker was stopped")
        self._fill()

    def _not_started(self, slot: _Slot) -> None:
        if slot.loading is not None:
            message = f"the reward did not load in a worker within {START_SECONDS} s"
            self._refuse(slot.loading, message)
        else:
            self._start_failed(f"a worker did not start within {START_SECONDS} s")

    def _timed_out(self, chunk: Chunk, late: Now, now: Now, burned: float | None) -> None:
        """Fail the call that was late, unless it ended just before its worker was killed."""
        job = chunk.job
        if job not in self._jobs:
            return
        call = chunk.calls[late.call]
        still_running = now[:3] == late[:3]
        if still_running and not job.is_done(call):
            if job.reward.work == "gpu":
                lost = _hung(self._settings.hang_after)
            else:
                lost = _too_slow(job, call, burned)
            job.fail(call, lost, job.deadline(call) or 0.0)
        job.put_back(chunk.calls)
        self._settle(job)


def _hung(hang_after: float) -> Failure:
    message = f"went on for {hang_after:g} s (hang_after), and its worker was killed"
    return failure(FailureKind.TIMEOUT, message, Blame.SCORER)


def _too_slow(job: Job, call: int, burned: float | None) -> Failure:
    deadline = job.deadline(call) or 0.0
    message = f"ran longer than its deadline of {deadline:g} s and was killed"
    declared = FailureKind.TIMEOUT in job.reward.candidate_fault and job.calls.size(call) == 1
    if declared and burned is not None and burned >= CPU_SHARE * deadline:
        evidence = f"the worker burned {burned:.2f} s of processor time"
        return failure(FailureKind.TIMEOUT, message, Blame.CANDIDATE, evidence=evidence)
    return failure(FailureKind.TIMEOUT, message, Blame.SCORER)


def _ran_out_of_memory(result: frames.Result) -> bool:
    sealed = result[2]
    first = sealed[0] if isinstance(sealed, list) and sealed else sealed
    return (
        isinstance(first, Failure)
        and first.kind is FailureKind.CRASHED
        and first.blame is Blame.SCORER
        and first.message.startswith(OUT_OF_MEMORY)
    )
