"""`desktop.autostart` is applied when it changes, and never again."""

from __future__ import annotations

from pathlib import Path

import pytest

from tray_valet.core.autostart import AutostartState, LaunchCommand
from tray_valet.desktop.autostart_xdg import XdgAutostart
from tray_valet.services.autostart_wish import AutostartWish

ON, OFF, SWITCHED_OFF = AutostartState.ON, AutostartState.OFF, AutostartState.SWITCHED_OFF


class Desktop:
    """A real autostart folder; `wish()` is the valet at its next start."""

    def __init__(self, folder: Path) -> None:
        self._state = folder / "autostart.json"
        self.entry = folder / "autostart" / "tray-valet.desktop"
        self.autostart = XdgAutostart(folder / "autostart")

    def wish(self) -> AutostartWish:
        return AutostartWish(self._state, lambda: self.autostart, lambda: LaunchCommand(argv=("/bin/true",)))

    @property
    def state(self) -> AutostartState:
        return self.autostart.view().state


@pytest.fixture
def desktop(tmp_path: Path) -> Desktop:
    return Desktop(tmp_path)


async def test_off_by_default_touches_nothing(desktop: Desktop) -> None:
    await desktop.wish().apply(False)
    assert not desktop.entry.parent.exists()


async def test_a_changed_wish_is_applied(desktop: Desktop) -> None:
    await desktop.wish().apply(True)
    assert desktop.state is ON
    await desktop.wish().apply(False)
    assert desktop.state is OFF


async def test_an_entry_that_the_user_took_out_does_not_come_back(desktop: Desktop) -> None:
    await desktop.wish().apply(True)
    desktop.entry.unlink()
    await desktop.wish().apply(True)
    assert desktop.state is OFF


async def test_an_entry_that_the_user_switched_off_stays_off(
    desktop: Desktop, caplog: pytest.LogCaptureFixture
) -> None:
    await desktop.wish().apply(True)
    desktop.entry.write_text(desktop.entry.read_text() + "Hidden=true\n")
    await desktop.wish().apply(True)
    assert desktop.state is SWITCHED_OFF
    await desktop.wish().apply(False)
    await desktop.wish().apply(True)  # wished anew: it cannot be done, and that is said once
    await desktop.wish().apply(True)
    assert desktop.state is SWITCHED_OFF
    assert [r.levelname for r in caplog.records].count("ERROR") == 1


async def test_an_entry_that_was_there_before_is_left_to_who_made_it(desktop: Desktop) -> None:
    desktop.autostart.turn_on(LaunchCommand(argv=("/bin/false",)))
    await desktop.wish().apply(False)
    assert desktop.state is ON


async def test_a_damaged_memory_counts_as_none(desktop: Desktop) -> None:
    wish = desktop.wish()
    await wish.apply(True)
    desktop.entry.parent.parent.joinpath("autostart.json").write_text("{")
    assert desktop.wish().last is False
