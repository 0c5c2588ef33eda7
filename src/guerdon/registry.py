"""Names of rewards: definitions, plug-in packages, dotted paths, files, and routes by data source.

A name is claimed by the first definition that uses it. The same definition may be evaluated again
(a reloaded module, a notebook cell); a different one with the same name is refused.
"""

from __future__ import annotations

import importlib
import inspect
import threading
from fnmatch import fnmatchcase
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from guerdon import plugins
from guerdon.errors import InvalidReward, NameCollision, UnknownReward, nearest
from guerdon.source_file import describe, load_file, loaded_files, shown_module, source_path

if TYPE_CHECKING:
    from guerdon.reward import BaseReward

    Definition: TypeAlias = BaseReward | type[BaseReward]

__all__ = [
    "create",
    "find",
    "get",
    "import_module",
    "load_file",
    "loaded_files",
    "names",
    "place_of",
    "reference_for",
    "register",
    "resolve",
    "route",
    "routes",
    "split_convention",
    "target_of",
    "unregister",
]

_lock = threading.RLock()
_definitions: dict[str, Definition] = {}
_routes: dict[str, str] = {}


def register(name: str, definition: Definition) -> None:
    """Claim a name for a reward or a reward class.

    Raises:
        NameCollision: another definition has the name; both places are named.
    """
    with _lock:
        known = _definitions.get(name)
        if known is not None and not _same_place(known, definition):
            raise NameCollision(_collision(name, place_of(known), place_of(definition)))
        # A package may define its reward elsewhere than where its entry point points to: `get`
        # compares the objects, once the package has been imported.
        offered = plugins.values_of(name)
        if offered and _package(place_of(definition)) not in map(_package, offered):
            raise NameCollision(_collision(name, offered[0], place_of(definition)))
        _definitions[name] = definition


def _same_place(one: Definition, other: Definition) -> bool:
    """Whether two definitions are one: a file may be loaded by path and imported by name."""
    if place_of(one) == place_of(other):
        return True
    a, b = _owner(one), _owner(other)
    path = source_path(_module(a))
    return path is not None and path == source_path(_module(b)) and _qualname(a) == _qualname(b)


def _package(place: str) -> str:
    return place.partition(":")[0].partition(".")[0]


def _collision(name: str, old: str, new: str) -> str:
    return (
        f"the reward name {name!r} is taken by {old}: give {new} another name=, "
        "or auto_register=False"
    )


def unregister(name: str) -> None:
    """Free a name; unknown names are ignored."""
    with _lock:
        _definitions.pop(name, None)


def names() -> list[str]:
    """All known names, sorted: registered ones and those of installed plug-ins."""
    with _lock:
        return sorted({*_definitions, *plugins.names()})


def get(name: str) -> Definition:
    """The reward or reward class of a name.

    Raises:
        UnknownReward: with the nearest known name; or the plug-in that has it fails to import.
        NameCollision: two packages claim the name.
    """
    with _lock:
        definition = _definitions.get(name)
    offered = plugins.values_of(name)
    if definition is not None and (not offered or offered == (place_of(definition),)):
        return definition
    if not offered:
        raise UnknownReward(f"no reward is named {name!r}{_hint(name)}")
    loaded = _as_definition(plugins.load(name), offered[0])
    if definition is not None and not _same_place(definition, loaded):
        raise NameCollision(_collision(name, offered[0], place_of(definition)))
    return loaded


def _hint(name: str) -> str:
    if name.endswith(".py"):
        return f": for a file write {name}:NAME"
    module, _, attribute = name.rpartition(".")
    return nearest(name, names()) or (f" (a dotted path is {module}:{attribute})" if module else "")


def resolve(reference: str, /, **options: Any) -> BaseReward:
    """The reward that a reference names, with options bound to it.

    Args:
        reference: a registered name, `pkg.mod:name`, or `path/to/file.py:name`; with the name of a
            trainer before it (`verl:path/to/file.py:name`) for a function that this trainer calls.
        options: constructor arguments of a reward class, or keyword options of a function.

    Raises:
        UnknownReward: nothing answers to the reference.
        InvalidReward: what answers is no reward, or does not take the options.

    Example:
        >>> resolve("no.such.module:thing")
        Traceback (most recent call last):
        guerdon.errors.UnknownReward: cannot import 'no.such.module': No module named 'no'
    """
    return create(find(reference), **options)


def find(reference: str) -> Definition:
    """The definition that a reference names, before options; see `resolve`."""
    if ":" not in reference:
        return get(reference)
    convention, function = split_convention(reference)
    if convention:
        return _under(convention, function)
    return _as_definition(target_of(reference), reference)


def split_convention(reference: str) -> tuple[str, str]:
    """The calling convention of a reference, "" where it names none, and the rest.

    Example:
        >>> split_convention("verl:rewards.py:compute_score")
        ('verl', 'rewards.py:compute_score')
        >>> split_convention("rewards.py:mine")
        ('', 'rewards.py:mine')
    """
    first, _, rest = reference.partition(":")
    return (first, rest) if first.isidentifier() and ":" in rest else ("", reference)


