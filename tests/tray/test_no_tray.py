"""Where there can be no tray: a typed reason with a remedy, at once, and nothing left hanging."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.tray.running_tray import RunningTray
from tests.tray.session_bus import Panel, session_bus
from tray_valet.core.processes import System
from tray_valet.tray.no_tray import NoTray, no_panel
from tray_valet.tray.portable import icon_class


@pytest.fixture(autouse=True)
def no_session(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DBUS_SESSION_BUS_ADDRESS", "XDG_RUNTIME_DIR", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def deaf_socket(tmp_path: Path) -> Path:
    """A socket where nobody listens any more."""
    path = tmp_path / "deaf"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
    return path


async def failure() -> NoTray:
    async with RunningTray() as tray:
        await tray.ended()
    assert tray.slot.is_closed
    assert tray.failure is not None
    return tray.failure


@pytest.mark.parametrize("address", ["", "nonsense", "unix:path=/no/such/bus", "autolaunch:", "unix:"])
async def test_no_bus_is_said_with_a_remedy_and_nothing_hangs(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", address)
    before = set(threading.enumerate())
    error = await failure()
    assert error.reason == "no_bus"
    assert "session bus" in error.message
    assert "tray-valet serve" in error.remedy
    left = set(threading.enumerate()) - before
    assert [t.name for t in left if not t.name.startswith("asyncio_")] == []


async def test_a_bus_that_nobody_serves_is_no_bus(deaf_socket: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", f"unix:path={deaf_socket}")
    assert (await failure()).reason == "no_bus"


async def test_something_that_is_no_bus_is_no_bus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_unix_server(hang_up, tmp_path / "other")
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", f"unix:path={tmp_path / 'other'}")
    assert (await failure()).reason == "no_bus"
    server.close()


async def test_the_bus_of_the_runtime_directory_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with session_bus(tmp_path) as address:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
        panel = await Panel.start(address)
        async with RunningTray():
            assert await panel.item()
        await panel.stop()


async def test_a_tray_closed_before_its_start_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    tray = RunningTray()
    tray.slot.close()
    async with tray:
        await tray.ended()
    assert tray.failure is None


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"XDG_CURRENT_DESKTOP": "GNOME", "DISPLAY": ":0"}, "gnome-shell-extension-appindicator"),
        ({"XDG_CURRENT_DESKTOP": "ubuntu:GNOME"}, "AppIndicator and KStatusNotifierItem Support"),
        ({"XDG_CURRENT_DESKTOP": "XFCE", "DISPLAY": ":0"}, "Status Notifier"),
        ({"WAYLAND_DISPLAY": "wayland-0"}, "AppIndicator and KStatusNotifierItem Support"),
        ({}, "no display"),
    ],
)
def test_a_missing_panel_has_a_remedy_for_its_desktop(environment: dict[str, str], words: str) -> None:
    assert words in no_panel(environment).remedy


@pytest.mark.skipif(sys.platform != "linux", reason="the others' libraries are there on their systems")
@pytest.mark.parametrize("system", [System.WINDOWS, System.MACOS])
def test_a_backend_that_cannot_be_used_says_so(system: System) -> None:
    with pytest.raises(NoTray) as caught:
        icon_class(system)
    assert caught.value.reason == "no_backend"


def test_nothing_heavy_is_imported_before_a_tray_runs() -> None:
    code = (
        "import sys, tray_valet.tray.run, tray_valet.tray.feed\n"
        "print(*sorted({'PIL', 'pystray', 'dbus_fast'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout.strip() == ""
