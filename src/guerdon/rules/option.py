"""Checks of a rule's options, so that a misspelt one is an error and not another rule."""

from collections.abc import Collection

from guerdon.errors import InvalidReward, nearest


def one_of(option: str, value: str, allowed: Collection[str]) -> None:
    """Refuse a value that an option does not have.

    Raises:
        InvalidReward: naming the option, the value and what is allowed.

    >>> one_of("method", "stirct", ("strict",))
    Traceback (most recent call last):
    guerdon.errors.InvalidReward: method is 'stirct', not one of strict (did you mean 'strict'?)
    """
    if value not in allowed:
        raise InvalidReward(
            f"{option} is {value!r}, not one of {', '.join(allowed)}{nearest(value, allowed)}"
        )
