"""A hosted reward with the options of a request bound to it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast, get_type_hints

import msgspec

from guerdon.errors import Blame, GuerdonError, UnportableData, nearest
from guerdon.policy import Policy, Retry
from guerdon.reward import BaseReward, FunctionReward
from guerdon.server.configuration import Host, allowed_options
from guerdon.server.refusal import Refused
from guerdon.server.replica import Replica, leaves
from guerdon.service import RewardService
from guerdon.wire.codec import encode_json
from guerdon.wire.protocol import ErrorCode

KEPT_VARIANTS = 64
"""Sets of options of one reward that are remembered."""


class Variant:
    """A reward with options, and the service that scores with it on each replica.

    Attributes:
        key: tells sets of options apart.
        reward: with the options bound.
        fingerprint: of it.
    """

    def __init__(
        self, key: bytes, reward: BaseReward, replicas: Sequence[Replica], retry: Retry
    ) -> None:
        self.key = key
        self.reward = reward
        self.fingerprint = reward.fingerprint
        # A failure is an outcome of the reply: what becomes of it is the caller's policy.
        policy = Policy(retry=retry, on=dict.fromkeys(map(str, Blame), "mask"))
        self._services = [
            RewardService(reward, backend=replica.backend, policy=policy) for replica in replicas
        ]

    def service(self, replica: Replica) -> RewardService:
        """What scores on a replica; it shares the replica's workers with other variants."""
        return self._services[replica.index]


class Variants:
    """The variants of one hosted reward.

    Args:
        name: of the hosted reward.
        host: what is hosted.
        replicas: where it runs.
    """

    def __init__(self, name: str, host: Host, replicas: Sequence[Replica]) -> None:
        self._name = name
        self._host = host
        self._replicas = replicas
        self._allowed = allowed_options(host)
        self._types = _annotations(host.reward)
        self._known: OrderedDict[bytes, Variant] = OrderedDict()
        self.plain = self._make(b"", host.reward)
        self._fixed_keywords = frozenset(
            option for leaf in leaves(host.reward) for option in leaf.parameters.options
        ).difference(self._allowed)

    @property
    def allowed(self) -> tuple[str, ...]:
        """Options that requests may set."""
        return self._allowed

    def with_options(self, options: Mapping[str, Any]) -> Variant:
        """The reward with options.

        Raises:
            Refused: an option that requests may not set, or a value that does not fit.
        """
        if not options:
            return self.plain
        ordered = dict(sorted(options.items()))
        try:
            key = encode_json(ordered)
        except UnportableData as error:
            raise self._refused(str(error)) from None
        known = self._known.get(key)
        if known is None:
            self._check(ordered)
            known = self._known[key] = self._make(key, self._bind(ordered))
            while len(self._known) > KEPT_VARIANTS:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        return known

    def check_keywords(self, keywords: Mapping[str, Any]) -> None:
        """Refuse keywords that would set an option which requests may not set."""
        for key in keywords:
            if key in self._fixed_keywords:
                raise self._refused(
                    f"the keyword {key!r} is an option that requests may not set: allow it in the "
                    f"server's configuration, options: [{key}]"
                )

    def _check(self, options: Mapping[str, Any]) -> None:
        for key, value in options.items():
            if key not in self._allowed:
                allowed = ", ".join(self._allowed) or "none"
                hint = nearest(key, self._allowed)
                raise self._refused(
                    f"requests may not set the option {key!r}{hint} (allowed: {allowed}); the "
                    f"server's configuration can allow it: options: [{key}]"
                )
            if key in self._types:
                self._check_type(key, value)

    def _check_type(self, key: str, value: Any) -> None:
        try:
            msgspec.convert(value, self._types[key])
        except msgspec.ValidationError as error:
            raise self._refused(f"option {key!r}: {error}") from None
        except TypeError:  # an annotation that msgspec does not know checks nothing
            return

    def _bind(self, options: Mapping[str, Any]) -> BaseReward:
        try:
            return self._host.reward.bind(**options)
        except Exception as error:
            told = str(error) if isinstance(error, GuerdonError) else f"{type(error).__name__}"
            raise self._refused(f"these options cannot be set: {told}") from error

    def _make(self, key: bytes, reward: BaseReward) -> Variant:
        return Variant(key, reward, self._replicas, self._host.hosting.retry)

    def _refused(self, message: str) -> Refused:
        return Refused(ErrorCode.BAD_OPTIONS, f"reward {self._name!r}: {message}")


def _annotations(reward: BaseReward) -> Mapping[str, Any]:
    """Annotations of what options are set on, where they can be had."""
    target: Callable[..., Any] = (
        reward.function
        if isinstance(reward, FunctionReward)
        else cast("Callable[..., Any]", type(reward).__init__)
    )
    try:
        return get_type_hints(target)
    except (NameError, TypeError, AttributeError):
        return {}
