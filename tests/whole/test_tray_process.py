"""`tray-valet` with a tray: a real process on a session bus of its own, with a panel that clicks."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.tray.session_bus import Panel, session_bus
from tests.web.fake_valet import FakeValet
from tests.whole.test_game_cycle import local_provider
from tests.whole.test_start_and_end import END_S, NOTHING
from tests.whole.valet_process import ValetProcess, engine_pids, until
from tray_valet.tray_front import TrayFront
from tray_valet.wiring import Wiring

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("dbus-daemon") is None, reason="needs Linux and dbus-daemon"
)
RSS_LIMIT_MB = 75


def _tray(home: Path, bus: str, settings: dict[str, Any] | None = None) -> ValetProcess:
    environ = {"DBUS_SESSION_BUS_ADDRESS": bus, "DISPLAY": "", "WAYLAND_DISPLAY": ""}
    environ |= {"PATH": "/nonexistent", "BROWSER": ""}
    return ValetProcess(home, settings or NOTHING, command=(), environ=environ)


@asynccontextmanager
async def _panel(bus: str) -> AsyncIterator[Panel]:
    panel = await Panel.start(bus)
    try:
        yield panel
    finally:
        await panel.stop()


async def test_the_tray_shows_and_commands_the_services(tmp_path: Path, tiny_model: Path) -> None:
    home = tmp_path / "home"
    settings = {**NOTHING, "providers": {"local": local_provider(home, tiny_model, "one")}}
    with session_bus(tmp_path) as bus:
        async with _panel(bus) as panel:
            with _tray(home, bus, settings) as valet:
                assert (await panel.properties())["ToolTip"][2] == "No model loaded"
                await asyncio.to_thread(valet.post, "/load", {"model": "one"})
                await _until_tooltip(panel, "Running")
                await panel.click("Pause")
                await _until_tooltip(panel, "Paused by you")
                assert engine_pids(home) == []
                await panel.click("Resume")
                await _until_tooltip(panel, "Running")
                await asyncio.to_thread(until, lambda: bool(engine_pids(home)), "it is back")
                await panel.click("Quit")
                assert await asyncio.to_thread(valet.wait, END_S) == 0
                assert engine_pids(home) == []
                assert (home / "stderr").read_text() == ""


async def _until_tooltip(panel: Panel, title: str) -> None:
    async with asyncio.timeout(45):
        while (await panel.properties())["ToolTip"][2] != title:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


def _rss_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
async def test_a_signal_ends_the_icon_with_the_services(tmp_path: Path, number: signal.Signals) -> None:
    with session_bus(tmp_path) as bus:
        async with _panel(bus) as panel:
            with _tray(tmp_path / "home", bus) as valet:
                await panel.item()
                assert await asyncio.to_thread(lambda: valet.end(number, within_s=END_S)) == 0
                assert not (tmp_path / "home" / "state" / "runtime.json").exists()
                assert (tmp_path / "home" / "stderr").read_text() == ""


async def test_it_is_small_and_its_menu_opens_the_window(tmp_path: Path) -> None:
    with session_bus(tmp_path) as bus:
        async with _panel(bus) as panel:
            with _tray(tmp_path / "home", bus) as valet:
                await panel.menu()
                assert _rss_mb(valet.pid) <= RSS_LIMIT_MB
                await panel.click("Open…")  # nothing can open one here, and that is said
                said = tmp_path / "home" / "stderr"
                await asyncio.to_thread(until, lambda: "/ui/" in said.read_text(), "the address is said")


async def test_without_a_panel_it_says_so_once_and_shows_the_icon_when_one_comes(tmp_path: Path) -> None:
    with session_bus(tmp_path) as bus, _tray(tmp_path / "home", bus) as valet:
        said = tmp_path / "home" / "stderr"
        await asyncio.to_thread(until, lambda: "This desktop has no tray." in said.read_text(), "it is said")
        assert f"{valet.places['control']['url']}/ui/" in said.read_text()
        async with _panel(bus) as panel:
            await panel.item()
        async with _panel(bus) as panel:  # the panel was restarted
            await panel.item()
        assert said.read_text().count("no tray") == 1


async def test_the_valet_outlives_a_session_and_shows_the_icon_in_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    front = TrayFront(said.append, again_s=0.1)
    feeding = asyncio.create_task(cast(Any, front.loops(_wiring())["tray"])())
    main_thread = threading.Thread(target=front.run, daemon=True)  # a failing test must end
    try:
        with session_bus(tmp_path) as bus:
            monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", bus.partition(",")[0])
            main_thread.start()
            async with _panel(bus) as panel:
                await panel.item()
        (tmp_path / "bus").unlink(missing_ok=True)
        with session_bus(tmp_path) as bus:
            async with _panel(bus) as panel:
                await panel.item()
                await _until_tooltip(panel, "Ready")
    finally:
        front.close()
        feeding.cancel()
    await asyncio.to_thread(main_thread.join, 30)
    assert not main_thread.is_alive()
    assert len(said) == 1
    assert "http://127.0.0.1:8765/ui/" in said[0]


def _wiring() -> Wiring:
    valet = FakeValet()
    return cast(
        Wiring,
        SimpleNamespace(
            valet=valet,
            addresses=SimpleNamespace(control_url="http://127.0.0.1:8765"),
            balloons=SimpleNamespace(),
            notifier=SimpleNamespace(),
        ),
    )


def test_services_that_cannot_start_let_the_main_thread_go() -> None:
    front = TrayFront(lambda text: pytest.fail(text))
    threading.Timer(0.1, front.close).start()
    began_s = time.monotonic()
    front.run()
    assert time.monotonic() - began_s < END_S


async def test_a_tray_start_is_one_instance_too(tmp_path: Path) -> None:
    with session_bus(tmp_path) as bus:
        async with _panel(bus) as panel:
            with _tray(tmp_path / "home", bus) as valet:
                await panel.item()
                second = await asyncio.create_subprocess_exec(
                    sys.executable, "-m", "tray_valet", "--json", env=valet.environment, stdout=-1
                )
                out, _ = await asyncio.wait_for(second.communicate(), 60)
                assert (second.returncode, json.loads(out)["action"]) == (0, "open")
                assert len(panel.items) == 1  # no second icon
