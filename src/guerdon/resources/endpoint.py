"""A server that somebody else runs: a model, a judge, a simulator at a URL. Awaited and watched."""

from __future__ import annotations

import contextlib
import http.client
import math
import threading
import time
import urllib.parse
from typing import Any, ClassVar

import msgspec

from guerdon.errors import ConfigError, Unavailable
from guerdon.resources.resource import Resource
from guerdon.resources.spec import Backend, Spec

FIRST_WAIT_SECONDS = 0.02
LONGEST_WAIT_SECONDS = 1.0
"""Between two questions whether a server is ready; doubled each time."""

ASK_SECONDS = 5.0
"""How long one such question may take."""

SLACK_SECONDS = 60.0
"""How much longer than the time to start the pool waits: a last question, and the end of a server
that was not ready."""


def answers(url: str, token: str | None = None) -> bool:
    """Whether `GET` of an http or https URL gives a status of 200 to 299."""
    address = urllib.parse.urlsplit(url)
    secure = address.scheme == "https"
    kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
    connection = kind(address.hostname or "", address.port, timeout=ASK_SECONDS)
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    path = address.path + (f"?{address.query}" if address.query else "")
    with contextlib.suppress(OSError, http.client.HTTPException):
        try:
            connection.request("GET", path or "/", headers=headers)
            return 200 <= connection.getresponse().status < 300
        finally:
            connection.close()
    return False


def check_url(url: str) -> None:
    """Refuse what is no address of a server.

    Raises:
        ConfigError: it is none.
    """
    address = urllib.parse.urlsplit(url)
    try:
        usable = address.scheme in ("http", "https") and address.hostname and address.port != 0
    except ValueError:  # a port that is no number
        usable = False
    if not usable:
        raise ConfigError(f"url is no http:// or https:// address: {url!r}")


def check_start(spec: Spec[Any], seconds: float) -> None:
    """Let the pool of a spec that is being made wait for a start of so many seconds.

    Raises:
        ConfigError: a time that is none.
    """
    if not 0 < seconds < math.inf:
        raise ConfigError(f"start_seconds must be above 0 and finite, got {seconds}")
    patience = max(spec.pool.patience_seconds, seconds + SLACK_SECONDS)
    longer = msgspec.structs.replace(spec.pool, patience_seconds=patience)
    msgspec.structs.force_setattr(spec, "pool", longer)


class Endpoint(Resource):
    """A server elsewhere that is ready; made from `EndpointSpec`, on the backend `remote`.

    Attributes:
        url: as in the spec.
    """

    def __init__(self, spec: EndpointSpec) -> None:
        self._spec = spec
        self.url = spec.url
        self._interrupted = threading.Event()

    def start(self) -> None:
        """Wait until it is ready.

        Raises:
            Unavailable: it was not in time.
        """
        spec = self._spec
        ends = time.monotonic() + spec.start_seconds
        wait = FIRST_WAIT_SECONDS
        while not self.check():
            if time.monotonic() >= ends or self._interrupted.wait(wait):
                raise Unavailable(
                    f"{spec} was not ready within {spec.start_seconds:g} s: GET "
                    f"{spec.url}{spec.ready_path} gave no 2xx"
                )
            wait = min(2 * wait, LONGEST_WAIT_SECONDS)

    def check(self) -> bool:
        """Whether it says that it is ready."""
        return answers(self._spec.url.rstrip("/") + self._spec.ready_path, self._spec.token)

    def reset(self) -> bool:
        """What rollouts leave behind there is the server's affair."""
        return True

    def interrupt(self) -> None:
        """Let a start end that nobody waits for any more."""
        self._interrupted.set()


class EndpointSpec(Spec[Endpoint], frozen=True, kw_only=True):
    """A server that runs already. Its pool limits how many rollouts use it at one time.

    Attributes:
        url: with a path prefix where there is one.
        ready_path: answers with a status of 200 to 299 when it is ready.
        token: sent as `Authorization: Bearer` with that question.
        start_seconds: how long it may take to be ready, whatever `patience_seconds` says.

    Raises:
        ConfigError: a URL that is none, or times that cannot be.
    """

    backends: ClassVar[tuple[Backend, ...]] = ("remote",)
    secrets: ClassVar[tuple[str, ...]] = ("token",)

    url: str
    ready_path: str = "/health"
    token: str | None = None
    start_seconds: float = 60.0

    def __post_init__(self) -> None:
        check_url(self.url)
        if not self.ready_path.startswith("/"):
            raise ConfigError(f"ready_path is a path such as /health, got {self.ready_path!r}")
        check_start(self, self.start_seconds)

    def make(self) -> Endpoint:
        """The client, which has not asked yet."""
        return Endpoint(self)
