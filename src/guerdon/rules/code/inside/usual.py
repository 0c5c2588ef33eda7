"""Names that the graders of programming contests put before a program: `List`, `deque`, `sqrt`.

Only those that a program mentions are imported: importing all of them takes longer than most
programs run. A name of the program's own comes later and wins.
"""

from __future__ import annotations

import builtins
import importlib
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing `typing` would take longer than starting Python
    from types import CodeType
    from typing import Any

RECURSION = 600_000
"""How deep calls may be nested there (APPS, `testing_util.py`)."""

MODULES = (
    "bisect collections copy datetime functools heapq io itertools json math operator random "
    "re statistics string sys"
)

MEMBERS = {
    "typing": "Any Callable Dict Deque DefaultDict FrozenSet Generator Iterable Iterator List "
    "Literal Mapping NamedTuple Optional Sequence Set Tuple Type TypeVar Union",
    "collections": "Counter OrderedDict defaultdict deque namedtuple ChainMap",
    "heapq": "heapify heappop heappush heappushpop heapreplace merge nlargest nsmallest",
    "bisect": "bisect bisect_left bisect_right insort insort_left insort_right",
    "math": "acos asin atan atan2 ceil comb cos degrees dist e exp fabs factorial floor fmod fsum "
    "gcd hypot inf isclose isfinite isinf isnan isqrt lcm log log10 log2 nan perm pi prod radians "
    "sin sqrt tan tau trunc",
    "itertools": "accumulate chain combinations combinations_with_replacement compress count cycle "
    "dropwhile filterfalse groupby islice pairwise permutations product repeat starmap takewhile "
    "tee zip_longest",
    "functools": "cache cached_property cmp_to_key lru_cache partial reduce total_ordering wraps",
    "operator": "add and_ attrgetter itemgetter methodcaller mul neg or_ sub truediv xor",
    "copy": "copy deepcopy",
    "string": "ascii_letters ascii_lowercase ascii_uppercase digits punctuation",
    "datetime": "date datetime time timedelta timezone",
    "re": "findall finditer fullmatch",
    "random": "choice choices randint sample shuffle",
    "statistics": "mean median mode",
    "io": "BytesIO StringIO",
    "sys": "exit setrecursionlimit stdin stdout maxsize",
    "json": "dumps loads",
}
"""Members of these modules, by what a program calls them."""

ENDS = ("exit", "quit")
"""What `site`, which is not loaded here, adds to the built-in functions."""


def lend(code: CodeType, space: dict[str, Any]) -> None:
    """Put what a program mentions of the usual names into its globals, unless there is one."""
    mentioned = names_in(code).difference(space, dir(builtins))
    for name in mentioned.intersection(MODULES.split()):
        space[name] = importlib.import_module(name)
    for module, members in MEMBERS.items():
        for name in mentioned.intersection(members.split()):
            space[name] = getattr(importlib.import_module(module), name)
    sys.setrecursionlimit(RECURSION)


def add_ends() -> None:
    """Let a program end itself by `exit()` and `quit()`."""
    for name in ENDS:
        setattr(builtins, name, sys.exit)


def names_in(code: CodeType) -> set[str]:
    """All names that a piece of code uses, inner functions included."""
    found: set[str] = set()
    todo = [code]
    while todo:
        part = todo.pop()
        found.update(part.co_names)
        todo += [constant for constant in part.co_consts if isinstance(constant, type(code))]
    return found
