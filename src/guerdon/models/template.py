"""From messages to token ids: the chat template once, no doubled BOS, nothing cut unnoticed."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeAlias

import msgspec
from msgspec.structs import replace

from guerdon.errors import BadInput, ConfigError
from guerdon.sample import Message
from guerdon.tokens.control import ControlTokens

TooLong: TypeAlias = Literal["fail", "keep_end", "keep_start"]

Written: TypeAlias = Literal["text", "control"]
"""What a special token is that a response writes out."""

Messages: TypeAlias = Sequence[Message]

PROBE = "guerdon"
"""A response by which the template's end of a turn is found."""

LONE_SURROGATE = re.compile("[\ud800-\udfff]")
REPLACEMENT = "\ufffd"
"""One character for one, so that positions stay."""

NO_LIMIT = 10**9
"""Tokenizers without a limit say that it is about 1e30."""


class Encoded(msgspec.Struct, frozen=True):
    """A conversation as the model reads it.

    Attributes:
        ids: token ids.
        cut: tokens that did not fit and were left out.
        text: what was tokenized; empty where the policy's tokens were taken.
        offsets: characters of each token in `text`; empty unless asked for.
    """

    ids: tuple[int, ...]
    cut: int = 0
    text: str = ""
    offsets: tuple[tuple[int, int], ...] = ()


