"""The check-up of the machine and the desktop: GPU, disk, games, how processes are seen, tray, notices.

Decides: what the observations mean and what helps. Must not: look at anything.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from tray_valet.core.autostart import AutostartState, AutostartView
from tray_valet.core.checkup import Finding, Topic
from tray_valet.core.metrics import DiskSample
from tray_valet.core.wording import size

GPU = Topic("gpu", "GPU")
DISK = Topic("disk", "Disk")
WATCH = Topic("process_watch", "Seeing games start")
LIBRARIES = Topic("libraries", "Game libraries")
PRESSURE = Topic("pressure_notices", "Memory pressure")
TRAY = Topic("tray", "Tray icon")
NOTICES = Topic("notifications", "Notifications")
AUTOSTART = Topic("autostart", "Start at sign-in")
WINDOW = Topic("window", "Window")

_GB = 2**30
_FULL_BYTES, _NEARLY_FULL_BYTES = 1 * _GB, 10 * _GB
_NEARLY_FULL_PCT = 90.0


class GpuSeen(msgspec.Struct, frozen=True, kw_only=True):
    """What the driver tells. `missing_because` as the sensor has it; `has_card`: one is on the bus."""

    names: tuple[str, ...] = ()
    vram_bytes: int = 0
    missing_because: str | None = None
    has_card: bool = False


def of_gpu(seen: GpuSeen) -> Finding:
    """Whether GPUs can be measured."""
    why = seen.missing_because or "no NVIDIA GPU"
    if seen.names:
        return GPU.ok(f"{', '.join(seen.names)} with {size(seen.vram_bytes)}.")
    if "asleep" in why:
        return GPU.ok("The NVIDIA GPU is asleep and was left so.")
    if "mismatch" in why.lower():
        return GPU.bad(
            f"The NVIDIA driver was updated and does not fit the one that is loaded: {why}.",
            "Restart the computer.",
        )
    if "library for Python" in why:
        return GPU.bad(f"GPUs cannot be measured: {why}.", "Install Tray Valet again.")
    if "does not answer" in why:
        return GPU.bad(f"GPUs cannot be measured: {why}.", "Restart the computer, or reinstall its driver.")
    if seen.has_card:
        return GPU.bad(
            "There is an NVIDIA GPU, but no driver that works, so models run on the CPU.",
            "Install NVIDIA's driver (nvidia-smi must work) and restart the computer.",
        )
    return GPU.info(f"No NVIDIA GPU is seen ({why}); VRAM pressure is not watched.")


def of_disk(volumes: tuple[tuple[str, DiskSample], ...]) -> Finding:
    """`volumes`: what lies there, and the volume."""
    fullest = sorted(volumes, key=lambda each: each[1].free_bytes)
    for what, disk in fullest:
        free = f"{size(disk.free_bytes)} free"
        if disk.free_bytes < _FULL_BYTES:
            return DISK.bad(
                f"The disk with {what} ({disk.path}) is full: {free}.",
                "Remove models that are not needed (tray-valet rm MODEL), or other files.",
            )
        if disk.free_bytes < _NEARLY_FULL_BYTES and disk.used_pct >= _NEARLY_FULL_PCT:
            return DISK.warn(
                f"The disk with {what} ({disk.path}) is nearly full: {free}.",
                "Remove models that are not needed (tray-valet rm MODEL), or other files.",
            )
    if not fullest:
        return DISK.unknown("The disk with the models could not be measured.")
    what, disk = fullest[0]
    return DISK.ok(f"{size(disk.free_bytes)} free for {what}.")


def of_watch(source: str, why_not_better: str = "") -> Finding:
    """`source`: how program starts are seen; `why_not_better`: why not by the kernel's word (Linux)."""
    if not why_not_better:
        return WATCH.ok(f"Program starts are seen by {source}.")
    return WATCH.info(
        f"Program starts are seen by looking a few times a second, which costs a little CPU and up to a "
        f"second ({why_not_better}).",
        "It works as it is; with the right CAP_NET_ADMIN the kernel tells at once.",
    )


def of_libraries(*, is_enabled: bool, programs: int, problems: tuple[str, ...]) -> Finding:
    """`problems`: sentences with the place, of libraries that could not be read."""
    if not is_enabled:
        return LIBRARIES.info("Games are not watched (games.enabled is false).", "Set games.enabled to true.")
    if problems:
        more = f" And {len(problems) - 1} more." if len(problems) > 1 else ""
        return LIBRARIES.warn(
            f"{problems[0]}{more}", "Mount its drive or repair it; else name its folder in games.libraries."
        )
    if not programs:
        return LIBRARIES.info(
            "No game library was found; games are recognised by other signs.",
            "Name yours in games.libraries, if there is one.",
        )
    return LIBRARIES.ok(f"{programs} installed programs are known.")


