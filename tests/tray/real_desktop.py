"""A real X server with a real xfce4-panel in it, its mouse, and pictures of its screen."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import PIL.Image
import PIL.ImageChops
import PIL.ImageGrab

_WAIT_S = 45.0
_TRIES = 5
SCREEN = (1024, 600)
_PANEL_SETTINGS = """<?xml version="1.0" encoding="UTF-8"?>
<channel name="xfce4-panel" version="1.0">
  <property name="configver" type="int" value="2"/>
  <property name="panels" type="array">
    <value type="int" value="1"/>
    <property name="dark-mode" type="bool" value="{is_dark}"/>
    <property name="panel-1" type="empty">
      <property name="position" type="string" value="p=6;x=0;y=0"/>
      <property name="length" type="uint" value="100"/>
      <property name="size" type="uint" value="28"/>
      <property name="icon-size" type="uint" value="22"/>
      <property name="position-locked" type="bool" value="true"/>
      <property name="plugin-ids" type="array"><value type="int" value="1"/></property>
    </property>
  </property>
  <property name="plugins" type="empty">
    <property name="plugin-1" type="string" value="systray"/>
  </property>
</channel>
"""

Box = tuple[int, int, int, int]


class Desktop:
    """One X screen with a panel along its top."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = dict(environment)
        self.display = environment["DISPLAY"]

    def picture(self, save_as: Path | None = None) -> PIL.Image.Image:
        """What the screen shows."""
        image = self._grab().convert("RGB")
        if save_as is not None:
            save_as.parent.mkdir(parents=True, exist_ok=True)
            image.save(save_as)
        return image

    def _grab(self) -> PIL.Image.Image:
        for _ in range(_TRIES):
            try:
                return PIL.ImageGrab.grab(xdisplay=self.display)
            except OSError:
                time.sleep(0.1)
        raise AssertionError("the X server does not answer")

    def find_colour(self, colour: str, within: Box | None = None) -> Box | None:
        """The box around all pixels of exactly that colour (`#0d8f95`), None when there are none."""
        image = self.picture().crop(within) if within else self.picture()
        bands = PIL.ImageChops.difference(image, PIL.Image.new("RGB", image.size, colour)).split()
        furthest = PIL.ImageChops.lighter(PIL.ImageChops.lighter(bands[0], bands[1]), bands[2])
        mask = furthest.point([255, *(0,) * 255])
        box = mask.getbbox()
        left, top = within[:2] if within else (0, 0)
        return (box[0] + left, box[1] + top, box[2] + left, box[3] + top) if box else None

    def wait_for_colour(self, colour: str, within: Box | None = None) -> Box:
        """Wait until that colour is on the screen."""
        end_s = time.monotonic() + _WAIT_S
        while (box := self.find_colour(colour, within)) is None:
            assert time.monotonic() < end_s, f"{colour} was never on the screen"
            time.sleep(0.1)
        return box

    def click(self, x: int, y: int, button: int = 1) -> None:
        self._xdotool("mousemove", str(x), str(y))
        time.sleep(0.2)  # the toolkit must have noticed where the mouse is
        self._xdotool("click", str(button))

    def hover(self, x: int, y: int) -> None:
        self._xdotool("mousemove", str(x), str(y))
        self._xdotool("mousemove_relative", "1", "0")

    def keys(self, *names: str) -> None:
        for name in names:
            self._xdotool("key", name)
            time.sleep(0.05)

    def wait_for_change(self, before: PIL.Image.Image, within: Box | None = None) -> PIL.Image.Image:
        """Wait until the screen differs, and has settled."""
        end_s = time.monotonic() + _WAIT_S
        last = before.crop(within) if within else before
        first = last
        while True:
            now = self.picture().crop(within) if within else self.picture()
            if now.tobytes() == last.tobytes() != first.tobytes():
                return now
            assert time.monotonic() < end_s, "the screen did not change"
            last = now
            time.sleep(0.15)

    def _xdotool(self, *arguments: str) -> None:
        subprocess.run(["xdotool", *arguments], env=self.environment, check=True, timeout=_WAIT_S)


@contextmanager
def x_server(environment: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """A virtual screen on a free display number; gives the environment with its DISPLAY."""
    reading, writing = os.pipe()
    arguments = [
        "-screen",
        "0",
        f"{SCREEN[0]}x{SCREEN[1]}x24",
        "-nolisten",
        "tcp",
        "-displayfd",
        str(writing),
    ]
    server = subprocess.Popen(
        ["Xvfb", *arguments, "-displayfd", str(writing)],
        pass_fds=(writing,),
        stderr=subprocess.DEVNULL,
        env=dict(environment),
    )
    os.close(writing)
    try:
        with os.fdopen(reading) as told:
            number = told.readline().strip()
        assert re.fullmatch(r"\d+", number), "Xvfb did not start"
        yield {**environment, "DISPLAY": f":{number}"}
    finally:
        _end(server)


@contextmanager
def xfce_panel(environment: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """The panel program, alone."""
    panel = _start_panel(environment)
    try:
        yield panel
    finally:
        _end(panel)


def _start_panel(environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """A panel that has come up: on a busy machine the X server turns a client away now and then."""
    for _ in range(_TRIES):
        panel = subprocess.Popen(
            ["xfce4-panel", "--disable-wm-check"],
            env=dict(environment),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            panel.wait(timeout=0.5)
        except subprocess.TimeoutExpired:
            return panel
    raise AssertionError("xfce4-panel ends at once")


def write_panel_settings(home: Path, *, is_dark: bool) -> dict[str, str]:
    """A panel with a tray and nothing else; gives the environment that points there."""
    channel = home / "config" / "xfce4" / "xfconf" / "xfce-perchannel-xml" / "xfce4-panel.xml"
    channel.parent.mkdir(parents=True)
    channel.write_text(_PANEL_SETTINGS.format(is_dark=str(is_dark).lower()), encoding="utf-8")
    for name in ("cache", "data", "run"):
        (home / name).mkdir(mode=0o700)
    return {
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home / "config"),
        "XDG_CACHE_HOME": str(home / "cache"),
        "XDG_DATA_HOME": str(home / "data"),
        "XDG_RUNTIME_DIR": str(home / "run"),
        "NO_AT_BRIDGE": "1",
        "GTK_OVERLAY_SCROLLING": "0",
    }


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(timeout=20)
