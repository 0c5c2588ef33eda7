"""OpenRLHF's remote reward: `POST /get_reward`.

    dialects: [openrlhf]

Its client sends `query` (prompt and response as one decoded text, special tokens included),
`prompts` and `labels`, one sample at a time, and wants a bare number for it: a list would end up
one dimension deeper than the place where it is added. A client with several URLs may send empty
lists to those for which it has nothing, which are answered with 200.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from guerdon.errors import InvalidSample
from guerdon.outcome import Score
from guerdon.remote.query import END_TOKENS, after_prompt, without_end
from guerdon.sample import Sample
from guerdon.server.protocols.dialect import Dialect, Rewards, checked_path, join
from guerdon.server.protocols.json_body import detail, json_reply, read_json
from guerdon.server.protocols.scalar import (
    Asking,
    Lacking,
    ScalarRoute,
    ScalarSettings,
    Scored,
    components_of,
    maximised,
)
from guerdon.server.refusal import Refused
from guerdon.server.speech import Reply
from guerdon.wire.assigned import ASSIGNED, OUTCOME, described

SCORES = "scores"


class OpenRLHFSettings(ScalarSettings, frozen=True, kw_only=True):
    """What can be set.

    Attributes:
        path: where it is spoken.
        timeout_seconds: of the scoring of one request. The client waits 180 s.
        response: `after_prompt` scores what follows the prompt in the query, and refuses a query
            that does not begin with its prompt (or with the rest of one that was cut from the
            left); `query` scores the whole query.
        end_tokens: special tokens that are taken off the end of a response.
        scores: component or metric that goes out as `scores`, by which OpenRLHF filters groups (in
            0 to 1); by default the metric `scores` where a score carries one, else the value.
    """

    path: str = "/get_reward"
    timeout_seconds: float = 170.0
    response: Literal["after_prompt", "query"] = "after_prompt"
    end_tokens: tuple[str, ...] = END_TOKENS
    scores: str | None = None


class _Body(msgspec.Struct, frozen=True):
    query: list[str]
    prompts: list[str] | None = None
    labels: list[Any] | None = None


class OpenRLHF(Dialect):
    """The dialect; see the module."""

    name = "openrlhf"
    Settings = OpenRLHFSettings

    def __init__(self, settings: OpenRLHFSettings, rewards: Rewards) -> None:
        super().__init__(settings, rewards)
        path = join(settings.prefix, checked_path(settings.path))
        self.routes = (Rewarding(path, settings, rewards),)


class Rewarding(ScalarRoute):
    """`POST /get_reward`.

    Args:
        path: with the prefix.
        settings: of the dialect.
        rewards: the hosted rewards.
    """

    summary = "Score samples, as OpenRLHF asks for it"

    def __init__(self, path: str, settings: OpenRLHFSettings, rewards: Rewards) -> None:
        super().__init__(path, settings, rewards)
        self._reward = maximised(settings.reward, rewards)
        self._settings = settings

    def parse(self, body: memoryview) -> Asking:
        """One sample per query."""
        asked = read_json(body, _Body)
        size = len(asked.query)
        prompts = asked.prompts if asked.prompts is not None else [None] * size
        labels = asked.labels if asked.labels is not None else [None] * size
        if not len(prompts) == len(labels) == size:
            raise InvalidSample(
                f"{size} queries, {len(prompts)} prompts and {len(labels)} labels are not as many"
            )
        samples = [
            Sample(prompt=prompt, response=self._response(place, query, prompt), ground_truth=label)
            for place, (query, prompt, label) in enumerate(
                zip(asked.query, prompts, labels, strict=True)
            )
        ]
        return Asking(self._reward, samples, self._write)

    def error(self, status: int, message: str) -> Reply:
        """As FastAPI writes it: the client looks at nothing but the status."""
        return json_reply({"detail": message}, status)

    def refuse(self, refused: Refused) -> Reply:
        """As FastAPI writes it."""
        return detail(refused)

    def _response(self, place: int, query: str, prompt: str | None) -> str:
        if prompt is None or self._settings.response == "query":
            return without_end(query, self._settings.end_tokens)
        response = after_prompt(prompt, query)
        if response is None:
            raise InvalidSample(
                f"query {place} does not begin with its prompt; to score all of it as the "
                "response, set the dialect's response: query"
            )
        return without_end(response, self._settings.end_tokens)

    def _write(self, scored: Sequence[Scored]) -> Any:
        rewards = [one.value for one in scored]
        scores = list(map(self._score, scored))
        logs: dict[str, Any] = {}
        for name in {name: None for one in scored for name in components_of(one)}:
            values = [components_of(one).get(name) for one in scored]
            if all(value is not None for value in values):
                logs[name] = values
        behind: dict[str, Any] = {}
        if any(one.assigned for one in scored):
            logs[ASSIGNED] = [float(one.assigned) for one in scored]
            behind[OUTCOME] = list(map(_behind, scored))
        if len(scored) == 1:
            single = {name: values[0] for name, values in logs.items()}
            return {"rewards": rewards[0], "scores": scores[0], "extra_logs": single, **behind}
        return {"rewards": rewards, "scores": scores, "extra_logs": logs, **behind}

    def _score(self, one: Scored) -> float:
        """What groups are filtered by. An assigned number has no components and stands for all."""
        name = self._settings.scores
        if one.assigned or not isinstance(one.outcome, Score):
            return one.value
        metrics = one.outcome.metrics
        measured = {key: value for key, value in metrics.items() if value is not None}
        if name is None:
            return measured.get(SCORES, one.value)
        found = {**measured, **components_of(one)}
        if name not in found:
            raise Lacking(
                f"the score has no component or metric {name!r} for 'scores' (the dialect's "
                f"scores:); it has {', '.join(found) or 'none'}"
            )
        return found[name]


def _behind(one: Scored) -> dict[str, Any] | None:
    """What an assigned number stands for."""
    return None if isinstance(one.outcome, Score) else described(one.outcome)
