"""The remote reward of slime and miles: `POST` to `--rm-url`.

    dialects: [{name: slime, path: /rm}]

Its client sends one sample, `{prompt, response, label}`, and takes whatever JSON comes back with a
status of 200 for the reward. So everything that is no reward has another status, after which the
client tries ten times and then raises.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from guerdon.errors import InvalidSample
from guerdon.sample import Sample
from guerdon.server.protocols.dialect import Dialect, Rewards, checked_path, join
from guerdon.server.protocols.json_body import detail, json_reply, read_json
from guerdon.server.protocols.scalar import (
    Asking,
    ScalarRoute,
    ScalarSettings,
    Scored,
    components_of,
    maximised,
)
from guerdon.server.refusal import Refused
from guerdon.server.speech import Reply
from guerdon.wire.assigned import ASSIGNED, header_of


class SlimeSettings(ScalarSettings, frozen=True, kw_only=True):
    """What can be set.

    Attributes:
        path: of `--rm-url`.
        timeout_seconds: of the scoring of one request. The client waits 120 s.
        reward_key: the reply is an object, with the reward under this key and the components
            under theirs, as slime's `--reward-key` wants it; by default the number alone.
    """

    path: str = "/rm"
    timeout_seconds: float = 110.0
    reward_key: str | None = None


class _Body(msgspec.Struct, frozen=True):
    response: str
    prompt: str | list[dict[str, Any]] | None = None
    label: Any = None


class Slime(Dialect):
    """The dialect; see the module."""

    name = "slime"
    Settings = SlimeSettings

    def __init__(self, settings: SlimeSettings, rewards: Rewards) -> None:
        super().__init__(settings, rewards)
        path = join(settings.prefix, checked_path(settings.path))
        self.routes = (RemoteRm(path, settings, rewards),)


class RemoteRm(ScalarRoute):
    """`POST` to `--rm-url`.

    Args:
        path: with the prefix.
        settings: of the dialect.
        rewards: the hosted rewards.
    """

    summary = "Score a sample, as slime asks for it"

    def __init__(self, path: str, settings: SlimeSettings, rewards: Rewards) -> None:
        super().__init__(path, settings, rewards)
        self._reward = maximised(settings.reward, rewards)
        self._key = settings.reward_key

    def parse(self, body: memoryview) -> Asking:
        """The one sample."""
        asked = read_json(body, _Body)
        if isinstance(asked.prompt, list) and not asked.prompt:
            raise InvalidSample("the prompt is an empty list of messages")
        prompt: Any = asked.prompt
        sample = Sample(prompt=prompt, response=asked.response, ground_truth=asked.label)
        return Asking(self._reward, [sample], self._write)

    def error(self, status: int, message: str) -> Reply:
        """The client looks at the status alone."""
        return json_reply({"detail": message}, status)

    def headers(self, scored: Sequence[Scored]) -> tuple[tuple[bytes, bytes], ...]:
        """What an assigned number stands for: the reply may be a bare number."""
        return header_of(scored[0].outcome)

    def refuse(self, refused: Refused) -> Reply:
        """The client looks at the status alone."""
        return detail(refused)

    def _write(self, scored: Sequence[Scored]) -> Any:
        (one,) = scored
        if self._key is None:
            return one.value
        flag = {ASSIGNED: True} if one.assigned else {}
        return {**components_of(one), **flag, self._key: one.value}