def of_pressure_notices(missing_because: str | None) -> Finding:
    """Whether the system tells of memory pressure (PSI on Linux)."""
    if missing_because is None:
        return PRESSURE.ok("The system tells when memory runs short.")
    return PRESSURE.info(
        f"The system does not tell when memory runs short ({missing_because}); the valet looks now and then.",
        "On Linux, start the kernel with psi=1.",
    )


class PanelSeen(StrEnum):
    """Who would show a tray icon."""

    SHOWN = "shown"
    NO_DISPLAY = "no_display"
    NO_BUS = "no_bus"
    NO_PANEL = "no_panel"
    NO_BACKEND = "no_backend"


def of_tray(seen: PanelSeen, *, session: str = "", remedy: str = "") -> Finding:
    """`session`: X11 or Wayland, "" elsewhere; `remedy`: this desktop's own."""
    if seen is PanelSeen.SHOWN:
        return TRAY.ok(f"The panel shows tray icons{f' ({session})' if session else ''}.")
    if seen is PanelSeen.NO_DISPLAY:
        return TRAY.info("There is no screen here, so there is no tray icon; the services run without one.")
    if seen is PanelSeen.NO_BACKEND:
        return TRAY.warn("The tray's library is not installed.", remedy or "Install Tray Valet again.")
    if seen is PanelSeen.NO_BUS:
        return TRAY.warn(
            "There is a screen, but no D-Bus session bus answers, so there is no tray icon.",
            remedy or "Start Tray Valet inside a desktop session, or use: tray-valet serve",
        )
    return TRAY.warn("Nobody on this desktop shows tray icons.", remedy)


class NoticesSeen(StrEnum):
    """Who would show notifications."""

    OFF = "off"
    SHOWN = "shown"
    NO_BUS = "no_bus"
    NO_SERVICE = "no_service"
    NOT_TOLD = "not_told"  # the system does not say before one is shown


def of_notices(seen: NoticesSeen, *, has_display: bool = True) -> Finding:
    """Whether notifications would be seen."""
    if seen is NoticesSeen.OFF:
        return NOTICES.info("They are switched off (desktop.notifications is false).")
    if seen is NoticesSeen.SHOWN:
        return NOTICES.ok("The desktop shows them.")
    if seen is NoticesSeen.NOT_TOLD:
        return NOTICES.unknown(
            "The system does not say whether it shows them.",
            "If you see none, allow them for Tray Valet in the system's settings.",
        )
    if not has_display:
        return NOTICES.info("There is no screen here, so there are no notifications.")
    if seen is NoticesSeen.NO_BUS:
        return NOTICES.warn(
            "No D-Bus session bus answers, so no notification is shown.",
            "Start Tray Valet inside a desktop session.",
        )
    return NOTICES.warn(
        "No program on this desktop shows notifications.",
        "Install a notification service, such as dunst or mako.",
    )


def of_autostart(view: AutostartView, *, is_wanted: bool) -> Finding:
    """The system's own list against the wish."""
    if view.state is AutostartState.SWITCHED_OFF:
        return (AUTOSTART.warn if is_wanted else AUTOSTART.info)(
            f"Starting at sign-in was switched off elsewhere ({view.switched_off_by or view.place}).",
            "Switch it on there, or insist with: tray-valet autostart on --force",
        )
    if view.state is AutostartState.ON:
        if view.missing_program:
            return AUTOSTART.bad(
                f"Tray Valet is to start at sign-in, but {view.missing_program} is no longer there.",
                "Enter it anew: tray-valet autostart on",
            )
        return AUTOSTART.ok("Tray Valet starts when you sign in.")
    if is_wanted:
        return AUTOSTART.warn(
            "desktop.autostart is true, but the system's list has no entry.",
            "Enter it: tray-valet autostart on",
        )
    return AUTOSTART.info("Tray Valet does not start by itself.", "Have it started: tray-valet autostart on")


def of_window(*, has_display: bool, has_webview: bool, has_toolkit: bool, browser: str) -> Finding:
    """What would show the window: pywebview, else a browser."""
    if not has_display:
        return WINDOW.info("There is no screen here; the window's page is at the control API's /ui/.")
    if has_webview and has_toolkit:
        return WINDOW.ok("It has a window of its own.")
    what = "pywebview is not installed" if not has_webview else "WebKit (or Qt) for Python is missing"
    remedy = (
        "Install it: pip install pywebview"
        if not has_webview
        else "Install python3-gi and gir1.2-webkit2-4.1."
    )
    if browser:
        return WINDOW.info(f"{what}, so the window opens in {browser}.", remedy)
    return WINDOW.warn(f"{what} and no browser was found that could show the window.", remedy)
