"""What can be set about a remote reward, and what follows from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import msgspec

from guerdon.errors import ConfigError
from guerdon.outcome import EMPTY
from guerdon.policy import Retry
from guerdon.remote.address import Address
from guerdon.remote.declared import Declared

Sharing: TypeAlias = Literal["auto", "on", "off"]
"""`auto` uses shared memory where the server is on this host, `on` fails where it is not."""

SHARINGS = ("auto", "on", "off")

DEFAULT_RETRY = Retry(attempts=5, first_delay=0.1, longest_delay=10.0)


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How a client talks to its servers.

    Attributes:
        addresses: servers that host the same reward.
        reward: name under which they host it.
        declared: what it must be.
        options: bound to it on the server.
        batch_size: most samples of one request; a larger group still travels whole.
        batch_bytes: most bytes of media of one request, but always one sample.
        window: seconds that a few samples wait for those of other callers while a request is
            already in flight.
        connections: requests in flight per server; beyond it, callers wait and share a request.
        timeout: seconds that a server may take for one request; None is what the server allows.
        connect_timeout: seconds for opening a connection and for the handshake.
        retry: rounds over all servers, for refusals and broken connections, and for samples whose
            failure is retryable.
        health_every: seconds between two questions whether an ill server is ready again.
        shared_memory: see `Sharing`.
        group_size: members of every group, where they come in separate calls; None where each
            call has whole groups.
        group_timeout: seconds that a server waits for the rest of a group.
    """

    addresses: tuple[Address, ...]
    reward: str | None = None
    declared: Declared = Declared()
    options: Mapping[str, Any] = EMPTY
    batch_size: int = 256
    batch_bytes: int = 128 << 20
    window: float = 0.002
    connections: int = 8
    timeout: float | None = None
    connect_timeout: float = 10.0
    retry: Retry = DEFAULT_RETRY
    health_every: float = 5.0
    shared_memory: Sharing = "auto"
    group_size: int | None = None
    group_timeout: float | None = None

    def __post_init__(self) -> None:
        positive = ("batch_size", "batch_bytes", "connections", "connect_timeout", "health_every")
        optional = ("timeout", "group_size", "group_timeout")
        for name in (*positive, *optional):
            value = getattr(self, name)
            if (value is not None or name in positive) and not _is_positive(value):
                raise ConfigError(f"remote reward: {name} must be positive, got {value!r}")
        if self.window != 0 and not _is_positive(self.window):
            raise ConfigError(f"remote reward: window must be at least 0, got {self.window!r}")
        if self.shared_memory not in SHARINGS:
            known = ", ".join(SHARINGS)
            raise ConfigError(
                f"remote reward: shared_memory is {self.shared_memory!r}, not one of {known}"
            )


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


def retry_from(given: Retry | Mapping[str, Any] | None) -> Retry:
    """The retries that a configuration describes.

    Raises:
        ConfigError: an unknown or impossible setting.

    Example:
        >>> retry_from({"attempts": 2}).attempts
        2
    """
    if given is None:
        return DEFAULT_RETRY
    if isinstance(given, Retry):
        return given
    unknown = [key for key in given if key not in Retry.__struct_fields__]
    if unknown:
        known = ", ".join(Retry.__struct_fields__)
        raise ConfigError(f"remote reward: retry has no {unknown[0]!r}; it has {known}")
    return Retry(**{**msgspec.structs.asdict(DEFAULT_RETRY), **given})
