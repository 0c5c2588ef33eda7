"""Scalar reward models behind a vLLM, SGLang or OpenAI-compatible server.

    reward: {name: pooling, url: "http://127.0.0.1:8000", api: classify, model: Skywork-Reward}

Each API has its own words for the same thing: a text or a conversation in, a vector of numbers out,
of which one element is the reward.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, Unpack, cast

import msgspec

from guerdon.errors import BadInput, Blame, ConfigError, FailureKind, nearest
from guerdon.outcome import EMPTY, as_number, failure
from guerdon.remote.address import Urls
from guerdon.remote.conversation import ChatTemplate, messages_of, plain_texts
from guerdon.remote.foreign import BatchTalk, ForeignReward, Given, plain_json, unusable
from guerdon.sample import Sample
from guerdon.wire.assigned import restored
from guerdon.wire.typed import ready

if TYPE_CHECKING:
    from guerdon.remote.reply import Answer

Api: TypeAlias = Literal["classify", "score", "pooling", "embeddings"]
Form: TypeAlias = Literal["messages", "chat", "text", "pair"]

PATHS: Mapping[str, str] = {
    "classify": "/classify",
    "score": "/score",
    "pooling": "/pooling",
    "embeddings": "/v1/embeddings",
}
RESULT: Mapping[str, str] = {
    "classify": "probs",
    "score": "score",
    "pooling": "data",
    "embeddings": "embedding",
}
"""The field of a row that holds the numbers."""
FORMS: Mapping[str, tuple[Form, ...]] = {
    "classify": ("messages", "chat", "text"),
    "score": ("pair",),
    "pooling": ("messages", "chat", "text"),
    "embeddings": ("chat", "text"),
}
"""How a sample may be sent; the first is the default where nothing is said."""
RAW: Mapping[str, Any] = {"use_activation": False}
"""vLLM's default is a sigmoid or softmax over the scores; reward models are trained on raw ones."""


