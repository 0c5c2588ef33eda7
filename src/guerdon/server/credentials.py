"""Who may use the server: tokens by bearer, HTTP Basic or query key, compared in constant time."""

from __future__ import annotations

import base64
import binascii
import functools
import hashlib
import hmac
import ipaddress
from collections.abc import Mapping
from urllib.parse import parse_qs

from guerdon.server.refusal import Refused
from guerdon.wire.protocol import ErrorCode

QUERY_KEYS = ("token", "key", "api_key")
"""Several clients can put a token nowhere but into the URL."""

ANYBODY = ""
"""The name of every caller of a server without tokens."""

CHALLENGE = (b"www-authenticate", b'Basic realm="guerdon", Bearer realm="guerdon"')


class Credentials:
    """The tokens of a server.

    Args:
        tokens: by name. Without any, everybody who reaches the server may use it, and it answers
            only under names of the loopback: a page in a browser that has its own name resolved to
            this machine is kept out.

    Example:
        >>> door = Credentials({"trainer": "correct horse"})
        >>> door.caller({b"authorization": b"Bearer correct horse"}, b"")
        'trainer'
        >>> door.caller({}, b"token=correct+horse")
        'trainer'
    """

    def __init__(self, tokens: Mapping[str, str]) -> None:
        self._digests = [(name, _digest(token.encode())) for name, token in tokens.items()]

    @property
    def open(self) -> bool:
        """Whether there are no tokens."""
        return not self._digests

    def caller(self, headers: Mapping[bytes, bytes], query: bytes) -> str:
        """The name of the token that a request has; `ANYBODY` where there are no tokens.

        Raises:
            Refused: no token, an unknown one, or a foreign host name.
        """
        if self.open:
            host = headers.get(b"host", b"")
            if not _is_own_name(host):
                raise _foreign(host)
            return ANYBODY
        given = _tokens_in(headers.get(b"authorization", b""), query)
        for token in given:
            name = self._name(token)
            if name is not None:
                return name
        told = "the token is unknown" if given else "a token is needed"
        raise Refused(
            ErrorCode.UNAUTHORIZED,
            f"{told}: send it as 'Authorization: Bearer TOKEN', as the password of HTTP Basic, or "
            "as '?token=TOKEN'",
            headers=(CHALLENGE,),
        )

    def _name(self, token: bytes) -> str | None:
        """The name of a token; every known token is compared, so that the time tells nothing."""
        digest = _digest(token)
        found: str | None = None
        for name, known in self._digests:
            if hmac.compare_digest(digest, known):
                found = name
        return found


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()


def _tokens_in(authorization: bytes, query: bytes) -> list[bytes]:
    """The tokens that a request offers."""
    scheme, _, rest = authorization.strip().partition(b" ")
    rest = rest.strip()
    if scheme.lower() == b"bearer" and rest:
        return [rest]
    if scheme.lower() == b"basic":
        return _basic(rest)
    if not query:
        return []
    try:
        fields = parse_qs(query.decode("ascii"), max_num_fields=100)
    except ValueError:
        return []
    return [fields[key][0].encode() for key in QUERY_KEYS if key in fields]


def _basic(encoded: bytes) -> list[bytes]:
    """The password, or the user name where there is no password."""
    try:
        user, _, password = base64.b64decode(encoded, validate=True).partition(b":")
    except (binascii.Error, ValueError):
        return []
    return [password or user]


@functools.lru_cache(maxsize=64)
def _is_own_name(host: bytes) -> bool:
    """Whether a Host header names the loopback, or nothing."""
    name = host.decode("latin-1").strip().lower()
    if name.startswith("["):
        name = name[1:].partition("]")[0]
    elif name.count(":") <= 1:
        name = name.partition(":")[0]
    if not name or name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _foreign(host: bytes) -> Refused:
    return Refused(
        ErrorCode.FORBIDDEN,
        "this server has no tokens and answers only to names of the loopback, not to "
        f"{host.decode('latin-1')[:200]!r}: use http://127.0.0.1, or start the server with a token",
    )
