"""Starting at sign-in: one contract for the three systems' lists, then what each has of its own.

The Linux list is the real one (files); launchd's answers and the registry are values.
"""

from __future__ import annotations

import os
import plistlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tray_valet.core.autostart import Autostart, AutostartState, LaunchCommand, SwitchedOffElsewhere
from tray_valet.core.errors import NotSupported
from tray_valet.desktop.autostart import launch_command, system_autostart
from tray_valet.desktop.autostart_macos import LABEL, LaunchAgentAutostart, disabled_labels
from tray_valet.desktop.autostart_windows import (
    APPROVED_KEY,
    RUN_KEY,
    VALUE_NAME,
    RunKeyAutostart,
    split_command_line,
)
from tray_valet.desktop.autostart_xdg import XdgAutostart, exec_line, words_of

ON, OFF, SWITCHED_OFF = AutostartState.ON, AutostartState.OFF, AutostartState.SWITCHED_OFF
COMMAND = LaunchCommand(argv=(sys.executable, "-m", "tray_valet"))
OTHER = LaunchCommand(argv=(sys.executable, "-m", "tray_valet", "--config", "/home/u/my settings.yaml"))


class MemoryRegistry:
    def __init__(self) -> None:
        self.values: dict[tuple[str, str], str | bytes] = {}

    def read(self, key: str, name: str) -> str | bytes | None:
        return self.values.get((key, name))

    def write_text(self, key: str, name: str, text: str) -> None:
        self.values[key, name] = text

    def remove(self, key: str, name: str) -> None:
        self.values.pop((key, name), None)


class System:
    """A list, and the user's hand in that system's own settings."""

    def __init__(self, autostart: Autostart, switch_off: Callable[[], object]) -> None:
        self.autostart = autostart
        self.switch_off = switch_off


def _xdg(folder: Path) -> System:
    file = folder / "autostart" / "tray-valet.desktop"
    return System(
        XdgAutostart(folder / "autostart", [folder / "etc" / "autostart"]),
        lambda: file.write_text(file.read_text() + "Hidden=true\n"),
    )


def _macos(folder: Path) -> System:
    disabled: set[str] = set()
    return System(
        LaunchAgentAutostart(folder / "LaunchAgents", lambda: frozenset(disabled)),
        lambda: disabled.add(LABEL),
    )


def _windows(_: Path) -> System:
    registry = MemoryRegistry()
    off = bytes([3, 0, 0, 0, *range(8)])
    return System(
        RunKeyAutostart(registry), lambda: registry.values.__setitem__((APPROVED_KEY, VALUE_NAME), off)
    )


@pytest.fixture(params=[_xdg, _macos, _windows], ids=["linux", "macos", "windows"])
def system(request: pytest.FixtureRequest, tmp_path: Path) -> System:
    made: System = request.param(tmp_path)
    return made


class TestEverySystem:
    def test_off_unless_it_is_turned_on(self, system: System) -> None:
        assert system.autostart.view().state is OFF
        system.autostart.turn_off()
        assert system.autostart.view().state is OFF

    def test_on_starts_the_command_and_off_takes_it_out(self, system: System) -> None:
        system.autostart.turn_on(COMMAND)
        view = system.autostart.view()
        assert (view.state, view.argv, view.missing_program) == (ON, COMMAND.argv, "")
        assert view.place
        system.autostart.turn_off()
        assert system.autostart.view().state is OFF

    def test_on_again_brings_the_command_up_to_date(self, system: System) -> None:
        system.autostart.turn_on(COMMAND)
        system.autostart.turn_on(OTHER)
        assert system.autostart.view().argv == OTHER.argv

    def test_what_the_user_switched_off_elsewhere_stays_off(self, system: System) -> None:
        system.autostart.turn_on(COMMAND)
        system.switch_off()
        view = system.autostart.view()
        assert (view.state, bool(view.switched_off_by)) == (SWITCHED_OFF, True)
        with pytest.raises(SwitchedOffElsewhere) as caught:
            system.autostart.turn_on(COMMAND)
        assert view.switched_off_by in str(caught.value)
        assert system.autostart.view().state is SWITCHED_OFF

    def test_turning_off_what_is_switched_off_elsewhere_leaves_nothing_that_starts(
        self, system: System
    ) -> None:
        system.autostart.turn_on(COMMAND)
        system.switch_off()
        system.autostart.turn_off()
        assert system.autostart.view().state is not ON

    def test_a_program_that_is_gone_is_said(self, system: System, tmp_path: Path) -> None:
        program = tmp_path / "gone" / "tray-valet"
        system.autostart.turn_on(LaunchCommand(argv=(str(program),)))
        assert system.autostart.view().missing_program == str(program)


# -- Linux --------------------------------------------------------------------------------------------


