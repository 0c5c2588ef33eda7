"""What every composition has in common: named children, direction, scope, fingerprint, calls."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, cast

from guerdon.compose.child import ChildLike, Children, Member, member_of, members_of
from guerdon.compose.direct import score_many, score_one
from guerdon.compose.gathering import scope_of
from guerdon.compose.row import Owner
from guerdon.declaration import check_declaration
from guerdon.errors import InvalidReward
from guerdon.injection import Parameters, Scope
from guerdon.outcome import Range
from guerdon.reward import BaseReward
from guerdon.sample import Sample


class Composition(BaseReward):
    """Base class of rewards that are made of other rewards.

    A subclass calls `_compose` in its constructor and implements `evaluate`.
    """

    auto_register = False
    weighted: ClassVar[bool] = False
    """Whether children have weights."""
    renormalises: ClassVar[bool] = False
    """Whether a missing child can be made up for by scaling the others."""

    _members: tuple[Member, ...] = ()

    @property
    def members(self) -> tuple[Member, ...]:
        """The children with their names, weights and policies."""
        return self._members

    @property
    def children(self) -> Mapping[str, BaseReward]:
        """The children by component name."""
        return {member.name: member.reward for member in self._members}

    @property
    def owner(self) -> Owner:
        """What its outcomes are stamped and checked with."""
        return Owner(self.name, self.fingerprint, self.value_range, self._members)

    @property
    def is_async(self) -> bool:
        """Always true: a composition awaits its children."""
        return True

    @cached_property
    def parameters(self) -> Parameters:
        """Everything that any child may need from a sample."""
        return Parameters(_inputs(self._members), self.scope, self.name)

    def fingerprint_extra(self) -> Mapping[str, Any]:
        """The children in their order: names, fingerprints, weights and policies."""
        return {"children": [[m.name, m.reward, m.weight, m.missing] for m in self._members]}

    async def __call__(self, **keywords: Any) -> Any:
        """Score in this process, without a service: no policy, no retries, no deadlines.

        Args:
            keywords: sample fields, their synonyms, metadata or options of children, by name; and
                `step`, `split`, `run_id`. With `samples`, a list of `Sample`, all of them are
                scored.

        Returns:
            A `Score` or an `Abstention`; for `samples`, a list of outcomes, failures included.

        Raises:
            RewardFailure: the one sample failed.

        Example:
            >>> from guerdon.compose import WeightedSum
            >>> from guerdon.reward import reward
            >>> @reward(value_range=(0.0, 1.0), auto_register=False)
            ... def exact(response: str, ground_truth: str) -> bool:
            ...     return response == ground_truth
            >>> WeightedSum([exact]).call_sync(prediction="4", answer="4").value
            1.0
        """
        samples = cast("Sequence[Sample] | None", keywords.pop("samples", None))
        if samples is not None:
            return await score_many(self, samples, keywords)
        return await score_one(self, keywords)

    def _compose(
        self,
        members: Sequence[Member],
        *,
        name: str | None,
        value_range: Range,
        higher_is_better: bool = True,
        **given: Any,
    ) -> None:
        """Take the children in.

        Args:
            members: the children.
            name: of the composition; by default that of its class.
            value_range: by interval arithmetic.
            higher_is_better: direction of the composition.
            given: constructor arguments in the form in which they are remembered.
        """
        self._members = tuple(members)
        self._options = {**self._options, **given}
        self.name = name or self.name
        self.scope = cast("Scope", scope_of(m.reward for m in members))
        self.value_range = value_range
        self.higher_is_better = higher_is_better
        names = [member.name for member in members]
        for place, member in enumerate(members):
            self._check_member(member)
            if member.name in names[:place]:
                raise InvalidReward(
                    f"{self._called(name)}: two children are called {member.name!r}: give one of "
                    "them another name, Child(..., name=...)"
                )
        check_declaration(self.name, self)

    def _read(self, children: Children, name: str | None) -> tuple[Member, ...]:
        return members_of(children, self._called(name))

    def _read_one(self, child: ChildLike, name: str | None) -> Member:
        return member_of(child, self._called(name))

    def _called(self, name: str | None) -> str:
        return f"{type(self).__name__} '{name or self.name}'"

    def _check_member(self, member: Member) -> None:
        where = f"{self._called(self.name)}: child '{member.name}'"
        if not self.weighted and member.weight != 1.0:
            raise InvalidReward(f"{where} has a weight, which only WeightedSum knows")
        if not self.renormalises and member.missing == "renormalise":
            raise InvalidReward(
                f"{where}: only WeightedSum can renormalise; use 'fail', 'abstain' or Value(x)"
            )


def by_name(members: Sequence[Member]) -> dict[str, Any]:
    """Children as a constructor takes them, in one form however they were given."""
    return {member.name: member.child for member in members}


def check_directions(owner: str, members: Sequence[Member], higher_is_better: bool) -> None:
    """Refuse a child for which lower is better where higher values of it would be rewarded.

    Raises:
        InvalidReward: naming the child and the ways out.
    """
    if not higher_is_better:
        return
    for member in members:
        if not member.reward.higher_is_better:
            raise InvalidReward(
                f"{owner}: for child '{member.name}' lower is better, so higher values of it must "
                "not be rewarded: turn it round with Affine(child, scale=-1) or, in a "
                "WeightedSum, a negative weight; or declare the composition with "
                "higher_is_better=False"
            )


def _inputs(members: Sequence[Member]) -> Any:
    """A function with the union of the children's injected parameters."""
    defaults: dict[str, Any] = {}
    accepts_any = False
    for member in members:
        parameters = member.reward.parameters
        accepts_any = accepts_any or parameters.accepts_any
        for name, default in parameters.named.items():
            if name not in defaults or default is inspect.Parameter.empty:
                defaults[name] = default

    def inputs(**_: Any) -> None: ...

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    required = [n for n, d in defaults.items() if d is inspect.Parameter.empty]
    ordered = [*required, *(n for n in defaults if n not in required)]
    listed = [inspect.Parameter(n, kind, default=defaults[n]) for n in ordered]
    if accepts_any:
        listed.append(inspect.Parameter("_others", inspect.Parameter.VAR_KEYWORD))
    inputs.__signature__ = inspect.Signature(listed)  # pyright: ignore[reportFunctionMemberAccess]
    return inputs
