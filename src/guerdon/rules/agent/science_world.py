"""The reward `scienceworld`: tasks of the simulator ScienceWorld, from its package.

Source: ScienceWorld (Wang et al. 2022, arXiv:2203.07540); AgentFly 0.1.0, `scienceworld_reward`.
"""

from __future__ import annotations

import importlib
import logging
import shutil
import subprocess
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

from guerdon.errors import BadInput, ConfigError, MissingExtra
from guerdon.resources import Spec
from guerdon.rules.agent.environment import Environment, EnvironmentScore
from guerdon.rules.case import case

_log = logging.getLogger(__name__)

FULL_SCORE = 100.0
"""Of a solved task; a task that was failed for good has -100."""

END_SECONDS = 5.0
"""How long Java may take to end by itself."""

ACTION_CHARS = 1000
"""A longer action is none."""


def _explored(*actions: str) -> list[dict[str, Any]]:
    calls = [{"name": "scienceworld_explorer", "arguments": {"action": text}} for text in actions]
    return [{"role": "assistant", "content": "", "tool_calls": calls}]


_ROW: dict[str, Any] = {"metadata": {"task_name": "find-living-thing", "variation_idx": 0}}
_SOLUTION = (
    "open door to kitchen",
    "go to kitchen",
    "open door to outside",
    "go to outside",
    "look around",
    "focus on blue jay",
    "pick up blue jay",
    "open door to kitchen",
    "go to kitchen",
    "move egg blue jay egg in inventory to red box",
)
"""What scienceworld 1.2.3 gives as its own solution."""

_FIXTURES = (
    case("full", "solved", 1.0, response=_explored(*_SOLUTION), **_ROW),
    case("zero", "nothing done", 0.0, response="Solved!", **_ROW),
    case("zero", "empty", 0.0, response="", **_ROW),
    case("zero", "not to the end", 0.0, response=_explored(*_SOLUTION[:-1]), **_ROW),
    case("malformed", "no task", "bad_input", response=""),
    case("malformed", "odd characters", 0.0, response=_explored("\0\ud800"), **_ROW),
    case("deterministic", "one action", 0.0, response=_explored("look around"), **_ROW),
    case("metamorphic", "noise around: an action that there is none of", 1.0,
         response=_explored("sing", *_SOLUTION), **_ROW),
    case("metamorphic", "injected: said instead of done", 0.0, response="; ".join(_SOLUTION),
         **_ROW),
)  # fmt: skip


