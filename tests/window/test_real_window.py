"""The real window on a real X server: painted, focused again, gone with the valet, and its stand-in."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.web.page_stage import Stage, staged
from tray_valet.desktop.window_opener import WindowOpener, WindowPage, WindowWay
from tray_valet.desktop.window_ways import AppBrowserWay, ways_of_this_system

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs an X server of its own")
ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 45.0
MODEL_BLUE = (0x1F, 0x66, 0xCC)


class Display:
    """An X server nobody else uses, with a window manager."""

    def __init__(self, number: int, environ: dict[str, str]) -> None:
        self.number = number
        self.environ = environ

    def shows(self, colour: tuple[int, int, int]) -> bool:
        """Whether at least 1,000 pixels have exactly that colour."""
        from PIL import ImageGrab

        picture = ImageGrab.grab(xdisplay=f":{self.number}").convert("RGB")
        counted = picture.getcolors(picture.width * picture.height) or []
        return any(count >= 1000 and value == colour for count, value in counted)

    def tool(self, *arguments: str) -> str:
        done = subprocess.run(
            ["xdotool", *arguments], env=self.environ, capture_output=True, text=True, timeout=45, check=False
        )
        return done.stdout.strip()

    def windows(self) -> list[str]:
        """The X windows that the user sees as Tray Valet."""
        return self.tool("search", "--onlyvisible", "--name", "^Tray Valet$").split()


@pytest.fixture(scope="module")
def display(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Display]:
    for program, package in (("Xvfb", "xvfb"), ("openbox", "openbox"), ("xdotool", "xdotool")):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed (apt: {package})")
    reading, writing = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(writing), "-screen", "0", "1200x800x24", "-nolisten", "tcp", "-noreset"],
        pass_fds=[writing],
        stderr=subprocess.DEVNULL,
    )
    os.close(writing)
    with os.fdopen(reading) as told:
        number = int(told.readline())  # to the end of the line: it writes the number and the end apart
    home = tmp_path_factory.mktemp("home")
    dropped = ("WAYLAND_DISPLAY", "DBUS_SESSION_BUS_ADDRESS", "XDG_RUNTIME_DIR", "XAUTHORITY")
    environ = {name: value for name, value in os.environ.items() if name not in dropped}
    environ |= {"DISPLAY": f":{number}", "HOME": str(home), "NO_AT_BRIDGE": "1"}
    manager = subprocess.Popen(["openbox"], env=environ, stderr=subprocess.DEVNULL)
    display = Display(number, environ)
    until(lambda: display.tool("get_num_desktops") not in ("", "0"), "the window manager is up")
    yield display
    for process in (manager, server):
        process.terminate()
        process.wait(30)


@pytest.fixture
def stage() -> Iterator[Stage]:
    with staged() as stage:
        yield stage


def opener_on(display: Display, stage: Stage, folder: Path, **options: object) -> WindowOpener:
    def page() -> WindowPage:
        return WindowPage(url=f"{stage.url}/ui/", code=stage.code(), is_code_needed=True)

    return WindowOpener(
        page,
        scratch_dir=folder,
        say=lambda text: None,
        environ=display.environ,
        **options,  # type: ignore[arg-type]
    )


def until(is_so: Callable[[], object], what: str) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < end_s, f"not seen in {PATIENCE_S:.0f} s: {what}"
        time.sleep(0.05)


async def seen(is_so: Callable[[], object], what: str) -> None:
    await asyncio.to_thread(until, is_so, what)


async def test_the_window_is_painted_and_comes_to_the_front_again(
    display: Display, stage: Stage, tmp_path: Path
) -> None:
    stage.set({"control": {"local_access": "token"}})  # the page shows something only with its key
    opener = opener_on(display, stage, tmp_path)
    try:
        shown = await opener.open()
        if shown.way not in (WindowWay.WEB_VIEW, WindowWay.SYSTEM_WEB_VIEW):
            pytest.skip(f"no web view here (apt: python3-gi gir1.2-webkit2-4.1): {shown.failures}")
        await seen(lambda: display.shows(MODEL_BLUE), "the models' bar is drawn")
        (window,) = display.windows()
        display.tool("windowminimize", "--sync", window)
        await seen(lambda: not display.windows(), "the window is minimised")
        assert (await opener.open()).way is WindowWay.FOCUSED
        await seen(lambda: display.tool("getactivewindow") == window, "the window has the focus")
        await seen(lambda: display.shows(MODEL_BLUE), "the window is drawn again")
        assert display.windows() == [window], "and there is no second one"
    finally:
        await opener.close()
    await seen(lambda: not display.windows(), "the window is closed")
    assert not opener.is_open


async def test_a_window_closed_by_the_user_is_seen_and_opens_again(
    display: Display, stage: Stage, tmp_path: Path
) -> None:
    opener = opener_on(display, stage, tmp_path)
    try:
        await opener.open()
        await seen(lambda: len(display.windows()) == 1, "the window is there")
        (window,) = display.windows()
        display.tool("windowactivate", "--sync", window, "key", "alt+F4")
        await seen(lambda: not display.windows(), "the window is closed")
        await seen(lambda: not opener.is_open, "its process has ended")
        assert (await opener.open()).way in (WindowWay.WEB_VIEW, WindowWay.SYSTEM_WEB_VIEW)
        await seen(lambda: len(display.windows()) == 1, "there is one window again")
    finally:
        await opener.close()


OPENS = """
import asyncio, os, sys
from pathlib import Path
from tray_valet.desktop.window_opener import WindowOpener, WindowPage
async def main():
    page = WindowPage(url=sys.argv[1], code="")
    opener = WindowOpener(lambda: page, scratch_dir=Path(sys.argv[2]), say=print)
    print((await opener.open()).way.value, flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""


def test_kill_9_leaves_no_window_behind(display: Display, stage: Stage, tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OPENS, f"{stage.url}/ui/", str(tmp_path)],
        env=display.environ,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    ) as valet:
        assert valet.stdout is not None
        assert valet.stdout.readline().strip() in ("web_view", "system_web_view")
        until(lambda: len(display.windows()) == 1, "the window is there")
        family = psutil.Process(valet.pid).children(recursive=True)
        assert family
        valet.send_signal(signal.SIGKILL)
    until(lambda: not display.windows(), "the window is gone")
    until(lambda: not any(child.is_running() for child in family), "and every process of it")


