"""What can be set about a server and about each reward that it hosts."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Literal

import msgspec

from guerdon.errors import ConfigError
from guerdon.outcome import EMPTY
from guerdon.policy import Retry

MIB = 1 << 20

LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""Hosts that only this machine can reach."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a request may be, and how much of everything there may be at once.

    Attributes:
        body_bytes: of a body as it arrives.
        decompressed_bytes: of a body after decompression.
        envelope_bytes: of JSON, MessagePack, or the envelope of a frame.
        bytes_in_flight: of all bodies that are being received or scored, as far as they have come;
            beyond it, 429. An eighth of it is kept for requests below 1 MiB.
        samples: of one request.
        rewards: of one request.
        outcomes: of one request: samples times rewards.
        pixels: of one image, or one frame of a video.
        frames: of one video array or animated image.
        timeout_seconds: longest time that a request may take.
        group_timeout_seconds: longest wait for the rest of a group.
        waiting_members: samples that wait for their group, over all requests; beyond it, 429.
        body_seconds: longest pause between two pieces of a body.
        body_rate: bytes per second at which a body has to come, beyond the first `body_seconds`.
            Where memory is short, bodies that come at less than 16 times this rate give way.
            Clients have to read their replies as fast.
        header_seconds: longest time for the head of a request.
        connections: open connections; beyond it, 503.
    """

    body_bytes: int = 512 * MIB
    decompressed_bytes: int = 512 * MIB
    envelope_bytes: int = 64 * MIB
    bytes_in_flight: int = 4096 * MIB
    samples: int = 4096
    rewards: int = 32
    outcomes: int = 32_768
    pixels: int = 8192 * 8192
    frames: int = 1024
    timeout_seconds: float = 600.0
    group_timeout_seconds: float = 120.0
    waiting_members: int = 65_536
    body_seconds: float = 20.0
    body_rate: int = 64 << 10
    header_seconds: float = 10.0
    connections: int = 4096

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            if not getattr(self, name) > 0:
                raise ConfigError(f"limits: {name} must be positive, got {getattr(self, name)}")


class Tls(msgspec.Struct, frozen=True, kw_only=True):
    """What makes connections encrypted.

    Attributes:
        cert: PEM file with the certificate of the server, and those that vouch for it.
        key: PEM file with its private key.
    """

    cert: str
    key: str

    def check(self) -> None:
        """Refuse files that cannot be used together.

        Raises:
            ConfigError: saying why.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self.cert, self.key)
        except OSError as error:
            raise ConfigError(
                f"serve.tls: {self.cert} and {self.key} are no certificate and key: {error}"
            ) from None


class ServeSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The section `serve` of a configuration.

    Attributes:
        host: address to bind; anything but the loopback needs a token.
        port: 0 takes a free one.
        tokens: by a name that appears in logs.
        limits: of requests.
        media_roots: directories below which `Media(path=...)` may lie.
        shared_memory: directories below which clients on this host may put shared blocks; an empty
            list turns shared memory off.
        drain_seconds: how long requests may go on after SIGTERM.
        log: which requests get a line: all, or only those that were refused or had failures.
        tls: certificate and key for encrypted connections; None for plain ones.
    """

    host: str = "127.0.0.1"
    port: int = 8300
    tokens: Mapping[str, str] = EMPTY
    limits: Limits = Limits()
    media_roots: tuple[str, ...] = ()
    shared_memory: tuple[str, ...] = ("/dev/shm",)
    drain_seconds: float = 30.0
    log: Literal["all", "failures"] = "all"
    tls: Tls | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"port must lie in [0, 65535], got {self.port}")
        if self.tls is not None:
            self.tls.check()
        if self.drain_seconds < 0:
            raise ConfigError(f"drain_seconds must be at least 0, got {self.drain_seconds}")
        for name, token in self.tokens.items():
            if len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable():
                raise ConfigError(
                    f"the token {name!r} must be printable ASCII of at least "
                    f"{SHORTEST_TOKEN} characters"
                )

    @property
    def is_public(self) -> bool:
        """Whether other machines can reach it."""
        return self.host not in LOOPBACK


SHORTEST_TOKEN = 8


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """How samples of several requests are scored together.

    Attributes:
        size: most samples of one batch.
        tokens: most tokens of one batch, prompt and response, None without a bound. Where a sample
            has no token ids, a token is taken for every 4 bytes of text.
        pixels: most pixels of one batch over all frames.
        wait_ms: longest wait for more samples while a replica is free. The wait is never longer
            than a tenth of what a batch takes, and shrinks where nothing comes.
        in_flight: batches that one replica is given at a time, None for what suits its work.
    """

    size: int = 64
    tokens: int | None = None
    pixels: int | None = None
    wait_ms: float = 2.0
    in_flight: int | None = None

    def __post_init__(self) -> None:
        for name in ("size", "tokens", "pixels", "in_flight"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"batch: {name} must be at least 1, got {value}")
        if not 0 <= self.wait_ms <= 1000:
            raise ConfigError(f"batch: wait_ms must lie in [0, 1000], got {self.wait_ms}")


class Hosting(msgspec.Struct, frozen=True, kw_only=True):
    """How a reward is hosted.

    Attributes:
        replicas: copies of the reward, each with worker processes of its own.
        workers: processes of one replica.
        spares: further processes of one replica that stand ready to replace a killed one.
        devices: value of `CUDA_VISIBLE_DEVICES` for each replica in turn.
        environment: environment variables of its workers.
        inline: score in the server's own process: for cheap rules that cannot hang or crash.
        hang_after: seconds after which a call of GPU work is taken to hang, and its process is
            restarted. Its caller waits no longer than the deadline: that alone ends no such work,
            because loading a model again costs more than letting a call finish.
        memory_bytes: address space that the calls of one worker may take; None has no bound.
        recycle_bytes: a worker that holds more memory than this is replaced.
        batch: how samples are put together.
        queue: samples that may wait; beyond it, 429.
        options: what requests may set: names of options, or None for all keyword-only options of a
            function and none of a class.
        partial_groups: whether an incomplete group is scored when the wait is over.
        retry: tries for retryable failures.
    """

    replicas: int = 1
    workers: int = 1
    spares: int = 0
    devices: tuple[str | int, ...] = ()
    environment: Mapping[str, str] = EMPTY
    inline: bool = False
    hang_after: float = 600.0
    memory_bytes: int | None = 4096 * MIB
    recycle_bytes: int | None = 2048 * MIB
    batch: Batch = Batch()
    queue: int = 16_384
    options: tuple[str, ...] | None = None
    partial_groups: bool = False
    retry: Retry = Retry()

    def __post_init__(self) -> None:
        for name in ("replicas", "workers", "queue"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not self.hang_after > 0:
            raise ConfigError(f"hang_after must be positive, got {self.hang_after}")
        if self.spares < 0:
            raise ConfigError(f"spares must be at least 0, got {self.spares}")
        own = self.replicas > 1 or self.workers > 1 or self.devices or self.environment
        if self.inline and own:
            raise ConfigError(
                "inline has no processes of its own: leave out replicas, workers, devices and "
                "environment"
            )
