"""Reward servers that answer the remote reward calls of slime and miles (`--rm-url`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Unpack, cast

from guerdon.errors import BadInput
from guerdon.outcome import as_number
from guerdon.remote.address import Urls
from guerdon.remote.conversation import as_json
from guerdon.remote.foreign import ForeignReward, Given, Talk, plain_json, unusable
from guerdon.sample import Sample
from guerdon.wire.assigned import ASSIGNED, from_header, restored

if TYPE_CHECKING:
    from guerdon.remote.reply import Answer


class SlimeReward(ForeignReward):
    """Scores with a server that answers slime's `remote_rm` calls, one sample each.

    A number that a Guerdon server assigned is the failure or the abstention that it stands for.
    A request is `{"prompt": ..., "response": "...", "label": ...}`; the reply is a number, or an
    object of which `reward_key` names the number and other numbers become metrics.

    Args:
        url: of the server with its path, as for `--rm-url`, or several; see `ForeignReward`.
        reward_key: of the number, where the reply is an object.
        **talk: how servers are asked, and what the reward declares; see `ForeignReward`.

    Raises:
        ConfigError: a setting that cannot work.

    Example:
        >>> SlimeReward("http://127.0.0.1:8000/rm", reward_key="score")
        <reward slime of http://127.0.0.1:8000/rm>
    """

    name = "slime"

    def __init__(
        self,
        url: Urls,
        *,
        reward_key: str | None = None,
        **talk: Unpack[Talk],
    ) -> None:
        self._reward_key = reward_key
        super().__init__(url, batch_size=1, **talk)

    def path(self) -> str:
        """The URL has it."""
        return ""

    def item(self, sample: Sample) -> Any:
        """The request itself."""
        response = sample.response_text
        if response is None:
            raise BadInput("the sample has no response text to send")
        prompt = sample.prompt
        said = list(map(as_json, prompt)) if isinstance(prompt, tuple) else prompt
        return plain_json({"prompt": said, "response": response, "label": sample.ground_truth})

    def request(self, items: Sequence[Any]) -> bytes:
        """The body that asks for an item."""
        return items[0]

    def read(self, answer: Answer, items: Sequence[Any]) -> list[Given]:
        """The one score."""
        from guerdon.remote.exchange import json_of

        found = json_of(answer)
        behind = from_header(answer.headers)
        if behind is not None:
            return [behind]
        numbers: dict[str, float] = {}
        if isinstance(found, dict):
            if self._reward_key is None:
                return [unusable("the reply is an object: name the key of its number, reward_key=")]
            reply = cast("dict[str, Any]", found)
            if reply.get(ASSIGNED):
                return [restored(None)]
            found = reply.get(self._reward_key)
            numbers = {
                name: number
                for name, other in reply.items()
                if name != self._reward_key and (number := as_number(other)) is not None
            }
        value = None if isinstance(found, bool) else as_number(found)
        if value is None:
            return [unusable(f"the reward is {str(found)[:100]!r}, not a number")]
        return [{"score": value, "metrics": numbers}]
