"""The doctor's looks at the machine and the desktop.

Decides: how each is looked at. Must not: judge (`core/checkup_machine.py` does), change anything, or wake a
GPU that sleeps.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from tray_valet.commands.doctor_bus import look_at_bus
from tray_valet.commands.doctor_ground import Ground
from tray_valet.commands.doctor_looks_ollama import ollama_port
from tray_valet.commands.doctor_looks_providers import gpu_figures
from tray_valet.core import checkup_machine as rules
from tray_valet.core.checkup import Finding
from tray_valet.core.checkup_machine import GpuSeen, NoticesSeen, PanelSeen
from tray_valet.core.config_providers import LlamaServerSettings
from tray_valet.core.errors import NotSupported
from tray_valet.core.processes import System

_NVIDIA, _DISPLAY_CLASS = "0x10de", "0x03"
_TOOLKITS = ("gi", "PySide6", "PyQt6", "PyQt5", "PySide2")
_SYSTEM_OLLAMA = ("/usr/share/ollama/.ollama/models",)  # scripts/install.sh of Ollama


def gpu(ground: Ground) -> Finding:
    """Whether GPUs can be measured."""
    cards, missing = gpu_figures(ground)
    return rules.of_gpu(
        GpuSeen(
            names=tuple(name for name, _ in cards),
            vram_bytes=sum(vram_bytes for _, vram_bytes in cards),
            missing_because=missing,
            has_card=_has_nvidia_card(ground.sys / "bus" / "pci" / "devices"),
        )
    )


def _has_nvidia_card(devices: Path) -> bool:
    """Whether one is on the PCI bus (Linux), driver or not; reading that wakes nothing."""
    try:
        return any(
            _line(device / "vendor") == _NVIDIA and _line(device / "class").startswith(_DISPLAY_CLASS)
            for device in devices.iterdir()
        )
    except OSError:
        return False


def _line(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""


def disk(ground: Ground) -> Finding:
    """The room on the volumes with models and with what the valet notes down."""
    from tray_valet.providers.llama_server_files import ModelFiles
    from tray_valet.sensing.host import PsutilHost

    places: dict[str, str] = {"the valet's own files": str(ground.directories.state_dir)}
    files = ModelFiles(ground.settings_file.parent)
    for name, wish in ground.of_kind(LlamaServerSettings).items():
        for alias in wish.models:
            places[f"the models of {name}"] = str(files.path_of(wish, alias).parent)
    if ollama_port(ground) is not None:
        told = ground.environ.get("OLLAMA_MODELS", "")
        for folder in (told, str(ground.home / ".ollama" / "models"), *_SYSTEM_OLLAMA):
            if folder and os.path.isdir(folder):
                places["Ollama's models"] = folder
                break
    host = PsutilHost(time.monotonic)
    volumes = ((what, host.disk(folder)) for what, folder in places.items())
    return rules.of_disk(tuple((what, sample) for what, sample in volumes if sample is not None))


# -- games -------------------------------------------------------------------------------------------


def process_watch(ground: Ground) -> Finding:
    """How program starts are seen: the valet's word, else tried here."""
    if ground.valet is not None and (source := ground.valet.of("/explain").get("process_source")):
        is_polling = ground.system is System.LINUX and "connector" not in source
        return rules.of_watch(str(source), "the valet was not given CAP_NET_ADMIN" if is_polling else "")
    if ground.system is not System.LINUX:
        return rules.of_watch("looking a few times a second, as this system allows")
    why = asyncio.run(_why_no_connector())
    return rules.of_watch("poll" if why else "proc connector", why)


async def _why_no_connector() -> str:
    """Try it for a moment; "" = it works."""
    from tray_valet.sensing.proc_connector import ProcConnector

    class Nobody:
        """Wants no news."""

        def heard(self, pids: Iterable[int]) -> None:
            pass

        def suspected(self, pids: Iterable[int]) -> None:
            pass

        def missed_some(self) -> None:
            pass

        def lost(self, reason: str) -> None:
            pass

    connector = ProcConnector()
    try:
        async with asyncio.timeout(3.0):
            await connector.open(Nobody())
    except (NotSupported, TimeoutError) as error:
        return str(error) or "it did not answer"
    finally:
        connector.close()
    return ""


