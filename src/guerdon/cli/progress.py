"""How far a run is: a bar on a terminal, plain lines elsewhere; on standard error."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol, TextIO

FIRST_LINE = 1000
"""Rows before the first plain line."""
LINES = 20
"""Plain lines of a run whose length is known; of any other, three per power of ten."""
STEPS = (2.0, 2.5, 2.0)
"""Factors between the marks 1, 2, 5, 10."""


class Progress(Protocol):
    """Shows how far a run is."""

    def show(self, rows: int, failures: int, fraction: float | None) -> None:
        """Show so many rows, failures among them, and the share of the input that was read."""
        ...

    def read(self, rows: int, fraction: float | None) -> None:
        """Show so many rows that are only read, and their share of the input."""
        ...

    def note(self, message: str) -> None:
        """Print a line that stays."""
        ...

    def close(self) -> None:
        """End the display."""
        ...


def open_progress(stream: TextIO, *, quiet: bool, earlier: int = 0) -> Progress:
    """The display that suits a stream.

    Args:
        stream: standard error.
        quiet: show nothing.
        earlier: rows of an earlier run, which count as done but not for the rate.
    """
    if quiet:
        return Silent(stream)
    if stream.isatty():
        return Bar(stream, earlier)
    return Lines(stream, earlier)


class Silent:
    """Shows nothing but notes."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def show(self, rows: int, failures: int, fraction: float | None) -> None:
        """Nothing."""

    def read(self, rows: int, fraction: float | None) -> None:
        """Nothing."""

    def note(self, message: str) -> None:
        """Print a line."""
        print(message, file=self._stream, flush=True)

    def close(self) -> None:
        """Nothing."""


class Lines(Silent):
    """Plain lines, at marks of the number of rows: never many, however fast the rows come.

    Args:
        stream: where to.
        earlier: rows of an earlier run.
        clock: seconds.
    """

    def __init__(
        self, stream: TextIO, earlier: int = 0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(stream)
        self._earlier = earlier
        self._clock = clock
        self._began = clock()
        self._scored = Marks()
        self._read = Marks()

    def show(self, rows: int, failures: int, fraction: float | None) -> None:
        """Print a line when a mark was passed."""
        if self._scored.passed(rows, fraction):
            elapsed = max(self._clock() - self._began, 1e-9)
            self.note(describe(rows, failures, fraction, (rows - self._earlier) / elapsed))

    def read(self, rows: int, fraction: float | None) -> None:
        """Print a line when a mark was passed."""
        if self._read.passed(rows, fraction):
            self.note(describe_reading(rows, fraction))


class Marks:
    """Numbers of rows at which a line is due: 1, 2, 5 times a power of ten, or each twentieth."""

    def __init__(self) -> None:
        self._next = float(FIRST_LINE)
        self._step = 0

    def passed(self, rows: int, fraction: float | None) -> bool:
        """Whether a mark was passed; the next one follows from the rows and their share."""
        if rows < self._next:
            return False
        while self._next <= rows:
            self._next *= STEPS[self._step % len(STEPS)]
            self._step += 1
        if fraction:
            self._next = min(self._next, max(rows + FIRST_LINE, rows + rows / fraction / LINES))
        return True


class Bar:
    """A bar with rate, failures and time left."""

    def __init__(self, stream: TextIO, earlier: int = 0) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, SpinnerColumn, TextColumn
        from rich.progress import Progress as RichProgress

        self._earlier = earlier
        self._began = time.monotonic()
        self._bar: Any = RichProgress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[state]}"),
            console=Console(file=stream, highlight=False),
            transient=True,
        )
        self._task = self._bar.add_task("scoring", total=None, state="")
        self._bar.start()

    def show(self, rows: int, failures: int, fraction: float | None) -> None:
        """Move the bar."""
        elapsed = max(time.monotonic() - self._began, 1e-9)
        state = describe(rows, failures, fraction, (rows - self._earlier) / elapsed)
        self._move("scoring", fraction, state)

    def read(self, rows: int, fraction: float | None) -> None:
        """Move the bar."""
        self._move("reading", fraction, f"{rows:,} rows{_share(fraction)}")

    def _move(self, what: str, fraction: float | None, state: str) -> None:
        total = None if fraction is None else 1.0
        self._bar.update(
            self._task, description=what, completed=fraction or 0.0, total=total, state=state
        )

    def note(self, message: str) -> None:
        """Print a line above the bar."""
        self._bar.console.print(message, markup=False, soft_wrap=True)

    def close(self) -> None:
        """Remove the bar."""
        self._bar.stop()


def describe(rows: int, failures: int, fraction: float | None, rate: float) -> str:
    """Progress in words.

    Example:
        >>> describe(5000, 3, 0.5, 100.0)
        '5,000 rows (50%), 3 failures, 100 rows/s, 50 s left'
    """
    failed = "1 failure" if failures == 1 else f"{failures:,} failures"
    text = f"{rows:,} rows{_share(fraction)}, {failed}, {_rate(rate)} rows/s"
    if not fraction or fraction >= 1.0 or rate <= 0.0:
        return text
    return f"{text}, {duration(rows / fraction * (1.0 - fraction) / rate)} left"


def describe_reading(rows: int, fraction: float | None) -> str:
    """Reading ahead in words.

    Example:
        >>> describe_reading(20000, 0.5)
        'read 20,000 rows (50%), which wait for the rest of their groups'
    """
    return f"read {rows:,} rows{_share(fraction)}, which wait for the rest of their groups"


def _share(fraction: float | None) -> str:
    return "" if fraction is None else f" ({fraction:.0%})"


def duration(seconds: float) -> str:
    """Seconds in the unit that suits them.

    Example:
        >>> duration(0.25), duration(90), duration(9000)
        ('250 ms', '1 min 30 s', '2 h 30 min')
    """
    if seconds < 1:
        return f"{seconds * 1e6:.0f} µs" if seconds < 0.001 else f"{seconds * 1e3:.3g} ms"
    if seconds < 10:
        return f"{seconds:.2g} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def _rate(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"
