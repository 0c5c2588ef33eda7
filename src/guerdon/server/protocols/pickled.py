"""Pickle over HTTP: VeRL-Omni, deepgen_rl, flow_grpo's reward-server, LLaVA-server, EditReward.

    dialects: [{name: pickle, paths: {/ocr: ocr, /geneval: geneval}}]

All of them POST a pickled dict with `images` and want a pickled dict back with status 200 exactly.
What a request holds beside the images says which of them asks:

| client | request | reply |
|---|---|---|
| VeRL-Omni, deepgen_rl | `images`, `prompts`, `metadata` | `scores` |
| EditReward | `images` as `{source, edited}`, `prompts`, `metadata` | `scores` |
| flow_grpo: DeQA, UnifiedReward | `images`, maybe `prompts` | `outputs` |
| GenEval of both | `images`, `meta_datas`, `only_strict`, maybe in `metadata` | five keys |
| LLaVA-server | `images`, `queries`, maybe `answers` | `outputs`, `precision`, `recall`, `f1` |

A request that cannot be scored whole is an error whole, as the clients know nothing else: a pickled
`{"error": text}` with 503 and Retry-After where another try may help, which all of them repeat, and
422 where it will not, which none of them does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, cast

from guerdon.errors import ConfigError, MalformedMessage
from guerdon.outcome import EMPTY, Outcome, Score
from guerdon.sample import Media, Message, Part, Sample
from guerdon.server.protocols.dialect import (
    Dialect,
    DialectSettings,
    Query,
    Rewards,
    ScoreRoute,
    checked_path,
    join,
)
from guerdon.server.protocols.number import (
    AGAIN,
    NoNumber,
    Numbers,
    message_of,
    status_of,
    told,
)
from guerdon.server.protocols.scalar import maximised
from guerdon.server.refusal import Refused
from guerdon.server.speech import Headers, Reply
from guerdon.wire.assigned import behind
from guerdon.wire.protocol import ScoreReply, ScoreRequest
from guerdon.wire.restricted_pickle import dump_pickle, load_pickle

PICKLE_TYPE = "application/octet-stream"
RETRY_AFTER = (b"retry-after", b"1")

GENEVAL_TAGS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
"""Groups of GenEval's prompts (reward-server, `gen_eval.py`)."""
OTHER_TAG = -10.0
"""What a sample has in the groups of the other tags there."""
STRICT, LOOSE = "strict", "correct"
"""Components or metrics of a GenEval reward: every count exact, and at least as many."""
BERT_SCORES = ("precision", "recall", "f1")
"""What LLaVA-server says of its outputs, where answers were given."""


class PickleSettings(DialectSettings, frozen=True, kw_only=True):
    """What can be set.

    Attributes:
        timeout_seconds: of the scoring of one request; all clients give up after 120 s.
        paths: the reward that each path serves. Without any, `/` serves the only hosted reward.
        arrays: whether numpy arrays are read, which flow_grpo sends as prompts of UnifiedReward.
    """

    timeout_seconds: float = 110.0
    paths: Mapping[str, str] = EMPTY
    arrays: bool = False


class Pickle(Dialect):
    """The dialect; see the module."""

    name = "pickle"
    Settings = PickleSettings
    warning = (
        "it reads pickles. Nothing in them is run here, but its clients run what a reply names: "
        "let them talk to this server only over a network that you trust, and prefer another "
        "dialect where a client has one"
    )

    def __init__(self, settings: PickleSettings, rewards: Rewards) -> None:
        super().__init__(settings, rewards)
        paths = dict(settings.paths) or {"/": maximised(None, rewards)}
        routes: dict[str, Scoring] = {}
        for path, reward in paths.items():
            where = join(settings.prefix, checked_path(path))
            if where in routes:
                raise ConfigError(f"paths: {where} is there twice")
            routes[where] = Scoring(where, maximised(reward, rewards), settings, rewards)
        self.routes = tuple(routes.values())


Written: TypeAlias = dict[str, Any]
Form: TypeAlias = Callable[["Numbered"], Written]


class Numbered:
    """What came of one request, as the forms of replies need it.

    Args:
        values: one number per sample.
        outcomes: they are from.
    """

    def __init__(self, values: Sequence[float], outcomes: Sequence[Outcome]) -> None:
        self.values = list(values)
        self.outcomes = outcomes

    def part(self, name: str) -> list[float]:
        """A component or metric of every sample.

        Raises:
            NoNumber: a sample has none.
        """
        found: list[float] = []
        for position, outcome in enumerate(self.outcomes):
            value = None
            if isinstance(outcome, Score):
                value = outcome.components.get(name, outcome.metrics.get(name))
            if value is None:
                raise _Lacking(position, outcome, f"has no component or metric {name!r}")
            found.append(value)
        return found

    def information(self, name: str, queries: Sequence[int]) -> list[Any]:
        """A list in the information of every sample, with an item for each query.

        Raises:
            NoNumber: a sample has none.
        """
        found: list[Any] = []
        for position, (outcome, count) in enumerate(zip(self.outcomes, queries, strict=True)):
            value = outcome.info.get(name) if isinstance(outcome, Score) else None
            if not isinstance(value, list | tuple) or len(cast("list[Any]", value)) != count:
                lacks = f"has no information {name!r}: one item for each query"
                raise _Lacking(position, outcome, lacks)
            found.append(list(cast("list[Any]", value)))
        return found


