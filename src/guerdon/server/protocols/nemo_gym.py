"""A resources server of NeMo Gym: `POST /verify`, `/seed_session`, `/aggregate_metrics`.

    dialects: [nemo_gym]

A request has an OpenAI Responses object and the columns of its task; the reply is the request again
with `reward` and more. A sample without a value is told apart by fields beside a `reward` of 0.0,
which the schema demands: `_ng_failure_class` sends the row to the file of failures, `mask_sample`
leaves it out of scores and loss, `failure_kind` and `failure_reason` say why. `GET /reverify_mode`
says that rollouts can be verified again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import msgspec

from guerdon.errors import InvalidSample
from guerdon.outcome import Failure, Outcome, Score
from guerdon.sample import Message, Sample
from guerdon.server.protocols.dialect import (
    Dialect,
    PageRoute,
    Query,
    Rewards,
    ScoreRoute,
    join,
)
from guerdon.server.protocols.json_body import detail, json_reply, read_json, write_json
from guerdon.server.protocols.nemo_gym_metrics import aggregate
from guerdon.server.protocols.number import NoNumber, Numbers, told
from guerdon.server.protocols.scalar import ScalarSettings, maximised
from guerdon.server.refusal import Refused
from guerdon.server.speech import Headers, Reply
from guerdon.wire.assigned import ASSIGNED
from guerdon.wire.protocol import ScoreReply, ScoreRequest

FAILURE_CLASS = "judge_failed"
"""The class by which Gym's collector sends a row to the file of failures, to be tried again."""
NO_REWARD = 0.0
"""What stands in the field that the schema demands, beside the fields that say that it is none."""
KINDS = "guerdon"
"""A server's own kinds of failure are written `<server>:<kind>` (`nemo_gym/failure_kinds.py`)."""
ABSTAINED = "abstained"
OWN_FIELDS = frozenset(
    {"reward", "reward_components", "mask_sample", "failure_kind", "failure_reason"}
    | {"_ng_failure_class", "_ng_failure_judge_error", ASSIGNED}
)
"""Fields of a reply that never come from the request, such as those of an earlier verification."""
PARAMS, RESPONSE = "responses_create_params", "response"


class NemoGymSettings(ScalarSettings, frozen=True, kw_only=True):
    """What can be set.

    Attributes:
        ground_truth: columns of which the first that is there holds the ground truth; nested ones
            with dots, such as `verifier_metadata.answer`.
        timeout_seconds: of the scoring of one request.
    """

    ground_truth: tuple[str, ...] = ("expected_answer", "ground_truth", "answer")


class NemoGym(Dialect):
    """The dialect; see the module."""

    name = "nemo_gym"
    Settings = NemoGymSettings

    def __init__(self, settings: NemoGymSettings, rewards: Rewards) -> None:
        super().__init__(settings, rewards)
        prefix = settings.prefix
        self.routes = (
            Verify(join(prefix, "/verify"), settings, rewards),
            Seed(join(prefix, "/seed_session")),
            Aggregate(join(prefix, "/aggregate_metrics")),
            PageRoute(
                join(prefix, "/reverify_mode"),
                lambda _: json_reply("stateless"),
                "Whether rollouts can be verified again",
            ),
        )


class Seed(ScoreRoute):
    """`POST /seed_session`: there is nothing to prepare."""

    summary = "Begin a session of NeMo Gym; nothing happens"

    def read(self, body: memoryview, headers: Headers) -> Query:
        """Whatever it says."""
        session = _object(body).get("resources_session_id")
        reply = {} if session is None else {"resources_session_id": session}
        return Query([], lambda _: json_reply(reply))

    def refuse(self, refused: Refused) -> Reply:
        """As FastAPI writes it."""
        return detail(refused)


class Aggregate(ScoreRoute):
    """`POST /aggregate_metrics`: statistics of rows that were verified."""

    summary = "Describe the rows of an evaluation, as NeMo Gym asks for it"

    def read(self, body: memoryview, headers: Headers) -> Query:
        """Rows in, statistics out."""
        rows = _object(body).get("verify_responses")
        if not isinstance(rows, list):
            raise InvalidSample("there are no 'verify_responses' that are a list of rows")
        for place, row in enumerate(cast("list[Any]", rows)):
            if not isinstance(row, dict):
                raise InvalidSample(f"verify_responses[{place}] is no object")
        found = aggregate(cast("list[dict[str, Any]]", rows))
        return Query([], lambda _: json_reply(found))

    def refuse(self, refused: Refused) -> Reply:
        """As FastAPI writes it."""
        return detail(refused)


