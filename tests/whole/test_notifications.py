"""Notifications of a whole valet: a real game, real models, a real bus, and the action clicked."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.desktop.session_bus import NotificationService, session_bus
from tests.whole.test_game_cycle import local_provider
from tests.whole.valet_process import ValetProcess, until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="plays with copies of /bin/sleep")


@pytest.fixture
def bus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    folder = tmp_path / "bus"
    folder.mkdir()
    with session_bus(folder) as address:
        monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", address)
        yield address


@pytest.fixture
def valet(bus: str, tmp_path: Path, tiny_model: Path) -> Iterator[ValetProcess]:
    home = tmp_path / "home"
    with ValetProcess(home, {"providers": {"local": local_provider(home, tiny_model, "one")}}) as process:
        yield process


async def test_a_pause_is_told_and_keep_running_brings_the_models_back_during_the_game(
    bus: str, valet: ValetProcess
) -> None:
    service = await NotificationService.start(bus)
    await asyncio.to_thread(valet.post, "/load", {"model": "one", "num_ctx": 1024})
    game = valet.play()
    paused = await service.call(1, within_s=45)
    assert paused.title == "Hades is running"
    assert paused.text.startswith("Making room for Hades took ")
    assert paused.text.endswith(" freed.")
    assert paused.actions == {"keep_running": "Keep running"}
    service.click(paused.id, "keep_running")
    await asyncio.to_thread(valet.wait_state, "running")
    back = await service.call(2, within_s=45)
    assert back.title == "Your models are back"
    assert back.text.startswith("1 loaded in ")
    assert (await asyncio.to_thread(valet.loaded))["one"]["context_length"] == 1024
    assert game.poll() is None
    told = [entry["kind"] for entry in (await asyncio.to_thread(valet.get, "/activity"))["activity"]]
    assert {"models_set_aside", "models_brought_back"} <= set(told)
    await asyncio.to_thread(valet.stop, game)
    await service.stop()


async def test_a_game_without_a_loaded_model_is_not_announced(bus: str, valet: ValetProcess) -> None:
    service = await NotificationService.start(bus)
    game = valet.play()
    await asyncio.to_thread(valet.wait_state, "paused")
    await asyncio.sleep(2.5)  # a success is told after 2 s
    await asyncio.to_thread(valet.stop, game)
    await asyncio.to_thread(valet.wait_state, "running")
    await asyncio.sleep(2.5)
    assert service.calls == []
    await service.stop()


async def test_a_killed_valet_says_once_what_it_brings_back(bus: str, valet: ValetProcess) -> None:
    await asyncio.to_thread(valet.post, "/load", {"model": "one"})
    journal = valet.home / "state" / "journal.json"
    await asyncio.to_thread(until, journal.exists, "what is loaded is noted on disk")
    valet.kill()
    service = await NotificationService.start(bus)
    await asyncio.to_thread(valet.start)
    one = await service.call(1, within_s=45)
    assert "Tray Valet was interrupted with models loaded" in f"{one.title}. {one.text}", one
    await asyncio.to_thread(valet.wait_state, "running")
    await service.stop()