class _Lacking(NoNumber):
    """A score lacks something that the reply must have."""

    def __init__(self, position: int, outcome: Outcome, lacks: str) -> None:
        super().__init__(outcome)
        self.position = position
        what = "its score" if isinstance(outcome, Score) else told(outcome)
        self.args = (f"reward {outcome.reward!r}: {what} {lacks}",)


class Scoring(ScoreRoute):
    """One path.

    Args:
        path: with the prefix.
        reward: that it serves.
        settings: of the dialect.
        rewards: the hosted rewards.
    """

    bulky = True

    def __init__(self, path: str, reward: str, settings: PickleSettings, rewards: Rewards) -> None:
        super().__init__(path)
        self.summary = f"Score images with {reward}, by pickles"
        self._reward = reward
        self._arrays = settings.arrays
        self._numbers = Numbers(settings, rewards)

    def read(self, body: memoryview, headers: Headers) -> Query:
        """The images of a pickle."""
        payload = load_pickle(body, arrays=self._arrays)
        if not isinstance(payload, dict):
            raise MalformedMessage(f"a dict is pickled here, not a {type(payload).__name__}")
        samples, form = _read(cast("dict[str, Any]", payload))
        request = ScoreRequest(samples=samples, rewards=[self._reward])

        def write(replies: Sequence[ScoreReply]) -> Reply:
            return self._write(replies[0].results[0].outcomes, form)

        return Query([request], write)

    def refuse(self, refused: Refused) -> Reply:
        """An error as the clients look for it."""
        return _error(refused.message, refused.status)

    def _write(self, outcomes: Sequence[Outcome], form: Form) -> Reply:
        numbers, lost = self._numbers.of_all(self._reward, outcomes)
        if lost:
            return self._lost(lost, len(outcomes))
        try:
            content = form(Numbered([number.value for number in numbers], outcomes))
        except _Lacking as error:
            return self._lost({error.position: error}, len(outcomes))
        flags = behind(outcomes)
        if flags:
            content["assigned"] = flags
        return Reply(200, dump_pickle(content), PICKLE_TYPE, assigned=len(flags))

    def _lost(self, lost: Mapping[int, NoNumber], samples: int) -> Reply:
        status = status_of(lost.values())
        return _error(message_of(lost, samples), status, (RETRY_AFTER,) if status == AGAIN else ())


def _error(message: str, status: int, headers: tuple[tuple[bytes, bytes], ...] = ()) -> Reply:
    return Reply(status, dump_pickle({"error": message}), PICKLE_TYPE, headers)


# Requests.


def _read(payload: Mapping[str, Any]) -> tuple[list[Sample], Form]:
    """The samples of a request, and what the client that sends such a one wants back."""
    images = payload.get("images")
    if images is None:
        raise MalformedMessage(f"the dict has no 'images', only {_keys(payload)}")
    metadata = payload.get("metadata")
    common = _dict(metadata, "metadata") if metadata is not None else EMPTY
    prompts = payload.get("prompts")
    if isinstance(images, dict):
        return _edits(cast("dict[str, Any]", images), prompts, common), _scores
    pictures = _images(images, "images")
    count = len(pictures)
    texts = _texts(prompts, count) if prompts is not None else [None] * count
    if "queries" in payload:
        return _queries(payload, pictures)
    outer = payload if "meta_datas" in payload else common
    if "meta_datas" in outer:
        return _geneval(outer, pictures, texts)
    samples = [_sample(i, t, common) for i, t in zip(pictures, texts, strict=True)]
    return samples, _scores if "metadata" in payload else _outputs


def _sample(image: Media, text: str | None, metadata: Mapping[str, Any]) -> Sample:
    """VeRL-Omni sends the ground truth as the prompt, and nothing else."""
    return Sample(prompt=text, ground_truth=text, images=(image,), metadata=metadata)


def _edits(images: Mapping[str, Any], prompts: Any, metadata: Mapping[str, Any]) -> list[Sample]:
    if not {"source", "edited"} <= images.keys():
        raise MalformedMessage(f"images have no 'source' and 'edited', only {_keys(images)}")
    sources = _images(images["source"], "images['source']")
    edited = _images(images["edited"], "images['edited']")
    texts = _texts(prompts, len(edited))
    if len(sources) != len(edited):
        raise MalformedMessage(f"there are {len(sources)} sources for {len(edited)} edited images")
    return [
        Sample(
            prompt=(Message("user", (Part(media=source), Part(text=text))),),
            ground_truth=text,
            images=(image,),
            metadata=metadata,
        )
        for source, image, text in zip(sources, edited, texts, strict=True)
    ]


