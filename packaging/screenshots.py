"""Takes the README's screenshots from a real run: `.venv/bin/python packaging/screenshots.py [FOLDER]`.

A real `tray-valet` with the built-in demo model runs on a screen of its own (Xvfb) with a real panel
(xfce4-panel). The tray's picture is of that screen with the menu open; the window's pictures are its page in
Chromium, in the size of the window. They go to assets/ if no folder is named. What it needs is what
`packaging/dev.py test` installs.

Decides: what is on the pictures, and their sizes. Must not: draw or change anything on them.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from tests.tray.real_desktop import Desktop

ROOT = Path(__file__).resolve().parent.parent
ASSETS = ROOT / "assets"
NEEDED = ("Xvfb", "xfce4-panel", "xdotool", "dbus-daemon", "chromium")
QUIET = {"desktop": {"notifications": False}}  # one that comes up would be on the picture of the tray
ICON_COLOUR = "#0d8f95"  # running, on a light panel
WINDOW_WIDTH_PX, WINDOW_HEIGHT_PX = 1000, 720  # as `tray_valet/window/child.py` opens it
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")


def main(argv: list[str]) -> int:
    """Take all pictures; returns 0, or 1 where a program is missing."""
    parser = argparse.ArgumentParser(description="Takes the README's screenshots from a real run.")
    parser.add_argument("folder", nargs="?", type=Path, default=ASSETS, metavar="FOLDER")
    folder: Path = parser.parse_args(argv).folder
    missing = [program for program in NEEDED if shutil.which(program) is None]
    if missing:
        print(
            f"Not on this machine: {', '.join(missing)}. See packaging/system_packages.py.", file=sys.stderr
        )
        return 1
    folder.mkdir(parents=True, exist_ok=True)
    sys.path.insert(0, str(ROOT))  # the tests have the screen, the panel and the valet as a process
    for picture in take(folder):
        print(f"{picture} ({picture.stat().st_size // 1000} KB)")
    return 0


def take(folder: Path) -> list[Path]:
    """The pictures, as files in `folder`."""
    from tests.tray.real_desktop import Desktop, write_panel_settings, x_server, xfce_panel
    from tests.tray.session_bus import session_bus
    from tests.whole.valet_process import ValetProcess

    with tempfile.TemporaryDirectory(prefix="tv-shots-") as name:
        home = Path(name)
        environment = {**os.environ, **write_panel_settings(home, is_dark=False)}
        with x_server(environment) as environment, session_bus(home, environment) as address:
            environment["DBUS_SESSION_BUS_ADDRESS"] = address
            desktop = Desktop(environment)
            with (
                ValetProcess(home / "valet", QUIET, command=(), environ=environment) as valet,
                xfce_panel(environment),
            ):
                valet.post("/load", {"model": "demo"})
                valet.post("/pause", {"reason": "a call"})
                valet.post("/resume")
                tray = photograph_tray(desktop, folder / "tray.png")
                address = str(valet.places["control"]["url"])
                return [tray, *photograph_window(f"{address}/ui/", folder)]


def photograph_tray(desktop: Desktop, file: Path) -> Path:
    """The panel's end with the icon, and the menu that the right button opens."""
    from PIL import ImageChops

    box = desktop.wait_for_colour(ICON_COLOUR)
    before = desktop.picture()
    desktop.click((box[0] + box[2]) // 2, (box[1] + box[3]) // 2, button=3)
    desktop.wait_for_change(before)
    desktop.hover(700, 500)  # off the icon, whose tooltip would cover the menu
    time.sleep(1.0)
    opened = desktop.picture()
    desktop.keys("Escape")
    menu = ImageChops.difference(before, opened).getbbox()
    assert menu is not None, "no menu is on the screen"
    opened.crop((min(menu[0], box[0]), 0, max(menu[2], box[2]), menu[3])).save(file, optimize=True)
    return file


def photograph_window(url: str, folder: Path) -> list[Path]:
    """The window's page, light and dark."""
    from PIL import Image
    from playwright.sync_api import sync_playwright

    files = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--force-color-profile=srgb"]
        )
        for scheme in SCHEMES:
            file = folder / f"window-{scheme}.png"
            page = browser.new_page(
                viewport={"width": WINDOW_WIDTH_PX, "height": WINDOW_HEIGHT_PX}, color_scheme=scheme
            )
            page.goto(url)
            page.get_by_text("demo", exact=True).first.wait_for()
            page.wait_for_timeout(1000)  # colours and bars slide into place
            page.screenshot(path=file)
            page.close()
            with Image.open(file) as picture:
                picture.convert("RGB").save(file, optimize=True)
            files.append(file)
        browser.close()
    return files


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
