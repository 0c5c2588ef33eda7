"""AgentFly's trajectories: messages as dicts, in one conversation or in several segments.

Source: AgentFly, `agents/agent_base.py` (`parse`, `extract_final_response`) and the end of
`agents/chain/chain_base.py`, in later versions of `agents/rollout/base.py` (`finalize_chain`).
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from guerdon.errors import InvalidSample
from guerdon.sample import Media, Message, Part
from guerdon.trainers.messages import with_media

SIGNATURES = {b"\xff\xd8\xff": "jpeg", b"GIF8": "gif", b"RIFF": "webp", b"BM": "bmp"}
"""First bytes of images; any other is taken for a PNG, as by AgentFly (`utils/vision.py`)."""

NONE_TEXT = {"type": "text", "text": None}
NO_TEXT = {"type": "text", "text": ""}


def parted(trajectory: Any, final_response: Any) -> tuple[Any, Any]:
    """Prompt and response: what stands before the model's first message, and what follows.

    Images may be PIL's, and a text None, as AgentFly lets messages of OpenAI's models be.

    Args:
        trajectory: the messages of the rollout, or its segments where the context was folded: each
            is a list of messages that begins with the prompt again, and they follow one another.
        final_response: what AgentFly takes for the answer: the text of the last message of the
            model or of a tool. It is the response where the model has said nothing else.

    Raises:
        InvalidSample: no messages.

    Example:
        >>> asked = {"role": "user", "content": "2 + 2?"}
        >>> said = {"role": "assistant", "content": [{"type": "text", "text": "4"}]}
        >>> prompt, response = parted([asked, said], "4")
        >>> prompt[0]["content"], response
        ('2 + 2?', '4')
    """
    messages: list[Any] = list(with_media(list(_messages(trajectory))))
    start = next((i for i, m in enumerate(messages) if m.get("role") == "assistant"), None)
    if start is None:
        return messages or None, final_response
    if start == len(messages) - 1 and not messages[start].get("tool_calls"):
        return messages[:start] or None, final_response
    return messages[:start] or None, messages[start:]


def turns(*conversations: Sequence[Message] | None) -> list[dict[str, Any]]:
    """Messages as AgentFly's rewards find them in a trajectory: contents are lists of blocks.

    Example:
        >>> turns([Message("tool", "4", tool_call_id="c1", name="add")])[0]["content"]
        [{'type': 'text', 'text': '4'}]
    """
    return [_turn(message) for messages in conversations for message in messages or ()]


def _messages(trajectory: Any) -> Iterable[dict[str, Any]]:
    if trajectory is None:
        return
    if not isinstance(trajectory, Sequence) or isinstance(trajectory, str):
        raise InvalidSample(f"a trajectory is a list, got a {type(trajectory).__name__}")
    for one in cast("Sequence[Any]", trajectory):
        if isinstance(one, Mapping):
            yield _named(cast("Mapping[str, Any]", one))
        elif isinstance(one, Sequence) and not isinstance(one, str):
            yield from _messages(one)
        else:
            raise InvalidSample(f"a trajectory has messages as dicts, got a {type(one).__name__}")


def _named(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message whose tool is named as everywhere else, and whose texts are texts."""
    found = dict(message)
    parts = found.get("content")
    if isinstance(parts, list):
        known = cast("list[Any]", parts)
        found["content"] = [NO_TEXT if part == NONE_TEXT else part for part in known]
    if "tool_name" in found:
        found.setdefault("name", found["tool_name"])
    return found


def _turn(message: Message) -> dict[str, Any]:
    content = message.content
    parts = content if isinstance(content, tuple) else (Part(text=content or ""),)
    found: dict[str, Any] = {"role": message.role, "content": [_block(part) for part in parts]}
    if message.role == "assistant":
        found["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in message.tool_calls
        ]
    if message.role == "tool":
        found.update(tool_call_id=message.tool_call_id, tool_name=message.name)
    return found


def _block(part: Part) -> dict[str, Any]:
    if part.media is None:
        return {"type": "text", "text": part.text or ""}
    kind = part.media.kind
    return {"type": kind, kind: _source(part.media)}


def _source(media: Media) -> Any:
    """A `data:` URL, as AgentFly writes images of tools; else what the sample holds."""
    data = media.data
    if data is None:
        return media.path if media.path is not None else media.array
    form = "*"
    if media.kind == "image":
        form = next((form for head, form in SIGNATURES.items() if data.startswith(head)), "png")
    return f"data:{media.kind}/{form};base64,{base64.b64encode(data).decode('ascii')}"