def command_lines_below_us() -> list[str]:
    """Of all our children; Chromium's helpers come and go while we look."""
    lines = []
    for process in psutil.Process(os.getpid()).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            lines.append(" ".join(process.cmdline()))
    return lines


async def test_without_a_web_view_chromium_shows_the_page_as_a_window(
    display: Display, stage: Stage, tmp_path: Path
) -> None:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no Chromium is installed (apt: chromium)")
    wrapper = tmp_path / "chromium"  # tests run as root, where Chromium refuses its sandbox
    wrapper.write_text(f'#!/bin/sh\nexec {chromium} --no-sandbox --disable-gpu "$@"\n')
    wrapper.chmod(0o755)
    stage.set({"control": {"local_access": "token"}})
    way = AppBrowserWay(str(wrapper), display.environ, tmp_path / "scratch")
    opener = opener_on(display, stage, tmp_path, ways=[way])
    try:
        assert (await opener.open()).way is WindowWay.APP_BROWSER
        assert opener.is_open
        await seen(lambda: display.shows(MODEL_BLUE), "the models' bar is drawn")
        commands = command_lines_below_us()
        assert any("--app=file://" in command for command in commands)
        assert not any(re.search(r"#code=", command) for command in commands), "codes are not for argv"
    finally:
        await opener.close()
    await seen(lambda: not display.windows(), "the window is closed")


async def test_each_way_that_fails_gives_way_to_the_next(
    display: Display, stage: Stage, tmp_path: Path
) -> None:
    """With nothing that works (no toolkit, no browser) the last word is the address."""
    environ = {**display.environ, "PATH": str(tmp_path), "BROWSER": "/bin/false"}
    kinds = [way.kind for way in ways_of_this_system(environ, tmp_path)]
    assert kinds[-1] is WindowWay.BROWSER
    assert WindowWay.APP_BROWSER not in kinds
