"""The reward `text_game`: games of TextWorld and ALFWorld, from their packages.

Sources: TextWorld (Côté et al. 2018, arXiv:1806.11532); ALFWorld (Shridhar et al. 2021,
arXiv:2010.03768); AgentFly 0.1.0, `alfworld_episode_reward`.
"""

from __future__ import annotations

import importlib
import re
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from guerdon.errors import BadInput, MissingExtra
from guerdon.resources import Spec
from guerdon.rules.agent.environment import Environment, EnvironmentScore

ACTION_CHARS = 1000
"""A longer command is none."""

_ALONE = threading.Lock()
"""TextWorld's parser is no work for two threads at one time."""

ALFWORLD = ".tw-pddl"
"""End of the names of ALFWorld's games."""

COMPILED = (".ulx", ".z1", ".z2", ".z3", ".z4", ".z5", ".z6", ".z7", ".z8")
"""Ends of the names of games that run on an interpreter for Glulx or the Z-machine."""

FILE_VERBS = ("replay", "recording", "restore", "save", "script", "transcript")
"""With these such a game asks for the name of a file, and its interpreter writes or reads that file
wherever it is (Frotz, issue 46)."""

WORD_CHARS = 9
"""The Z-machine tells words apart by these (The Z-Machine Standards Document 1.1, section 13)."""


class TextGame(Environment):
    """One game at a time; made from `TextGameSpec`."""

    def __init__(self, spec: TextGameSpec) -> None:
        self._spec = spec
        self._library: Any = None
        self._game: Any = None
        self._state: Any = None
        self._done = False
        self._compiled = False

    def start(self) -> None:
        """Import the package.

        Raises:
            MissingExtra: it is not installed.
        """
        try:
            self._library = importlib.import_module("textworld")
        except ImportError:
            raise MissingExtra("textworld", "textworld", "the reward text_game") from None

    def reset(self) -> bool:
        """Leave the game."""
        self.stop()
        return True

    def stop(self) -> None:
        """Leave the game."""
        game, self._game, self._state, self._done = self._game, None, None, False
        if game is not None:
            with _ALONE:
                game.close()

    def begin(self, columns: Mapping[str, Any]) -> None:
        """Begin the game `game_file`.

        Raises:
            BadInput: there is none in that file.
            MissingExtra: the package that ALFWorld's games need is not installed.
        """
        game_file = columns.get("game_file")
        if not isinstance(game_file, str) or not game_file:
            raise BadInput(f"game_file is no name of a file: {game_file!r:.100}")
        path = Path(self._spec.games, game_file)
        if not path.is_file():
            raise BadInput(f"there is no game {str(path)!r:.300}")
        self.stop()
        self._compiled = path.suffix.lower() in COMPILED
        infos = self._library.EnvInfos(won=True, lost=True, score=True, max_score=True)
        try:
            with _ALONE:
                self._game = self._library.start(str(path), infos, wrappers=_wrappers(path))
                self._state = self._game.reset()
        except (ValueError, KeyError, TypeError, NotImplementedError) as error:
            raise BadInput(f"the game {str(path)!r:.300} cannot be played: {error}") from None

    def step(self, tool: str, arguments: Mapping[str, Any]) -> str:
        """Give one command; what is seen then. After the end nothing happens any more."""
        command = arguments[self._spec.argument]
        if tool != self._spec.tool or not isinstance(command, str) or len(command) > ACTION_CHARS:
            raise ValueError(f"no command of the tool {self._spec.tool}")
        command.encode()
        if self._compiled and asks_for_a_file(command):
            raise ValueError("commands that read and write files are not given")
        if self._done:
            return ""
        with _ALONE:
            self._state, _, self._done = self._game.step(command)
        return str(self._state.feedback)

    def score(self) -> dict[str, Any]:
        """1 for a game that is won, else 0; or the share of its points."""
        if self._state is None:
            raise BadInput("no game was begun: the row's tools did not begin one")
        won, points, most = self._state.won, self._state.score, self._state.max_score
        value = float(bool(won))
        if self._spec.partial and not won and points and most:
            value = min(max(points / most, 0.0), 1.0)
        return {"score": value, "metrics": {"won": float(bool(won)), "points": float(points or 0)}}


def asks_for_a_file(command: str) -> bool:
    """Whether a word of a command is one with which games save, restore or write transcripts.

    Any word counts: games take several commands in one line, and corrections of the one before.

    Example:
        >>> asks_for_a_file("look. SAVE"), asks_for_a_file("open the safe")
        (True, False)
    """
    words = re.findall("[a-z]+", command.lower())
    return any(word[:WORD_CHARS] == verb[:WORD_CHARS] for word in words for verb in FILE_VERBS)


def _wrappers(path: Path) -> list[Any]:
    """What gives ALFWorld's things their names, as its own environments do."""
    if not path.name.endswith(ALFWORLD):
        return []
    try:
        module = importlib.import_module("alfworld.agents.environment.alfred_tw_env")
    except ImportError as error:
        raise MissingExtra("alfworld", str(error.name), "ALFWorld's games") from None
    return [module.AlfredDemangler()]


class TextGameSpec(Spec[TextGame], frozen=True, kw_only=True):
    """A place where games of TextWorld and ALFWorld are played.

    Attributes:
        tool: name of the model's tool.
        argument: of the tool that holds the command.
        games: folder with the games.
        partial: whether points count of a game that is not won.
    """

    tool: str = "alfworld_step"
    argument: str = "action"
    games: str = "."
    partial: bool = False

    def make(self) -> TextGame:
        """The place, without a game yet."""
        return TextGame(self)


class TextGameScore(EnvironmentScore):
    """1 if the commands win a game of TextWorld or ALFWorld, else 0; or the share of its points.

    The commands that the model sent to its tool are given again; or `replay` is off, and the
    caller's context holds the game that its tools played, `TextGameSpec` with the same fields.
    Range 0 to 1. Sources: arXiv:1806.11532; arXiv:2010.03768; AgentFly 0.1.0,
    `alfworld_episode_reward`.

    Args:
        games: folder with the games.
        tool: name of the model's tool.
        argument: of the tool that holds the command.
        partial: whether points count of a game that is not won.
        replay: whether commands are given again.

    Games for an interpreter (`.z8`, `.ulx`) do not get commands that save, restore or write
    transcripts: these would reach files of this machine.

    Metadata key: `game_file`, below `games`; `.json`, `.z8` and `.ulx` are TextWorld's (extra
    `textworld`), `.tw-pddl` is ALFWorld's (extra `alfworld`).

    Raises:
        BadInput: there is no such game.
    """

    name = "text_game"

    def __init__(
        self,
        *,
        games: str,
        tool: str = "alfworld_step",
        argument: str = "action",
        partial: bool = False,
        replay: bool = True,
    ) -> None:
        super().__init__(
            f"{__name__}:{TextGameSpec.__name__}",
            episode=("game_file",),
            fields={"tool": tool, "argument": argument, "games": games, "partial": partial},
            replay=replay,
        )
