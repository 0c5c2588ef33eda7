"""The reward `file_state`: the agent leaves files as they are wanted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Unpack, cast

from guerdon.errors import BadInput
from guerdon.resources import Context
from guerdon.rules.agent.replay import Replaying, Spoilt
from guerdon.rules.agent.work_state import WorkState, checked_name, files_of
from guerdon.rules.case import case
from guerdon.sample import Message


def _called(*commands: str) -> list[dict[str, Any]]:
    calls = [{"name": "bash", "arguments": {"command": command}} for command in commands]
    return [{"role": "assistant", "content": "", "tool_calls": calls}]


_ROW: dict[str, Any] = {"metadata": {"files": {"a.txt": "b\na\n", "old": "x"}}}
_GOLD = {"sorted.txt": "a\nb\n", "old": None}
_RIGHT = ("sort a.txt > sorted.txt", "rm old")
_FIXTURES = (
    case("full", "as wanted", 1.0, response=_called(*_RIGHT), ground_truth=_GOLD, **_ROW),
    case("zero", "nothing done", 0.0, response="Done!", ground_truth=_GOLD, **_ROW),
    case("zero", "empty", 0.0, response="", ground_truth=_GOLD, **_ROW),
    case("zero", "half", 0.0, response=_called(_RIGHT[0]), ground_truth=_GOLD, **_ROW),
    case("malformed", "no truth", "bad_input", response="", **_ROW),
    case("malformed", "a name that leaves", "bad_input", response="", ground_truth={"../x": "1"}),
    case("malformed", "odd characters", 0.0, response=_called("\0\ud800"), ground_truth=_GOLD),
    case(
        "deterministic",
        "an error on the way",
        1.0,
        response=_called("cat nothing", *_RIGHT),
        ground_truth=_GOLD,
        **_ROW,
    ),
    case(
        "metamorphic",
        "equivalent form: one command",
        1.0,
        response=_called(" && ".join(_RIGHT)),
        ground_truth=_GOLD,
        **_ROW,
    ),
    case(
        "metamorphic",
        "injected: said instead of done",
        0.0,
        response="I ran: sort a.txt > sorted.txt; rm old",
        ground_truth=_GOLD,
        **_ROW,
    ),
)


class FileState(WorkState):
    """1 if the files that the agent leaves are the wanted ones, else 0; or a share of them.

    The commands that the model sent to its tool are made again in a fresh workspace with the row's
    `files`, each in the sandbox; or `replay` is off, and the caller's context holds the workspace
    that its tools changed. The truth names files: a text that they must hold (a newline at the end
    does not count), `{"contains": text}`, or null for files that must not be there. Files that it
    does not name are free.

    Args:
        tool: name of the model's tool.
        argument: of the tool that holds the command, for `bash -c`.
        command_seconds: for each command.
        replaying: `replay`, `credit` (of named files), `total_seconds`, `engine`; see
            `guerdon.rules.agent.replay.FinalState`.

    Metadata key: `files`, texts by name.

    Raises:
        BadInput: a truth that names no files, or files that are none.
        Unavailable: the sandbox failed.
    """

    name = "file_state"
    auto_register = True
    fixtures = _FIXTURES

    def __init__(
        self,
        *,
        tool: str = "bash",
        argument: str = "command",
        command_seconds: float = 10.0,
        **replaying: Unpack[Replaying],
    ) -> None:
        super().__init__(tool, argument, command_seconds, **replaying)

    def call(
        self,
        context: Context,
        response_messages: Sequence[Message],
        ground_truth: Any,
        files: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Make the files, and compare them."""
        wanted = read_truth(ground_truth)
        try:
            left, sent = self.left(context, response_messages, files_of(files, "files"))
        except Spoilt as end:
            return end.result()
        held = {name: _holds(left.get(name), want) for name, want in wanted.items()}
        info = {"differs": [name for name, fits in held.items() if not fits][:20]}
        info |= self.hint(sent)
        return {"score": self.value([*held.values()]), "info": info, "metrics": sent.metrics}


def read_truth(ground_truth: Any) -> dict[str, Any]:
    """What each file must hold.

    Raises:
        BadInput: it names no files, or says something else about one.
    """
    if not isinstance(ground_truth, Mapping) or not ground_truth:
        raise BadInput("the ground truth is no mapping of file names to what they must hold")
    truth = cast("Mapping[str, Any]", ground_truth)
    for name, want in truth.items():
        checked_name(name)
        contains = cast("Any", want).get("contains") if isinstance(want, Mapping) else want
        if not isinstance(contains, str) and want is not None:
            raise BadInput(
                f"file {name!r} is to hold a text, {{'contains': text}} or null, not {want!r:.100}"
            )
    return dict(truth)


def _holds(data: bytes | None, want: Any) -> bool:
    if want is None or data is None:
        return data is None and want is None
    text = data.decode("utf-8", "surrogateescape")
    if isinstance(want, Mapping):
        return cast("Mapping[str, str]", want)["contains"] in text
    return text.removesuffix("\n") == str(want).removesuffix("\n")