def _geneval(
    payload: Mapping[str, Any], images: Sequence[Media], texts: Sequence[str | None]
) -> tuple[list[Sample], Form]:
    metas = [_dict(item, "meta_datas") for item in _list(payload["meta_datas"], "meta_datas")]
    if len(metas) != len(images):
        raise MalformedMessage(f"there are {len(metas)} meta_datas for {len(images)} images")
    only_strict = payload.get("only_strict", False)
    if not isinstance(only_strict, bool):
        raise MalformedMessage("only_strict is true or false")
    samples: list[Sample] = []
    for image, text, meta in zip(images, texts, metas, strict=True):
        prompt = meta.get("prompt", text)
        if prompt is not None and not isinstance(prompt, str):
            raise MalformedMessage("the prompt in meta_datas is no text")
        samples.append(Sample(prompt=prompt, images=(image,), metadata=meta))
    tags = [meta.get("tag") for meta in metas]

    def write(found: Numbered) -> Written:
        strict = found.part(STRICT)
        loose = [0.0] * len(tags) if only_strict else found.part(LOOSE)
        return {
            "scores": found.values,
            "rewards": loose,
            "strict_rewards": strict,
            "group_rewards": _by_tag(loose, tags),
            "group_strict_rewards": _by_tag(strict, tags),
        }

    return samples, write


def _by_tag(values: Sequence[float], tags: Sequence[Any]) -> dict[str, list[float]]:
    return {
        tag: [v if found == tag else OTHER_TAG for v, found in zip(values, tags, strict=True)]
        for tag in GENEVAL_TAGS
    }


def _queries(payload: Mapping[str, Any], images: Sequence[Media]) -> tuple[list[Sample], Form]:
    queries = _lists_of_text(payload["queries"], "queries", len(images))
    answers = payload.get("answers")
    rows = None if answers is None else _lists_of_text(answers, "answers", len(images))
    samples: list[Sample] = []
    for number, (image, asked) in enumerate(zip(images, queries, strict=True)):
        metadata: dict[str, Any] = {"queries": asked}
        if rows is not None:
            metadata["answers"] = rows[number]
            if len(rows[number]) != len(asked):
                raise MalformedMessage(
                    f"image {number} has {len(asked)} queries and {len(rows[number])} answers"
                )
        samples.append(Sample(prompt="\n".join(asked), images=(image,), metadata=metadata))
    counts = [len(asked) for asked in queries]
    wanted = ("outputs", *BERT_SCORES) if rows is not None else ("outputs",)

    def write(found: Numbered) -> Written:
        return {name: found.information(name, counts) for name in wanted}

    return samples, write


# Replies.


def _scores(found: Numbered) -> Written:
    return {"scores": found.values}


def _outputs(found: Numbered) -> Written:
    return {"outputs": found.values}


# Fields.


def _images(value: Any, what: str) -> list[Media]:
    found: list[Media] = []
    for number, item in enumerate(_list(value, what)):
        if not isinstance(item, bytes):
            raise MalformedMessage(
                f"{what}[{number}] is a {type(item).__name__}; images are bytes, such as JPEG"
            )
        found.append(Media(kind="image", data=item))
    return found


def _texts(value: Any, count: int) -> list[str]:
    texts = _list(value, "prompts")
    if len(texts) != count:
        raise MalformedMessage(f"there are {len(texts)} prompts for {count} images")
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise MalformedMessage(f"prompts[{number}] is a {type(text).__name__}, not text")
    return texts


def _lists_of_text(value: Any, what: str, count: int) -> list[list[str]]:
    rows = _list(value, what)
    if len(rows) != count:
        raise MalformedMessage(f"there are {len(rows)} {what} for {count} images")
    found: list[list[str]] = []
    for number, row in enumerate(rows):
        texts = _list(row, f"{what}[{number}]")
        if not all(isinstance(text, str) for text in texts):
            raise MalformedMessage(f"{what}[{number}] holds something that is no text")
        found.append(list(texts))
    return found


def _list(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list | tuple):
        raise MalformedMessage(f"{what} is a {type(value).__name__}, not a list")
    return list(cast("list[Any]", value))


def _dict(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise MalformedMessage(f"{what} holds a {type(value).__name__}, not a dict")
    return cast("dict[str, Any]", value)


def _keys(value: Mapping[str, Any]) -> str:
    return ", ".join(repr(key[:50]) for key in list(value)[:10]) or "nothing"
