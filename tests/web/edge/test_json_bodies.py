"""Bodies of commands: what is malformed is a 400 that says where, and nothing happens."""

from __future__ import annotations

import time

import pytest

from tests.web.fake_valet import FakeValet
from tests.web.wire import control_site
from tray_valet.core.errors import InvalidJson
from tray_valet.web.edge.json_body import parse_object


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b'{"model": "llama3"',
        b"{'model': 'llama3'}",
        b'{"model": "llama3",}',
        b'{"model": "llama3"} trailing',
        b"not json",
        b'"text"',
        b"[]",
        b"null",
        b"7",
        b"\xff\xfe",
        b'{"model": "\xff"}',
        b'{"model": "\\ud800"}',
        b"\xef\xbb\xbf{}",
        b'{"model": "a", "num_ctx": NaN}',
        b'{"model": "a", "num_ctx": ' + b"9" * 5000 + b"}",
        b'{"a":' * 12_000,
        b"[" * 60_000,
        b'{"model": ' + b"[" * 30_000 + b"]" * 30_000 + b"}",
        b'{"model": "llama3", "model": "other"}',
        b"\x00",
        b'{"model": "a\x00"}',
    ],
    ids=lambda body: repr(body[:24]),
)
@pytest.mark.parametrize(("method", "path"), [("POST", "/load"), ("PUT", "/config")])
async def test_v19_bad_json_is_a_400_with_a_clear_message(method: str, path: str, body: bytes) -> None:
    async with control_site() as site:
        reply = await site.call(method, path, body)
        assert (reply.status, reply.code) == (400, "invalid_json")
        assert reply.json["error"]["message"]
        assert site.valet.calls == []


@pytest.mark.parametrize(
    ("method", "path", "body", "param"),
    [
        ("POST", "/load", {}, "model"),
        ("POST", "/load", None, "model"),
        ("POST", "/load", {"model": None}, "model"),
        ("POST", "/load", {"model": 7}, "model"),
        ("POST", "/load", {"model": ["llama3"]}, "model"),
        ("POST", "/load", {"model": ""}, "model"),
        ("POST", "/load", {"model": "../../etc/passwd"}, "model"),
        ("POST", "/load", {"model": "a b"}, "model"),
        ("POST", "/load", {"model": "modèle"}, "model"),
        ("POST", "/load", {"model": "x" * 301}, "model"),
        ("POST", "/load", {"model": "a\u0000"}, "model"),
        ("POST", "/load", {"model": "llama3\n"}, "model"),
        ("POST", "/load", {"model": "llama3", "num_ctx": 511}, "num_ctx"),
        ("POST", "/load", {"model": "llama3", "num_ctx": 0}, "num_ctx"),
        ("POST", "/load", {"model": "llama3", "num_ctx": -4096}, "num_ctx"),
        ("POST", "/load", {"model": "llama3", "num_ctx": "4096"}, "num_ctx"),
        ("POST", "/load", {"model": "llama3", "num_ctx": 4096.5}, "num_ctx"),
        ("POST", "/load", {"model": "llama3", "num_ctx": True}, "num_ctx"),
        ("POST", "/load", {"model": "llama3", "num_ctx": 10**15}, "num_ctx"),
        ("POST", "/load", {"model": "llama3", "override": "yes"}, "override"),
        ("POST", "/load", {"model": "llama3", "gpu": 1}, "gpu"),
        ("POST", "/load?provider=", {"model": "llama3"}, "provider"),
        ("POST", "/load?provider=a&provider=b", {"model": "llama3"}, "provider"),
        ("POST", "/load?provider=..%2F", {"model": "llama3"}, "provider"),
        ("POST", "/unload", {"model": 1}, "model"),
        ("POST", "/unload", {"model": ".."}, "model"),
        ("POST", "/unload", {"name": "llama3"}, "name"),
        ("POST", "/pause", {"reason": 5}, "reason"),
        ("POST", "/pause", {"reason": "x" * 501}, "reason"),
        ("POST", "/pause", {"reason": "two\nlines"}, "reason"),
        ("POST", "/pause", {"for_seconds": 0}, "for_seconds"),
        ("POST", "/pause", {"for_seconds": -1}, "for_seconds"),
        ("POST", "/pause", {"for_seconds": 1e300}, "for_seconds"),
        ("POST", "/pause", b'{"for_seconds": 1e999}', "for_seconds"),
        ("POST", "/pause", {"for_seconds": "2h"}, "for_seconds"),
        ("POST", "/pause", {"pid": 0}, "pid"),
        ("POST", "/pause", {"pid": -1}, "pid"),
        ("POST", "/pause", {"pid": 2**31}, "pid"),
        ("POST", "/pause", {"pid": True}, "pid"),
        ("POST", "/pause", {"forse": True}, "forse"),
        ("POST", "/pause/force", {"x": 1}, "x"),
        ("POST", "/resume", {"x": 1}, "x"),
        ("POST", "/quit", {"x": 1}, "x"),
        ("POST", "/holds", {}, "owner"),
        ("POST", "/holds", {"owner": ""}, "owner"),
        ("POST", "/holds", {"owner": "  "}, "owner"),
        ("POST", "/holds", {"owner": "a\u0007"}, "owner"),
        ("POST", "/holds", {"owner": "a", "ttl_seconds": -5}, "ttl_seconds"),
        ("POST", "/holds", {"owner": "a", "pid": "1"}, "pid"),
        ("POST", "/holds", {"owner": "a", "kind": "game"}, "kind"),
        ("DELETE", "/holds/user-1", {"x": 1}, "x"),
        ("GET", "/activity?limit=0", None, "limit"),
        ("GET", "/activity?limit=-1", None, "limit"),
        ("GET", "/activity?limit=ten", None, "limit"),
        ("GET", "/activity?limit=99999999999", None, "limit"),
    ],
)
async def test_a_bad_value_is_a_400_that_names_its_path(
    method: str, path: str, body: object, param: str
) -> None:
    async with control_site() as site:
        reply = await site.call(method, path, body)
        error = reply.json["error"]
        assert (reply.status, error["param"], error["type"]) == (400, param, "invalid_request_error")
        assert site.valet.calls == []


