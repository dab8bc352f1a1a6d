"""The manners on Windows and macOS, over a stand-in for pystray's backend (which runs only there)."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest

from tests.tray import pictures as pic
from tray_valet.core.processes import System
from tray_valet.core.tray_view import Face, tray_view
from tray_valet.tray.macos_icon import MacosManners
from tray_valet.tray.portable import drawing_for, label_for, tooltip_for
from tray_valet.tray.windows_icon import WindowsManners

RIGHT, LEFT = 0x0205, 0x0202


class NativeIcon:
    """Notes what the native backend is told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.during_menu: Any = None

    def _update_menu(self) -> None:
        self.told.append("menu built")

    def _update_title(self) -> None:
        self.told.append("title set")

    def _on_notify(self, _wparam: int, lparam: int) -> None:
        self.told.append("menu shown" if lparam == RIGHT else "clicked")
        if lparam == RIGHT and self.during_menu:
            self.during_menu()

    def _notify(self, message: str, title: str) -> None:
        self.told.append(f"{len(title)} {len(message)}")


class WindowsIcon(WindowsManners, NativeIcon):
    pass


class MacosIcon(MacosManners, NativeIcon):
    pass


def test_the_windows_menu_is_built_when_it_opens_and_never_while_it_is_open() -> None:
    icon = WindowsIcon()
    icon._update_menu()
    assert icon.told == []

    def meanwhile() -> None:
        icon._update_menu()
        icon._on_notify(0, RIGHT)

    icon.during_menu = meanwhile
    icon._on_notify(0, RIGHT)
    icon._on_notify(0, LEFT)
    icon.during_menu = None
    icon._on_notify(0, RIGHT)
    assert icon.told == ["menu built", "menu shown", "clicked", "menu built", "menu shown"]


def test_windows_texts_fit_their_fields() -> None:
    icon = WindowsIcon()
    icon._notify("m" * 1000, "t" * 1000)
    icon._notify("m", None)
    assert icon.told == ["63 255", f"{len('Tray Valet')} 1"]
    view = tray_view(pic.picture(title="🎮" * 200, line="line"))
    assert len(tooltip_for(System.WINDOWS)(view).encode("utf-16-le")) // 2 <= 127
    assert label_for(System.WINDOWS)("Tom & Jerry") == "Tom && Jerry"
    assert label_for(System.MACOS)("Tom & Jerry") == "Tom & Jerry"


def test_a_tooltip_without_a_line_has_no_empty_one() -> None:
    assert tooltip_for(System.WINDOWS)(tray_view(pic.picture(title="Running", line=""))) == "Running"


def test_macos_gets_templates_and_windows_gets_colours() -> None:
    ink = {
        system: drawing_for(system)(Face.RUNNING)(32).getpixel((16, 15))
        for system in (System.MACOS, System.WINDOWS)
    }
    assert ink == {System.MACOS: (0, 0, 0, 255), System.WINDOWS: (0x0D, 0x8F, 0x95, 255)}


@pytest.fixture
def appkit(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The few names of PyObjC that are used: calls wait in `calls`, `mode` is the run loop's."""
    state: dict[str, Any] = {"calls": [], "mode": "default"}

    class RunLoop:
        @staticmethod
        def currentRunLoop() -> type[RunLoop]:  # noqa: N802  # AppKit's name
            return RunLoop

        @staticmethod
        def currentMode() -> str:  # noqa: N802  # AppKit's name
            return str(state["mode"])

    kit, tools, helper = ModuleType("AppKit"), ModuleType("PyObjCTools"), ModuleType("AppHelper")
    vars(kit).update(NSRunLoop=RunLoop, NSEventTrackingRunLoopMode="tracking")
    vars(helper).update(
        callAfter=lambda function: state["calls"].append(function),
        callLater=lambda _s, function, *args: state["calls"].append(lambda: function(*args)),
    )
    vars(tools).update(AppHelper=helper)
    monkeypatch.setitem(sys.modules, "AppKit", kit)
    monkeypatch.setitem(sys.modules, "PyObjCTools", tools)
    return state


def test_macos_is_told_on_the_main_thread_only_and_an_open_menu_stays(appkit: dict[str, Any]) -> None:
    icon = MacosIcon()
    icon._update_title()
    icon._update_menu()
    assert icon.told == []
    appkit["mode"] = "tracking"  # the menu is open
    first, second = appkit["calls"]
    appkit["calls"].clear()
    first()
    second()
    assert icon.told == ["title set"]
    appkit["mode"] = "default"
    (again,) = appkit["calls"]
    again()
    assert icon.told == ["title set", "menu built"]
