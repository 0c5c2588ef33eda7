"""`guerdon score`: score a file of rollouts and say what came out.

Exit status: 0; 1 where failures are an error (`--on-failure raise`) or the run could not end; 2 on
misuse; 130 when interrupted.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated, Literal

import typer

FAILED = 1
MISUSE = 2
INTERRUPTED = 130
CLOSED_PIPE = 141
"""128 + SIGPIPE, as of a program that the signal ends."""


def score(
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="JSONL, JSON or Parquet, plain, .gz or .zst; - is standard input.",
        ),
    ],
    reward: Annotated[
        str,
        typer.Option(
            "--reward",
            "-r",
            help="NAME (see 'guerdon rewards'), pkg.mod:NAME, file.py:NAME, a YAML configuration, "
            "or auto: by each row's data_source. A function written for a trainer has its name "
            "before it: verl:file.py:NAME (also trl, openrlhf, areal, agentfly, slime, verl_omni).",
        ),
    ],
    out: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            metavar="OUT",
            help="Where rows go: .jsonl, .json or .parquet (.gz, .zst); - is standard output.",
        ),
    ] = None,
    mapping: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            metavar="FIELD=COLUMN",
            help="Which column holds a field, such as response=choices.0.text; repeatable.",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted run.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Forget what an interrupted run left.")
    ] = False,
    keep_input: Annotated[
        bool, typer.Option("--keep-input", help="Write the whole input row, too.")
    ] = False,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, metavar="N", help="Read N rows only.")
    ] = None,
    on_failure: Annotated[
        Literal["raise", "mask"] | None,
        typer.Option(
            "--on-failure",
            help="raise: end with status 1 if a row failed, all rows written; mask: with 0. "
            "By default as the configuration says, else raise.",
        ),
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option("--concurrency", min=1, metavar="N", help="Workers, or calls in flight."),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", min=1, metavar="N", help="Rows scored at once.")
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option("--timeout", min=0.001, metavar="SECONDS", help="Longest wait for a batch."),
    ] = None,
    split: Annotated[
        str, typer.Option("--split", help="Split that rewards and policies see.")
    ] = "train",
    step: Annotated[
        int | None, typer.Option("--step", help="Training step that rewards see.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
) -> None:
    """Score a file of rollouts, and say what came out."""
    from guerdon.cli.score_run import Request, ScoreRun
    from guerdon.cli.streams import own_stdout
    from guerdon.errors import GuerdonError

    request = Request(
        data=data,
        reward=reward,
        out=out,
        mapping=tuple(mapping or ()),
        resume=resume,
        overwrite=overwrite,
        keep_input=keep_input,
        limit=limit,
        on_failure=on_failure,
        concurrency=concurrency,
        batch_size=batch_size,
        timeout=timeout,
        split=split,
        step=step,
        as_json=as_json,
        quiet=quiet,
    )
    try:
        with own_stdout() as stdout, ScoreRun(request, stdout) as run:
            failed = run()
    except BrokenPipeError:
        raise typer.Exit(CLOSED_PIPE) from None
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    except OSError as error:
        _complain(error)
        raise typer.Exit(FAILED) from None
    except GuerdonError as error:
        _complain(error)
        raise typer.Exit(MISUSE) from None
    raise typer.Exit(FAILED if failed else 0)


def _complain(error: Exception) -> None:
    message = str(error).encode("utf-8", "backslashreplace").decode()
    sys.stderr.write(f"guerdon: {message}{os.linesep}")
