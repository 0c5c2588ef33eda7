"""The files that an agent's commands leave: the base of the rewards that look at them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from guerdon.errors import BadInput
from guerdon.resources import Context, WorkspaceSpec
from guerdon.resources.sandbox.files import check_name
from guerdon.rules.agent.replay import FinalState, Sent
from guerdon.sample import Message

CANDIDATE = "candidate"
"""A caller's tools acquire `WorkspaceSpec(files=..., name="candidate")`."""


class WorkState(FinalState):
    """Base of rewards for files: makes the model's commands again in a workspace."""

    auto_register = False

    def left(
        self, context: Context, messages: Sequence[Message], files: Mapping[str, bytes]
    ) -> tuple[dict[str, bytes], Sent]:
        """The files that the agent leaves, and what its tool was sent.

        Raises:
            Spoilt: the commands take too long.
            Unavailable: the sandbox failed.
        """
        spec = WorkspaceSpec(files=files, name=CANDIDATE, engine=self.engine)
        workspace = context.acquire_resource_sync(spec)
        if not self.replay:
            return workspace.files(), Sent()
        sent = self.sent(messages)
        for command, seconds in self.timed(sent.texts):
            try:
                workspace.run(("bash", "-c", command), seconds=seconds)
            except ValueError:  # no program can get such an argument: nothing happens
                continue
        return workspace.files(), sent


def files_of(raw: Any, what: str) -> dict[str, bytes]:
    """The bytes of files that a row has as texts; none where it has none.

    Raises:
        BadInput: something else than texts by name.

    Example:
        >>> files_of({"a.txt": "1"}, "files")
        {'a.txt': b'1'}
    """
    if raw is None:
        return {}
    if not isinstance(raw, Mapping):
        raise BadInput(f"{what} is no mapping of names to texts")
    texts = cast("Mapping[Any, Any]", raw)
    return {checked_name(name): _bytes(name, text) for name, text in texts.items()}


def _bytes(name: str, text: Any) -> bytes:
    if not isinstance(text, str):
        raise BadInput(f"file {name!r} is no text")
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise BadInput(f"file {name!r} is no Unicode text") from None


def checked_name(name: object) -> str:
    """A name of a file that stays in its folder.

    Raises:
        BadInput: it is none.
    """
    try:
        return check_name(name if isinstance(name, str) else "")
    except ValueError as error:
        raise BadInput(str(error)) from None
