"""`guerdon check`: load a reward or a configuration, run its fixtures and probes, say what fails.

Exit status: 0 when every case passes, 1 when one fails or could not be run, 2 on misuse.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from guerdon.checking import Case, RewardReport
    from guerdon.config import ServiceConfig

FAILED = 1
MISUSE = 2
CONFIG_SUFFIXES = (".yaml", ".yml", ".json")

STYLES = {"pass": "green", "fail": "bold red", "not run": "yellow"}


def check(
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help="A configuration (.yaml), a reward's name, pkg.mod:NAME or path/file.py:NAME.",
        ),
    ],
    imports: Annotated[
        list[str] | None,
        typer.Option("--import", "-i", help="A module or file to import first, for its rewards."),
    ] = None,
    only_load: Annotated[
        bool,
        typer.Option("--dry-run", help="Load it and show what it is, but score nothing."),
    ] = False,
    failures_only: Annotated[
        bool, typer.Option("--quiet", "-q", help="Show only the cases that did not pass.")
    ] = False,
    seconds: Annotated[
        float, typer.Option("--timeout", help="Seconds for one batch of cases.", min=0.1)
    ] = 30.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check a reward or a configuration: its own fixtures, and what every reward must survive."""
    from rich.console import Console

    from guerdon.checking import check as run_checks
    from guerdon.errors import GuerdonError

    console = Console(highlight=False)
    try:
        config = _load(target, imports or [])
        if only_load:
            _print_config(console, config, as_json)
            return
        reports: list[RewardReport] = []
        for report in run_checks(config.reward, backend=config.backend.choice, seconds=seconds):
            reports.append(report)
            if not as_json:
                _print_report(console, report, failures_only)
    except GuerdonError as error:
        Console(stderr=True, highlight=False).print(f"error: {error}", markup=False, soft_wrap=True)
        raise typer.Exit(MISUSE) from None
    if as_json:
        _print_json({"passed": all(r.passed for r in reports), "rewards": reports})
    else:
        _print_total(console, reports)
    if not all(report.passed for report in reports):
        raise typer.Exit(FAILED)


def _load(target: str, imports: Sequence[str]) -> ServiceConfig:
    """The configuration in a file, or one of a single reward."""
    from guerdon import registry
    from guerdon.config import ServiceConfig, load

    for item in imports:
        _ = registry.load_file(item) if item.endswith(".py") else registry.import_module(item)
    is_file = Path(target).is_file() and not target.endswith(".py")
    if target.endswith(CONFIG_SUFFIXES) or (is_file and target not in registry.names()):
        return load(target)
    return ServiceConfig(reward=registry.resolve(target))


def _print_config(console: Console, config: ServiceConfig, as_json: bool) -> None:
    """What a configuration is and needs, without scoring."""
    from guerdon.checking import leaves, visible_gpus
    from guerdon.cli.rewards import range_text

    rows = [
        {
            "path": path,
            "reward": leaf.name,
            "range": range_text(leaf.value_range),
            "deadline": leaf.deadline,
            "work": leaf.work,
            "fixtures": len(leaf.fixtures),
            "fingerprint": leaf.fingerprint,
        }
        for path, leaf in leaves(config.reward)
    ]
    gpus = visible_gpus()
    needs_gpu = any(row["work"] == "gpu" for row in rows)
    if as_json:
        facts = {"rewards": rows, "gpus": gpus, "config": config.to_yaml()}
        _print_json(facts)
        return
    if config.resolved:
        console.print(config.to_yaml(), markup=False, soft_wrap=True)
    columns = list(rows[0])
    console.print(_table(columns, [[str(row[c]) for c in columns] for row in rows]))
    if needs_gpu:
        console.print(f"needs a GPU; visible here: {gpus}")
    console.print("loaded; nothing was scored")


def _print_report(console: Console, report: RewardReport, failures_only: bool) -> None:
    from guerdon.cli.rewards import range_text

    where = f" ({report.reward})" if report.path.rpartition("/")[2] != report.reward else ""
    console.print(f"{report.path}{where}", style="bold", markup=False)
    deadline = "none" if report.deadline is None else f"{report.deadline:g} s"
    facts = (
        f"  fingerprint {report.fingerprint}  range {range_text(report.value_range)}  "
        f"deadline {deadline}  work {report.work}"
    )
    console.print(facts, markup=False, soft_wrap=True)
    if report.options:
        options = ", ".join(f"{key}={value}" for key, value in report.options.items())
        console.print(f"  options {options}", markup=False, soft_wrap=True)
    for note in report.notes:
        console.print(f"  note: {note}", style="yellow", markup=False, soft_wrap=True)
    for need in report.needs:
        console.print(f"  needs: {need}", style="bold red", markup=False, soft_wrap=True)
    shown = [case for case in report.cases if not failures_only or case.verdict != "pass"]
    if shown:
        console.print(_cases_table(shown))


def _cases_table(cases: Sequence[Case]) -> Any:
    from rich.text import Text

    rows = [
        [
            Text(case.case),
            Text(case.kind),
            Text(case.expected),
            Text(case.got if case.verdict == "pass" else _with_detail(case)),
            Text(str(case.verdict), style=STYLES[str(case.verdict)]),
        ]
        for case in cases
    ]
    return _table(["case", "kind", "expected", "got", "verdict"], rows)


def _with_detail(case: Case) -> str:
    return ": ".join(part for part in (case.got, case.detail) if part)


def _table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column == "verdict")
    for row in rows:
        table.add_row(*row)
    return table


def _print_total(console: Console, reports: Sequence[RewardReport]) -> None:
    counts: Mapping[str, int] = {
        verdict: sum(case.verdict == verdict for report in reports for case in report.cases)
        for verdict in STYLES
    }
    rewards = f"{len(reports)} reward{'s' * (len(reports) != 1)}"
    console.print(
        f"{rewards}: {counts['pass']} passed, {counts['fail']} failed, {counts['not run']} not run"
    )
    silent = [report.path for report in reports if not any(c.kind != "probe" for c in report.cases)]
    leaves = [path for path in silent if len(reports) == 1 or "/" in path]
    if leaves:
        console.print(f"without fixtures: {', '.join(leaves)}", style="yellow", markup=False)


def _print_json(value: Any) -> None:
    import msgspec

    typer.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())
