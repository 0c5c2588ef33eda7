"""Where a server is, and the token that it wants; no message ever shows the token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias
from urllib.parse import unquote, urlsplit

import msgspec

from guerdon.errors import ConfigError

Urls: TypeAlias = str | Sequence[str]
"""One address, or several that host the same reward."""

SCHEMES = ("http", "https")


class Address(msgspec.Struct, frozen=True):
    """One server.

    Attributes:
        url: scheme, host, port and path prefix, without a trailing slash and without a token.
        token: what it is asked with, None for none.
    """

    url: str
    token: str | None = None

    def __repr__(self) -> str:
        return f"Address({self.url!r}{', token=...' if self.token else ''})"

    def __str__(self) -> str:
        return self.url

    @property
    def headers(self) -> dict[str, str]:
        """What carries the token."""
        return {"authorization": f"Bearer {self.token}"} if self.token else {}

    @classmethod
    def parse(cls, url: str, token: str | None = None) -> Address:
        """The address in a URL; a token in it (`http://:TOKEN@host`) wins over the other.

        Raises:
            ConfigError: it is no address of a server.

        Example:
            >>> Address.parse("http://:secret@127.0.0.1:8300/")
            Address('http://127.0.0.1:8300', token=...)
        """
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise ConfigError(
                f"a server has a URL such as http://127.0.0.1:8300: {error}"
            ) from None
        if parts.scheme not in SCHEMES or not host:
            shown = f"{parts.scheme}:..." if parts.scheme else "no scheme"
            raise ConfigError(
                f"a server has a URL such as http://127.0.0.1:8300, with http or https; got {shown}"
            )
        if parts.query or parts.fragment:
            raise ConfigError(
                f"the URL of {host} has a query or a fragment: give its token as token=, or as "
                "http://:TOKEN@host"
            )
        inside = unquote(parts.password or parts.username or "")
        name = f"[{host}]" if ":" in host else host
        where = name if port is None else f"{name}:{port}"
        found = inside or token
        if found is not None and not (found.isascii() and found.isprintable()):
            raise ConfigError(f"the token for {where} must be printable ASCII")
        return cls(f"{parts.scheme}://{where}{parts.path.rstrip('/')}", found or None)


def addresses(urls: Urls, token: str | None = None) -> tuple[Address, ...]:
    """The servers of one or several URLs.

    Raises:
        ConfigError: none, one that is no URL, or the same one twice.

    Example:
        >>> [str(a) for a in addresses("http://a:1, http://b:1")]
        ['http://a:1', 'http://b:1']
    """
    listed = urls.split(",") if isinstance(urls, str) else urls
    found = tuple(Address.parse(url.strip(), token) for url in listed)
    if not found:
        raise ConfigError(
            "a remote reward needs the URL of a server, such as http://127.0.0.1:8300"
        )
    if len({address.url for address in found}) < len(found):
        raise ConfigError("two of the servers have the same URL")
    return found
