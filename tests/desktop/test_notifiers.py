"""What every way of showing notices keeps to, and what each does to the texts."""

from __future__ import annotations

import asyncio
import ctypes
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tray_valet.adapters.notifications import system_notifier
from tray_valet.core.notices import Notice, Subject, TextLimits
from tray_valet.core.ports import Notifier
from tray_valet.core.processes import System
from tray_valet.desktop.notify_call import CallNotifier
from tray_valet.desktop.notify_chain import NotifierChain
from tray_valet.desktop.notify_dbus import DbusNotifier
from tray_valet.desktop.notify_osascript import OsascriptNotifier, display_script
from tray_valet.desktop.notify_plyer import plyer_notifier
from tray_valet.desktop.notify_tray import WINDOWS_LIMITS, TrayBalloons, tray_notifier

LIMITS = TextLimits(title=20, text=40)
HADES = Notice(subject=Subject.MODELS, title="Hades is running", text="17.3 GB freed.")
LONG = Notice(subject=Subject.MODELS, title="🎮" * 100, text="é" * 1000)


def fails(title: str, text: str) -> None:
    raise ValueError("string too long")


def broken_tray() -> Notifier:
    balloons = TrayBalloons()
    balloons.notify = fails
    return tray_notifier(balloons)


WAYS: dict[str, Callable[[], Notifier]] = {
    "no bus": lambda: DbusNotifier({}),
    "bad bus": lambda: DbusNotifier({"DBUS_SESSION_BUS_ADDRESS": "unix:path=/dev/null"}),
    "no tray": lambda: tray_notifier(TrayBalloons()),
    "broken tray": broken_tray,
    "no osascript": lambda: OsascriptNotifier("/nowhere/osascript"),
    "failing osascript": lambda: OsascriptNotifier("/bin/false"),
    "chain": lambda: NotifierChain((tray_notifier(TrayBalloons()), OsascriptNotifier("/nowhere/osascript"))),
}


class TestEveryWay:
    """The contract of the port where nothing can be shown."""

    @pytest.fixture(params=WAYS)
    def notifier(self, request: pytest.FixtureRequest) -> Notifier:
        return WAYS[request.param]()

    async def test_nothing_raises_and_the_reason_is_a_sentence(self, notifier: Notifier) -> None:
        assert notifier.missing_because is None
        notifier.listen(lambda _subject, _choice: None)
        await notifier.withdraw(Subject.MODELS)
        for notice in (HADES, LONG):
            await notifier.show(notice, has_sound=True)
            assert (notifier.missing_because or "").endswith(".")
        await notifier.withdraw(Subject.MODELS)
        await notifier.close()
        await notifier.close()
        assert notifier.source


async def test_the_trays_balloon_gets_text_and_title_in_pystrays_order() -> None:
    balloons, got = TrayBalloons(), []
    balloons.notify = lambda message, title: got.append((message, title))
    notifier = tray_notifier(balloons)
    await notifier.show(HADES, has_sound=False)
    assert got == [(HADES.text, HADES.title)]
    assert notifier.missing_because is None
    balloons.notify = None
    await notifier.show(HADES, has_sound=False)
    assert notifier.missing_because == "There is no tray icon."


async def test_texts_fit_into_windows_own_fields_whatever_they_are_made_of() -> None:
    class Fields(ctypes.Structure):
        _fields_ = [("title", ctypes.c_uint16 * 64), ("text", ctypes.c_uint16 * 256)]

    balloons, got = TrayBalloons(), []

    def fill(message: str, title: str) -> None:
        for name, value in (("title", title), ("text", message)):
            units = value.encode("utf-16-le") + b"\0\0"
            assert len(units) <= getattr(Fields, name).size, name
            got.append(value)

    balloons.notify = fill
    notifier = tray_notifier(balloons)
    await notifier.show(LONG, has_sound=False)
    assert notifier.missing_because is None
    assert got[0] == "🎮" * 31 + "…"
    assert got[1] == "é" * 254 + "…"
    assert (WINDOWS_LIMITS.title, WINDOWS_LIMITS.text) == (63, 255)


async def test_a_function_that_hangs_holds_nothing_up_and_is_not_called_again() -> None:
    release, calls = threading.Event(), []

    def hang(title: str, text: str) -> None:
        calls.append(title)
        release.wait(30)

    notifier = CallNotifier("hanging", LIMITS, lambda: hang, absent="There is none.", timeout_s=0.1)
    await notifier.show(HADES, has_sound=False)
    assert "did not return" in (notifier.missing_because or "")
    await notifier.show(HADES, has_sound=False)
    assert "still hangs" in (notifier.missing_because or "")
    assert calls == ["Hades is running"]
    release.set()


async def test_the_next_way_is_used_when_the_first_fails_and_the_first_again_when_it_works() -> None:
    balloons, shown = TrayBalloons(), []
    second = CallNotifier(
        "second", LIMITS, lambda: lambda title, _: shown.append(("second", title)), absent=""
    )
    chain = NotifierChain((tray_notifier(balloons), second))
    await chain.show(HADES, has_sound=False)
    balloons.notify = lambda _, title: shown.append(("tray", title))
    await chain.show(HADES, has_sound=False)
    assert shown == [("second", HADES.title), ("tray", HADES.title)]
    assert chain.missing_because is None
    assert chain.source == "tray icon"


@pytest.mark.skipif(sys.platform == "win32", reason="notify-send is a script here")
async def test_plyer_gets_no_title_that_reads_as_an_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool, out = tmp_path / "notify-send", tmp_path / "out"
    tool.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {out}\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    evil = Notice(subject=Subject.MODELS, title="--help is running", text="--version")
    notifier = plyer_notifier()
    await notifier.show(evil, has_sound=False)
    assert notifier.missing_because is None
    title, text = out.read_text().splitlines()[:2]
    assert title.endswith("--help is running")
    assert not title.startswith("-")
    assert not text.startswith("-")


async def test_osascript_gets_one_statement_in_which_a_name_stays_a_name(tmp_path: Path) -> None:
    tool, out = tmp_path / "osascript", tmp_path / "out"
    tool.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {out}\n')
    tool.chmod(0o755)
    evil = Notice(subject=Subject.MODELS, title='a" & (do shell script "x") & "\\', text="new\nline")
    notifier = OsascriptNotifier(str(tool))
    await notifier.show(evil, has_sound=True)
    assert notifier.missing_because is None
    assert out.read_text().splitlines() == [
        "-e",
        'display notification "new line" with title "a\\" & (do shell script \\"x\\") & \\"\\\\" '
        'sound name "Glass"',
    ]


async def test_osascript_that_hangs_is_ended(tmp_path: Path) -> None:
    tool = tmp_path / "osascript"
    tool.write_text("#!/bin/sh\nexec sleep 60\n")
    tool.chmod(0o755)
    notifier = OsascriptNotifier(str(tool), timeout_s=0.2)
    async with asyncio.timeout(30):
        await notifier.show(HADES, has_sound=False)
    assert "did not return" in (notifier.missing_because or "")


def test_sound_has_its_own_word() -> None:
    assert "sound" not in display_script(HADES, has_sound=False)


@pytest.mark.parametrize(
    ("system", "kind"),
    [(System.LINUX, DbusNotifier), (System.WINDOWS, NotifierChain), (System.MACOS, NotifierChain)],
)
def test_every_system_has_its_way(system: System, kind: type[Notifier]) -> None:
    assert isinstance(system_notifier(system, {}, TrayBalloons()), kind)
