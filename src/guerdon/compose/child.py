"""A child of a composition: a reward, its weight, its name, and what becomes of its absence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias, cast

import msgspec
from msgspec.structs import force_setattr

from guerdon import registry
from guerdon.compose.curve import Weight, as_weight
from guerdon.compose.ranges import hull
from guerdon.errors import InvalidReward, nearest
from guerdon.outcome import Range
from guerdon.reward import BaseReward

SEPARATOR = "/"
"""Between the names of nested components: `outer/inner`. No child's name holds it."""

POLICIES = ("fail", "abstain", "renormalise")


class Value(msgspec.Struct, frozen=True):
    """The number to calculate with where a child has no score.

    The composition is a score then; the child's component stays None and `Score.absent` says why.

    Attributes:
        value: finite.

    Example:
        >>> Value(float("nan"))
        Traceback (most recent call last):
        guerdon.errors.InvalidReward: a stand-in value must be finite, got nan
    """

    value: float

    def __post_init__(self) -> None:
        if not math.isfinite(self.value):
            raise InvalidReward(f"a stand-in value must be finite, got {self.value}")


Missing: TypeAlias = Literal["fail", "abstain", "renormalise"] | Value
"""What a child without a score does to the composition.

- `fail`: its abstention makes an abstention, its failure a failure.
- `abstain`: either makes an abstention, except a failure that the candidate caused: that one stays
  a failure, or crashing a verifier would be a way out.
- `renormalise`: the rest of a weighted sum is scaled up and the score is flagged; a failure that
  the candidate caused stays a failure.
- `Value(x)`: x is calculated with, whatever the cause.
"""


class Child(msgspec.Struct, frozen=True):
    """A child of a composition.

    Attributes:
        reward: a reward, or a reference such as "gsm8k" or "rewards.py:mine".
        weight: for weighted sums: a finite number of any sign, or a `Curve` over training steps.
        missing: see `Missing`; in configurations `{value: 0.0}` is `Value(0.0)`.
        name: of the component; by default the key in a mapping, else the reward's name.

    Example:
        >>> Child("gsm8k", weight=0.9, missing="abstain").weight
        0.9
    """

    reward: BaseReward | str
    weight: Weight = 1.0
    missing: Missing = "fail"
    name: str | None = None

    def __post_init__(self) -> None:
        force_setattr(self, "weight", as_weight(self.weight))
        force_setattr(self, "missing", _as_missing(self.missing))


ChildLike: TypeAlias = BaseReward | type[BaseReward] | str | Child | Mapping[str, Any]
"""A reward, a reference to one, a `Child`, or a mapping with the fields of a `Child`."""

Children: TypeAlias = Mapping[str, ChildLike] | Sequence[ChildLike]
"""Children by component name, or a list of them under their own names."""


class Member(msgspec.Struct, frozen=True):
    """A child with everything about it decided."""

    name: str
    reward: BaseReward
    weight: Weight
    missing: Missing

    @property
    def interval(self) -> Range:
        """What it can contribute: the range of its reward, widened by a stand-in value."""
        own = self.reward.value_range
        if isinstance(self.missing, Value):
            return hull([own, (self.missing.value, self.missing.value)])
        return own

    @property
    def child(self) -> Child:
        """As it could have been given."""
        return Child(self.reward, self.weight, self.missing, self.name)


def members_of(children: Children, owner: str) -> tuple[Member, ...]:
    """The members that children stand for, in their order.

    Args:
        children: of a composition.
        owner: name of the composition, for error messages.

    Raises:
        InvalidReward: no children, one that is no reward, or an unusable name.
        UnknownReward: nothing answers to a reference.
    """
    if isinstance(children, str | BaseReward | Child):
        raise InvalidReward(f"{owner}: children must be a mapping or a list, got {children!r}")
    if isinstance(children, Mapping):
        members = [member_of(child, owner, str(name)) for name, child in children.items()]
    else:
        members = [member_of(child, owner) for child in children]
    if not members:
        raise InvalidReward(f"{owner} needs at least one child")
    return tuple(members)


def member_of(raw: ChildLike, owner: str, name: str | None = None) -> Member:
    """The member that one child stands for.

    Args:
        raw: the child.
        owner: name of the composition, for error messages.
        name: its key, where children are a mapping.
    """
    child = _as_child(raw, owner, name)
    if name is not None and child.name not in (None, name):
        raise InvalidReward(f"{owner}: the child under {name!r} calls itself {child.name!r}")
    reward = registry.resolve(child.reward) if isinstance(child.reward, str) else child.reward
    chosen = next(n for n in (name, child.name, reward.name) if n is not None)
    if not chosen or SEPARATOR in chosen:
        raise InvalidReward(
            f"{owner}: a child cannot be called {chosen!r}: a component name is not empty and "
            f"holds no {SEPARATOR!r}; give it one with Child(..., name=...)"
        )
    return Member(chosen, reward, child.weight, child.missing)


def _as_child(raw: object, owner: str, name: str | None) -> Child:
    if isinstance(raw, Child):
        return raw
    if isinstance(raw, BaseReward | str):
        return Child(raw)
    if isinstance(raw, type) and issubclass(cast("type[object]", raw), BaseReward):
        return Child(registry.create(cast("type[BaseReward]", raw)))
    where = owner if name is None else f"{owner}: child {name!r}"
    if isinstance(raw, Mapping):
        return _parse(cast("Mapping[str, Any]", raw), where)
    hint = ": decorate it with @reward" if callable(cast("object", raw)) else ""
    kind = type(cast("object", raw)).__name__
    raise InvalidReward(f"{where}: a {kind} is no reward{hint}")


def _parse(raw: Mapping[str, Any], where: str) -> Child:
    known = Child.__struct_fields__
    for key in raw:
        if key not in known:
            raise InvalidReward(f"{where}: a child has no {key!r}{nearest(str(key), known)}")
    if "reward" not in raw:
        raise InvalidReward(f"{where}: a child needs 'reward'")
    inner = _as_child(raw["reward"], where, None)
    fields: dict[str, Any] = {**raw, "reward": inner.reward}
    return Child(**fields)


def _as_missing(raw: object) -> Missing:
    if isinstance(raw, Value):
        return raw
    if isinstance(raw, str) and raw in POLICIES:
        return cast("Missing", raw)
    if isinstance(raw, Mapping):
        mapping = cast("Mapping[str, Any]", raw)
        if set(mapping) == {"value"} and isinstance(mapping["value"], int | float):
            return Value(float(mapping["value"]))
    hint = nearest(raw, POLICIES) if isinstance(raw, str) else ""
    raise InvalidReward(
        f"missing must be one of {', '.join(POLICIES)} or Value(x) ({{value: x}} in a "
        f"configuration), got {raw!r}{hint}"
    )
