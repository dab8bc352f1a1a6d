"""A session bus for the tray's tests."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.tray.running_tray import RunningTray
from tests.tray.session_bus import Panel, session_bus


@pytest.fixture
def bus_address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A session bus of this test alone, named by the environment."""
    if shutil.which("dbus-daemon") is None:
        pytest.skip("there is no dbus-daemon: apt-get install dbus-daemon")
    with tempfile.TemporaryDirectory(prefix="tv-bus-") as folder, session_bus(Path(folder)) as address:
        monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", address)
        yield address


@pytest.fixture
async def panel(bus_address: str) -> AsyncIterator[Panel]:
    """A panel that is there before the tray."""
    panel = await Panel.start(bus_address)
    yield panel
    await panel.stop()


@pytest.fixture
async def tray(panel: Panel) -> AsyncIterator[RunningTray]:
    """A tray on that panel."""
    async with RunningTray() as tray:
        await panel.item()
        yield tray