def test_who_insists_turns_on_what_was_switched_off(tmp_path: Path) -> None:
    for made in (_xdg(tmp_path), _windows(tmp_path)):
        made.autostart.turn_on(COMMAND)
        made.switch_off()
        made.autostart.turn_on(COMMAND, is_forced=True)
        assert made.autostart.view().state is ON


@pytest.mark.parametrize(
    "line", ["Hidden=true", "X-GNOME-Autostart-enabled=false", "X-MATE-Autostart-enabled=false"]
)
def test_every_desktops_own_switch_counts(tmp_path: Path, line: str) -> None:
    autostart = XdgAutostart(tmp_path)
    autostart.turn_on(COMMAND)
    file = tmp_path / "tray-valet.desktop"
    key = line.partition("=")[0]
    kept = [each for each in file.read_text().splitlines() if not each.startswith(key)]
    file.write_text("\n".join([*kept, line, ""]))
    assert autostart.view().state is SWITCHED_OFF


def test_a_key_of_another_group_or_a_comment_switches_nothing_off(tmp_path: Path) -> None:
    autostart = XdgAutostart(tmp_path)
    autostart.turn_on(COMMAND)
    file = tmp_path / "tray-valet.desktop"
    file.write_text(file.read_text() + "#Hidden=true\nHidden=false\n[Desktop Action x]\nHidden=true\n")
    assert autostart.view().state is ON


def test_what_the_user_added_to_the_file_stays(tmp_path: Path) -> None:
    autostart = XdgAutostart(tmp_path)
    autostart.turn_on(COMMAND)
    file = tmp_path / "tray-valet.desktop"
    file.write_text(file.read_text() + "X-GNOME-Autostart-Delay=10\n")
    autostart.turn_on(COMMAND)
    assert "Delay=10" in file.read_text()


def test_a_system_wide_entry_counts_until_the_users_own_says_otherwise(tmp_path: Path) -> None:
    system_folder = tmp_path / "etc"
    XdgAutostart(system_folder).turn_on(COMMAND)
    autostart = XdgAutostart(tmp_path / "user", [tmp_path / "none", system_folder])
    assert autostart.view().state is ON
    autostart.turn_off()
    assert autostart.view().state is OFF
    assert "Hidden=true" in (tmp_path / "user" / "tray-valet.desktop").read_text()
    assert (system_folder / "tray-valet.desktop").exists()
    autostart.turn_on(COMMAND)  # what we hid ourselves we may show again
    assert autostart.view().state is ON


def test_the_users_file_is_looked_for_where_xdg_says(tmp_path: Path) -> None:
    environ = {"XDG_CONFIG_HOME": str(tmp_path / "c"), "XDG_CONFIG_DIRS": f"relative:{tmp_path}/d"}
    XdgAutostart.of_environment(environ).turn_on(COMMAND)
    assert (tmp_path / "c" / "autostart" / "tray-valet.desktop").exists()
    XdgAutostart(tmp_path / "d" / "autostart").turn_on(OTHER)
    environ["XDG_CONFIG_HOME"] = str(tmp_path / "empty")
    assert XdgAutostart.of_environment(environ).view().argv == OTHER.argv


AWKWARD = ("/opt/Tray Valet/tray-valet", 'quo"te', "back\\slash", "$HOME `x`", "100%", "%u", "ünï", "a\tb")


def test_every_argument_comes_back_from_the_exec_line() -> None:
    assert words_of(exec_line(AWKWARD)) == AWKWARD
    assert words_of("/usr/bin/tray-valet %u --x") == ("/usr/bin/tray-valet", "--x")


@pytest.mark.skipif(os.name != "posix", reason="needs a shell")
def test_a_shell_reads_the_same_arguments() -> None:
    """The specification's quoting is the shell's own; beneath it lie a value's escapes and `%%`."""
    value = exec_line(AWKWARD).replace("\\\\", "\0").replace("\\t", "\t").replace("\0", "\\")
    printed = subprocess.run(
        ["sh", "-c", f"printf '%s\\n' {value}"], capture_output=True, text=True, check=True
    ).stdout
    assert tuple(word.replace("%%", "%") for word in printed.splitlines()) == AWKWARD


def test_the_environment_goes_along(tmp_path: Path) -> None:
    autostart = XdgAutostart(tmp_path)
    autostart.turn_on(
        LaunchCommand(
            argv=("/bin/sh", "-c", 'echo "$TRAY_VALET_HOME"'), environment=(("TRAY_VALET_HOME", "/h o"),)
        )
    )
    view = autostart.view()
    assert view.missing_program == ""
    if os.name == "posix":
        assert subprocess.run(view.argv, capture_output=True, text=True, check=True).stdout == "/h o\n"


