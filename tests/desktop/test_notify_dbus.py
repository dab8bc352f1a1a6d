"""Notices over a real session bus to a notification service that records and clicks."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import pytest

from tests.desktop.session_bus import NotificationService, session_bus
from tray_valet.core.notices import OPEN, Choice, ChoiceKind, Notice, Subject
from tray_valet.desktop.notify_dbus import DbusNotifier, session_bus_address

HADES = Notice(
    subject=Subject.MODELS,
    title="Hades is running",
    text="Making room for Hades took 0.6 s. 17.3 GB freed.",
    choices=(Choice(ChoiceKind.KEEP_RUNNING, "Keep running"), OPEN),
)
TROUBLE = Notice(
    subject=Subject.PROVIDER, title="ollama does not answer", text="2 models wait.", is_problem=True
)


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[str]:
    with session_bus(tmp_path) as address:
        yield address


@pytest.fixture
async def notifier(bus: str) -> AsyncIterator[DbusNotifier]:
    notifier = DbusNotifier({"DBUS_SESSION_BUS_ADDRESS": bus}, icon="/icon.png")
    yield notifier
    await notifier.close()


@pytest.fixture
async def service(bus: str) -> AsyncIterator[NotificationService]:
    service = await NotificationService.start(bus)
    yield service
    await service.stop()


async def test_a_notice_arrives_with_its_words_its_actions_and_no_sound(
    notifier: DbusNotifier, service: NotificationService
) -> None:
    await notifier.show(HADES, has_sound=False)
    assert notifier.missing_because is None
    (one,) = service.calls
    assert (one.title, one.text) == (HADES.title, HADES.text)
    assert one.actions == {"keep_running": "Keep running", "default": "Open"}
    assert one.hints["suppress-sound"] is True
    assert one.hints["urgency"] == 1
    assert "sound-name" not in one.hints
    assert one.icon == "/icon.png"
    assert one.timeout_ms == -1


async def test_sound_is_asked_for_only_when_it_is_wanted(
    notifier: DbusNotifier, service: NotificationService
) -> None:
    await notifier.show(HADES, has_sound=True)
    assert service.calls[0].hints["suppress-sound"] is False
    assert service.calls[0].hints["sound-name"]


async def test_the_action_that_is_clicked_is_told_with_its_subject(
    notifier: DbusNotifier, service: NotificationService
) -> None:
    clicked: asyncio.Queue[tuple[Subject, ChoiceKind]] = asyncio.Queue()
    notifier.listen(lambda subject, choice: clicked.put_nowait((subject, choice)))
    await notifier.show(TROUBLE, has_sound=False)
    await notifier.show(HADES, has_sound=False)
    service.click(service.calls[1].id, "keep_running")
    assert await asyncio.wait_for(clicked.get(), 40) == (Subject.MODELS, ChoiceKind.KEEP_RUNNING)
    await notifier.show(HADES, has_sound=False)
    service.click(service.calls[2].id, "default")
    assert await asyncio.wait_for(clicked.get(), 40) == (Subject.MODELS, ChoiceKind.OPEN)


async def test_a_newer_notice_of_the_same_subject_takes_the_place_of_the_older(
    notifier: DbusNotifier, service: NotificationService
) -> None:
    await notifier.show(HADES, has_sound=False)
    await notifier.show(TROUBLE, has_sound=False)
    await notifier.show(
        msgspec.structs.replace(HADES, title="Your models are back", choices=()), has_sound=False
    )
    assert {one.title for one in service.shown.values()} == {"Your models are back", TROUBLE.title}


async def test_a_notice_that_the_user_closed_is_not_replaced_but_shown_anew(
    notifier: DbusNotifier, service: NotificationService
) -> None:
    await notifier.show(HADES, has_sound=False)
    service.close(service.calls[0].id, reason=2)
    await notifier.show(HADES, has_sound=False)
    assert service.calls[1].id != service.calls[0].id


async def test_a_notice_is_taken_back(notifier: DbusNotifier, service: NotificationService) -> None:
    await notifier.show(HADES, has_sound=False)
    await notifier.withdraw(Subject.MODELS)
    assert service.shown == {}
    await notifier.withdraw(Subject.MODELS)


@pytest.mark.parametrize(
    ("capabilities", "text", "actions"),
    [
        (("body", "body-markup", "actions"), "Ratchet &amp; Clank &lt;b&gt;", {"keep_running", "default"}),
        (("body", "actions"), "Ratchet & Clank <b>", {"keep_running", "default"}),
        (("body",), "Ratchet & Clank <b>", set()),
        ((), "", set()),
    ],
)
async def test_a_service_gets_only_what_it_says_that_it_can_show(
    bus: str, notifier: DbusNotifier, capabilities: tuple[str, ...], text: str, actions: set[str]
) -> None:
    service = await NotificationService.start(bus, capabilities)
    await notifier.show(msgspec.structs.replace(HADES, text="Ratchet & Clank <b>"), has_sound=False)
    (one,) = service.calls
    assert (one.text, set(one.actions)) == (text, actions)
    assert "Hades is running" in one.title
    assert text or one.title.endswith("Ratchet & Clank <b>")
    await service.stop()


async def test_names_that_would_spoil_a_message_are_cleaned(
    notifier: DbusNotifier, service: NotificationService
) -> None:
    evil = msgspec.structs.replace(HADES, title="A\0B\nC \ud800 is running", text="x" * 5000)
    await notifier.show(evil, has_sound=False)
    assert notifier.missing_because is None
    assert "\0" not in service.calls[0].title
    assert "\n" not in service.calls[0].title
    assert len(service.calls[0].text) == 400
    assert service.calls[0].text.endswith("…")


async def test_a_desktop_without_a_notification_service_is_said_and_served_once_it_has_one(
    bus: str, notifier: DbusNotifier
) -> None:
    await notifier.show(HADES, has_sound=False)
    assert notifier.missing_because == "No program on this desktop shows notifications."
    service = await NotificationService.start(bus)
    await notifier.show(HADES, has_sound=False)
    assert notifier.missing_because is None
    assert len(service.calls) == 1
    assert service.calls[0].actions, "what this service can do is asked afresh"
    await service.stop()


async def test_a_service_that_was_restarted_gets_new_ids_and_is_asked_again_what_it_can(
    bus: str, notifier: DbusNotifier
) -> None:
    first = await NotificationService.start(bus)
    await notifier.show(TROUBLE, has_sound=False)
    await notifier.show(HADES, has_sound=False)
    await first.stop()
    second = await NotificationService.start(bus, ("body",))
    async with asyncio.timeout(30):  # the bus tells us of the owners as anybody
        while notifier._ids:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await notifier.show(TROUBLE, has_sound=False)
    assert second.calls[0].id == 1
    await notifier.show(HADES, has_sound=False)
    assert second.calls[1].id == 2
    assert second.calls[1].actions == {}
    await second.stop()


async def test_a_service_that_never_answers_holds_nothing_up(bus: str, service: NotificationService) -> None:
    notifier = DbusNotifier({"DBUS_SESSION_BUS_ADDRESS": bus}, timeout_s=0.2)
    service.is_silent = True
    await notifier.show(HADES, has_sound=False)
    assert "did not answer" in (notifier.missing_because or "")
    service.is_silent = False
    await notifier.show(HADES, has_sound=False)
    assert notifier.missing_because is None
    await notifier.close()


async def test_a_bus_that_ends_and_comes_back_is_used_again(tmp_path: Path) -> None:
    environ: dict[str, str] = {}
    notifier = DbusNotifier(environ)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        with session_bus(tmp_path / name) as address:
            environ["DBUS_SESSION_BUS_ADDRESS"] = address
            service = await NotificationService.start(address)
            await notifier.show(HADES, has_sound=False)
            assert notifier.missing_because is None
            assert len(service.calls) == 1
            await service.stop()
        await asyncio.sleep(0.05)
        await notifier.show(HADES, has_sound=False)
        assert notifier.missing_because is not None
    await notifier.close()


@pytest.mark.parametrize(
    "environ",
    [{}, {"DBUS_SESSION_BUS_ADDRESS": "unix:path=/nowhere/bus"}, {"DBUS_SESSION_BUS_ADDRESS": "nonsense"}],
)
async def test_without_a_bus_it_says_so_and_does_nothing(environ: dict[str, str]) -> None:
    notifier = DbusNotifier(environ)
    await notifier.show(HADES, has_sound=False)
    assert "session bus" in (notifier.missing_because or "")
    await notifier.withdraw(Subject.MODELS)
    await notifier.close()


def test_the_bus_is_found_at_systemds_place_too(tmp_path: Path) -> None:
    assert session_bus_address({"XDG_RUNTIME_DIR": str(tmp_path)}) is None
    (tmp_path / "bus").touch()
    assert session_bus_address({"XDG_RUNTIME_DIR": str(tmp_path)}) == f"unix:path={tmp_path}/bus"


def test_nothing_of_dbus_is_loaded_before_there_is_a_notice_and_a_bus() -> None:
    code = (
        "import asyncio, sys\n"
        "from tray_valet.core.notices import Notice, Subject\n"
        "from tray_valet.desktop.notify_dbus import DbusNotifier\n"
        "n = DbusNotifier({})\n"
        "asyncio.run(n.show(Notice(subject=Subject.MODELS, title='a', text='b'), has_sound=False))\n"
        "assert n.missing_because\n"
        "assert not [m for m in sys.modules if m.startswith('dbus_fast')]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=dict(os.environ), timeout=60)
