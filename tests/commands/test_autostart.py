"""`autostart on|off|status` as processes, in a home and a desktop folder of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tray_valet.commands.autostart import json_of, text_of
from tray_valet.core.autostart import AutostartState, AutostartView
from tray_valet.desktop.autostart_xdg import words_of

linux = pytest.mark.skipif(sys.platform != "linux", reason="would touch this user's own list")


class Desktop:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.entry = folder / "config" / "autostart" / "tray-valet.desktop"
        self.settings = folder / "home" / "config.yaml"
        kept = {name: value for name, value in os.environ.items() if not name.startswith("TRAY_VALET")}
        self.environ = {
            **kept,
            "TRAY_VALET_HOME": str(folder / "home"),
            "XDG_CONFIG_HOME": str(folder / "config"),
            "XDG_CONFIG_DIRS": str(folder / "etc"),
        }

    def __call__(self, *words: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "tray_valet", "autostart", *words]
        return subprocess.run(argv, env=self.environ, capture_output=True, text=True, timeout=60, check=False)

    def json(self, *words: str) -> Any:
        done = self(*words, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture
def desktop(tmp_path: Path) -> Desktop:
    return Desktop(tmp_path)


@linux
def test_it_is_off_until_it_is_turned_on(desktop: Desktop) -> None:
    assert desktop.json("status")["autostart"] == "off"
    assert not desktop.entry.exists()
    assert not desktop.settings.exists()
    done = desktop("status")
    assert (done.returncode, "off" in done.stdout) == (0, True)


@linux
def test_on_makes_an_entry_that_starts_this_program_and_off_takes_it_out(desktop: Desktop) -> None:
    assert desktop.json("on")["autostart"] == "on"
    line = next(x for x in desktop.entry.read_text().splitlines() if x.startswith("Exec="))
    argv = words_of(line.removeprefix("Exec="))
    said = subprocess.run([*argv, "--version"], capture_output=True, text=True, timeout=60, check=True)
    assert said.stdout.startswith("tray-valet ")
    assert f"TRAY_VALET_HOME={desktop.folder / 'home'}" in argv
    assert desktop.json("status")["place"] == str(desktop.entry)
    assert "autostart: true" in desktop.settings.read_text()
    assert desktop.json("off")["autostart"] == "off"
    assert not desktop.entry.exists()
    assert "autostart: false" in desktop.settings.read_text()


@linux
def test_the_users_settings_file_keeps_what_is_in_it(desktop: Desktop) -> None:
    desktop.settings.parent.mkdir()
    desktop.settings.write_text("# mine\ngames: {grace_seconds: 5}  # short\n")
    desktop.settings.chmod(0o600)
    desktop.json("on")
    text = desktop.settings.read_text()
    assert "# mine" in text
    assert "grace_seconds: 5" in text
    assert "autostart: true" in text


@linux
def test_a_broken_settings_file_is_said_and_not_touched(desktop: Desktop) -> None:
    desktop.settings.parent.mkdir()
    desktop.settings.write_text("thresholds: {ram_pause_pct: eighty}\n")
    done = desktop("on")
    assert (done.returncode, "ram_pause_pct" in done.stderr) == (0, True)
    assert desktop.settings.read_text() == "thresholds: {ram_pause_pct: eighty}\n"
    assert desktop.json("status")["autostart"] == "on"
    wish = json.loads((desktop.folder / "home" / "state" / "autostart.json").read_text())
    assert wish == {"wish": False}  # as the settings have it: no valet undoes what was asked for here


@linux
def test_what_was_switched_off_elsewhere_stays_off_unless_the_user_insists(desktop: Desktop) -> None:
    desktop.json("on")
    desktop.entry.write_text(desktop.entry.read_text() + "Hidden=true\n")
    status = desktop.json("status")
    assert (status["autostart"], status["switched_off_elsewhere"]) == ("off", True)
    done = desktop("on")
    assert (done.returncode, "--force" in done.stderr, done.stdout) == (1, True, "")
    assert "Hidden=true" in desktop.entry.read_text()
    assert desktop.json("on", "--force")["autostart"] == "on"


@linux
def test_the_settings_file_of_the_command_line_goes_along(desktop: Desktop) -> None:
    mine = desktop.folder / "my settings.yaml"
    assert desktop.json("on", "--config", str(mine))["command"][-2:] == ["--config", str(mine)]
    assert "autostart: true" in mine.read_text()


@pytest.mark.parametrize("words", [(), ("perhaps",), ("on", "off")])
def test_anything_else_is_wrong_usage(desktop: Desktop, words: tuple[str, ...]) -> None:
    assert desktop(*words).returncode == 2


def test_a_program_that_is_gone_is_said() -> None:
    view = AutostartView(
        state=AutostartState.ON, place="/x.desktop", argv=("/gone",), missing_program="/gone"
    )
    assert "/gone is no longer there" in text_of(view)
    assert json_of(view)["missing_program"] == "/gone"
