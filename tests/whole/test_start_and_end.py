"""`tray-valet` as a process: without a desktop, started twice, ended by signals, started after a kill."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.whole.test_game_cycle import local_provider
from tests.whole.valet_process import ValetProcess, engine_pids, until

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and D-Bus as Unix has them")
NOWHERE = {"DBUS_SESSION_BUS_ADDRESS": "unix:path=/nonexistent/bus", "DISPLAY": "", "WAYLAND_DISPLAY": ""}
# No browser either: what opens windows is tested on its own.
BARE = {**NOWHERE, "PATH": "/nonexistent", "BROWSER": ""}
NOTHING: dict[str, Any] = {"providers": {}, "games": {"enabled": False}}
END_S = 30  # the product's own bound is 5 s; a busy machine may take much longer to say so


def _tray(home: Path, settings: dict[str, Any] | None = None, **more: Any) -> ValetProcess:
    return ValetProcess(home, settings or NOTHING, **{"command": (), "environ": BARE, **more})


def _run(valet: ValetProcess, *words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "tray_valet", *words]
    return subprocess.run(
        argv, env=valet.environment, capture_output=True, text=True, timeout=60, check=False
    )


def _has(file: Path, text: str) -> bool:
    return file.exists() and text in file.read_text()


def _said(valet: ValetProcess) -> str:
    return (valet.home / "stderr").read_text()


# -- without a desktop ----------------------------------------------------------------------------------


def test_without_a_session_bus_it_serves_and_says_why_once(tmp_path: Path) -> None:
    with _tray(tmp_path / "home") as valet:
        until(lambda: "session bus" in _said(valet), "it is said")
        assert valet.get("/")["name"] == "Tray Valet"
        assert valet.terminate() == 0
        lines = [line for line in _said(valet).splitlines() if "tray" in line.lower()]
        assert len(lines) == 1
        assert re.search(r"http://127\.0\.0\.1:\d+/ui/", lines[0])  # where the window is
        assert "tray-valet serve" in lines[0]  # what to do


def test_serve_says_nothing_of_a_tray_and_loads_none_of_its_libraries(tmp_path: Path) -> None:
    flags = ("-X", "importtime", "-m", "tray_valet", "serve")
    with ValetProcess(tmp_path / "home", NOTHING, environ=BARE) as valet:
        assert "tray:" not in _said(valet)
        maps = Path(f"/proc/{valet.pid}/maps")
        if maps.exists():
            assert not re.search(r"/(PIL|dbus_fast)/", maps.read_text())
        valet.post("/open")  # a window needs no tray
    home = {"TRAY_VALET_HOME": str(tmp_path / "other")}
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.yaml").write_text(
        json.dumps({"control": {"port": 0}, "router": {"port": 0}})
    )
    process = subprocess.Popen(
        [sys.executable, *flags], env={**valet.environment, **home}, stderr=subprocess.PIPE, text=True
    )
    try:
        until((tmp_path / "other" / "state" / "runtime.json").exists, "it serves")
        process.terminate()
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait(10)
    imported = {line.rpartition("|")[2].strip() for line in said.splitlines()}
    assert "tray_valet.lifecycle" in imported
    heavy = {name for name in imported if name.split(".")[0] in ("PIL", "pystray", "dbus_fast", "webview")}
    assert heavy | {name for name in imported if name.startswith("tray_valet.tray")} == set()


def test_an_address_in_use_ends_the_tray_too_with_one_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        valet = _tray(tmp_path / "home", {**NOTHING, "control": {"port": taken.getsockname()[1]}})
        done = _run(valet)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert str(taken) not in done.stderr
    assert "Traceback" not in done.stderr


# -- the end --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [(), ("serve",)], ids=["tray", "serve"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda n: n.name)
def test_a_signal_ends_everything_in_order(
    tmp_path: Path, tiny_model: Path, number: signal.Signals, command: tuple[str, ...]
) -> None:
    home = tmp_path / "home"
    settings = {**NOTHING, "providers": {"local": local_provider(home, tiny_model, "one")}}
    with _tray(home, settings, command=command) as valet:
        valet.post("/load", {"model": "one"})
        assert engine_pids(home)
        assert valet.end(number, within_s=END_S) == 0
        assert engine_pids(home) == []
        assert not (home / "state" / "runtime.json").exists()
        assert "Traceback" not in _said(valet)


@pytest.mark.parametrize("command", [(), ("serve",)], ids=["tray", "serve"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
def test_signals_that_keep_coming_change_nothing(
    tmp_path: Path, number: signal.Signals, command: tuple[str, ...]
) -> None:
    """Up to the very end of the process."""
    with _tray(tmp_path / "home", command=command) as valet:
        end_s, code = time.monotonic() + END_S, None
        while code is None:
            assert time.monotonic() < end_s
            os.kill(valet.pid, number)
            with suppress(subprocess.TimeoutExpired):
                code = valet.wait(0.001)
        assert code == 0
        assert "Traceback" not in _said(valet)


@pytest.mark.parametrize("command", [(), ("serve",)], ids=["tray", "serve"])
def test_a_signal_that_was_ignored_from_the_start_stays_so(tmp_path: Path, command: tuple[str, ...]) -> None:
    """`nohup tray-valet`."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        valet = _tray(tmp_path / "home", command=command)
        valet.start()
    finally:
        signal.signal(signal.SIGHUP, before)
    with valet:
        os.kill(valet.pid, signal.SIGHUP)
        assert valet.get("/")["name"] == "Tray Valet"
        assert valet.terminate() == 0


