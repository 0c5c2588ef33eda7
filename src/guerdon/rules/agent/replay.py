"""What a model sent to one of its tools, to be made again against a fresh resource.

The base of the rewards for final states. A call that cannot be read did nothing in the rollout
either: its tool answered with an error. So it is passed over, and counted.
"""

from __future__ import annotations

import inspect
import json
import time
from collections.abc import Iterator, Sequence
from typing import Any, TypedDict

import msgspec

from guerdon.errors import InvalidReward
from guerdon.resources.sandbox.probe import EngineName
from guerdon.reward import BaseReward
from guerdon.rules.code.code_reward import CORES
from guerdon.rules.code.verdict import CREDITS, Credit
from guerdon.rules.option import one_of
from guerdon.rules.tools import Call, NoCall, readable_calls
from guerdon.sample import Message

SHOWN = 200
"""Characters of the names of other tools that are told."""


class Sent(msgspec.Struct, frozen=True):
    """What a tool was sent.

    Attributes:
        texts: the argument of each call, in order.
        unreadable: calls that cannot be read, of any tool.
        others: calls of other tools, or without a text in the argument.
        tools: what the tools of these are called, in order of appearance.
    """

    texts: tuple[str, ...] = ()
    unreadable: int = 0
    others: int = 0
    tools: tuple[str, ...] = ()

    @property
    def metrics(self) -> dict[str, int]:
        """How many calls were not made again."""
        return {"unreadable_calls": self.unreadable, "other_calls": self.others}

    def hint(self, tool: str, argument: str) -> dict[str, Any]:
        """What to look at where no call is one of the tool's and there are others."""
        if self.texts or not self.others:
            return {}
        called = ", ".join(self.tools)[:SHOWN]
        message = f"no call is one of {tool} with a text in {argument}; calls are of: {called}"
        return {"message": f"{message} (options 'tool' and 'argument' name the tool)"}


def sent(messages: Sequence[Message], tool: str, argument: str) -> Sent:
    """What one tool was sent.

    Raises:
        NoCall: there are more calls than anything reads.

    Example:
        >>> call = {"name": "sql", "arguments": {"query": "select 1"}}
        >>> said = Message.parse({"role": "assistant", "content": "", "tool_calls": [call]})
        >>> sent([said], "sql", "query").texts
        ('select 1',)
    """
    calls, unreadable = readable_calls(messages)
    texts = [_text_argument(call, argument) if call.name == tool else None for call in calls]
    passed = [call.name for call, text in zip(calls, texts, strict=True) if text is None]
    known = tuple(text for text in texts if text is not None)
    return Sent(known, unreadable, len(passed), tuple(dict.fromkeys(passed)))


def _text_argument(call: Call, name: str) -> str | None:
    """A text argument of a call; None where it lacks it or it is no text."""
    raw = call.arguments.get(name)
    value = None if raw is None else json.loads(raw)
    return value if isinstance(value, str) else None


class Replaying(TypedDict, total=False):
    """Options of every reward for a final state; `FinalState` says what they mean."""

    replay: bool
    credit: Credit
    total_seconds: float
    engine: EngineName


class FinalState(BaseReward):
    """Base of the rewards for what an agent leaves behind.

    Args:
        tool: name of the model's tool.
        argument: of the tool, which holds the statement or command.
        seconds: for each of them.
        replay: whether they are made again; else the caller's context holds what its tools changed.
        credit: `all`, or `fraction` of what is wanted.
        total_seconds: for all of them together; a rollout that takes longer is worth nothing.
        engine: see `guerdon.resources.sandbox.Sandbox`.

    Raises:
        InvalidReward: an impossible option.
    """

    auto_register = False
    value_range = (0.0, 1.0)
    work = "io"
    concurrency = CORES

    def __init__(
        self,
        tool: str,
        argument: str,
        seconds: float,
        *,
        replay: bool = True,
        credit: Credit = "all",
        total_seconds: float = 300.0,
        engine: EngineName = "auto",
    ) -> None:
        one_of("credit", credit, CREDITS)
        if not (seconds > 0 and total_seconds > 0):
            raise InvalidReward(
                f"times must be above 0, got {seconds} for one and {total_seconds} for all"
            )
        self._tool, self._argument = tool, argument
        self._seconds, self._total_seconds = seconds, total_seconds
        self.replay = replay
        self.engine: EngineName = engine
        self._credit: Credit = credit

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.__signature__ = _spelled_out(cls)

    def value(self, held: Sequence[bool]) -> float:
        """What the share of wanted things that hold is worth."""
        share = sum(held) / len(held)
        return share if self._credit == "fraction" else float(share == 1.0)

    def sent(self, messages: Sequence[Message]) -> Sent:
        """What the tool was sent.

        Raises:
            Spoilt: more calls than anything reads.
        """
        try:
            return sent(messages, self._tool, self._argument)
        except NoCall as error:
            raise Spoilt("too_many_calls", str(error)) from None

    def hint(self, sent: Sent) -> dict[str, Any]:
        """As `Sent.hint`, for this reward's tool."""
        return sent.hint(self._tool, self._argument)

    def timed(self, texts: Sequence[str]) -> Iterator[tuple[str, float]]:
        """Each text with the seconds that it may take.

        Raises:
            Spoilt: all together take too long.
        """
        end = time.monotonic() + self._total_seconds
        for text in texts:
            left = end - time.monotonic()
            if left <= 0:
                raise Spoilt("timeout", f"the rollout takes more than {self._total_seconds:g} s")
            yield text, min(left, self._seconds)


def _spelled_out(cls: type[FinalState]) -> inspect.Signature:
    """The constructor's signature with the shared options named one by one."""
    own = inspect.signature(cls.__init__)
    named = [p for p in [*own.parameters.values()][1:] if p.kind is not p.VAR_KEYWORD]
    known = {parameter.name for parameter in named}
    shared = inspect.signature(FinalState.__init__).parameters.values()
    fresh = [p for p in shared if p.kind is p.KEYWORD_ONLY and p.name not in known]
    return own.replace(parameters=[*named, *fresh])


class Spoilt(Exception):
    """What the model did leaves nothing that can be compared; worth the low end.

    Args:
        status: how.
        message: what happened, for people.
    """

    def __init__(self, status: str, message: str) -> None:
        super().__init__(message)
        self.status = status

    def result(self) -> dict[str, Any]:
        """What a reward returns for it."""
        return {"score": 0.0, "info": {"status": self.status, "message": str(self)}}
