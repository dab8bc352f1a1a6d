"""The tray on a real session bus: registered, drawn, walked, clicked, updated, and found again."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from typing import Any

import PIL.Image
import pytest
from dbus_fast import Variant

from tests.tray import pictures as pic
from tests.tray.running_tray import RunningTray
from tests.tray.session_bus import ITEM, MENU, PROPERTIES, Panel, entries, find
from tray_valet.core.tray_view import Face
from tray_valet.core.watchdog import State
from tray_valet.tray.icon_drawing import PANEL_SIZES_PX, draw_face


async def shown_face(panel: Panel, face: Face) -> None:
    """Wait until the panel reads this face, in every size, pixel by pixel."""
    async with asyncio.timeout(10):
        while True:
            panel.signalled.clear()
            pixmaps = (await panel.properties())["IconPixmap"]
            if [_image(*p).tobytes() for p in pixmaps] == [
                draw_face(face, s).tobytes() for s in PANEL_SIZES_PX
            ]:
                return
            await panel.signalled.wait()


def _image(wide: int, high: int, argb: bytes) -> PIL.Image.Image:
    rgba = bytearray(len(argb))
    rgba[0::4], rgba[1::4], rgba[2::4], rgba[3::4] = argb[1::4], argb[2::4], argb[3::4], argb[0::4]
    return PIL.Image.frombytes("RGBA", (wide, high), bytes(rgba))


async def test_the_icon_registers_under_a_name_that_panels_know(panel: Panel, tray: RunningTray) -> None:
    assert re.fullmatch(r"org\.kde\.StatusNotifierItem-\d+-1", await panel.item())
    properties = await panel.properties()
    assert properties["Id"] == "tray-valet"
    assert properties["Status"] == "Active"
    assert properties["ItemIsMenu"] is False
    assert properties["Category"] == "ApplicationStatus"
    assert [p[:2] for p in properties["IconPixmap"]] == [[s, s] for s in PANEL_SIZES_PX]


@pytest.mark.parametrize(
    ("picture", "face"),
    [
        (pic.picture(), Face.RUNNING),
        (pic.picture(State.PAUSING), Face.MOVING),
        (pic.paused_for_game(), Face.PAUSED),
        (pic.picture(settings_problem="Line 14"), Face.ATTENTION),
    ],
)
async def test_each_state_has_its_pixmaps(panel: Panel, tray: RunningTray, picture: Any, face: Face) -> None:
    await shown_face(panel, Face.EMPTY)
    tray.slot.put(picture)
    await shown_face(panel, face)


async def test_the_tooltip_tells_state_and_reason_and_names_are_no_markup(
    panel: Panel, tray: RunningTray
) -> None:
    tray.slot.put(pic.picture(title="Paused for Tom & <b>", line="Tom & <b> runs."))
    await panel.wait_for_label("Paused for Tom & <b>")
    _, _, title, line = (await panel.properties())["ToolTip"]
    assert title == "Paused for Tom & <b>"
    assert line == "Tom &amp; &lt;b&gt; runs."


async def test_the_tooltip_is_cut(panel: Panel, tray: RunningTray) -> None:
    tray.slot.put(pic.picture(title="T" * 1000, line="l" * 1000))
    await panel.wait_for_label("T" * 59 + "…")
    _, _, title, line = (await panel.properties())["ToolTip"]
    assert len(title) <= 80
    assert len(line) <= 240


async def test_the_menu_can_be_walked(panel: Panel, tray: RunningTray) -> None:
    tray.slot.put(pic.paused_for_game("Under_score"))
    await panel.wait_for_label("Paused for Under_score")
    menu = await panel.menu()
    labels = [e.get("label") for e in menu["children"] if e.get("type") != "separator"]
    assert labels[-2:] == ["Open…", "Quit"]
    assert find(menu, "Keep running for Under_score") == {
        "id": find(menu, "Keep running for Under_score")["id"],  # type: ignore[index]
        "label": "Keep running for Under__score",
        "enabled": True,
        "toggle-type": "checkmark",
        "toggle-state": 0,
        "children": [],
    }
    pause_for = find(menu, "Pause for…")
    assert pause_for is not None
    assert pause_for["children-display"] == "submenu"
    assert next(e["label"] for e in pause_for["children"]) == "30 minutes"
    ids = [e["id"] for e in entries(menu)]
    assert len(ids) == len(set(ids))
    assert 0 not in ids


async def test_a_part_of_the_menu_can_be_asked_for(panel: Panel, tray: RunningTray) -> None:
    tray.slot.put(pic.picture())
    await panel.wait_for_label("Running")
    _, layout = await panel.menu_call("GetLayout", "iias", 0, 1, ["label"])
    assert all(not child.value[2] for child in layout[2])
    assert {name for child in layout[2] for name in child.value[1]} == {"label"}
    pause = find(await panel.menu(), "Pause")
    assert pause is not None
    (value,) = await panel.menu_call("GetProperty", "is", pause["id"], "label")
    assert value.value == "Pause"
    (group,) = await panel.menu_call("GetGroupProperties", "aias", [pause["id"], 99999], [])
    assert [number for number, _ in group] == [pause["id"]]


@pytest.mark.parametrize(
    ("label", "asked"),
    [
        ("Pause", ("pause", None)),
        ("1 hour", ("pause", 3600.0)),
        ("Load llama3.1:8b", ("load", "ollama", "llama3.1:8b")),
        ("Unload qwen2.5:14b · 10.6\u00a0GB", ("unload", "ollama", "qwen2.5:14b")),
        ("Quit", ("quit",)),
    ],
)
async def test_a_click_asks_the_valet(
    panel: Panel, tray: RunningTray, label: str, asked: tuple[Any, ...]
) -> None:
    tray.slot.put(pic.picture())
    await panel.wait_for_label(label)
    await panel.click(label)
    assert await tray.valet.next_asked() == asked


@pytest.mark.parametrize(
    ("picture", "label", "asked"),
    [
        (pic.picture(State.PAUSED, holds=(pic.own_pause(),)), "Resume", ("resume",)),
        (pic.picture(State.PAUSED, resumes_in_s=18.0, providers=()), "Resume now", ("resume",)),
        (pic.paused_for_game(), "Keep running for Hades", ("resume",)),
        (pic.paused_for_game(holds=(pic.game(), pic.own_pause())), "Resume", ("end_hold", "user")),
    ],
)
async def test_a_click_during_a_pause_asks_the_valet(
    panel: Panel, tray: RunningTray, picture: Any, label: str, asked: tuple[Any, ...]
) -> None:
    tray.slot.put(picture)
    await panel.wait_for_label(picture.snapshot.title)
    await panel.wait_for_label(label)
    await panel.click(label)
    assert await tray.valet.next_asked() == asked


async def test_a_refused_command_is_reported(panel: Panel, tray: RunningTray) -> None:
    tray.slot.put(pic.picture())
    await panel.wait_for_label("Load llama3.1:8b")
    await panel.click("Load llama3.1:8b")
    await tray.valet.next_asked()
    await asyncio.sleep(0)
    assert tray.reports == ["A game runs."]


async def test_a_left_click_opens_the_window(panel: Panel, tray: RunningTray) -> None:
    tray.slot.put(pic.picture())
    await panel.wait_for_label("Open…")
    await panel.activate()
    await asyncio.wait_for(tray.opened.wait(), 40)


async def test_a_greyed_entry_does_nothing(panel: Panel, tray: RunningTray) -> None:
    tray.slot.put(pic.picture())
    await panel.wait_for_label("Running")
    await panel.click("Running")
    await panel.click("Resume")
    await panel.click("Quit")
    assert await tray.valet.next_asked() == ("quit",)


async def test_opening_and_hovering_choose_nothing(panel: Panel, tray: RunningTray) -> None:
    quit_id = (find(await panel.menu(), "Quit") or {})["id"]
    for event in ("opened", "hovered", "closed"):
        await panel.menu_call("Event", "isvu", quit_id, event, Variant("i", 0), 0)
    assert await panel.menu_call("AboutToShow", "i", 0) == [False]
    assert await panel.menu_call("AboutToShowGroup", "ai", [0, 9999]) == [[], [9999]]
    missing = [[9999, "clicked", Variant("i", 0), 0], [quit_id, "clicked", Variant("i", 0), 0]]
    assert await panel.menu_call("EventGroup", "a(isvu)", missing) == [[9999]]
    assert await tray.valet.next_asked() == ("quit",)
    assert tray.valet.asked.empty()


@pytest.mark.parametrize(
    ("member", "signature", "body"),
    [
        ("GetLayout", "iias", [4711, -1, []]),
        ("GetProperty", "is", [0, "no-such"]),
        ("Event", "isvu", [4711, "clicked", Variant("i", 0), 0]),
        ("Event", "is", [1, "clicked"]),
        ("NoSuchMethod", "", []),
    ],
)
async def test_a_wrong_call_gets_an_error_and_does_no_harm(
    panel: Panel, tray: RunningTray, member: str, signature: str, body: list[Any]
) -> None:
    with pytest.raises(RuntimeError, match=r"org\.freedesktop\.DBus\.Error"):
        await panel.menu_call(member, signature, *body)
    assert find(await panel.menu(), "Quit")


async def test_an_open_menu_is_updated_in_place(panel: Panel, tray: RunningTray) -> None:
    tray.slot.put(pic.picture())
    await panel.wait_for_label("Running")
    before = await panel.menu()
    await panel.menu_call("Event", "isvu", 0, "opened", Variant("i", 0), 0)
    panel.signals.clear()
    tray.slot.put(pic.picture(title="Running on", line="1 model loaded, 10.7 GB. No game is running."))
    await panel.wait_for_label("Running on")
    after = await panel.menu()
    assert [e["id"] for e in entries(before)] == [e["id"] for e in entries(after)]
    told = [name for name, _ in panel.signals if name in ("LayoutUpdated", "ItemsPropertiesUpdated")]
    assert told == ["ItemsPropertiesUpdated"]


async def test_a_late_click_never_hits_another_entry(panel: Panel, tray: RunningTray) -> None:
    """The model that was clicked has moved down the list since the panel read it."""
    tray.slot.put(pic.picture(catalog=pic.installed("llama3")))
    await panel.wait_for_label("Load llama3")
    seen = find(await panel.menu(), "Load llama3")
    assert seen is not None
    tray.slot.put(pic.picture(catalog=pic.installed("aaa", "bbb", "llama3")))
    await panel.wait_for_label("Load aaa")
    await panel.menu_call("Event", "isvu", seen["id"], "clicked", Variant("i", 0), 0)
    assert await tray.valet.next_asked() == ("load", "ollama", "llama3")
    tray.slot.put(pic.picture(catalog=pic.installed("aaa", "bbb")))
    await panel.wait_for_label("Load llama3", is_there=False)
    with pytest.raises(RuntimeError, match="InvalidArgs"):
        await panel.menu_call("Event", "isvu", seen["id"], "clicked", Variant("i", 0), 0)


async def test_nothing_is_told_when_nothing_differs(panel: Panel, tray: RunningTray) -> None:
    tray.slot.put(pic.picture())
    await panel.wait_for_label("Running")
    panel.signals.clear()
    for moment in range(5):
        tray.slot.put(pic.picture(taken_at=float(moment)))
        await asyncio.sleep(0.25)  # longer than the painter's pace, so that each is looked at
    assert panel.signals == []


async def test_a_panel_that_starts_again_gets_the_icon_back(
    bus_address: str, panel: Panel, tray: RunningTray
) -> None:
    tray.slot.put(pic.picture())
    await panel.wait_for_label("Running")
    await panel.stop()
    again = await Panel.start(bus_address)
    assert find(await again.menu(), "Running")
    await again.click("Pause")
    assert await tray.valet.next_asked() == ("pause", None)
    await again.stop()


async def test_a_late_panel_gets_the_icon_and_its_absence_is_said_once(
    bus_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CURRENT_DESKTOP", "ubuntu:GNOME")
    async with RunningTray(patience_s=0.1) as tray:
        tray.slot.put(pic.picture())
        missing = await asyncio.wait_for(tray.missing.get(), 40)
        late = await Panel.start(bus_address)
        await late.wait_for_label("Running")
        await late.stop()
    assert tray.failure is None
    assert tray.missing.empty()
    assert missing.message == "This desktop has no tray."
    assert "AppIndicator and KStatusNotifierItem Support" in missing.remedy


async def test_a_watcher_without_a_panel_shows_nothing_until_one_comes(bus_address: str) -> None:
    watcher = await Panel.start(bus_address, has_host=False)
    async with RunningTray(patience_s=0.3) as tray:
        await watcher.item()
        await asyncio.wait_for(tray.missing.get(), 40)
        watcher.registered.clear()
        await watcher.add_host()
        await watcher.item()
    await watcher.stop()


async def test_a_panel_in_time_is_not_called_missing(panel: Panel) -> None:
    async with RunningTray(patience_s=4.0) as tray:
        await panel.item()
        await asyncio.sleep(4.3)
    assert tray.missing.empty()


async def test_two_trays_of_one_process_are_two_icons(panel: Panel, tray: RunningTray) -> None:
    """Sandboxes number their processes afresh, so the usual name can be taken."""
    panel.registered.clear()
    async with RunningTray():
        assert (await panel.item()).startswith(":")
        assert (await panel.properties())["Id"] == "tray-valet"


async def test_the_objects_describe_themselves(panel: Panel, tray: RunningTray) -> None:
    name = await panel.item()
    for path, interface in (("/StatusNotifierItem", ITEM), ("/MenuBar", MENU)):
        (xml,) = await panel.call(name, path, "org.freedesktop.DBus.Introspectable", "Introspect")
        assert f'interface name="{interface}"' in xml
    (value,) = await panel.call(name, "/MenuBar", PROPERTIES, "Get", "ss", MENU, "Version")
    assert value.value == 3
    body = (ITEM, "Title", Variant("s", "x"))
    with pytest.raises(RuntimeError, match="PropertyReadOnly"):
        await panel.call(name, "/StatusNotifierItem", PROPERTIES, "Set", "ssv", *body)


async def test_a_bus_that_goes_ends_the_tray_with_a_reason(bus_address: str) -> None:
    panel = await Panel.start(bus_address)
    async with RunningTray() as tray:
        await panel.item()
        bus = "org.freedesktop.DBus"
        (bus_pid,) = await panel.call(
            bus, "/org/freedesktop/DBus", bus, "GetConnectionUnixProcessID", "s", bus
        )
        os.kill(bus_pid, signal.SIGKILL)
        await tray.ended()
        with pytest.raises((EOFError, OSError)):
            await asyncio.wait_for(panel.bus.wait_for_disconnect(), 40)
    assert tray.failure is not None
    assert tray.failure.reason == "bus_lost"
    assert tray.slot.is_closed
