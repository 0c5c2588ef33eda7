"""A chess engine that speaks UCI, as a resource; the program is the user's and is not sandboxed."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from guerdon.errors import ConfigError, MissingExtra, Unavailable
from guerdon.resources import Resource, Spec

if TYPE_CHECKING:
    import chess

START_SECONDS = 20.0

ANSWER_SECONDS = 60.0
"""How long it may think; so long that only an engine that hangs meets it."""

MATE = 10_000
"""Centipawns that a mate counts as, so that every loss is a number."""


def chess_library() -> Any:
    """The package `chess`.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        importlib.import_module("chess.engine")
    except ImportError:
        raise MissingExtra("chess", "chess", "the reward chess_puzzle") from None
    return importlib.import_module("chess")


class UciEngine(Resource):
    """An engine; made from `UciSpec`. It ends with this process, as its standard input does."""

    def __init__(self, spec: UciSpec) -> None:
        self._spec = spec
        self._engine: Any = None

    def start(self) -> None:
        """Start the program.

        Raises:
            ConfigError: it is not there.
            Unavailable: it does not answer.
        """
        library = chess_library()
        try:
            self._engine = library.engine.SimpleEngine.popen_uci(
                self._spec.path, timeout=START_SECONDS
            )
            self._engine.configure({"Threads": 1})
        except FileNotFoundError:
            raise ConfigError(f"the chess engine {self._spec.path!r} is not there") from None
        except (library.engine.EngineError, TimeoutError) as error:
            raise Unavailable(f"the chess engine {self._spec.path!r} fails: {error}") from error

    def reset(self) -> bool:
        """Every question is a game of its own to it."""
        return True

    def check(self) -> bool:
        """Whether it answers."""
        self._engine.ping()
        return True

    def stop(self) -> None:
        """End it."""
        if self._engine is not None:
            self._engine.close()

    def loss(self, board: chess.Board, move: chess.Move) -> int:
        """Centipawns that a move loses against the best one, at least 0.

        Raises:
            Unavailable: the engine failed.
        """
        library = chess_library()
        game = object()
        try:
            best = self._value(library, board, game, None)
            return max(0, best - self._value(library, board, game, [move]))
        except (library.engine.EngineError, TimeoutError) as error:
            raise Unavailable(f"the chess engine fails: {error!r}") from error

    def _value(self, library: Any, board: Any, game: object, moves: Any) -> int:
        limit = library.engine.Limit(nodes=self._spec.nodes, time=ANSWER_SECONDS)
        found = self._engine.analyse(board, limit, game=game, root_moves=moves)
        return found["score"].pov(board.turn).score(mate_score=MATE)


class UciSpec(Spec[UciEngine], frozen=True, kw_only=True):
    """A chess engine.

    Attributes:
        path: of the program, such as "stockfish".
        nodes: that it looks at for each question; with one thread this makes it repeatable.
    """

    path: str
    nodes: int = 20_000

    def make(self) -> UciEngine:
        """The engine, not started yet."""
        return UciEngine(self)
