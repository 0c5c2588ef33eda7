"""Compositions in their short form: the class's name in snake case, over its first argument.

    weighted_sum:                    # WeightedSum(children, *, normalise=False, ...)
      accuracy: {reward: {name: gsm8k, method: strict}, weight: 0.9}
      format: {reward: "rewards.py:tidy", weight: 0.1, missing: abstain}
    normalise: true

The other keys of the node are the other arguments of the class. Where an argument takes children,
each is a node by itself, or a mapping with the fields of a `Child` (`reward`, `weight`, `missing`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast, get_type_hints

from guerdon import compose as compositions
from guerdon import registry
from guerdon.compose import Child, Conditional
from guerdon.compose.child import ChildLike, Children
from guerdon.compose.composition import Composition
from guerdon.config.place import Place
from guerdon.config.target import TARGET, guarded
from guerdon.declaration import snake_case
from guerdon.reward import BaseReward

if TYPE_CHECKING:
    from guerdon.config.node import Builder

FORMS: Mapping[str, type[Composition]] = {
    snake_case(name): kind
    for name in compositions.__all__
    if isinstance(kind := getattr(compositions, name), type)
    and issubclass(kind, Composition)
    and kind is not Composition
}
"""Every composition by the key that stands for it."""

REGISTERED = "registered"
"""In the place of routes: those of the registry."""

_CHILD_FIELDS = Child.__struct_fields__
_OTHERWISE = "otherwise"
_WILDCARDS = frozenset("*?[")


def compose(
    builder: Builder, form: str, body: Any, options: Mapping[str, Any], place: Place
) -> BaseReward:
    """The composition of a node in the short form.

    Args:
        builder: builds the children.
        form: one of `FORMS`.
        body: what stands under the form's key: the first argument.
        options: the other keys of the node.
        place: of the node.
    """
    kind = FORMS[form]
    first = next(iter(_types(kind)))
    if first in options:
        raise place.child(first).error(f"{first!r} is what stands under {form!r}")
    places = {first: place.child(form)}
    return _construct(builder, kind, {first: body, **options}, place, places)


def construct(
    builder: Builder, kind: type[Composition], arguments: Mapping[str, Any], place: Place
) -> BaseReward:
    """A composition from nodes for all its arguments, as `_target_` has them."""
    return _construct(builder, kind, arguments, place, {})


def _construct(
    builder: Builder,
    kind: type[Composition],
    given: Mapping[str, Any],
    place: Place,
    places: Mapping[str, Place],
) -> BaseReward:
    types = _types(kind)
    arguments: dict[str, Any] = {}
    for key, item in given.items():
        where = places.get(key) or place.child(key)
        if key not in types:
            known = [name for name in types if name not in places]
            raise place.unknown(key, known, f"argument of {snake_case(kind.__name__)}")
        if types[key] == Children:
            arguments[key] = _children(builder, item, where)
        elif types[key] == ChildLike:
            arguments[key] = _child(builder, item, where)
        else:
            arguments[key] = builder.option(item, types[key], where)
    return guarded(place, kind, **arguments)


def _types(kind: type[Composition]) -> dict[str, Any]:
    """The annotations of a composition's arguments, in order."""
    found = get_type_hints(kind.__init__)
    found.pop("return", None)
    return found


def routed(builder: Builder, node: Any, default: BaseReward | None, place: Place) -> BaseReward:
    """A reward that is chosen by `data_source`: exact patterns first, then the longest.

    Args:
        builder: builds the rewards.
        node: reward nodes by pattern, or "registered" for the routes of the registry.
        default: for data sources that no pattern fits; without it those samples are abstained.
        place: of the node.
    """
    if node == REGISTERED:
        node = registry.routes()
        if not node:
            raise place.error("the registry has no routes: see 'guerdon rewards'")
    if not isinstance(node, dict) or not node:
        raise place.error(f"routes are a mapping of data source patterns to rewards, not {node!r}")
    nodes = cast("dict[str, Any]", node)
    rewards = {
        pattern: builder.reward(nodes[pattern], place.child(pattern))
        for pattern in sorted(nodes, key=_precedence)
    }
    cases = _cases(rewards)
    children: dict[str, ChildLike] = {name: rewards[found[0]] for name, found in cases.items()}
    otherwise = None
    if default is not None:
        otherwise = _OTHERWISE
        children[otherwise] = default
    return guarded(place, Conditional, children, cases, otherwise=otherwise, name="routes")


def _precedence(pattern: str) -> tuple[bool, int]:
    """As `registry.reference_for`: patterns without wildcards first, then the longest."""
    return _has_wildcard(pattern), -len(pattern)


def _has_wildcard(pattern: str) -> bool:
    return bool(_WILDCARDS & set(pattern))


def _cases(rewards: Mapping[str, BaseReward]) -> dict[str, list[str]]:
    """Patterns by component name, in order of precedence.

    Exact patterns of one reward are one case, because only one of them can fit; patterns with
    wildcards are cases of their own. A name that is used twice gets the pattern.
    """
    groups: dict[str, list[str]] = {}
    for pattern, reward in rewards.items():
        key = pattern if _has_wildcard(pattern) else f"={reward.name} {reward.fingerprint}"
        groups.setdefault(key, []).append(pattern)
    listed = list(groups.values())
    used = [rewards[patterns[0]].name for patterns in listed]
    cases: dict[str, list[str]] = {}
    for name, patterns in zip(used, listed, strict=True):
        shown = name if used.count(name) == 1 else f"{name}@{patterns[0]}".replace("/", "_")
        while shown in cases or shown == _OTHERWISE:
            shown += "'"
        cases[shown] = patterns
    return cases


def _children(builder: Builder, node: Any, place: Place) -> dict[str, Child] | list[Child]:
    if isinstance(node, dict):
        items = cast("dict[str, Any]", node).items()
        return {name: _child(builder, item, place.child(name)) for name, item in items}
    if isinstance(node, list):
        listed = cast("list[Any]", node)
        return [_child(builder, item, place.child(i)) for i, item in enumerate(listed)]
    raise place.error(f"rewards by name, or a list of rewards, belong here; got {node!r}")


def _child(builder: Builder, node: Any, place: Place) -> Child:
    """A child: a reward node, or a mapping with `reward` and the other fields of `Child`."""
    if isinstance(node, dict) and TARGET in node:
        node = builder.target(cast("dict[str, Any]", node), place)
    if isinstance(node, Child):
        return node
    if not _has_child_fields(node):
        return Child(builder.reward(node, place))
    fields = cast("dict[str, Any]", node)
    for key in fields:
        if key not in _CHILD_FIELDS:
            raise place.unknown(key, _CHILD_FIELDS)
    arguments = {**fields, "reward": builder.reward(fields["reward"], place.child("reward"))}
    return guarded(place, Child, **arguments)


def _has_child_fields(node: Any) -> bool:
    """Whether a mapping describes a child; a gate is a reward although it has a key `reward`."""
    return isinstance(node, dict) and "reward" in node and not any(form in node for form in FORMS)
