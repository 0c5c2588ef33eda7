"""UniRL's reward service: `POST /score`, `GET /health`, `GET /rewards`.

    dialects: [unirl]

Its client sends a whole shard at once, wants one object of sub-metrics per sample and reward, and
tries every refusal again with the whole shard. So what is wrong with one sample or one reward is in
`errors` of a 200; a 4xx is for requests that no server could serve.

Two things go beyond UniRL's own service: errors are per sample, not per reward of the whole call;
and a turn may have text alone (the last one is then the response, those before it the prompt).
"""

from __future__ import annotations

import binascii
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from guerdon.errors import ConfigError, InvalidSample, MalformedMessage, nearest
from guerdon.outcome import EMPTY, Outcome, Score
from guerdon.sample import Media, MediaKind, Message, Part, Sample
from guerdon.server.protocols.dialect import (
    Dialect,
    DialectSettings,
    PageRoute,
    Query,
    Rewards,
    ScoreRoute,
    Standing,
    join,
)
from guerdon.server.protocols.json_body import json_reply, read_json
from guerdon.server.protocols.number import NoNumber, Numbers
from guerdon.server.reading import LARGE
from guerdon.server.refusal import Refused
from guerdon.server.speech import Headers, Reply
from guerdon.wire.assigned import described
from guerdon.wire.protocol import ErrorCode, ScoreReply, ScoreRequest
from guerdon.wire.typed import ready

SERVING = ("ready", "degraded")
GROUND_TRUTHS = ("answer", "ground_truth")
"""Keys of the metadata that hold what UniRL's text rewards compare with."""


class UniRLSettings(DialectSettings, frozen=True, kw_only=True):
    """What can be set.

    Attributes:
        timeout_seconds: of the scoring of one request. The shortest timeout of UniRL's recipes is
            120 s, after which the client sends the whole shard again.
        sub_metrics: by reward, its sub-metrics in order: the name that the value itself gets, then
            components and metrics. Without an entry, the value under the reward's name, then the
            components. The client's default takes the first and drops the others.
    """

    timeout_seconds: float = 110.0
    sub_metrics: Mapping[str, tuple[str, ...]] = EMPTY


class Turn(msgspec.Struct, frozen=True):
    """One turn of a history, its media decoded."""

    text: str
    image_b64: bytes | None = None
    video_b64: bytes | None = None
    video_path: str | None = None


class Item(msgspec.Struct, frozen=True):
    """One sample, as it travels."""

    history: list[Turn]
    required_rewards: list[str]
    metadata: dict[str, Any] | None = None


class _Body(msgspec.Struct, frozen=True):
    requests: list[Item]


class _TextTurn(msgspec.Struct, frozen=True):
    """A turn whose base64 is not decoded yet."""

    text: str
    image_b64: str | None = None
    video_b64: str | None = None
    video_path: str | None = None


class _TextItem(msgspec.Struct, frozen=True):
    history: list[_TextTurn]
    required_rewards: list[str]
    metadata: dict[str, Any] | None = None


class _TextBody(msgspec.Struct, frozen=True):
    requests: list[_TextItem]


class _Outline(msgspec.Struct, frozen=True):
    """A body of which nothing is decoded but where its samples begin and end."""

    requests: list[msgspec.Raw]


class UniRL(Dialect):
    """The dialect; see the module."""

    name = "unirl"
    Settings = UniRLSettings

    def __init__(self, settings: UniRLSettings, rewards: Rewards) -> None:
        super().__init__(settings, rewards)
        for name, metrics in settings.sub_metrics.items():
            if name not in rewards:
                hint = nearest(name, rewards)
                raise ConfigError(f"sub_metrics: there is no reward {name!r}{hint}")
            if not metrics or len(set(metrics)) < len(metrics):
                raise ConfigError(f"sub_metrics: {name} needs different names, at least one")
        lower = [name for name, reward in rewards.items() if not reward.higher_is_better]
        if lower:
            self.warning = (
                f"lower values of {', '.join(lower)} are better, and UniRL's trainer takes higher "
                "ones for better: turn them around by {affine: {reward: ..., scale: -1}}"
            )
        prefix = settings.prefix
        self.routes = (
            Scoring(join(prefix, "/score"), settings, rewards),
            PageRoute(join(prefix, "/health"), self._health, "The roster, as UniRL asks for it"),
            PageRoute(join(prefix, "/rewards"), self._names, "Names of rewards, for UniRL"),
        )

    def _health(self, standing: Standing) -> Reply:
        """The roster: rewards that serve. UniRL's own port opens when everything is loaded, so
        there is none before."""
        roster = {
            name: [f"{self.rewards[name].name}:{replica}" for replica in replicas]
            for name, replicas in standing.replicas.items()
            if standing.states[name] in SERVING
        }
        starting = "starting" in standing.states.values()
        status = "draining" if standing.draining else "starting" if starting else "ok"
        if not roster and status == "ok":
            status = "failed"
        return json_reply({"status": status, "rewards": roster}, 200 if status == "ok" else 503)

    def _names(self, _: Standing) -> Reply:
        return json_reply({"rewards": sorted(self.rewards)})


