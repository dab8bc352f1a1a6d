"""Attacks on the guard, against a real server over sockets."""

from __future__ import annotations

import asyncio
import json

import msgspec
import pytest

from tests.web.fake_valet import FakeValet
from tests.web.wire import Reply, Site, control_site, serving
from tray_valet.core.config import ControlSettings, Settings
from tray_valet.web.edge.guard import Guard
from tray_valet.web.edge.keys import ControlKeys
from tray_valet.web.edge.policies import control_policy

WRITES = [
    ("POST", "/pause", None),
    ("POST", "/pause/force", None),
    ("POST", "/resume", None),
    ("POST", "/load", {"model": "llama3"}),
    ("POST", "/unload", None),
    ("POST", "/holds", {"owner": "evil"}),
    ("DELETE", "/holds/user-1", None),
    ("PUT", "/config", {"ram_pause_pct": 99}),
    ("POST", "/quit", None),
]


def _settings(**control: object) -> Settings:
    return msgspec.convert({"control": control}, Settings)


@pytest.mark.parametrize(("method", "path", "body"), WRITES)
@pytest.mark.parametrize(
    "page",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:3000", "Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
        {"Origin": "https://evil.example", "Sec-Fetch-Site": "same-origin"},
        {"Referer": "https://evil.example/page"},
    ],
    ids=["other site", "null", "other port", "no-cors", "liar", "old browser"],
)
async def test_v13_pages_of_other_origins_cannot_command(
    method: str, path: str, body: object, page: dict[str, str]
) -> None:
    async with control_site() as site:
        reply = await site.call(method, path, body, {**page})
        assert (reply.status, reply.code) == (403, "origin_refused")
        assert site.valet.calls == []
        assert "access-control-allow-origin" not in reply.headers


async def test_v13_a_form_of_another_page_cannot_command() -> None:
    form = {
        "Origin": "https://evil.example",
        "Sec-Fetch-Site": "cross-site",
        "Sec-Fetch-Mode": "navigate",
        "Sec-Fetch-Dest": "document",
        "Content-Type": "text/plain",
    }
    async with control_site() as site:
        assert (await site.call("POST", "/pause", b'{"reason":"=x"}', {**form})).status == 403
        assert site.valet.calls == []


@pytest.mark.parametrize(
    "kind", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "text/json", ""]
)
async def test_a_write_with_a_body_that_is_not_json_is_415(kind: str | None) -> None:
    async with control_site() as site:
        reply = await site.call("POST", "/pause", b'{"reason":"x"}', {"Content-Type": kind})
        assert (reply.status, reply.code) == (415, "unsupported_media_type")
        assert site.valet.calls == []


@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=utf-8", "Application/JSON"])
async def test_json_is_taken_with_a_charset_and_in_any_case(kind: str) -> None:
    async with control_site() as site:
        assert (await site.call("POST", "/pause", b"{}", {"Content-Type": kind})).status == 200


async def test_two_content_types_are_415() -> None:
    async with control_site() as site:
        request = site.request_bytes("POST", "/pause", b"{}").replace(
            b"\r\n\r\n", b"\r\nContent-Type: text/plain\r\n\r\n", 1
        )
        assert (await site.raw(request)).status == 415


@pytest.mark.parametrize(("method", "path"), [("POST", "/pause"), ("POST", "/resume"), ("POST", "/unload")])
async def test_a_write_without_a_body_is_fine(method: str, path: str) -> None:
    async with control_site() as site:
        assert (await site.call(method, path)).status == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:{port}",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "localhost@evil.example",
        "user:pass@127.0.0.1:{port}",
        "127.0.0.1:{port}@evil.example",
        "localhost.",
        "127.1",
        "0x7f000001",
        "2130706433",
        "0.0.0.0",
        "[::ffff:8.8.8.8]",
        "127.0.0.1:99999",
        "127.0.0.1:abc",
        "127.0.0.1 evil.example",
        "192.168.1.1",
        "",
    ],
)
async def test_rebinding_and_other_tricks_with_the_host_are_400(host: str) -> None:
    async with control_site() as site:
        reply = await site.call("GET", "/status", headers={"Host": host.format(port=site.server.port)})
        assert (reply.status, reply.code) == (400, "bad_host")


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:{port}", "LOCALHOST:{port}", "localhost", "[::1]:{port}", "[::1]"]
)
async def test_our_own_names_are_hosts_with_and_without_port(host: str) -> None:
    async with control_site() as site:
        reply = await site.call("GET", "/status", headers={"Host": host.format(port=site.server.port)})
        assert reply.status == 200


async def test_a_missing_host_is_400() -> None:
    async with control_site() as site:
        assert (await site.call("GET", "/status", headers={"Host": None})).status == 400
        assert (await site.raw(b"GET /status HTTP/1.0\r\n\r\n")).status == 400


