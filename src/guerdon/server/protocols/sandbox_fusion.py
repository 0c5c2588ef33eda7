"""SandboxFusion's `POST /run_code`: runs a program in the sandbox of this server.

    rewards: {run: {reward: program_runs}}
    dialects: [sandbox_fusion]

A request is a sample of the hosted reward `program_runs`, so it waits in the same queue, under the
same limits and tokens, as everything that the server scores. How a program ended is the reply, with
status 200; so is a sandbox that failed for good (`SandboxError`). What may work at another time is
a 504: the one status after which verl's client tries again. A request that is wrong, or asks for
what is not offered, is a 422.

SandboxFusion's other paths are refused with a 501 that says what to use instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus

from guerdon.errors import ConfigError, FailureKind
from guerdon.outcome import Failure, Score
from guerdon.resources.sandbox_fusion_form import (
    BROKEN,
    LANGUAGES,
    PATH,
    RunCodeRequest,
    RunCodeResponse,
    plain,
    program_of,
)
from guerdon.rules.agent.program_reward import RUN_CODE, ProgramRuns
from guerdon.sample import Sample
from guerdon.server.protocols.dialect import (
    Dialect,
    DialectSettings,
    PageRoute,
    Query,
    Rewards,
    ScoreRoute,
    Standing,
    chosen_reward,
    join,
)
from guerdon.server.protocols.json_body import json_reply, read_json, write_json
from guerdon.server.protocols.number import told
from guerdon.server.refusal import Refused
from guerdon.server.speech import Headers, Reply
from guerdon.wire.protocol import RETRYABLE_CODES, ErrorCode, ScoreReply, ScoreRequest

AGAIN = HTTPStatus.GATEWAY_TIMEOUT

_DATA = (
    "this server has no data sets of its own; send the program of each test case to /run_code, or "
    "score with the rewards code_stdio and code_python, which know the forms of APPS, TACO, "
    "CodeContests, HumanEval and MBPP"
)
ELSEWHERE: Mapping[str, str] = {
    "/run_jupyter": "send the cells as one program to /run_code, or use the resource PythonSpec, "
    "which keeps its variables",
    "/submit": _DATA,
    "/get_prompts": _DATA,
    "/get_prompt_by_id": _DATA,
    "/get_metrics": _DATA,
    "/get_metrics_function": _DATA,
    "/list_ids": _DATA,
}
"""Paths of SandboxFusion where `POST` is not spoken, and what to use instead."""

LIST_DATASETS = "/list_datasets"
"""The one such path that is asked with `GET`."""


class SandboxFusionSettings(DialectSettings, frozen=True, kw_only=True):
    """What can be set.

    Attributes:
        reward: the hosted `program_runs`; not needed where one is hosted alone.
        timeout_seconds: of one request with its waiting. verl waits 10 s longer than the times for
            compiling and running together.
    """

    reward: str | None = None
    timeout_seconds: float = 120.0


class SandboxFusion(Dialect):
    """The dialect; see the module."""

    name = "sandbox_fusion"
    Settings = SandboxFusionSettings

    def __init__(self, settings: SandboxFusionSettings, rewards: Rewards) -> None:
        super().__init__(settings, rewards)
        name = chosen_reward(settings.reward, rewards)
        if not isinstance(rewards[name], ProgramRuns):
            raise ConfigError(
                f"reward {name!r} is a {rewards[name].name}: what runs programs for others is "
                "program_runs"
            )
        self.routes = (
            Running(join(settings.prefix, PATH), name),
            PageRoute(join(settings.prefix, "/v1/ping"), _pong, "Whether SandboxFusion is there"),
            PageRoute(join(settings.prefix, LIST_DATASETS), _no_data, NotOffered.summary),
            *(NotOffered(join(settings.prefix, path), told) for path, told in ELSEWHERE.items()),
        )


class Running(ScoreRoute):
    """`POST /run_code`.

    Args:
        path: with the prefix.
        reward: hosted name of `program_runs`.
    """

    summary = "Run a program, as SandboxFusion is asked for it"
    bulky = True

    def __init__(self, path: str, reward: str) -> None:
        super().__init__(path)
        self._reward = reward

    def read(self, body: memoryview, headers: Headers) -> Query:
        """One sample, which holds the request as it came."""
        request = read_json(body, RunCodeRequest)
        if request.language not in LANGUAGES:
            raise Refused(
                ErrorCode.MALFORMED,
                f"language: {request.language!r:.100} is none of {', '.join(LANGUAGES)}",
            )
        program_of(request)  # what is wrong with it is told before it waits in a queue
        asked = write_json(request).decode("utf-8", "surrogatepass")
        sample = Sample(response=request.code, metadata={RUN_CODE: asked})
        return Query([ScoreRequest(samples=[sample], rewards=[self._reward])], _write)

    def refuse(self, refused: Refused) -> Reply:
        """As FastAPI writes it; what may work later is a 504, after which verl comes back."""
        if refused.code in (ErrorCode.MALFORMED, ErrorCode.BAD_REQUEST):
            return _wrong(refused.message)
        again = refused.code in RETRYABLE_CODES
        return json_reply({"detail": refused.message}, AGAIN if again else refused.status)


class NotOffered(ScoreRoute):
    """A path of SandboxFusion that is not spoken here.

    Args:
        path: with the prefix.
        told: what to use instead.
    """

    summary = "Not offered: says what to use instead"

    def __init__(self, path: str, told: str) -> None:
        super().__init__(path)
        self._told = told

    def read(self, body: memoryview, headers: Headers) -> Query:
        """Nothing."""
        raise Refused(ErrorCode.NOT_FOUND, _not_offered(self.path, self._told))

    def refuse(self, refused: Refused) -> Reply:
        """As FastAPI writes it."""
        absent = refused.code is ErrorCode.NOT_FOUND
        status = HTTPStatus.NOT_IMPLEMENTED if absent else refused.status
        return json_reply({"detail": refused.message}, status)


def _wrong(message: str) -> Reply:
    entry = {"loc": ["body"], "msg": message, "type": "value_error"}
    return json_reply({"detail": [entry]}, HTTPStatus.UNPROCESSABLE_ENTITY)


def _write(replies: Sequence[ScoreReply]) -> Reply:
    outcome = replies[0].results[0].outcomes[0]
    if isinstance(outcome, Score):
        return json_reply(outcome.info[RUN_CODE])
    if isinstance(outcome, Failure) and outcome.kind is FailureKind.BAD_INPUT:
        return _wrong(outcome.message)
    failed = plain(RunCodeResponse(status=BROKEN, message=told(outcome)))
    again = isinstance(outcome, Failure) and outcome.retryable
    return json_reply(failed, AGAIN if again else HTTPStatus.OK)


def _pong(_: Standing) -> Reply:
    return json_reply("pong")


def _no_data(_: Standing) -> Reply:
    refused = {"detail": _not_offered(LIST_DATASETS, _DATA)}
    return json_reply(refused, HTTPStatus.NOT_IMPLEMENTED)


def _not_offered(path: str, told: str) -> str:
    return f"{path} is not offered here: {told}"
