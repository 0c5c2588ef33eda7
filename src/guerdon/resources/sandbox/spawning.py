"""Starting a confined program: its pipes, its descriptors, its process."""

from __future__ import annotations

import contextlib
import os
import subprocess

from msgspec.structs import replace

from guerdon.resources.sandbox.command import Command
from guerdon.resources.sandbox.engine import Engine, Plan
from guerdon.resources.sandbox.files import Blobs
from guerdon.resources.sandbox.interpreter import Interpreter
from guerdon.resources.sandbox.keeping import keeper_argv
from guerdon.resources.sandbox.limits import Limits
from guerdon.resources.sandbox.running import Pipes, Running


def spawn(
    engine: Engine, command: Command, limits: Limits, interpreter: Interpreter | None = None
) -> Running:
    """Start a program under an engine.

    Args:
        engine: what confines it.
        command: with an absolute program.
        limits: what it may use.
        interpreter: collects files that are to be kept.

    Raises:
        OSError: this process has no memory, process or descriptor left, or a program has gone.
    """
    limits = limits.within()
    # Standard input is apart: the child has it under the number 0 only.
    with contextlib.ExitStack() as parent, Blobs() as blobs, Blobs() as given:
        out_read, out_write = _pipe(parent, command.capture)
        err_read, err_write = _pipe(parent, command.capture)
        status_read, status_write = _pipe(parent)
        kept_read, kept_write = _pipe(parent, bool(command.keep))
        if interpreter is not None and command.keep:
            command = _keeping(command, interpreter, kept_write, limits)
        stdin = given.add(command.stdin)
        plan = engine.plan(command, limits, blobs, status_write)
        parent.callback(plan.release)
        process = _popen(plan, stdin, out_write, err_write)
        parent.pop_all()
    for descriptor in (out_write, err_write, status_write, kept_write):
        if descriptor >= 0:
            os.close(descriptor)
    pipes = Pipes(_there(out_read), _there(err_read), status_read, _there(kept_read))
    return Running(process, plan, pipes, engine, limits, command.keep)


def _keeping(
    command: Command, interpreter: Interpreter, descriptor: int, limits: Limits
) -> Command:
    argv = keeper_argv(interpreter.argv, descriptor, limits.disk_bytes, command.keep, command.argv)
    return replace(command, argv=argv, descriptors=(*command.descriptors, descriptor))


def _pipe(owner: contextlib.ExitStack, wanted: bool = True) -> tuple[int, int]:
    """Both ends of a pipe that are closed if something goes wrong; -1 where none is wanted."""
    if not wanted:
        return -1, -1
    ends = os.pipe()
    for end in ends:
        owner.callback(os.close, end)
    return ends


def _there(descriptor: int) -> int | None:
    return None if descriptor < 0 else descriptor


def _popen(plan: Plan, stdin: int, stdout: int, stderr: int) -> subprocess.Popen[bytes]:
    # No preexec_fn: the child then starts without copying this process's page tables.
    return subprocess.Popen(
        plan.argv,
        stdin=stdin,
        stdout=subprocess.DEVNULL if stdout < 0 else stdout,
        stderr=subprocess.DEVNULL if stderr < 0 else stderr,
        pass_fds=plan.descriptors,
        env={},
        cwd="/",
        start_new_session=True,
    )