async def test_two_hosts_are_400() -> None:
    async with control_site() as site:
        request = (
            f"GET /status HTTP/1.1\r\nHost: {site.host}\r\nHost: evil.example\r\nConnection: close\r\n\r\n"
        )
        assert (await site.raw(request.encode())).status == 400


@pytest.mark.parametrize(
    ("target", "host", "status"),
    [
        ("http://{own}/status", "{own}", 200),
        ("http://evil.example/status", "{own}", 400),
        ("http://{own}/status", "evil.example", 400),
        ("http://user@{own}/status", "{own}", 400),
        ("http://evil.example\\@{own}/status", "{own}", 400),
        ("*", "{own}", 400),
    ],
)
async def test_an_absolute_target_must_name_us_as_the_host_does(target: str, host: str, status: int) -> None:
    async with control_site() as site:
        line = target.format(own=site.host)
        assert (await site.call("GET", line, headers={"Host": host.format(own=site.host)})).status == status


async def test_hosts_of_the_settings_are_let_in_at_once() -> None:
    async with control_site() as site:
        there = {"Host": "valet.lan:8000"}
        assert (await site.call("GET", "/status", headers={**there})).status == 400
        site.valet.settings = _settings(allowed_hosts=["valet.lan"])
        assert (await site.call("GET", "/status", headers={**there})).status == 200


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "[::1]"])
async def test_our_own_pages_may_command(name: str) -> None:
    async with control_site() as site:
        page = {"Origin": f"http://{name}:{site.server.port}", "Sec-Fetch-Site": "same-origin"}
        assert (await site.call("POST", "/pause", headers={**page})).status == 200


@pytest.mark.parametrize(
    "origin",
    ["https://127.0.0.1:{port}", "http://127.0.0.1", "http://127.0.0.1:1", "http://localhost:{port}/"],
)
async def test_another_scheme_or_port_is_not_our_page(origin: str) -> None:
    async with control_site() as site:
        page = {"Origin": origin.format(port=site.server.port)}
        assert (await site.call("POST", "/pause", headers={**page})).status == 403


async def test_two_origins_are_403() -> None:
    async with control_site() as site:
        own = f"http://{site.host}"
        request = (
            f"POST /pause HTTP/1.1\r\nHost: {site.host}\r\nOrigin: {own}\r\nOrigin: https://evil.example\r\n"
            "Content-Length: 0\r\nConnection: close\r\n\r\n"
        )
        assert (await site.raw(request.encode())).status == 403


