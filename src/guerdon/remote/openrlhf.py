"""Reward servers with OpenRLHF's `/get_reward`, such as its own `openrlhf.cli.serve_rm`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Unpack, cast

import msgspec

from guerdon.outcome import as_number
from guerdon.remote.address import Urls
from guerdon.remote.conversation import ChatTemplate, messages_of, plain_texts
from guerdon.remote.foreign import BatchTalk, ForeignReward, Given, plain_json, unusable
from guerdon.sample import Sample
from guerdon.wire.assigned import ASSIGNED, OUTCOME, restored

if TYPE_CHECKING:
    from guerdon.remote.reply import Answer

PATH = "/get_reward"


class OpenRlhfReward(ForeignReward):
    """Scores with a server that answers OpenRLHF's remote reward calls.

    A request is `{"query": [...], "prompts": [...], "labels": [...]}`; a query is the whole text.
    A number that a Guerdon server assigned is the failure or the abstention that it stands for.
    `rewards` of the reply are the values, `scores` and `extra_logs` become metrics. Lists, lists of
    one-element lists (which a model with one label gives), and a bare number for one query are
    read.

    Args:
        url: of the server, without `/get_reward`, or several; see `ForeignReward`.
        tokenizer: folder or name of a tokenizer, whose chat template makes one text of
            conversations; without one, prompts and responses must be text.
        path: below the URL.
        **talk: how servers are asked, and what the reward declares; see `ForeignReward`.

    Raises:
        ConfigError: a setting that cannot work.

    Example:
        >>> OpenRlhfReward("http://127.0.0.1:5000")
        <reward openrlhf of http://127.0.0.1:5000/get_reward>
    """

    name = "openrlhf"

    def __init__(
        self,
        url: Urls,
        *,
        tokenizer: str | None = None,
        path: str = PATH,
        **talk: Unpack[BatchTalk],
    ) -> None:
        self._path = path
        self._template = ChatTemplate(tokenizer) if tokenizer is not None else None
        super().__init__(url, **talk)

    def path(self) -> str:
        """Of the call."""
        return self._path

    def item(self, sample: Sample) -> Any:
        """The query, the prompt, and the label as JSON."""
        if self._template is None:
            prompt, response = plain_texts(sample)
            query = prompt + response
        else:
            messages = messages_of(sample)
            asked = len(sample.prompt_messages or ())
            query = self._template.render(messages, written=len(messages) - asked)
            prompt = self._template.render(messages[:asked], add_generation_prompt=True)
        return query, prompt, plain_json(sample.ground_truth)

    def request(self, items: Sequence[Any]) -> bytes:
        """The body that asks for some items."""
        queries, prompts, labels = zip(*items, strict=True)
        raw = [msgspec.Raw(label) for label in labels]
        return msgspec.json.encode({"query": queries, "prompts": prompts, "labels": raw})

    def read(self, answer: Answer, items: Sequence[Any]) -> list[Given]:
        """One score per query."""
        from guerdon.remote.exchange import json_of
        from guerdon.remote.reply import bad_reply

        found = json_of(answer)
        reply = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
        if reply.get("rewards") is None:
            raise bad_reply(answer.url, "it has no 'rewards'")
        rewards = _column(reply["rewards"], len(items))
        if rewards is None:
            raise bad_reply(answer.url, f"its 'rewards' are not {len(items)} numbers")
        extra = reply.get("extra_logs")
        logs = cast("dict[str, Any]", extra) if isinstance(extra, dict) else {}
        columns = {
            name: column
            for name, values in {**logs, "scores": reply.get("scores")}.items()
            if (column := _column(values, len(items))) is not None
        }
        flags = columns.pop(ASSIGNED, [None] * len(items))
        behind = _column(reply.get(OUTCOME), len(items)) or [None] * len(items)
        return [
            restored(behind[i])
            if flags[i] or behind[i] is not None
            else _given(reward, {name: column[i] for name, column in columns.items()})
            for i, reward in enumerate(rewards)
        ]


def _column(values: Any, size: int) -> list[Any] | None:
    """One value per item; None where it is something else."""
    if not isinstance(values, list):
        return [values] if size == 1 and values is not None else None
    listed = cast("list[Any]", values)
    return listed if len(listed) == size else None


def _given(reward: Any, logged: Mapping[str, Any]) -> Given:
    value = _number(reward)
    if value is None:
        return unusable(f"a reward is {str(reward)[:100]!r}, not a number")
    metrics = {name: _number(found) for name, found in logged.items()}
    return {"score": value, "metrics": metrics}


def _number(found: Any) -> float | None:
    """A number, also in a list of one; truth values are none."""
    inner: Any = found
    while isinstance(inner, list) and len(cast("list[Any]", inner)) == 1:
        inner = cast("list[Any]", inner)[0]
    return None if isinstance(inner, bool) else as_number(cast("Any", inner))
