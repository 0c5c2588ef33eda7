"""`guerdon rewards`: what can be used, and what one reward takes and promises."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

from guerdon.cli.docstring import filled

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from guerdon.catalogue import Entry
    from guerdon.outcome import Range
    from guerdon.registry import Definition

LIST = "list"
MISUSE = 2
"""Exit status for a name that does not exist and the like."""

TYPES_WIDTH = 60
"""Characters of an annotation that are shown."""


class _ListByDefault(TyperGroup):
    """Without a subcommand the rewards are listed, and a word is a filter."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] not in ("--help", "-h")):
            args = [LIST, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_ListByDefault,
    help="List the rewards that are known, or show one of them.\n\n"
    "guerdon rewards [WORDS] lists those whose name, description or source holds all words.",
    no_args_is_help=False,
    rich_markup_mode=None,
    add_completion=False,
)

Imports = Annotated[
    list[str] | None,
    typer.Option("--import", "-i", help="A module or file to import first, for its rewards."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command(LIST)
def list_rewards(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="FILTER", help="Words that a name or description must hold."),
    ] = None,
    imports: Imports = None,
    as_json: AsJson = False,
) -> None:
    """List the known rewards and the routes by data source."""
    from guerdon import catalogue, plugins, registry

    _import(imports or [])
    found = [entry for entry in catalogue.entries() if _matches(entry, words or [])]
    routes = {p: r for p, r in registry.routes().items() if _has_words(f"{p} {r}", words or [])}
    broken_routes = plugins.route_errors()
    if as_json:
        _print_json({"rewards": found, "routes": routes, "route_errors": broken_routes})
        return
    console = Console()
    usable = [entry for entry in found if not entry.error]
    if usable:
        console.print(_table(usable))
    elif not found:
        filtered = f" holds {' '.join(words)!r}" if words else " is known"
        console.print(f"No reward{escape(filtered)}.", highlight=False)
    if routes:
        console.print(_routes_table(routes))
    errors = [(entry.name, entry.error) for entry in found if entry.error]
    for name, error in (*errors, *broken_routes.items()):
        console = Console(stderr=True, highlight=False)
        console.print(f"[red]{escape(name)}[/]: {escape(error)}", soft_wrap=True)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A name, pkg.mod:NAME or path/file.py:NAME.")],
    imports: Imports = None,
    as_json: AsJson = False,
) -> None:
    """Show what one reward takes, promises and checks."""
    from guerdon import registry
    from guerdon.errors import GuerdonError

    _import(imports or [])
    try:
        definition = registry.find(name)
    except GuerdonError as error:
        _refuse(error)
    facts = _facts(name, definition)
    if as_json:
        _print_json(facts)
    else:
        _print_facts(facts)


def _import(imports: Sequence[str]) -> None:
    from guerdon import registry
    from guerdon.errors import GuerdonError

    try:
        for item in imports:
            load = registry.load_file if item.endswith(".py") else registry.import_module
            load(item)
    except GuerdonError as error:
        _refuse(error)


def _refuse(error: Exception) -> NoReturn:
    Console(stderr=True, highlight=False).print(f"error: {error}", markup=False, soft_wrap=True)
    raise typer.Exit(MISUSE)


def _matches(entry: Entry, words: Sequence[str]) -> bool:
    return _has_words(f"{entry.name} {entry.description} {entry.place} {entry.package}", words)


def _has_words(text: str, words: Sequence[str]) -> bool:
    return all(word.lower() in text.lower() for word in words)


def _table(found: Sequence[Entry]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    table.add_column("name", style="bold", no_wrap=True)
    table.add_column("what it scores, its inputs, its source", ratio=1, overflow="fold")
    table.add_column("range", no_wrap=True)
    for entry in found:
        source = f"{entry.place} ({entry.package})" if entry.package else entry.place
        about = Text(entry.description or "(no documentation)")
        about.append(f"\n{', '.join(entry.inputs)}\n{source}", style="dim")
        table.add_row(Text(entry.name), about, range_text(entry.value_range))
    return table


def _routes_table(routes: Mapping[str, str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("data source", no_wrap=True)
    table.add_column("reward")
    for pattern, reference in sorted(routes.items()):
        table.add_row(Text(pattern), Text(reference))
    return table


def range_text(value_range: Range) -> str:
    """A range as people write it.

    Example:
        >>> range_text((0.0, 1.0)), range_text((float("-inf"), 0.0))
        ('[0, 1]', '(-inf, 0]')
    """
    low, high = value_range
    opening = "(" if math.isinf(low) else "["
    closing = ")" if math.isinf(high) else "]"
    return f"{opening}{low:g}, {high:g}{closing}"


def _facts(reference: str, definition: Definition) -> dict[str, Any]:
    from guerdon import catalogue
    from guerdon.declaration import SETTINGS

    entry = catalogue.entry_of(definition)
    types = catalogue.option_types(definition)
    made = catalogue.with_defaults(definition)
    declared = {s: getattr(made, s) for s in SETTINGS if s not in ("auto_register", "name")}
    fixtures = declared.pop("fixtures")
    return {
        "name": entry.name,
        "place": entry.place,
        "documentation": catalogue.documentation(definition),
        "declaration": declared,
        "fingerprint": _fingerprint(definition),
        "parameters": catalogue.parameters_of(definition),
        "options": [
            {"name": key, "type": types.get(key, ""), "default": default}
            for key, default in catalogue.options_of(definition).items()
        ],
        "fixtures": [{"name": f.name, "kind": f.kind, "expect": f.expect} for f in fixtures],
        "routes": sorted({*catalogue.routes_to(entry.name), *catalogue.routes_to(reference)}),
    }


def _fingerprint(definition: Definition) -> str:
    from guerdon import registry
    from guerdon.errors import GuerdonError

    try:
        return registry.create(definition).fingerprint
    except GuerdonError as error:
        return f"depends on its options ({error})"


def _print_facts(facts: Mapping[str, Any]) -> None:
    console = Console(highlight=False)
    console.print(f"[bold]{escape(facts['name'])}[/]  {escape(facts['place'])}", soft_wrap=True)
    if facts["documentation"]:
        documentation = filled(facts["documentation"], console.width)
        console.print(Text(f"\n{documentation}"), soft_wrap=True)
    declared = {**facts["declaration"], "fingerprint": facts["fingerprint"]}
    declared["value_range"] = range_text(declared["value_range"])
    declared["candidate_fault"] = ", ".join(declared["candidate_fault"]) or "none"
    _section(console, "declaration", ("setting", "value"), declared.items())
    parameters = [
        (p.name, p.source, "required" if p.required else p.default) for p in facts["parameters"]
    ]
    _section(console, "inputs", ("parameter", "comes from", "default"), parameters)
    options = [
        (option["name"], option["type"][:TYPES_WIDTH], option["default"] or "required")
        for option in facts["options"]
    ]
    _section(console, "options", ("option", "type", "default"), options)
    fixtures = [
        (f["name"], f["kind"], "any score" if f["expect"] is None else f["expect"])
        for f in facts["fixtures"]
    ]
    _section(console, "fixtures", ("case", "kind", "expected"), fixtures)
    _section(console, "routes", ("data source",), [(route,) for route in facts["routes"]])


def _section(console: Console, title: str, columns: Sequence[str], rows: Any) -> None:
    listed = list(rows)
    if not listed:
        console.print(f"\n[bold]{title}[/]: none")
        return
    console.print(f"\n[bold]{title}[/]")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in listed:
        table.add_row(*(Text(str(cell)) for cell in row))
    console.print(table)


def _print_json(value: Any) -> None:
    import msgspec

    typer.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())