class Scoring(ScoreRoute):
    """`POST /score`.

    Args:
        path: with the prefix.
        settings: of the dialect.
        rewards: the hosted rewards.
    """

    summary = "Score samples, as UniRL asks for it"
    bulky = True

    def __init__(self, path: str, settings: UniRLSettings, rewards: Rewards) -> None:
        super().__init__(path)
        self._rewards = rewards
        self._numbers = Numbers(settings, rewards)
        self._sub_metrics = settings.sub_metrics

    def read(self, body: memoryview, headers: Headers) -> Query:
        """The samples, by the rewards that they require."""
        items = _items(body)
        calls: dict[tuple[str, ...], list[int]] = {}
        samples: list[Sample] = []
        for number, item in enumerate(items):
            wanted = tuple(dict.fromkeys(item.required_rewards))
            self._check_known(wanted)
            samples.append(_sample(item, f"requests[{number}]"))
            if wanted:
                calls.setdefault(wanted, []).append(number)
        requests = [
            ScoreRequest(samples=[samples[number] for number in numbers], rewards=list(wanted))
            for wanted, numbers in calls.items()
        ]
        places, count = list(calls.values()), len(items)

        def write(replies: Sequence[ScoreReply]) -> Reply:
            return self._write(replies, places, count)

        return Query(requests, write)

    def refuse(self, refused: Refused) -> Reply:
        """As FastAPI writes it; a body that does not have the form is a 422 there."""
        if refused.code is ErrorCode.MALFORMED:
            entry = {"loc": ["body"], "msg": refused.message, "type": "value_error"}
            return json_reply({"detail": [entry]}, 422)
        return json_reply({"detail": refused.message}, refused.status)

    def _check_known(self, names: Sequence[str]) -> None:
        for name in names:
            if name not in self._rewards:
                raise Refused(
                    ErrorCode.BAD_REQUEST,
                    f"unknown reward: {name[:200]}. available: {sorted(self._rewards)}",
                )

    def _write(
        self, replies: Sequence[ScoreReply], places: Sequence[Sequence[int]], count: int
    ) -> Reply:
        results: list[dict[str, dict[str, float]]] = [{} for _ in range(count)]
        errors: list[dict[str, str]] = [{} for _ in range(count)]
        assigned: list[dict[str, Any]] = [{} for _ in range(count)]
        for reply, numbers in zip(replies, places, strict=True):
            for result in reply.results:
                for number, outcome in zip(numbers, result.outcomes, strict=True):
                    try:
                        found = self._sub_metrics_of(result.name, outcome)
                    except (NoNumber, _Missing) as error:
                        errors[number][result.name] = str(error)
                        continue
                    results[number][result.name] = found
                    if not isinstance(outcome, Score):
                        assigned[number][result.name] = described(outcome)
        content: dict[str, Any] = {"results": results, "errors": errors}
        total = sum(map(len, assigned))
        if total:
            content["assigned"] = assigned
        return json_reply(content, assigned=total)

    def _sub_metrics_of(self, name: str, outcome: Outcome) -> dict[str, float]:
        """The sub-metrics in order; never empty."""
        value = self._numbers.of(name, outcome).value
        named = self._sub_metrics.get(name)
        first = name if named is None else named[0]
        if not isinstance(outcome, Score):
            return {first: value}
        parts = {k: v for k, v in outcome.components.items() if v is not None and k != first}
        if named is None:
            return {first: value, **parts}
        found = {first: value}
        for key in named[1:]:
            part = parts.get(key, outcome.metrics.get(key))
            if part is None:
                raise _Missing(f"reward {name!r}: this score has no sub-metric {key!r}")
            found[key] = part
        return found


class _Missing(Exception):
    """A sub-metric that the configuration names is not there."""


def _items(body: memoryview) -> list[Item]:
    """The samples of a body; of a large one one by one, so that other threads run between them."""
    if len(body) < LARGE:
        try:
            return msgspec.json.decode(body, type=ready(_Body)).requests
        except (ValueError, RecursionError):
            return _lenient(body)
    try:
        outline = msgspec.json.decode(body, type=ready(_Outline))
    except (ValueError, RecursionError):
        return _lenient(body)
    return [_item(bytes(raw), number) for number, raw in enumerate(outline.requests)]


