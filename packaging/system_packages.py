"""What a command of dev.py needs of the operating system, and how it gets there.

Decides: which system packages are missing, and whether they can be installed here (Debian-like, as root).
Must not: install anything without saying which package and why, or need more than the standard library.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

PROBE_TIMEOUT_S = 30


class SetupError(Exception):
    """The set-up cannot go on; the text says why and what the user can do."""


class SystemNeed(NamedTuple):
    """One thing that Debian's `package` brings, and the reason for it."""

    package: str
    why: str
    program: str = ""
    """Looked for on PATH."""
    library: str = ""
    """A shared library's file name, as the dynamic loader knows it."""
    path: str = ""
    """A file that the package brings: a pattern below the root folder."""

    def is_met(self) -> bool:
        """Whether this machine has it already; never so for a need that names nothing to look for."""
        if self.path:
            return any(Path("/").glob(self.path))
        if self.library:
            try:
                ctypes.CDLL(self.library)
            except OSError:
                return False
            return True
        return bool(self.program) and shutil.which(self.program) is not None


# xllamacpp's Linux wheels link against libgomp.so.1 and do not bring it along.
ENGINE = SystemNeed(
    "libgomp1", "the embedded engine computes on several cores with it", library="libgomp.so.1"
)

# A new need of a command is one more line here.
SYSTEM_NEEDS: dict[str, tuple[SystemNeed, ...]] = {
    "setup": (ENGINE,),
    "demo": (ENGINE,),
    "run": (ENGINE,),
    "test": (
        ENGINE,
        SystemNeed("dbus-daemon", "notifications are tested over a real session bus", program="dbus-daemon"),
        SystemNeed("xvfb", "what is on the screen is tested on a screen of its own", program="Xvfb"),
        SystemNeed("xdotool", "a real mouse clicks there", program="xdotool"),
        SystemNeed("xfce4-panel", "the tray is shown by a real panel", program="xfce4-panel"),
        SystemNeed("openbox", "a real window manager gives the focus", program="openbox"),
        SystemNeed("chromium", "the page is tested in a real browser", program="chromium"),
        SystemNeed(
            "python3-gi",
            "the window runs under the system's Python with GTK",
            path="usr/lib/python3/dist-packages/gi/__init__.py",
        ),
        SystemNeed(
            "gir1.2-webkit2-4.1",
            "the window shows the page with the system's WebKit",
            path="usr/lib/*/girepository-1.0/WebKit2-4.1.typelib",
        ),
        SystemNeed("dunst", "notifications are shown by a real service", program="dunst"),
    ),
}


def install_missing(needs: Iterable[SystemNeed], purpose: str) -> None:
    """Install what a Linux machine lacks of `needs`, saying which and why; other systems need none of it.

    Raises SetupError with the command for the user to run where this process may not install.
    """
    missing = [need for need in needs if not need.is_met()] if sys.platform.startswith("linux") else []
    if not missing:
        return
    for need in missing:
        say(f"{purpose} needs the system package {need.package}: {need.why}")
    names = [need.package for need in missing]
    as_root = root_prefix()
    if shutil.which("apt-get") is None or as_root is None:
        raise SetupError(by_hand_text(names, has_apt=shutil.which("apt-get") is not None))
    say(f"installing {' '.join(names)}")
    apt = [*as_root, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "-o", "Dpkg::Use-Pty=0"]
    must([*apt, "update"], is_quiet=True)
    must([*apt, "install", "--yes", "--no-install-recommends", *names], is_quiet=True)


def root_prefix() -> list[str] | None:
    """What to put before a command to run it as root: nothing, sudo, or None where root is out of reach."""
    if sys.platform == "win32":
        return None
    if os.geteuid() == 0:
        return []
    sudo = shutil.which("sudo")
    return [sudo, "-n"] if sudo and succeeds([sudo, "-n", "true"]) else None


def by_hand_text(packages: list[str], *, has_apt: bool) -> str:
    """The sentence for a user who has to install `packages` by hand."""
    names = " ".join(packages)
    if has_apt:
        return (
            "installing needs root, and there is no passwordless sudo. Run\n"
            f"    sudo apt-get update && sudo apt-get install --no-install-recommends {names}\n"
            "and then the same command again."
        )
    return (
        f"install what Debian calls {names} with this system's package tool, then run the same command again."
    )


# -- processes ---------------------------------------------------------------------------------------


def say(text: str) -> None:
    """Tell the user, on stderr and at once: the stdout of `demo --json` and `run` is the valet's alone."""
    print(f"dev.py: {text}", file=sys.stderr, flush=True)


def must(command: list[str], cwd: Path | None = None, *, is_quiet: bool = False) -> None:
    """Run a command, its output (or with `is_quiet` only its errors) to stderr; SetupError if it fails."""
    stdout = subprocess.DEVNULL if is_quiet else sys.stderr
    code = subprocess.run(command, check=False, cwd=cwd, stdout=stdout).returncode
    if code != 0:
        raise SetupError(f"`{' '.join(command)}` failed with exit code {code}")


def succeeds(command: list[str]) -> bool:
    """Whether a quick, silent question to another program ends with exit code 0."""
    try:
        run = subprocess.run(command, check=False, capture_output=True, timeout=PROBE_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return run.returncode == 0
