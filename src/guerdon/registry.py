"""Names of rewards: definitions, plug-in packages, dotted paths, files, and routes by data source.

A name is claimed by the first definition that uses it. The same definition may be evaluated again
(a reloaded module, a notebook cell); a different one with the same name is refused.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
import threading
from collections.abc import Mapping
from fnmatch import fnmatchcase
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeAlias

from guerdon.errors import InvalidReward, NameCollision, UnknownReward, nearest

if TYPE_CHECKING:
    from guerdon.reward import BaseReward

    Definition: TypeAlias = BaseReward | type[BaseReward]

ENTRY_POINT_GROUP = "guerdon.rewards"
"""Plug-in packages name their rewards in this entry point group."""

ROUTE_GROUP = "guerdon.routes"
"""Entry points that name a mapping of data source patterns to reward names."""

_FILE_MODULE_PREFIX = "guerdon_file_"
_lock = threading.RLock()
_definitions: dict[str, Definition] = {}
_routes: dict[str, str] = {}
_files: dict[str, str] = {}


def register(name: str, definition: Definition) -> None:
    """Claim a name for a reward or a reward class.

    Raises:
        NameCollision: another definition has the name; both places are named.
    """
    with _lock:
        known = _definitions.get(name)
        if known is not None and place_of(known) != place_of(definition):
            raise NameCollision(_collision(name, place_of(known), place_of(definition)))
        plugin = _plugins().get(name)
        if plugin is not None and plugin.value != place_of(definition):
            raise NameCollision(_collision(name, plugin.value, place_of(definition)))
        _definitions[name] = definition


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
        return sorted({*_definitions, *_plugins()})


def get(name: str) -> Definition:
    """The reward or reward class of a name.

    Raises:
        UnknownReward: with the nearest known name.
    """
    with _lock:
        definition = _definitions.get(name)
    if definition is not None:
        return definition
    plugin = _plugins().get(name)
    if plugin is None:
        raise UnknownReward(f"no reward is named {name!r}{nearest(name, names())}")
    return _as_definition(plugin.load(), plugin.value)


def resolve(reference: str, /, **options: Any) -> BaseReward:
    """The reward that a reference names, with options bound to it.

    Args:
        reference: a registered name, `pkg.mod:name`, or `path/to/file.py:name`.
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
    module_name, separator, attribute = reference.rpartition(":")
    if not separator:
        if reference.endswith(".py"):
            raise UnknownReward(f"{reference!r} names a file: write {reference}:NAME")
        return get(reference)
    module = load_file(module_name) if module_name.endswith(".py") else _import(module_name)
    target: Any = module
    for part in attribute.split("."):
        if not hasattr(target, part):
            known = [n for n in vars(module) if not n.startswith("_")]
            raise UnknownReward(f"{module_name!r} has no {attribute!r}{nearest(attribute, known)}")
        target = getattr(target, part)
    return _as_definition(target, reference)


def create(definition: Definition, **options: Any) -> BaseReward:
    """A reward from a definition: a class is constructed, an instance gets the options bound."""
    if isinstance(definition, type):
        try:
            return definition(**options)
        except TypeError as error:
            raise InvalidReward(f"cannot make {place_of(definition)}: {error}") from error
    return definition.bind(**options) if options else definition


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
        return {**_plugin_routes(), **_routes}


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
        raise UnknownReward(f"no reward is routed for data source {data_source!r}")
    return known[max(matches, key=len)]


def load_file(path: str) -> ModuleType:
    """Import a Python file as a module of its own, once per path.

    Raises:
        UnknownReward: the file is missing, or its code fails; the cause is chained.
    """
    location = Path(path).expanduser().resolve()
    if not location.is_file():
        raise UnknownReward(f"no file {str(location)!r}")
    name = _FILE_MODULE_PREFIX + hashlib.sha256(str(location).encode()).hexdigest()[:12]
    with _lock:
        if name not in sys.modules:
            _execute_file(name, location)
        _files[name] = str(location)
    return sys.modules[name]


def loaded_files() -> dict[str, str]:
    """Modules made by `load_file`, module name to path; a worker loads them the same way."""
    with _lock:
        return dict(_files)


def place_of(definition: Definition) -> str:
    """Where a reward is defined, as `module:name`, or `file:name` for a file."""
    owner = definition if isinstance(definition, type) else definition.defined_by
    module = _files.get(owner.__module__, owner.__module__)
    return f"{module}:{owner.__qualname__}"


def _execute_file(name: str, location: Path) -> None:
    spec = importlib.util.spec_from_file_location(name, location)
    if spec is None or spec.loader is None:
        raise UnknownReward(f"cannot load {str(location)!r} as Python")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    _files[name] = str(location)
    folder = str(location.parent)
    if folder not in sys.path:
        sys.path.append(folder)
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name], _files[name]
        if isinstance(error, KeyboardInterrupt):
            raise
        raise UnknownReward(
            f"{str(location)!r} fails to import: {type(error).__name__}: {error}"
        ) from error


def _import(module_name: str) -> ModuleType:
    try:
        return importlib.import_module(module_name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise UnknownReward(f"cannot import {module_name!r}: {error}") from error


def _as_definition(target: object, reference: str) -> Definition:
    from guerdon.reward import BaseReward, FunctionReward

    if isinstance(target, BaseReward):
        return target
    if isinstance(target, type) and issubclass(target, BaseReward):
        return target
    if not isinstance(target, type) and callable(target):
        return FunctionReward(target, name=getattr(target, "__name__", reference))
    raise InvalidReward(f"{reference!r} is a {type(target).__name__}, not a reward or a function")


@cache
def _plugins() -> Mapping[str, EntryPoint]:
    found: dict[str, EntryPoint] = {}
    for plugin in entry_points(group=ENTRY_POINT_GROUP):
        known = found.setdefault(plugin.name, plugin)
        if known.value != plugin.value:
            raise NameCollision(_collision(plugin.name, known.value, plugin.value))
    return found


@cache
def _plugin_routes() -> Mapping[str, str]:
    found: dict[str, str] = {}
    for plugin in entry_points(group=ROUTE_GROUP):
        found.update(plugin.load())
    return found