async def test_every_unknown_field_is_named() -> None:
    async with control_site() as site:
        error = (await site.call("POST", "/pause", {"reason": "x", "a": 1, "b": 2})).json["error"]
        assert "“a”, “b”" in error["message"]
        assert "for_seconds" in error["message"]


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"cpu_sustained_seconds": "abc"}, "thresholds.cpu_sustained_seconds"),
        ({"ram_pause_pct": "80"}, "thresholds.ram_pause_pct"),
        ({"ram_pause_pct": 101}, "thresholds.ram_pause_pct"),
        ({"ram_pause_pct": 0}, "thresholds.ram_pause_pct"),
        ({"ram_pause_pct": True}, "thresholds.ram_pause_pct"),
        ({"ram_pause_pct": 50}, "thresholds.ram_pause_pct"),  # below the resume limit
        ({"ram_resume_pct": 90}, "thresholds.ram_resume_pct"),
        ({"check_interval_seconds": 0}, "thresholds.check_interval_seconds"),
        ({"auto_resume_on_ram_pressure": "yes"}, "thresholds.auto_resume_on_ram_pressure"),
        ({"ram_pause": 80}, "thresholds.ram_pause"),
        ({"ram_pause_pct": 80, "cpu_sustained_seconds": []}, "thresholds.cpu_sustained_seconds"),
    ],
)
async def test_v12_a_bad_threshold_is_a_400_and_nothing_is_stored(body: dict[str, object], path: str) -> None:
    valet = FakeValet()
    before = valet.settings
    async with control_site(valet) as site:
        reply = await site.call("PUT", "/config", body)
        assert reply.status == 400
        assert path in [each["path"] for each in reply.json["error"]["details"]]
        assert valet.settings == before
        assert (await site.call("GET", "/config")).json["cpu_sustained_seconds"] == 30


def test_a_name_that_is_there_twice_among_very_many_is_found_at_once() -> None:
    names = [f"{number:x}" for number in range(30_000)]
    body = "{" + ",".join(f'"{name}":1' for name in (*names, names[-1])) + "}"
    began_s = time.monotonic()
    with pytest.raises(InvalidJson, match=names[-1]):
        parse_object(body.encode())
    assert time.monotonic() - began_s < 5.0
