"""The reference's LaTeX converter with a faster way through ANTLR to the same trees.

ANTLR predicts with full context (LL) by default, and most of the reference's time goes there. Here
a text is first parsed with the weaker and cached SLL prediction, and with LL only where that meets
a syntax error; ANTLR guarantees that a successful SLL parse is the LL parse. Parser, converter and
prediction tables are subclasses and copies that belong to this module: nothing that other users of
the library see is changed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, cast


@cache
def converter_class() -> Callable[..., Any]:
    """A subclass of the reference's converter whose parser predicts in two stages."""
    from antlr4 import CommonTokenStream, InputStream  # pyright: ignore
    from antlr4.atn.ParserATNSimulator import ParserATNSimulator  # pyright: ignore
    from antlr4.atn.PredictionMode import PredictionMode  # pyright: ignore
    from antlr4.dfa.DFA import DFA  # pyright: ignore
    from antlr4.PredictionContext import PredictionContextCache  # pyright: ignore
    from latex2sympy2_extended.antlr_parser import PSLexer, PSParser  # pyright: ignore
    from latex2sympy2_extended.latex2sympy2 import (  # pyright: ignore[reportMissingTypeStubs]
        _Latex2Sympy as Base,  # pyright: ignore[reportPrivateUsage]
    )

    network = cast("Any", PSParser).atn
    decisions: list[Any] = list(network.decisionToState)

    def tables() -> tuple[list[Any], Any]:
        fresh = [DFA(state, index) for index, state in enumerate(decisions)]
        return fresh, PredictionContextCache()

    stages = ((PredictionMode.SLL, tables()), (PredictionMode.LL, tables()))

    class TwoStageParser(PSParser):
        def math(self) -> Any:
            self._use(0)
            try:
                return super().math()
            except Exception:
                cast("Any", self).getTokenStream().seek(0)
                self.reset()
            self._use(1)
            return super().math()

        def _use(self, stage: int) -> None:
            mode, (decision_tables, contexts) = stages[stage]
            self._interp = ParserATNSimulator(self, network, decision_tables, contexts)
            self._interp.predictionMode = mode

    class TwoStageConverter(Base):
        def create_parser(self, latex_str: str) -> Any:
            lexer: Any = PSLexer(InputStream(latex_str))
            lexer.removeErrorListeners()
            lexer.addErrorListener(self.MathErrorListener(latex_str))
            tokens: Any = CommonTokenStream(lexer)
            # A character that is no token must fail the text, and not only its first stage.
            tokens.fill()
            parser: Any = TwoStageParser(tokens)
            parser.removeErrorListeners()
            parser.addErrorListener(self.MathErrorListener(latex_str))
            return parser

    return cast("Callable[..., Any]", TwoStageConverter)
