"""Tokens in all the places where clients can put them, and names of the loopback."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from guerdon.errors import ConfigError
from guerdon.server import load
from guerdon.server.credentials import Credentials
from guerdon.server.refusal import Refused

TOKEN = "correct horse/battery+staple="
OTHER = "another-token"


def basic(user: str, password: str) -> bytes:
    return b"Basic " + base64.b64encode(f"{user}:{password}".encode())


@pytest.fixture
def door() -> Credentials:
    return Credentials({"trainer": TOKEN, "page": OTHER})


@pytest.mark.parametrize(
    ("authorization", "query"),
    [
        (f"Bearer {TOKEN}".encode(), b""),
        (f"bearer   {TOKEN}".encode(), b""),
        (basic("anybody", TOKEN), b""),
        (basic(TOKEN, ""), b""),
        (b"", b"token=correct+horse%2Fbattery%2Bstaple%3D"),
        (b"", b"a=b&key=correct%20horse/battery%2Bstaple%3D"),
        (b"", b"api_key=correct+horse%2Fbattery%2Bstaple%3D"),
    ],
)
def test_a_token_opens(door: Credentials, authorization: bytes, query: bytes) -> None:
    assert door.caller({b"authorization": authorization}, query) == "trainer"


@pytest.mark.parametrize(
    ("authorization", "query"),
    [
        (b"", b""),
        (b"Bearer", b""),
        (b"Bearer wrong", b""),
        (f"Bearer {TOKEN}x".encode(), b""),
        (f"Bearer {TOKEN[:-1]}".encode(), b""),
        (f"Token {TOKEN}".encode(), b""),
        (TOKEN.encode(), b""),
        (b"Basic !!!", b""),
        (b"Basic " + base64.b64encode(b"\xff\xfe:\xff"), b""),
        (basic("trainer", "wrong"), b""),
        (b"", b"token="),
        (b"", b"token=wrong"),
        (b"", b"\xff\xff"),
        (b"", b"&".join(b"a=b" for _ in range(1000))),
        (b"Bearer wrong", b"token=another-token"),
    ],
)
def test_nothing_else_does(door: Credentials, authorization: bytes, query: bytes) -> None:
    with pytest.raises(Refused) as refused:
        door.caller({b"authorization": authorization}, query)
    assert refused.value.status == 401
    assert TOKEN not in refused.value.message


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.0.0.1:8300", "localhost:1", "[::1]:8300", "x.localhost", "", "127.9.9.9"],
)
def test_a_server_without_tokens_answers_under_its_own_names(host: str) -> None:
    assert Credentials({}).caller({b"host": host.encode()}, b"") == ""


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8300", "10.0.0.1", "[::2]", "1"])
def test_and_under_no_other(host: str) -> None:
    with pytest.raises(Refused) as refused:
        Credentials({}).caller({b"host": host.encode()}, b"")
    assert refused.value.status == 403


def test_what_needs_a_token_and_what_does_not(serve: Any, rewards: Any, no_bug: Any) -> None:
    client = serve({"echo": {"reward": rewards.echo, "inline": True}}, tokens={"a": OTHER})
    closed = ["/v1/rewards", "/metrics", "/status.json", "/openapi.json", "/docs"]
    for path in closed:
        refused = client.get(path)
        assert (refused.status, str(refused.error.code)) == (401, "unauthorized"), path
        assert "Bearer" in refused.headers["www-authenticate"]
        assert client.get(path, authorization=f"Bearer {OTHER}").status == 200
        assert client.get(f"{path}?token={OTHER}").status == 200
    assert client.get("/livez").status == 200
    bare = client.get("/readyz")
    assert b"echo" not in bare.body
    assert b"echo" in client.get(f"/readyz?token={OTHER}").body
    body = b'{"samples": [{"response": "1"}], "rewards": ["echo"]}'
    assert client.post(body).status == 401
    assert client.post(body, authorization="Bearer wrong").status == 401
    assert client.post(body, authorization=f"Bearer {OTHER}").values == [1.0]
    assert client.post(body, path=f"/v1/score?key={OTHER}").values == [1.0]
    lines = [str(getattr(r, "guerdon_fields", r.getMessage())) for r in no_bug.records]
    assert not any(OTHER in line for line in lines), "a token must not get into the log"


def test_a_public_server_needs_a_token() -> None:
    config = load({"rewards": {"a": "gsm8k"}, "serve": {"host": "0.0.0.0"}}, environment={})
    with pytest.raises(ConfigError, match="give a token"):
        config.check_reach()
    config.with_settings(tokens={"a": OTHER}).check_reach()
    config.with_settings(host="::1").check_reach()
    from_environment = load(
        {"rewards": {"a": "gsm8k"}, "serve": {"host": "0.0.0.0"}},
        environment={"GUERDON_TOKEN": OTHER},
    )
    from_environment.check_reach()


@pytest.mark.parametrize("token", ["short", "with\nnewline", "é" * 10])
def test_tokens_that_no_client_could_send_or_anybody_could_guess(token: str) -> None:
    with pytest.raises(ConfigError, match="token"):
        load({"rewards": {"a": "gsm8k"}, "serve": {"tokens": {"a": token}}}, environment={})
