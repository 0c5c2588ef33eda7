"""The status page at `/`: fixed files, and under which terms a browser may use them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files

from starlette.responses import Response

PAGE = "status.html"
ASSETS: Mapping[str, str] = {
    f"/pages/{name}": name
    for name in (
        "card.js",
        "chart.js",
        "icon.svg",
        "source.js",
        "status.css",
        "status.js",
        "words.js",
    )
}
"""Files that the page loads, by path. They are the same on every server and say nothing of this
one, so they need no token: a browser could send it with them only in a link in the page."""

_TYPES = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}

BROWSER_HEADERS: Mapping[str, str] = {
    # Scripts only from files, requests only to this server, and no text ever becomes markup:
    # messages of failures quote what a policy wrote.
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    # The address may hold the token.
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cross-origin-resource-policy": "same-origin",
}
"""What a browser is told with every file of the page."""


def page_reply(name: str, headers: Mapping[str, str]) -> Response:
    """One file of the status page.

    Args:
        name: `PAGE`, or a value of `ASSETS`.
        headers: that every reply of the server has.

    Example:
        >>> reply = page_reply(PAGE, {})
        >>> reply.headers["content-type"], b"<script>" in reply.body
        ('text/html; charset=utf-8', False)
    """
    kind = _TYPES[name.rpartition(".")[2]]
    return Response(_content(name), 200, {**headers, **BROWSER_HEADERS}, media_type=kind)


@cache
def _content(name: str) -> bytes:
    return files("guerdon.server").joinpath("pages", name).read_bytes()