def _under(convention: str, function: str) -> Definition:
    known = plugins.conventions()
    if convention not in known:
        raise UnknownReward(
            f"no calling convention is named {convention!r}{nearest(convention, known)} "
            f"(conventions: {', '.join(sorted(known))})"
        )
    try:
        kind = known[convention].load()
    except ImportError as error:
        raise UnknownReward(f"cannot import {known[convention].value!r}: {error}") from error
    return cast("BaseReward", kind(function))


def target_of(reference: str) -> Any:
    """The object that `pkg.mod:name` or `path/to/file.py:name` names, whatever it is.

    Raises:
        UnknownReward: the module does not import, or lacks the name.
    """
    module_name, _, attribute = reference.rpartition(":")
    if not module_name or not attribute:
        raise UnknownReward(f"{reference!r} is no reference: write pkg.mod:NAME or path.py:NAME")
    if attribute.endswith(".py"):
        raise UnknownReward(f"{reference!r} names no function of the file: write {reference}:NAME")
    try:
        return _attribute(module_name, attribute)
    except UnknownReward as error:
        if module_name not in plugins.conventions():
            raise
        raise UnknownReward(
            f"{error} (a function that {module_name} calls is {module_name}:path.py:NAME or "
            f"{module_name}:pkg.mod:NAME)"
        ) from error


def _attribute(module_name: str, attribute: str) -> Any:
    module = load_file(module_name) if module_name.endswith(".py") else import_module(module_name)
    target: Any = module
    for part in attribute.split("."):
        if not hasattr(target, part):
            known = [n for n in dir(target) if not n.startswith("_")]
            raise UnknownReward(f"{module_name!r} has no {attribute!r}{nearest(part, known)}")
        target = getattr(target, part)
    return target


def create(definition: Definition, **options: Any) -> BaseReward:
    """A reward from a definition: a class is constructed, an instance gets the options bound.

    Raises:
        InvalidReward: an option that the reward does not take, with the nearest one it does; or a
            required one is missing.
    """
    if not isinstance(definition, type):
        return definition.bind(**options) if options else definition
    parameters = inspect.signature(definition).parameters.values()
    known = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        for key in options:
            if key not in known:
                hint = nearest(key, known)
                raise InvalidReward(f"reward '{definition.name}' has no option {key!r}{hint}")
    try:
        return definition(**options)
    except TypeError as error:
        raise InvalidReward(f"cannot make {place_of(definition)}: {error}") from error


def route(pattern: str, name: str) -> None:
    """Score samples whose `data_source` matches a pattern with a reward.

    Args:
        pattern: an exact data source, or one with the wildcards `*`, `?` and `[...]`.
        name: a reference as for `resolve`.
    """
    with _lock:
        _routes[pattern] = name


def routes() -> dict[str, str]:
    """All routes, pattern to reference; own ones override those of plug-ins."""
    with _lock:
        return {**plugins.routes(), **_routes}


def reference_for(data_source: str) -> str:
    """The reward reference for a data source: exact patterns first, then the longest wildcard.

    Raises:
        UnknownReward: no route matches.
    """
    known = routes()
    if data_source in known:
        return known[data_source]
    matches = [pattern for pattern in known if fnmatchcase(data_source, pattern)]
    if not matches:
        broken = "; ".join(f"{where} {why}" for where, why in plugins.route_errors().items())
        raise UnknownReward(
            f"no reward is routed for data source {data_source!r}"
            f"{nearest(data_source, known)}{f' ({broken})' if broken else ''}"
        )
    return known[max(matches, key=len)]


def place_of(definition: Definition) -> str:
    """Where a reward is defined, as `module:name`, or `file:name` for a file."""
    owner = _owner(definition)
    return f"{shown_module(_module(owner))}:{_qualname(owner)}"


def _owner(definition: Definition) -> Any:
    return definition if isinstance(definition, type) else definition.defined_by


def _module(owner: Any) -> str:
    return getattr(owner, "__module__", None) or type(owner).__module__


def _qualname(owner: Any) -> str:
    return getattr(owner, "__qualname__", None) or type(owner).__qualname__


def import_module(module_name: str) -> ModuleType:
    """Import a module, for example for the rewards that it registers.

    Raises:
        UnknownReward: it is not there, or its code fails; the cause is chained.
    """
    try:
        return importlib.import_module(module_name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise UnknownReward(f"cannot import {module_name!r}: {describe(error)}") from error


def _as_definition(target: object, reference: str) -> Definition:
    from guerdon.reward import BaseReward, FunctionReward

    if isinstance(target, BaseReward):
        return target
    if isinstance(target, type) and issubclass(target, BaseReward):
        if not hasattr(target, "call") and target.evaluate is BaseReward.evaluate:
            raise InvalidReward(f"{reference!r} has no method 'call': it is a base class")
        return target
    if not isinstance(target, type) and callable(target):
        return FunctionReward(target, name=getattr(target, "__name__", reference))
    if isinstance(target, type):
        raise InvalidReward(f"{reference!r} is a class that is not derived from BaseReward")
    raise InvalidReward(f"{reference!r} is a {type(target).__name__}, not a reward or a function")
