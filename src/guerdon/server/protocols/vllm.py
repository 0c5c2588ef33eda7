"""Scalar reward models as vLLM and SGLang serve them, for clients of theirs such as verl.

    dialects: [vllm]

`POST /classify`, `/score`, `/pooling` (vLLM), `/v1/embeddings` (SGLang, OpenAI), `GET /v1/models`
and `/health`. A text or a conversation comes in, and a vector of one element goes out: the value of
the reward, as it is. What a request asks for that would change the value, and that is not done
here (an activation, a truncation, a chat template of its own), is refused.

A text is the response of a sample without a prompt; of a conversation, what follows the last user
message is the response; of a pair, the second text is.
"""

from __future__ import annotations

import base64
import secrets
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias, cast

import msgspec

from guerdon.errors import ConfigError, InvalidSample, nearest
from guerdon.outcome import EMPTY, Score
from guerdon.sample import Sample
from guerdon.server.protocols.dialect import (
    Dialect,
    PageRoute,
    Rewards,
    Standing,
    join,
)
from guerdon.server.protocols.json_body import json_reply, read_json
from guerdon.server.protocols.number import AGAIN
from guerdon.server.protocols.scalar import (
    Asking,
    Lacking,
    ScalarRoute,
    ScalarSettings,
    Scored,
    check_direction,
    conversation,
    maximised,
)
from guerdon.server.refusal import Refused
from guerdon.server.speech import Reply
from guerdon.wire.assigned import ASSIGNED, OUTCOME, described
from guerdon.wire.protocol import ErrorCode

SERVING = ("ready", "degraded")