def _item(piece: bytes, number: int) -> Item:
    try:
        return msgspec.json.decode(piece, type=ready(Item))
    except (ValueError, RecursionError):
        pass
    try:
        found = read_json(piece, _TextItem)
    except MalformedMessage as error:
        raise MalformedMessage(f"requests[{number}]: {error}") from None
    return _decoded_item(found, number)


def _lenient(body: memoryview) -> list[Item]:
    """The samples of a body that msgspec refuses: it takes no lone surrogates, and nothing but its
    alphabet in base64. Or what is wrong with it."""
    found = read_json(body, _TextBody).requests
    return [_decoded_item(item, number) for number, item in enumerate(found)]


def _decoded_item(item: _TextItem, number: int) -> Item:
    turns = [
        Turn(
            turn.text,
            _decoded(turn.image_b64, "image", f"requests[{number}].history[{place}]"),
            _decoded(turn.video_b64, "video", f"requests[{number}].history[{place}]"),
            turn.video_path,
        )
        for place, turn in enumerate(item.history)
    ]
    return Item(turns, item.required_rewards, item.metadata)


def _sample(item: Item, place: str) -> Sample:
    """The last turn is what was generated: its media, or its text where it has none."""
    if not item.history:
        raise Refused(ErrorCode.BAD_REQUEST, f"{place}: the history is empty")
    turns = [(turn, _media(turn, f"{place}.history[{n}]")) for n, turn in enumerate(item.history)]
    *earlier, (last, media) = turns
    metadata = item.metadata or EMPTY
    truth = next((metadata[key] for key in GROUND_TRUTHS if key in metadata), None)
    source = metadata.get("data_source")
    common: dict[str, Any] = {
        "ground_truth": truth,
        "metadata": metadata,
        "data_source": source if isinstance(source, str) else None,
    }
    if not media:
        return Sample(prompt=_prompt(earlier, None), response=last.text, **common)
    return Sample(
        prompt=_prompt(earlier, last.text),
        images=tuple(one for one in media if one.kind == "image"),
        videos=tuple(one for one in media if one.kind == "video"),
        **common,
    )


Turns = Sequence[tuple[Turn, tuple[Media, ...]]]


def _prompt(earlier: Turns, text: str | None) -> str | tuple[Message, ...] | None:
    """What the policy was given: the text of the turn that was generated, after those before.

    A source image is sent with the same text as the result; the text is then said once.
    """
    if earlier and text == earlier[-1][0].text:
        text = None
    if not earlier:
        return text
    if len(earlier) == 1 and text is None and not earlier[0][1]:
        return earlier[0][0].text
    roles = ("user", "assistant") if text is None and not _has_media(earlier) else ("user",)
    messages = [
        Message(roles[(len(earlier) - 1 - number) % len(roles)], _content(turn, media))
        for number, (turn, media) in enumerate(earlier)
    ]
    if text is not None:
        messages.append(Message("user", text))
    return tuple(messages)


def _has_media(turns: Turns) -> bool:
    return any(media for _, media in turns)


def _content(turn: Turn, media: Sequence[Media]) -> str | tuple[Part, ...]:
    if not media:
        return turn.text
    return (*(Part(media=one) for one in media), Part(text=turn.text))


def _media(turn: Turn, place: str) -> tuple[Media, ...]:
    if turn.video_b64 is not None and turn.video_path is not None:
        raise InvalidSample(f"{place}: video_b64 and video_path exclude each other")
    found: list[Media] = []
    if turn.image_b64 is not None:
        found.append(Media(kind="image", data=turn.image_b64))
    if turn.video_b64 is not None:
        found.append(Media(kind="video", data=turn.video_b64))
    if turn.video_path is not None:
        found.append(Media(kind="video", path=turn.video_path))
    return tuple(found)


def _decoded(text: str | None, kind: MediaKind, place: str) -> bytes | None:
    """What base64 holds; characters outside its alphabet are skipped, as UniRL's service does."""
    if text is None:
        return None
    if text.startswith("data:"):
        raise _undecodable(kind, place, "it is a data: URL; send the base64 alone")
    try:
        return binascii.a2b_base64(text)
    except (binascii.Error, ValueError) as error:
        raise _undecodable(kind, place, str(error)) from None


def _undecodable(kind: MediaKind, place: str, why: str) -> Refused:
    return Refused(ErrorCode.BAD_REQUEST, f"invalid {kind}_b64: {place}: {why}")
