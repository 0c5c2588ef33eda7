"""The reward `environment_score`: what an environment says about the rollout in it."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import msgspec

from guerdon.errors import BadInput, GuerdonError, InvalidReward, Unavailable, UnknownReward
from guerdon.outcome import Score
from guerdon.registry import target_of
from guerdon.resources import Context, Resource, Spec
from guerdon.reward import BaseReward
from guerdon.rules.json_form import parse_json
from guerdon.rules.tools import NoCall, readable_calls
from guerdon.sample import Message, Sample

FAULTS = (GuerdonError, ImportError, MemoryError, NameError, NotImplementedError)
"""Exceptions that no illegal step makes: they are faults of the environment's own, and failures."""

SHOWN = 300
"""Characters that are kept of why a step was no legal one."""


class Environment(Resource):
    """Base class of environments; a subclass says how a step is made and what it came to.

    Its `start`, `reset` and `stop` are those of any resource; its `check` too.
    """

    def begin(self, columns: Mapping[str, Any]) -> None:
        """Begin the episode of a row; for what is too slow to start anew for each.

        A `BadInput` says that the row has none, an `OSError` that the environment is broken.
        """

    def step(self, tool: str, arguments: Mapping[str, Any]) -> Any:
        """Make one step: a call of a tool with its arguments. What it returns is not looked at.

        An exception says that the step was no legal one, which is the candidate's doing. An
        `OSError` says that the environment is broken, and so do those of `FAULTS`.
        """
        raise NotImplementedError

    def score(self) -> float | Mapping[str, Any] | Score | None:
        """What the rollout came to: anything that a reward may return."""
        raise NotImplementedError


class EnvironmentScore(BaseReward):
    """What an environment gives for a rollout: games, shops, simulators, puzzles.

    The environment is a resource: a user's subclass of `Environment`, made from a spec of the
    user's, which may take columns of the row. The tool calls of the model are made again in it; or
    `replay` is off, and the caller's context holds the environment that its tools used.

    Args:
        spec: reference to the class of the spec, such as "shop:ShopSpec" or
            "path/to/shop.py:ShopSpec".
        columns: names of metadata columns that the spec takes as fields: each value has an
            environment of its own.
        episode: names of metadata columns that `begin` takes: rows share environments.
        fields: further fields of the spec.
        replay: whether the model's tool calls are made again.
        low: lowest score.
        high: highest score.

    Raises:
        InvalidReward: the reference names no spec.
        BadInput: a column is missing, or the spec does not take it.
    """

    name = "environment_score"
    value_range = (0.0, 1.0)
    work = "io"

    def __init__(
        self,
        spec: str,
        *,
        columns: Sequence[str] = (),
        episode: Sequence[str] = (),
        fields: Mapping[str, Any] | None = None,
        replay: bool = True,
        low: float = 0.0,
        high: float = 1.0,
    ) -> None:
        self._kind = _spec_class(spec)
        self._columns = tuple(columns)
        self._episode = tuple(episode)
        self._fields = dict(fields or {})
        self._replay = replay
        self.value_range = (low, high)

    def call(self, context: Context, sample: Sample, response_messages: Sequence[Message]) -> Any:
        """Make the rollout again, and ask the environment."""
        taken = (*self._columns, *self._episode)
        missing = [name for name in taken if name not in sample.metadata]
        if missing:
            raise BadInput(f"the row lacks {', '.join(missing)}, which the environment takes")
        columns = {name: sample.metadata[name] for name in self._columns}
        try:
            spec = self._kind(**self._fields, **columns)
        except TypeError as error:
            raise BadInput(f"{self._kind.__name__} cannot be made of the row: {error}") from None
        environment = cast("Environment", context.acquire_resource_sync(spec))
        illegal: list[str] = []
        if self._replay:
            with _broken_where_it_says():
                environment.begin({name: sample.metadata[name] for name in self._episode})
            illegal = self._make(environment, response_messages)
        with _broken_where_it_says():
            found = environment.score()
        return _with_illegal(found, illegal)

    def _make(self, environment: Environment, messages: Sequence[Message]) -> list[str]:
        """Make the steps; why each of those was not made that were no legal ones."""
        try:
            calls, unreadable = readable_calls(messages)
        except NoCall as error:
            return [str(error)]
        illegal = ["a call that cannot be read"] * unreadable
        for call in calls:
            arguments = {name: parse_json(value) for name, value in call.arguments.items()}
            try:
                with _broken_where_it_says():
                    environment.step(call.name, arguments)
            except FAULTS:
                raise
            except Exception as error:
                illegal.append(f"{call.name}: {type(error).__name__}: {error}")
        return illegal


def _with_illegal(found: Any, illegal: Sequence[str]) -> Any:
    """What the environment says, with how many steps were no legal ones and why the first was."""
    metrics = {"illegal_steps": float(len(illegal))}
    info = {"illegal_step": illegal[0][:SHOWN]} if illegal else {}
    if isinstance(found, Score):
        told = {"metrics": {**found.metrics, **metrics}, "info": {**found.info, **info}}
        return msgspec.structs.replace(found, **told)
    if isinstance(found, Mapping):
        given = cast("Mapping[str, Any]", found)
        told = {"metrics": {**given.get("metrics", {}), **metrics}}
        return {**given, **told, "info": {**given.get("info", {}), **info}}
    return found if found is None else {"score": found, "metrics": metrics, "info": info}


@contextmanager
def _broken_where_it_says() -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise Unavailable(f"the environment is broken: {error}") from error


def _spec_class(reference: str) -> type[Spec[Any]]:
    try:
        found = target_of(reference)
    except UnknownReward as error:
        raise InvalidReward(f"spec: {error}") from None
    if not isinstance(found, type) or not issubclass(found, Spec):
        raise InvalidReward(f"spec {reference!r} is no subclass of guerdon.resources.Spec")
    return cast("type[Spec[Any]]", found)