class ScienceWorld(Environment):
    """The simulator, a process of Java's that ends with this one; made from `ScienceWorldSpec`."""

    def __init__(self, spec: ScienceWorldSpec) -> None:
        self._spec = spec
        self._simulator: Any = None
        self._points = 0.0
        self._done = False
        self._lost = False

    def start(self) -> None:
        """Start Java.

        Raises:
            MissingExtra: the package is not installed.
            ConfigError: Java is not.
        """
        try:
            library = importlib.import_module("scienceworld")
        except ImportError:
            raise MissingExtra("scienceworld", "scienceworld", "the reward scienceworld") from None
        if shutil.which("java") is None:
            raise ConfigError("scienceworld needs Java, and there is no program 'java'")
        self._simulator = library.ScienceWorldEnv("", envStepLimit=self._spec.steps)

    def reset(self) -> bool:
        """Each episode begins anew."""
        self._points, self._done = 0.0, False
        return not self._lost

    def check(self) -> bool:
        """Whether Java answers."""
        with self._network():
            return bool(self._simulator.get_task_names())

    def stop(self) -> None:
        """End Java."""
        simulator, self._simulator = self._simulator, None
        if simulator is None:
            return
        try:
            simulator.close()
        except Exception:
            _log.debug("Java had ended before", exc_info=True)
        finally:
            simulator.close = _nothing  # it would be called again when the object goes
            java = simulator._gateway.java_process
            try:
                java.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                java.kill()
                java.wait()

    def begin(self, columns: Mapping[str, Any]) -> None:
        """Begin the task `task_name`, such as "boil", in its variation `variation_idx`.

        Raises:
            BadInput: there is none of these.
        """
        task_name, variation_idx = columns.get("task_name"), columns.get("variation_idx", 0)
        wrong = isinstance(variation_idx, bool) or not isinstance(variation_idx, int)
        if wrong or not isinstance(task_name, str):
            raise BadInput(
                "task_name is a text and variation_idx a whole number, got "
                f"{task_name!r:.100} and {variation_idx!r:.100}"
            )
        with self._network():
            try:
                self._simulator.load(task_name, 0, self._spec.simplifications)
                most = self._simulator.get_max_variations(self._simulator.taskName)
                if not 0 <= variation_idx < most:
                    raise ValueError(f"{task_name} has {most} variations, not {variation_idx}")
                self._simulator.load(task_name, variation_idx, self._spec.simplifications)
            except ValueError as error:
                raise BadInput(f"scienceworld: {error!s:.300}") from None
            self._simulator.server.reset()
        self._done = False
        self._act("look around")  # the package's first move too

    def step(self, tool: str, arguments: Mapping[str, Any]) -> str:
        """Make one action; what is seen then. After the end nothing happens any more."""
        action = arguments[self._spec.argument]
        if tool != self._spec.tool or not isinstance(action, str) or len(action) > ACTION_CHARS:
            raise ValueError(f"no action of the tool {self._spec.tool}")
        action.encode()
        if self._done:
            return ""
        return self._act(action)

    def _act(self, action: str) -> str:
        """One action as the package's `step` makes it, without its list of all possible actions,
        which takes most of the time."""
        with self._network():
            server = self._simulator.server
            seen = str(server.step(action))
            self._points = float(round(FULL_SCORE * server.getScore()))
            moves = self._simulator.get_num_moves()
            self._done = bool(server.getCompleted()) or moves > self._spec.steps
        self._done = self._done or self._points < 0
        return seen

    @contextmanager
    def _network(self) -> Generator[None]:
        """Java that does not answer any more is a broken environment."""
        try:
            yield
        except Exception as error:
            if type(error).__name__ != "Py4JNetworkError":
                raise
            # Else every object of Java's that goes asks it again, whenever memory is collected.
            self._lost = True
            self._simulator._gateway._gateway_client.is_connected = False
            raise ConnectionError(f"Java does not answer: {error}") from error

    def score(self) -> dict[str, Any]:
        """1 for a solved task, else 0; or the share of the points."""
        share = max(0.0, self._points / FULL_SCORE)
        value = share if self._spec.partial else float(share >= 1.0)
        return {"score": value, "metrics": {"points": self._points, "done": float(self._done)}}


def _nothing() -> None:
    pass


class ScienceWorldSpec(Spec[ScienceWorld], frozen=True, kw_only=True):
    """The simulator ScienceWorld.

    Attributes:
        tool: name of the model's tool.
        argument: of the tool that holds the action.
        steps: after which an episode is over.
        simplifications: names of simplifications, as the package takes them, such as "easy".
        partial: whether points count that are not all.
    """

    tool: str = "scienceworld_explorer"
    argument: str = "action"
    steps: int = 100
    simplifications: str = ""
    partial: bool = False

    def make(self) -> ScienceWorld:
        """The simulator, not started yet."""
        return ScienceWorld(self)


class ScienceWorldScore(EnvironmentScore):
    """1 if the actions solve a task of ScienceWorld, else 0; or the share of its points.

    The actions that the model sent to its tool are made again in the simulator; or `replay` is off,
    and the caller's context holds the one that its tools used, `ScienceWorldSpec` with the same
    fields. The value is 1 from 100 points on; with `partial` it is `max(0, points / 100)`, where
    some tasks give points for the start. Range 0 to 1. Sources: arXiv:2203.07540; AgentFly 0.1.0,
    `scienceworld_reward`, which gives 10 instead of 1.

    Args:
        tool: name of the model's tool.
        argument: of the tool that holds the action.
        steps: after which an episode is over.
        simplifications: such as "easy"; see the package.
        partial: whether points count that are not all.
        replay: whether actions are made again.

    Metadata keys: `task_name`, `variation_idx`. It needs the extra `scienceworld` and Java.

    Raises:
        BadInput: a task or a variation that there is none of.
        Unavailable: the simulator failed.
    """

    name = "scienceworld"
    concurrency = 2  # each is a Java of its own, which takes more than a core to start
    fixtures = _FIXTURES

    def __init__(
        self,
        *,
        tool: str = "scienceworld_explorer",
        argument: str = "action",
        steps: int = 100,
        simplifications: str = "",
        partial: bool = False,
        replay: bool = True,
    ) -> None:
        fields = {
            "tool": tool,
            "argument": argument,
            "steps": steps,
            "simplifications": simplifications,
            "partial": partial,
        }
        super().__init__(
            f"{__name__}:{ScienceWorldSpec.__name__}",
            episode=("task_name", "variation_idx"),
            fields=fields,
            replay=replay,
        )
