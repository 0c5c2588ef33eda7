"""The command `guerdon`: one module per subcommand, imported only when it is called."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

import typer

COMMANDS = (
    "score", "rewards", "check", "serve", "bench", "judge", "sheet", "sandbox", "init",
)  # fmt: skip
"""Subcommands; `guerdon.cli.NAME` holds the function of that name, or an `app` of its own."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; ends with `SystemExit`."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    wanted = next((word for word in given if not word.startswith("-")), None)
    application(wanted)(given, prog_name="guerdon")


def application(wanted: str | None = None) -> typer.Typer:
    """The application, with only the wanted subcommand where there is one of that name."""
    app = typer.Typer(
        help="Guerdon: rewards for RL post-training. A failure is never a number.",
        add_completion=False,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(invoke_without_command=True)(_top)
    for name in [wanted] if wanted in COMMANDS else COMMANDS:
        module = import_module(f"guerdon.cli.{name}")
        own = getattr(module, "app", None)
        if isinstance(own, typer.Typer):
            app.add_typer(own, name=name)
        else:
            app.command(name)(getattr(module, name))
    return app


def _top(
    context: typer.Context,
    version: bool = typer.Option(False, "--version", help="Print the version and exit."),
) -> None:
    if version:
        from importlib.metadata import version as version_of

        typer.echo(f"guerdon {version_of('guerdon')}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(2)


if __name__ == "__main__":
    main()
