"""The page's files and the sale of its key, over a real server."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import tray_valet.web
from tests.web.fake_valet import FakeValet
from tests.web.wire import SECRETS, TOKEN, Reply, Site, serving
from tray_valet.web.control.api import ControlApi
from tray_valet.web.control.window_codes import WindowCodes
from tray_valet.web.edge.guard import Guard
from tray_valet.web.edge.keys import ControlKeys
from tray_valet.web.edge.policies import control_policy

UI = Path(tray_valet.web.__file__).parent / "ui"


class PageSite(Site):
    """The control API with its window codes."""

    codes: WindowCodes

    async def session(self, code: object) -> Reply:
        return await self.call("POST", "/ui/session", {"code": code})


@asynccontextmanager
async def page_site(**control: str) -> AsyncIterator[PageSite]:
    valet = FakeValet()
    if control:
        await valet.update_settings({"control": control})
    codes = WindowCodes(valet.clock)
    api = ControlApi(valet, clock=valet.clock, codes=codes)
    keys = ControlKeys(
        lambda: valet.settings,
        token=lambda: TOKEN,
        resolve_secret=SECRETS.get,
        is_window_token=codes.accepts,
    )
    guard = Guard(api, policy=lambda: control_policy(valet.settings), keys=keys)
    async with serving(guard, on_stopping=api.end_streams) as server:
        site = PageSite(server, valet, valet.clock, api)
        site.codes = codes
        yield site


async def test_the_page_comes_with_a_policy_that_allows_nothing_but_its_own_files() -> None:
    async with page_site() as site:
        reply = await site.call("GET", "/ui/")
    assert reply.status == 200
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    policy = reply.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["x-frame-options"] == "DENY"
    assert reply.headers["referrer-policy"] == "no-referrer"


async def test_every_file_that_the_page_asks_for_is_served_with_its_type() -> None:
    kinds = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml", "html": "text/html"}
    async with page_site() as site:
        for path in UI.iterdir():
            reply = await site.call("GET", f"/ui/{path.name}")
            assert reply.status == 200, path.name
            assert reply.headers["content-type"].startswith(kinds[path.suffix[1:]])
            assert reply.body == path.read_bytes()
        page = (UI / "index.html").read_text()
        for name in re.findall(r'(?:href|src)="([^"#][^"]*)"', page):
            assert (await site.call("GET", f"/ui/{name}")).status == 200, name


def test_the_page_has_no_inline_style_or_script_and_asks_nobody_else() -> None:
    for path in UI.iterdir():
        text = path.read_text()
        assert not re.search(r"\bstyle\s*=", text) or path.suffix == ".css", path.name
        assert "innerHTML" not in text, path.name
        foreign = set(re.findall(r"https?://[^\s\"'`]+", text)) - {"http://www.w3.org/2000/svg"}
        assert not foreign, path.name
    page = (UI / "index.html").read_text()
    assert all(re.search(r"\ssrc=", tag) for tag in re.findall(r"<script[^>]*>", page))
    assert "<style" not in page
    assert not re.search(r"\son[a-z]+=", page)


async def test_a_file_that_the_browser_has_already_is_not_sent_again() -> None:
    async with page_site() as site:
        first = await site.call("GET", "/ui/main.js")
        again = await site.call("GET", "/ui/main.js", headers={"If-None-Match": first.headers["etag"]})
        other = await site.call("GET", "/ui/main.js", headers={"If-None-Match": '"other"'})
    assert first.headers["cache-control"] == "no-cache"
    assert (again.status, again.body) == (304, b"")
    assert other.status == 200


@pytest.mark.parametrize(
    "path",
    [
        "/ui/../status",
        "/ui/%2e%2e/status",
        "/ui/..%2f..%2fwiring.py",
        "/ui/../../wiring.py",
        "/ui//etc/passwd",
        "/ui/%2fetc%2fpasswd",
        "/ui/..",
        "/ui/.",
        "/ui/..%5c..%5cwiring.py",
        "/ui/index.html%00.js",
        "/ui/INDEX.HTML",
        "/ui/index.html/",
        "/ui/ui/index.html",
        "/ui/nothing.js",
        "/ui/__init__.py",
        "/ui/ui_pages.py",
    ],
)
async def test_a_path_trick_finds_nothing(path: str) -> None:
    async with page_site() as site:
        reply = await site.call("GET", path)
    assert reply.status == 404
    assert reply.code == "path_not_found"


async def test_the_address_without_its_slash_leads_to_the_page_and_nowhere_else() -> None:
    async with page_site() as site:
        reply = await site.call("GET", "/ui")
        tricky = await site.call("GET", "/ui?//evil.example")
    assert (reply.status, reply.headers["location"]) == (307, "/ui/")
    assert tricky.headers["location"] == "/ui/"


@pytest.mark.parametrize("path", ["/ui/", "/ui/main.js"])
async def test_the_page_is_only_read(path: str) -> None:
    async with page_site() as site:
        reply = await site.call("POST", path, {})
        head = await site.call("HEAD", path)
    assert reply.status == 405
    assert "GET" in reply.headers["allow"]
    assert (head.status, head.body) == (200, b"")


@pytest.mark.parametrize("appearance", ["light", "dark"])
async def test_a_chosen_theme_is_in_the_page_before_any_script_runs(appearance: str) -> None:
    async with page_site() as site:
        before = await site.call("GET", "/ui/")
        await site.valet.update_settings({"desktop": {"appearance": appearance}})
        reply = await site.call("GET", "/ui/", headers={"If-None-Match": before.headers["etag"]})
    assert reply.status == 200, "the other theme is another page"
    assert f'data-theme="{appearance}"'.encode() in reply.body
    assert b"data-theme" not in before.body
    assert b'data-appearance="system"' in before.body


async def test_with_a_token_asked_for_the_page_buys_its_key_by_a_code() -> None:
    async with page_site(local_access="token") as site:
        assert (await site.call("GET", "/ui/")).status == 200
        assert (await site.call("GET", "/ui/main.js")).status == 200
        assert (await site.call("GET", "/status")).status == 401
        sold = await site.session(site.codes.new_code())
        assert sold.status == 200
        assert sold.headers["cache-control"] == "no-store"
        bearer = {"Authorization": f"Bearer {sold.json['token']}"}
        assert (await site.call("GET", "/status", headers=bearer)).status == 200
        assert (await site.call("POST", "/pause", headers=bearer)).status == 200
        assert TOKEN not in sold.body.decode()


async def test_a_code_is_refused_the_second_time_and_after_30_seconds() -> None:
    async with page_site(local_access="token") as site:
        code = site.codes.new_code()
        assert (await site.session(code)).status == 200
        again = await site.session(code)
        old = site.codes.new_code()
        site.clock.now_s += 31
        late = await site.session(old)
    assert (again.status, again.code) == (401, "invalid_api_key")
    assert (late.status, late.code) == (401, "invalid_api_key")
    assert "token" not in again.json


@pytest.mark.parametrize(
    ("path", "method"),
    [
        ("/ui/session", "GET"),
        ("/ui/../status", "GET"),
        ("/ui/%2e%2e/status", "GET"),
        ("/ui/main.js", "POST"),
        ("/status", "GET"),
        ("//ui/", "GET"),
        ("/memory", "GET"),
        ("/events", "GET"),
    ],
)
async def test_with_a_token_asked_for_nothing_but_the_page_comes_without_it(path: str, method: str) -> None:
    async with page_site(local_access="token") as site:
        reply = await site.call(method, path)
    assert reply.status in (401, 404, 405)
    assert b"memory" not in reply.body


@pytest.mark.parametrize(
    "body", [None, b"", b"{", b"[]", b'{"code": 1}', b'{"code": null}', b'{"kode": "x"}', b"{}"]
)
async def test_a_session_needs_a_code(body: bytes | None) -> None:
    async with page_site() as site:
        reply = await site.call("POST", "/ui/session", body)
    assert reply.status == 400


async def test_other_pages_cannot_spend_a_code() -> None:
    async with page_site() as site:
        code = site.codes.new_code()
        stolen = await site.call("POST", "/ui/session", {"code": code}, {"Origin": "https://evil.example"})
        plain = await site.call("POST", "/ui/session", b'{"code": ""}', {"Content-Type": "text/plain"})
        assert (await site.session(code)).status == 200
    assert stolen.status == 403
    assert plain.status == 415


async def test_a_windows_key_opens_nothing_from_elsewhere() -> None:
    async with page_site(local_access="token") as site:
        token = (await site.session(site.codes.new_code())).json["token"]
        keys = ControlKeys(
            lambda: site.valet.settings,
            token=lambda: TOKEN,
            resolve_secret=SECRETS.get,
            is_window_token=site.codes.accepts,
        )
    from tray_valet.web.edge.errors import HttpError
    from tray_valet.web.edge.requests import RequestHead

    head = RequestHead(
        {
            "type": "http",
            "method": "GET",
            "path": "/ui/",
            "client": ("192.168.1.7", 50000),
            "server": ("192.168.1.2", 8765),
            "headers": [(b"authorization", f"Bearer {token}".encode())],
        }
    )
    with pytest.raises(HttpError) as refused:
        keys.admit(head)
    assert refused.value.status == 403


async def test_a_link_on_another_page_may_lead_to_the_page_and_reads_nothing() -> None:
    navigation = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    async with page_site() as site:
        followed = await site.call("GET", "/ui/", headers=dict(navigation))
        framed = await site.call("GET", "/ui/", headers=navigation | {"Sec-Fetch-Dest": "iframe"})
        embedded = await site.call(
            "GET", "/ui/main.js", headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
        )
    assert followed.status == 200
    assert "access-control-allow-origin" not in followed.headers
    assert framed.status == 403
    assert embedded.status == 403
