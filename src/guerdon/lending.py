"""Arguments that are lent for one call: opened before it and given back after it, come what may.

A backend knows nothing about resources. It finds a `Loan` among the arguments of a call and opens
it where the call runs, so that in a worker process the resources live in the worker.
"""

from __future__ import annotations

import contextlib
import inspect
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from types import TracebackType
from typing import Any

LENT = "context"
"""The parameter that is lent."""

PLAIN = frozenset(
    {"str", "list", "dict", "tuple", "set", "bytes", "int", "float", "bool", "List", "Dict",
     "Tuple", "Sequence", "Mapping", "Iterable"}
)  # fmt: skip
"""Words in annotations that want a column of the data, not what is lent."""


class Live:
    """Base of what is lent: it belongs to this process and never travels."""


class Loan(ABC):
    """Something that is opened for one call; it can be pickled, what it opens to cannot."""

    @abstractmethod
    def __enter__(self) -> Any:
        """What the call gets."""

    @abstractmethod
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give it back; must not block, as it may run on an event loop."""


def borrows(parameter: inspect.Parameter) -> bool:
    """Whether a parameter wants what is lent: it is called `context`, and its annotation names no
    plain data, as that of a question's context does.

    Example:
        >>> def judge(context, text: str): ...
        >>> def answer(context: str | None): ...
        >>> [borrows(inspect.signature(f).parameters["context"]) for f in (judge, answer)]
        [True, False]
    """
    if parameter.name != LENT:
        return False
    wanted = parameter.annotation
    text = wanted.__name__ if isinstance(wanted, type) else str(wanted)
    return PLAIN.isdisjoint(re.findall(r"\w+", text))


def opening(call: Callable[..., Any]) -> Callable[..., Any]:
    """A sync function that opens the loan among its arguments, calls, and gives it back."""

    def opened(**arguments: Any) -> Any:
        with _opened(arguments) as ready:
            return call(**ready)

    return opened


async def awaited(call: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    """The result of an async call, with the loan among its arguments open until then."""
    with _opened(arguments) as ready:
        raw = call(**ready)
        return await raw if inspect.isawaitable(raw) else raw


@contextlib.contextmanager
def _opened(arguments: dict[str, Any]) -> Generator[dict[str, Any]]:
    loan = arguments.get(LENT)
    if not isinstance(loan, Loan):
        yield arguments
        return
    with loan as value:
        yield {**arguments, LENT: value}
