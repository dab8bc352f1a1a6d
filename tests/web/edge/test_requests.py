"""What counts as a well-formed Host and Origin."""

from __future__ import annotations

import pytest

from tray_valet.web.edge.requests import Authority, Origin, RequestHead, parse_authority, parse_origin


@pytest.mark.parametrize(
    ("text", "authority"),
    [
        ("localhost", Authority("localhost", None)),
        ("LocalHost:8765", Authority("localhost", 8765)),
        ("127.0.0.1:1", Authority("127.0.0.1", 1)),
        ("[::1]", Authority("::1", None)),
        ("[::1]:8765", Authority("::1", 8765)),
        ("[0:0:0:0:0:0:0:1]:8765", Authority("::1", 8765)),
        ("0x7f.1", Authority("0x7f.1", None)),  # a name that matches nothing
        ("2130706433", Authority("2130706433", None)),
    ],
)
def test_authorities_are_taken_apart(text: str, authority: Authority) -> None:
    assert parse_authority(text) == authority


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "localhost.",
        "localhost:",
        "localhost:0",
        "localhost:65536",
        "localhost:8765:1",
        "localhost:+80",
        "localhost:٨٠",
        "user@localhost",
        "localhost:8765@evil.example",
        "localhost/evil",
        "localhost\\evil",
        "localhost evil.example",
        "localhost,evil.example",
        "localhost\x00",
        "::1",
        "[::1",
        "[::1]evil",
        "[::1%25lo]",
        "[127.0.0.1]",
        ".localhost",
        "*",
    ],
)
def test_tricks_are_no_authority(text: str) -> None:
    assert parse_authority(text) is None


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("http://localhost:8765", Origin("http", "localhost", 8765)),
        ("HTTPS://Dash.Example", Origin("https", "dash.example", 443)),
        ("http://[::1]", Origin("http", "::1", 80)),
        ("chrome-extension://abcdef", Origin("chrome-extension", "abcdef", None)),
    ],
)
def test_origins_are_taken_apart(text: str, origin: Origin) -> None:
    assert parse_origin(text) == origin


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "*",
        "localhost:8765",
        "file://",
        "http://",
        "http://a b",
        "http://localhost:8765/",
        "http://u@localhost",
    ],
)
def test_what_is_not_one_origin_is_none(text: str) -> None:
    assert parse_origin(text) is None


@pytest.mark.parametrize(
    ("address", "is_loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("192.168.1.7", False),
        ("::ffff:192.168.1.7", False),
        ("localhost", False),
        ("", False),
    ],
)
def test_loopback_is_what_the_socket_says(address: str, is_loopback: bool) -> None:
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/",
        "client": (address, 1) if address else None,
        "headers": [(b"x-forwarded-for", b"127.0.0.1"), (b"forwarded", b"for=127.0.0.1")],
    }
    assert RequestHead(scope).is_from_loopback is is_loopback
