"""The notifier between a valet and a real notification service on a real bus."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest

from tests.desktop.session_bus import NotificationService, session_bus
from tests.web.fake_valet import FakeValet
from tray_valet.core import events as ev
from tray_valet.core.config import DesktopSettings, Settings
from tray_valet.core.notice_book import Pace
from tray_valet.core.snapshot import GameView
from tray_valet.core.watchdog import State
from tray_valet.desktop.notify_dbus import DbusNotifier
from tray_valet.services.clock import SystemClock
from tray_valet.services.notifier import NotifierService

QUICK = Pace(settle_s=0.05, gather_s=0.02)
FREED = ev.ModelsSetAside(models=("llama3",), freed_bytes=4 * 2**30, took_s=0.6, cause="Lantern Keep")


class Scene:
    """A valet, its notifier and the service that shows."""

    def __init__(self, bus: str, service: NotificationService) -> None:
        self.valet = FakeValet()
        self.service = service
        self.kept: list[frozenset[str]] = []
        self.opened = 0
        self.notifier = NotifierService(
            self.valet,
            DbusNotifier({"DBUS_SESSION_BUS_ADDRESS": bus}),
            SystemClock(),
            self.kept.append,
            pace=QUICK,
        )

    def pause_for_game(self) -> None:
        self.valet.start_game()
        self.valet.state = State.PAUSED
        self.valet.recorder.record(FREED)

    def set_desktop(self, **fields: bool) -> None:
        desktop = msgspec.structs.replace(DesktopSettings(), **fields)
        self.valet.settings = msgspec.structs.replace(Settings(), desktop=desktop)

    def called(self, name: str) -> list[dict[str, object]]:
        return [arguments for call, arguments in self.valet.calls if call == name]


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    with session_bus(tmp_path) as address:
        service = await NotificationService.start(address)
        scene = Scene(address, service)
        task = asyncio.create_task(scene.notifier.run())
        await asyncio.sleep(0)  # it follows from here on
        await asyncio.sleep(0)
        yield scene
        task.cancel()
        await asyncio.wait([task], timeout=5)
        assert task.cancelled(), task
        await service.stop()


async def eventually(is_so: Callable[[], bool]) -> None:
    for _ in range(3000):
        if is_so():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("not seen in 30 s")


async def test_a_pause_for_a_game_is_shown_and_keep_running_overrides_its_hold(scene: Scene) -> None:
    scene.pause_for_game()
    one = await scene.service.call(1)
    assert one.title == "Lantern Keep is running"
    assert one.text.replace("\u00a0", " ") == "Making room for Lantern Keep took 0.6 s. 4.0 GB freed."
    scene.service.click(one.id, "keep_running")
    await eventually(lambda: scene.kept == [frozenset({"game:steam:1145360"})])


async def test_the_notice_goes_when_the_game_has_ended(scene: Scene) -> None:
    scene.pause_for_game()
    await scene.service.call(1)
    scene.valet.state = State.RESUMING
    scene.valet.recorder.record(
        ev.StateChanged(before=State.PAUSED, after=State.RESUMING, reason="game detected — ended")
    )
    await scene.service.screen_is_empty()


async def test_nothing_is_shown_or_connected_while_notifications_are_off_and_it_is_heeded_at_once(
    scene: Scene,
) -> None:
    scene.set_desktop(notifications=False)
    scene.pause_for_game()
    await asyncio.sleep(0.4)
    assert scene.service.calls == []
    scene.set_desktop(notifications=True, notification_sound=True)
    scene.valet.recorder.record(ev.LoadRefused(model="x", message="No room."))
    scene.valet.state = State.RUNNING
    one = await scene.service.call(1)
    assert one.title == "x could not be loaded"
    assert one.hints["suppress-sound"] is False


async def test_a_click_on_the_notice_itself_opens_the_window_where_there_is_one(scene: Scene) -> None:
    scene.pause_for_game()
    assert "default" not in (await scene.service.call(1)).actions

    def open_window() -> None:
        scene.opened += 1

    scene.notifier.open_window = open_window
    scene.valet.state = State.RUNNING
    scene.valet.recorder.record(ev.RunnerCrashed(provider="local", model="x", message="Signal 11."))
    two = await scene.service.call(2)
    scene.service.click(two.id, "default")
    await eventually(lambda: scene.opened == 1)


async def test_try_again_loads_the_model_as_it_was(scene: Scene) -> None:
    scene.valet.recorder.record(
        ev.RestoreFailed(model="llama3:latest", message="No room.", provider="ollama", context_length=8192)
    )
    one = await scene.service.call(1)
    scene.service.click(one.id, "try_again")
    await eventually(lambda: scene.called("load") != [])
    assert scene.called("load") == [
        {"model": "llama3:latest", "num_ctx": 8192, "provider": "ollama", "override": False}
    ]


async def test_an_answer_that_cannot_be_done_stops_nothing(scene: Scene) -> None:
    scene.valet.recorder.record(ev.RestoreFailed(model="gone", message="No room.", provider="ollama"))
    one = await scene.service.call(1)
    scene.service.click(one.id, "try_again")
    await eventually(lambda: scene.called("load") != [])
    scene.pause_for_game()
    assert (await scene.service.call(2)).title == "Lantern Keep is running"


async def test_yes_makes_the_models_step_aside_for_that_process(scene: Scene) -> None:
    scene.valet.games = (
        GameView(key="k", name="Odd", store="", appid="", rule="", action="ask", pids=(77,), since=0.0),
    )
    scene.valet.recorder.record(ev.GameStarted(name="Odd", key="k", pid=77, action="ask"))
    one = await scene.service.call(1)
    assert list(one.actions.values()) == ["Yes", "Not this time"]
    scene.service.click(one.id, "step_aside")
    await eventually(lambda: scene.called("place_hold") != [])
    assert scene.called("place_hold")[0]["pid"] == 77


async def test_what_was_noted_before_the_start_is_told_after_it(tmp_path: Path) -> None:
    with session_bus(tmp_path) as address:
        service = await NotificationService.start(address)
        scene = Scene(address, service)
        scene.notifier.note(ev.RestoreFailed(model="x", message="No room."))
        task = asyncio.create_task(scene.notifier.run())
        assert (await service.call(1)).title == "x could not be brought back"
        scene.valet.recorder.close()
        await asyncio.wait_for(task, 5)
        await service.stop()


async def test_two_thousand_changes_in_a_row_show_nothing_and_keep_nothing(scene: Scene) -> None:
    for i in range(2000):
        after = State.PAUSED if i % 2 else State.RUNNING
        scene.valet.state = after
        scene.valet.recorder.record(ev.StateChanged(before=State.RUNNING, after=after, reason=""))
        scene.valet.recorder.record(FREED)
        if i % 100 == 0:
            await asyncio.sleep(0)
    scene.valet.state = State.RUNNING
    await asyncio.sleep(0.6)
    assert scene.service.calls == []


async def test_without_a_service_it_is_logged_once_and_the_loop_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with session_bus(tmp_path) as address:
        scene = Scene(address, NotificationService.__new__(NotificationService))
        task = asyncio.create_task(scene.notifier.run())
        for n in range(2):
            scene.notifier.note(ev.LoadRefused(model="x", message=f"No room {n}."))
            await asyncio.sleep(0.5)
        said = [r for r in caplog.records if "Notifications are not seen" in r.getMessage()]
        assert len(said) == 1
        assert "No program on this desktop shows notifications." in said[0].getMessage()
        assert not task.done()
        task.cancel()
        await asyncio.wait([task], timeout=5)