def libraries(ground: Ground) -> Finding:
    """The stores' libraries as the valet would read them."""
    from tray_valet.adapters.machine import LibraryScanners

    games = ground.settings.games
    if not games.enabled:
        return rules.of_libraries(is_enabled=False, programs=0, problems=())
    scan = LibraryScanners(ground.system, lambda: games).current().scan()
    problems = tuple(f"{problem.path}: {problem.reason}" for problem in scan.problems)
    return rules.of_libraries(is_enabled=True, programs=len(scan.programs), problems=problems)


def pressure_notices(ground: Ground) -> Finding:
    """Whether the kernel tells of memory pressure. Facts: Documentation/accounting/psi.rst."""
    if ground.system is not System.LINUX:
        return rules.of_pressure_notices(None)
    try:
        (ground.proc / "pressure" / "memory").read_text()
    except FileNotFoundError:
        return rules.of_pressure_notices("this kernel has no PSI")
    except OSError as error:
        return rules.of_pressure_notices(f"PSI is switched off: {error.strerror}")
    return rules.of_pressure_notices(None)


# -- the desktop -------------------------------------------------------------------------------------


def tray(ground: Ground) -> Finding:
    """Whether somebody shows tray icons."""
    from tray_valet.desktop.display import is_display_there

    if importlib.util.find_spec("pystray") is None:
        return rules.of_tray(PanelSeen.NO_BACKEND)
    if ground.system is not System.LINUX:
        return rules.of_tray(PanelSeen.SHOWN)
    if not is_display_there(ground.environ):
        return rules.of_tray(PanelSeen.NO_DISPLAY)
    from tray_valet.tray.no_tray import no_panel

    seen = look_at_bus(ground.environ)
    session = "Wayland" if ground.environ.get("WAYLAND_DISPLAY") else "X11"
    if seen.problem:
        return rules.of_tray(PanelSeen.NO_BUS)
    if not seen.has_panel:
        return rules.of_tray(PanelSeen.NO_PANEL, remedy=no_panel(ground.environ).remedy)
    return rules.of_tray(PanelSeen.SHOWN, session=session)


def notifications(ground: Ground) -> Finding:
    """Whether notifications would be shown. None is shown for it."""
    from tray_valet.desktop.display import is_display_there

    if not ground.settings.desktop.notifications:
        return rules.of_notices(NoticesSeen.OFF)
    if ground.system is not System.LINUX:
        return rules.of_notices(NoticesSeen.NOT_TOLD)
    seen = look_at_bus(ground.environ)
    if seen.problem:
        return rules.of_notices(NoticesSeen.NO_BUS, has_display=is_display_there(ground.environ))
    if not seen.has_notifications:
        return rules.of_notices(NoticesSeen.NO_SERVICE, has_display=is_display_there(ground.environ))
    return rules.of_notices(NoticesSeen.SHOWN)


def autostart(ground: Ground) -> Finding:
    """The system's own list of what starts at sign-in."""
    from tray_valet.desktop.autostart import system_autostart

    view = system_autostart(ground.environ).view()
    return rules.of_autostart(view, is_wanted=ground.settings.desktop.autostart)


def window(ground: Ground) -> Finding:
    """What would show the window. Nothing is opened for it."""
    from tray_valet.desktop.display import is_display_there
    from tray_valet.desktop.window_ways import find_app_browsers

    is_frozen = bool(getattr(sys, "frozen", False))
    has_toolkit = (
        ground.system is not System.LINUX
        or is_frozen
        or any(importlib.util.find_spec(name) is not None for name in _TOOLKITS)
    )
    browsers = find_app_browsers(ground.environ)
    return rules.of_window(
        has_display=is_display_there(ground.environ),
        has_webview=importlib.util.find_spec("webview") is not None,
        has_toolkit=has_toolkit,
        browser=os.path.basename(browsers[0]) if browsers else "",
    )
