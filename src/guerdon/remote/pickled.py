"""The pickle scorers of deepgen_rl, flow_grpo and their kin as a reward.

reward: {name: pickle_remote, url: "http://10.0.0.2:18083"}

Such a server runs what it is sent, and its usual clients run what they get back. This one sends
plain data alone, and reads a reply only with the machine that cannot call anything.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, Unpack, cast, get_args

import msgspec

from guerdon.errors import BadInput, Blame, ConfigError, FailureKind, MalformedMessage
from guerdon.outcome import Score, as_number, failure
from guerdon.remote.address import Urls
from guerdon.remote.foreign import BatchTalk, ForeignReward, Given, unusable
from guerdon.remote.pictures import ImageForm, encoded_image, prompt_of, result_of, sources_of
from guerdon.sample import Sample
from guerdon.wire.assigned import restored
from guerdon.wire.restricted_pickle import dump_pickle, load_pickle
from guerdon.wire.typed import ready

if TYPE_CHECKING:
    from guerdon.remote.reply import Answer

Service: TypeAlias = Literal["scores", "edit", "outputs", "geneval"]
"""What a server is sent and gives: `scores` (deepgen_rl, VeRL-Omni) takes images and prompts,
`edit` (EditReward) sources and results, `outputs` (flow_grpo's DeQA and UnifiedReward) images and
prompts, `geneval` images and metadata."""

PICKLE_TYPE = "application/octet-stream"
SHOWN = 300
STRICT = "strict_rewards"


class Item(msgspec.Struct, frozen=True):
    """What is sent for one sample."""

    image: bytes
    source: bytes
    prompt: str
    metadata: dict[str, Any]


class RemotePickle(ForeignReward):
    """Scores with a server that takes a pickled dict of images and gives a pickled dict of numbers.

    Args:
        url: of the server with its path, or several that score alike; see `ForeignReward`.
        service: see `Service`.
        metadata_keys: which keys of the metadata travel to `geneval`; all of them by default.
        strict: whether the value of `geneval` is its strict verdict instead of its score, and
            whether the server is asked for that alone.
        arrays: whether arrays and numbers of numpy may be in a reply. They are read as data;
            nothing is run for them either.
        image_format: of images that are arrays; encoded ones travel as they are. flow_grpo's
            servers take JPEG alone.
        image_quality: of a JPEG.
        **talk: how servers are asked, and what the reward declares; see `ForeignReward`.

    Raises:
        ConfigError: a setting that cannot work.

    Example:
        >>> RemotePickle("http://127.0.0.1:18085", service="geneval")
        <reward pickle_remote of http://127.0.0.1:18085>
    """

    name = "pickle_remote"

    def __init__(
        self,
        url: Urls,
        *,
        service: Service = "scores",
        metadata_keys: Sequence[str] | None = None,
        strict: bool = False,
        arrays: bool = True,
        image_format: ImageForm = "png",
        image_quality: int = 95,
        **talk: Unpack[BatchTalk],
    ) -> None:
        if service not in get_args(Service):
            known = ", ".join(get_args(Service))
            raise ConfigError(f"pickle_remote: service is one of {known}, not {service!r}")
        self._service = service
        self._keys = None if metadata_keys is None else tuple(metadata_keys)
        self._strict = strict
        self._arrays = arrays
        self._image = (image_format, image_quality)
        super().__init__(url, **talk)

    def path(self) -> str:
        """The URL has it."""
        return ""

    def headers(self) -> Mapping[str, str]:
        """What is sent beside a request."""
        return {"content-type": PICKLE_TYPE}

    def item(self, sample: Sample) -> Any:
        """What is sent for one sample, as MessagePack, which is cheap to compare."""
        form, quality = self._image
        source = b""
        if self._service == "edit":
            sources = sources_of(sample)
            if len(sources) != 1:
                raise BadInput(f"the prompt has {len(sources)} images; one was edited")
            source = encoded_image(sources[0], form, quality)
        item = Item(
            image=encoded_image(result_of(sample), form, quality),
            source=source,
            # GenEval's verdict is from the metadata alone.
            prompt=(sample.prompt_text or "") if self._service == "geneval" else prompt_of(sample),
            metadata=self._metadata(sample) if self._service == "geneval" else {},
        )
        try:
            return msgspec.msgpack.encode(item)
        except (TypeError, ValueError, OverflowError) as error:
            raise BadInput(f"the metadata cannot be sent: {error}") from None

    def request(self, items: Sequence[Any]) -> bytes:
        """The pickle that asks for some items."""
        found = [msgspec.msgpack.decode(item, type=ready(Item)) for item in items]
        images: Any = [item.image for item in found]
        prompts = [item.prompt for item in found]
        match self._service:
            case "edit":
                both = {"source": [item.source for item in found], "edited": images}
                return dump_pickle({"images": both, "prompts": prompts, "metadata": {}})
            case "outputs":
                return dump_pickle({"images": images, "prompts": prompts})
            case "geneval":
                asked = {"meta_datas": [i.metadata for i in found], "only_strict": self._strict}
                # flow_grpo's server looks for them here, deepgen_rl's in the metadata.
                content = {"images": images, "prompts": prompts, **asked, "metadata": asked}
                return dump_pickle(content)
            case _:
                return dump_pickle({"images": images, "prompts": prompts, "metadata": {}})

    def read(self, answer: Answer, items: Sequence[Any]) -> list[Given]:
        """The number of each item."""
        from guerdon.remote.reply import bad_reply

        reply = self._decoded(answer)
        if "error" in reply:
            told = f"{answer.url}: {_tail(reply['error'])}"
            return [failure(FailureKind.RAISED, told, Blame.SCORER)] * len(items)
        key = "outputs" if self._service == "outputs" else "scores"
        if self._service == "geneval" and self._strict:
            key = STRICT
        rows = _row(reply.get(key))
        if rows is None or len(rows) != len(items):
            found = "no list" if rows is None else f"{len(rows)} numbers"
            raise bad_reply(answer.url, f"it has {found} under {key!r} for {len(items)} images")
        flags = reply.get("assigned")
        assigned = cast("dict[Any, Any]", flags) if isinstance(flags, dict) else {}
        return [
            restored(assigned[str(i)]) if str(i) in assigned else self._given(row, reply, i)
            for i, row in enumerate(rows)
        ]

    def explain(self, answer: Answer) -> str:
        """The `error` of a pickled body, or the beginning of a text."""
        try:
            return _tail(self._decoded(answer).get("error"))
        except Exception:  # it is no pickle, or none that is read
            return super().explain(answer)

    def _metadata(self, sample: Sample) -> dict[str, Any]:
        found = dict(sample.metadata)
        if self._keys is not None:
            found = {key: found[key] for key in self._keys if key in found}
        if sample.prompt_text is not None:
            found.setdefault("prompt", sample.prompt_text)
        return found

    def _decoded(self, answer: Answer) -> dict[str, Any]:
        """The dict in a reply.

        Raises:
            Refusal: it is none.
        """
        from guerdon.remote.reply import bad_reply

        try:
            reply = load_pickle(answer.body, arrays=self._arrays)
        except MalformedMessage as error:
            raise bad_reply(answer.url, str(error)) from None
        if not isinstance(reply, dict):
            raise bad_reply(answer.url, f"it is a {type(reply).__name__}, not a dict")
        return cast("dict[str, Any]", reply)

    def _given(self, found: Any, reply: Mapping[str, Any], place: int) -> Given:
        number = None if isinstance(found, bool) else as_number(found)
        if number is None:
            return unusable(f"the score is a {type(found).__name__}, not a number")
        if not math.isfinite(number):
            return failure(FailureKind.NON_FINITE, f"the score is {number}", Blame.SCORER)
        metrics: dict[str, float] = {}
        if self._service == "geneval":
            for key in ("scores", STRICT):
                row = _row(reply.get(key)) or []
                other = as_number(row[place]) if place < len(row) else None
                if other is not None and math.isfinite(other):
                    metrics[key.removesuffix("s")] = other
        return Score(value=number, metrics=metrics)


def _row(found: Any) -> list[Any] | None:
    """A list of numbers; an array of one dimension, or of elements with one number each, is one."""
    if hasattr(found, "tolist"):
        found = found.tolist()
    if not isinstance(found, list | tuple):
        return None
    return [_single(item) for item in cast("Sequence[Any]", found)]


def _single(item: Any) -> Any:
    """The number in a list or array of one."""
    if hasattr(item, "tolist"):
        item = item.tolist()
    if not isinstance(item, list):
        return item
    items = cast("list[Any]", item)
    return items[0] if len(items) == 1 else items


def _tail(told: Any) -> str:
    """The end of an error: the services give whole tracebacks, whose last line says what it was."""
    return repr(str(told).strip()[-SHOWN:])
