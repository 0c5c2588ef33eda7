"""A rule that another rule applies: to a turn, or to tell right answers from wrong ones."""

from collections.abc import Mapping
from typing import Any, cast

from guerdon import registry
from guerdon.errors import BadInput, InvalidReward, RewardFailure
from guerdon.injection import Call, MissingArgument
from guerdon.outcome import Failure, Score, seal
from guerdon.reward import BaseReward, Ready
from guerdon.sample import Sample


def applicable(rule: str | BaseReward, options: Mapping[str, Any], owner: str) -> BaseReward:
    """The rule that a name, a reference or a reward stands for, with options bound.

    Raises:
        InvalidReward: It is async, wants more than one sample, or is a composition.
    """
    if isinstance(rule, str):
        found = registry.resolve(rule, **options)
    else:
        found = rule.bind(**options) if options else rule
    if found.is_async or found.scope != "sample" or found.children:
        raise InvalidReward(f"{owner} applies sync rules of one sample, not '{found.name}'")
    return found


def value_of(rule: BaseReward, sample: Sample) -> float | None:
    """The rule's value of a sample, in this process; None where it abstains.

    Both stages of the rule run here, so that a rule with a deadline belongs into a reward that has
    the same deadline.

    Raises:
        RewardFailure: The rule gave no value; the kind and the blame are those of the rule.

    >>> rule = applicable("gsm8k", {"method": "flexible"}, "me")
    >>> value_of(rule, Sample(response="18", ground_truth="18"))
    1.0
    """
    binder = rule.parameters.binder(Call(), rule.bound_options())
    arguments = binder.one(sample)
    if isinstance(arguments, MissingArgument):
        raise BadInput(f"rule '{rule.name}': {arguments}")
    prepared = cast("Any", arguments)
    if rule.prepare is not None:
        prepared = rule.prepare(**prepared)
    ready = isinstance(prepared, Ready)
    raw: Any = prepared.result if ready else rule.call(**prepared)
    sealed = seal(raw, rule.value_range)
    if isinstance(sealed, Failure):
        raise RewardFailure(
            f"rule '{rule.name}': {sealed.message}", kind=sealed.kind, blame=sealed.blame
        )
    return sealed.value if isinstance(sealed, Score) else None
