"""Progress and summary as they are shown."""

import io

from guerdon.cli.progress import Bar, Lines, Silent, describe, duration, open_progress
from guerdon.cli.summary_table import print_report
from guerdon.rollouts.summary import Summary


class Terminal(io.StringIO):
    def isatty(self):
        return True


def lines_of(progress, stream, total, step, known):
    for rows in range(step, total + 1, step):
        progress.show(rows, 0, rows / total if known else None)
    return stream.getvalue().splitlines()


def test_plain_lines_are_bounded_by_rows_and_not_by_time():
    for known, most in ((True, 30), (False, 15)):
        stream = io.StringIO()
        clock = iter(range(10**9))
        progress = Lines(stream, clock=lambda ticks=clock: next(ticks))
        lines = lines_of(progress, stream, 1_000_000, 256, known)
        assert 5 <= len(lines) <= most, lines
        assert ("left" in lines[0]) is known


def test_reading_ahead_is_shown():
    stream = io.StringIO()
    progress = Lines(stream)
    for rows in range(0, 100_001, 500):
        progress.read(rows, rows / 100_000)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "read 1,000 rows (1%), which wait for the rest of their groups"
    assert 5 <= len(lines) <= 30


def test_a_short_run_has_no_lines():
    stream = io.StringIO()
    assert lines_of(Lines(stream), stream, 900, 100, True) == []


def test_progress_in_words():
    assert describe(1, 1, None, 0.5) == "1 rows, 1 failure, 0.5 rows/s"
    assert describe(10, 0, 1.0, 100.0) == "10 rows (100%), 0 failures, 100 rows/s"
    assert describe(250, 2, 0.25, 1.0) == "250 rows (25%), 2 failures, 1 rows/s, 12 min 30 s left"
    assert [duration(s) for s in (5e-6, 0.02, 3, 45, 3600)] == [
        "5 µs",
        "20 ms",
        "3 s",
        "45 s",
        "1 h 0 min",
    ]


def test_a_terminal_gets_a_bar_and_keeps_notes():
    stream = Terminal()
    progress = open_progress(stream, quiet=False)
    assert isinstance(progress, Bar)
    progress.note("a [bold]note[/bold]")
    progress.read(100, None)
    progress.show(512, 3, 0.5)
    progress.close()
    shown = stream.getvalue()
    assert "a [bold]note[/bold]" in shown
    assert "512 rows (50%), 3 failures" in shown
    assert "left" in shown


def test_what_is_no_terminal_gets_lines_and_quiet_nothing():
    assert isinstance(open_progress(io.StringIO(), quiet=False), Lines)
    quiet = Terminal()
    progress = open_progress(quiet, quiet=True)
    assert isinstance(progress, Silent)
    progress.show(10**6, 0, 0.5)
    progress.close()
    assert quiet.getvalue() == ""


def row(n, reward=None, **fields):
    return {
        "row": n,
        "sample_id": None,
        "group_id": None,
        "reward": reward,
        "components": {},
        "failure": None,
        "assigned": None,
        "elapsed_s": 0.0,
        "reward_name": "r",
        **fields,
    }


def table_of(rows, **facts):
    summary = Summary()
    for one in rows:
        summary.add(one)
    stream = io.StringIO()
    known = {"reward": "r", "seconds": 1.0, "new_rows": summary.rows, "errors": 0, **facts}
    print_report(summary.report(), known, stream)
    return stream.getvalue()


def test_the_table_shows_no_markup_and_no_control_characters_of_the_data():
    message = "[red]oops[/red]\x1b[31m\n\ud800 " + "x" * 5000
    failure = {"kind": "raised", "blame": "scorer", "message": message, "retryable": False}
    rows = [
        row(0, failure=failure, sample_id="[bold]\x1b"),
        row(1, 1.0, components={"[red]a": 1.0}),
    ]
    shown = table_of(rows, errors=1)
    assert "[red]oops[/red]" in shown
    assert "[red]a" in shown
    assert "\x1b" not in shown
    assert "\ud800" not in shown
    assert "exit status 1: 1 failed row is an error" in shown
    assert len(shown) < 4000


def test_a_table_without_any_score():
    shown = table_of([row(0), row(1)])
    assert "2 rows: 0 scored, 2 not applicable, 0 failed" in shown
    assert "nan" not in shown


def test_a_resumed_run_says_what_is_old():
    assert "1 of them by an earlier run" in table_of([row(0, 1.0), row(1, 1.0)], new_rows=1)
