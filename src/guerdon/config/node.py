"""Rewards from the nodes of a configuration.

A node is text (a reference), or a mapping whose head says what it is: `name`, `_target_`, or a
composition such as `weighted_sum`. Its other keys are options; `_settings_` changes what the
reward declares.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, get_args, get_origin, get_type_hints

import msgspec

from guerdon import registry
from guerdon.config.place import Place
from guerdon.config.target import (
    ARGUMENTS,
    HYDRA_KEYS,
    TARGET,
    absolute_reference,
    build,
    guarded,
    locate,
)
from guerdon.declaration import SETTINGS
from guerdon.errors import nearest
from guerdon.reward import BaseReward, FunctionReward

if TYPE_CHECKING:
    from guerdon.registry import Definition

NAME = "name"
DECLARED = "_settings_"
CONFIGURABLE = tuple(s for s in SETTINGS if s not in ("auto_register", "fixtures"))
"""What `_settings_` may change."""


class Builder:
    """Builds the nodes of one configuration.

    Args:
        folder: what relative paths start from.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def reward(self, node: Any, place: Place) -> BaseReward:
        """The reward that a node describes.

        Raises:
            ConfigError: naming the key and its place.
        """
        if isinstance(node, BaseReward):
            return node
        if isinstance(node, str):
            return self._create(self._find(node, place), {}, place)
        if isinstance(node, dict):
            return self._configured(cast("dict[str, Any]", node), place)
        if callable(node):
            return guarded(place, FunctionReward, node)
        raise place.error(f"a reward is a name or a mapping, not {_type(node)} {node!r}")

    def value(self, node: Any, place: Place) -> Any:
        """An option's value: targets in it are built, all else is as it stands."""
        if isinstance(node, list):
            items = cast("list[Any]", node)
            return [self.value(item, place.child(i)) for i, item in enumerate(items)]
        if not isinstance(node, dict):
            return node
        mapping = cast("dict[str, Any]", node)
        if TARGET in mapping:
            return self.target(mapping, place)
        return {key: self.value(item, place.child(key)) for key, item in mapping.items()}

    def target(self, node: Mapping[str, Any], place: Place) -> Any:
        """What a `_target_` node gives."""
        options = {key: item for key, item in node.items() if key not in (TARGET, ARGUMENTS)}
        for key, allowed in HYDRA_KEYS.items():
            if key in options and options.pop(key) not in allowed:
                shown = " or ".join(map(str, allowed))
                raise place.child(key).error(f"Hydra's {key!r} is understood as {shown} only")
        reference = node[TARGET]
        where = place.child(TARGET)
        if not isinstance(reference, str):
            raise where.error(f"a target is a text such as pkg.mod.Class, not {_type(reference)}")
        arguments = self.value(node.get(ARGUMENTS, []), place.child(ARGUMENTS))
        if not isinstance(arguments, list):
            raise place.child(ARGUMENTS).error("positional arguments are a list")
        found = locate(absolute_reference(reference, self.folder, where), where)
        if not arguments and _is_composition(found):
            from guerdon.config.composition import construct

            declared = options.pop(DECLARED, None)
            return self._declared(construct(self, found, options, place), declared, place)
        if isinstance(found, BaseReward) or _is_reward_class(found):
            declared = options.pop(DECLARED, None)
            options = self._options(found, options, place)
            made = build(found, cast("list[Any]", arguments), options, place)
            return self._declared(made, declared, place)
        built = {key: self.value(item, place.child(key)) for key, item in options.items()}
        declared = built.pop(DECLARED, None)
        made = build(found, cast("list[Any]", arguments), built, place)
        return self._declared(made, declared, place)

    def _configured(self, node: dict[str, Any], place: Place) -> BaseReward:
        from guerdon.config.composition import FORMS, compose

        if TARGET in node:
            made = self.target(node, place)
            if not isinstance(made, BaseReward):
                raise place.error(f"{node[TARGET]} gives a {type(made).__name__}, not a reward")
            return made
        forms = [key for key in FORMS if key in node and _names_children(node, key)]
        if len(forms) > 1:
            raise place.error(f"{' and '.join(map(repr, forms))} in one node")
        head = forms[0] if forms else NAME
        if head not in node:
            raise self._headless(node, place, (NAME, TARGET, *FORMS))
        rest = {key: item for key, item in node.items() if key not in (head, DECLARED)}
        if forms:
            made = compose(self, head, node[head], rest, place)
        else:
            made = self._named(node[NAME], rest, place)
        return self._declared(made, node.get(DECLARED), place)

    def _headless(self, node: Mapping[str, Any], place: Place, heads: tuple[str, ...]) -> Exception:
        for key in node:
            hint = nearest(key, heads)
            if hint:
                return place.child(key).error(f"unknown key {key!r}{hint}")
        found = f" (keys: {', '.join(node)})" if node else ""
        return place.error(f"nothing says which reward this is{found}: give {', '.join(heads)}")

    def _named(self, name: Any, options: Mapping[str, Any], place: Place) -> BaseReward:
        where = place.child(NAME)
        if not isinstance(name, str):
            raise where.error(f"a name is text, not {_type(name)} {name!r}")
        return self._create(self._find(name, where), options, place)

    def _find(self, reference: str, place: Place) -> Definition:
        absolute = absolute_reference(reference, self.folder, place)
        return guarded(place, registry.find, absolute)

    def _create(
        self, definition: Definition, options: Mapping[str, Any], place: Place
    ) -> BaseReward:
        options = self._options(definition, options, place)
        return guarded(place, registry.create, definition, **options)

    def _options(
        self, definition: Definition, options: Mapping[str, Any], place: Place
    ) -> dict[str, Any]:
        """Options with targets built; names and plain types are checked where they stand."""
        known = known_options(definition)
        types = _option_types(definition)
        checked: dict[str, Any] = {}
        for key, item in options.items():
            where = place.child(key)
            if known is not None and key not in known:
                raise self._unknown_option(key, known, definition.name, place)
            checked[key] = self.option(item, types.get(key), where)
        return checked

    def _unknown_option(self, key: str, known: list[str], reward: str, place: Place) -> Exception:
        where = place.child(key)
        if key in CONFIGURABLE:
            return where.error(
                f"{key!r} is no option of reward '{reward}' but a setting: "
                f"write {DECLARED}: {{{key}: ...}}"
            )
        if key in ("weight", "missing"):
            return where.error(
                f"{key!r} belongs beside the reward: {{reward: {{name: ...}}, {key}: ...}}"
            )
        return place.unknown(key, known, f"option of reward '{reward}'")

    def option(self, node: Any, expected: Any, place: Place) -> Any:
        """An option's value, checked against its annotation.

        Args:
            node: as it stands.
            expected: the annotation, None where there is none.
            place: of the node.
        """
        return _checked(self.value(node, place), expected, place)

    def _declared(self, made: Any, declared: Any, place: Place) -> Any:
        """A reward with its `_settings_`."""
        if declared is None:
            return made
        where = place.child(DECLARED)
        if not isinstance(made, BaseReward):
            raise where.error(f"a {type(made).__name__} has no settings, only rewards have")
        if not isinstance(declared, dict):
            raise where.error(f"settings are a mapping, not {_type(declared)}")
        settings = cast("dict[str, Any]", declared)
        for key in settings:
            if key not in CONFIGURABLE:
                raise where.unknown(key, CONFIGURABLE, "setting")
        converted = {
            key: _checked(item, _SETTING_TYPES[key], where.child(key), lax=True)
            for key, item in settings.items()
        }
        return guarded(where, made.configure, **converted)