class Template:
    """Renders and tokenizes conversations for one model.

    Args:
        tokenizer: of transformers.
        form: `chat` applies the tokenizer's chat template, `concat` puts prompt and response one
            after the other, and a path names a Jinja file to use as the chat template.
        context: tokens that the model can take.
        too_long: what becomes of longer conversations: a failure, or the tokens at the end or at
            the start are kept; how many were cut is reported. Special tokens that the tokenizer
            puts around a plain text (BOS, CLS, SEP) stay.
        written: what a special token of the model is that a response writes out: `text` like any
            other, or `control`, as if the template had put it there.

    Raises:
        ConfigError: the tokenizer has no chat template, or the file is not there.
    """

    def __init__(
        self,
        tokenizer: Any,
        form: str,
        context: int,
        too_long: TooLong,
        written: Written = "text",
    ) -> None:
        self.tokenizer = tokenizer
        self.written: Written = written
        self.form = form
        self.context = context
        self.too_long = too_long
        self.asks = False
        """Whether the model is to answer, so that the beginning of its turn comes last."""
        self.closing: int | None = None
        """A token that comes after all others, where the model reads its score."""
        self._chat_template: str | None = None
        self._end: tuple[int, ...] | None = None
        if form not in ("chat", "concat"):
            self._chat_template = _read(form)
            self.form = "chat"
        elif form == "chat" and not tokenizer.chat_template:
            raise ConfigError(
                "the tokenizer has no chat template: say template='concat' for a model that was "
                "trained on plain text, or name a Jinja file"
            )

    def encode(
        self, conversations: Sequence[tuple[Messages, Messages]], *, offsets: bool = False
    ) -> list[Encoded | Exception]:
        """Token ids of prompts with their responses.

        Args:
            conversations: prompt and response messages.
            offsets: whether the characters of each token are wanted.

        Returns:
            In the order given; an exception in place of a conversation that cannot be encoded.
        """
        texts: list[str | Exception] = [self._guarded_text(*each) for each in conversations]
        good = [text for text in texts if isinstance(text, str)]
        tokens = iter(self._tokenize(good, offsets))
        return [
            self._fitted(text, *next(tokens)) if isinstance(text, str) else text for text in texts
        ]

    def text(self, prompt: Messages, response: Messages) -> str:
        """A conversation as text.

        Raises:
            BadInput: it holds media, or the template refuses its messages.
        """
        for message in (*prompt, *response):
            if not isinstance(message.content, str) and any(p.media for p in message.content or ()):
                raise BadInput(
                    f"a text model reads no media, and a {message.role} message has some"
                )
        if self.form == "concat":
            text = "".join(message.text for message in (*prompt, *response))
        else:
            text = self._render((*prompt, *response), more=self.asks)
        # Tokenizers take no text that cannot be written as UTF-8.
        return LONE_SURROGATE.sub(REPLACEMENT, text)

    def harmless(self, text: str) -> str:
        """What a policy wrote, so that it can begin and end no turn.

        Special tokens of the model in it are broken up (`ControlTokens`), but with `concat`: such a
        text may be rendered already, and end with its EOS.
        """
        if self.written == "control" or self.form == "concat":
            return text
        return self._control.broken_up(text)

    def harmless_turns(self, messages: Messages) -> tuple[Message, ...]:
        """Messages of a response, each `harmless`; media stay as they are."""
        return tuple(
            replace(message, content=self.harmless(message.content))
            if isinstance(message.content, str)
            else message
            for message in messages
        )

    def is_control(self, ids: Sequence[int]) -> bool:
        """Whether a policy's own token ids hold a special token that a response may not write."""
        return self.written == "text" and not self._control.ids.isdisjoint(ids)

    @cached_property
    def _control(self) -> ControlTokens:
        return ControlTokens(self.tokenizer)

    def begins(self, prompt: Messages, own: Sequence[int]) -> bool:
        """Whether a conversation with this prompt begins with a policy's ids of it.

        Raises:
            BadInput: the template refuses the messages.
        """
        if self.form != "chat":
            return False
        ((rendered, _),) = self._tokenize([self._render(prompt, more=True)], False)
        return rendered == list(own)

    def end_of_turn(self) -> tuple[int, ...]:
        """What the template puts after a response, as token ids."""
        if self._end is None:
            question = [Message("user", PROBE)]
            whole = self._render([*question, Message("assistant", PROBE)], more=False)
            _, _, tail = whole.rpartition(PROBE)
            ((ids, _),) = self._tokenize([tail], False)
            self._end = tuple(ids)
        return self._end

    def end_text(self) -> str:
        """The special token with which the template ends a response, as text; may be empty.

        A trainer that keeps special tokens when it decodes leaves it at the end of the response.
        """
        if self.form != "chat":
            return ""
        try:
            end = self.end_of_turn()
        except BadInput:  # a template for other roles
            return ""
        special = end and end[0] in self.tokenizer.all_special_ids
        return str(self.tokenizer.convert_ids_to_tokens(end[0])) if special else ""

    def fit(self, ids: Sequence[int]) -> Encoded | Exception:
        """Ids that are there already, cut as `too_long` says."""
        return self._fitted("", list(ids), [])

    def _guarded_text(self, prompt: Messages, response: Messages) -> str | Exception:
        try:
            return self.text(prompt, response)
        except BadInput as error:
            return error

    def _render(self, messages: Messages, *, more: bool) -> str:
        turns = [_plain(message) for message in messages]
        try:
            return self.tokenizer.apply_chat_template(
                turns,
                tokenize=False,
                add_generation_prompt=more,
                chat_template=self._chat_template,
            )
        except Exception as error:  # a template raises what it likes
            roles = ", ".join(message.role for message in messages)
            raise BadInput(
                f"the chat template refuses these messages (roles: {roles}): {error}"
            ) from error

    def _tokenize(
        self, texts: Sequence[str], offsets: bool
    ) -> list[tuple[list[int], list[tuple[int, int]]]]:
        if not texts:
            return []
        # A rendered template has its own special tokens; adding them again would double the BOS.
        found: Any = self.tokenizer(
            list(texts),
            add_special_tokens=self.form != "chat",
            return_offsets_mapping=offsets,
            return_attention_mask=False,
            truncation=False,
            verbose=False,
        )
        places: list[Any] = found["offset_mapping"] if offsets else [[]] * len(texts)
        return list(zip(found["input_ids"], places, strict=True))

    def _fitted(
        self, text: str, ids: list[int], offsets: list[tuple[int, int]]
    ) -> Encoded | Exception:
        if not ids:
            return BadInput("prompt and response together are no token at all")
        closing = [] if self.closing in (None, ids[-1]) else [self.closing]
        head, tail = (0, 0) if self.form == "chat" else self._frame
        room = self.context - len(closing)
        cut = max(0, len(ids) - room)
        if cut and room <= head + tail:
            return BadInput(f"{room} tokens leave no room for text beside the special ones")
        if cut and self.too_long == "fail":
            return BadInput(
                f"the conversation has {len(ids) + len(closing)} tokens and the model takes "
                f"{self.context}: filter such samples, or say too_long='keep_end' (drops the start "
                "of the prompt) or 'keep_start' (drops the end of the response)"
            )
        from_ = head if self.too_long == "keep_end" else len(ids) - tail - cut
        del ids[from_ : from_ + cut], offsets[from_ : from_ + cut]
        return Encoded((*ids, *closing), cut, text, tuple(map(tuple, offsets)))  # pyright: ignore[reportArgumentType]

    @cached_property
    def _frame(self) -> tuple[int, int]:
        """How many special tokens the tokenizer puts before and behind a plain text."""
        mask: list[int] = self.tokenizer(
            PROBE, add_special_tokens=True, return_special_tokens_mask=True
        )["special_tokens_mask"]
        if 0 not in mask:
            return 0, 0
        return mask.index(0), mask[::-1].index(0)


