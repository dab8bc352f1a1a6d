"""The doctor's looks at machine and desktop: each trouble made real, and the healthy case beside it."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.commands.doctor_ground import NO_PROVIDERS, ground_of
from tests.tray.session_bus import Panel
from tray_valet.commands import doctor_looks_machine as looks
from tray_valet.commands.client import ControlPlace, RuntimeFile
from tray_valet.commands.doctor_ground import Ground, ValetAnswers
from tray_valet.core import checkup_machine as rules
from tray_valet.core.checkup import FindingStatus
from tray_valet.core.checkup_machine import GpuSeen
from tray_valet.core.metrics import DiskSample

OK, INFO, WARN, BAD, UNKNOWN = (
    FindingStatus.OK,
    FindingStatus.INFO,
    FindingStatus.WARN,
    FindingStatus.BAD,
    FindingStatus.UNKNOWN,
)
GB = 2**30
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="made real with Linux's own files")


def asked(ground: Ground, **by_path: Any) -> Ground:
    """The same with a running valet that tells this."""
    runtime = RuntimeFile(pid=1, start_time=1, control=ControlPlace(url="http://127.0.0.1:1"))
    answers = {f"/{path}": answer for path, answer in by_path.items()}
    return msgspec.structs.replace(ground, valet=ValetAnswers(runtime=runtime, answers=answers))


# -- GPU and disk ------------------------------------------------------------------------------------


def card(tmp_path: Path, *, vendor: str = "0x10de", power: str = "active") -> Path:
    device = tmp_path / "sys" / "bus" / "pci" / "devices" / "0000:01:00.0"
    (device / "power").mkdir(parents=True)
    (device / "vendor").write_text(f"{vendor}\n")
    (device / "class").write_text("0x030000\n")
    (device / "power" / "runtime_status").write_text(f"{power}\n")
    return tmp_path / "sys"


def test_a_gpu_that_sleeps_is_left_asleep(tmp_path: Path) -> None:
    sys_folder = card(tmp_path, power="suspended")
    found = looks.gpu(ground_of(tmp_path / "home", NO_PROVIDERS, sys=sys_folder))
    assert (found.status, "asleep" in found.says) == (OK, True)


@pytest.mark.skipif(os.path.exists("/dev/nvidiactl"), reason="there is a driver here")
def test_a_gpu_without_a_driver_and_no_gpu_at_all(tmp_path: Path) -> None:
    sys_folder = card(tmp_path)
    found = looks.gpu(ground_of(tmp_path / "home", NO_PROVIDERS, sys=sys_folder))
    assert (found.status, "Install NVIDIA's driver" in found.remedy) == (BAD, True)
    (sys_folder / "bus" / "pci" / "devices" / "0000:01:00.0" / "vendor").write_text("0x1002\n")
    assert looks.gpu(ground_of(tmp_path / "home", NO_PROVIDERS, sys=sys_folder)).status is INFO


def test_a_gpu_is_told_as_the_valet_has_it(tmp_path: Path) -> None:
    ground = ground_of(tmp_path, NO_PROVIDERS)
    gpu = {"gpus": [{"name": "GeForce", "vram_total_mb": 8192}], "missing_because": None}
    found = looks.gpu(asked(ground, status={"metrics": {"gpu": gpu}}))
    assert (found.status, "GeForce" in found.says) == (OK, True)
    mismatch = "the NVIDIA driver does not answer: Driver/library version mismatch"
    gpu = {"gpus": [], "missing_because": mismatch}
    found = looks.gpu(asked(ground, status={"metrics": {"gpu": gpu}}))
    assert (found.status, found.remedy) == (BAD, "Restart the computer.")


@pytest.mark.parametrize(
    ("why", "status"),
    [
        ("the NVIDIA driver does not answer: Unknown Error", BAD),
        ("the NVIDIA library for Python cannot be loaded: no", BAD),
        ("no NVIDIA driver", INFO),
    ],
)
def test_why_a_gpu_is_not_measured(why: str, status: FindingStatus) -> None:
    assert rules.of_gpu(GpuSeen(missing_because=why)).status is status


@pytest.mark.parametrize(
    ("free_gb", "total_gb", "status"), [(0.5, 500, BAD), (5, 500, WARN), (5, 20, OK), (100, 500, OK)]
)
def test_a_disk_that_fills_up(free_gb: float, total_gb: int, status: FindingStatus) -> None:
    total, free = total_gb * GB, int(free_gb * GB)
    disk = DiskSample(path="/models", total_bytes=total, used_bytes=total - free, free_bytes=free)
    assert rules.of_disk((("the models", disk),)).status is status


def test_the_disk_is_that_of_the_models_also_before_their_folder_is_made(tmp_path: Path) -> None:
    models = {"qwen": {"model_path": "/dev/shm/none/qwen.gguf"}}
    settings = {"providers": {"local": {"kind": "llama-server", "models": models}}}
    found = looks.disk(ground_of(tmp_path, settings))
    assert found.status in (OK, WARN, BAD)
    free_bytes = {place: shutil.disk_usage(place).free for place in ("/dev/shm", str(tmp_path))}
    smaller = min(free_bytes, key=lambda place: free_bytes[place])
    assert ("the models of local" in found.says) == (smaller == "/dev/shm")


# -- games -------------------------------------------------------------------------------------------


def test_how_starts_are_seen_without_a_valet_is_really_tried(tmp_path: Path) -> None:
    found = looks.process_watch(ground_of(tmp_path, NO_PROVIDERS))
    assert found.status in (OK, INFO)
    assert ("proc connector" in found.says) == (found.status is OK)


def test_a_valet_that_only_polls_says_what_that_costs(tmp_path: Path) -> None:
    ground = ground_of(tmp_path, NO_PROVIDERS)
    found = looks.process_watch(asked(ground, explain={"process_source": "poll 4 Hz"}))
    assert (found.status, "a second" in found.says, "CAP_NET_ADMIN" in found.remedy) == (INFO, True, True)
    assert looks.process_watch(asked(ground, explain={"process_source": "proc connector"})).status is OK


def steam(folder: Path) -> Path:
    apps = folder / "steamapps"
    apps.mkdir(parents=True)
    manifest = '"AppState"\n{\n"appid" "1145360"\n"name" "Hades"\n"installdir" "Hades"\n}\n'
    (apps / "appmanifest_1145360.acf").write_text(manifest)
    return apps


def test_libraries_that_are_there_missing_and_broken(tmp_path: Path) -> None:
    def look(folder: Path) -> Any:
        games = {"libraries": [{"store": "steam", "path": str(folder)}]}
        return looks.libraries(ground_of(tmp_path / "home", {"games": games, "providers": {}}))

    apps = steam(tmp_path / "Steam")
    assert look(tmp_path / "Steam").status is OK
    missing = look(tmp_path / "unplugged")
    assert (missing.status, str(tmp_path / "unplugged") in missing.says) == (WARN, True)
    (apps / "appmanifest_1145360.acf").write_text('"AppState"\n{')
    assert look(tmp_path / "Steam").status is WARN


def test_games_that_are_not_watched(tmp_path: Path) -> None:
    ground = ground_of(tmp_path, {"games": {"enabled": False}, "providers": {}})
    assert (looks.libraries(ground).status, "games.enabled" in looks.libraries(ground).remedy) == (INFO, True)


def test_a_kernel_without_psi(tmp_path: Path) -> None:
    proc = tmp_path / "proc"
    (proc / "pressure").mkdir(parents=True)
    ground = ground_of(tmp_path / "home", NO_PROVIDERS, proc=proc)
    found = looks.pressure_notices(ground)
    assert (found.status, "psi=1" in found.remedy) == (INFO, True)
    (proc / "pressure" / "memory").write_text("some avg10=0.00\n")
    assert looks.pressure_notices(ground).status is OK


# -- the desktop -------------------------------------------------------------------------------------


@pytest.fixture
def display(tmp_path: Path) -> Iterator[dict[str, str]]:
    """An environment with a screen: a socket where a compositor would listen."""
    path = str(tmp_path / "wayland-0")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        yield {"WAYLAND_DISPLAY": path}


_BUS_SETTINGS = """<busconfig>
  <type>session</type>
  <listen>{address}</listen>
  <policy context="default">
    <allow send_destination="*"/><allow eavesdrop="true"/><allow own="*"/>
  </policy>
