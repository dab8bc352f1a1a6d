"""Hosts, URLs and origins by their form alone."""

from __future__ import annotations

import pytest

from tray_valet.core.addresses import is_host, is_loopback_host, is_private_host, split_url


@pytest.mark.parametrize(
    ("host", "is_a_host", "is_loopback", "is_private"),
    [
        ("127.0.0.1", True, True, True),
        ("127.8.8.8", True, True, True),
        ("localhost", True, True, True),
        ("LocalHost.", True, True, True),
        ("a.localhost", True, True, True),
        ("::1", True, True, True),
        ("[::1]", True, True, True),
        ("::ffff:127.0.0.1", True, True, True),
        ("0.0.0.0", True, False, False),
        ("::", True, False, False),
        ("10.0.0.1", True, False, True),
        ("100.64.0.1", True, False, False),
        ("fe80::1%eth0", True, False, True),
        ("tower.local", True, False, True),
        ("tower.local.", True, False, True),
        ("local", True, False, False),
        ("notlocalhost", True, False, False),
        ("tower.locals", True, False, False),
        ("my_box.lan", True, False, False),
        ("127.1", False, False, False),
        ("0x7f000001", False, False, False),
        ("a..b", False, False, False),
        ("-a", False, False, False),
        ("a b", False, False, False),
        ("*", False, False, False),
        ("", False, False, False),
        ("ü.de", False, False, False),
        ("a" * 64, False, False, False),
    ],
)
def test_hosts(host: str, is_a_host: bool, is_loopback: bool, is_private: bool) -> None:
    assert (is_host(host), is_loopback_host(host), is_private_host(host)) == (
        is_a_host,
        is_loopback,
        is_private,
    )


def test_urls_are_taken_apart() -> None:
    parts = split_url("HTTP://[::1]:8000/v1")
    assert parts is not None
    assert (parts.scheme, parts.host, parts.port, parts.path) == ("http", "::1", 8000, "/v1")


@pytest.mark.parametrize(
    "url",
    [
        "//a",
        "a",
        "http://",
        "http://a:0",
        "http://a:x",
        "http://[::1",
        "http://a#b",
        "http://a?b",
        "http://ü",
    ],
)
def test_other_texts_are_no_urls(url: str) -> None:
    assert split_url(url) is None