def context_of(tokenizer: Any, config: Any, max_length: int | None) -> int:
    """Tokens that a model can take.

    Args:
        tokenizer: its own limit counts.
        config: of the model; its positions count.
        max_length: the user's limit.

    Raises:
        ConfigError: the user's limit is beyond the model's.
    """
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    limits = [limit for limit in (positions, tokenizer.model_max_length) if limit]
    own = min((int(limit) for limit in limits if limit < NO_LIMIT), default=NO_LIMIT)
    if max_length is None:
        return own
    if not 0 < max_length <= own:
        raise ConfigError(f"max_length={max_length}: the model takes 1 to {own} tokens")
    return max_length


def special_token_id(tokenizer: Any, token: str, purpose: str) -> int:
    """The id of one token.

    Raises:
        ConfigError: the tokenizer has no such token, or splits it into several.
    """
    # As the token stands in a text: some tokenizers put a space before the first word.
    ids = tokenizer.encode(token, add_special_tokens=False)
    if len(ids) == 1 and ids[0] != tokenizer.unk_token_id:
        return int(ids[0])
    known = tokenizer.get_vocab().get(token)
    if known is not None:
        return int(known)
    raise ConfigError(
        f"{purpose}: the tokenizer knows no token {token!r}"
        + (f" (it splits it into {len(ids)})" if len(ids) > 1 else "")
    )


def same_tokenizer(one: Any, other: Any) -> bool:
    """Whether two tokenizers give the same ids for every text, as far as their tables say."""
    if one is other:
        return True
    tables: list[Callable[[Any], Any]] = [
        lambda t: t.get_vocab(),
        lambda t: t.all_special_tokens,
        lambda t: t.chat_template,
        lambda t: t.backend_tokenizer.to_str() if t.is_fast else t.init_kwargs,
    ]
    return all(table(one) == table(other) for table in tables)


def _read(path: str) -> str:
    file = Path(path).expanduser()
    if not file.is_file():
        raise ConfigError(
            f"template is 'chat', 'concat' or a Jinja file; there is no file {path!r}"
        )
    return file.read_text(encoding="utf-8")


def _plain(message: Message) -> dict[str, Any]:
    """A message as chat templates take it."""
    turn: dict[str, Any] = {"role": message.role, "content": message.text}
    if message.tool_calls:
        turn["tool_calls"] = [
            {"type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        turn["tool_call_id"] = message.tool_call_id
    if message.name is not None:
        turn["name"] = message.name
    return turn
