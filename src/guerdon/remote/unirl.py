"""UniRL's reward service as a reward.

reward: {name: unirl_remote, url: "http://10.0.0.2:8080", reward: pickscore}
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Unpack, cast

import msgspec

from guerdon.errors import BadInput, Blame, ConfigError, FailureKind
from guerdon.outcome import Failure, Score, as_number, failure
from guerdon.remote.address import Urls
from guerdon.remote.foreign import BatchTalk, ForeignReward, Given, plain_json, unusable
from guerdon.remote.pictures import ImageForm, encoded_image, prompt_of, result_of, sources_of
from guerdon.sample import Media, Sample
from guerdon.wire.assigned import restored
from guerdon.wire.typed import ready

if TYPE_CHECKING:
    from guerdon.remote.reply import Answer

ANSWER = "answer"
"""Key of the metadata in which UniRL's rewards find the ground truth."""
SHOWN = 300


class RemoteUniRL(ForeignReward):
    """Scores with one reward of UniRL's reward service, or of a server that speaks as it does.

    An image goes as one turn with the prompt's text; a source image in the prompt makes a turn
    before it; a video goes as the bytes of its file. A sample without media goes as two turns of
    text, which UniRL's own service refuses and Guerdon's understands. The ground truth goes as
    `metadata["answer"]` where the metadata has none.

    A reward that is missing from a result, an empty one, and a sub-metric that is null or no
    number are failures; UniRL's own client takes an empty one for 0.

    Args:
        url: of the service, or several that score alike; see `ForeignReward`.
        reward: name under which the service has it.
        sub_metric: which one is the value; the first by default, as for UniRL's client. The others
            become metrics.
        metadata_keys: which keys of the metadata travel; all of them by default.
        image_format: of images that are arrays; encoded ones travel as they are.
        image_quality: of a JPEG.
        **talk: how servers are asked, and what the reward declares; see `ForeignReward`.

    Raises:
        ConfigError: a setting that cannot work.

    Example:
        >>> RemoteUniRL("http://127.0.0.1:8080", reward="pickscore")
        <reward unirl_remote of http://127.0.0.1:8080/score>
    """

    name = "unirl_remote"

    def __init__(
        self,
        url: Urls,
        *,
        reward: str,
        sub_metric: str | None = None,
        metadata_keys: Sequence[str] | None = None,
        image_format: ImageForm = "png",
        image_quality: int = 95,
        **talk: Unpack[BatchTalk],
    ) -> None:
        if not reward:
            raise ConfigError("unirl_remote: reward= names the reward of the service")
        self._reward = reward
        self._sub_metric = sub_metric
        self._keys = None if metadata_keys is None else tuple(metadata_keys)
        self._image = (image_format, image_quality)
        super().__init__(url, **talk)

    def path(self) -> str:
        """Below the URL of a server."""
        return "/score"

    def item(self, sample: Sample) -> Any:
        """The entry of the sample in a request."""
        return plain_json(
            {
                "history": self._history(sample),
                "required_rewards": [self._reward],
                "metadata": self._metadata(sample),
            }
        )

    def request(self, items: Sequence[Any]) -> bytes:
        """The body that asks for some items."""
        return b'{"requests":[' + b",".join(items) + b"]}"

    def read(self, answer: Answer, items: Sequence[Any]) -> list[Given]:
        """The score of each item, or why there is none."""
        from guerdon.remote.exchange import json_of
        from guerdon.remote.reply import bad_reply

        try:
            reply = msgspec.convert(json_of(answer), ready(_Reply))
        except msgspec.ValidationError as error:
            raise bad_reply(answer.url, f"it is no reply of UniRL's service: {error}") from None
        if len(reply.results) != len(items):
            raise bad_reply(
                answer.url, f"it has {len(reply.results)} results for {len(items)} requests"
            )
        none: list[dict[str, Any]] = [{} for _ in items]
        errors, assigned = reply.errors or none, reply.assigned or none
        if len(errors) != len(items) or len(assigned) != len(items):
            raise bad_reply(answer.url, "its errors are not as many as its results")
        return [
            self._given(result, error, flagged)
            for result, error, flagged in zip(reply.results, errors, assigned, strict=True)
        ]

    # Requests.

    def _history(self, sample: Sample) -> list[dict[str, str]]:
        if not sample.videos and not sample.images:
            return self._text(sample)
        text = prompt_of(sample)
        if sample.videos:
            return [{"text": text, "video_b64": _base64(_video(sample))}]
        images = [*sources_of(sample), result_of(sample)]
        form, quality = self._image
        return [
            {"text": text, "image_b64": _base64(encoded_image(image, form, quality))}
            for image in images
        ]

    def _text(self, sample: Sample) -> list[dict[str, str]]:
        response = sample.response_text
        if response is None:
            raise BadInput("the sample has no image, no video and no response text to send")
        turns = [] if sample.prompt is None else [{"text": m.text} for m in _messages(sample)]
        return [*turns, {"text": response}]

    def _metadata(self, sample: Sample) -> dict[str, Any] | None:
        found = dict(sample.metadata)
        if self._keys is not None:
            found = {key: found[key] for key in self._keys if key in found}
        if sample.ground_truth is not None:
            found.setdefault(ANSWER, sample.ground_truth)
        return found or None

    # Replies.

    def _given(
        self, result: Mapping[str, Any], errors: Mapping[str, str], assigned: Mapping[str, Any]
    ) -> Given:
        name = self._reward
        if name in assigned:  # a number that stands for a failure stays a failure here
            return restored(assigned[name])
        metrics = result.get(name)
        if metrics is None:
            told = errors.get(name)
            if told is None:
                return unusable(f"the reward {name!r} is missing from the reply, without an error")
            return failure(FailureKind.RAISED, told[:SHOWN], Blame.SCORER)
        if not isinstance(metrics, dict) or not metrics:
            return unusable(f"the reward {name!r} has no sub-metrics")
        return self._score(cast("dict[str, Any]", metrics))

    def _score(self, metrics: Mapping[str, Any]) -> Score | Failure:
        numbers: dict[str, float] = {}
        for key, found in metrics.items():
            number = None if isinstance(found, bool) else as_number(found)
            if found is None or (number is not None and not math.isfinite(number)):
                told = f"the sub-metric {key[:100]!r} is {found}: the service could not score it"
                return failure(FailureKind.NON_FINITE, told, Blame.SCORER)
            if number is None:
                return unusable(f"the sub-metric {key[:100]!r} is a {type(found).__name__}")
            numbers[key] = number
        chosen = self._sub_metric or next(iter(numbers))
        if chosen not in numbers:
            known = ", ".join(numbers)[:SHOWN]
            return unusable(f"there is no sub-metric {chosen!r}, only {known}")
        others = {key: number for key, number in numbers.items() if key != chosen}
        return Score(value=numbers[chosen], metrics=others)


class _Reply(msgspec.Struct, frozen=True):
    results: list[dict[str, Any]]
    errors: list[dict[str, str]] | None = None
    assigned: list[dict[str, Any]] | None = None


def _messages(sample: Sample) -> Any:
    return sample.prompt_messages or ()


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _video(sample: Sample) -> bytes:
    """The bytes of the one video.

    Raises:
        BadInput: there are more, or it is an array.
    """
    from guerdon.media.still import encoded_bytes

    media: Media = sample.videos[0]
    if len(sample.videos) != 1 or sample.images:
        raise BadInput("the sample has more than one video, or images beside it: one is sent")
    if media.array is not None:
        raise BadInput("the video is an array: UniRL's service takes the bytes of a video file")
    return encoded_bytes(media)
