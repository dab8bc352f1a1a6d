"""Starting at sign-in on Linux desktops: `autostart/tray-valet.desktop` in the user's config folder.

Decides: what that file says, and when a file like it counts as switched off. Must not: touch the
system-wide ones.

Sources: specifications.freedesktop.org, “Desktop Application Autostart” (the folders; `Hidden`; only the
most important file of a name counts) and “Desktop Entry” (quoting in `Exec`, escapes in values, `TryExec`);
systemd-xdg-autostart-generator(8) (`X-systemd-skip`); gnome-session and mate-session-manager write
`X-GNOME-Autostart-enabled=false` and `X-MATE-Autostart-enabled=false` when the user switches an entry off;
Xfce, KDE and LXQt write `Hidden=true`.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from itertools import dropwhile
from pathlib import Path

from tray_valet.core.autostart import AutostartState, AutostartView, LaunchCommand, SwitchedOffElsewhere

FILE_NAME = "tray-valet.desktop"
_OFF_BY_US = "X-Tray-Valet-Off"  # tells our own `Hidden` from the user's
_GROUP = "[Desktop Entry]"
_SWITCHES = {  # each key, and the value by which it switches an entry off
    "Hidden": "true",
    "X-GNOME-Autostart-enabled": "false",
    "X-MATE-Autostart-enabled": "false",
    "X-systemd-skip": "true",
}
_ESCAPES = {"s": " ", "n": "\n", "t": "\t", "r": "\r", "\\": "\\"}


class XdgAutostart:
    """The user's autostart folder, and the system-wide ones behind it."""

    def __init__(self, folder: Path, system_folders: Sequence[Path] = ()) -> None:
        self._file = folder / FILE_NAME
        self._system_files = tuple(other / FILE_NAME for other in system_folders)

    @classmethod
    def of_environment(cls, environ: Mapping[str, str]) -> XdgAutostart:
        """The folders that the XDG base directory specification names. Relative ones do not count."""
        home = environ.get("XDG_CONFIG_HOME", "")
        folder = Path(home) if os.path.isabs(home) else Path(os.path.expanduser("~/.config"))
        system = (environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(":")
        return cls(folder / "autostart", [Path(d) / "autostart" for d in system if os.path.isabs(d)])

    def view(self) -> AutostartView:
        """How it stands, by the most important file of our name."""
        for file in (self._file, *self._system_files):
            entry = _read(file)
            if entry is not None:
                return _view_of(file, entry)
        return AutostartView(state=AutostartState.OFF, place=str(self._file))

    def turn_on(self, command: LaunchCommand, *, is_forced: bool = False) -> None:
        """Write the user's file. Raises SwitchedOffElsewhere, OSError."""
        view = self.view()
        if view.state is AutostartState.SWITCHED_OFF and not is_forced:
            raise SwitchedOffElsewhere(view)
        argv = _whole(command)
        if view.state is AutostartState.ON and view.argv == argv and not view.missing_program:
            return  # as it is, with whatever the user has added to it
        self._write(
            f"{_GROUP}\nType=Application\nVersion=1.5\nName=Tray Valet\n"
            "Comment=Makes local language models step aside for games\n"
            f"Exec={exec_line(argv)}\nIcon=tray-valet\nTerminal=false\nStartupNotify=false\n"
            "X-GNOME-Autostart-enabled=true\n"
        )

    def turn_off(self) -> None:
        """Remove the user's file, or hide the system's one behind it."""
        view = self.view()
        if view.state is AutostartState.SWITCHED_OFF:
            return  # what the user has done says it already
        if any(_read(file) is not None for file in self._system_files):
            self._write(f"{_GROUP}\nType=Application\nName=Tray Valet\nHidden=true\n{_OFF_BY_US}=true\n")
            return
        self._file.unlink(missing_ok=True)

    def _write(self, text: str) -> None:
        self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = self._file.with_name(f".{FILE_NAME}.{os.getpid()}.tmp")
        try:
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(self._file)
        finally:
            temporary.unlink(missing_ok=True)


def exec_line(argv: Sequence[str]) -> str:
    """The value of `Exec` for these arguments: every one quoted, then escaped as values are."""
    quoted = ('"' + re.sub(r'(["`$\\])', r"\\\1", word).replace("%", "%%") + '"' for word in argv)
    value = " ".join(quoted).replace("\\", "\\\\")
    return value.replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r")


def words_of(value: str) -> tuple[str, ...]:
    """The arguments of an `Exec` value, without its field codes; () where it is not well formed."""
    text = re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[0]), value)
    words: list[str] = []
    for quoted, bare in re.findall(r'"((?:[^"\\]|\\.)*)"|([^\s"]+)', text):
        word = bare if bare else re.sub(r"\\(.)", r"\1", quoted)
        if not re.fullmatch(r"%[a-zA-Z]", word):
            words.append(word.replace("%%", "%"))
    return tuple(words)


def _whole(command: LaunchCommand) -> tuple[str, ...]:
    """`Exec` has no environment of its own, so env(1) sets it."""
    if not command.environment:
        return command.argv
    env = shutil.which("env") or "/usr/bin/env"
    return (env, *(f"{name}={value}" for name, value in command.environment), *command.argv)


def _read(file: Path) -> dict[str, str] | None:
    """The keys of the first group; None where there is no such file."""
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    keys: dict[str, str] = {}
    is_in_group = False
    for line in lines:
        if line.startswith("["):
            is_in_group = line.strip() == _GROUP
        elif is_in_group and "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            keys.setdefault(key.strip(), value.strip())
    return keys


def _view_of(file: Path, entry: Mapping[str, str]) -> AutostartView:
    argv = words_of(entry.get("Exec", ""))
    switches = [key for key, off in _SWITCHES.items() if entry.get(key, "").lower() == off]
    if entry.get(_OFF_BY_US) == "true" and switches:
        state, by = AutostartState.OFF, ""
    elif switches:
        state, by = AutostartState.SWITCHED_OFF, f"{switches[0]}={_SWITCHES[switches[0]]} in {file}"
    else:
        state, by = (AutostartState.ON if argv else AutostartState.OFF), ""
    missing = _missing(entry.get("TryExec", ""), argv) if state is AutostartState.ON else ""
    return AutostartView(state=state, place=str(file), argv=argv, switched_off_by=by, missing_program=missing)


def _missing(try_exec: str, argv: Sequence[str]) -> str:
    words = list(argv)
    if words and Path(words[0]).name == "env":  # as `_whole` writes it
        words = list(dropwhile(lambda word: "=" in word, words[1:]))
    return next((p for p in (try_exec, *words[:1]) if p and shutil.which(p) is None), "")
