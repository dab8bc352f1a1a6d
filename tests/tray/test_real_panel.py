"""The tray in a real panel (xfce4-panel under Xvfb): seen on the screen, clicked with the mouse.

TRAY_VALET_SCREENSHOTS=DIR keeps the pictures.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import PIL.Image
import PIL.ImageChops
import pytest

from tests.tray.real_desktop import Box, Desktop, write_panel_settings, x_server, xfce_panel
from tests.tray.session_bus import session_bus
from tests.tray.test_burst import tray_process

TEAL, AMBER = "#0d8f95", "#b67a08"
NEEDED = ("Xvfb", "xfce4-panel", "xdotool", "dbus-daemon")
pytestmark = pytest.mark.skipif(
    any(shutil.which(program) is None for program in NEEDED),
    reason="needs xvfb, xfce4-panel, xdotool and dbus-daemon (apt-get install)",
)


@pytest.fixture
def desktop() -> Iterator[Desktop]:
    """A screen and a session bus, still without a panel."""
    with tempfile.TemporaryDirectory(prefix="tv-desk-") as folder:
        home = Path(folder)
        environment = {**os.environ, **write_panel_settings(home, is_dark=False)}
        with x_server(environment) as environment, session_bus(home, environment) as address:
            yield Desktop({**environment, "DBUS_SESSION_BUS_ADDRESS": address})


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return Path(os.environ.get("TRAY_VALET_SCREENSHOTS", tmp_path))


def middle(box: Box) -> tuple[int, int]:
    return (box[0] + box[2]) // 2, (box[1] + box[3]) // 2


def changed_box(before: PIL.Image.Image, after: PIL.Image.Image) -> Box:
    """Where the screen differs, below the panel: the open menu."""
    below = (0, 30, *before.size)
    box = PIL.ImageChops.difference(before.crop(below), after.crop(below)).getbbox()
    assert box is not None, "no menu is on the screen"
    return box[0], box[1] + 30, box[2], box[3] + 30


def separators(screen: PIL.Image.Image, menu: Box) -> list[int]:
    """The screen rows where the menu has a line across."""
    left, top, right, bottom = menu
    inside = screen.crop((left + 8, top, right - 8, bottom))
    ground = max(inside.getcolors(inside.width * inside.height) or [])[1]
    rows = []
    for y in range(2, inside.height - 2):
        colours = inside.crop((0, y, inside.width, y + 1)).getcolors()
        if colours is not None and len(colours) == 1 and colours[0][1] != ground:
            rows.append(top + y)
    return rows


async def test_a_user_with_a_mouse(desktop: Desktop, pictures: Path) -> None:
    environment = {"DBUS_SESSION_BUS_ADDRESS": desktop.environment["DBUS_SESSION_BUS_ADDRESS"]}
    async with tray_process(**environment) as tray:
        tray.tell("running")
        with xfce_panel(desktop.environment):  # a late panel
            place = middle(desktop.wait_for_colour(TEAL))
            before = desktop.picture(pictures / "running.png")

            desktop.click(*place)
            assert await tray.answer() == {"asked": "open"}

            desktop.click(*place, button=3)
            desktop.wait_for_change(before)
            opened = desktop.picture(pictures / "menu.png")
            menu = changed_box(before, opened)
            desktop.click(menu[0] + 60, separators(opened, menu)[0] + 12)
            assert await tray.answer() == {"asked": "pause", "for_s": None}

            tray.tell("paused Hades")
            desktop.wait_for_colour(AMBER)
            desktop.hover(600, 400)
            before = desktop.picture(pictures / "paused.png")
            desktop.click(*place, button=3)
            desktop.wait_for_change(before)
            opened = desktop.picture(pictures / "paused-menu.png")
            menu = changed_box(before, opened)

            desktop.hover(600, 400)  # off the icon, whose tooltip would cover the menu
            title = (menu[0], menu[1], menu[2], menu[1] + 25)
            tray.tell("paused Celeste")  # while it is open
            desktop.wait_for_change(opened, title)
            updated = desktop.picture(pictures / "paused-menu-updated.png")
            assert changed_box(before, updated) == menu, "the menu did not stay where it was"
            desktop.click(menu[0] + 60, separators(updated, menu)[-1] + 12)
            assert await tray.answer() == {"asked": "quit"}

        tray.tell("running")
        with xfce_panel(desktop.environment):  # the panel was started again
            desktop.wait_for_colour(TEAL)
            desktop.picture(pictures / "panel-again.png")