def known_options(definition: Definition) -> list[str] | None:
    """The options that a reward takes; None where it takes any."""
    if isinstance(definition, FunctionReward):
        parameters = definition.parameters
        return None if parameters.accepts_any else [*parameters.options, *parameters.named]
    kind = definition if isinstance(definition, type) else type(definition)
    found = inspect.signature(kind).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in found):
        return None
    return [p.name for p in found if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]


_SCALAR = (bool, int, float, str, type(None))
_PLAIN = (*_SCALAR, list, dict)
_SETTING_TYPES: Mapping[str, Any] = {
    "deadline": float | None,
    "value_range": tuple[float, float],
    "higher_is_better": bool,
    "candidate_fault": tuple[str, ...],
    "concurrency": int | None,
    "batch_size": int | None,
    "dedupe": bool,
    **dict.fromkeys(("name", "version", "scope", "work"), str),
}


def _option_types(definition: Definition) -> Mapping[str, Any]:
    """Annotations of the options, where they can be had."""
    function: Callable[..., Any]
    if isinstance(definition, FunctionReward):
        function = definition.function
    else:
        kind = definition if isinstance(definition, type) else type(definition)
        function = cast("Callable[..., Any]", kind.__init__)
    try:
        return get_type_hints(function)
    except (NameError, TypeError, AttributeError):
        return {}


def _checked(value: Any, expected: Any, place: Place, *, lax: bool = False) -> Any:
    """The value, where it fits its annotation; containers become what the annotation says.

    An annotation that msgspec does not know checks nothing.
    """
    if expected is None or not isinstance(value, _PLAIN):
        return value
    try:
        converted = msgspec.convert(value, expected, strict=not lax)
    except msgspec.ValidationError as error:
        raise place.error(_misfit(value, expected, error)) from None
    except Exception:
        return cast("Any", value)
    # A number stays as it was written: 1 and 1.0 would differ from the same reward in Python.
    keep = isinstance(value, _SCALAR) and not lax
    return cast("Any", value) if keep else converted


def _misfit(value: Any, expected: Any, error: Exception) -> str:
    if get_origin(expected) is not Literal:
        return f"{error}: {value!r}"
    allowed = [str(choice) for choice in get_args(expected)]
    return f"{value!r} is none of {', '.join(allowed)}{nearest(str(value), allowed)}"


def _names_children(node: Mapping[str, Any], form: str) -> bool:
    """Whether a key is a composition: beside `name`, a plain value is an option of that reward."""
    return NAME not in node or isinstance(node[form], dict | list)


def _is_composition(found: Any) -> bool:
    from guerdon.compose import Composition

    return isinstance(found, type) and issubclass(found, Composition)


def _is_reward_class(found: object) -> bool:
    return isinstance(found, type) and issubclass(found, BaseReward)


def _type(value: object) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"