def test_quit_ends_it_too(tmp_path: Path) -> None:
    with _tray(tmp_path / "home") as valet:
        assert _run(valet, "quit").returncode == 0
        assert valet.wait(END_S) == 0


# -- one instance ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [(), ("serve",)], ids=["tray", "serve"])
def test_a_second_start_has_the_first_one_open_its_window(tmp_path: Path, first: tuple[str, ...]) -> None:
    with _tray(tmp_path / "home", command=first) as valet:
        done = _run(valet, "--json")
        assert done.returncode == 0, done.stderr
        # Nothing can open a window here, so it says where it is.
        assert json.loads(done.stdout) == {
            "ok": True,
            "action": "open",
            "way": "address",
            "url": f"{valet.places['control']['url']}/ui/",
        }
        assert "already running" in _run(valet).stdout
        assert valet.get("/")["name"] == "Tray Valet"  # and the first one goes on


def test_of_many_starts_at_once_one_runs_and_the_others_end_well(tmp_path: Path) -> None:
    valet = _tray(tmp_path / "home")
    argv = [sys.executable, "-m", "tray_valet"]
    starts = [
        subprocess.Popen(
            argv, env=valet.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    try:
        until(lambda: sum(s.poll() is not None for s in starts) == 3, "three have ended")
        ended = [s for s in starts if s.poll() is not None]
        said = [s.communicate(timeout=30) for s in ended]
        assert [s.returncode for s in ended] == [0, 0, 0], said
        assert all("already running" in out for out, _ in said), said
        assert _run(valet, "quit").returncode == 0
        until(lambda: all(s.poll() is not None for s in starts), "the last has ended")
    finally:
        for start in starts:
            start.kill()
            start.communicate()


def test_a_second_start_does_not_need_the_desktop_of_the_first(tmp_path: Path) -> None:
    """`open` asks the running valet; without one it ends with 3."""
    with _tray(tmp_path / "home") as valet:
        done = _run(valet, "open")
        assert (done.returncode, "/ui/" in done.stdout) == (0, True)
        assert valet.terminate() == 0
        assert _run(valet, "open").returncode == 3


def test_with_a_token_the_commands_open_the_window_and_others_cannot(tmp_path: Path) -> None:
    with _tray(tmp_path / "home", {**NOTHING, "control": {"local_access": "token"}}) as valet:
        assert _run(valet, "open").returncode == 0
        assert valet.control.post("/open").status_code == 401


def test_a_foreign_page_cannot_open_the_window(tmp_path: Path) -> None:
    with _tray(tmp_path / "home") as valet:
        answer = valet.control.post("/open", headers={"Origin": "http://evil.example"})
        assert answer.status_code == 403
        assert valet.control.get("/open").status_code == 405
        assert valet.control.post("/open", json={"url": "http://x"}).status_code == 400


# -- after a crash ---------------------------------------------------------------------------------------


def test_a_crash_is_said_at_the_next_start_and_never_again(tmp_path: Path, tiny_model: Path) -> None:
    home = tmp_path / "home"
    settings = {**NOTHING, "providers": {"local": local_provider(home, tiny_model, "one")}}

    def started() -> str:
        return str(valet.activity("valet_started")[0]["text"])

    with _tray(home, settings) as valet:
        assert started() == "Tray Valet started."
        valet.kill()
        valet.start()
        assert started() == "Tray Valet was interrupted. Nothing had to be brought back."
        valet.post("/load", {"model": "one"})
        until(lambda: _has(home / "state" / "journal.json", '"one"'), "it is noted")
        valet.kill()
        valet.start()
        assert started().startswith("Tray Valet was interrupted with models loaded.")
        until(lambda: set(valet.loaded()) == {"one"}, "it is back")
        assert valet.terminate() == 0
        valet.start()
        assert started() == "Tray Valet started."


def test_an_orderly_end_during_a_pause_is_no_crash(tmp_path: Path, tiny_model: Path) -> None:
    home = tmp_path / "home"
    settings = {**NOTHING, "providers": {"local": local_provider(home, tiny_model, "one")}}
    with _tray(home, settings) as valet:
        valet.post("/load", {"model": "one"})
        valet.post("/pause")
        assert valet.terminate() == 0
        valet.start()
        assert valet.activity("valet_started")[0]["text"] == "Tray Valet started."
        valet.wait_state("paused")


# -- starting at sign-in -----------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="would touch this user's own list")
def test_the_setting_turns_autostart_on_and_off_while_it_runs(tmp_path: Path) -> None:
    entry = tmp_path / "config" / "autostart" / "tray-valet.desktop"
    environ = {**BARE, "XDG_CONFIG_HOME": str(tmp_path / "config"), "XDG_CONFIG_DIRS": str(tmp_path / "etc")}
    with _tray(tmp_path / "home", environ=environ) as valet:
        assert not entry.exists()
        valet.write_settings({**NOTHING, "desktop": {"autostart": True}})
        until(entry.exists, "the entry is made")
        entry.unlink()  # the user's own hand
        assert valet.terminate() == 0
        valet.start()
        assert not entry.exists()
        assert _run(valet, "autostart", "on").returncode == 0
        assert entry.exists()
        valet.write_settings({**NOTHING, "desktop": {"autostart": False}})
        until(lambda: not entry.exists(), "the entry is taken out")
