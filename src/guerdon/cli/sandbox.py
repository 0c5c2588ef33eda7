"""`guerdon sandbox`: what confines programs on this machine, found by trying."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

ENGINES = ("bubblewrap", "landlock")


def sandbox(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Try the engines of the code sandbox, and say what each keeps and what not.

    Ends with status 1 where none works: nothing that a policy model wrote is run there.
    """
    found = {name: _tried(name) for name in ENGINES}
    works = [name for name, facts in found.items() if facts["works"]]
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        for name, facts in found.items():
            for line in _lines(name, facts, default=works[:1] == [name]):
                typer.echo(line)
    if not works:
        raise typer.Exit(1)


def _tried(name: Any) -> dict[str, Any]:
    from guerdon.errors import Unavailable
    from guerdon.resources.sandbox import Sandbox

    made = Sandbox(name)
    try:
        return {
            "works": True,
            "interpreter": made.interpreter.path,
            "guarantees": list(made.guarantees),
            "weaknesses": list(made.weaknesses),
        }
    except Unavailable as error:
        return {"works": False, "reason": str(error)}


def _lines(name: str, facts: dict[str, Any], *, default: bool) -> list[str]:
    if not facts["works"]:
        return [f"{name} does not work: {facts['reason']}"]
    used = ", and is used by default" if default else ""
    return [
        f"{name} works{used}; Python inside: {facts['interpreter']}",
        *(f"  + {line}" for line in facts["guarantees"]),
        *(f"  - {line}" for line in facts["weaknesses"]),
    ]