class Verify(ScoreRoute):
    """`POST /verify`.

    Args:
        path: with the prefix.
        settings: of the dialect.
        rewards: the hosted rewards.
    """

    summary = "Score a rollout, as NeMo Gym asks for it"

    def __init__(self, path: str, settings: NemoGymSettings, rewards: Rewards) -> None:
        super().__init__(path)
        self._reward = maximised(settings.reward, rewards)
        self._numbers = Numbers(settings, rewards)
        self._ground_truth = settings.ground_truth

    def read(self, body: memoryview, headers: Headers) -> Query:
        """The one rollout."""
        row = _object(body)
        sample = self._sample(row)
        # The reply quotes the request; as bytes it holds no object of the sample.
        echo = {name: write_json(v) for name, v in row.items() if name not in OWN_FIELDS}

        def write(replies: Sequence[ScoreReply]) -> Reply:
            (outcome,) = replies[0].results[0].outcomes
            return self._write(outcome, {name: msgspec.Raw(v) for name, v in echo.items()})

        return Query([ScoreRequest(samples=[sample], rewards=[self._reward])], write)

    def refuse(self, refused: Refused) -> Reply:
        """As FastAPI writes it."""
        return detail(refused)

    def _sample(self, row: Mapping[str, Any]) -> Sample:
        params, response = row.get(PARAMS), row.get(RESPONSE)
        if not isinstance(params, dict) or not isinstance(response, dict):
            raise InvalidSample(f"a rollout has {PARAMS!r} and {RESPONSE!r}, both objects")
        given = cast("dict[str, Any]", params)
        prompt = items_of(given.get("input"), f"{PARAMS}.input")
        instructions = given.get("instructions")
        if isinstance(instructions, str):
            prompt = [Message("system", instructions), *prompt]
        given_output = cast("dict[str, Any]", response).get("output")
        if not isinstance(given_output, list):
            raise InvalidSample(f"{RESPONSE} has no 'output' that is a list of items")
        output = items_of(given_output, f"{RESPONSE}.output")
        columns = {name: v for name, v in row.items() if name not in (PARAMS, RESPONSE)}
        source = row.get("data_source")
        return Sample(
            prompt=tuple(prompt) or None,
            # A policy that says nothing has an empty response, which is scored.
            response=tuple(output) or "",
            ground_truth=self._truth(row),
            data_source=source if isinstance(source, str) else None,
            metadata=columns,
        )

    def _truth(self, row: Mapping[str, Any]) -> Any:
        for path in self._ground_truth:
            found: Any = row
            for key in path.split("."):
                found = cast("dict[str, Any]", found).get(key) if isinstance(found, dict) else None
            if found is not None:
                return found
        return None

    def _write(self, outcome: Outcome, echo: Mapping[str, Any]) -> Reply:
        try:
            value, assigned = self._numbers.of(self._reward, outcome)
        except NoNumber as lost:
            return json_reply({**echo, **_failed(lost.outcome)})
        found: dict[str, Any] = {**echo, "reward": value, "mask_sample": False}
        if isinstance(outcome, Score):
            parts = {name: v for name, v in outcome.components.items() if v is not None}
            logged = {name: v for name, v in outcome.metrics.items() if v is not None}
            if parts:
                found["reward_components"] = parts
            # Top-level numbers become metrics; a column of the task is never overwritten.
            found = {**{name: v for name, v in logged.items() if name not in OWN_FIELDS}, **found}
        else:
            found |= {ASSIGNED: True, **_reason(outcome)}
        return json_reply(found, assigned=int(assigned))


def _object(body: memoryview) -> dict[str, Any]:
    found = cast("object", read_json(body))
    if not isinstance(found, dict):
        raise InvalidSample("the body is no object")
    return cast("dict[str, Any]", found)


def _failed(outcome: Outcome) -> dict[str, Any]:
    """The fields by which every version of Gym knows that there is no reward."""
    return {
        "reward": NO_REWARD,
        "mask_sample": True,
        "_ng_failure_class": FAILURE_CLASS,
        "_ng_failure_judge_error": _told(outcome),
        **_reason(outcome),
    }


def _reason(outcome: Outcome) -> dict[str, str]:
    kind = str(outcome.kind) if isinstance(outcome, Failure) else ABSTAINED
    return {"failure_kind": f"{KINDS}:{kind}", "failure_reason": _told(outcome)}


def _told(outcome: Outcome) -> str:
    """In one line, without halves of surrogate pairs, which a response may hold."""
    return told(outcome).encode(errors="backslashreplace").decode()


def items_of(given: Any, place: str) -> list[Message]:
    """The messages in the items of OpenAI's Responses API; reasoning is left out.

    Args:
        given: a text, or items: messages, function calls and their outputs, reasoning.
        place: for errors.

    Raises:
        InvalidSample: an item is malformed.

    Example:
        >>> items_of("2 + 2?", "input")[0].role
        'user'
    """
    if given is None:
        return []
    if isinstance(given, str):
        return [Message("user", given)]
    if not isinstance(given, list):
        raise InvalidSample(f"{place} is neither text nor a list of items")
    found: list[Message] = []
    for number, item in enumerate(cast("list[Any]", given)):
        if not isinstance(item, dict):
            raise InvalidSample(f"{place}[{number}] is no object")
        found.extend(_item(cast("dict[str, Any]", item), f"{place}[{number}]"))
    return found


def _item(item: Mapping[str, Any], place: str) -> list[Message]:
    kind = item.get("type", "message")
    if kind == "message":
        return [Message.parse({"role": item.get("role"), "content": _content(item, place)})]
    if kind == "function_call":
        call = {"id": item.get("call_id"), "function": item}
        return [Message.parse({"role": "assistant", "content": None, "tool_calls": [call]})]
    if kind == "function_call_output":
        output = item.get("output")
        text = output if isinstance(output, str) else msgspec.json.encode(output).decode()
        call_id = item.get("call_id")
        return [Message("tool", text, tool_call_id=call_id if isinstance(call_id, str) else None)]
    if kind == "reasoning":
        return []
    raise InvalidSample(f"{place} has the type {str(kind)[:100]!r}, which is not understood")


TEXTS: Mapping[str, str] = {"input_text": "text", "output_text": "text", "refusal": "refusal"}


def _content(item: Mapping[str, Any], place: str) -> Any:
    """Content whose parts have the names of the Responses API, in those of the chat form."""
    content = item.get("content")
    if not isinstance(content, list):
        return content
    parts: list[Any] = []
    for part in cast("list[Any]", content):
        found = cast("dict[str, Any]", part) if isinstance(part, dict) else {}
        field = TEXTS.get(str(found.get("type")))
        if field is None:
            parts.append(part)
        elif isinstance(found.get(field), str):
            parts.append({"type": "text", "text": found[field]})
        else:
            raise InvalidSample(f"{place}: a part of type {found['type']!r} has no text")
    return parts