class PoolingReward(ForeignReward):
    """Scores with a reward model behind a vLLM, SGLang or OpenAI-compatible server.

    The text of a reward model is the whole conversation under its own chat template. With the form
    `messages` the server renders it; with `chat` it is rendered here by the template of `tokenizer`
    and sent as text, as verl does; with `text` prompt and response follow each other as they are.
    The API `score` gets prompt and response as a pair. A number that a Guerdon server assigned is
    the failure or the abstention that it stands for.

    Args:
        url: of the server, or several that score alike; see `ForeignReward`.
        api: `classify`, `score` and `pooling` of vLLM, or `embeddings` of SGLang (vLLM scales the
            vectors of its `/v1/embeddings` to length 1, which makes every reward 1 or -1).
        model: name under which the server has the model; None leaves it out.
        form: `messages`, `chat` or `text`; by default `chat` where there is a tokenizer, else the
            first that the API can take without one.
        tokenizer: folder or name of the reward model's tokenizer, for `chat`.
        path: below the URL, where it is not the usual one of the API.
        fields: further fields of every request, such as `{"truncate_prompt_tokens": 4096}`. For
            vLLM's APIs `use_activation` is false where it is not set here.
        classes: length of the vector that the model gives; another length is a failure, so that a
            model that is no reward model gives no reward.
        element: which element of the vector is the reward. Of `pooling` with a vector per token it
            is taken from the last token.
        **talk: how servers are asked, and what the reward declares; see `ForeignReward`.
            With `messages` a request has one sample, whatever `batch_size` says.

    Raises:
        ConfigError: a setting that cannot work.

    Example:
        >>> rm = PoolingReward("http://127.0.0.1:8000", api="classify", model="rm")
        >>> rm.name, rm.scope, rm.form
        ('pooling', 'batch', 'messages')
    """

    name = "pooling"

    def __init__(
        self,
        url: Urls,
        *,
        api: Api = "classify",
        model: str | None = None,
        form: Form | None = None,
        tokenizer: str | None = None,
        path: str | None = None,
        fields: Mapping[str, Any] = EMPTY,
        classes: int = 1,
        element: int = -1,
        **talk: Unpack[BatchTalk],
    ) -> None:
        if api not in PATHS:
            raise ConfigError(f"pooling: there is no api {api!r}{nearest(api, PATHS)}")
        if classes < 1 or not -classes <= element < classes:
            raise ConfigError(f"pooling: a vector of {classes} elements has no element {element}")
        self.form: Form = _form(api, form, tokenizer)
        self._api = api
        self._path = PATHS[api] if path is None else f"/{path.lstrip('/')}"
        self._template = ChatTemplate(tokenizer) if tokenizer is not None else None
        self._fields = dict(fields) if api == "embeddings" else {**RAW, **fields}
        if model is not None:
            self._fields["model"] = model
        self._classes, self._element = classes, element
        if self.form == "messages":
            talk["batch_size"] = 1
        super().__init__(url, **talk)

    def path(self) -> str:
        """Of the API."""
        return self._path

    def item(self, sample: Sample) -> Any:
        """The text, the pair, or the messages as JSON."""
        if self.form == "messages":
            return plain_json(messages_of(sample))
        if self.form == "chat":
            written = len(sample.response_messages or ())
            template = cast("ChatTemplate", self._template)
            return template.render(messages_of(sample), written=written)
        prompt, response = plain_texts(sample)
        if self.form == "text":
            return prompt + response
        if sample.prompt is None:
            raise BadInput("the sample has no prompt: a pair is a prompt and its response")
        return prompt, response

    def request(self, items: Sequence[Any]) -> bytes:
        """The body that asks for some items."""
        body = dict(self._fields)
        if self.form == "messages":
            (messages,) = items
            body["messages"] = msgspec.Raw(messages)
        elif self.form == "pair":
            body["text_1"], body["text_2"] = [a for a, _ in items], [b for _, b in items]
        else:
            body["input"] = items
        return msgspec.json.encode(body)

    def read(self, answer: Answer, items: Sequence[Any]) -> list[Given]:
        """One number per item, in their order, whatever the order of the rows."""
        from guerdon.remote.exchange import json_of
        from guerdon.remote.reply import bad_reply

        field = RESULT[self._api]
        try:
            rows = msgspec.convert(json_of(answer), ready(_Reply)).data
        except msgspec.ValidationError as error:
            raise bad_reply(answer.url, f"it is no reply of {self._path}: {error}") from None
        if sorted(row.index for row in rows) != list(range(len(items))):
            raise bad_reply(
                answer.url,
                f"it has {len(rows)} rows for {len(items)} samples, or their indexes are not "
                f"those of the samples",
            )
        by_index = {row.index: row for row in rows}
        return [
            restored(row.guerdon_outcome)
            if row.guerdon_assigned or row.guerdon_outcome is not None
            else self._number(getattr(row, field))
            for row in (by_index[index] for index in range(len(items)))
        ]

    def _number(self, found: Any) -> Given:
        """The reward in what a row holds: a number, a vector, or a vector per token."""
        if self._api == "score":
            found = [found]
        if isinstance(found, list) and found and isinstance(found[-1], list):
            found = cast("list[Any]", found)[-1]
        if not isinstance(found, list):
            return unusable(f"a row has no {RESULT[self._api]!r} that is a list of numbers")
        vector = cast("list[Any]", found)
        if len(vector) != self._classes:
            return unusable(
                f"the vector has {len(vector)} elements, not {self._classes}: is it a reward "
                "model? If so, set classes= and element="
            )
        value = vector[self._element]
        if value is None:
            return failure(
                FailureKind.NON_FINITE,
                "the server gave null, which is how JSON writes NaN",
                Blame.SCORER,
            )
        number = None if isinstance(value, bool) else as_number(value)
        if number is None:
            return unusable(f"the value is a {type(value).__name__}, not a number")
        return number


class _Row(msgspec.Struct):
    """One row of any of the APIs; only the field of the asked one is looked at.

    The last two are what a Guerdon server writes beside a number that it assigned, see
    `guerdon.wire.assigned`.
    """

    index: int
    probs: Any = None
    score: Any = None
    data: Any = None
    embedding: Any = None
    guerdon_assigned: Any = None
    guerdon_outcome: Any = None


class _Reply(msgspec.Struct):
    data: list[_Row]


def _form(api: str, form: Form | None, tokenizer: str | None) -> Form:
    """How samples are sent.

    Raises:
        ConfigError: the API does not take the form, or the form needs a tokenizer.
    """
    allowed = FORMS[api]
    if form is None:
        form = "chat" if tokenizer is not None and "chat" in allowed else allowed[0]
    if form not in allowed:
        known = ", ".join(allowed)
        raise ConfigError(f"pooling: the api {api!r} takes the form {known}, not {form!r}")
    if form == "chat" and tokenizer is None:
        raise ConfigError(
            "pooling: the form 'chat' needs tokenizer=, the folder of the reward model's "
            "tokenizer; or send plain text with form='text'"
        )
    return form