</busconfig>
"""


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[str]:
    """A real session bus that can start no service, whatever is installed here."""
    if shutil.which("dbus-daemon") is None:
        pytest.skip("no dbus-daemon")
    address = f"unix:path={tmp_path / 'bus'}"
    settings = tmp_path / "bus.conf"
    settings.write_text(_BUS_SETTINGS.format(address=address))
    argv = ["dbus-daemon", f"--config-file={settings}", "--nofork", "--print-address"]
    daemon = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    assert daemon.stdout is not None
    try:
        yield daemon.stdout.readline().strip()
    finally:
        daemon.terminate()
        daemon.wait(timeout=60)
        daemon.stdout.close()


def test_without_a_screen_there_is_no_tray_and_that_is_no_trouble(tmp_path: Path) -> None:
    ground = ground_of(tmp_path, NO_PROVIDERS)
    assert looks.tray(ground).status is INFO
    assert looks.notifications(ground).status is INFO
    assert looks.window(ground).status is INFO


def test_a_screen_without_a_bus(tmp_path: Path, display: dict[str, str]) -> None:
    environ = {**display, "DBUS_SESSION_BUS_ADDRESS": f"unix:path={tmp_path}/nobody"}
    ground = ground_of(tmp_path / "home", NO_PROVIDERS, environ=environ)
    assert looks.tray(ground).status is WARN
    assert looks.notifications(ground).status is WARN


def test_a_desktop_without_a_tray_gets_its_own_remedy(
    tmp_path: Path, display: dict[str, str], bus: str
) -> None:
    environ = {**display, "DBUS_SESSION_BUS_ADDRESS": bus, "XDG_CURRENT_DESKTOP": "ubuntu:GNOME"}
    ground = ground_of(tmp_path / "home", NO_PROVIDERS, environ=environ)
    found = looks.tray(ground)
    assert (found.status, "GNOME extension" in found.remedy) == (WARN, True)
    notices = looks.notifications(ground)
    assert (notices.status, "notification service" in notices.remedy) == (WARN, True)


async def test_a_panel_that_shows_icons(tmp_path: Path, display: dict[str, str], bus: str) -> None:
    ground = ground_of(tmp_path / "home", NO_PROVIDERS, environ={**display, "DBUS_SESSION_BUS_ADDRESS": bus})
    panel = await Panel.start(bus)
    found = await asyncio.to_thread(looks.tray, ground)
    assert (found.status, "Wayland" in found.says) == (OK, True)
    assert panel.items == []  # nothing was registered for the look
    await panel.stop()


async def test_a_watcher_without_a_panel_shows_nothing(
    tmp_path: Path, display: dict[str, str], bus: str
) -> None:
    ground = ground_of(tmp_path / "home", NO_PROVIDERS, environ={**display, "DBUS_SESSION_BUS_ADDRESS": bus})
    panel = await Panel.start(bus, has_host=False)
    assert (await asyncio.to_thread(looks.tray, ground)).status is WARN
    await panel.stop()


async def test_a_desktop_that_shows_notifications(tmp_path: Path, bus: str) -> None:
    from dbus_fast.aio import MessageBus

    ground = ground_of(tmp_path / "home", NO_PROVIDERS, environ={"DBUS_SESSION_BUS_ADDRESS": bus})
    service = await MessageBus(bus_address=bus).connect()
    await service.request_name("org.freedesktop.Notifications")
    assert (await asyncio.to_thread(looks.notifications, ground)).status is OK
    service.disconnect()


def test_notifications_that_are_switched_off(tmp_path: Path) -> None:
    ground = ground_of(tmp_path, {"desktop": {"notifications": False}, "providers": {}})
    assert (looks.notifications(ground).status, "false" in looks.notifications(ground).says) == (INFO, True)


def test_autostart_in_every_state(tmp_path: Path) -> None:
    entry = tmp_path / "config" / "autostart" / "tray-valet.desktop"
    environ = {"XDG_CONFIG_HOME": str(tmp_path / "config"), "XDG_CONFIG_DIRS": str(tmp_path / "none")}

    def look(text: str | None, *, is_wanted: bool) -> Any:
        entry.unlink(missing_ok=True)
        if text is not None:
            entry.parent.mkdir(parents=True, exist_ok=True)
            entry.write_text(f"[Desktop Entry]\nType=Application\nName=Tray Valet\n{text}\n")
        settings = {"desktop": {"autostart": is_wanted}, "providers": {}}
        return looks.autostart(ground_of(tmp_path / "home", settings, environ=environ))

    assert look(None, is_wanted=False).status is INFO
    assert look(None, is_wanted=True).status is WARN
    assert look("Exec=/bin/sh", is_wanted=True).status is OK
    broken = look(f"Exec={tmp_path}/moved/tray-valet", is_wanted=True)
    assert (broken.status, "no longer there" in broken.says) == (BAD, True)
    off = look("Exec=/bin/sh\nHidden=true", is_wanted=True)
    assert (off.status, "--force" in off.remedy) == (WARN, True)


@pytest.mark.parametrize(
    ("has_webview", "has_toolkit", "browser", "status"),
    [
        (True, True, "", OK),
        (True, False, "chromium", INFO),
        (False, True, "chromium", INFO),
        (True, False, "", WARN),
    ],
)
def test_what_shows_the_window(
    has_webview: bool, has_toolkit: bool, browser: str, status: FindingStatus
) -> None:
    found = rules.of_window(
        has_display=True, has_webview=has_webview, has_toolkit=has_toolkit, browser=browser
    )
    assert found.status is status