class VllmSettings(ScalarSettings, frozen=True, kw_only=True):
    """What can be set.

    Attributes:
        reward: that is asked under every model name; not needed where one is hosted. Where several
            are and none is named here, a request's model names the reward.
        models: model name to hosted reward; then other names are refused, as vLLM does.
        timeout_seconds: of the scoring of one request. verl's client waits for ever.
    """

    models: Mapping[str, str] = EMPTY


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What every body may have beside what is to be scored."""

    model: str | None = None
    use_activation: bool | None = None
    activation: bool | None = None
    softmax: bool | None = None
    truncate_prompt_tokens: int | None = None
    chat_template: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    dimensions: int | None = None
    embed_dtype: str = "float32"
    encoding_format: Literal["float", "base64"] = "float"

    def check(self) -> None:
        """Refuse what would change the value and is not done here.

        Raises:
            InvalidSample: naming the field.
        """
        asked = {
            "use_activation": self.use_activation or self.activation or self.softmax,
            "truncate_prompt_tokens": self.truncate_prompt_tokens is not None,
            "chat_template": self.chat_template is not None,
            "chat_template_kwargs": bool(self.chat_template_kwargs),
            "dimensions": self.dimensions not in (None, 1),
            "embed_dtype": self.embed_dtype != "float32",
        }
        for name, set_ in asked.items():
            if set_:
                raise InvalidSample(
                    f"{name} would change the value, and a reward is given as it is: leave it out "
                    "(use_activation: false is understood)"
                )


class TextBody(Options, frozen=True, kw_only=True):
    """`/classify`, `/pooling` and `/v1/embeddings`."""

    input: str | list[Any] | None = None
    messages: list[dict[str, Any]] | None = None


class PairBody(Options, frozen=True, kw_only=True):
    """`/score`; the pairs have several names."""

    text_1: Any = None
    text_2: Any = None
    data_1: Any = None
    data_2: Any = None
    queries: Any = None
    documents: Any = None
    items: Any = None


PAIRS = (("text_1", "text_2"), ("data_1", "data_2"), ("queries", "documents"), ("queries", "items"))

Row: TypeAlias = Callable[[int, float, Options], dict[str, Any]]


class Vllm(Dialect):
    """The dialect; see the module."""

    name = "vllm"
    Settings = VllmSettings

    def __init__(self, settings: VllmSettings, rewards: Rewards) -> None:
        super().__init__(settings, rewards)
        models = Models(settings, rewards)
        prefix = settings.prefix
        rows: dict[str, tuple[str, Row]] = {
            "/classify": ("classify", _classified),
            "/pooling": ("pool", _pooled),
            "/v1/embeddings": ("embd", _embedded),
        }
        self._models = models
        self.routes = (
            *(
                Texts(join(prefix, path), settings, rewards, models, kind, row)
                for path, (kind, row) in rows.items()
            ),
            Pairs(join(prefix, "/score"), settings, rewards, models, "score", _paired),
            PageRoute(join(prefix, "/v1/models"), self._list, "The models, as OpenAI lists them"),
            PageRoute(join(prefix, "/health"), self._health, "200 when the rewards serve"),
        )

    def _list(self, _: Standing) -> Reply:
        data = [
            {"id": name, "object": "model", "owned_by": "guerdon", "root": reward}
            for name, reward in self._models.known.items()
        ]
        return json_reply({"object": "list", "data": data})

    def _health(self, standing: Standing) -> Reply:
        needed = set(self._models.known.values())
        ready = all(standing.states[name] in SERVING for name in needed)
        status = 200 if ready and not standing.draining else AGAIN
        return json_reply({"status": "ok" if status == 200 else "not ready"}, status)


class Models:
    """Which reward a model name means.

    Args:
        settings: of the dialect.
        rewards: the hosted rewards.

    Attributes:
        known: names that are listed, with their rewards.

    Raises:
        ConfigError: a model of the settings means a reward that is not hosted.
    """

    def __init__(self, settings: VllmSettings, rewards: Rewards) -> None:
        for model, reward in settings.models.items():
            if reward not in rewards:
                raise ConfigError(
                    f"models: {model!r} means no hosted reward: {reward!r}"
                    f"{nearest(reward, rewards)}"
                )
        named = settings.reward is not None or len(rewards) == 1
        self._default = maximised(settings.reward, rewards) if named else None
        if settings.models:
            self.known: Mapping[str, str] = settings.models
        elif self._default is not None:
            self.known = {self._default: self._default}
        else:
            self.known = {name: name for name in rewards}
        for name in self.known.values():
            check_direction(name, rewards[name])
        self._strict = bool(settings.models) or not named

    def reward(self, model: str | None) -> str:
        """The reward that is asked.

        Raises:
            Refused: the name is not known.
        """
        if model is None and self._default is not None:
            return self._default
        if not self._strict:
            return cast("str", self._default)
        if model in self.known:
            return self.known[cast("str", model)]
        known = ", ".join(self.known)
        raise Refused(
            ErrorCode.UNKNOWN_REWARD,
            f"the model {model!r} does not exist here; there are {known}"
            if model is not None
            else f"name a model: {known}",
        )


class _Route(ScalarRoute):
    """What the paths share."""

    def __init__(
        self,
        path: str,
        settings: VllmSettings,
        rewards: Rewards,
        models: Models,
        kind: str,
        row: Row,
    ) -> None:
        super().__init__(path, settings, rewards)
        self._models = models
        self._kind = kind
        self._row = row

    def asking(self, options: Options, samples: Sequence[Sample]) -> Asking:
        """What a checked body asks for."""
        options.check()
        if not samples:
            raise InvalidSample("there is nothing to score: the input is empty")
        reward = self._models.reward(options.model)
        row, kind = self._row, self._kind

        def write(scored: Sequence[Scored]) -> Any:
            data = [row(i, one.value, options) for i, one in enumerate(scored)]
            for entry, one in zip(data, scored, strict=True):
                if not isinstance(one.outcome, Score):
                    entry |= {ASSIGNED: True, OUTCOME: described(one.outcome)}
            return {
                "id": f"{kind}-{secrets.token_hex(16)}",
                "object": "list",
                "created": int(time.time()),
                "model": options.model or reward,
                "data": data,
                "usage": {"prompt_tokens": 0, "total_tokens": 0, "completion_tokens": 0},
            }

        return Asking(reward, samples, write)

    def error(self, status: int, message: str) -> Reply:
        """As vLLM and OpenAI write it."""
        kind = "ServiceUnavailableError" if status == AGAIN else "UnprocessableEntityError"
        return _error(status, kind, message)

    def refuse(self, refused: Refused) -> Reply:
        """As vLLM and OpenAI write it; a full queue is 503, as verl ends on any 4xx."""
        if refused.code is ErrorCode.OVERLOADED:
            return self.error(AGAIN, refused.message)
        kinds = {400: "BadRequestError", 404: "NotFoundError"}
        return _error(refused.status, kinds.get(refused.status, str(refused.code)), refused.message)


class Texts(_Route):
    """Texts, or one conversation.

    Args:
        path: with the prefix.
        settings: of the dialect.
        rewards: the hosted rewards.
        models: which reward a model means.
        kind: begins the ids of replies.
        row: writes one value.
    """

    summary = "Score texts or a conversation, as vLLM and SGLang do"

    def parse(self, body: memoryview) -> Asking:
        """One sample per text, or one for the messages."""
        asked = read_json(body, TextBody)
        if (asked.input is None) == (asked.messages is None):
            raise InvalidSample("give one of 'input' and 'messages'")
        if asked.messages is not None:
            return self.asking(asked, [conversation(asked.messages)] if asked.messages else [])
        texts = _texts(asked.input, "input")
        return self.asking(asked, [Sample(response=text) for text in texts])


class Pairs(_Route):
    """Pairs of a prompt and a response; see `Texts` for the arguments."""

    summary = "Score pairs of texts, as vLLM does"

    def parse(self, body: memoryview) -> Asking:
        """One sample per pair; one first text goes with every second one."""
        asked = read_json(body, PairBody)
        named = [
            (first, second)
            for first, second in PAIRS
            if getattr(asked, first) is not None and getattr(asked, second) is not None
        ]
        if len(named) != 1:
            raise InvalidSample("give one pair of fields: text_1 and text_2")
        ((first, second),) = named
        prompts = _texts(getattr(asked, first), first)
        responses = _texts(getattr(asked, second), second)
        if len(prompts) == 1:
            prompts = prompts * len(responses)
        if len(prompts) != len(responses):
            raise InvalidSample(
                f"{len(prompts)} of {first} and {len(responses)} of {second} make no pairs"
            )
        pairs = zip(prompts, responses, strict=True)
        return self.asking(asked, [Sample(prompt=one, response=other) for one, other in pairs])


def _texts(given: Any, name: str) -> list[str]:
    listed = cast("list[Any]", given) if isinstance(given, list) else [given]
    for place, text in enumerate(listed):
        if not isinstance(text, str):
            kind = type(text).__name__
            raise InvalidSample(f"{name}[{place}] is {kind}: only text can be scored, no token ids")
    return listed


def _error(status: int, kind: str, message: str) -> Reply:
    error = {"message": message, "type": kind, "param": None, "code": status}
    return json_reply({"error": error}, status)


def _classified(index: int, value: float, _: Options) -> dict[str, Any]:
    return {"index": index, "label": None, "probs": [value], "num_classes": 1}


def _paired(index: int, value: float, _: Options) -> dict[str, Any]:
    return {"index": index, "object": "score", "score": value}


def _pooled(index: int, value: float, options: Options) -> dict[str, Any]:
    return {"index": index, "object": "pooling", "data": _vector(value, options)}


def _embedded(index: int, value: float, options: Options) -> dict[str, Any]:
    return {"index": index, "object": "embedding", "embedding": _vector(value, options)}


def _vector(value: float, options: Options) -> list[float] | str:
    """A vector of one; OpenAI's own client asks for base64 of float32."""
    if options.encoding_format == "float":
        return [value]
    try:
        return base64.b64encode(struct.pack("<f", value)).decode()
    except OverflowError:
        raise Lacking(f"the value {value} is no float32: ask for encoding_format float") from None