def test_a_file_that_is_no_desktop_entry_is_off(tmp_path: Path) -> None:
    (tmp_path / "tray-valet.desktop").write_bytes(b"\xff\x00 nonsense")
    assert XdgAutostart(tmp_path).view().state is OFF


def test_the_command_is_this_installation_and_its_settings(tmp_path: Path) -> None:
    command = launch_command(
        {"TRAY_VALET_HOME": str(tmp_path)}, config_path="some.yaml", is_root_allowed=True
    )
    assert os.path.isabs(command.argv[0])
    assert command.argv[-3:] == ("--config", os.path.abspath("some.yaml"), "--allow-root")
    assert command.environment == (("TRAY_VALET_HOME", str(tmp_path)),)
    said = subprocess.run(
        [*launch_command({}).argv, "--version"], capture_output=True, text=True, check=True, timeout=60
    )
    assert said.stdout.startswith("tray-valet ")


def test_this_systems_list_is_there() -> None:
    assert system_autostart({"XDG_CONFIG_HOME": "/nonexistent"}).view().state in AutostartState


# -- macOS --------------------------------------------------------------------------------------------


def test_the_launch_agent_says_what_launchd_needs(tmp_path: Path) -> None:
    command = LaunchCommand(argv=("/Applications/Tray Valet.app/x",), environment=(("A", "b"),))
    LaunchAgentAutostart(tmp_path, frozenset).turn_on(command)
    agent = plistlib.loads((tmp_path / f"{LABEL}.plist").read_bytes())
    assert agent == {
        "Label": LABEL,
        "ProgramArguments": ["/Applications/Tray Valet.app/x"],
        "RunAtLoad": True,
        "ProcessType": "Interactive",
        "LimitLoadToSessionType": "Aqua",
        "EnvironmentVariables": {"A": "b"},
    }


def test_launchds_list_of_what_is_disabled_is_read_in_both_spellings() -> None:
    lines = ['"a.b" => enabled', f'"{LABEL}" => disabled', '"c" => true', '"d" => false']
    text = "disabled services = {\n\t" + "\n\t".join(lines) + "\n}"
    assert disabled_labels(text) == {LABEL, "c"}


def test_a_property_list_that_is_broken_or_disabled_does_not_start(tmp_path: Path) -> None:
    autostart = LaunchAgentAutostart(tmp_path, frozenset)
    file = tmp_path / f"{LABEL}.plist"
    file.write_bytes(b"nonsense")
    assert autostart.view().state is OFF
    agent = {"Label": LABEL, "ProgramArguments": [sys.executable], "RunAtLoad": True, "Disabled": True}
    file.write_bytes(plistlib.dumps(agent))
    assert autostart.view().state is SWITCHED_OFF


# -- Windows ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("approval", "state"),
    [
        (None, ON),
        (bytes(12), ON),
        (bytes([2, *[0] * 11]), ON),
        (bytes([6, *[0] * 11]), ON),
        (bytes([3, 0, 0, 0, *range(8)]), SWITCHED_OFF),
        (bytes([7, *[0] * 11]), SWITCHED_OFF),
        (b"", ON),
        ("text", ON),
    ],
)
def test_the_first_byte_of_the_approval_decides(approval: str | bytes | None, state: AutostartState) -> None:
    registry = MemoryRegistry()
    autostart = RunKeyAutostart(registry)
    autostart.turn_on(COMMAND)
    if approval is not None:
        registry.values[APPROVED_KEY, VALUE_NAME] = approval
    assert autostart.view().state is state


def test_windows_remembers_the_switch_when_the_value_is_gone() -> None:
    registry = MemoryRegistry()
    registry.values[APPROVED_KEY, VALUE_NAME] = bytes([3, *[0] * 11])
    with pytest.raises(SwitchedOffElsewhere):
        RunKeyAutostart(registry).turn_on(COMMAND)
    assert (RUN_KEY, VALUE_NAME) not in registry.values


def test_the_program_is_quoted_and_the_line_not_too_long() -> None:
    registry = MemoryRegistry()
    RunKeyAutostart(registry).turn_on(LaunchCommand(argv=(r"C:\Py\pythonw.exe", "-m", "tray_valet")))
    assert registry.values[RUN_KEY, VALUE_NAME] == r'"C:\Py\pythonw.exe" -m tray_valet'
    with pytest.raises(NotSupported):
        RunKeyAutostart(registry).turn_on(LaunchCommand(argv=("C:\\" + "x" * 260,)))


def test_a_command_line_of_windows_is_split() -> None:
    line = r'"C:\Program Files\Tray Valet\tray-valet.exe" --config "C:\my settings.yaml"'
    assert split_command_line(line) == (
        r"C:\Program Files\Tray Valet\tray-valet.exe",
        "--config",
        r"C:\my settings.yaml",
    )