@pytest.mark.parametrize(
    "page",
    [
        {"Origin": "https://evil.example"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "script"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
async def test_pages_of_other_origins_cannot_read(page: dict[str, str]) -> None:
    async with control_site() as site:
        for path in ("/status", "/events", "/games"):
            reply = await site.call("GET", path, headers={**page})
            assert reply.status == 403
            assert b"Lantern" not in reply.body


async def test_a_link_on_another_page_may_lead_to_our_page() -> None:
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    async with control_site() as site:
        assert (await site.call("GET", "/", headers={**link})).status == 200
        assert (await site.call("GET", "/", headers={**link, "Sec-Fetch-Dest": "iframe"})).status == 403


async def test_origins_of_the_settings_may_read_and_command_and_get_cors_headers() -> None:
    valet = FakeValet(settings=_settings(cors_origins=["https://dash.example"]))
    page = {"Origin": "https://dash.example", "Sec-Fetch-Site": "cross-site"}
    async with control_site(valet) as site:
        reply = await site.call("GET", "/status", headers={**page})
        assert (reply.status, reply.headers["access-control-allow-origin"]) == (200, "https://dash.example")
        assert reply.headers["vary"] == "Origin"
        ask = {
            **page,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "content-type",
        }
        preflight = await site.call("OPTIONS", "/pause", headers={**ask})
        assert preflight.status == 204
        assert preflight.headers["access-control-allow-origin"] == "https://dash.example"
        assert "POST" in preflight.headers["access-control-allow-methods"]
        assert (await site.call("POST", "/pause", headers={**page})).status == 200


async def test_a_page_of_an_allowed_origin_may_send_the_headers_that_its_client_brings() -> None:
    valet = FakeValet(settings=_settings(cors_origins=["https://dash.example"]))
    ask = {"Origin": "https://dash.example", "Access-Control-Request-Method": "POST"}
    theirs = "anthropic-version,authorization,content-type,x-stainless-os,x-stainless-retry-count"
    async with control_site(valet) as site:
        for wished, allowed in (
            (theirs, theirs),
            (None, "content-type, authorization, x-api-key, x-request-priority"),
            ("a\xff: b", "content-type, authorization, x-api-key, x-request-priority"),
        ):
            headers = {**ask, "Access-Control-Request-Headers": wished}
            reply = await site.call("OPTIONS", "/pause", headers=headers)
            assert (reply.status, reply.headers["access-control-allow-headers"]) == (204, allowed)


async def test_a_preflight_of_another_origin_gets_nothing() -> None:
    ask = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    async with control_site() as site:
        reply = await site.call("OPTIONS", "/pause", headers={**ask})
        assert reply.status == 403
        assert not [name for name in reply.headers if name.startswith("access-control")]


async def test_too_large_a_body_is_413_by_its_length() -> None:
    async with control_site() as site:
        reply = await site.call("POST", "/pause", b'{"reason":"' + b"x" * 65_536 + b'"}')
        assert (reply.status, reply.code) == (413, "body_too_large")
        assert site.valet.calls == []


async def test_the_largest_allowed_body_is_taken() -> None:
    async with control_site() as site:
        body = json.dumps({"reason": "x"}).encode().ljust(65_536)
        assert (await site.call("POST", "/pause", body)).status == 200


async def test_too_large_a_body_is_413_in_chunks() -> None:
    async with control_site() as site:
        chunk = b"%x\r\n" % 4096 + b" " * 4096 + b"\r\n"
        request = site.request_bytes(
            "POST", "/pause", headers={"Content-Type": "application/json", "Transfer-Encoding": "chunked"}
        )
        reply = await site.raw(request + chunk * 17 + b"0\r\n\r\n")
        assert (reply.status, reply.code) == (413, "body_too_large")
        assert site.valet.calls == []


async def test_a_413_reaches_a_client_that_sends_megabytes_first() -> None:
    async with control_site() as site:
        reply = await site.call("POST", "/pause", b" " * (20 * 2**20))
        assert reply.status == 413


async def test_a_chunked_body_of_fitting_size_is_taken() -> None:
    async with control_site() as site:
        head = {"Content-Type": "application/json", "Transfer-Encoding": "chunked"}
        request = site.request_bytes("POST", "/pause", headers={**head})
        assert (await site.raw(request + b'10\r\n{"reason": "xy"}\r\n0\r\n\r\n')).status == 200
        assert site.valet.called("pause")[0]["reason"] == "xy"


@pytest.mark.parametrize("length", ["-1", "+5", "0x10", "abc", "5, 5", "1e3", "99999999999999999999999"])
async def test_a_content_length_that_is_none_is_400(length: str) -> None:
    async with control_site() as site:
        reply = await site.call("POST", "/pause", headers={"Content-Length": length})
        assert reply.status in (400, 413)
        assert site.valet.calls == []


async def test_two_lengths_are_400() -> None:
    async with control_site() as site:
        smuggled = (
            f"POST /pause HTTP/1.1\r\nHost: {site.host}\r\nContent-Type: application/json\r\n"
            "Content-Length: 2\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n{}"
        )
        assert (await site.raw(smuggled.encode())).status == 400
        assert site.valet.calls == []


async def test_a_length_that_promises_more_than_comes_is_408() -> None:
    async with control_site(body_timeout_s=0.2) as site:
        reply = await site.call("POST", "/pause", b"{}", {"Content-Length": "500"})
        assert (reply.status, reply.code) == (408, "body_too_slow")
        assert site.valet.calls == []


async def test_a_body_that_drips_in_is_408() -> None:
    async with control_site(body_timeout_s=0.3) as site:
        reader, writer = await asyncio.open_connection("127.0.0.1", site.server.port)
        writer.write(site.request_bytes("POST", "/pause", headers={"Content-Length": "400"}))
        try:
            drip = asyncio.create_task(_drip(writer))
            begun = await asyncio.wait_for(reader.read(1), 30)
            drip.cancel()  # what came after the end would have the connection reset, and the answer lost
            reply = Reply(begun + await asyncio.wait_for(reader.read(), 30))
            assert reply.status == 408
        finally:
            drip.cancel()
            writer.close()


async def _drip(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b" ")
        await asyncio.sleep(0.05)


async def test_a_client_that_leaves_in_mid_body_does_nothing() -> None:
    async with control_site() as site:
        _, writer = await asyncio.open_connection("127.0.0.1", site.server.port)
        writer.write(site.request_bytes("POST", "/pause", b"{}", {"Content-Length": "100"}))
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        assert (await site.call("GET", "/status")).status == 200
        assert site.valet.calls == []


@pytest.mark.parametrize(
    "path",
    [
        "/%2e%2e/status",
        "/..%2fstatus",
        "/status/",
        "//status",
        "/status%00",
        "/status%2f",
        "/STATUS",
        "/ui/../config.yaml",
        "/%ff",
        "/static/..%5c..%5cconfig.yaml",
    ],
)
async def test_path_tricks_are_404(path: str) -> None:
    async with control_site() as site:
        reply = await site.call("GET", path)
        assert reply.status == 404
        assert reply.json["error"]["code"] == "path_not_found"
        assert "location" not in reply.headers


async def test_a_method_override_overrides_nothing() -> None:
    async with control_site() as site:
        for name in ("X-HTTP-Method-Override", "X-Method-Override", "X-HTTP-Method"):
            assert (await site.call("GET", "/status", headers={name: "POST"})).status == 200
        assert (await site.call("GET", "/pause?_method=POST")).status == 405
        assert site.valet.calls == []


async def test_no_get_changes_anything() -> None:
    async with control_site() as site:
        for path in ("/pause", "/pause/force", "/resume", "/load", "/unload", "/quit"):
            reply = await site.call("GET", path)
            assert (reply.status, reply.headers["allow"]) == (405, "POST")
        reply = await site.call("PATCH", "/holds")
        assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD, POST")
        assert site.valet.calls == []


async def test_answers_carry_the_security_headers() -> None:
    async with control_site() as site:
        for path in ("/status", "/nothing"):
            reply = await site.call("GET", path)
            assert reply.headers["x-content-type-options"] == "nosniff"
            assert reply.headers["cache-control"] == "no-store"
            assert "frame-ancestors 'none'" in reply.headers["content-security-policy"]
            assert "server" not in reply.headers
        page = await site.call("GET", "/ui/")
        assert "default-src 'self'" in page.headers["content-security-policy"]


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /status HTTP/9.9\r\n\r\n",
        b"GET /status HTTP/1.1\r\nHost 127.0.0.1\r\n\r\n",
        b"GET /sta\x00tus HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET /status HTTP/1.1\r\nHost: 127.0.0.1\r\nX: a\x00b\r\n\r\n",
        b"GET /status HTTP/1.1\r\nHost: 127.0.0.1\r\n folded: x\r\n\r\n",
    ],
)
async def test_what_is_not_http_is_a_400_in_json(data: bytes) -> None:
    async with control_site() as site:
        reply = await site.raw(data)
        assert reply.status == 400
        assert reply.json["error"]["message"]


async def test_a_huge_head_is_431() -> None:
    async with control_site() as site:
        reply = await site.call("GET", "/status", headers={"X-Filler": "x" * 70_000})
        assert reply.status == 431
        reply = await site.raw(b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        assert reply.status == 431


async def test_too_many_requests_at_once_are_503() -> None:
    async with control_site(max_in_flight=0) as site:
        reply = await site.call("GET", "/status")
        assert (reply.status, reply.headers["retry-after"]) == (503, "1")


async def test_a_mistake_of_ours_is_a_500_without_details(caplog: pytest.LogCaptureFixture) -> None:
    valet = FakeValet()
    valet.fails["resume"] = RuntimeError("secret detail")  # type: ignore[assignment]
    async with control_site(valet) as site:
        reply = await site.call("POST", "/resume")
        assert (reply.status, reply.code) == (500, "internal")
        assert b"secret detail" not in reply.body
    assert "secret detail" in caplog.text


async def test_the_guard_refuses_before_the_app_is_asked() -> None:
    asked: list[str] = []

    async def app(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
        asked.append(scope["path"])

    settings = Settings(control=ControlSettings())
    keys = ControlKeys(lambda: settings, token=lambda: "", resolve_secret=lambda name: None)
    guard = Guard(app, policy=lambda: control_policy(settings), keys=keys)
    async with serving(guard) as server:
        site = Site(server, FakeValet(), FakeValet().clock, None)
        assert (await site.call("GET", "/", headers={"Host": "evil.example"})).status == 400
        assert asked == []


async def test_garbage_behind_a_request_is_one_400_and_no_mistake(caplog: pytest.LogCaptureFixture) -> None:
    async with control_site() as site:
        request = site.request_bytes("GET", "/status", headers={"Connection": "keep-alive"})
        reply = await site.raw(request + b"\x00\x01garbage\r\n\r\n")
        assert reply.status == 400
        assert (await site.call("GET", "/status")).status == 200
    assert "unexpectedly" not in caplog.text


async def test_an_offer_to_speak_http2_is_passed_over() -> None:
    offer = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABkAAQAAP__"}
    async with control_site() as site:
        reader, writer = await asyncio.open_connection("127.0.0.1", site.server.port)
        for _ in range(2):
            writer.write(site.request_bytes("POST", "/load", {"model": "llama3"}, {**offer}))
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
            assert head.startswith(b"HTTP/1.1 200")
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
            await reader.readexactly(int(length.partition(b":")[2]))
        writer.close()
