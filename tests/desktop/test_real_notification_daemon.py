"""Notices on a real screen: dunst under Xvfb shows them, and a real mouse clicks the action."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from PIL import ImageGrab

from tests.desktop.session_bus import session_bus
from tray_valet.core.notices import Choice, ChoiceKind, Notice, Subject
from tray_valet.desktop.notify_dbus import DbusNotifier

_TOOLS = ("dbus-daemon", "Xvfb", "dunst", "xdotool")
pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not all(map(shutil.which, _TOOLS)), reason=f"needs {', '.join(_TOOLS)}"
)

_CONFIG = """[global]
origin = top-left
offset = 20x20
width = 400
mouse_left_click = do_action
[urgency_normal]
timeout = 0
"""
HADES = Notice(
    subject=Subject.MODELS,
    title="Hades is running",
    text="Making room for Hades took 0.6 s. 17.3 GB freed.",
    choices=(Choice(ChoiceKind.KEEP_RUNNING, "Keep running"),),
)


@contextmanager
def running(*argv: str, environ: dict[str, str], folder: Path) -> Iterator[subprocess.Popen[str]]:
    with (folder / f"{argv[0]}.log").open("w") as log:
        process = subprocess.Popen(argv, env=environ, stdout=subprocess.PIPE, stderr=log, text=True)
    assert process.stdout is not None
    with process.stdout:
        try:
            yield process
        finally:
            process.terminate()
            process.wait(30)


@pytest.fixture
def desktop(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a desktop with a screen, a bus and dunst."""
    config = tmp_path / "dunstrc"
    config.write_text(_CONFIG)
    with ExitStack() as stack:
        environ = {**os.environ, "DBUS_SESSION_BUS_ADDRESS": stack.enter_context(session_bus(tmp_path))}
        screen = ("Xvfb", "-displayfd", "1", "-screen", "0", "800x400x24", "-nolisten", "tcp")
        xvfb = stack.enter_context(running(*screen, environ=environ, folder=tmp_path))
        assert xvfb.stdout is not None
        environ["DISPLAY"] = f":{xvfb.stdout.readline().strip()}"
        stack.enter_context(running("dunst", "-conf", str(config), environ=environ, folder=tmp_path))
        yield environ


async def shown(notifier: DbusNotifier, notice: Notice) -> None:
    """Show it, as soon as the service is there."""
    for _ in range(800):
        await notifier.show(notice, has_sound=False)
        if notifier.missing_because is None:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(notifier.missing_because)


async def drawn_share(display: str, *, is_something: bool) -> float:
    """The share of the screen that is not black, once there is something (or nothing) on it."""
    share = 0.0
    for _ in range(800):
        picture = await asyncio.to_thread(ImageGrab.grab, xdisplay=display)
        black = picture.convert("L").histogram()[0]
        share = 1 - black / (picture.width * picture.height)
        if (share > 0.01) is is_something:
            return share
        await asyncio.sleep(0.05)
    return share


async def test_a_notice_is_seen_on_the_screen_and_its_action_clicked_with_the_mouse(
    desktop: dict[str, str],
) -> None:
    notifier = DbusNotifier(desktop)
    clicked: asyncio.Queue[tuple[Subject, ChoiceKind]] = asyncio.Queue()
    notifier.listen(lambda subject, choice: clicked.put_nowait((subject, choice)))
    await shown(notifier, HADES)
    assert await drawn_share(desktop["DISPLAY"], is_something=True) > 0.01
    click = ("xdotool", "mousemove", "100", "40", "click", "1")
    await asyncio.to_thread(subprocess.run, click, env=desktop, check=True, timeout=40)
    assert await asyncio.wait_for(clicked.get(), 40) == (Subject.MODELS, ChoiceKind.KEEP_RUNNING)
    await notifier.close()


async def test_a_notice_that_is_taken_back_leaves_the_screen(desktop: dict[str, str]) -> None:
    notifier = DbusNotifier(desktop)
    await shown(notifier, HADES)
    assert await drawn_share(desktop["DISPLAY"], is_something=True) > 0.01
    await notifier.withdraw(Subject.MODELS)
    assert await drawn_share(desktop["DISPLAY"], is_something=False) < 0.01
    await notifier.close()
