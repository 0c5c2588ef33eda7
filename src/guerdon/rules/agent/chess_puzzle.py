"""The reward `chess_puzzle`: the agent plays the moves that solve a puzzle.

Source of the formula: AgentFly 0.1.0, `chess_puzzle_reward`: 0.6 for solving, or half of it for the
share of the way, and 0.4 for the mean quality of the moves, 1 less a third of a percent for each
centipawn lost. Here each move is compared on the board on which it was made, and who makes no move
earns nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from guerdon.errors import BadInput, InvalidReward
from guerdon.resources import Context
from guerdon.reward import BaseReward
from guerdon.rules.agent.chess_engine import UciSpec, chess_library
from guerdon.rules.agent.replay import sent
from guerdon.rules.case import case
from guerdon.rules.tools import NoCall
from guerdon.sample import Message

MOVE_CHARS = 12
"""A longer text is no move."""

MOST_MOVES = 128
"""Further moves are not looked at."""

LOST_CENTIPAWNS = 300.0
"""Loss at which a move is worth nothing (AgentFly)."""


def _played(*moves: str) -> list[dict[str, Any]]:
    calls = [{"name": "make_move", "arguments": {"move": move}} for move in moves]
    return [{"role": "assistant", "content": "", "tool_calls": calls}]


_FEN = "6k1/5ppp/8/8/8/8/5PPP/R5K1 b - - 0 1"
_ROW: dict[str, Any] = {"metadata": {"fen": _FEN}, "ground_truth": "g8h8 a1a8"}
_LONG: dict[str, Any] = {
    "metadata": {"fen": "4k3/8/8/8/8/8/3q4/R3K2R b KQ - 0 1"},
    "ground_truth": ["d2d8", "h1h8", "e8e7", "h8d8"],
}
_FIXTURES = (
    case("full", "solved", 1.0, response=_played("a1a8"), **_ROW),
    case("full", "two moves", 1.0, response=_played("h1h8", "h8d8"), **_LONG),
    case("zero", "another move", 0.0, response=_played("a1a7"), **_ROW),
    case("zero", "no move", 0.0, response="Ra8#", **_ROW),
    case("zero", "empty", 0.0, response="", **_ROW),
    case("malformed", "no position", "bad_input", response="", ground_truth="g8h8 a1a8"),
    case("malformed", "odd characters", 0.0, response=_played("\0\ud800"), **_ROW),
    case("deterministic", "half of the way", 0.25, response=_played("h1h8", "h8h7"), **_LONG),
    case("metamorphic", "equivalent form: algebraic", 1.0, response=_played("Ra8#"), **_ROW),
    case("metamorphic", "noise around: an illegal move", 1.0, response=_played("a1b3", "a1a8"),
         **_ROW),
    case("metamorphic", "whitespace", 1.0, response=_played(" a1a8 "), **_ROW),
    case("metamorphic", "every option", 0.0, response=_played("a1a2", "a1a7", "a1a8"), **_ROW),
    case("metamorphic", "injected: said instead of played", 0.0, response="I play a1a8.", **_ROW),
)  # fmt: skip


class ChessPuzzle(BaseReward):
    """1 if the moves solve the puzzle, a part of it for a part of the way; range 0 to 1.

    `(1 - w) s + w q`: `s` is 1 if solved, else `progress` times the share of the wanted moves that
    were played; `q` is the mean over the moves of `1 - loss / 300`, at least 0, by a UCI engine;
    `w` is the weight of that. Illegal moves are not played; the first legal one that is not wanted
    ends the puzzle, except a mate, which solves it. Source: AgentFly 0.1.0, `chess_puzzle_reward`
    (`quality: 0.4`), `chess_puzzle_reward_simple` (`progress: 0`).

    Args:
        tool: name of the model's tool.
        argument: of the tool that holds the move, as UCI or in algebraic notation.
        progress: most that an unsolved puzzle earns in `s`.
        quality: `w`; above 0 it needs an engine.
        engine: path of a UCI engine, such as "stockfish".
        nodes: that the engine looks at for each move.
        setup: whether the first move of the truth is the opponent's, as in Lichess' data.

    Metadata key: `fen`, the position. The ground truth is the moves, as UCI: a text or a list.

    Raises:
        BadInput: no position, or moves that cannot be played in it.
        InvalidReward: a quality without an engine.
    """

    name = "chess_puzzle"
    value_range = (0.0, 1.0)
    work = "io"
    fixtures = _FIXTURES

    def __init__(
        self,
        *,
        tool: str = "make_move",
        argument: str = "move",
        progress: float = 0.5,
        quality: float = 0.0,
        engine: str | None = None,
        nodes: int = 20_000,
        setup: bool = True,
    ) -> None:
        if not 0.0 <= progress <= 1.0 or not 0.0 <= quality <= 1.0:
            raise InvalidReward("progress and quality are 0 to 1")
        if quality > 0.0 and engine is None:
            raise InvalidReward("quality needs engine=, the path of a UCI engine such as stockfish")
        self._tool, self._argument = tool, argument
        self._progress, self._quality = progress, quality
        self._engine = None if engine is None else UciSpec(path=engine, nodes=nodes)
        self._setup = setup

    def call(
        self, context: Context, response_messages: Sequence[Message], ground_truth: Any, fen: str
    ) -> dict[str, Any]:
        """Play the moves, and weigh them."""
        board, wanted = self._puzzle(fen, ground_truth)
        mine = (len(wanted) + 1) // 2
        right, solved = 0, False
        losses: list[int] = []
        for move in self._moves(response_messages):
            played = _legal(board, move)
            if played is None:
                continue
            losses += self._loss(context, board, played)
            fits = played == wanted[2 * right]
            board.push(played)
            right += int(fits)
            solved = board.is_checkmate() or (fits and right == mine)
            if solved or not fits:
                break
            board.push(wanted[2 * right - 1])
        value = 1.0 if solved else self._progress * right / mine
        metrics = {"solved": float(solved), "right": float(right), "wanted": float(mine)}
        if self._quality:
            fine = [max(0.0, 1.0 - loss / LOST_CENTIPAWNS) for loss in losses]
            metrics["quality"] = sum(fine) / len(fine) if fine else 0.0
            value = (1.0 - self._quality) * value + self._quality * metrics["quality"]
        return {"score": value, "metrics": metrics}

    def _moves(self, messages: Sequence[Message]) -> list[str]:
        try:
            moves = sent(messages, self._tool, self._argument).texts
        except NoCall:
            return []
        return [text.strip() for text in moves[:MOST_MOVES]]

    def _loss(self, context: Context, board: Any, move: Any) -> list[int]:
        if not self._quality or self._engine is None:
            return []
        return [context.acquire_resource_sync(self._engine).loss(board, move)]

    def _puzzle(self, fen: str, ground_truth: Any) -> tuple[Any, list[Any]]:
        """The board on which the model is to move, and the moves of both sides from there."""
        library = chess_library()
        listed = ground_truth.split() if isinstance(ground_truth, str) else ground_truth
        if not isinstance(listed, list | tuple):
            raise BadInput("the ground truth is neither a text nor a list of moves")
        try:
            board = library.Board(fen)
            line = [library.Move.from_uci(str(move)) for move in cast("Sequence[Any]", listed)]
            played = board.copy()
            for move in line:
                if not played.is_legal(move):
                    raise ValueError(f"{move} is not legal")
                played.push(move)
        except (ValueError, AttributeError, TypeError) as error:
            raise BadInput(f"the puzzle cannot be played: {error}") from None
        if self._setup and line:
            board.push(line.pop(0))
        if not line:
            raise BadInput("the puzzle has no move for the model")
        return board, line


def _legal(board: Any, text: str) -> Any:
    """The legal move that a text means; None where it means none."""
    if len(text) > MOVE_CHARS or not text.isascii():
        return None
    for parse in (board.parse_uci, board.parse_san):
        try:
            found = parse(text)
        except ValueError:
            continue
        return found or None  # a null move is none
    return None
