"""What dialects share whose replies are bare numbers of one reward: all of a request, or an error.

Such a reply has no place for a sample without a number, so one that has none makes the whole reply
an error. Its status says whether another try may help: 503 where it may, 422 where it never will.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec

from guerdon.errors import ConfigError, GuerdonError
from guerdon.outcome import Outcome, Score
from guerdon.reward import BaseReward
from guerdon.sample import Message, Sample
from guerdon.server.protocols.dialect import (
    DialectSettings,
    Query,
    Rewards,
    ScoreRoute,
    chosen_reward,
)
from guerdon.server.protocols.json_body import json_reply
from guerdon.server.protocols.number import NEVER, Numbers, message_of, status_of
from guerdon.server.speech import Headers, Reply
from guerdon.wire.protocol import ScoreReply, ScoreRequest


class ScalarSettings(DialectSettings, frozen=True, kw_only=True):
    """Settings of a dialect whose requests name no reward.

    Attributes:
        reward: that is asked; not needed where one is hosted.
    """

    reward: str | None = None


class Scored(NamedTuple):
    """The number of one sample, what it is from, and whether it is assigned."""

    value: float
    outcome: Outcome
    assigned: bool


class Lacking(GuerdonError):
    """A score has not all that the configuration promises to the client."""


def components_of(one: Scored) -> dict[str, float]:
    """The components that have a value; none of an assigned number."""
    if not isinstance(one.outcome, Score):
        return {}
    return {name: value for name, value in one.outcome.components.items() if value is not None}


class Asking(msgspec.Struct, frozen=True):
    """What a body asks for.

    Attributes:
        reward: hosted name.
        samples: to be scored.
        write: the reply as plain data, from one number per sample; may raise `Lacking`.
    """

    reward: str
    samples: Sequence[Sample]
    write: Callable[[Sequence[Scored]], Any]


class ScalarRoute(ScoreRoute):
    """A path where one reward gives one number per sample.

    Args:
        path: with the prefix.
        settings: of the dialect.
        rewards: the hosted rewards.
    """

    def __init__(self, path: str, settings: DialectSettings, rewards: Rewards) -> None:
        super().__init__(path)
        self._numbers = Numbers(settings, rewards)

    @abstractmethod
    def parse(self, body: memoryview) -> Asking:
        """What a body asks for; raises as `read`."""

    def headers(self, scored: Sequence[Scored]) -> tuple[tuple[bytes, bytes], ...]:
        """What a reply has beside the numbers; nothing by default."""
        return ()

    @abstractmethod
    def error(self, status: int, message: str) -> Reply:
        """An error as the client of this dialect reads it."""

    def read(self, body: memoryview, headers: Headers) -> Query:
        """One request for the one reward; none where there are no samples."""
        asking = self.parse(body)
        reward, write = asking.reward, asking.write

        def answer(replies: Sequence[ScoreReply]) -> Reply:
            outcomes = replies[0].results[0].outcomes if replies else []
            return self._answer(reward, outcomes, write)

        if not asking.samples:
            return Query([], answer)
        return Query([ScoreRequest(samples=list(asking.samples), rewards=[reward])], answer)

    def _answer(
        self, reward: str, outcomes: Sequence[Outcome], write: Callable[[Sequence[Scored]], Any]
    ) -> Reply:
        numbers, lost = self._numbers.of_all(reward, outcomes)
        if lost:
            return self.error(status_of(lost.values()), message_of(lost, len(outcomes)))
        scored = [
            Scored(number.value, outcome, number.assigned)
            for number, outcome in zip(numbers, outcomes, strict=True)
        ]
        try:
            content = write(scored)
        except Lacking as error:
            return self.error(NEVER, str(error))
        reply = json_reply(content, assigned=sum(one.assigned for one in scored))
        return msgspec.structs.replace(reply, headers=self.headers(scored))


def maximised(name: str | None, rewards: Rewards) -> str:
    """The reward of a dialect whose client takes every number for better the higher it is.

    Raises:
        ConfigError: there is none, or lower is better.
    """
    chosen = chosen_reward(name, rewards)
    check_direction(chosen, rewards[chosen])
    return chosen


def check_direction(name: str, reward: BaseReward) -> None:
    """Refuse a reward whose lower values are better: its client would train the wrong way.

    Raises:
        ConfigError: saying how to turn it around.
    """
    if not reward.higher_is_better:
        raise ConfigError(
            f"lower values of reward {name!r} are better, and clients of this dialect take higher "
            "ones for better: turn it around by {affine: {reward: ..., scale: -1}}"
        )


def conversation(messages: Sequence[Any]) -> Sample:
    """A sample from messages: everything up to the last user message is the prompt.

    Raises:
        InvalidSample: a message is malformed.

    Example:
        >>> talk = [{"role": "user", "content": "2?"}, {"role": "assistant", "content": "2"}]
        >>> conversation(talk).response_text
        '2'
    """
    parsed = [Message.parse(message) for message in messages]
    asked = [place for place, message in enumerate(parsed) if message.role != "assistant"]
    users = [place for place in asked if parsed[place].role == "user"]
    end = (users or asked or [-1])[-1] + 1
    return Sample(prompt=tuple(parsed[:end]) or None, response=tuple(parsed[end:]) or None)
