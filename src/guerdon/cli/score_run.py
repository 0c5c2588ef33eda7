"""One run of `guerdon score`, from the request to the summary."""

from __future__ import annotations

import asyncio
import io
import signal
import sys
import time
from collections.abc import Sequence
from types import FrameType
from typing import Any, Self

import msgspec

from guerdon.cli.progress import Progress, open_progress
from guerdon.errors import CircuitOpen
from guerdon.rollouts.batches import Batches, Choice
from guerdon.rollouts.mapping import parse_mapping
from guerdon.rollouts.misuse import Misuse
from guerdon.rollouts.outcome_row import OutcomeRow
from guerdon.rollouts.output import STDOUT, FileOutput, Output, StreamOutput, open_file
from guerdon.rollouts.reader import Reader
from guerdon.rollouts.scorer import Conditions, Scorer, Stopped, open_scorer
from guerdon.rollouts.scoring import batch_rows, run
from guerdon.rollouts.summary import Report, Summary


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What the user asked for; see `guerdon score --help`."""

    data: str
    reward: str
    out: str | None = None
    mapping: tuple[str, ...] = ()
    resume: bool = False
    overwrite: bool = False
    keep_input: bool = False
    limit: int | None = None
    on_failure: str | None = None
    concurrency: int | None = None
    batch_size: int | None = None
    timeout: float | None = None
    split: str = "train"
    step: int | None = None
    as_json: bool = False
    quiet: bool = False


class ScoreRun:
    """Scores what a request names.

    Args:
        request: of the user.
        stdout: where rows and the summary go.

    Raises:
        GuerdonError: the request cannot be served; nothing was changed.
    """

    def __init__(self, request: Request, stdout: io.TextIOWrapper) -> None:
        _check(request)
        self._request = request
        self._stdout = stdout
        self._began = time.perf_counter()
        self._summary = Summary()
        self._new_rows = 0
        self._closing: list[Any] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for part in reversed(self._closing):
            part.close()

    def __call__(self) -> bool:
        """Score everything and print the summary; returns whether failures are an error."""
        request = self._request
        mapping = parse_mapping(request.mapping)
        self._reader = Reader(request.data)
        choice = Choice(
            mapping=mapping,
            limit=request.limit,
            keep_input=request.keep_input,
            salt=f"{request.step}/{request.split}",
        )
        self._batches = Batches(self._reader, choice, self._show_read)
        conditions = Conditions(
            on_failure=request.on_failure,
            workers=request.concurrency,
            split=request.split,
            step=request.step,
            timeout=request.timeout,
        )
        scorer = open_scorer(request.reward, self._batches.sources(), conditions)
        self._scorer: Scorer = self._opened(scorer)
        self._output: Output = self._opened(self._open_output())
        self._take_earlier()
        self._progress: Progress = self._opened(
            open_progress(sys.stderr, quiet=request.quiet, earlier=self._summary.rows)
        )
        if not request.quiet:
            self._announce()
        stopped = self._score()
        if not stopped:
            # Only now: a thread that still waits for a pipe would hold the reader for ever.
            self._reader.close()
        self._progress.close()
        report = self._summary.report()
        errors = self._errors(report)
        self._print(report, stopped, errors)
        return stopped or errors > 0

    def _opened(self, part: Any) -> Any:
        self._closing.append(part)
        return part

    def _open_output(self) -> Output:
        request = self._request
        if request.out is None:
            return StreamOutput(None)
        if request.out != STDOUT:
            found = open_file(
                request.out, request.data, resume=request.resume, overwrite=request.overwrite
            )
            if found is not None:
                return found
            device = self._opened(io.FileIO(request.out, "wb"))
            return StreamOutput(device.write)
        return StreamOutput(self._write_stdout)

    def _write_stdout(self, lines: bytes) -> None:
        self._stdout.buffer.write(lines)
        self._stdout.buffer.flush()

    def _take_earlier(self) -> None:
        """Take the rows of an earlier run into the summary, or refuse them."""
        if not isinstance(self._output, FileOutput):
            return
        for row in self._output.earlier_rows():
            if not self._scorer.accepts(row["reward_name"], row["fingerprint"]):
                raise Misuse(
                    f"the earlier run used the reward {row['reward_name']} ({row['fingerprint']}), "
                    f"this one uses {self._scorer.name} ({self._scorer.fingerprint})\n"
                    "a run goes on with the same code and options only; --overwrite starts again"
                )
            self._summary.add(row)

    def _announce(self) -> None:
        request, scorer = self._request, self._scorer
        self._progress.note(f"{self._reader.name}: {self._batches.layout.describe()}")
        self._progress.note(f"reward: {scorer.name} ({scorer.fingerprint})")
        if request.resume and request.out is not None:
            rows = self._summary.rows
            found = f"{rows:,} rows are scored already" if rows else "no earlier run was found"
            self._progress.note(f"{request.out}: {found}")

    def _score(self) -> bool:
        """Score all batches; returns whether the run was stopped before its end."""
        batches = self._batches
        ordered = batches.by_group if self._scorer.whole_groups else batches.in_order
        size = self._request.batch_size or batch_rows(self._scorer)
        previous = signal.signal(signal.SIGTERM, _interrupt)
        try:
            asyncio.run(run(ordered(self._output, size), self._scorer, self._write))
        except KeyboardInterrupt:
            self._progress.close()
            self._say(f"interrupted: {self._left()}")
            raise
        except (Stopped, CircuitOpen) as error:
            self._progress.close()
            self._say(f"guerdon: stopped: {error}\n{self._left()}")
            return True
        finally:
            signal.signal(signal.SIGTERM, previous)
        self._output.finish()
        return False

    def _write(self, rows: Sequence[OutcomeRow]) -> None:
        output = self._output
        new = [row for row in rows if not output.has(row["row"])]
        output.write(new)
        for row in new:
            self._summary.add(row)
        self._new_rows += len(new)
        self._progress.show(self._summary.rows, self._summary.failures, self._fraction())

    def _show_read(self, rows: int) -> None:
        """Show rows that wait for the other members of their groups."""
        total = self._batches.total()
        self._progress.read(rows, min(1.0, rows / total) if total else None)

    def _fraction(self) -> float | None:
        """Share of the input that is done, as far as it is known."""
        total = self._batches.total()
        return min(1.0, self._summary.rows / total) if total else None

    def _left(self) -> str:
        rows = f"{self._summary.rows:,} rows are scored"
        if not isinstance(self._output, FileOutput):
            return f"{rows}; without -o OUT they cannot be kept"
        return (
            f"{rows} and kept in {self._output.journal.path}\n"
            "add --resume to the same command to go on"
        )

    def _errors(self, report: Report) -> int:
        """Rows without a score that the policy calls an error of the run."""
        raises = self._scorer.raises
        abstentions = report.abstentions if raises(None) else 0
        return abstentions + sum(f.count for f in report.failed if raises(f.blame))

    def _print(self, report: Report, stopped: bool, errors: int) -> None:
        request = self._request
        seconds = time.perf_counter() - self._began
        facts = {
            "data": self._reader.name,
            "layout": self._batches.layout.describe(),
            "reward_name": self._scorer.name,
            "fingerprint": self._scorer.fingerprint,
            "output": request.out,
            "complete": not stopped,
            "errors": errors,
            "new_rows": self._new_rows,
            "seconds": seconds,
        }
        if request.as_json:
            content = {**facts, **msgspec.to_builtins(report)}
            self._stdout.write(msgspec.json.format(msgspec.json.encode(content)).decode() + "\n")
            return
        from guerdon.cli.summary_table import print_report

        stream = sys.stderr if request.out == STDOUT else self._stdout
        print_report(report, {**facts, "reward": self._scorer.name}, stream)
        if request.out not in (None, STDOUT) and not stopped:
            print(f"rows: {request.out}", file=stream)

    def _say(self, message: str) -> None:
        sys.stderr.write(f"{message}\n")


def _check(request: Request) -> None:
    if request.resume and request.overwrite:
        raise Misuse("--resume goes on with an earlier run and --overwrite forgets it: choose one")
    if request.resume and request.out in (None, STDOUT):
        raise Misuse("--resume needs -o OUT, the file of the run to go on with")
    if request.as_json and request.out == STDOUT:
        raise Misuse("--json and -o - would both write to standard output: give -o a file")


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """Ask a run to end as Ctrl-C does."""
    signal.raise_signal(signal.SIGINT)
