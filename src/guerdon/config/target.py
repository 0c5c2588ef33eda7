"""What `_target_` may build: things that Guerdon knows, and functions that say they return one.

A configuration names code, it never is code: a target is found by its path or name and nothing is
evaluated. Of what is found only these are called: classes of Guerdon or derived from one, and
functions whose return annotation is such a class. A function without one is a reward function.
"""

from __future__ import annotations

import importlib.util
import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast, get_type_hints

from guerdon import registry
from guerdon.config.place import Place
from guerdon.errors import GuerdonError, UnknownReward
from guerdon.reward import BaseReward, FunctionReward

TARGET = "_target_"
ARGUMENTS = "_args_"
HYDRA_KEYS: Mapping[str, tuple[Any, ...]] = {
    "_convert_": ("all", "object", "partial"),
    "_recursive_": (True,),
    "_partial_": (False,),
}
"""Hydra's further keys, with the values that mean what happens here anyway: arguments are plain
containers, nested targets are built first, and the target is called."""

_PACKAGE = "guerdon"


def absolute_reference(reference: str, folder: Path, place: Place) -> str:
    """A reference whose file, if it names one, is absolute.

    Args:
        reference: as in the configuration.
        folder: of the configuration; the working directory comes second.
        place: of the reference.
    """
    convention, function = registry.split_convention(reference)
    path, separator, attribute = function.rpartition(":")
    if not separator or not path.endswith(".py"):
        return reference
    prefix = f"{convention}:" if convention else ""
    return f"{prefix}{find_path(path, folder, place)}:{attribute}"


def find_path(path: str, folder: Path, place: Place) -> Path:
    """The file that a configuration names.

    Raises:
        ConfigError: it is neither beside the configuration nor in the working directory.
    """
    given = Path(path).expanduser()
    candidates = dict.fromkeys((folder / given, Path.cwd() / given))
    for candidate in candidates:
        if candidate.is_file():
            return candidate.resolve()
    raise place.error(f"no file {' and no file '.join(map(str, candidates))}")


def locate(reference: str, place: Place) -> Any:
    """The object that a target names.

    Args:
        reference: `pkg.mod:attr`, `pkg.mod.attr` or `/path/file.py:attr`; a registered name, which
            here has no dot; or a function of a trainer's convention (`verl:/path/file.py:attr`).
        place: of the reference.

    Raises:
        ConfigError: nothing is there.
    """
    try:
        if registry.split_convention(reference)[0] or not re.search("[.:]", reference):
            return registry.find(reference)
        return registry.target_of(reference if ":" in reference else _with_colon(reference))
    except UnknownReward as error:
        raise place.error(str(error)) from error


def _with_colon(dotted: str) -> str:
    """`pkg.mod.Class.method` as `pkg.mod:Class.method`: the longest part that is a module."""
    parts = dotted.split(".")
    for end in range(len(parts) - 1, 0, -1):
        module = ".".join(parts[:end])
        try:
            found = importlib.util.find_spec(module)
        except (ImportError, ValueError):
            continue
        if found is not None:
            return f"{module}:{'.'.join(parts[end:])}"
    return f"{parts[0]}:{'.'.join(parts[1:])}"


def build(target: Any, arguments: list[Any], options: Mapping[str, Any], place: Place) -> Any:
    """What a target gives with its arguments.

    Args:
        target: what `locate` found.
        arguments: positional ones (`_args_`).
        options: keywords; nested targets are built already.
        place: of the node.

    Raises:
        ConfigError: the target may not be built, or refuses its arguments.
    """
    if isinstance(target, BaseReward) or _is_reward_function(target):
        if arguments:
            raise place.child(ARGUMENTS).error("a reward function takes its options by name")
        made = target if isinstance(target, BaseReward) else guarded(place, FunctionReward, target)
        return guarded(place, made.bind, **options) if options else made
    if not _may_be_called(target):
        raise place.child(TARGET).error(_refusal(target))
    if isinstance(target, type) and issubclass(target, BaseReward) and not arguments:
        return guarded(place, registry.create, target, **options)
    made = guarded(place, target, *arguments, **options)
    if not is_ours(cast("type[object]", type(made))):
        raise place.error(f"{_name(target)} returned a {type(made).__name__}")
    return made


def guarded(place: Place, make: Any, /, *arguments: Any, **options: Any) -> Any:
    """Call something; what it refuses becomes a complaint about the place."""
    try:
        return make(*arguments, **options)
    except GuerdonError as error:
        raise place.error(str(error)) from error
    except Exception as error:
        name = _name(make)
        raise place.error(f"{name} raised {type(error).__name__}: {error}") from error


def is_ours(kind: type[object]) -> bool:
    """Whether a class is Guerdon's, or derived from one of Guerdon's."""
    return any(base.__module__.partition(".")[0] == _PACKAGE for base in kind.__mro__)


def _may_be_called(target: Any) -> bool:
    if isinstance(target, type):
        return is_ours(cast("type[object]", target))
    returned = _returned(target)
    return isinstance(returned, type) and is_ours(cast("type[object]", returned))


def _is_reward_function(target: Any) -> bool:
    return inspect.isfunction(target) and not _may_be_called(target)


def _returned(function: Any) -> Any:
    try:
        return get_type_hints(function).get("return")
    except (NameError, TypeError, AttributeError):
        return None


def _name(target: Any) -> str:
    module = getattr(target, "__module__", None) or type(target).__module__
    return f"{module}.{getattr(target, '__qualname__', type(target).__qualname__)}"


def _refusal(target: Any) -> str:
    return (
        f"{_name(target)} is nothing that a configuration may build: it takes a reward, a class "
        "of Guerdon or one derived from it, or a function annotated to return one"
    )
