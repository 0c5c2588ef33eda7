"""What a reward declares about itself, and the check that the declaration can work."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, TypeAlias, cast

from guerdon.errors import FailureKind, InvalidReward, nearest

Work: TypeAlias = Literal["io", "cpu", "gpu"]

SETTINGS = (
    "name",
    "scope",
    "work",
    "deadline",
    "value_range",
    "higher_is_better",
    "candidate_fault",
    "version",
    "auto_register",
    "concurrency",
    "batch_size",
    "dedupe",
    "fixtures",
)
"""What a reward declares, as decorator arguments or class attributes."""


def check_declaration(name: str, declared: Any) -> None:
    """Refuse a declaration that cannot work.

    Raises:
        InvalidReward: naming the reward, the setting and what is allowed.
    """
    where = f"reward '{name}': "
    for setting, allowed in (
        ("scope", ("sample", "batch", "group")),
        ("work", ("io", "cpu", "gpu")),
    ):
        value = getattr(declared, setting)
        if value not in allowed:
            raise InvalidReward(f"{where}{setting} is {value!r}, not one of {', '.join(allowed)}")
    for setting, kinds in (
        ("deadline", (int, float)),
        ("concurrency", (int,)),
        ("batch_size", (int,)),
    ):
        value = getattr(declared, setting)
        if value is not None and not _is_positive(value, kinds):
            kind = "an integer" if kinds == (int,) else "a number"
            raise InvalidReward(f"{where}{setting} must be {kind} above 0, got {value!r}")
    if not isinstance(cast("object", name), str) or not name:
        raise InvalidReward(f"a reward cannot be called {name!r}: its name is text")
    if not _is_range(declared.value_range):
        raise InvalidReward(f"{where}value_range must be (low, high), got {declared.value_range!r}")
    _check_faults(where, declared.candidate_fault)
    _check_prepare(where, declared)


def _is_positive(value: Any, kinds: tuple[type, ...]) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool) and 0 < value < math.inf


def _is_range(value: Any) -> bool:
    if not isinstance(value, Sequence) or len(cast("Sequence[Any]", value)) != 2:
        return False
    ends = cast("Sequence[Any]", value)
    return all(isinstance(end, int | float) for end in ends) and ends[0] <= ends[1]


def _check_faults(where: str, faults: Any) -> None:
    if isinstance(faults, str):
        raise InvalidReward(f"{where}candidate_fault lists kinds: write ({faults!r},)")
    for kind in faults:
        if kind not in tuple(FailureKind):
            hint = nearest(str(kind), map(str, FailureKind))
            raise InvalidReward(f"{where}candidate_fault has no failure kind {kind!r}{hint}")


def _check_prepare(where: str, declared: Any) -> None:
    prepare = getattr(declared, "prepare", None)
    if prepare is None:
        return
    if declared.scope != "sample":
        raise InvalidReward(f"{where}prepare is for the scope 'sample', not {declared.scope!r}")
    if is_async(prepare):
        raise InvalidReward(f"{where}prepare must be a plain function: what waits belongs in call")


def is_async(function: Any) -> bool:
    """Whether a callable, or its `__call__`, is a coroutine function; partials are seen through."""
    while isinstance(function, partial):
        function = cast("partial[Any]", function).func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 - the method itself is inspected
    )


def snake_case(name: str) -> str:
    """A class name as a reward name.

    Example:
        >>> snake_case("PickScore")
        'pick_score'
    """
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def constructor_options(
    cls: type[object], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    """What a class is constructed with, by parameter name, defaults included."""
    initialise = cast("Callable[..., Any]", cls.__init__)
    try:
        bound = inspect.signature(initialise).bind(None, *args, **kwargs)
    except (TypeError, ValueError):
        return dict(kwargs)
    bound.apply_defaults()
    options: dict[str, Any] = {}
    for name, value in list(bound.arguments.items())[1:]:
        parameter = bound.signature.parameters[name]
        if parameter.kind is parameter.VAR_KEYWORD:
            options.update(value)
        else:
            options[name] = value
    return options


SECRETS = re.compile(
    r"(?:.*_)?(?:token|(?:api|access|secret)_?key|secret|password|credentials?|authorization)",
    re.IGNORECASE,
)
"""Names of options whose text gives access to something."""
TOKEN_IDS = re.compile(r"(?:bos|eos|pad|unk|sep|cls|mask|end|stop|special)_token", re.IGNORECASE)
"""Names with the same end that mean a token of text."""
USER = re.compile(r"(?<=://)[^/\s@,]+@")
"""User and password in a URL."""
HIDDEN = "..."
_VARIABLE = re.compile(
    r"(?P<scheme>(?:Bearer |Basic )?)"
    r"\$\{(?P<variable>(?:oc\.)?env:\s*\w+)\s*(?P<default>,[^{}]*)?\}"
)
"""A reference to an environment variable, maybe behind the scheme of a header."""


def shown_options(options: Mapping[str, Any]) -> dict[str, str]:
    """Options as people may see them: without tokens, passwords, and what URLs have of them.

    Args:
        options: by name, as a reward was constructed with.

    Returns:
        What `repr` writes of each, by name.

    Example:
        >>> shown_options({"url": "http://:secret@10.0.0.2:8000", "token": "secret", "limit": 2})
        {'url': "'http://...@10.0.0.2:8000'", 'token': "'...'", 'limit': '2'}
    """
    return {key: repr(without_secrets(key, value)) for key, value in options.items()}


def without_secrets(name: str, value: Any) -> Any:
    """A value as people may see it, by the name under which it stands; see `shown_options`.

    A reference to an environment variable, which a record keeps, is no secret; its default is.

    Example:
        >>> without_secrets("headers", {"authorization": "Bearer abc", "x-tries": "2"})
        {'authorization': '...', 'x-tries': '2'}
        >>> without_secrets("token", "${env:RM_TOKEN}"), without_secrets("token", "${env:T,abc}")
        ('${env:RM_TOKEN}', '${env:T,...}')
    """
    if isinstance(value, Mapping):
        pairs = cast("Mapping[Any, Any]", value).items()
        return {key: without_secrets(str(key), item) for key, item in pairs}
    if type(value) in (list, tuple):
        items = cast("Sequence[Any]", value)
        return cast("type[Any]", type(value))(without_secrets(name, item) for item in items)
    if not isinstance(value, str | bytes):
        return value
    plain = name.replace("-", "_")
    if value and SECRETS.fullmatch(plain) and not TOKEN_IDS.fullmatch(plain):
        return _named_only(value) if isinstance(value, str) else HIDDEN
    return USER.sub(f"{HIDDEN}@", value) if isinstance(value, str) else value


def _named_only(secret: str) -> str:
    """The variable that holds a secret, where nothing else is written; else nothing of it."""
    found = _VARIABLE.fullmatch(secret)
    if found is None:
        return HIDDEN
    default = f",{HIDDEN}" if found["default"] is not None else ""
    return f"{found['scheme']}${{{found['variable']}{default}}}"
