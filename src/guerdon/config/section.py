"""The parts of a service beside its reward: policy, truncation, backend, imports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, cast

import msgspec

from guerdon import registry
from guerdon.config.node import Builder
from guerdon.config.place import Place
from guerdon.config.target import TARGET, find_path, guarded
from guerdon.errors import Blame, UnknownReward, nearest
from guerdon.outcome import EMPTY
from guerdon.policy import ACTIONS, Action, Assign, Policy
from guerdon.service import BACKENDS
from guerdon.truncation import MODES, Truncation

S = TypeVar("S", bound=msgspec.Struct)

EVERY_SPLIT = "*"
"""The policy of this name holds for every split without one of its own."""


class BackendChoice(msgspec.Struct, frozen=True):
    """Where the work runs, before anything is started.

    Attributes:
        name: `auto` (what each reward needs), `inline` or `pool`.
        options: constructor arguments of the pool.
        given: a backend that `_target_` made, or that came from Python.
    """

    name: str = "auto"
    options: Mapping[str, Any] = EMPTY
    given: Any = None

    @property
    def choice(self) -> Any:
        """As `RewardService` takes it."""
        return self.given if self.given is not None else {self.name: dict(self.options)}


def policies(node: Any, place: Place, builder: Builder) -> Policy | dict[str, Policy]:
    """One policy, or one per split.

    Args:
        node: the fields of a `Policy`, or a mapping of splits to those.
        place: of the node.
        builder: for targets.
    """
    found_node = _mapping_or_target(node, place, builder, Policy)
    if isinstance(found_node, Policy):
        return found_node
    mapping = cast("dict[str, Any]", found_node)
    fields = Policy.__struct_fields__
    if not mapping or any(key in fields for key in mapping):
        return _policy(mapping, place, builder)
    for key, item in mapping.items():
        if not isinstance(item, dict | Policy) or nearest(key, fields):
            raise place.unknown(key, [*fields, "train", "validation"])
    found: dict[str, Policy] = {}
    for split, item in mapping.items():
        where = place.child(split)
        found[split] = _policy(_mapping_or_target(item, where, builder, Policy), where, builder)
    return found


def _policy(node: Any, place: Place, builder: Builder) -> Policy:
    if isinstance(node, Policy):
        return node
    arguments = dict(cast("dict[str, Any]", node))
    if "on" in arguments:
        arguments["on"] = _actions(arguments["on"], place.child("on"))
    if "abstention" in arguments:
        arguments["abstention"] = _action(arguments["abstention"], place.child("abstention"))
    return struct(Policy, arguments, place, builder)


def _actions(node: Any, place: Place) -> dict[str, Action]:
    if not isinstance(node, dict):
        raise place.error(f"actions by blame are a mapping, not {node!r}")
    blames = [str(blame) for blame in Blame]
    actions: dict[str, Action] = {}
    for blame, item in cast("dict[str, Any]", node).items():
        if blame not in blames:
            raise place.unknown(blame, blames, "blame")
        actions[blame] = _action(item, place.child(blame))
    return actions


def _action(node: Any, place: Place) -> Action:
    """An action: one of the four words, or `{assign: 0.0}`."""
    if isinstance(node, Assign):
        return node
    if isinstance(node, str) and node in ACTIONS:
        return cast("Action", node)
    if isinstance(node, dict):
        mapping = cast("dict[str, Any]", node)
        if list(mapping) == ["assign"]:
            where = place.child("assign")
            return guarded(where, Assign, _field(mapping["assign"], float, where))
    words = ", ".join(ACTIONS)
    hint = nearest(str(cast("object", node)), ACTIONS)
    raise place.error(f"an action is one of {words}, or {{assign: 0.0}}; got {node!r}{hint}")


def truncation(node: Any, place: Place, builder: Builder) -> Truncation:
    """A truncation rule: its fields, or its mode alone."""
    if isinstance(node, str):
        if node not in MODES:
            hint = nearest(node, MODES)
            raise place.error(f"a truncation mode is one of {', '.join(MODES)}; got {node!r}{hint}")
        return guarded(place, Truncation, node)
    found = _mapping_or_target(node, place, builder, Truncation)
    if isinstance(found, Truncation):
        return found
    return struct(Truncation, found, place, builder)


def backend(node: Any, place: Place, builder: Builder) -> BackendChoice:
    """A backend: `inline`, `pool`, `{pool: {workers: 4}}`, or a target."""
    if node is None:
        return BackendChoice()
    if isinstance(node, str):
        if node not in BACKENDS:
            hint = nearest(node, BACKENDS)
            raise place.error(f"a backend is one of {', '.join(BACKENDS)}; got {node!r}{hint}")
        return BackendChoice(node)
    if isinstance(node, dict):
        mapping = cast("dict[str, Any]", node)
        if TARGET in mapping:
            return BackendChoice(given=_backend_object(builder.target(mapping, place), place))
        return _backend_with_options(mapping, place)
    return BackendChoice(given=_backend_object(node, place))


def _backend_with_options(node: dict[str, Any], place: Place) -> BackendChoice:
    if len(node) != 1:
        raise place.error(f"a backend has one name, such as {{pool: {{workers: 4}}}}; got {node!r}")
    (name, options), *_ = node.items()
    if name not in BACKENDS:
        raise place.unknown(name, BACKENDS, "backend")
    where = place.child(name)
    if not options:
        return BackendChoice(name)
    if not isinstance(options, dict):
        raise where.error(f"options of a backend are a mapping, not {options!r}")
    given = cast("dict[str, Any]", options)
    if name == "inline":
        raise where.unknown(next(iter(given)), (), "option of inline")
    return BackendChoice(name, _pool_options(given, where))


def _pool_options(options: dict[str, Any], place: Place) -> dict[str, Any]:
    import inspect
    from typing import get_type_hints

    from guerdon.backends.pool import PoolBackend

    known = list(inspect.signature(PoolBackend).parameters)
    types = get_type_hints(PoolBackend.__init__)
    found: dict[str, Any] = {}
    for key, item in options.items():
        if key not in known:
            raise place.unknown(key, known, "option of the pool")
        found[key] = _field(item, types.get(key, Any), place.child(key))
    return found


def _backend_object(found: Any, place: Place) -> Any:
    if callable(getattr(found, "run", None)) and callable(getattr(found, "close", None)):
        return found
    raise place.error(f"a {type(found).__name__} is no backend: it lacks run or close")


def imports(node: Any, place: Place, builder: Builder) -> None:
    """Import modules and files, for the rewards that they register.

    Args:
        node: a list of `pkg.mod` and `path/file.py`.
        place: of the list.
        builder: knows the folder that paths start from.
    """
    if not isinstance(node, list):
        raise place.error(f"imports are a list of modules and files, not {node!r}")
    for i, item in enumerate(cast("list[Any]", node)):
        where = place.child(i)
        if not isinstance(item, str):
            raise where.error(f"an import is pkg.mod or path/file.py, not {item!r}")
        try:
            if item.endswith(".py"):
                registry.load_file(str(find_path(item, builder.folder, where)))
            else:
                registry.import_module(item)
        except UnknownReward as error:
            raise where.error(str(error)) from error


def struct(kind: type[S], node: Mapping[str, Any], place: Place, builder: Builder) -> S:
    """A frozen struct from a mapping of its fields; numbers may be text from the environment.

    Raises:
        ConfigError: an unknown field with the nearest known one, or a value that does not fit.
    """
    fields = {field.name: field for field in msgspec.structs.fields(kind)}
    arguments: dict[str, Any] = {}
    for key, item in node.items():
        if key not in fields:
            raise place.unknown(key, fields)
        where = place.child(key)
        inner = _inner_struct(fields[key].type)
        if isinstance(item, dict) and inner is not None and key != "on":
            item = _mapping_or_target(item, where, builder, inner)
            if isinstance(item, dict):
                item = struct(inner, cast("dict[str, Any]", item), where, builder)
        elif key not in ("on", "abstention") and not isinstance(item, msgspec.Struct):
            item = _field(item, fields[key].type, where)
        arguments[key] = item
    return guarded(place, kind, **arguments)


def _inner_struct(kind: Any) -> type[msgspec.Struct] | None:
    """The struct in `Struct` or `Struct | None`."""
    from typing import get_args

    for option in get_args(kind) or (kind,):
        if isinstance(option, type) and issubclass(option, msgspec.Struct):
            return option
    return None


def _field(value: Any, kind: Any, place: Place) -> Any:
    try:
        return msgspec.convert(value, kind, strict=False)
    except msgspec.ValidationError as error:
        raise place.error(f"{error}: {value!r}") from None


def _mapping_or_target(node: Any, place: Place, builder: Builder, kind: type[Any]) -> Any:
    """A mapping of fields, or an object of the kind: given, or made by `_target_`."""
    if isinstance(node, dict):
        mapping = cast("dict[str, Any]", node)
        if TARGET not in mapping:
            return mapping
        node = builder.target(mapping, place)
    if isinstance(node, kind):
        return node
    raise place.error(f"expected the fields of a {kind.__name__}, got {node!r}")
