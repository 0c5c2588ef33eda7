"""The summary of a run as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TextIO

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from guerdon.cli.progress import duration

if TYPE_CHECKING:
    from guerdon.rollouts.summary import FailureCount, Report, Stats

PLAIN_WIDTH = 100
"""Characters of a line where there is no terminal."""


def print_report(report: Report, facts: dict[str, Any], stream: TextIO) -> None:
    """Print the summary of a run.

    Args:
        report: of the rows.
        facts: what else is known: `reward`, `seconds`, `new_rows`, `errors`.
        stream: where to.
    """
    terminal = stream.isatty()
    console = Console(file=stream, highlight=False, width=None if terminal else PLAIN_WIDTH)
    console.print(_headline(report, facts), soft_wrap=True)
    console.print(_values(report, str(facts["reward"])))
    if report.groups is not None:
        console.print(_groups_line(report), soft_wrap=True)
    if report.failed:
        console.print(_failures(report.failed))
    slowest = [slow for slow in report.slowest if slow.elapsed_s > 0]
    if slowest:
        named = ", ".join(f"{_name(s.row, s.sample_id)} {duration(s.elapsed_s)}" for s in slowest)
        console.print(Text(f"slowest: {named}"), soft_wrap=True)
    if facts["errors"]:
        rows = "1 failed row is" if facts["errors"] == 1 else f"{facts['errors']:,} failed rows are"
        console.print(f"exit status 1: {rows} an error (--on-failure mask accepts them)")


def _headline(report: Report, facts: dict[str, Any]) -> Text:
    parts = [f"{report.scores:,} scored"]
    if report.abstentions:
        parts.append(f"{report.abstentions:,} not applicable")
    parts.append(f"{report.failures:,} failed")
    if report.assigned:
        parts.append(f"{report.assigned:,} with an assigned value")
    if report.dropped:
        parts.append(f"{report.dropped:,} dropped")
    took = f"in {duration(facts['seconds'])}"
    earlier = report.rows - facts["new_rows"]
    if earlier:
        took += f", {earlier:,} of them by an earlier run"
    return Text(f"{report.rows:,} rows: {', '.join(parts)}; {took}")


def _values(report: Report, name: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("reward")
    for column in ("count", "mean", "std", "min", "max"):
        table.add_column(column, justify="right")
    _add(table, name, report.reward)
    for component, stats in report.components.items():
        _add(table, f"  {component}", stats)
    for reward, stats in report.rewards.items():
        _add(table, f"  {reward}", stats)
    return table


def _add(table: Table, name: str, stats: Stats) -> None:
    numbers = (stats.mean, stats.std, stats.min, stats.max)
    table.add_row(Text(name), f"{stats.count:,}", *map(_number, numbers))


def _groups_line(report: Report) -> Text:
    groups = report.groups
    if groups is None or groups.zero_variance_share is None:
        count = groups.count if groups else 0
        return Text(f"groups: {count:,}, none with two scores")
    return Text(
        f"groups: {groups.compared:,} with at least two scores, {groups.zero_variance:,} of them "
        f"({groups.zero_variance_share:.1%}) with zero variance"
    )


def _failures(failed: list[FailureCount]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("failures", justify="right")
    table.add_column("kind")
    table.add_column("blame")
    table.add_column("examples", overflow="fold", ratio=1)
    for count in failed:
        quoted = [
            f"{_name(example.row, example.sample_id)}: {_printable(example.message)}"
            for example in count.examples
        ]
        table.add_row(f"{count.count:,}", count.kind, count.blame, Text("\n".join(quoted)))
    return table


def _name(row: int, sample_id: str | None) -> str:
    return f"row {row}" if sample_id is None else _printable(sample_id)


def _number(number: float | None) -> str:
    return "-" if number is None else f"{number:.4g}"


def _printable(text: str) -> str:
    """Text without line ends and control characters, which a table cannot hold."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
