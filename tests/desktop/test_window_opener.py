"""The opener: one window, the first way that works, and a clear word when none does."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path

import pytest

from tray_valet.desktop.window_opener import (
    OpenWindow,
    WindowFailed,
    WindowOpener,
    WindowPage,
    WindowWay,
)
from tray_valet.desktop.window_ticket import address_for_argv
from tray_valet.desktop.window_ways import (
    AppBrowserWay,
    BrowserWay,
    WebViewWay,
    child_environ,
    find_app_browsers,
    ways_of_this_system,
)

URL = "http://127.0.0.1:8765/ui/"


class FakeWindow:
    def __init__(self, *, answers: bool = True) -> None:
        self.is_open = True
        self.answers = answers
        self.focused = 0

    async def focus(self) -> bool:
        self.focused += 1
        return self.answers

    async def close(self) -> None:
        self.is_open = False


class FakeWay:
    """A way that fails for a reason, or shows a window (None: one that is not ours)."""

    def __init__(self, kind: WindowWay, *, fails: str = "", window: FakeWindow | None = None) -> None:
        self.kind = kind
        self.fails = fails
        self.window = window
        self.shown: list[WindowPage] = []

    async def show(self, page: WindowPage) -> OpenWindow | None:
        self.shown.append(page)
        await asyncio.sleep(0)
        if self.fails:
            raise WindowFailed(self.fails)
        return self.window


class House:
    """An opener with these ways; it numbers the codes and keeps what is said."""

    def __init__(self, folder: Path, *ways: FakeWay) -> None:
        self.said: list[str] = []
        self.codes = 0
        self.opener = WindowOpener(self.page, scratch_dir=folder, say=self.said.append, ways=ways)

    def page(self) -> WindowPage:
        self.codes += 1
        return WindowPage(url=URL, code=f"code-{self.codes}")


async def test_the_first_way_that_works_is_taken(tmp_path: Path) -> None:
    broken = FakeWay(WindowWay.WEB_VIEW, fails="no toolkit")
    working = FakeWay(WindowWay.SYSTEM_WEB_VIEW, window=FakeWindow())
    unused = FakeWay(WindowWay.BROWSER)
    house = House(tmp_path, broken, working, unused)
    shown = await house.opener.open()
    assert (shown.way, shown.url) == (WindowWay.SYSTEM_WEB_VIEW, URL)
    assert shown.failures == ("web_view: no toolkit",)
    assert unused.shown == []
    assert house.said == []
    assert broken.shown[0].code != working.shown[0].code, "the first may have spent its code"


async def test_an_open_window_comes_to_the_front_instead_of_a_second_one(tmp_path: Path) -> None:
    window = FakeWindow()
    way = FakeWay(WindowWay.WEB_VIEW, window=window)
    house = House(tmp_path, way)
    assert (await house.opener.open()).way is WindowWay.WEB_VIEW
    assert (await house.opener.open()).way is WindowWay.FOCUSED
    assert (window.focused, len(way.shown)) == (1, 1)


async def test_clicks_at_the_same_time_open_one_window(tmp_path: Path) -> None:
    way = FakeWay(WindowWay.WEB_VIEW, window=FakeWindow())
    house = House(tmp_path, way)
    shown = await asyncio.gather(*(house.opener.open() for _ in range(5)))
    assert len(way.shown) == 1
    assert [each.way for each in shown].count(WindowWay.FOCUSED) == 4


async def test_a_window_that_the_user_closed_is_opened_anew(tmp_path: Path) -> None:
    window = FakeWindow()
    way = FakeWay(WindowWay.WEB_VIEW, window=window)
    house = House(tmp_path, way)
    await house.opener.open()
    window.is_open = False
    assert not house.opener.is_open
    way.window = FakeWindow()
    assert (await house.opener.open()).way is WindowWay.WEB_VIEW
    assert (window.focused, len(way.shown)) == (0, 2)


async def test_a_window_that_does_not_answer_is_replaced(tmp_path: Path) -> None:
    stuck = FakeWindow(answers=False)
    way = FakeWay(WindowWay.WEB_VIEW, window=stuck)
    house = House(tmp_path, way)
    await house.opener.open()
    way.window = FakeWindow()
    assert (await house.opener.open()).way is WindowWay.WEB_VIEW
    assert not stuck.is_open


async def test_a_browser_of_the_users_is_asked_each_time(tmp_path: Path) -> None:
    way = FakeWay(WindowWay.BROWSER)
    house = House(tmp_path, way)
    assert [(await house.opener.open()).way for _ in range(2)] == [WindowWay.BROWSER] * 2
    assert not house.opener.is_open


async def test_when_nothing_works_the_address_is_said_without_a_code(tmp_path: Path) -> None:
    house = House(tmp_path, FakeWay(WindowWay.WEB_VIEW, fails="a"), FakeWay(WindowWay.BROWSER, fails="b"))
    shown = await house.opener.open()
    assert shown.way is WindowWay.ADDRESS
    assert shown.failures == ("web_view: a", "browser: b")
    assert house.said == [f"No window can be opened here. Tray Valet is at {URL}."]


async def test_close_ends_the_window_and_may_be_called_without_one(tmp_path: Path) -> None:
    window = FakeWindow()
    house = House(tmp_path, FakeWay(WindowWay.WEB_VIEW, window=window))
    await house.opener.close()
    await house.opener.open()
    await house.opener.close()
    assert not window.is_open
    assert not house.opener.is_open


# -- the ways of this system ---------------------------------------------------------------------------


def test_without_a_display_there_is_no_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    assert ways_of_this_system({"TERM": "xterm", "PATH": "/usr/bin"}, tmp_path) == []
    gone = {"WAYLAND_DISPLAY": "wayland-0", "XDG_RUNTIME_DIR": str(tmp_path), "PATH": "/usr/bin"}
    assert ways_of_this_system(gone, tmp_path) == []


def test_the_ways_come_in_order_and_each_runs_the_windows_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    browsers = tmp_path / "bin"
    browsers.mkdir()
    for name in ("google-chrome", "chromium"):
        (browsers / name).write_text("#!/bin/sh\n")
        (browsers / name).chmod(0o755)
    environ = {"DISPLAY": "elsewhere:0", "PATH": str(browsers)}
    ways = ways_of_this_system(environ, tmp_path)
    kinds = [way.kind for way in ways]
    order = list(WindowWay)
    assert kinds == sorted(kinds, key=order.index)
    assert kinds[-3:] == [WindowWay.APP_BROWSER, WindowWay.APP_BROWSER, WindowWay.BROWSER]
    assert find_app_browsers(environ)[0].endswith("/chromium")


def test_another_python_gets_our_modules_and_no_folder_that_happens_to_be_current() -> None:
    ways = [
        way
        for way in ways_of_this_system({"DISPLAY": "elsewhere:0", "PATH": "/usr/bin"}, Path("/nowhere"))
        if isinstance(way, WebViewWay) and way.kind is WindowWay.SYSTEM_WEB_VIEW
    ]
    if not ways:
        pytest.skip("this system has no /usr/bin/python3")
    environ = ways[0]._environ
    folders = [Path(folder) for folder in environ["PYTHONPATH"].split(":")]
    assert any((folder / "tray_valet" / "window").is_dir() for folder in folders)
    assert any((folder / "webview").is_dir() for folder in folders)
    assert environ["PYTHONSAFEPATH"] == "1"


def test_a_packaged_program_gives_other_programs_their_own_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.frozen", True, raising=False)
    ours = {"LD_LIBRARY_PATH": "/opt/tray-valet", "LD_LIBRARY_PATH_ORIG": "/usr/local/lib"}
    assert child_environ(ours)["LD_LIBRARY_PATH"] == "/usr/local/lib"
    assert "LD_LIBRARY_PATH" not in child_environ({"LD_LIBRARY_PATH": "/opt/tray-valet"})


def page(*, needs_code: bool) -> WindowPage:
    return WindowPage(url=URL, code="s3cret&<code>", is_code_needed=needs_code)


async def test_a_browser_gets_the_plain_address_where_no_code_is_needed(tmp_path: Path) -> None:
    opened: list[str] = []
    way = BrowserWay(tmp_path, opens=lambda address: bool(opened.append(address)) or True)
    await way.show(page(needs_code=False))
    assert opened == [URL]
    assert not os.listdir(tmp_path)


async def test_a_code_reaches_a_browser_in_a_file_that_only_the_user_can_read(tmp_path: Path) -> None:
    opened: list[str] = []
    folder = tmp_path / "scratch"
    way = BrowserWay(folder, opens=lambda address: bool(opened.append(address)) or True)
    await way.show(page(needs_code=True))
    (ticket,) = folder.iterdir()
    assert opened == [ticket.as_uri()]
    assert "s3cret" not in opened[0]
    assert stat.S_IMODE(ticket.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert f'0;url={URL}#code=s3cret&amp;&lt;code&gt;"' in ticket.read_text()


def test_a_ticket_is_never_written_into_somebody_elses_file(tmp_path: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_text("theirs")
    (tmp_path / "open.html").symlink_to(other)
    address_for_argv(page(needs_code=True), tmp_path)
    assert other.read_text() == "theirs"
    assert not (tmp_path / "open.html").is_symlink()


async def test_a_browser_that_does_not_start_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(WindowFailed, match="no browser"):
        await BrowserWay(tmp_path, opens=lambda address: False).show(page(needs_code=False))

    def fails(address: str) -> bool:
        raise RuntimeError("broken")

    with pytest.raises(WindowFailed, match="broken"):
        await BrowserWay(tmp_path, opens=fails).show(page(needs_code=False))


async def test_an_app_browser_that_refuses_is_a_failure(tmp_path: Path) -> None:
    browser = tmp_path / "chromium"
    browser.write_text("#!/bin/sh\nexit 1\n")
    browser.chmod(0o755)
    with pytest.raises(WindowFailed, match="chromium ended at once, with 1"):
        await AppBrowserWay(str(browser), {"PATH": "/usr/bin:/bin"}, tmp_path).show(page(needs_code=False))
