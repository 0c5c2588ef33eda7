"""`guerdon serve`: host the rewards of a configuration over HTTP.

Exit status: 0 after a drain (SIGTERM, SIGINT) or a check that passed, 1 where the server could not
start or a reward could not be set up, 2 on misuse.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from guerdon.server import ServerConfig

FAILED = 1
MISUSE = 2
SWITCH_SECONDS = 0.0005
"""A tenth of Python's default, which a waiting event loop would feel as latency."""


def serve(
    config: Annotated[
        str, typer.Argument(metavar="CONFIG", help="A YAML file with rewards by name.")
    ],
    check: Annotated[
        bool, typer.Option("--check", help="Check the configuration and exit; start nothing.")
    ] = False,
    host: Annotated[
        str | None,
        typer.Option("--host", help="Address to bind; anything but the loopback needs a token."),
    ] = None,
    port: Annotated[
        int | None, typer.Option("--port", "-p", help="Port to bind; 0 takes a free one.")
    ] = None,
    token: Annotated[
        list[str] | None,
        typer.Option(
            "--token",
            metavar="TOKEN",
            help="A token that requests must have; repeatable. Others can read a command line: "
            "prefer the environment variable GUERDON_TOKEN.",
        ),
    ] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Log more, for finding faults.")
    ] = False,
) -> None:
    """Host the rewards of a configuration over HTTP."""
    from guerdon.errors import GuerdonError

    try:
        loaded = _load(config, host, port, token or [])
    except GuerdonError as error:
        _complain(error)
        raise typer.Exit(MISUSE) from None
    if check:
        try:
            _print_check(loaded)
        except GuerdonError as error:
            _complain(error)
            raise typer.Exit(MISUSE) from None
        return
    try:
        from guerdon.server.journal import log_to_stderr
        from guerdon.server.running import Server
    except ModuleNotFoundError as error:
        from guerdon.errors import MissingExtra

        _complain(MissingExtra(str(error.name), "serve", "guerdon serve"))
        raise typer.Exit(MISUSE) from None
    # Threads that score inline hold Python's lock for so long at a time while requests wait.
    sys.setswitchinterval(SWITCH_SECONDS)
    log_to_stderr(logging.DEBUG if verbose else logging.INFO)
    try:
        server = Server(loaded, owns_process=True)
        server.run()
    except GuerdonError as error:
        _complain(error)
        raise typer.Exit(FAILED) from None
    except SystemExit:
        raise typer.Exit(FAILED) from None
    if server.refusal:
        _complain(server.refusal)
    if server.refusal or not server.started:
        raise typer.Exit(FAILED)


def _load(path: str, host: str | None, port: int | None, tokens: list[str]) -> ServerConfig:
    from guerdon.server import load

    config = load(path)
    named = dict(config.serve.tokens)
    named.update({f"option {number}": given for number, given in enumerate(tokens, 1)})
    config = config.with_settings(host=host, port=port, tokens=named)
    config.check_reach()
    return config


def _print_check(config: ServerConfig) -> None:
    for name, host in config.rewards.items():
        hosting = host.hosting
        where = "inline" if hosting.inline else f"{hosting.replicas} x {hosting.workers} workers"
        typer.echo(f"{name}: {host.reward.name} {host.reward.fingerprint}, {where}")
    for dialect in config.dialects:
        routes = ", ".join(str(route) for route in dialect.routes)
        typer.echo(f"dialect {dialect.name}: {routes}")
        if dialect.warning:
            typer.echo(f"warning: dialect {dialect.name}: {dialect.warning}")
    tokens = len(config.serve.tokens)
    reach = f"{config.serve.host}:{config.serve.port}, {tokens} token{'s' * (tokens != 1)}"
    typer.echo(f"{reach}; the configuration is right; nothing was started")


def _complain(error: Exception | str) -> None:
    message = str(error).encode("utf-8", "backslashreplace").decode()
    sys.stderr.write(f"guerdon: {message}{os.linesep}")
