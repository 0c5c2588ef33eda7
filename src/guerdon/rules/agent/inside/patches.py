"""Finds functions that were replaced after they had been noted down."""

from __future__ import annotations

import builtins
import sys
from types import FunctionType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

WATCHED = ("_pytest", "pluggy", "pytest", "unittest")
"""Packages that decide how a test ends."""

FREE = frozenset(
    {"__import__", "breakpoint", "exit", "help", "input", "open", "print", "quit", "_"}
)
"""Builtins that honest programs replace."""

KINDS: tuple[Any, ...] = (FunctionType, classmethod, staticmethod, property)


class Patches:
    """Notes functions down when it is made.

    Example:
        >>> Patches().found()
        ''
    """

    def __init__(self) -> None:
        self._noted: list[tuple[str, Any, str, Any, Any]] = [
            (f"builtins.{name}", builtins, name, value, _code(value))
            for name, value in vars(builtins).items()
            if name not in FREE and callable(value)
        ]
        for name, module in list(sys.modules.items()):
            if name.partition(".")[0] in WATCHED:
                self._note(name, module, name)

    def _note(self, called: str, owner: Any, module: str) -> None:
        """Note the functions of a module, or of one of its classes."""
        in_module = not isinstance(owner, type)
        for name, value in list(_members(owner).items()):
            own = getattr(value, "__module__", None) == module
            if isinstance(value, KINDS) and (own or not in_module):
                self._noted.append((f"{called}.{name}", owner, name, value, _code(value)))
            elif isinstance(value, type) and own and in_module:
                self._note(f"{called}.{name}", value, module)

    def found(self) -> str:
        """The name of one that was replaced by another than these; empty where none was."""
        known = {id(value) for _, _, _, value, _ in self._noted}
        for called, owner, name, value, code in self._noted:
            if id(_members(owner).get(name)) not in known or _code(value) is not code:
                return called
        return ""


def _members(owner: Any) -> Mapping[str, Any]:
    found: Mapping[str, Any] = owner.__dict__
    return found


def _code(value: Any) -> Any:
    return value.__code__ if isinstance(value, FunctionType) else None
